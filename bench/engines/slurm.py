"""Stages as jobs of a Slurm cluster, through submitit: one job for each, waiting for those that it is built from.

Whether a stage is complete is asked of the store. Slurm is asked which jobs are still queued, and nothing else.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import worker
from bench.engines import settings
from bench.errors import ENVIRONMENT, OK, RESUMABLE, BenchError
from bench.key import Stage, key, kind
from bench.pool import Event
from bench.store import Store

KNOWN: settings.Known = {
    "partition": str, "account": str, "qos": str, "time": str, "gpus": int, "cpus": int, "memory": float,
    "at_once": int, "timeouts": int, "notice": int, "setup": list, "options": dict}
TIME = "4:00:00"  # of a job; at its end the stage is queued again and goes on from its last checkpoint
TIMEOUTS = 50  # so often
NOTICE = 90  # s before the end that a job is told
CPUS = 2
ASK = 10.0  # s from one question to Slurm to the next
SETTLE = 20.0  # s that a stage may take to be seen in the store when its job has ended: disks are shared slowly
AGAIN = 2  # times that a stage whose job died without a word is submitted again
PATIENCE = 300.0  # s that a job that was told to stop, and is not stopped, waits before it goes on
QUEUED = {"PENDING", "RUNNING", "SUSPENDED", "STOPPED", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_FED",
          "REQUEUE_HOLD", "SPECIAL_EXIT", "RESIZING", "SIGNALING", "STAGE_OUT", "RESV_DEL_HOLD"}
FINAL = {"OUT_OF_MEMORY": "it needed more memory than it was given; ask for more: memory=GB",
         "DEADLINE": "its deadline passed",
         "CANCELLED": "somebody cancelled it"}
NEVER = "DependencyNeverSatisfied"


@dataclass
class Job:
    """What runs on a node: bench.worker in a process of its own, until it is done or Slurm ends it."""

    command: list[str]
    root: str
    key: str
    _worker: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __call__(self) -> None:
        """Ends with the worker's exit code."""
        from submitit.core.utils import UncompletedJobError

        try:
            while (code := self._run()) in (RESUMABLE, -signal.SIGTERM, -signal.SIGUSR2) and self._silent():
                time.sleep(PATIENCE)  # stopped: Slurm is about to end this job, or to queue it again
        except UncompletedJobError as error:  # raised where submitit takes a signal
            worker.note(Store(Path(self.root)), self.key, BenchError(f"its job ended: {error} Ask for more: time=, "
                                                                     "timeouts=", ENVIRONMENT))
            raise
        if code != OK:
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self) -> Any:
        """Told to stop: ends the worker, whose stage will go on from its checkpoint, and says what is to be queued."""
        from submitit.helpers import DelayedSubmission

        if self._worker is not None:
            self._worker.terminate()
            until = time.monotonic() + NOTICE / 3
            while time.monotonic() < until:  # no wait(): the signal may have come inside one
                if os.waitid(os.P_PID, self._worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    break
                time.sleep(0.05)
            else:
                self._worker.kill()
        return DelayedSubmission(replace(self))

    def _run(self) -> int:
        self._worker = subprocess.Popen(self.command)
        while (code := self._worker.poll()) is None:
            time.sleep(0.2)
        self._worker = None
        return code

    def _silent(self) -> bool:
        return worker.noted(Store(Path(self.root)), self.key) is None


@dataclass(eq=False)
class Handle:
    """A stage that was handed to Slurm: its job's number, how often it was submitted again, since when it is gone."""

    stage: Stage
    after: list[Handle]
    job: str = ""
    again: int = 0
    gone: float | None = None
    error: BenchError | None = None


class Slurm:
    """Submits stages and says what became of them.

    given: settings, as `bench.engines.settings` reads them. Raises BenchError (exit 3) where submitit or Slurm's
    commands are missing.
    """

    def __init__(self, store: Store, given: Sequence[str]):
        examine()
        self.store = store
        self.asked = settings.read(given, KNOWN)
        self._folder = store.root.absolute() / "slurm"
        self._open: list[Handle] = []
        self._lanes: list[str] = []
        self._queue: dict[str, tuple[str, str, str]] = {}
        self._looked = 0.0
        self._look()

    def submit(self, stage: Stage, after: Sequence[Handle]) -> Handle:
        """Hands a stage to Slurm, to be begun when those of `after` are complete. One that is queued already, by an
        earlier run, is taken over."""
        handle = Handle(stage, list(after))
        name = self._known(stage)
        if name and self._queue.get(name, ("", "", ""))[2] == _name(stage) and self._alive(name):
            handle.job = name
            self._lanes.append(name)
        else:
            self._submit(handle)
        self._open.append(handle)
        return handle

    def poll(self) -> list[Event]:
        """What has come to an end since; asks Slurm every ASK seconds at most."""
        if time.monotonic() - self._looked < ASK or not self._look():
            return []
        events = []
        for handle in list(self._open):
            event = self._judge(handle)
            if event:
                self._open.remove(handle)
                events.append(event)
        return events

    def cancel(self) -> None:
        """Takes every job that is still open out of the queue."""
        if self._open:
            subprocess.run(["scancel", *(handle.job for handle in self._open)], check=False)
        self._open = []

    def _judge(self, handle: Handle) -> Event | None:
        if self.store.has(handle.stage):
            _job_file(self.store, handle.stage).unlink(missing_ok=True)
            return Event(handle.stage, "done")
        lost = next((above.error for above in handle.after if above.error), None)
        if lost:
            subprocess.run(["scancel", handle.job], check=False)
            return self._failed(handle, lost)
        if self._alive(handle.job):
            handle.gone = None
            return None
        handle.gone = handle.gone or time.monotonic()
        if time.monotonic() - handle.gone < SETTLE:
            return None
        if said := worker.noted(self.store, key(handle.stage)):
            return self._failed(handle, said)
        state, reason, _ = self._queue.get(handle.job, ("", "", ""))
        how = ", ".join(filter(None, (state or "gone from the queue", reason)))
        where = f"its Slurm job {handle.job} ended ({how})"
        log = f"; its log: {self._folder / handle.job}_0_log.out"
        waited = state in ("CANCELLED", "PENDING") and "Dependency" in reason
        if state in FINAL and not waited:
            return self._failed(handle, BenchError(f"{where}: {FINAL[state]}{log}"))
        if not waited:
            handle.again += 1
        if handle.again > AGAIN:
            return self._failed(handle, BenchError(f"{where} and left no word, as {AGAIN} before it did{log}"))
        if not waited:
            warnings.warn(f"{kind(handle.stage)} {key(handle.stage)[:12]}: {where} and left no word; it is "
                          f"submitted again{log}", stacklevel=2)
        try:
            self._submit(handle)
        except BenchError as error:
            return self._failed(handle, error)
        return None

    def _failed(self, handle: Handle, error: BenchError) -> Event:
        handle.error = error
        return Event(handle.stage, "failed", error=error)

    def _alive(self, name: str) -> bool:
        state, reason, _ = self._queue.get(name, ("", "", ""))
        return state in QUEUED and reason != NEVER

    def _look(self) -> bool:
        """Reads the queue; False, with a warning, where Slurm does not answer."""
        self._looked = time.monotonic()
        found = subprocess.run(["squeue", "--noheader", "--user", getpass.getuser(), "--states", "all", "--format",
                                "%i|%T|%r|%j"], capture_output=True, text=True, check=False)
        if found.returncode:
            warnings.warn(f"squeue does not answer ({' '.join(found.stderr.split())}); asked again in {ASK:g} s",
                          stacklevel=2)
            return False
        self._queue = {}
        for line in found.stdout.splitlines():
            name, state, reason, title = line.strip().split("|", 3)
            self._queue[name] = (state, "" if reason == "None" else reason, title)
        return True

    def _submit(self, handle: Handle) -> None:
        import submitit

        stage, asked = handle.stage, self.asked(handle.stage)
        least = gpus_of(stage)
        gpus = asked.get("gpus", least)
        if gpus < least:
            raise BenchError(f"{kind(stage)} is planned for {least} GPUs, and gpus is {gpus}")
        self.store.ask(stage)
        worker.note(self.store, key(stage), None)
        needed = [f"afterok:{above.job}" for above in handle.after if not self.store.has(above.stage)]
        width = asked.get("at_once", 0)
        if width and len(self._lanes) >= width:
            needed.append(f"afterany:{self._lanes[-width]}")
        more = {"requeue": True, "kill-on-invalid-dep": "yes"} | ({"dependency": ",".join(needed)} if needed else {})
        executor = submitit.SlurmExecutor(self._folder, asked.get("timeouts", TIMEOUTS),
                                          python=f"{shlex.quote(sys.executable)} -P")
        try:
            executor.update_parameters(
                **{name: asked[name] for name in ("partition", "account", "qos", "setup") if name in asked},
                job_name=_name(stage), time=minutes(asked.get("time", TIME)), cpus_per_task=asked.get("cpus", CPUS),
                signal_delay_s=asked.get("notice", NOTICE), stderr_to_stdout=True,
                **({"gpus_per_node": gpus} if gpus else {}),
                **({"mem": f"{round(asked['memory'] * 1024)}M"} if "memory" in asked else {}),
                additional_parameters=more | asked.get("options", {}))
            kept = {name: said for name, said in os.environ.items() if name.startswith(("SBATCH_", "SLURM_CONF"))}
            with submitit.helpers.clean_env():  # of what a job, in which this may run, would pass on
                os.environ.update(kept)  # where the cluster is, and the user's defaults, are no part of that
                job = executor.submit(Job(worker.command(stage, self.store, "cuda" if least else "cpu"),
                                          str(self.store.root.absolute()), key(stage)))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, OSError) as error:
            raise BenchError(f"Slurm takes no job for {kind(stage)}: {_last_line(error)}") from error
        handle.job, handle.gone = job.job_id, None
        self._queue[handle.job] = ("PENDING", "", _name(stage))
        self._lanes.append(handle.job)
        _job_file(self.store, stage).write_text(json.dumps({"engine": "slurm", "job": handle.job}))

    def _known(self, stage: Stage) -> str:
        """The job that an earlier run submitted for a stage; "" where there is none."""
        try:
            said = json.loads(_job_file(self.store, stage).read_text())
            return str(said["job"]) if said["engine"] == "slurm" else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""


def examine() -> None:
    """Raises BenchError (exit 3) where submitit or Slurm's commands are missing."""
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise BenchError("--on slurm needs submitit: pip install -e '.[slurm]'", ENVIRONMENT) from error
    if missing := [name for name in ("sbatch", "squeue", "scontrol", "srun") if shutil.which(name) is None]:
        raise BenchError(f"--on slurm: no {', '.join(missing)} on this machine; run it where jobs are submitted, on a "
                         "login node of the cluster", ENVIRONMENT)


def gpus_of(stage: Stage) -> int:
    """How many GPUs a stage is planned for; one without numerics computes nothing on any."""
    numerics = getattr(stage, "numerics", None)
    return numerics.world_size if numerics and numerics.device_class == "cuda" else 0


def minutes(text: str) -> int:
    """Slurm's forms of a time, M, M:S, H:M:S, D-H, D-H:M and D-H:M:S, as whole minutes, rounded up."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if not found:
        raise BenchError(f"time={text}: minutes, H:M:S or D-H:M:S is expected, such as 2:00:00")
    days, *rest = found.groups()
    first, second, third = (int(part) if part else 0 for part in rest)
    if days is not None:
        seconds = int(days) * 86400 + first * 3600 + second * 60 + third
    elif rest[2] is not None:
        seconds = first * 3600 + second * 60 + third
    else:
        seconds = first * 60 + second
    if not seconds:
        raise BenchError(f"time={text}: a job of no length")
    return -(-seconds // 60)


def _name(stage: Stage) -> str:
    return f"bench-{kind(stage)}-{key(stage)[:12]}"


def _job_file(store: Store, stage: Stage) -> Path:
    return store.root / "requests" / f"{key(stage)}.job"


def _last_line(error: Exception) -> str:
    said = getattr(error, "output", b"") or str(error)
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), type(error).__name__)
