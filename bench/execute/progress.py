"""What is seen of a run while it runs: a live table of rows and stages on a terminal, plain lines elsewhere."""

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
from bench.experiment.graph import Row, needs, shown
from bench.experiment.key import Stage

REFRESH = 0.25  # s from one picture to the next
WINDOW = 60.0  # s over which steps are counted for their rate
TRUST = 30.0  # s: a forecast counts as if so much of it had come true
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
STYLES = {WAITING: "dim", RUNNING: "cyan", DONE: "green", FAILED: "bold red"}


class Watcher(Protocol):
    """Who is told what happens to stages, beside the screen."""

    def started(self, stage: Stage) -> None: ...

    def advanced(self, stage: Stage, step: int, total: int, scalars: dict[str, float]) -> None: ...

    def ended(self, stage: Stage, failed: bool) -> None: ...


@dataclass
class At:
    """How far a stage is: its state, when it began, the steps that were heard of lately, its last loss, its seconds."""

    name: str
    forecast: float
    state: str = WAITING
    began: float = 0.0
    step: int = 0
    total: int = 0
    loss: float | None = None
    seconds: float = 0.0
    heard: deque[tuple[float, int]] = field(default_factory=deque)

    def hear(self, now: float, step: int, total: int, loss: float | None) -> None:
        self.step, self.total = step, total
        self.loss = self.loss if loss is None else loss
        if self.heard and step < self.heard[-1][1]:  # another pass, or another attempt
            self.heard.clear()
        self.heard.append((now, step))
        while now - self.heard[0][0] > WINDOW and len(self.heard) > 2:
            self.heard.popleft()

    @property
    def rate(self) -> float | None:
        """Steps a second, lately; None before two words were heard."""
        return rate(self.heard)


def rate(heard: Sequence[tuple[float, int]]) -> float | None:
    """Steps a second from (seconds, step), the oldest first; None where they do not tell."""
    if len(heard) < 2 or heard[-1][0] <= heard[0][0] or heard[-1][1] <= heard[0][1]:
        return None
    return (heard[-1][1] - heard[0][1]) / (heard[-1][0] - heard[0][0])


class Display:
    """Shows stages as they start, advance and end on `console`. workers: how many stages are built at once; None: as
    many as were seen to be."""

    def __init__(self, console: Console, workers: int | None = None, watcher: Watcher | None = None):
        self.console, self._workers, self._watcher = console, workers, watcher
        self._at: dict[Stage, At] = {}
        self._of_row: list[tuple[Row, list[At], list[At]]] = []
        self._above: list[tuple[At, list[At]]] = []
        self._ended, self._most, self._drawn = 0, 1, 0.0
        self._live: Live | None = None

    @contextmanager
    def showing(self, todo: list[Stage], names: dict[Stage, str], rows: Iterable[Row] = ()) -> Iterator[None]:
        """While stages are being built. rows: those of the table, also the complete ones."""
        self._at = {stage: At(names.get(stage, stage.kind), forecast.seconds(stage)) for stage in todo}
        self._ended = 0
        if not self.console.is_terminal:
            yield
            return
        self._above = [(at, [self._at[above] for above in needs(stage) if above in self._at])
                       for stage, at in self._at.items()]
        self._of_row = [(row, [self._at[stage] for stage in shown(row) if stage in self._at],
                         list(self._behind(row))) for row in rows]
        wraps, self.console.soft_wrap = self.console.soft_wrap, False  # else lines run over a narrow terminal's edge
        try:
            with Live(get_renderable=self.view, console=self.console, auto_refresh=False, transient=True) as self._live:
                yield
        finally:
            self._live, self.console.soft_wrap = None, wraps

    def _behind(self, row: Row) -> Iterator[At]:
        """The missing stages that a row is made of."""
        found: set[int] = set()
        left = [stage for stage in shown(row) if stage in self._at]
        while left:
            stage = left.pop()
            at = self._at[stage]
            if id(at) not in found:
                found.add(id(at))
                yield at
                left += [above for above in needs(stage) if above in self._at]

    def started(self, stage: Stage) -> None:
        at = self._at[stage]
        at.state, at.began, at.step, at.total = RUNNING, time.monotonic(), 0, 0
        at.heard.clear()
        self._most = max(self._most, sum(one.state == RUNNING for one in self._at.values()))
        if self._watcher:
            self._watcher.started(stage)

    def advanced(self, stage: Stage, step: int, total: int, scalars: dict[str, float]) -> None:
        self._at[stage].hear(time.monotonic(), step, total, scalars.get("loss"))
        if self._watcher:
            self._watcher.advanced(stage, step, total, scalars)

    def finished(self, stage: Stage, seconds: float) -> None:
        self._at[stage].seconds = seconds
        self._end(stage, DONE, f"built in {seconds:.0f} s")

    def failed(self, stage: Stage, cause: str) -> None:
        self._end(stage, FAILED, f"FAILED: {cause}")

    def tick(self) -> None:
        """Called at least every half second."""
        if self._live and time.monotonic() - self._drawn >= REFRESH:
            self._live.refresh()
            self._drawn = time.monotonic()

    def _end(self, stage: Stage, state: str, how: str) -> None:
        self._ended += 1
        at = self._at[stage]
        at.state = state
        self.console.print(f"[{self._ended}/{len(self._at)}] {at.name}: {how}", markup=False, highlight=False,
                           soft_wrap=True)
        if self._watcher:
            self._watcher.ended(stage, state == FAILED)

    def view(self) -> RenderableType:
        """The picture of now, no taller than the terminal: rows, the stages that run, and how much is left."""
        now = time.monotonic()
        running = [at for at in self._at.values() if at.state == RUNNING]
        room = self.console.height - 3  # beside two heads and the last line
        stages_shown = running[:max(1, room // 2)]
        left = self.left(now)
        counts = Counter(at.state for at in self._at.values())
        last = Text(f"{counts[DONE]} of {len(self._at)} stages"
                    + (f", {counts[FAILED]} failed" if counts[FAILED] else "")
                    + (f", about {spell(left)} left" if left is not None else ""),
                    no_wrap=True, overflow="ellipsis")
        return Group(*self._rows(room - len(stages_shown)), _stages(stages_shown, now), last)

    def _rows(self, room: int) -> list[RenderableType]:
        """The rows' states; where there are more than there is room for, of those that run or failed, and counts."""
        states = [(row, *_state(shown_at, behind)) for row, shown_at, behind in self._of_row]
        if not states or room < 2:
            return []
        chosen = states
        if len(states) > room:
            chosen = [one for one in states if one[1] == FAILED] + [one for one in states if one[1] == RUNNING]
            chosen = chosen[:room - 1]
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("row", "seed", "state"):
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=None)
        for row, state, said in chosen:
            label = row.variant if row.items == "real" else f"{row.variant}, {row.items}"
            table.add_row(Text(label), Text(str(row.seed)), Text(said, STYLES[state]))
        counted = Counter(state for _, state, _ in states)
        counted.subtract(state for _, state, _ in chosen)
        rest = ", ".join(f"{counted[state]} {state}" for state in (DONE, RUNNING, FAILED, WAITING) if counted[state])
        return [table, *([Text(f"other rows: {rest}", no_wrap=True, overflow="ellipsis")] if rest else [])]

    def left(self, now: float) -> float | None:
        """About how many seconds are left: forecasts, corrected kind by kind by what was seen; None before that."""
        forecast: dict[str, float] = defaultdict(float)
        actual: dict[str, float] = defaultdict(float)
        for stage, at in self._at.items():
            if at.state == DONE:
                forecast[stage.kind] += at.forecast
                actual[stage.kind] += at.seconds
            elif at.state == RUNNING and at.step and at.total:
                forecast[stage.kind] += at.forecast * at.step / at.total
                actual[stage.kind] += now - at.began
        if not actual:
            return None
        overall = (sum(actual.values()) + TRUST) / (sum(forecast.values()) + TRUST)

        def seconds(stage: Stage, at: At) -> float:
            whole = at.forecast * (actual[stage.kind] + TRUST * overall) / (forecast[stage.kind] + TRUST)
            if at.state == WAITING:
                return whole
            if at.state != RUNNING:
                return 0.0
            return (at.total - at.step) / at.rate if at.rate else max(0.0, whole - (now - at.began))

        alone = {id(at): seconds(stage, at) for stage, at in self._at.items()}
        chain: dict[int, float] = {}  # s until a stage is there, if nothing but what it needs were built
        for at, above in self._above:  # upstream first
            chain[id(at)] = alone[id(at)] + max((chain[id(one)] for one in above), default=0.0)
        return max(sum(alone.values()) / (self._workers or self._most), max(chain.values(), default=0.0))


def _state(shown_at: Iterable[At], behind: Iterable[At]) -> tuple[str, str]:
    """A row's state and what is said of it."""
    if all(at.state == DONE for at in shown_at):
        return DONE, DONE
    behind = list(behind)
    if any(at.state == FAILED for at in behind):
        return FAILED, FAILED
    if running := [at for at in behind if at.state == RUNNING]:
        return RUNNING, ", ".join(at.name.partition(" (")[0] for at in running)
    return WAITING, WAITING


def _stages(running: Iterable[At], now: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True, overflow="ellipsis", ratio=None)
    for name in ("step", "steps/s", "loss", "left"):
        table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis")
    for at in running:
        table.add_row(Text(at.name), *(Text(cell) for cell in cells(at.step, at.total, at.rate, at.loss)))
    return table


def cells(step: int, total: int, steps_a_second: float | None, loss: float | None) -> tuple[str, str, str, str]:
    """step of total, steps a second, loss, time left; empty where it is not known."""
    return (f"{step}/{total}" if total else "", f"{steps_a_second:.3g}" if steps_a_second else "",
            "" if loss is None else f"{loss:.3f}" if isinstance(loss, float) else str(loss),
            spell((total - step) / steps_a_second) if steps_a_second and total else "")


def spell(seconds: float) -> str:
    """"45 s", "12 min", "3 h 05", "2 d 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d}"
    return f"{minutes // (24 * 60)} d {minutes // 60 % 24} h"
