"""`bench run`: builds what an ablation's rows need, records their numbers, and prints the table."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from bench import errors
from bench.commands import plan
from bench.commands.options import add_request_options, request_of
from bench.execute import runner, trackers
from bench.execute.engines import ENGINES
from bench.tables import suite


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of a request, and how it is run."""
    add_request_options(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core; on a GPU one)")
    parser.add_argument("--results", default="results", metavar="DIR", help="default: results")
    parser.add_argument("--reference", action="store_true", help="write to DIR/reference/, the suite's own runs")
    parser.add_argument("--track", choices=tuple(trackers.TRACKERS), help="send progress to a tracker, too")
    parser.add_argument("--energy", nargs="?", const="1", metavar="COUNTRY",
                        help="note energy, and of a country (FRA) CO2, with codecarbon")
    parser.add_argument("--on", choices=("here", *ENGINES), default="here",
                        help="where stages are built (default: here; docs/clusters.md)")
    parser.add_argument("--wait", action="store_true", help="on slurm: stay until all jobs have ended")
    for engine in ENGINES:
        parser.add_argument(f"--{engine}", action="append", default=[], metavar="FILE.toml|KEY=VALUE",
                            help=f"what is asked of {engine.capitalize()}, such as gpus=1 or score.gpus=0")
    parser.add_argument("--fail-fast", action="store_true", help="begin nothing new after a stage has failed")
    parser.add_argument("--dry-run", action="store_true", help="say what would be built, and stop")


def main(options: argparse.Namespace, console: Console) -> int:
    """Builds, records, prints; returns the exit code."""
    request = request_of(options)
    if options.dry_run:
        return plan.show(request)
    done = suite.run(request, console)
    if done.table:
        print(done.table.render())
        print(f"\nnumbers: {done.csv}" + (f"\npictures: {done.sheet}" if done.sheet else ""))
    for line in runner.said(done.outcome.failed):
        print(f"bench: failed: {line}", file=sys.stderr)
    return errors.SOME_FAILED if done.outcome.failed else errors.OK
