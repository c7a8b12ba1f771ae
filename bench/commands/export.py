"""`bench export`: writes the results of a variant as a submission that others can check."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from bench import errors
from bench.commands.options import add_ablation, add_places, add_scale, request_of


def add_options(parser: argparse.ArgumentParser) -> None:
    rows = parser.add_argument_group("results")
    add_ablation(rows, "ablation", help="the ablation: a name, or a path to a .py file")
    rows.add_argument("--variant", required=True, metavar="NAME", help="the row that is submitted, with all its "
                      "recorded seeds and its null")
    add_scale(rows)
    rows.add_argument("--results", default="results", metavar="DIR", help="folder of the results (default: results)")
    rows.add_argument("--reference", action="store_true",
                      help="the suite's own run, from DIR/reference/ (default: the own run)")
    rows.add_argument("--pairs", metavar="NAME", help="the run on this data set (default: the scale's)")
    rows.add_argument("--judge", default="", metavar="NAME|FILE",
                      help="the run with this judge (default: the scale's)")
    rows.add_argument("--subjects", metavar="1,2|all", help="the rows of `bench run --subjects` (default: none)")
    add_places(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--name", default="", metavar="NAME", help="of the system on a board (default: the variant's)")
    output.add_argument("--out", metavar="DIR", help="the new folder (default: ABLATION-VARIANT)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Writes the submission and prints its folder."""
    from bench.tables.submission.export import export  # not at the top: --help and completion need no pandas

    with threadpool_limits(1):
        folder = export(request_of(options), options.variant, options.out and Path(options.out), options.name)
    print(f"submission: {folder}\ncheck it with: bench verify {folder}")
    return errors.OK
