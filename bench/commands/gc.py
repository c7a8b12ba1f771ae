"""`bench gc`: removes from a store what no result stands on."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.errors import BenchError
from bench.store import lease
from bench.store.gc import (
    DAYS,
    PREFIX,
    ancestry,
    engine_jobs,
    keys_in_results,
    open_store,
    read_json,
    size,
    started_keys,
    stored,
)
from bench.store.store import DOCUMENT, MANIFEST, Store


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of `bench gc`."""
    parser.add_argument("--store", default=".bench", metavar="DIR")
    parser.add_argument("--results", action="append", metavar="DIR",
                        help="whose stages are kept; may be given several times (default: results)")
    parser.add_argument("--older-than", type=float, default=DAYS, metavar="DAYS",
                        help=f"what is younger is kept with all that it was built from (default: {DAYS:g})")
    parser.add_argument("--delete", action="store_true", help="do it (default: say what would be removed)")


def main(options: argparse.Namespace, console: Console) -> int:
    """`bench gc`: says what no result stands on, and with --delete removes it; returns the exit code.

    Raises BenchError (exit 2) where there are no results, none that come of this store, or a run is at work in it.
    """
    there = open_store(options.store)
    folders = [Path(name) for name in options.results or ["results"]]
    if not options.older_than >= 0:
        raise BenchError(f"--older-than {options.older_than:g}: days from 0 on are expected")
    found = {stage.key: stage for stage in stored(there)}
    named = keys_in_results(folders)
    roots = [key for key in found if key[:PREFIX] in named]
    if found and not roots:
        raise BenchError(f"none of the {len(named)} stages that {', '.join(map(str, folders))} names is in "
                         f"{options.store}: one of the two is not what is meant; nothing is removed")
    youngest = time.time() - options.older_than * 86400
    roots += [key for key, stage in found.items() if stage.built > youngest]
    kept = {*roots, *started_keys(there), *(held.key for held in there.running())}
    if broken := [key for key in kept if key in found and not found[key].document]:
        raise BenchError(f"{there.folder(broken[0]) / MANIFEST} cannot be read, so that it "
                         "is not known what that stage was built from, which would be removed: build it again first, "
                         "with the `bench run` that made it")
    documents = [found[key].document for key in kept if key in found]
    for key in kept:
        path = there.root / "checkpoints" / key / DOCUMENT
        documents += [read_json(path)] if path.is_file() else []
    documents += [job["stage"] for job in engine_jobs(there).values()]
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
    begun = engine_jobs(there)
    numbers = {job["job"] for job in begun.values()}
    for path in (*(there.root / "requests").glob("*"), *(there.root / "slurm").glob("*")):
        wanted = path.name.partition(".")[0] in begun or path.name.partition("_")[0] in numbers
        with suppress(FileNotFoundError):  # a run at work has taken it away
            if not wanted and path.stat().st_mtime < youngest:
                yield path
