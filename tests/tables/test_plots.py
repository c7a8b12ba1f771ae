"""Plots show the recorded numbers: the marks and lines in the figure are those of the table."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.cli import main
from bench.errors import BenchError
from bench.experiment import ablation
from bench.tables import build, plots
from bench.tables.captions import CEILING_NAME, NULL_NAME

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"


@pytest.fixture(scope="module")
def table2():
    return build.table(REFERENCE / "tiny", "table2", ablation.load("table2"))


def marks(axis, marker):
    """Returns the points (x, y) with this marker, in the order in which they were drawn."""
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if line.get_marker() == marker]


def test_a_forest_has_every_row_null_and_ceiling_at_their_numbers(table2):
    rows, contrasts = plots.draw_forest(table2).axes
    shown = [row for row in table2.entries if row.name not in (NULL_NAME, CEILING_NAME)]
    assert np.allclose(marks(rows, "o"), [(100 * row.top1.mean, place) for place, row in enumerate(shown)])
    assert [text.get_text() for text in rows.get_yticklabels()] == [row.label.replace("  ", ": ") for row in shown]
    beside = {row.name: 100 * row.top1.mean for row in table2.entries}
    vertical = [line.get_xdata()[0] for line in rows.lines if line.get_label() and line.get_label()[0] != "_"]
    assert np.allclose(vertical, [beside[NULL_NAME], beside[CEILING_NAME]])
    assert np.allclose(marks(contrasts, "o"), [(100 * c.verdict.interval.mean, place)
                                               for place, c in enumerate(table2.differences)])
    assert np.allclose(marks(contrasts, "D"), [(c.paper, place) for place, c in enumerate(table2.differences)])


def test_a_contrast_is_filled_if_and_only_if_it_is_resolved(table2):
    axis = plots.draw_forest(table2).axes[1]
    filled = [line.get_markerfacecolor() != "white" for line in axis.lines if line.get_marker() == "o"]
    resolved = [c.verdict.word in ("better", "worse") for c in table2.differences]
    assert filled == resolved
    assert set(resolved) == {True, False}


def test_the_order_has_each_row_over_the_papers_number_and_tau(table2):
    axis = plots.draw_order(table2).axes[0]
    shown = [row for row in table2.entries if row.paper is not None and row.name != CEILING_NAME]
    assert np.allclose(marks(axis, "o"), [(row.paper, 100 * row.top1.mean) for row in shown])
    assert f"{table2.agreements[0].tau:+.2f}" in axis.get_title()


def test_a_curve_over_worlds_is_the_mean_over_them():
    chosen = ablation.load("known_size")
    table = build.table(REFERENCE / "instrument" / "tiny", "known_size", chosen)
    axis = plots.draw_curves(table, chosen.curves).axes[0]
    line = next(line for line in axis.lines if line.get_label() == "297M")
    assert list(line.get_xdata()) == [100, 400, 1600]
    means = [np.mean([row.top1.mean for row in table.entries if row.name.startswith(f"297M with {pairs} pairs in")])
             for pairs in (100, 400, 1600)]
    assert np.allclose(line.get_ydata(), 100 * np.array(means))


def test_a_confusion_is_the_share_of_the_judges_classes():
    items = pd.DataFrame({"variant": "Full", "items": "real", "label": [0, 0, 0, 0, 1, 1],
                          "judged": [0, 0, 0, 2, 1, 0]})
    axis = plots.draw_confusion(items, "Full", {0: "circle"}).axes[0]
    assert np.allclose(axis.images[0].get_array(), [[75, 0, 25], [50, 50, 0]])
    assert [text.get_text() for text in axis.get_yticklabels()] == ["circle", "class 1"]


@pytest.mark.parametrize("ending", plots.ENDINGS)
def test_equal_figures_give_equal_files(table2, ending):
    files = {plots.render(plots.draw_order(table2), ending) for _ in range(2)}
    assert len(files) == 1
    assert files.pop()[:4] in (b"\x89PNG", b"<?xm", b"%PDF")


@pytest.mark.parametrize(("arguments", "message"), [
    (["curves", "--ablation", "table2", "--reference"], "names no `curves`; those that do: .*mask_ratio"),
    (["order", "--ablation", "controls", "--reference"], "at least four rows have a number of the paper"),
    (["forest", "--ablation", "table2", "--reference", "--out", "x.gif"], "ends in .png, .svg, .pdf is expected"),
    (["confusion", "--ablation", "table2", "--reference", "--variants", "99"], "no images of the row '99'"),
])
def test_what_cannot_be_drawn_is_one_line(arguments, message, capsys):
    assert main(["figure", *arguments, *(() if "--out" in arguments else ("--out", "x.png"))]) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert re.search(message, printed)


def test_the_command_writes_what_it_names(tmp_path, capsys):
    out = tmp_path / "mask.svg"
    assert main(["figure", "curves", "--ablation", "mask_ratio", "--reference", "--out", str(out)]) == 0
    assert f"curves: {out}" in capsys.readouterr().out
    assert "mask ratio" in out.read_text()


def test_nothing_is_drawn_without_results(table2):
    with pytest.raises(BenchError, match="no row has a result yet"):
        plots.draw_forest(replace(table2, entries=()))
