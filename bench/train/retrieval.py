"""Scores the retrieval of pictures from EEG: metrics.csv, and items.csv.gz with a row for each item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bench.errors import BenchError
from bench.experiment.stages import Retrieval, Stage
from bench.runtime import Runtime
from bench.scoring import schema
from bench.scoring.measure import retrieved
from bench.train.items import Loaded, load
from models import pins


def retrieval(stage: Retrieval, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes metrics.csv (schema.METRICS) and items.csv.gz; `label` is the class, `retrieved` the picture that an
    item's EEG is nearest to, -1 where two are.

    The literature retrieves in the space of CLIP ViT-H/14: with another the numbers do not compare. Raises BenchError
    for embeddings that do not fit the items or the targets.
    """
    items = load(replace(stage.items, eeg="real"), inputs(stage.items.trials))  # no metric looks at the EEG
    folder = inputs(stage.embedding)
    if not np.array_equal(np.load(folder / "item.npy"), items.item):
        raise BenchError(f"{folder} does not hold the {len(items.item)} items in their order")
    queries = embedding(folder, items)
    if queries is None:
        raise BenchError(f"no embeddings to retrieve by: {folder / 'embedding.npy'} is not there")
    shown = np.load(inputs(stage.targets) / "embeddings.npy", mmap_mode="r")[items.picture]
    if shown.shape[1] != queries.shape[1]:
        raise BenchError(f"{folder / 'embedding.npy'} has {queries.shape[1]} dimensions, the pictures' embeddings have "
                         f"{shown.shape[1]}: they are of another CLIP")
    with threadpool_limits(1):
        found = retrieved(items.picture, shown, queries, stage.ways)
    rows = pd.DataFrame({"item": items.item, "sample": 0, "subject": items.subject, "picture": items.picture,
                         "label": items.label, **{name: values for name, (_, values) in found.items()}})
    clip = stage.targets.clip
    of = clip.name, clip.sha256, int(clip.sha256 == pins.PARTS["clip_h"].identity)
    summary = pd.DataFrame([(name, key, values.mean(), len(items.item), *of) for name, (key, values) in found.items()
                            if key], columns=list(schema.METRICS)).sort_values("metric", ignore_index=True)
    (out / "metrics.csv").write_bytes(schema.csv_bytes(summary))
    (out / "items.csv.gz").write_bytes(schema.gzipped(schema.csv_bytes(rows)))
    runtime.progress(1, 1)


def embedding(folder: Path, items: Loaded) -> np.ndarray | None:
    """The EEG's embeddings [N, D'] in a folder, None where the system has none. Raises BenchError for others."""
    path = folder / "embedding.npy"
    if not path.is_file():
        return None
    found = np.load(path)
    if found.ndim != 2 or len(found) != len(items.item) or not np.isfinite(found).all():
        raise BenchError(f"{path} is {list(found.shape)} {found.dtype}; expected [items, D'] finite numbers with "
                         f"{len(items.item)} items")
    return found
