"""Builds the paired recordings: EEG windows, pictures, and the table that joins them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from bench.data.pictures import CLASSES, SHOWN, render
from bench.data.recordings import as_raw, epochs, normalised
from bench.data.tiny import PARTS, Recording, block_parts, paired_recording, paired_scenes
from bench.data.tiny_things import Shown, TinyThings, part_in, shown, things_recording
from bench.errors import BenchError
from bench.experiment.stages import Prepared, Stage, Trials
from bench.runtime import Runtime
from bench.train.prepared_trials import write_prepared

REACH = 0.5  # s from a blank window to the stimulus: the filter is symmetric and rings before a response, too
CLASS_COLUMNS = ("label", "name", "judge", "shown")  # judge: the class's number for the judge
COLUMNS = ("item", "subject", "picture", "label", "part", "block", "position")
ITEMS = 100_000  # ids of each subject of the protocol things


def trials(stage: Trials, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes eeg.npy [N, C, T] float32, pictures.npy [P, 32, 32, 3] uint8, trials.csv, a row for each of eeg's, and
    classes.csv.

    An item is a subject who saw a picture; `picture` is the row of pictures.npy, `position` the trial's place in the
    subject's recording, `block` the run of trials that it belongs to. Items go by subject, then by picture. With
    split="block" a picture's part is that of its block, and may differ between subjects. Of a prepared data set:
    `prepared.write`; of the protocol things: `_things`.
    """
    if isinstance(stage.world, Prepared):
        write_prepared(stage, out, runtime.progress)
        return
    if isinstance(stage.world, TinyThings):
        _things(stage, stage.world, out, runtime)
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


def _things(stage: Trials, world: TinyThings, out: Path, runtime: Runtime) -> None:
    """Writes the files of `trials`; trials.csv has one more column, `repetition`, and classes.csv has the concepts.

    A training item is one repetition of a picture. A validation or test item is the mean over all repetitions (-1),
    normalised again as any window; its `position` and `block` are its first repetition's. `item` is the subject's
    number times ITEMS and the place among all that the subject saw, so that it does not depend on the split, nor on who
    else takes part. `judge` is the number of the concept's shape.
    """
    if stage.split in ("subject", "subject_seen") and len(stage.subjects) < 2:
        raise BenchError(f"split {stage.split!r} leaves the last subject out and trains on the others: two at least "
                         f"are needed, not {len(stage.subjects)}")
    what = shown(world)
    np.save(out / "pictures.npy", render(what.scenes))
    _table(out / "classes.csv", CLASS_COLUMNS, (
        (label, name, what.scenes.label[what.label == label][0], 1) for label, name in enumerate(what.names)))
    rows: list[tuple[object, ...]] = []
    windows: list[np.ndarray] = []
    for done, subject in enumerate(stage.subjects):
        runtime.progress(done, len(stage.subjects))
        recording = things_recording(world, subject)
        eeg, seen = _seen(stage, what, recording)
        parts = [part_in(stage.split, PARTS[what.part[picture]], subject == stage.subjects[-1])
                 for picture, _, _ in seen]
        windows.append(eeg[[bool(part) for part in parts]])
        for number, ((picture, repetition, place), part) in enumerate(zip(seen, parts, strict=True)):
            if part:
                rows.append((subject * ITEMS + number, subject, picture, what.label[picture], part,
                             recording.blocks[place], place, repetition))
    _table(out / "trials.csv", (*COLUMNS, "repetition"), rows)
    np.save(out / "eeg.npy", np.concatenate(windows))


def _seen(stage: Trials, what: Shown, recording: Recording) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """The windows [N, C, T] float32 of one subject, picture by picture, and of each its picture, repetition and place
    in the recording."""
    world = stage.world
    raw = as_raw(recording.data, recording.sfreq, recording.ch_names, recording.annotations)
    early = world.n_times + round(REACH * world.sfreq) if stage.window == "blank" else 0
    single = epochs(raw, recording.onsets - early, stage.band, world.sfreq, world.n_times)
    places = np.split(np.argsort(recording.pictures, kind="stable"), np.cumsum(what.repeats)[:-1])
    windows: list[np.ndarray] = []
    seen: list[tuple[int, int, int]] = []
    for picture, own in enumerate(places):
        if PARTS[what.part[picture]] == "train":
            windows.append(single[own])
            seen += [(picture, repetition, int(place)) for repetition, place in enumerate(own)]
        else:
            windows.append(normalised(single[own].mean(0, keepdims=True)))
            seen.append((picture, -1, int(own[0])))
    return np.concatenate(windows), seen


def _table(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with open(path, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def write_classes(folder: Path) -> None:
    """Writes classes.csv of the tiny world."""
    _table(folder / "classes.csv", CLASS_COLUMNS,
           ((label, name, label, int(label < SHOWN)) for label, name in enumerate(CLASSES)))
