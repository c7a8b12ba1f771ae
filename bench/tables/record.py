"""Turns a scored row into lines of a results CSV: its numbers, and the columns that describe it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from bench.data import prepared
from bench.data.shards import read_first_channels
from bench.data.tiny_things import TinyThings
from bench.experiment.ablation import Ablation
from bench.experiment.graph import Row, scored_stage, stages, trainings
from bench.experiment.key import Stage, digest
from bench.experiment.scale import Scale
from bench.experiment.stages import (
    Corpus,
    Finetune,
    Items,
    Prepared,
    Pretrain,
    Readout,
    Score,
    Scored,
    Shards,
    Trials,
    World,
)
from bench.experiment.variant import Spec
from bench.scoring import audit, schema
from bench.store import provenance
from bench.store.store import Store
from bench.tables import results, scores


def describe_row(row: Row, scale: Scale, ablation: Ablation) -> dict[str, Any]:
    """Returns the columns that every line of a row has, as far as its settings determine them."""
    columns: dict[str, Any] = {name: "" for name in schema.ABOUT if name != schema.FAILED} | {
        "variant": row.variant, "seed": row.seed, "items": row.items, "scale": scale.name,
        "world": _world(row),
        "numerics": f"{scale.numerics.device_class}, {scale.numerics.dtype}, {scale.numerics.threads} thread",
        "config": digest(scale), "pretrain_seeds": scale.pretrain_seeds, "stage": row.stage.key[:16]}
    if isinstance(row.stage, Score):
        judge = row.stage.reference.judge
        columns["judge"] = f"{judge.name}@{judge.sha256[:12]}"
    if not row.beside:
        variant = next(v for v in ablation.variants if v.name == row.variant)
        columns |= {"spec": digest(variant), "paper_params": _paper_size(variant, scale)}
    return columns


def _world(row: Row) -> str:
    """Returns the name of the data set that the row is tested on."""
    return describe_world(_tested_items(row).trials.world)


def describe_world(world: Any) -> str:
    """Returns the name of a data set in results: "tiny, seed 0"."""
    if isinstance(world, TinyThings):
        return f"tiny things, seed {world.seed}"
    return f"tiny, seed {world.seed}" if isinstance(world, World) else str(world.name)


def _paper_size(variant: Spec, scale: Scale) -> str:
    """Returns the paper's label of the encoder's size, and whether some of its dimensions are inferred."""
    label = getattr(variant, "size", "")
    return f"{label} (dimensions partly inferred)" if label and scale.size(label).inferred else label


def gather_row(row: Row, store: Store, scale: Scale, ablation: Ablation) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns a row's numbers and those of its items, with the columns that describe the row."""
    columns = describe_row(row, scale, ablation) | {"leaky": _leak(row, store), "versions": _versions(row.stage, store)}
    lines: list[dict[str, Any]] = []

    def line(metric: str, key: str, value: float, n: int) -> None:
        lines.append({"metric": metric, "key": key, "value": value, "n": n, "extractor": "", "extractor_sha256": "",
                      "comparable": 1, schema.FAILED: ""})

    if isinstance(row.stage, Scored) and (behind := _summaries(row.stage, store)):
        columns["params"] = next((each["encoder_parameters"] for each in behind if "encoder_parameters" in each), "")
        trained = (sum(each.get("trained_parameters", {}).values()) for each in behind)
        line("trained_parameters", "in all", sum(trained), 1)
    numbers, items = results.gather(store.path(row.stage), **columns)
    start = _start(row)
    if isinstance(start, Pretrain):
        summary = json.loads((store.path(start) / "pretrain.json").read_text())
        for name in scores.MASKED:
            if name in summary:
                line(name, f"mask {start.mask_ratio:g}, held-out recordings", summary[name],
                     summary["held_out_windows"])
    if lines:
        numbers = pd.concat([numbers, pd.DataFrame([each | columns for each in lines])])
    return numbers, items


def _summaries(score: Scored, store: Store) -> list[dict[str, Any]]:
    """Returns the summaries of a row's trainings: finetune.json, or a system's summary.json."""
    paths = [store.path(stage) / ("finetune.json" if isinstance(stage, Finetune) else "summary.json")
             for stage in trainings(score)]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def _tested_items(row: Row) -> Items:
    assert isinstance(row.stage, (Scored, Readout))
    return row.stage.test if isinstance(row.stage, Readout) else row.stage.items


_leaks: dict[str, str] = {}


def _start(row: Row) -> Any:
    """Returns the stage that the row's fine-tuning started from; None without fine-tuning."""
    made = scored_stage(row.stage) if isinstance(row.stage, Scored) else None
    return getattr(getattr(made, "model", None), "start", None)


def _leak(row: Row, store: Store) -> str:
    """Returns the audit's verdict on a row's trials and on its training: "no", or "yes: ..."."""
    start = _start(row)
    corpus = start.corpus if isinstance(start, Pretrain) and isinstance(start.corpus.world, Shards) else None
    verdict = leak_of(_tested_items(row).trials, store, corpus)
    if isinstance(row.stage, Scored) and (trained := audit.trained_on(row.stage)):
        return f"{verdict}; {trained}" if verdict.startswith("yes") else f"yes: {trained}"
    return verdict


def leak_of(trials: Trials, store: Store, corpus: Corpus | None = None) -> str:
    """Returns the known leak of a prepared data set, or the audit's verdict on the trials: "no", or "yes: ..."."""
    path = store.path(trials)
    name = path.name + (corpus.key if corpus else "")
    if name not in _leaks:
        known = prepared.describe_leak(trials.world, trials.split) if isinstance(trials.world, Prepared) else "no"
        windows = read_first_channels(store.path(corpus)) if corpus else None
        _leaks[name] = audit.read(path, windows, known, audit.claimed(trials)).verdict
    return _leaks[name]


def _versions(stage: Stage, store: Store) -> str:
    """Returns the versions that a stage was built with: "torch 2.15.0, ..."."""
    packages = store.manifest(stage)["packages"]
    return ", ".join(f"{name} {packages[name]}" for name in ("torch", "diffusers", "open_clip_torch", "timm"))


def describe_run(row: Row, store: Store) -> dict[str, object]:
    """Returns what differs from run to run: date, host, seconds, memory and energy (columns results.RUNS)."""
    def seconds(some: Iterable[Stage]) -> float:
        return round(sum(store.manifest(stage)["wall_s"] for stage in some if store.has(stage)), 1)

    pictures = row.stage.pictures if isinstance(row.stage, Score) else None
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "variant": row.variant, "seed": row.seed,
            "items": row.items, "stage": row.stage.key[:16], "seconds": seconds(stages([row.stage])),
            "training_s": seconds(trainings(row.stage)) if isinstance(row.stage, Scored) else "",
            "sampling_s": seconds([pictures]) if pictures else "", "host": socket.gethostname(),
            "commit": provenance.commit(), **sum_resources(row.stage, store)}


def sum_resources(stage: Stage, store: Store) -> dict[str, object]:
    """Returns the largest peak memory (GB) of the stored stages behind a row, and their energy (kWh) and CO2 (kg).

    A value is "" if one of these stages has no measurement.
    """
    measured = [store.manifest(each).get("measured", {}) for each in stages([stage]) if store.has(each)]

    def all_of(name: str) -> list[float]:
        values = [each.get(name) for each in measured]
        return [] if None in values else values  # type: ignore[return-value]

    cuda = [each["peak_cuda_bytes"] for each in measured if "peak_cuda_bytes" in each]  # not every stage uses a GPU
    return {"peak_rss_gb": round(max(all_of("peak_rss_bytes"), default=0) / 1e9, 3) or "",
            "peak_cuda_gb": round(max(cuda, default=0) / 1e9, 3) or "",
            "energy_kwh": sum(all_of("energy_kwh")) or "", "co2_kg": sum(all_of("co2_kg")) or ""}
