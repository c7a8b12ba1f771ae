"""`bench store`: lists, shows and verifies the stages of a store."""

from __future__ import annotations

import argparse
import json
import time

from rich.console import Console
from rich.progress import track

from bench import errors
from bench.arguments import names
from bench.commands.options import add_store
from bench.errors import BenchError
from bench.store import gc, lease
from bench.store.gc import PREFIX, Stored, format_size
from bench.store.store import Store, find_damage

ACTIONS = {"ls": "list all stages with kind, size and age", "show": "show the manifest of a stage",
           "verify": "read every file and compare its hash"}


def add_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ls|show|verify")
    for name, help in ACTIONS.items():
        action = actions.add_parser(name, help=help, description=help)
        add_store(action)
        if name == "show":
            action.add_argument("key", metavar="KEY", help="any unique beginning of a key")
        else:
            action.add_argument("--kind", default="", metavar="A,B", help="only these kinds (default: all)")
        if name == "ls":
            action.add_argument("--sort", choices=gc.SORTS, default="kind", help="the order; the largest is last")
        if name == "verify":
            action.add_argument("--delete-damaged", action="store_true",
                                help="remove damaged stages; the next run builds them again")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints what was asked for; returns the exit code (verify: 1 if a stage is damaged, 3 if one is unreadable).

    Raises BenchError for an unknown store, kind or key.
    """
    store = gc.open_store(options.store)
    if options.action == "show":
        print(json.dumps(store.manifest_of(store.resolve(options.key)), indent=1))
        return errors.OK
    stages = list(gc.list_stages(store))
    if kinds := names(options.kind.lower()):
        known = {stage.kind for stage in stages}
        if unknown := sorted({*kinds} - known):
            raise BenchError(f"no stage of kind {', '.join(unknown)} in {options.store}; there are: "
                             f"{', '.join(sorted(known)) or 'none'}")
        stages = [stage for stage in stages if stage.kind in kinds]
    if options.action == "verify":
        return _verify(store, stages, options.delete_damaged, console)
    return _list(store, stages, options.sort)


def _list(store: Store, stages: list[Stored], sort: str) -> int:
    now = time.time()
    order = {"kind": lambda stage: (stage.kind, stage.built), "key": lambda stage: stage.key,
             "size": lambda stage: stage.bytes, "age": lambda stage: -stage.built}[sort]
    for stage in sorted(stages, key=order):  # type: ignore[arg-type]
        print(f"{stage.key[:PREFIX]}  {stage.kind:20s}{format_size(stage.bytes):>10s}"
              f"{gc.format_age(now - stage.built):>12s}")
    for held in store.running():
        print(f"{held.key[:PREFIX]}  {held.stage:20s}{'':>10s}  being built by {lease.describe_holder(held)}")
    started = gc.started_keys(store) - {stage.key for stage in stages}
    print(f"{len(stages)} stages, {format_size(sum(stage.bytes for stage in stages))}"
          + (f"; {len(started)} started, with checkpoints" if started else ""))
    return errors.OK


def _verify(store: Store, stages: list[Stored], delete: bool, console: Console) -> int:
    damaged = unreadable = 0
    for stage in track(stages, "reading", console=console, transient=True, disable=not console.is_terminal):
        try:
            damage = find_damage(store.folder(stage.key))
        except BenchError as error:
            unreadable += 1
            print(f"{stage.key[:PREFIX]}  {stage.kind}: {error}")
            continue
        if damage:
            damaged += 1
            is_removed = delete and store.remove_damaged(stage.key, stage.kind)
            print(f"{stage.key[:PREFIX]}  {stage.kind}: {damage}" + ", removed" * is_removed)
    advice = ("; build them again before `bench gc`, which cannot know what they were built from" if delete else
              "; the next run that needs them builds them again, --delete-damaged removes them now")
    print(f"{len(stages)} stages read, {damaged} damaged" + f", {unreadable} could not be read" * bool(unreadable)
          + advice * bool(damaged))
    return errors.ENVIRONMENT if unreadable else errors.SOME_FAILED if damaged else errors.OK
