"""Runs a table: builds the stages that are missing, ready ones first, and records each row as soon as it is scored."""

from __future__ import annotations

import heapq
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.cost import forecast
from bench.errors import RESUMABLE, BenchError
from bench.execute.executor import Event, Executor
from bench.execute.progress import Display
from bench.experiment.graph import Row, needs, shown, stages
from bench.experiment.key import Stage
from bench.experiment.kinds import kind_of
from bench.files import disk_full
from bench.store import journal
from bench.store.lease import Lease
from bench.store.lease import said as said_of
from bench.store.store import Store

LIVES = {True: 3, False: 20}  # how often a stage's process may die at work, and before it began


@dataclass
class Outcome:
    """What became of a run: rows that failed with the reason, the stages that were built, those that are queued and the
    rows that wait for them, how many were reused."""

    failed: dict[Row, str] = field(default_factory=dict)
    queued: set[Stage] = field(default_factory=set)
    waiting: set[Row] = field(default_factory=set)
    built: set[Stage] = field(default_factory=set)
    reused: int = 0
    seconds: float = 0.0


def run(table: list[Row], store: Store, executor: Executor, record: Callable[[list[Row]], None], display: Display,
        fail_fast: bool = False) -> Outcome:
    """Builds what the rows need and calls `record` with rows as they are complete, stored ones first.

    A stage that fails takes the rows that need it along and no others; fail_fast: nothing new is begun after it. What
    another process builds is left to it and waited for. Raises BenchError on a full disk (exit 75).
    """
    began = time.monotonic()
    with _told_to_end(), store.at_work():
        outcome = _built(table, store, executor, record, display, fail_fast)
    outcome.seconds = time.monotonic() - began
    return outcome


def _built(table: list[Row], store: Store, executor: Executor, record: Callable[[list[Row]], None], display: Display,
           fail_fast: bool) -> Outcome:
    store.sweep()
    outcome = Outcome()
    todo = stages((stage for row in table for stage in shown(row)), store.sound)
    outcome.reused = len(stages(row.stage for row in table)) - len(todo)
    missing = set(todo)
    waiting = dict.fromkeys(row for row in table if missing.intersection(shown(row)))
    record([row for row in table if row not in waiting])
    try:
        if todo:
            with display.showing(todo, _names(table, todo), table), executor:
                _Work(todo, executor, store, display, outcome, waiting, record).off(fail_fast)
    finally:  # also of workers that were told to end in the middle of anything
        store.sweep()
    return outcome


@contextmanager
def _told_to_end() -> Iterator[None]:
    """SIGTERM and SIGHUP end what runs as Ctrl-C does, with exit code 75; told again, which a terminal does that is
    closed, it goes on putting away."""
    def end(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise BenchError(f"told to end ({signal.Signals(number).name}); what is complete is kept, and the same command "
                         "goes on from there", RESUMABLE)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)
                  if signal.getsignal(number) is signal.SIG_DFL}  # nohup has it ignored
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Work:
    """The stages of a run that are missing, on their way through an executor."""

    def __init__(self, todo: list[Stage], executor: Executor, store: Store, display: Display, outcome: Outcome,
                 waiting: Iterable[Row], record: Callable[[list[Row]], None]):
        self._executor, self._store, self._display, self._outcome = executor, store, display, outcome
        self._record = record
        missing = set(todo)
        self._above = {stage: missing.intersection(needs(stage)) for stage in todo}  # what it waits for
        self._below: dict[Stage, list[Stage]] = {stage: [] for stage in todo}
        for stage, those in self._above.items():
            for above in those:
                self._below[above].append(stage)
        self._rows = {row: missing.intersection(shown(row)) for row in waiting}
        self._shown: dict[Stage, list[Row]] = {}
        for row, those in self._rows.items():
            for stage in those:
                self._shown.setdefault(stage, []).append(row)
        self._ready: list[tuple[int, float, int, Stage]] = []  # a heap; the number keeps stages from being compared
        self._number = {stage: number for number, stage in enumerate(todo)}
        self._busy: set[Stage] = set()
        self._elsewhere: set[Stage] = set()
        self._done: set[Stage] = set()
        self._shown_at_work: set[Stage] = set()
        self._steps: dict[Stage, int] = {}
        self._dead: dict[Stage, str] = {}
        self._looked = 0.0
        self._deaths: Counter[tuple[Stage, bool]] = Counter()
        for stage in todo:
            if executor.ahead or not self._above[stage]:
                self._push(stage)

    def off(self, fail_fast: bool) -> None:
        """Builds them; returns when each is in the store or cannot be."""
        while self._ready or self._busy or self._elsewhere:
            if fail_fast and self._dead:
                self._ready.clear()
                self._elsewhere.clear()
                if self._executor.ahead or not self._busy:
                    break
            while self._ready and self._executor.idle:
                self._begin(heapq.heappop(self._ready)[-1])
            for event in self._executor.events(timeout=0.5):
                self._hear(event)
            self._look()
            self._display.tick()
        for row, those in self._rows.items():
            if those <= self._outcome.queued:
                self._outcome.waiting.add(row)
                continue
            self._outcome.failed[row] = next((self._dead[stage] for stage in shown(row) if stage in self._dead), "")
            if not self._outcome.failed[row]:
                self._outcome.failed[row] = f"{next(iter(those)).kind}: not begun, for another stage failed"

    def _begin(self, stage: Stage) -> None:
        if stage in self._dead or stage in self._busy or stage in self._done:
            return
        if not self._above[stage] <= self._busy:  # not before those that another builds are there
            return
        if not self._executor.ahead and (lease := self._store.held(stage)):  # an engine's own jobs hold leases, too
            self._leave(stage, lease)
            return
        if self._store.has(stage):  # since this run began, by another
            self._there(stage)
            return
        self._busy.add(stage)
        self._executor.submit(stage, sorted(self._above[stage], key=self._number.__getitem__))

    def _leave(self, stage: Stage, lease: Lease) -> None:
        """Leaves a stage to the process that builds it."""
        if not self._elsewhere:
            self._display.console.print(f"left to another: {stage.kind}, {said_of(lease)}", highlight=False)
        self._elsewhere.add(stage)

    def _look(self) -> None:
        """Whether what others build is there, or theirs no more; once in a second."""
        if self._elsewhere and time.monotonic() - self._looked >= 1:
            self._looked = time.monotonic()
            for stage in sorted(self._elsewhere, key=self._number.__getitem__):
                if self._store.has(stage) or not self._store.held(stage):
                    self._elsewhere.discard(stage)
                    self._push(stage)

    def _push(self, stage: Stage) -> None:
        order = (self._number[stage], 0.0) if self._executor.ahead else _priority(stage)
        heapq.heappush(self._ready, (*order, self._number[stage], stage))

    def _hear(self, event: Event) -> None:
        stage = event.stage
        if event.what in ("started", "progress"):
            self._at_work(stage)
            if event.what == "progress" and self._steps.get(stage) != event.step:  # an engine says a step again
                self._steps[stage] = event.step
                self._display.advanced(stage, event.step, event.total, event.scalars or {})
            return
        self._busy.discard(stage)
        if event.what == "held":
            self._push(stage)
            return
        if event.what == "done":
            if not event.found:
                self._outcome.built.add(stage)
            self._there(stage)
            return
        if event.what == "queued":
            self._outcome.queued.add(stage)
            return
        assert event.error is not None
        if event.error.exit_code == RESUMABLE or self._store.full():
            raise disk_full(self._store.root) from event.error
        error = event.error
        if event.what == "died":
            self._store.sweep()
            self._deaths[stage, event.begun] += 1
            if self._deaths[stage, event.begun] < LIVES[event.begun]:
                self._push(stage)
                return
            error = BenchError(f"{error} ({LIVES[event.begun]} times)")
        if stage not in self._dead:
            self._fail(stage, _cause(stage, error, self._store))

    def _at_work(self, stage: Stage) -> None:
        if stage not in self._shown_at_work:
            self._shown_at_work.add(stage)
            self._display.started(stage)

    def _there(self, stage: Stage) -> None:
        """Goes on with what a stage that is now stored makes possible."""
        self._done.add(stage)
        self._at_work(stage)
        self._display.finished(stage, self._store.manifest(stage)["wall_s"])
        for below in self._below[stage]:
            self._above[below].discard(stage)
            if not self._above[below]:
                self._push(below)
        complete = []
        for row in self._shown.get(stage, ()):
            self._rows[row].discard(stage)
            if not self._rows[row]:
                del self._rows[row]
                complete.append(row)
        self._record(complete)

    def _fail(self, stage: Stage, cause: str) -> None:
        """Gives up a stage, and what needs it with the same cause."""
        self._display.failed(stage, cause)
        doomed = [stage]
        while doomed:
            stage = doomed.pop()
            if stage not in self._dead:
                self._dead[stage] = cause
                doomed += self._below[stage]


def said(failed: dict[Row, str]) -> list[str]:
    """A line for each row that failed."""
    return [f"{row.variant} (seed {row.seed}, {row.items}): {cause}" for row, cause in failed.items()]


def _cause(stage: Stage, error: BenchError, store: Store) -> str:
    """One line for the summary, with where the traceback lies, or the stage's journal."""
    said, name = " ".join(str(error).split()), stage.key
    journal.given_up(store.root, stage, said)
    files = journal.traceback_path(store.root, name), journal.path(store.root, name)
    there = next((f" (log: {file})" for file in files if file.is_file()), "")
    return f"{stage.kind}: {said}{there}"


def _priority(stage: Stage) -> tuple[int, float]:
    """Late stages first, so that rows are finished early; among those of a kind, the longest first."""
    return -kind_of(stage).place, -forecast.seconds(stage)


def _names(table: Iterable[Row], todo: Iterable[Stage]) -> dict[Stage, str]:
    """How a stage is called on the screen: its kind, and the first row that needs it."""
    names: dict[Stage, str] = {}
    wanted = set(todo)
    for row in table:
        label = f"{row.variant}, seed {row.seed}" + ("" if row.items == "real" else f", {row.items}")
        for stage in stages(shown(row)):
            if stage in wanted:
                names.setdefault(stage, f"{stage.kind} ({label})" if stage.kind not in (
                    "trials", "corpus", "targets", "reference", "readout") else stage.kind)
    return names


def workers(wanted: int | None, device: str) -> int:
    """How many workers: on a CPU one for each core that this process may use, on a GPU one."""
    if wanted is not None:
        if wanted < 1:
            raise BenchError(f"--workers {wanted}: at least 1 is needed")
        return wanted
    return 1 if device == "cuda" else len(os.sched_getaffinity(0))
