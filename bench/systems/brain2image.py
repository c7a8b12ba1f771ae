"""Brain2Image (Kavasidis et al., ACM MM 2017): a GAN or a VAE, conditioned on an LSTM's feature of the EEG."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register
from bench.experiment.scale import Scale, sized
from bench.experiment.stages import Items, Numerics, Score, training
from bench.experiment.variant import check_choices, refuse

DECODERS = ("gan", "vae")


@dataclass(frozen=True)
class Spec:
    """decoder: "gan" or "vae". eeg_free: as in On. Raises BenchError for another decoder."""

    name: str = field(compare=False)
    decoder: str = "gan"
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "brain2image"

    def __post_init__(self) -> None:
        check_choices(self, decoder=DECODERS)


@dataclass(frozen=True)
class EncoderSchedule:
    """Adam with a constant rate, cross-entropy."""

    steps: int
    batch: int
    lr: float


@dataclass(frozen=True)
class GanSchedule:
    """Adam with one constant rate and beta1 for both networks, which take steps in turn. alone: earlier steps without
    EEG. real: the discriminator's target for a real image with its own EEG (0.9 smooths the label). average: decay of
    the generator's moving average, which is the result."""

    alone: int
    steps: int
    batch: int
    lr: float
    beta1: float = 0.5
    real: float = 0.9
    average: float = 0.99


@dataclass(frozen=True)
class VaeSchedule(EncoderSchedule):
    """Adam with one constant rate for both networks."""


@dataclass(frozen=True)
class Sizes:
    """Networks (models.brain2image) and schedules of a scale; side: of the generated images, in pixels."""

    hidden: int
    feature: int
    noise: int
    width: int
    side: int
    encoder: EncoderSchedule
    gan: GanSchedule
    vae: VaeSchedule


# The encoder's schedule is that of the authors' released classifier: 200 epochs of 1,600 trials. Those of the decoders
# are not published; chosen here: DCGAN's rate for the GAN (Radford et al. 2016), and 800 epochs (GAN: a quarter without
# EEG).
PAPER = Sizes(hidden=128, feature=128, noise=100, width=64, side=64,
              encoder=EncoderSchedule(steps=20_000, batch=16, lr=1e-3),
              gan=GanSchedule(alone=5_000, steps=15_000, batch=64, lr=2e-4, average=0.999),
              vae=VaeSchedule(steps=20_000, batch=64, lr=1e-3))
TINY = Sizes(hidden=64, feature=64, noise=100, width=32, side=32,
             encoder=EncoderSchedule(steps=1000, batch=32, lr=2e-3),
             gan=GanSchedule(alone=300, steps=1200, batch=16, lr=5e-4),
             vae=VaeSchedule(steps=1200, batch=32, lr=1e-3))
MICRO = Sizes(hidden=8, feature=8, noise=4, width=4, side=16,
              encoder=EncoderSchedule(steps=20, batch=16, lr=5e-3),
              gan=GanSchedule(alone=4, steps=8, batch=16, lr=5e-4),
              vae=VaeSchedule(steps=20, batch=16, lr=2e-3))
SIZES = {"tiny": TINY, "micro": MICRO, "rehearsal": replace(MICRO, side=64), "paper": PAPER}


@dataclass(frozen=True)
class Brain2ImageEncoder(Stage):
    """The LSTM, trained to classify the EEG of `items`; the last step is the result. The released code reports the best
    epoch on the validation part, which the suite keeps for the control "other_trial"."""

    items: Items
    hidden: int
    feature: int
    schedule: EncoderSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Brain2ImageGan(Stage):
    """The conditional GAN's generator, trained on the images and EEG features of the encoder's items."""

    encoder: Brain2ImageEncoder
    noise: int
    width: int
    side: int
    schedule: GanSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Brain2ImageVae(Stage):
    """The conditional VAE's decoder, trained on the same data."""

    encoder: Brain2ImageEncoder
    noise: int
    width: int
    side: int
    schedule: VaeSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Brain2ImagePictures(Stage):
    """Images from each item's EEG and each sample's noise, in Generate's format."""

    decoder: Brain2ImageGan | Brain2ImageVae
    items: Items
    samples: int
    batch: int
    seed: int
    numerics: Numerics


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Plans the encoder, the decoder and the images. Raises BenchError for the oracle "clip"."""
    if items.eeg == "clip":
        raise refuse(spec, "the control 'clip' needs CLIP, which Brain2Image does not have; use eeg='label'")
    sizes = sized(SIZES, scale, spec.system)
    encoder = Brain2ImageEncoder(training(items), sizes.hidden, sizes.feature, sizes.encoder, seed, scale.fp32)
    networks = sizes.noise, sizes.width, sizes.side
    decoder = (Brain2ImageGan(encoder, *networks, sizes.gan, seed, scale.fp32) if spec.decoder == "gan" else
               Brain2ImageVae(encoder, *networks, sizes.vae, seed, scale.fp32))
    sampling = scale.sampling
    return scale.score(Brain2ImagePictures(decoder, items, sampling.samples, sampling.batch, seed, scale.fp32), items)


_kind = partial(Kind, forecast="bench.cost.systems.brain2image:seconds", cost="bench.cost.systems.brain2image:cost")
register({
    Brain2ImageEncoder: _kind("bench.train.brain2image:train_encoder", "finetune", trains=True),
    Brain2ImageGan: _kind("bench.train.brain2image:train_gan", "finetune", trains=True),
    Brain2ImageVae: _kind("bench.train.brain2image:train_vae", "finetune", trains=True),
    Brain2ImagePictures: _kind("bench.train.brain2image:generate_images", "generate"),
})
