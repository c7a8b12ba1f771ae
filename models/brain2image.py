"""Brain2Image (Kavasidis et al., ACM MM 2017): an LSTM that makes a feature of EEG, and what makes pictures of it, a
conditional GAN or a conditional VAE.

No code of it was ever released. The LSTM is that of the classifier which its authors published. Of the decoders it is
known at second hand what the generator is given and that a VAE's decoder is given the same feature; not verified are
pictures of 64 pixels and a discriminator that judges pairs. Everything else was chosen here.
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

    An LSTM of one layer over time, its last step, a linear map and ReLU: the authors' released classifier
    (eeg_visual_classification, lstm.py), with 128 units and 128 features; `logits` has its last linear map.

    Ours: the EEG is standardised channel by channel (`fit`); the biases begin so that the units remember over times up
    to the length of a trial (Tallec and Ollivier 2018), where the released code has torch's own, with which the LSTM
    learns the tiny world's training trials by heart and tells others hardly better than chance; the feature is divided
    by the root mean square that `measure` found, which brings it to the size of the decoders' noise.
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
            self.lstm.bias_ih_l0.copy_(torch.cat([-forget, forget, zero, zero]))  # torch's order: in, forget, cell, out
            self.lstm.bias_hh_l0.zero_()

    @torch.no_grad()
    def fit(self, eeg: Tensor) -> None:
        """Takes each channel's mean and standard deviation from EEG [N, C, T]; a silent channel stays as it is."""
        self.mean.copy_(eeg.mean((0, 2))[:, None])
        deviation = eeg.std((0, 2))[:, None]
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1))

    @torch.no_grad()
    def measure(self, features: Tensor) -> None:
        """Takes the root mean square of features [N, feature]."""
        size = features.square().mean().sqrt()
        self.size.mul_(torch.where(size > 0, size, 1))

    def _rectified(self, eeg: Tensor) -> Tensor:
        steps, _ = self.lstm(((eeg - self.mean) / self.deviation).transpose(1, 2))
        return F.relu(self.feature(steps[:, -1]))

    def forward(self, eeg: Tensor) -> Tensor:
        return self._rectified(eeg) / self.size

    def logits(self, eeg: Tensor) -> Tensor:
        """Of the classes, [B, n_outputs]."""
        return self.head(self._rectified(eeg))


class Generator(nn.Module):
    """Noise [B, noise] and the EEG's feature [B, feature] -> pictures [B, 3, side, side] in -1 to 1.

    Both are concatenated (100 numbers and 128, known at second hand). The layers are not known: DCGAN's (Radford et
    al. 2016) were chosen, transposed convolutions of kernel 4 from 4 x 4 pixels, doubled until `side`, with batch
    normalisation and ReLU, tanh at the end, weights from a normal distribution of deviation 0.02; `width` maps before
    the last layer, twice as many in each one below.
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
    """Pictures [B, 3, side, side] and features [B, feature] -> logits [B]: whether a picture is real and goes with the
    EEG. `trunk` looks at the picture, `judge` at what it saw and at the feature.

    Not known: chosen as in a text-to-image GAN (Reed et al. 2016, Sec. 4.1). Strided convolutions down to 4 x 4
    pixels; the feature, mapped to `joined` numbers, is repeated at each of them; a convolution of kernel 1 and one of
    kernel 4.
    Ours: spectral normalisation (Miyato et al. 2018) in place of batch normalisation.
    """

    def __init__(self, feature: int = 128, width: int = 64, side: int = 64, joined: int = 128):
        super().__init__()
        self.trunk = trunk(width, side, spectral_norm)
        maps = width * 2**(doublings(side) - 1)
        self.feature = spectral_norm(nn.Linear(feature, joined))
        self.join = spectral_norm(nn.Conv2d(maps + joined, maps, 1))
        self.verdict = spectral_norm(nn.Conv2d(maps, 1, START))

    def judge(self, seen: Tensor, feature: Tensor) -> Tensor:
        """Logits [B] of what the trunk saw [B, maps, 4, 4] and features [B, feature]."""
        condition = F.leaky_relu(self.feature(feature), 0.2)[:, :, None, None].expand(-1, -1, START, START)
        return self.verdict(F.leaky_relu(self.join(torch.cat([seen, condition], 1)), 0.2)).flatten()

    def forward(self, pictures: Tensor, feature: Tensor) -> Tensor:
        return self.judge(self.trunk(pictures), feature)


class PictureEncoder(nn.Module):
    """The VAE's encoder: pictures [B, 3, side, side] -> mean and logarithm of the variance, each [B, noise].

    Not known: the discriminator's convolutions were chosen. It does not see the EEG, so that the noise need not say
    again what the EEG says of a picture. Its decoder is the Generator.
    """

    def __init__(self, noise: int = 100, width: int = 64, side: int = 64):
        super().__init__()
        self.trunk = trunk(width, side)
        self.moments = nn.Linear(width * 2**(doublings(side) - 1) * START**2, 2 * noise)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.moments(self.trunk(pictures).flatten(1)).chunk(2, 1)
        return mean, log_variance


def doublings(side: int) -> int:
    """How often 4 pixels are doubled to make `side`. Raises ValueError for a side that they never make."""
    depth = round(math.log2(side / START))
    if depth < 1 or START * 2**depth != side:
        raise ValueError(f"pictures of {side} pixels: expected 8, 16, 32, 64, ...")
    return depth


def trunk(width: int, side: int, norm=lambda layer: layer) -> nn.Sequential:
    """Pictures [B, 3, side, side] -> maps [B, width * 2**k, 4, 4] by convolutions of kernel 4 and stride 2, leaky
    ReLU."""
    layers: list[nn.Module] = []
    before = 3
    for k in range(doublings(side)):
        layers += [norm(nn.Conv2d(before, width * 2**k, 4, 2, 1)), nn.LeakyReLU(0.2)]
        before = width * 2**k
    return nn.Sequential(*layers)


def dcgan(module: nn.Module) -> None:
    """DCGAN's first weights (Radford et al. 2016, Sec. 4)."""
    if isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
