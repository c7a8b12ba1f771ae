"""What lies in the store: `bench store ls|show|verify`, and `bench gc`, which removes what no result stands on."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import track

from bench import errors, lease
from bench.errors import BenchError
from bench.store import DOCUMENT, MANIFEST, Store, damaged, unreadable

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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of `bench gc`."""
    parser.add_argument("--store", default=".bench", metavar="DIR")
    parser.add_argument("--results", action="append", metavar="DIR",
                        help="whose stages are kept; may be given several times (default: results)")
    parser.add_argument("--older-than", type=float, default=DAYS, metavar="DAYS",
                        help=f"what is younger is kept with all that it was built from (default: {DAYS:g})")
    parser.add_argument("--delete", action="store_true", help="do it (default: say what would be removed)")


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Of `bench store`."""
    which = parser.add_subparsers(dest="what", required=True, metavar="ls|show|verify")
    for name, help in (("ls", "every stage, with its kind, size and age"), ("show", "a stage's manifest"),
                       ("verify", "read every file and compare it with its hash")):
        it = which.add_parser(name, help=help, description=help)
        it.add_argument("--store", default=".bench", metavar="DIR")
        if name == "show":
            it.add_argument("key", metavar="KEY", help="or as much of it as no other begins with")
        else:
            it.add_argument("--kind", metavar="A,B", help="these kinds alone")
        if name == "ls":
            it.add_argument("--sort", choices=SORTS, default="kind", help="default: kind; size and age: largest last")
        if name == "verify":
            it.add_argument("--delete-damaged", action="store_true",
                            help="take them out of the store; a run builds them again")


def store(options: argparse.Namespace, console: Console) -> int:
    """`bench store`: prints, and returns the exit code (verify: 1 where something is damaged).

    Raises BenchError for a store, a kind or a key that is not there.
    """
    there = _open(options.store)
    if options.what == "show":
        print(json.dumps(there.manifest_of(there.resolve(options.key)), indent=1))
        return errors.OK
    found = list(stored(there))
    if options.kind:
        kinds = [name.strip().lower() for name in options.kind.split(",")]
        if unknown := sorted(set(kinds) - {stage.kind for stage in found}):
            raise BenchError(f"no stage of kind {', '.join(unknown)} in {options.store}; there are: "
                             f"{', '.join(sorted({stage.kind for stage in found})) or 'none'}")
        found = [stage for stage in found if stage.kind in kinds]
    return _verify(there, found, options.delete_damaged, console) if options.what == "verify" else _list(
        there, found, options.sort)


def _list(there: Store, found: list[Stored], sort: str) -> int:
    now = time.time()
    order = {"kind": lambda stage: (stage.kind, stage.built), "key": lambda stage: stage.key,
             "size": lambda stage: stage.bytes, "age": lambda stage: -stage.built}[sort]
    for stage in sorted(found, key=order):  # type: ignore[arg-type]
        print(f"{stage.key[:PREFIX]}  {stage.kind:20s}{size(stage.bytes):>10s}{_age(now - stage.built):>12s}")
    for held in there.running():
        print(f"{held.key[:PREFIX]}  {held.stage:20s}{'':>10s}  being built by {lease.said(held)}")
    begun = _begun(there) - {stage.key for stage in found}
    print(f"{len(found)} stages, {size(sum(stage.bytes for stage in found))}"
          + (f"; {len(begun)} begun, with checkpoints" if begun else ""))
    return errors.OK


def _verify(there: Store, found: list[Stored], delete: bool, console: Console) -> int:
    wrong = unread = 0
    for stage in track(found, "reading", console=console, transient=True, disable=not console.is_terminal):
        try:
            damage = damaged(there.folder(stage.key))
        except BenchError as error:
            unread += 1
            print(f"{stage.key[:PREFIX]}  {stage.kind}: {error}")
            continue
        if damage:
            wrong += 1
            removed = delete and there.remove_damaged(stage.key, stage.kind)
            print(f"{stage.key[:PREFIX]}  {stage.kind}: {damage}" + (", removed" if removed else ""))
    print(f"{len(found)} stages read, {wrong} damaged" + f", {unread} could not be read" * bool(unread) + (
        "" if not wrong else "; build them again before bench gc, which does not know what they were built from"
        if delete else "; a run that needs them builds them again, --delete-damaged removes them now"))
    return errors.ENVIRONMENT if unread else errors.SOME_FAILED if wrong else errors.OK


def main(options: argparse.Namespace, console: Console) -> int:
    """`bench gc`: says what no result stands on, and with --delete removes it; returns the exit code.

    Raises BenchError (exit 2) where there are no results, none that come of this store, or a run is at work in it.
    """
    there = _open(options.store)
    folders = [Path(name) for name in options.results or ["results"]]
    if not options.older_than >= 0:
        raise BenchError(f"--older-than {options.older_than:g}: days from 0 on are expected")
    found = {stage.key: stage for stage in stored(there)}
    named = _named(folders)
    roots = [key for key in found if key[:PREFIX] in named]
    if found and not roots:
        raise BenchError(f"none of the {len(named)} stages that {', '.join(map(str, folders))} names is in "
                         f"{options.store}: one of the two is not what is meant; nothing is removed")
    youngest = time.time() - options.older_than * 86400
    roots += [key for key, stage in found.items() if stage.built > youngest]
    kept = {*roots, *_begun(there), *(held.key for held in there.running())}
    if broken := [key for key in kept if key in found and not found[key].document]:
        raise BenchError(f"{there.folder(broken[0]) / MANIFEST} cannot be read, so that it "
                         "is not known what that stage was built from, which would be removed: build it again first, "
                         "with the `bench run` that made it")
    documents = [found[key].document for key in kept if key in found]
    for key in kept:
        path = there.root / "checkpoints" / key / DOCUMENT
        documents += [_json(path)] if path.is_file() else []
    documents += [job["stage"] for job in _jobs(there).values()]
    for one in documents:
        kept.update(ancestry(one))
    loose = [stage for key, stage in found.items() if key not in kept]
    for kind, count in sorted(Counter(stage.kind for stage in loose).items()):
        print(f"{kind:20s}{count:6d}{size(sum(stage.bytes for stage in loose if stage.kind == kind)):>12s}")
    asked = list(_asked(there, youngest))
    amount = f"{len(loose)} of {len(found)} stages, {size(sum(stage.bytes for stage in loose))}"
    if not options.delete:
        print(f"would remove {amount}, that no result stands on and that are older than {options.older_than:g} days"
              + (f"; and {len(asked)} files that engines were handed" if asked else "")
              + ("; to do it: --delete" if loose or asked else ""))
        return errors.OK
    for stage in loose:
        _alone(there)
        there.remove(stage.key)
    if asked:
        _alone(there)
    for path in asked:
        path.unlink(missing_ok=True)
    print(f"removed {amount}" + (f", and {len(asked)} files that engines were handed" if asked else ""))
    return errors.OK


def _alone(there: Store) -> None:
    """Raises BenchError where a run is at work."""
    if running := there.running() or there.runs():
        raise BenchError(f"a run is at work in {there.root} ({lease.said(running[0])}): it may need what would be "
                         "removed; wait for it, or end it")


def _asked(there: Store, youngest: float) -> Iterator[Path]:
    """What engines were handed and need no more: requests for stages that are complete, or that nobody has as a job,
    and files of jobs that no request names, all older than `youngest`."""
    begun = _jobs(there)
    numbers = {job["job"] for job in begun.values()}
    for path in (*(there.root / "requests").glob("*"), *(there.root / "slurm").glob("*")):
        wanted = path.name.partition(".")[0] in begun or path.name.partition("_")[0] in numbers
        with suppress(FileNotFoundError):  # a run at work has taken it away
            if not wanted and path.stat().st_mtime < youngest:
                yield path


def _jobs(there: Store) -> dict[str, dict[str, Any]]:
    """The job of each stage that was handed to an engine and is not there, by its key: number, and the stage's
    document."""
    found = {}
    for path in (there.root / "requests").glob("*.job"):
        if not (there.folder(path.stem) / MANIFEST).is_file():
            with suppress(FileNotFoundError):  # it has just ended
                found[path.stem] = {"job": "", "stage": {}} | _json(path)
    return found


def _json(path: Path) -> Any:
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


def _named(folders: list[Path]) -> set[str]:
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


def _begun(there: Store) -> set[str]:
    """Keys of the stages that have checkpoints."""
    return {path.name for path in (there.root / "checkpoints").glob("*")}


def _open(name: str) -> Store:
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


def _age(seconds: float) -> str:
    """"3 hours"."""
    for unit, factor in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
