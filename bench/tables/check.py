"""Compares the tables in a document with those made from their CSVs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import files
from bench.errors import BenchError
from bench.tables.named import named


@dataclass(frozen=True)
class Difference:
    """The first line of a table in a document that differs from the table made from its CSV. line: from 1."""

    path: Path
    line: int
    name: str
    found: str
    expected: str

    def __str__(self) -> str:
        return (f"{self.path}, line {self.line}: the table {self.name} differs from its CSV: found {self.found!r}, "
                f"expected {self.expected!r}; correct it with: bench table --check {self.path} --write")


def check(path: Path, results_root: Path, write: bool = False) -> list[Difference]:
    """Returns the differences between the tables in a Markdown file and their CSVs; `write` replaces the tables.

    A table is between a line `<!-- bench table NAME [--reference] [--scale SCALE] [--with-controls] [--details] -->`
    and a line `<!-- end -->`; without --details it is the short form. Fenced blocks (```) are ignored. Raises
    BenchError for a file without a mark, for an invalid mark, and for a table that cannot be made.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise BenchError(f"no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read as text: {' '.join(str(error).split())}") from error
    kept, differences, last = list[str](), list[Difference](), 0
    for first, end, words in _marked(path, lines):
        mark = _read_mark(path, first, words)
        folder = results_root / ("reference" if mark.reference else "") / mark.scale
        command = " ".join(["bench table", *(word for word in words.split() if word != "--details")])
        try:
            table = named(mark.name, folder, mark.controls, command=command).render("md", mark.details)
        except BenchError as error:
            raise BenchError(f"{path}, line {first + 1}: {error}", error.exit_code) from error
        expected, found = ["", *table.split("\n"), ""], lines[first + 1:end]
        if found != expected:
            row = next((i for i, line in enumerate(expected) if found[i:i + 1] != [line]), len(expected))
            differences.append(Difference(path, first + 2 + row, mark.name, (found[row:] or ["<!-- end -->"])[0],
                                          (expected[row:] or ["<!-- end -->"])[0]))
        kept += [*lines[last:first + 1], *expected]
        last = end
    if write and differences:
        with files.writing(path):
            files.replace_file(path, "\n".join([*kept, *lines[last:]]).encode())
    return differences


def _marked(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yields (line of the mark, line of its end, text of the mark) for each table, lines counted from 0."""
    fenced, start, words, any_mark = False, None, "", False
    for row, line in enumerate(lines):
        if line.startswith("```"):
            fenced = not fenced
        mark = None if fenced else re.fullmatch(r"<!--\s*bench table\b(.*?)-->\s*", line)
        if mark and (start is not None or not mark[1].strip()):
            raise BenchError(f"{path}, line {row + 1}: a mark must name a table, and end with <!-- end --> before the "
                             "next mark")
        if mark:
            start, words, any_mark = row, mark[1], True
        elif start is not None and not fenced and re.fullmatch(r"<!--\s*end\s*-->\s*", line):
            yield start, row, words
            start = None
    if start is not None:
        raise BenchError(f"{path}, line {start + 1}: <!-- end --> is missing below this table")
    if not any_mark:
        raise BenchError(f"{path}: no table is marked; a mark is: <!-- bench table table2 --reference --> and, below "
                         "the table, <!-- end -->")


@dataclass
class Mark:
    """The contents of a mark."""

    name: str = ""
    scale: str = "tiny"
    reference: bool = False
    controls: bool = False
    details: bool = False


def _read_mark(path: Path, row: int, words: str) -> Mark:
    """Returns the contents of the mark in a line."""
    mark, flags = Mark(), {"--reference": "reference", "--with-controls": "controls", "--details": "details"}
    try:
        parts = iter(shlex.split(words))
    except ValueError as error:
        raise BenchError(f"{path}, line {row + 1}: {words.strip()!r} is not valid: {error}") from error
    for part in parts:
        if part in flags:
            setattr(mark, flags[part], True)
        elif part == "--scale":
            mark.scale = next(parts, part)
        elif part.startswith("-") or mark.name:
            raise BenchError(f"{path}, line {row + 1}: {part!r} is not valid; a mark holds the name of a table, "
                             "--reference, --scale SCALE, --with-controls and --details")
        else:
            mark.name = part
    return mark
