"""Prints tables: text for a terminal, Markdown, LaTeX (booktabs), HTML and CSV. It adds no content of its own."""

from __future__ import annotations

import html
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.errors import BenchError
from bench.scoring import schema

WIDTH = 100  # characters of a line where there is no terminal, and at most of the short form
NARROWEST = 20  # characters to which a column with `wrap` may shrink


@dataclass(frozen=True)
class Column:
    """A column's header and cells. left: aligned to the left, as words are; wrap: long cells may take several lines."""

    header: str
    cells: tuple[str, ...]
    left: bool = False
    wrap: bool = False


@dataclass(frozen=True)
class Printed:
    """One form of a table: a title, one sentence with the finding, blocks of columns, and notes below them."""

    title: str
    finding: str
    blocks: tuple[tuple[Column, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Document:
    """A table as it is printed: a short form, the complete form, and its numbers in full precision for CSV."""

    short: Printed
    complete: Printed
    frame: pd.DataFrame

    def render(self, format: str = "text", details: bool | None = None) -> str:
        """Returns the table in one of FORMATS, without a last newline.

        details: the complete form (default: the short one as text, else the complete one). Raises BenchError for an
        unknown format.
        """
        if format not in FORMATS:
            raise BenchError(f"no format {format!r}; there are: {', '.join(FORMATS)}")
        if format == "csv":
            return schema.csv_bytes(self.frame).decode().rstrip("\n")
        complete = format != "text" if details is None else details
        return FORMATS[format](self.complete if complete else self.short)


def text(printed: Printed, width: int | None = None) -> str:
    """Returns text for a terminal of `width` columns (default: this terminal's, at most WIDTH).

    Columns that do not fit follow below, after the first column once more.
    """
    width = width or min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH)
    lines = [*textwrap.wrap(printed.title, width), *textwrap.wrap(printed.finding, width)]
    for block in printed.blocks:
        for columns, widths in _fitted(block, width):
            lines += ["", *_aligned(columns, widths)]
    notes = [line for note in printed.notes for line in _wrapped(f"- {note}", width, "  ")]
    return "\n".join([*lines, "", *notes])


def _fitted(columns: Sequence[Column], width: int) -> Iterable[tuple[list[Column], list[int]]]:
    """Yields the columns, with the width of each, in groups that fit; columns with `wrap` become narrower first."""
    widths = [max(map(len, [*column.cells, *column.header.split()])) for column in columns]
    least = [min(size, NARROWEST) if column.wrap else size for column, size in zip(columns, widths, strict=True)]
    group = [0]
    for place in range(1, len(columns)):
        if sum(least[i] + 2 for i in [*group, place]) - 2 > width and len(group) > 1:
            yield _shrunk(columns, widths, least, group, width)
            group = [0]
        group.append(place)
    yield _shrunk(columns, widths, least, group, width)


def _shrunk(columns: Sequence[Column], widths: Sequence[int], least: Sequence[int], group: Sequence[int],
            width: int) -> tuple[list[Column], list[int]]:
    """Returns the columns of a group and their widths; the widest column with `wrap` gives up space first."""
    sizes = [widths[i] for i in group]
    while sum(sizes) + 2 * len(sizes) - 2 > width:
        spare = [(size, place) for place, size in enumerate(sizes) if size > least[group[place]]]
        if not spare:
            break
        sizes[max(spare)[1]] -= 1
    return [columns[i] for i in group], sizes


def _aligned(columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    """Returns the lines of a group of columns: wrapped headers, a rule, and the cells."""
    heads = [_wrapped(column.header, width) for column, width in zip(columns, widths, strict=True)]
    height = max(map(len, heads))
    lines = [*zip(*([*[""] * (height - len(head)), *head] for head in heads), strict=True),
             ["-" * width for width in widths]]
    for row in _lines(columns):
        cells = [_wrapped(cell, width, "    ") for cell, width in zip(row, widths, strict=True)]
        height = max(map(len, cells))
        lines += zip(*([*cell, *[""] * (height - len(cell))] for cell in cells), strict=True)
    formats = [f"{{:{'<' if column.left else '>'}{width}}}" for column, width in zip(columns, widths, strict=True)]
    return ["  ".join(map(str.format, formats, line)).rstrip() for line in lines]


def _wrapped(line: str, width: int, indent: str = "") -> list[str]:
    """Returns the line in lines of at most `width` characters, broken at blanks where possible, never in "[95% CI"."""
    if len(line) <= width:
        return [line]
    joined = line.replace("[95% CI", "[95%\u00a0CI")
    lines = textwrap.wrap(joined, width, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines] or [""]


def _lines(columns: Sequence[Column]) -> Iterable[tuple[str, ...]]:
    return zip(*(column.cells for column in columns), strict=True)


def markdown(printed: Printed) -> str:
    """Returns tables with pipes, and the notes as a list."""
    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(_one_line(_colon(cell)).replace("|", "\\|") for cell in cells) + " |"

    lines = [f"**{printed.title}**", *(["", _one_line(printed.finding)] if printed.finding else [])]
    for block in printed.blocks:
        rule = "| " + " | ".join(":--" if column.left else "--:" for column in block) + " |"
        lines += ["", row(column.header for column in block), rule, *map(row, _lines(block))]
    return "\n".join([*lines, "", *(f"- {_one_line(note)}" for note in printed.notes)])


def latex(printed: Printed) -> str:
    """Returns a table* that needs only the package booktabs; every text is escaped."""
    lines = ["% needs \\usepackage{booktabs}", "\\begin{table*}", "  \\centering",
             f"  \\caption{{{_latex(printed.title)}}}", "  \\scriptsize", "  \\setlength{\\tabcolsep}{2pt}"]
    for block in printed.blocks:
        lines += [f"  \\begin{{tabular}}{{{''.join('l' if column.left else 'r' for column in block)}}}",
                  "    \\toprule", _latex_row(column.header for column in block), "    \\midrule",
                  *map(_latex_row, _lines(block)), "    \\bottomrule", "  \\end{tabular}", "  \\par\\medskip"]
    if notes := list(filter(None, [printed.finding, *printed.notes])):
        lines += ["  \\begin{flushleft}", *(f"    {_latex(note)}\\par" for note in notes), "  \\end{flushleft}"]
    return "\n".join([*lines, "\\end{table*}"])


def _latex_row(cells: Iterable[str]) -> str:
    line = " & ".join(_latex(_colon(cell)) for cell in cells)
    return f"    {'{}' if line[:1] in ('[', '*') else ''}{line} \\\\"  # after \\ both would be arguments


LATEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
         "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
         ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"}


def _latex(plain: str) -> str:
    """Returns text without any character that LaTeX interprets; a minus before a number becomes a minus sign."""
    if plain == "-":
        return "--"
    escaped = "".join(LATEX.get(character, character) for character in _one_line(plain))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def html_page(printed: Printed) -> str:
    """Returns a complete page that loads nothing; every text is escaped."""
    def row(cells: Iterable[str], block: Sequence[Column], tag: str) -> str:
        inner = "".join(f"<{tag}{' class=l' if column.left else ''}>{html.escape(_colon(cell))}</{tag}>"
                        for cell, column in zip(cells, block, strict=True))
        return f"<tr>{inner}</tr>"

    title = html.escape(printed.title)
    lines = ["<!doctype html>", '<html lang="en">', '<meta charset="utf-8">', f"<title>{title}</title>",
             "<style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
             "th,td{padding:.2em .6em;text-align:right;white-space:nowrap}th{vertical-align:bottom;white-space:normal;"
             "border-bottom:1px solid}.l{text-align:left}</style>", f"<h1>{title}</h1>",
             *([f"<p>{html.escape(printed.finding)}</p>"] if printed.finding else [])]
    for block in printed.blocks:
        lines += ["<table>", "<thead>", row((column.header for column in block), block, "th"), "</thead>", "<tbody>",
                  *(row(line, block, "td") for line in _lines(block)), "</tbody>", "</table>"]
    lines += ["<ul>", *(f"<li>{html.escape(note)}</li>" for note in printed.notes), "</ul>"]
    return "\n".join([*lines, "</html>"])


def _one_line(plain: str) -> str:
    return " ".join(plain.split())


def _colon(cell: str) -> str:
    """Returns "3: no pre-training" for "3  no pre-training", where two blanks are shown as one."""
    return cell.replace("  ", ": ", 1)


FORMATS: dict[str, Callable[[Printed], str]] = {"text": text, "md": markdown, "latex": latex, "html": html_page,
                                                "csv": text}  # csv: see Document.render
