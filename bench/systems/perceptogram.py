"""Perceptogram (Fei et al., arXiv 2404.01250): ridge regressions from EEG to CLIP's image embedding and to the VAE's
latent; a frozen generator makes the image from both. It has no network that is trained on EEG.

Differences from the released code: an IP-Adapter, the one that ATM uses, instead of the unCLIP model; penalties by
leave-one-out on the training trials instead of one number for all outputs; predictions are rescaled with the
leave-one-out predictions' mean and deviation instead of the test predictions'; the data set's items, channels and
window instead of 17 channels and means over 80 trials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Numerics, Sampling, Score, Targets, Weights, training
from bench.experiment.variant import check_flags, refuse
from bench.systems.guided import plan_generator
from bench.systems.linear import ALPHAS, Factors, Ridge

SCALING = 0.18215  # a latent at the U-Net's scale is the VAE's times this, in the released code's generator
GAIN = 0.02 / SCALING  # released code: 0.02 of the VAE's latent


@dataclass(frozen=True)
class Spec:
    """The regressions, and how their predictions are used. Raises BenchError for values outside their range.

    latent         predicts the VAE's latent too; `gain` times it is added to the initial noise
    gain           at the U-Net's scale (released code: 0.02 of the VAE's latent, which is 0.02 / 0.18215)
    restandardise  rescales predictions to the training targets' mean and standard deviation
    eeg_free       as in On
    """

    name: str = field(default="Perceptogram", compare=False)
    latent: bool = True
    gain: float = GAIN
    restandardise: bool = True
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "perceptogram"

    def __post_init__(self) -> None:
        check_flags(self, "latent", "restandardise")
        if isinstance(self.gain, bool) or not isinstance(self.gain, (int, float)) or not 0 < self.gain < math.inf:
            raise refuse(self, f"gain must be a number above 0, not {self.gain!r}; use latent=False to leave the "
                               "latent out")
        if not self.latent and self.gain != GAIN:
            raise refuse(self, "gain is a setting of the latent, but latent=False; leave it out")


@dataclass(frozen=True)
class EmbeddedPictures(Stage):
    """Images from every item's predicted embedding, in Generate's format, and the embeddings (embedding.npy).

    latent  predicts what `gain` times is added to the initial noise
    unet    if vae is None, the folder of a pipeline that contains the VAE and the prompt encoders too
    """

    embedding: Ridge
    latent: Ridge | None
    gain: float
    restandardise: bool
    seed: int
    items: Items
    clip: Weights
    adapter: Weights
    unet: Weights
    vae: Weights | None
    numerics: Numerics
    sampling: Sampling

    @property
    def samples(self) -> int:
        """Samples per item."""
        return self.sampling.samples


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Plans the regressions, which are the same for every seed, and the images."""
    unet, clip, vae, sampling = plan_generator(scale)
    targets = Targets(items.trials, clip, vae, 1, scale.single_process)
    factors = Factors(training(items), targets if items.eeg == "clip" else None, scale.fp32)
    images = EmbeddedPictures(
        embedding=Ridge(factors, targets, ALPHAS, embedding=True),
        latent=Ridge(factors, targets, ALPHAS) if spec.latent else None, gain=spec.gain if spec.latent else 0.0,
        restandardise=spec.restandardise, seed=seed, items=items, clip=clip, adapter=scale.weights("adapter"),
        unet=unet, vae=None if vae.name.startswith(f"{unet.name}/") else vae, numerics=scale.single_process,
        sampling=sampling)
    return scale.score(images, items)


register({EmbeddedPictures: Kind("bench.train.perceptogram:generate_images", "generate", rate="generate",
                                 forecast="bench.cost.systems.perceptogram:seconds",
                                 cost="bench.cost.systems.perceptogram:cost")})
