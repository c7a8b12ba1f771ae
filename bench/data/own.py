"""Prepares a user's own data set from arrays (docs/adding.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from bench.data import inputs, prepared, writing
from bench.data.channels import check_names
from bench.data.prepared import PARTS, Array
from bench.data.writing import TOKEN, TrialWriter
from bench.errors import BenchError
from bench.runtime import ignore

OPTIONAL = ("item", "block", "position")  # columns that are filled in if they are absent


def prepare(out: Path | str, *, eeg: Array | Sequence[Array], sfreq: float, band: tuple[float, float], pictures: Array,
            trials: Mapping[str, Sequence[Any]] | pd.DataFrame, classes: Mapping[str, int],
            leaky: str | Mapping[str, str], ch_names: Sequence[str] = (),
            progress: Callable[..., None] = ignore, about: Mapping[str, Any] = MappingProxyType({})) -> Path:
    """Writes the prepared data set to `out`, DATA/NAME (docs/data.md); on an error, `out` is unchanged.

    pandas objects are taken in the order of their values. Those with an index (a DataFrame, a Series) must have equal
    indices: otherwise it is unknown whether order or index pairs them.

    eeg       [N, C, T] in µV or in standard deviations, from the stimulus on; T is a multiple of 4
    sfreq     sampling rate of T in Hz
    band      Hz, the filter that was applied
    pictures  images [P, side, side, 3] uint8, with the side that the scale generates (tiny: 32, paper: 512)
    trials    columns of N values. Whole numbers: subject; picture (row of `pictures`); label (from 0 on, in the order
              of `classes`). part_item: train, val, test, or "" for no part; part_NAME for any other split.
              If known: block, and position (place in time in the subject's recording). Optional: item (an id;
              default: the row), and any further columns; session and exemplar are read by the audit
    classes   name: number for the judge (tiny: index in bench.data.pictures.CLASSES; paper: in ImageNet-1k), or -1 if
              the judge does not know the class
    leaky     "no: ..." or "yes: ..." with the reason, for all splits or for each: whether anything but the stimulus
              tells the class of a test trial, as far as the recording shows. It is printed in every table
    ch_names  names of the electrodes, in the order of C; () if unknown
    about     further entries of the manifest, such as where the data come from
    Trials that cannot be used are left out and counted in the manifest. Raises BenchError for other arrays or columns.
    """
    out, judged = Path(out), inputs.class_numbers(classes)
    names, ch_names = list(judged), inputs.channel_names(ch_names)
    table = inputs.trial_table(trials, eeg)
    eeg = inputs.check_eeg(eeg)
    table, splits = _complete_table(table, len(eeg), names)
    n_chans, n_times = _check_window(eeg[0], ch_names)
    check_names(ch_names, out.name)
    _check_images(pictures, table)
    low, high, sfreq = _check_rates(band, sfreq)
    statements = {split: leaky.get(split, "") if isinstance(leaky, Mapping) else leaky for split in splits}
    if wrong := [split for split, text in statements.items()
                 if not (isinstance(text, str) and text.startswith(("no: ", "yes: ")) and text.isprintable())]:
        raise BenchError(f"leaky of the split {wrong[0]!r} is {statements[wrong[0]]!r}; expected 'no: ' or 'yes: ' and "
                         "the reason, such as 'no: images came in random order'")
    check_name(out.name)
    with writing.new_folder(out) as work:
        writer = TrialWriter(work / prepared.eeg_file((low, high)), len(table), n_chans, n_times, sfreq=float(sfreq),
                             ch_names=ch_names)
        for row in range(len(table)):
            window = np.asarray(eeg[row])
            if window.shape != (n_chans, n_times):
                raise BenchError(f"the EEG of trial {row} is {list(window.shape)}; expected {[n_chans, n_times]}, as "
                                 "that of trial 0")
            if window.dtype.kind not in "fiu":
                raise BenchError(f"the EEG of trial {row} is {window.dtype}; expected numbers")
            writer.put(row, window)
            progress(row + 1, len(table))
        keep = writer.close(out.name)
        kept = table[keep]
        columns = {split: kept[f"part_{split}"].tolist() for split in splits}
        writer.keep_rows(keep, kept["item"].tolist(), columns, out.name)
        if unused := sorted(set(range(len(names))) - set(kept["label"])):
            raise BenchError(f"no usable trial shows the class {names[unused[0]]!r}; leave it out")
        writing.write_table(work / "trials.csv", list(map(str, kept)), kept.itertuples(index=False, name=None))
        writing.write_table(work / "classes.csv", prepared.CLASS_COLUMNS,
                            ((label, name, judged[name], 1) for label, name in enumerate(names)))
        np.save(work / "pictures.npy", pictures)
        writing.write_manifest(work, {
            **about, "name": out.name, "n_chans": n_chans, "n_times": n_times, "sfreq": float(sfreq),
            "bands": [[low, high]],
            "subjects": sorted(set(kept["subject"].tolist())), "ch_names": list(ch_names),
            "options": {"size": pictures.shape[1]}, "classes": len(names), "leaky": statements,
            **writing.count_trials(writer.rejected, writer.repaired, columns, writer.bad_channels)})
    return out


def check_name(name: str) -> None:
    """Raises BenchError for a name that a data set cannot have."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name == "corpora":
        raise BenchError(f"{name!r} cannot name a data set; expected letters, digits, - and _, and not 'corpora'")


def _complete_table(table: pd.DataFrame, n: int, classes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Returns the trials with prepared.COLUMNS first and OPTIONAL ones filled in, and the names of the splits.

    Raises BenchError for columns that `prepare` does not accept.
    """
    if len(table) != n or not n:
        raise BenchError(f"{len(table)} trials and the EEG of {n}; expected the same number, at least 1")
    table = table.assign(**{name: np.arange(n) if name == "item" else np.full(n, -1)
                            for name in OPTIONAL if name not in table})
    if missing := [name for name in (*prepared.COLUMNS, "part_item") if name not in table]:
        raise BenchError(f"the trials have no column {missing[0]}; expected subject, picture, label and part_item")
    if "part" in table:
        raise BenchError("the trials have a column part; expected one column for each split, such as part_item")
    table = inputs.further_columns(inputs.whole_numbers(table))
    if repeated := table["item"][table["item"].duplicated()].tolist():
        raise BenchError(f"several trials have the item {repeated[0]}; expected a different id for each trial")
    _check_range(table, "label", len(classes), "an index in `classes`")
    splits = [name.removeprefix("part_") for name in map(str, table) if name.startswith("part_")]
    for split in splits:
        column = table[f"part_{split}"]
        if unknown := sorted({str(part) for part in column} - {*PARTS, ""}):
            raise BenchError(f"the trials' column part_{split} has {unknown[0]!r}; expected train, val, test or ''")
        if empty := [part for part in ("train", "test") if not (column == part).any()]:
            raise BenchError(f"the trials' column part_{split} gives no trial to {empty[0]}; expected at least one")
    return table[[*prepared.COLUMNS, *(name for name in table if name not in prepared.COLUMNS)]], splits


def _check_range(table: pd.DataFrame, name: str, count: int, meaning: str) -> None:
    wrong = ~table[name].between(0, count - 1)
    if wrong.any():
        raise BenchError(f"trial {int(np.argmax(wrong))} has {name} {table[name][wrong].iloc[0]}; expected 0 to "
                         f"{count - 1}, {meaning}")


def _check_window(window: Array, ch_names: Sequence[str]) -> tuple[int, int]:
    """Returns the channels and time steps of a trial. Raises BenchError for another shape or other names."""
    window = np.asarray(window)
    if window.ndim != 2 or window.dtype.kind not in "fiu":
        raise BenchError(f"the EEG of a trial is {window.dtype} {list(window.shape)}; expected numbers [channels, time "
                         "steps]")
    n_chans, n_times = window.shape
    inputs.check_shape(n_chans, n_times, ch_names)
    if n_times % TOKEN or not n_times:
        raise BenchError(f"a trial has {n_times} time steps; expected a multiple of {TOKEN}, the steps of a token: "
                         f"leave out the last {n_times % TOKEN}")
    return n_chans, n_times


def _check_rates(band: Any, sfreq: Any) -> tuple[float, float, float]:
    """Returns both ends of the band and the sampling rate in Hz. Raises BenchError for anything else."""
    try:
        (low, high), rate = map(float, band), float(sfreq)
    except (TypeError, ValueError):
        low, high, rate = 0.0, 0.0, 0.0
    if not (0 <= low < high < np.inf and 0 < rate < np.inf):
        raise BenchError(f"band={band}, sfreq={sfreq}: expected two ascending numbers in Hz, and a rate above 0")
    return low, high, rate


def _check_images(images: Array, table: pd.DataFrame) -> None:
    """Raises BenchError unless the images are [P, side, side, 3] uint8 and every trial's `picture` is a row of them."""
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4
            and images.shape[1] == images.shape[2] and images.shape[3] == 3):
        raise BenchError(f"pictures are {inputs.describe_images(images)} "
                         "(bench.images.resize(image, (side, side)) squashes one)")
    _check_range(table, "picture", len(images), "a row of `pictures`")
