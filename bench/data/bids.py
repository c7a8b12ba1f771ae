"""Reads BIDS folders of EEG: the recordings, their events, what is marked in them, and the images that events name."""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import mne
import pandas as pd

from bench.data import eeg_readers
from bench.data.catalogue import quiet
from bench.data.eeg_files import Recording
from bench.data.listing import list_files
from bench.data.prepared import Array
from bench.data.recordings import Mark, list_marks, mask_bad, mask_joins
from bench.errors import ENVIRONMENT, BenchError, one_line
from bench.files import explain

ENDINGS = (".vhdr", ".edf", ".EDF", ".bdf", ".BDF", ".set")  # the formats of EEG that BIDS allows
BESIDE = (".json", ".tsv", ".eeg", ".vmrk", ".fdt")  # what belongs to a recording
MISSING = ("n/a", "N/A", "")  # how events.tsv says that there is no value
COLUMNS = ("onset", "duration")  # that every events.tsv has
NEEDED = "BIDS folders are read with the package mne-bids: pip install eeg2image-bench[bids]"


@dataclass(frozen=True, eq=False)
class Run:
    """A recording of a BIDS folder; only its header and its tables have been read.

    participant, session: as in BIDS, such as sub-01 and ses-1 (""). ch_names: its EEG channels; others: number of its
    other channels, by type. bads: EEG channels with status bad. events: the rows of its events.tsv, all as text; None:
    it has none. marks: annotations of the file, and events without an image. is_described: it has a channels.tsv.
    files: all that it is read from, by their names from the folder on. warnings: of its reader.
    """

    recording: Recording
    participant: str
    session: str
    sfreq: float
    n_times: int
    ch_names: tuple[str, ...]
    others: Counter[str]
    bads: frozenset[str]
    marks: tuple[Mark, ...]
    events_file: Path | None
    events: pd.DataFrame | None
    date: Any
    is_described: bool
    files: dict[str, Path]
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its file, without the ending."""
        return self.recording.path.stem

    def mask(self) -> Array:
        """Returns a mask of the samples [n_times] that are marked as bad or as a join."""
        return mask_bad(self.marks, self.n_times, self.sfreq) | mask_joins(self.marks, self.n_times, self.sfreq)


def find_runs(root: Path, subjects: Sequence[str] = (), sessions: Sequence[str] = (), tasks: Sequence[str] = ()
              ) -> tuple[list[Recording], dict[str, list[str]]]:
    """Returns the EEG recordings in sub-*/[ses-*/]eeg, sorted, and what was skipped by reason.

    Linked folders are read too. subjects, sessions, tasks: only recordings with one of these labels, such as 01; empty:
    all. Raises BenchError: exit 3 without mne-bids; else if there is no recording, or none with a requested label.
    """
    try:
        import mne_bids
    except ModuleNotFoundError as error:
        raise BenchError(NEEDED, ENVIRONMENT) from error
    if not root.is_dir():
        raise BenchError(f"{root}: a BIDS folder is expected, with sub-XX/[ses-YY/]eeg")
    files = sorted(file for pattern in ("sub-*/eeg/*_eeg.*", "sub-*/ses-*/eeg/*_eeg.*") for file in root.glob(pattern)
                   if not file.name.startswith("."))
    others = [file.name for file in files if file.suffix not in (*ENDINGS, *BESIDE)]
    paths = []
    for file in [file for file in files if file.suffix in ENDINGS]:
        try:
            path = mne_bids.get_bids_path_from_fname(file, check=False, verbose="error")
            paths.append(path.update(root=root, check=True))
        except (KeyError, ValueError, RuntimeError) as error:
            raise BenchError(f"{file}: not a name of BIDS ({one_line(error)[:200]}); expected "
                             "sub-XX_[ses-YY_]task-ZZ_eeg") from error
    if not paths:
        raise BenchError(f"{root}: no EEG recording of a BIDS folder; expected sub-XX/[ses-YY/]eeg/*_eeg with "
                         f"{', '.join(ENDINGS)}")
    without = sorted({folder.name for folder in root.glob("sub-*") if folder.is_dir()}
                     - {f"sub-{path.subject}" for path in paths})
    skipped = {"files of a format that BIDS does not allow for EEG": others, "people without a recording": without}
    for option, field, labels in (("subjects", "subject", subjects), ("sessions", "session", sessions),
                                  ("tasks", "task", tasks)):
        known = sorted({str(getattr(path, field) or "") for path in paths})
        if unknown := [label for label in labels if label not in known]:
            raise BenchError(f"--{option} {','.join(labels)}: {root} has no {field} {unknown[0]}; it has "
                             f"{', '.join(known)}")
        paths = [path for path in paths if not labels or getattr(path, field) in labels]
    if not paths:
        raise BenchError(f"{root}: no recording has all of these subjects, sessions and tasks")
    recordings = [Recording(Path(path.fpath), Path(path.fpath).relative_to(root).as_posix(), f"sub-{path.subject}",
                            f"ses-{path.session}" if path.session else "", "", root) for path in paths]
    return recordings, {reason: names for reason, names in skipped.items() if names}


def open_recording(recording: Recording) -> tuple[mne.io.BaseRaw, list[str]]:
    """Opens a recording as those of a corpus are opened. Raises BenchError for one that cannot be read."""
    try:
        with quiet():
            return eeg_readers.open_recording(recording)
    except Exception as error:  # whatever the reader of a format raises
        raise BenchError(f"{recording.path} cannot be read: {explain(recording.path, error)[:300]}") from error


def read_run(recording: Recording, column: str) -> Run:
    """Reads what is known of a recording without its EEG. column: of events.tsv, names the image of an event. Raises
    BenchError for files that cannot be read."""
    events_file = eeg_readers.find_sidecar(recording, "events")
    events = read_events(events_file) if events_file else None
    raw, warnings = open_recording(recording)
    types = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    eeg = tuple(name for name, kind in types.items() if kind == "eeg")
    return Run(recording, recording.person, recording.session, float(raw.info["sfreq"]), raw.n_times, eeg,
               Counter(kind for kind in types.values() if kind != "eeg"), frozenset(raw.info["bads"]) & set(eeg),
               tuple(_find_marks(recording, events, column)), events_file, events, raw.info["meas_date"],
               eeg_readers.find_sidecar(recording, "channels") is not None, eeg_readers.list_files(recording, raw),
               tuple(warnings))


def _find_marks(recording: Recording, events: pd.DataFrame | None, column: str) -> list[Mark]:
    """mne-bids would take an event of the image badger.png for a bad stretch, so its annotations are not used."""
    marks = list_marks(mne.io.read_raw(recording.path, verbose="error"))
    for row in [] if events is None else events.to_dict("records"):
        if row.get(column, "") in MISSING and (onset := read_number(row["onset"])) is not None:
            text = next((row[name] for name in ("trial_type", "value") if row.get(name, "") not in MISSING), "")
            marks.append((onset, read_number(row["duration"]) or 0.0, text))
    return marks


def read_events(file: Path) -> pd.DataFrame:
    """Reads an events.tsv; every value stays text. Raises BenchError for a table that is not one."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{file} is not a readable table of events ({explain(file, error)}); expected UTF-8 text with "
                         "tabs") from error
    head, rows = (lines[0] if lines else []), lines[1:]
    if missing := [name for name in COLUMNS if name not in head]:
        raise BenchError(f"{file} has no column {missing[0]}; expected tabs between the columns onset, duration and "
                         f"further ones; its first line is {', '.join(head)[:120]!r}")
    if len(set(head)) < len(head):
        raise BenchError(f"{file} has two columns of one name: {', '.join(head)}")
    for number, row in enumerate(rows, 2):
        if row and len(row) != len(head):
            raise BenchError(f"{file}, line {number}: {len(row)} values; expected {len(head)}, one for each column")
    return pd.DataFrame([row for row in rows if row], columns=head, dtype=object)


def read_number(text: str | float) -> float | None:
    """Returns a finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


class Images:
    """The image files below a folder, by the names that events give them."""

    def __init__(self, folder: Path):
        self.folder = folder
        if not folder.is_dir():
            raise BenchError(f"--images {folder}: the folder of the images that the events name is expected")

    def locate(self, name: str) -> Path:
        """Returns the file of an image, which may be absent. Composed and decomposed letters are the same. Raises
        BenchError for a name that leads out of the folder."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise BenchError(f"an event names the image {name!r}; expected a file below {self.folder}")
        file = self.folder / path
        return file if file.is_file() else self._composed.get(unicodedata.normalize("NFC", str(path)), file)

    @cached_property
    def _composed(self) -> dict[str, Path]:
        return {unicodedata.normalize("NFC", file.relative_to(self.folder).as_posix()): file
                for file in list_files(self.folder).files}
