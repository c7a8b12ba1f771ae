"""Runs a table: builds the stages that are missing, ready ones first, and records each row as soon as it is scored."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bench import journal
from bench.errors import ENVIRONMENT, RESUMABLE, BenchError
from bench.key import Stage, key, kind
from bench.plan import Row, needs, shown, stages
from bench.pool import Pool
from bench.progress import Display
from bench.stages import Pretrain
from bench.store import Store, disk_full

DEVICES = ("auto", "cpu", "cuda")


@dataclass
class Outcome:
    """What became of a run: rows that failed with the reason, the stages that were built, how many were reused."""

    failed: dict[Row, str] = field(default_factory=dict)
    built: set[Stage] = field(default_factory=set)
    reused: int = 0
    seconds: float = 0.0


def device(name: str) -> str:
    """"cpu" or "cuda"; "auto" takes a GPU where the driver shows one. Raises BenchError (exit 3) where none is."""
    if name not in DEVICES:
        raise BenchError(f"no device {name!r}; there are: {', '.join(DEVICES)}")
    found = _gpus() > 0
    if name == "cuda" and not found:
        raise BenchError("device cuda: the driver shows no GPU on this machine; use --device cpu", ENVIRONMENT)
    return "cuda" if found and name != "cpu" else "cpu"


def _gpus() -> int:
    """How many GPUs CUDA's driver shows, asked without importing torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def run(table: list[Row], store: Store, workers: int, device: str, record: Callable[[list[Row]], None],
        display: Display) -> Outcome:
    """Builds what the rows need and calls `record` with rows as they are complete, stored ones first.

    A stage that fails takes the rows that need it along and no others. Raises BenchError on a full disk (exit 75).
    """
    began = time.monotonic()
    _sweep(store)
    outcome = Outcome()
    todo = stages((stage for row in table for stage in shown(row)), store.sound)
    outcome.reused = len(stages(row.stage for row in table)) - len(todo)
    missing = set(todo)
    waiting = dict.fromkeys(row for row in table if missing.intersection(shown(row)))
    record([row for row in table if row not in waiting])
    if todo:
        names = _names(table, todo)
        with display.showing(todo, names, table), Pool(min(workers, len(todo)), store.root, device) as pool:
            _work_off(todo, pool, store, display, outcome, waiting, record)
    outcome.seconds = time.monotonic() - began
    return outcome


def _work_off(todo: list[Stage], pool: Pool, store: Store, display: Display, outcome: Outcome,
              waiting: dict[Row, None], record: Callable[[list[Row]], None]) -> None:
    missing = set(todo)
    left = sorted(todo, key=_priority)
    busy: set[Stage] = set()
    dead: dict[Stage, str] = {}
    while left or busy:
        for stage in list(left):
            cause = next((dead[above] for above in needs(stage) if above in dead), None)
            if cause:
                left.remove(stage)
                dead[stage] = cause
            elif pool.idle and not any(above in missing for above in needs(stage)):
                left.remove(stage)
                busy.add(stage)
                display.started(stage)
                pool.submit(stage)
        for event in pool.events(timeout=0.5) if busy else ():
            if event.what == "progress":
                display.advanced(event.stage, event.step, event.total, event.scalars or {})
                continue
            busy.discard(event.stage)
            if event.what == "done":
                missing.discard(event.stage)
                outcome.built.add(event.stage)
                display.finished(event.stage, store.manifest(event.stage)["wall_s"])
                complete = [row for row in waiting if not missing.intersection(shown(row))]
                for row in complete:
                    del waiting[row]
                record(complete)
            else:
                assert event.error is not None
                if event.error.exit_code == RESUMABLE or store.full():
                    raise disk_full(store.root) from event.error
                dead[event.stage] = _cause(event.stage, event.error, event.log, store)
                display.failed(event.stage, dead[event.stage])
        display.tick()
    for row in list(waiting):
        del waiting[row]
        outcome.failed[row] = next(dead[stage] for stage in shown(row) if stage in dead)


def said(failed: dict[Row, str]) -> list[str]:
    """A line for each row that failed."""
    return [f"{row.variant} (seed {row.seed}, {row.items}): {cause}" for row, cause in failed.items()]


def _cause(stage: Stage, error: BenchError, log: str, store: Store) -> str:
    """One line for the summary; the traceback goes to the store's logs/."""
    line = f"{kind(stage)}: {' '.join(str(error).split())}"
    journal.given_up(store.root, stage, " ".join(str(error).split()))
    if log:
        path = store.root / "logs" / f"{key(stage)}.log"
        path.write_text(log)
        line += f" (log: {path})"
    return line


def _priority(stage: Stage) -> tuple[int, float]:
    """Late stages first, so that rows are finished early; among pre-trainings, the longest first."""
    order = ("score", "readout", "generate", "finetune", "targets", "trials", "corpus", "reference", "pretrain")
    length = 0.0
    if isinstance(stage, Pretrain):
        length = -stage.encoder.depth * stage.encoder.width * (1.2 - stage.mask_ratio) * stage.schedule.steps
    return order.index(kind(stage)) if kind(stage) in order else len(order), length


def _names(table: Iterable[Row], todo: Iterable[Stage]) -> dict[Stage, str]:
    """How a stage is called on the screen: its kind, and the first row that needs it."""
    names: dict[Stage, str] = {}
    wanted = set(todo)
    for row in table:
        label = f"{row.variant}, seed {row.seed}" + ("" if row.items == "real" else f", {row.items}")
        for stage in stages(shown(row)):
            if stage in wanted:
                names.setdefault(stage, f"{kind(stage)} ({label})" if kind(stage) not in (
                    "trials", "corpus", "targets", "reference", "readout") else kind(stage))
    return names


def _sweep(store: Store) -> None:
    """Removes the attempts of processes that are gone."""
    for folder in (store.root / "work").iterdir():
        owner = folder.name.split("-")[1] if folder.name.count("-") >= 2 else ""
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def workers(wanted: int | None, device: str) -> int:
    """How many workers: on a CPU one for each core that this process may use, on a GPU one."""
    if wanted is not None:
        if wanted < 1:
            raise BenchError(f"--workers {wanted}: at least 1 is needed")
        return wanted
    return 1 if device == "cuda" else len(os.sched_getaffinity(0))

