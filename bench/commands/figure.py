"""`bench figure`: counterparts of the paper's figures, from the store."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.commands.options import add_device, add_places, add_scale, add_seeds, add_store, request_of
from bench.errors import BenchError
from bench.experiment import ablation
from bench.setup.places import placed_scale
from bench.setup.rows import rows, with_numerics
from bench.store.store import Store
from bench.tables import sheet
from bench.tables.figure import (
    TITLES,
    Page,
    about_page,
    draw_compared,
    draw_failures,
    draw_samples,
    draw_variants,
    main_variant,
    row_label,
    rows_of_figure,
    stages_of_figure,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which figure, of which rows, and where it goes."""
    parser.add_argument("figure", type=int, choices=(3, 4, 5, 6))
    parser.add_argument("--ablation", default="figure5", metavar="NAME|FILE", help="default: figure5")
    add_scale(parser)
    add_seeds(parser)
    add_device(parser)
    add_store(parser)
    add_places(parser)
    parser.add_argument("--out", metavar="PNG", help="default: results/SCALE/figureN.png")


def main(options: argparse.Namespace, console: Console) -> int:
    """Draws options.figure (3 to 6) for an ablation, a scale and seeds into options.out, from options.store alone.

    Raises BenchError naming the command that makes what is not in the store.
    """
    request = request_of(options)
    number, chosen, at = options.figure, ablation.load(request.ablation), placed_scale(request, needed=False)
    out = Path(options.out) if options.out else Path("results") / at.name / f"figure{number}.png"
    if out.suffix.lower() != ".png":
        raise BenchError(f"--out {out}: a file name that ends in .png is expected")
    at = with_numerics(at, request, needed=False)
    store = Store(request.store, create=False)
    drawn = rows_of_figure(number, chosen, rows(chosen.variants, at, request.seeds))
    if not drawn:
        raise BenchError(f"figure {number}: no row of the ablation {chosen.name} draws pictures")
    lacking = [row for row in drawn if not all(map(store.sound, stages_of_figure(number, row)))]
    if lacking:
        raise BenchError(
            f"figure {number}: not in the store {options.store}: "
            + ", ".join(f"{row_label(row)} (seed {row.seed})" for row in lacking)
            + f"; make it with: bench run --ablation {options.ablation} --scale {at.name} --seeds {options.seeds} "
            f"--store {options.store}" + "".join(f" --{name} {given}" for name, given in (
                ("data", options.data), ("weights", options.weights), ("device", options.device))
                                                 if given not in (None, "auto")))
    page = Page(chosen, at, store, drawn)
    blocks, caption = {3: draw_samples, 4: draw_compared, 5: draw_variants, 6: draw_failures}[number](page)
    title = f"Figure {number}. {main_variant(chosen)}: {TITLES[number]}" if number in (3, 6) else (
        f"Figure {number}. {TITLES[number][0].upper()}{TITLES[number][1:]}")
    sheet.save(out, sheet.stacked(title, blocks, [*caption, *about_page(page)]))
    print(f"figure {number}: {out}")
    return errors.OK
