"""`bench verify`: checks submissions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from bench import errors
from bench.commands.options import add_store


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="a submission of `bench export`")
    add_store(parser)


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints what was verified, and a line for each fault; returns 1 if there is any."""
    from bench.tables.submission.verify import verify  # not at the top: --help and completion need no pandas

    with threadpool_limits(1):
        checked = [verify(Path(folder), Path(options.store)) for folder in options.folders]
    for each in checked:
        print(each.text(), file=sys.stderr if each.problems else sys.stdout)
    return errors.SOME_FAILED if any(each.problems for each in checked) else errors.OK
