"""Brain2Image (Kavasidis et al., ACM MM 2017): an LSTM's feature of the EEG conditions a GAN, or a VAE."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from bench.errors import BenchError
from bench.key import Stage
from bench.scale import Scale, sized
from bench.stages import Items, Numerics, Score, training

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.price import Cost

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


def cost(stage: Stage) -> Cost | None:
    """Of building one of these stages, in float32."""
    from bench import price
    from models import configurations

    if isinstance(stage, Brain2ImageEncoder):
        return _encoder(stage)[1]
    if isinstance(stage, Brain2ImageGan):
        return _gan(stage)
    if isinstance(stage, Brain2ImageVae):
        return _vae(stage)
    if not isinstance(stage, Brain2ImagePictures):
        return None
    count, decoder = price.trials(stage.items), stage.decoder
    generator, (noise, feature) = _generator(decoder), _inputs(decoder, 1)
    drawn = -(-count * stage.samples // stage.batch) * stage.batch
    flops = (count * _encoder(decoder.encoder)[0]
             + drawn * price.counted(lambda: generator.eval()(noise, feature), False)[0])
    return price.Cost(flops, None, count * stage.samples * 3 * configurations.PIXELS**2)


@functools.cache
def _encoder(stage: Brain2ImageEncoder) -> tuple[int, Cost]:
    """FLOPs of the feature of one trial, and the cost of the training. Both grow by the same with each time step, of
    which two and three are counted."""
    import torch

    from bench import price
    from models.brain2image import Encoder

    trials = stage.items.trials
    world, classes = trials.world, price.size(trials.world, trials.subjects, trials.split).classes
    with torch.device("meta"):
        encoder = Encoder(world.n_chans, world.n_times, classes, stage.hidden, stage.feature)

    def run(samples: int, times: int, dtype: torch.dtype = torch.float32) -> Tensor:
        found: Tensor = encoder.logits(price.meta(samples, world.n_chans, times, dtype=dtype))
        return found

    def over(two: int, three: int) -> int:
        return two + (three - two) * (world.n_times - 2)

    two, three = price.counted(lambda: run(1, 2), True), price.counted(lambda: run(1, 3), True)
    once, step = over(two[0], three[0]), over(two[1], three[1])
    kept = [over(price.saved(encoder, lambda: run(1, 2, torch.bfloat16)),
                 price.saved(encoder, lambda: run(1, 3, torch.bfloat16))),
            over(price.saved(encoder, lambda: run(2, 2, torch.bfloat16)),
                 price.saved(encoder, lambda: run(2, 3, torch.bfloat16)))]
    flops = stage.schedule.steps * stage.schedule.batch * step + once * price.trials(stage.items)
    sample = round(2 * (kept[1] - kept[0]) / price.AUTOCAST)
    return once, price.training(flops, encoder, encoder, sample, stage.schedule.batch)


def _gan(stage: Brain2ImageGan) -> Cost:
    """Every step takes the discriminator over real and made pictures, and the generator through it. In memory both are
    counted as if they were held at once."""
    import torch

    from bench import price
    from models.brain2image import Discriminator

    generator = _generator(stage)
    with torch.device("meta"):
        discriminator = Discriminator(stage.encoder.feature, stage.width, stage.side)

    def told(n: int, conditional: bool, dtype: torch.dtype = torch.float32) -> Tensor:
        pictures, feature = price.meta(n, 3, stage.side, stage.side, dtype=dtype), _inputs(stage, n, dtype)[1]
        seen = discriminator.trunk(pictures)
        found: Tensor = discriminator.judge(seen, feature) + discriminator(pictures, feature)
        return found + discriminator.judge(seen, feature) if conditional else found

    def fooled(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
        noise, feature = _inputs(stage, n, dtype)
        found: Tensor = discriminator(generator(noise, feature), feature)
        return found

    alone, conditional = (price.counted(lambda: told(1, False), True)[1], price.counted(lambda: told(1, True), True)[1])
    discriminator.requires_grad_(False)
    through = price.counted(lambda: fooled(1), True)[1]
    discriminator.requires_grad_(True)
    before = stage.schedule.alone * stage.schedule.batch * (alone + through)
    both = torch.nn.ModuleList([generator, discriminator])
    flops = stage.schedule.steps * stage.schedule.batch * (conditional + through) + before
    sample = price.another(both, lambda n: told(n, True, torch.bfloat16) + fooled(n, torch.bfloat16))
    return price.training(flops, both, generator, sample, stage.schedule.batch)


def _vae(stage: Brain2ImageVae) -> Cost:
    import torch

    from bench import price
    from models.brain2image import PictureEncoder

    decoder = _generator(stage)
    with torch.device("meta"):
        encoder = PictureEncoder(stage.noise, stage.width, stage.side)

    def run(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
        mean, log_variance = encoder(price.meta(n, 3, stage.side, stage.side, dtype=dtype))
        found: Tensor = decoder(mean + log_variance, _inputs(stage, n, dtype)[1])
        return found

    both = torch.nn.ModuleList([decoder, encoder])
    flops = stage.schedule.steps * stage.schedule.batch * price.counted(lambda: run(1), True)[1]
    return price.training(flops, both, decoder, price.another(both, lambda n: run(n, torch.bfloat16)),
                          stage.schedule.batch)


def _generator(stage: Brain2ImageGan | Brain2ImageVae) -> nn.Module:
    """On the meta device."""
    import torch

    from models.brain2image import Generator

    with torch.device("meta"):
        return Generator(stage.noise, stage.encoder.feature, stage.width, stage.side)


def _inputs(stage: Brain2ImageGan | Brain2ImageVae, n: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Noise and features of n samples on the meta device."""
    from bench import price

    return price.meta(n, stage.noise, dtype=dtype), price.meta(n, stage.encoder.feature, dtype=dtype)


def seconds(stage: Stage) -> float:
    """On one core at scale tiny."""
    if isinstance(stage, Brain2ImageEncoder):
        return 1 + 0.015 * stage.schedule.steps
    if isinstance(stage, Brain2ImageGan):
        return 1 + 0.04 * (stage.schedule.alone + stage.schedule.steps)
    return 1 + 0.035 * stage.schedule.steps if isinstance(stage, Brain2ImageVae) else 1.0
