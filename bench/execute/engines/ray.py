"""Stages as tasks of Ray, for clouds: each in a process of its own; what is ready and what is tried again is not Ray's.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from bench.errors import ENVIRONMENT, OK, BenchError
from bench.execute import worker
from bench.execute.engines import settings
from bench.execute.engines.slurm import SETTLE, gpus_of
from bench.execute.executor import Event
from bench.execute.requests import write_request
from bench.experiment.key import Stage
from bench.store.store import Store

KNOWN: settings.Known = {"address": str, "gpus": float, "cpus": float, "memory": float, "at_once": int}
CPUS = 1.0
LOOK = 2.0  # s from one look at the journals of what runs to the next


def _work(command: list[str]) -> int:
    """On a node: the exit code of bench.execute.worker in a process of its own, which ends with this one."""
    return subprocess.Popen(command, stdin=subprocess.PIPE).wait()


class Ray:
    """An Executor whose stages are tasks.

    given: settings, as `bench.execute.engines.settings` reads them; without an address a Ray is started on this machine. Raises
    BenchError (exit 3) where Ray is not installed, or does not let us in.
    """

    ahead = False

    def __init__(self, store: Store, given: Sequence[str]):
        self._store = store
        self._asked = settings.read(given, KNOWN)
        self._ray = imported()
        self._open: dict[Any, Stage] = {}
        self._refused: list[Event] = []
        self._room: dict[str, float] = {}
        self._looked = 0.0
        self._ended: dict[Stage, float] = {}  # well, at which time; not yet seen in the store

    def __enter__(self) -> Self:
        general = self._asked(Stage())
        try:
            self._ray.init(address=general.get("address"), log_to_driver=False, logging_level="ERROR",
                           include_dashboard=None if "address" in general else False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BenchError(f"Ray at {general.get('address', 'this machine')} does not let us in "
                             f"({' '.join(str(error).split())[:300]}); with a token on, RAY_AUTH_MODE=token and "
                             "RAY_AUTH_TOKEN are needed on both sides", ENVIRONMENT) from error
        self._room = self._ray.cluster_resources()
        self._width = general.get("at_once", max(1, int(self._room.get("CPU", 1))))
        self._task = self._ray.remote(_work)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for reference in self._open:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()

    @property
    def idle(self) -> int:
        return max(0, self._width - len(self._open))

    def submit(self, stage: Stage, after: Sequence[Stage]) -> None:
        """Hands a stage whose inputs are there to Ray."""
        asked, least = self._asked(stage), gpus_of(stage)
        wanted = {"CPU": asked.get("cpus", CPUS), "GPU": asked.get("gpus", float(least)),
                  "memory": asked.get("memory", 0.0) * 1e9}
        for name, amount in wanted.items():
            if amount > self._room.get(name, 0):
                self._refuse(stage, f"it asks for {amount:g} {name} and the whole of Ray has "
                                    f"{self._room.get(name, 0):g}; it would wait for ever")
                return
        if least and (not wanted["GPU"] or (least > 1 and wanted["GPU"] < least)):
            self._refuse(stage, f"it is planned for {least} GPUs, and gpus is {wanted['GPU']:g}")
            return
        write_request(self._store, stage)
        worker.note(self._store, stage.key, None)
        task = self._task.options(name=f"bench-{stage.kind}-{stage.key[:12]}", max_retries=0, num_cpus=wanted["CPU"],
                                  num_gpus=wanted["GPU"], memory=int(wanted["memory"]) or None)
        self._open[task.remote(worker.command(stage, self._store, "cuda" if least else "cpu"))] = stage

    def events(self, timeout: float) -> Iterator[Event]:
        while self._refused:
            yield self._refused.pop()
        if not self._open:
            time.sleep(min(timeout, 0.1))
            yield from self._settled()
            return
        ended = self._ray.wait(list(self._open), timeout=timeout)[0]
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            yield from [event for reference, stage in self._open.items()
                        if reference not in ended and (event := worker.progress(self._store, stage))]
        for reference in ended:
            stage = self._open.pop(reference)
            try:
                code = self._ray.get(reference)
                cause = f"its process ended with exit code {code}" if code >= 0 else f"signal {-code}; out of memory?"
            except self._ray.exceptions.RayError as error:
                code, cause = -1, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            said = worker.noted(self._store, stage.key)
            if code == OK and not said:
                self._ended[stage] = time.monotonic()
            elif said:
                yield Event(stage, "failed", error=said)
            else:
                yield Event(stage, "died", error=BenchError(f"its Ray task died ({cause})"), begun=True)
        yield from self._settled()

    def _settled(self) -> Iterator[Event]:
        """Those that ended well and are seen in the store, or were not for too long."""
        for stage, since in list(self._ended.items()):
            there = self._store.has(stage)
            if there or time.monotonic() - since > SETTLE:
                del self._ended[stage]
                yield Event(stage, "done") if there else Event(stage, "failed", error=BenchError(
                    f"its Ray task ended well, and the store at {self._store.root} does not have it: do all machines "
                    "see the same folder?", ENVIRONMENT))

    def _refuse(self, stage: Stage, why: str) -> None:
        self._refused.append(Event(stage, "failed", error=BenchError(why, ENVIRONMENT)))


def imported() -> Any:
    """The package. Raises BenchError (exit 3) where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise BenchError("--on ray needs Ray: pip install -e '.[ray]'", ENVIRONMENT) from error
    return ray
