"""`bench fetch`: downloads the pinned weights of scale paper, or the published files of a data set."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import progress as bars
from rich.console import Console

from bench import errors
from bench.arguments import names
from bench.errors import BenchError
from bench.setup import hub, weights
from bench.setup.fetch import download

DOWNLOADS = Path("bench-downloads")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"a data set: {', '.join(hub.SOURCES)} (default: the "
                        "weights of scale paper)")
    parser.add_argument("--dry-run", action="store_true", help="list the files and their sizes, and stop")
    parts = parser.add_argument_group("weights")
    parts.add_argument("--what", metavar="A,B", help=f"all, or some of {', '.join(weights.known_names())} (default: "
                       "all)")
    parts.add_argument("--weights", metavar="DIR", help="the folder to write to (default: the libraries' caches)")
    data = parser.add_argument_group("data sets")
    data.add_argument("--subjects", metavar="1,2", help="only these subjects (default: all)")
    data.add_argument("--to", metavar="DIR", help=f"the folder to write to (default: {DOWNLOADS}/NAME)")
    data.add_argument("--revision", metavar="COMMIT", help="of the hub's repository (default: the pinned one, or that "
                      "of the first download)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Lists the files, downloads those that are missing, and checks all; returns the exit code.

    Raises BenchError: exit 2 for an unknown part or subject, 3 for a file that is unavailable or differs from the
    published one, 75 for an interrupted download or a full disk (the same command resumes it).
    """
    foreign = ("what", "weights") if options.name else ("subjects", "to", "revision")
    if given := [f"--{name}" for name in foreign if vars(options)[name] is not None]:
        cure = f"is for the weights; leave it out, or leave out {options.name}" if options.name else \
            f"is for a data set; name one: {', '.join(hub.SOURCES)}"
        raise BenchError(f"{given[0]} {cure}")
    return _fetch_data(options, console) if options.name else _fetch_weights(options, console)


def _fetch_weights(options: argparse.Namespace, console: Console) -> int:
    folder = Path(options.weights) if options.weights else None
    parts = weights.known_names() if options.what in (None, "all") else list(names(options.what))
    _print_files(console, parts, folder)
    if options.dry_run:
        return errors.OK
    for part in parts:
        pin, home = weights.published(part), weights.home(part, folder)
        if weights.locate(part, folder):  # present, or downloaded for another part
            continue
        with _progress(console) as bar:
            for file in pin.files:
                task = bar.add_task(f"{part} {Path(file.path).name}", total=file.bytes)
                download(pin.address(file), home / file.path, file,
                         lambda done, total, bar=bar, task=task: bar.update(  # type: ignore[misc]
                             task, completed=done, total=total))
    weights.check(parts, folder)
    console.print(f"checked: {', '.join(parts)}", highlight=False, markup=False)
    return errors.OK


def _fetch_data(options: argparse.Namespace, console: Console) -> int:
    """Downloads a data set's files; says what is to be put there by hand, and the next command."""
    source = hub.find_source(options.name)
    folder = Path(options.to) if options.to else DOWNLOADS / options.name
    if not source.repository and (options.subjects or options.revision):
        raise BenchError(f"the files of {options.name} hold all subjects and are not on the hub: leave out --subjects "
                         "and --revision")
    if source.repository:
        wanted = hub.plan(options.name, folder, options.subjects, options.revision)
        pinned = "pinned" if wanted.revision == source.revision else "not pinned by bench"
        _print(console, f"{options.name}: {len(wanted.files)} files of {source.page} at revision {wanted.revision} "
                        f"({pinned}); {source.licence}")
        width = max(map(len, wanted.files))
        for name, file in wanted.files.items():
            where = "present" if (folder / name).is_file() else f"to {folder / name}"
            _print(console, f"{name.ljust(width)}  {_format_size(file.bytes):>8}  {where}")
        _print(console, f"to download: {_format_size(wanted.missing)}")
        if not options.dry_run:
            with _progress(console) as bar:
                tasks = {name: bar.add_task(name, total=file.bytes) for name, file in wanted.files.items()}
                hub.fetch(wanted, lambda name, done, total: bar.update(tasks[name], completed=done, total=total))
            _print(console, f"checked: {len(wanted.files)} files; revision, sizes and SHA-256 are in "
                            f"{folder / hub.RECEIPT}")
    missing = [(place, how) for place, how in source.by_hand if not (folder / place).exists()]
    if missing:
        _print(console, "to put there by hand:" if source.repository else
               f"{options.name} is not on the hub ({source.licence}); to put there by hand:")
    for place, how in missing:
        _print(console, f"  {folder / place}: {how}")
    chosen = f" --subjects {options.subjects}" if options.subjects else ""
    place = shlex.quote(str(folder))
    _print(console, f"then: bench data prepare {options.name} --from {place}{chosen} --set pictures={place}/images")
    if missing and not source.repository and not options.dry_run:
        raise BenchError(f"nothing of {options.name} can be downloaded by name: put the {len(missing)} files and "
                         "folders above there by hand", errors.ENVIRONMENT)
    return errors.OK


@contextmanager
def _progress(console: Console) -> Iterator[bars.Progress]:
    with bars.Progress(bars.TextColumn("{task.description}"), bars.BarColumn(), bars.DownloadColumn(),
                       bars.TransferSpeedColumn(), bars.TimeRemainingColumn(),
                       console=console, disable=not console.is_terminal) as bar:
        yield bar


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False)


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
        _print(console, "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    _print(console, f"to download: {_format_size(missing)}, and files of unpublished size" if missing else
           "to download: no file of published size")


def _format_size(size: int | None) -> str:
    if size is None:
        return "unpublished"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size:,} B"
