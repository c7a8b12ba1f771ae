"""Stages as jobs of a Slurm cluster, through submitit: one job for each, waiting for those that it is built from.

Whether a stage is complete is asked of the store; of Slurm, which jobs are still queued and how one ended.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.errors import ENVIRONMENT, OK, RESUMABLE, BenchError
from bench.execute import worker
from bench.execute.engines import settings
from bench.execute.executor import Event
from bench.execute.requests import write_request
from bench.experiment.key import Stage
from bench.files import put
from bench.store.store import Store

KNOWN: settings.Known = {
    "partition": str, "account": str, "qos": str, "time": str, "gpus": int, "cpus": int, "memory": float,
    "at_once": int, "timeouts": int, "notice": int, "setup": list, "options": dict}
TIME = "4:00:00"  # of a job; at its end the stage is queued again and goes on from its last checkpoint
TIMEOUTS = 50  # so often
NOTICE = 90  # s before the end that a job is told
CPUS = 2
ASK = 10.0  # s from one question to Slurm to the next
SETTLE = 60.0  # s that a stage may take to be seen in the store when its job has ended: disks are shared slowly
REQUEUED = 20.0  # s for which a job that a signal ended may still be on its way back into the queue
PATIENCE = 300.0  # s that a job that was told to stop, and is not stopped, waits before it goes on
QUEUED = {"PENDING", "RUNNING", "SUSPENDED", "STOPPED", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_FED",
          "REQUEUE_HOLD", "SPECIAL_EXIT", "RESIZING", "SIGNALING", "STAGE_OUT", "RESV_DEL_HOLD"}
FINAL = {"OUT_OF_MEMORY": "it needed more memory than it was given; ask for more: memory=GB",
         "DEADLINE": "its deadline passed",
         "CANCELLED": "somebody cancelled it"}
NEVER = "DependencyNeverSatisfied"


@dataclass
class Job:
    """What runs on a node: bench.execute.worker in a process of its own, until it is done or Slurm ends it."""

    command: list[str]
    root: str
    key: str
    grace: float = NOTICE / 3  # s that the worker has to put away what it does
    _worker: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __call__(self) -> None:
        """Ends with the worker's exit code."""
        from submitit.core.utils import UncompletedJobError

        try:
            while self._stopped(code := self._run()):
                time.sleep(PATIENCE)  # Slurm is about to end this job, or to queue it again
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
            until = time.monotonic() + self.grace
            while time.monotonic() < until:  # no wait(): the signal may have come inside one
                if os.waitid(os.P_PID, self._worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    break
                time.sleep(0.05)
            else:
                self._worker.kill()
        return DelayedSubmission(replace(self))

    def _run(self) -> int:
        self._worker = subprocess.Popen(self.command, stdin=subprocess.PIPE)
        while (code := self._worker.poll()) is None:
            time.sleep(0.2)
        self._worker = None
        return code

    def _stopped(self, code: int) -> bool:
        """Whether the worker ended because it was told to."""
        store = Store(Path(self.root))
        return code in (RESUMABLE, -signal.SIGTERM, -signal.SIGUSR2) and not store.full() and worker.noted(
            store, self.key) is None


@dataclass
class Handed:
    """A stage that Slurm has: its job's number, those that it waits for, whether this run submitted it, and since when
    the job is gone."""

    job: str
    after: tuple[Stage, ...]
    own: bool = True
    gone: float | None = None


class Slurm:
    """An Executor whose stages are jobs.

    given: settings, as `bench.execute.engines.settings` reads them. wait: whether to stay until they have ended; else the last
    word about each is "queued". Raises BenchError (exit 3) where submitit or Slurm's commands are missing, or Slurm
    does not answer.
    """

    ahead = True
    idle = 1  # one more, always

    def __init__(self, store: Store, given: Sequence[str], wait: bool = True):
        examine()
        self._store, self._wait = store, wait
        self._asked = settings.read(given, KNOWN)
        self._folder = store.root.absolute() / "slurm"
        self._open: dict[Stage, Handed] = {}
        self._lost: dict[Stage, BenchError] = {}
        self._jobs: list[str] = []  # in the order of their submission
        self._held: set[str] = set()
        self._queue: dict[str, tuple[str, str, str]] = {}  # of a job's number: state, reason, name
        self._looked = 0.0

    def __enter__(self) -> Self:
        if not self._look():
            raise BenchError("Slurm does not answer: squeue shows no queue, and what is queued already is not known",
                             ENVIRONMENT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Cancels what a run that waits has given up, of its own jobs those that have not begun. One that is
        interrupted, or does not wait, leaves its jobs."""
        if self._wait and kind is None and (own := [handed.job for handed in self._open.values() if handed.own]):
            subprocess.run(["scancel", "--state=PENDING", *own], check=False)

    def submit(self, stage: Stage, after: Sequence[Stage]) -> None:
        """Hands a stage to Slurm, to be begun when those of `after` are complete. One that an earlier run has queued is
        taken over."""
        job = self._known(stage)
        self._lost.pop(stage, None)
        own = not job
        if job:
            self._jobs.append(job)
        else:
            if said := worker.noted(self._store, stage.key):
                warnings.warn(f"{stage.kind} {stage.key[:12]} failed the last time ({said}); it is submitted again",
                              stacklevel=2)
            try:
                job = self._submit(stage, [self._open[above].job for above in after if above in self._open])
            except BenchError as error:
                self._lost[stage] = error
        self._open[stage] = Handed(job, tuple(after), own)

    def events(self, timeout: float) -> Iterator[Event]:
        """Last words; Slurm is asked every ASK seconds at most."""
        if self._wait and not self._lost.keys() & self._open.keys():  # of those that were refused it is known at once
            time.sleep(min(timeout, max(0.0, self._looked + ASK - time.monotonic())))
            if time.monotonic() - self._looked < ASK or not self._look():
                return
        ended: set[Stage] = set()
        for stage, handed in list(self._open.items()):
            if event := self._judge(stage, handed, ended):
                del self._open[stage]
                ended.add(stage)
                yield event
            elif self._queue.get(handed.job, ("",))[0] == "RUNNING" and (at := worker.progress(self._store, stage)):
                yield at

    def _judge(self, stage: Stage, handed: Handed, ended: set[Stage]) -> Event | None:
        """The last word about a stage, None while there is none. ended: whose last word was said in this round, so that
        it is not known yet whether they are submitted again."""
        if self._store.has(stage):
            _job_file(self._store, stage).unlink(missing_ok=True)
            return Event(stage, "done")
        if stage in self._lost:
            return Event(stage, "failed", error=self._lost[stage])
        if lost := next((self._lost[above] for above in handed.after if above in self._lost), None):
            if handed.own:  # else who submitted it may yet get what it is built from
                subprocess.run(["scancel", handed.job], check=False)
            return self._failed(stage, lost)
        if not self._wait:
            return Event(stage, "queued")
        if self._alive(handed.job):
            handed.gone = None
            return None
        if said := worker.noted(self._store, stage.key):
            return self._failed(stage, said)
        handed.gone = handed.gone or time.monotonic()
        since = time.monotonic() - handed.gone
        if since < REQUEUED:
            return None
        code = _exit_code(handed.job)
        if since < SETTLE and code <= 128:  # a signal leaves no last word to wait for
            return None
        state, reason, _ = self._queue.get(handed.job, ("", "", ""))
        how = ", ".join(filter(None, (state or "gone from the queue", reason, f"exit code {code}" * bool(code))))
        error = BenchError(f"its Slurm job {handed.job} ended ({how}); its log: {self._folder / handed.job}_0_log.out")
        if state in ("CANCELLED", "PENDING") and "Dependency" in reason:
            above = [one for one in handed.after if not self._store.has(one)]
            if any(one in ended or (one in self._open and not self._alive(self._open[one].job)) for one in above):
                return None
            if given_up := [one for one in above if one not in self._open]:
                return self._failed(stage, BenchError(f"{given_up[0].kind}, which it is built from, failed"))
            return Event(stage, "died", error=error)
        if state in FINAL:
            return self._failed(stage, BenchError(f"{error}; {FINAL[state]}"))
        return Event(stage, "died", error=error, begun=code != 128 + signal.SIGUSR2)  # told before it could hear

    def _failed(self, stage: Stage, error: BenchError) -> Event:
        """Nobody has it as a job any more: what it was to be built from need not be kept for it."""
        _job_file(self._store, stage).unlink(missing_ok=True)
        self._lost[stage] = error
        return Event(stage, "failed", error=error)

    def _alive(self, name: str) -> bool:
        state, reason, _ = self._queue.get(name, ("", "", ""))
        if "held" in reason.lower() and name not in self._held:
            self._held.add(name)
            warnings.warn(f"Slurm job {name} is held ({reason}) and will not begin by itself: scontrol release {name}",
                          stacklevel=2)
        return state in QUEUED and reason != NEVER

    def _look(self) -> bool:
        """Reads the queue; False, with a warning, where Slurm does not answer."""
        self._looked = time.monotonic()
        found = subprocess.run(["squeue", "--noheader", "--user", str(os.getuid()), "--states", "all", "--format",
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

    def _submit(self, stage: Stage, after: Sequence[str]) -> str:
        """The number of the new job. Raises BenchError where Slurm takes none."""
        import submitit

        asked, least = self._asked(stage), gpus_of(stage)
        gpus = asked.get("gpus", least)
        if gpus < least:
            raise BenchError(f"it is planned for {least} GPUs, and gpus is {gpus}")
        write_request(self._store, stage)
        worker.note(self._store, stage.key, None)
        needed = [f"afterok:{job}" for job in after]
        width = asked.get("at_once", 0)
        if width and len(self._jobs) >= width:
            needed.append(f"afterany:{self._jobs[-width]}")
        more = {"requeue": True, "kill-on-invalid-dep": "yes"} | ({"dependency": ",".join(needed)} if needed else {})
        executor = submitit.SlurmExecutor(self._folder, asked.get("timeouts", TIMEOUTS),
                                          python=f"{shlex.quote(sys.executable)} -P")
        try:
            executor.update_parameters(
                **{name: asked[name] for name in ("partition", "account", "qos", "setup") if name in asked},
                job_name=self._name(stage), time=minutes(asked.get("time", TIME)),
                cpus_per_task=asked.get("cpus", CPUS), signal_delay_s=asked.get("notice", NOTICE),
                stderr_to_stdout=True,
                **({"gpus_per_node": gpus} if gpus else {}),
                **({"mem": f"{round(asked['memory'] * 1024)}M"} if "memory" in asked else {}),
                additional_parameters=more | asked.get("options", {}))
            kept = {name: said for name, said in os.environ.items() if name.startswith(("SBATCH_", "SLURM_CONF"))}
            with submitit.helpers.clean_env():  # of what a job, in which this may run, would pass on
                os.environ.update(kept)  # where the cluster is, and the user's defaults, are no part of that
                job = executor.submit(Job(worker.command(stage, self._store, "cuda" if least else "cpu"),
                                          str(self._store.root.absolute()), stage.key,
                                          asked.get("notice", NOTICE) / 3))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, OSError) as error:
            raise BenchError(f"Slurm takes no job for it: {_last_line(error)}") from error
        self._queue[job.job_id] = ("PENDING", "", self._name(stage))
        self._jobs.append(job.job_id)
        put(_job_file(self._store, stage), json.dumps({"engine": "slurm", "job": job.job_id,
                                                       "stage": json.loads(stage.document)}))
        return job.job_id

    def _known(self, stage: Stage) -> str:
        """The live job that an earlier run submitted for a stage, by its name; "" where there is none."""
        name = self._name(stage)
        return next((job for job, (_, _, title) in self._queue.items() if title == name and self._alive(job)), "")

    def _name(self, stage: Stage) -> str:
        """Of its job; what other stores ask for has other names."""
        store = hashlib.sha256(str(self._store.root.resolve()).encode()).hexdigest()[:6]
        return f"bench-{stage.kind}-{stage.key[:12]}-{store}"


def found() -> str:
    """The versions of submitit and Slurm, and its partitions. Raises what `examine` raises."""
    partitions = re.findall(r"^PartitionName=(\S+)", examine(), re.MULTILINE)
    return (f"submitit {importlib.metadata.version('submitit')}, {_scontrol('--version').stdout.strip()}, "
            f"partitions {', '.join(partitions)}")


def examine() -> str:
    """What Slurm says of its partitions. Raises BenchError (exit 3) where submitit or Slurm's commands are missing, or
    Slurm does not answer them."""
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise BenchError("--on slurm needs submitit: pip install -e '.[slurm]'", ENVIRONMENT) from error
    if missing := [name for name in ("sbatch", "squeue", "scontrol", "srun") if shutil.which(name) is None]:
        raise BenchError(f"--on slurm: no {', '.join(missing)} on this machine; run it where jobs are submitted, on a "
                         "login node of the cluster", ENVIRONMENT)
    partitions = _scontrol("show", "partition", "--oneliner")
    if partitions.returncode:
        said = " ".join(partitions.stderr.splitlines()[-1:])
        raise BenchError(f"--on slurm: Slurm does not answer ({said}); run it where jobs are submitted, on a login "
                         "node of the cluster", ENVIRONMENT)
    return partitions.stdout


def _scontrol(*asked: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["scontrol", *asked], capture_output=True, text=True, check=False)


def _exit_code(job: str) -> int:
    """128 and the number of a signal for a job that it ended; 0 where Slurm does not know any more."""
    found = re.search(r"ExitCode=(\d+):(\d+)", _scontrol("show", "job", job).stdout)
    return (int(found[1]) or (int(found[2]) and 128 + int(found[2]))) if found else 0


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


def _job_file(store: Store, stage: Stage) -> Path:
    return store.root / "requests" / f"{stage.key}.job"


def _last_line(error: Exception) -> str:
    said = getattr(error, "output", b"") or str(error)
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), type(error).__name__)
