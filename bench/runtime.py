"""Where a stage runs and whom it tells how far it is: travels beside the stage, never inside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def silent(step: int, total: int, **scalars: float) -> None:
    """Progress that nobody watches."""


def unheard(what: str, **values: float) -> None:
    """A note that nobody keeps."""


def unquestioned() -> None:
    """The stage is this process's own: nobody else can take it over."""


@dataclass(frozen=True)
class Runtime:
    """device: "cpu" or "cuda". progress(step, total, **scalars): called now and then by a stage at work.

    encoders: folder of the kept copies of users' encoders; None: a user's encoder is loaded from where it lies.
    work: folder of one stage's checkpoints, which outlives a process that is killed; None: none are kept.
    note(what, **values): called for what happens once, such as that a training goes on from a checkpoint.
    owned: raises lease.Lost where another process has taken the stage over, before anything is written into `work`.
    """

    device: str = "cpu"
    progress: Callable[..., None] = silent
    encoders: Path | None = None
    work: Path | None = None
    note: Callable[..., None] = unheard
    owned: Callable[[], None] = unquestioned
