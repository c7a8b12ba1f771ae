"""Masked signal modelling channel by channel (Sec. 4.1 has it the other way): a token is one channel's whole window."""

from __future__ import annotations

from torch import Tensor

from models.encoders import msm_vit


class Encoder(msm_vit.Encoder):
    """EEG [B, C, T] to tokens [B, C, width], each of one channel alone: masked, embedded and reconstructed by itself.

    At the paper's size a token holds as many numbers as one of `msm_vit` (512), and there are as many (128); so there
    are as many parameters. `patch` is not used.
    """

    in_time = False

    def __init__(self, channels: int, times: int, width: int, depth: int, heads: int, mlp_ratio: float = 1.0,
                 patch: int = 4):
        super().__init__(times, channels, width, depth, heads, mlp_ratio, patch=1)

    def patchify(self, eeg: Tensor) -> Tensor:
        """EEG [B, C, T] as it is: a patch is a channel."""
        return eeg
