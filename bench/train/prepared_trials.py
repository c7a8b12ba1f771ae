"""Builds the Trials of a prepared data set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.data.prepared import COLUMNS, ROWS, eeg_file, opened
from bench.data.tiny_things import part_in
from bench.errors import BenchError
from bench.experiment.stages import Prepared
from bench.files import mapped
from bench.runtime import silent

if TYPE_CHECKING:
    import pandas as pd

    from bench.experiment.stages import Trials


def write_prepared(stage: Trials, out: Path, progress: Callable[..., None] = silent) -> None:
    """Writes what a Trials stage of a prepared data set holds: its subjects' trials that have a part in its split.

    eeg.npy [N, C, T] float16 in ascending order of `item`, normalised as the windows of a corpus are, trials.csv with a
    row for each and one column `part`, classes.csv, and pictures.npy, whole, so that `picture` means the same in every
    stage of the data set. Raises BenchError for subjects, a band, a split or a window that the data set does not have.
    """
    import pandas as pd

    from bench.data.recordings import normalised

    assert isinstance(stage.world, Prepared)
    folder, manifest = opened(stage.world)
    if stage.window != "stimulus":
        raise BenchError(f"{stage.world.name} has no window {stage.window!r}: its files hold the EEG from the stimulus "
                         "on and nothing before it; there is: stimulus")
    if list(stage.band) not in manifest["bands"]:
        there = ", ".join(f"{low:g}-{high:g}" for low, high in manifest["bands"])
        raise BenchError(f"{folder} has no band {stage.band[0]:g}-{stage.band[1]:g} Hz; there are: {there}")
    table = pd.read_csv(folder / "trials.csv", keep_default_na=False)
    if absent := sorted(set(stage.subjects) - set(table["subject"])):
        raise BenchError(f"{folder} has no subject {', '.join(map(str, absent))}; there are: "
                         f"{', '.join(map(str, sorted(set(table['subject']))))}")
    chosen = _part(table, stage, folder)
    extra = [name for name in map(str, chosen) if name not in COLUMNS and not name.startswith("part")]
    chosen[["item", "subject", "picture", "label", "part", "block", "position", *extra]].to_csv(
        out / "trials.csv", index=False, lineterminator="\n")
    shutil.copyfile(folder / "classes.csv", out / "classes.csv")
    try:
        os.link(folder / "pictures.npy", out / "pictures.npy")
    except OSError:  # another file system
        shutil.copyfile(folder / "pictures.npy", out / "pictures.npy")
    source = np.load(folder / eeg_file(stage.band), mmap_mode="r", allow_pickle=False)
    eeg = mapped(out / "eeg.npy", np.float16, (len(chosen), *source.shape[1:]))
    rows = chosen.index.to_numpy()
    for begin in range(0, len(rows), ROWS):
        eeg[begin : begin + ROWS] = normalised(source[rows[begin : begin + ROWS]].astype(np.float32))
        progress(min(begin + ROWS, len(rows)), len(rows))
    eeg.flush()


def _part(table: pd.DataFrame, stage: Trials, folder: Path) -> pd.DataFrame:
    """The rows of the stage's subjects that have a part in its split, as column `part`, in ascending order of item."""
    if "part_concept" in table:  # the protocol things, whose splits by subject depend on who takes part
        last = table["subject"] == stage.subjects[-1]
        table = table.assign(**{f"part_{split}": [part_in(split, part, own) for part, own in zip(
            table["part_concept"], last, strict=True)] for split in ("subject", "subject_seen")})
    column, splits = f"part_{stage.split}", [name[5:] for name in map(str, table) if name.startswith("part_")]
    if stage.split not in splits:
        raise BenchError(f"{folder} has no split {stage.split!r}; there are: {', '.join(splits)}")
    used = table[table[column] != ""]
    chosen = used[used["subject"].isin(stage.subjects)].rename(columns={column: "part"}).sort_values("item")
    for part in ("train", "test"):
        if not (chosen["part"] == part).any():
            there = ", ".join(map(str, sorted(set(used["subject"][used[column] == part]))))
            raise BenchError(f"{folder}: the split {stage.split!r} gives subjects "
                             f"{', '.join(map(str, stage.subjects))} no {part} trials; those of {part}: {there}")
    return chosen
