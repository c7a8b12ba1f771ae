"""Reads published CLIP features of THINGS-EEG2's images and class names, and checks that they fit the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.prepared import Array
from bench.data.unpickle import load_torch
from bench.errors import BenchError

ENDINGS = {"train": "_features_train.pt", "test": "_features_test.pt"}
IMAGES, CLASSES, NAMES = "img_features", "text_features", "img_names"
IMAGE_FILE, CLASS_FILE = "features.npy", "class_features.npy"  # in a prepared data set
ALIKE = 0.75  # smallest accepted share of pairs of class names in which an image's own is nearer; wrong order: 0.5


@dataclass(frozen=True, eq=False)
class Features:
    """Unit vectors of P images and K classes, in the order of the data set, and the CLIP that made them, by its name in
    the files."""

    model: str
    images: Array  # [P, D'] float32
    classes: Array  # [K, D'] float32
    files: tuple[Path, ...]


def read_features(train: Path, listed: Mapping[str, Sequence[tuple[str, str]]]) -> Features:
    """Reads `<model>_features_train.pt` and the test file beside it, as ATM published them.

    listed: (folder of the concept, file) of each image of "train" and "test", in the order of the data set. A file is a
    dict of img_features [P, D'] and text_features [K, D'], in the sorted order of the images' paths and of the
    concepts' folders (the released loader's). With a list img_names [P] of file names, the images are matched by name.
    Raises BenchError for anything else, and if the class names do not fit the images.
    """
    train = Path(train)
    if not train.name.endswith(ENDINGS["train"]):
        raise BenchError(f"features={train}: expected a file <model>{ENDINGS['train']}, with <model>{ENDINGS['test']} "
                         "in the same folder")
    model = train.name.removesuffix(ENDINGS["train"])
    files = {part: train.with_name(model + ending) for part, ending in ENDINGS.items()}
    images, classes = zip(*(_read_part(file, listed[part]) for part, file in files.items()), strict=True)
    widths = [array.shape[1] for array in images]
    if widths[0] != widths[1]:
        raise BenchError(f"{files['train']} has features of {widths[0]} dimensions, {files['test'].name} of "
                         f"{widths[1]}; use two files of one model")
    return Features(model, np.concatenate(images), np.concatenate(classes), tuple(files.values()))


def _read_part(file: Path, listed: Sequence[tuple[str, str]]) -> tuple[Array, Array]:
    """Returns the features of the images [P, D'] and of their classes [K, D'] of one file."""
    content = load_torch(file)
    if not isinstance(content, dict) or not {IMAGES, CLASSES} <= set(content):
        actual = f"a dict of {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise BenchError(f"{file} holds {actual}; expected a dict of {IMAGES} and {CLASSES}")
    folders = list(dict.fromkeys(folder for folder, _ in listed))
    images = _unit_vectors(file, IMAGES, content[IMAGES], len(listed), "images")
    classes = _unit_vectors(file, CLASSES, content[CLASSES], len(folders), "concepts")
    if images.shape[1] != classes.shape[1]:
        raise BenchError(f"{file}: {IMAGES} has {images.shape[1]} dimensions, {CLASSES} has {classes.shape[1]}; "
                         "expected the same number")
    images = images[_order(file, content.get(NAMES), listed)]
    classes = classes[_ranks(folders)]
    _check_order(file, images, classes, np.array([folders.index(folder) for folder, _ in listed]))
    return images, classes


def _unit_vectors(file: Path, key: str, values: Any, expected: int, what: str) -> Array:
    """Returns features [expected, D'] as float32 of unit length. Raises BenchError for other shapes and values."""
    shape = list(getattr(values, "shape", ()))
    if len(shape) != 2 or shape[0] != expected or not shape[1] or not getattr(values, "is_floating_point", bool)():
        actual = f"{shape} {str(values.dtype).removeprefix('torch.')}" if shape else type(values).__name__
        raise BenchError(f"{file}: {key} is {actual}; image_metadata.npy lists {expected:,} {what}, so floats "
                         f"[{expected}, D] are expected")
    array = values.float().numpy()
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    if wrong := int((~(np.isfinite(norms) & (norms > 0))).sum()):
        raise BenchError(f"{file}: {wrong:,} of {expected:,} rows of {key} are zero or not finite; download the file "
                         "again, or make the features again")
    return np.asarray(array / norms, np.float32)


def _ranks(values: Sequence[Any]) -> Array:
    """Returns the place of each value [N] in the sorted order; the values differ."""
    return np.argsort(sorted(range(len(values)), key=values.__getitem__))


def _order(file: Path, names: Any, listed: Sequence[tuple[str, str]]) -> Array:
    """Returns the row of the file [P] for each listed image. Raises BenchError for names that are not those listed."""
    if names is None:
        return _ranks(listed)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BenchError(f"{file}: {NAMES} is not a list of text; expected the image's file name of each row")
    rows = {Path(name).name: row for row, name in enumerate(names)}
    if len(rows) < len(names):
        raise BenchError(f"{file}: {NAMES} has {len(names) - len(rows):,} names twice; expected each image once")
    wanted = [name for _, name in listed]
    if missing := [name for name in wanted if name not in rows]:
        raise BenchError(f"{file}: {NAMES} lacks {len(missing):,} of {len(wanted):,} images of image_metadata.npy: "
                         f"{', '.join(missing[:5])}; use the features of THINGS-EEG2's images")
    return np.array([rows[name] for name in wanted])


def _check_order(file: Path, images: Array, classes: Array, label: Array) -> None:
    """Raises BenchError unless most images [P, D'] are nearer to the name of their own concept than to another's."""
    if len(classes) < 2:
        return
    near = images @ classes.T
    own = near[np.arange(len(label)), label]
    share = float((near < own[:, None]).sum() / (len(label) * (len(classes) - 1)))
    if share < ALIKE:
        raise BenchError(f"{file}: only {share:.1%} of the comparisons find an image nearer to the name of its own "
                         f"concept than to another's; expected at least {ALIKE:.0%} (wrong order: 50%). The rows are "
                         f"not in the sorted order of the images' paths; store the file names as {NAMES}")
