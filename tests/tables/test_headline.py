"""The headline metric is the scale's: top-1 at the small scales, at the others the paper's 50-way accuracy."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_tables import ABLATION, ABOUT, JUDGE, PIXELS, SPECS, cell, put

from bench.experiment import ablation
from bench.experiment.scale import SCALES
from bench.statistics import crossed_interval, mcnemar, share_interval
from bench.tables import results
from bench.tables.build import table as build_table
from bench.tables.captions import CEILING_NAME
from bench.tables.columns import csv_frame
from bench.tables.figure import worst_of_each

PICTURES = 40


def put_paper(folder, name, strength, seed=0, items="real", scale="paper", key="50 of 1000", label=True):
    """Records a made-up row of a judge of 1,000 classes: 50-way accuracies between 0 and 1, about `strength`."""
    rng = np.random.default_rng([seed, len(name), items == "real"])
    chance = np.clip(strength + 0.2 * rng.standard_normal(PICTURES), 0, 1)
    picture, real = np.arange(PICTURES), np.arange(PICTURES) % 8 + 100
    is_top = chance > 0.5
    frame = pd.DataFrame({
        "variant": name, "seed": seed, "items": items, "item": picture, "sample": 0, "picture": picture,
        "label": np.arange(PICTURES) % 10 + 100, "judged_real": real, "judged": np.where(is_top, real, 999),
        "nway_judge": chance, "top1_fixed_judge": is_top.astype(float),
        "top1_label": (is_top & (picture % 2 == 0)).astype(float)})
    frame = frame if label else frame.drop(columns=["label", "top1_label"])
    keys = {"nway_judge": key, "top1_fixed_judge": "50 fixed classes", "top1_label": "1000 classes", "fid": "N=40"}
    values = [(metric, keys[metric], frame[metric].mean() if metric in frame else 9.5) for metric in keys
              if metric in frame or metric == "fid"]
    lines = pd.DataFrame(values, columns=["metric", "key", "value"]).assign(
        variant=name, seed=seed, items=items, n=PICTURES, stage=f"{name}{seed}{items}",
        **(ABOUT | JUDGE | {"spec": SPECS.get(name, "") if items == "real" else "", "scale": scale}))
    results.record(folder, "mask_ratio", lines, frame)
    return frame


def put_table(folder, **how):
    """Records Full, both other rows, the null and the ceiling; returns the items of each."""
    rows = {"Full": 0.6, "5": 0.4, "6": 0.5}
    made = {name: put_paper(folder, name, strength, **how) for name, strength in rows.items()}
    put_paper(folder, "Full", 0.1, items="shuffled", **how)
    put_paper(folder, "class name as text", 0.9, items="captions", **how)
    return made


def test_each_scale_names_its_accuracy():
    assert {name: scale.headline for name, scale in SCALES.items()} == {
        "tiny": "top1_label", "micro": "top1_label", "rehearsal": "nway_judge", "paper": "nway_judge",
        "paper-short": "nway_judge", "laptop": "top1_label"}


@pytest.mark.parametrize("scale", ["paper", "paper-short", "rehearsal"])
def test_the_papers_accuracy_is_first_and_its_second_reading_beside_it(tmp_path, scale):
    made = put_table(tmp_path, scale=scale)
    table = build_table(tmp_path, "mask_ratio", ABLATION)
    assert table.headline == "nway_judge"
    headers = [column.header for column in table.document.short.blocks[0]]
    assert headers[1].startswith("50-way of 1000, %")
    assert "top-1 of 50 fixed classes, %" in headers
    assert headers[-1] == "paper's 50-way, %"
    assert max(map(len, table.render().splitlines())) <= 100
    full = table.entries[0]
    expected = share_interval(made["Full"]["nway_judge"].to_numpy()[None])
    assert [full.top1.mean, full.top1.low, full.top1.high] == pytest.approx(
        [expected.mean, expected.low, expected.high])
    for form, header, metric in ((table.document.short, "top-1 of 50 fixed", "top1_fixed_judge"),
                                 (table.document.complete, "top-1 against the label", "top1_label")):
        assert cell(form, header, "Full") == f"{100 * made['Full'][metric].mean():.1f}"
    assert table.finding.startswith(f"Best row: Full, {100 * full.top1.mean:.1f} % (null")
    row = table.rows.set_index("name").loc["Full"]
    assert row["nway_judge"] == pytest.approx(100 * full.top1.mean)
    assert table.rows["name"].iloc[-1] == CEILING_NAME


def test_contrasts_and_gain_are_of_the_papers_accuracy_and_mcnemar_of_top1(tmp_path):
    made = put_table(tmp_path)
    table = build_table(tmp_path, "mask_ratio", ABLATION)
    first = table.differences[0]
    difference = (made["Full"]["nway_judge"] - made["5"]["nway_judge"]).mean()
    assert first.mean == pytest.approx(difference)
    assert first.verdict.word == "better"
    assert first.mcnemar == {0: mcnemar(made["Full"]["top1_label"], made["5"]["top1_label"])}
    assert table.entries[0].gain.mean > 0.3
    lines = csv_frame(table)
    assert lines.loc[lines["kind"] == "contrast", "nway_judge"].iloc[0] == pytest.approx(100 * difference)


def test_permuted_classes_are_those_of_the_real_images(tmp_path):
    made = put_table(tmp_path)
    table = build_table(tmp_path, "mask_ratio", ABLATION)
    frame = made["Full"]
    share = [(frame["judged"] == each).mean() * (frame["judged_real"] == each).mean() for each in range(100, 110)]
    line, = [line for line in table.caption if line.startswith("Nulls of Full, 50-way:")]
    assert f"top-1 against permuted classes of the real images {100 * sum(share):.1f} [" in line


def test_the_notes_say_which_reading_is_which(tmp_path):
    put_table(tmp_path, key="50 of 1000, timm center crop 0.95, bicubic to 64x64")
    table = build_table(tmp_path, "mask_ratio", ABLATION)
    assert table.labels[0] == "50-way of 1000, %"
    for text in (" ".join(table.notes), " ".join(table.caption)):
        for part in ("50-way: the paper's accuracy as its released code computes it.", "49 of the 1000 classes",
                     "Top-1 of 50 fixed classes: the paper's text"):
            assert part in text
        assert "Accuracies compare the judge's class with the label" not in text


def test_the_headline_is_top1_at_small_scales_in_older_results_and_in_mixed_ones(tmp_path):
    put(tmp_path / "small", "Full", 0.6)
    put(tmp_path / "old", "Full", 0.6, scale="paper")  # without nway_judge
    put_paper(tmp_path / "mixed", "Full", 0.6)
    put(tmp_path / "mixed", "5", 0.6, scale="tiny")
    for folder in ("small", "old", "mixed"):
        table = build_table(tmp_path / folder, "mask_ratio", ABLATION)
        assert table.headline == "top1_label", folder
        assert table.document.short.blocks[0][1].header.startswith("top-1 of"), folder


def test_rows_without_labels_keep_the_ablations_other_headline(tmp_path):
    put_paper(tmp_path, "Full", 0.6, label=False)
    other = SimpleNamespace(**vars(ABLATION) | {"headline": ("top1_label", "top1_fixed_judge")})
    assert build_table(tmp_path, "mask_ratio", other).headline == "top1_fixed_judge"


def test_probabilities_near_zero_have_an_interval_with_a_width():
    none, almost = (share_interval(np.full((1, 8), value) + noise) for value, noise in (
        (0.0, 0.0), (1e-9, np.arange(8) * 1e-10)))
    assert almost.high == pytest.approx(none.high, rel=1e-3)
    assert none.high > 0.3
    half = share_interval(np.linspace(0.4, 0.6, 200)[None])
    assert half.high - half.low < 0.02  # probabilities that differ little are no 0 and 1


def test_figure_6_takes_the_judges_class_of_the_real_image_for_right():
    rows = pd.DataFrame([(1, 0, 5, 7, 7, 1.0, 0.1, 0.5), (2, 0, 5, 5, 8, 0.2, 1.0, 0.5),
                         (3, 0, 5, 4, 9, 0.1, 0.1, 0.5)],
                        columns=["item", "sample", "label", "judged", "judged_real", "nway_judge", "nway_label",
                                 "judge_distance"])
    assert worst_of_each(rows, "judged_real", "nway_judge")["item"].tolist() == [3]
    assert worst_of_each(rows[:2], "judged_real", "nway_judge")["item"].tolist() == [2]
    assert worst_of_each(rows[:2])["item"].tolist() == [1]


@pytest.mark.parametrize("has_items", [True, False])
def test_fid_has_an_interval_where_items_have_values_and_says_where_it_has_none(tmp_path, has_items):
    frame = put_paper(tmp_path, "Full", 0.6)
    recorded = results.read(tmp_path, "mask_ratio")
    if has_items:
        values = 9.5 + np.linspace(-4, 4, PICTURES)
        results.record(tmp_path, "mask_ratio", recorded.rows, frame.assign(fid=values))
    table = build_table(tmp_path, "mask_ratio", ABLATION)
    complete, short = (cell(form, "FID", "Full") for form in (table.document.complete, table.document.short))
    row = table.rows.set_index("name").loc["Full"]
    caption = " ".join(table.caption)
    assert short == "9.50"
    if has_items:
        expected = crossed_interval(values[None])
        assert complete == f"9.50 [{expected.low:.2f}, {expected.high:.2f}]"
        assert row["mean_fid_low"] == pytest.approx(expected.low)
        assert "reference images count as fixed" in caption
    else:
        assert complete == "9.50"
        assert "mean_fid_low" not in row
        assert "FID and IS have no interval" in caption


@pytest.mark.parametrize(("images", "cells"), [(200, {"ATM": "26.1 to 28.6", "ATM / EEG shuffled": "-"}), (100, {})])
def test_published_retrieval_is_beside_the_rows_that_retrieve_among_as_many_images(tmp_path, images, cells):
    laptop = ablation.load("laptop")
    names, item = ("ATM", "ATM / EEG shuffled"), np.arange(images)
    lines = pd.DataFrame({"variant": names, "metric": "retrieval_top1", "key": f"top 1 of {images} pictures",
                          "value": 0.5, "seed": 0, "items": "real", "n": images, "stage": names})
    items = pd.concat(pd.DataFrame({"variant": name, "seed": 0, "items": "real", "item": item, "sample": 0,
                                    "picture": item, "label": item, "retrieval_top1": item % 2.0}) for name in names)
    results.record(tmp_path, "laptop", lines.assign(**(ABOUT | PIXELS | {"scale": "laptop"})), items)
    block, *_ = build_table(tmp_path, "laptop", laptop).document.short.blocks
    columns = {column.header: column.cells for column in block}
    shown = columns.get("published top-1, %", ())
    order = [variant.name for variant in laptop.variants]
    assert {name: shown[order.index(name)] for name in names if shown} == cells
