"""`bench table`: a table from its CSV, or the tables of a document against their CSVs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from bench import errors
from bench.arguments import Parser
from bench.commands.options import request_of
from bench.errors import BenchError
from bench.experiment import ablation
from bench.experiment.scale import scale
from bench.tables import check, named


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which table, where, and in which format."""
    parser.add_argument("ablation", metavar="NAME|FILE", nargs="?", help="an ablation, table1, or a CSV of `score`")
    parser.add_argument("--check", metavar="FILE.md", help="compare the tables in a document with their CSVs")
    parser.add_argument("--write", action="store_true", help="with --check: put them right")
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--results", default="results", metavar="DIR")
    parser.add_argument("--reference", action="store_true", help="the suite's own run")
    parser.add_argument("--pairs", metavar="NAME", help="the run on that data set")
    parser.add_argument("--subjects", metavar="1,2|all", help="the rows that the same option of `run` makes")
    parser.add_argument("--with-controls", action="store_true", help="with the rows that the same flag of `run` adds")
    parser.add_argument("--format", choices=("text", "md", "latex", "html", "csv"), default="text")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints a table, or what differs in a document; returns the exit code."""
    if (options.check is None) == (options.ablation is None) or (options.write and not options.check):
        raise BenchError("bench table takes either a name, or --check FILE.md (with --write to put tables right)")
    if options.check:
        return _check(options)
    if options.ablation == "table1" and (options.subjects or options.with_controls):
        raise BenchError("table1 is Full's alone: it has no --subjects and no --with-controls")
    request, at = request_of(options), scale(options.scale)
    with threadpool_limits(1):  # so small a product takes 50 times as long on two threads
        printed = named.named(request.ablation, request.results_folder, request.with_controls,
                              ablation.chosen_subjects(request.subjects, at))
    print(printed.render(options.format))
    return errors.OK


def _check(options: argparse.Namespace) -> int:
    plain = Parser()
    add_options(plain)
    defaults = vars(plain.parse_args(["--check", options.check])) | {
        "command": options.command, "results": options.results, "write": options.write}
    if given := [name for name, value in vars(options).items() if value != defaults[name]]:
        raise BenchError(f"bench table --check and --{given[0].replace('_', '-')}: each table's mark in the file "
                         "says which it is; leave that option out")
    differences = check.check(Path(options.check), Path(options.results), options.write)
    for difference in differences:
        print(f"{options.check}: {difference.name} written" if options.write else f"bench: {difference}",
              file=sys.stdout if options.write else sys.stderr)
    return errors.USAGE if differences and not options.write else errors.OK
