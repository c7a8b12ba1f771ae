"""Requests: a stage written into the store, from which a process on another machine makes the value again."""

from __future__ import annotations

from pathlib import Path

from bench.errors import BenchError
from bench.experiment.key import Stage, dump, load
from bench.files import put
from bench.store.store import Store


def write_request(store: Store, stage: Stage) -> Path:
    """Writes requests/<key>.json, and returns its path."""
    path = store.root / "requests" / f"{stage.key}.json"
    path.parent.mkdir(exist_ok=True)
    put(path, dump(stage))
    return path


def read_request(store: Store, key: str) -> Stage:
    """The stage of that key. Raises BenchError where there is no request for it, or none that fits."""
    try:
        text = (store.root / "requests" / f"{key}.json").read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"store {store.root}: no request {key[:12]} that can be read; bench run --on ENGINE "
                         "writes them") from error
    return load(text, key)
