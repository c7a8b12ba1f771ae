"""A data set of one's own, from arrays (docs/adding.md)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data import prepared, writing
from bench.data.prepared import PARTS
from bench.data.writing import TrialWriter
from bench.errors import BenchError
from bench.runtime import silent

FILLED = ("item", "block", "position")  # columns that may be left out
TOKEN = 4  # time steps of a token (Sec. 4.1), of which a window is a whole number

Array = np.ndarray


def prepare(out: Path | str, *, eeg: Array | Sequence[Array], sfreq: float, band: tuple[float, float], pictures: Array,
            trials: Mapping[str, Sequence[Any]] | pd.DataFrame, classes: Mapping[str, int],
            leaky: str | Mapping[str, str], ch_names: Sequence[str] = (),
            progress: Callable[..., None] = silent) -> Path:
    """The prepared data set at `out`, DATA/NAME (docs/data.md), complete or, on any error, as it was before.

    eeg       [N, C, T] in µV or in standard deviations, from the stimulus on; T is a multiple of 4
    sfreq     Hz, of T
    band      Hz, in which it was filtered
    pictures  [P, side, side, 3] uint8, in the side that the scale makes (tiny: 32, paper: 512)
    trials    columns of N values: subject; picture, a row of `pictures`; label, from 0 on, in the order of `classes`;
              part_item: train, val, test, or "" for a trial that is in no part, and so part_NAME of any other split.
              Where they are known, block and position: the trial's block and its place in time in its subject's
              recording; item: an id (else the trial's row); and any further columns
    classes   name: its number for the judge (tiny: its place in bench.data.pictures.CLASSES; paper: in ImageNet-1k), -1
              for a class that the judge does not know
    leaky     "no: ..." or "yes: ...", and why, of all splits or of each: whether anything beside the stimulus tells the
              class of a test trial, as far as the recording itself says. It stands in every table
    ch_names  of the electrodes, in the order of C; () where they are not known
    Trials that cannot be used are left out and counted in the manifest. Raises BenchError for arrays and columns that
    are not like that.
    """
    out, names = Path(out), list(classes)
    for name, judge in classes.items():
        if not isinstance(judge, (int, np.integer)) or judge < -1:
            raise BenchError(f"class {name!r} has the judge's number {judge!r}; a whole number from 0 on is expected, "
                             "or -1 for a class that the judge does not know")
    table, splits = _table(trials, len(eeg), names)
    n_chans, n_times = _shape(eeg[0], ch_names)
    _check_pictures(pictures, table)
    low, high = map(float, band)
    if not 0 <= low < high or not sfreq > 0:
        raise BenchError(f"band={band}, sfreq={sfreq}: two numbers in Hz, the second above the first, and a rate above "
                         "0 are expected")
    said = {split: leaky if isinstance(leaky, str) else leaky.get(split, "") for split in splits}
    if wrong := [split for split, text in said.items() if not text.startswith(("no: ", "yes: "))]:
        raise BenchError(f"leaky of the split {wrong[0]!r} is {said[wrong[0]]!r}; 'no: ' or 'yes: ' and why is "
                         "expected, such as 'no: pictures came in random order'")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", out.name) or out.name == "corpora":
        raise BenchError(f"{out.name!r} cannot name a data set: letters, digits, - and _ are expected")
    with writing.preparing(out) as work:
        writer = TrialWriter(work / prepared.eeg_file((low, high)), len(table), n_chans, n_times)
        for row in range(len(table)):
            window = np.asarray(eeg[row])
            if window.shape != (n_chans, n_times):
                raise BenchError(f"the EEG of trial {row} is {list(window.shape)}, that of trial 0 "
                                 f"{[n_chans, n_times]}; all are expected to be alike")
            writer.put(row, window)
            progress(row + 1, len(table))
        writer.close(out.name)
        keep = np.array([not reason for reason in writer.rejected])
        kept = table[keep]
        columns = {split: kept[f"part_{split}"].tolist() for split in splits}
        writing.no_copies([one for one, wanted in zip(writer.digests, keep, strict=True) if wanted],
                           kept["item"].tolist(), columns, out.name)
        if gone := sorted(set(range(len(names))) - set(kept["label"])):
            raise BenchError(f"no trial that can be used shows the class {names[gone[0]]!r}; leave it out")
        writing.keep_rows(writer.path, keep)
        writing.write_table(work / "trials.csv", list(map(str, kept)), kept.itertuples(index=False, name=None))
        writing.write_table(work / "classes.csv", prepared.CLASS_COLUMNS,
                             ((label, name, classes[name], 1) for label, name in enumerate(names)))
        np.save(work / "pictures.npy", pictures)
        writing.finish(work, {
            "name": out.name, "n_chans": n_chans, "n_times": n_times, "sfreq": float(sfreq), "bands": [[low, high]],
            "subjects": sorted(set(kept["subject"].tolist())), "ch_names": list(ch_names),
            "options": {"size": pictures.shape[1]}, "rejected": dict(Counter(filter(None, writer.rejected))),
            "repaired": dict(writer.repaired), "classes": len(names),
            "coverage": {split: {part: column.count(part) for part in PARTS} for split, column in columns.items()},
            "leaky": said,
        })
    return out


def _table(trials: Mapping[str, Sequence[Any]] | pd.DataFrame, n: int,
           classes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The trials with prepared.COLUMNS first and FILLED in, and the names of their splits. Raises BenchError for what
    `prepare` says that they are not."""
    try:
        table = pd.DataFrame(dict(trials))
    except ValueError as error:
        raise BenchError(f"the columns of the trials do not fit together: {error}") from error
    if len(table) != n or not n:
        raise BenchError(f"{len(table)} trials and the EEG of {n}; as many of both are expected, and one at least")
    table = table.assign(**{name: np.arange(n) if name == "item" else np.full(n, -1)
                            for name in FILLED if name not in table})
    if missing := [name for name in (*prepared.COLUMNS, "part_item") if name not in table]:
        raise BenchError(f"the trials have no column {missing[0]}; subject, picture, label and part_item are expected")
    if "part" in table:
        raise BenchError("the trials have a column part; each split has a column of its own, such as part_item")
    for name in prepared.COLUMNS:
        whole, number = pd.api.types.is_integer_dtype(table[name]), pd.api.types.is_numeric_dtype(table[name])
        if not (number if name == "position" else whole) or table[name].isna().any():
            raise BenchError(f"the trials' column {name} holds {table[name].dtype}; whole numbers are expected")
    if twice := table["item"][table["item"].duplicated()].tolist():
        raise BenchError(f"item {twice[0]} stands twice among the trials; every trial has an id of its own")
    _within(table, "label", len(classes), "places in the list of classes")
    splits = [name.removeprefix("part_") for name in map(str, table) if name.startswith("part_")]
    for split in splits:
        column = table[f"part_{split}"]
        if unknown := sorted({str(part) for part in column} - {*PARTS, ""}):
            raise BenchError(f"the trials' column part_{split} has {unknown[0]!r}; train, val, test or '' is expected")
        if empty := [part for part in ("train", "test") if not (column == part).any()]:
            raise BenchError(f"the trials' column part_{split} gives no trial to {empty[0]}")
    return table[[*prepared.COLUMNS, *(name for name in table if name not in prepared.COLUMNS)]], splits


def _within(table: pd.DataFrame, name: str, count: int, meaning: str) -> None:
    wrong = ~table[name].between(0, count - 1)
    if wrong.any():
        raise BenchError(f"trial {int(np.argmax(wrong))} has {name} {table[name][wrong].iloc[0]}; 0 to {count - 1} are "
                         f"expected, {meaning}")


def _shape(window: Array, ch_names: Sequence[str]) -> tuple[int, int]:
    """Channels and time steps of a trial."""
    window = np.asarray(window)
    if window.ndim != 2 or window.dtype.kind not in "fiu":
        raise BenchError(f"the EEG of a trial is {window.dtype} {list(window.shape)}; numbers [channels, time steps] "
                         "are expected")
    n_chans, n_times = window.shape
    if n_times % TOKEN or not n_times:
        raise BenchError(f"a trial has {n_times} time steps; a multiple of {TOKEN}, the steps of a token, is expected: "
                         f"leave the last {n_times % TOKEN} out")
    if ch_names and (len(ch_names) != n_chans or len(set(ch_names)) < n_chans):
        raise BenchError(f"{len(set(ch_names))} different ch_names for {n_chans} channels; one for each is expected")
    return n_chans, n_times


def _check_pictures(pictures: Array, table: pd.DataFrame) -> None:
    square = isinstance(pictures, np.ndarray) and pictures.dtype == np.uint8 and pictures.ndim == 4 and (
        pictures.shape[1] == pictures.shape[2] and pictures.shape[3] == 3)
    if not square:
        found = f"{pictures.dtype} {list(pictures.shape)}" if isinstance(pictures, np.ndarray) else \
            type(pictures).__name__
        raise BenchError(f"pictures are {found}; uint8 [pictures, side, side, 3] is expected "
                         "(bench.images.resize(picture, (side, side)) squashes one)")
    _within(table, "picture", len(pictures), "rows of the pictures")
