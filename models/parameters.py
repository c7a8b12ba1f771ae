"""Counts parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def count_parameters(net: nn.Module) -> int:
    """Of its parameters."""
    return sum(parameter.numel() for parameter in net.parameters())
