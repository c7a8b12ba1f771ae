"""Runs the checks in their order until the minutes are over; writes one JSON line for each as it ends."""

from __future__ import annotations

import datetime
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from bench.errors import ENVIRONMENT, BenchError, one_line
from bench.selftest.table import Line

if TYPE_CHECKING:
    from bench.selftest.checks import Check

DISK = {True: 45e9, False: 1e9}  # bytes for inputs, stages and checkpoints, at real and small sizes


class OutOfTime(BaseException):
    """Reports that the time is over. It is no Exception, so that a check does not catch it."""


def run(device: str, is_real: bool, minutes: float, lines: TextIO, scratch: Path | None = None,
        show: Callable[[Line], None] = lambda line: None, checks: Sequence[Check] = ()) -> list[Line]:
    """Runs the checks; returns a line for each, also for those that were not run.

    lines: gets one JSON object for each check as it ends. scratch: folder for a temporary folder (default: the
    system's). checks: (default: all). Raises BenchError (exit 3) if the disk is too full.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own messages
    from bench.selftest.checks import CHECKS, Machine  # imports torch

    ends, done = time.monotonic() + 60 * minutes, list[Line]()
    with tempfile.TemporaryDirectory(prefix="bench-selftest-", dir=scratch, ignore_cleanup_errors=True) as folder:
        if (free := shutil.disk_usage(folder).free) < DISK[is_real]:
            raise BenchError(f"the self-test needs {DISK[is_real] / 1e9:.0f} GB of disk, but {Path(folder).parent} has "
                             f"{free / 1e9:.0f} GB; choose another folder with --scratch DIR", ENVIRONMENT)
        machine = Machine(device, is_real, Path(folder))
        for check in checks or CHECKS:
            began = time.monotonic()
            line = Line(check.name, "not run", reason="the minutes were over")
            if began < ends:
                line = _run_check(check, machine, ends)
            done.append(line)
            lines.write(json.dumps(line.as_json(_now())) + "\n")
            lines.flush()
            show(line)
    return done


def _run_check(check: Check, machine: Any, ends: float) -> Line:
    """Runs one check; an error becomes the reason in its line."""
    began = time.monotonic()
    try:
        with _alarm(ends):
            values = check.run(machine)
        line = Line(check.name, "ok", values)
    except OutOfTime:
        line = Line(check.name, "not run", reason="the minutes were over before it ended")
    except Exception as error:  # of the code under test, of a driver or of a library: the other checks still run
        name = "" if isinstance(error, BenchError) or type(error).__name__ == "Failed" else f"{type(error).__name__}: "
        line = Line(check.name, "failed", reason=name + one_line(error))
        error.__traceback__ = None  # its frames hold networks
    line.seconds = time.monotonic() - began
    _free_memory()
    return line


@contextmanager
def _alarm(ends: float) -> Iterator[None]:
    """Raises OutOfTime in the main thread when the time is over."""
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield
        return

    def expire(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, ends - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules["torch"]
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
