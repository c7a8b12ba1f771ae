"""Worker processes of this machine, one thread each, which build one stage after another.

Workers that use no GPU are forked from one process that has imported the libraries once (preload.py): it starts no
threads and exits with this process. Those of GPUs import them themselves, because CUDA does not survive a fork, and
see their GPU alone: CUDA_VISIBLE_DEVICES is set before they start.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from bench import runtime
from bench.errors import ENVIRONMENT, BenchError
from bench.execute.devices import VISIBLE, Layout
from bench.execute.executor import Event
from bench.experiment.key import Stage
from bench.experiment.kinds import gpus_of
from bench.runtime import Stopped
from bench.store.lease import Held

QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
         "TOKENIZERS_PARALLELISM": "false"}  # more threads would change results, and the workers fill the cores
GRACE = 60.0  # s in which a training that is stopped saves its state


@dataclass
class _Worker:
    """A place for one process. gpu: the GPU that it uses, "" for none; bound: the GPUs of its process, several while it
    builds a training that needs them; stage: what it builds; has_begun: whether the process has started with that."""

    gpu: str
    bound: tuple[str, ...] = ()
    process: Any = None
    connection: Any = None
    stage: Stage | None = None
    has_begun: bool = False


class Pool:
    """An Executor of the workers of a layout, which build stages into the store at `root`.

    A stage that needs a GPU is built by a worker of the GPU with the fewest running stages. A training over N GPUs
    waits until N GPUs are free, and has these for itself: the other workers there end, and start again when they are
    needed. Every other stage is built by a worker that sees no GPU.

    todo: the stages that are expected: as many workers as these need start at once, the others when they are needed.
    device: what the workers of GPUs compute on.
    """

    ahead = False

    def __init__(self, layout: Layout, root: Path, todo: Iterable[Stage] = (), device: str = "cuda"):
        self._root, self._gpus, self._device = root, layout.gpus, device
        names = [*layout.gpus * layout.per_gpu, *[""] * layout.cpu]  # the first worker of every GPU, the second, ...
        self._workers = [_Worker(gpu) for gpu in names]
        self._expected = Counter(map(self._needed, todo))

    def __enter__(self) -> Pool:
        os.environ.update(QUIET)
        try:
            for gpus in (1, 0):  # a training over several GPUs has processes of its own
                workers = [worker for worker in self._workers if bool(worker.gpu) == bool(gpus)]
                for worker in workers[:self._expected[gpus]]:
                    self._start(worker)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        started = [worker for worker in self._workers if worker.process is not None]
        for worker in started:
            if worker.stage is None:
                worker.process.kill()
            else:
                worker.process.terminate()
                worker.connection.close()  # stops a worker that was too young for SIGTERM
        end = time.monotonic() + GRACE
        try:
            for worker in started:
                worker.process.join(max(0.0, end - time.monotonic()))
        finally:  # also after a second Ctrl-C
            for worker in started:
                worker.process.kill()
            for worker in started:
                worker.process.join()

    def accepts(self, stage: Stage) -> bool:
        """Whether a worker for this stage is idle, and its GPUs are free."""
        return self._choose(stage) is not None

    def submit(self, stage: Stage, after: Sequence[Stage] = ()) -> None:
        """Gives a stage that it accepts to an idle worker. Raises BenchError (exit 3) if it needs a GPU and there is
        none."""
        if gpus_of(stage) and not self._gpus:
            raise BenchError(f"{stage.kind} needs a GPU, but the workers have none; check {VISIBLE}", ENVIRONMENT)
        chosen = self._choose(stage)
        assert chosen is not None, f"no idle worker for {stage.kind}"
        worker, gpus = chosen
        if len(gpus) > 1:
            for other in self._workers:
                if other.gpu in gpus:
                    self._stop(other)  # it may hold memory of its GPU
        if worker.process is None:
            self._start(worker, gpus)
        try:
            worker.connection.send(stage)
        except OSError:  # the worker died while it waited
            self._stop(worker)
            self._start(worker, gpus)
            worker.connection.send(stage)
        worker.stage, worker.has_begun = stage, False

    def events(self, timeout: float) -> Iterator[Event]:
        """The workers' new events; waits up to `timeout` seconds for the first. Replaces a dead worker."""
        workers = {worker.connection: worker for worker in self._workers if worker.process is not None}
        for connection in wait(list(workers), timeout):
            worker = workers[connection]
            stage = worker.stage
            try:
                event = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join()
                code, has_begun = worker.process.exitcode, worker.has_begun
                self._release(worker, is_dead=True)
                if stage is None:
                    continue
                cause = f"signal {-code}; out of memory?" if code < 0 else f"exit code {code}"
                error = BenchError(f"its worker process died ({cause})")
                yield Event(stage, "died", error=error, has_begun=has_begun or code >= 0)
                continue
            if event.what == "started":
                worker.has_begun = True
            elif event.what != "progress":
                self._release(worker, is_dead=event.worker_exits)
            yield event

    def _needed(self, stage: Stage) -> int:
        """The number of GPUs that a stage is given: those that it is planned for, at most all. A training for which
        these are too few fails with the reason (bench.train.parallel.launch)."""
        return min(gpus_of(stage), len(self._gpus))

    def _choose(self, stage: Stage) -> tuple[_Worker, tuple[str, ...]] | None:
        """The worker and the GPUs for a stage; None while too few are free."""
        number = self._needed(stage)
        running = Counter(gpu for worker in self._workers if worker.stage is not None for gpu in worker.bound)
        shared = {gpu for worker in self._workers if worker.stage is not None and len(worker.bound) > 1
                  for gpu in worker.bound}
        idle = [worker for worker in self._workers if worker.stage is None and worker.gpu not in shared]
        if number == 0:
            return next(((worker, ()) for worker in idle if not worker.gpu), None)
        if number == 1:
            candidates = [worker for worker in idle if worker.gpu]
            return min(((worker, (worker.gpu,)) for worker in candidates), default=None,
                       key=lambda each: (running[each[0].gpu], each[0].process is None))
        free = tuple(gpu for gpu in self._gpus if not running[gpu])[:number]
        if len(free) < number:
            return None
        return next((worker, free) for worker in idle if worker.gpu == free[0])

    def _release(self, worker: _Worker, is_dead: bool) -> None:
        """Makes a worker idle. is_dead: its process is replaced. A process of several GPUs ends."""
        had_several, worker.stage = len(worker.bound) > 1, None
        if is_dead or had_several:
            self._stop(worker)
        if is_dead and not had_several:
            self._start(worker)

    def _stop(self, worker: _Worker) -> None:
        """Ends a worker's process, if it has one."""
        if worker.process is not None:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
            worker.process = worker.connection = None

    def _start(self, worker: _Worker, gpus: tuple[str, ...] = ()) -> None:
        """Starts a worker's process, bound to the GPUs; by default to its GPU."""
        worker.bound = gpus or ((worker.gpu,) if worker.gpu else ())
        visible = {VISIBLE: ",".join(worker.bound)} if self._gpus and self._device != "mps" else {}
        context: Any = multiprocessing.get_context("spawn" if worker.bound else "forkserver")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, daemon=True, args=(
            theirs, os.environ | visible, self._root, self._device if worker.bound else "cpu"))
        if worker.bound:
            with _signals_ignored(), _variables(visible):  # set before anything in the new process imports torch
                process.start()
        else:
            with _signals_ignored(), _variables(_import_paths()):
                context.set_forkserver_preload(["bench.execute.preload"])
                forkserver.ensure_running()  # returns at once
            process.start()  # waits for the imports of the first
        theirs.close()
        worker.process, worker.connection, worker.stage = process, ours, None


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Lets processes that are started in this context ignore Ctrl-C and a closed terminal; the parent handles both."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _import_paths() -> dict[str, str]:
    """Returns environment variables that let a new process import from the folders of this process alone."""
    return {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path), "PYTHONSAFEPATH": "1"}


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for the processes that are started in this context."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
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

    environment: the worker's variables; those of the process that forks workers may be older."""
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
