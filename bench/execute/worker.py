"""Builds one stage in a process of its own, for an engine: `python -P -m bench.execute.worker KEY --store DIR`.

The engine writes the stage to requests/<key>.json in the store; the worker writes why it failed to <key>.error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from bench import errors, runtime
from bench.arguments import Parser
from bench.errors import RESUMABLE, BenchError
from bench.execute.executor import Event
from bench.execute.pool import QUIET
from bench.experiment.graph import needs
from bench.experiment.key import Stage, dump, load
from bench.files import write_text
from bench.runtime import device
from bench.store import journal
from bench.store.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the stage and returns the exit code. A stored stage is complete at once; the worker waits for a stage that
    another process builds. 75: the disk is full, or the engine stopped the worker (SIGTERM, SIGUSR2); a training saves
    its state first, and the same command resumes."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, runtime.stop)
    os.environ.update(QUIET)
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    parser = Parser(prog="bench.execute.worker", description="Build one stage from its request in the store.")
    parser.add_argument("key", metavar="KEY", help="64 hex digits: the name of requests/KEY.json")
    parser.add_argument("--store", required=True, metavar="DIR")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--leash", action="store_true", help="stop when standard input ends: the parent has exited")
    store = None
    try:
        options = parser.parse_args(arguments)
        if options.leash:
            threading.Thread(target=_end_with_standard_input, daemon=True).start()
        if not (root := Path(options.store)).is_dir():
            raise BenchError(f"no store at {root}; it must be on a disk that this machine shares with the one that "
                             "requested the stage", errors.ENVIRONMENT)
        store = Store(root)
        write_failure(store, options.key, None)
        stage = read_request(store, options.key)
        _build(stage, store, device(options.device))
    except (Exception, KeyboardInterrupt, runtime.Stopped) as error:
        if runtime.is_stopping():  # a library may have turned Stopped into another exception
            print("bench: stopped by the engine; the same command resumes from what was saved", file=sys.stderr)
            return RESUMABLE
        if isinstance(error, KeyboardInterrupt):
            return errors.INTERRUPTED
        if not isinstance(error, BenchError):
            traceback.print_exc()
            error = BenchError(f"{type(error).__name__}: {error}", errors.SOME_FAILED)
        print(f"bench: {error}", file=sys.stderr)
        if store:
            write_failure(store, options.key, error)
        return error.exit_code
    print(f"{stage.kind} {stage.key} is complete")
    return errors.OK


def write_request(store: Store, stage: Stage) -> Path:
    """Writes the request for a stage, and returns its path."""
    path = store.root / "requests" / f"{stage.key}.json"
    path.parent.mkdir(exist_ok=True)
    write_text(path, dump(stage))
    return path


def read_request(store: Store, key: str) -> Stage:
    """The requested stage of that key. Raises BenchError if its request is missing or invalid."""
    try:
        text = (store.root / "requests" / f"{key}.json").read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"store {store.root} has no readable request {key[:12]}; write it with bench run --on "
                         "ENGINE") from error
    return load(text, key)


def write_failure(store: Store, key: str, error: BenchError | None) -> None:
    """Writes why the last attempt at a stage failed; None removes that file."""
    path = store.root / "requests" / f"{key}.error"
    if error is None:
        path.unlink(missing_ok=True)
    elif not store.is_full(error):
        path.write_text(json.dumps({"error": str(error), "exit_code": error.exit_code}))


def read_failure(store: Store, key: str) -> BenchError | None:
    """Why the last attempt at the stage of that key failed; None if it did not report a failure."""
    try:
        failure = json.loads((store.root / "requests" / f"{key}.error").read_text())
        return BenchError(str(failure["error"]), int(failure["exit_code"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_progress(store: Store, stage: Stage) -> Event | None:
    """The last progress in the journal of the process that builds the stage; "started" if it has reported none. None if
    no process builds the stage."""
    try:
        lease = store.holder(stage)
        lines, _ = journal.read(journal.path(store.root, stage.key), journal.TAIL)
    except OSError:  # a network disk that does not answer: try again later
        return None
    if lease is None:
        return None
    last = lines[-1] if lines else {}
    if last.get("event") != "progress" or last.get("attempt") != lease.attempt:
        return Event(stage, "started")
    scalars = {name: value for name, value in last.items() if name not in journal.RESERVED}
    return Event(stage, "progress", last["step"], last["total"], scalars)


def command(stage: Stage, store: Store, device: str) -> list[str]:
    """The command that builds a stage whose request was written. Its standard input must be a pipe, which ends with the
    engine's process. -P: a user's folder may also be called models."""
    return [sys.executable, "-P", "-m", "bench.execute.worker", stage.key, "--store", str(store.root.absolute()),
            "--device", device, "--leash"]


def _build(stage: Stage, store: Store, device: str) -> None:
    if store.is_intact(stage):
        return
    for above in needs(stage):
        if not store.has(above):
            raise BenchError(f"{stage.kind} needs {above.kind} {above.key[:12]}, which is not in the store; bench run "
                             "builds both in order")
    from bench.execute.build import build

    build(stage, store, device, wait=True)


def _end_with_standard_input() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
