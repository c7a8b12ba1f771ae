"""Prepares THINGS-EEG2 (Gifford et al., NeuroImage 2022) from its preprocessed files, in both published variants."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import prepared, writing
from bench.data.channels import assess, check_names
from bench.data.features import CLASS_FILE, IMAGE_FILE, read_features
from bench.data.prepared import Array
from bench.data.unpickle import load_pickled_arrays
from bench.data.writing import TOKEN, Repairs, TrialWriter
from bench.errors import BenchError
from bench.runtime import ignore

NAME = "things_eeg2"
SOURCES = (
    "sub-XX/preprocessed_eeg_training.npy and preprocessed_eeg_test.npy of each subject: as published "
    "(https://osf.io/3jk45, 17 channels, 100 Hz) or as NICE and ATM preprocessed them (63 channels, 250 Hz, 8.3 GB a "
    "subject; https://huggingface.co/datasets/LidongYang/EEG_Image_decode), CC-BY-4.0",
    "image_metadata.npy: from https://osf.io/y63gw, with the images",
    "the images, as --set pictures=DIR with DIR/training_images/<concept>/*.jpg and DIR/test_images/<concept>/*.jpg "
    "(https://osf.io/y63gw; THINGS, for research)",
)
OPTIONS = {
    "pictures": "folder with training_images and test_images (required)",
    "subjects": "only these subjects (default: all in the folder)",
    "average_test": "yes: one test trial for each image, the mean of its repetitions; no: each (default: yes)",
    "val_concepts": "number of training concepts to hold out for validation, the last ones (default: 100)",
    "size": "side of the images in pixels (default: 512)",
    "features": "published CLIP features of the images, DIR/<model>_features_train.pt, with the test file beside it; "
                "scale laptop needs them (default: none)",
}
BAND = (0.1, 100.0)  # Hz, of the recording; the sampling rate limits it further
RATES = {17: 100.0, 63: 250.0}  # Hz, by number of channels
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


def prepare(source: Path, out: Path, pictures: Path | str | None = None, subjects: Sequence[int] | str | None = None,
            average_test: bool | str = True, val_concepts: int | str = 100, size: int | str = 512,
            features: Path | str | None = None, progress: Callable[..., None] = ignore) -> Path:
    """Writes the prepared data set to `out` (docs/data.md); on an error, `out` is unchanged.

    A training item is one repetition of an image, a test item the mean over repetitions unless average_test is off.
    Parts are the published ones; the last training concepts validate. EEG starts at the stimulus. features: of CLIP
    (bench.data.features), stored beside the images. Raises BenchError (exit 2) for files that differ from the published
    ones.
    """
    source, side, answer = Path(source), writing.parse_side(size), str(average_test).lower()
    if answer not in ("yes", "true", "1", "no", "false", "0"):
        raise BenchError(f"average_test={average_test}: expected yes or no")
    average = answer in ("yes", "true", "1")
    if pictures is None:
        raise BenchError(f"{NAME} needs its images: --set pictures=DIR with training_images and test_images")
    folders = {int(folder.name[4:]): folder for folder in source.glob("sub-*") if folder.name[4:].isdecimal()}
    unnumbered = sum(not folder.name[4:].isdecimal() for folder in source.glob("sub-*"))
    people = writing.choose_subjects(subjects, folders, source)
    for subject in people:
        for name in FILES.values():
            if not (folders[subject] / name).is_file():
                raise BenchError(f"{folders[subject] / name} is missing; expected both files of each subject")
    images = find_images(source, Path(pictures), val_concepts)
    clip = read_features(Path(features), images.listed()) if features else None
    rows: list[tuple[Any, ...]] = []
    writer: TrialWriter | None = None
    with writing.new_folder(Path(out)) as work:
        for number, subject in enumerate(people):
            test = _read(folders[subject] / FILES["test"], images.count["test"])
            repairs = Repairs(len(test.ch_names), test.ch_names)
            examples = {"test": test.eeg[:, 0].copy()} if average else {}  # in which codes are looked for
            if average:
                test.eeg = _average(test, repairs)
            train = _read(folders[subject] / FILES["train"], images.count["train"])
            shape = train.eeg.shape, test.eeg.shape[1:]
            if writer is None:
                expected, first = shape, replace(train, eeg=np.empty((0, *train.eeg.shape[1:])))  # frees the EEG
                each = math.prod(train.eeg.shape[:2]) + math.prod(test.eeg.shape[:2])
                if each > ITEMS:
                    raise BenchError(f"{source}: {each:,} trials of a subject; expected at most {ITEMS:,}")
                writer = TrialWriter(work / prepared.eeg_file(BAND), each * len(people), *train.eeg.shape[2:],
                                     sfreq=first.sfreq, ch_names=first.ch_names)
            for recorded in (train, test):
                recorded.check_same(first)
            if shape != expected:
                raise BenchError(f"{folders[subject]}: {shape[0][1]} repetitions of a training image and {shape[1][0]} "
                                 f"of a test image; expected {expected[0][1]} and {expected[1][0]}, as in "
                                 f"{first.file.parent}")
            writer.repaired.update(repairs.repaired)
            writer.bad_channels.update(repairs.bad_channels)
            for part, recorded in (("train", train), ("test", test)):
                for image, repetitions in enumerate(recorded.eeg):
                    for repetition, window in enumerate(repetitions):
                        rows.append((subject * ITEMS + len(rows) - number * each, subject, *images.locate(part, image),
                                     -1 if average and part == "test" else repetition))
                        writer.put(len(rows) - 1, window, examples[part][image] if part in examples else None)
            del train, test, recorded, repetitions, window
            progress(number + 1, len(people))
        assert writer is not None
        keep = writer.close(str(source))
        kept = [row for row, good in zip(rows, keep, strict=True) if good]
        parts = [part for _, _, _, _, part, _ in kept]
        writer.keep_rows(keep, [item for item, *_ in kept], {"item": parts}, str(source))
        writing.write_table(work / "trials.csv", (*prepared.COLUMNS, "repetition", "part_item", "part_concept"), (
            (item, subject, image, label, -1, -1, repetition, part, part)
            for item, subject, image, label, part, repetition in kept))
        writing.write_table(work / "classes.csv", prepared.CLASS_COLUMNS,
                            ((label, name, -1, 1) for label, name in enumerate(images.concepts)))
        writing.write_images(work / "pictures.npy", images.files, side, progress)
        files = [images.metadata, *(folders[subject] / name for subject in people for name in FILES.values())]
        if clip:
            np.save(work / IMAGE_FILE, clip.images)
            np.save(work / CLASS_FILE, clip.classes)
        writing.write_manifest(work, {
            "name": NAME, "n_chans": writer.eeg.shape[1], "n_times": writer.eeg.shape[2], "sfreq": first.sfreq,
            "bands": [list(BAND)], "subjects": people, "ch_names": first.ch_names,
            "options": {"size": side, "average_test": average, "val_concepts": images.held_out}
            | ({"features": clip.model} if clip else {}),
            "sources": {METADATA if file == images.metadata else f"{file.parent.name}/{file.name}":
                        prepared.digest(file) for file in files} | {"pictures": writing.describe_images(images.files)}
            | {file.name: prepared.digest(file) for file in (clip.files if clip else ())},
            "skipped": {"sub- without a number": unnumbered} if unnumbered else {},
            **writing.count_trials(writer.rejected, writer.repaired, {"item": parts, "concept": parts},
                                   writer.bad_channels),
            "leaky": LEAKY,
        })
    return Path(out)


def find_images(source: Path, pictures: Path, val_concepts: int | str = 0) -> Images:
    """Returns the images that image_metadata.npy of either folder lists. Raises BenchError if some are missing."""
    metadata = next((folder / METADATA for folder in (source, pictures) if (folder / METADATA).is_file()),
                    source / METADATA)
    images = Images(metadata, pictures, val_concepts)
    writing.check_present(images.files, pictures)
    return images


class Images:
    """The images of image_metadata.npy: files [P], training images first, and the concept of each.

    Raises BenchError for names that contain a path, and for a concept that is in training and in test.
    """

    def __init__(self, metadata: Path, folder: Path, val_concepts: int | str):
        content = load_pickled_arrays(metadata)
        self.metadata = metadata
        self.files: list[Path] = []
        self.count: dict[str, int] = {}
        self.concepts: list[str] = []
        self._label: list[int] = []
        training = 0
        for part, prefix in (("train", "training"), ("test", "test")):
            try:
                concepts, files = ([str(name) for name in content[f"{part}_img_{column}"]]
                                   for column in ("concepts", "files"))
            except (KeyError, TypeError, IndexError) as error:
                raise BenchError(f"{metadata}: expected a dict of {part}_img_concepts and {part}_img_files") from error
            if len(concepts) != len(files) or not files:
                raise BenchError(f"{metadata}: {len(files)} files and {len(concepts)} concepts of {part}; expected the "
                                 "same number, at least 1")
            for name in (*concepts, *files):
                if not re.fullmatch(r"[^/\\\x00]+", name) or name.startswith("."):
                    raise BenchError(f"{metadata}: {name!r} is not a plain name of a folder or file")
            numbers = {name: len(self.concepts) + place for place, name in enumerate(dict.fromkeys(concepts))}
            names = [re.sub(r"^[0-9]+_", "", name).replace("_", " ") for name in numbers]
            if both := sorted(set(names) & set(self.concepts)):
                raise BenchError(f"{metadata}: concepts of training and of test: {', '.join(both[:5])}; expected "
                                 "different ones")
            self.concepts += names
            self._label += [numbers[name] for name in concepts]
            self.files += [folder / f"{prefix}_images" / concept / file
                           for concept, file in zip(concepts, files, strict=True)]
            self.count[part] = len(files)
            training = training or len(self.concepts)
        self.held_out = int(val_concepts) if str(val_concepts).isdecimal() else -1
        if not 0 <= self.held_out < training:
            raise BenchError(f"val_concepts={val_concepts}: expected fewer than the {training} training concepts")
        self._validating = range(training - self.held_out, training)

    def listed(self) -> dict[str, list[tuple[str, str]]]:
        """Returns (folder of the concept, file) of each image of the published parts."""
        names, training = [(file.parent.name, file.name) for file in self.files], self.count["train"]
        return {"train": names[:training], "test": names[training:]}

    def parts(self) -> dict[str, tuple[list[Path], list[str]]]:
        """Returns the files of the images and the names of the concepts of each published part."""
        images, concepts = self.count["train"], self._validating.stop
        return {"train": (self.files[:images], self.concepts[:concepts]),
                "test": (self.files[images:], self.concepts[concepts:])}

    def locate(self, part: str, number: int) -> tuple[int, int, str]:
        """Returns row, label and part of image `number` of a published part."""
        image = number + (self.count["train"] if part == "test" else 0)
        label = self._label[image]
        return image, label, "val" if label in self._validating else part


@dataclass
class _Recorded:
    """A file's EEG [images, repetitions, C, T] from the stimulus on, its channels, its rate in Hz."""

    file: Path
    eeg: Array
    ch_names: list[str]
    sfreq: float

    def check_same(self, other: _Recorded) -> None:
        """Raises BenchError if two files were recorded or preprocessed differently."""
        if (self.ch_names, self.sfreq, self.eeg.shape[2:]) != (other.ch_names, other.sfreq, other.eeg.shape[2:]):
            raise BenchError(f"{self.file} has {len(self.ch_names)} channels, {self.eeg.shape[3]} samples at "
                             f"{self.sfreq:g} Hz; {other.file} has {len(other.ch_names)}, {other.eeg.shape[3]} at "
                             f"{other.sfreq:g} Hz, or other channel names; use files of one variant")


def _read(file: Path, images: int) -> _Recorded:
    """Reads a file of either variant. Raises BenchError for another structure."""
    content = load_pickled_arrays(file)
    try:
        eeg, ch_names, times = (content[name] for name in ("preprocessed_eeg_data", "ch_names", "times"))
        names, times = [str(name) for name in ch_names], np.asarray(times, np.float64)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise BenchError(f"{file}: expected a dict of preprocessed_eeg_data, ch_names and times") from error
    if not isinstance(eeg, np.ndarray) or eeg.ndim != 4 or eeg.dtype.kind not in "fiu" or not eeg.size:
        actual = f"{list(eeg.shape)} {eeg.dtype}" if isinstance(eeg, np.ndarray) else type(eeg).__name__
        raise BenchError(f"{file}: preprocessed_eeg_data is {actual}; expected numbers [images, repetitions, channels, "
                         "samples]")
    if len(eeg) != images:
        raise BenchError(f"{file} has the EEG of {len(eeg):,} images; {METADATA} lists {images:,}")
    if eeg.shape[2] != len(names) or len(set(names)) < len(names):
        raise BenchError(f"{file} has {eeg.shape[2]} channels and {len(set(names))} different names of channels")
    check_names(names, str(file))
    if times.ndim != 1 or len(times) < eeg.shape[3] or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise BenchError(f"{file}: {times.size} times for {eeg.shape[3]} samples; expected at least as many, ascending")
    times = times[len(times) - eeg.shape[3]:]  # 63 channels: the first 50 of 300 samples were cut, not their times
    sfreq = 1 / float(np.median(np.diff(times)))
    declared = RATES.get(len(names), sfreq)
    if abs(sfreq / declared - 1) > 0.02:
        raise BenchError(f"{file}: the rate of its times is {sfreq:.4g} Hz; expected {declared:g} Hz for {len(names)} "
                         "channels")
    begin = int(np.argmax(times > -0.5 / sfreq))
    n_times = (eeg.shape[3] - begin) // TOKEN * TOKEN
    if times[-1] <= 0 or not n_times:
        raise BenchError(f"{file}: no EEG after the stimulus; its times are {times[0]:g} to {times[-1]:g} s")
    return _Recorded(file, eeg[..., begin : begin + n_times], names, round(declared, 6))


def _average(recorded: _Recorded, repairs: Repairs) -> Array:
    """Returns means [images, 1, C, T] over the repetitions that can be used (NaN if there are none).

    Bad channels of a repetition are replaced as those of a trial; both are counted in `repairs`.
    """
    eeg = recorded.eeg
    means = np.full((eeg.shape[0], 1, *eeg.shape[2:]), np.nan)
    for mean, repetitions in zip(means, eeg, strict=True):
        good = []
        for repetition in repetitions[np.isfinite(repetitions).all((1, 2))]:
            reason, flat, outlying = assess(repetition, recorded.sfreq)
            if not reason:
                good.append(repairs.repair(repetition, flat, outlying))
        repairs.repaired["repetition left out of a mean"] += len(repetitions) - len(good)
        if good:
            mean[0] = np.mean(good, 0, dtype=np.float64)
    return means
