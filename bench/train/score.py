"""Scores images, or the retrieval of images from EEG: metrics.csv, and items.csv.gz with a row for each item."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bench.data.features import ENDINGS
from bench.data.prepared import open_dataset
from bench.errors import BenchError
from bench.experiment.stages import Features, Prepared, Retrieval, Score, Targets
from bench.runtime import Runtime
from bench.scoring import schema
from bench.scoring.identity import identify_images
from bench.scoring.measure import Classes, Pairs, measure
from bench.scoring.neighbours import SPACES
from bench.scoring.networks import Networks, load_judge, weights_present
from bench.scoring.retrieval import score_retrieval
from bench.train import Inputs
from bench.train.items import Loaded, load_items
from models import extractors, pins

LITERATURE = "ViT-H-14"  # published features of the CLIP in whose space the literature retrieves


def score(stage: Score, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes metrics.csv (schema.METRICS), the means, and items.csv.gz, the values of each item and sample.

    The target of an accuracy is the label (`_label`) or the judge's class of the real image (`_judge`, as in the paper,
    Sec. 4.3). Retrieval is measured if the images' folder contains the EEG's embedding. FID and related metrics use the
    judge's features and the stage's reference, or, if Inception-v3 is among the stage's networks, its features and the
    items' real images. Memorisation is measured against the stage's training images. Raises BenchError if images do not
    fit the items or weights are missing.
    """
    items = load_items(replace(stage.items, eeg="real"), inputs)  # no metric uses the EEG
    folder = inputs(stage.pictures)
    images = _open_images(folder, items)
    reference, hard = (np.load(inputs(stage.reference) / f"{name}.npy") for name in ("features", "hard"))
    networks = _load_networks(stage, runtime.device)
    label = items.judge_label if (items.judge_label >= 0).all() else None  # -1: unknown to the judge
    pairs = Pairs(items.item, items.subject, items.picture, label, images.shape[1],
                  lambda row: items.pictures[row], lambda row, sample: images[row, sample])
    measured = measure(pairs, networks, Classes(stage.nway, stage.fixed, hard),
                       reference=reference if networks.sets is networks.judge else None,
                       embedding=_load_embedding(folder, items), device=runtime.device, progress=runtime.progress,
                       training=_load_training(stage, inputs), note=runtime.note)
    (out / "metrics.csv").write_bytes(schema.csv_bytes(measured.summary))
    (out / "items.csv.gz").write_bytes(schema.gzipped(schema.csv_bytes(measured.rows)))


def retrieval(stage: Retrieval, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes metrics.csv (schema.METRICS) and items.csv.gz.
    `label` is the class, `retrieved` the image nearest to an item's EEG, -1 for a tie. The literature retrieves in the
    space of CLIP ViT-H/14; numbers of another CLIP are not comparable. Raises BenchError for embeddings that do not
    fit the items or the targets."""
    items = load_items(replace(stage.items, eeg="real"), inputs)  # no metric uses the EEG
    folder = inputs(stage.embedding)
    if not np.array_equal(np.load(folder / "item.npy"), items.item):
        raise BenchError(f"{folder} does not contain the {len(items.item)} items in their order; run its stage again")
    queries = _load_embedding(folder, items)
    if queries is None:
        raise BenchError(f"no embeddings for retrieval: {folder / 'embedding.npy'} does not exist")
    shown = np.load(inputs(stage.targets) / "embeddings.npy", mmap_mode="r")[items.picture]
    if shown.shape[1] != queries.shape[1]:
        raise BenchError(f"{folder / 'embedding.npy'} has {queries.shape[1]} dimensions, the images' embeddings have "
                         f"{shown.shape[1]}; use embeddings of the same CLIP")
    with threadpool_limits(1):
        picture = identify_images(items.picture, lambda row: items.pictures[row])
        results = score_retrieval(picture, shown, queries, stage.ways)
    rows = pd.DataFrame({"item": items.item, "sample": 0, "subject": items.subject, "picture": items.picture,
                         "label": items.label, **{name: values for name, (_, values) in results.items()}})
    extractor = _identify_clip(stage.targets)
    summary = pd.DataFrame([(name, key, values.mean(), len(items.item), *extractor)
                            for name, (key, values) in results.items() if key],
                           columns=list(schema.METRICS)).sort_values("metric", ignore_index=True)
    (out / "metrics.csv").write_bytes(schema.csv_bytes(summary))
    (out / "items.csv.gz").write_bytes(schema.gzipped(schema.csv_bytes(rows)))
    runtime.progress(1, 1)


def _identify_clip(targets: Targets | Features) -> tuple[str, str, int]:
    """Returns name and hash of the CLIP whose space is used, and 1 if it is the literature's, else 0. Of published
    features: the name of their model, and the hash of the file with the test images."""
    if isinstance(targets, Targets):
        return targets.clip.name, targets.clip.sha256, int(targets.clip.sha256 == pins.PARTS["clip_h"].identity)
    assert isinstance(targets.trials.world, Prepared)  # bench.train.targets.features built them
    _, manifest = open_dataset(targets.trials.world)
    model = manifest["options"]["features"]
    return (f"published features of {model}", manifest["sources"][model + ENDINGS["test"]]["sha256"],
            int(model == LITERATURE))


def _load_networks(stage: Score, device: str) -> Networks:
    """Loads the judge, CLIP and the literature's networks of the stage."""
    chosen = {weights.name: weights for weights in stage.networks}
    if unknown := set(chosen) - {*extractors.NETWORKS, "lpips"}:
        raise BenchError(f"unknown network {sorted(unknown)[0]!r} for metrics; available: "
                         f"{', '.join((*extractors.NETWORKS, 'lpips'))}")
    judge = load_judge(stage.reference.judge, device)
    with weights_present():
        clip = extractors.clip(stage.clip.path, stage.clip.sha256, stage.clip.name, device)
        others = {name: extractors.NETWORKS[name](device, weights.path) for name, weights in chosen.items()
                  if name != "lpips"}
        lpips = extractors.perceptual("alex", device, chosen["lpips"].path) if "lpips" in chosen else None
    return Networks(judge, others.pop("inception", judge), [clip, *others.values()], lpips)


def _load_training(stage: Score, inputs: Inputs) -> dict[str, np.ndarray] | None:
    """Loads the features of the training images: space -> [M, D]; None if the stage has no training images."""
    if stage.training is None:
        return None
    folder = inputs(stage.training)
    return {space: np.load(folder / f"{space}.npy", mmap_mode="r") for space in SPACES}


def _open_images(folder: Path, items: Loaded) -> np.ndarray:
    """Opens the folder's images [N, samples, H, W, 3]. Raises BenchError if they are not those of the items."""
    path = folder / "pictures.npy"
    if not path.is_file():
        raise BenchError(f"no images to score: {path} does not exist")
    images, item = np.load(path, mmap_mode="r"), np.load(folder / "item.npy")
    if not np.array_equal(item, items.item):
        missing = np.setdiff1d(items.item, item)
        raise BenchError(f"{path} does not contain the {len(items.item)} items in their order: {len(missing)} are "
                         "missing" + (f", the first is item {missing[0]}" if len(missing) else ""))
    expected = (len(items.item), *items.pictures.shape[1:])
    if images.ndim != 5 or not images.shape[1] or images.dtype != np.uint8 or (
            images.shape[:1] + images.shape[2:] != expected):
        raise BenchError(f"{path} is {list(images.shape)} {images.dtype}; expected uint8 [items, samples, H, W, 3] "
                         f"with {expected[0]} items of {expected[1]}x{expected[2]}")
    return images


def _load_embedding(folder: Path, items: Loaded) -> np.ndarray | None:
    """Loads the EEG's embeddings [N, D'] of a folder; None if there are none. Raises BenchError if they do not fit."""
    path = folder / "embedding.npy"
    if not path.is_file():
        return None
    embedding = np.load(path)
    if embedding.ndim != 2 or len(embedding) != len(items.item) or not np.isfinite(embedding).all():
        raise BenchError(f"{path} is {list(embedding.shape)} {embedding.dtype}; expected [items, D'] finite numbers "
                         f"with {len(items.item)} items")
    return embedding
