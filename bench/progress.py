"""What is seen of a run while it runs: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.key import Stage, kind


class Display:
    """Shows stages as they start, advance and end on `console`."""

    def __init__(self, console: Console):
        self.console = console
        self._tasks: dict[Stage, TaskID] = {}
        self._names: dict[Stage, str] = {}
        self._count, self._total = 0, 0
        self._bars: Progress | None = None

    @contextmanager
    def showing(self, todo: list[Stage], names: dict[Stage, str]) -> Iterator[None]:
        """While stages are being built."""
        self._names, self._count, self._total = names, 0, len(todo)
        if not self.console.is_terminal:
            yield
            return
        self._bars = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                              TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False),
                              TextColumn("{task.fields[loss]}"), console=self.console, transient=True)
        with self._bars:
            self._all = self._bars.add_task("stages", total=len(todo), loss="")
            yield
        self._bars = None

    def started(self, stage: Stage) -> None:
        if self._bars:
            self._tasks[stage] = self._bars.add_task(self._names.get(stage, kind(stage)), total=None, loss="")

    def advanced(self, stage: Stage, step: int, total: int, scalars: dict[str, float]) -> None:
        if self._bars:
            text = f"loss {scalars['loss']:.3f}" if "loss" in scalars else ""
            self._bars.update(self._tasks[stage], completed=step, total=total, loss=text)

    def finished(self, stage: Stage, seconds: float) -> None:
        self._end(stage, f"built in {seconds:.0f} s")

    def failed(self, stage: Stage, cause: str) -> None:
        self._end(stage, f"FAILED: {cause}")

    def tick(self) -> None:
        """Called at least every half second."""
        if self._bars:
            self._bars.refresh()

    def _end(self, stage: Stage, how: str) -> None:
        self._count += 1
        self.console.print(f"[{self._count}/{self._total}] {self._names.get(stage, kind(stage))}: {how}",
                           markup=False, highlight=False, soft_wrap=True)
        if self._bars:
            self._bars.remove_task(self._tasks.pop(stage))
            self._bars.update(self._all, advance=1)
