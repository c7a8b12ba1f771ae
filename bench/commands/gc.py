"""`bench gc`: removes stages that no result needs from a store."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.commands.options import add_store
from bench.errors import BenchError
from bench.store import gc, lease
from bench.store.gc import PREFIX, format_size
from bench.store.store import DOCUMENT, MANIFEST, Store


def add_options(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--results", action="append", metavar="DIR",
                        help="a folder whose results keep their stages; repeatable (default: results)")
    parser.add_argument("--older-than", type=float, default=gc.DAYS, metavar="DAYS",
                        help=f"keep younger stages and everything they are built from (default: {gc.DAYS:g})")
    parser.add_argument("--delete", action="store_true", help="remove them (default: print what would be removed)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints which stages no result needs, and with --delete removes them; returns the exit code.

    Raises BenchError (exit 2) if there are no results, none belong to this store, a needed manifest cannot be read, or
    with --delete a run is active.
    """
    store = gc.open_store(options.store)
    folders = [Path(name) for name in options.results or ["results"]]
    if not options.older_than >= 0:
        raise BenchError(f"--older-than {options.older_than:g}: a number of days from 0 on is expected")
    stages = {stage.key: stage for stage in gc.list_stages(store)}
    named = gc.keys_in_results(folders)
    roots = [key for key in stages if key[:PREFIX] in named]
    if stages and not roots:
        raise BenchError(f"none of the {len(named)} stages that {', '.join(map(str, folders))} names is in "
                         f"{options.store}; check --results and --store; nothing was removed")
    youngest = time.time() - options.older_than * 86400
    roots += [key for key, stage in stages.items() if stage.built > youngest]
    kept = {*roots, *gc.started_keys(store), *(held.key for held in store.running())}
    if broken := [key for key in kept if key in stages and not stages[key].document]:
        raise BenchError(f"{store.folder(broken[0]) / MANIFEST} cannot be read, so the stages that it needs are "
                         "unknown; build that stage again first, with the same `bench run`")
    documents = [stages[key].document for key in kept if key in stages]
    checkpoints = [store.root / "checkpoints" / key / DOCUMENT for key in kept]
    documents += [gc.read_json(path) for path in checkpoints if path.is_file()]
    documents += [job["stage"] for job in gc.engine_jobs(store).values()]
    for document in documents:
        kept.update(gc.ancestry(document))
    unneeded = [stage for key, stage in stages.items() if key not in kept]
    for kind, count in sorted(Counter(stage.kind for stage in unneeded).items()):
        size = sum(stage.bytes for stage in unneeded if stage.kind == kind)
        print(f"{kind:20s}{count:6d}{format_size(size):>12s}")
    files = list(_engine_files(store, youngest))
    amount = (f"{len(unneeded)} of {len(stages)} stages, {format_size(sum(stage.bytes for stage in unneeded))}"
              + (f", and {len(files)} files of cluster engines" if files else ""))
    if not options.delete:
        print(f"would remove {amount}: no result needs them, and they are older than {options.older_than:g} days"
              + ("; to remove them: --delete" if unneeded or files else ""))
        return errors.OK
    for stage in unneeded:
        _refuse_active(store)
        store.remove(stage.key)
    if files:
        _refuse_active(store)
    for path in files:
        path.unlink(missing_ok=True)
    print(f"removed {amount}")
    return errors.OK


def _refuse_active(store: Store) -> None:
    """Raises BenchError if a run is active."""
    if running := store.running() or store.runs():
        raise BenchError(f"a run is active in {store.root} ({lease.describe_holder(running[0])}) and may need what "
                         "would be removed; wait for it, or end it")


def _engine_files(store: Store, youngest: float) -> Iterator[Path]:
    """Requests for stages that are complete or have no job, and files of jobs without a request, older than
    `youngest`."""
    jobs = gc.engine_jobs(store)
    numbers = {job["job"] for job in jobs.values()}
    for path in (*(store.root / "requests").glob("*"), *(store.root / "slurm").glob("*")):
        is_needed = path.name.partition(".")[0] in jobs or path.name.partition("_")[0] in numbers
        with suppress(FileNotFoundError):  # an active run has removed it
            if not is_needed and path.stat().st_mtime < youngest:
                yield path
