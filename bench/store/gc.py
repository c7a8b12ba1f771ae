"""What lies in the store: `bench store ls|show|verify`, and `bench gc`, which removes what no result stands on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.store.store import MANIFEST, Store, unreadable

SORTS = ("kind", "key", "size", "age")
DAYS = 14.0
PREFIX = 16  # of a key, in the results' column `stage`


@dataclass(frozen=True)
class Stored:
    """A stage in the store; `built`: seconds since 1970. document: of its manifest."""

    key: str
    kind: str
    bytes: int
    built: float
    document: dict[str, Any]


def engine_jobs(there: Store) -> dict[str, dict[str, Any]]:
    """The job of each stage that was handed to an engine and is not there, by its key: number, and the stage's
    document."""
    found = {}
    for path in (there.root / "requests").glob("*.job"):
        if not (there.folder(path.stem) / MANIFEST).is_file():
            with suppress(FileNotFoundError):  # it has just ended
                found[path.stem] = {"job": "", "stage": {}} | read_json(path)
    return found


def read_json(path: Path) -> Any:
    """Raises BenchError for a file that is none."""
    text = path.read_text()
    try:
        return json.loads(text)
    except ValueError as error:
        raise BenchError(f"{path} cannot be read as JSON ({error}); remove it if nothing of it is wanted") from error


def stored(there: Store) -> Iterator[Stored]:
    """Every stage of a store. One whose manifest cannot be read has the kind "damaged"."""
    for folder in _folders(there.root / "objects"):
        path = folder / MANIFEST
        try:
            built, manifest = path.stat().st_mtime, json.loads(path.read_bytes())
            total = sum(file["bytes"] for file in manifest["files"].values())
            yield Stored(folder.name, manifest["stage"]["kind"].lower(), total, built, manifest["stage"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
            if folder.exists():  # else it was removed since it was listed
                yield Stored(folder.name, "damaged", 0, folder.stat().st_mtime, {})
        except OSError as error:
            raise unreadable(error) from error


def _folders(objects: Path) -> Iterator[Path]:
    """Of stages; a glob would leave out what it may not list."""
    try:
        for first in sorted(objects.iterdir()):
            if len(first.name) == 2:
                yield from sorted(first.iterdir())
    except OSError as error:
        raise unreadable(error) from error


def ancestry(document: Any) -> Iterator[str]:
    """The keys of a stage and of all that it is built from, by the document in its manifest."""
    if isinstance(document, dict):
        if "version" in document:  # else it is a plain value, such as Items
            text = json.dumps(document, sort_keys=True, separators=(",", ":"))
            yield hashlib.sha256(text.encode()).hexdigest()
        for value in document.values():
            yield from ancestry(value)
    elif isinstance(document, list):
        for value in document:
            yield from ancestry(value)


def keys_in_results(folders: list[Path]) -> set[str]:
    """The beginnings of keys in the results' column `stage`. Raises BenchError where there are none."""
    found: set[str] = set()
    for folder in folders:
        before = len(found)
        for path in folder.rglob("*.csv"):
            head = path.open(encoding="utf-8").readline().strip().split(",")
            if "stage" in head and "metric" in head:
                stages = pd.read_csv(path, usecols=["stage"], dtype=str, keep_default_na=False)["stage"]
                found.update(name for name in stages.unique() if name)
        if len(found) == before:
            raise BenchError(f"no results in {folder}: what they stand on is what is kept; give the folder that "
                             "`bench run` wrote to with --results DIR")
    return found


def started_keys(there: Store) -> set[str]:
    """Keys of the stages that have checkpoints."""
    return {path.name for path in (there.root / "checkpoints").glob("*")}


def open_store(name: str) -> Store:
    root = Path(name)
    if not (root / "objects").is_dir():
        raise BenchError(f"no store in {root}: a folder that `bench run` made is expected, give it with --store DIR")
    return Store(root, create=False)


def size(count: int) -> str:
    """"1.2 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def age_text(seconds: float) -> str:
    """"3 hours"."""
    for unit, factor in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
