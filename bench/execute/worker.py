"""Builds one stage in a process of its own, as an engine wants it: `python -P -m bench.execute.worker KEY --store DIR`."""

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
from bench.execute.requests import read_request
from bench.experiment.graph import needs
from bench.experiment.key import Stage
from bench.runtime import device
from bench.store import journal
from bench.store.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the stage and returns the exit code; one that is there already is done at once, and one that another
    process builds is waited for. 75: the disk is full, or the engine stopped it (SIGTERM, SIGUSR2): a training kept its
    state first, and the same command goes on from there."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, runtime.stop)
    os.environ.update(QUIET)
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    store = None
    try:
        options = _parser().parse_args(arguments)
        if options.leash:
            threading.Thread(target=_end_with_standard_input, daemon=True).start()
        store = Store(_existing(Path(options.store)))
        note(store, options.key, None)
        stage = read_request(store, options.key)
        _build(stage, store, device(options.device))
    except (Exception, KeyboardInterrupt, runtime.Stopped) as error:
        if runtime.stopping():  # whatever has become of Stopped on its way through the libraries
            print("bench: stopped by the engine; the same command goes on from what is kept", file=sys.stderr)
            return RESUMABLE
        if isinstance(error, KeyboardInterrupt):
            return errors.INTERRUPTED
        if not isinstance(error, BenchError):
            traceback.print_exc()
            error = BenchError(f"{type(error).__name__}: {error}", errors.SOME_FAILED)
        print(f"bench: {error}", file=sys.stderr)
        if store:
            note(store, options.key, error)
        return error.exit_code
    print(f"{stage.kind} {stage.key} is complete")
    return errors.OK


def note(store: Store, name: str, error: BenchError | None) -> None:
    """Keeps beside a request why its last attempt failed; None: forgets it."""
    path = _note(store, name)
    if error is None:
        path.unlink(missing_ok=True)
    elif not store.full(error):
        path.write_text(json.dumps({"error": str(error), "exit_code": error.exit_code}))


def noted(store: Store, name: str) -> BenchError | None:
    """Why the last attempt at the stage of that key failed, by its own word; None where it left none."""
    try:
        said = json.loads(_note(store, name).read_text())
        return BenchError(str(said["error"]), int(said["exit_code"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def progress(store: Store, stage: Stage) -> Event | None:
    """How far the process is that builds it now, by the last word in the stage's journal: "started" where that is
    none of its own. None where nobody builds it."""
    try:
        held = store.held(stage)
        lines, _ = journal.read(journal.path(store.root, stage.key), journal.TAIL)
    except OSError:  # a network disk that does not answer now: how far it is can wait
        return None
    if held is None:
        return None
    last = lines[-1] if lines else {}
    if last.get("event") != "progress" or last.get("attempt") != held.attempt:
        return Event(stage, "started")
    scalars = {name: value for name, value in last.items() if name not in journal.OWN}
    return Event(stage, "progress", last["step"], last["total"], scalars)


def command(stage: Stage, store: Store, device: str) -> list[str]:
    """What an engine runs for a stage whose request is written, with a pipe as its standard input, which ends when the
    engine's own process does. -P: a user's folder may be called models, too."""
    return [sys.executable, "-P", "-m", "bench.execute.worker", stage.key, "--store", str(store.root.absolute()),
            "--device", device, "--leash"]


def _build(stage: Stage, store: Store, device: str) -> None:
    if store.sound(stage):
        return
    for above in needs(stage):
        if not store.has(above):
            raise BenchError(f"{stage.kind} is built from {above.kind} {above.key[:12]}, which the store lacks; "
                             "bench run builds them in order")
    from bench.execute.build import build

    build(stage, store, device, wait=True)


def _parser() -> Parser:
    parser = Parser(prog="bench.execute.worker", description="Build one stage by its request in the store.")
    parser.add_argument("key", metavar="KEY", help="64 hex digits: the name of requests/KEY.json")
    parser.add_argument("--store", required=True, metavar="DIR")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--leash", action="store_true", help="stop when standard input ends: whoever began it is gone")
    return parser


def _end_with_standard_input() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _existing(root: Path) -> Path:
    if not root.is_dir():
        raise BenchError(f"no store at {root}: it must lie on a disk that this machine shares with the one that asked "
                         "for the stage", errors.ENVIRONMENT)
    return root


def _note(store: Store, name: str) -> Path:
    return store.root / "requests" / f"{name}.error"


if __name__ == "__main__":
    sys.exit(main())
