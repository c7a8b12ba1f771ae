"""Reads the trials that a system trains on or generates for from a Trials folder, and applies the controls."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data.prepared import read_classes, read_trials
from bench.errors import BenchError
from bench.experiment.stages import CONTROLS, Items, Targets
from bench.train import Inputs


class Stimuli:
    """The images of N trials, read on demand: indexing by trial returns an array in memory.
    file: [P, H, W, 3] uint8; picture: [N], each trial's row of `file`."""

    def __init__(self, file: np.ndarray, picture: np.ndarray):
        self._file, self._picture = file, picture

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self._picture), *self._file.shape[1:]  # (N, H, W, 3)

    def __len__(self) -> int:
        return len(self._picture)

    def __getitem__(self, which: Any) -> np.ndarray:
        return np.ascontiguousarray(self._file[self._picture[which]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


@dataclass(frozen=True, eq=False)
class Loaded:
    """N trials in ascending order of `item`; the order on disk has no effect.
    names: of the classes, by label; the first `shown` of them have images."""

    item: np.ndarray  # [N] int64
    picture: np.ndarray  # [N] int64, row of the folder's pictures.npy and of the Targets
    subject: np.ndarray  # [N] int64
    label: np.ndarray  # [N] int64
    judge_label: np.ndarray  # [N] int64, the judge's number of the class
    eeg: np.ndarray  # [N, C, T] float32; of an oracle [N, 1, K]
    pictures: Stimuli  # [N, H, W, 3] uint8, of each trial
    names: tuple[str, ...]
    shown: int


def load_items(items: Items, inputs: Inputs, targets: Targets | None = None) -> Loaded:
    """Loads items of a stage; the oracle "clip" needs its Targets."""
    return load(items, inputs(items.trials), inputs(targets) / "embeddings.npy" if targets else None)


def load(items: Items, folder: Path, embeddings: Path | None = None) -> Loaded:
    """Loads the trials of one part, with their EEG or a control's. Raises BenchError for an unknown part or control.

    folder: trials.csv has one row for each row of eeg.npy; `label` is in classes.csv (label, name, judge: the judge's
    number of the class, shown: 1 or 0), `picture` is a row of pictures.npy and of `embeddings` [P, D'], a file that
    the oracle "clip" needs. Controls draw from a generator seeded by the trials' ids only, so that all rows and seeds
    see the same. A subject without training trials uses those of all others ("surrogate", "mean").
    """
    if items.eeg not in CONTROLS:
        raise BenchError(f"unknown EEG control {items.eeg!r}; available: {', '.join(CONTROLS)}")
    trials = read_trials(folder)
    parts = sorted(trials["part"].unique())
    if items.part not in parts:
        raise BenchError(f"the trials of {folder} have no part {items.part!r}; available: {', '.join(parts)}")
    if trials["item"].duplicated().any():
        raise BenchError(f"{folder / 'trials.csv'} contains an item twice; every trial needs a unique id")
    part = trials[trials["part"] == items.part].sort_values("item")
    item, subject, picture, label = (part[name].to_numpy(np.int64, copy=True)
                                     for name in ("item", "subject", "picture", "label"))
    classes = read_classes(folder)
    judge_label = classes.set_index("label")["judge"].loc[label].to_numpy(np.int64, copy=True)
    return Loaded(item, picture, subject, label, judge_label, _load_eeg(items.eeg, trials, part, folder, embeddings),
                  Stimuli(_open(folder / "pictures.npy", picture), picture), tuple(classes["name"]),
                  int(classes["shown"].sum()))


def _load_eeg(control: str, trials: pd.DataFrame, part: pd.DataFrame, folder: Path, embeddings: Path | None
              ) -> np.ndarray:
    """[N, C, T] float32 for the rows of `part`."""
    rows: np.ndarray = part.index.to_numpy()
    item, subject, label = (part[name].to_numpy() for name in ("item", "subject", "label"))
    if control == "label":
        return np.eye(trials["label"].max() + 1, dtype=np.float32)[label][:, None]
    if control == "clip":
        if embeddings is None:
            raise BenchError("the control 'clip' replaces the EEG by the image's CLIP embedding; it is available for "
                             "systems with CLIP targets only")
        return _read(embeddings, part["picture"].to_numpy())[:, None]
    if control in ("shuffled", "within_class"):
        groups = subject if control == "shuffled" else subject * (label.max() + 1) + label
        return _read(folder / "eeg.npy", rows[_shuffle(item, groups)])
    if control == "other_trial":
        return _read(folder / "eeg.npy", _other_trials(part, trials[trials["part"] == "val"]))
    eeg = _read(folder / "eeg.npy", rows)
    if control in ("surrogate", "zero", "mean"):
        train = trials[trials["part"] == "train"]
        for number in np.unique(subject):
            mine = subject == number
            known = train[train["subject"] == number] if number in set(train["subject"]) else train  # left-out subject
            seen = _read(folder / "eeg.npy", known.index.to_numpy())
            if control == "surrogate":
                eeg[mine] = _surrogates(seen, _generator(item[mine]), int(mine.sum()))
            else:
                eeg[mine] = seen.mean(0) if control == "mean" else 0
    return eeg


def _generator(item: np.ndarray) -> np.random.Generator:
    digest = hashlib.sha256(np.ascontiguousarray(item, "<i8").tobytes()).digest()
    return np.random.default_rng(np.frombuffer(digest, "<u4"))


def _shuffle(item: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each trial [N] the index of another trial of its group: one random cycle through each group."""
    source = np.empty(len(item), np.int64)
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        if len(members) < 2:
            raise BenchError(f"item {item[members[0]]} is the only trial of its group; its EEG cannot be shuffled")
        order = _generator(item[members]).permutation(members)
        source[order] = np.roll(order, 1)
    return source


def _other_trials(part: pd.DataFrame, pool: pd.DataFrame) -> np.ndarray:
    """For each trial of `part` the row [N] of a trial of `pool` with the same subject and class."""
    rows = np.empty(len(part), np.int64)
    for subject, label in part[["subject", "label"]].drop_duplicates().itertuples(index=False):
        alike = np.flatnonzero((part["subject"] == subject) & (part["label"] == label))
        candidates = pool.index[(pool["subject"] == subject) & (pool["label"] == label)].to_numpy()
        if not len(candidates):
            raise BenchError(f"subject {subject} has no other trial of class {label} in the validation part")
        rows[alike] = _generator(part["item"].to_numpy()[alike]).choice(candidates, len(alike))
    return rows


def _surrogates(seen: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    """n windows [n, C, T] of Gaussian noise with the mean power spectrum of the windows `seen` [M, C, T]."""
    power = np.square(np.abs(np.fft.rfft(seen, axis=-1))).mean(0)
    phase = rng.standard_normal((n, *power.shape)) + 1j * rng.standard_normal((n, *power.shape))
    return np.fft.irfft(np.sqrt(power / 2) * phase, seen.shape[-1]).astype(np.float32)


def _read(path: Path, rows: np.ndarray) -> np.ndarray:
    array = _open(path, rows)
    return np.ascontiguousarray(array[rows], np.float32 if array.dtype == np.float16 else array.dtype)


def _open(path: Path, rows: np.ndarray) -> np.ndarray:
    """Opens an array file. Raises BenchError if it lacks one of `rows`."""
    array = np.load(path, mmap_mode="r")
    if rows.max() >= len(array):
        raise BenchError(f"{path} has {len(array)} rows, but trials.csv refers to row {rows.max()}; remove its folder "
                         "from the store and run again")
    return array
