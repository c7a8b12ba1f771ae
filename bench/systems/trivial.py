"""Images without a generator: a training image, the mean image of a class, the stimulus through the VAE."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bench.data.tiny_things import TinyThings
from bench.errors import NotAvailable
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Score, Trivial
from bench.experiment.variant import check_choices, refuse

SOURCES = ("random", "class_mean", "vae")


@dataclass(frozen=True)
class Spec:
    """source: "random" (a training image of any class), "class_mean" (knows the class), "vae" (knows the stimulus).
    eeg_free: as in On. Raises BenchError for another source."""

    name: str = field(compare=False)
    source: str = "random"
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "trivial"
    sees_eeg: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choices(self, source=SOURCES)


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Plans the images. Raises NotAvailable for the mean image of a class without training images."""
    world, things = items.trials.world, scale.things
    if spec.source == "class_mean" and (isinstance(world, TinyThings) or (things and world == things.world)):
        raise refuse(spec, "source='class_mean' needs training images of the class, which a test concept of protocol "
                           "things does not have; use source='random'", NotAvailable)
    images = Trivial(spec.source, items, scale.weights("vae"), scale.sampling.samples, seed, scale.single_process)
    return scale.score(images, items)
