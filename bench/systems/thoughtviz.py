"""ThoughtViz (Tirupattur et al., ACM MM 2018): a GAN, conditioned on features of an EEG classifier and trained with the
help of a frozen image classifier."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register
from bench.experiment.scale import Scale, sized
from bench.experiment.stages import ORACLES, Items, Numerics, Score, training
from bench.experiment.variant import check_flags, refuse

LEAST = 30  # samples of EEG that the classifier's kernels need (models.thoughtviz)


@dataclass(frozen=True)
class Spec:
    """leak: the GAN trains on the EEG features and labels of the tested items, on which it is then scored, as in the
    released code; the images are still training images. eeg_free: as in On. Raises BenchError for other values."""

    name: str = field(default="ThoughtViz", compare=False)
    leak: bool = False
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "thoughtviz"

    def __post_init__(self) -> None:
        check_flags(self, "leak")


@dataclass(frozen=True)
class EegSchedule:
    """SGD with Nesterov momentum and rate lr / (1 + decay * step). running: the momentum of batch normalisation in
    torch's definition (1 - Keras' momentum)."""

    steps: int
    batch: int
    lr: float
    momentum: float = 0.9
    decay: float = 1e-6
    running: float = 0.01


@dataclass(frozen=True)
class ClassifierSchedule:
    """Adam with a constant rate. noise: largest standard deviation of the noise added to an image with range 1."""

    steps: int
    batch: int
    lr: float
    noise: float


@dataclass(frozen=True)
class GanSchedule:
    """Adam for each of the two networks, which take steps in turn. dropout: in the discriminator. std_penalty: weight
    of the sum of squared standard deviations of the mixture."""

    steps: int
    batch: int
    lr_generator: float
    lr_discriminator: float
    dropout: float = 0.5
    beta1: float = 0.5
    std_penalty: float = 0.01


@dataclass(frozen=True)
class Sizes:
    """Networks and schedules of a scale. side: of the GAN's images, in pixels. mirror: every image is also trained on
    mirrored. eeg, discriminator, classifier: filters of their convolutions. generator: channels of its maps."""

    side: int
    mirror: bool
    eeg: tuple[int, int, int, int]
    generator: tuple[int, ...]
    discriminator: tuple[int, ...]
    classifier: tuple[int, ...]
    eeg_schedule: EegSchedule
    classifier_schedule: ClassifierSchedule
    gan_schedule: GanSchedule


# Released code: the EEG classifier trains for 100 epochs (1,300 steps with 1,600 trials), the GAN for 10,000 epochs of
# images and mirror images (320,000 steps with 1,600 images). The auxiliary classifier's network and schedule are not in
# the released code; they were chosen here.
PAPER = Sizes(
    side=64, mirror=True, eeg=(32, 25, 50, 100), generator=(512, 256, 128, 64),
    discriminator=(16, 32, 64, 128, 256, 512), classifier=(32, 64, 128, 256),
    eeg_schedule=EegSchedule(steps=1300, batch=128, lr=1e-4),
    classifier_schedule=ClassifierSchedule(steps=2500, batch=64, lr=1e-3, noise=0.5),
    gan_schedule=GanSchedule(steps=320_000, batch=100, lr_generator=3e-5, lr_discriminator=5e-5))
# Chosen on validation of worlds 1 and 2 for about 90 seconds of one core: smaller networks, higher rates, no dropout,
# faster running statistics, and no mirror images, because the drawn shapes are not symmetric.
TINY = Sizes(
    side=32, mirror=False, eeg=(16, 25, 50, 100), generator=(64, 32, 16), discriminator=(16, 32, 64, 128),
    classifier=(32, 64, 128),
    eeg_schedule=EegSchedule(steps=700, batch=32, lr=1e-2, running=0.1),
    classifier_schedule=ClassifierSchedule(steps=400, batch=50, lr=2e-3, noise=0.5),
    gan_schedule=GanSchedule(steps=1200, batch=32, lr_generator=1e-3, lr_discriminator=5e-4, dropout=0.0))
MICRO = replace(
    TINY, eeg=(4, 6, 8, 10), generator=(16, 8, 8), discriminator=(4, 8, 8, 8), classifier=(8, 16),
    eeg_schedule=replace(TINY.eeg_schedule, steps=40, batch=16),
    classifier_schedule=replace(TINY.classifier_schedule, steps=40, batch=16, lr=1e-2, noise=0.1),
    gan_schedule=replace(TINY.gan_schedule, steps=20, batch=16, lr_generator=1e-2))
REHEARSAL = replace(
    PAPER, eeg=(4, 6, 8, 10), generator=(16, 8, 8, 8), discriminator=(4, 4, 8, 8, 8, 8), classifier=(8, 16),
    eeg_schedule=replace(PAPER.eeg_schedule, steps=6, batch=8),
    classifier_schedule=replace(PAPER.classifier_schedule, steps=6, batch=8),
    gan_schedule=replace(PAPER.gan_schedule, steps=6, batch=8))
SIZES = {"tiny": TINY, "micro": MICRO, "rehearsal": REHEARSAL, "paper": PAPER}


@dataclass(frozen=True)
class ThoughtVizEeg(Stage):
    """The EEG classifier, whose 100 features condition the GAN; the last step is the result, as in the released code.
    It trains on all training trials, in the released code on three quarters of them."""

    items: Items
    filters: tuple[int, int, int, int]
    schedule: EegSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class ThoughtVizClassifier(Stage):
    """The auxiliary image classifier, trained on the images of `items` and frozen while the GAN trains. It is not the
    judge: a GAN trained with the judge would be tuned to the metric."""

    items: Items
    side: int
    mirror: bool
    widths: tuple[int, ...]
    schedule: ClassifierSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class ThoughtVizGan(Stage):
    """The generator, trained on the EEG features and labels of `items` and the real images of `classifier.items`."""

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
    """Images from every item's EEG features and noise, in Generate's format."""

    model: ThoughtVizGan
    items: Items
    samples: int
    batch: int
    seed: int
    numerics: Numerics


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Plans the classifiers, the GAN and its images. Raises BenchError for EEG that is too short for the kernels."""
    sizes, times = sized(SIZES, scale, spec.system), items.trials.world.n_times
    if items.eeg in ORACLES or times < LEAST:
        given = f"the oracle {items.eeg!r} has no samples" if items.eeg in ORACLES else f"these items have {times}"
        raise refuse(spec, f"ThoughtViz's kernels need {LEAST} samples of EEG, but {given}")
    train = training(items)
    eeg = ThoughtVizEeg(train, sizes.eeg, sizes.eeg_schedule, seed, scale.fp32)
    classifier = ThoughtVizClassifier(train, sizes.side, sizes.mirror, sizes.classifier, sizes.classifier_schedule,
                                      seed, scale.fp32)
    gan = ThoughtVizGan(items if spec.leak else train, eeg, classifier, sizes.generator, sizes.discriminator,
                        sizes.gan_schedule, seed, scale.fp32)
    images = ThoughtVizPictures(gan, items, scale.sampling.samples, scale.sampling.batch, seed, scale.fp32)
    return scale.score(images, items)


_kind = partial(Kind, forecast="bench.cost.systems.thoughtviz:seconds", cost="bench.cost.systems.thoughtviz:cost")
register({
    ThoughtVizEeg: _kind("bench.train.thoughtviz:train_eeg_classifier", "finetune", trains=True),
    ThoughtVizClassifier: _kind("bench.train.thoughtviz:train_image_classifier", "finetune", trains=True),
    ThoughtVizGan: _kind("bench.train.thoughtviz:train_gan", "finetune", trains=True),
    ThoughtVizPictures: _kind("bench.train.thoughtviz:generate_images", "generate"),
})
