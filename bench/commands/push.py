"""`bench push`: shares results and reports in a data set of the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from bench import errors


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", metavar="OWNER/NAME", help="the data set; it is created if it does not exist")
    parser.add_argument("folder", nargs="?", default="results", metavar="FOLDER",
                        help="the folder of the results, or of submissions (default: results)")
    what = parser.add_argument_group("what")
    what.add_argument("--reports", metavar="DIR",
                      help="also the pages of this folder of `bench report` (default: none)")
    what.add_argument("--at", default="", metavar="PATH", help="the folder in the data set (default: its root)")
    how = parser.add_argument_group("how")
    how.add_argument("--message", default="results", metavar="TEXT", help="the message of the commit")
    how.add_argument("--public", action="store_true", help="a new data set can be seen by all (default: private)")
    how.add_argument("--force", action="store_true", help="replace other results there (default: refuse)")
    how.add_argument("--dry-run", action="store_true", help="print what would be pushed, and stop (default: push)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Pushes the files and prints what is new; returns the exit code."""
    from bench.tables.sharing import contents, hub  # not at the top: --help and completion need no pandas

    hub.check_name(options.repository)
    collected = contents.collect(Path(options.folder), Path(options.reports) if options.reports else None, options.at)
    pushed = hub.push(options.repository, collected, options.message, options.force, options.public, options.dry_run)
    for name in pushed.new:
        print(f"{'would push' if options.dry_run else 'pushed'} {name}: {len(collected.files[name]) / 1e3:,.0f} kB")
    left_out = ", ".join(f"{count} {ending}" for ending, count in sorted(collected.left_out.items()))
    print(f"{len(pushed.new)} new, {pushed.unchanged} unchanged; left out: {left_out or 'nothing'}")
    if pushed.keeps_card:
        print("kept its README.md, which bench push did not write")
    print(pushed.page)
    return errors.OK
