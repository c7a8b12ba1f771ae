"""ATM with guided diffusion (Li et al., NeurIPS 2024): encoders of EEG into CLIP space, their losses, low-level path.

Layers and constants are those of the released code, unless stated otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, normalize

from models.encoders import atm
from models.encoders.nice import TemporalSpatial, in_proportion

TEMPERATURE = 0.07
WRITTEN = 0.9  # weight of the MSE in the loss as written; the paper's lambda is unknown, so that of "generation"


class Residual(nn.Sequential):
    """The sum of the input and its layers' output."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + super().forward(hidden)


def projector(width: int, out: int) -> nn.Sequential:
    """NICE's projector, [B, width] -> [B, out]: a linear map, a residual one after GELU with dropout .5, LayerNorm."""
    return nn.Sequential(nn.Linear(width, out), Residual(nn.GELU(), nn.Linear(out, out), nn.Dropout(0.5)),
                         nn.LayerNorm(out))


class Encoder(nn.Module):
    """EEG [B, C, T] and subject numbers [B] -> CLIP space [B, out].

    `logit_scale` [] is learned too. faithful: use it as the released code does, see `contrastive`.
    """

    def __init__(self, out: int, faithful: bool, temperature: float = TEMPERATURE):
        super().__init__()
        self.faithful = faithful
        self.register_buffer("out", torch.tensor(out))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))


class Atm(Encoder):
    """ATM-S: attention between channels, NICE's convolution, NICE's projector.

    With [63, 250] and out = 1024: 446,000 + 103,680 + 2,527,232 parameters, and the logit scale. Left out: two linear
    maps for each subject, of 125,500 parameters, which the released code never calls.
    """

    def __init__(self, channels: int, times: int, out: int, subjects: Sequence[int], faithful: bool,
                 filters: int = 40, width: int = 40):
        super().__init__(out, faithful)
        self.trunk = atm.Encoder(channels, times, width, subjects=subjects, faithful=faithful, filters=filters)
        self.project = projector(self.trunk.convolution.tokens * width, out)

    def forward(self, eeg: Tensor, subject: Tensor) -> Tensor:
        return self.project(self.trunk(eeg, subject).flatten(1))


class Nice(Encoder):
    """NICE (Song et al., ICLR 2024) with ATM's dimensions: its convolution and its projector."""

    def __init__(self, channels: int, times: int, out: int, subjects: Sequence[int], faithful: bool,
                 filters: int = 40, width: int = 40):
        super().__init__(out, faithful)
        self.trunk = TemporalSpatial(channels, times, width, filters)
        self.project = projector(self.trunk.tokens * width, out)

    def forward(self, eeg: Tensor, subject: Tensor) -> Tensor:
        return self.project(self.trunk(eeg).flatten(1))


class Enigma(Encoder):
    """ENIGMA (arXiv 2602.10361): a linear map of the window for each subject, NICE's convolution and projector.

    The convolution has shorter kernels and 4 features for each token. 1,405,242 parameters for one subject with
    [63, 250] and out = 1024, and the logit scale. The maps begin as torch's linear layers (unknown); an unknown subject
    gets the mean of the known ones' outputs (chosen here).
    """

    def __init__(self, channels: int, times: int, out: int, subjects: Sequence[int], faithful: bool,
                 filters: int = 40, width: int = 4):
        super().__init__(out, faithful)
        self.register_buffer("known", torch.tensor(subjects, dtype=torch.int64))
        self.align = nn.ModuleList(nn.Linear(times, times) for _ in subjects)
        self.trunk = TemporalSpatial(channels, times, width, filters, kernel=5, pool=17)
        self.project = projector(self.trunk.tokens * width, out)

    def forward(self, eeg: Tensor, subject: Tensor) -> Tensor:
        share = (subject[:, None] == self.known).to(eeg.dtype)
        share = torch.where(share.any(1, keepdim=True), share, 1 / len(self.known))
        aligned = sum(part[:, None, None] * align(eeg) for part, align in zip(share.unbind(1), self.align, strict=True))
        return self.project(self.trunk(aligned).flatten(1))


class EegNet(Encoder):
    """EEGNet v4 (Lawhern et al. 2018, as in braindecode) with a last linear map to `out`.

    Numbers of filters as released: 8, 20 for each, 160. The kernels of 4 (temporal) and 16 samples (separable) and the
    pools of 4 and 8 are scaled for windows of other lengths than 250 (chosen here). Spatial filters have a norm of at
    most 1.
    """

    def __init__(self, channels: int, times: int, out: int, subjects: Sequence[int], faithful: bool,
                 filters: int = 8, width: int = 20):
        super().__init__(out, faithful)
        kernel, separable, first, second = in_proportion(times, 4, 16, 4, 8)
        wide = filters * width

        def norm(features: int) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(features, eps=1e-3, momentum=0.01)

        self.temporal = nn.Sequential(nn.Conv2d(1, filters, (1, kernel), padding=(0, kernel // 2), bias=False),
                                      norm(filters))
        self.spatial = nn.Conv2d(filters, wide, (channels, 1), groups=filters, bias=False)
        self.pool = nn.Sequential(norm(wide), nn.ELU(), nn.AvgPool2d((1, first)), nn.Dropout(0.25))
        self.separable = nn.Sequential(
            nn.Conv2d(wide, wide, (1, separable), padding=(0, separable // 2), groups=wide, bias=False),
            nn.Conv2d(wide, wide, 1, bias=False),
            norm(wide), nn.ELU(), nn.AvgPool2d((1, second)), nn.Dropout(0.25))
        left = (times + 2 * (kernel // 2) - kernel + 1) // first
        left = left + 2 * (separable // 2) - separable + 1
        self.head = nn.Linear(wide * (left // second), out)

    def forward(self, eeg: Tensor, subject: Tensor) -> Tensor:
        weight = self.spatial.weight
        limited = weight / weight.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1)
        hidden = nn.functional.conv2d(self.temporal(eeg[:, None]), limited, groups=self.spatial.groups)
        return self.head(self.separable(self.pool(hidden)).flatten(1))


class Mlp(Encoder):
    """The released code's MLP: layers over time and over channels in turn, the last to one row, scaled to unit norm.

    Each layer is LayerNorm, a linear map, GELU and dropout .25. Its temperature begins at .01.
    """

    def __init__(self, channels: int, times: int, out: int, subjects: Sequence[int], faithful: bool,
                 filters: int = 64, width: int = 1024):
        super().__init__(out, faithful, 0.01)
        layers: list[nn.Module] = []
        for (rows, columns), (more_rows, more_columns) in pairwise(
                [(channels, times), *[(filters, width)] * 3, (1, out)]):
            layers += [*self._layer(columns, more_columns), Transposed(*self._layer(rows, more_rows))]
        self.layers = nn.Sequential(*layers)

    @staticmethod
    def _layer(before: int, after: int) -> list[nn.Module]:
        return [nn.LayerNorm(before), nn.Linear(before, after), nn.GELU(), nn.Dropout(0.25)]

    def forward(self, eeg: Tensor, subject: Tensor) -> Tensor:
        return normalize(self.layers(eeg)[:, 0], dim=1)


class Transposed(nn.Sequential):
    """Its layers, applied to the second of three dimensions."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden.transpose(1, 2)).transpose(1, 2)


KINDS = {"atm": Atm, "nice": Nice, "eegnet": EegNet, "enigma": Enigma, "mlp": Mlp}


def contrastive(encoder: Encoder, features: Tensor, targets: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy between features [B, D'] and targets [B, D'] of unit norm.

    In the paper, features are scaled to unit norm and cosines multiplied by exp(logit_scale) = 1 / temperature. In the
    released code (faithful), features keep their norm and are multiplied by logit_scale itself.
    """
    if encoder.faithful:
        logits = encoder.logit_scale * features @ targets.T
    else:
        logits = encoder.logit_scale.exp() * normalize(features, dim=1) @ targets.T
    pairs = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2


def encoder_loss(kind: str, encoder: Encoder, features: Tensor, image: Tensor, text: Tensor) -> Tensor:
    """The loss of an encoder on features [B, D'], given CLIP's unit embeddings of images and class names [B, D'].

    generation   10 (.9 MSE + .1 contrastive to images), the released code for generation
    retrieval    .99 contrastive to images + .01 contrastive to names, the released code for retrieval
    written      lambda contrastive to images + (1 - lambda) MSE, the paper; its lambda is unknown, here .1
    direct       MSE + contrastive to images + contrastive to names, ENIGMA's, all with weight 1 (chosen here). Its
                 target is CLIP's embedding before normalisation; here its norm is taken as sqrt(D'), so that a
                 coordinate has mean square 1
    """
    if kind == "retrieval":
        return 0.99 * contrastive(encoder, features, image) + 0.01 * contrastive(encoder, features, text)
    if kind == "direct":
        return (mse_loss(features, image * math.sqrt(image.shape[1])) + contrastive(encoder, features, image)
                + contrastive(encoder, features, text))
    loss = WRITTEN * mse_loss(features, image) + (1 - WRITTEN) * contrastive(encoder, features, image)
    return 10 * loss if kind == "generation" else loss


class LowLevel(nn.Module):
    """EEG [B, C, T] -> a VAE's latent [B, channels, side, side], side = 2 ** len(widths).

    A linear map of each channel's window to `hidden`, dropout .5 (the newer release), all outputs as one position of
    C * hidden channels, transposed convolutions that double the side, each with batch normalisation and ReLU, then
    1 x 1 convolutions to half the last width and to `channels`. 143,333,268 parameters with [63, 250] and the released
    widths; three quarters of the first convolution's 132 million have no effect, as a single position reaches only
    2 x 2 of a 4 x 4 kernel.
    """

    def __init__(self, eeg: tuple[int, int], channels: int, hidden: int = 128,
                 widths: Sequence[int] = (1024, 512, 256, 128, 64, 32)):
        super().__init__()
        self.register_buffer("shape", torch.tensor([channels, *[2 ** len(widths)] * 2]))
        self.project = nn.Sequential(nn.Linear(eeg[1], hidden), nn.Dropout(0.5))
        layers: list[nn.Module] = []
        for before, after in pairwise((eeg[0] * hidden, *widths)):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        last = widths[-1]
        self.up = nn.Sequential(*layers, nn.Conv2d(last, last // 2, 1), nn.BatchNorm2d(last // 2), nn.ReLU(),
                                nn.Conv2d(last // 2, channels, 1))

    def forward(self, eeg: Tensor) -> Tensor:
        return self.up(self.project(eeg).flatten(1)[:, :, None, None])
