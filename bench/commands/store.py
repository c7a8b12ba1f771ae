"""`bench store`: lists, shows and verifies the stages of a store."""

from __future__ import annotations

import argparse
import json
import time

from rich.console import Console
from rich.progress import track

from bench import errors
from bench.errors import BenchError
from bench.store import lease
from bench.store.gc import PREFIX, SORTS, Stored, age_text, open_store, size, started_keys, stored
from bench.store.store import Store, damaged


def add_options(parser: argparse.ArgumentParser) -> None:
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


def main(options: argparse.Namespace, console: Console) -> int:
    """`bench store`: prints, and returns the exit code (verify: 1 where something is damaged).

    Raises BenchError for a store, a kind or a key that is not there.
    """
    there = open_store(options.store)
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
        print(f"{stage.key[:PREFIX]}  {stage.kind:20s}{size(stage.bytes):>10s}{age_text(now - stage.built):>12s}")
    for held in there.running():
        print(f"{held.key[:PREFIX]}  {held.stage:20s}{'':>10s}  being built by {lease.said(held)}")
    begun = started_keys(there) - {stage.key for stage in found}
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
