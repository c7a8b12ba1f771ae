"""`bench logs`: shows the journal of a stage."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.commands.options import add_store
from bench.errors import BenchError
from bench.store import journal, lease
from bench.store.gc import PREFIX, open_store

LISTED = 12  # stages that an error message names


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", nargs="?",
                        help="the beginning of a stage's key, or its kind (default: list all stages with a log)")
    parser.add_argument("--follow", action="store_true", help="also print new lines, until the stage has ended")
    parser.add_argument("--failed", action="store_true", help="print the traceback of the last failure")
    parser.add_argument("--json", action="store_true", help="print the lines as stored, in JSON")
    add_store(parser)


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints a stage's journal or its traceback; returns the exit code."""
    root = open_store(options.store).root
    if options.key is None:
        for key in _journals(root):
            print(_summary(root, key))
        return errors.OK
    key = _resolve(root, options.key)
    if options.failed:
        return _print_failure(root, key)
    file = journal.path(root, key)
    render = json.dumps if options.json else _format_line
    if not options.follow:
        lines, broken = journal.read(file)
        for line in lines:
            print(render(line))
        if broken:
            print(f"bench: {file}: broken lines skipped: {broken}", file=sys.stderr)
        return errors.OK
    has_ended = is_warned = False
    with suppress(KeyboardInterrupt):
        for new in journal.follow(file):
            if new is not None:
                print(render(new), flush=True)
                has_ended, is_warned = new["event"] in ("done", "failed", "stopped"), False
            elif has_ended:
                break
            elif not is_warned and not ((held := lease.read(root / "leases", key)) and held.live):
                is_warned = True
                print("bench: no process builds this stage; waiting for the next attempt (Ctrl-C ends)",
                      file=sys.stderr)
    return errors.OK


def _format_line(line: journal.Line) -> str:
    """A line of a journal as text."""
    others = {name: value for name, value in line.items() if name not in (*journal.RESERVED, "what", "error", "kind")}
    numbers = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                        for name, value in others.items())
    event = line["event"]
    if event == "progress":
        text = f"{line['step']}/{line['total']}"
    elif event == "start":
        text = f"start of {line.get('kind')}, attempt {line.get('attempt')}, {line.get('host')}:{line.get('pid')}"
    else:
        text = " ".join(str(part) for part in (event, line.get("what"), line.get("error")) if part)
        text += f" at step {line['step']}" if "step" in line else ""
    return f"{datetime.fromtimestamp(line['t']):%Y-%m-%d %H:%M:%S}  {text}" + (f"  {numbers}" if numbers else "")


def _journals(root: Path) -> list[str]:
    """The keys of the stages that have a journal, the last written first."""
    files = [file for file in (root / "logs").glob("*.jsonl") if len(file.stem) == 64]
    return [file.stem for file in sorted(files, key=lambda file: -file.stat().st_mtime)]


def _resolve(root: Path, text: str) -> str:
    """The only key that begins with `text`, or that of the only stage of that kind. Raises BenchError otherwise."""
    every = _journals(root)
    keys = [key for key in every if key.startswith(text)] or [key for key in every if _kind(root, key) == text]
    if len(keys) == 1:
        return keys[0]
    if not keys:
        kinds = sorted(Counter(_kind(root, key) for key in every).items())
        raise BenchError(f"no log of a stage {text!r} in {root}; " + (
            f"there are: {', '.join(f'{number} of {kind}' for kind, number in kinds)} (`bench logs` lists them)"
            if every else "there is none yet"))
    listed = "".join(f"\n  {_summary(root, key)}" for key in keys[:LISTED])
    more = f"\n  and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    raise BenchError(f"{text!r} fits {len(keys)} stages; give more digits of the key:{listed}{more}")


def _kind(root: Path, key: str) -> str:
    with journal.path(root, key).open("rb") as stream:
        lines, _ = journal.parse(stream.readline())
    return str(lines[0].get("kind")) if lines else "?"


def _summary(root: Path, key: str) -> str:
    lines, _ = journal.read(journal.path(root, key), journal.TAIL)
    return f"{key[:PREFIX]}  {_kind(root, key):12s} " + (_format_line(lines[-1]) if lines else "empty")


def _print_failure(root: Path, key: str) -> int:
    """Prints the traceback of the last failure, or its error. Raises BenchError if the stage has not failed."""
    file = journal.traceback_path(root, key)
    lines, _ = journal.read(journal.path(root, key), journal.TAIL)
    if file.is_file():
        print(file.read_text(), end="")
    elif lines and lines[-1]["event"] == "failed":
        print(lines[-1].get("error", ""))
    else:
        raise BenchError(f"stage {key[:PREFIX]} has not failed; its last line: "
                         f"{_format_line(lines[-1]) if lines else 'none'}")
    return errors.OK
