"""Where a stage runs and whom it tells how far it is: travels beside the stage, never inside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def silent(step: int, total: int, **scalars: float) -> None:
    """Progress that nobody watches."""


def unheard(what: str, **values: float) -> None:
    """A note that nobody keeps."""


class Stopped(BaseException):
    """This process was asked to end, and what can be gone on from is kept."""


_asked, _keeps = threading.Event(), threading.Event()


def stop(*_: object) -> None:
    """Asks the stage at work in this process to end; a handler of signals. It ends with Stopped: at once, or where it
    is a training that keeps its state, as soon as that is done. Asked again, it goes on ending: putting away is not to
    be interrupted."""
    if not _asked.is_set():
        _asked.set()
        if not _keeps.is_set():
            raise Stopped


def stopping() -> bool:
    """Whether this process was asked to end."""
    return _asked.is_set()


def keeps(state: bool) -> None:
    """Whether what is at work looks at `stopping` itself, now and then, and ends with Stopped."""
    (_keeps.set if state else _keeps.clear)()


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
