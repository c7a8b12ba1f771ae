"""`bench logs`: the journal of a stage, from any terminal."""

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
from bench.commands.status import existing_store
from bench.errors import BenchError
from bench.store import journal, lease

LISTED = 12  # stages that a message names


def add_options(logs: argparse.ArgumentParser) -> None:
    """KEY, --follow, --failed, --json, --store."""
    logs.add_argument("key", metavar="KEY", nargs="?", help="how a stage's key begins, or its kind; none: list all")
    logs.add_argument("--follow", action="store_true", help="go on as lines come, until the stage has ended")
    logs.add_argument("--failed", action="store_true", help="the traceback of its last failure")
    logs.add_argument("--json", action="store_true", help="the lines as they are")
    logs.add_argument("--store", default=".bench", metavar="DIR", help="where stages are kept (default: .bench)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints a stage's journal or its traceback; returns the exit code."""
    root = existing_store(Path(options.store)).root
    if options.key is None:
        for name in _journals(root):
            print(_listed(root, name))
        return errors.OK
    name = _named(root, options.key)
    if options.failed:
        return _traceback(root, name)
    file = journal.path(root, name)
    if not options.follow:
        lines, broken = journal.read(file)
        for line in lines:
            print(json.dumps(line) if options.json else spoken(line))
        if broken:
            print(f"bench: {broken} of the lines of {file} were cut by a kill and are left out", file=sys.stderr)
        return errors.OK
    ended = told = False
    with suppress(KeyboardInterrupt):
        for new in journal.follow(file):
            if new is not None:
                print(json.dumps(new) if options.json else spoken(new), flush=True)
                ended, told = new["event"] in ("done", "failed", "stopped"), False
            elif ended:
                break
            elif not told and not ((held := lease.read(root / "leases", name)) and held.live):
                told = True
                print("bench: nobody builds it now; the next attempt is waited for, Ctrl-C ends this", file=sys.stderr)
    return errors.OK


def spoken(line: journal.Line) -> str:
    """A line of a journal for people."""
    own = {name: value for name, value in line.items() if name not in (*journal.OWN, "what", "error", "kind")}
    numbers = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                        for name, value in own.items())
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
    """The keys of the stages that have a journal, the one last written to first."""
    files = [file for file in (root / "logs").glob("*.jsonl") if len(file.stem) == 64]
    return [file.stem for file in sorted(files, key=lambda file: -file.stat().st_mtime)]


def _named(root: Path, text: str) -> str:
    """The one key that begins so, or the one stage of that kind. Raises BenchError naming what there is."""
    there = _journals(root)
    found = [name for name in there if name.startswith(text)] or [
        name for name in there if _first(root, name).get("kind") == text]
    if len(found) == 1:
        return found[0]
    if not found:
        kinds = Counter(str(_first(root, name).get("kind")) for name in there)
        said = ", ".join(f"{number} of {kind}" for kind, number in sorted(kinds.items()))
        raise BenchError(f"no log of a stage {text!r} in {root}; " + (f"there are: {said} (`bench logs` lists them)"
                                                                      if there else "there is none yet"))
    listed = "".join(f"\n  {_listed(root, name)}" for name in found[:LISTED])
    more = f"\n  and {len(found) - LISTED} more" if len(found) > LISTED else ""
    raise BenchError(f"{len(found)} stages are meant by {text!r}; give more of the key:{listed}{more}")


def _first(root: Path, name: str) -> journal.Line:
    with journal.path(root, name).open("rb") as stream:
        lines, _ = journal.parsed(stream.readline())
    return lines[0] if lines else {}


def _listed(root: Path, name: str) -> str:
    lines, _ = journal.read(journal.path(root, name), journal.TAIL)
    return f"{name[:16]}  {_first(root, name).get('kind', '?'):12s} " + (spoken(lines[-1]) if lines else "empty")


def _traceback(root: Path, name: str) -> int:
    file = journal.traceback_path(root, name)
    if file.is_file():
        print(file.read_text(), end="")
        return errors.OK
    lines, _ = journal.read(journal.path(root, name), journal.TAIL)
    if lines and lines[-1]["event"] == "failed":
        print(lines[-1].get("error", ""))
        return errors.OK
    raise BenchError(f"stage {name[:16]} has not failed; its last line: {spoken(lines[-1]) if lines else 'none'}")
