"""Builds stages as jobs of a Slurm cluster, through submitit: each job waits for the jobs that build its inputs.

Whether a stage is complete is read from the store; Slurm tells which jobs are queued, and how a job ended.
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
from typing import Any, Self

from bench.errors import ENVIRONMENT, OK, RESUMABLE, BenchError
from bench.execute import worker
from bench.execute.engines import settings
from bench.execute.executor import Event
from bench.experiment.key import Stage
from bench.experiment.kinds import gpus_of
from bench.files import write_text
from bench.store.store import Store

KNOWN: settings.Known = {
    "partition": str, "account": str, "qos": str, "time": str, "gpus": int, "cpus": int, "memory": float,
    "at_once": int, "timeouts": int, "notice": int, "nodes": int, "setup": list, "options": dict}
TIME = "4:00:00"  # time limit of a job; then it is requeued, and resumes from its last checkpoint
TIMEOUTS = 50  # how often a job is requeued at its time limit
NOTICE = 90  # s between the signal and the time limit
CPUS = 2
POLL = 10.0  # s between two calls of squeue
SETTLE = 60.0  # s after the end of a job until its stage must be visible in the store; shared disks are slow
REQUEUED = 20.0  # s in which a job that a signal ended may return to the queue
PATIENCE = 300.0  # s that a job waits whose worker was stopped, before it runs the worker again
QUEUED = {"PENDING", "RUNNING", "SUSPENDED", "STOPPED", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_FED",
          "REQUEUE_HOLD", "SPECIAL_EXIT", "RESIZING", "SIGNALING", "STAGE_OUT", "RESV_DEL_HOLD"}
FINAL = {"OUT_OF_MEMORY": "it needed more memory than it was given; request more with memory=GB",
         "DEADLINE": "its deadline passed",
         "CANCELLED": "a user cancelled it"}
NEVER = "DependencyNeverSatisfied"


@dataclass
class Job:
    """Runs on a node: bench.execute.worker in a process of its own, until it is done or Slurm ends it.

    submitit pickles a Job as bench.execute.engines.slurm.Job (older versions: bench.engines.slurm.Job, which
    bench.modules still imports); queued jobs have these fields, so they must stay.
    """

    command: list[str]
    root: str
    key: str
    grace: float = NOTICE / 3  # s in which the stopped worker saves its state
    _worker: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __call__(self) -> None:
        """Runs the worker, and ends with its exit code."""
        from submitit.core.utils import UncompletedJobError

        try:
            while self._is_stopped(code := self._run()):
                time.sleep(PATIENCE)  # Slurm is about to end this job, or to requeue it
        except UncompletedJobError as error:  # raised by submitit's signal handler
            worker.write_failure(Store(Path(self.root)), self.key, BenchError(
                f"its job ended: {error} Request more: time=, timeouts=", ENVIRONMENT))
            raise
        if code != OK:
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self) -> Any:
        """Called by submitit when Slurm stops the job: stops the worker, and returns what is requeued."""
        from submitit.helpers import DelayedSubmission

        if self._worker is not None:
            self._worker.terminate()
            end = time.monotonic() + self.grace
            while time.monotonic() < end:  # no wait(): the signal may have interrupted one
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

    def _is_stopped(self, code: int) -> bool:
        """Whether the worker ended because it was stopped."""
        store = Store(Path(self.root))
        return code in (RESUMABLE, -signal.SIGTERM, -signal.SIGUSR2) and not store.is_full() and worker.read_failure(
            store, self.key) is None


@dataclass
class Submitted:
    """A stage that Slurm has. job: its number; after: the stages it waits for; is_own: whether this run submitted it;
    gone: when the job was first missing from the queue."""

    job: str
    after: tuple[Stage, ...]
    is_own: bool = True
    gone: float | None = None


class Slurm:
    """An Executor whose stages are jobs. texts: settings, as `settings.read` takes them. wait: whether to stay until
    the jobs have ended; else the final event of each is "queued". Raises BenchError (exit 3) if submitit or Slurm's
    commands are missing, or Slurm does not answer."""

    ahead = True

    def __init__(self, store: Store, texts: Sequence[str], wait: bool = True):
        read_partitions()
        self._store, self._wait = store, wait
        self._settings_of = settings.read(texts, KNOWN)
        self._folder = store.root.absolute() / "slurm"
        self._open: dict[Stage, Submitted] = {}
        self._lost: dict[Stage, BenchError] = {}  # stages that failed
        self._jobs: list[str] = []  # in the order of submission
        self._held: set[str] = set()
        self._queue: dict[str, tuple[str, str, str]] = {}  # job number -> state, reason, name
        self._polled = 0.0

    def __enter__(self) -> Self:
        if not self._poll():
            raise BenchError("Slurm does not answer: squeue fails, so that the jobs already queued are unknown; try "
                             "again later", ENVIRONMENT)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """If the run waits and was not interrupted, cancels its own jobs that have not started."""
        own = [submitted.job for submitted in self._open.values() if submitted.is_own]
        if self._wait and kind is None and own:
            subprocess.run(["scancel", "--state=PENDING", *own], check=False)

    def accepts(self, stage: Stage) -> bool:
        """Whether it takes this stage now: always."""
        return True

    def submit(self, stage: Stage, after: Sequence[Stage]) -> None:
        """Submits a job that starts when those of `after` are complete, or adopts the job of an earlier run."""
        job = self._queued_job(stage)
        self._lost.pop(stage, None)
        is_own = not job
        if job:
            self._jobs.append(job)
        else:
            if failure := worker.read_failure(self._store, stage.key):
                warnings.warn(f"{stage.kind} {stage.key[:12]} failed the last time ({failure}); it is submitted again",
                              stacklevel=2)
            try:
                job = self._submit(stage, [self._open[above].job for above in after if above in self._open])
            except BenchError as error:
                self._lost[stage] = error
        self._open[stage] = Submitted(job, tuple(after), is_own)

    def events(self, timeout: float) -> Iterator[Event]:
        """The new events; calls squeue at most every POLL seconds."""
        if self._wait and not self._lost.keys() & self._open.keys():  # refused stages need no squeue
            time.sleep(min(timeout, max(0.0, self._polled + POLL - time.monotonic())))
            if time.monotonic() - self._polled < POLL or not self._poll():
                return
        ended: set[Stage] = set()
        for stage, submitted in list(self._open.items()):
            if event := self._final_event(stage, submitted, ended):
                del self._open[stage]
                ended.add(stage)
                yield event
            elif self._queue.get(submitted.job, ("",))[0] == "RUNNING" and (
                    progress := worker.read_progress(self._store, stage)):
                yield progress

    def _final_event(self, stage: Stage, submitted: Submitted, ended: set[Stage]) -> Event | None:
        """The final event of a stage; None while its job runs. ended: stages that had theirs in the same round, and may
        be submitted again."""
        if self._store.has(stage):
            _job_file(self._store, stage).unlink(missing_ok=True)
            return Event(stage, "done")
        if stage in self._lost:
            return Event(stage, "failed", error=self._lost[stage])
        if cause := next((self._lost[above] for above in submitted.after if above in self._lost), None):
            if submitted.is_own:  # another run's job may still get its inputs
                subprocess.run(["scancel", submitted.job], check=False)
            return self._fail(stage, cause)
        if not self._wait:
            return Event(stage, "queued")
        if self._is_queued(submitted.job):
            submitted.gone = None
            return None
        if failure := worker.read_failure(self._store, stage.key):
            return self._fail(stage, failure)
        submitted.gone = submitted.gone or time.monotonic()
        since = time.monotonic() - submitted.gone
        if since < REQUEUED:
            return None
        code = _exit_code(submitted.job)
        if since < SETTLE and code <= 128:  # after a signal, no result or failure can still appear
            return None
        state, reason, _ = self._queue.get(submitted.job, ("", "", ""))
        how = ", ".join(filter(None, (state or "not in the queue", reason, f"exit code {code}" * bool(code))))
        error = BenchError(f"its Slurm job {submitted.job} ended ({how}); its log: "
                           f"{self._folder / submitted.job}_0_log.out")
        if state in ("CANCELLED", "PENDING") and "Dependency" in reason:
            missing = [above for above in submitted.after if not self._store.has(above)]
            if any(above in ended or (above in self._open and not self._is_queued(self._open[above].job))
                   for above in missing):
                return None
            if failed := [above for above in missing if above not in self._open]:
                return self._fail(stage, BenchError(f"its input {failed[0].kind} failed"))
            return Event(stage, "died", error=error)
        if state in FINAL:
            return self._fail(stage, BenchError(f"{error}; {FINAL[state]}"))
        return Event(stage, "died", error=error, has_begun=code != 128 + signal.SIGUSR2)  # it had no handler yet

    def _fail(self, stage: Stage, error: BenchError) -> Event:
        """The event of a failed stage, which has no job any more: `bench gc` need not keep its inputs."""
        _job_file(self._store, stage).unlink(missing_ok=True)
        self._lost[stage] = error
        return Event(stage, "failed", error=error)

    def _is_queued(self, job: str) -> bool:
        """Whether a job waits or runs. Warns once of a job that is held."""
        state, reason, _ = self._queue.get(job, ("", "", ""))
        if "held" in reason.lower() and job not in self._held:
            self._held.add(job)
            warnings.warn(f"Slurm job {job} is held ({reason}) and does not start; release it with: scontrol release "
                          f"{job}", stacklevel=2)
        return state in QUEUED and reason != NEVER

    def _poll(self) -> bool:
        """Reads the queue; returns False with a warning if Slurm does not answer."""
        self._polled = time.monotonic()
        done = _run("squeue", "--noheader", "--user", str(os.getuid()), "--states", "all", "--format", "%i|%T|%r|%j")
        if done.returncode:
            warnings.warn(f"squeue does not answer ({' '.join(done.stderr.split())}); the next try is in {POLL:g} s",
                          stacklevel=2)
            return False
        self._queue = {}
        for line in done.stdout.splitlines():
            job, state, reason, name = line.strip().split("|", 3)
            self._queue[job] = (state, "" if reason == "None" else reason, name)
        return True

    def _submit(self, stage: Stage, after: Sequence[str]) -> str:
        """Submits a job and returns its number. Raises BenchError if Slurm refuses it."""
        import submitit

        given, processes = self._settings_of(stage), processes_of(stage)
        nodes = max(1, given.get("nodes", 1)) if processes > 1 else 1
        if processes % nodes:
            raise BenchError(f"its {processes} processes cannot be divided evenly among {nodes} nodes")
        planned = gpus_of(stage) // nodes
        gpus = given.get("gpus", planned)
        if gpus < planned:
            raise BenchError(f"it is planned for {planned} GPUs" + " on each node" * (nodes > 1)
                             + f", but gpus is {gpus}")
        worker.write_request(self._store, stage)
        worker.write_failure(self._store, stage.key, None)
        dependencies = [f"afterok:{job}" for job in after]
        width, notice = given.get("at_once", 0), given.get("notice", NOTICE)
        if width and len(self._jobs) >= width:
            dependencies.append(f"afterany:{self._jobs[-width]}")
        more = {"requeue": True, "kill-on-invalid-dep": "yes"}
        if dependencies:
            more["dependency"] = ",".join(dependencies)
        executor = submitit.SlurmExecutor(self._folder, given.get("timeouts", TIMEOUTS),
                                          python=f"{shlex.quote(sys.executable)} -P")
        try:
            executor.update_parameters(
                **{name: given[name] for name in ("partition", "account", "qos", "setup") if name in given},
                job_name=self._job_name(stage), time=minutes(given.get("time", TIME)),
                cpus_per_task=given.get("cpus", CPUS), signal_delay_s=notice, stderr_to_stdout=True,
                **({"gpus_per_node": gpus} if gpus else {}),
                nodes=nodes, srun_args=["--nodes=1", "--ntasks=1"] if nodes > 1 else [],  # launch uses the others
                **({"mem": f"{round(given['memory'] * 1024)}M"} if "memory" in given else {}),
                additional_parameters=more | given.get("options", {}))
            kept = {name: value for name, value in os.environ.items() if name.startswith(("SBATCH_", "SLURM_CONF"))}
            with submitit.helpers.clean_env():  # without the variables of a job that this may run in
                os.environ.update(kept)  # but with the cluster's address and the user's defaults
                job = executor.submit(Job(worker.command(stage, self._store, "cuda" if planned else "cpu"),
                                          str(self._store.root.absolute()), stage.key, notice / 3)).job_id
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, OSError) as error:
            raise BenchError(f"Slurm refuses its job: {_last_line(error)}") from error
        self._queue[job] = ("PENDING", "", self._job_name(stage))
        self._jobs.append(job)
        note = {"engine": "slurm", "job": job, "stage": json.loads(stage.document)}
        write_text(_job_file(self._store, stage), json.dumps(note))
        return job

    def _queued_job(self, stage: Stage) -> str:
        """The job that an earlier run submitted for a stage, found by its name; "" if none is queued."""
        wanted = self._job_name(stage)
        return next((job for job, (_, _, name) in self._queue.items() if name == wanted and self._is_queued(job)), "")

    def _job_name(self, stage: Stage) -> str:
        """The name of a stage's job; different for each store."""
        store = hashlib.sha256(str(self._store.root.resolve()).encode()).hexdigest()[:6]
        return f"bench-{stage.kind}-{stage.key[:12]}-{store}"


def describe() -> str:
    """The versions of submitit and Slurm, and its partitions. Errors as `read_partitions`."""
    partitions = re.findall(r"^PartitionName=(\S+)", read_partitions(), re.MULTILINE)
    return (f"submitit {importlib.metadata.version('submitit')}, {_run('scontrol', '--version').stdout.strip()}, "
            f"partitions {', '.join(partitions)}")


def read_partitions() -> str:
    """Slurm's description of its partitions. Raises BenchError (exit 3) if submitit or Slurm's commands are missing, or
    Slurm does not answer."""
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise BenchError("--on slurm needs submitit: pip install -e '.[slurm]'", ENVIRONMENT) from error
    advice = "run the command where jobs are submitted, on a login node of the cluster"
    if missing := [name for name in ("sbatch", "squeue", "scontrol", "srun") if shutil.which(name) is None]:
        raise BenchError(f"--on slurm: no {', '.join(missing)} on this machine; {advice}", ENVIRONMENT)
    done = _run("scontrol", "show", "partition", "--oneliner")
    if done.returncode:
        message = " ".join(done.stderr.splitlines()[-1:])
        raise BenchError(f"--on slurm: Slurm does not answer ({message}); {advice}", ENVIRONMENT)
    return done.stdout


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _exit_code(job: str) -> int:
    """The exit code of a job; 128 plus the number of the signal that ended it; 0 if Slurm has forgotten the job."""
    found = re.search(r"ExitCode=(\d+):(\d+)", _run("scontrol", "show", "job", job).stdout)
    return (int(found[1]) or (int(found[2]) and 128 + int(found[2]))) if found else 0


def processes_of(stage: Stage) -> int:
    """The number of processes of a stage."""
    numerics = getattr(stage, "numerics", None)
    return numerics.world_size if numerics else 1


def minutes(text: str) -> int:
    """Whole minutes, rounded up, of a time in Slurm's forms M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if not found:
        raise BenchError(f"time={text}: expected minutes, H:M:S or D-H:M:S, such as 2:00:00")
    days, *parts = (int(part) if part else None for part in found.groups())
    if days is None and parts[2] is None:  # M or M:S
        parts = [0, *parts[:2]]
    hours, mins, secs = (part or 0 for part in parts)
    seconds = (days or 0) * 86400 + hours * 3600 + mins * 60 + secs
    if not seconds:
        raise BenchError(f"time={text}: the time limit of a job must not be 0")
    return -(-seconds // 60)


def _job_file(store: Store, stage: Stage) -> Path:
    return store.root / "requests" / f"{stage.key}.job"


def _last_line(error: Exception) -> str:
    text = getattr(error, "output", b"") or str(error)
    lines = (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), type(error).__name__)
