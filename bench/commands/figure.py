"""`bench figure`: draws counterparts of the paper's figures from the store, or plots of recorded results."""

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
PLOTS = ("forest", "order", "curves", "confusion")


def add_options(parser: argparse.ArgumentParser) -> None:
    drawn = parser.add_argument_group("figure and rows")
    drawn.add_argument("figure", choices=(*map(str, DRAW), *PLOTS), metavar="FIGURE",
                       help="the figure's number in the paper (3, 4, 5, 6), or a plot of results: forest (rows and "
                            "contrasts with intervals), order (beside the paper's), curves (accuracy over a factor), "
                            "confusion")
    add_ablation(drawn, "--ablation", default="figure5", help="the ablation whose rows are drawn (default: figure5)")
    add_scale(drawn)
    add_seeds(drawn)
    add_pretrain_seeds(drawn)
    add_device(drawn)
    plotted = parser.add_argument_group("plots of results")
    plotted.add_argument("--results", default="results", metavar="DIR", help="folder of the results (default: results)")
    plotted.add_argument("--reference", action="store_true",
                         help="the suite's own run, from DIR/reference/ (default: the own run)")
    plotted.add_argument("--variants", metavar="A", help="the row of a confusion (default: Full, else the first)")
    add_places(parser)
    parser.add_argument_group("output").add_argument(
        "--out", metavar="FILE", help="the image: .png, of plots also .svg and .pdf (default: in results/SCALE/)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Draws a figure from stored stages, or a plot from recorded results.

    Raises BenchError naming the command that builds what is missing.
    """
    if options.figure in PLOTS:
        return _plot(options)
    request, number = request_of(options), int(options.figure)
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


def _plot(options: argparse.Namespace) -> int:
    """Draws a plot of recorded results."""
    from bench.tables import plots, results  # imports pandas and matplotlib
    from bench.tables.build import table as build_table
    from bench.tables.report.stored import class_names

    variant, request = options.variants, request_of(options)
    chosen, folder = ablation.load(request.ablation), request.source_folder
    out = Path(options.out) if options.out else request.results_folder / f"{chosen.name}_{options.figure}.png"
    if out.suffix.lower() not in plots.ENDINGS:
        raise BenchError(f"--out {out}: a file name that ends in {', '.join(plots.ENDINGS)} is expected")
    if options.figure == "confusion":
        recorded = results.read(folder, chosen.name)
        drawn = plots.draw_confusion(recorded.items, variant or figure.main_variant(chosen),
                                     class_names(request))
    else:
        table = build_table(folder, chosen.name, chosen)
        drawn = (plots.draw_forest(table) if options.figure == "forest" else plots.draw_order(table)
                 if options.figure == "order" else plots.draw_curves(table, chosen.curves))
    plots.save(drawn, out)
    print(f"{options.figure}: {out}")
    return errors.OK
