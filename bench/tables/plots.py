"""Draws recorded results: rows and contrasts with intervals, the order beside the paper's, curves, confusions."""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.experiment import ablation as ablations
from bench.experiment.worlds import split_name
from bench.files import replace_file, writing
from bench.statistics import Interval, crossed_interval
from bench.tables.captions import CEILING_NAME, NULL_NAME
from bench.tables.columns import p_text
from bench.tables.model import Contrast, Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
LINE, WIDTH, PANEL = 0.24, 8.0, 3.0  # inches: height of a line, width of a page, side of a panel
BLUE, GREY, ORANGE, GREEN = "#0072b2", "#8c8c8c", "#d55e00", "#009e73"  # told apart by colour-blind readers
COLOURS = (BLUE, ORANGE, GREEN, GREY)  # of curves, in turn
STYLE: dict[Any, Any] = {"font.size": 8.5, "axes.spines.top": False, "axes.spines.right": False,
                         "svg.hashsalt": "bench", "svg.fonttype": "none"}
LETTERS = 40  # of a line of an axis's name
LOGARITHMIC = 20  # ratio of the largest value on an axis to the smallest above 0 from which its scale is logarithmic


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Applies STYLE while a figure is drawn."""
    @functools.wraps(draw)
    def draw_styled(*arguments: Any) -> Figure:
        import matplotlib  # takes half a second

        with matplotlib.rc_context(STYLE):
            return draw(*arguments)

    return draw_styled


@styled
def draw_forest(table: Table) -> Figure:
    """Draws each row's accuracy with its 95 % interval, null and ceiling, and each contrast with its simultaneous one.

    A filled mark is a resolved contrast, a hollow one is not; a diamond is the paper's difference. Raises BenchError if
    no row has a result.
    """
    rows = [row for row in table.entries if row.top1 and row.name not in (NULL_NAME, CEILING_NAME)]
    if not rows:
        raise BenchError("no row has a result yet, so there is nothing to draw")
    blocks = [(title, made) for title, made in (("contrasts", table.differences), ("over worlds", table.over_worlds))
              if any(contrast.verdict for contrast in made)]
    heights = [len(rows), *(len(made) for _, made in blocks)]
    figure, axes = panels(heights, WIDTH, LINE * sum(heights) + 1.1 * len(heights))
    _draw_rows(axes[0], table, rows)
    for axis, (title, made) in zip(axes[1:], blocks, strict=True):
        _draw_contrasts(axis, title, [contrast for contrast in made if contrast.verdict])
    return figure


def _draw_rows(axis: Axes, table: Table, rows: Sequence[Row]) -> None:
    beside = {row.name: row.top1 for row in table.entries if row.top1}
    for name, colour, words in ((NULL_NAME, ORANGE, "null: Full with shuffled EEG"),
                                (CEILING_NAME, GREEN, "ceiling: class name as text")):
        if known := beside.get(name):
            axis.axvspan(100 * known.low, 100 * known.high, color=colour, alpha=0.15, lw=0)
            axis.axvline(100 * known.mean, color=colour, lw=1, label=words)
    for place, row in enumerate(rows):
        assert row.top1
        _draw_interval(axis, place, row.top1, BLUE, True)
    axis.set_xlim(0, 100)
    axis.set_xlabel(f"{table.labels[0]} [95 % interval]")
    _name_lines(axis, [row.label for row in rows])
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)


def _draw_contrasts(axis: Axes, title: str, contrasts: Sequence[Contrast]) -> None:
    axis.axvline(0, color=GREY, lw=1)
    for place, contrast in enumerate(contrasts):
        assert contrast.verdict
        resolved = contrast.verdict.word in ("better", "worse")
        _draw_interval(axis, place, contrast.verdict.interval, BLUE if resolved else GREY, resolved)
        if contrast.paper is not None:
            axis.plot(contrast.paper, place, "D", color=ORANGE, ms=4, mfc="none")
    axis.set_xlabel(f"{title}: first - second, points [95 % interval, simultaneous]\nfilled: resolved"
                    + "; diamond: the paper's" * any(contrast.paper is not None for contrast in contrasts))
    _name_lines(axis, [contrast.label for contrast in contrasts])


def _draw_interval(axis: Axes, place: float, interval: Interval, colour: str, filled: bool) -> None:
    low, high = max(interval.low, -1.0), min(interval.high, 1.0)
    axis.plot([100 * low, 100 * high], [place, place], color=colour, lw=1.5)
    axis.plot(100 * interval.mean, place, "o", color=colour, ms=5, mfc=colour if filled else "white")


def _name_lines(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), [name.replace("  ", ": ") for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.25)


@styled
def draw_order(table: Table) -> Figure:
    """Draws each row's accuracy over the paper's, with the agreement of both orders. Raises BenchError if fewer than
    four rows have a number of the paper."""
    if not table.agreements:
        raise BenchError("the order is compared where at least four rows have a number of the paper; these results "
                         "have fewer")
    whole = table.agreements[0]
    rows = [row for row in table.entries if row.top1 and row.paper is not None and row.name != CEILING_NAME]
    figure, (axis,) = panels([1], 1.6 * PANEL, 1.5 * PANEL)
    for row in rows:
        assert row.top1
        assert row.paper is not None
        axis.plot([row.paper] * 2, [100 * row.top1.low, 100 * row.top1.high], color=GREY, lw=1)
        axis.plot(row.paper, 100 * row.top1.mean, "o", color=BLUE, ms=4)
        axis.annotate(row.name, (row.paper, 100 * row.top1.mean), (4, 2), textcoords="offset points", fontsize=7)
    axis.set_xlabel("the paper's, 50-way, ImageNet-EEG, %")
    axis.set_ylabel(f"{table.labels[0]} [95 % interval]")
    null = "if only CLIP alignment mattered" if len(table.agreements) > 1 else "of random orders"
    axis.set_title(f"Kendall's tau {whole.tau:+.2f}; expected {null}:\n{whole.expected:+.2f} "
                   f"[{whole.null_low:+.2f}, {whole.null_high:+.2f}], p {p_text(whole.p, '= ')}")
    return figure


@styled
def draw_curves(table: Table, curves: Mapping[str, Mapping[str, Sequence[tuple[float, str]]]]) -> Figure:
    """Draws the accuracy over each factor that an ablation names (`Ablation.curves`), with 95 % intervals.

    A row that several worlds have is the mean over them, with Student's t over the worlds. Raises BenchError if the
    ablation names no factor, or if no row on a curve has a result.
    """
    if not curves:
        having = [name for name in ablations.names() if ablations.load(name).curves]
        raise BenchError(f"this ablation names no `curves`; those that do: {', '.join(having)}")
    measured = _by_row(table)
    figure, axes = panels(list(curves), PANEL * len(curves), PANEL, side_by_side=True)
    for axis, (factor, lines) in zip(axes, curves.items(), strict=True):
        values: list[float] = []
        for place, (name, points) in enumerate(lines.items()):
            colour = COLOURS[place % len(COLOURS)]
            known = [(x, measured[row]) for x, row in points if row in measured]
            if not known:
                raise BenchError(f"no row of the curve {name!r} over {factor} has a result yet")
            x = [each for each, _ in known]
            axis.plot(x, [100 * interval.mean for _, interval in known], "o-", ms=4, lw=1.2, color=colour, label=name)
            for each, interval in known:
                axis.plot([each, each], [100 * interval.low, 100 * interval.high], color=colour, lw=1)
            values += x
        scale_x(axis, values)
        axis.set_xlabel(factor)
        axis.grid(alpha=0.25)
        if len(lines) > 1:
            axis.legend(frameon=False)
    axes[0].set_ylabel(textwrap.fill(f"{table.labels[0].removesuffix(', %')}, %", LETTERS))
    return figure


def _by_row(table: Table) -> dict[str, Interval]:
    """Returns the interval of each row; of a row in several worlds the mean over them, under its name without a world.
    """
    rows = {row.name: row.top1 for row in table.entries if row.top1}
    worlds: dict[str, list[float]] = {}
    for name, interval in rows.items():
        if split_name(name)[1]:
            worlds.setdefault(split_name(name)[0], []).append(interval.mean)
    return rows | {name: crossed_interval(np.array(means)[None]) for name, means in worlds.items() if len(means) > 1}


@styled
def draw_confusion(items: Any, row: str, name_of: Mapping[int, str]) -> Figure:
    """Draws how often the judge assigns each class to the images of each class, over all seeds and samples.

    items: a DataFrame of `results.Results.items`; row: the variant with its real EEG; name_of: class numbers' names.
    Raises BenchError if the row has no classes.
    """
    chosen = items[(items["variant"] == row) & (items["items"] == "real")] if len(items) else items
    if not len(chosen) or "label" not in chosen or chosen["label"].isna().all():
        raise BenchError(f"no images of the row {row!r} with classes are recorded; name another with --variants")
    counts = chosen.groupby(["label", "judged"]).size().unstack(fill_value=0)
    shares = 100 * counts.div(counts.sum(axis=1), axis=0)
    figure, (axis,) = panels([1], 2.4 + LINE * shares.shape[1], 1.8 + LINE * shares.shape[0])
    shown = axis.imshow(shares.to_numpy(), cmap="Blues", vmin=0, vmax=100)
    for line, column in np.ndindex(shares.shape):
        if (value := shares.iat[line, column]) >= 1:
            axis.text(column, line, f"{value:.0f}", ha="center", va="center", fontsize=6,
                      color="white" if value > 50 else "black")
    named = [name_of.get(int(number), f"class {int(number)}") for number in shares.columns]
    axis.set_xticks(range(len(named)), named, rotation=90)
    axis.set_yticks(range(len(shares)), [name_of.get(int(number), f"class {int(number)}") for number in shares.index])
    axis.set_xlabel("judge's class of the generated image")
    axis.set_ylabel("class shown")
    axis.set_title(f"{row}: {len(chosen)} images, per cent of each line")
    figure.colorbar(shown, ax=axis, shrink=0.6)
    return figure


def panels(heights: Sequence[Any], width: float, height: float, side_by_side: bool = False) -> tuple[Figure, Any]:
    """Returns a figure of so many inches with a panel for each height, and its panels. Side by side they are equal."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if side_by_side:
        return figure, figure.subplots(1, len(heights), sharey=True, squeeze=False)[0]
    return figure, figure.subplots(len(heights), 1, squeeze=False, height_ratios=list(map(float, heights)))[:, 0]


def scale_x(axis: Axes, values: Sequence[float]) -> None:
    """Makes the horizontal axis logarithmic if the values are far apart; with a linear part around 0 if one is 0."""
    positive = [value for value in values if value > 0]
    if not positive or max(positive) / min(positive) < LOGARITHMIC:
        return
    if min(values) > 0:
        axis.set_xscale("log")
        return
    axis.set_xscale("symlog", linthresh=min(positive))
    axis.set_xticks([tick for tick in axis.get_xticks() if abs(tick) >= min(positive) or tick == 0])  # 0 needs the room


def render(figure: Figure, ending: str) -> bytes:
    """Returns the file of a figure; equal figures give equal bytes. ending: one of ENDINGS."""
    import matplotlib

    file, undated = io.BytesIO(), {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format=ending[1:], dpi=150, metadata=undated[ending])
    return file.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Writes a figure to a file that ends in one of ENDINGS."""
    with writing(path):
        replace_file(path, render(figure, path.suffix.lower()))
