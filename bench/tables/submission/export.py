"""Writes the recorded results of one variant as a submission."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.experiment import ablation as ablations
from bench.experiment.graph import Row, report_stages
from bench.experiment.key import Stage, canonical, digest
from bench.experiment.scale import scale
from bench.scoring import schema
from bench.setup.request import Request
from bench.setup.rows import plan_request, rows
from bench.store import provenance
from bench.store.store import Store
from bench.tables import results, slices
from bench.tables.captions import failure_text
from bench.tables.columns import listed
from bench.tables.scores import NULL, RowKey, row_key
from bench.tables.submission import folder as files

PRIVATE = ("host",)  # columns of a run that name a machine


def export(request: Request, variant: str, out: Path | None = None, name: str = "") -> Path:
    """Writes the submission of a variant of the request's ablation, and returns its folder.

    It holds all recorded seeds of the variant and, if it was run, of its null (its shuffled EEG). name: of the system
    on a board (default: the variant's). Raises BenchError if the variant has no results, if a seed failed, and if the
    results were recorded by other stages or settings than this version of bench plans: their keys could not be signed.
    """
    subjects = ablations.resolve_subjects(request.subjects, scale(request.scale))
    ablation = ablations.load(request.ablation, subjects, request.with_controls)
    spec, source = ablation.select([variant])[0], request.source_folder
    recorded, _ = slices.read(source, ablation.name, ablation)
    mine = _rows_of(recorded.rows, {row_key(spec)})
    if mine.empty:
        raise BenchError(f"{source / ablation.name}.csv has no results of variant {variant!r}; make them with: bench "
                         f"run --ablation {request.ablation} --variants {variant!r}")
    if len(failed := mine[mine["metric"] == schema.FAILED]):
        raise BenchError(f"{failure_text(next(failed.itertuples()))}; run it again, then export")
    if set(mine["spec"]) != {digest(spec)}:
        raise BenchError(f"variant {variant!r} was recorded with other settings than {ablation.name} has now; run it "
                         "again, then export")
    planned = _plan(request, variant, mine)
    known = {(row.variant, row.items) for row in planned}
    wanted = {row_key(spec), *({(f"{variant} / EEG shuffled", "shuffled")} & known),
              *({NULL} & known if variant == NULL[0] else ())}
    chosen = _rows_of(recorded.rows, wanted)
    chosen = chosen[chosen["seed"].isin(set(mine["seed"]))]
    chosen = chosen[chosen["metric"] != schema.FAILED]
    keys = dict(_keys(chosen, planned))
    items = _rows_of(recorded.items, wanted)
    items = items[[*(column for column in items if items[column].notna().any())]]
    folder = out or Path(f"{ablation.name}-{_file_name(name or variant)}")
    about = {"format": files.FORMAT, "kind": files.RECORDED, "name": name or variant, "variant": variant,
             "ablation": ablation.name, "scale": request.scale, "seeds": sorted(set(map(int, mine["seed"]))),
             "protocol": protocol_line(chosen)}
    files.write_folder(folder, {
        files.ABOUT: files.json_bytes(about),
        files.RESULTS: files.csv_of(chosen[list(schema.COLUMNS)]),
        files.ITEMS: schema.gzipped(files.csv_of(items)),
        files.SPEC: (files.canonical_json(canonical(spec)) + "\n").encode(),
        files.KEYS: files.json_bytes({"keys": [
            {"variant": row.variant, "seed": row.seed, "items": row.items, "key": row.stage.key,
             "document": canonical(row.stage)} for row in keys.values()]}),
        files.ENVIRONMENT: files.json_bytes(environment(request, ablation.name, chosen, keys))})
    return folder


def protocol_line(chosen: pd.DataFrame) -> str:
    """Returns data, judge and numerics of recorded rows in a line, for a reader of submission.json."""
    def values(column: str) -> str:
        return "; ".join(sorted(set(map(str, chosen[column])) - {""})) or "none"

    return f"world {values('world')}; judge {values('judge')}; numerics {values('numerics')}"


def _rows_of(frame: pd.DataFrame, keys: Iterable[RowKey]) -> pd.DataFrame:
    """Returns the rows of these (variant, items)."""
    if frame.empty:
        return frame
    wanted = set(keys)
    return frame[[pair in wanted for pair in zip(frame["variant"], frame["items"], strict=True)]]


def _plan(request: Request, variant: str, mine: pd.DataFrame) -> list[Row]:
    """Plans the recorded seeds of a variant and of its null, on the device that recorded them."""
    seeds = tuple(sorted(set(map(int, mine["seed"]))))
    pretrain_seeds = next((value for value in mine["pretrain_seeds"] if value in ("each", "one")), "")
    planned = plan_request(replace(request, variants=(variant,), seeds=seeds, pretrain_seeds=pretrain_seeds,
                                   nulls="each"), needed=False)
    device, dtype, _ = str(mine["numerics"].iloc[0]).split(", ")
    there = replace(planned.scale, numerics=replace(planned.scale.numerics, device_class=device, dtype=dtype))
    return rows(planned.variants, there, seeds, has_own_nulls=True)


def _keys(chosen: pd.DataFrame, planned: Iterable[Row]) -> Iterable[tuple[tuple[str, int, str], Row]]:
    """Yields the planned row of each recorded (variant, seed, items). Raises BenchError if its key is another one."""
    stages = {(row.variant, row.seed, row.items): row for row in planned}
    for variant, seed, items, stage in chosen[[*schema.GROUP, "stage"]].drop_duplicates().itertuples(
            index=False, name=None):
        row = stages[variant, int(seed), items]
        if row.stage.key[:16] != stage:
            raise BenchError(f"{variant} ({items}), seed {seed}, was recorded by stage {stage}, but this version of "
                             f"bench plans {row.stage.key[:16]} with these options; give the options of its run, or "
                             "run it again, then export")
        yield (variant, int(seed), items), row


def environment(request: Request, ablation: str, chosen: pd.DataFrame, keys: Mapping[Any, Row]) -> dict[str, Any]:
    """Returns what the results were made with, as far as it is recorded: code, packages, times, and the machine of the
    stages that are still in the store. The names of machines are left out."""
    runs = results.runs(request.source_folder, ablation)
    groups = {(variant, str(seed), items) for variant, seed, items in keys}
    is_ours = [group in groups for group in zip(*(runs[name] for name in schema.GROUP), strict=True)]
    runs = runs[pd.Series(is_ours, runs.index, dtype=bool)]
    store = Store(request.store, create=False)
    stages: dict[str, Stage] = {stage.key[:16]: stage for row in keys.values() for stage in report_stages(row)}
    stored = {key: store.manifest(stage) for key, stage in stages.items() if store.has(stage)}
    kept = ("code", "packages", "python", "device", "hardware")
    return {"exported_with": exported_with(), "recorded_versions": listed(sorted(set(chosen["versions"]))),
            "runs": runs.drop(columns=list(PRIVATE)).to_dict("records"),
            "stages": {key: {name: manifest[name] for name in kept if name in manifest}
                       for key, manifest in stored.items()}}


def exported_with() -> dict[str, Any]:
    """Returns the code, Python and packages of this process."""
    return {"bench": provenance.code(), "python": platform.python_version(), "packages": provenance.packages()}


def _file_name(name: str) -> str:
    """Returns a name as a part of a path: letters, digits, and "-" for the rest."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name).split()) or "submission"
