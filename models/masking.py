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


def count_visible(length: int, ratio: float, rounding: str = "masked") -> int:
    """The number of visible tokens of L. rounding: which number is rounded down, "masked" or (released code) "kept".

    Raises ValueError for another rounding.
    """
    if rounding not in ("masked", "kept"):
        raise ValueError(f"rounding must be 'masked' or 'kept', not {rounding!r}")
    return length - int(length * ratio) if rounding == "masked" else int(length * (1 - ratio))


def random_masking(batch: int, length: int, ratio: float, generator: torch.Generator,
                   rounding: str = "masked") -> Masking:
    """Masks a share of the tokens of each sample, uniformly over all such sets; rounding: as `count_visible`.

    Raises ValueError if the ratio masks no token or all.
    """
    visible = count_visible(length, ratio, rounding)
    if not 0 < visible < length:
        raise ValueError(f"mask ratio {ratio} leaves {visible} of {length} tokens visible; expected 1 to {length - 1}")
    order = torch.rand(batch, length, generator=generator, device=generator.device).argsort(1)
    return Masking(order[:, :visible].sort(1).values, order[:, visible:].sort(1).values)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens [B, n, D] at index [B, n] of tokens [B, L, D]."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
