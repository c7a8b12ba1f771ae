"""NICE's convolution over time and space (Song et al., ICLR 2024): a token is a stretch of time of all channels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

WINDOW = 250  # samples that the published kernels are made for: 1 s
LEAST = 16  # samples of EEG that are enough for kernels in that proportion


def in_proportion(times: int, *kernels: int) -> tuple[int, ...]:
    """Lengths for a window of `times` samples that stand to it as `kernels` stand to one of 250. ValueError where that
    is too short."""
    if times < LEAST:
        raise ValueError(f"{times} samples are too short for the kernels: at least {LEAST}")
    return tuple(max(1, round(kernel * times / WINDOW)) for kernel in kernels)


class TemporalSpatial(nn.Module):
    """EEG [B, C, T] -> tokens [B, L, width], the middle of NICE, ATM and ENIGMA (released code of each).

    A convolution over time, a mean over time, batch normalisation and ELU; one over all channels, batch normalisation,
    ELU and dropout; a linear map to `width`. kernel, pool and stride: in samples of a window of 250, in proportion for
    others (chosen so), with which L = 36. The mean is taken before the convolution over time, not after: both are
    linear, so that nothing changes but the work, which is a fifth.
    """

    def __init__(self, channels: int, times: int, width: int, filters: int = 40, kernel: int = 25, pool: int = 51,
                 stride: int = 5, dropout: float = 0.5):
        super().__init__()
        kernel, self.pool, stride = in_proportion(times, kernel, pool, stride)
        self.tokens = (times - kernel - self.pool + 1) // stride + 1
        self.temporal = nn.Conv2d(1, filters, (1, kernel), (1, stride))
        self.temporal_norm = nn.Sequential(nn.BatchNorm2d(filters), nn.ELU())
        self.spatial = nn.Conv2d(filters, filters, (channels, 1))
        self.spatial_norm = nn.Sequential(nn.BatchNorm2d(filters), nn.ELU(), nn.Dropout(dropout))
        self.project = nn.Conv2d(filters, width, 1)

    def forward(self, eeg: Tensor) -> Tensor:
        means = avg_pool2d(eeg[:, None], (1, self.pool), 1)
        hidden = self.spatial_norm(self.spatial(self.temporal_norm(self.temporal(means))))
        return self.project(hidden)[:, :, 0].transpose(1, 2)


class Encoder(TemporalSpatial):
    """NICE's encoder, [B, C, T] -> [B, L, width]; its width is 40. `depth` and `heads` have no meaning here."""

    def __init__(self, channels: int, times: int, width: int, depth: int, heads: int):
        super().__init__(channels, times, width)
