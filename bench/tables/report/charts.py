"""Draws the charts of a report as inline SVG that follows the page's light or dark colours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.statistics import Interval
from bench.tables import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]  # (step, value)
VARIABLES = {  # a colour of the plots -> that of the page
    "#000000": "currentColor", "#ffffff": "var(--page)", plots.BLUE: "var(--blue)", plots.ORANGE: "var(--orange)",
    plots.GREEN: "var(--green)", plots.GREY: "var(--grey)", "#b0b0b0": "var(--line)"}
PIXELS = 96 / 72  # of a point
LEAST_WIDTH = 0.8  # of its natural width, to which a chart shrinks before its box scrolls
PAGE = 8.0  # inches: width of a chart


@dataclass(frozen=True)
class Chart:
    """A chart: its id on the page, title, what it shows, and its SVG; or, without an SVG, why there is none."""

    name: str
    title: str
    about: str
    svg: str = ""
    reason: str = ""


def chart(name: str, title: str, about: str, draw: Callable[[], Figure]) -> Chart:
    """Draws a chart; if it cannot be drawn, the chart holds the reason."""
    try:
        return Chart(name, title, about, inline_svg(draw(), name, title))
    except BenchError as error:
        return Chart(name, title, about, reason=str(error))


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """Returns the SVG of a figure for a page: its ids begin with `name`, its colours are the page's variables.

    Equal figures give equal text. The chart shrinks to LEAST_WIDTH of its width; a narrower box scrolls.
    """
    text = plots.render(figure, ".svg").decode()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'((?:xlink:)?href)="#([^"]*)"', rf'\1="#{name}-\2"', text)
    text = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    width = figure.get_figwidth() * 72 * PIXELS
    text = re.sub(r' (?:width|height|version|xmlns(?::xlink)?)="[^"]*"', "", text[:text.index(">")]) \
        + text[text.index(">"):]
    text = text.replace("xlink:href", "href")
    return text.replace("<svg", f'<svg role="img" aria-label="{title}" style="width:100%;max-width:{width:.0f}px;'
                        f'min-width:{LEAST_WIDTH * width:.0f}px"', 1).strip()


@plots.styled
def draw_costs(costs: Mapping[str, float], accuracies: Mapping[str, Interval], unit: str, header: str) -> Figure:
    """Draws each row's accuracy with its 95 % interval over its cost. unit: of the costs; header: of the accuracy.

    Raises BenchError if fewer than two rows have both.
    """
    rows = [name for name in costs if name in accuracies]
    if len(rows) < 2:
        raise BenchError("fewer than two rows have both a recorded cost and an accuracy")
    figure, (axis,) = plots.panels([1], 0.8 * PAGE, 0.5 * PAGE)
    for place, name in enumerate(sorted(rows, key=lambda row: accuracies[row].mean)):
        known, side = accuracies[name], 1 if place % 2 else -1  # names at equal costs would hide each other
        axis.plot([costs[name]] * 2, [100 * known.low, 100 * known.high], color=plots.GREY, lw=1)
        axis.plot(costs[name], 100 * known.mean, "o", color=plots.BLUE, ms=4)
        axis.annotate(name, (costs[name], 100 * known.mean), (4 * side, 3), textcoords="offset points",
                      fontsize=7, ha="left" if side > 0 else "right")
    plots.scale_x(axis, [costs[name] for name in rows])
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.set_xlabel(unit)
    axis.set_ylabel(f"{header} [95 % interval]")
    axis.grid(alpha=0.25)
    return figure


@plots.styled
def draw_training(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draws the loss over steps: a panel for each kind of curve, a line for each stage, under its rows' names.

    Raises BenchError if there is no curve.
    """
    if not curves:
        raise BenchError("the store holds no log of a training with a loss")
    figure, panels = plots.panels([1] * len(curves), PAGE, 0.36 * PAGE * len(curves))
    for axis, (kind, lines) in zip(panels, curves.items(), strict=True):
        for place, (name, points) in enumerate(lines.items()):
            axis.plot(*zip(*points, strict=True), marker="o", ms=2, lw=1, label=name, clip_on=False,
                      color=plots.COLOURS[place % len(plots.COLOURS)],
                      ls=("-", "--", ":", "-.")[place // len(plots.COLOURS) % 4])
        axis.set_title(kind, loc="left")
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        axis.set_xlim(0, max(1.0, *(step for points in lines.values() for step, _ in points)))
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
