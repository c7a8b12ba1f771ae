"""The linear baseline (Takagi and Nishimoto, CVPR 2023) on EEG: ridge regressions to the VAE's latent and to the text
condition, then image-to-image with the unchanged generator.

Differences from the original: the scale's generator, sampler, steps and guidance instead of Stable Diffusion 1.4, DDIM,
50 steps, guidance 5; latent and c are both predicted from the whole EEG, not from early visual and ventral cortex; the
data set's items are tested, not means over repetitions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from bench.experiment.key import Stage, added
from bench.experiment.kinds import Kind, register
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Numerics, Sampling, Score, Targets, Weights, training
from bench.experiment.variant import check_flags, refuse

ALPHAS = tuple(10.0**power for power in range(10))  # penalties; released code: 1e-6 to 1, for far fewer features


@dataclass(frozen=True)
class Spec:
    """The regressions, and how their predictions are used. Raises BenchError for values outside their range.

    latent         predicts the VAE's latent, the start of image-to-image; False: sampling starts from noise
    condition      predicts the text condition c of the class's caption; False: the empty caption
    strength       share of the sampler's steps that image-to-image takes (released code: 40 of 50)
    restandardise  rescales predictions to the training targets' mean and standard deviation, as in Perceptogram (Fei et
                   al. 2024)
    eeg_free       as in On
    """

    name: str = field(compare=False)
    latent: bool = True
    condition: bool = True
    strength: float = 0.8
    restandardise: bool = False
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        check_flags(self, "latent", "condition", "restandardise")
        if not self.latent and not self.condition:
            raise refuse(self, "latent=False and condition=False leave nothing to predict from the EEG; set one")
        if isinstance(self.strength, bool) or not isinstance(self.strength, (int, float)) or not 0 < self.strength <= 1:
            raise refuse(self, f"strength must be above 0 and at most 1, not {self.strength!r}")


@dataclass(frozen=True)
class Factors(Stage):
    """The singular value decomposition of the flattened, standardised training EEG, shared by all ridge regressions.
    embeddings: the input of the oracle "clip" instead of EEG, otherwise None."""

    items: Items
    embeddings: Targets | None
    numerics: Numerics


@dataclass(frozen=True)
class Ridge(Stage):
    """A ridge regression from EEG; each output has the penalty with the least leave-one-out error on training trials.

    target: Targets, for the latents of the whole images, or with `embedding` for their CLIP embeddings; or CLIP's
    Weights, for the text tokens of "a {class}" (the original: their mean over the image's COCO captions, which no EEG
    data set has). One trial is left out at a time; if an image was shown several times, its other trials remain, so
    penalties are too small.
    """

    factors: Factors
    target: Targets | Weights
    alphas: tuple[float, ...]
    embedding: bool = added(False)


@dataclass(frozen=True)
class ImageToImage(Stage):
    """Images from the predictions, in Generate's format."""

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
        """The decomposition that the regressions share."""
        ridge = self.latent or self.condition
        assert ridge is not None
        return ridge.factors

    @property
    def samples(self) -> int:
        """Samples per item."""
        return self.sampling.samples

    @property
    def steps(self) -> int:
        """The number of sampler steps that are taken."""
        return int(self.sampling.steps * self.strength) if self.latent else self.sampling.steps

    @property
    def guidance(self) -> float:
        """The scale's guidance; 1 without a condition."""
        return self.sampling.guidance if self.condition else 1.0


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Plans the regressions, which are the same for every seed, and image-to-image (Fig. 2). Raises BenchError for a
    sampler or a strength that image-to-image cannot use."""
    vae, clip, unet = map(scale.weights, ("vae", "clip", "unet"))
    latents = Targets(items.trials, clip, vae, max(1, scale.views), scale.single_process)  # not random crops
    factors = Factors(training(items), latents if items.eeg == "clip" else None, scale.fp32)
    images = ImageToImage(Ridge(factors, latents, ALPHAS) if spec.latent else None,
                          Ridge(factors, clip, ALPHAS) if spec.condition else None,
                          spec.strength if spec.latent else 1.0, spec.restandardise, items, vae, clip, unet,
                          scale.sampling, seed, scale.single_process)
    if spec.latent and scale.sampling.sampler != "dpmsolver++":
        raise refuse(spec, f"image-to-image supports only the sampler dpmsolver++, not {scale.sampling.sampler}; use "
                           "it, or latent=False")
    if not images.steps:
        raise refuse(spec, f"strength {spec.strength:g} of {scale.sampling.steps} steps is less than one step; use at "
                           f"least 1/{scale.sampling.steps}")
    return scale.score(images, items)


_kind = partial(Kind, forecast="bench.cost.systems.linear:seconds", cost="bench.cost.systems.linear:cost")
register({
    Factors: _kind("bench.train.linear:decompose", "finetune", trains=True),
    Ridge: _kind("bench.train.linear:fit_ridge", "finetune", trains=True),
    ImageToImage: _kind("bench.train.linear:generate_images", "generate", rate="generate"),
})
