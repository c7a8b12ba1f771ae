"""Captions drawn by the unchanged prior: the true class (the ceiling), none, or the class that a classifier predicts
from the EEG (classify, then generate)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bench.experiment.scale import Scale
from bench.experiment.stages import Captions, Generate, Items, Readout, Score, training
from bench.experiment.variant import check_choices

CLASSES = ("true", "none", "ridge", "eegnet", "time")


@dataclass(frozen=True)
class Spec:
    """classes: "true"; "none" (the empty caption); or the classifier that predicts the class: "ridge" or "eegnet" from
    the EEG, "time" from the time of recording. eeg_free: as in On. Raises BenchError for other classes."""

    name: str = field(default="class name as text", compare=False)
    classes: str = "true"
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "captions"

    @property
    def sees_eeg(self) -> bool:
        """Whether the class is predicted from the EEG."""
        return self.classes in ("ridge", "eegnet")

    def __post_init__(self) -> None:
        check_choices(self, classes=CLASSES)


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Plans the images of the captions."""
    vae, clip, unet = map(scale.weights, ("vae", "clip", "unet"))
    classes = spec.classes if spec.classes in ("true", "none") else readout(spec.classes, items, scale, seed)
    images = Generate(Captions(clip, unet, classes), items, vae, scale.sampling, seed, scale.single_process)
    return scale.score(images, items)


def readout(classifier: str, items: Items, scale: Scale, seed: int) -> Readout:
    """Plans a classifier of the items' EEG; a deterministic one is the same for every seed."""
    return Readout(training(items), items, classifier, None, seed if classifier == "eegnet" else 0,
                   scale.single_process)
