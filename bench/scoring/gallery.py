"""Images of any system: read one at a time from a folder or an array, and matched by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.files import open_array
from bench.images import ENDINGS, decode, one_line, open_image

LAYOUT = "uint8, or float in [0, 1], [N, H, W, 3]"
ROWS = 64  # of an array that are checked at once


@dataclass(frozen=True, eq=False)
class Gallery:
    """N images in the order of their names. sizes: height and width; read(row) returns [H, W, 3] uint8."""

    path: Path
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    read: Callable[[int], np.ndarray]


def open_gallery(path: Path) -> Gallery:
    """Opens the images of a folder and its subfolders, or of an .npy or .npz file, without decoding them. An image's
    name is its path below the folder without the ending. In an array [N, H, W, 3] it is the row's number, in [N,
    samples, H, W, 3] row_sample. Raises BenchError (exit 2) for a path without such images."""
    if path.is_dir():
        return _open_folder(path)
    if path.is_file() and path.suffix in (".npy", ".npz"):
        return _open_array(path)
    problem = "is not one" if path.is_file() else "does not exist"
    raise BenchError(f"{path} {problem}; expected a folder of images, or an .npy or .npz file")


def pair(generated: Gallery, reference: Gallery) -> np.ndarray:
    """Returns the rows of `generated` [N, samples] that belong to each of the N reference images, samples in order. A
    generated image belongs to the reference image of the same name, or of its name before an underscore and the
    sample's number. Raises BenchError for names without a partner and for unequal numbers of samples."""
    rows_of = {name: row for row, name in enumerate(reference.names)}
    matches: list[list[tuple[int, int]]] = [[] for _ in rows_of]
    unmatched = []
    for row, name in enumerate(generated.names):
        stem, _, number = name.rpartition("_")
        if name in rows_of:
            matches[rows_of[name]].append((-1, row))
        elif number.isdecimal() and stem in rows_of:
            matches[rows_of[stem]].append((int(number), row))
        else:
            unmatched.append(name)
    empty = [name for name, rows in zip(reference.names, matches, strict=True) if not rows]
    if unmatched or empty:
        parts = [f"{len(names)} of {path} without a partner: {join_names(names)}"
                 for names, path in ((unmatched, generated.path), (empty, reference.path)) if names]
        raise BenchError(f"{'; '.join(parts)}; expected the name of the reference image, or name_0, name_1, ... for "
                         "samples")
    least, most = min(map(len, matches)), max(map(len, matches))
    if least < most:
        fewer = [name for name, rows in zip(reference.names, matches, strict=True) if len(rows) < most]
        raise BenchError(f"{generated.path} has {least} to {most} samples of an image; expected equal numbers, fewer "
                         f"than {most} have: {join_names(fewer)}")
    return np.array([[row for _, row in sorted(rows)] for rows in matches])


def read_labels(path: Path, names: Sequence[str], classes: int) -> np.ndarray:
    """Reads the labels [N] of images from a CSV with columns name and label (0 to classes - 1); other rows are ignored.
    Raises BenchError for a label that is missing, repeated or out of range."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise BenchError(f"{path} cannot be read as a CSV of labels: {one_line(error)}") from error
    if not {"name", "label"} <= set(table):
        raise BenchError(f"{path} has columns {', '.join(map(str, table))}; expected name and label")
    if len(repeated := table["name"][table["name"].duplicated()].tolist()):
        raise BenchError(f"{path} labels some images twice: {join_names(repeated)}")
    labels = dict(zip(table["name"], table["label"], strict=True))
    if missing := [name for name in names if name not in labels]:
        raise BenchError(f"{path} has no label for {len(missing)} images: {join_names(missing)}")
    wrong = [f"{name} ({labels[name]})" for name in names
             if not (labels[name].strip().isdecimal() and int(labels[name]) < classes)]
    if wrong:
        raise BenchError(f"{path} has {len(wrong)} labels that are not classes of the judge; expected 0 to "
                         f"{classes - 1}, not {join_names(wrong)}")
    return np.array([int(labels[name]) for name in names])


def join_names(names: Iterable[str]) -> str:
    """Joins the first five names, and says how many more there are."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _open_folder(folder: Path) -> Gallery:
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.suffix.lower() not in ENDINGS or any(part.startswith(".") for part in below.parts):
            continue
        name = below.with_suffix("").as_posix()
        if name in files:
            raise BenchError(f"{folder} has two images of one name: {files[name].name} and {path.name}")
        files[name] = path
    if not files:
        raise BenchError(f"{folder} contains no image ({', '.join(ENDINGS)})")
    paths, sizes = list(files.values()), []
    for path in paths:
        with open_image(path, header_only=True) as image:
            sizes.append((image.height, image.width))
    return Gallery(folder, tuple(files), tuple(sizes), lambda row: decode(paths[row]))


def _open_array(path: Path) -> Gallery:
    array = open_array(path, "an array of images")
    _check_layout(path, array)
    names = [str(row) for row in range(len(array))]
    if array.ndim == 5:
        names = [f"{row}_{sample}" for row in names for sample in range(array.shape[1])]
    return Gallery(path, tuple(names), (array.shape[-3:-1],) * len(names),
                   lambda row: _as_uint8(array[divmod(row, array.shape[1])] if array.ndim == 5 else array[row]))


def _as_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return np.array(image)
    return np.round(image.astype(np.float64) * 255).astype(np.uint8)


def _check_layout(path: Path, array: np.ndarray) -> None:
    """Raises BenchError for a layout, type or range other than LAYOUT, and says how to convert it."""
    actual = f"{path} is {list(array.shape)} {array.dtype}"
    if array.ndim in (4, 5) and array.shape[-1] != 3 and array.shape[-3] == 3:
        raise BenchError(f"{actual}; expected channels last: save array.transpose("
                         f"{'0, 2, 3, 1' if array.ndim == 4 else '0, 1, 3, 4, 2'})")
    if array.ndim not in (4, 5) or array.shape[-1] != 3:
        raise BenchError(f"{actual}; expected {LAYOUT} (or [N, samples, H, W, 3])")
    if not array.size:
        raise BenchError(f"{path} contains no image: it is {list(array.shape)}")
    if array.dtype == np.uint8:
        return
    if array.dtype.kind != "f":
        raise BenchError(f"{actual}; expected {LAYOUT}: save array.astype('uint8') of values 0 to 255")
    low, high = np.inf, -np.inf
    for start in range(0, len(array), ROWS):
        rows = np.asarray(array[start:start + ROWS])
        if not np.isfinite(rows).all():
            row = start + int(np.argmin(np.isfinite(rows).reshape(len(rows), -1).all(1)))
            raise BenchError(f"{path} has NaN or infinite values, the first in row {row}")
        low, high = min(low, float(rows.min())), max(high, float(rows.max()))
    if low < 0 or high > 1:
        cure = "divide by 255" if low >= 0 and high <= 255 else \
            "save (array + 1) / 2" if low >= -1 and high <= 1 else "scale it"
        raise BenchError(f"{path} has values from {low:g} to {high:g}; expected floats in [0, 1]: {cure}")
