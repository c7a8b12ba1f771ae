"""A caption through the untouched prior: the true class (the ceiling), none at all, or a classifier's verdict on the
EEG (classify, then generate)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bench.errors import BenchError
from bench.experiment.scale import Scale
from bench.experiment.stages import Captions, Generate, Items, Readout, Score, training

CLASSES = ("true", "none", "ridge", "eegnet", "time")


@dataclass(frozen=True)
class Spec:
    """classes: "true"; "none": the empty caption; or the classifier of the EEG that names the class: "ridge", "eegnet",
    or "time", which sees when a trial was recorded and no EEG. eeg_free: as of On. Raises BenchError for another."""

    name: str = field(default="class name as text", compare=False)
    classes: str = "true"
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "captions"

    @property
    def sees_eeg(self) -> bool:
        """Whether the class is read from the EEG."""
        return self.classes in ("ridge", "eegnet")

    def __post_init__(self) -> None:
        if self.classes not in CLASSES:
            raise BenchError(f"variant {self.name!r}: classes is one of {', '.join(CLASSES)}, not {self.classes!r}")


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Pictures of the class name, scored as any system's."""
    vae, clip, unet = (scale.weights(part) for part in ("vae", "clip", "unet"))
    classes = spec.classes if spec.classes in ("true", "none") else readout(spec.classes, items, scale, seed)
    pictures = Generate(Captions(clip, unet, classes), items, vae, scale.sampling, seed, scale.alone)
    return scale.score(pictures, items)


def readout(classifier: str, items: Items, scale: Scale, seed: int) -> Readout:
    """A classifier of the EEG of these items; one that draws nothing at random is the same under every seed."""
    return Readout(training(items), items, classifier, None, seed if classifier == "eegnet" else 0,
                   scale.alone)
