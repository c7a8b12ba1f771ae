"""`bench fetch`: downloads the pinned weights of scale paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich import progress as bars
from rich.console import Console

from bench import errors
from bench.arguments import names
from bench.setup import weights
from bench.setup.fetch import download


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--what", default="all", metavar="A,B",
                        help=f"all, or some of {', '.join(weights.known_names())}")
    parser.add_argument("--weights", metavar="DIR", help="the folder to write to (default: the libraries' caches)")
    parser.add_argument("--dry-run", action="store_true", help="list the files, and stop")


def main(options: argparse.Namespace, console: Console) -> int:
    """Lists the files, downloads those that are missing, and checks all; returns the exit code.

    Raises BenchError: exit 2 for an unknown part, 3 for a file that is unavailable or differs from the pinned one, 75
    for an interrupted download (the same command resumes it).
    """
    folder = Path(options.weights) if options.weights else None
    parts = weights.known_names() if options.what == "all" else list(names(options.what))
    _print_files(console, parts, folder)
    if options.dry_run:
        return errors.OK
    for part in parts:
        pin, home = weights.published(part), weights.home(part, folder)
        if weights.locate(part, folder):  # present, or downloaded for another part
            continue
        with bars.Progress(
                bars.TextColumn("{task.description}"), bars.BarColumn(), bars.DownloadColumn(),
                bars.TransferSpeedColumn(), bars.TimeRemainingColumn(),
                console=console, disable=not console.is_terminal) as bar:
            for file in pin.files:
                task = bar.add_task(f"{part} {Path(file.path).name}", total=file.bytes)
                download(pin.address(file), home / file.path, file,
                         lambda done, total, bar=bar, task=task: bar.update(  # type: ignore[misc]
                             task, completed=done, total=total))
    weights.check(parts, folder)
    console.print(f"checked: {', '.join(parts)}", highlight=False, markup=False)
    return errors.OK


def _print_files(console: Console, parts: list[str], folder: Path | None) -> None:
    """Prints a line for each file, and the size of the download."""
    rows, missing = [("part", "file", "size", "licence", "where")], 0
    for part in parts:
        pin, paths = weights.published(part), weights.locate(part, folder)
        for file in pin.files:
            path = paths.get(file.path)
            where = f"present: {path}" if path else f"to {weights.home(part, folder) / file.path}"
            rows.append((part, file.path, _format_size(file.bytes), pin.licence, where))
            missing += 0 if path else file.bytes or 0
    widths = [*(max(len(row[column]) for row in rows) for column in range(4)), 0]
    for row in rows:
        console.print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), highlight=False,
                      markup=False)
    console.print(f"to download: {_format_size(missing)}, and files of unpublished size" if missing else
                  "to download: no file of published size", highlight=False, markup=False)


def _format_size(size: int | None) -> str:
    if size is None:
        return "unpublished"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size} B"
