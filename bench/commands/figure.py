"""`bench figure`: draws counterparts of the paper's figures, from the store."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.commands.options import (
    add_ablation,
    add_device,
    add_places,
    add_pretrain_seeds,
    add_scale,
    add_seeds,
    request_of,
)
from bench.errors import BenchError
from bench.experiment import ablation
from bench.setup.places import resolve_scale
from bench.setup.request import DATA
from bench.setup.rows import rows, with_numerics
from bench.store.store import Store
from bench.tables import figure, sheet

DRAW = {3: figure.draw_samples, 4: figure.draw_compared, 5: figure.draw_variants, 6: figure.draw_failures}


def add_options(parser: argparse.ArgumentParser) -> None:
    drawn = parser.add_argument_group("figure and rows")
    drawn.add_argument("figure", type=int, choices=tuple(DRAW), help="the figure's number in the paper")
    add_ablation(drawn, "--ablation", default="figure5", help="the ablation whose rows are drawn")
    add_scale(drawn)
    add_seeds(drawn)
    add_pretrain_seeds(drawn)
    add_device(drawn)
    add_places(parser)
    parser.add_argument_group("output").add_argument(
        "--out", metavar="PNG", help="the image file (default: results/SCALE/figureN.png)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Draws a figure from stored stages.

    Raises BenchError naming the command that builds what the store lacks.
    """
    request, number = request_of(options), options.figure
    chosen, scale = ablation.load(request.ablation), resolve_scale(request, needed=False)
    out = Path(options.out) if options.out else Path("results") / scale.name / f"figure{number}.png"
    if out.suffix.lower() != ".png":
        raise BenchError(f"--out {out}: a file name that ends in .png is expected")
    scale = with_numerics(scale, request, needed=False)
    store = Store(request.store, create=False)
    drawn = figure.rows_of_figure(number, chosen, rows(chosen.variants, scale, request.seeds))
    if not drawn:
        raise BenchError(f"figure {number}: no row of the ablation {chosen.name} generates images")
    missing = [row for row in drawn if not all(map(store.is_intact, figure.stages_of_figure(number, row)))]
    if missing:
        labels = ", ".join(f"{figure.row_label(row)} (seed {row.seed})" for row in missing)
        given = (("pretrain-seeds", request.pretrain_seeds), ("data", options.data),
                 ("weights", options.weights), ("device", options.device))
        raise BenchError(f"figure {number}: not in the store {options.store}: {labels}; make it with: bench run "
                         f"--ablation {options.ablation} --scale {scale.name} --seeds {options.seeds} --store "
                         f"{options.store}" + "".join(f" --{name} {value}" for name, value in given
                                                      if value not in (None, "", "auto", str(DATA))))
    page = figure.Page(chosen, scale, store, drawn)
    blocks, caption = DRAW[number](page)
    text = figure.TITLES[number]
    title = f"{figure.main_variant(chosen)}: {text}" if number in (3, 6) else f"{text[0].upper()}{text[1:]}"
    sheet.save(out, sheet.stacked(f"Figure {number}. {title}", blocks, [*caption, *figure.about_page(page)]))
    print(f"figure {number}: {out}")
    return errors.OK
