"""Brain2Image (Kavasidis et al., ACM MM 2017): an LSTM turns EEG into a feature; a conditional GAN or VAE decodes it.

No code was released. The LSTM is that of the authors' published classifier. From secondary sources: the inputs of the
generator, and that the VAE's decoder gets the same feature. Not verified: images of 64 pixels, and a discriminator that
judges pairs. Everything else was chosen here.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

START = 4  # side of the smallest maps


class Encoder(nn.Module):
    """EEG [B, C, T] -> feature [B, feature].

    One LSTM layer over time, its last step, a linear map and ReLU: the authors' released classifier
    (eeg_visual_classification, lstm.py), with 128 units and 128 features; `logits` adds its last linear map.

    Ours: the EEG is standardised by channel (`fit`). The biases begin so that units remember up to the length of a
    trial (Tallec and Ollivier 2018); with torch's biases, as released, the LSTM overfits the tiny world's training
    trials and classifies others hardly above chance. The feature is divided by its root mean square (`measure`), which
    is the scale of the decoders' noise.
    """

    mean: Tensor
    deviation: Tensor
    size: Tensor

    def __init__(self, n_chans: int, n_times: int, n_outputs: int, hidden: int = 128, feature: int = 128):
        super().__init__()
        self.lstm = nn.LSTM(n_chans, hidden, batch_first=True)
        self.feature = nn.Linear(hidden, feature)
        self.head = nn.Linear(feature, n_outputs)
        self.register_buffer("mean", torch.zeros(n_chans, 1))
        self.register_buffer("deviation", torch.ones(n_chans, 1))
        self.register_buffer("size", torch.ones(()))
        with torch.no_grad():
            forget = torch.log(torch.empty(hidden).uniform_(1, max(2, n_times - 1)))
            zero = torch.zeros(hidden)
            self.lstm.bias_ih_l0.copy_(torch.cat([-forget, forget, zero, zero]))  # input, forget, cell, output
            self.lstm.bias_hh_l0.zero_()

    @torch.no_grad()
    def fit(self, eeg: Tensor) -> None:
        """Sets each channel's mean and standard deviation from EEG [N, C, T]; a constant channel is not scaled."""
        self.mean.copy_(eeg.mean((0, 2))[:, None])
        deviation = eeg.std((0, 2))[:, None]
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1))

    @torch.no_grad()
    def measure(self, features: Tensor) -> None:
        """Multiplies `size` by the root mean square of features [N, feature]."""
        size = features.square().mean().sqrt()
        self.size.mul_(torch.where(size > 0, size, 1))

    def _rectify(self, eeg: Tensor) -> Tensor:
        steps, _ = self.lstm(((eeg - self.mean) / self.deviation).transpose(1, 2))
        return F.relu(self.feature(steps[:, -1]))

    def forward(self, eeg: Tensor) -> Tensor:
        return self._rectify(eeg) / self.size

    def logits(self, eeg: Tensor) -> Tensor:
        """Class logits [B, n_outputs]."""
        return self.head(self._rectify(eeg))


class Generator(nn.Module):
    """Noise [B, noise] and EEG features [B, feature] -> images [B, 3, side, side] in [-1, 1].

    Noise (100) and feature (128) are concatenated (secondary source). The layers are unknown; DCGAN's were chosen
    (Radford et al. 2016): transposed convolutions of kernel 4 from 4 x 4 pixels, doubled up to `side`, with batch
    normalisation and ReLU, tanh at the end, weights from N(0, 0.02^2); `width` maps before the last layer, twice as
    many in each layer before.
    """

    def __init__(self, noise: int = 100, feature: int = 128, width: int = 64, side: int = 64):
        super().__init__()
        depth = doublings(side)
        maps = [width * 2**k for k in reversed(range(depth))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(noise + feature, maps[0], START, 1, 0, bias=False),
                                   nn.BatchNorm2d(maps[0]), nn.ReLU(inplace=True)]
        for below, above in pairwise(maps):
            layers += [nn.ConvTranspose2d(below, above, 4, 2, 1, bias=False), nn.BatchNorm2d(above),
                       nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())
        self.apply(dcgan)

    def forward(self, noise: Tensor, feature: Tensor) -> Tensor:
        return self.layers(torch.cat([noise, feature], 1)[:, :, None, None])


class Discriminator(nn.Module):
    """Images [B, 3, side, side] and features [B, feature] -> logits [B]: whether an image is real and fits the EEG.

    Unknown; chosen as in a text-to-image GAN (Reed et al. 2016, Sec. 4.1): `trunk`, strided convolutions down to
    4 x 4 pixels; `judge`, the feature mapped to `joined` numbers and repeated at each pixel, a convolution of kernel 1
    and one of kernel 4. Ours: spectral normalisation (Miyato et al. 2018) instead of batch normalisation.
    """

    def __init__(self, feature: int = 128, width: int = 64, side: int = 64, joined: int = 128):
        super().__init__()
        self.trunk = trunk(width, side, spectral_norm)
        maps = width * 2**(doublings(side) - 1)
        self.feature = spectral_norm(nn.Linear(feature, joined))
        self.join = spectral_norm(nn.Conv2d(maps + joined, maps, 1))
        self.verdict = spectral_norm(nn.Conv2d(maps, 1, START))

    def judge(self, maps: Tensor, feature: Tensor) -> Tensor:
        """Logits [B] of the trunk's maps [B, maps, 4, 4] and features [B, feature]."""
        condition = F.leaky_relu(self.feature(feature), 0.2)[:, :, None, None].expand(-1, -1, START, START)
        return self.verdict(F.leaky_relu(self.join(torch.cat([maps, condition], 1)), 0.2)).flatten()

    def forward(self, images: Tensor, feature: Tensor) -> Tensor:
        return self.judge(self.trunk(images), feature)


class ImageEncoder(nn.Module):
    """The VAE's encoder: images [B, 3, side, side] -> mean and log variance, each [B, noise]; its decoder is Generator.

    Unknown; the discriminator's convolutions were chosen. It gets no EEG, so that the noise need not repeat it.
    """

    def __init__(self, noise: int = 100, width: int = 64, side: int = 64):
        super().__init__()
        self.trunk = trunk(width, side)
        self.moments = nn.Linear(width * 2**(doublings(side) - 1) * START**2, 2 * noise)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.moments(self.trunk(images).flatten(1)).chunk(2, 1)
        return mean, log_variance


def doublings(side: int) -> int:
    """The number of doublings from 4 pixels to `side`. Raises ValueError for any other side."""
    depth = round(math.log2(side / START))
    if depth < 1 or START * 2**depth != side:
        raise ValueError(f"images of {side} pixels: expected 8, 16, 32, 64, ...")
    return depth


def trunk(width: int, side: int, norm=lambda layer: layer) -> nn.Sequential:
    """Images [B, 3, side, side] -> maps [B, width * 2**k, 4, 4]: convolutions of kernel 4 and stride 2, leaky ReLU."""
    layers: list[nn.Module] = []
    before = 3
    for k in range(doublings(side)):
        layers += [norm(nn.Conv2d(before, width * 2**k, 4, 2, 1)), nn.LeakyReLU(0.2)]
        before = width * 2**k
    return nn.Sequential(*layers)


def dcgan(module: nn.Module) -> None:
    """DCGAN's initial weights, in place (Radford et al. 2016, Sec. 4)."""
    if isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
