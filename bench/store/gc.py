"""Reads a store for `bench store` and `bench gc`: stages, sizes, ancestry, and the keys that results name."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.listing import list_files
from bench.errors import BenchError, one_line
from bench.store.store import MANIFEST, Store, unreadable_error

SORTS = ("kind", "key", "size", "age")
DAYS = 14.0  # default age of the stages that `bench gc` removes
PREFIX = 16  # digits of a key in the results' column `stage`


@dataclass(frozen=True)
class Stored:
    """A stage in the store. built: unix seconds. document: the stage's, from its manifest."""

    key: str
    kind: str
    bytes: int
    built: float
    document: dict[str, Any]


def engine_jobs(store: Store) -> dict[str, dict[str, Any]]:
    """The engine's job (fields job and stage) of each stage that is queued and not stored, by the stage's key."""
    jobs = {}
    for path in (store.root / "requests").glob("*.job"):
        if not (store.folder(path.stem) / MANIFEST).is_file():
            with suppress(FileNotFoundError):  # the job has just ended
                job = read_json(path)
                if not isinstance(job, dict) or not isinstance(job.get("stage", {}), dict):
                    raise BenchError(f"{path} is not the note of a job; remove the file if you do not need it")
                jobs[path.stem] = {"job": "", "stage": {}} | job
    return jobs


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises BenchError if it is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:  # of JSON, or of its text
        raise BenchError(f"{path} cannot be read as JSON ({error}); remove the file if you do not need it") from error


def list_stages(store: Store) -> Iterator[Stored]:
    """Every stage of a store. A stage whose manifest cannot be parsed has the kind "damaged"."""
    for folder in _stage_folders(store.root / "objects"):
        path = folder / MANIFEST
        try:
            built, manifest = path.stat().st_mtime, json.loads(path.read_bytes())
            total = sum(file["bytes"] for file in manifest["files"].values())
            yield Stored(folder.name, manifest["stage"]["kind"].lower(), total, built, manifest["stage"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
            if folder.exists():  # else it was removed after it was listed
                yield Stored(folder.name, "damaged", 0, folder.stat().st_mtime, {})
        except OSError as error:
            raise unreadable_error(error) from error


def _stage_folders(objects: Path) -> Iterator[Path]:
    """The folders of all stages. No glob: it would skip folders without permission."""
    try:
        for first in sorted(objects.iterdir()):
            if len(first.name) == 2:
                yield from sorted(first.iterdir())
    except OSError as error:
        raise unreadable_error(error) from error


def ancestry(document: Any) -> Iterator[str]:
    """The keys of a stage and of everything it is built from, from its document."""
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
    """The beginnings of keys in the results' column `stage`. Raises BenchError for a folder without results."""
    import pandas as pd  # not at the top: nothing else here needs it

    keys: set[str] = set()
    for folder in folders:
        before = len(keys)
        for path in list_files(folder, (".csv",), hidden=True).files if folder.is_dir() else ():
            try:
                with path.open(encoding="utf-8-sig", newline="") as file:
                    head = next(csv.reader(file), [])
                if "stage" in head and "metric" in head:
                    stages = pd.read_csv(path, usecols=["stage"], dtype=str, keep_default_na=False)["stage"]
                    keys.update(name for name in stages.unique() if name)
            except (OSError, ValueError, csv.Error) as error:
                raise BenchError(f"{path} cannot be read as a CSV ({one_line(error)}), so that the stages "
                                 "its results need are unknown; restore it, or move it out of the folder") from error
        if len(keys) == before:
            raise BenchError(f"no results in {folder}, so that every stage would be removed; name the folder that "
                             "`bench run` wrote to with --results DIR")
    return keys


def started_keys(store: Store) -> set[str]:
    """Keys of the stages that have checkpoints."""
    return {path.name for path in (store.root / "checkpoints").glob("*")}


def open_store(root: str | Path) -> Store:
    """The store in that folder, to read. Raises BenchError if there is none."""
    if not (Path(root) / "objects").is_dir():
        raise BenchError(f"no store in {root}; name a folder that `bench run` wrote to with --store DIR")
    return Store(Path(root), create=False)


def format_size(count: int) -> str:
    """Bytes as text: "1.2 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def format_age(seconds: float) -> str:
    """Seconds as text: "3 hours"."""
    for unit, factor in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
