"""What real pictures look like to the judge, once for the whole suite: FID's reference, and hard distractors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench import metrics
from bench.data.pictures import SHOWN, draw_scenes, render, stream
from bench.data.prepared import opened
from bench.errors import BenchError
from bench.experiment.stages import Prepared, Reference, Stage
from bench.images import as_images, resize
from bench.runtime import Runtime
from models import frozen

BATCH = 100


@torch.inference_mode()
def reference(stage: Reference, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes features.npy [M, F] float32: the judge's features of M fresh pictures of the shown classes.

    hard.npy [K, K - 1]: the other classes that the judge takes those of each class for most easily, the hardest first;
    -1 for a class that is not shown. No picture of the reference is among the paired ones or among those that trained a
    frozen part. Of a prepared data set: `training_pictures`, resized to the judge's side.
    """
    if isinstance(stage.world, Prepared):
        pictures, chosen, labels = training_pictures(stage.world, stage.pictures)
    else:
        scenes = draw_scenes(stage.pictures, SHOWN, stream("reference", stage.world.seed))
        pictures, chosen, labels = render(scenes), np.arange(stage.pictures), scenes.label
    judge = frozen.load_judge(stage.judge.path, stage.judge.sha256).to(runtime.device)
    side = (judge.size, judge.size)
    features, logits = [], []
    for start in range(0, len(chosen), BATCH):
        rows = chosen[np.arange(start, start + BATCH) % len(chosen)]
        images = as_images(np.stack([resize(pictures[row], side) for row in rows]), runtime.device)
        found = judge.features(images)
        features.append(found.float().cpu().numpy())
        logits.append(judge.net.get_classifier()(found).float().cpu().numpy())
        runtime.progress(min(start + BATCH, len(chosen)), len(chosen))
    np.save(out / "features.npy", np.concatenate(features)[: len(chosen)])
    seen, known = np.concatenate(logits)[: len(chosen)], labels >= 0
    classes = seen.shape[1]
    if (labels >= classes).any():
        raise BenchError(f"the data set has class {labels.max()} by the judge's numbers; {stage.judge.name} knows "
                         f"{classes} classes")
    hard = metrics.hard_distractors(seen[known], labels[known], classes) if known.any() else np.full(
        (classes, classes - 1), -1)
    np.save(out / "hard.npy", hard)


def training_pictures(world: Prepared, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A data set's pictures [P, H, W, 3], the rows [M] of the reference, and their classes by the judge's numbers.

    Those that the split by item trains on and no split tests on, of any subject, each once; ascending, at most `most`,
    evenly spread. Class -1: one that the judge does not know. Raises BenchError where there are none.
    """
    folder, _ = opened(world)
    trials = pd.read_csv(folder / "trials.csv", keep_default_na=False)
    judge = pd.read_csv(folder / "classes.csv").set_index("label")["judge"]
    splits = [name for name in trials if name.startswith("part_")]
    tested = set(trials["picture"][(trials[splits] == "test").any(axis=1)])
    used = trials[(trials["part_item"] == "train") & ~trials["picture"].isin(tested)]
    used = used.drop_duplicates("picture").sort_values("picture")
    if not len(used):
        raise BenchError(f"{folder}: no picture is in part train of the split by item and tested on in no split")
    if len(used) > most:
        used = used.iloc[np.arange(most) * len(used) // most]
    pictures = np.load(folder / "pictures.npy", mmap_mode="r", allow_pickle=False)
    return pictures, used["picture"].to_numpy(np.int64), judge.loc[used["label"]].to_numpy(np.int64)
