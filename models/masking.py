"""Random masking of tokens (Sec. 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Masking:
    """The visible and the masked of L tokens: `keep` [B, n] and `remove` [B, L - n], ascending indices, int64."""

    keep: Tensor
    remove: Tensor

    def to(self, device: torch.device | str) -> Masking:
        """The same on another device."""
        return Masking(self.keep.to(device), self.remove.to(device))


def random_masking(batch: int, length: int, ratio: float, generator: torch.Generator) -> Masking:
    """Masks int(length * ratio) tokens of each sample, uniformly over all such sets.

    Raises ValueError if the ratio masks no token or all.
    """
    visible = length - int(length * ratio)
    if not 0 < visible < length:
        raise ValueError(f"mask ratio {ratio} leaves {visible} of {length} tokens visible; expected 1 to {length - 1}")
    order = torch.rand(batch, length, generator=generator, device=generator.device).argsort(1)
    return Masking(order[:, :visible].sort(1).values, order[:, visible:].sort(1).values)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens [B, n, D] at index [B, n] of tokens [B, L, D]."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
