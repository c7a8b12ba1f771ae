"""The journal of a stage: a line of JSON for each start, progress and end, over all its attempts, in the store's logs/.

Who reads it imports no torch, and needs no other file.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import RESUMABLE, BenchError
from bench.store.keyed import Keyed

EVERY = 1.0  # s at least from one line of progress to the next
TAIL = 1 << 16  # bytes from the end of a journal, in which the last minutes stand
OWN = ("t", "event", "step", "total", "attempt", "host", "pid")
Line = dict[str, Any]


def path(root: Path, name: str) -> Path:
    """Where the journal of the stage of that key lies in the store at `root`."""
    return root / "logs" / f"{name}.jsonl"


def traceback_path(root: Path, name: str) -> Path:
    """Where the traceback of that stage's last failure lies, if it had one."""
    return root / "logs" / f"{name}.log"


class Journal:
    """Writes one attempt's lines: {"t": unix seconds, "event": "start", "progress", "note", "done", "failed" or
    "stopped", ..., "attempt", "host", "pid"}.

    Nothing is written before `start`. A line that cannot be written is lost with a warning: no stage fails for its log.
    """

    def __init__(self, root: Path, stage: Keyed):
        self._root, self._name, self._kind = root, stage.key, stage.kind
        self._attempt = ""
        self._wrote = -math.inf
        self._held: tuple[float, Line] | None = None  # progress that was too soon for a line of its own

    def start(self, attempt: str, **about: Any) -> None:
        """An attempt begins; `about`: what else is known of it, such as the device."""
        self._attempt, self._wrote, self._held = attempt, -math.inf, None
        self._write("start", {"kind": self._kind, **about})

    def progress(self, step: int, total: int, **scalars: Any) -> None:
        """At most a line in EVERY seconds; the first and the last are always written."""
        if not self._attempt:
            return
        line = {**scalars, "step": step, "total": total}
        if step < total and time.monotonic() - self._wrote < EVERY:
            self._held = _now(), line
            return
        self._held, self._wrote = None, time.monotonic()
        self._write("progress", line)

    def note(self, what: str, **values: Any) -> None:
        """What happens once, such as that a training goes on from a checkpoint."""
        if self._attempt:
            self._release()
            self._write("note", {"what": what, **values})

    def done(self) -> None:
        """The stage is in the store."""
        if self._attempt:
            self._release()
            self._write("done", {})
            with suppress(OSError):
                traceback_path(self._root, self._name).unlink(missing_ok=True)
            self._attempt = ""

    def failed(self, error: BaseException) -> None:
        """The attempt ended with an error; a BenchError says all in its one line, of others the traceback is kept.

        It was only stopped where the process was told to end, the disk is full, or another has taken the stage over.
        """
        if not self._attempt and (isinstance(error, BenchError) or not isinstance(error, Exception)):
            return  # such as that another builds it
        self._release()
        said = " ".join((str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}").split())
        if not isinstance(error, Exception) or getattr(error, "exit_code", None) == RESUMABLE:
            self._write("stopped", {"error": said})
        else:
            self._write("failed", {"error": said})
            kept = traceback_path(self._root, self._name)
            try:
                if isinstance(error, BenchError):
                    kept.unlink(missing_ok=True)
                else:
                    kept.write_text("".join(traceback.format_exception(error)))
            except OSError as trouble:
                _lost(trouble)
        self._attempt = ""

    def _release(self) -> None:
        if self._held is not None:
            t, line = self._held
            self._write("progress", line, t)
            self._held = None

    def _write(self, event: str, values: Line, t: float | None = None) -> None:
        line = {"t": t or _now(), "event": event} | {name: values[name] for name in ("step", "total") if name in values}
        line |= {name: _plain(value) for name, value in values.items() if name not in OWN}
        line |= {"attempt": self._attempt, "host": socket.gethostname(), "pid": os.getpid()}
        try:
            append(path(self._root, self._name), line)
        except OSError as error:
            _lost(error)


def given_up(root: Path, stage: Keyed, error: str) -> None:
    """Says that a stage failed where the process that built it could not, such as one that was killed."""
    file = path(root, stage.key)
    lines, _ = read(file, TAIL)
    if lines and lines[-1]["event"] == "failed" and lines[-1].get("error") == error:
        return
    attempt = lines[-1].get("attempt", "") if lines else ""
    try:
        traceback_path(root, stage.key).unlink(missing_ok=True)  # of a failure before this one
        append(file, {"t": _now(), "event": "failed", "error": error, "attempt": attempt, "host": socket.gethostname(),
                      "pid": os.getpid()})
    except OSError as trouble:
        _lost(trouble)


def append(file: Path, line: Line) -> None:
    """Puts a line to the end in one write, on a line of its own also where a kill cut the last one."""
    data = json.dumps(line, allow_nan=False).encode() + b"\n"
    with file.open("ab+", buffering=0) as stream:
        if end := stream.seek(0, os.SEEK_END):
            stream.seek(end - 1)
            data = data if stream.read(1) == b"\n" else b"\n" + data
        stream.write(data)


def read(file: Path, last: int | None = None) -> tuple[list[Line], int]:
    """The lines of a journal, and how many were skipped because a kill cut them; none where there is no journal.

    last: only of so many bytes from its end.
    """
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            begin = max(0, size - last) if last else 0
            stream.seek(begin)
            data = stream.read()
    except FileNotFoundError:
        return [], 0
    if begin:  # most likely in the middle of a line
        data = data.partition(b"\n")[2]
    return parsed(data)


def parsed(data: bytes) -> tuple[list[Line], int]:
    """Whole lines as values, and how many others there are."""
    lines, broken = [], 0
    for text in data.split(b"\n"):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            if not isinstance(line["t"], (int, float)) or not isinstance(line["event"], str):
                raise TypeError
            lines.append(line)
        except (ValueError, KeyError, TypeError):
            broken += 1
    return lines, broken


def follow(file: Path, every: float = 0.5) -> Iterator[Line | None]:
    """Every line from the first one on, and None whenever there is none for the time being, after which it waits."""
    at, rest = 0, b""
    while True:
        if file.exists():
            with file.open("rb") as stream:
                stream.seek(at)
                new = stream.read()
            at += len(new)
            whole, _, rest = (rest + new).rpartition(b"\n")
            yield from parsed(whole)[0]
        yield None
        time.sleep(every)


@dataclass(frozen=True)
class Attempt:
    """id, host, pid of who tried; began and ended: unix seconds, the latter of its last line; how: its last event."""

    id: str
    host: str
    pid: int
    began: float
    ended: float
    how: str


def attempts(lines: Iterable[Line]) -> list[Attempt]:
    """The attempts since the stage was last complete, or up to its being complete; the first one first."""
    found: dict[str, Attempt] = {}
    over = False
    for line in lines:
        if line["event"] == "start" and over:
            found, over = {}, False
        if not (name := str(line.get("attempt", ""))):  # it failed before it began
            continue
        began = found[name].began if name in found else line["t"]
        found[name] = Attempt(name, str(line.get("host")), int(line.get("pid", 0)), began, max(began, line["t"]),
                              line["event"])
        over = over or line["event"] == "done"
    return list(found.values())


def unfinished(file: Path) -> list[dict[str, Any]]:
    """id, host and seconds of each attempt since the stage was last complete."""
    return [{"id": one.id, "host": one.host, "seconds": round(one.ended - one.began, 3)}
            for one in attempts(read(file)[0]) if one.how != "done"]


def _now() -> float:
    return round(time.time(), 3)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else str(number)


def _lost(error: OSError) -> None:
    warnings.warn(f"a line of a stage's log is lost: {error}", stacklevel=4)
