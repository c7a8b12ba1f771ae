"""Opens the EEG recordings that bench.data.eeg_files finds, with MNE or mne-bids, and checks that they are whole."""

from __future__ import annotations

import os
import posixpath
import re
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data import mat5
from bench.data.eeg_files import Recording, split_ending

if TYPE_CHECKING:
    from mne.io import BaseRaw

EDF = (".edf", ".bdf")
SIDECARS = ("channels", "events")  # tables of a BIDS recording that its windows depend on
TYPES = (("eog", re.compile("EOG|EYE")), ("ecg", re.compile("ECG|EKG")), ("emg", re.compile("EMG")))  # by name, as MNE
BYTES = {"short": 2, "int": 4, "single": 4, "double": 8}  # of a sample, by MNE's names
DAMAGE = re.compile("marker (file|version)")  # in a reader's warning: marks of bad stretches are lost


def open_recording(recording: Recording) -> tuple[BaseRaw, list[str]]:
    """Opens a recording with MNE, without reading its samples, and returns it with the reader's warnings.

    Types and bad channels of a BIDS recording are those of channels.tsv. Elsewhere a channel with EOG, EYE, ECG, EKG or
    EMG in its name is not EEG. Channels of another sampling rate than most EEG channels, which MNE would resample, are
    left out; a warning names them. Raises whatever the readers raise.
    """
    import mne

    path, notes = recording.path, []
    ending = split_ending(path.name)[1]
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError("a link to a file that is not there (with git-annex or datalad: get it first)")
    if ending == ".set":
        mat5.check(path)
    with warnings.catch_warnings(record=True) as caught, mne.use_log_level("warning"):
        warnings.simplefilter("always")
        if recording.bids:
            raw = _open_bids(recording)
        else:
            raw = mne.io.read_raw(path, preload=False, **({"infer_types": True} if ending in EDF else {}))
        if not recording.bids or find_sidecar(recording, "channels") is None:
            _set_types(raw)
        others, is_faster = _other_rates(path, raw) if ending in EDF else ([], False)
        if others and not is_faster:
            raw.set_channel_types(dict.fromkeys(others, "misc"), on_unit_change="ignore")
        elif others and recording.bids:
            raise ValueError(f"{', '.join(others[:3])}: a higher sampling rate than the EEG's, to which MNE resamples "
                             "the EEG; remove these channels from the file")
        elif others:
            raw = mne.io.read_raw(path, preload=False, infer_types=True, exclude=others, exclude_after_unique=True)
            _set_types(raw)
    if others:
        notes = [f"left out, as their sampling rate is not that of most EEG channels: {', '.join(others)}"]
    messages = list(dict.fromkeys(" ".join(str(each.message).split()) for each in caught))
    _check_whole(path, raw, messages)
    return raw, notes + messages


def _open_bids(recording: Recording) -> BaseRaw:
    """Opens a BIDS recording with what its tables say. Raises ValueError if a table is damaged or lacks a channel."""
    import mne
    import mne_bids

    try:
        raw = mne_bids.read_raw_bids(_bids_path(recording))
    except Exception as error:
        try:
            mne.io.read_raw(recording.path, preload=False)
        except Exception:  # the recording itself is damaged
            raise error from None
        raise ValueError("mne-bids cannot read the tables beside it (participants.tsv, scans.tsv, channels.tsv, "
                         f"events.tsv or a .json): {type(error).__name__}: {error}") from error
    if (table := find_sidecar(recording, "channels")) is not None:
        lines = [line.split("\t") for line in table.read_text("utf-8-sig").splitlines()]
        if not lines or not {"name", "type"} <= set(lines[0]):
            raise ValueError(f"{table.name} has no columns name and type")
        listed = {line[lines[0].index("name")] for line in lines[1:] if len(line) == len(lines[0])}
        kinds = zip(raw.ch_names, raw.get_channel_types(), strict=True)
        if unlisted := [name for name, kind in kinds if kind == "eeg" and name not in listed]:
            raise ValueError(f"{table.name} has no row for the channel {unlisted[0]}")
    if find_sidecar(recording, "events") is not None:  # then mne-bids drops the file's own marks, such as BAD or joins
        plain = mne.io.read_raw(recording.path, preload=False)
        marks, shift = plain.annotations, raw.first_time - plain.first_time
        raw.annotations.append(marks.onset + shift, marks.duration, marks.description)
    return raw


def _check_whole(path: Path, raw: BaseRaw, messages: list[str]) -> None:
    """Raises ValueError for a recording that was cut off, or whose markers cannot be read."""
    ending = split_ending(path.name)[1]
    if ending in EDF:
        with path.open("rb") as file:
            stated = int(file.read(256)[236:244])  # records; -1: unknown, of a recording that was not stopped
        if stated >= 0 and (cut := [text for text in messages if "Number of records from the header" in text]):
            raise ValueError(f"the file was cut off, or goes on after its end: {cut[0]}")
        if gaps := _count_gaps(path):
            raise ValueError(f"the recording has {gaps:,} gaps in time (EDF+D or BDF+D), which MNE closes without a "
                             "mark; export its continuous parts as files of their own")
    if ending == ".vhdr":
        if lost := [text for text in messages if DAMAGE.search(text)]:
            raise ValueError(f"its markers cannot be read: {lost[0]}")
        size = sum(file.stat().st_size for file in raw.filenames if file is not None)
        is_binary = re.search(rb"^DataFormat\s*=\s*BINARY", path.read_bytes(), re.M | re.I)
        if is_binary and size % (BYTES.get(raw.orig_format, 1) * len(raw.ch_names)):
            raise ValueError(f"the file of its samples has {size:,} bytes, which is no whole number of samples of "
                             f"{len(raw.ch_names)} channels: it was cut off")


def _other_rates(path: Path, raw: BaseRaw) -> tuple[list[str], bool]:
    """Returns the channels of an EDF or BDF file of another sampling rate than most EEG channels, and whether one of
    them is faster: MNE resamples all channels to the highest rate, piece by piece."""
    labels, samples = _read_signals(path)
    known = [n for n, label in zip(samples, labels, strict=True) if b"Annotations" not in label]  # of a record
    kinds = raw.get_channel_types()
    if len(set(known)) < 2 or len(known) != len(kinds) or "eeg" not in kinds:
        return [], False
    eeg = Counter(n for n, kind in zip(known, kinds, strict=True) if kind == "eeg")
    usual = max(eeg, key=lambda n: (eeg[n], n))
    is_faster = max(known) > usual
    return [name for name, n, kind in zip(raw.ch_names, known, kinds, strict=True)
            if n != usual and (kind == "eeg" or is_faster)], is_faster


def _read_signals(path: Path) -> tuple[list[bytes], list[int]]:
    """Returns the labels of an EDF or BDF file's signals, and their samples in a record."""
    with path.open("rb") as file:
        count = int(file.read(256)[252:256])
        labels = [file.read(16) for _ in range(count)]
        file.seek(200 * count, os.SEEK_CUR)  # transducers, units, physical and digital ranges, filters
        return labels, [int(file.read(8)) for _ in range(count)]


def _count_gaps(path: Path) -> int:
    """Returns how many records of a discontinuous file do not follow the one before, by the onset in each of them."""
    labels, samples = _read_signals(path)
    marks = next((number for number, label in enumerate(labels) if b"Annotations" in label), None)
    with path.open("rb") as file:
        head = file.read(256)
        if head[192:197] not in (b"EDF+D", b"BDF+D") or marks is None:
            return 0
        begin, records, seconds = int(head[184:192]), int(head[236:244]), float(head[244:252])
        width = 3 if head[192:193] == b"B" else 2  # bytes of a sample
        onsets = []
        for record in range(records):
            file.seek(begin + width * (record * sum(samples) + sum(samples[:marks])))
            onset = re.match(rb"[+-]\d+(\.\d*)?", file.read(width * samples[marks]))
            if onset is None:
                raise ValueError(f"record {record} has no onset, as those of EDF+D and BDF+D have")
            onsets.append(float(onset[0]))
    return sum(abs(after - before - seconds) > 1e-3 for before, after in pairwise(onsets))


def _set_types(raw: BaseRaw) -> None:
    """Sets the type of EEG channels whose name tells another one."""
    eeg = [name for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True) if kind == "eeg"]
    others = {name: kind for kind, known in reversed(TYPES) for name in eeg if known.search(name.upper())}
    if others:
        raw.set_channel_types(others, on_unit_change="ignore")


def list_files(recording: Recording, raw: BaseRaw) -> dict[str, Path]:
    """Returns all files that a recording is read from, by their names from the base of `Study`."""
    above = posixpath.dirname(recording.name)
    files = {recording.name: recording.path}
    for file in raw.filenames:  # parts, and the files beside a header
        if file is not None and file.is_file() and not file.samefile(recording.path):
            files[posixpath.join(above, file.name)] = file
    if split_ending(recording.path.name)[1] == ".vhdr":
        markers = re.search(rb"^MarkerFile=(.*?)\s*$", recording.path.read_bytes(), re.M)
        file = recording.path.parent / os.fsdecode(markers[1]) if markers else recording.path.with_suffix(".vmrk")
        if file.is_file():
            files[posixpath.join(above, file.name)] = file
    for sidecar in SIDECARS if recording.bids else ():
        if (table := find_sidecar(recording, sidecar)) is not None:
            files[posixpath.normpath(posixpath.join(above, os.path.relpath(table, recording.path.parent)))] = table
    return files


def _bids_path(recording: Recording) -> Any:
    import mne_bids

    return mne_bids.get_bids_path_from_fname(recording.path, check=False).update(root=recording.bids, check=True)


def find_sidecar(recording: Recording, suffix: str) -> Path | None:
    """Returns the table of a BIDS recording, such as "channels": the one beside it, else one that it inherits."""
    path = _bids_path(recording)
    beside: Path = path.copy().update(suffix=suffix, extension=".tsv", check=False).fpath
    inherited: Path | None = None if beside.is_file() else path.find_matching_sidecar(suffix, ".tsv", on_error="ignore")
    return inherited or (beside if beside.is_file() else None)
