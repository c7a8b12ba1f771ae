"""`bench fetch`: downloads the pinned weights of scale paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from bench import errors
from bench.setup import weights
from bench.setup.fetch import download


def add_options(parser: argparse.ArgumentParser) -> None:
    """--what, --weights, --dry-run."""
    parser.add_argument("--what", default="all", metavar="A,B", help=f"all, or some of {', '.join(weights.known_names())}")
    parser.add_argument("--weights", metavar="DIR", help="where to (default: the caches of HuggingFace and torch)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be downloaded, and stop")


def main(options: argparse.Namespace, console: Console) -> int:
    """Lists the files, downloads those that are not there, checks all; returns the exit code.

    Raises BenchError: exit 2 for an unknown part, 3 for a file that is not the pinned one or cannot be had, 75 for a
    download that was cut (the same command goes on from there).
    """
    folder = Path(options.weights) if options.weights else None
    names = weights.known_names() if options.what == "all" else [name.strip() for name in options.what.split(",")]
    places = {name: weights.locate(name, folder) for name in names}
    console.print("\n".join(_listed(names, places, folder)), highlight=False, markup=False)
    if options.dry_run:
        return errors.OK
    for name in names:
        pin, home = weights.published(name), weights.home(name, folder)
        if weights.locate(name, folder):  # found, or fetched for another part
            continue
        with _bar(console) as bar:
            for file in pin.files:
                task = bar.add_task(f"{name} {Path(file.path).name}", total=file.bytes)

                def progress(done: int, total: int | None, bar: Progress = bar, task: TaskID = task) -> None:
                    bar.update(task, completed=done, total=total)

                download(pin.address(file), home / file.path, file, progress)
    weights.check(names, folder)
    console.print(f"checked: {', '.join(names)}", highlight=False, markup=False)
    return errors.OK


def _listed(names: list[str], places: dict[str, dict[str, Path]], folder: Path | None) -> list[str]:
    """A line for each file: part, file, size, licence, where it lies or will."""
    rows, missing = [("part", "file", "size", "licence", "where")], 0
    for name in names:
        pin = weights.published(name)
        for file in pin.files:
            place = places[name].get(file.path)
            where = f"there: {place}" if place else f"to {weights.home(name, folder) / file.path}"
            rows.append((name, file.path, _size(file.bytes), pin.licence, where))
            missing += 0 if place else file.bytes or 0
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)), row[4]])
             for row in rows]
    return [*lines, f"to download: {_size(missing)}, and files whose size is not published" if missing else
            "sizes that are published: nothing to download"]


def _size(size: int | None) -> str:
    if size is None:
        return "unpublished"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size} B"


def _bar(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                    TimeRemainingColumn(), console=console, disable=not console.is_terminal)
