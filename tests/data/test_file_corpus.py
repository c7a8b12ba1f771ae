"""A corpus for pre-training from the user's own recordings: windows, people, resume, changes, damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from eeg_writers import make_raw, write, write_bids
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import corpora, eeg_files, eeg_readers, file_corpus, shards
from bench.data.catalogue import Cutting
from bench.data.prepared import digest
from bench.data.recordings import cut_segments
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment import datasets

BAND, TIMES = (5.0, 95.0), 512


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder with two people: ann with two recordings in different formats, bob with one."""
    folder = tmp_path_factory.mktemp("recordings")
    write(make_raw(seconds=8), folder / "ann" / "one.edf")
    write(make_raw(40, seconds=6, seed=1), folder / "ann" / "two_raw.fif")
    write(make_raw(seconds=8, seed=2), folder / "bob" / "three.vhdr")
    return folder


@pytest.fixture
def folder(recordings, tmp_path):
    """A copy of `recordings` that a test may change."""
    return shutil.copytree(recordings, tmp_path / "recordings")


def prepare(folder, root, name="mine", **options):
    made = file_corpus.prepare(name, root, eeg_files.find([folder]), **options)
    assert made == root / "corpora" / name
    return made, json.loads((made / "manifest.json").read_text())


def interrupted_after(n):
    def progress(done, total, text):
        if done >= n:
            raise KeyboardInterrupt
    return progress


def files(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_windows_are_those_that_every_recording_gives_and_are_used_by_name(recordings, tmp_path):
    made, manifest = prepare(recordings, tmp_path)
    corpus = datasets.find_corpus("mine", tmp_path)
    assert (corpus.n_chans, corpus.n_times) == (128, 512)
    windows = shards.open_shards(Path(corpus.path), corpus.sha256)
    assert len(windows) == manifest["windows"] == 4 + 3 + 4
    index = pd.read_csv(made / "index.csv")
    assert index.groupby("run")["subject"].unique().map(list).to_dict() == {
        "ann/one.edf": [1], "ann/two_raw.fif": [1], "bob/three.vhdr": [2]}
    assert (index.groupby("subject")["part"].nunique() == 1).all()
    assert set(index["part"]) == {"train", "held_out"}
    raw, _ = eeg_readers.open_recording(eeg_files.find([recordings]).recordings[2])
    rows = index.index[index["run"] == "bob/three.vhdr"].to_numpy()
    assert np.array_equal(windows.batch(rows)[0][1], cut_segments(raw, BAND, TIMES).windows)


def test_the_manifest_tells_people_recordings_and_the_hash_of_every_source(recordings, tmp_path):
    made, manifest = prepare(recordings, tmp_path)
    assert manifest["people"] == {"1": "ann", "2": "bob"}
    assert manifest["held_out"] == "person"
    assert manifest["sources"] == {name: digest(recordings / name) for name in files(recordings)}
    assert [(entry["file"], entry["subject"], entry["channels"], entry["sfreq"], entry["windows"])
            for entry in manifest["recordings"]] == [
        ("ann/one.edf", 1, 32, 256, 4), ("ann/two_raw.fif", 1, 40, 256, 3), ("bob/three.vhdr", 2, 32, 256, 4)]
    assert manifest["skipped"] == {"part of a recording": 2}
    assert shards.verify(made) == []


def test_the_same_recordings_give_the_same_bytes_wherever_they_are_and_after_an_interruption(folder, recordings,
                                                                                            tmp_path):
    made, _ = prepare(recordings, tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "two", progress=interrupted_after(1))
    assert corpora.list_unfinished(tmp_path / "two") == [("mine", 1)]
    begun = next((tmp_path / "two").rglob("sub-001_C032.npy")).stat().st_mtime_ns
    again, _ = prepare(folder, tmp_path / "two")
    assert files(again) == files(made)
    assert (again / "mine" / "sub-001_C032.npy").stat().st_mtime_ns == begun


def test_a_recording_that_was_changed_between_two_calls_is_cut_again_and_one_changed_later_is_named(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path, progress=interrupted_after(1))
    write(make_raw(seconds=8, seed=9), folder / "ann" / "one.edf")
    made, manifest = prepare(folder, tmp_path)
    assert manifest["sources"]["ann/one.edf"] == digest(folder / "ann" / "one.edf")
    raw, _ = eeg_readers.open_recording(eeg_files.find([folder]).recordings[0])
    assert np.array_equal(np.load(made / "mine" / "sub-001_C032.npy"), cut_segments(raw, BAND, TIMES).windows)
    assert prepare(folder, tmp_path)[1] == manifest
    write(make_raw(seconds=8, seed=10), folder / "ann" / "one.edf")
    with pytest.raises(BenchError, match=r"prepared from another ann/one.edf: this file was changed"):
        prepare(folder, tmp_path)
    (folder / "bob" / "three.vhdr").unlink()
    with pytest.raises(BenchError, match=r"with another people; choose another --name"):
        prepare(folder, tmp_path)


def test_a_recording_that_cannot_be_read_is_named_after_all_others_are_prepared(folder, tmp_path):
    (folder / "ann" / "broken.edf").write_bytes(b"<html>not found</html>")
    with pytest.raises(BenchError, match=r"mine: 1 of 4 recordings cannot be read.*\n  ann/broken.edf: \w+") as error:
        prepare(folder, tmp_path)
    assert error.value.exit_code == ENVIRONMENT
    assert corpora.list_unfinished(tmp_path) == [("mine", 2)]
    _, manifest = prepare(folder, tmp_path, allow_missing=True)
    assert [entry["file"] for entry in manifest["recordings"] if "unreadable" in entry] == ["ann/broken.edf"]
    assert manifest["windows"] == 11


def test_the_same_recording_under_two_names_is_refused_before_it_is_in_both_parts(folder, tmp_path):
    shutil.copyfile(folder / "ann" / "one.edf", folder / "bob" / "again.edf")
    with pytest.raises(BenchError, match=r"ann/one.edf and bob/again.edf hold the same data, byte for byte"):
        prepare(folder, tmp_path)


@pytest.mark.parametrize(("stride", "parts"), [(512, (8, 0, 2)), (128, (28, 3, 6))])
def test_of_one_person_the_end_of_each_recording_is_held_out_and_no_window_overlaps_it(stride, parts, tmp_path):
    write_bids(tmp_path / "study", "01", "a", "1", seconds=20)
    made, manifest = prepare(tmp_path / "study", tmp_path, cutting=Cutting(stride=stride))
    assert manifest["held_out"] == "time"
    assert tuple(manifest["parts"][part] for part in ("train", "border", "held_out")) == parts
    index = pd.read_csv(made / "index.csv")
    assert index["part"].tolist() == ["train"] * parts[0] + ["border"] * parts[1] + ["held_out"] * parts[2]
    onset = {part: index["onset_s"][index["part"] == part] for part in ("train", "held_out")}
    assert onset["train"].max() + 2 <= onset["held_out"].min()
    windows = shards.open_shards(made)
    assert [len(windows.rows(part)) for part in ("train", "held_out")] == [parts[0], parts[2]]
    assert (index["session"] == "a").all()
    assert manifest["datasets_found"][0]["repaired"] == {"flat": len(index)}  # E7, bad in channels.tsv


@settings(deadline=None, derandomize=True, database=None, max_examples=50)
@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=4), stride=st.integers(1, 700),
       sfreq=st.sampled_from([None, 100.0, 512.0]))
def test_of_one_person_no_window_that_trains_shares_a_sample_with_one_that_is_held_out(counts, stride, sfreq):
    rate = sfreq or 250.0
    places = [("", f"run{run}", number * stride / rate) for run, n in enumerate(counts) for number in range(n)]
    shard = {"n": len(places), "places": places, "sfreq_native": 250.0}
    cutting = Cutting(sfreq=sfreq, stride=stride)
    if len(counts) == 1 and (counts[0] - 1) * stride < 512:  # no two windows without a common sample
        with pytest.raises(BenchError, match="one that is held out"):
            file_corpus.hold_out_ends([{"shards": [shard]}], cutting)
        return
    parts = file_corpus.hold_out_ends([{"shards": [shard]}], cutting)
    assert sum(parts.values()) == len(places)
    assert min(parts["train"], parts["held_out"]) > 0
    for run in range(len(counts)):
        onsets = {part: [round(onset * rate) for (_, name, onset), other in zip(places, shard["parts"], strict=True)
                         if name == f"run{run}" and other == part] for part in parts}
        assert max(onsets["train"], default=-512) + 512 <= min(onsets["held_out"], default=10**9)


def test_one_person_with_one_window_is_too_little(tmp_path):
    write(make_raw(seconds=3), tmp_path / "in" / "one.edf")
    with pytest.raises(BenchError, match="all recordings give 1 windows of one person; expected two that"):
        prepare(tmp_path / "in", tmp_path)


def test_without_any_window_the_reason_is_told_for_each_recording(tmp_path):
    write(make_raw(8, seconds=8), tmp_path / "in" / "few.edf")
    write(make_raw(seconds=1), tmp_path / "in" / "brief.edf")
    with pytest.raises(BenchError, match="brief.edf: 0 windows; rejected: short: 1\n  few.edf: .*few_channels: 1"):
        prepare(tmp_path / "in", tmp_path)


def test_the_header_tells_why_a_recording_will_be_left_out(tmp_path):
    for channels, seconds, name in ((32, 20, "good"), (29, 20, "few"), (130, 4, "many"), (32, 1, "brief")):
        write(make_raw(channels, seconds), tmp_path / f"{name}.edf")
    (tmp_path / "no.bdf").write_bytes(b"x")
    headers = {recording.name: file_corpus.read_header(recording, Cutting())
               for recording in eeg_files.find([tmp_path]).recordings}
    assert {name: header.reason.split(":")[0] for name, header in headers.items()} == {
        "good.edf": "", "few.edf": "few_channels", "many.edf": "many_channels", "brief.edf": "short",
        "no.bdf": "unreadable"}
    good = headers["good.edf"]
    assert (good.sfreq, good.eeg, good.channels, good.seconds, good.windows) == (256, 32, 32, 20, 10)
    for file, changes in (("good.edf", {"sfreq": 128.0}), ("good.edf", {"stride": 100})):
        cutting = Cutting(**changes)
        recording = headers[file].recording
        raw, _ = eeg_readers.open_recording(recording)
        assert file_corpus.read_header(recording, cutting).windows == len(
            cut_segments(raw, BAND, TIMES, cutting.sfreq, cutting.stride).windows)


@pytest.mark.parametrize("name", ["a b", "", "moabb_v046", "Cho2017", "fake", "imagenet_eeg_train_only", "../up"])
def test_a_name_that_is_none_or_is_published_is_refused(name, recordings, tmp_path):
    with pytest.raises(BenchError, match="--name "):
        prepare(recordings, tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_another_corpus_has_is_refused(recordings, tmp_path):
    (tmp_path / "corpora" / "mine").mkdir(parents=True)
    (tmp_path / "corpora" / "mine" / "manifest.json").write_text(json.dumps(
        {"kind": "corpus", "schema": 1, "name": "mine", "datasets": ["Cho2017"], "n_chans": 128, "band": [5, 95],
         "window": {"n_times": 512}, "windows": 0, "shards": [], "files": {}}))
    with pytest.raises(BenchError, match="is a corpus of Cho2017, not of your recordings; choose another --name"):
        prepare(recordings, tmp_path)
