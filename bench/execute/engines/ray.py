"""Builds stages as tasks of Ray, for clouds: each in its own process. The runner schedules and retries, not Ray."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from bench.errors import ENVIRONMENT, OK, BenchError
from bench.execute import worker
from bench.execute.engines import settings
from bench.execute.engines.slurm import SETTLE
from bench.execute.executor import Event
from bench.experiment.key import Stage
from bench.experiment.kinds import gpus_of
from bench.store.store import Store

KNOWN: settings.Known = {"address": str, "gpus": float, "cpus": float, "memory": float, "at_once": int}
CPUS = 1.0
POLL = 2.0  # s between two readings of the journals of running stages


def _work(command: list[str]) -> int:
    """Runs on a node: starts bench.execute.worker in a process that ends with this one; returns its exit code."""
    return subprocess.Popen(command, stdin=subprocess.PIPE).wait()


class Ray:
    """An Executor whose stages are tasks. texts: settings, as `settings.read` takes them; without an address, Ray is
    started on this machine. Raises BenchError (exit 3) if Ray is not installed, or refuses the connection."""

    ahead = False

    def __init__(self, store: Store, texts: Sequence[str]):
        self._store = store
        self._settings_of = settings.read(texts, KNOWN)
        self._ray = import_ray()
        self._open: dict[Any, Stage] = {}  # by the reference of its task
        self._refused: list[Event] = []
        self._resources: dict[str, float] = {}
        self._polled = 0.0
        self._ended: dict[Stage, float] = {}  # when a task ended well whose stage is not visible in the store yet

    def __enter__(self) -> Self:
        general = self._settings_of(Stage())
        try:
            self._ray.init(address=general.get("address"), log_to_driver=False, logging_level="ERROR",
                           include_dashboard=None if "address" in general else False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BenchError(f"Ray at {general.get('address', 'this machine')} refused the connection "
                             f"({' '.join(str(error).split())[:300]}); if it uses a token, RAY_AUTH_MODE=token and "
                             "RAY_AUTH_TOKEN are needed on both sides", ENVIRONMENT) from error
        self._resources = self._ray.cluster_resources()
        self._width = general.get("at_once", max(1, int(self._resources.get("CPU", 1))))
        self._task = self._ray.remote(_work)
        return self

    def __exit__(self, *_: object) -> None:
        for reference in self._open:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()

    def accepts(self, stage: Stage) -> bool:
        """Whether it takes this stage now: fewer than `at_once` are open. Ray assigns the GPUs."""
        return len(self._open) < self._width

    def submit(self, stage: Stage, after: Sequence[Stage]) -> None:
        """Submits a stage whose inputs are stored."""
        given, planned = self._settings_of(stage), gpus_of(stage)
        wanted = {"CPU": given.get("cpus", CPUS), "GPU": given.get("gpus", float(planned)),
                  "memory": given.get("memory", 0.0) * 1e9}
        for name, amount in wanted.items():
            if amount > (most := self._resources.get(name, 0)):
                self._refuse(stage, f"it requests {amount:g} {name}, but the whole of Ray has {most:g}; it would never "
                                    "start")
                return
        if planned and (not wanted["GPU"] or (planned > 1 and wanted["GPU"] < planned)):
            self._refuse(stage, f"it is planned for {planned} GPUs, but gpus is {wanted['GPU']:g}")
            return
        worker.write_request(self._store, stage)
        worker.write_failure(self._store, stage.key, None)
        task = self._task.options(name=f"bench-{stage.kind}-{stage.key[:12]}", max_retries=0, num_cpus=wanted["CPU"],
                                  num_gpus=wanted["GPU"], memory=int(wanted["memory"]) or None)
        self._open[task.remote(worker.command(stage, self._store, "cuda" if planned else "cpu"))] = stage

    def events(self, timeout: float) -> Iterator[Event]:
        while self._refused:
            yield self._refused.pop()
        if not self._open:
            time.sleep(min(timeout, 0.1))
            yield from self._settled()
            return
        ended = self._ray.wait(list(self._open), timeout=timeout)[0]
        if time.monotonic() - self._polled >= POLL:
            self._polled = time.monotonic()
            yield from [event for reference, stage in self._open.items()
                        if reference not in ended and (event := worker.read_progress(self._store, stage))]
        for reference in ended:
            stage = self._open.pop(reference)
            try:
                code = self._ray.get(reference)
                cause = f"its process ended with exit code {code}" if code >= 0 else f"signal {-code}; out of memory?"
            except self._ray.exceptions.RayError as error:
                code, cause = -1, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            failure = worker.read_failure(self._store, stage.key)
            if code == OK and not failure:
                self._ended[stage] = time.monotonic()
            elif failure:
                yield Event(stage, "failed", error=failure)
            else:
                yield Event(stage, "died", error=BenchError(f"its Ray task died ({cause})"), has_begun=True)
        yield from self._settled()

    def _settled(self) -> Iterator[Event]:
        """Final events of the stages whose tasks ended well: they are visible in the store, or SETTLE has passed."""
        for stage, since in list(self._ended.items()):
            is_stored = self._store.has(stage)
            if is_stored or time.monotonic() - since > SETTLE:
                del self._ended[stage]
                yield Event(stage, "done") if is_stored else Event(stage, "failed", error=BenchError(
                    f"its Ray task ended well, but the store at {self._store.root} does not have it; all machines must "
                    "share that folder", ENVIRONMENT))

    def _refuse(self, stage: Stage, why: str) -> None:
        self._refused.append(Event(stage, "failed", error=BenchError(why, ENVIRONMENT)))


def import_ray() -> Any:
    """The package ray. Raises BenchError (exit 3) if it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise BenchError("--on ray needs Ray: pip install -e '.[ray]'", ENVIRONMENT) from error
    return ray
