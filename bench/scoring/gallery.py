"""Pictures that anybody made, read one at a time from a folder or an array, matched by name, brought to one size."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.images import ENDINGS, decode, one_line, open_image

LAYOUT = "uint8, or float in [0, 1], [N, H, W, 3]"
ROWS = 64  # of an array that are checked at a time


@dataclass(frozen=True, eq=False)
class Gallery:
    """N pictures in the order of their names. `sizes`: height and width; `read`: row -> [H, W, 3] uint8."""

    path: Path
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    read: Callable[[int], np.ndarray]


def gallery(path: Path) -> Gallery:
    """The pictures of a folder (with its subfolders) or of an .npy or .npz file, opened and not yet decoded.

    A picture's name is its path below the folder without the ending; in an array [N, H, W, 3] it is the row's number,
    in [N, samples, H, W, 3] row_sample. Raises BenchError (exit 2) for anything that holds no such pictures.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise BenchError(f"{path} is not there; expected a folder of pictures, or an .npy or .npz file")
    if path.suffix not in (".npy", ".npz"):
        raise BenchError(f"{path} is neither a folder of pictures nor an .npy or .npz file")
    return _array(path)


def pair(generated: Gallery, reference: Gallery) -> np.ndarray:
    """Rows of `generated` [N, samples] that belong to each of the N reference pictures, samples in their order.

    A generated picture belongs to the reference picture whose name it has, or else to the one whose name it has before
    an underscore and a number, the sample's. Raises BenchError for names without a partner and for unequal numbers of
    samples.
    """
    at = {name: row for row, name in enumerate(reference.names)}
    found: list[list[tuple[int, int]]] = [[] for _ in at]
    strays = []
    for row, name in enumerate(generated.names):
        before, _, number = name.rpartition("_")
        if name in at:
            found[at[name]].append((-1, row))
        elif number.isdecimal() and before in at:
            found[at[before]].append((int(number), row))
        else:
            strays.append(name)
    alone = [name for name, rows in zip(reference.names, found, strict=True) if not rows]
    if strays or alone:
        parts = [f"{len(names)} of {where} without a partner: {listed(names)}"
                 for names, where in ((strays, generated.path), (alone, reference.path)) if names]
        raise BenchError(f"{'; '.join(parts)}; a generated picture has its reference's name, or name_0, name_1, ... "
                         "for its samples")
    counts = {len(rows) for rows in found}
    if len(counts) > 1:
        least, most = min(counts), max(counts)
        fewer = [name for name, rows in zip(reference.names, found, strict=True) if len(rows) < most]
        raise BenchError(f"{generated.path} has {least} to {most} samples of a picture; all need the same number, "
                         f"fewer than {most} have: {listed(fewer)}")
    return np.array([[row for _, row in sorted(rows)] for rows in found])


def read_labels(path: Path, names: Sequence[str], classes: int) -> np.ndarray:
    """Labels [N] of those pictures, from a CSV with columns name and label (0 to classes - 1); further rows are left.

    Raises BenchError for a label that is missing, given twice or out of range.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise BenchError(f"{path} cannot be read as a CSV of labels: {one_line(error)}") from error
    if not {"name", "label"} <= set(table):
        raise BenchError(f"{path} has columns {', '.join(map(str, table))}; expected name and label")
    if len(twice := table["name"][table["name"].duplicated()].tolist()):
        raise BenchError(f"{path} labels some pictures twice: {listed(twice)}")
    labels = dict(zip(table["name"], table["label"], strict=True))
    if missing := [name for name in names if name not in labels]:
        raise BenchError(f"{path} has no label of {len(missing)} pictures: {listed(missing)}")
    wrong = [f"{name} ({labels[name]})" for name in names
             if not (labels[name].strip().isdecimal() and int(labels[name]) < classes)]
    if wrong:
        raise BenchError(f"{path} has {len(wrong)} labels that are no class of the judge; expected 0 to {classes - 1}, "
                         f"found {listed(wrong)}")
    return np.array([int(labels[name]) for name in names])


def listed(names: Iterable[str]) -> str:
    """The first five names and how many more there are."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _folder(folder: Path) -> Gallery:
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.suffix.lower() not in ENDINGS or any(part.startswith(".") for part in below.parts):
            continue
        name = below.with_suffix("").as_posix()
        if name in files:
            raise BenchError(f"{folder} has two pictures of one name: {files[name].name} and {path.name}")
        files[name] = path
    if not files:
        raise BenchError(f"{folder} holds no picture ({', '.join(ENDINGS)})")
    paths, sizes = list(files.values()), []
    for path in paths:
        with open_image(path, header_only=True) as image:
            sizes.append((image.height, image.width))
    return Gallery(folder, tuple(files), tuple(sizes), lambda row: decode(paths[row]))


def _array(path: Path) -> Gallery:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            with array as file:
                if len(file.files) != 1:
                    raise BenchError(f"{path} holds {len(file.files)} arrays ({listed(file.files)}); expected one, "
                                     f"{LAYOUT}")
                array = file[file.files[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BenchError(f"{path} cannot be read as an array of pictures: {one_line(error)}") from error
    _check(path, array)
    names = [str(row) for row in range(len(array))]
    if array.ndim == 5:
        samples = array.shape[1]
        names = [f"{row}_{sample}" for row in names for sample in range(samples)]
    size = array.shape[-3:-1]
    return Gallery(path, tuple(names), (size,) * len(names),
                   lambda row: _as_uint8(array[divmod(row, array.shape[1])] if array.ndim == 5 else array[row]))


def _as_uint8(picture: np.ndarray) -> np.ndarray:
    if picture.dtype == np.uint8:
        return np.array(picture)
    return np.round(picture.astype(np.float64) * 255).astype(np.uint8)


def _check(path: Path, array: np.ndarray) -> None:
    """Raises BenchError for another layout, type or range than LAYOUT, with the cure."""
    found = f"{path} is {list(array.shape)} {array.dtype}"
    if array.ndim in (4, 5) and array.shape[-1] != 3 and array.shape[-3] == 3:
        axes = "0, 2, 3, 1" if array.ndim == 4 else "0, 1, 3, 4, 2"
        raise BenchError(f"{found}: channels come last here; save array.transpose({axes})")
    if array.ndim not in (4, 5) or array.shape[-1] != 3:
        raise BenchError(f"{found}; expected {LAYOUT} (or [N, samples, H, W, 3])")
    if not array.size:
        raise BenchError(f"{path} holds no picture: it is {list(array.shape)}")
    if array.dtype == np.uint8:
        return
    if array.dtype.kind != "f":
        raise BenchError(f"{found}; expected {LAYOUT}: save array.astype('uint8') of values 0 to 255")
    low, high = np.inf, -np.inf
    for start in range(0, len(array), ROWS):
        rows = np.asarray(array[start:start + ROWS])
        if not np.isfinite(rows).all():
            row = start + int(np.argmin(np.isfinite(rows).reshape(len(rows), -1).all(1)))
            raise BenchError(f"{path} has NaN or infinite values, the first in row {row}")
        low, high = min(low, float(rows.min())), max(high, float(rows.max()))
    if low < 0 or high > 1:
        cure = "scale it"
        if low >= 0 and high <= 255:
            cure = "divide by 255"
        elif low >= -1 and high <= 1:
            cure = "save (array + 1) / 2"
        raise BenchError(f"{path} has values from {low:g} to {high:g}; floating-point pictures are in [0, 1]: {cure}")
