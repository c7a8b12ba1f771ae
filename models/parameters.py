"""Counts parameters, without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def count_parameters(net: nn.Module) -> int:
    """The number of parameters of a network."""
    return sum(parameter.numel() for parameter in net.parameters())
