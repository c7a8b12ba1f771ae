"""The ceiling: no EEG at all, the true class name as text through the untouched prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bench.scale import Scale
from bench.stages import Captions, Generate, Items, Reference, Score


@dataclass(frozen=True)
class Spec:
    """The system has no settings."""

    name: str = field(default="class name as text", compare=False)

    system: ClassVar[str] = "captions"


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Pictures of the class name, scored as any system's."""
    judge, vae, clip, unet = (scale.weights(part) for part in ("judge", "vae", "clip", "unet"))
    pictures = Generate(Captions(clip, unet), items, vae, scale.sampling, seed, scale.numerics)
    reference = Reference(scale.world, judge, scale.reference_pictures, scale.numerics)
    return Score(pictures, items, reference, scale.nway, scale.numerics)
