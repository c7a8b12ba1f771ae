"""What the runner needs of a place that builds stages: this machine's pool, or a cluster's engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from bench.errors import BenchError
from bench.experiment.key import Stage


@dataclass(frozen=True)
class Event:
    """What happened to a submitted stage. what: "started", "progress" (step, total, scalars), or a final event:

    "done" (the stage is stored; by_other: another process built it), "held" (another process builds it, and the
    executor is not `ahead`), "queued" (an engine has it, and the run does not wait), "failed" (error), "died" (error:
    the job exited without reporting, or never started because a dependency failed; has_begun: it had started).
    worker_exits: the reporting process exits after this event.
    """

    stage: Stage
    what: str
    step: int = 0
    total: int = 0
    scalars: dict[str, float] | None = None
    error: BenchError | None = None
    worker_exits: bool = False
    has_begun: bool = False
    by_other: bool = False


class Executor(AbstractContextManager[Any], Protocol):
    """A context that builds stages; its end stops what runs. A stage may be submitted again after its final event."""

    @property
    def ahead(self) -> bool:
        """Whether it takes stages whose inputs are not stored yet, and starts them once they are."""

    def accepts(self, stage: Stage) -> bool:
        """Whether it takes this stage now. The answer depends only on the number of GPUs of the stage (`gpus_of`)."""

    def submit(self, stage: Stage, after: Sequence[Stage]) -> None:
        """Builds a stage that it accepts. after: its inputs that were submitted and are not done (none unless
        `ahead`)."""

    def events(self, timeout: float) -> Iterator[Event]:
        """The new events; waits up to `timeout` seconds for the first."""
