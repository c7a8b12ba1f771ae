"""Builds the paired recordings: EEG windows, pictures, and the table that joins them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.pictures import render
from bench.data.recordings import as_raw, epochs
from bench.data.tiny import PARTS, paired_recording, paired_scenes
from bench.runtime import Runtime
from bench.stages import Stage, Trials

COLUMNS = ("item", "subject", "picture", "label", "part", "block", "position")


def trials(stage: Trials, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes eeg.npy [N, C, T] float32, pictures.npy [P, 32, 32, 3] uint8 and trials.csv, a row for each of eeg's.

    An item is a subject who saw a picture; `picture` is the row of pictures.npy, `position` the trial's place in the
    subject's recording, `block` the run of trials that it belongs to. Items go by subject, then by picture.
    """
    world = stage.world
    scenes, parts = paired_scenes(world)
    np.save(out / "pictures.npy", render(scenes))
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
            windows = epochs(raw, recording.onsets, stage.band, world.sfreq, world.n_times)
            eeg[begin : begin + len(scenes)] = windows[position]
            for picture, place in enumerate(position):
                label, part, block = scenes.label[picture], PARTS[parts[picture]], recording.blocks[place]
                table.writerow([begin + picture, subject, picture, label, part, block, place])
    np.save(out / "eeg.npy", eeg)
