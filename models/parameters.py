"""Sizes of Stable Diffusion 1.5 and CLIP, and parameter counts. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

PIXELS = 512  # side of an image of Stable Diffusion 1.5
TOKENS = 77  # M, of a caption and of a condition
WIDTH = 768  # D, channels of a condition's token
EMBEDDING = 768  # D', dimensions of CLIP space


def count_parameters(net: nn.Module) -> int:
    """The number of parameters of a network."""
    return sum(parameter.numel() for parameter in net.parameters())
