"""The trials that a system trains on or generates for, read from a Trials folder, with the controls applied."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.experiment.stages import CONTROLS, Items


class Stimuli:
    """The pictures of N trials, read when they are asked for: an index into the trials gives an array in memory.

    file: [P, H, W, 3] uint8; picture: [N], rows of it.
    """

    def __init__(self, file: np.ndarray, picture: np.ndarray):
        self._file, self._picture = file, picture

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return len(self._picture), *self._file.shape[1:]

    def __len__(self) -> int:
        return len(self._picture)

    def __getitem__(self, which: Any) -> np.ndarray:
        return np.ascontiguousarray(self._file[self._picture[which]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


@dataclass(frozen=True, eq=False)
class Loaded:
    """N trials in ascending order of `item`, so that the order on disk never matters.

    names: what labels mean; shown: how many of them, the first, stand for pictures that were shown.
    """

    item: np.ndarray  # [N] int64
    picture: np.ndarray  # [N] int64, row of the folder's pictures.npy, and of the Targets
    subject: np.ndarray  # [N] int64
    label: np.ndarray  # [N] int64
    judge_label: np.ndarray  # [N] int64, the same class by the judge's numbers
    eeg: np.ndarray  # [N, C, T] float32; what an oracle knows, [N, 1, K]
    pictures: Stimuli  # [N, H, W, 3] uint8, of each trial
    names: tuple[str, ...]
    shown: int


def load(items: Items, folder: Path, embeddings: Path | None = None) -> Loaded:
    """The trials of one part, with their own EEG or a control's. Raises BenchError for an unknown part or control.

    The folder: trials.csv has a row for each of eeg.npy's; its `label` is one of classes.csv (label, name, judge: the
    class's number for the judge, shown: 1 or 0), its `picture` is a row of pictures.npy, and of the file
    `embeddings` [P, D'], which the oracle "clip" needs. What a control draws comes from a generator that is seeded by
    the ids of the trials alone, so that every row and seed sees the same. A subject without training trials of their
    own ("surrogate", "mean") has those of all others.
    """
    if items.eeg not in CONTROLS:
        raise BenchError(f"no control {items.eeg!r} for EEG; there are: {', '.join(CONTROLS)}")
    trials = pd.read_csv(folder / "trials.csv")
    parts = sorted(trials["part"].unique())
    if items.part not in parts:
        raise BenchError(f"no part {items.part!r} among the trials of {folder}; there are: {', '.join(parts)}")
    if trials["item"].duplicated().any():
        raise BenchError(f"{folder / 'trials.csv'}: an item stands there twice; every trial has an id of its own")
    part = trials[trials["part"] == items.part].sort_values("item")
    item, subject, picture = (part[name].to_numpy(np.int64, copy=True) for name in ("item", "subject", "picture"))
    classes = pd.read_csv(folder / "classes.csv").sort_values("label")
    label = part["label"].to_numpy(np.int64, copy=True)
    return Loaded(
        item=item,
        picture=picture,
        subject=subject,
        label=label,
        judge_label=classes.set_index("label")["judge"].loc[label].to_numpy(np.int64, copy=True),
        eeg=_eeg(items.eeg, trials, part, folder, embeddings),
        pictures=Stimuli(_mapped(folder / "pictures.npy", picture), picture),
        names=tuple(classes["name"]),
        shown=int(classes["shown"].sum()),
    )


def _eeg(control: str, trials: pd.DataFrame, part: pd.DataFrame, folder: Path, embeddings: Path | None) -> np.ndarray:
    """[N, C, T] float32 for the rows of `part`."""
    rows: np.ndarray = part.index.to_numpy()
    subject: np.ndarray = part["subject"].to_numpy()
    label: np.ndarray = part["label"].to_numpy()
    if control == "label":
        return np.eye(trials["label"].max() + 1, dtype=np.float32)[label][:, None]
    if control == "clip":
        if embeddings is None:
            raise BenchError("the control 'clip' puts the stimulus's CLIP embedding in the place of the EEG; it has a "
                             "meaning for systems with CLIP targets only")
        return _rows(embeddings, part["picture"].to_numpy())[:, None]
    if control in ("shuffled", "within_class"):
        groups = subject if control == "shuffled" else subject * (label.max() + 1) + label
        return _rows(folder / "eeg.npy", rows[shuffled(part["item"].to_numpy(), groups)])
    if control == "other_trial":
        return _rows(folder / "eeg.npy", _another(part, trials[trials["part"] == "val"]))
    eeg = _rows(folder / "eeg.npy", rows)
    if control in ("surrogate", "zero", "mean"):
        train = trials[trials["part"] == "train"]
        for one in np.unique(subject):
            own = subject == one
            theirs = train[train["subject"] == one] if one in set(train["subject"]) else train  # one who is left out
            seen = _rows(folder / "eeg.npy", theirs.index.to_numpy())
            if control == "surrogate":
                eeg[own] = _surrogates(seen, _generator(part["item"].to_numpy()[own]), int(own.sum()))
            else:
                eeg[own] = seen.mean(0) if control == "mean" else 0
    return eeg


def _generator(item: np.ndarray) -> np.random.Generator:
    digest = hashlib.sha256(np.ascontiguousarray(item, "<i8").tobytes()).digest()
    return np.random.default_rng(np.frombuffer(digest, "<u4"))


def shuffled(item: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each trial [N] the index of another trial of the same group: one random cycle through all of them."""
    source = np.empty(len(item), np.int64)
    for one in np.unique(group):
        own = np.flatnonzero(group == one)
        if len(own) < 2:
            raise BenchError(f"item {item[own[0]]} is alone among its like: there is no other whose EEG it could be "
                             "given")
        order = _generator(item[own]).permutation(own)
        source[order] = np.roll(order, 1)
    return source


def _another(part: pd.DataFrame, pool: pd.DataFrame) -> np.ndarray:
    """For each trial of `part` the row [N] of one of `pool` with the same subject and class."""
    rows = np.empty(len(part), np.int64)
    for subject, label in part[["subject", "label"]].drop_duplicates().itertuples(index=False):
        own = np.flatnonzero((part["subject"] == subject) & (part["label"] == label))
        there = pool.index[(pool["subject"] == subject) & (pool["label"] == label)].to_numpy()
        if not len(there):
            raise BenchError(f"subject {subject} has no other trial of class {label} in the validation part")
        rows[own] = _generator(part["item"].to_numpy()[own]).choice(there, len(own))
    return rows


def _surrogates(seen: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    """n windows [n, C, T] of Gaussian noise with the mean power spectrum of those seen [M, C, T]."""
    power = np.square(np.abs(np.fft.rfft(seen, axis=-1))).mean(0)
    phase = rng.standard_normal((n, *power.shape)) + 1j * rng.standard_normal((n, *power.shape))
    return np.fft.irfft(np.sqrt(power / 2) * phase, seen.shape[-1]).astype(np.float32)


def _rows(path: Path, rows: np.ndarray) -> np.ndarray:
    array = _mapped(path, rows)
    return np.ascontiguousarray(array[rows], np.float32 if array.dtype == np.float16 else array.dtype)


def _mapped(path: Path, rows: np.ndarray) -> np.ndarray:
    """The array of a file, which has all those rows."""
    array = np.load(path, mmap_mode="r")
    if rows.max() >= len(array):
        raise BenchError(f"{path} has {len(array)} rows, trials.csv asks for row {rows.max()}; remove its folder from "
                         "the store and run again")
    return array
