"""Costs of a user's own system."""

from __future__ import annotations

from bench.experiment.key import Stage


def cost(stage: Stage) -> None:
    """What a user's file costs is not known."""


def seconds(stage: Stage) -> float:
    """On one core at scale tiny: not known, a guess."""
    return 20.0
