"""Masked signal modelling by channel (Sec. 4.1 uses time): a token is the whole window of one channel."""

from __future__ import annotations

from torch import Tensor

from models.encoders import msm_vit


class Encoder(msm_vit.Encoder):
    """EEG [B, C, T] -> tokens [B, C, width], one for each channel, which is masked, embedded and reconstructed alone.

    At the paper's size tokens have the length (512) and the number (128) of `msm_vit`'s, so the number of parameters is
    equal. `patch` is not used.
    """

    in_time = False

    def __init__(self, channels: int, times: int, width: int, depth: int, heads: int, mlp_ratio: float = 1.0,
                 patch: int = 4):
        super().__init__(times, channels, width, depth, heads, mlp_ratio, patch=1)

    def patchify(self, eeg: Tensor) -> Tensor:
        """EEG [B, C, T] unchanged: a patch is a channel."""
        return eeg
