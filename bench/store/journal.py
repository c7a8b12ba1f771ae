"""The journal of a stage: one line of JSON for each start, progress and end of every attempt, in the store's logs/."""

from __future__ import annotations

import json
import math
import os
import socket
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.errors import RESUMABLE, BenchError
from bench.store import Keyed

EVERY = 1.0  # s, the least time between two lines of progress
TAIL = 1 << 16  # bytes at the end of a journal, which hold the last minutes
RESERVED = ("t", "event", "step", "total", "attempt", "host", "pid")  # fields that are not a stage's own
Line = dict[str, Any]


def path(root: Path, key: str) -> Path:
    """The journal of the stage with that key, in the store at `root`."""
    return root / "logs" / f"{key}.jsonl"


def traceback_path(root: Path, key: str) -> Path:
    """The file with the traceback of that stage's last failure."""
    return root / "logs" / f"{key}.log"


class Journal:
    """Writes the lines of one attempt: {"t": unix seconds, "event": "start", "progress", "note", "done", "failed" or
    "stopped", ..., "attempt", "host", "pid"}; nothing before `start`. Drops a line that cannot be written, with a
    warning, so that no stage fails."""

    def __init__(self, root: Path, stage: Keyed):
        self._root, self._key, self._kind = root, stage.key, stage.kind
        self._attempt, self._wrote = "", -math.inf
        self._pending: tuple[float, Line] | None = None  # progress that came less than EVERY after the last line

    def start(self, attempt: str, **details: Any) -> None:
        """Begins an attempt. details: such as the device."""
        self._attempt, self._wrote, self._pending = attempt, -math.inf, None
        self._write("start", {"kind": self._kind, **details})

    def progress(self, step: int, total: int, **scalars: Any) -> None:
        """Writes at most one line every EVERY seconds, and always the first and the last."""
        if not self._attempt:
            return
        line = {**scalars, "step": step, "total": total}
        if step < total and time.monotonic() - self._wrote < EVERY:
            self._pending = _now(), line
            return
        self._pending, self._wrote = None, time.monotonic()
        self._write("progress", line)

    def note(self, what: str, **values: Any) -> None:
        """Writes an event that happens once, such as a resume from a checkpoint."""
        if self._attempt:
            self._write_pending()
            self._write("note", {"what": what, **values})

    def done(self) -> None:
        """Ends the attempt: the stage is in the store."""
        if self._attempt:
            self._write_pending()
            self._write("done", {})
            with suppress(OSError):
                traceback_path(self._root, self._key).unlink(missing_ok=True)
            self._attempt = ""

    def failed(self, error: BaseException) -> None:
        """Ends the attempt with an error, and keeps the traceback unless it is a BenchError. The event is "stopped" if
        the process was told to end, the disk is full, or another process took over."""
        is_ours = isinstance(error, BenchError)
        if not self._attempt and (is_ours or not isinstance(error, Exception)):
            return  # such as a lease that another process holds
        self._write_pending()
        message = " ".join((str(error) if is_ours else f"{type(error).__name__}: {error}").split())
        if not isinstance(error, Exception) or getattr(error, "exit_code", None) == RESUMABLE:
            self._write("stopped", {"error": message})
        else:
            self._write("failed", {"error": message})
            file = traceback_path(self._root, self._key)
            try:
                if is_ours:
                    file.unlink(missing_ok=True)
                else:
                    file.write_text("".join(traceback.format_exception(error)))
            except OSError as trouble:
                _warn(trouble)
        self._attempt = ""

    def _write_pending(self) -> None:
        if self._pending is not None:
            t, line = self._pending
            self._write("progress", line, t)
            self._pending = None

    def _write(self, event: str, values: Line, t: float | None = None) -> None:
        line = {"t": t or _now(), "event": event} | {name: values[name] for name in ("step", "total") if name in values}
        line |= {name: _plain(value) for name, value in values.items() if name not in RESERVED}
        line |= {"attempt": self._attempt, "host": socket.gethostname(), "pid": os.getpid()}
        try:
            append(path(self._root, self._key), line)
        except OSError as error:
            _warn(error)


def record_failure(root: Path, stage: Keyed, error: str) -> None:
    """Writes that a stage failed, for a process that could not write it itself, such as one that was killed."""
    file = path(root, stage.key)
    lines, _ = read(file, TAIL)
    if lines and lines[-1]["event"] == "failed" and lines[-1].get("error") == error:
        return
    attempt = lines[-1].get("attempt", "") if lines else ""
    try:
        traceback_path(root, stage.key).unlink(missing_ok=True)  # of an earlier failure
        append(file, {"t": _now(), "event": "failed", "error": error, "attempt": attempt, "host": socket.gethostname(),
                      "pid": os.getpid()})
    except OSError as trouble:
        _warn(trouble)


def append(file: Path, line: Line) -> None:
    """Appends a line in one write, and starts a new line if a kill cut the last one."""
    data = json.dumps(line, allow_nan=False).encode() + b"\n"
    with file.open("ab+", buffering=0) as stream:
        if end := stream.seek(0, os.SEEK_END):
            stream.seek(end - 1)
            data = data if stream.read(1) == b"\n" else b"\n" + data
        stream.write(data)


def read(file: Path, last: int | None = None) -> tuple[list[Line], int]:
    """The lines of a journal, and the number of broken lines that were skipped. An absent journal is empty. last: reads
    only that many bytes at the end."""
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
    return parse(data)


def parse(data: bytes) -> tuple[list[Line], int]:
    """The whole lines as values, and the number of broken lines."""
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
    """Yields every line from the first on, and None when there is no new line. Waits `every` seconds after a None."""
    position, rest = 0, b""
    while True:
        if file.exists():
            with file.open("rb") as stream:
                stream.seek(position)
                new = stream.read()
            position += len(new)
            whole, _, rest = (rest + new).rpartition(b"\n")
            yield from parse(whole)[0]
        yield None
        time.sleep(every)


def unfinished_attempts(file: Path) -> list[dict[str, Any]]:
    """id, host and seconds of each attempt since the stage was last complete, the oldest first."""
    attempts: dict[str, list[Line]] = {}
    is_complete = False
    for line in read(file)[0]:
        if line["event"] == "start" and is_complete:
            attempts, is_complete = {}, False
        if attempt := str(line.get("attempt", "")):  # else it failed before an attempt began
            attempts.setdefault(attempt, []).append(line)
            is_complete = is_complete or line["event"] == "done"
    return [{"id": attempt, "host": str(lines[-1].get("host")),
             "seconds": round(max(lines[-1]["t"] - lines[0]["t"], 0), 3)}
            for attempt, lines in attempts.items() if lines[-1]["event"] != "done"]


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


def _warn(error: OSError) -> None:
    warnings.warn(f"a line of a stage's log could not be written: {error}", stacklevel=4)
