"""Masked signal modelling in space and time: a token is a group of channels over a stretch of time, as image patches
are."""

from __future__ import annotations

import math

from torch import Tensor

from models.encoders import msm_vit


def grid(channels: int, times: int, tokens: int) -> tuple[int, int]:
    """Groups of channels and stretches of time, whose product is `tokens`: as many of each as can be, rather more
    stretches than groups. ValueError where no such grid has at least two groups."""
    for groups in range(math.isqrt(tokens), 1, -1):
        if not (tokens % groups or channels % groups or times % (tokens // groups)):
            return groups, tokens // groups
    raise ValueError(f"{channels} channels x {times} time steps cannot be cut into a grid of {tokens} equal tokens: "
                     f"the number of channels needs a divisor of {tokens} from 2 to {math.isqrt(tokens)}")


class Encoder(msm_vit.Encoder):
    """EEG [B, C, T] to tokens [B, T / patch, width], each of adjacent channels, in the recording's order, and adjacent
    time steps; the tokens of a group of channels stand together.

    As many tokens as `msm_vit` has, of as many numbers (patch * C), so that there are as many parameters; with C = 128,
    T = 512 and patch 4 they form 8 groups of 16 channels by 16 stretches of 32 steps. Source: none has EEG tokens of
    this size; chosen so, that only what a token is differs. Positions count the tokens, as in `msm_vit`.
    """

    in_time = False

    def __init__(self, channels: int, times: int, width: int, depth: int, heads: int, mlp_ratio: float = 1.0,
                 patch: int = 4):
        super().__init__(channels, times, width, depth, heads, mlp_ratio, patch)
        self.grid = grid(channels, times, times // patch)

    def patchify(self, eeg: Tensor) -> Tensor:
        """EEG [B, C, T] as patches [B, T / patch, patch * C], time step by time step within a patch."""
        batch, channels, times = eeg.shape
        groups, stretches = self.grid
        cells = eeg.reshape(batch, groups, channels // groups, stretches, times // stretches)
        return cells.permute(0, 1, 3, 4, 2).reshape(batch, groups * stretches, -1)
