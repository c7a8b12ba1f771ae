"""Tables: every row is shown, and every number says what it is."""

import io
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.errors import BenchError
from bench.experiment.ablation import Ablation, with_controls
from bench.experiment.key import digest
from bench.experiment.variant import FULL, On, Variant
from bench.statistics import crossed_interval, verdicts
from bench.tables import captions, check, columns, formats, literature, named, results
from bench.tables.build import table as build_table
from bench.tables.sheet import first_of_each, sheet

ABOUT = {"scale": "tiny", "world": "0", "config": "c", "spec": "",
         "judge": "tiny/judge@0123456789ab", "numerics": "cpu float32 1 thread",
         "pretrain_seeds": "each", "params": 614_352, "paper_params": "297M",
         "leaky": "no", "versions": "torch 2.15.0", "failed": ""}
JUDGE = {"extractor": "tiny/judge", "extractor_sha256": "0123456789abcdef", "comparable": 0}
PIXELS = {"extractor": "", "extractor_sha256": "", "comparable": 1}
REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "tiny"
ABLATION = SimpleNamespace(name="mask_ratio", title="Mask ratios", published="dreamdiffusion_table2", contrasts=[
    ("Full", "5"), ("Full", "6")], variants=[FULL, Variant("5", 0.25), Variant("6", 0.5)])
SPECS = {variant.name: digest(variant) for variant in ABLATION.variants}


def put(folder, name, accuracy, seed=0, items="real", pictures=40, samples=2, right=None, ablation="mask_ratio",
        **about):
    """Records a made-up row: `accuracy` of the pictures, or those that are `right`, are right in every sample."""
    right = np.arange(pictures) < round(accuracy * pictures) if right is None else right
    label = np.arange(pictures) * 7 % 10
    items_frame = pd.DataFrame([
        {"variant": name, "seed": seed, "items": items, "item": picture, "sample": sample, "picture": picture,
         "label": label[picture], "judged": (label[picture] + 10 * (not right[picture])) % 16,
         "psnr": 9.5 + picture / pictures, "top1_label": float(right[picture])}
        for picture in range(pictures) for sample in range(samples)])
    values = [("top1_label", "16 classes", right.mean()), ("nway_label", "10 of 16", 0.5 + right.mean() / 2),
              ("fid", f"N={pictures}, reference=100, averaged over {samples} samples", 12.345),
              ("is", "N=40, 1 split", 4.0), ("ssim", "", 0.31), ("psnr", "range 255", 10.0),
              ("judge_distance", "5 layers", 0.42)]
    frame = pd.DataFrame(values, columns=["metric", "key", "value"])
    provenance = pd.DataFrame([PIXELS if metric in ("ssim", "psnr") else JUDGE for metric in frame["metric"]])
    frame = pd.concat([frame, provenance], axis=1).assign(
        variant=name, seed=seed, items=items, n=pictures, stage=f"{name}{seed}{items}",
        **(ABOUT | {"spec": SPECS.get(name, "") if items == "real" else ""} | about))
    results.record(folder, ablation, frame, items_frame)


def fail(folder, name, reason, seed=0, items="real"):
    about = {key: value for key, value in ABOUT.items() if key != "failed"}
    row = results.failure(reason, variant=name, seed=seed, items=items, stage="f", **about)
    results.record(folder, "mask_ratio", row, pd.DataFrame())


def made(folder, ablation=ABLATION):
    return build_table(folder, "mask_ratio", ablation)


def changed(**what):
    return SimpleNamespace(**vars(ABLATION) | what)


def changed_ablation():
    return Ablation("mask_ratio", ABLATION.title, tuple(ABLATION.variants), tuple(ABLATION.contrasts),
                    ABLATION.published)


def cell(printed, header, first, block=0):
    """Returns the cell in the column whose header starts with a text, in the row with the label of `first`."""
    columns = printed.blocks[block]
    column, = [column for column in columns if column.header.startswith(header)]
    names = [re.sub(r"  .*| \([^-]*\)(?= - |$)", "", label) for label in columns[0].cells]
    return column.cells[names.index(first)]


def put_all(folder, seeds=(0,), **about):
    for seed in seeds:
        put(folder, "Full", 0.6, seed, **about)
        put(folder, "5", 0.4, seed, **about)
        put(folder, "6", 0.5, seed, **about)
        put(folder, "Full", 0.1, seed, "shuffled", **about)
        put(folder, "class name as text", 0.95, seed, "captions", **about | {"params": ""})
    readout = {"variant": "linear read-out", "seed": 0, "items": "readout", "metric": "readout_accuracy",
               "key": "10 classes", "value": 0.543, "n": 40, "stage": "r", **PIXELS, **ABOUT, "params": ""}
    results.record(folder, "mask_ratio", pd.DataFrame([readout]), pd.DataFrame())


def test_rows_stand_in_the_ablations_order_with_the_references_last(tmp_path):
    put_all(tmp_path)
    table = build_table(tmp_path, "mask_ratio", ABLATION)
    assert [row.name for row in table.entries] == ["Full", "5", "6", captions.NULL_NAME, captions.CEILING_NAME]
    assert [row.paper for row in table.entries] == [45.8, 19.7, 38.3, None, 97.2]
    assert [round(row.top1.mean, 3) for row in table.entries] == [0.6, 0.4, 0.5, 0.1, 0.95]
    assert [row.params for row in table.entries] == [614_352] * 4 + [None]


def test_contrasts_are_paired_judged_as_a_family_and_carry_the_papers_difference(tmp_path):
    put_all(tmp_path)
    first, second = made(tmp_path).differences
    assert (first.name, second.name) == ("Full - 5", "Full - 6")
    right = {name: (np.arange(40) < round(share * 40))[None].astype(float)
             for name, share in (("Full", 0.6), ("5", 0.4), ("6", 0.5))}
    expected = verdicts({"Full - 5": (right["Full"], right["5"]), "Full - 6": (right["Full"], right["6"])})
    assert first.verdict == expected["Full - 5"]
    assert second.verdict == expected["Full - 6"]
    assert first.mean == pytest.approx(0.2)
    assert first.paper == pytest.approx(26.1)


@pytest.mark.parametrize("format", ["text", "md"])
def test_a_row_that_was_not_run_is_shown_as_such(tmp_path, format):
    put(tmp_path, "Full", 0.5)
    table = build_table(tmp_path, "mask_ratio", ABLATION)
    lines = table.render(format).splitlines()
    assert any("Not run: 5, 6, Full, shuffled EEG (null), class name as text (ceiling)." in line
               for line in table.caption)
    for name in ("5", "6", captions.NULL_NAME, captions.CEILING_NAME, "Full - 5"):
        assert any(line.lstrip("| ").startswith(name) and "not run" in line for line in lines), name
    assert "Not run: 5, 6, Full, shuffled EEG (null), class name as text (ceiling)." in " ".join(table.notes)


def test_the_caption_says_what_the_numbers_rest_on(tmp_path):
    put_all(tmp_path)
    caption = " ".join(build_table(tmp_path, "mask_ratio", ABLATION).caption)
    for needed in ("Scale tiny, world 0", "Seeds 0.", "40 test images x 2 samples", "tiny/judge@0123456789ab",
                   "cpu float32 1 thread", "10 of 16", "N=40, reference=100, averaged over 2 samples",
                   "covers the choice of test items only, not training", "pretrain_seeds = each",
                   "54.3 % (10 classes, n = 40)", "the two cannot be compared", "conditional on these trained models",
                   "Leak: no.", "Versions: torch 2.15.0.", "tiny/judge (0123456789ab), which the literature does not"):
        assert needed in caption, needed


def test_several_seeds_are_crossed_and_one_shared_pretraining_forbids_a_verdict(tmp_path):
    put_all(tmp_path, seeds=(0, 1, 2), pretrain_seeds="one")
    table = build_table(tmp_path, "mask_ratio", ABLATION)
    assert table.entries[0].seeds == (0, 1, 2)
    caption = " ".join(table.caption)
    assert "Seeds 0, 1, 2." in caption
    assert "crossed with seeds" in caption
    assert "no verdict about pre-training, mask ratio or size" in caption


def test_a_tiny_number_is_never_in_the_papers_column_without_its_label(tmp_path):
    put_all(tmp_path)
    lines = made(tmp_path).render("md").splitlines()
    header = next(line for line in lines if "FID" in line)
    assert header.split("|")[-2].strip() == "paper, 50-way, ImageNet-EEG, %"
    assert "top-1 of 16 classes, % [95% CI]" in header
    assert "10-way of 16, %" in header


def test_rows_scored_by_another_judge_are_called_not_comparable(tmp_path):
    put_all(tmp_path)
    put(tmp_path, "6", 0.5, judge="tiny/judge@ffff")
    caption = build_table(tmp_path, "mask_ratio", ABLATION).caption
    line, = [line for line in caption if line.startswith("Not comparable")]
    assert line.startswith("Not comparable: rows differ in judge")
    assert "tiny/judge@ffff (6)" in line


def test_without_published_numbers_there_is_no_papers_column_and_a_line_says_so(tmp_path):
    put_all(tmp_path)
    table = build_table(tmp_path, "mask_ratio", ABLATION, published=tmp_path)
    assert columns.PAPER not in table.render("md").replace(" ".join(table.caption), "").split("\n\n")[1]
    assert any("dreamdiffusion_table2.csv does not exist" in line for line in table.caption)


def test_on_a_narrow_terminal_the_columns_that_do_not_fit_follow_below(tmp_path):
    put_all(tmp_path)
    complete = build_table(tmp_path, "mask_ratio", ABLATION).document.complete
    for width in (60, 80, 90, 120):
        assert max(map(len, formats.text(complete, width).splitlines())) <= width
    narrow, wide = (formats.text(complete, width) for width in (90, 250))
    for text in (narrow, wide):
        for shown in ("mask 0.25", "60.0 [43.1, 75.3]", "12.35", "45.8", "614,352"):
            assert shown in text
    assert wide.count("Full, shuffled EEG (null)") < narrow.count("Full, shuffled EEG (null)")


def test_mcnemar_is_taken_over_the_seeds_that_both_rows_have(tmp_path):
    put_all(tmp_path)
    alone = made(tmp_path).differences[0].mcnemar
    put(tmp_path, "Full", 0.6, 1)
    assert set(alone) == {0}
    assert made(tmp_path).differences[0].mcnemar == alone


def test_classifiers_that_differ_from_seed_to_seed_have_their_range(tmp_path):
    put_all(tmp_path)
    assert "linear read-out: 54.3 % (10 classes" in " ".join(made(tmp_path).caption)
    readout = {"variant": "linear read-out", "seed": 1, "items": "readout", "metric": "readout_accuracy",
               "key": "10 classes", "value": 0.643, "n": 40, "stage": "r", **PIXELS, **ABOUT, "params": ""}
    results.record(tmp_path, "mask_ratio", pd.DataFrame([readout]), pd.DataFrame())
    assert "linear read-out: 59.3 % (2 seeds: 54.3 to 64.3) (10 classes" in " ".join(made(tmp_path).caption)


def test_no_column_is_named_that_the_table_does_not_have(tmp_path):
    put_all(tmp_path)
    assert columns.PAPER in " ".join(made(tmp_path).caption)
    assert columns.PAPER not in " ".join(made(tmp_path, changed(published=None)).caption)
    assert "Seconds:" not in " ".join(made(tmp_path, changed(costs=True)).caption)


def test_csv_holds_rows_contrasts_and_mcnemar_as_numbers(tmp_path):
    put_all(tmp_path)
    frame = pd.read_csv(io.StringIO(made(tmp_path).render("csv")), dtype={"name": str})
    given = "McNemar, given these models"
    assert frame["kind"].tolist() == ["row"] * 5 + ["contrast", given] * 2
    assert frame["top1"].round(6).tolist()[:6] == [60, 40, 50, 10, 95, 20]
    assert frame["paper_50way_imagenet_eeg"].round(6).tolist()[5] == 26.1
    assert frame["mean_fid"].tolist()[0] == 12.345
    assert frame.loc[6, ["seed", "p"]].tolist() == [0, pytest.approx(2 / 2**8)]


def test_an_unknown_format_names_those_that_exist(tmp_path):
    put_all(tmp_path)
    with pytest.raises(BenchError, match="there are: text, md, latex, html, csv"):
        made(tmp_path).render("pdf")


def test_settings_are_said_in_words():
    settings = columns.settings_of
    assert settings(Variant("1", mask_ratio=None, align=None)) == ("none", "no", "E+A", "297M")
    assert settings(Variant("x", align="label", tune="A")) == ("mask 0.75", "labels instead", "A", "297M")
    assert settings(Variant("x", sd_loss=False, encoder="/home/me/own.py", size="74M")) == (
        "mask 0.75", "yes, alone", "E+A", "own, 74M")


def test_the_papers_table_2_is_transcribed_in_full():
    rows = pd.read_csv(literature.PUBLISHED / "dreamdiffusion_table2.csv", dtype={"row": str}).set_index("row")
    assert rows["value"].to_dict() == {
        "Full": 45.8, "1": 4.2, "2": 3.7, "3": 32.3, "4": 24.5, "5": 19.7, "6": 38.3, "7": 33.4, "8": 38.5, "9": 36.6,
        "10": 29.8, "11": 28.7, "12": 22.4, "13": 28.3, "14": 20.9, "label": 86.7, "label as input": 97.2}
    assert (rows["n_way"] == 50).all()
    assert rows.loc[["5", "6", "7"], "mask_ratio"].tolist() == [0.25, 0.5, 0.85]


def test_a_table_imports_neither_torch_nor_scipys_statistics(tmp_path):
    put_all(tmp_path, seeds=(0, 1, 2))
    code = ("import sys; from pathlib import Path; from bench.experiment import ablation\n"
            "from bench.tables.build import table\n"
            f"t = table(Path({str(tmp_path)!r}), 'mask_ratio', ablation.load('mask_ratio')); t.render('md'); t.rows\n"
            "heavy = {'torch', 'diffusers', 'scipy.stats', 'sklearn', 'PIL', 'matplotlib', 'rich', 'moabb'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
            "bench = [name for name in sys.modules if name.startswith('bench')]\n"
            "assert len(bench) < 80, bench; assert len(sys.modules) < 1400, len(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_sheet_shows_the_first_item_of_each_class_and_is_the_same_file_again(tmp_path):
    rng = np.random.default_rng(0)
    real, label = rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8), np.array([2, 0, 0, 1, 2, 1, 0, 2, 1])
    names = ("Full", "a long variant name")
    columns = {name: rng.integers(0, 256, (9, 2, 32, 32, 3), dtype=np.uint8) for name in names}
    assert first_of_each(label).tolist() == first_of_each(label, most=3).tolist() == [1, 3, 0]
    assert first_of_each(label, most=2).tolist() == [1, 0]
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
    assert not any("other settings" in line for line in made(tmp_path).caption)
    changed = SimpleNamespace(**vars(ABLATION) | {"variants": [FULL, Variant("5", 0.3), Variant("6", 0.5)]})
    table = build_table(tmp_path, "mask_ratio", changed)
    for lines in (table.caption, table.notes):
        assert any("other settings than the ablation has now; run again: 5." in line for line in lines)
    put(tmp_path, "6", 0.5, config="d")
    table = made(tmp_path)
    for lines in (table.caption, table.notes):
        assert any("rows differ in config" in line for line in lines)


def test_with_one_seed_a_verdict_is_given_these_models_and_with_several_it_is_not(tmp_path):
    put_all(tmp_path)
    assert cell(made(tmp_path).document.complete, "verdict", "Full - 5", 1) == "better, given these models"
    put_all(tmp_path, seeds=(1, 2))
    printed = made(tmp_path).document.complete
    assert cell(printed, "verdict", "Full - 5", 1) == "better"
    assert "conditional" not in " ".join(printed.notes)


def test_a_contrast_says_which_difference_it_detects_and_how_many_seeds_that_takes(tmp_path):
    put(tmp_path, "Full", 0, right=np.arange(40) % 2 == 0)
    put(tmp_path, "5", 0, right=np.arange(40) % 2 == 1)
    put(tmp_path, "6", 0, right=np.arange(40) % 3 == 0)
    printed = made(tmp_path).document.complete
    assert cell(printed, "verdict", "Full - 6", 1) == "not resolved, given these models"
    assert 20 < float(cell(printed, "detects", "Full - 6", 1)) < 60
    with pytest.raises(ValueError, match="to unpack"):  # one seed tells nothing about other seeds
        cell(printed, "seeds for 5 points", "Full - 6", 1)
    put(tmp_path, "Full", 0, 1, right=np.arange(40) % 2 == 1)
    put(tmp_path, "5", 0, 1, right=np.arange(40) % 2 == 1)
    put(tmp_path, "6", 0, 1, right=np.arange(40) % 3 == 1)
    printed = made(tmp_path).document.complete
    five, ten = (cell(printed, f"seeds for {points} points", "Full - 6", 1) for points in (5, 10))
    assert five == "more than 1,000"  # 40 images do not do it
    assert ten == "more than 1,000" or int(ten) > 2
    assert cell(printed, "test", "Full - 6", 1) == "plain"


def test_one_shared_pretraining_gives_no_verdict_where_it_matters_and_one_where_it_does_not(tmp_path):
    put_all(tmp_path, seeds=(0, 1), pretrain_seeds="one")
    for seed in (0, 1):
        put(tmp_path, "E", 0.3, seed, pretrain_seeds="one")
    two = changed(variants=[*ABLATION.variants, Variant("E", tune="E")], contrasts=[("Full", "5"), ("Full", "E")])
    pretrained, opened = made(tmp_path, two).differences
    assert pretrained.verdict is None
    assert pretrained.outcome == "no verdict: one pre-training"
    assert opened.verdict.word == "better"
    assert cell(made(tmp_path, two).document.complete, "top-1", "Full - 5", 1) == "+20.0"
    assert any("This table gives no verdict about pre-training" in note for note in made(tmp_path, two).notes)


def test_a_contrast_of_rows_with_other_test_pictures_is_said_not_to_be_paired(tmp_path):
    put_all(tmp_path)
    put(tmp_path, "6", 0.5, pictures=30)
    first, second = made(tmp_path).differences
    assert first.verdict is not None
    assert second.outcome.endswith("not paired: other test images")
    assert not second.mcnemar
    put(tmp_path, "6", 0.5, seed=7)
    put_all(tmp_path)
    assert made(tmp_path).differences[1].verdict is not None


def test_the_gain_is_over_the_rows_own_null_paired_and_a_share_of_the_ceilings(tmp_path):
    put_all(tmp_path)
    put(tmp_path, "5 / EEG shuffled", 0.3, items="shuffled")
    put(tmp_path, "6 / EEG shuffled", 0.2, items="shuffled")
    table = made(tmp_path)
    full, five, six, null, ceiling = table.entries
    assert (full.gain.mean, five.gain.mean, six.gain.mean) == pytest.approx((0.5, 0.1, 0.3))
    assert (full.share_of_ceiling, five.share_of_ceiling) == pytest.approx((0.5 / 0.85, 0.1 / 0.65))
    assert null.gain is ceiling.gain is None
    assert cell(table.document.short, "gain over null", "5").startswith("+10.0 [")
    assert "Gain: difference to the row's own shuffled EEG (null)." in " ".join(table.notes)
    assert not any("Also recorded" in line for line in table.caption)


@pytest.mark.parametrize("details", [False, True])
def test_there_is_no_gain_where_a_row_lacks_its_own_null_even_if_fulls_was_run(tmp_path, details):
    put_all(tmp_path)
    put(tmp_path, "5 / EEG shuffled", 0.3, items="shuffled")
    table = made(tmp_path)
    gains = {row.name: row.gain for row in table.entries}
    assert gains["Full"].mean == pytest.approx(0.5)
    assert gains["5"].mean == pytest.approx(0.1)
    assert gains["6"] is None
    text = table.render(details=details)
    assert "gain over null," not in text
    assert "null to ceiling" not in text
    assert ("The gain over the null is not shown: it needs the shuffled EEG of each row (bench run --nulls each)."
            in " ".join(table.caption))
    assert "Best row: Full, 60.0 % (null 10.0 %" in table.finding
    put(tmp_path, "Full", 0.2)
    assert "Best row: 6 (mask 0.5), 50.0 % (Full's null 10.0 %" in made(tmp_path).finding


def test_a_metric_of_images_has_its_interval_with_details_and_in_the_csv(tmp_path):
    put_all(tmp_path)
    table = made(tmp_path)
    expected = crossed_interval(9.5 + np.arange(40)[None] / 40)
    assert table.entries[0].intervals["psnr"] == expected
    assert cell(table.document.complete, "PSNR", "Full") == f"10.0 [{expected.low:.1f}, {expected.high:.1f}]"
    assert cell(table.document.complete, "SSIM", "Full") == "0.310", "no values of the images: no interval"
    assert table.rows.loc[0, ["mean_psnr_low", "mean_psnr_high"]].tolist() == pytest.approx(
        [expected.low, expected.high])


def test_fulls_null_by_permutation_stands_beside_the_measured_one(tmp_path):
    put_all(tmp_path)
    line, = [line for line in made(tmp_path).caption if "permuted labels" in line]
    label = np.arange(40) * 7 % 10
    judged = np.where(np.arange(40) < 24, label, (label + 10) % 16)
    expected = 100 * (judged[:, None] == label).mean()
    found = re.search(r"shuffled EEG 10\.0 \[\S+ \S+\] % and permuted labels (\S+) \[(\S+), (\S+)\] % "
                     r"\(1,000 permutations; Full: p = 0\.001\)", line)
    assert float(found[1]) == pytest.approx(expected, abs=0.05)
    assert float(found[2]) < expected < float(found[3])
    assert made(tmp_path).caption == made(tmp_path).caption


def test_a_row_that_failed_says_so_with_its_reason_and_loses_no_other(tmp_path):
    put_all(tmp_path)
    put_all(tmp_path, seeds=(1,))
    for seed in (0, 1):
        fail(tmp_path, "5", "RuntimeError: out of memory | 8 GiB", seed)
    fail(tmp_path, "6", "killed", 1)
    table = made(tmp_path)
    printed = table.document.complete
    assert cell(printed, "top-1", "5") == "failed"
    assert cell(table.document.short, "top-1", "5") == "failed"
    assert cell(printed, "seeds", "6") == "1"
    assert cell(printed, "verdict", "Full - 5", 1) == "failed"
    assert table.differences[1].verdict.interval.seeds == 1
    assert "Failed: 5, seed 1: RuntimeError: out of memory | 8 GiB." in table.caption
    assert "Failed: 6, seed 1: killed." in table.caption
    assert "Failed: 3 runs of 5, 6; the first: 5, seed 0: RuntimeError: out of memory" in table.notes[0]
    assert "2 rows failed" in table.finding
    assert not any(line.startswith("Not run") for line in table.caption)
    frame = pd.read_csv(io.StringIO(table.render("csv")), dtype={"name": str})
    assert frame.loc[frame["kind"] == "row", "failed"].tolist() == [0, 1, 0, 0, 0]


def test_a_table_of_failures_alone_can_be_shown(tmp_path):
    fail(tmp_path, "Full", "no GPU")
    table = made(tmp_path)
    assert cell(table.document.complete, "top-1", "Full") == "failed"
    lines = ("Failed: Full, seed 0: no GPU.", "Nothing is scored yet; run: bench run --ablation mask_ratio")
    assert table.caption == table.notes == lines
    assert table.finding == "1 row failed."


@dataclass(frozen=True)
class Control:
    """A spec as of a system without settings."""

    name: str
    eeg: str = "real"
    eeg_free: bool = False
    system: ClassVar[str] = "trivial"


def test_rows_that_cannot_know_the_stimulus_are_tested_against_permuted_labels_as_a_family(tmp_path):
    rng = np.random.default_rng(0)
    put_all(tmp_path)
    free = [Control("EEG zero", "zero", True), Control("random picture", eeg_free=True), Control("leak", "mean", True)]
    for spec, share in zip(free, (0.06, 0.06, 0.5), strict=True):
        put(tmp_path, spec.name, 0, items=spec.eeg, right=rng.random(40) < share)
    table = made(tmp_path, changed(variants=[FULL, *free, Control("VAE")], contrasts=[("Full", "EEG zero")]))
    by_name = {row.name: row for row in table.entries}
    assert by_name["Full"].null is None
    assert by_name["VAE"].top1 is None
    assert by_name["EEG zero"].settings == ("-",) * 4
    assert by_name["leak"].exceeds == pytest.approx(3 / 1001)
    assert by_name["EEG zero"].exceeds > 0.05
    printed = table.document.complete
    assert cell(printed, "exceeds", "leak") == "yes, p = 0.003"
    assert cell(printed, "exceeds", "random picture").startswith("no, p = ")
    assert cell(printed, "permuted labels", "Full") == "-"
    assert cell(printed, "verdict", "Full - EEG zero", 1) == "better, given these models"
    assert any("3 rows cannot know the stimulus" in line and "Holm over these rows: leak at 0.05" in line
               for line in table.caption)
    assert table.notes[0] == "Above chance although the row cannot know the stimulus: leak."


def test_controls_that_were_run_beside_the_rows_are_rows_where_they_are_asked_for(tmp_path):
    put_all(tmp_path)
    put(tmp_path, "5 / EEG zero", 0.05, items="zero")
    assert made(tmp_path).caption[-2] == (
        "Also recorded (bench table mask_ratio --with-controls): 5 / EEG zero.")
    with_them = made(tmp_path, with_controls(changed_ablation()))
    row, = [row for row in with_them.entries if row.name == "5 / EEG zero"]
    assert row.settings == ("mask 0.25", "yes", "E+A", "297M")
    assert row.top1.mean == pytest.approx(0.05)
    assert row.exceeds > 0.05
    again = named.named("mask_ratio", tmp_path, controls=True)
    assert again.document.complete.blocks[0][0].cells.count("5 / EEG zero  mask 0.25") == 1


def test_the_order_of_the_rows_is_compared_with_the_papers_where_there_are_four(tmp_path):
    put_all(tmp_path)
    assert not any("Kendall" in line for line in made(tmp_path).caption)
    put(tmp_path, "7", 0.45)
    line, = [line for line in made(tmp_path, changed(variants=[*ABLATION.variants, Variant("7", 0.85)])).caption
             if "Kendall" in line]
    assert line.startswith("Kendall's tau-b with the paper's order of 4 rows: +1.00 [-0.67, +1.00], expected +0.00 "
                           "[-0.81, +0.81], p = 0.042.")
    assert "if every order of the rows is equally likely" in line
    assert "with one seed [ ] is too narrow" in line


def test_the_agreement_with_the_paper_is_shown_beside_the_one_that_clip_alone_gives(tmp_path):
    names = {"Full": 0.6, "5": 0.5, "13": 0.2, "14": 0.3}  # the paper: 45.8, 19.7, 28.3, 20.9
    for name, share in names.items():
        put(tmp_path, name, share)
    asked = changed(variants=[FULL, Variant("5", 0.25), Variant("13", align=None), Variant("14", align=None, tune="A")],
                    contrasts=[("Full", "5")])
    table = made(tmp_path, asked)
    whole, within, clip, without = table.agreements
    assert (whole.tau, whole.expected) == pytest.approx((0, 0))  # 2 + 1 - 2 - 1 pairs
    assert (clip.tau, without.tau, within.tau) == pytest.approx((1, -1, 0))
    assert (whole.p, clip.p, without.p) == pytest.approx((0.75, 0.5, 1))
    note, = [note for note in table.notes if "Kendall" in note]
    assert note == ("Order of the 4 rows: Kendall's tau with the paper's +0.00; expected if only CLIP alignment "
                    "mattered: +0.00 (p = 0.750).")
    assert "with CLIP alignment (2 rows) +1.00" in " ".join(table.caption)
    lines = pd.read_csv(io.StringIO(table.render("csv"))).query("kind == 'order'").set_index("name")
    assert lines["tau"].to_dict() == pytest.approx({"all": 0, "within": 0, "with CLIP alignment": 1,
                                                    "without alignment": -1})
    assert lines.loc["all", ["rows", "tau_expected", "p"]].tolist() == pytest.approx([4, 0, 0.75])


def test_the_agreement_of_rows_with_other_seeds_is_left_out_with_the_reason(tmp_path):
    for seed, name in enumerate(("Full", "5", "6", "7")):
        put(tmp_path, name, 0.5, seed)
    table = made(tmp_path, changed(variants=[*ABLATION.variants, Variant("7", 0.85)]))
    assert "Kendall's tau with the paper's order is left out: the rows share no seed, or no test images." in \
        table.caption
    assert not any("Kendall" in note for note in table.notes)


def test_rows_that_leak_are_named(tmp_path):
    put_all(tmp_path)
    put(tmp_path, "6", 0.5, leaky="yes: same block")
    table = made(tmp_path)
    assert any(line.startswith("Leak: no (5, Full, class name as text); yes: same block (6). Versions: torch")
               for line in table.caption)
    assert table.notes[0] == "Leak in 6: same block."
    assert table.finding.startswith("Best row without a leak: Full, 60.0 %")


NASTY = r"a_b & 50% {x} $y$ #1 ~^ <i>\'|'</i> -3"


def test_latex_is_balanced_escaped_and_as_wide_as_it_says(tmp_path):
    put_all(tmp_path)
    put(tmp_path, NASTY, 0.2)
    put(tmp_path, "[sic]", 0.2)
    latex = made(tmp_path, changed(title="100 % of & _", variants=[
        FULL, Variant(NASTY), Variant("[sic]"), Variant("5", 0.25), Variant("6", 0.5)])).render("latex")
    begun = re.findall(r"\\(begin|end)\{(\w+\*?)\}", latex)
    stack = []
    for which, name in begun:
        if which == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    assert re.sub(r"\\[{}]", "", latex).count("{") == re.sub(r"\\[{}]", "", latex).count("}")
    bodies = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", latex, re.S)
    assert len(bodies) == 2
    for layout, body in bodies:
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(lines) >= 3
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(layout) - 1}
        assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"a\_b \& 50\% \{x\} \$y\$ \#1 \textasciitilde{}\textasciicircum{} \textless{}i" in latex
    assert r"\textbackslash{}'\textbar{}'" in latex
    assert "    {}[sic] &" in latex
    plain = re.sub(r"^%.*", "", latex)
    assert not re.search(r"(?<!\\)[%#_]", plain)
    assert r"\caption{100 \% of \& \_}" in latex


class Page(HTMLParser):
    """Counts cells by row and keeps the text."""

    def __init__(self):
        super().__init__()
        self.rows, self.texts, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not {"src", "href"} & {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append(0)
        elif tag in ("td", "th"):
            self.rows[-1] += 1

    def handle_data(self, data):
        self.texts.append(data)


def test_html_is_one_page_that_loads_nothing_and_escapes_text(tmp_path):
    put_all(tmp_path)
    put(tmp_path, NASTY, 0.2)
    html = made(tmp_path, changed(variants=[FULL, Variant(NASTY), *ABLATION.variants[1:]])).render("html")
    page = Page()
    page.feed(html)
    assert html.startswith("<!doctype html>")
    assert page.tags.count("table") == 2
    assert len(set(page.rows[:7])) == 1
    assert len(set(page.rows[7:])) == 1
    assert NASTY in page.texts
    assert not {"i", "script", "link", "img"} & set(page.tags)


def test_markdown_keeps_a_bar_in_a_name_inside_its_cell(tmp_path):
    put_all(tmp_path)
    put(tmp_path, NASTY, 0.2)
    block = made(tmp_path, changed(variants=[FULL, Variant(NASTY)], contrasts=[])).render("md").split("\n\n")[1]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_table_1_never_puts_the_judges_distance_under_lpips(tmp_path):
    for seed in (0, 1):
        put(tmp_path, "Full", 0.6, seed, ablation="mine")
    document = named.named("table1", tmp_path)
    printed = document.complete
    ours, paper = "Full, scale tiny", "Ours, as printed"
    assert printed.blocks[0][0].cells == ("Brain2Image, as printed", paper, ours)
    assert [cell(printed, header, paper) for header in ("FID", "IS", "PSNR", "SSIM", "LPIPS", "judge")] == [
        "3.61", "28.54", "14.6", "0.267", "0.644", "-"]
    assert cell(printed, "LPIPS", ours) == "not measured at tiny"
    assert cell(printed, "judge distance, no LPIPS", ours) == "0.420 (SD 0.000), by judge"
    assert cell(printed, "FID", ours) == "12.35 (SD 0.00), by judge"
    assert re.fullmatch(r"10\.0 \[9\.\d, 10\.\d\]", cell(printed, "PSNR", ours))
    assert cell(printed, "SSIM", ours) == "0.310 (SD 0.000)"
    assert any("mine, scale tiny" in line and "they cannot be compared with Full's row" in line
               for line in printed.notes)
    assert cell(document.short, "LPIPS", ours) == "-"
    assert cell(document.short, "FID", ours) == "12.35 *"
    assert cell(document.short, "SSIM", ours) == "0.310"
    assert "*: with the features of tiny/judge, which the literature does not use." in document.short.notes
    with pytest.raises(BenchError, match=r"no results of Full in .*; make them with: bench run --ablation table2"):
        named.named("table1", tmp_path / "nowhere")


def test_a_csv_that_lies_anywhere_is_shown_with_its_metrics(tmp_path):
    put(tmp_path, "Full", 0.6, scale="external", versions="")
    shutil.copy(tmp_path / "mask_ratio.csv", tmp_path / "theirs.csv")
    document = named.named(str(tmp_path / "theirs.csv"), tmp_path)
    printed = document.complete
    assert [column.header for column in printed.blocks[0]] == [
        "metric", "of", "value", "N", "extractor", "compares with the literature"]
    assert [column.header for column in document.short.blocks[0]] == ["metric", "of", "value"]
    assert cell(document.short, "value", "fid") == "12.345 *"
    assert cell(document.short, "value", "psnr") == "10"
    assert cell(printed, "value", "fid") == "12.345"
    assert cell(printed, "compares", "fid") == "no"
    assert cell(printed, "compares", "psnr") == "yes"
    assert "Scale external." in printed.notes[0]
    for format in formats.FORMATS:
        assert "psnr" in document.render(format)
    with pytest.raises(BenchError, match="no file"):
        named.named(str(tmp_path / "missing.csv"), tmp_path)


def test_the_suites_own_run_gives_every_format_from_its_csv_alone(tmp_path):
    for name in ("table2.csv", "table2.items.csv.gz", "table2.sha256"):
        shutil.copy(REFERENCE / name, tmp_path)
    rows = pd.read_csv(tmp_path / "table2.csv", dtype={"variant": str})
    full = rows[(rows["variant"] == "Full") & (rows["items"] == "real") & (rows["metric"] == "top1_label")]["value"]
    for format in formats.FORMATS:
        assert f"{int(100 * full.mean())}." in named.named("table2", tmp_path).render(format)
    assert named.named("table1", tmp_path).render("md").count("\n|") == 5
    data, value = (tmp_path / "table2.csv").read_bytes(), f",{full.iloc[0]:.10g},".encode()
    assert value in data
    (tmp_path / "table2.csv").write_bytes(data.replace(value, b",0.5123,", 1))
    with pytest.raises(BenchError, match=r"table2\.csv was changed since bench wrote it"):
        named.named("table2", tmp_path)


def document(tmp_path, text=""):
    put_all(tmp_path / "results" / "tiny")
    path = tmp_path / "README.md"
    path.write_text(f"# Mine\n\n```\n<!-- bench table NAME -->\n```\n\n<!-- bench table mask_ratio -->\n{text}"
                    "<!-- end -->\n\nThe end.\n")
    return path


def test_a_table_in_a_document_is_checked_against_its_csv_and_put_right_on_demand(tmp_path):
    path, root = document(tmp_path, "\nold\n"), tmp_path / "results"
    before = path.read_text()
    difference, = check.check(path, root)
    assert (difference.line, difference.found) == (9, "old")
    assert str(difference).startswith(f"{path}, line 9: the table mask_ratio differs from its CSV: found 'old'")
    assert path.read_text() == before
    check.check(path, root, write=True)
    text = path.read_text()
    assert text.startswith(before.split("old")[0])
    assert text.endswith("<!-- end -->\n\nThe end.\n")
    assert named.named("mask_ratio", root / "tiny").render("md", details=False) in text
    assert check.check(path, root) == []
    path.write_text(text.replace("| Full | 60.0 [", "| Full | 60.1 ["))
    difference, = check.check(path, root)
    assert "60.1" in difference.found
    assert "60.0" in difference.expected
    assert path.read_text().splitlines()[difference.line - 1] == difference.found
    path.write_text(text.replace("<!-- end -->", "one line more\n<!-- end -->"))
    assert len(check.check(path, root)) == 1


def test_a_mark_with_details_has_the_complete_table(tmp_path):
    path, root = document(tmp_path), tmp_path / "results"
    path.write_text(path.read_text().replace("table mask_ratio -->", "table mask_ratio --details -->"))
    check.check(path, root, write=True)
    assert named.named("mask_ratio", root / "tiny").render("md") in path.read_text()
    assert check.check(path, root) == []


def test_a_number_that_changed_in_the_results_makes_the_document_wrong(tmp_path):
    path, root = document(tmp_path), tmp_path / "results"
    check.check(path, root, write=True)
    put(root / "tiny", "5", 0.45)
    difference, = check.check(path, root)
    assert difference.found.startswith("| 5: mask 0.25 | 40.0 [")
    assert difference.expected.startswith("| 5: mask 0.25 | 45.0 [")


@pytest.mark.parametrize(("text", "line"), [
    ("nothing here\n", "no table is marked; a mark is"),
    ("<!-- bench table mask_ratio -->\n", "line 1: <!-- end --> is missing"),
    ("<!-- bench table a -->\n<!-- bench table b -->\n<!-- end -->", "line 2: a mark must name a table"),
    ("<!-- bench table -->\n<!-- end -->", "line 1: a mark must name a table"),
    ("<!-- bench table mask_ratio --wide -->\n<!-- end -->", "line 1: '--wide' is not valid"),
    ("<!-- bench table mask_ratio clip -->\n<!-- end -->", "line 1: 'clip' is not valid"),
    ("\n<!-- bench table mask -->\n<!-- end -->", "line 2: no ablation 'mask'; there are"),
    ("<!-- bench table clip --reference -->\n<!-- end -->", "line 1: no results of 'clip' in .*reference/tiny"),
    ("<!-- bench table clip --scale micro -->\n<!-- end -->", "no results of 'clip' in .*results/micro"),
    ("<!-- bench table 'clip -->\n<!-- end -->", "line 1: .* is not valid: No closing quotation"),
])
def test_a_mark_that_is_not_understood_is_one_line_with_its_place(tmp_path, text, line):
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(BenchError, match=r"page\.md[,:] ?.*" + line):
        check.check(path, tmp_path / "results")
    with pytest.raises(BenchError, match="no file"):
        check.check(tmp_path / "none.md", tmp_path / "results")


def test_every_published_number_names_its_source_and_how_it_was_read():
    for path in sorted(literature.PUBLISHED.glob("*.csv")):
        rows = pd.read_csv(path, dtype={"row": str})
        assert {"paper", "place", "row", "metric", "value", "unit", "n_way", "dataset", "note"} <= set(rows), path.name
        assert rows[["paper", "place", "row", "metric", "value"]].notna().all().all(), path.name
        assert np.isfinite(rows["value"].astype(float)).all()
        assert not rows.duplicated(["paper", "place", "row", "metric", "dataset"]).any(), path.name
    neighbours = pd.read_csv(literature.PUBLISHED / "neighbours.csv")
    assert set(neighbours["read_in"]) <= {"paper", "abstract", "code", "figure", "secondary", "not noted"}
    assert len(neighbours) > 50


def test_the_newer_neighbours_name_the_copy_that_was_read_and_those_that_could_not_be_read_have_no_number():
    rows = pd.read_csv(literature.PUBLISHED / "neighbours.csv", keep_default_na=False, dtype=str)
    newer = {"2602.22555": "paper", "2603.12722": "abstract", "2604.08063": "abstract", "2607.12364": "abstract",
             "2404.01250": "code", "NeuralBench": "code"}
    for name, read_in in newer.items():
        found = rows[rows["paper"].str.contains(name, regex=False)]
        assert set(found["read_in"]) == {read_in}, name
        assert found["seen_in"].ne("").all(), name
    assert rows.loc[rows["read_in"] == "code", "seen_in"].ne("").all()
    assert not rows["paper"].str.contains("2602.10361", regex=False).any(), "no score of ENIGMA could be read"
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    assert all(name in page for name in [*newer, "2602.10361"])


def test_a_retrieval_accuracy_of_a_newer_neighbour_states_its_gallery_space_and_averaging():
    rows = pd.read_csv(literature.PUBLISHED / "neighbours.csv", keep_default_na=False, dtype=str)
    rows = rows[rows["seen_in"].ne("") & rows["metric"].isin(["retrieval_top1", "retrieval_top5"])]
    assert len(rows) == 37, "AVDE's five methods in two splits with two accuracies, and 17 rows of NeuralBench"
    assert rows[["n_way", "dataset", "subjects", "space", "averaged"]].ne("").all().all()
    chance = rows[rows["row"] == "Dummy, NeuralBench"].iloc[0]
    assert float(chance["value"]) == 100 * 5 / int(chance["n_way"])


def test_two_numbers_of_one_model_that_contradict_each_other_are_written_down():
    rows = pd.read_csv(literature.PUBLISHED / "neighbours.csv")
    ours = rows[rows["value"].isin([26.13, 28.64]) & (rows["metric"] == "retrieval_top1")]
    assert set(ours["value"]) == {26.13, 28.64}
    assert ours["contradicts"].notna().all()


def test_choosing_a_checkpoint_is_shown_beside_the_last_and_the_best_on_test_only_as_inflation(tmp_path):
    variants = [On(FULL, f"{which} {part}", part=part, checkpoint=(which, 3)) for part in ("test", "val")
                for which in (1, 2, 3)]
    chosen = SimpleNamespace(name="mask_ratio", title="t", published=None, contrasts=[], variants=variants)
    reached = {"test": (0.5, 0.6, 0.4), "val": (0.7, 0.3, 0.2)}
    for v in variants:
        put(tmp_path, v.name, reached[v.part][v.checkpoint[0] - 1])
    table = made(tmp_path, chosen)
    line, = [line for line in table.caption if line.startswith("Selection")]
    assert "the last of 3 checkpoints 40.0 (the headline); the best on validation 50.0." in line
    assert "Only to show the inflation: the best on test 60.0 (+20.0)" in line
    assert line in table.notes
    assert table.finding.startswith("Best row: 3 test (checkpoint 3 of 3), 40.0 %"), "not a selected checkpoint"
    assert not any(line.startswith("Selection") for line in made(tmp_path).caption)


@pytest.mark.parametrize("document", ["README.md", "docs/reference.md"])
def test_the_tables_that_are_shown_are_those_of_the_committed_csvs(document):
    root = Path(__file__).parents[2]
    assert check.check(root / document, root / "results") == []
