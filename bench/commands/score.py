"""`bench score`: metrics of a folder of pictures against the real ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.commands.options import add_device
from bench.errors import BenchError
from bench.files import replace_file, writing
from bench.runtime import device
from bench.scoring.compare import compare


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is compared, by which judge, and where the numbers go."""
    parser.add_argument("generated", metavar="GENERATED", help="a folder of pictures, or an .npy or .npz file")
    parser.add_argument("reference", metavar="REFERENCE", help="the real ones, by the same names (docs/metrics.md)")
    parser.add_argument("--labels", metavar="CSV", help="columns name and label, the judge's number of the class")
    parser.add_argument("--metrics", metavar="A,B", help="these alone (default: all that the judge allows)")
    parser.add_argument("--judge", default="tiny", metavar="tiny|FILE|none", help="default: tiny")
    add_device(parser)
    parser.add_argument("--csv", metavar="FILE", help="rows that `bench table FILE` reads")
    parser.add_argument("--json", metavar="FILE", help="for programs")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints the metrics, and writes them where that is asked for; returns the exit code."""
    files = {kind: Path(name) for kind, name in (("csv", options.csv), ("json", options.json)) if name}
    for path in files.values():
        if not path.absolute().parent.is_dir():
            raise BenchError(f"no folder {path.parent} to write {path.name} into")
    watched = sys.stderr.isatty()
    found = compare(Path(options.generated), Path(options.reference), options.labels and Path(options.labels),
                    options.metrics.split(",") if options.metrics else None, options.judge, device(options.device),
                    lambda step, total: print(f"\r{step} of {total}", end="", file=sys.stderr) if watched else None)
    print("\r" * watched + found.text())
    for kind, path in files.items():
        with writing(path):
            replace_file(path, found.csv() if kind == "csv" else found.json())
    return errors.OK
