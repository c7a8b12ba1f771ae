"""Scores a folder of pictures: metrics.csv, and items.csv.gz with a row for each item and sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.experiment.stages import Score, Stage
from bench.runtime import Runtime
from bench.scoring import schema
from bench.scoring.measure import Classes, Pairs, measure
from bench.scoring.networks import Networks, weights_present
from bench.train.items import Loaded, load
from bench.train.retrieval import embedding
from models import extractors


def score(stage: Score, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes metrics.csv (schema.METRICS) and items.csv.gz, which hold the same numbers summed up and singly.

    Accuracies are against the label (`_label`) and against the judge's opinion of the real picture (`_judge`, as the
    paper's, Sec. 4.3). Retrieval is there where the pictures' folder holds the EEG's embedding. FID and its like are of
    the judge and against the stage's reference; of Inception-v3, where that is among the stage's networks, and then
    against the items' own pictures. Raises BenchError where pictures do not fit the items or weights are not there.
    """
    items = load(replace(stage.items, eeg="real"), inputs(stage.items.trials))  # no metric looks at the EEG
    folder = inputs(stage.pictures)
    pictures = _pictures(folder, items)
    reference, hard = (np.load(inputs(stage.reference) / f"{name}.npy") for name in ("features", "hard"))
    networks = _networks(stage, runtime.device)
    label = items.judge_label if (items.judge_label >= 0).all() else None  # -1: a class that the judge does not know
    pairs = Pairs(items.item, items.subject, items.picture, label, pictures.shape[1],
                  lambda row: items.pictures[row], lambda row, sample: pictures[row, sample])
    measured = measure(pairs, networks, Classes(stage.nway, stage.fixed, hard),
                       reference=reference if networks.sets is networks.judge else None,
                       embedding=embedding(folder, items), device=runtime.device, progress=runtime.progress)
    (out / "metrics.csv").write_bytes(schema.csv_bytes(measured.summary))
    (out / "items.csv.gz").write_bytes(schema.gzipped(schema.csv_bytes(measured.rows)))


def _networks(stage: Score, device: str) -> Networks:
    """The judge, CLIP and the literature's networks that the stage names, each from its own file."""
    judge, chosen = stage.reference.judge, {weights.name: weights for weights in stage.networks}
    if unknown := set(chosen) - {*extractors.NETWORKS, "lpips"}:
        raise BenchError(f"no network {sorted(unknown)[0]!r} to measure with; there are: "
                         f"{', '.join((*extractors.NETWORKS, 'lpips'))}")
    with weights_present():
        own = extractors.judge(judge.path, judge.sha256, judge.name, device)
        clip = extractors.clip(stage.clip.path, stage.clip.sha256, stage.clip.name, device)
        made = {name: extractors.NETWORKS[name](device, weights.path) for name, weights in chosen.items()
                if name != "lpips"}
        lpips = extractors.perceptual("alex", device, chosen["lpips"].path) if "lpips" in chosen else None
    return Networks(own, made.pop("inception", own), [clip, *made.values()], lpips)


def _pictures(folder: Path, items: Loaded) -> np.ndarray:
    """The folder's pictures [N, samples, H, W, 3], one row for each item and no other."""
    path = folder / "pictures.npy"
    if not path.is_file():
        raise BenchError(f"no pictures to score: {path} is not there")
    pictures, item = np.load(path, mmap_mode="r"), np.load(folder / "item.npy")
    if not np.array_equal(item, items.item):
        missing = np.setdiff1d(items.item, item)
        raise BenchError(f"{path} does not hold the {len(items.item)} items in their order: {len(missing)} are missing"
                         + (f", the first is item {missing[0]}" if len(missing) else ""))
    expected = (len(items.item), *items.pictures.shape[1:])
    if pictures.ndim != 5 or not pictures.shape[1] or pictures.dtype != np.uint8 or (
            pictures.shape[:1] + pictures.shape[2:] != expected):
        raise BenchError(f"{path} is {list(pictures.shape)} {pictures.dtype}; expected uint8 [items, samples, H, W, 3] "
                         f"with {expected[0]} items of {expected[1]}x{expected[2]}")
    return pictures
