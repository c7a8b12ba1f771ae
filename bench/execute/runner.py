"""Runs a table: builds the missing stages, ready ones first, and records each row as soon as it is scored."""

from __future__ import annotations

import heapq
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.cost import forecast, schedule
from bench.errors import RESUMABLE, BenchError
from bench.execute.executor import Event, Executor
from bench.execute.progress import Display
from bench.experiment.graph import Row, needs, report_stages, stages
from bench.experiment.key import Stage
from bench.experiment.kinds import gpus_of
from bench.files import disk_full
from bench.store import journal
from bench.store.lease import describe_holder
from bench.store.store import Store

MAX_ATTEMPTS = {True: 3, False: 20}  # how often a stage's process may die after it began to build, and before


@dataclass
class Outcome:
    """The result of a run. failed: rows and their reasons; queued: stages that an engine has; waiting: rows that need
    them; built: stages that this run built; reused: the number of stages that were already stored."""

    failed: dict[Row, str] = field(default_factory=dict)
    queued: set[Stage] = field(default_factory=set)
    waiting: set[Row] = field(default_factory=set)
    built: set[Stage] = field(default_factory=set)
    reused: int = 0
    seconds: float = 0.0


def run(table: list[Row], store: Store, executor: Executor, record: Callable[[list[Row]], None], display: Display,
        fail_fast: bool = False) -> Outcome:
    """Builds what the rows need, and calls `record` with rows as they are complete, stored rows first. A stage that
    fails fails only the rows that need it; fail_fast: nothing new starts then. Waits for stages that other processes
    build. Raises BenchError (exit 75) if the disk is full, and on SIGTERM and SIGHUP."""
    began = time.monotonic()
    with _signals_as_errors(), store.at_work():
        store.sweep()
        outcome = Outcome()
        todo = stages((stage for row in table for stage in report_stages(row)), store.is_intact)
        outcome.reused = len(stages(row.stage for row in table)) - len(todo)
        missing = set(todo)
        incomplete = dict.fromkeys(row for row in table if missing.intersection(report_stages(row)))
        record([row for row in table if row not in incomplete])
        try:
            if todo:
                with display.showing(todo, _labels(table, todo), table), executor:
                    _Scheduler(todo, executor, store, display, outcome, incomplete, record).work(fail_fast)
        finally:  # also removes what stopped workers left
            store.sweep()
    outcome.seconds = time.monotonic() - began
    return outcome


@contextmanager
def _signals_as_errors() -> Iterator[None]:
    """SIGTERM and SIGHUP end the run as Ctrl-C does, with exit code 75. Further signals are ignored during cleanup."""
    def end(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise BenchError(f"stopped by {signal.Signals(number).name}; complete stages are kept, and the same command "
                         "resumes", RESUMABLE)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)
                  if signal.getsignal(number) is signal.SIG_DFL}  # nohup ignores SIGHUP
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Scheduler:
    """Passes the missing stages of a run to an executor: those in _ready, by their number of GPUs. _busy: the executor
    has them; _elsewhere: another process builds them; _dead: they failed; the others wait for their inputs (_above)."""

    def __init__(self, todo: list[Stage], executor: Executor, store: Store, display: Display, outcome: Outcome,
                 incomplete: Iterable[Row], record: Callable[[list[Row]], None]):
        self._executor, self._store, self._display, self._outcome = executor, store, display, outcome
        self._record = record
        missing = set(todo)
        self._above = {stage: missing.intersection(needs(stage)) for stage in todo}  # its inputs that are missing
        self._below: dict[Stage, list[Stage]] = defaultdict(list)
        for stage, inputs in self._above.items():
            for above in inputs:
                self._below[above].append(stage)
        self._rows = {row: missing.intersection(report_stages(row)) for row in incomplete}
        self._rows_of: dict[Stage, list[Row]] = defaultdict(list)
        for row, parts in self._rows.items():
            for stage in parts:
                self._rows_of[stage].append(row)
        self._ready: dict[int, list[tuple[int, float, int, Stage]]] = defaultdict(list)  # heaps; the third item of an
        # entry is unique: stages have no order
        self._number = {stage: number for number, stage in enumerate(todo)}
        self._busy, self._elsewhere, self._done = set[Stage](), set[Stage](), set[Stage]()
        self._dead: dict[Stage, str] = {}
        self._shown_at_work: set[Stage] = set()
        self._steps: dict[Stage, int] = {}
        self._polled = 0.0
        self._deaths: Counter[tuple[Stage, bool]] = Counter()
        for stage in todo:
            if executor.ahead or not self._above[stage]:
                self._push(stage)

    def work(self, fail_fast: bool) -> None:
        """Returns when each stage is stored or cannot be built."""
        while any(self._ready.values()) or self._busy or self._elsewhere:
            if fail_fast and self._dead:
                self._ready.clear()
                self._elsewhere.clear()
                if self._executor.ahead or not self._busy:
                    break
            while stage := self._next_ready():
                self._begin(stage)
            for event in self._executor.events(timeout=0.5):
                self._handle(event)
            self._poll_elsewhere()
            self._display.tick()
        for row, parts in self._rows.items():
            if parts <= self._outcome.queued:
                self._outcome.waiting.add(row)
                continue
            causes = [self._dead[stage] for stage in report_stages(row) if stage in self._dead]
            self._outcome.failed[row] = causes[0] if causes else (
                f"{next(iter(parts)).kind}: not started, because another stage failed")

    def _next_ready(self) -> Stage | None:
        """Removes and returns the first ready stage, by priority, that the executor accepts; None if there is none.
        While a training waits for several GPUs, later stages start only if they need no GPU: else it might never find
        enough of them idle."""
        is_waiting = False
        for gpus, heap in sorted(self._ready.items(), key=lambda each: each[1][:1]):
            if not heap or (gpus and is_waiting):
                continue
            if self._executor.accepts(heap[0][-1]):
                return heapq.heappop(heap)[-1]
            is_waiting = is_waiting or gpus > 1
        return None

    def _begin(self, stage: Stage) -> None:
        if stage in self._dead or stage in self._busy or stage in self._done:
            return
        if not self._above[stage] <= self._busy:  # another process builds an input: wait until it is stored
            return
        if not self._executor.ahead and (lease := self._store.holder(stage)):  # an engine's own jobs hold leases, too
            if not self._elsewhere:
                self._display.console.print(f"waiting for {stage.kind}, built by {describe_holder(lease)}",
                                            highlight=False)
            self._elsewhere.add(stage)
            return
        if self._store.has(stage):  # another process built it since this run began
            self._complete(stage)
            return
        self._busy.add(stage)
        self._executor.submit(stage, sorted(self._above[stage], key=self._number.__getitem__))

    def _poll_elsewhere(self) -> None:
        """Once a second, makes stages ready that another process has built or given up."""
        if self._elsewhere and time.monotonic() - self._polled >= 1:
            self._polled = time.monotonic()
            for stage in sorted(self._elsewhere, key=self._number.__getitem__):
                if self._store.has(stage) or not self._store.holder(stage):
                    self._elsewhere.discard(stage)
                    self._push(stage)

    def _push(self, stage: Stage) -> None:
        order = (self._number[stage], 0.0) if self._executor.ahead else _priority(stage)
        heapq.heappush(self._ready[gpus_of(stage)], (*order, self._number[stage], stage))

    def _handle(self, event: Event) -> None:
        stage = event.stage
        if event.what in ("started", "progress"):
            self._show_at_work(stage)
            if event.what == "progress" and self._steps.get(stage) != event.step:  # an engine repeats steps
                self._steps[stage] = event.step
                self._display.advanced(stage, event.step, event.total, event.scalars or {})
            return
        self._busy.discard(stage)
        if event.what == "held":
            self._push(stage)
            return
        if event.what == "done":
            if not event.by_other:
                self._outcome.built.add(stage)
            self._complete(stage)
            return
        if event.what == "queued":
            self._outcome.queued.add(stage)
            return
        assert event.error is not None
        if event.error.exit_code == RESUMABLE or self._store.is_full():
            raise disk_full(self._store.root) from event.error
        error = event.error
        if event.what == "died":
            self._store.sweep()
            self._deaths[stage, event.has_begun] += 1
            if self._deaths[stage, event.has_begun] < MAX_ATTEMPTS[event.has_begun]:
                self._push(stage)
                return
            error = BenchError(f"{error} ({MAX_ATTEMPTS[event.has_begun]} times)")
        if stage not in self._dead:
            self._fail(stage, _describe_failure(stage, error, self._store))

    def _show_at_work(self, stage: Stage) -> None:
        if stage not in self._shown_at_work:
            self._shown_at_work.add(stage)
            self._display.started(stage)

    def _complete(self, stage: Stage) -> None:
        """Makes the stages ready that a stored stage was the last input of, and records the rows that are complete."""
        self._done.add(stage)
        self._show_at_work(stage)
        self._display.finished(stage, self._store.manifest(stage)["wall_s"])
        for below in self._below[stage]:
            self._above[below].discard(stage)
            if not self._above[below]:
                self._push(below)
        complete = []
        for row in self._rows_of[stage]:
            self._rows[row].discard(stage)
            if not self._rows[row]:
                del self._rows[row]
                complete.append(row)
        self._record(complete)

    def _fail(self, stage: Stage, cause: str) -> None:
        """Marks a stage and everything below it as failed for the same cause."""
        self._display.failed(stage, cause)
        doomed = [stage]
        while doomed:
            stage = doomed.pop()
            if stage not in self._dead:
                self._dead[stage] = cause
                doomed += self._below[stage]


def describe_failures(failed: dict[Row, str]) -> list[str]:
    """A line for each row that failed."""
    return [f"{row.variant} (seed {row.seed}, {row.items}): {cause}" for row, cause in failed.items()]


def _describe_failure(stage: Stage, error: BenchError, store: Store) -> str:
    """Writes a failure to the stage's journal; returns it as one line that names the file with the details."""
    message = " ".join(str(error).split())
    journal.record_failure(store.root, stage, message)
    files = journal.traceback_path(store.root, stage.key), journal.path(store.root, stage.key)
    return f"{stage.kind}: {message}" + next((f" (log: {file})" for file in files if file.is_file()), "")


def _priority(stage: Stage) -> tuple[int, float]:
    """The order in which ready stages begin, by their time on a CPU core."""
    return schedule.priority(stage, forecast.seconds(stage))


def _labels(table: Iterable[Row], todo: Iterable[Stage]) -> dict[Stage, str]:
    """The label of each stage on the screen: its kind, and the first row that needs it."""
    labels: dict[Stage, str] = {}
    wanted = set(todo)
    for row in table:
        label = f"{row.variant}, seed {row.seed}" + ("" if row.items == "real" else f", {row.items}")
        for stage in stages(report_stages(row)):
            if stage in wanted:
                labels.setdefault(stage, f"{stage.kind} ({label})" if stage.kind not in (
                    "trials", "corpus", "targets", "reference", "trainfeatures", "readout") else stage.kind)
    return labels
