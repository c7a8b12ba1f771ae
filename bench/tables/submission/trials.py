"""The items that a submission must have: those of the tested part, read from the store or drawn again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from bench.data.prepared import read_classes, read_trials
from bench.data.tiny import TinyWorld
from bench.data.tiny_things import TinyThings
from bench.errors import BenchError
from bench.experiment.stages import Prepared, Trials
from bench.runtime import Runtime
from bench.store.store import Store
from bench.tables.submission.folder import canonical_json, hash_text
from bench.train.trials import trials as build_trials

WORLDS: dict[str, type] = {kind.__name__: kind for kind in (TinyWorld, TinyThings, Prepared)}


def read_stage(document: Mapping[str, Any]) -> Trials:
    """Returns the Trials of a canonical document. Raises BenchError if this version of bench has no such trials."""
    try:
        world = dict(document["world"])
        known = WORLDS[world.pop("kind")]
        allowed = {field.name for field in fields(known) if field.init}
        made = known(**{name: _plain(value) for name, value in world.items() if name in allowed})
        rest = {name: _plain(value) for name, value in document.items() if name not in ("kind", "version", "world")}
        stage = Trials(world=made, **rest)
    except (KeyError, TypeError) as error:
        raise BenchError(f"its trials are of another version of bench ({error})") from error
    if stage.key != hash_text(canonical_json(document)):
        raise BenchError(f"its trials are of another version of bench (version {document.get('version')}, here "
                         f"{Trials.version})")
    return stage


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list) else value


@lru_cache(maxsize=8)  # several submissions of one board have the same trials
def tested_items(trials: Trials, part: str, store: Path) -> pd.DataFrame | None:
    """Returns the items of a part, ascending: item, subject, picture, label, judge (the judge's number of the class).

    They are read from the store; those of a tiny world are drawn again if they are not stored. None: of a data set
    that is not stored, so that they cannot be known.
    """
    kept = Store(store, create=False)
    if kept.has(trials):
        return _read(kept.path(trials), part)
    if isinstance(trials.world, Prepared):
        return None
    with tempfile.TemporaryDirectory() as folder:
        build_trials(trials, lambda stage: Path(folder), Path(folder), Runtime())
        return _read(Path(folder), part)


def _read(folder: Path, part: str) -> pd.DataFrame:
    table = read_trials(folder)
    chosen = table[table["part"] == part].sort_values("item")[["item", "subject", "picture", "label"]]
    judge = read_classes(folder).set_index("label")["judge"].loc[chosen["label"]].to_numpy()
    return chosen.assign(judge=judge).reset_index(drop=True)
