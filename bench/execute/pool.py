"""Worker processes of this machine, one thread each, which build one stage after another.

On a CPU the workers are forked from one process that has imported the libraries once (preload.py): it starts no threads
and exits with this process. With CUDA, which does not survive a fork, every worker imports them itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from bench import runtime
from bench.errors import BenchError
from bench.execute.executor import Event
from bench.experiment.key import Stage
from bench.runtime import Stopped
from bench.store.lease import Held

QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
         "TOKENIZERS_PARALLELISM": "false"}  # more threads would change results, and the workers fill the cores
GRACE = 60.0  # s in which a training that is stopped saves its state


class Pool:
    """An Executor of `workers` processes that build stages into the store at `root`."""

    ahead = False

    def __init__(self, workers: int, root: Path, device: str):
        self._arguments = (root, device)
        self._forks = device != "cuda"
        self._context: Any = multiprocessing.get_context("forkserver" if self._forks else "spawn")
        self._busy: dict[int, Stage | None] = {}  # by slot, as the three below
        self._begun: set[int] = set()
        self._connections: dict[int, Connection] = {}
        self._processes: dict[int, Any] = {}
        self._workers = workers

    def __enter__(self) -> Pool:
        os.environ.update(QUIET)
        try:
            for slot in range(self._workers):
                self._start(slot)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for slot, process in self._processes.items():
            if self._busy[slot] is None:
                process.kill()
            else:
                process.terminate()
                self._connections[slot].close()  # stops a worker that was too young for SIGTERM
        end = time.monotonic() + GRACE
        try:
            for process in self._processes.values():
                process.join(max(0.0, end - time.monotonic()))
        finally:  # also after a second Ctrl-C
            for process in self._processes.values():
                process.kill()
            for process in self._processes.values():
                process.join()

    @property
    def idle(self) -> int:
        """The number of workers that wait for a stage."""
        return sum(stage is None for stage in self._busy.values())

    def submit(self, stage: Stage, after: Sequence[Stage] = ()) -> None:
        """Gives a stage to an idle worker."""
        slot = next(slot for slot, busy in self._busy.items() if busy is None)
        try:
            self._connections[slot].send(stage)
        except OSError:  # the worker died while it waited
            self._start(slot)
            self._connections[slot].send(stage)
        self._busy[slot] = stage
        self._begun.discard(slot)

    def events(self, timeout: float) -> Iterator[Event]:
        """The workers' new events; waits up to `timeout` seconds for the first. Replaces a dead worker."""
        slots = {connection: slot for slot, connection in self._connections.items()}
        for connection in wait(list(slots), timeout):
            slot = slots[connection]  # type: ignore[index]
            stage = self._busy[slot]
            try:
                event = self._connections[slot].recv()
            except (EOFError, OSError):
                self._processes[slot].join()
                code, has_begun = self._processes[slot].exitcode, slot in self._begun
                self._start(slot)
                if stage is None:
                    continue
                cause = f"signal {-code}; out of memory?" if code < 0 else f"exit code {code}"
                error = BenchError(f"its worker process died ({cause})")
                yield Event(stage, "died", error=error, has_begun=has_begun or code >= 0)
                continue
            if event.what == "started":
                self._begun.add(slot)
            elif event.worker_exits:
                self._processes[slot].kill()
                self._processes[slot].join()
                self._start(slot)
            elif event.what != "progress":
                self._busy[slot] = None
            yield event

    def _start(self, slot: int) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, dict(os.environ), *self._arguments), daemon=True)
        if self._forks:
            with _signals_ignored(), _same_imports():
                self._context.set_forkserver_preload(["bench.execute.preload"])
                forkserver.ensure_running()  # returns at once
            process.start()  # waits for the imports of the first
        else:
            with _signals_ignored():
                process.start()
        theirs.close()
        self._busy[slot], self._connections[slot], self._processes[slot] = None, ours, process


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Lets processes that are started in this context ignore Ctrl-C and a closed terminal; the parent handles both."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _same_imports() -> Iterator[None]:
    """Lets the processes that are started in this context import from the folders of this process alone."""
    paths = {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path), "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in paths}
    os.environ.update(paths)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(connection: Connection, environment: dict[str, str], root: Path, device: str) -> None:
    """Runs in a worker: builds the stages that arrive, until SIGTERM or until the parent process exits.

    environment: the parent's variables; they may have changed after the process that forks workers had started."""
    def progress(step: int, total: int, **scalars: float) -> None:
        try:
            connection.send(Event(stage, "progress", step, total, scalars))
        except ConnectionError:
            runtime.stop()

    with suppress(Stopped, EOFError, ConnectionError):
        signal.signal(signal.SIGTERM, runtime.stop)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.environ.clear()
        os.environ.update(environment)
        from bench.execute.build import build  # takes seconds, unless the worker was forked
        from bench.store.store import Store

        store = Store(root)
        while not runtime.is_stopping():  # the imports may have swallowed Stopped
            stage = connection.recv()
            runtime.defer_stop(False)
            connection.send(Event(stage, "started"))
            try:
                build(stage, store, device, progress)
                event = Event(stage, "done", by_other=stage.key not in store.built)
            except Held as error:
                event = Event(stage, "held", error=error)
            except BenchError as error:
                event = Event(stage, "failed", error=error)
            except Exception as error:  # fails the rows of this stage only
                event = Event(stage, "failed", error=BenchError(f"{type(error).__name__}: {error}"),
                              worker_exits=device == "cuda")  # its CUDA context may be unusable
            runtime.defer_stop(False)
            if event.error is not None:
                runtime.release_memory(event.error)  # before the next stage needs it
            connection.send(event)
            if event.worker_exits:
                return
