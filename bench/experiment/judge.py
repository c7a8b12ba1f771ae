"""A judge that replaces the scale's."""

from __future__ import annotations

from dataclasses import dataclass

from bench.experiment.stages import Weights


@dataclass(frozen=True)
class ChosenJudge(Weights):
    """A judge that the user chose instead of the scale's (`bench run --judge`).

    architecture: timm's name, for a checkpoint; "": the file says it. fit: "crop", timm's own preparation of an image
    in evaluation, or "stretch", the whole image resized.
    """

    architecture: str = ""
    fit: str = "crop"
