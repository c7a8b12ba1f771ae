"""EEGNet, a classifier of EEG."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        hidden = self.pool(self.spatial(self.temporal(eeg[:, None])))
        return self.head(self.separable(hidden).flatten(1))

    @torch.no_grad()
    def limit(self) -> None:
        """Limits the norm of spatial filters to 1 and of the head's rows to 0.25; call it after every step."""
        for layer, most in ((self.spatial, 1.0), (self.head, 0.25)):
            layer.weight.copy_(torch.renorm(layer.weight, 2, 0, most))
