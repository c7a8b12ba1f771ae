"""Maps from EEG tokens to the U-Net's condition (tau, Sec. 3.2) and to CLIP space (h, Eq. 3).

LatentHead, TimeCondition and one form of LinearTau are of DreamDiffusion's released code.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class Tau(nn.Module):
    """tau: EEG tokens [B, L, width] -> cross-attention context [B, M, D]; it begins at text.

    Mixes the L tokens into M, maps them linearly, adds them to a trainable base and applies a LayerNorm. The first
    context is in the space that the frozen U-Net was trained on: the base begins at `text`, the mean text tokens [M, D]
    of the class captions, and the LayerNorm at `norm`, the text tower's last one.
    """

    def __init__(self, tokens: int, width: int, text: Tensor, norm: nn.LayerNorm):
        super().__init__()
        context, dim = text.shape
        self.mix = nn.Conv1d(tokens, context, 1)
        self.scale = nn.LayerNorm(width)
        self.project = nn.Linear(width, dim)
        self.norm = nn.LayerNorm(dim, eps=norm.eps)
        self.norm.load_state_dict(norm.state_dict())
        with torch.no_grad():
            self.base = nn.Parameter((text - norm.bias) / norm.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.base + self.project(self.scale(self.mix(tokens))))


class LinearTau(nn.Module):
    """tau without text, base or norm: EEG tokens [B, L, width] -> context [B, M, D], random at the start.

    Mixes the L tokens into M and maps them linearly. between: the L tokens are mixed into so many first, without a
    nonlinearity (released code: L // 2).
    """

    def __init__(self, tokens: int, width: int, context: int, dim: int, between: int | None = None):
        super().__init__()
        sizes = [tokens, context] if between is None else [tokens, between, context]
        self.mix = nn.Sequential(*(nn.Conv1d(a, b, 1) for a, b in itertools.pairwise(sizes)))
        self.project = nn.Linear(width, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.project(self.mix(tokens))


def build_tau(kind: str, tokens: int, width: int, text: Tensor, norm: nn.LayerNorm) -> nn.Module:
    """Returns a new tau for tokens [B, L, width] and the context of `text` [M, D]; kind: as Variant.tau.

    Raises ValueError for another kind.
    """
    if kind == "text":
        return Tau(tokens, width, text, norm)
    if kind not in ("released", "linear"):
        raise ValueError(f"tau must be 'text', 'released' or 'linear', not {kind!r}")
    return LinearTau(tokens, width, *text.shape, between=max(1, tokens // 2) if kind == "released" else None)


class Head(nn.Module):
    """h: context [B, M, D] -> CLIP space or class logits, [B, out]: one linear map of the mean context token.

    projection: [D, out], the initial map (CLIP's text projection); None: random.
    """

    def __init__(self, dim: int, out: int, projection: Tensor | None = None):
        super().__init__()
        self.linear = nn.Linear(dim, out, bias=projection is None)
        if projection is not None:
            with torch.no_grad():
                self.linear.weight.copy_(projection.T)

    def forward(self, context: Tensor) -> Tensor:
        return self.linear(context.mean(1))


class LatentHead(nn.Module):
    """h of the released code, without tau: EEG tokens [B, L, width], mixed to one -> CLIP space or logits, [B, out]."""

    def __init__(self, tokens: int, width: int, out: int):
        super().__init__()
        self.mix = nn.Conv1d(tokens, 1, 1)
        self.linear = nn.Linear(width, out)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.mix(tokens)[:, 0])


class TimeCondition(nn.Module):
    """The released code's second condition: context [B, M, D] -> an addition to the time step's embedding, [B, out].

    M tokens are mixed into M // 2, those into one, which is mapped linearly.
    """

    def __init__(self, context: int, dim: int, out: int):
        super().__init__()
        self.mix = nn.Sequential(nn.Conv1d(context, context // 2, 1), nn.Conv1d(context // 2, 1, 1))
        self.linear = nn.Linear(dim, out)

    def forward(self, context: Tensor) -> Tensor:
        return self.linear(self.mix(context)[:, 0])

    def attach(self, unet: nn.Module) -> None:
        """Adds its output to the time step's embedding in every later call unet(latents, time, context)."""
        contexts: list[Tensor] = []

        def before(module: nn.Module, arguments: tuple, named: dict) -> None:
            contexts[:] = [named["encoder_hidden_states"] if "encoder_hidden_states" in named else arguments[2]]

        unet.register_forward_pre_hook(before, with_kwargs=True)
        unet.time_embedding.register_forward_hook(lambda module, arguments, embedded: embedded + self(contexts.pop()))
