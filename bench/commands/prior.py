"""`bench prior`: trains the frozen parts of scale tiny and ships them, or checks those that are shipped."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench import errors, runtime
from bench.commands.options import add_device, add_store
from bench.execute import runner
from bench.execute.devices import choose_layout
from bench.execute.pool import Pool
from bench.execute.progress import Display
from bench.experiment.graph import Row
from bench.experiment.scale import PRIOR, shipped
from bench.experiment.stages import Numerics
from bench.prior import recipe
from bench.runtime import Runtime
from bench.store.store import Store


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="measure the gates of the shipped parts")
    parser.add_argument("--parts", metavar="A,B", help="train only these of adapter and captioner (default: all parts)")
    add_device(parser)
    add_store(parser)


def main(options: argparse.Namespace, console: Console) -> int:
    """Trains and ships the frozen parts, or checks the shipped ones; returns the exit code (1: a gate failed)."""
    if options.check and options.parts is not None:
        raise errors.BenchError("--check measures all parts; leave out --parts")
    device, folder = runtime.device(options.device), PRIOR / "tiny"
    if not options.check:
        parts = recipe.choose_parts(options.parts, lambda name: shipped(folder, name), Numerics(device_class=device))
        store = Store(Path(options.store))
        table = [Row(name, 0, "prior", stage) for name, stage in parts.items()]
        executor = Pool(choose_layout(None, device), store.root, parts.values(), device)
        outcome = runner.run(table, store, executor, lambda done: None, Display(console))
        if outcome.failed:
            for line in runner.describe_failures(outcome.failed):
                print(f"bench: failed: {line}", file=sys.stderr)
            return errors.SOME_FAILED
    from bench.prior import ship, train

    where = Runtime(device)
    try:
        gates = ship.check(folder, where) if options.check else ship.ship(parts, store.path, folder, where)
    except (train.frozen.MissingWeights, train.frozen.BadWeights) as error:
        raise errors.BenchError(str(error), errors.ENVIRONMENT) from error
    for gate in gates:
        print(f"{gate.name:45s} {gate.measured:7.2%}  needed {gate.needed:.0%}  n = {gate.n}  "
              f"{'passed' if gate.passed else 'NOT PASSED'}")
    if not options.check:
        print(f"shipped to {folder}")
    return errors.OK if all(gate.passed for gate in gates) else errors.SOME_FAILED
