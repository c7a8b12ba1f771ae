"""`bench list`: lists ablations, encoders, systems and scales, or the variants of one ablation."""

from __future__ import annotations

import argparse
import json
import textwrap

from rich.console import Console

from bench import errors, systems
from bench.commands.options import add_ablation
from bench.experiment import ablation, encoders
from bench.experiment.ablation import Ablation
from bench.experiment.describe import describe_change, describe_contrast
from bench.experiment.scale import SCALES
from bench.metrics import DEFINITIONS

WIDTH = 100


def add_options(parser: argparse.ArgumentParser) -> None:
    add_ablation(parser, "ablation", nargs="?", help="list the variants of this ablation (default: all ablations)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints the list; returns the exit code."""
    chosen = [ablation.load(name) for name in ([options.ablation] if options.ablation else ablation.names())]
    others = {"encoders": encoders.names(), "systems": systems.names(), "scales": list(SCALES)}
    if options.json:
        print(json.dumps({"ablations": {a.name: {"title": a.title, "variants": [v.name for v in a.variants],
                                                 "contrasts": a.contrasts} for a in chosen}, **others}, indent=1))
    elif options.ablation:
        _print_ablation(chosen[0])
    else:
        wide = max(len(a.name) for a in chosen)
        print(f"{'ablation':{wide}}  variants  question")
        for a in chosen:
            title = textwrap.shorten(a.title, WIDTH - wide - 12, placeholder=" ...", break_on_hyphens=False)
            print(f"{a.name:{wide}}  {len(a.variants):8d}  {title}")
        print("\nvariants of one: bench list ABLATION\n")
        for kind, names in others.items():
            _print_wrapped(f"{kind}:", ", ".join(names), 10)
    return errors.OK


def _print_ablation(chosen: Ablation) -> None:
    """Prints the title, the variants with what each changes, the contrasts and the headline of an ablation."""
    print(textwrap.fill(f"{chosen.name}: {chosen.title}", WIDTH) + "\n\nvariants, and what each changes:")
    wide = max(len(variant.name) for variant in chosen.variants)
    for variant in chosen.variants:
        _print_wrapped(f"  {variant.name:{wide}}", describe_change(variant) or "nothing", wide + 4)
    if chosen.contrasts:
        variants = {variant.name: variant for variant in chosen.variants}
        print("\ncontrasts:")
        for pair in chosen.contrasts:
            _print_wrapped(" ", describe_contrast(*(variants[name] for name in pair)), 2)
    print("\nheadline:")
    for name in chosen.headline:
        _print_wrapped(" ", f"{name} ({DEFINITIONS[name].title})", 2)


def _print_wrapped(label: str, text: str, indent: int) -> None:
    print(textwrap.fill(f"{label:{indent}s}{text}", WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False))
