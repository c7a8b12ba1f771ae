"""Opening recordings of every format: types, rates, and files that are not whole."""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np
import pytest
from eeg_writers import make_raw, write, write_bids

from bench.data import eeg_files, eeg_readers


def open_file(file):
    return eeg_readers.open_recording(next(each for each in eeg_files.find([file.parent]).recordings
                                           if each.path == file))


def names(study):
    return [recording.name for recording in study.recordings]


@pytest.mark.parametrize("ending", [".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".fif.gz", ".EDF"])
def test_a_recording_of_every_format_is_read_as_it_was_written(ending, tmp_path):
    raw = make_raw(seconds=4)
    file = write(raw, tmp_path / f"one_raw{ending}")
    study = eeg_files.find([tmp_path])
    assert names(study) == [file.name]
    again, _ = eeg_readers.open_recording(study.recordings[0])
    assert again.ch_names == raw.ch_names
    assert again.info["sfreq"] == raw.info["sfreq"]
    assert np.abs(again.get_data() - raw.get_data()).max() < 1e-7  # V
    assert list(study.skipped) == (["part of a recording"] if ending == ".vhdr" else [])


def test_channels_named_as_of_the_eye_the_heart_or_a_muscle_are_not_eeg(tmp_path):
    raw = make_raw(seconds=2)
    raw.rename_channels({"E0": "EOG1", "E1": "ECG", "E2": "EMG left", "E3": "VEOG"})
    write(raw, tmp_path / "one.edf")
    again, _ = eeg_readers.open_recording(eeg_files.find([tmp_path]).recordings[0])
    assert again.get_channel_types()[:5] == ["eog", "ecg", "emg", "eog", "eeg"]
    assert len(mne.pick_types(again.info, eeg=True)) == len(raw.ch_names) - 4


def test_a_link_to_data_that_were_not_fetched_is_a_recording_that_cannot_be_read(tmp_path):
    (tmp_path / "a.edf").symlink_to(tmp_path / ".git" / "annex" / "a.edf")
    study = eeg_files.find([tmp_path])
    with pytest.raises(FileNotFoundError, match="datalad"):
        eeg_readers.open_recording(study.recordings[0])


def write_rates(file, rates):
    """Writes an EDF of one EEG channel for each rate but the last, which is of a trigger box."""
    import edfio

    rng = np.random.default_rng(0)
    labels = [*(f"EEG E{i}" for i in range(len(rates) - 1)), "DC box"]
    edfio.Edf([edfio.EdfSignal(20 * rng.standard_normal(20 * rate), rate, label=label, physical_dimension="uV",
                               physical_range=(-200, 200)) for label, rate in zip(labels, rates, strict=True)]
              ).write(file)


def test_channels_of_another_rate_than_the_eeg_do_not_resample_it_and_are_named(tmp_path):
    for name, rates in (("faster", [128, 128, 512]), ("slower", [128, 128, 2]), ("same", [128, 128, 128])):
        write_rates(tmp_path / f"{name}.edf", rates)
    opened = {each.name: eeg_readers.open_recording(each) for each in eeg_files.find([tmp_path]).recordings}
    assert {name: raw.info["sfreq"] for name, (raw, _) in opened.items()} == dict.fromkeys(opened, 128)
    note = ["left out, as their sampling rate is not that of most EEG channels: DC box"]
    assert {name: notes for name, (_, notes) in opened.items()} == {
        "faster.edf": note, "slower.edf": note, "same.edf": []}
    assert opened["faster.edf"][0].ch_names == ["E0", "E1"]
    assert opened["slower.edf"][0].get_channel_types() == ["eeg", "eeg", "misc"]


@pytest.mark.parametrize("ending", [".edf", ".bdf", ".gdf", ".vhdr", ".set", "_raw.fif"])
def test_a_recording_that_was_cut_off_is_not_taken_for_a_shorter_one(ending, tmp_path):
    file = write(make_raw(seconds=4), tmp_path / f"one{ending}")
    data = file.with_suffix(".eeg") if ending == ".vhdr" else file
    data.write_bytes(data.read_bytes()[:50_001])
    with pytest.raises((ValueError, OSError, IndexError)):
        open_file(file)[0].get_data()


def test_a_recording_with_gaps_in_time_is_not_read_as_if_it_had_none(tmp_path):
    import edfio

    signals = [edfio.EdfSignal(row, 128, label=f"E{number}", physical_dimension="uV", physical_range=(-200, 200))
               for number, row in enumerate(20 * np.random.default_rng(0).standard_normal((3, 1280)))]
    file = tmp_path / "one.edf"
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(1.0, None, "eyes open")]).write(file)
    content = file.read_bytes()
    file.write_bytes(content.replace(b"EDF+C", b"EDF+D"))  # continuous all the same
    assert open_file(file)[0].n_times == 1280
    assert content.count(b"+7\x14\x14") == 1
    file.write_bytes(content.replace(b"EDF+C", b"EDF+D").replace(b"+7\x14\x14", b"+8\x14\x14"))
    with pytest.raises(ValueError, match="has 2 gaps in time"):
        open_file(file)


def test_markers_that_cannot_be_read_are_not_taken_for_none(tmp_path):
    file = write(make_raw(seconds=2), tmp_path / "one.vhdr")
    file.with_suffix(".vmrk").write_bytes(b"")
    with pytest.raises(ValueError, match="its markers cannot be read: "):
        open_file(file)


@pytest.mark.parametrize(("table", "text", "message"), [
    ("sub-01/eeg/sub-01_task-rest_channels.tsv", "", "channels.tsv has no columns name and type"),
    ("sub-01/eeg/sub-01_task-rest_channels.tsv", "name\ttype\nE0\tEEG\nE1\tEEG\n", "has no row for the channel E2"),
    ("participants.tsv", "<html>", r"mne-bids cannot read the tables beside it \(participants.tsv"),
])
def test_a_damaged_table_of_a_bids_data_set_is_not_ignored(table, text, message, tmp_path):
    write_bids(tmp_path, "01")
    recording, = eeg_files.find([tmp_path]).recordings
    eeg_readers.open_recording(recording)
    (tmp_path / table).write_text(text)
    with pytest.raises(ValueError, match=message):
        eeg_readers.open_recording(recording)


def test_a_bad_stretch_that_only_the_recording_itself_marks_is_kept_in_a_bids_folder(tmp_path):
    write_bids(tmp_path, "01", seconds=8.0)
    header = next(tmp_path.rglob("*.vhdr"))
    raw = mne.io.read_raw(header, preload=True, verbose="error")
    raw.set_annotations(mne.Annotations([3.0], [1.0], ["BAD electrode"], orig_time=raw.info["meas_date"]))
    for file in (header, header.with_suffix(".vmrk"), header.with_suffix(".eeg")):
        file.unlink()
    events = Path(str(header).replace("_eeg.vhdr", "_events.tsv"))
    events.write_text("onset\tduration\ttrial_type\n1.0\t0.5\tdog\n")
    mne.export.export_raw(header, raw, overwrite=True, verbose="error")
    recording, = eeg_files.find([tmp_path]).recordings
    opened, _ = eeg_readers.open_recording(recording)
    marked = [mark for mark in opened.annotations if "BAD electrode" in mark["description"]]
    assert [(mark["onset"] - opened.first_time, mark["duration"]) for mark in marked] == [(3.0, 1.0)]
    assert "dog" in opened.annotations.description
