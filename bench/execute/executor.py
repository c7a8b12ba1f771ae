"""Where stages are built: what the run asks of this machine's pool and of a cluster's engine alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from bench.errors import BenchError
from bench.experiment.key import Stage


@dataclass(frozen=True)
class Event:
    """What became of a stage that was submitted.

    what: "started", "progress" (step, total, scalars), or a last word: "done" (it is in the store), "held" (another
    process builds it; an executor that is `ahead` waits for that one instead), "queued" (an engine has it and is not
    waited for), "failed" (error), "died" (its process ended without a word, or it never began for what it waits for
    did; error).
    leaves: the process that says it ends with it. begun: of one that died, whether it had started. found: of one that
    is done, whether another process had built it.
    """

    stage: Stage
    what: str
    step: int = 0
    total: int = 0
    scalars: dict[str, float] | None = None
    error: BenchError | None = None
    leaves: bool = False
    begun: bool = False
    found: bool = False


class Executor(Protocol):
    """Use as a context; leaving it stops what still runs. A stage may be submitted again after its last word."""

    @property
    def ahead(self) -> bool:
        """Whether it takes stages before what they need is there, and starts them after that."""

    @property
    def idle(self) -> int:
        """How many more stages it takes now."""

    def submit(self, stage: Stage, after: Sequence[Stage]) -> None:
        """Builds a stage; `after`: those that it needs and that were submitted and are not done (none unless `ahead`).
        What becomes of one of them, it says of that one alone."""

    def events(self, timeout: float) -> Iterator[Event]:
        """What is new; waits up to `timeout` seconds for it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...
