"""Corrupted inputs: files that are truncated, flipped by one bit, renamed, emptied, exchanged, or replaced by text.

A Reader writes an intact set of files and reads it. `sweep` damages copies of the set, one file (or one exchange) at a
time, reads each, and counts what came of it. Everything is drawn from the reader's name: equal names give equal inputs.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import ENVIRONMENT, USAGE, BenchError

KINDS = ("truncated", "flipped", "renamed", "empty", "swapped", "text")
TEXTS = (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n",
         b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n", b"\xff\xfe\x00garbage\x00,\xe9\n" * 9, b"[]\n",
         b"\n\n")
HEAD = 512  # bytes at the beginning and at the end: a quarter of the flips go to each
PARTS = 6  # of the inputs that are not flips, for each file: how often it is truncated
COUNTS = ("inputs", "refused", "unchanged", "changed, no hash", "changed, hashed", "traceback", "bad message")


@dataclass(frozen=True)
class Read:
    """What a reader returned. hashed: digest of the values that a hash covers; free: of all others."""

    hashed: str = ""
    free: str = ""


@dataclass(frozen=True)
class Reader:
    """A kind of input.

    write      writes the intact files into an empty folder; what it returns is given to `read`
    read       reads them as the command does. It looks up a renamed file by `given`
    files      the files to damage, below the folder
    renames    a file's name with another ending
    swaps      pairs of files to exchange
    named      words that may stand in a message instead of a damaged file's name, and why: in a comment beside them
    command    arguments of `bench` that read the same files; accepts: its exit codes where the input is accepted
    """

    name: str
    files: tuple[str, ...]
    write: Callable[[Path], Any]
    read: Callable[[Path, Any], Read]
    renames: Mapping[str, str] = field(default_factory=dict)
    swaps: tuple[tuple[str, str], ...] = ()
    named: tuple[str, ...] = ()
    inputs: int = 70
    command: Callable[[Path], Sequence[str | Path]] | None = None
    module: str = "bench"
    accepts: tuple[int, ...] = (0,)
    refuses: tuple[int, ...] = (USAGE, ENVIRONMENT)


@dataclass(frozen=True)
class Damage:
    """What is done to a set. files: the new content of each file, None: absent."""

    kind: str
    about: str
    files: Mapping[str, bytes | None]


def digest(*values: Any) -> str:
    """SHA-256 of arrays, tables, files (paths), text and numbers; NaN equals NaN."""
    sha = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            sha.update(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        elif isinstance(value, pd.DataFrame):
            sha.update(repr([(name, value[name].dtype) for name in value]).encode())
            sha.update(value.to_csv(index=False).encode())
        elif isinstance(value, Path):
            sha.update(value.read_bytes())
        else:
            sha.update(value if isinstance(value, bytes) else repr(value).encode())
        sha.update(b"\0")
    return sha.hexdigest()


def given(path: Path, ending: str) -> Path:
    """The path that a user would name: with the other ending where the file was renamed."""
    renamed = path.with_suffix(ending)
    return renamed if renamed.exists() and not path.exists() else path


def damages(reader: Reader, intact: Mapping[str, bytes], inputs: int) -> list[Damage]:
    """Returns `inputs` different ways to damage the set: every kind in turn, and single bit flips for the rest."""
    rng = np.random.default_rng(zlib.crc32(reader.name.encode()))
    by_kind: dict[str, list[Damage]] = {kind: [] for kind in KINDS if kind != "flipped"}
    for file in reader.files:
        data = intact[file]
        sizes = dict.fromkeys((len(data) // 2, 1, min(128, len(data) // 4), len(data) - 1, min(16, len(data) - 1)))
        for size in [*sizes, *rng.integers(1, len(data), PARTS).tolist()][:PARTS]:
            by_kind["truncated"].append(Damage("truncated", f"{file} after {size} of {len(data)}", {file: data[:size]}))
        by_kind["empty"].append(Damage("empty", file, {file: b""}))
        by_kind["text"] += [Damage("text", f"{file}: {text[:12]!r}", {file: text}) for text in TEXTS]
        if file in reader.renames:
            other = reader.renames[file]
            by_kind["renamed"].append(Damage("renamed", f"{file} is {other}", {file: None, other: data}))
    for first, second in reader.swaps:
        by_kind["swapped"].append(Damage("swapped", f"{first} and {second}",
                                         {first: intact[second], second: intact[first]}))
    for each in by_kind.values():
        rng.shuffle(each)  # type: ignore[arg-type]
    order = list(by_kind)
    rng.shuffle(order)
    mixed = [by_kind[kind][turn] for turn in range(max(map(len, by_kind.values()))) for kind in order
             if turn < len(by_kind[kind])]
    chosen = mixed[:max(1, inputs // 2)]
    seen = set()
    while len(chosen) < inputs:
        file = reader.files[len(chosen) % len(reader.files)]
        data = intact[file]
        place = int(rng.integers(min(HEAD, len(data)) if len(chosen) % 4 < 2 else len(data)))
        if len(chosen) % 4 == 1:
            place = len(data) - 1 - place
        bit = int(rng.integers(8))
        if (file, place, bit) not in seen:
            seen.add((file, place, bit))
            flipped = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1:]
            chosen.append(Damage("flipped", f"{file}: bit {bit} of byte {place}", {file: flipped}))
    return chosen


def sweep(reader: Reader, folder: Path, inputs: int, commands: bool = False) -> tuple[Counter[str], list[str]]:
    """Reads damaged sets; returns COUNTS and a line for each input that was not treated as it should be.

    commands: also gives the command, for one input of each kind, in a process of its own.
    """
    place = folder / "set"
    place.mkdir()
    context = reader.write(place)
    intact = {path.relative_to(place).as_posix(): path.read_bytes() for path in sorted(place.rglob("*"))
              if path.is_file()}
    expected = _quietly(reader, place, context)
    assert _quietly(reader, place, context) == expected, f"{reader.name}: two readings of intact files differ"
    counts, wrong = Counter[str](), []
    tried: dict[tuple[str, bool], Damage] = {}
    for damage in damages(reader, intact, inputs):
        with _damaged(place, intact, damage):
            outcome, text = _outcome(reader, place, context, damage, expected)
            if any((place / name).read_bytes() != data for name, data in damage.files.items() if data is not None):
                outcome, text = "bad message", "the reader changed the damaged file"
        counts.update(("inputs", outcome))
        if outcome in ("traceback", "bad message", "changed, hashed"):
            wrong.append(f"{reader.name}, {damage.kind} {damage.about}: {outcome}: {text}")
        elif outcome == "refused" or reader.accepts:
            tried.setdefault((damage.kind, outcome == "refused"), damage)
    if commands and reader.command:
        for kind in KINDS:
            is_refused = (kind, True) in tried
            if damage := tried.get((kind, True)) or tried.get((kind, False)):
                counts["commands"] += 1
                with _damaged(place, intact, damage):
                    wrong += _command(reader, place, damage, is_refused)
    return counts, wrong


def _quietly(reader: Reader, place: Path, context: Any) -> Read:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reader.read(place, context)


def _outcome(reader: Reader, place: Path, context: Any, damage: Damage, expected: Read) -> tuple[str, str]:
    try:
        result = _quietly(reader, place, context)
    except BenchError as error:
        text = str(error)
        words = (*damage.files, *(Path(name).name for name in damage.files), *reader.named)
        if "\n" in text or not any(word in text for word in words) or error.exit_code not in (USAGE, ENVIRONMENT):
            return "bad message", f"exit {error.exit_code}: {text}"
        return "refused", text
    except Exception as error:  # what a user would see as a traceback
        return "traceback", f"{type(error).__name__}: {error}"
    if result.hashed != expected.hashed:
        return "changed, hashed", "accepted with a changed value that a hash covers"
    return ("unchanged" if result == expected else "changed, no hash"), ""


class _damaged:
    """Damages the set, and restores it at the end."""

    def __init__(self, place: Path, intact: Mapping[str, bytes], damage: Damage):
        self.place, self.intact, self.damage = place, intact, damage

    def __enter__(self) -> None:
        for name, data in self.damage.files.items():
            (self.place / name).unlink(missing_ok=True)
            if data is not None:
                (self.place / name).write_bytes(data)

    def __exit__(self, *_: object) -> None:
        for path in self.place.rglob("*"):
            if path.is_file() and path.relative_to(self.place).as_posix() not in self.intact:
                path.unlink()
        for name in self.damage.files:
            if name in self.intact:
                (self.place / name).write_bytes(self.intact[name])


def _command(reader: Reader, place: Path, damage: Damage, is_refused: bool) -> Iterator[str]:
    """Gives the command; yields a line if its exit code or its output is not as it should be."""
    assert reader.command
    done = subprocess.run([sys.executable, "-P", "-m", reader.module, *map(str, reader.command(place))], text=True,
                          capture_output=True, check=False, cwd=place.parent, stdin=subprocess.DEVNULL)
    expected = reader.refuses if is_refused else reader.accepts
    lines = done.stderr.splitlines()
    has_line = any(line.startswith("bench: ") for line in [*lines, *done.stdout.splitlines()])
    if "Traceback" in done.stderr + done.stdout or done.returncode not in expected or (
            done.returncode in (USAGE, ENVIRONMENT) and not has_line):
        yield (f"{reader.name}, {damage.kind} {damage.about}: the command ended with {done.returncode}, expected one "
               f"of {expected}: {done.stderr[-600:]}")


def table(counts: Mapping[str, Counter[str]]) -> str:
    """Returns COUNTS of each reader, and their sums, as text."""
    rows = [*counts.items(), ("together", sum(counts.values(), Counter()))]
    columns = (*COUNTS, "commands")
    lines = [f"{'reader':28s}" + "".join(f"{name:>18s}" for name in columns)]
    return "\n".join([*lines, *(f"{name:28s}" + "".join(f"{row[column]:18d}" for column in columns)
                                for name, row in rows)])
