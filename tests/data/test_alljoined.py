"""Alljoined1 from its parquet files: sessions, blocks and time are kept; damaged files are refused."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pandas as pd
import pytest
from formats import prepares_nothing, write_alljoined

from bench.data import alljoined, prepared
from bench.errors import ENVIRONMENT, USAGE, BenchError

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs the package pyarrow")


@pytest.fixture
def source(tmp_path):
    """A folder of files as published, for a test to damage."""
    write_alljoined(tmp_path / "source")
    return tmp_path / "source"


def run(source, **options):
    return alljoined.prepare(source, source.parent / "data" / "alljoined", options.pop("pictures", source / "images"),
                             **{"size": 16} | options)


def refused(source, *said, **options):
    """Preparing fails with all these texts in one line, and a previous data set is unchanged."""
    prepares_nothing(lambda: run(source, **options), source.parent / "data" / "alljoined", said, USAGE)


def train_file(source):
    return source / "data" / "train-00000-of-00001.parquet"


def spoilt(source, change):
    from pyarrow import parquet

    parquet.write_table(change(parquet.read_table(train_file(source))), train_file(source))


def with_column(name, values):
    def change(table):
        import pyarrow as pa

        return table.set_column(table.schema.get_field_index(name), name, pa.array(values(table[name].to_pylist())))

    return change


def with_eeg(change):
    return with_column("EEG", lambda rows: [np.asarray(row).tolist() for row in change(np.array(rows))])


def table(folder):
    return pd.read_csv(folder / "trials.csv", keep_default_na=False)


def listing(subjects=2, blocks=6, each=20):
    rng = np.random.default_rng(0)
    return pd.DataFrame([{"subject_id": subject, "session": session, "block": block, "coco_id": int(rng.integers(40))}
                         for subject in range(1, subjects + 1) for session in (1, 2) for block in range(blocks)
                         for _ in range(each)])


def test_without_pyarrow_the_package_is_named(tmp_path, monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)  # an import then fails, as where it is not installed
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(BenchError, match="needs the package pyarrow: pip install pyarrow") as caught:
        alljoined.prepare(tmp_path, tmp_path / "out", tmp_path)
    assert caught.value.exit_code == ENVIRONMENT
    assert not (tmp_path / "out").exists()


def test_no_picture_is_in_two_parts_of_either_split():
    rows = listing()
    item, block = alljoined.assign_parts(rows)
    assert set(item) == {"train", "val", "test"}
    assert rows.assign(part=item).groupby("coco_id")["part"].nunique().max() == 1
    used = rows.assign(part=block).query("part != ''")
    assert {"train", "test"} <= set(used["part"])
    assert used.groupby("coco_id")["part"].nunique().max() == 1


def test_no_block_is_in_two_parts_of_the_split_by_block():
    used = listing().assign(part=lambda rows: alljoined.assign_parts(rows)[1]).query("part != ''")
    assert used.groupby(["subject_id", "session", "block"])["part"].nunique().max() == 1
    assert used.query("part == 'test'").groupby("subject_id")["block"].unique().map(list).tolist() == [[0], [0]]


def test_a_part_depends_on_the_picture_alone_and_not_on_the_order_of_rows():
    rows = listing()
    order = np.random.default_rng(1).permutation(len(rows))
    again = alljoined.assign_parts(rows.iloc[order].reset_index(drop=True))
    for part, shuffled in zip(alljoined.assign_parts(rows), again, strict=True):
        assert [part[row] for row in order] == shuffled


def test_a_folder_without_parquet_files_is_refused(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "notes.csv").write_text("")
    refused(tmp_path / "source", "no .parquet file", "left out: 1 ending .csv (notes.csv)")


def test_files_in_a_folder_that_is_a_link_are_found(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "data").symlink_to(tmp_path / "disk")
    with pytest.raises(BenchError, match="needs the package pyarrow"):
        alljoined.prepare(tmp_path / "source", tmp_path / "out", tmp_path)


def test_pictures_are_asked_for(tmp_path):
    (tmp_path / "source").mkdir()
    refused(tmp_path / "source", "--set pictures=DIR", pictures=None)


@needs_pyarrow
def test_eeg_is_in_microvolt_and_keeps_its_place_in_time(source):
    from pyarrow import parquet

    out = run(source)
    stated = json.loads((out / "manifest.json").read_text())
    assert (stated["n_chans"], stated["n_times"], stated["sfreq"], stated["bands"]) == (64, 332, 512, [[0.5, 125]])
    assert prepared.verify(out) == []
    rows = table(out)
    published = pd.concat([parquet.read_table(file).to_pandas() for file in sorted(source.rglob("*.parquet"))],
                          ignore_index=True)
    assert rows["subject"].tolist() == published["subject_id"].tolist()
    assert rows["block"].tolist() == published["block"].tolist()
    assert rows["session"].tolist() == published["session"].tolist()
    for _, own in rows.groupby("subject"):
        assert published["curr_time"][own.sort_values("position").index].is_monotonic_increasing
        assert sorted(own["position"]) == list(range(len(own)))
    eeg = np.load(out / "eeg_0.5-125.npy")
    recorded = np.stack([np.stack(trial) for trial in published["EEG"]])
    assert np.allclose(eeg, 1e6 * recorded[..., :332], rtol=1e-3, atol=1e-5)
    shown = sorted(set(published["coco_id"]))
    assert [shown[picture] for picture in rows["picture"]] == published["coco_id"].tolist()


@needs_pyarrow
def test_ids_do_not_depend_on_which_subjects_are_chosen(source):
    everyone, own = table(run(source)), table(run(source, subjects="2"))
    assert own["item"].tolist() == everyone["item"][everyone["subject"] == 2].tolist()
    with pytest.raises(BenchError, match="no subject 3; available: 1, 2"):
        run(source, subjects=(3,))


@needs_pyarrow
@pytest.mark.parametrize(("change", "said"), [
    (lambda table: table.drop_columns(["session"]), "no column session"),
    (with_column("block", lambda rows: [None, *rows[1:]]), "column block: expected whole numbers"),
    (with_column("coco_id", lambda rows: ["../x" for _ in rows]), "column coco_id: expected whole numbers"),
    (with_column("curr_time", lambda rows: [None, *rows[1:]]), "column curr_time has missing values"),
    (with_column("trial", lambda rows: [0] * len(rows)), "subject 1, session 1, block 1, trial 0 is listed twice"),
    (with_eeg(lambda eeg: eeg[:, :63]), "trials of 63 channels and 334 samples; expected 64 channels"),
    (with_eeg(lambda eeg: eeg[:, :, :167]), "trials of 167 samples; expected about 334"),
    (with_eeg(lambda eeg: [trial[:, : 320 + row % 2] for row, trial in enumerate(eeg)]), "320 to 321 samples"),
    (with_column("EEG", lambda rows: [None, *rows[1:]]), "none missing"),
    (with_column("coco_id", lambda rows: [5, *rows[1:]]), "images are missing: 000000000005.jpg"),
])
def test_spoilt_files_are_refused(source, change, said):
    spoilt(source, change)
    refused(source, said)


@needs_pyarrow
def test_another_unit_is_refused(tmp_path):
    write_alljoined(tmp_path / "source", scale=10.0)  # µV
    refused(tmp_path / "source", "all 36 trials are rejected (beyond float16: 36)")


@needs_pyarrow
def test_trials_that_are_not_finite_are_counted(source):
    def change(eeg):
        eeg[0, 3, 5], eeg[1, 3, 5] = np.nan, np.inf
        return eeg

    spoilt(source, with_eeg(change))
    assert json.loads((run(source) / "manifest.json").read_text())["rejected"] == {"not finite": 2}


@needs_pyarrow
def test_a_truncated_file_is_named_with_its_size(source):
    kept = train_file(source).read_bytes()[:5000]
    train_file(source).write_bytes(kept)
    refused(source, f"{train_file(source)} (5,000 bytes) cannot be read as parquet")


@needs_pyarrow
def test_a_channel_of_another_scale_is_replaced_and_named_and_half_a_trial_is_none(source):
    def change(eeg):
        eeg[0, 5] *= 100
        eeg[1, :, 200:] = 0
        return eeg

    spoilt(source, with_eeg(change))
    stated = json.loads((run(source) / "manifest.json").read_text())
    assert stated["repaired"] == {"channel of another scale": 1}
    assert stated["bad_channels"] == {"5 (scale)": 1}
    assert stated["rejected"] == {"constant": 1}
