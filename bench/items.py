"""The trials that a system trains on or generates for, read from a Trials folder, with the controls applied."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.pictures import CLASSES
from bench.errors import BenchError
from bench.stages import Items

CONTROLS = ("real", "shuffled")


@dataclass(frozen=True, eq=False)
class Loaded:
    """N trials in ascending order of `item`, so that the order on disk never matters. `names`: what labels mean."""

    item: np.ndarray  # [N] int64
    picture: np.ndarray  # [N] int64, row of the folder's pictures.npy, and of the Targets
    subject: np.ndarray  # [N] int64
    label: np.ndarray  # [N] int64
    eeg: np.ndarray  # [N, C, T] float32
    pictures: np.ndarray  # [N, H, W, 3] uint8, the stimulus of each trial
    names: tuple[str, ...]


def load(items: Items, folder: Path) -> Loaded:
    """The trials of one part, with their own EEG or a control's. Raises BenchError for an unknown part or control.

    The folder: trials.csv has a row for each of eeg.npy's; its `picture` is a row of pictures.npy.

    eeg="shuffled": every trial has the EEG of another trial of its part and subject. Which one is drawn from a
    generator that is seeded by the ids of those trials alone, so that every row and seed sees the same shuffling.
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
    rows = part.index.to_numpy()
    recorded = rows if items.eeg == "real" else rows[shuffled(item, subject)]
    return Loaded(
        item=item,
        picture=picture,
        subject=subject,
        label=part["label"].to_numpy(np.int64, copy=True),
        eeg=_rows(folder / "eeg.npy", recorded),
        pictures=_rows(folder / "pictures.npy", picture),
        names=CLASSES,
    )


def shuffled(item: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """For each trial [N] the index of another trial of the same subject: one random cycle through all of them."""
    source = np.empty(len(item), np.int64)
    for one in np.unique(subject):
        own = np.flatnonzero(subject == one)
        if len(own) < 2:
            raise BenchError(f"subject {one} has a single trial: there is no other whose EEG it could be given")
        digest = hashlib.sha256(np.ascontiguousarray(item[own], "<i8").tobytes()).digest()
        order = np.random.default_rng(np.frombuffer(digest, "<u4")).permutation(own)
        source[order] = np.roll(order, 1)
    return source


def _rows(path: Path, rows: np.ndarray) -> np.ndarray:
    array = np.load(path, mmap_mode="r")
    if rows.max() >= len(array):
        raise BenchError(f"{path} has {len(array)} rows, trials.csv asks for row {rows.max()}; remove its folder from "
                         "the store and run again")
    return np.ascontiguousarray(array[rows])
