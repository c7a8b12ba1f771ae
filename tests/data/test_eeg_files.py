"""Finding recordings in files, folders and BIDS data sets, and opening them, whatever their format."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from eeg_writers import make_raw, write, write_bids

from bench.data import eeg_files, eeg_readers
from bench.errors import ENVIRONMENT, BenchError


def names(study):
    return [recording.name for recording in study.recordings]


def people(study):
    return {recording.name: recording.person for recording in study.recordings}


def test_what_is_no_recording_is_skipped_and_counted_by_reason(tmp_path):
    write(make_raw(seconds=2), tmp_path / "a" / "rec.vhdr")
    for name in ("a/notes.txt", "a/.hidden.edf", "README", "a/lost.fdt", "a/lost.eeg", "a/rec_raw-1.fif",
                 "a/rec_raw.fif", "a/sub-epo.fif", ".git/x.edf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    study = eeg_files.find([tmp_path])
    assert names(study) == ["a/rec.vhdr", "a/rec_raw.fif"]
    assert study.skipped == {
        ".eeg without a .vhdr of its name": ("a/lost.eeg",), ".fdt without a .set of its name": ("a/lost.fdt",),
        "FIF without continuous EEG, by its name": ("a/sub-epo.fif",), "ending .txt": ("a/notes.txt",),
        "further part of a FIF recording": ("a/rec_raw-1.fif",), "hidden": ("a/.hidden.edf",),
        "hidden folder": (".git",), "no ending": ("README",), "part of a recording": ("a/rec.eeg", "a/rec.vmrk")}


def test_a_split_fif_is_one_recording_and_all_its_parts_are_its_files(tmp_path):
    make_raw(seconds=60).save(tmp_path / "long_raw.fif", split_size="2MB", buffer_size_sec=1, verbose="error")
    study = eeg_files.find([tmp_path])
    assert names(study) == ["long_raw.fif"]
    raw, _ = eeg_readers.open_recording(study.recordings[0])
    assert set(eeg_readers.list_files(study.recordings[0], raw)) == {file.name for file in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) > 1
    assert raw.times[-1] > 59


def test_a_number_at_the_end_of_a_name_makes_no_part_where_there_is_no_first_one(tmp_path):
    touch(tmp_path, "person-1.fif", "person-2.fif", "x_split-01_raw.fif", "x_split-02_raw.fif", "y_split-02_raw.fif")
    study = eeg_files.find([tmp_path])
    assert names(study) == ["person-1.fif", "person-2.fif", "x_split-01_raw.fif", "y_split-02_raw.fif"]
    assert study.skipped == {"further part of a FIF recording": ("x_split-02_raw.fif",)}


def test_linked_folders_are_followed_and_a_link_that_leads_back_is_counted(tmp_path):
    write(make_raw(seconds=2), tmp_path / "real" / "ann.edf")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "one").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "given")
    study = eeg_files.find([tmp_path / "given"])
    assert names(study) == ["one/ann.edf"]
    assert study.skipped == {"link to a folder above it": ("one/back",)}


def test_a_file_that_is_found_twice_is_refused_by_both_names(tmp_path):
    write(make_raw(seconds=2), tmp_path / "a" / "one.edf")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.edf").symlink_to(tmp_path / "a" / "one.edf")
    with pytest.raises(BenchError, match=r"a/one.edf and b/two.edf are the same file"):
        eeg_files.find([tmp_path])
    with pytest.raises(BenchError, match="are the same file"):
        eeg_files.find([tmp_path / "a", tmp_path / "a" / "one.edf"])
    (tmp_path / "b" / "two.edf").unlink()
    os.link(tmp_path / "a" / "one.edf", tmp_path / "b" / "three.edf")
    with pytest.raises(BenchError, match="b/three.edf are the same file"):
        eeg_files.find([tmp_path])


def test_a_folder_without_a_recording_says_what_was_looked_for_and_what_is_there(tmp_path):
    with pytest.raises(BenchError, match=r"no recording in .*\.edf, \.bdf.*there is no file"):
        eeg_files.find([tmp_path])
    (tmp_path / "table.xlsx").write_bytes(b"x")
    with pytest.raises(BenchError, match=r"there are 1 other files, such as table.xlsx \(ending .xlsx: 1\)"):
        eeg_files.find([tmp_path])
    with pytest.raises(BenchError, match=r"gone: no such file or folder"):
        eeg_files.find([tmp_path / "gone"])


def touch(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_person_is_a_folder_in_the_given_one_or_a_file_outside_of_these(tmp_path):
    touch(tmp_path, "ann/day1/a.edf", "ann/day2/a.edf", "bob/b.bdf", "eve.edf")
    assert people(eeg_files.find([tmp_path])) == {
        "ann/day1/a.edf": "ann", "ann/day2/a.edf": "ann", "bob/b.bdf": "bob", "eve.edf": "eve.edf"}
    several = eeg_files.find([tmp_path / "ann", tmp_path / "eve.edf"])
    assert people(several) == {"ann/day1/a.edf": "ann/day1", "ann/day2/a.edf": "ann/day2", "eve.edf": "eve.edf"}


def test_a_pattern_tells_the_person_instead_and_one_that_does_not_fit_is_refused(tmp_path):
    touch(tmp_path, "s01_a.edf", "s01_b.edf", "s02_a.edf")
    study = eeg_files.find([tmp_path], r"(s\d+)_")
    assert study.people == {1: "s01", 2: "s02"}
    assert names(study.only(["s02"])) == ["s02_a.edf"]
    with pytest.raises(BenchError, match="--subjects s03: no recording is of this person; there are: s01, s02"):
        study.only(["s03"])
    for pattern, message in ((r"(p\d+)", "nothing in 's01_a.edf' fits"), ("s", "0 groups; expected one"),
                             ("(", "not a regular expression")):
        with pytest.raises(BenchError, match=message):
            eeg_files.find([tmp_path], pattern)


def test_a_bids_data_set_gives_people_sessions_runs_channel_types_and_bad_channels(tmp_path):
    root = tmp_path / "study"
    write_bids(root, "01", "a", "1")
    write_bids(root, "01", "a", "2", seed=1)
    write_bids(root, "02", "b", seed=2)
    touch(root, "derivatives/clean/sub-01/eeg/sub-01_task-rest_eeg.edf", "sub-01/ses-a/eeg/other.edf",
          "sub-01/ses-a/meg/sub-01_ses-a_task-rest_meg.fif")
    study = eeg_files.find([tmp_path])
    assert [(each.person, each.session, each.run) for each in study.recordings] == [
        ("study/sub-01", "a", "task-rest_run-1"), ("study/sub-01", "a", "task-rest_run-2"),
        ("study/sub-02", "b", "task-rest")]
    assert study.skipped["in derivatives/ of a BIDS data set"] == (
        "study/derivatives/clean/sub-01/eeg/sub-01_task-rest_eeg.edf",)
    assert len(study.skipped["in a BIDS data set, but not named sub-..._eeg"]) == 2
    raw, _ = eeg_readers.open_recording(study.recordings[0])
    assert raw.info["bads"] == ["E7"]
    assert raw.get_channel_types(["E5", "E6"]) == ["eog", "eeg"]
    files = eeg_readers.list_files(study.recordings[0], raw)
    assert {name.rsplit("_", 1)[1] for name in files} >= {"eeg.vhdr", "eeg.eeg", "eeg.vmrk", "channels.tsv"}
    inner = eeg_files.find([root / "sub-02"])
    assert [(each.person, each.bids) for each in inner.recordings] == [("sub-02", root)]
    assert eeg_files.find([root]).people == {1: "sub-01", 2: "sub-02"}


def test_without_mne_bids_a_bids_data_set_says_what_to_install_and_other_files_need_nothing(tmp_path, monkeypatch):
    touch(tmp_path, "plain/a.edf", "study/dataset_description.json", "study/sub-1/eeg/sub-1_task-x_eeg.edf")
    monkeypatch.setitem(sys.modules, "mne_bids", None)
    eeg_files.check_bids(eeg_files.find([tmp_path / "plain"]).recordings)
    with pytest.raises(BenchError, match=r"study is a BIDS data set.*pip install eeg2image-bench\[bids\]") as error:
        eeg_files.check_bids(eeg_files.find([tmp_path]).recordings)
    assert error.value.exit_code == ENVIRONMENT
