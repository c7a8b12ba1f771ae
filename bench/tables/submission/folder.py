"""The files of a submission, and how they are written and read. docs/submit.md describes each."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.files import hash_bytes, write_synced, writing
from bench.scoring import schema

FORMAT = 1
ABOUT, RESULTS, ITEMS, SPEC, KEYS = "submission.json", "results.csv", "items.csv.gz", "spec.json", "keys.json"
ENVIRONMENT, PROTOCOL, SUMS = "environment.json", "protocol.json", "SHA256SUMS"
RECORDED, CHALLENGE = "recorded", "challenge"  # kinds: results of `bench run`; images scored by an organiser
FILES = {  # of each kind, beside SUMS
    RECORDED: (ABOUT, RESULTS, ITEMS, SPEC, KEYS, ENVIRONMENT),
    CHALLENGE: (ABOUT, RESULTS, ITEMS, PROTOCOL, ENVIRONMENT),
}


@dataclass(frozen=True)
class Key:
    """The stage that scored one (variant, seed, items): its key, and its canonical document, of which the key is the
    SHA-256."""

    variant: str
    seed: int
    items: str
    key: str
    document: Mapping[str, Any]

    @property
    def group(self) -> tuple[str, int, str]:
        return self.variant, self.seed, self.items


@dataclass(frozen=True, eq=False)
class Submission:
    """The contents of a submission's folder.

    name      of the system on a board; variant: its name in the results
    rows      of results.csv, typed as by `results.read_csv`; items: of items.csv.gz
    keys      of each (variant, seed, items); () in a challenge
    protocol  of a challenge; {} for recorded results
    """

    folder: Path
    kind: str
    name: str
    variant: str
    rows: pd.DataFrame
    items: pd.DataFrame
    keys: tuple[Key, ...]
    protocol: Mapping[str, Any]

    @property
    def tested(self) -> str:
        """The EEG of the variant's own rows: "real", unless the variant itself is a control."""
        kinds = sorted(set(self.rows.loc[self.rows["variant"] == self.variant, "items"]))
        return "real" if "real" in kinds or not kinds else kinds[0]

    def groups(self) -> Iterator[tuple[str, tuple[str, int, str], pd.DataFrame, pd.DataFrame]]:
        """Yields a name, (variant, seed, items), its rows and its items, for each group that results.csv has."""
        items: dict[Any, pd.DataFrame] = dict(iter(self.items.groupby(list(schema.GROUP))))
        recorded: dict[Any, pd.DataFrame] = dict(iter(self.rows.groupby(list(schema.GROUP))))
        for (variant, seed, kind), rows in recorded.items():
            name = f"{variant}, seed {seed}" + ("" if kind == "real" else f", {kind}")
            yield name, (variant, int(seed), kind), rows, items.get((variant, seed, kind), self.items.iloc[:0])


def canonical_json(value: Any) -> str:
    """Returns plain JSON types as canonical JSON: sorted keys, no white space, as `bench.experiment.key` hashes it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def hash_text(text: str) -> str:
    """Returns the SHA-256 of a text, 64 hex digits."""
    return hash_bytes(text.encode())


def json_bytes(value: Any) -> bytes:
    """Returns a value as indented JSON."""
    return (json.dumps(value, indent=1) + "\n").encode()


def csv_of(rows: pd.DataFrame) -> bytes:
    """Returns recorded rows or items as CSV; a missing value is an empty cell."""
    return schema.csv_bytes(rows.astype(object).where(rows.notna(), ""))


def sums_of(contents: Mapping[str, bytes]) -> bytes:
    """Returns the SHA-256 of each file in the format of `sha256sum -c`, by name."""
    return "".join(f"{hash_bytes(data)}  {name}\n" for name, data in sorted(contents.items())).encode()


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files and their SHA256SUMS into a new folder, which is complete or absent.

    Raises BenchError if the folder exists and is not empty, and as `files.writing`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BenchError(f"{folder} exists and is not an empty folder; choose another folder, or remove it")
    new = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    with writing(folder):
        try:
            new.mkdir(parents=True)
            for name, data in {**contents, SUMS: sums_of(contents)}.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                write_synced(new / name, data)
            os.replace(new, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def read_json(path: Path, expected: Iterable[str]) -> dict[str, Any]:
    """Reads a JSON object with these entries. Raises BenchError for anything else."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise BenchError(f"{path.name}: is not JSON ({error}); export again") from error
    if not isinstance(value, dict) or (missing := [name for name in expected if name not in value]):
        raise BenchError(f"{path.name}: " + (f"has no {missing[0]}" if isinstance(value, dict) else
                                             "is not a JSON object") + "; export again")
    return value


def read_keys(path: Path) -> tuple[Key, ...]:
    """Reads keys.json. Raises BenchError for another form."""
    listed = read_json(path, ("keys",))["keys"]
    try:
        return tuple(Key(str(each["variant"]), int(each["seed"]), str(each["items"]), str(each["key"]),
                         dict(each["document"])) for each in listed)
    except (TypeError, KeyError, ValueError) as error:
        raise BenchError(f"{path.name}: an entry is not a variant, seed, items, key and document; export again"
                         ) from error
