"""Tables: every row stands there, every number says what it is."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench import results, tables
from bench.errors import BenchError
from bench.key import digest
from bench.sheet import first_of_each, sheet
from bench.variant import FULL, Variant

ABOUT = {"scale": "tiny", "world": "0", "config": "c", "spec": "",
         "judge": "tiny/judge@0123456789ab", "numerics": "cpu float32 1 thread",
         "pretrain_seeds": "each", "params": 614_352, "paper_params": "297M"}



ABLATION = SimpleNamespace(name="mask_ratio", title="Mask ratios", published="dreamdiffusion_table2", contrasts=[
    ("Full", "5"), ("Full", "6")], variants=[FULL, Variant("5", 0.25), Variant("6", 0.5)])
SPECS = {variant.name: digest(variant) for variant in ABLATION.variants}


def put(folder, name, accuracy, seed=0, items="real", pictures=40, samples=2, **about):
    """Records a made-up row in which `accuracy` of the pictures are right in every sample."""
    right = np.arange(pictures) < round(accuracy * pictures)
    items_frame = pd.DataFrame([
        {"variant": name, "seed": seed, "items": items, "item": picture, "sample": sample, "picture": picture,
         "top1_label": float(right[picture])} for picture in range(pictures) for sample in range(samples)])
    values = [("top1_label", "16 classes", right.mean()), ("nway_label", "10 of 16", 0.5 + right.mean() / 2),
              ("fid", f"N={pictures}, reference=100, averaged over {samples} samples", 12.345),
              ("is", "N=40, 1 split", 4.0), ("ssim", "", 0.31), ("psnr", "range 255", 10.0),
              ("judge_distance", "5 layers", 0.42)]
    frame = pd.DataFrame(values, columns=["metric", "key", "value"]).assign(
        variant=name, seed=seed, items=items, n=pictures, stage=f"{name}{seed}{items}",
        **(ABOUT | {"spec": SPECS.get(name, "") if items == "real" else ""} | about))
    results.record(folder, "mask_ratio", frame, items_frame)


def put_all(folder, seeds=(0,), **about):
    for seed in seeds:
        put(folder, "Full", 0.6, seed, **about)
        put(folder, "5", 0.4, seed, **about)
        put(folder, "6", 0.5, seed, **about)
        put(folder, "Full", 0.1, seed, "shuffled", **about)
        put(folder, "class name as text", 0.95, seed, "captions", **about | {"params": ""})
    readout = {"variant": "linear read-out", "seed": 0, "items": "readout", "metric": "readout_accuracy",
               "key": "10 classes", "value": 0.543, "n": 40, "stage": "r", **ABOUT, "params": ""}
    results.record(folder, "mask_ratio", pd.DataFrame([readout]), pd.DataFrame())


def test_rows_stand_in_the_ablations_order_with_the_references_last(tmp_path):
    put_all(tmp_path)
    table = tables.table(tmp_path, "mask_ratio", ABLATION)
    assert [row.name for row in table.rows] == ["Full", "5", "6", tables.NULL_NAME, tables.CEILING_NAME]
    assert [row.paper for row in table.rows] == [45.8, 19.7, 38.3, None, 97.2]
    assert [round(row.top1.mean, 3) for row in table.rows] == [0.6, 0.4, 0.5, 0.1, 0.95]
    assert [row.params for row in table.rows] == [614_352] * 4 + [None]


def test_contrasts_are_paired_and_carry_the_papers_difference(tmp_path):
    put_all(tmp_path)
    first, _, null = tables.table(tmp_path, "mask_ratio", ABLATION).contrasts
    assert first.name == "Full - 5"
    assert first.top1.mean == pytest.approx(0.2)
    assert first.paper == pytest.approx(26.1)
    assert first.top1.low > 0
    assert null.top1.mean == pytest.approx(0.5)
    assert null.paper is None


@pytest.mark.parametrize("format", ["text", "md"])
def test_a_row_that_was_not_run_is_shown_as_such(tmp_path, format):
    put(tmp_path, "Full", 0.5)
    table = tables.table(tmp_path, "mask_ratio", ABLATION)
    lines = table.render(format).splitlines()
    for name in ("5", "6", tables.NULL_NAME, tables.CEILING_NAME, "Full - 5"):
        assert any(line.lstrip("| ").startswith(name) and "not run" in line for line in lines), name
    assert any("Not run: 5, 6, Full, shuffled EEG (null), class name as text (ceiling)." in line for line in lines)


def test_the_caption_says_what_the_numbers_rest_on(tmp_path):
    put_all(tmp_path)
    caption = " ".join(tables.table(tmp_path, "mask_ratio", ABLATION).caption)
    for needed in ("Scale tiny, world 0", "Seeds 0.", "40 test pictures x 2 samples", "tiny/judge@0123456789ab",
                   "cpu float32 1 thread", "10 of 16", "N=40, reference=100, averaged over 2 samples",
                   "covers the choice of test items only, not training", "pretrain_seeds = each",
                   "54.3 % (10 classes, n = 40)", "the two do not compare"):
        assert needed in caption, needed


def test_several_seeds_are_crossed_and_one_shared_pretraining_forbids_a_verdict(tmp_path):
    put_all(tmp_path, seeds=(0, 1, 2), pretrain_seeds="one")
    table = tables.table(tmp_path, "mask_ratio", ABLATION)
    assert table.rows[0].seeds == (0, 1, 2)
    assert table.contrasts[0].top1.seeds == 3
    caption = " ".join(table.caption)
    assert "Seeds 0, 1, 2." in caption
    assert "crossed with seeds" in caption
    assert "no verdict about pre-training, mask ratio or size" in caption


def test_a_tiny_number_is_never_in_the_papers_column_without_its_label(tmp_path):
    put_all(tmp_path)
    lines = tables.table(tmp_path, "mask_ratio", ABLATION).render("md").splitlines()
    header = next(line for line in lines if "FID" in line)
    assert header.split("|")[-2].strip() == "paper, 50-way, ImageNet-EEG, %"
    assert "top-1 of 16, % [95%]" in header
    assert "10-way of 16, %" in header


def test_rows_scored_by_another_judge_are_called_not_comparable(tmp_path):
    put_all(tmp_path)
    put(tmp_path, "6", 0.5, judge="tiny/judge@ffff")
    caption = tables.table(tmp_path, "mask_ratio", ABLATION).caption
    line, = [line for line in caption if line.startswith("Not comparable")]
    assert line.startswith("Not comparable: rows differ in judge")
    assert "tiny/judge@ffff (6)" in line


def test_without_published_numbers_there_is_no_papers_column_and_a_line_says_so(tmp_path):
    put_all(tmp_path)
    table = tables.table(tmp_path, "mask_ratio", ABLATION, published=tmp_path)
    assert tables.PAPER not in table.render("md").replace(" ".join(table.caption), "").split("\n\n")[1]
    assert any("dreamdiffusion_table2.csv is not there" in line for line in table.caption)


def test_a_narrow_terminal_loses_columns_by_name_never_the_result(tmp_path):
    put_all(tmp_path)
    table = tables.table(tmp_path, "mask_ratio", ABLATION)
    narrow, wide = tables.text(table, 90), tables.text(table, 250)
    for width in (80, 90, 120):
        assert max(map(len, tables.text(table, width).splitlines())) <= width
    assert "Not shown at this width: " in narrow
    assert "mask 0.25" in narrow
    assert "60.0 [44.1, 75.9]" in narrow
    assert "Not shown" not in wide


def test_csv_holds_rows_and_contrasts_as_numbers(tmp_path):
    put_all(tmp_path)
    frame = pd.read_csv(io.StringIO(tables.table(tmp_path, "mask_ratio", ABLATION).render("csv")), dtype={"name": str})
    assert frame["kind"].tolist() == ["row"] * 5 + ["contrast"] * 3
    assert frame["top1"].round(6).tolist()[:6] == [60, 40, 50, 10, 95, 20]
    assert frame["paper_50way_imagenet_eeg"].round(6).tolist()[5] == 26.1
    assert frame["fid"].tolist()[0] == 12.345


def test_an_unknown_format_names_those_that_exist(tmp_path):
    put_all(tmp_path)
    with pytest.raises(BenchError, match="there are: text, md, csv"):
        tables.table(tmp_path, "mask_ratio", ABLATION).render("html")


def test_settings_are_said_in_words():
    said = tables._settings
    assert said(Variant("1", mask_ratio=None, align=None)) == ("none", "no", "E+A", "297M")
    assert said(Variant("x", align="label", tune="A")) == ("mask 0.75", "labels instead", "A", "297M")
    assert said(Variant("x", sd_loss=False, encoder="/home/me/own.py", size="74M")) == (
        "mask 0.75", "yes, alone", "E+A", "own, 74M")


def test_the_papers_table_2_is_transcribed_in_full():
    rows = pd.read_csv(tables.PUBLISHED / "dreamdiffusion_table2.csv", dtype={"row": str}).set_index("row")
    assert rows["value"].to_dict() == {
        "Full": 45.8, "1": 4.2, "2": 3.7, "3": 32.3, "4": 24.5, "5": 19.7, "6": 38.3, "7": 33.4, "8": 38.5, "9": 36.6,
        "10": 29.8, "11": 28.7, "12": 22.4, "13": 28.3, "14": 20.9, "label": 86.7, "label as input": 97.2}
    assert (rows["n_way"] == 50).all()
    assert rows.loc[["5", "6", "7"], "mask_ratio"].tolist() == [0.25, 0.5, 0.85]


def test_a_table_needs_neither_torch_nor_scipy_and_less_than_a_second(tmp_path):
    put_all(tmp_path, seeds=(0, 1, 2))
    code = ("import sys; from pathlib import Path; from bench import ablation, tables\n"
            f"t = tables.table(Path({str(tmp_path)!r}), 'mask_ratio', ablation.load('mask_ratio')); t.render('md')\n"
            "assert not {'torch', 'scipy', 'PIL'} & set(sys.modules), 'too much imported'")
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 3


def test_a_sheet_shows_the_first_item_of_each_class_and_is_the_same_file_again(tmp_path):
    rng = np.random.default_rng(0)
    real, label = rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8), np.array([2, 0, 0, 1, 2, 1, 0, 2, 1])
    names = ("Full", "a long variant name")
    columns = {name: rng.integers(0, 256, (9, 2, 32, 32, 3), dtype=np.uint8) for name in names}
    assert first_of_each(label).tolist() == [1, 3, 0]
    for name in "ab":
        sheet(tmp_path / f"{name}.png", real, label, columns, names=("circle", "square", "star"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    for line, picture in enumerate((real[1], columns["Full"][1, 0], columns["a long variant name"][1, 0])):
        top, large = 28 + 66 * line, np.repeat(np.repeat(picture, 2, 0), 2, 1)
        assert any(np.array_equal(shown[top:top + 64, left:left + 64], large) for left in range(shown.shape[1]))
    with pytest.raises(ValueError, match="do not fit"):
        sheet(tmp_path / "c.png", real, label, {"Full": columns["Full"][:5]}, names)


def test_a_row_that_was_recorded_with_other_settings_or_another_configuration_is_named(tmp_path):
    put_all(tmp_path)
    assert not any("other settings" in line for line in tables.table(tmp_path, "mask_ratio", ABLATION).caption)
    changed = SimpleNamespace(**vars(ABLATION) | {"variants": [FULL, Variant("5", 0.3), Variant("6", 0.5)]})
    assert any("other settings than the ablation names now, run again: 5." in line
               for line in tables.table(tmp_path, "mask_ratio", changed).caption)
    put(tmp_path, "6", 0.5, config="d")
    assert any("rows differ in config" in line for line in tables.table(tmp_path, "mask_ratio", ABLATION).caption)
