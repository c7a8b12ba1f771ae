"""Shows a run while it runs: a live table of rows and stages on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.cost import forecast
from bench.experiment.graph import Row, needs, report_stages, stages
from bench.experiment.key import Stage

REFRESH = 0.25  # s between two drawings
WINDOW = 60.0  # s over which a stage's rate is measured
TRUST = 30.0  # s: a forecast weighs as much as so many observed seconds that it predicted
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
STYLES = {WAITING: "dim", RUNNING: "cyan", DONE: "green", FAILED: "bold red"}


class Watcher(Protocol):
    """Receives what happens to stages, as the screen does."""

    def advanced(self, stage: Stage, step: int, total: int, scalars: dict[str, float]) -> None: ...

    def ended(self, stage: Stage, failed: bool) -> None: ...


@dataclass
class StageProgress:
    """How far a stage is. forecast: predicted seconds; began, reports (seconds, step): by the monotonic clock."""

    name: str
    forecast: float
    state: str = WAITING
    began: float = 0.0
    step: int = 0
    total: int = 0
    loss: float | None = None
    seconds: float = 0.0
    reports: deque[tuple[float, int]] = field(default_factory=deque)

    def report(self, now: float, step: int, total: int, loss: float | None) -> None:
        self.step, self.total = step, total
        self.loss = self.loss if loss is None else loss
        if self.reports and step < self.reports[-1][1]:  # another epoch, or another attempt
            self.reports.clear()
        self.reports.append((now, step))
        while now - self.reports[0][0] > WINDOW and len(self.reports) > 2:
            self.reports.popleft()


def rate(reports: Sequence[tuple[float, int]]) -> float | None:
    """Steps per second from pairs (seconds, step), the oldest first; None if they do not determine it."""
    if len(reports) < 2 or reports[-1][0] <= reports[0][0] or reports[-1][1] <= reports[0][1]:
        return None
    return (reports[-1][1] - reports[0][1]) / (reports[-1][0] - reports[0][0])


class Display:
    """Shows stages on `console`. workers: how many stages are built at once; None: as many as ran at once so far."""

    def __init__(self, console: Console, workers: int | None = None, watcher: Watcher | None = None):
        self.console, self._workers, self._watcher = console, workers, watcher
        self._stages: dict[Stage, StageProgress] = {}
        self._inputs: list[tuple[StageProgress, list[StageProgress]]] = []  # of each missing stage, upstream first
        self._rows: list[tuple[Row, list[StageProgress], list[StageProgress]]] = []  # its outputs, all that it needs
        self._ended, self._running, self._most, self._drawn = 0, 0, 1, 0.0
        self._live: Live | None = None

    @contextmanager
    def showing(self, todo: list[Stage], names: dict[Stage, str], rows: Iterable[Row] = ()) -> Iterator[None]:
        """Shows the stages `todo` while the context lasts. rows: those of the table, complete ones too."""
        self._stages = {stage: StageProgress(names.get(stage, stage.kind), forecast.seconds(stage)) for stage in todo}
        self._ended = self._running = 0
        if not self.console.is_terminal:
            yield
            return
        self._inputs = [(progress, [self._stages[above] for above in needs(stage) if above in self._stages])
                        for stage, progress in self._stages.items()]
        self._rows = [(row, [self._stages[stage] for stage in report_stages(row) if stage in self._stages],
                       [self._stages[stage] for stage in stages(report_stages(row), self._is_stored)]) for row in rows]
        wraps, self.console.soft_wrap = self.console.soft_wrap, False  # else lines exceed a narrow terminal
        try:
            with Live(get_renderable=self.view, console=self.console, auto_refresh=False, transient=True) as self._live:
                yield
        finally:
            self._live, self.console.soft_wrap = None, wraps

    def _is_stored(self, stage: Stage) -> bool:
        return stage not in self._stages

    def started(self, stage: Stage) -> None:
        progress = self._stages[stage]
        self._running += progress.state != RUNNING
        self._most = max(self._most, self._running)
        progress.state, progress.began, progress.step, progress.total = RUNNING, time.monotonic(), 0, 0
        progress.reports.clear()

    def advanced(self, stage: Stage, step: int, total: int, scalars: dict[str, float]) -> None:
        self._stages[stage].report(time.monotonic(), step, total, scalars.get("loss"))
        if self._watcher:
            self._watcher.advanced(stage, step, total, scalars)

    def finished(self, stage: Stage, seconds: float) -> None:
        self._stages[stage].seconds = seconds
        self._end(stage, DONE, f"built in {seconds:.0f} s")

    def failed(self, stage: Stage, cause: str) -> None:
        self._end(stage, FAILED, f"FAILED: {cause}")

    def tick(self) -> None:
        """Draws again; called at least every half second."""
        if self._live and time.monotonic() - self._drawn >= REFRESH:
            self._live.refresh()
            self._drawn = time.monotonic()

    def _end(self, stage: Stage, state: str, text: str) -> None:
        self._ended += 1
        progress = self._stages[stage]
        self._running -= progress.state == RUNNING
        progress.state = state
        self.console.print(f"[{self._ended}/{len(self._stages)}] {progress.name}: {text}", markup=False,
                           highlight=False, soft_wrap=True)
        if self._watcher:
            self._watcher.ended(stage, state == FAILED)

    def view(self) -> RenderableType:
        """What is drawn now, no taller than the terminal: rows, running stages, and the time left."""
        now = time.monotonic()
        running = [progress for progress in self._stages.values() if progress.state == RUNNING]
        height = self.console.height - 3  # without two headers and the last line
        running = running[:max(1, height // 2)]
        left = self.left(now)
        counts = Counter(progress.state for progress in self._stages.values())
        last = Text(f"{counts[DONE]} of {len(self._stages)} stages"
                    + (f", {counts[FAILED]} failed" if counts[FAILED] else "")
                    + (f", about {format_seconds(left)} left" if left is not None else ""),
                    no_wrap=True, overflow="ellipsis")
        return Group(*self._row_table(height - len(running)), _stage_table(running), last)

    def _row_table(self, height: int) -> list[RenderableType]:
        """The rows' states; if they do not fit, only failed and running rows, and the number of the others."""
        states = [(row, *_state(outputs, needed)) for row, outputs, needed in self._rows]
        if not states or height < 2:
            return []
        chosen = states
        if len(states) > height:
            chosen = [each for state in (FAILED, RUNNING) for each in states if each[1] == state][:height - 1]
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("row", "seed", "state"):
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=None)
        for row, state, text in chosen:
            label = row.variant if row.items == "real" else f"{row.variant}, {row.items}"
            table.add_row(Text(label), Text(str(row.seed)), Text(text, STYLES[state]))
        others = Counter(state for _, state, _ in states) - Counter(state for _, state, _ in chosen)
        rest = ", ".join(f"{others[state]} {state}" for state in (DONE, RUNNING, FAILED, WAITING) if others[state])
        return [table, *([Text(f"other rows: {rest}", no_wrap=True, overflow="ellipsis")] if rest else [])]

    def left(self, now: float) -> float | None:
        """Seconds left: forecasts, corrected for each kind by what was observed; None before anything was."""
        predicted: dict[str, float] = defaultdict(float)
        actual: dict[str, float] = defaultdict(float)
        for stage, progress in self._stages.items():
            if progress.state == DONE:
                predicted[stage.kind] += progress.forecast
                actual[stage.kind] += progress.seconds
            elif progress.state == RUNNING and progress.step and progress.total:
                predicted[stage.kind] += progress.forecast * progress.step / progress.total
                actual[stage.kind] += now - progress.began
        if not actual:
            return None
        overall = (sum(actual.values()) + TRUST) / (sum(predicted.values()) + TRUST)

        def seconds(stage: Stage, progress: StageProgress) -> float:
            whole = progress.forecast * (actual[stage.kind] + TRUST * overall) / (predicted[stage.kind] + TRUST)
            if progress.state == WAITING:
                return whole
            if progress.state != RUNNING:
                return 0.0
            pace = rate(progress.reports)
            return (progress.total - progress.step) / pace if pace else max(0.0, whole - (now - progress.began))

        alone = {id(progress): seconds(stage, progress) for stage, progress in self._stages.items()}
        chain: dict[int, float] = {}  # s until a stage is built, if only what it needs is built
        for progress, inputs in self._inputs:
            chain[id(progress)] = alone[id(progress)] + max((chain[id(above)] for above in inputs), default=0.0)
        return max(sum(alone.values()) / (self._workers or self._most), max(chain.values(), default=0.0))


def _state(outputs: Iterable[StageProgress], needed: Sequence[StageProgress]) -> tuple[str, str]:
    """A row's state, and the text for it."""
    if all(progress.state == DONE for progress in outputs):
        return DONE, DONE
    if any(progress.state == FAILED for progress in needed):
        return FAILED, FAILED
    if running := [progress for progress in needed if progress.state == RUNNING]:
        return RUNNING, ", ".join(progress.name.partition(" (")[0] for progress in running)
    return WAITING, WAITING


def _stage_table(running: Iterable[StageProgress]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True, overflow="ellipsis", ratio=None)
    for name in ("step", "steps/s", "loss", "left"):
        table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis")
    for each in running:
        texts = each.name, *cells(each.step, each.total, rate(each.reports), each.loss)
        table.add_row(*map(Text, texts))
    return table


def cells(step: int, total: int, steps_a_second: float | None, loss: float | None) -> tuple[str, str, str, str]:
    """Step of total, steps per second, loss, time left as text; empty if unknown."""
    return (f"{step}/{total}" if total else "", f"{steps_a_second:.3g}" if steps_a_second else "",
            "" if loss is None else f"{loss:.3f}" if isinstance(loss, float) else str(loss),
            format_seconds((total - step) / steps_a_second) if steps_a_second and total else "")


def format_seconds(seconds: float) -> str:
    """"45 s", "12 min", "3 h 05", "2 d 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d}"
    return f"{minutes // (24 * 60)} d {minutes // 60 % 24} h"
