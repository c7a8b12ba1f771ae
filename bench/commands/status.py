"""`bench status`: what a store's leases, journals and manifests tell of a run, from any terminal."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from bench import errors
from bench.commands.options import add_request_options, request_of
from bench.errors import BenchError
from bench.execute.progress import WINDOW, cells, rate, spell
from bench.experiment.graph import Row, needs, shown, stages
from bench.setup.rows import plan_request
from bench.store import journal, lease
from bench.store.lease import Lease
from bench.store.store import Store

WATCHED = 2.0  # s from one look to the next


def running(root: Path) -> list[Lease]:
    """The leases of a store, also those that hold no more, the oldest first."""
    folder = root / "leases"
    now = lease.clock(folder)
    found = (lease.read(folder, path.name, now) for path in folder.glob("[!.]*"))
    return sorted(filter(None, found), key=lambda lease: lease.began)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of a request, --watch and --json."""
    add_request_options(parser, ablation_needed=False)
    parser.add_argument("--watch", action="store_true", help=f"again every {WATCHED:.0f} s, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="for programs")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints what runs, and with --ablation how far its rows are; returns the exit code."""
    request = request_of(options)
    store = existing_store(request.store)
    table = plan_request(request, needed=False).rows if request.ablation else None
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


def existing_store(root: Path) -> Store:
    """The store there, to read. Raises BenchError where there is none."""
    if not (root / "objects").is_dir():
        raise BenchError(f"no store in {root}; name one with --store DIR, or make it with `bench run`")
    return Store(root, create=False)


def _looking(store: Store, table: Sequence[Row] | None) -> Callable[[], dict[str, Any]]:
    """What looks at the store now and says what it found, as plain values."""
    if table is None:
        return lambda: {"running": [_stage(store.root, lease) for lease in running(store.root)]}
    those = stages(stage for row in table for stage in shown(row))
    names = {stage: stage.key for stage in those}
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
