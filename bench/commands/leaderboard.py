"""`bench leaderboard`: builds a static HTML board from submissions."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from bench import errors
from bench.commands.options import add_store


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="submissions; each is verified first")
    add_store(parser)
    parser.add_argument("--out", default="leaderboard", metavar="DIR",
                        help="folder for index.html and leaderboard.csv (default: leaderboard)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Writes the board and prints the paths of its files."""
    from bench.tables.submission.board import write_board  # not at the top: --help and completion need no pandas

    with threadpool_limits(1):
        written = write_board([Path(folder) for folder in options.folders], Path(options.out), Path(options.store))
    for path in written:
        print(path)
    return errors.OK
