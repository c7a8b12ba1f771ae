"""The lease of a stage: one process at a time builds it, and says so by a file that it touches while it lives."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from bench.errors import ENVIRONMENT, RESUMABLE, USAGE, BenchError

LIFE = "EEG2IMAGE_BENCH_LEASE_S"  # in the environment: seconds without a heartbeat after which a lease is over
ATTEMPT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Lease:
    """Who builds a stage. `key` and `stage` say which (`stage`: its kind), `attempt` is the name of this try at it.

    machine: boot and process namespace in which `pid`, begun at tick `start`, is looked for; began: seconds of its own
    clock. about: a cluster's job. age: seconds since the last heartbeat. live: whether it holds.
    """

    key: str
    stage: str = ""
    attempt: str = ""
    pid: int = 0
    start: int = 0
    host: str = ""
    machine: str = ""
    began: float = 0.0
    about: str = ""
    age: float = 0.0
    live: bool = True


class Held(BenchError):
    """Another process builds the stage; `lease` says which."""

    def __init__(self, stage: str, lease: Lease):
        super().__init__(f"{stage} {lease.key[:12]}: another has it: {said(lease)}", RESUMABLE)
        self.stage, self.lease = stage, lease

    def __reduce__(self) -> tuple[type, tuple[str, Lease]]:  # type: ignore[override]
        return type(self), (self.stage, self.lease)


class Lost(Held):
    """This process was silent for longer than a lease lives, and another has taken the stage over."""


@dataclass(frozen=True)
class Claim:
    """This process's hold on a stage. Can be sent to the processes of one training."""

    path: Path
    stage: str
    attempt: str

    def check(self) -> None:
        """Raises Lost where the lease is not this attempt's any more."""
        for pause in (0.1, 0.2, 0.4, 0.0):
            if (found := _attempt(self.path)) == self.attempt:
                return
            if found is not None:
                break
            time.sleep(pause)  # whoever took it for another's is putting it back
        raise Lost(self.stage, read(self.path.parent, self.path.name) or Lease(self.path.name))


def life() -> float:
    """Seconds for which a lease holds without a heartbeat. Raises BenchError for an environment that says no number."""
    text = os.environ.get(LIFE, "600")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise BenchError(f"{LIFE}={text}: a number of seconds is expected", USAGE)
    return seconds


def said(lease: Lease) -> str:
    """"process 12 on this machine, Slurm job 7 (heard 3 s ago)"."""
    who = f"process {lease.pid} on {lease.host}" if lease.pid else lease.host or "somebody"
    return who + (f", {lease.about}" if lease.about else "") + (f" (heard {lease.age:.0f} s ago)" if lease.live else "")


@contextmanager
def taken(folder: Path, key: str, stage: str) -> Iterator[Claim]:
    """Holds the lease of a stage, beating until the end. Raises Held at once where another's is live.

    Raises BenchError (exit 3) for a file system without hard links.
    """
    claim, descriptor = _take(folder, key, stage)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(life() / 10):
            with suppress(OSError):  # not even a full disk keeps a file from being touched
                os.utime(descriptor)  # this file, also when another lies in its place

    thread = threading.Thread(target=beat, daemon=True, name=f"lease {key[:12]}")
    thread.start()
    try:
        yield claim
    finally:
        over.set()
        thread.join()
        os.close(descriptor)
        _remove(claim.path, claim.attempt)


def _take(folder: Path, key: str, stage: str) -> tuple[Claim, int]:
    """The claim and its open file."""
    attempt, path = secrets.token_hex(8), folder / key
    lease = Lease(key, stage, attempt, os.getpid(), _started(os.getpid()), socket.gethostname(), machine(), time.time(),
                  f"Slurm job {job}" if (job := os.environ.get("SLURM_JOB_ID")) else "")
    text = json.dumps({name: value for name, value in asdict(lease).items() if name not in ("key", "age", "live")})
    own, descriptor = folder / f".{attempt}", -1
    try:  # a signal's exception may come as the file is made
        descriptor = os.open(own, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(descriptor, text.encode())
        os.fsync(descriptor)  # it stays open: others on a network file system see what was written, not what will be
        while not _linked(own, path):
            found = read(folder, key)
            if found and found.live:
                raise Held(stage, found)
            if found:
                _remove(path, found.attempt)
    except BaseException:
        if descriptor >= 0:
            os.close(descriptor)
        raise
    finally:
        own.unlink(missing_ok=True)
    return Claim(path, stage, attempt), descriptor


def _linked(own: Path, path: Path) -> bool:
    """Whether `own` now is `path`, too; by its number of links, as a network may lose the answer."""
    try:
        os.link(own, path)
    except FileExistsError:
        return os.stat(own).st_nlink == 2
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise BenchError(f"store {path.parent.parent}: its file system has no hard links, which keep two processes "
                             "from building one stage; give another folder with --store DIR", ENVIRONMENT) from error
        raise
    return True


def _remove(path: Path, attempt: str) -> None:
    """Takes a lease away if it is that of this attempt."""
    if _attempt(path) != attempt:
        return
    away = path.with_name(f".{secrets.token_hex(8)}")
    try:
        os.rename(path, away)
    except FileNotFoundError:
        return
    if _attempt(away) != attempt:  # it changed hands in between
        with suppress(FileExistsError):
            os.link(away, path)
    away.unlink(missing_ok=True)


def read(folder: Path, key: str, now: float | None = None) -> Lease | None:
    """The lease of a stage, live or not; None where there is none. now: `clock(folder)`."""
    if (found := _read(folder / key)) is None:
        return None
    lease, touched = found
    age = (clock(folder) if now is None else now) - touched
    here = lease.machine == machine() != ""
    live = age < life() and not (here and not _alive(lease.pid, lease.start))
    return replace(lease, age=max(age, 0.0), live=live)


def running(folder: Path) -> list[Lease]:
    """Every lease that holds, by key."""
    names = sorted(path.name for path in folder.glob("[!.]*"))
    if not names:
        return []
    now = clock(folder)
    return [lease for name in names if (lease := read(folder, name, now)) and lease.live]


def sweep(folder: Path) -> None:
    """Removes leases that hold no more, and what their takers left half-done."""
    for path in folder.iterdir():
        found = read(folder, path.name)
        if found and not found.live:
            if path.name.startswith("."):
                path.unlink(missing_ok=True)
            else:
                _remove(path, found.attempt)


def clock(folder: Path) -> float:
    """What time it is by the file system's clock, which leases are dated by; where nothing can be written, by ours."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _read(path: Path) -> tuple[Lease, float] | None:
    """What a lease's file says, and when it was last touched."""
    try:
        with path.open("rb") as file:  # opened: a network file system then asks its server
            data, touched = file.read(), os.fstat(file.fileno()).st_mtime
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno == errno.ESTALE:
            return None
        raise
    try:
        return Lease(path.name, **json.loads(data)), touched
    except (ValueError, TypeError):  # its taker or its machine died before it was written
        return Lease(path.name), touched


def _attempt(path: Path) -> str | None:
    found = _read(path)
    return found[0].attempt if found else None


@cache
def machine() -> str:
    """This boot of this machine and the namespace of its process ids; empty where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int:
    """The tick at which a process began, which tells it from a later one of its number; 0: not known, -1: it is dead
    and not yet buried."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return -1 if state in "ZX" else int(fields[18])
    except (OSError, ValueError, IndexError):
        return 0


def _alive(pid: int, start: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    now = _started(pid)
    return now == 0 or start == 0 or now == start
