"""`bench status`: shows running stages and the progress of rows, from a store's leases, journals and manifests."""

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
from bench.execute.progress import WINDOW, cells, format_seconds, rate
from bench.experiment.graph import Row, needs, report_stages, stages
from bench.store import journal, lease
from bench.store.gc import open_store
from bench.store.lease import Lease
from bench.store.store import Store

INTERVAL = 2.0  # s between two updates of --watch
STATES = ("complete", "running", "waiting", "failed")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_request_options(parser, ablation_needed=False)
    output = parser.add_argument_group("output")
    output.add_argument("--watch", action="store_true", help=f"update every {INTERVAL:.0f} s, until Ctrl-C")
    output.add_argument("--json", action="store_true", help="print JSON")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints what is running, and with --ablation the progress of its rows; returns the exit code."""
    request = request_of(options)
    store = open_store(str(request.store))
    table = None
    if request.ablation:
        from bench.setup.rows import plan_request  # not at the top: the rest needs no pandas

        table = plan_request(request, needed=False).rows
    observe = _observer(store, table)
    console.soft_wrap = not console.is_terminal  # lines wrap at a terminal's edge, and never in a file
    live = options.watch and console.is_terminal and not options.json and Live(console=console, auto_refresh=False)
    with suppress(KeyboardInterrupt) if options.watch else nullcontext(), live or nullcontext():
        while True:
            status = observe()
            if options.json:
                print(json.dumps(status, indent=None if options.watch else 1), flush=True)
            elif live:
                live.update(_render(status), refresh=True)
            else:
                console.print(_render(status))
            if not options.watch:
                break
            time.sleep(INTERVAL)
    return errors.OK


def _leases(root: Path) -> list[Lease]:
    """All leases of a store, expired ones included, the oldest first."""
    folder = root / "leases"
    now = lease.clock(folder)
    leases = (lease.read(folder, path.name, now) for path in folder.glob("[!.]*"))
    return sorted(filter(None, leases), key=lambda lease: lease.began)


def _observer(store: Store, table: Sequence[Row] | None) -> Callable[[], dict[str, Any]]:
    """A function that reads the store and returns its status as plain values."""
    if table is None:
        return lambda: {"running": [_stage(store.root, lease) for lease in _leases(store.root)]}
    planned = stages(stage for row in table for stage in report_stages(row))
    keys = {stage: stage.key for stage in planned}
    wanted = {row: [keys[stage] for stage in report_stages(row)] for row in table}
    above = {keys[stage]: [keys[needed] for needed in needs(stage)] for stage in planned}

    def observe() -> dict[str, Any]:
        leases = _leases(store.root)
        built = {key for stage, key in keys.items() if store.has(stage)}
        live = {lease.key for lease in leases if lease.live}
        failed = {key: cause for key in above if key not in built | live and (cause := _failure(store.root, key))}
        rows = []
        for row, ends in wanted.items():
            missing = list(_missing(ends, above, built))
            causes = [failed[key] for key in missing if key in failed]
            state = ("complete" if not missing else "failed" if causes
                     else "running" if live.intersection(missing) else "waiting")
            rows.append({"variant": row.variant, "seed": row.seed, "items": row.items, "state": state,
                         "stages_left": len(missing), **({"cause": causes[0]} if causes else {})})
        planned_leases = [lease for lease in leases if lease.key in above]
        return {"rows": rows, "stages": {"built": len(built), "of": len(keys)},
                "running": [_stage(store.root, lease) for lease in planned_leases],
                "others_running": len(leases) - len(planned_leases)}

    return observe


def _missing(roots: Iterable[str], above: dict[str, list[str]], built: set[str]) -> Iterator[str]:
    """The keys of the stages that must still be built for `roots`."""
    seen, left = set(built), list(roots)
    while left:
        key = left.pop()
        if key not in seen:
            seen.add(key)
            yield key
            left += above[key]


def _failure(root: Path, key: str) -> str:
    """Why a stage's last attempt failed; empty if it did not fail, or has not ended."""
    lines, _ = journal.read(journal.path(root, key), journal.TAIL)
    return str(lines[-1].get("error", "")) if lines and lines[-1]["event"] == "failed" else ""


def _stage(root: Path, lease: Lease) -> dict[str, Any]:
    """A stage with a lease: the lease's fields, and the progress of its attempt."""
    file = journal.path(root, lease.key)
    lines, _ = journal.read(file, journal.TAIL)
    progress = [line for line in lines if line["event"] == "progress" and line.get("attempt") == lease.attempt]
    recent = [(line["t"], line["step"]) for line in progress if progress[-1]["t"] - line["t"] <= WINDOW]
    last = progress[-1] if progress else {}
    return asdict(lease) | {"attempts": len(journal.unfinished_attempts(file)), "step": last.get("step"),
                            "total": last.get("total"), "loss": last.get("loss"), "steps_per_s": rate(recent),
                            "said": last.get("t")}


def _render(status: dict[str, Any]) -> RenderableType:
    parts: list[RenderableType] = []
    if "rows" in status:
        counted = Counter(row["state"] for row in status["rows"])
        parts.append(Text(f"{len(status['rows'])} rows: " + ", ".join(f"{counted[state]} {state}" for state in STATES)
                          + f"; {status['stages']['built']} of {status['stages']['of']} stages are stored"))
        parts += [Text(f"failed: {row['variant']} (seed {row['seed']}, {row['items']}): {row['cause']}", "red")
                  for row in status["rows"] if row["state"] == "failed"]
    parts += [line for stage in status["running"] for line in _render_stage(stage)] or [Text("no stage is running")]
    if not all(stage["live"] for stage in status["running"]):
        parts.append(Text("STALE: the lease has expired; the next `bench run` takes the stage over", "red"))
    if status.get("others_running"):
        parts.append(Text(f"{status['others_running']} stages of other plans are running in this store"))
    return Group(*parts)


def _render_stage(stage: dict[str, Any]) -> tuple[Text, Text]:
    """The progress of a stage, and which process builds it."""
    step, pace, loss, left = cells(stage["step"] or 0, stage["total"] or 0, stage["steps_per_s"], stage["loss"])
    progress = [step, pace and f"{pace} steps/s", loss and f"loss {loss}", left and f"about {left} left"]
    age = f"heartbeat {format_seconds(stage['age'])} ago" + ("" if stage["live"] else ", STALE")
    process = f"  on {stage['host']}, process {stage['pid']}" + (f" ({stage['about']})" if stage["about"] else "")
    return (Text(f"{stage['stage']} {stage['key'][:12]}: " + (", ".join(filter(None, progress)) or "no progress yet")
                 + f"; {age}", "" if stage["live"] else "red"),
            Text(f"{process}, attempt {stage['attempts'] or 1}, for "
                 f"{format_seconds(max(0.0, time.time() - stage['began']))}", "dim"))
