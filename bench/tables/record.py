"""What `bench run` does around the building: says what it will do, records rows as they come, prints the table."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from bench.data import prepared
from bench.data.shards import first_channels
from bench.data.tiny_things import TinyThings
from bench.experiment.ablation import Ablation
from bench.experiment.graph import Row, output, stages, trained
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


def about(row: Row, at: Scale, chosen: Ablation) -> dict[str, Any]:
    """What stands in every line of a row, as far as its settings tell."""
    said: dict[str, Any] = {name: "" for name in schema.ABOUT if name != schema.FAILED} | {
        "variant": row.variant, "seed": row.seed, "items": row.items, "scale": at.name,
        "world": _world(row),
        "numerics": f"{at.numerics.device_class}, {at.numerics.dtype}, {at.numerics.threads} thread",
        "config": digest(at), "pretrain_seeds": at.pretrain_seeds, "stage": row.stage.key[:16]}
    if isinstance(row.stage, Score):
        judge = row.stage.reference.judge
        said["judge"] = f"{judge.name}@{judge.sha256[:12]}"
    if not row.beside:
        variant = next(v for v in chosen.variants if v.name == row.variant)
        said |= {"spec": digest(variant), "paper_params": _label(variant, at)}
    return said


def _world(row: Row) -> str:
    """What a row's EEG was recorded of."""
    world = tested(row).trials.world
    if isinstance(world, TinyThings):
        return f"tiny things, seed {world.seed}"
    return f"tiny, seed {world.seed}" if isinstance(world, World) else world.name


def _label(variant: Spec, at: Scale) -> str:
    """The paper's label of an encoder's size; of one whose dimensions the paper does not state, that."""
    label = getattr(variant, "size", "")
    return f"{label} (dimensions inferred)" if label and at.size(label).inferred else label


def gather(row: Row, store: Store, at: Scale, chosen: Ablation) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row's numbers, and those of its items, with what a table must say about them."""
    said = about(row, at, chosen) | {"leaky": leak(row, store), "versions": versions(row.stage, store)}
    lines: list[dict[str, Any]] = []

    def line(metric: str, key: str, value: float, n: int) -> None:
        lines.append({"metric": metric, "key": key, "value": value, "n": n, "extractor": "", "extractor_sha256": "",
                      "comparable": 1, schema.FAILED: ""})

    if isinstance(row.stage, Scored) and (behind := summaries(row.stage, store)):
        said["params"] = next((own["encoder_parameters"] for own in behind.values() if "encoder_parameters" in own), "")
        line("trained_parameters", "in all", sum(sum(own.get("trained_parameters", {}).values())
                                                 for own in behind.values()), 1)
    numbers, each = results.gather(store.path(row.stage), **said)
    start = _start(row)
    if isinstance(start, Pretrain):
        summary = json.loads((store.path(start) / "pretrain.json").read_text())
        for name in scores.MASKED:
            if name in summary:
                line(name, f"mask {start.mask_ratio:g}, held-out recordings", summary[name],
                     summary["held_out_windows"])
    if lines:
        numbers = pd.concat([numbers, pd.DataFrame([each_line | said for each_line in lines])])
    return numbers, each


def summaries(score: Scored, store: Store) -> dict[Stage, dict[str, Any]]:
    """What the trainings behind what a row made say of themselves, in finetune.json or a system's summary.json."""
    found = {}
    for stage in trained(score):
        path = store.path(stage) / ("finetune.json" if isinstance(stage, Finetune) else "summary.json")
        if path.is_file():
            found[stage] = json.loads(path.read_text())
    return found


def tested(row: Row) -> Items:
    """The items that a row is about."""
    assert isinstance(row.stage, (Scored, Readout))
    return row.stage.test if isinstance(row.stage, Readout) else row.stage.items


_leaks: dict[str, str] = {}


def _start(row: Row) -> Any:
    """What the row's fine-tuning began with; None where nothing is fine-tuned."""
    made = output(row.stage) if isinstance(row.stage, Scored) else None
    return getattr(getattr(made, "model", None), "start", None)


def leak(row: Row, store: Store) -> str:
    """The audit's verdict on a row's trials, and on what its system was trained with: "no", or "yes: ..."."""
    start = _start(row)
    corpus = start.corpus if isinstance(start, Pretrain) and isinstance(start.corpus.world, Shards) else None
    verdict = leak_of(tested(row).trials, store, corpus)
    if isinstance(row.stage, Scored) and (own := audit.trained_on(row.stage)):
        return f"{verdict}; {own}" if verdict.startswith("yes") else f"yes: {own}"
    return verdict


def leak_of(trials: Trials, store: Store, corpus: Corpus | None = None) -> str:
    """What is known of a prepared data set, or the audit's verdict on those trials: "no", or "yes: ..."."""
    path = store.path(trials)
    name = path.name + (corpus.key if corpus else "")
    if name not in _leaks:
        known = prepared.leaky(trials.world, trials.split) if isinstance(trials.world, Prepared) else "no"
        windows = first_channels(store.path(corpus)) if corpus else None
        _leaks[name] = audit.read(path, windows, known, audit.claimed(trials)).verdict
    return _leaks[name]


def versions(stage: Stage, store: Store) -> str:
    """"torch 2.15.0, ...": what a stage was built with."""
    packages = store.manifest(stage)["packages"]
    return ", ".join(f"{name} {packages[name]}" for name in ("torch", "diffusers", "open_clip_torch", "timm"))


def note(row: Row, store: Store) -> dict[str, object]:
    """What differs from run to run: when, where and how long."""
    def seconds(those: Iterable[Stage]) -> float:
        return round(sum(store.manifest(stage)["wall_s"] for stage in those if store.has(stage)), 1)

    pictures = row.stage.pictures if isinstance(row.stage, Score) else None
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "variant": row.variant, "seed": row.seed,
            "items": row.items, "stage": row.stage.key[:16], "seconds": seconds(stages([row.stage])),
            "training_s": seconds(trained(row.stage)) if isinstance(row.stage, Scored) else "",
            "sampling_s": seconds([pictures]) if pictures else "", "host": socket.gethostname(),
            "commit": provenance.commit(), **used(row.stage, store)}


def used(stage: Stage, store: Store) -> dict[str, object]:
    """Peak memory (GB) of the largest of the stages that a row is made of, and the energy (kWh) and CO2 (kg) of all;
    "" where one of those that are there has none noted."""
    noted = [store.manifest(one).get("measured", {}) for one in stages([stage]) if store.has(one)]

    def all_of(name: str) -> list[float]:
        found = [one.get(name) for one in noted]
        return [] if None in found else found  # type: ignore[return-value]

    cuda = [one["peak_cuda_bytes"] for one in noted if "peak_cuda_bytes" in one]  # not every stage uses a GPU
    return {"peak_rss_gb": round(max(all_of("peak_rss_bytes"), default=0) / 1e9, 3) or "",
            "peak_cuda_gb": round(max(cuda, default=0) / 1e9, 3) or "",
            "energy_kwh": sum(all_of("energy_kwh")) or "", "co2_kg": sum(all_of("co2_kg")) or ""}
