"""The encoder of masked signal modelling (Sec. 3.1, 4.1): a ViT whose tokens are adjacent times of all channels."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn


def positions(length: int, width: int) -> Tensor:
    """Fixed sine-cosine positions [length, width]."""
    step = torch.arange(length, dtype=torch.float64)[:, None]
    angle = step * 10000 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.cat([angle.sin(), angle.cos()], 1)[:, :width].float()


def initialise(module: nn.Module) -> None:
    """Initialises linear layers with Xavier-uniform weights and zero biases, as in the paper's masked autoencoders."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class Encoder(nn.Module):
    """EEG [B, C, T] -> tokens [B, T / patch, width].

    The original's class token is used only in pre-training and by no loss; models.mae can add it.
    """

    in_time = True  # tokens are spans of time, so predictors in time can be compared

    def __init__(self, channels: int, times: int, width: int, depth: int, heads: int, mlp_ratio: float = 1.0,
                 patch: int = 4):
        super().__init__()
        if times % patch:
            raise ValueError(f"{times} time steps cannot be divided into patches of {patch}")
        self.patch = patch
        self.embed = nn.Linear(patch * channels, width)
        self.register_buffer("positions", positions(times // patch, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(initialise)

    def patchify(self, eeg: Tensor) -> Tensor:
        """EEG [B, C, T] as patches [B, T / patch, patch * C], time step by time step within a patch."""
        batch, channels, times = eeg.shape
        return eeg.transpose(1, 2).reshape(batch, times // self.patch, self.patch * channels)

    def tokenize(self, eeg: Tensor) -> Tensor:
        """EEG [B, C, T] as embedded patches with their positions, [B, L, width]."""
        return self.embed(self.patchify(eeg)) + self.positions

    def encode(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Features [B, n, width] of tokens [B, n, width]; keep: [B, n], their indices among L.

        `keep` is not needed here, as tokens carry their positions.
        """
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def forward(self, eeg: Tensor) -> Tensor:
        return self.encode(self.tokenize(eeg))
