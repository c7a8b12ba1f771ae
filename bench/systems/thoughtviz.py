"""ThoughtViz (Tirupattur et al., ACM MM 2018): features of an EEG classifier condition a GAN, which a frozen classifier
of pictures helps to train."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from bench.errors import BenchError
from bench.key import Stage
from bench.scale import Scale, sized
from bench.stages import ORACLES, Items, Numerics, Score, training

if TYPE_CHECKING:
    from torch import Tensor

    from bench.price import Cost

LEAST = 30  # samples of EEG that the classifier's kernels need (models.thoughtviz)


@dataclass(frozen=True)
class Spec:
    """leak: the GAN is trained on the tested items' EEG features and labels, as in the released code, whose scores are
    those of the same features; the pictures stay training ones. eeg_free: as of On. Raises BenchError for another."""

    name: str = field(default="ThoughtViz", compare=False)
    leak: bool = False
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "thoughtviz"

    def __post_init__(self) -> None:
        if not isinstance(self.leak, bool):
            raise BenchError(f"variant {self.name!r}: leak is True or False, not {self.leak!r}")


@dataclass(frozen=True)
class EegSchedule:
    """SGD with Nesterov's momentum, whose rate is lr / (1 + decay * step). running: the share of a batch in the
    statistics of batch normalisation (1 less Keras' momentum)."""

    steps: int
    batch: int
    lr: float
    momentum: float = 0.9
    decay: float = 1e-6
    running: float = 0.01


@dataclass(frozen=True)
class ClassifierSchedule:
    """Adam at one rate. noise: the largest standard deviation of what is added to a picture, whose range is 1."""

    steps: int
    batch: int
    lr: float
    noise: float


@dataclass(frozen=True)
class GanSchedule:
    """Adam for each of the two networks, which take a step in turn. dropout: in the discriminator. std_penalty: times
    the sum of squares of the mixture's standard deviations."""

    steps: int
    batch: int
    lr_generator: float
    lr_discriminator: float
    dropout: float = 0.5
    beta1: float = 0.5
    std_penalty: float = 0.01


@dataclass(frozen=True)
class Sizes:
    """The networks and schedules of a scale.

    side: of the GAN's pictures. mirror: of every picture the mirror image, too. eeg: filters of the EEG classifier's
    convolutions. generator: channels of its maps. discriminator, classifier: filters of their convolutions.
    """

    side: int
    mirror: bool
    eeg: tuple[int, int, int, int]
    generator: tuple[int, ...]
    discriminator: tuple[int, ...]
    classifier: tuple[int, ...]
    eeg_schedule: EegSchedule
    classifier_schedule: ClassifierSchedule
    gan_schedule: GanSchedule


# Released code: the EEG classifier learns for 100 epochs, which are 1,300 steps of 1,600 trials; the GAN for 10,000, of
# pictures and their mirror images, which are 320,000 steps of 1,600. The auxiliary classifier's network and schedule
# are not in it: chosen so.
PAPER = Sizes(
    side=64,
    mirror=True,
    eeg=(32, 25, 50, 100),
    generator=(512, 256, 128, 64),
    discriminator=(16, 32, 64, 128, 256, 512),
    classifier=(32, 64, 128, 256),
    eeg_schedule=EegSchedule(steps=1300, batch=128, lr=1e-4),
    classifier_schedule=ClassifierSchedule(steps=2500, batch=64, lr=1e-3, noise=0.5),
    gan_schedule=GanSchedule(steps=320_000, batch=100, lr_generator=3e-5, lr_discriminator=5e-5),
)
# Ours, chosen on validation of worlds 1 and 2 for about a minute and a half of one core: smaller networks, higher
# rates, no dropout, faster running statistics, and no mirror images, since the drawn shapes have a left and a right.
TINY = Sizes(
    side=32,
    mirror=False,
    eeg=(16, 25, 50, 100),
    generator=(64, 32, 16),
    discriminator=(16, 32, 64, 128),
    classifier=(32, 64, 128),
    eeg_schedule=EegSchedule(steps=700, batch=32, lr=1e-2, running=0.1),
    classifier_schedule=ClassifierSchedule(steps=400, batch=50, lr=2e-3, noise=0.5),
    gan_schedule=GanSchedule(steps=1200, batch=32, lr_generator=1e-3, lr_discriminator=5e-4, dropout=0.0),
)
MICRO = replace(
    TINY,
    eeg=(4, 6, 8, 10),
    generator=(16, 8, 8),
    discriminator=(4, 8, 8, 8),
    classifier=(8, 16),
    eeg_schedule=replace(TINY.eeg_schedule, steps=40, batch=16),
    classifier_schedule=replace(TINY.classifier_schedule, steps=40, batch=16, lr=1e-2, noise=0.1),
    gan_schedule=replace(TINY.gan_schedule, steps=20, batch=16, lr_generator=1e-2),
)
REHEARSAL = replace(
    PAPER,
    eeg=(4, 6, 8, 10),
    generator=(16, 8, 8, 8),
    discriminator=(4, 4, 8, 8, 8, 8),
    classifier=(8, 16),
    eeg_schedule=replace(PAPER.eeg_schedule, steps=6, batch=8),
    classifier_schedule=replace(PAPER.classifier_schedule, steps=6, batch=8),
    gan_schedule=replace(PAPER.gan_schedule, steps=6, batch=8),
)
SIZES = {"tiny": TINY, "micro": MICRO, "rehearsal": REHEARSAL, "paper": PAPER}


@dataclass(frozen=True)
class ThoughtVizEeg(Stage):
    """The EEG classifier, whose 100 features condition the GAN; its last step, as released. There, it learns from three
    quarters of the training trials, and here from all."""

    items: Items
    filters: tuple[int, int, int, int]
    schedule: EegSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class ThoughtVizClassifier(Stage):
    """The auxiliary classifier, of pictures of `items`, frozen in the GAN's training. It is never the judge: a GAN that
    is trained on the judge would be tuned on the metric."""

    items: Items
    side: int
    mirror: bool
    widths: tuple[int, ...]
    schedule: ClassifierSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class ThoughtVizGan(Stage):
    """The generator, trained on the EEG features and labels of `items` and the real pictures of `classifier.items`."""

    items: Items
    eeg: ThoughtVizEeg
    classifier: ThoughtVizClassifier
    generator: tuple[int, ...]
    discriminator: tuple[int, ...]
    schedule: GanSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class ThoughtVizPictures(Stage):
    """Pictures of every item's EEG features and noise, in Generate's format."""

    model: ThoughtVizGan
    items: Items
    samples: int
    batch: int
    seed: int
    numerics: Numerics


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """The classifiers, the GAN and its pictures. Raises BenchError for EEG that is too short for the kernels."""
    sizes, times = sized(SIZES, scale, spec.system), items.trials.world.n_times
    if items.eeg in ORACLES or times < LEAST:
        found = f"the oracle {items.eeg!r} has no samples" if items.eeg in ORACLES else f"these have {times}"
        raise BenchError(f"variant {spec.name!r}: ThoughtViz's kernels need {LEAST} samples of EEG, and {found}")
    known = training(items)
    eeg = ThoughtVizEeg(known, sizes.eeg, sizes.eeg_schedule, seed, scale.fp32)
    classifier = ThoughtVizClassifier(known, sizes.side, sizes.mirror, sizes.classifier, sizes.classifier_schedule,
                                      seed, scale.fp32)
    gan = ThoughtVizGan(items if spec.leak else known, eeg, classifier, sizes.generator, sizes.discriminator,
                        sizes.gan_schedule, seed, scale.fp32)
    pictures = ThoughtVizPictures(gan, items, scale.sampling.samples, scale.sampling.batch, seed, scale.fp32)
    return scale.score(pictures, items)


def seconds(stage: Stage) -> float:
    """Seconds of one core, by runs at scale tiny."""
    each = {ThoughtVizEeg: 1e-3, ThoughtVizClassifier: 4e-4, ThoughtVizGan: 1.6e-3}
    if isinstance(stage, (ThoughtVizEeg, ThoughtVizClassifier, ThoughtVizGan)):
        return stage.schedule.steps * stage.schedule.batch * each[type(stage)]
    return 1.0


def cost(stage: Stage) -> Cost | None:
    """Of building one of these stages, in float32; the data of a training lie on the GPU as a whole."""
    from bench import price
    from models import configurations

    if isinstance(stage, ThoughtVizEeg):
        return _eeg_cost(stage)
    if isinstance(stage, ThoughtVizClassifier):
        net = _classifier(stage)
        step = price.counted(lambda: net.eval()(price.meta(1, 3, stage.side, stage.side)), True)[1]
        sample = price.another(net, lambda n: net(_pictures(n, stage.side, half=True)))
        return price.training(stage.schedule.steps * stage.schedule.batch * step, net, net, sample,
                              stage.schedule.batch, _bytes(stage))
    if isinstance(stage, ThoughtVizGan):
        return _gan_cost(stage)
    if isinstance(stage, ThoughtVizPictures):
        items, generator = price.trials(stage.items), _generator(stage.model)
        drawn = -(-items * stage.samples // stage.batch) * stage.batch
        flops = items * _feature_flops(stage.model.eeg) + drawn * price.counted(
            lambda: generator.eval()(*_inputs(1)), False)[0]
        return price.Cost(flops, None, items * stage.samples * 3 * configurations.PIXELS**2)
    return None


def _eeg_cost(stage: ThoughtVizEeg) -> Cost:
    from bench import price

    net, world = _eeg(stage), stage.items.trials.world

    def run(n: int) -> Tensor:
        found: Tensor = net(price.meta(n, world.n_chans, world.n_times, dtype=net.first.weight.dtype))
        return found

    step = price.counted(lambda: (net.eval(), run(1))[1], True)[1]
    held = price.trials(stage.items) * 4 * world.n_chans * world.n_times
    return price.training(stage.schedule.steps * stage.schedule.batch * step, net, net, price.another(net, run),
                          stage.schedule.batch, held)


def _gan_cost(stage: ThoughtVizGan) -> Cost:
    """A step takes the discriminator over real and made pictures, and the generator through it and the classifier."""
    import torch

    from bench import price
    from models.thoughtviz import Discriminator

    generator, classifier, side = _generator(stage), _classifier(stage.classifier), stage.classifier.side
    with torch.device("meta"):
        discriminator = Discriminator(side, stage.discriminator, stage.schedule.dropout)
    every = torch.nn.ModuleList([generator, discriminator, classifier])

    def fooled(n: int, half: bool = False) -> Tensor:
        made = generator(*_inputs(n, half))
        found: Tensor = discriminator(made).sum() + classifier(made).sum()
        return found

    every.eval()
    told = price.counted(lambda: discriminator(_pictures(1, side)), True)[1]
    discriminator.requires_grad_(False)
    classifier.requires_grad_(False)
    through = price.counted(lambda: fooled(1), True)[1]
    trained = torch.nn.ModuleList([generator, discriminator.requires_grad_(True)])
    flops = stage.schedule.steps * stage.schedule.batch * (2 * told + through)
    return price.training(flops + price.trials(stage.items) * _feature_flops(stage.eeg), trained, generator,
                          price.another(every, lambda n: fooled(n, half=True)), stage.schedule.batch,
                          _bytes(stage.classifier) + 4 * price.count(classifier))


def _classes(items: Items) -> int:
    from bench import price

    return price.size(items.trials.world, items.trials.subjects, items.trials.split).classes


def _bytes(stage: ThoughtVizClassifier) -> int:
    """Of the training pictures."""
    from bench import price

    return price.trials(stage.items) * (1 + stage.mirror) * 3 * stage.side**2 * 4


def _eeg(stage: ThoughtVizEeg) -> Any:
    """On the meta device, as those below."""
    import torch

    from models.thoughtviz import EegClassifier

    world = stage.items.trials.world
    with torch.device("meta"):
        return EegClassifier(world.n_chans, world.n_times, _classes(stage.items), stage.filters)


def _classifier(stage: ThoughtVizClassifier) -> Any:
    import torch

    from models.thoughtviz import PictureClassifier

    with torch.device("meta"):
        return PictureClassifier(_classes(stage.items), stage.widths)


def _generator(stage: ThoughtVizGan) -> Any:
    import torch

    from models.thoughtviz import Generator

    with torch.device("meta"):
        return Generator(stage.generator)


def _feature_flops(stage: ThoughtVizEeg) -> int:
    """Of the features of one trial."""
    from bench import price

    net, world = _eeg(stage).eval(), stage.items.trials.world
    return price.counted(lambda: net.features(price.meta(1, world.n_chans, world.n_times)), False)[0]


def _pictures(n: int, side: int, half: bool = False) -> Tensor:
    import torch

    from bench import price

    return price.meta(n, 3, side, side, dtype=torch.bfloat16 if half else torch.float32)


def _inputs(n: int, half: bool = False) -> tuple[Tensor, Tensor]:
    """Noise and features of n samples."""
    import torch

    from bench import price
    from models.thoughtviz import FEATURES, NOISE

    dtype = torch.bfloat16 if half else torch.float32
    return price.meta(n, NOISE, dtype=dtype), price.meta(n, FEATURES, dtype=dtype)
