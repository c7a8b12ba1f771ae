"""How a table is printed: text for a terminal, Markdown, LaTeX (booktabs), HTML, CSV. Says nothing of its own."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.errors import BenchError
from bench.scoring import schema


@dataclass(frozen=True)
class Column:
    """A column's header and cells. drop: when it goes first if a terminal is too narrow (0: never, then the highest).

    left: aligned to the left, as words are.
    """

    header: str
    cells: tuple[str, ...]
    drop: int = 0
    left: bool = False


@dataclass(frozen=True, eq=False)
class Printed:
    """What is printed: blocks of columns under a title, and the lines that say what they rest on.

    frame: the same in full precision, one line for each row of any block, for CSV.
    """

    title: str
    blocks: tuple[tuple[Column, ...], ...]
    caption: tuple[str, ...]
    frame: pd.DataFrame

    def render(self, format: str = "text") -> str:
        """One of FORMATS, without a last newline. Raises BenchError for another."""
        if format not in FORMATS:
            raise BenchError(f"no format {format!r}; there are: {', '.join(FORMATS)}")
        return FORMATS[format](self)


def text(printed: Printed, width: int | None = None) -> str:
    """For a terminal of so many columns (default: this one's); what does not fit is named below it."""
    width = width or shutil.get_terminal_size((120, 24)).columns
    lines, dropped = [*_wrapped(printed.title, width)], list[str]()
    for block in printed.blocks:
        columns = list(block)
        while max(map(len, _aligned(columns))) > width and (last := max(column.drop for column in columns)):
            index = max(i for i, column in enumerate(columns) if column.drop == last)
            dropped.append(columns.pop(index).header)
        lines += ["", *_aligned(columns)]
    caption = [*([f"Not shown at this width: {', '.join(dropped)}."] if dropped else []), *printed.caption]
    return "\n".join([*lines, "", *(wrapped for line in caption for wrapped in _wrapped(line, width))])


def _aligned(columns: Sequence[Column]) -> list[str]:
    """Columns under wrapped headers."""
    bodies = [max(map(len, column.cells), default=0) for column in columns]
    words = [_wrapped(column.header, max(body, *map(len, column.header.split())))
             for column, body in zip(columns, bodies, strict=True)]
    widths = [max(body, *map(len, lines)) for body, lines in zip(bodies, words, strict=True)]
    height = max(map(len, words))
    head = [[*[""] * (height - len(lines)), *lines] for lines in words]
    every = [*zip(*head, strict=True), ["-" * width for width in widths], *_lines(columns)]
    formats = [f"{{:{'<' if column.left else '>'}{width}}}" for column, width in zip(columns, widths, strict=True)]
    return ["  ".join(map(str.format, formats, line)).rstrip() for line in every]


def _wrapped(line: str, width: int) -> list[str]:
    lines, current = [], ""
    for word in line.split():
        if current and len(current) + 1 + len(word) > width:
            lines.append(current)
            current = word
        else:
            current = f"{current} {word}".strip()
    return [*lines, current]


def _lines(columns: Sequence[Column]) -> Iterable[tuple[str, ...]]:
    return zip(*(column.cells for column in columns), strict=True)


def markdown(printed: Printed) -> str:
    """Tables with pipes, the caption as a list."""
    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in cells) + " |"

    lines = [f"**{printed.title}**"]
    for block in printed.blocks:
        rule = "| " + " | ".join(":--" if column.left else "--:" for column in block) + " |"
        lines += ["", row(column.header for column in block), rule, *map(row, _lines(block))]
    return "\n".join([*lines, "", *(f"- {_one_line(line)}" for line in printed.caption)])


def latex(printed: Printed) -> str:
    """A table* that needs the package booktabs alone; every text is escaped."""
    lines = ["% needs \\usepackage{booktabs}", "\\begin{table*}", "  \\centering",
             f"  \\caption{{{_latex(printed.title)}}}", "  \\scriptsize", "  \\setlength{\\tabcolsep}{2pt}"]
    for block in printed.blocks:
        lines += [f"  \\begin{{tabular}}{{{''.join('l' if column.left else 'r' for column in block)}}}",
                  "    \\toprule", _latex_row(column.header for column in block), "    \\midrule",
                  *map(_latex_row, _lines(block)), "    \\bottomrule", "  \\end{tabular}", "  \\par\\medskip"]
    if printed.caption:
        lines += ["  \\begin{flushleft}", *(f"    {_latex(line)}\\par" for line in printed.caption),
                  "  \\end{flushleft}"]
    return "\n".join([*lines, "\\end{table*}"])


def _latex_row(cells: Iterable[str]) -> str:
    line = " & ".join(map(_latex, cells))
    return f"    {'{}' if line[:1] in ('[', '*') else ''}{line} \\\\"  # after \\ both would be arguments


LATEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
         "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
         ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"}


def _latex(plain: str) -> str:
    """Text in which no character means anything to LaTeX; a minus before a number is set as one."""
    if plain == "-":
        return "--"
    escaped = "".join(LATEX.get(character, character) for character in _one_line(plain))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def html_page(printed: Printed) -> str:
    """A whole page that loads nothing; every text is escaped."""
    def row(cells: Iterable[str], block: Sequence[Column], tag: str) -> str:
        inner = "".join(f"<{tag}{' class=l' if column.left else ''}>{html.escape(cell)}</{tag}>"
                        for cell, column in zip(cells, block, strict=True))
        return f"<tr>{inner}</tr>"

    title = html.escape(printed.title)
    lines = ["<!doctype html>", '<html lang="en">', '<meta charset="utf-8">', f"<title>{title}</title>",
             "<style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
             "th,td{padding:.2em .6em;text-align:right;white-space:nowrap}th{vertical-align:bottom;white-space:normal;"
             "border-bottom:1px solid}.l{text-align:left}</style>", f"<h1>{title}</h1>"]
    for block in printed.blocks:
        lines += ["<table>", "<thead>", row((column.header for column in block), block, "th"), "</thead>", "<tbody>",
                  *(row(line, block, "td") for line in _lines(block)), "</tbody>", "</table>"]
    lines += ["<ul>", *(f"<li>{html.escape(line)}</li>" for line in printed.caption), "</ul>"]
    return "\n".join([*lines, "</html>"])


def csv(printed: Printed) -> str:
    """The frame: numbers in full precision, for other programs."""
    return schema.csv_bytes(printed.frame).decode().rstrip("\n")


def _one_line(plain: str) -> str:
    return " ".join(plain.split())


FORMATS: dict[str, Callable[[Printed], str]] = {"text": text, "md": markdown, "latex": latex, "html": html_page,
                                                "csv": csv}
