"""`bench table`: prints a table from its CSV, or compares the tables in a document with their CSVs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from bench import errors
from bench.arguments import Parser
from bench.commands.options import add_ablation, add_scale, request_of
from bench.errors import BenchError


def add_options(parser: argparse.ArgumentParser) -> None:
    results = parser.add_argument_group("results")
    add_ablation(results, "ablation", nargs="?", help="an ablation, table1, or a CSV of `bench score`")
    add_scale(results)
    results.add_argument("--results", default="results", metavar="DIR", help="folder of the results")
    results.add_argument("--reference", action="store_true", help="the suite's own run, from DIR/reference/")
    results.add_argument("--pairs", metavar="NAME", help="the run on this data set (default: the scale's)")
    results.add_argument("--judge", default="", metavar="NAME|FILE",
                         help="the run with this judge (default: the scale's)")
    results.add_argument("--subjects", metavar="1,2|all", help="the rows of `bench run --subjects`")
    results.add_argument("--with-controls", action="store_true", help="also the rows of `bench run --with-controls`")
    output = parser.add_argument_group("output")
    output.add_argument("--format", choices=("text", "md", "latex", "html", "csv"), default="text", help="the format")
    output.add_argument("--details", action="store_true", help="all columns and notes (the other formats have them)")
    output.add_argument("--check", metavar="FILE.md", help="compare the tables in a document with their CSVs")
    output.add_argument("--write", action="store_true", help="with --check: correct the tables")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints a table, or the differences in a document; returns the exit code."""
    if (options.check is None) == (options.ablation is None) or (options.write and not options.check):
        raise BenchError("bench table takes either a name, or --check FILE.md (with --write to correct the tables)")
    if options.check:
        return _check(options)
    if options.ablation == "table1" and (options.subjects or options.with_controls):
        raise BenchError("table1 has only the rows of Full; leave out --subjects and --with-controls")
    from bench.tables import named  # not at the top: --help and completion need no pandas

    request = request_of(options)
    with threadpool_limits(1):  # so small a product takes 50 times as long on two threads
        table = named.requested(request)
    print(table.render(options.format, options.details or None))
    return errors.OK


def _check(options: argparse.Namespace) -> int:
    plain = Parser()
    add_options(plain)
    allowed = vars(plain.parse_args(["--check", options.check])) | {
        "command": options.command, "results": options.results, "write": options.write}
    if given := [name for name, value in vars(options).items() if value != allowed.get(name, value)]:
        raise BenchError(f"bench table --check takes no --{given[0].replace('_', '-')}; the mark of each table in the "
                         "file has its options")
    from bench.tables import check

    differences = check.check(Path(options.check), Path(options.results), options.write)
    for difference in differences:
        print(f"{options.check}: {difference.name} written" if options.write else f"bench: {difference}",
              file=sys.stdout if options.write else sys.stderr)
    return errors.USAGE if differences and not options.write else errors.OK
