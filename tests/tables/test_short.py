"""The short form: at most eight columns, five notes and 100 characters; the finding; rows from other CSVs."""

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from test_tables import ABLATION, REFERENCE, changed, fail, made, put, put_all

import bench
from bench import FULL, On
from bench.cli import main
from bench.errors import BenchError
from bench.experiment import ablation
from bench.experiment.variant import Variant
from bench.setup.request import Request
from bench.tables import formats, named, results
from bench.tables.build import table as build_table
from bench.tables.columns import baseline_of

COMMITTED = sorted(path.stem for path in REFERENCE.glob("*.sha256"))
SLICES = ("mask_ratio", "clip", "encoder_size", "pretraining", "freezing", "figure5")


@cache
def reference(name):
    """A table of the suite's own run."""
    return named.named(name, REFERENCE)


def check_limits(table):
    """Raises AssertionError for a short form that is too large."""
    for block in table.document.short.blocks:
        assert len(block) <= 8
        assert len({len(column.cells) for column in block}) == 1
    assert len(table.notes) <= 5
    text = table.render()
    assert max(map(len, text.splitlines())) <= 100
    return text


@pytest.mark.parametrize("name", [*COMMITTED, *SLICES, "table1"])
def test_a_table_has_at_most_eight_columns_five_notes_and_100_characters(name, monkeypatch):
    for columns in ("100", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        document = reference(name)
        document = getattr(document, "document", document)
        text = check_limits(SimpleNamespace(document=document, notes=document.short.notes, render=document.render))
    first_cells = {block[0].cells for block in document.short.blocks}
    for line in text.splitlines():  # every block is in one piece: nothing follows below it
        assert line.split("  ")[0] != "row" or text.count(f"\n{line}") == 1
    assert text.count("\n---") == len(first_cells)
    assert any(note.startswith("More") and note.endswith("--details") for note in document.short.notes)
    assert len(document.complete.notes) > 5 or name in SLICES or name == "table1"


@pytest.mark.parametrize("name", COMMITTED)
def test_the_complete_form_has_every_column_and_every_metric(name):
    table = reference(name)
    short, complete = ({column.header for block in printed.blocks for column in block}
                       for printed in (table.document.short, table.document.complete))
    assert len(complete) > len(short)
    assert {"row", "seeds"} <= complete
    text = table.render(details=True)
    assert [row.label for row in table.entries] == list(table.document.complete.blocks[0][0].cells)
    for part in ("Versions: torch", "Numerics cpu", "which the literature does not use"):
        assert part in " ".join(table.caption)
        assert part not in " ".join(table.notes)
    assert max(map(len, text.splitlines())) <= 100
    for format in ("md", "html", "latex"):
        assert table.render(format) == formats.FORMATS[format](table.document.complete)
    assert table.render("md", details=False) == formats.markdown(table.document.short)


def test_the_note_on_fid_has_the_value_of_random_training_images_where_they_are_a_row():
    controls, table2 = (" ".join(reference(name).notes) for name in ("controls", "table2"))
    row, = [row for row in reference("controls").entries if row.name == "random training picture"]
    assert f"it says nothing about the EEG: random training images reach {row.means['fid']:.2f}." in controls
    assert "lower is better; it says nothing about the EEG. " in f"{table2} "


def test_rows_are_named_by_number_and_change_and_contrasts_in_words():
    rows, contrasts = reference("table2").document.short.blocks
    assert [column.header for column in rows] == [
        "row", "top-1 of 16 classes, % [95% CI]", "gain over null, points [95% CI]", "10-way of 16, %", "FID",
        "verdict against Full", "paper's 50-way, %"]
    assert rows[0].cells[:4] == ("Full", "1  no pre-training, no CLIP", "2  no pre-training, no CLIP, encoder 18.3M",
                                 "3  no pre-training")
    assert "8  encoder 458M" in rows[0].cells
    assert "Full - 3 (no pre-training)" in contrasts[0].cells
    assert "13 - 14 (only A tuned), both no CLIP" in contrasts[0].cells
    words = dict(zip(rows[0].cells, rows[5].cells, strict=True))
    assert [words[row] for row in ("13  no CLIP", "3  no pre-training", "6  mask 0.5", "Full")] == [
        "worse", "better", "not resolved", "-"]


def test_the_finding_is_one_sentence_with_best_row_null_ceiling_and_contrasts():
    finding = {name: reference(name).finding for name in COMMITTED}
    assert finding["table2"] == ("Best row: 3 (no pre-training), 77.8 % (null 9.4 %, ceiling 99.2 %); 6 of 15 "
                                 "contrasts are resolved (4 of 4 primary).")
    assert finding["controls"].startswith("Best row: caption by EEGNet"), "no oracle and no row without EEG"
    assert finding["guided_retrieval"].startswith("Best row without a leak: ENIGMA in-subject, 60.4 % (null 0.8 %)")
    assert finding["block_design"].startswith("Best row without a leak: signal / interleaved / by item")


def test_the_finding_names_a_single_seed_failed_rows_and_a_null_that_was_not_run(tmp_path):
    put(tmp_path, "Full", 0.6)
    put(tmp_path, "5", 0.4)
    fail(tmp_path, "6", "killed")
    assert made(tmp_path).finding == (
        "Best row: Full, 60.0 % (null not run); 1 of 2 contrasts is resolved; 1 row failed; one seed was run, so this "
        "holds for these trained models only.")
    put_all(tmp_path, seeds=(0, 1))
    assert made(tmp_path).finding == ("Best row: Full, 60.0 % (null 10.0 %, ceiling 95.0 %); 2 of 2 contrasts are "
                                      "resolved.")


def test_warnings_come_first_and_none_is_lost_where_there_are_many(tmp_path):
    put_all(tmp_path)
    put(tmp_path, "5", 0.4, leaky="yes: same block", config="d", judge="other@1")
    put(tmp_path, "6", 0.5, seed=1)
    for seed in (2, 3, 4):
        fail(tmp_path, "6", "out of memory", seed)
    table = made(tmp_path, changed(variants=[FULL, Variant("5", 0.3), Variant("6", 0.5)]))
    check_limits(table)
    text = " ".join(table.notes)
    assert table.notes[0].startswith("Failed: 3 runs of 6; the first: 6, seed 2: out of memory.")
    for warning in ("Leak in 5: same block.", "Not comparable: rows differ in config, judge.",
                    "Rows differ in seeds: 0 (Full, 5, Full, shuffled EEG (null), class name as text (ceiling)); "
                    "0, 1 (6).",
                    "run again: 5.", "Results at scale `tiny` check the software; they say nothing about brains."):
        assert warning in text, warning
    assert table.notes[-1] == "More: bench table mask_ratio --details"


def test_many_names_are_counted(tmp_path):
    variants = [FULL, *(Variant(f"row{n}", 0.5) for n in range(9))]
    for variant in variants:
        put(tmp_path, variant.name, 0.5, leaky="yes: same block")
    table = made(tmp_path, changed(variants=variants, contrasts=[]))
    assert table.notes[0].startswith("Leak in Full, row0, row1, row2 and 6 more: same block.")


def copy(folder, *names, source=REFERENCE):
    folder.mkdir(exist_ok=True)
    for name in names:
        for ending in (".csv", ".items.csv.gz", ".sha256"):
            shutil.copy(source / f"{name}{ending}", folder)
    return folder


def test_a_slice_is_printed_from_the_csv_that_holds_its_rows(tmp_path):
    whole = named.named("table2", copy(tmp_path, "table2"))
    part = named.named("mask_ratio", tmp_path)
    assert part.notes[0] == "No mask_ratio.csv: rows with the same settings are from table2.csv (Full, 5, 6, 7)."
    assert part.notes[0] in part.caption
    by_name = {row.name: row for row in whole.entries}
    assert [row.name for row in part.entries] == ["Full", "5", "6", "7", "Full, shuffled EEG (null)",
                                                  "class name as text (ceiling)"]
    for row in part.entries:
        assert (row.top1, row.gain, row.means) == (by_name[row.name].top1, by_name[row.name].gain,
                                                   by_name[row.name].means)
    nulls = {f"{name} / EEG shuffled" for name in ("5", "6", "7")}
    assert set(part.scores["variant"]) == {"Full", "5", "6", "7", *nulls, "class name as text", "eegnet classifier",
                                           "ridge classifier"}
    assert any("5: 70.6 %" in line for line in part.caption)


def test_a_slice_is_put_together_from_several_csvs_under_its_own_names(tmp_path):
    copy(tmp_path, "table2", "supervision")
    table = named.named("clip", tmp_path)
    assert table.notes[0] == (
        "Rows differ in seeds: 0, 1, 2, 3, 4, 5, 6, 7 (Full, 13, 3, 1 and 4 more); 0, 1, 2 (label). No clip.csv: rows "
        "with the same settings are from table2.csv (Full, 13, 3, 1, 4, 2), supervision.csv (label).")
    assert all(row.top1 for row in table.entries)
    assert all(contrast.verdict for contrast in table.differences)
    for path in tmp_path.glob("supervision.*"):
        path.unlink()
    renamed = named.named("supervision", tmp_path)
    rows = {row.name: row for row in renamed.entries}
    assert rows["none"].top1 == {row.name: row for row in table.entries}["13"].top1, "the same settings, another name"
    assert rows["label"].top1 is None
    assert any("Not run: label" in note for note in renamed.notes)


def test_an_ablations_own_csv_comes_first_and_other_settings_are_not_taken(tmp_path):
    copy(tmp_path, "table2")
    other = SimpleNamespace(**vars(ABLATION) | {"name": "mine", "variants": [Variant("a", 0.3)], "contrasts": []})
    with pytest.raises(BenchError, match=r"no results of 'mine' in .*; there are: table2"):
        build_table(tmp_path, "mine", other)
    put(tmp_path, "Full", 0.5)
    table = named.named("mask_ratio", tmp_path)
    assert not any("same settings" in note for note in table.notes)
    assert [row.name for row in table.entries if row.top1] == ["Full"]


def test_a_slice_of_a_csv_that_was_changed_by_hand_is_refused(tmp_path):
    copy(tmp_path, "table2")
    data = (tmp_path / "table2.csv").read_bytes()
    (tmp_path / "table2.csv").write_bytes(data.replace(b",0.7", b",0.8", 1))
    with pytest.raises(BenchError, match=r"table2\.csv was changed since bench wrote it"):
        named.named("mask_ratio", tmp_path)


def test_a_control_is_found_by_its_settings_and_its_eeg(tmp_path):
    copy(tmp_path, "controls")
    full = next(v for v in ablation.load("controls").variants if v.name == "Full")
    variants = [full, On(full, "zeros", eeg="zero"), On(full, "noise", eeg="surrogate")]
    table = build_table(tmp_path, "mine", changed(variants=variants, contrasts=[("Full", "zeros")]))
    recorded = results.read(tmp_path, "controls").rows
    zero = recorded[(recorded["variant"] == "EEG zero") & (recorded["metric"] == "top1_label")]["value"].mean()
    assert table.entries[1].top1.mean == pytest.approx(zero)
    assert table.entries[2].top1 is not None


def test_the_python_entry_prints_a_slice_too(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    table = bench.table("mask_ratio", reference=True)
    assert table.notes[-1] == "More: bench table mask_ratio --reference --details"
    assert "table2.csv" in table.notes[0]


def test_rows_and_contrasts_are_tidy_frames_with_sensible_types():
    table = reference("table2")
    rows, contrasts = table.rows, table.contrasts
    assert rows["name"].tolist() == [row.name for row in table.entries]
    assert rows["label"].tolist()[3] == "3  no pre-training"
    types = {"top1": "float64", "top1_low": "float64", "gain_high": "float64", "seeds": "int64", "params": "Int64",
             "failed": "bool", "mean_fid": "float64", "paper_50way_imagenet_eeg": "float64"}
    assert {name: str(rows[name].dtype) for name in types} == types
    assert rows.set_index("name")["top1"]["Full"] == pytest.approx(100 * table.entries[0].top1.mean)
    assert list(contrasts)[:6] == ["name", "label", "first", "second", "seeds", "difference"]
    assert contrasts.loc[0, ["first", "second"]].tolist() == ["Full", "3"]
    types = dict.fromkeys(("difference", "difference_low", "difference_high", "p"), "float64") | {"seeds": "int64"}
    assert {name: str(contrasts[name].dtype) for name in types} == types
    assert contrasts["verdict"].isin(["better", "worse", "not resolved"]).all()
    assert table.scores["value"].dtype == "float64"
    assert len(table.scores) == len(pd.read_csv(REFERENCE / "table2.csv"))


def test_a_frame_without_contrasts_or_results_has_its_types_too(tmp_path):
    fail(tmp_path, "Full", "no GPU")
    table = made(tmp_path, changed(contrasts=[]))
    assert table.contrasts.empty
    assert table.rows["failed"].tolist()[0]
    assert str(table.rows["failed"].dtype) == "bool"


@pytest.mark.parametrize(("contrasts", "baseline"), [
    ([("Full", "1"), ("Full", "2"), ("3", "4")], "Full"),
    ([("1", "4"), ("2", "4")], "4"),
    ([("a", "b"), ("a", "c"), ("d", "e"), ("d", "f")], ""),
    ([("a", "b"), ("a", "c"), ("a", "e"), ("d", "f"), ("d", "g"), ("h", "g")], "a"),
    ([], ""),
])
def test_the_baseline_is_the_row_of_at_least_half_of_the_contrasts(contrasts, baseline):
    assert baseline_of(contrasts) == baseline


def test_the_command_that_prints_a_table_is_named_with_its_options():
    request = Request(ablation="my ablation.py", scale="micro", pairs="mine", subjects=(1, 2), reference=True,
                      with_controls=True)
    assert named.table_command(request) == ("bench table 'my ablation.py' --scale micro --pairs mine --subjects 1,2 "
                                            "--reference --with-controls")
    assert named.table_command(replace(Request(ablation="clip"), subjects="all")) == "bench table clip --subjects all"


def test_details_are_printed_on_demand(capsys):
    options = ["table", "mask_ratio", "--reference", "--results", str(REFERENCE.parents[1])]
    assert main(options) == 0
    short = capsys.readouterr().out
    assert main([*options, "--details"]) == 0
    details = capsys.readouterr().out
    assert "Versions: torch" in details
    assert "Versions: torch" not in short
    assert len(details.splitlines()) > 1.5 * len(short.splitlines())
