"""Builds the paired recordings: EEG windows, pictures, and the table that joins them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.pictures import CLASSES, SHOWN, render
from bench.data.prepared import Prepared, write
from bench.data.recordings import as_raw, epochs
from bench.data.tiny import PARTS, block_parts, paired_recording, paired_scenes
from bench.runtime import Runtime
from bench.stages import Stage, Trials

REACH = 0.5  # s from a blank window to the stimulus: the filter is symmetric and rings before a response, too
CLASS_COLUMNS = ("label", "name", "judge", "shown")  # judge: the class's number for the judge
COLUMNS = ("item", "subject", "picture", "label", "part", "block", "position")


def trials(stage: Trials, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes eeg.npy [N, C, T] float32, pictures.npy [P, 32, 32, 3] uint8, trials.csv, a row for each of eeg's, and
    classes.csv.

    An item is a subject who saw a picture; `picture` is the row of pictures.npy, `position` the trial's place in the
    subject's recording, `block` the run of trials that it belongs to. Items go by subject, then by picture. With
    split="block" a picture's part is that of its block, and may differ between subjects. Of a prepared data set:
    `prepared.write`.
    """
    if isinstance(stage.world, Prepared):
        write(stage, out, runtime.progress)
        return
    world = stage.world
    scenes, parts = paired_scenes(world)
    np.save(out / "pictures.npy", render(scenes))
    write_classes(out)
    eeg = np.empty((len(stage.subjects) * len(scenes), world.n_chans, world.n_times), np.float32)
    with open(out / "trials.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for done, subject in enumerate(stage.subjects):
            runtime.progress(done, len(stage.subjects))
            recording = paired_recording(world, subject)
            raw = as_raw(recording.data, recording.sfreq, recording.ch_names, recording.annotations)
            position = np.argsort(recording.pictures)
            begin = done * len(scenes)
            early = world.n_times + round(REACH * world.sfreq) if stage.window == "blank" else 0
            windows = epochs(raw, recording.onsets - early, stage.band, world.sfreq, world.n_times)
            eeg[begin : begin + len(scenes)] = windows[position]
            of_block = block_parts(world, subject, recording) if stage.split == "block" else None
            for picture, place in enumerate(position):
                label, block = scenes.label[picture], recording.blocks[place]
                part = PARTS[parts[picture] if of_block is None else of_block[block]]
                table.writerow([begin + picture, subject, picture, label, part, block, place])
    np.save(out / "eeg.npy", eeg)


def write_classes(folder: Path) -> None:
    """Writes classes.csv of the tiny world."""
    with open(folder / "classes.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(CLASS_COLUMNS)
        table.writerows((label, name, label, int(label < SHOWN)) for label, name in enumerate(CLASSES))
