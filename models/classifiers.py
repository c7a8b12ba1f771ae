"""EEGNet, a classifier of EEG."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class EEGNet(nn.Module):
    """EEGNet-8,2 (Lawhern et al. 2018, Table 2): [B, C, T] -> class logits [B, n_outputs].

    A temporal filter bank, spatial filters for each band (depthwise, norm at most 1) and a separable convolution, with
    batch normalisation, pooling by 4 and 8, and dropout. The kernel is half a second long, rounded down to odd.
    """

    def __init__(self, n_chans: int, n_times: int, sfreq: float, n_outputs: int, filters: int = 8, depth: int = 2,
                 dropout: float = 0.5):
        super().__init__()
        kernel, wide = int(sfreq / 2 - 1) // 2 * 2 + 1, filters * depth
        self.temporal = nn.Sequential(nn.Conv2d(1, filters, (1, kernel), padding="same", bias=False),
                                      nn.BatchNorm2d(filters))
        self.spatial = nn.Conv2d(filters, wide, (n_chans, 1), groups=filters, bias=False)
        self.pool = nn.Sequential(nn.BatchNorm2d(wide), nn.ELU(), nn.AvgPool2d((1, 4)), nn.Dropout(dropout))
        self.separable = nn.Sequential(
            nn.ZeroPad2d((7, 8, 0, 0)), nn.Conv2d(wide, wide, (1, 16), groups=wide, bias=False),
            nn.Conv2d(wide, wide, 1, bias=False),
            nn.BatchNorm2d(wide), nn.ELU(), nn.AvgPool2d((1, 8)), nn.Dropout(dropout))
        self.head = nn.Linear(wide * (n_times // 4 // 8), n_outputs)

    def forward(self, eeg: Tensor) -> Tensor:
        return self.head(self.separable(self.pool(self._filter(eeg))).flatten(1))

    def _filter(self, eeg: Tensor) -> Tensor:
        """Computes spatial(temporal(eeg)): [B, C, T] -> [B, wide, 1, T].

        All three layers are linear, so the few spatial filters are applied before the temporal ones: the result differs
        by rounding only, and the temporal filters have `depth` signals instead of C. The statistics of the batch
        normalisation between them follow from the mean and the Gram matrix of the EEG over time.
        """
        batch, _, times = eeg.shape
        norm, filters = self.temporal[1], len(self.temporal[0].weight)
        temporal = _band_matrix(self.temporal[0].weight[:, 0, 0], times)  # [filters, T, T]
        spatial = self.spatial.weight.view(filters, -1, eeg.shape[1])  # [filters, depth, C]
        if self.training:
            series = eeg.reshape(-1, times)
            mean = (series.mean(0) @ temporal).mean(1)
            power = (temporal * ((series.T @ series / len(series)) @ temporal)).sum((1, 2)) / times
            variance = power - mean.square()
            _update(norm, mean.detach(), variance.detach(), eeg.numel())
        else:
            mean, variance = norm.running_mean, norm.running_var
        gain = norm.weight / (variance + norm.eps).sqrt()
        offset = (norm.bias - mean * gain)[:, None] * spatial.sum(2)  # [filters, depth]
        signals = (spatial.flatten(0, 1) @ eeg).view(batch, filters, -1, times).transpose(0, 1).flatten(1, 2)
        filtered = (signals @ (temporal * gain[:, None, None])).view(filters, batch, -1, times)
        return (filtered + offset[:, None, :, None]).transpose(0, 1).reshape(batch, -1, 1, times)

    @torch.no_grad()
    def limit(self) -> None:
        """Limits the norm of spatial filters to 1 and of the head's rows to 0.25; call it after every step."""
        for layer, most in ((self.spatial, 1.0), (self.head, 0.25)):
            layer.weight.copy_(torch.renorm(layer.weight, 2, 0, most))


def _band_matrix(kernels: Tensor, times: int) -> Tensor:
    """The matrices [F, T, T] by which signals [n, T] are multiplied to correlate them with kernels [F, K], K odd, zero
    padded at both ends."""
    margin = times - 1 - kernels.shape[1] // 2
    wide = pad(kernels, (margin, margin))  # [F, 2T - 1]; a negative margin crops
    step = torch.arange(times, device=kernels.device)
    return wide[:, step[:, None] - step + times - 1]


@torch.no_grad()
def _update(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Moves the running statistics towards those of a batch of `count` values, as the layer does in training."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
