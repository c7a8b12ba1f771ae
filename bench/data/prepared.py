"""Prepared data sets and corpora: their manifests, the checks of their files, the names of columns and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bench.errors import ENVIRONMENT, BenchError
from bench.files import describe_content
from bench.files import sha256 as file_hash

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
MANIFEST = "manifest.json"
PARTS = ("train", "val", "test")
COLUMNS = ("item", "subject", "picture", "label", "block", "position")  # of trials.csv, before the columns of parts
CLASS_COLUMNS = ("label", "name", "judge", "shown")
NEEDED: dict[str, dict[str, Any]] = {  # by kind: the entries of a manifest that readers need, and their types
    "pairs": {"name": str, "n_chans": int, "n_times": int, "sfreq": (int, float), "bands": list, "leaky": dict,
              "files": dict},
    "corpus": {"name": str, "n_chans": int, "band": list, "window": dict, "windows": int, "shards": list,
               "files": dict},
}
ROWS = 256  # rows of EEG copied at a time
NO_NAME = ("", "n/a")  # text that means a missing value, also as a name: BIDS writes n/a
NO_VALUE = (*NO_NAME, "nan", "nat", "<na>")  # and in a column, where str(NaN) may have made it


class Dataset(Protocol):
    """A reference to a prepared data set: name, SHA-256 of its manifest, folder ("": not prepared yet)."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def path(self) -> str: ...


def describe_leak(world: Dataset, split: str) -> str:
    """Returns what the recording says about leaks of a split: "no: ..." or "yes: ...", with the reason."""
    return str(open_dataset(world)[1]["leaky"][split])


def open_dataset(world: Dataset) -> tuple[Path, dict[str, Any]]:
    """Returns a data set's folder and manifest, after a check of the manifest's hash and of all file sizes.

    Raises BenchError (exit 3) if the data set is not prepared, has another hash, or lacks a file.
    """
    if not world.path:
        raise BenchError(f"data set {world.name} is not prepared; run: bench data prepare {world.name} --from DIR",
                         ENVIRONMENT)
    folder = Path(world.path)
    manifest, _ = read_manifest(folder, "pairs", world.sha256)
    check_sizes(folder, manifest["files"])
    return folder, manifest


def read_manifest(folder: Path, kind: str = "pairs", sha256: str | None = None) -> tuple[dict[str, Any], str]:
    """Reads the manifest of a data set (kind "pairs") or a corpus ("corpus"), and returns it with its SHA-256.

    Raises BenchError (exit 3) if there is none, or one of another kind, schema or SHA-256.
    """
    thing, file = {"pairs": "data set", "corpus": "corpus"}[kind], folder / MANIFEST
    try:
        text = file.read_bytes()
        manifest: dict[str, Any] = json.loads(text)
        stated = manifest["kind"], manifest["schema"]
    except OSError as error:
        raise BenchError(f"no prepared {thing} at {folder} ({error.strerror}); prepare it (bench data prepare), or "
                         "name its folder with --data DIR", ENVIRONMENT) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{file}: not the manifest of a {thing} ({describe_content(file) or repr(error)}); remove "
                         f"{folder} and prepare it again", ENVIRONMENT) from error
    if stated == (kind, 1) and (wrong := _find_fault(manifest, kind)):
        raise BenchError(f"{file}: {wrong}; restore it, or remove {folder} and prepare it again", ENVIRONMENT)
    if stated != (kind, 1):
        raise BenchError(f"{file}: kind {stated[0]!r}, schema {stated[1]!r}; expected {kind!r}, 1; remove {folder} and "
                         "prepare it again", ENVIRONMENT)
    actual = hashlib.sha256(text).hexdigest()
    if sha256 is not None and actual != sha256:
        raise BenchError(f"{file} has SHA-256 {actual[:12]}, not {sha256[:12]}: the {thing} was prepared again; repeat "
                         "the command, so that the stages are built from the new one", ENVIRONMENT)
    return manifest, actual


def _find_fault(manifest: Mapping[str, Any], kind: str) -> str:
    """Describes what a manifest lacks that its readers need; "" if it lacks nothing."""
    for name, expected in NEEDED[kind].items():
        if not isinstance(manifest.get(name), expected) or isinstance(manifest[name], bool):
            return f"{name} is {'missing' if name not in manifest else repr(manifest[name])[:80]}"
    if kind == "corpus" and not isinstance(manifest["window"].get("n_times"), int):
        return "window has no n_times"
    entries = {shard.get("file") if isinstance(shard, dict) else None: shard
               for shard in manifest.get("shards", ())} | manifest["files"]
    for name, entry in entries.items():
        if not (isinstance(name, str) and isinstance(entry, dict) and isinstance(entry.get("bytes"), int)
                and isinstance(entry.get("sha256"), str)):
            return f"the entry of file {name} has no bytes and sha256"
    return ""


def check_sizes(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises BenchError (exit 3) for a file that is missing or does not have the size in its manifest entry."""
    for name, entry in entries.items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            kind = describe_content(file)
            actual = "missing" if size is None else f"{size:,} bytes ({kind})" if kind else f"{size:,} bytes"
            raise BenchError(f"{file}: {actual}, expected {entry['bytes']:,} bytes; restore it, or remove {folder} and "
                             "prepare it again", ENVIRONMENT)


def check_hashes(folder: Path, entries: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> None:
    """Reads these files whole. Raises BenchError (exit 3) for one that does not have the hash in its manifest entry."""
    for name in names:
        if name not in entries or not (folder / name).is_file() or file_hash(folder / name) != entries[name]["sha256"]:
            raise BenchError(f"{folder / name} is missing, or has another SHA-256 than {MANIFEST} says; restore it, or "
                             f"remove {folder} and prepare it again", ENVIRONMENT)


def verify(folder: Path) -> list[str]:
    """Reads a whole prepared data set and returns one line for each damaged or unknown file."""
    return verify_files(folder, read_manifest(folder)[0]["files"])


def verify_files(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Compares the hashes of all files in a folder with their manifest entries; one line for each difference."""
    damage = []
    for name, entry in entries.items():
        file = folder / name
        if not file.is_file():
            damage.append(f"{file}: missing")
        elif file_hash(file) != entry["sha256"]:
            damage.append(f"{file}: another SHA-256 than the manifest says; {file.stat().st_size:,} bytes, expected "
                          f"{entry['bytes']:,}")
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return [*damage, *(f"{folder / name}: not in the manifest" for name in sorted(files - {*entries, MANIFEST}))]


def is_missing(value: Any, names: bool = False) -> bool:
    """Returns whether a cell of a user's table means a missing value: None, NaN, NaT, pandas.NA, or text that says so.

    names: of a class or a channel, which may be called "nan". "NA", "null" and "None" are text everywhere: a class,
    an object or a session may have this name.
    """
    if isinstance(value, str):
        return value.strip().casefold() in (NO_NAME if names else NO_VALUE)
    import pandas as pd

    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def read_table(path: Path, numbers: Sequence[str]) -> pd.DataFrame:
    """Reads a CSV of a data set. The columns `numbers`, as far as they exist, are int64 (or float64); all others are
    text as it is in the file: a class "null" and a session "01" keep their names.

    Raises BenchError (exit 3) for a file that is missing or is not a CSV, and for a cell without a number.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: not a readable table ({' '.join(str(error).split())}); prepare the data set again, "
                         "or remove the stage from the store", ENVIRONMENT) from error
    for name in (name for name in numbers if name in table):
        values = pd.to_numeric(table[name], errors="coerce")
        if (wrong := values.isna()).any():
            row = int(np.argmax(wrong))
            raise BenchError(f"{path}, line {row + 2}: {name} is {table[name].iloc[row]!r}; expected a number",
                             ENVIRONMENT)
        table[name] = values
    return table


def read_trials(folder: Path) -> pd.DataFrame:
    """Reads trials.csv, the columns COLUMNS as numbers. Errors as `read_table`."""
    return read_table(folder / "trials.csv", COLUMNS)


def read_classes(folder: Path) -> pd.DataFrame:
    """Reads classes.csv, ascending by label: label, name (text), judge, shown. Errors as `read_table`."""
    return read_table(folder / "classes.csv", ("label", "judge", "shown")).sort_values("label")


def eeg_file(band: Sequence[float]) -> str:
    """Returns the name of the EEG file of a band in Hz."""
    return f"eeg_{band[0]:g}-{band[1]:g}.npy"


def digest(file: Path) -> dict[str, Any]:
    """Returns a file's manifest entry: SHA-256 and size in bytes."""
    return {"sha256": file_hash(file), "bytes": file.stat().st_size}
