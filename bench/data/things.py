"""THINGS-EEG2 (Gifford et al., NeuroImage 2022) from its preprocessed files, in both published variants."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import prepared, writing
from bench.data.prepared import PARTS
from bench.data.unpickle import load_pickled_arrays
from bench.data.writing import TrialWriter
from bench.errors import BenchError
from bench.runtime import silent

NAME = "things_eeg2"
SOURCES = (
    "sub-XX/preprocessed_eeg_training.npy and preprocessed_eeg_test.npy of each subject: as published "
    "(https://osf.io/3jk45, 17 channels, 100 Hz) or as NICE and ATM preprocessed them (63 channels, 250 Hz, 8.3 GB a "
    "subject; https://huggingface.co/datasets/LidongYang/EEG_Image_decode), CC-BY-4.0",
    "image_metadata.npy: from https://osf.io/y63gw, with the pictures",
    "the pictures, as --set pictures=DIR with DIR/training_images/<concept>/*.jpg and DIR/test_images/<concept>/*.jpg "
    "(https://osf.io/y63gw; THINGS, for research)",
)
OPTIONS = {
    "pictures": "folder with training_images and test_images (needed)",
    "subjects": "these alone (default: all that are there)",
    "average_test": "yes: one test trial for each picture, the mean of its repetitions; no: each (default: yes)",
    "val_concepts": "training concepts that are held out, the last ones (default: 100)",
    "size": "side of the pictures in pixels (default: 512)",
}
BAND = (0.1, 100.0)  # Hz, of the recording; sampling cuts it further
RATES = {17: 100.0, 63: 250.0}  # Hz, by the number of channels
MULTIPLE = 4  # of which the number of time steps is one: the tokens of Sec. 4.1 take 4 each
ITEMS = 100_000  # ids of each subject
FILES = {"train": "preprocessed_eeg_training.npy", "test": "preprocessed_eeg_test.npy"}
METADATA = "image_metadata.npy"
SAME = "no: no concept is in two parts, and the pictures came in random order; the people are the same"
LEAKY = {
    "item": SAME,
    "concept": SAME,
    "subject": "no: no concept and no person is in training and test, and the pictures came in random order",
    "subject_seen": "yes: who is said to be left out was trained on, too (the released code of ATM until April 2024)",
}

Array = np.ndarray


def prepare(source: Path, out: Path, pictures: Path | str | None = None, subjects: Sequence[int] | str | None = None,
            average_test: bool | str = True, val_concepts: int | str = 100, size: int | str = 512,
            progress: Callable[..., None] = silent) -> Path:
    """The prepared data set at `out` (docs/data.md), complete or, on any error, as it was before.

    A training item is a repetition of a picture, a test item the mean over repetitions unless average_test is off. The
    parts are the published ones; val is taken from the last training concepts. EEG from the stimulus on. Raises
    BenchError (exit 2) for files that are not as published.
    """
    source, side, average = Path(source), writing.side(size), _yes(average_test)
    if pictures is None:
        raise BenchError(f"{NAME} needs its pictures: --set pictures=DIR with training_images and test_images")
    folders = {int(folder.name[4:]): folder for folder in source.glob("sub-*") if folder.name[4:].isdecimal()}
    people = writing.chosen(subjects, folders, source)
    for subject in people:
        for name in FILES.values():
            if not (folders[subject] / name).is_file():
                raise BenchError(f"{folders[subject] / name} is not there; both files of each subject are expected")
    metadata = next((place / METADATA for place in (source, Path(pictures)) if (place / METADATA).is_file()),
                    source / METADATA)
    shown = _Shown(metadata, Path(pictures), val_concepts)
    writing.present(shown.files, Path(pictures))
    rows: list[tuple[Any, ...]] = []
    writer: TrialWriter | None = None
    with writing.preparing(Path(out)) as work:
        for number, subject in enumerate(people):
            test = _read(folders[subject] / FILES["test"], shown.count["test"])
            left_out = 0
            if average:
                test.eeg, left_out = _averaged(test.eeg)
            train = _read(folders[subject] / FILES["train"], shown.count["train"])
            shape = train.eeg.shape, test.eeg.shape[1:]
            if writer is None:
                like, first = shape, train.described()
                each = math.prod(train.eeg.shape[:2]) + math.prod(test.eeg.shape[:2])
                if each > ITEMS:
                    raise BenchError(f"{source}: {each:,} trials of a subject; at most {ITEMS:,} are expected")
                writer = TrialWriter(work / prepared.eeg_file(BAND), each * len(people), *train.eeg.shape[2:])
            for one in (train, test):
                one.same(first)
            if shape != like:
                raise BenchError(f"{folders[subject]}: {shape[0][1]} repetitions of a training picture and "
                                 f"{shape[1][0]} of a test picture; {first.file.parent} has {like[0][1]} and "
                                 f"{like[1][0]}")
            writer.repaired["repetition left out of a mean"] += left_out
            for part, recorded in (("train", train), ("test", test)):
                for picture, repetitions in enumerate(recorded.eeg):
                    for repetition, window in enumerate(repetitions):
                        rows.append((subject * ITEMS + len(rows) - number * each, subject, *shown.of(part, picture),
                                     -1 if average and part == "test" else repetition))
                        writer.put(len(rows) - 1, window)
            del train, test, recorded, repetitions, window
            progress(number + 1, len(people))
        assert writer is not None
        writer.close(str(source))
        keep = np.array([not reason for reason in writer.rejected])
        kept = [row for row, wanted in zip(rows, keep, strict=True) if wanted]
        parts = [row[4] for row in kept]
        writing.no_copies([one for one, wanted in zip(writer.digests, keep, strict=True) if wanted],
                           [row[0] for row in kept], {"item": parts}, str(source))
        writing.keep_rows(writer.path, keep)
        writing.write_table(work / "trials.csv", (*prepared.COLUMNS, "repetition", "part_item", "part_concept"), (
            (item, subject, picture, label, -1, -1, repetition, own, own)
            for item, subject, picture, label, own, repetition in kept))
        writing.write_table(work / "classes.csv", prepared.CLASS_COLUMNS,
                             ((label, name, -1, 1) for label, name in enumerate(shown.concepts)))
        writing.write_pictures(work / "pictures.npy", shown.files, side, progress)
        files = [metadata, *(folders[subject] / name for subject in people for name in FILES.values())]
        writing.finish(work, {
            "name": NAME, "n_chans": writer.eeg.shape[1], "n_times": writer.eeg.shape[2], "sfreq": first.sfreq,
            "bands": [list(BAND)], "subjects": people, "ch_names": first.ch_names,
            "options": {"size": side, "average_test": average, "val_concepts": shown.held},
            "sources": {METADATA if file == metadata else f"{file.parent.name}/{file.name}": prepared.digest(file)
                        for file in files} | {"pictures": writing.picture_source(shown.files)},
            "rejected": dict(Counter(filter(None, writer.rejected))), "repaired": dict(+writer.repaired),
            "coverage": {split: {part: parts.count(part) for part in PARTS} for split in ("item", "concept")},
            "leaky": LEAKY,
        })
    return Path(out)


class _Shown:
    """The pictures of image_metadata.npy: files [P], training pictures first, and the concept of each.

    Raises BenchError for names that are more than names, and for a concept that is in training and in test.
    """

    def __init__(self, metadata: Path, folder: Path, val_concepts: int | str):
        content = load_pickled_arrays(metadata)
        self.files: list[Path] = []
        self.count: dict[str, int] = {}
        self.concepts: list[str] = []
        self._label: list[int] = []
        training = 0
        for part, prefix in (("train", "training"), ("test", "test")):
            try:
                concepts, files = ([str(name) for name in content[f"{part}_img_{what}"]]
                                   for what in ("concepts", "files"))
            except (KeyError, TypeError, IndexError) as error:
                raise BenchError(f"{metadata}: a dict with {part}_img_concepts and {part}_img_files is expected"
                                 ) from error
            if len(concepts) != len(files) or not files:
                raise BenchError(f"{metadata}: {len(files)} files and {len(concepts)} concepts of {part}; as many of "
                                 "both are expected")
            for name in (*concepts, *files):
                if not re.fullmatch(r"[^/\\\x00]+", name) or name.startswith("."):
                    raise BenchError(f"{metadata}: {name!r} is no plain name of a folder or file; it is not looked up")
            numbers = {name: len(self.concepts) + place for place, name in enumerate(dict.fromkeys(concepts))}
            named = [re.sub(r"^[0-9]+_", "", name).replace("_", " ") for name in numbers]
            if both := sorted(set(named) & set(self.concepts)):
                raise BenchError(f"{metadata}: concepts of training and of test: {', '.join(both[:5])}; they are "
                                 "expected to be disjoint")
            self.concepts += named
            self._label += [numbers[name] for name in concepts]
            self.files += [folder / f"{prefix}_images" / concept / file
                           for concept, file in zip(concepts, files, strict=True)]
            self.count[part] = len(files)
            training = training or len(self.concepts)
        try:
            self.held = int(val_concepts)
        except ValueError:
            self.held = -1
        if not 0 <= self.held < training:
            raise BenchError(f"val_concepts={val_concepts}: fewer than the {training} training concepts are expected")
        self._first_held = training - self.held
        self._training = training

    def of(self, part: str, number: int) -> tuple[int, int, str]:
        """Picture, label and part of the picture of that number among the published part's."""
        picture = number + (self.count["train"] if part == "test" else 0)
        label = self._label[picture]
        return picture, label, "val" if self._first_held <= label < self._training else part


@dataclass
class _Recorded:
    """A file's EEG [pictures, repetitions, C, T] from the stimulus on, its channels, its rate in Hz."""

    file: Path
    eeg: Array
    ch_names: list[str]
    sfreq: float

    def described(self) -> _Recorded:
        """The same without the EEG's memory."""
        return replace(self, eeg=np.empty((0, *self.eeg.shape[1:])))

    def same(self, other: _Recorded) -> None:
        """Raises BenchError where two files were recorded or preprocessed differently."""
        if (self.ch_names, self.sfreq, self.eeg.shape[2:]) != (other.ch_names, other.sfreq, other.eeg.shape[2:]):
            raise BenchError(f"{self.file} has {len(self.ch_names)} channels, {self.eeg.shape[3]} samples at "
                             f"{self.sfreq:g} Hz; {other.file} has {len(other.ch_names)}, {other.eeg.shape[3]} at "
                             f"{other.sfreq:g} Hz, or other names of channels: all must be of one variant")


def _read(file: Path, pictures: int) -> _Recorded:
    """A file of either variant. Raises BenchError for another structure."""
    content = load_pickled_arrays(file)
    try:
        eeg, ch_names, times = (content[name] for name in ("preprocessed_eeg_data", "ch_names", "times"))
        names, times = [str(name) for name in ch_names], np.asarray(times, np.float64)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise BenchError(f"{file}: a dict of preprocessed_eeg_data, ch_names and times is expected") from error
    if not isinstance(eeg, np.ndarray) or eeg.ndim != 4 or eeg.dtype.kind not in "fiu" or not eeg.size:
        found = f"{list(eeg.shape)} {eeg.dtype}" if isinstance(eeg, np.ndarray) else type(eeg).__name__
        raise BenchError(f"{file}: preprocessed_eeg_data is {found}; numbers [pictures, repetitions, channels, "
                         "samples] are expected")
    if len(eeg) != pictures:
        raise BenchError(f"{file} has the EEG of {len(eeg):,} pictures; {METADATA} lists {pictures:,}")
    if eeg.shape[2] != len(names) or len(set(names)) < len(names):
        raise BenchError(f"{file} has {eeg.shape[2]} channels and {len(set(names))} different names of channels")
    if marks := [name for name in names if name.lower() in ("stim", "status", "trigger")]:
        raise BenchError(f"{file}: channel {marks[0]} holds triggers, which tell the picture; leave it out")
    if times.ndim != 1 or len(times) < eeg.shape[3] or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise BenchError(f"{file}: {times.size} times for {eeg.shape[3]} samples; as many or more, ascending, are "
                         "expected")
    times = times[len(times) - eeg.shape[3]:]  # 63 channels: the first 50 of 300 samples were cut, not their times
    sfreq = 1 / float(np.median(np.diff(times)))
    declared = RATES.get(len(names), sfreq)
    if abs(sfreq / declared - 1) > 0.02:
        raise BenchError(f"{file}: its times are of {sfreq:.4g} Hz; {declared:g} Hz is expected of {len(names)} "
                         "channels")
    begin = int(np.argmax(times > -0.5 / sfreq))
    n_times = (eeg.shape[3] - begin) // MULTIPLE * MULTIPLE
    if times[-1] <= 0 or not n_times:
        raise BenchError(f"{file}: no EEG after the stimulus; its times are {times[0]:g} to {times[-1]:g} s")
    return _Recorded(file, eeg[..., begin : begin + n_times], names, round(declared, 6))


def _averaged(eeg: Array) -> tuple[Array, int]:
    """Means [pictures, 1, C, T] over finite repetitions (NaN where none is), and how many were left out."""
    means, left_out = np.empty((eeg.shape[0], 1, *eeg.shape[2:])), 0
    for mean, repetitions in zip(means, eeg, strict=True):
        good = np.isfinite(repetitions).all((1, 2))
        left_out += int((~good).sum())
        mean[0] = repetitions[good].mean(0, dtype=np.float64) if good.any() else np.nan
    return means, left_out


def _yes(value: bool | str) -> bool:
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if isinstance(value, str) and value.lower() not in words:
        raise BenchError(f"average_test={value}: yes or no is expected")
    return words[value.lower()] if isinstance(value, str) else bool(value)
