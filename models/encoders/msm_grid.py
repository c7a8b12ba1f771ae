"""Masked signal modelling in space and time: a token is a group of channels over a span of time, like image patches."""

from __future__ import annotations

import math

from torch import Tensor

from models.encoders import msm_vit


def grid(channels: int, times: int, tokens: int) -> tuple[int, int]:
    """The numbers of channel groups and time spans, whose product is `tokens`, as square as possible, spans >= groups.

    Raises ValueError if no such grid has at least two groups.
    """
    for groups in range(math.isqrt(tokens), 1, -1):
        if not (tokens % groups or channels % groups or times % (tokens // groups)):
            return groups, tokens // groups
    raise ValueError(f"{channels} channels x {times} time steps cannot be cut into a grid of {tokens} equal tokens: "
                     f"the number of channels must have a divisor of {tokens} from 2 to {math.isqrt(tokens)}")


class Encoder(msm_vit.Encoder):
    """EEG [B, C, T] -> tokens [B, T / patch, width] of adjacent channels, in the recording's order, and adjacent times.

    Tokens are ordered by channel group, then by time. Their number and length (patch * C) are `msm_vit`'s, so is the
    number of parameters; with C = 128, T = 512 and patch 4 they form 8 groups of 16 channels by 16 spans of 32 times.
    No source has EEG tokens of this size; chosen so that only the meaning of a token differs. Positions count tokens.
    """

    in_time = False

    def __init__(self, channels: int, times: int, width: int, depth: int, heads: int, mlp_ratio: float = 1.0,
                 patch: int = 4):
        super().__init__(channels, times, width, depth, heads, mlp_ratio, patch)
        self.grid = grid(channels, times, times // patch)

    def patchify(self, eeg: Tensor) -> Tensor:
        """EEG [B, C, T] as patches [B, T / patch, patch * C], time step by time step within a patch."""
        batch, channels, times = eeg.shape
        groups, spans = self.grid
        cells = eeg.reshape(batch, groups, channels // groups, spans, times // spans)
        return cells.permute(0, 1, 3, 4, 2).reshape(batch, groups * spans, -1)
