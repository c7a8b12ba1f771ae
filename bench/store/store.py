"""The store: a folder for each stage, complete or absent, named by its key."""

from __future__ import annotations

import errno
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
from bench.store import lease
from bench.store.keyed import Keyed

MANIFEST = "MANIFEST.json"
DOCUMENT = "stage.json"  # beside the checkpoints of a training: what it is built from
COPYING = 3600.0  # s that copying a user's encoder may take
LITTLE = 1 << 20  # bytes; a disk with less room than that is full


class Store:
    """objects/ab/<key>/ holds a stage's files and MANIFEST.json, which is written last and states each file's SHA-256.

    leases/ says who builds what, runs/ who is at work here at all; work/ holds attempts, one folder each, moved into
    objects/ when complete; checkpoints/ what a killed stage resumes from; encoders/ the copies of users' encoders;
    logs/ a journal of each stage. docs/running.md. create=False: to read; an absent store is an empty one, and is not
    made. Raises BenchError (exit 3) when a folder that is to be built in cannot be written.
    """

    def __init__(self, root: Path, create: bool = True):
        self.root = root
        self._sound: set[str] = set()
        self._builds = create
        self._claims: dict[str, lease.Claim] = {}
        self.built: set[str] = set()  # keys of the stages that came into the store through this object
        if not create:
            return
        try:
            for part in ("objects", "leases", "runs", "work", "encoders", "logs"):
                (root / part).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root / "work"):
                pass
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise disk_full(root) from error
            raise BenchError(f"store {root}: a folder that can be written is needed ({error.strerror}); "
                             "give another with --store DIR", ENVIRONMENT) from error

    @property
    def encoders(self) -> Path:
        return self.root / "encoders"

    def checkpoints(self, stage: Keyed) -> Path:
        """Where an unfinished stage keeps what it can be resumed from; gone when the stage is complete."""
        return self.root / "checkpoints" / stage.key

    def path(self, stage: Keyed) -> Path:
        """Where the stage's folder is, or would be."""
        return self.folder(stage.key)

    def folder(self, name: str) -> Path:
        """The same of the stage with that key."""
        return self.root / "objects" / name[:2] / name

    def has(self, stage: Keyed) -> bool:
        """Whether the stage is there, by its manifest alone: quick, reads no file of the stage."""
        return _there(self.path(stage) / MANIFEST)

    def sound(self, stage: Keyed) -> bool:
        """Whether the stage is there with every file as it was written; of a damaged one a warning says so, and where
        this store builds it is removed.

        Each stage is read once in a store's life.
        """
        path = self.path(stage)
        if path.name in self._sound:
            return True
        if not _there(path):
            return False
        if damage := damaged(path):
            warnings.warn(f"{stage.kind} {path.name[:12]} in the store is damaged ({damage}): it is built again",
                          stacklevel=2)
            if self._builds:
                self.remove_damaged(path.name, stage.kind)
            return False
        self._sound.add(path.name)
        return True

    def remove_damaged(self, name: str, kind: str) -> bool:
        """Takes the stage of that key out of the store, if it still is damaged and nobody builds it; whether it did.
        Raises BenchError (exit 75) where the disk is full."""
        with self._room(), suppress(lease.Held), lease.taken(self.root / "leases", name, kind):
            if damaged(self.folder(name)):
                self.remove(name)
                return True
        return False

    def manifest(self, stage: Keyed) -> dict[str, Any]:
        """The stage's manifest: key, document, files with their SHA-256 and size, how it was built."""
        return json.loads((self.path(stage) / MANIFEST).read_text())

    def keys(self) -> Iterator[str]:
        """The key of every stage that is stored, sorted."""
        for folder in sorted((self.root / "objects").glob("??")):
            yield from sorted(path.name for path in folder.iterdir() if (path / MANIFEST).is_file())

    def manifest_of(self, name: str) -> dict[str, Any]:
        """The manifest of the stage with that key."""
        return json.loads((self.folder(name) / MANIFEST).read_text())

    def resolve(self, prefix: str) -> str:
        """The one key that begins so. Raises BenchError for none or several."""
        found = [name for name in self.keys() if name.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        if not found:
            raise BenchError(f"no stage in {self.root} has a key that begins with {prefix!r}; list them with: "
                             f"bench store ls --store {self.root}")
        some = ", ".join(f"{name[:16]} ({self.manifest_of(name)['stage']['kind'].lower()})" for name in found[:5])
        raise BenchError(f"{len(found)} stages have a key that begins with {prefix!r}: {some}"
                         + (", ..." if len(found) > 5 else "") + "; give more of it")

    def running(self) -> list[lease.Lease]:
        """Who builds what now."""
        return lease.running(self.root / "leases")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While a run relies on what it found here, also where it builds nothing just now. Raises BenchError (exit 75)
        where the disk is full."""
        with self._room(), lease.taken(self.root / "runs", secrets.token_hex(8), "run"):
            yield

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Where an OSError that comes of a full disk is a BenchError."""
        try:
            yield
        except OSError as error:
            if self.full(error):
                raise disk_full(self.root) from error
            raise

    def runs(self) -> list[lease.Lease]:
        """Who is `at_work`."""
        return lease.running(self.root / "runs")

    def held(self, stage: Keyed) -> lease.Lease | None:
        """Who builds the stage now; None where nobody does."""
        found = lease.read(self.root / "leases", stage.key)
        return found if found and found.live else None

    def claim(self, stage: Keyed) -> lease.Claim:
        """This store's own hold on a stage that it is building."""
        return self._claims[stage.key]

    def remove(self, name: str) -> None:
        """Takes the stage with that key out of the store."""
        self._sound.discard(name)
        self._away(self.folder(name))

    def _away(self, folder: Path) -> None:
        """Removes a folder, which is whole at its place or not there."""
        trash = self.root / "work" / f"trash-{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):  # another was faster
            os.rename(folder, trash)
        shutil.rmtree(trash, ignore_errors=True)

    def build(self, stage: Keyed, make: Callable[[Path], None], wait: bool = False, **provenance: Any) -> Path:
        """The stage's folder; absent, `make(out)` fills a new one, which is then moved to its place in one step.

        Raises lease.Held at once where another process builds it, and lease.Lost where one has taken it over from
        this one; wait: then takes what that one makes, or its place when it dies. BenchError (exit 75): a full disk.
        """
        path = self.path(stage)
        while not self.sound(stage):
            try:
                with self._room(), lease.taken(self.root / "leases", path.name, stage.kind) as claim:
                    if not _there(path) or damaged(path):  # else another built it since it was looked for
                        self._away(path)
                        self._attempt(stage, make, path, claim, **provenance)
                        self._put_away(path.name)
                    self._sound.add(path.name)
            except lease.Held as held:
                if isinstance(held, lease.Lost) and self.sound(stage):
                    break
                if not wait:
                    raise
                time.sleep(min(lease.life() / 10, 5.0))
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
            claim.check()  # else what it stumbled over may be that another owner is at work
            if self.full(error):  # libraries say it in many ways, not all of them with an errno
                raise disk_full(self.root) from error
            raise
        finally:
            del self._claims[path.name]
            shutil.rmtree(out, ignore_errors=True)

    def _put_away(self, name: str) -> None:
        """Keeps nothing of what a complete stage could have been resumed from."""
        shutil.rmtree(self.root / "checkpoints" / name, ignore_errors=True)

    def sweep(self) -> None:
        """Removes what processes that are gone left: their leases, their attempts, checkpoints of complete stages, and
        of users' encoders copies that were not finished within an hour."""
        attempts = list((self.root / "work").iterdir())  # listed first: an attempt has a lease before it has a folder
        lease.sweep(self.root / "leases")
        lease.sweep(self.root / "runs")
        there = self.running()
        owned = {held.attempt for held in there}
        for attempt in attempts if "" not in owned else ():  # a network may show a lease before what it says
            if lease.ATTEMPT.fullmatch(number := attempt.name.rpartition("-")[2]) and number not in owned:
                self._away(attempt)
        busy = {held.key for held in there}
        for folder in (self.root / "checkpoints").glob("*"):
            if folder.name not in busy and (self.folder(folder.name) / MANIFEST).is_file():
                self._put_away(folder.name)
        now = lease.clock(self.root / "leases")
        for part in self.encoders.glob("*.part"):
            with suppress(FileNotFoundError):  # another sweeps, too
                if part.stat().st_mtime < now - COPYING:
                    shutil.rmtree(part, ignore_errors=True)

    def full(self, error: BaseException | None = None) -> bool:
        """Whether an error came of a full disk, by its errno or because there is next to no room left."""
        return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or shutil.disk_usage(
            self.root).free < LITTLE

    def _commit(self, stage: Keyed, out: Path, path: Path, claim: lease.Claim, **provenance: Any) -> None:
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
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        sync(path.parent)
        sync(path.parent.parent)


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise unreadable(error) from error


def damaged(path: Path) -> str:
    """What is wrong with a stage's folder; empty when every file is as its manifest says.

    Raises BenchError (exit 3) where a file cannot be read, which says nothing about what it holds.
    """
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
        for name, entry in files.items():
            if sha256(path / name) != entry["sha256"]:
                return f"{name} has another hash than the manifest says"
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, KeyError, TypeError) as error:
        return repr(error)
    except OSError as error:
        raise unreadable(error) from error
    return ""


def unreadable(error: OSError) -> BenchError:
    """What a file that cannot be read says."""
    return BenchError(f"{error.filename or 'a file in the store'} cannot be read ({error.strerror}); nothing is "
                      "removed: see to the disk, or to who may read there, and give the same command again",
                      ENVIRONMENT)
