"""Checks a submission against its signed stages: keys, settings, protocol, and the items of the data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError, join_names
from bench.experiment.stages import Numerics, Prepared, Retrieval, Score
from bench.tables.record import describe_world
from bench.tables.submission import folder as files
from bench.tables.submission.folder import Submission
from bench.tables.submission.trials import read_stage, tested_items

NEEDED = {  # what checks read of a signed stage
    "Score": (("items", "trials", "world", "kind"), ("items", "part"), ("items", "eeg"), ("numerics", "threads"),
              ("reference", "judge", "name"), ("reference", "judge", "sha256"), ("pictures", "kind")),
    "Retrieval": (("items", "trials", "world", "kind"), ("items", "part"), ("items", "eeg"), ("numerics", "threads"),
                  ("embedding", "kind")),
}
SCORED = {kind.__name__: kind for kind in (Score, Retrieval)}


def check_keys(submission: Submission) -> Iterator[str]:
    """Checks that each row is signed by the key of the stage that scored it."""
    keys = {key.group: key for key in submission.keys}
    if len(keys) < len(submission.keys):
        yield f"{files.KEYS}: signs a row twice"
    recorded = {group: rows for _, group, rows, _ in submission.groups()}
    for variant, seed, kind in sorted(set(keys) - set(recorded)):
        yield f"{files.KEYS}: signs {variant}, seed {seed}, {kind}, which {files.RESULTS} lacks"
    for (variant, seed, kind), rows in recorded.items():
        name, key = f"{variant}, seed {seed}, {kind}", keys.get((variant, seed, kind))
        if key is None:
            yield f"{files.KEYS}: has no key of {name}"
            continue
        if (actual := files.hash_text(files.canonical_json(key.document))) != key.key:
            yield f"{files.KEYS}: {name}: its document has the key {actual[:16]}, not {key.key[:16]}"
        if set(rows["stage"]) != {key.key[:16]}:
            yield (f"{files.RESULTS}: {name}: was recorded by stage {join_names(sorted(set(rows['stage'])))}, "
                   f"{files.KEYS} says {key.key[:16]}")


def check_spec(submission: Submission) -> Iterator[str]:
    """Checks that spec.json is canonical, and the settings with which the variant was recorded."""
    path = submission.folder / files.SPEC
    spec = files.read_json(path, ("kind",)) if _is_json(path) else None
    if spec is None or path.read_text() != files.canonical_json(spec) + "\n":
        yield f"{files.SPEC}: is not canonical JSON"
        return
    digest = files.hash_text(files.canonical_json(spec))[:12]
    recorded = set(submission.rows.loc[submission.rows["variant"] == submission.variant, "spec"]) - {""}
    if recorded != {digest}:
        yield (f"{files.SPEC}: has the digest {digest}, but {files.RESULTS} was recorded with "
               f"{join_names(sorted(recorded)) or 'none'}")


def _is_json(path: Path) -> bool:
    try:
        files.read_json(path, ())
    except BenchError:
        return False
    return True


def check_protocol(submission: Submission) -> Iterator[str]:
    """Checks version, items, judge, samples and numerics of each row against the signed stage."""
    keys = {key.group: key for key in submission.keys}
    for name, group, rows, items in submission.groups():
        document = keys[group].document if group in keys else {}
        if (kind := SCORED.get(str(document.get("kind")))) is None:
            if document:
                yield f"{files.KEYS}: {name}: is a {document.get('kind')}; expected {' or '.join(SCORED)}"
            continue
        if document.get("version") != kind.version:
            yield (f"{files.KEYS}: {name}: was scored by version {document.get('version')} of {kind.__name__}, this "
                   f"version of bench has {kind.version}; export it again from a new run")
            continue
        if missing := _lacking(document):
            yield f"{files.KEYS}: {name}: the signed stage has no {missing}"
            continue
        tested = document["items"]
        if tested["eeg"] != group[2]:
            yield f"{files.KEYS}: {name}: the signed stage tests {tested['eeg']} EEG, {files.RESULTS} says {group[2]}"
        expected = {"judge": judge_text(document), "numerics": numerics_text(document)}
        for column, value in expected.items():
            if set(rows[column]) != {value}:
                yield (f"{files.RESULTS}: {name}: {column} is {join_names(sorted(set(rows[column]))) or 'none'}, but "
                       f"the signed stage has {value or 'none'}")
        yield from _check_extractors(name, rows, document)
        samples = _samples(document)
        if samples and len(items) and items["sample"].nunique() != samples:
            yield (f"{files.ITEMS}: {name}: has {items['sample'].nunique()} samples of an item, the signed stage "
                   f"generates {samples}")


def _lacking(document: Mapping[str, Any]) -> str:
    """Returns what a signed stage lacks of NEEDED: "items.part"; "" if it lacks nothing."""
    for path in NEEDED.get(str(document.get("kind")), ()):
        value: Any = document
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None:
            return ".".join(path)
    return ""


def _check_extractors(name: str, rows: pd.DataFrame, document: Mapping[str, Any]) -> Iterator[str]:
    """Checks that the networks of the metrics are those of the signed stage."""
    known = dict(_weights(document))
    for extractor, digest in rows.loc[rows["extractor"] != "", ["extractor", "extractor_sha256"]].drop_duplicates(
            ).itertuples(index=False, name=None):
        if extractor in known and known[extractor] != digest:
            yield (f"{files.RESULTS}: {name}: {extractor} has the SHA-256 {digest[:12]}, the signed stage has "
                   f"{known[extractor][:12]}")


def _weights(document: Any) -> Iterator[tuple[str, str]]:
    """Yields name and SHA-256 of all frozen parts in a document."""
    if isinstance(document, Mapping):
        if {"name", "sha256"} <= set(document):
            yield str(document["name"]), str(document["sha256"])
        for value in document.values():
            yield from _weights(value)
    elif isinstance(document, list):
        for value in document:
            yield from _weights(value)


def judge_text(document: Mapping[str, Any]) -> str:
    """Returns the judge of a signed Score as results.csv names it; "" for a Retrieval."""
    judge = document.get("reference", {}).get("judge")
    return f"{judge['name']}@{judge['sha256'][:12]}" if judge else ""


def numerics_text(document: Mapping[str, Any]) -> str:
    """Returns the numerics of a signed stage as results.csv names them."""
    numerics = Numerics(**{name: value for name, value in document["numerics"].items() if name != "kind"})
    return f"{numerics.device_class}, {numerics.dtype}, {numerics.threads} thread"


def _samples(document: Mapping[str, Any]) -> int:
    """Returns how many images of an item a signed Score has; 0: not stated."""
    made = document.get("pictures", {})
    return int(made.get("sampling", made).get("samples", 0))


def compare_items(submission: Submission, store: Path) -> Iterator[tuple[str, bool]]:
    """Compares ids, subjects, images and labels of the items with the data set. Yields a line, and whether it is a
    problem or a note on what cannot be compared."""
    keys = {key.group: key for key in submission.keys}
    for name, group, rows, items in submission.groups():
        document = keys[group].document if group in keys else {}
        if str(document.get("kind")) not in SCORED or _lacking(document) or items.empty:
            continue
        try:
            stage = read_stage(document["items"]["trials"])
        except BenchError as error:
            yield f"{files.KEYS}: {name}: {error}", True
            continue
        if set(rows["world"]) != {world := describe_world(stage.world)}:
            yield (f"{files.RESULTS}: {name}: world is {join_names(sorted(set(rows['world'])))}, but the signed stage "
                   f"has {world}"), True
        expected = tested_items(stage, document["items"]["part"], store)
        if expected is None:
            assert isinstance(stage.world, Prepared)
            yield (f"the ids of the items: the trials of {stage.world.name} are not in the store {store}; build them "
                   "with a run on the same data, or compare them on a board"), False
            continue
        for line in _differences(items, expected, "label" if document["kind"] == "Retrieval" else "judge"):
            yield f"{files.ITEMS}: {name}: {line}", True


def _differences(items: pd.DataFrame, expected: pd.DataFrame, label: str) -> Iterable[str]:
    mine, wanted = set(items["item"]), set(expected["item"])
    if missing := sorted(wanted - mine):
        yield f"lacks {len(missing)} of {len(wanted)} items of the protocol: {join_names(map(str, missing))}"
    if extra := sorted(mine - wanted):
        yield f"has {len(extra)} items that the protocol lacks: {join_names(map(str, extra))}"
    both = items.merge(expected, on="item", suffixes=("", "_expected"))
    columns = {"subject": "subject_expected", "picture": "picture_expected"}
    if "label" in items:
        columns["label"] = "label_expected" if label == "label" else "judge"
    for column, other in columns.items():
        if len(wrong := both[both[column] != both[other]]):
            line = wrong.iloc[0]
            yield (f"item {line['item']:g}: {column} is {line[column]:g}, the protocol has {line[other]:g} "
                   f"({len(wrong)} rows)")
