"""Brain2Image (Kavasidis et al., ACM MM 2017): an LSTM's feature of the EEG conditions a GAN, or a VAE."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

from bench.errors import BenchError
from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register
from bench.experiment.scale import Scale, sized
from bench.experiment.stages import Items, Numerics, Score, training

DECODERS = ("gan", "vae")


@dataclass(frozen=True)
class Spec:
    """decoder: what makes pictures of the EEG's feature, "gan" or "vae". eeg_free: as of On. Raises BenchError for
    another."""

    name: str = field(compare=False)
    decoder: str = "gan"
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "brain2image"

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise BenchError(f"variant {self.name!r}: decoder is one of {', '.join(DECODERS)}, not {self.decoder!r}")


@dataclass(frozen=True)
class EncoderSchedule:
    """Adam at one rate, cross-entropy, the last step's weights."""

    steps: int
    batch: int
    lr: float


@dataclass(frozen=True)
class GanSchedule:
    """Adam at one rate and beta1 for both networks, which take steps in turn. alone: steps without the EEG, before.

    real: what the discriminator is to say of a real picture with its own EEG; 0.9 smooths the label. average: the
    generator that is kept is a mean over steps that forgets with this factor.
    """

    alone: int
    steps: int
    batch: int
    lr: float
    beta1: float = 0.5
    real: float = 0.9
    average: float = 0.99


@dataclass(frozen=True)
class VaeSchedule:
    """Adam at one rate for both networks."""

    steps: int
    batch: int
    lr: float


@dataclass(frozen=True)
class Sizes:
    """The networks (models.brain2image) and schedules of a scale. side: of the pictures that are made."""

    hidden: int
    feature: int
    noise: int
    width: int
    side: int
    encoder: EncoderSchedule
    gan: GanSchedule
    vae: VaeSchedule


# The encoder's schedule is that of the authors' released classifier, 200 epochs of 1,600 trials. The decoders' are not
# known; DCGAN's rate for the GAN (Radford et al. 2016) and 800 epochs, a quarter of the GAN's without the EEG, were
# chosen.
PAPER = Sizes(
    hidden=128,
    feature=128,
    noise=100,
    width=64,
    side=64,
    encoder=EncoderSchedule(steps=20_000, batch=16, lr=1e-3),
    gan=GanSchedule(alone=5_000, steps=15_000, batch=64, lr=2e-4, average=0.999),
    vae=VaeSchedule(steps=20_000, batch=64, lr=1e-3),
)
TINY = Sizes(
    hidden=64,
    feature=64,
    noise=100,
    width=32,
    side=32,
    encoder=EncoderSchedule(steps=1000, batch=32, lr=2e-3),
    gan=GanSchedule(alone=300, steps=1200, batch=16, lr=5e-4),
    vae=VaeSchedule(steps=1200, batch=32, lr=1e-3),
)
MICRO = Sizes(
    hidden=8,
    feature=8,
    noise=4,
    width=4,
    side=16,
    encoder=EncoderSchedule(steps=20, batch=16, lr=5e-3),
    gan=GanSchedule(alone=4, steps=8, batch=16, lr=5e-4),
    vae=VaeSchedule(steps=20, batch=16, lr=2e-3),
)
SIZES = {"tiny": TINY, "micro": MICRO, "rehearsal": replace(MICRO, side=64), "paper": PAPER}


@dataclass(frozen=True)
class Brain2ImageEncoder(Stage):
    """The LSTM, trained to tell the classes of `items`. Its last step is taken: the released code reports the epoch
    that is best on the validation part, which another control of the suite needs unused."""

    items: Items
    hidden: int
    feature: int
    schedule: EncoderSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Brain2ImageGan(Stage):
    """The conditional GAN's generator, trained on the pictures of the encoder's items and their EEG's features."""

    encoder: Brain2ImageEncoder
    noise: int
    width: int
    side: int
    schedule: GanSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Brain2ImageVae(Stage):
    """The conditional VAE's decoder, trained on the same."""

    encoder: Brain2ImageEncoder
    noise: int
    width: int
    side: int
    schedule: VaeSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Brain2ImagePictures(Stage):
    """A picture of each item's EEG for each sample's noise, in Generate's format."""

    decoder: Brain2ImageGan | Brain2ImageVae
    items: Items
    samples: int
    batch: int
    seed: int
    numerics: Numerics


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """The encoder, the decoder on its features, and the pictures. Raises BenchError for the oracle "clip"."""
    if items.eeg == "clip":
        raise BenchError(f"variant {spec.name!r}: the control 'clip' puts a CLIP embedding in the place of the EEG, "
                         "and Brain2Image has no CLIP; take eeg='label'")
    sizes = sized(SIZES, scale, spec.system)
    encoder = Brain2ImageEncoder(training(items), sizes.hidden, sizes.feature, sizes.encoder, seed, scale.fp32)
    networks = sizes.noise, sizes.width, sizes.side
    decoder = (Brain2ImageGan(encoder, *networks, sizes.gan, seed, scale.fp32) if spec.decoder == "gan" else
               Brain2ImageVae(encoder, *networks, sizes.vae, seed, scale.fp32))
    pictures = Brain2ImagePictures(decoder, items, scale.sampling.samples, scale.sampling.batch, seed, scale.fp32)
    return scale.score(pictures, items)


_kind = partial(Kind, forecast="bench.cost.systems.brain2image:seconds", cost="bench.cost.systems.brain2image:cost")
register({
    Brain2ImageEncoder: _kind("bench.train.brain2image:train_encoder", "finetune", trains=True),
    Brain2ImageGan: _kind("bench.train.brain2image:train_gan", "finetune", trains=True),
    Brain2ImageVae: _kind("bench.train.brain2image:train_vae", "finetune", trains=True),
    Brain2ImagePictures: _kind("bench.train.brain2image:generate_images", "generate"),
})
