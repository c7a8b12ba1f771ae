"""Tables in a document against those that their CSVs give."""

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
    """A table in a document that is not the one its CSV gives: the first line that differs. line: counted from 1."""

    path: Path
    line: int
    name: str
    found: str
    expected: str

    def __str__(self) -> str:
        return (f"{self.path}, line {self.line}: the table {self.name} is not the one its CSV gives: found "
                f"{self.found!r}, expected {self.expected!r}; bench table --check {self.path} --write puts it right")


def check(path: Path, results_root: Path, write: bool = False) -> list[Difference]:
    """What differs between the tables in a Markdown file and those that their CSVs give; `write` replaces them there.

    A table stands between a line `<!-- bench table NAME [--reference] [--scale SCALE] [--with-controls] -->` and a line
    `<!-- end -->`; what lies in a fence (```) is not looked at. Raises BenchError for a file without a table, for a
    mark that is not understood and for a table that cannot be made.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise BenchError(f"no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read as text: {' '.join(str(error).split())}") from error
    kept, differences, last = list[str](), list[Difference](), 0
    for first, end, words in _marked(path, lines):
        name, folder, controls = _mark(path, first, words, results_root)
        try:
            expected = ["", *named(name, folder, controls).render("md").split("\n"), ""]
        except BenchError as error:
            raise BenchError(f"{path}, line {first + 1}: {error}", error.exit_code) from error
        found = lines[first + 1:end]
        if found != expected:
            at = next((i for i, line in enumerate(expected) if found[i:i + 1] != [line]), len(expected))
            differences.append(Difference(path, first + 2 + at, name, (found[at:] or ["<!-- end -->"])[0],
                                          (expected[at:] or ["<!-- end -->"])[0]))
        kept += [*lines[last:first + 1], *expected]
        last = end
    if write and differences:
        with files.writing(path):
            files.replace_file(path, "\n".join([*kept, *lines[last:]]).encode())
    return differences


def _marked(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(row of the mark, row of its end, what the mark says) of each table, rows counted from 0."""
    fenced, start, words, some = False, None, "", False
    for row, line in enumerate(lines):
        if line.startswith("```"):
            fenced = not fenced
        mark = None if fenced else re.fullmatch(r"<!--\s*bench table\b(.*?)-->\s*", line)
        if mark and (start is not None or not mark[1].strip()):
            raise BenchError(f"{path}, line {row + 1}: a mark must name a table, and end with <!-- end --> before the "
                             "next begins")
        if mark:
            start, words, some = row, mark[1], True
        elif start is not None and not fenced and re.fullmatch(r"<!--\s*end\s*-->\s*", line):
            yield start, row, words
            start = None
    if start is not None:
        raise BenchError(f"{path}, line {start + 1}: <!-- end --> is missing below this table")
    if not some:
        raise BenchError(f"{path}: no table is marked there, such as: <!-- bench table table2 --reference --> and, "
                         "below the table, <!-- end -->")


def _mark(path: Path, row: int, words: str, root: Path) -> tuple[str, Path, bool]:
    """The table's name, the folder of its results, and whether the controls stand there."""
    name, reference, scale, controls = "", False, "tiny", False
    try:
        parts = iter(shlex.split(words))
    except ValueError as error:
        raise BenchError(f"{path}, line {row + 1}: {words.strip()!r} is not understood: {error}") from error
    for part in parts:
        if part == "--reference":
            reference = True
        elif part == "--scale":
            scale = next(parts, part)
        elif part == "--with-controls":
            controls = True
        elif part.startswith("-") or name:
            raise BenchError(f"{path}, line {row + 1}: {part!r} is not understood; a mark holds a table's name, "
                             "--reference, --scale SCALE and --with-controls")
        else:
            name = part
    return name, root / ("reference" if reference else "") / scale, controls
