"""The store: one folder for each stage, complete or absent, named by the stage's key."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.errors import ENVIRONMENT, BenchError
from bench.files import disk_full, sha256, sync
from bench.store import Keyed, lease

MANIFEST = "MANIFEST.json"
DOCUMENT = "stage.json"  # in a folder of checkpoints: the document of the stage
COPY_TIMEOUT = 3600.0  # s after which an unfinished copy of a user's encoder is removed
MIN_FREE = 1 << 20  # bytes; a disk with less free space counts as full


class Store:
    """The folders of a store: objects/ab/<key>/ holds a stage's files and MANIFEST.json, which is written last and
    holds each file's SHA-256; docs/running.md describes the others. create=False: opens a store to read; an absent one
    counts as empty. Raises BenchError on Windows and if the folder is not writable (exit 3), and if the disk is full
    (exit 75)."""

    def __init__(self, root: Path, create: bool = True):
        self.root, self.encoders = root, root / "encoders"  # encoders: copies of users' encoders
        self.built: set[str] = set()  # keys of the stages that were built through this object
        self._intact: set[str] = set()  # keys of the stages whose hashes were checked
        self._builds = create
        self._claims: dict[str, lease.Claim] = {}
        if not create:
            return
        if os.name == "nt":  # which neither renames nor replaces a file that a process holds open, such as a lease
            raise BenchError("stages are built on Linux and macOS only; on Windows, use WSL 2; bench list, plan, table "
                             "and score run on Windows itself", ENVIRONMENT)
        try:
            for part in ("objects", "leases", "runs", "work", "encoders", "logs"):
                (root / part).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root / "work"):
                pass
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise disk_full(root) from error
            raise BenchError(f"store {root} is not writable ({error.strerror}); choose another folder with --store DIR",
                             ENVIRONMENT) from error

    def checkpoints(self, stage: Keyed) -> Path:
        """The folder of an unfinished stage's checkpoints; removed when the stage is complete."""
        return self.root / "checkpoints" / stage.key

    def path(self, stage: Keyed) -> Path:
        """The folder of a stage, whether it exists or not."""
        return self.folder(stage.key)

    def folder(self, key: str) -> Path:
        """The folder of the stage with that key, whether it exists or not."""
        return self.root / "objects" / key[:2] / key

    def has(self, stage: Keyed) -> bool:
        """Whether the stage has a manifest. Reads no file of the stage."""
        return _exists(self.path(stage) / MANIFEST)

    def is_intact(self, stage: Keyed) -> bool:
        """Whether the stage exists and every file has the hash in its manifest; reads each stage only once. Warns of a
        damaged stage, and removes it unless the store was opened to read."""
        path = self.path(stage)
        if path.name in self._intact:
            return True
        if not _exists(path):
            return False
        if damage := find_damage(path):
            warnings.warn(f"{stage.kind} {path.name[:12]} in the store is damaged ({damage}); it is rebuilt",
                          stacklevel=2)
            if self._builds:
                self.remove_damaged(path.name, stage.kind)
            return False
        self._intact.add(path.name)
        return True

    def remove_damaged(self, key: str, kind: str) -> bool:
        """Removes the stage if it is still damaged and no process builds it; returns whether it was removed. Raises
        BenchError (exit 75) if the disk is full."""
        with self._disk_errors(), suppress(lease.Held), lease.acquire(self.root / "leases", key, kind):
            if find_damage(self.folder(key)):
                self.remove(key)
                return True
        return False

    def manifest(self, stage: Keyed) -> dict[str, Any]:
        """The stage's manifest: key, document, SHA-256 and size of each file, provenance."""
        return self.manifest_of(stage.key)

    def manifest_of(self, key: str) -> dict[str, Any]:
        """The manifest of the stage with that key. Raises BenchError (exit 3) if it is damaged or missing."""
        path = self.folder(key) / MANIFEST
        try:
            return _parse_manifest(path)
        except OSError as error:
            raise unreadable_error(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{path} is damaged ({error!r}); remove the stage: bench store verify --delete-damaged "
                             f"--store {self.root}", ENVIRONMENT) from error

    def keys(self) -> Iterator[str]:
        """The key of every stored stage, sorted."""
        for folder in sorted((self.root / "objects").glob("??")):
            yield from sorted(path.name for path in folder.iterdir() if (path / MANIFEST).is_file())

    def resolve(self, prefix: str) -> str:
        """The only key that begins with `prefix`. Raises BenchError if there is none, or more than one."""
        keys = [key for key in self.keys() if key.startswith(prefix)]
        if len(keys) == 1:
            return keys[0]
        if not keys:
            raise BenchError(f"no stage in {self.root} has a key that begins with {prefix!r}; list the stages with: "
                             f"bench store ls --store {self.root}")
        some = ", ".join(f"{key[:16]} ({self.manifest_of(key)['stage']['kind'].lower()})" for key in keys[:5])
        raise BenchError(f"{len(keys)} stages have a key that begins with {prefix!r}: {some}"
                         + (", ..." if len(keys) > 5 else "") + "; give more digits of the key")

    def running(self) -> list[lease.Lease]:
        """The live leases of stages: who builds what now."""
        return lease.running(self.root / "leases")

    def runs(self) -> list[lease.Lease]:
        """The live leases of runs that are inside `at_work`."""
        return lease.running(self.root / "runs")

    def holder(self, stage: Keyed) -> lease.Lease | None:
        """The live lease of the stage; None if no process builds it."""
        found = lease.read(self.root / "leases", stage.key)
        return found if found and found.live else None

    def claim(self, stage: Keyed) -> lease.Claim:
        """The claim of a stage that this object is building."""
        return self._claims[stage.key]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Registers a run in runs/, so that `bench gc` removes nothing it relies on. Raises BenchError (exit 75) if the
        disk is full."""
        with self._disk_errors(), lease.acquire(self.root / "runs", secrets.token_hex(8), "run"):
            yield

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turns an OSError caused by a full disk into a BenchError."""
        try:
            yield
        except OSError as error:
            if self.is_full(error):
                raise disk_full(self.root) from error
            raise

    def is_full(self, error: BaseException | None = None) -> bool:
        """Whether the disk is full, by the errno of `error` or by the free space."""
        return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or shutil.disk_usage(
            self.root).free < MIN_FREE

    def remove(self, key: str) -> None:
        """Removes the stage with that key."""
        self._intact.discard(key)
        self._delete_folder(self.folder(key))

    def _delete_folder(self, folder: Path) -> None:
        """Removes a folder: renamed first, so that no process sees half of it."""
        trash = self.root / "work" / f"trash-{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):  # another process was faster
            os.rename(folder, trash)
        shutil.rmtree(trash, ignore_errors=True)

    def build(self, stage: Keyed, make: Callable[[Path], None], wait: bool = False, **provenance: Any) -> Path:
        """Returns the stage's folder. If it is absent, `make(out)` fills a new folder, which is renamed to its place.

        wait: waits for another process that builds the stage, or for its lease if it dies; else raises lease.Held at
        once. Raises lease.Lost if the lease was lost, BenchError (exit 75) if the disk is full, and what `make` raises.
        """
        path = self.path(stage)
        while not self.is_intact(stage):
            try:
                with self._disk_errors(), lease.acquire(self.root / "leases", path.name, stage.kind) as claim:
                    if not _exists(path) or find_damage(path):  # else another process built it meanwhile
                        self._delete_folder(path)
                        self._attempt(stage, make, path, claim, **provenance)
                        shutil.rmtree(self.checkpoints(stage), ignore_errors=True)
                    self._intact.add(path.name)
            except lease.Held as held:
                if isinstance(held, lease.Lost) and self.is_intact(stage):
                    break
                if not wait:
                    raise
                time.sleep(min(lease.lifetime() / 10, 5.0))
        return path

    def _attempt(self, stage: Keyed, make: Callable[[Path], None], path: Path, claim: lease.Claim,
                 **provenance: Any) -> None:
        out = self.root / "work" / f"{stage.kind}-{claim.attempt}"
        self._claims[path.name] = claim
        try:
            out.mkdir()
            began = time.monotonic()
            make(out)
            self._commit(stage, out, path, claim, wall_s=round(time.monotonic() - began, 3), **provenance)
        except Exception as error:
            claim.check()  # if the lease is lost, that caused the error
            if self.is_full(error):  # libraries report a full disk in many ways, some without an errno
                raise disk_full(self.root) from error
            raise
        finally:
            del self._claims[path.name]
            shutil.rmtree(out, ignore_errors=True)

    def _commit(self, stage: Keyed, out: Path, path: Path, claim: lease.Claim, **provenance: Any) -> None:
        """Writes the manifest, syncs everything to the disk, and renames `out` to `path`."""
        files = {}
        for file in sorted(p for p in out.rglob("*") if p.is_file()):
            files[file.relative_to(out).as_posix()] = {"sha256": sha256(file), "bytes": file.stat().st_size}
            sync(file)
        manifest = {"key": path.name, "stage": json.loads(stage.document), "files": files, **provenance}
        (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        sync(out / MANIFEST)
        for folder in (*(p for p in out.rglob("*") if p.is_dir()), out):
            sync(folder)
        out.chmod(0o755)
        path.parent.mkdir(parents=True, exist_ok=True)
        claim.check()
        try:
            os.rename(out, path)
            self.built.add(path.name)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process was faster
                raise
        sync(path.parent)
        sync(path.parent.parent)

    def sweep(self) -> None:
        """Removes what dead processes left: leases, attempts, checkpoints of complete stages, copies of encoders."""
        attempts = list((self.root / "work").iterdir())  # read before the leases: a lease is older than its attempt
        lease.sweep(self.root / "leases")
        lease.sweep(self.root / "runs")
        live = self.running()
        owned = {holder.attempt for holder in live}
        for attempt in attempts if "" not in owned else ():  # a network file system may show a lease before its content
            if lease.ATTEMPT.fullmatch(name := attempt.name.rpartition("-")[2]) and name not in owned:
                self._delete_folder(attempt)
        busy = {holder.key for holder in live}
        for folder in (self.root / "checkpoints").glob("*"):
            if folder.name not in busy and (self.folder(folder.name) / MANIFEST).is_file():
                shutil.rmtree(folder, ignore_errors=True)
        now = lease.clock(self.root / "leases")
        for part in self.encoders.glob("*.part"):
            with suppress(FileNotFoundError):  # another process sweeps, too
                if part.stat().st_mtime < now - COPY_TIMEOUT:
                    shutil.rmtree(part, ignore_errors=True)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise unreadable_error(error) from error


def find_damage(path: Path) -> str:
    """Describes the damage in a stage's folder; empty if every file has the hash in its manifest, and the manifest's
    document that of the folder's name. Raises BenchError (exit 3) if a file cannot be read, which is not damage."""
    try:
        manifest = _parse_manifest(path / MANIFEST)
        document = json.dumps(manifest["stage"], sort_keys=True, separators=(",", ":"))
        if not path.name == manifest["key"] == hashlib.sha256(document.encode()).hexdigest():
            return f"{MANIFEST} describes another stage than {path.name[:12]}"
        for name, entry in manifest["files"].items():
            if sha256(path / name) != entry["sha256"] or (path / name).stat().st_size != entry["bytes"]:
                return f"the hash of {name} differs from the manifest"
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, KeyError, TypeError) as error:
        return repr(error)
    except OSError as error:
        raise unreadable_error(error) from error
    return ""


def _parse_manifest(path: Path) -> dict[str, Any]:
    """Reads a manifest. Raises ValueError, KeyError or TypeError for any other file."""
    manifest: dict[str, Any] = json.loads(path.read_text())
    if not isinstance(manifest["stage"], dict) or not isinstance(manifest["key"], str) or not all(
            isinstance(entry["sha256"], str) and isinstance(entry["bytes"], int)
            for entry in dict(manifest["files"]).values()):
        raise ValueError("not the manifest of a stage")
    return manifest


def unreadable_error(error: OSError) -> BenchError:
    """The error (exit 3) for a file that cannot be read."""
    return BenchError(f"{error.filename or 'a file in the store'} cannot be read ({error.strerror}); nothing was "
                      "removed; check the disk and its permissions, then repeat the command", ENVIRONMENT)
