"""`bench score`: scores generated images against reference images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.arguments import names
from bench.commands.options import add_device, output_file
from bench.files import replace_file, writing
from bench.runtime import device


def add_options(parser: argparse.ArgumentParser) -> None:
    images = parser.add_argument_group("images")
    images.add_argument("generated", metavar="GENERATED", help="a folder of images, or an .npy or .npz file")
    images.add_argument("reference", metavar="REFERENCE", help="reference images of the same names (docs/metrics.md)")
    images.add_argument("--labels", metavar="CSV", help="columns name and label, the judge's class number")
    images.add_argument("--train", metavar="DIR", help="the system's training images: measures memorisation")
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--metrics", metavar="A,B", help="only these metrics (default: all that the judge allows)")
    scoring.add_argument("--judge", default="tiny", metavar="NAME|FILE", help="the classifier of images: tiny, "
                         "none, efficientnet_lite0, a timm model in the hub's cache (NAME or "
                         "hf-hub:ORG/NAME), a timm checkpoint or folder; docs/metrics.md (default: tiny)")
    scoring.add_argument("--arch", default="", metavar="NAME", help="timm's architecture of a checkpoint that does not "
                         "say it")
    scoring.add_argument("--fit", default="", metavar="crop|stretch", help="how a timm judge gets an image: timm's own "
                         "crop (default), or the whole image resized")
    add_device(scoring)
    output = parser.add_argument_group("output")
    output.add_argument("--csv", metavar="FILE", help="write a CSV that `bench table FILE` prints")
    output.add_argument("--json", metavar="FILE", help="write JSON")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints the metrics and writes the output files; returns the exit code."""
    files = {kind: output_file(name) for kind, name in (("csv", options.csv), ("json", options.json)) if name}
    from bench.scoring.compare import compare  # not at the top: --help and completion need no torch

    is_terminal = sys.stderr.isatty()
    comparison = compare(
        Path(options.generated), Path(options.reference), options.labels and Path(options.labels),
        names(options.metrics or "") or None, options.judge, device(options.device),
        lambda step, total: print(f"\r{step} of {total}", end="", file=sys.stderr) if is_terminal else None,
        options.train and Path(options.train), options.arch, options.fit)
    print("\r" * is_terminal + comparison.text())
    for kind, path in files.items():
        with writing(path):
            replace_file(path, comparison.csv() if kind == "csv" else comparison.json())
    return errors.OK
