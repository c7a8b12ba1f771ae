"""ATM, the Adaptive Thinking Mapper (Li et al., NeurIPS 2024): attention between channels, then NICE's convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

from models.encoders.nice import TemporalSpatial

SUBJECTS = 10  # rows of the released code's table of subjects
FEEDFORWARD = 256
DROPOUT = 0.25


class Attention(nn.Module):
    """Self-attention over tokens [B, n, width] whose heads are width // heads wide, rounded down: 4 x 62 of 250."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        inner = width // heads * heads
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (part(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
                             for part in (self.query, self.key, self.value))
        seen = scaled_dot_product_attention(query, key, value, dropout_p=DROPOUT if self.training else 0.0)
        return self.out(seen.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A layer of iTransformer (Liu et al., ICLR 2024), normalised after each sum: tokens [B, n, width] -> the same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention, self.attention_norm = Attention(width, heads), nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, FEEDFORWARD), nn.GELU(), nn.Dropout(DROPOUT),
                                         nn.Linear(FEEDFORWARD, width), nn.Dropout(DROPOUT))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.attention_norm(tokens + dropout(self.attention(tokens), DROPOUT, self.training))
        return self.norm(tokens + self.feedforward(tokens))


class ChannelAttention(nn.Module):
    """EEG [B, C, T] -> [B, C, T] (faithful: one of its rows is the subject's): a token is a channel's whole window.

    subjects: those that are trained on. What differs between the paper and the released code:
                    paper (faithful=False)                      released code (faithful=True)
    position        sinusoidal                                  none is ever added
    subject token   a row for each subject; for one that was    a row for each number below 10, so that number 10 has
                    not trained, their mean (chosen so)         the token of the unknown, and row 0 is nobody's
    what goes on    the channels                                the subject token and all channels but the last
    parameters                                                  six rows more, which nothing uses: a map of the time of
                                                                day (4) and two tokens for masks
    The released code gives a whole batch the token of the unknown where one of its trials has it.
    """

    def __init__(self, channels: int, times: int, depth: int = 1, heads: int = 4,
                 subjects: Sequence[int] = (), faithful: bool = True):
        super().__init__()
        self.faithful = faithful
        self.value = nn.Linear(times, times)
        self.subject = nn.Parameter(torch.randn(SUBJECTS if faithful else len(subjects), times))
        if faithful:
            self.unknown = nn.Parameter(torch.randn(1, times))
            self.unused = nn.Parameter(torch.zeros(6, times))
        else:
            self.register_buffer("known", torch.tensor(subjects, dtype=torch.int64))
            self.register_buffer("position", positions(channels, times), persistent=False)
        self.dropout = nn.Dropout(DROPOUT)
        self.layers = nn.ModuleList(Layer(times, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(times)

    def subject_token(self, subject: Tensor) -> Tensor:
        """The token [B, T] of each trial's subject [B]."""
        if self.faithful:
            table = torch.cat([self.subject, self.unknown])
            return table[torch.where((subject >= 0) & (subject < SUBJECTS), subject, SUBJECTS)]
        table = torch.cat([self.subject, self.subject.mean(0, keepdim=True)])
        own = subject[:, None] == self.known
        return table[torch.where(own.any(1), own.int().argmax(1), len(self.known))]

    def forward(self, eeg: Tensor, subject: Tensor | None = None) -> Tensor:
        """subject: [B], the subjects' numbers; None: unknown."""
        if subject is None:
            subject = torch.full((len(eeg),), -1, device=eeg.device)
        channels = self.value(eeg)
        if not self.faithful:
            channels = channels + self.position
        tokens = self.dropout(torch.cat([self.subject_token(subject)[:, None], channels], 1))
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens[:, :-1] if self.faithful else tokens[:, 1:])


def positions(length: int, width: int) -> Tensor:
    """Sines and cosines of a place, in turn, [length, width] (Vaswani et al. 2017)."""
    angle = torch.arange(length)[:, None] * 10000 ** -(torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :width]


class Encoder(nn.Module):
    """ATM before its projector, as released: [B, C, T] -> [B, L, width]; its width is 40, depth 1, heads 4.

    subject: [B], the subjects' numbers; None: unknown. subjects, faithful: as of ChannelAttention.
    """

    def __init__(self, channels: int, times: int, width: int, depth: int = 1, heads: int = 4,
                 subjects: Sequence[int] = (), faithful: bool = True, filters: int = 40):
        super().__init__()
        self.attention = ChannelAttention(channels, times, depth, heads, subjects, faithful)
        self.convolution = TemporalSpatial(channels, times, width, filters)

    def forward(self, eeg: Tensor, subject: Tensor | None = None) -> Tensor:
        return self.convolution(self.attention(eeg, subject))
