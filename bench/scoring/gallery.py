"""Images of any system: read one at a time from a folder or an array, and matched by name."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.listing import describe_skipped, list_files
from bench.data.ranges import FloatRange
from bench.errors import BenchError, join_names, one_line
from bench.files import IMAGES, check_content, open_array
from bench.images import decode, open_image

LAYOUT = "uint8, or float in [0, 1], [N, H, W, 3]"
ROWS = 64  # of an array that are checked at once
LINES, WIDTH = 3, 60  # of a label file that an error shows


@dataclass(frozen=True, eq=False)
class Gallery:
    """N images in the order of their names. sizes: height and width; read(row) returns [H, W, 3] uint8.

    skipped: reason -> names of other files of the folder. clipped: how many values of an array are outside [0, 1] by
    rounding, the lowest and the highest value."""

    path: Path
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    read: Callable[[int], np.ndarray]
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clipped: tuple[int, float, float] | None = None

    def describe(self) -> list[str]:
        """Returns a line for what was left out and one for values that were clipped, if any."""
        lines = []
        if self.skipped:
            lines.append(f"left out of {self.path}: {describe_skipped(self.skipped)}")
        if self.clipped:
            count, low, high = self.clipped
            lines.append(f"clipped in {self.path}: {count} values outside [0, 1] by rounding ({low:.9g} to "
                         f"{high:.9g}); this changes no pixel")
        return lines


def open_gallery(path: Path) -> Gallery:
    """Opens the images of a folder and its subfolders, or of an .npy or .npz file, without decoding them. An image's
    name is its path below the folder without the ending, with composed characters (Unicode NFC). In an array [N, H, W,
    3] it is the row's number, in [N, samples, H, W, 3] row_sample. Links are followed; hidden files and other endings
    are counted in `skipped`. Raises BenchError (exit 2) for a path without such images."""
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
        parts += [f"{describe_skipped(side.skipped)} left out of {side.path}" for side in (generated, reference)
                  if side.skipped]
        raise BenchError(f"{'; '.join(parts)}; expected the name of the reference image, or name_0, name_1, ... for "
                         "samples")
    least, most = min(map(len, matches)), max(map(len, matches))
    if least < most:
        fewer = [name for name, rows in zip(reference.names, matches, strict=True) if len(rows) < most]
        raise BenchError(f"{generated.path} has {least} to {most} samples of an image; expected equal numbers, fewer "
                         f"than {most} have: {join_names(fewer)}")
    return np.array([[row for _, row in sorted(rows)] for rows in matches])


def read_labels(path: Path, names: Sequence[str], classes: int) -> np.ndarray:
    """Reads the labels [N] of images from a CSV with columns name and label (0 to classes - 1); other rows are ignored
    (`unused_labels`). Raises BenchError for a label that is missing, repeated or out of range."""
    labels = read_label_rows(path)
    if missing := [name for name in names if name not in labels]:
        raise BenchError(f"{path} has no label for {len(missing)} of {len(names)} images: {join_names(missing)}; its "
                         f"first lines are {_first_lines(path)}; expected the images' paths below their folder, "
                         "without the ending, as names")
    wrong = [f"{name} ({labels[name]})" for name in names
             if not (labels[name].strip().isdecimal() and float(labels[name]) < classes)]
    if wrong:
        raise BenchError(f"{path} has {len(wrong)} labels that are not classes of the judge; expected 0 to "
                         f"{classes - 1}, not {join_names(wrong)}")
    return np.array([int(labels[name]) for name in names])


def unused_labels(path: Path, names: Sequence[str]) -> list[str]:
    """Returns the names in a CSV of labels that no image has. Errors as `read_labels`."""
    return sorted(read_label_rows(path).keys() - set(names))


def read_label_rows(path: Path) -> dict[str, str]:
    """Reads a CSV of labels: name (NFC) -> label, as text."""
    table = read_text_table(path, "a CSV of labels")
    if not {"name", "label"} <= set(table):
        raise BenchError(f"{path} has columns {', '.join(map(str, table))}; expected name and label")
    table["name"] = table["name"].map(_compose)
    if len(repeated := table["name"][table["name"].duplicated()].tolist()):
        raise BenchError(f"{path} labels some images twice: {join_names(repeated)}")
    return dict(zip(table["name"], table["label"], strict=True))


def read_text_table(path: Path, expected: str) -> pd.DataFrame:
    """Reads a CSV whose cells are all text. Raises BenchError for any other file; expected: what it should be."""
    check_content(path, expected)
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise BenchError(f"{path} cannot be read as {expected}: {one_line(error)}") from error


def _first_lines(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[:LINES]
    return ", ".join(repr(line[:WIDTH]) for line in lines)


def _compose(name: str) -> str:
    """Returns a name in Unicode's composed form: macOS writes the letter and the accent of é as two characters."""
    return unicodedata.normalize("NFC", name)


def _open_folder(folder: Path) -> Gallery:
    files: dict[str, Path] = {}
    listing = list_files(folder, IMAGES)
    for path in listing.files:
        below = path.relative_to(folder).with_suffix("").as_posix()
        if (other := files.setdefault(_compose(below), path)) != path:
            if other.relative_to(folder).with_suffix("").as_posix() == below:
                raise BenchError(f"{folder} has two images of one name: {other.name} and {path.name}")
            raise BenchError(f"{folder} has two images whose names are equal but for the form of their Unicode "
                             f"characters: {other.name!a} and {path.name!a}; rename one of them")
    if not files:
        left_out = f"; left out: {describe_skipped(listing.skipped)}" if listing.skipped else ""
        raise BenchError(f"{folder} contains no image ({', '.join(IMAGES)}){left_out}")
    paths, sizes = list(files.values()), []
    for path in paths:
        with open_image(path, header_only=True) as image:
            sizes.append((image.height, image.width))
    return Gallery(folder, tuple(files), tuple(sizes), lambda row: decode(paths[row]), listing.skipped)


def _open_array(path: Path) -> Gallery:
    array = open_array(path, "an array of images")
    clipped = _check_layout(path, array)
    names = [str(row) for row in range(len(array))]
    if array.ndim == 5:
        names = [f"{row}_{sample}" for row in names for sample in range(array.shape[1])]
    return Gallery(path, tuple(names), (array.shape[-3:-1],) * len(names),
                   lambda row: _as_uint8(array[divmod(row, array.shape[1])] if array.ndim == 5 else array[row]),
                   clipped=clipped)


def _as_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return np.array(image)
    return np.round(image.astype(np.float64).clip(0, 1) * 255).astype(np.uint8)


def _check_layout(path: Path, array: np.ndarray) -> tuple[int, float, float] | None:
    """Returns `Gallery.clipped`. Raises BenchError for a layout, type or range other than LAYOUT, and says how to
    convert it."""
    actual = f"{path} is {list(array.shape)} {array.dtype}"
    if array.ndim in (4, 5) and array.shape[-1] != 3 and array.shape[-3] == 3:
        raise BenchError(f"{actual}; expected channels last: save array.transpose("
                         f"{'0, 2, 3, 1' if array.ndim == 4 else '0, 1, 3, 4, 2'})")
    if array.ndim not in (4, 5) or array.shape[-1] != 3:
        raise BenchError(f"{actual}; expected {LAYOUT} (or [N, samples, H, W, 3])")
    if not array.size:
        raise BenchError(f"{path} contains no image: it is {list(array.shape)}")
    if array.dtype == np.uint8:
        return None
    if array.dtype.kind != "f":
        raise BenchError(f"{actual}; expected {LAYOUT}: save array.astype('uint8') of values 0 to 255")
    span = FloatRange()
    for start in range(0, len(array), ROWS):
        rows = np.asarray(array[start:start + ROWS])
        if not np.isfinite(rows).all():
            row = start + int(np.argmin(np.isfinite(rows).reshape(len(rows), -1).all(1)))
            raise BenchError(f"{path} has NaN or infinite values, the first in row {row}")
        span.add(rows)
    if not span.fits:
        raise BenchError(f"{path} has values from {span.low:g} to {span.high:g}; expected floats in [0, 1]: "
                         f"{span.describe_cure()}")
    return (span.outside, span.low, span.high) if span.outside else None
