"""The linear baseline (Takagi and Nishimoto, CVPR 2023) on EEG: ridge regressions to the VAE's latent and to the text
condition, then image-to-image through the untouched generator.

The scale's generator, sampler, steps and guidance stand for theirs (Stable Diffusion 1.4, DDIM, 50 steps, guidance 5).
They predict the latent from early visual cortex and c from ventral cortex, here both come from the whole EEG; they test
on the mean over repetitions, here on what the data set has as items.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from bench.errors import BenchError
from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Numerics, Sampling, Score, Targets, Weights, training

ALPHAS = tuple(10.0**power for power in range(10))  # penalties; the released code: 1e-6 to 1, of far fewer features


@dataclass(frozen=True)
class Spec:
    """Which regressions there are, and what becomes of their predictions.

    latent         to the VAE's latent, from which image-to-image begins; False: the sampler begins from noise
    condition      to the text condition c of the class's caption; False: the empty caption
    strength       share of the sampler's steps that image-to-image takes (released code: 40 of 50)
    restandardise  predictions are given back the mean and the deviation that the training targets have, as in
                   Perceptogram (Fei et al. 2024)
    eeg_free: as of On. Raises BenchError for values outside their range.
    """

    name: str = field(compare=False)
    latent: bool = True
    condition: bool = True
    strength: float = 0.8
    restandardise: bool = False
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        for what, value in (("latent", self.latent), ("condition", self.condition),
                            ("restandardise", self.restandardise)):
            if not isinstance(value, bool):
                raise BenchError(f"variant {self.name!r}: {what} is True or False, not {value!r}")
        if not self.latent and not self.condition:
            raise BenchError(f"variant {self.name!r}: with latent=False and condition=False nothing comes from the "
                             "EEG; set one of them")
        if isinstance(self.strength, bool) or not isinstance(self.strength, (int, float)) or not 0 < self.strength <= 1:
            raise BenchError(f"variant {self.name!r}: strength lies above 0 and is at most 1, not {self.strength!r}")


@dataclass(frozen=True)
class Factors(Stage):
    """The singular value decomposition of the training EEG, flattened and standardised: what all ridge regressions from
    it have in common. embeddings: what the oracle "clip" has in place of EEG; None for every other control."""

    items: Items
    embeddings: Targets | None
    numerics: Numerics


@dataclass(frozen=True)
class Ridge(Stage):
    """A ridge regression from EEG, each output with the penalty of least leave-one-out error on the training trials.

    target: Targets, for the latents of the whole pictures; or CLIP's Weights, for the text tokens of "a {class}" (the
    original: their mean over the picture's COCO captions, which no EEG data set has). Trials are left out one by one:
    where a picture was shown several times, its other trials stay, and penalties come out too small.
    """

    factors: Factors
    target: Targets | Weights
    alphas: tuple[float, ...]


@dataclass(frozen=True)
class ImageToImage(Stage):
    """Pictures from what was predicted, in Generate's format."""

    latent: Ridge | None
    condition: Ridge | None
    strength: float
    restandardise: bool
    items: Items
    vae: Weights
    clip: Weights
    unet: Weights
    sampling: Sampling
    seed: int
    numerics: Numerics

    @property
    def factors(self) -> Factors:
        """What the regressions have in common."""
        ridge = self.latent or self.condition
        assert ridge is not None
        return ridge.factors

    @property
    def samples(self) -> int:
        """Of each item."""
        return self.sampling.samples

    @property
    def steps(self) -> int:
        """How many of the sampler's steps are taken."""
        return int(self.sampling.steps * self.strength) if self.latent else self.sampling.steps

    @property
    def guidance(self) -> float:
        """The scale's; 1 without a condition, which has nothing to be guided to."""
        return self.sampling.guidance if self.condition else 1.0


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Two regressions and image-to-image (Fig. 2): nothing is run here. The regressions are the same under every
    seed."""
    vae, clip, unet = (scale.weights(part) for part in ("vae", "clip", "unet"))
    latents = Targets(items.trials, clip, vae, max(1, scale.views), scale.alone)  # also where crops are drawn anew
    factors = Factors(training(items), latents if items.eeg == "clip" else None, scale.fp32)
    pictures = ImageToImage(Ridge(factors, latents, ALPHAS) if spec.latent else None,
                            Ridge(factors, clip, ALPHAS) if spec.condition else None,
                            spec.strength if spec.latent else 1.0, spec.restandardise, items, vae, clip, unet,
                            scale.sampling, seed, scale.alone)
    if spec.latent and scale.sampling.sampler != "dpmsolver++":
        raise BenchError(f"variant {spec.name!r}: image-to-image is built for the sampler dpmsolver++, not "
                         f"{scale.sampling.sampler}; take that, or latent=False")
    if not pictures.steps:
        raise BenchError(f"variant {spec.name!r}: strength {spec.strength:g} of {scale.sampling.steps} steps is less "
                         f"than one step; take 1/{scale.sampling.steps} or more")
    return scale.score(pictures, items)


_kind = partial(Kind, forecast="bench.cost.systems.linear:seconds", cost="bench.cost.systems.linear:cost")
register({
    Factors: _kind("bench.train.linear:decompose", "finetune", trains=True),
    Ridge: _kind("bench.train.linear:fit_ridge", "finetune", trains=True),
    ImageToImage: _kind("bench.train.linear:generate_images", "generate", rate="generate"),
})
