"""`bench report`: writes a self-contained HTML report for each ablation, from its results and the store."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from bench import errors
from bench.commands.options import add_ablation, add_device, add_places, add_scale, request_of


def add_options(parser: argparse.ArgumentParser) -> None:
    rows = parser.add_argument_group("results")
    add_ablation(rows, "ablations", nargs="+", help="ablations; several also have an index.html")
    add_scale(rows)
    rows.add_argument("--results", default="results", metavar="DIR", help="folder of the results (default: results)")
    rows.add_argument("--reference", action="store_true",
                      help="the suite's own run, from DIR/reference/ (default: the own run)")
    rows.add_argument("--pairs", metavar="NAME", help="the run on this data set (default: the scale's)")
    rows.add_argument("--subjects", metavar="1,2|all", help="the rows of `bench run --subjects` (default: none)")
    rows.add_argument("--with-controls", action="store_true",
                      help="also the rows of `bench run --with-controls` (default: without them)")
    rows.add_argument("--seeds", metavar="0,1,2",
                      help="the seeds whose images and training curves are shown (default: the lowest recorded)")
    add_device(rows)
    add_places(parser)
    parser.add_argument_group("output").add_argument(
        "--out", default="reports", metavar="DIR", help="folder for <ablation>.html (default: reports)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Writes the reports and prints their paths and sizes."""
    from bench.tables.report import page  # not at the top: --help and completion need no pandas

    request = request_of(options)
    with threadpool_limits(1):
        written = page.write(Path(options.out), [replace(request, ablation=name) for name in options.ablations],
                             request.seeds if options.seeds else ())
    for path in written:
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return errors.OK
