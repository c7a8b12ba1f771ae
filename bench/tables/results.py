"""Reads and writes a folder of results: <ablation>.csv with every number, <ablation>.items.csv.gz with its items.

<ablation>.sha256 (checked by `sha256sum -c`) has the hashes of both, so that a change by hand is detected. What differs
from run to run (seconds, host, date) is only in <ablation>.runs.csv. docs/results.md describes every column.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError, one_line
from bench.files import check_content, locking, pending_path, sync, write_synced, writing
from bench.scoring import schema
from bench.scoring.schema import ABOUT, COLUMNS, FAILED, GROUP, ITEM_HEAD, ITEM_KEY, KEY, SCHEMA, as_text, csv_bytes

RUNS = ("date", "variant", "seed", "items", "stage", "seconds", "training_s", "sampling_s", "host", "commit",
        "peak_rss_gb", "peak_cuda_gb", "energy_kwh", "co2_kg")
RUN_NUMBERS = ("seed", "seconds", "training_s", "sampling_s", "peak_rss_gb", "peak_cuda_gb", "energy_kwh", "co2_kg")
NUMBERS = {"schema": "int64", "seed": "int64", "n": "int64", "value": "float64", "comparable": "int64",
           "params": "Int64"}
ITEM_TEXT = ("variant", "items")
NO_CSV = (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError)
OF_THE_JUDGE = ("top1_label", "top1_judge", "top1_real", "nway_label", "nway_judge", "fid", "is", "judge_distance")


@dataclass(frozen=True, eq=False)
class Results:
    """rows: one number each, columns COLUMNS; NaN in a failed row. items: a row for each ITEM_KEY."""

    rows: pd.DataFrame
    items: pd.DataFrame


def gather(folder: Path, leaky: str = "", versions: str = "", **about: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the numbers and items that a scoring stage wrote into its folder, ready for `record`.

    `about`: variant, seed, items and the rest of ABOUT without `failed`; "" where a row has no such value. leaky: the
    audit's verdict, "" without one.
    """
    about = _check_about(leaky=leaky, versions=versions, **about)
    rows, items = _parse((folder / "metrics.csv").read_bytes()), pd.DataFrame()
    if (folder / "items.csv.gz").is_file():
        items = _parse(gzip.decompress((folder / "items.csv.gz").read_bytes()))
        items = items.assign(**{name: about[name] for name in GROUP})
        items = items[[*GROUP, *(name for name in items if name not in GROUP)]]
    return rows.assign(**about), items


def failure(reason: str, leaky: str = "", versions: str = "", **about: Any) -> pd.DataFrame:
    """Returns the line of a failed row, ready for `record`. about: as in `gather`."""
    about = _check_about(leaky=leaky, versions=versions, **about)
    empty = {"metric": FAILED, "key": "", "value": "", "n": 0, "extractor": "", "extractor_sha256": "", "comparable": 0}
    return pd.DataFrame([empty | about | {"failed": " ".join(reason.split()) or "no reason was given"}])


def _check_about(**about: Any) -> dict[str, Any]:
    expected = (*GROUP, *(name for name in ABOUT if name != "failed"))
    if set(about) != set(expected):
        raise ValueError(f"expected {', '.join(expected)}, not {', '.join(about)}")
    return about | {"failed": ""}


def record(folder: Path, ablation: str, rows: pd.DataFrame, items: pd.DataFrame) -> None:
    """Adds rows to the ablation's files, or replaces them there; other rows stay unchanged.

    A row replaces the one with the same KEY, and all rows of another stage for the same variant, seed and items. Rows
    of `items` replace all of their (variant, seed, items); a metric that some of them lack is empty there. Recording
    the same rows again leaves both files byte-identical. A row of `failure` replaces the numbers of another stage for
    its (variant, seed, items); it is not recorded if numbers of its own stage exist. Numbers replace a failure. Files
    of schema 1 are upgraded. Both files change or neither does, also if the process or the machine stops half-way.

    Raises BenchError: exit 2 for files that were changed by hand, 75 for a full disk (files unchanged), 3 for a folder
    that cannot be written.
    """
    reasons = rows["failed"].fillna("") if "failed" in rows else ""
    new = as_text(rows.assign(schema=SCHEMA, ablation=ablation, failed=reasons)[list(COLUMNS)].reset_index(drop=True))
    if new.duplicated(list(KEY)).any():
        raise ValueError(f"two numbers for one of {', '.join(KEY)}")
    failed = new["metric"] == FAILED
    if ((new["value"] == "") != failed).any() or ((new["failed"] != "") != failed).any():
        raise ValueError("a row needs either a number or the reason of its failure")
    if _among(new[failed], new[~failed], GROUP).any():
        raise ValueError("a row cannot have both numbers and a failure")
    new_items = as_text(_without_gaps(items.reset_index(drop=True)))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, ablation):
            _settle(folder, ablation)
            table, items_table = map(_parse, _bytes(folder, ablation))
            if len(table):
                table = _upgraded(table, folder / f"{ablation}.csv")
                numbers = table[table["metric"] != FAILED]
                new = new[~(failed & _among(new, numbers, (*GROUP, "stage")))]
                failed = new["metric"] == FAILED
                again = _among(table, new, KEY)
                stale = _among(table, new, GROUP) & ~_among(table, new, (*GROUP, "stage"))
                over = (table["metric"] == FAILED) & _among(table, new[~failed], GROUP)
                table = table[~(again | stale | over)]
            if len(items_table):
                gone = _among(items_table, new_items, GROUP) | _among(items_table, new[failed], GROUP)
                items_table = items_table[~gone]
            every_item = pd.concat([items_table, new_items]).fillna("")
            contents = (schema.to_csv(_sorted(pd.concat([table, new]), KEY)),
                        schema.gzipped(schema.to_csv(_sorted(_item_columns(every_item), ITEM_KEY))))
            _commit(folder, ablation, dict(zip(_names(ablation), contents, strict=True)))


def restore(folder: Path, ablation: str, contents: Mapping[str, bytes]) -> None:
    """Replaces an ablation's two files as a whole by those of another folder, by their names, and writes their hashes.
    Raises BenchError as `record`."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, ablation):
            _commit(folder, ablation, contents)


def read(folder: Path, ablation: str) -> Results:
    """Returns the recorded results of an ablation, upgraded to this schema.

    Raises BenchError (exit 2) if there are none, if they were changed by hand, and for an unknown schema.
    """
    if not (folder / f"{ablation}.csv").exists() and f"{ablation}.csv" not in _hashes(folder, ablation):
        recorded = sorted(path.stem for path in folder.glob("*.sha256"))
        raise BenchError(f"no results of {ablation!r} in {folder}; "
                         + (f"there are: {', '.join(recorded)}; " if recorded else "")
                         + f"make them with: bench run --ablation {ablation}, and the --scale, --reference and "
                         "--pairs of this folder")
    with _shared(folder, ablation):
        _settle(folder, ablation)
        rows, items = _bytes(folder, ablation)
    return Results(_typed(_upgraded(_parse(rows), folder / f"{ablation}.csv")), parse_items(items))


def read_csv(path: Path) -> pd.DataFrame:
    """Returns the rows of any results CSV, such as one of `bench score`, without checking a hash; columns COLUMNS.

    Raises BenchError for a missing file, for another kind of file, and for text instead of a number.
    """
    check_content(path, "a results CSV")
    try:
        table = _parse(path.read_bytes())
    except FileNotFoundError as error:
        raise BenchError(f"no file {path}") from error
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from error
    except NO_CSV as error:
        raise BenchError(f"{path}: is not a CSV: {one_line(error)}") from error
    table = _upgraded(table, path)
    for name in NUMBERS:
        empty_if = {"value": table["metric"] == FAILED, "params": table[name] == ""}.get(name, False)
        is_number = pd.to_numeric(table[name], errors="coerce").notna() if name == "value" else \
            table[name].map(_is_whole).astype(bool)
        if (wrong := ~np.where(empty_if, table[name] == "", is_number)).any():
            line = int(np.argmax(wrong))
            expected = "no number in a failed row" if is_number.iloc[line] else \
                "a number" if name == "value" else "an integer"
            raise BenchError(f"{path}, line {line + 2}: {name} is {table[name].iloc[line]!r}, expected {expected}")
    return _typed(table)


def note_runs(folder: Path, ablation: str, runs: Iterable[Mapping[str, Any]]) -> None:
    """Appends lines to <ablation>.runs.csv; columns RUNS, a missing one stays empty."""
    text = pd.DataFrame([{name: run.get(name, "") for name in RUNS} for run in runs], columns=list(RUNS))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, ablation), (folder / f"{ablation}.runs.csv").open("rb+") as file:
            before = _parse_runs(file.read(), folder / f"{ablation}.runs.csv")
            if tuple(before) != RUNS:  # written by a version of bench with fewer columns
                file.seek(0)
                file.truncate()
                file.write(csv_bytes(before.reindex(columns=list(RUNS), fill_value="")))
            file.seek(0, os.SEEK_END)
            file.write(csv_bytes(text).split(b"\n", 1)[1])


def runs(folder: Path, ablation: str) -> pd.DataFrame:
    """Returns the recorded runs, text in columns RUNS; empty without any."""
    path = folder / f"{ablation}.runs.csv"
    if not path.is_file():
        return pd.DataFrame(columns=list(RUNS))
    return _parse_runs(path.read_bytes(), path).reindex(columns=list(RUNS), fill_value="")


def _parse_runs(data: bytes, path: Path) -> pd.DataFrame:
    """Returns the runs in a file, with the columns that it has. Raises BenchError for any other file."""
    try:
        table = _parse(data)
    except NO_CSV as error:
        raise BenchError(f"{path}: is not a CSV: {one_line(error)}; restore it, or remove it: it holds "
                         "times, no results") from error
    if unknown := [str(name) for name in table if name not in RUNS]:
        raise BenchError(f"{path} has a column {unknown[0][:80]!r}; expected {', '.join(RUNS)}; restore it, or remove "
                         "it: it holds times, no results")
    for name in (name for name in RUN_NUMBERS if name in table):
        wrong = pd.to_numeric(table[name], errors="coerce").isna() & (table[name] != "")
        if wrong.any():
            line = int(np.argmax(wrong))
            raise BenchError(f"{path}, line {line + 2}: {name} is {table[name].iloc[line]!r}, expected a number; "
                             "restore it, or remove it: it holds times, no results")
    return table


def _parse(data: bytes) -> pd.DataFrame:
    if not data.strip():
        return pd.DataFrame()
    return pd.read_csv(io.BytesIO(data), dtype=object, keep_default_na=False, na_filter=False)


def parse_items(data: bytes) -> pd.DataFrame:
    """Returns the rows of items: numbers, NaN where a row has none, and text that is never taken for a missing value,
    such as a variant with the name "null"."""
    if not data.strip():
        return pd.DataFrame()
    names = data.partition(b"\n")[0].decode().split(",")
    return pd.read_csv(io.BytesIO(data), dtype=dict.fromkeys(ITEM_TEXT, object), keep_default_na=False,
                       na_values={name: [""] for name in names if name not in ITEM_TEXT})


def _is_whole(text: str) -> bool:
    return re.fullmatch("-?[0-9]{1,19}", text) is not None and -(2**63) <= int(text) < 2**63


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Converts text to numbers; the empty number of a failed row is NaN."""
    return table.assign(params=table["params"].replace("", pd.NA),
                        value=table["value"].replace("", np.nan)).astype(NUMBERS)


def _upgraded(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Converts text of schema 1 to this schema. Raises BenchError for other columns."""
    if tuple(table) == COLUMNS and set(table["schema"]) <= {str(SCHEMA)}:
        return table
    added = ("schema", *schema.PROVENANCE, "leaky", "versions", "failed")
    if tuple(table) != tuple(name for name in COLUMNS if name not in added):
        other = ", ".join(sorted(set(map(str, table.get("schema", ()))) - {str(SCHEMA)}))
        found = f"schema {other}" if other else "other columns"
        raise BenchError(f"{path} has {found}, expected schema {SCHEMA} (docs/results.md); read it with the version of "
                         "bench that wrote it, or delete it with its .items.csv.gz and .sha256 and run again")
    judged = table["metric"].isin(OF_THE_JUDGE)
    judge = table["judge"].str.partition("@")
    upgraded = table.assign(schema=str(SCHEMA), extractor=judge[0].where(judged, ""),
                            extractor_sha256=judge[2].where(judged, ""), comparable=np.where(judged, "0", "1"),
                            leaky="", versions="", failed="")
    return upgraded[list(COLUMNS)].astype(object)


def _without_gaps(items: pd.DataFrame) -> pd.DataFrame:
    """Writes "" for a metric that a whole (variant, seed, items) lacks. Raises ValueError if only some lack it."""
    missing = items.isna()
    if not missing.to_numpy().any():
        return items
    lacks = missing.groupby([items[name] for name in GROUP])
    if not (lacks.transform("all") == missing).to_numpy().all():
        raise ValueError("a number is NaN")
    return items.astype(object).mask(missing, "")


def _item_columns(items: pd.DataFrame) -> pd.DataFrame:
    """Orders the columns: ITEM_HEAD first, then by name; drops a metric that no row has."""
    if items.empty:
        return pd.DataFrame()
    kept = [str(name) for name in items if name in ITEM_KEY or (items[name] != "").any()]
    return items[[*(n for n in ITEM_HEAD if n in kept), *sorted(n for n in kept if n not in ITEM_HEAD)]]


def _among(frame: pd.DataFrame, others: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Tells which rows of `frame` agree with a row of `others` in these columns."""
    if others.empty or frame.empty:
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


# A change consists of two files and their hashes. The new files are first written next to the old ones. Replacing the
# file of hashes makes the change valid; then the new files are moved into place, by the next reader if the process
# stopped here. Before that replacement nothing has changed.
def _commit(folder: Path, ablation: str, contents: Mapping[str, bytes]) -> None:
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items()]
    contents = {**contents, f"{ablation}.sha256": "".join(lines).encode()}
    try:
        for name, data in contents.items():
            write_synced(pending_path(folder / name), data)
    except OSError:
        for name in contents:
            pending_path(folder / name).unlink(missing_ok=True)
        raise
    hashes = folder / f"{ablation}.sha256"
    sync(folder)
    pending_path(hashes).replace(hashes)
    sync(folder)
    _settle(folder, ablation)


def _settle(folder: Path, ablation: str) -> None:
    """Completes an interrupted change, and raises BenchError (exit 2) for a file that was changed by hand."""
    hashes = _hashes(folder, ablation)
    for name in _names(ablation):
        path = folder / name
        if name in hashes and _digest(pending_path(path)) == hashes[name]:
            with writing(folder), suppress(FileNotFoundError):  # another reader may do the same
                pending_path(path).replace(path)
                sync(folder)
        if hashes.get(name) != _digest(path):
            raise BenchError(f"{path} was changed since bench wrote it (its SHA-256 is not the one in "
                             f"{ablation}.sha256): restore it, or delete it together with "
                             f"{' and '.join(_companions(ablation, name))} and run again")


def _companions(ablation: str, name: str) -> list[str]:
    return [other for other in (*_names(ablation), f"{ablation}.sha256") if other != name]


def _hashes(folder: Path, ablation: str) -> dict[str, str]:
    try:
        lines = (folder / f"{ablation}.sha256").read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


@contextmanager
def _locked(folder: Path, ablation: str) -> Iterator[None]:
    """Locks for one writer and no reader, on <ablation>.runs.csv, the only file that is never replaced."""
    path = folder / f"{ablation}.runs.csv"
    with suppress(FileExistsError), path.open("x", encoding="utf-8", newline="") as file:
        file.write(",".join(RUNS) + "\n")
    with locking(path):
        yield


@contextmanager
def _shared(folder: Path, ablation: str) -> Iterator[None]:
    """Locks for several readers. A folder without <ablation>.runs.csv is a copy without writers: no lock."""
    path = folder / f"{ablation}.runs.csv"
    if not path.exists():
        yield
        return
    with locking(path, shared=True):
        yield
