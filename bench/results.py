"""A folder of results: <ablation>.csv with every number, <ablation>.items.csv.gz with what they were averaged from.

<ablation>.sha256 (checked by `sha256sum -c`) says how bench left both, so that a change by hand is seen. What differs
from run to run (seconds, host, date) stands in <ablation>.runs.csv alone.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import ENVIRONMENT, RESUMABLE, BenchError

METRICS = ("metric", "key", "value", "n")  # what a scoring stage writes
GROUP = ("variant", "seed", "items")
KEY = (*GROUP, "metric", "key")
ABOUT = ("scale", "world", "config", "spec", "judge", "numerics", "pretrain_seeds", "params", "paper_params", "stage")
COLUMNS = ("ablation", *KEY, "value", "n", *ABOUT)
ITEM_KEY = (*GROUP, "item", "sample")
RUNS = ("date", "variant", "seed", "items", "stage", "seconds", "host", "commit")
NUMBERS = {"seed": "int64", "n": "int64", "value": "float64", "params": "Int64"}
ITEM_TEXT = ("variant", "items")


@dataclass(frozen=True, eq=False)
class Results:
    """rows: a number each, columns COLUMNS. items: a row for each (variant, seed, items, item, sample)."""

    rows: pd.DataFrame
    items: pd.DataFrame


def gather(folder: Path, **about: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a scoring stage wrote into its folder, with columns that say whose it is, ready to be recorded.

    `about`: variant, seed, items and those of ABOUT; what has no meaning for a row is "".
    """
    if set(about) != {*GROUP, *ABOUT}:
        raise ValueError(f"expected {', '.join((*GROUP, *ABOUT))}, not {', '.join(about)}")
    rows, items = _table((folder / "metrics.csv").read_bytes()), pd.DataFrame()
    if (folder / "items.csv.gz").is_file():
        items = _table(gzip.decompress((folder / "items.csv.gz").read_bytes()))
        items = items.assign(**{name: about[name] for name in GROUP})
        items = items[[*GROUP, *(name for name in items if name not in GROUP)]]
    return rows.assign(**about), items


def record(folder: Path, ablation: str, rows: pd.DataFrame, items: pd.DataFrame) -> None:
    """Adds numbers to the ablation's files, or replaces them there; every other row stays as it is.

    A row takes the place of the one with the same KEY, and of all that another stage wrote for the same variant,
    seed and items. Rows of `items` take the place of all of their (variant, seed, items). Recording the same
    rows again leaves both files byte-identical. Either both files change or none does, also when the process or the
    machine stops half-way. Raises BenchError: exit 2 for files that were changed by hand, 75 for a full disk, with
    the files as they were, 3 for a folder that cannot be written.
    """
    new = _text(rows.assign(ablation=ablation))[list(COLUMNS)]
    if new.duplicated(list(KEY)).any():
        raise ValueError(f"two numbers for one of {', '.join(KEY)}")
    new_items = _text(items)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, ablation):
            _settle(folder, ablation)
            table, items_table = map(_table, _bytes(folder, ablation))
            for path, old, add in zip(_names(ablation), (table, items_table), (new, new_items), strict=True):
                if len(old) and len(add) and list(old) != list(add):
                    raise BenchError(f"{folder / path} has the columns of another version of bench: delete it together "
                                     f"with {' and '.join(_companions(ablation, path))} and run again")
            if len(table):
                again = _among(table, new, list(KEY))
                stale = _among(table, new, list(GROUP)) & ~_among(table, new, [*GROUP, "stage"])
                table = table[~(again | stale)]
            if len(items_table):
                items_table = items_table[~_among(items_table, new_items, list(GROUP))]
            contents = (_csv(_sorted(pd.concat([table, new]), KEY)),
                        gzipped(_csv(_sorted(pd.concat([items_table, new_items]), ITEM_KEY))))
            _commit(folder, ablation, dict(zip(_names(ablation), contents, strict=True)))


def read(folder: Path, ablation: str) -> Results:
    """All that is recorded of an ablation. Raises BenchError (exit 2) where nothing is, or where it was changed."""
    if not (folder / f"{ablation}.csv").exists() and f"{ablation}.csv" not in _hashes(folder, ablation):
        there = sorted(path.stem for path in folder.glob("*.sha256"))
        raise BenchError(f"no results of {ablation!r} in {folder}; "
                         + (f"there are: {', '.join(there)}; " if there else "")
                         + f"make them with: bench run --ablation {ablation}")
    with _shared(folder, ablation):
        _settle(folder, ablation)
        rows, items = _bytes(folder, ablation)
    table = _table(rows)
    table["params"] = table["params"].replace("", pd.NA)
    singly = pd.read_csv(io.BytesIO(items), dtype=dict.fromkeys(ITEM_TEXT, object)) if items.strip() else pd.DataFrame()
    return Results(table.astype(NUMBERS), singly)


def note_runs(folder: Path, ablation: str, runs: Iterable[Mapping[str, Any]]) -> None:
    """Appends to <ablation>.runs.csv what changes from run to run; columns RUNS, one missing is left empty."""
    text = pd.DataFrame([{name: run.get(name, "") for name in RUNS} for run in runs], columns=list(RUNS))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, ablation), (folder / f"{ablation}.runs.csv").open("ab") as file:
            file.write(csv_bytes(text).split(b"\n", 1)[1])


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """The frame as CSV: `%.10g`, `\\n`, in the order given. ValueError for NaN."""
    return _csv(_text(frame))


def gzipped(data: bytes) -> bytes:
    """gzip without name and time, so that equal data are equal files."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as file:
        file.write(data)
    return buffer.getvalue()


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole: whoever reads it sees the old one or the new one."""
    _put(new := _pending(path), data)
    new.replace(path)
    _sync(path.parent)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns a full disk into BenchError (exit 75: resumable) and a place that cannot be written into exit 3."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(f"the disk is full: {place} is as it was; make room and run again", RESUMABLE) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise BenchError(f"cannot write to {place}: {error.strerror}; name another folder, or give write access",
                             ENVIRONMENT) from error
        raise


def _cell(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            raise ValueError("a number is NaN")
        return f"{value:.10g}"
    return "" if value is None else str(value)


def _text(frame: pd.DataFrame) -> pd.DataFrame:
    """Every cell as the text that stands in the file; text stays as it is."""
    return pd.DataFrame({name: frame[name].astype(object).map(_cell) for name in frame}, dtype=object)


def _csv(text: pd.DataFrame) -> bytes:
    return text.to_csv(index=False, lineterminator="\n").encode()


def _table(data: bytes) -> pd.DataFrame:
    if not data.strip():
        return pd.DataFrame()
    return pd.read_csv(io.BytesIO(data), dtype=object, keep_default_na=False, na_filter=False)


def _among(frame: pd.DataFrame, others: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Which rows of `frame` agree with one of `others` in these columns."""
    if others.empty:
        return pd.Series(False, index=frame.index)
    known = set(others[list(columns)].itertuples(index=False, name=None))
    return pd.Series([row in known for row in frame[list(columns)].itertuples(index=False, name=None)], frame.index)


def _sorted(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    if frame.empty:
        return frame
    keys = {name: pd.to_numeric(frame[name]) if name in ("seed", "item", "sample") else frame[name] for name in columns}
    order = pd.DataFrame(keys).reset_index(drop=True).sort_values(list(columns), kind="stable").index
    return frame.iloc[order]


def _names(ablation: str) -> tuple[str, str]:
    return f"{ablation}.csv", f"{ablation}.items.csv.gz"


def _bytes(folder: Path, ablation: str) -> tuple[bytes, bytes]:
    rows, items = (folder / name for name in _names(ablation))
    return (rows.read_bytes(), gzip.decompress(items.read_bytes())) if rows.exists() else (b"", b"")


# A change is two files and their hashes. The new files are written beside the old ones first; replacing the file of
# hashes is the moment at which the change has happened; moving the new files to their places only follows from it,
# and whoever comes next does it where that was cut short. Before that moment all is as it was.


def _commit(folder: Path, ablation: str, contents: Mapping[str, bytes]) -> None:
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items()]
    contents = {**contents, f"{ablation}.sha256": "".join(lines).encode()}
    try:
        for name, data in contents.items():
            _put(_pending(folder / name), data)
    except OSError:
        for name in contents:
            _pending(folder / name).unlink(missing_ok=True)
        raise
    hashes = folder / f"{ablation}.sha256"
    _sync(folder)
    _pending(hashes).replace(hashes)
    _sync(folder)
    _settle(folder, ablation)


def _settle(folder: Path, ablation: str) -> None:
    """Ends a change that was cut short, and raises BenchError (exit 2) for a file that bench did not leave so."""
    hashes = _hashes(folder, ablation)
    for name in _names(ablation):
        path = folder / name
        if name in hashes and _digest(_pending(path)) == hashes[name]:
            with writing(folder), suppress(FileNotFoundError):  # another reader may be doing it, too
                _pending(path).replace(path)
                _sync(folder)
        if hashes.get(name) != _digest(path):
            raise BenchError(f"{path} was changed since bench wrote it (its SHA-256 is not the one in "
                             f"{ablation}.sha256): restore it, or delete it together with "
                             f"{' and '.join(_companions(ablation, name))} and run again")


def _companions(ablation: str, name: str) -> list[str]:
    return [other for other in (*_names(ablation), f"{ablation}.sha256") if other != name]


def _hashes(folder: Path, ablation: str) -> dict[str, str]:
    try:
        lines = (folder / f"{ablation}.sha256").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _pending(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _put(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: Path, ablation: str) -> Iterator[None]:
    """One writer at a time and no reader beside it; on <ablation>.runs.csv, the one file that is never replaced."""
    path = folder / f"{ablation}.runs.csv"
    with suppress(FileExistsError), path.open("x") as file:
        file.write(",".join(RUNS) + "\n")
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _shared(folder: Path, ablation: str) -> Iterator[None]:
    """Many readers at a time. A folder without <ablation>.runs.csv is a copy that nobody writes to."""
    path = folder / f"{ablation}.runs.csv"
    if not path.exists():
        yield
        return
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
