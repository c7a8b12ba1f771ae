"""Pictures that owe nothing to a generator: a training picture, the mean of a class, the stimulus through the VAE."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bench.data.tiny_things import TinyThings
from bench.errors import BenchError, NotHere
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Score, Trivial

SOURCES = ("random", "class_mean", "vae")


@dataclass(frozen=True)
class Spec:
    """source: "random" (a training picture of any class), "class_mean" (knows the class), "vae" (knows the stimulus).
    eeg_free: as of On. Raises BenchError for another."""

    name: str = field(compare=False)
    source: str = "random"
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "trivial"
    sees_eeg: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise BenchError(f"variant {self.name!r}: source is one of {', '.join(SOURCES)}, not {self.source!r}")


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """The pictures, scored as any system's. Raises NotHere for the mean of a class that is not trained on."""
    world, things = items.trials.world, scale.things
    if spec.source == "class_mean" and (isinstance(world, TinyThings) or (things and world == things.world)):
        raise NotHere(f"variant {spec.name!r}: a test concept of the protocol things has no training picture, and "
                      "source='class_mean' is the mean of these; take source='random'")
    pictures = Trivial(spec.source, items, scale.weights("vae"), scale.sampling.samples, seed, scale.alone)
    return scale.score(pictures, items)
