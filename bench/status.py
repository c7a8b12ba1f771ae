"""`bench status` and `bench logs`: what a store's leases, journals and manifests tell of a run, from any terminal."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from bench import errors, journal, lease, trackers
from bench.errors import BenchError
from bench.key import key
from bench.lease import Lease
from bench.plan import Row, needs, shown, stages
from bench.progress import WINDOW, cells, rate, spell
from bench.store import Store

WATCHED = 2.0  # s from one look to the next
LISTED = 12  # stages that a message names


def running(root: Path) -> list[Lease]:
    """The leases of a store, also those that hold no more, the oldest first."""
    folder = root / "leases"
    now = lease.clock(folder)
    found = (lease.read(folder, path.name, now) for path in folder.glob("[!.]*"))
    return sorted(filter(None, found), key=lambda lease: lease.began)


def add_options(status: argparse.ArgumentParser) -> None:
    """--watch, --json; the others are those of `run`."""
    status.add_argument("--watch", action="store_true", help=f"again every {WATCHED:.0f} s, until Ctrl-C")
    status.add_argument("--json", action="store_true", help="for programs")


def add_run_options(run: argparse.ArgumentParser) -> None:
    """--track, --energy: what is seen of a run beside its log."""
    run.add_argument("--track", choices=tuple(trackers.TRACKERS), help="send progress to a tracker, too")
    run.add_argument("--energy", nargs="?", const="1", metavar="COUNTRY",
                     help="note energy, and of a country (FRA) CO2, with codecarbon")


def add_log_options(logs: argparse.ArgumentParser) -> None:
    """KEY, --follow, --failed, --json, --store."""
    logs.add_argument("key", metavar="KEY", nargs="?", help="how a stage's key begins, or its kind; none: list all")
    logs.add_argument("--follow", action="store_true", help="go on as lines come, until the stage has ended")
    logs.add_argument("--failed", action="store_true", help="the traceback of its last failure")
    logs.add_argument("--json", action="store_true", help="the lines as they are")
    logs.add_argument("--store", default=".bench", metavar="DIR", help="where stages are kept (default: .bench)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints what runs, and with --ablation how far its rows are; returns the exit code."""
    store = _store(options)
    table = None
    if options.ablation:
        from bench import report

        table = report.prepare(options, needed=False)[3]
    look = _looking(store, table)
    console.soft_wrap = not console.is_terminal  # lines wrap at a terminal's edge, and never in a file
    if not options.watch:
        found = look()
        if options.json:
            print(json.dumps(found, indent=1))
        else:
            console.print(_drawn(found))
        return errors.OK
    with suppress(KeyboardInterrupt):  # the way to end it
        _watch(look, options.json, console)
    return errors.OK


def _watch(look: Callable[[], dict[str, Any]], for_programs: bool, console: Console) -> None:
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not for_programs else nullcontext()
    with live:
        while True:
            found = look()
            if isinstance(live, Live):
                live.update(_drawn(found), refresh=True)
            elif for_programs:
                print(json.dumps(found), flush=True)
            else:
                console.print(_drawn(found))
            time.sleep(WATCHED)


def _store(options: argparse.Namespace) -> Store:
    root = Path(options.store)
    if not (root / "objects").is_dir():
        raise BenchError(f"no store in {root}; name one with --store DIR, or make it with `bench run`")
    return Store(root, create=False)


def _looking(store: Store, table: list[Row] | None) -> Callable[[], dict[str, Any]]:
    """What looks at the store now and says what it found, as plain values."""
    if table is None:
        return lambda: {"running": [_stage(store.root, lease) for lease in running(store.root)]}
    those = stages(stage for row in table for stage in shown(row))
    names = {stage: key(stage) for stage in those}
    wanted = {row: [names[stage] for stage in shown(row)] for row in table}
    above = {names[stage]: [names[one] for one in needs(stage)] for stage in those}

    def look() -> dict[str, Any]:
        leases = running(store.root)
        built = {name for stage, name in names.items() if store.has(stage)}
        live = {lease.key for lease in leases if lease.live}
        failed = {name: said for name in above if name not in built | live and (said := _failure(store.root, name))}
        found = []
        for row, own in wanted.items():
            missing = list(_missing(own, above, built))
            causes = [failed[name] for name in missing if name in failed]
            state = ("complete" if not missing else "failed" if causes
                     else "running" if live.intersection(missing) else "waiting")
            found.append({"variant": row.variant, "seed": row.seed, "items": row.items, "state": state,
                          "stages_left": len(missing), **({"cause": causes[0]} if causes else {})})
        mine = [lease for lease in leases if lease.key in above]
        return {"rows": found, "stages": {"built": len(built), "of": len(names)},
                "running": [_stage(store.root, lease) for lease in mine],
                "others_running": len(leases) - len(mine)}

    return look


def _missing(roots: Iterable[str], above: dict[str, list[str]], built: set[str]) -> Iterator[str]:
    """The stages that are still to be built for these."""
    found, left = set(built), list(roots)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            yield name
            left += above[name]


def _failure(root: Path, name: str) -> str:
    """Why the stage's last attempt failed; empty where it did not, or has not ended."""
    lines, _ = journal.read(journal.path(root, name), journal.TAIL)
    return str(lines[-1].get("error", "")) if lines and lines[-1]["event"] == "failed" else ""


def _stage(root: Path, lease: Lease) -> dict[str, Any]:
    """What is known of a stage that somebody builds."""
    file = journal.path(root, lease.key)
    lines, _ = journal.read(file, journal.TAIL)
    said = [line for line in lines if line["event"] == "progress" and line.get("attempt") == lease.attempt]
    lately = [(line["t"], line["step"]) for line in said if said[-1]["t"] - line["t"] <= WINDOW]
    last = said[-1] if said else {}
    return asdict(lease) | {"attempts": len(journal.unfinished(file)), "step": last.get("step"),
                            "total": last.get("total"), "loss": last.get("loss"), "steps_per_s": rate(lately),
                            "said": last.get("t")}


def _drawn(found: dict[str, Any]) -> RenderableType:
    parts: list[RenderableType] = []
    if "rows" in found:
        counted = Counter(row["state"] for row in found["rows"])
        parts.append(Text(f"{len(found['rows'])} rows: " + ", ".join(
            f"{counted[state]} {state}" for state in ("complete", "running", "waiting", "failed"))
            + f"; {found['stages']['built']} of {found['stages']['of']} stages are there"))
        parts += [Text(f"failed: {row['variant']} (seed {row['seed']}, {row['items']}): {row['cause']}", "red")
                  for row in found["rows"] if row["state"] == "failed"]
    if found["running"]:
        parts += [line for one in found["running"] for line in _lines(one)]
        if not all(one["live"] for one in found["running"]):
            parts.append(Text("STALE: its process is gone or has not been heard of for too long; the next `bench run` "
                              "takes it over", "red"))
    else:
        parts.append(Text("nothing runs"))
    if found.get("others_running"):
        parts.append(Text(f"{found['others_running']} stages of other plans run in this store"))
    return Group(*parts)


def _lines(one: dict[str, Any]) -> tuple[Text, Text]:
    """How far a stage is, and who builds it."""
    step, pace, loss, left = cells(one["step"] or 0, one["total"] or 0, one["steps_per_s"], one["loss"])
    far = [step, pace and f"{pace} steps/s", loss and f"loss {loss}", left and f"about {left} left"]
    age = f"heartbeat {spell(one['age'])} ago" + ("" if one["live"] else ", STALE")
    who = f"  on {one['host']}, process {one['pid']}" + (f" ({one['about']})" if one["about"] else "")
    spent = spell(max(0.0, time.time() - one["began"]))
    return (Text(f"{one['stage']} {one['key'][:12]}: " + (", ".join(filter(None, far)) or "nothing said yet")
                 + f"; {age}", "" if one["live"] else "red"),
            Text(f"{who}, attempt {one['attempts'] or 1}, for {spent}", "dim"))


def logs(options: argparse.Namespace, console: Console) -> int:
    """Prints a stage's journal or its traceback; returns the exit code."""
    root = _store(options).root
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
