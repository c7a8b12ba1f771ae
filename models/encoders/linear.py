"""One linear map of the whole trial to one token: the plainest encoder, and that of the oracles."""

from __future__ import annotations

from torch import Tensor, nn


class Encoder(nn.Module):
    """forward: [B, C, T] -> [B, 1, width]. `depth` and `heads` have no meaning here."""

    def __init__(self, channels: int, times: int, width: int, depth: int, heads: int):
        super().__init__()
        self.project = nn.Linear(channels * times, width)

    def forward(self, eeg: Tensor) -> Tensor:
        return self.project(eeg.flatten(1))[:, None]
