"""Builds the paired recordings: EEG windows, images, and the table that joins them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data import imagenet_eeg, montages
from bench.data.pictures import CLASSES, SHOWN, render
from bench.data.prepared import CLASS_COLUMNS, PARTS, ROWS, check_hashes, eeg_file, open_dataset, read_trials
from bench.data.recordings import as_raw, cut_epochs, normalise
from bench.data.tiny import Recording, block_parts, electrode_positions, paired_recording, paired_scenes
from bench.data.tiny_things import ConceptImages, TinyThings, assign_part, draw_images, things_recording
from bench.data.writing import write_table
from bench.errors import BenchError
from bench.experiment.stages import Prepared, Trials
from bench.files import create_npy
from bench.runtime import Runtime, ignore
from bench.train import Inputs

REACH = 0.5  # s between a blank window and the stimulus: the symmetric filter also rings before a response
COLUMNS = ("item", "subject", "picture", "label", "part", "block", "position")
ITEMS = 100_000  # ids of each subject in protocol things


def trials(stage: Trials, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes eeg.npy [N, C, T] float32, pictures.npy [P, 32, 32, 3] uint8, trials.csv with one row for each row of
    eeg.npy, and classes.csv.

    An item is one subject's trial with one image: `picture` is the row of pictures.npy, `position` the trial's place in
    the subject's recording, `block` its run of trials. Items are ordered by subject, then by image. With split="block"
    an image's part is that of its block and may differ between subjects.
    """
    world = stage.world
    if isinstance(world, Prepared):
        return write_prepared(stage, out, runtime.progress)
    if isinstance(world, TinyThings):
        return _write_things(stage, world, out, runtime)
    scenes, parts = paired_scenes(world)
    np.save(out / "pictures.npy", render(scenes))
    write_classes(out)
    eeg = np.empty((len(stage.subjects) * len(scenes), stage.n_chans, world.n_times), np.float32)
    rows = []
    for done, subject in enumerate(stage.subjects):
        runtime.progress(done, len(stage.subjects))
        recording = paired_recording(world, subject)
        order, begin = np.argsort(recording.pictures), done * len(scenes)
        eeg[begin:begin + len(scenes)] = _cut_windows(stage, recording)[order]
        part_of_block = block_parts(world, subject, recording) if stage.split == "block" else None
        for picture, position in enumerate(order):
            block = recording.blocks[position]
            part = PARTS[parts[picture] if part_of_block is None else part_of_block[block]]
            rows.append((begin + picture, subject, picture, scenes.label[picture], part, block, position))
    write_table(out / "trials.csv", COLUMNS, rows)
    np.save(out / "eeg.npy", eeg)


def _write_things(stage: Trials, world: TinyThings, out: Path, runtime: Runtime) -> None:
    """Writes the files of `trials`; trials.csv has the additional column `repetition`, and classes.csv the concepts.

    A training item is one repetition of an image. A validation or test item is the mean over all repetitions (-1),
    normalised again; its `position` and `block` are those of the first repetition. `item` is the subject's number times
    ITEMS plus the number among all of the subject's items, which depends on neither the split nor the other subjects.
    `judge` is the number of the concept's shape.
    """
    if stage.split in ("subject", "subject_seen") and len(stage.subjects) < 2:
        raise BenchError(f"split {stage.split!r} trains on all subjects but the last and needs at least two, not "
                         f"{len(stage.subjects)}")
    protocol = draw_images(world)
    np.save(out / "pictures.npy", render(protocol.scenes))
    write_table(out / "classes.csv", CLASS_COLUMNS, ((label, name, protocol.scenes.label[protocol.label == label][0], 1)
                                                     for label, name in enumerate(protocol.names)))
    rows: list[tuple[object, ...]] = []
    windows: list[np.ndarray] = []
    for done, subject in enumerate(stage.subjects):
        runtime.progress(done, len(stage.subjects))
        recording = things_recording(world, subject)
        items = _average_repetitions(stage, protocol, recording)
        for number, (window, picture, repetition, position) in enumerate(items):
            part = assign_part(stage.split, PARTS[protocol.part[picture]], subject == stage.subjects[-1])
            if part:
                windows.append(window)
                rows.append((subject * ITEMS + number, subject, picture, protocol.label[picture], part,
                             recording.blocks[position], position, repetition))
    write_table(out / "trials.csv", (*COLUMNS, "repetition"), rows)
    np.save(out / "eeg.npy", np.stack(windows))


def _average_repetitions(stage: Trials, protocol: ConceptImages, recording: Recording
                         ) -> Iterator[tuple[np.ndarray, int, int, int]]:
    """Yields one subject's items, image by image: window [C, T], image, repetition (-1: the mean) and position."""
    single = _cut_windows(stage, recording)
    positions = np.split(np.argsort(recording.pictures, kind="stable"), np.cumsum(protocol.repeats)[:-1])
    for picture, places in enumerate(positions):
        if PARTS[protocol.part[picture]] == "train":
            yield from ((single[place], picture, repetition, int(place)) for repetition, place in enumerate(places))
        else:
            yield normalise(single[places].mean(0, keepdims=True))[0], picture, -1, int(places[0])


def _cut_windows(stage: Trials, recording: Recording) -> np.ndarray:
    """The window [N, C, T] float32 of each trial: from the stimulus on, or window="blank" REACH before it."""
    world, data, names = stage.world, recording.data, recording.ch_names
    if stage.channels:
        picks = montages.pick_positions(electrode_positions(world.n_chans), stage.channels)
        data, names = data[picks], tuple(names[row] for row in picks)
    raw = as_raw(data, recording.sfreq, names, recording.annotations)
    early = world.n_times + round(REACH * world.sfreq) if stage.window == "blank" else 0
    return cut_epochs(raw, recording.onsets - early, stage.band, world.sfreq, world.n_times, stage.normalised)


def write_classes(folder: Path) -> None:
    """Writes classes.csv of the tiny world."""
    write_table(folder / "classes.csv", CLASS_COLUMNS,
                ((label, name, label, int(label < SHOWN)) for label, name in enumerate(CLASSES)))


def write_prepared(stage: Trials, out: Path, progress: Callable[..., None] = ignore) -> None:
    """Writes a Trials folder: the trials of the stage's subjects that have a part in its split.
    eeg.npy [N, C, T] float16, ascending by `item`, normalised as the windows of a corpus; trials.csv with one row for
    each and one column `part`; classes.csv; pictures.npy of all subjects, so that `picture` has one meaning in all
    stages of the data set. normalised=False leaves the EEG in the data set's unit; cut="truncated" writes the samples
    before the interpolation, then zeros. Raises BenchError for subjects, a band, a split, a window, a cut or electrodes
    that the data set lacks."""
    assert isinstance(stage.world, Prepared)
    folder, manifest = open_dataset(stage.world)
    if stage.window != "stimulus":
        raise BenchError(f"{stage.world.name} has no window {stage.window!r}: its files contain no EEG from before the "
                         "stimulus; available: stimulus")
    if stage.cut != "prepared" and manifest["name"] != imagenet_eeg.NAME:
        raise BenchError(f"{folder} is {manifest['name']}, whose EEG was not interpolated, so that it cannot be cut as "
                         f"{stage.cut!r}; available: prepared")
    picks = _pick_channels(stage, folder, manifest)
    if list(stage.band) not in manifest["bands"]:
        bands = ", ".join(f"{low:g}-{high:g}" for low, high in manifest["bands"])
        raise BenchError(f"{folder} has no band {stage.band[0]:g}-{stage.band[1]:g} Hz; available: {bands}")
    check_hashes(folder, manifest["files"], ("trials.csv", "classes.csv", "pictures.npy", eeg_file(stage.band)))
    table = read_trials(folder)
    if absent := sorted(set(stage.subjects) - set(table["subject"])):
        raise BenchError(f"{folder} has no subject {', '.join(map(str, absent))}; available: "
                         f"{', '.join(map(str, sorted(set(table['subject']))))}")

    # Tables and images
    chosen = _select_trials(table, stage, folder)
    extra = [name for name in map(str, chosen) if name not in COLUMNS and not name.startswith("part")]
    chosen[[*COLUMNS, *extra]].to_csv(out / "trials.csv", index=False, lineterminator="\n")
    shutil.copyfile(folder / "classes.csv", out / "classes.csv")
    try:
        os.link(folder / "pictures.npy", out / "pictures.npy")
    except OSError:  # another file system
        shutil.copyfile(folder / "pictures.npy", out / "pictures.npy")

    # EEG
    source = np.load(folder / eeg_file(stage.band), mmap_mode="r", allow_pickle=False)
    eeg = create_npy(out / "eeg.npy", np.float16, (len(chosen), len(picks), source.shape[2]))
    rows = chosen.index.to_numpy()
    for begin in range(0, len(rows), ROWS):
        windows = source[rows[begin:begin + ROWS]][:, picks].astype(np.float32, order="C")
        if stage.cut == "truncated":
            windows = imagenet_eeg.unstretch(windows)
        if stage.normalised:
            windows = normalise(windows)
        eeg[begin:begin + ROWS] = np.pad(windows, ((0, 0), (0, 0), (0, source.shape[-1] - windows.shape[-1])))
        progress(min(begin + ROWS, len(rows)), len(rows))
    eeg.flush()


def _pick_channels(stage: Trials, folder: Path, manifest: Mapping[str, Any]) -> np.ndarray:
    """The channels [C] of the data set that the stage keeps, ascending. Raises BenchError if it lacks one of them."""
    if stage.channels is None:
        return np.arange(manifest["n_chans"])
    names = montages.stated_names(manifest, manifest["n_chans"])
    if fault := montages.find_fault(names, stage.channels, manifest["n_chans"]):
        raise BenchError(f"{folder} cannot be reduced to {stage.channels} electrodes: {fault}")
    return montages.pick_names(names, stage.channels)


def _select_trials(table: pd.DataFrame, stage: Trials, folder: Path) -> pd.DataFrame:
    """The rows of the stage's subjects that have a part in its split, with column `part`, ascending by item."""
    if "part_concept" in table:  # protocol things: the splits by subject depend on the stage's subjects
        last = table["subject"] == stage.subjects[-1]
        table = table.assign(**{f"part_{split}": [assign_part(split, part, is_last) for part, is_last in zip(
            table["part_concept"], last, strict=True)] for split in ("subject", "subject_seen")})
    column, splits = f"part_{stage.split}", [name[5:] for name in map(str, table) if name.startswith("part_")]
    if stage.split not in splits:
        raise BenchError(f"{folder} has no split {stage.split!r}; available: {', '.join(splits)}")
    used = table[table[column] != ""]
    chosen = used[used["subject"].isin(stage.subjects)].rename(columns={column: "part"}).sort_values("item")
    for part in ("train", "test"):
        if not (chosen["part"] == part).any():
            subjects = ", ".join(map(str, sorted(set(used["subject"][used[column] == part]))))
            raise BenchError(f"{folder}: subjects {', '.join(map(str, stage.subjects))} have no {part} trials in split "
                             f"{stage.split!r}; subjects with {part} trials: {subjects}")
    return chosen
