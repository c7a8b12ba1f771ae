"""The lease of a stage: a file that the one process that builds the stage holds, and touches while it lives.

`acquire` takes a lease. An expired lease is stolen in `_create_or_steal`; the process that lost it gets `Lost` from
`Claim.check`, which is called before anything is written to the store.
"""

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

LIFETIME = "EEG2IMAGE_BENCH_LEASE_S"  # environment variable: seconds without a heartbeat after which a lease expires
ATTEMPT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Lease:
    """Who builds a stage. key: the stage's; stage: its kind; attempt: the name of this attempt at building it.

    machine: boot and process namespace of `pid`; start: the clock tick at which `pid` began; began: unix seconds by its
    host; about: a cluster's job; age: seconds since the last heartbeat; live: whether the lease is valid.
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
    """Another process builds the stage. lease: that process's."""

    def __init__(self, stage: str, lease: Lease):
        super().__init__(f"{stage} {lease.key[:12]} is being built by {describe_holder(lease)}", RESUMABLE)
        self.stage, self.lease = stage, lease

    def __reduce__(self) -> tuple[type, tuple[str, Lease]]:  # type: ignore[override]
        return type(self), (self.stage, self.lease)


class Lost(Held):
    """The lease expired; another process took over."""


@dataclass(frozen=True)
class Claim:
    """This process's hold on a stage. Can be pickled, for the processes of one training."""

    path: Path
    stage: str
    attempt: str

    def check(self) -> None:
        """Raises Lost if the lease no longer belongs to this attempt."""
        for pause in (0.1, 0.2, 0.4, 0.0):
            if (attempt := _read_attempt(self.path)) == self.attempt:
                return
            if attempt is not None:
                break
            time.sleep(pause)  # a process that removed this lease by mistake puts it back
        raise Lost(self.stage, read(self.path.parent, self.path.name) or Lease(self.path.name))


def lifetime() -> float:
    """Seconds without a heartbeat after which a lease expires. Raises BenchError if the variable is invalid."""
    text = os.environ.get(LIFETIME, "600")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise BenchError(f"{LIFETIME}={text}: expected a positive number of seconds", USAGE)
    return seconds


def describe_holder(lease: Lease) -> str:
    """Who holds a lease: "process 12 on node7, Slurm job 7 (heartbeat 3 s ago)"."""
    who = f"process {lease.pid} on {lease.host}" if lease.pid else lease.host or "an unknown process"
    about = f", {lease.about}" if lease.about else ""
    return who + about + (f" (heartbeat {lease.age:.0f} s ago)" if lease.live else "")


@contextmanager
def acquire(folder: Path, key: str, stage: str) -> Iterator[Claim]:
    """Holds the lease of a stage, with heartbeats, until the context ends. Raises Held at once if another process's
    lease is live, and BenchError (exit 3) on a file system without hard links."""
    claim, descriptor = _create_or_steal(folder, key, stage)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(lifetime() / 10):
            with suppress(OSError):  # a full disk does not prevent it
                os.utime(descriptor)  # this process's own file, even if another lease has replaced it

    thread = threading.Thread(target=beat, daemon=True, name=f"lease {key[:12]}")
    thread.start()
    try:
        yield claim
    finally:
        over.set()
        thread.join()
        os.close(descriptor)
        _remove(claim.path, claim.attempt)


def _create_or_steal(folder: Path, key: str, stage: str) -> tuple[Claim, int]:
    """Creates the lease, if necessary in place of an expired one; returns the claim and the open file."""
    attempt, path = secrets.token_hex(8), folder / key
    lease = Lease(key, stage, attempt, os.getpid(), _start_tick(os.getpid()), socket.gethostname(), machine(),
                  time.time(), f"Slurm job {job}" if (job := os.environ.get("SLURM_JOB_ID")) else "")
    text = json.dumps({name: value for name, value in asdict(lease).items() if name not in ("key", "age", "live")})
    new, descriptor = folder / f".{attempt}", -1
    try:  # also covers an exception that a signal raises while the file is created
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(descriptor, text.encode())
        os.fsync(descriptor)  # stays open: a network file system shows other hosts what was written until now
        while not _link(new, path):
            holder = read(folder, key)
            if holder and holder.live:
                raise Held(stage, holder)
            if holder:
                _remove(path, holder.attempt)  # steals the expired lease: the next _link puts the new one in its place
    except BaseException:
        if descriptor >= 0:
            os.close(descriptor)
        raise
    finally:
        new.unlink(missing_ok=True)
    return Claim(path, stage, attempt), descriptor


def _link(new: Path, path: Path) -> bool:
    """Links `new` to `path`; returns False if `path` exists. Counts links, as a network may lose the answer."""
    try:
        os.link(new, path)
    except FileExistsError:
        return os.stat(new).st_nlink == 2
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise BenchError(f"the file system of store {path.parent.parent} has no hard links, without which two "
                             "processes may build the same stage; choose another folder with --store DIR",
                             ENVIRONMENT) from error
        raise
    return True


def _remove(path: Path, attempt: str) -> None:
    """Removes a lease if it belongs to this attempt."""
    if _read_attempt(path) != attempt:
        return
    moved = path.with_name(f".{secrets.token_hex(8)}")
    try:
        os.rename(path, moved)
    except FileNotFoundError:
        return
    if _read_attempt(moved) != attempt:  # another process stole it between the check and the rename: put it back
        with suppress(FileExistsError):
            os.link(moved, path)
    moved.unlink(missing_ok=True)


def read(folder: Path, key: str, now: float | None = None) -> Lease | None:
    """The lease of a stage, live or expired; None if there is none. now: `clock(folder)`."""
    if (content := _read_file(folder / key)) is None:
        return None
    lease, touched = content
    age = (clock(folder) if now is None else now) - touched
    is_local = lease.machine == machine() != ""
    live = age < lifetime() and not (is_local and not _is_alive(lease.pid, lease.start))
    return replace(lease, age=max(age, 0.0), live=live)


def running(folder: Path) -> list[Lease]:
    """Every live lease, sorted by key."""
    names = sorted(path.name for path in folder.glob("[!.]*"))
    now = clock(folder) if names else 0.0
    return [lease for name in names if (lease := read(folder, name, now)) and lease.live]


def sweep(folder: Path) -> None:
    """Removes expired leases and unfinished lease files."""
    for path in folder.iterdir():
        lease = read(folder, path.name)
        if lease and not lease.live:
            if path.name.startswith("."):
                path.unlink(missing_ok=True)
            else:
                _remove(path, lease.attempt)


def clock(folder: Path) -> float:
    """The time by the clock of the file system, which dates heartbeats; by this host's if nothing can be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _read_file(path: Path) -> tuple[Lease, float] | None:
    """The content of a lease file, and when it was last touched."""
    try:
        with path.open("rb") as file:  # opening makes a network file system ask its server
            data, touched = file.read(), os.fstat(file.fileno()).st_mtime
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno == errno.ESTALE:
            return None
        raise
    try:
        return Lease(path.name, **json.loads(data)), touched
    except (ValueError, TypeError):  # its process or machine died before the content was written
        return Lease(path.name), touched


def _read_attempt(path: Path) -> str | None:
    return content[0].attempt if (content := _read_file(path)) else None


@cache
def machine() -> str:
    """The boot of this machine and the namespace of its process ids; empty if there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_tick(pid: int) -> int:
    """The clock tick at which a process began: a later process with the same id has another; 0: unknown, -1: a zombie.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return -1 if state in "ZX" else int(fields[18])
    except (OSError, ValueError, IndexError):
        return 0


def _is_alive(pid: int, start: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    now = _start_tick(pid)
    return now == 0 or start == 0 or now == start
