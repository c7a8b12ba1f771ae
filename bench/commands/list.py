"""`bench list`: ablations with their variants, encoders, systems and scales."""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from bench import errors, systems
from bench.experiment import ablation, encoders
from bench.experiment.scale import SCALES


def add_options(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="for programs")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints the list; returns the exit code."""
    loaded = [ablation.load(name) for name in ablation.names()]
    if options.json:
        print(json.dumps({
            "ablations": {a.name: {"title": a.title, "variants": [v.name for v in a.variants],
                                   "contrasts": a.contrasts} for a in loaded},
            "encoders": encoders.names(), "systems": systems.names(), "scales": list(SCALES)}, indent=1))
        return errors.OK
    for a in loaded:
        print(f"{a.name:14s}{a.title}\n{'':14s}variants: {', '.join(v.name for v in a.variants)}")
    print(f"\nencoders: {', '.join(encoders.names())}\nsystems: {', '.join(systems.names())}\n"
          f"scales: {', '.join(SCALES)}")
    return errors.OK
