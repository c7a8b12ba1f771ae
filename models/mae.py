"""The masked autoencoder of Sec. 3.1: asymmetric, with a loss on masked tokens only. Its decoder is discarded."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from models.encoders.msm_vit import Encoder, initialise, positions
from models.masking import Masking, gather_tokens


class MaskedAutoencoder(nn.Module):
    """An encoder with `tokenize(eeg)` and `encode(tokens, keep)`, and a shallow decoder.

    The encoder gets visible tokens only; the decoder gets them and mask tokens, each with its position, unordered; only
    masked tokens reach the head. has_class_token: a trained token without position passes through encoder and decoder
    beside the visible ones (released code); no loss uses its output, and the encoder must ignore `keep`.
    """

    def __init__(self, encoder: nn.Module, channels: int, times: int, width: int, tokens: int, decoder_width: int = 64,
                 decoder_depth: int = 1, heads: int = 4, mlp_ratio: float = 1.0, has_class_token: bool = False):
        super().__init__()
        if times % tokens and not hasattr(encoder, "patchify"):
            raise ValueError(f"{times} time steps cannot be divided into {tokens} equal tokens")
        self.encoder, self.tokens = encoder, tokens
        self.embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_width))
        self.register_buffer("positions", positions(tokens, decoder_width), persistent=False)
        self.blocks = nn.ModuleList(Block(decoder_width, heads, mlp_ratio, qkv_bias=True) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(decoder_width)
        self.head = nn.Linear(decoder_width, channels * times // tokens)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in (self.embed, self.blocks, self.head):
            module.apply(initialise)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width)) if has_class_token else None

    def targets(self, eeg: Tensor, masking: Masking) -> Tensor:
        """The raw content of the masked tokens of EEG [B, C, T]: [B, m, C * T / tokens].

        Tokens are the encoder's `patchify(eeg)` [B, tokens, C * T / tokens], if it has one, else equal spans of time.
        """
        patchify = getattr(self.encoder, "patchify", lambda eeg: eeg.transpose(1, 2).reshape(len(eeg), self.tokens, -1))
        return gather_tokens(patchify(eeg), masking.remove)

    def predict(self, eeg: Tensor, masking: Masking) -> Tensor:
        """The prediction of `targets`."""
        visible, places = self._visible(eeg, masking.keep), self.positions[masking.keep]
        if self.class_token is not None:
            visible = torch.cat([self.class_token.expand(len(visible), -1, -1), visible], 1)
            places = nn.functional.pad(places, (0, 0, 1, 0))
        seen = self.embed(self.encoder.encode(visible, masking.keep)) + places
        hidden = self.mask_token + self.positions[masking.remove]
        tokens = torch.cat([seen, hidden], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, seen.shape[1] :]))

    def _visible(self, eeg: Tensor, keep: Tensor) -> Tensor:
        """The visible tokens with positions [B, n, width]; msm_vit never embeds masked patches if that widens them."""
        encoder = self.encoder
        if type(encoder) is Encoder and encoder.embed.in_features < encoder.embed.out_features:
            return encoder.embed(gather_tokens(encoder.patchify(eeg), keep)) + encoder.positions[keep]
        return gather_tokens(encoder.tokenize(eeg), keep)

    def forward(self, eeg: Tensor, masking: Masking) -> Tensor:
        """The mean squared error on masked patches, a scalar."""
        return nn.functional.mse_loss(self.predict(eeg, masking), self.targets(eeg, masking))
