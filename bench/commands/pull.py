"""`bench pull`: gets results and reports from a data set of the Hugging Face hub and checks their hashes."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.arguments import names


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", metavar="OWNER/NAME", help="a data set that bench push wrote")
    what = parser.add_argument_group("what")
    what.add_argument("--only", default="", metavar="A,B",
                      help="only paths that begin so, such as tiny/clip (default: all)")
    what.add_argument("--revision", metavar="REF", help="a commit, branch or tag (default: the newest commit)")
    where = parser.add_argument_group("where")
    where.add_argument("--to", default="results", metavar="DIR", help="the folder of results and submissions")
    where.add_argument("--reports", default="reports", metavar="DIR", help="the folder of reports")
    where.add_argument("--force", action="store_true", help="replace other results here (default: refuse)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Writes the files and prints their paths; returns the exit code."""
    from bench.tables.sharing import hub  # not at the top: --help and completion need no pandas

    pulled = hub.pull(options.repository, Path(options.to), Path(options.reports), names(options.only),
                      options.revision, options.force)
    for path in pulled.new:
        print(f"pulled {path}")
    print(f"{len(pulled.new)} new, {pulled.unchanged} unchanged, all with the hashes of commit {pulled.commit[:12]}")
    return errors.OK
