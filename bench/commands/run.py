"""`bench run`: builds what the rows of an ablation need, records their numbers, and prints the table."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from bench import errors
from bench.commands import plan
from bench.commands.options import add_request_options, request_of
from bench.execute import runner, trackers
from bench.execute.devices import SHARING
from bench.execute.engines import ENGINES


def add_options(parser: argparse.ArgumentParser) -> None:
    add_request_options(parser)
    results = parser.add_argument_group("results")
    results.add_argument("--results", default="results", metavar="DIR", help="folder of the results")
    results.add_argument("--reference", action="store_true", help="write to DIR/reference/, the suite's own runs")
    results.add_argument("--details", action="store_true", help="print the table with all columns and notes")
    execution = parser.add_argument_group("execution")
    execution.add_argument("--workers", type=int, metavar="N",
                           help="worker processes, on GPUs for each GPU (default: on a CPU one for each core, on GPUs "
                           f"one for each, at scales tiny and micro up to {SHARING})")
    execution.add_argument("--fail-fast", action="store_true", help="start nothing new after a stage has failed")
    execution.add_argument("--dry-run", action="store_true", help="show what would be built, and stop")
    execution.add_argument("--track", choices=tuple(trackers.TRACKERS), help="also send progress to this tracker")
    execution.add_argument("--energy", nargs="?", const="1", metavar="COUNTRY",
                           help="record energy with codecarbon; with a country such as FRA also CO2")
    cluster = parser.add_argument_group("cluster (docs/clusters.md)")
    cluster.add_argument("--on", choices=("here", *ENGINES), default="here", help="where stages are built")
    cluster.add_argument("--wait", action="store_true", help="on slurm: stay until all jobs have ended")
    for engine in ENGINES:
        cluster.add_argument(f"--{engine}", action="append", default=[], metavar="FILE.toml|KEY=VALUE",
                             help=f"resources from {engine.capitalize()}, such as gpus=1 or score.gpus=0")


def main(options: argparse.Namespace, console: Console) -> int:
    """Builds, records and prints; returns the exit code."""
    request = request_of(options)
    if options.dry_run:
        return plan.show(request)
    from bench.tables import suite  # not at the top: --help and completion need no pandas

    done = suite.run(request, console)
    if done.table:
        print(done.table.render(details=options.details))
        print(f"\nnumbers: {done.csv}" + (f"\nimages: {done.sheet}" if done.sheet else ""))
    for line in runner.describe_failures(done.outcome.failed):
        print(f"bench: failed: {line}", file=sys.stderr)
    return errors.SOME_FAILED if done.outcome.failed else errors.OK
