"""ThoughtViz (Tirupattur et al., ACM MM 2018): an EEG classifier, and a GAN conditioned on its features.

Layers, kernels and constants are those of the released code (Keras) for colour images, unless stated otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

FEATURES, NOISE = 100, 100  # of the EEG, and of the generator's input, which is uniform in [-1, 1]
TIMES = 32  # samples of an EEG window of which the released kernels leave one step
LEAST = 30  # samples that the EEG classifier's kernels need
START = 4  # side of the generator's first feature map
EPS = 1e-3  # of batch normalisation (Keras' default)
MOMENTUM, MOMENTUM_GENERATOR = 0.01, 0.2  # torch's momentum: 1 - Keras' .99 and .8


class EegClassifier(nn.Module):
    """EEG [B, C, T] -> class logits [B, classes].

    Layers as released for [14, 32]: convolutions over 4 samples (32 filters), all channels (25), 4 samples (50) and 2
    (100), each with ReLU, max pooling over 3 samples after the second and third; a dense layer of 100 units, whose ReLU
    is the feature, and the class logits; batch normalisation of the whole input at once, and before both dense layers.
    Chosen here for longer windows: the first kernel and the first pool are T // 32 times as long, so that later layers
    get about as many steps. momentum: torch's, 1 - Keras'. Raises ValueError for T < 30, too short for the kernels.
    """

    def __init__(self, channels: int, times: int, classes: int, filters: Sequence[int] = (32, 25, 50, 100),
                 momentum: float = MOMENTUM):
        super().__init__()
        if times < LEAST:
            raise ValueError(f"EEG [{channels}, {times}] is too short for the kernels; expected at least {LEAST}")
        longer = max(1, times // TIMES)
        first, second, third, fourth = filters
        self.input = nn.BatchNorm2d(1, EPS, momentum)
        self.first = nn.Conv2d(1, first, (1, 4 * longer))
        self.convolutions = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, (channels, 1)), nn.ReLU(), nn.MaxPool2d((1, 3 * longer)),
            nn.Conv2d(second, third, (1, 4)), nn.ReLU(), nn.MaxPool2d((1, 3)),
            nn.Conv2d(third, fourth, (1, 2)), nn.ReLU())
        width = fourth * ((((times - 4 * longer + 1) // (3 * longer)) - 3) // 3 - 1)
        self.dense = nn.Sequential(nn.BatchNorm1d(width, EPS, momentum), nn.Linear(width, FEATURES), nn.ReLU())
        self.head = nn.Sequential(nn.BatchNorm1d(FEATURES, EPS, momentum), nn.Linear(FEATURES, classes))
        initialise(self)

    def features(self, eeg: Tensor) -> Tensor:
        """The features [B, 100] of EEG [B, C, T] that condition the generator, all >= 0."""
        windows = self.input(eeg[:, None])[:, 0].unfold(2, self.first.kernel_size[1], 1)
        filtered = linear(windows, self.first.weight[:, 0, 0], self.first.bias)  # a third faster than `first` on a CPU
        return self.dense(self.convolutions(filtered.permute(0, 3, 1, 2)).flatten(1))

    def forward(self, eeg: Tensor) -> Tensor:
        return self.head(self.features(eeg))


class MixtureOfGaussians(nn.Module):
    """Noise [B, width] -> noise * std + mean, both learned; std begins uniform in +-.2, mean in +-1."""

    def __init__(self, width: int):
        super().__init__()
        self.std = nn.Parameter(torch.empty(width).uniform_(-0.2, 0.2))
        self.mean = nn.Parameter(torch.empty(width).uniform_(-1.0, 1.0))

    def forward(self, noise: Tensor) -> Tensor:
        return noise * self.std + self.mean


class Generator(nn.Module):
    """Noise [B, 100] and EEG features [B, 100] -> images [B, 3, S, S] in [0, 1), S = 4 * 2 ** len(widths).

    The mixture, a dense layer with tanh, times the features, a dense map to 4 x 4 with widths[0] channels, transposed
    convolutions of 5 x 5 and stride 2 down to 3 channels; ReLU and batch normalisation after each but the last, which
    has ReLU and then tanh: the released code trains on images in [0, 1].
    """

    def __init__(self, widths: Sequence[int] = (512, 256, 128, 64)):
        super().__init__()
        self.mixture = MixtureOfGaussians(NOISE)
        self.mixed = nn.Sequential(nn.Linear(NOISE, FEATURES), nn.Tanh())
        self.dense = nn.Sequential(
            nn.BatchNorm1d(FEATURES, EPS, MOMENTUM_GENERATOR), nn.Linear(FEATURES, widths[0] * START * START),
            nn.ReLU(), nn.Unflatten(1, (widths[0], START, START)))
        layers: list[nn.Module] = []
        for wide, narrow in pairwise((*widths, 3)):
            layers += [nn.BatchNorm2d(wide, EPS, MOMENTUM_GENERATOR),
                       nn.ConvTranspose2d(wide, narrow, 5, 2, padding=2, output_padding=1), nn.ReLU()]
        self.up = nn.Sequential(*layers, nn.Tanh())
        initialise(self)

    def forward(self, noise: Tensor, features: Tensor) -> Tensor:
        return self.up(self.dense(self.mixed(self.mixture(noise)) * features))


class Discriminator(nn.Module):
    """Images [B, 3, S, S] in [0, 1] -> logits [B] of being real.

    Convolutions of 3 x 3 without padding, strides 2 and 1 in turn, each with LeakyReLU .2, dropout and, except the
    last, batch normalisation; then a dense layer. The released code has six convolutions, for 64 x 64.
    """

    def __init__(self, side: int, widths: Sequence[int] = (16, 32, 64, 128, 256, 512), dropout: float = 0.5):
        super().__init__()
        layers: list[nn.Module] = []
        for number, (narrow, wide) in enumerate(pairwise((3, *widths))):
            stride = 1 if number % 2 else 2
            side = (side - 3) // stride + 1
            layers += [nn.Conv2d(narrow, wide, 3, stride), nn.LeakyReLU(0.2), nn.Dropout(dropout),
                       nn.BatchNorm2d(wide, EPS, MOMENTUM)]
        self.layers = nn.Sequential(*layers[:-1], nn.Flatten(), nn.Linear(widths[-1] * side * side, 1))
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)[:, 0]


class ImageClassifier(nn.Module):
    """Images [B, 3, S, S] in [0, 1] -> class logits [B, classes]: the auxiliary head, trained before the GAN.

    The released code loads a trained one without describing it. Chosen here: convolutions of 3 x 3 and stride 2 with
    batch normalisation and ReLU, the mean over positions, a dense layer. In training, Gaussian noise of a standard
    deviation between 0 and `noise` is added to each image; without it a generator soon finds adversarial images.
    """

    def __init__(self, classes: int, widths: Sequence[int], noise: float = 0.0):
        super().__init__()
        self.noise = noise
        layers: list[nn.Module] = []
        for narrow, wide in pairwise((3, *widths)):
            layers += [nn.Conv2d(narrow, wide, 3, 2, 1), nn.BatchNorm2d(wide), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))

    def forward(self, images: Tensor) -> Tensor:
        if self.training and self.noise:
            std = self.noise * torch.rand(len(images), 1, 1, 1, device=images.device)
            images = images + std * torch.randn_like(images)
        return self.layers(images)


def initialise(module: nn.Module) -> None:
    """Keras' initial weights, in place: Glorot's uniform weights, zero biases."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
