"""The store: a folder for each stage, complete or absent, named by its key."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.errors import ENVIRONMENT, RESUMABLE, BenchError
from bench.files import sha256, sync
from bench.key import Stage, document, key, kind

MANIFEST = "MANIFEST.json"
LITTLE = 1 << 20  # bytes; a disk with less room than that is full


class Store:
    """objects/ab/<key>/ holds a stage's files and MANIFEST.json, which is written last and states each file's SHA-256.

    work/ holds attempts, one folder each, moved into objects/ when complete; checkpoints/ what a killed stage resumes
    from; encoders/ the copies of users' encoders; logs/ a journal of each stage. create=False: an absent store is an
    empty one, and is not made. Raises BenchError (exit 3) when the folder cannot be written.
    """

    def __init__(self, root: Path, create: bool = True):
        self.root = root
        self._sound: set[str] = set()
        self._keys: dict[Stage, str] = {}
        if not root.exists() and not create:
            return
        try:
            for part in ("objects", "work", "encoders", "logs"):
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

    def key(self, stage: Stage) -> str:
        """The stage's key, computed once in a store's life."""
        if stage not in self._keys:
            self._keys[stage] = key(stage)
        return self._keys[stage]

    def checkpoints(self, stage: Stage) -> Path:
        """Where an unfinished stage keeps what it can be resumed from; gone when the stage is complete."""
        return self.root / "checkpoints" / self.key(stage)

    def path(self, stage: Stage) -> Path:
        """Where the stage's folder is, or would be."""
        name = self.key(stage)
        return self.root / "objects" / name[:2] / name

    def has(self, stage: Stage) -> bool:
        """Whether the stage is there, by its manifest alone: quick, reads no file of the stage."""
        return (self.path(stage) / MANIFEST).is_file()

    def sound(self, stage: Stage) -> bool:
        """Whether the stage is there with every file as it was written; a damaged one is removed with a warning.

        Each stage is read once in a store's life.
        """
        path = self.path(stage)
        if path.name in self._sound:
            return True
        if not path.exists():
            return False
        damage = _damage(path)
        if damage:
            warnings.warn(f"{kind(stage)} {path.name[:12]} in the store is damaged ({damage}): it is built again",
                          stacklevel=2)
            self.remove(stage)
            return False
        self._sound.add(path.name)
        return True

    def manifest(self, stage: Stage) -> dict[str, Any]:
        """The stage's manifest: key, document, files with their SHA-256 and size, how it was built."""
        return json.loads((self.path(stage) / MANIFEST).read_text())

    def remove(self, stage: Stage) -> None:
        """Takes a stage out of the store."""
        path = self.path(stage)
        self._sound.discard(path.name)
        trash = Path(tempfile.mkdtemp(dir=self.root / "work", prefix=f"trash-{os.getpid()}-"))
        os.rename(path, trash / path.name)
        shutil.rmtree(trash)

    def build(self, stage: Stage, make: Callable[[Path], None], **provenance: Any) -> Path:
        """The stage's folder; absent, `make(out)` fills a new one, which is then moved to its place in one step.

        Where another process was faster, its folder is the one that stays. Raises BenchError (exit 75) on a full disk.
        """
        path = self.path(stage)
        if self.sound(stage):
            return path
        out = Path(tempfile.mkdtemp(dir=self.root / "work", prefix=f"{kind(stage)}-{os.getpid()}-"))
        try:
            began = time.monotonic()
            make(out)
            self._commit(stage, out, path, wall_s=round(time.monotonic() - began, 3), **provenance)
        except Exception as error:
            if self.full(error):  # libraries say it in many ways, not all of them with an errno
                raise disk_full(self.root) from error
            raise
        finally:
            shutil.rmtree(out, ignore_errors=True)
        self._put_away(stage)
        self._sound.add(path.name)
        return path

    def _put_away(self, stage: Stage) -> None:
        """Keeps nothing of what a complete stage could have been resumed from."""
        shutil.rmtree(self.checkpoints(stage), ignore_errors=True)

    def full(self, error: BaseException | None = None) -> bool:
        """Whether an error came of a full disk, by its errno or because there is next to no room left."""
        return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or shutil.disk_usage(
            self.root).free < LITTLE

    def _commit(self, stage: Stage, out: Path, path: Path, **provenance: Any) -> None:
        files = {}
        for file in sorted(p for p in out.rglob("*") if p.is_file()):
            files[file.relative_to(out).as_posix()] = {"sha256": sha256(file), "bytes": file.stat().st_size}
            sync(file)
        manifest = {"key": path.name, "stage": json.loads(document(stage)), "files": files, **provenance}
        (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        sync(out / MANIFEST)
        out.chmod(0o755)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(out, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        sync(path.parent)


def disk_full(root: Path) -> BenchError:
    """What a full disk says."""
    return BenchError(f"no room left on the disk of {root}; what is complete is kept: make room and give the same "
                      "command again", RESUMABLE)


def _damage(path: Path) -> str:
    """What is wrong with a stage's folder; empty when every file is as its manifest says."""
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
        for name, entry in files.items():
            if sha256(path / name) != entry["sha256"]:
                return f"{name} has another hash than the manifest says"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return repr(error)
    return ""
