"""One count of FLOPs, for the prices of `bench plan` and for the log of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count

BACKWARD = [getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_backward") for kernel in (
    "efficient_attention", "flash_attention", "flash_attention_for_cpu", "cudnn_attention")]


def make_counter() -> FlopCounterMode:
    """Returns a context that counts matrix products and convolutions, 2 for each multiply-add.

    Attention is two matrix products forward and four backward, whichever kernel computes it. For fused kernels torch
    itself counts a fifth: the product of queries and keys, which they compute again.
    """
    return FlopCounterMode(display=False, custom_mapping=dict.fromkeys(BACKWARD, _attention_backward))


def _attention_backward(gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int],
                        *_: Any, **__: Any) -> int:
    """The FLOPs of the backward pass of attention, from shapes [B, heads, L, width]."""
    batch, heads, queries, width = query
    return sdpa_backward_flop_count(gradient, query, key, value) - 2 * batch * heads * queries * width * key[2]
