"""Builds what all scores of the suite share: features of real images for FID, hard distractors, and features of the
training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench import metrics
from bench.data.pictures import SHOWN, draw_scenes, render, stream
from bench.data.prepared import open_dataset, read_classes, read_trials
from bench.errors import BenchError
from bench.experiment.stages import Prepared, Reference, TrainFeatures
from bench.runtime import MicroBatches, Runtime
from bench.scoring import measure
from bench.scoring.neighbours import extract_features, look
from bench.scoring.networks import Networks, fit_image, load_judge, weights_present
from bench.train import Inputs
from models import extractors

BATCH = 100


@torch.inference_mode()
def reference(stage: Reference, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes features.npy [M, F] float32 and hard.npy [K, K - 1].
    features.npy: the judge's features of M images of the shown classes, which are neither paired with EEG nor were
    used to train a frozen part; of a prepared data set `training_pictures`, resized to the judge's side. hard.npy: for
    each class the other classes, the most easily confused by the judge first; -1 for a class that is not shown."""
    if isinstance(stage.world, Prepared):
        images, chosen, labels = training_pictures(stage.world, stage.pictures)
    else:
        scenes = draw_scenes(stage.pictures, SHOWN, stream("reference", stage.world.seed))
        images, chosen, labels = render(scenes), np.arange(stage.pictures), scenes.label
    judge, parts = load_judge(stage.judge, runtime.device), MicroBatches(runtime.device, runtime.note)
    features: list[np.ndarray] = []
    logits: list[np.ndarray] = []
    for start in range(0, len(chosen), BATCH):
        rows = chosen[np.arange(start, start + BATCH) % len(chosen)]
        seen = look(judge, np.stack([fit_image(judge, images[row]) for row in rows]), runtime.device, parts).vectors
        logits.append(seen["logits"].float().cpu().numpy())
        features.append(seen["features"].float().cpu().numpy())
        runtime.progress(min(start + BATCH, len(chosen)), len(chosen))
    np.save(out / "features.npy", np.concatenate(features)[: len(chosen)])
    scores, known = np.concatenate(logits)[: len(chosen)], labels >= 0
    classes = scores.shape[1]
    if (labels >= classes).any():
        raise BenchError(f"the data set has the judge's class {labels.max()}; {stage.judge.name} has {classes} classes")
    hard = metrics.hard_distractors(scores[known], labels[known], classes) if known.any() else np.full(
        (classes, classes - 1), -1)
    np.save(out / "hard.npy", hard)


def train_features(stage: TrainFeatures, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes picture.npy [M] int64, the rows of the training images in the trials' pictures.npy, ascending, and the
    features of these by the judge and by CLIP: judge.npy [M, D] and clip.npy [M, D'] float32. M is 0 if every training
    image is also in another part, as where some subjects are tested on the images that others train on."""
    folder = inputs(stage.trials)
    trials = read_trials(folder)
    others = trials.loc[trials["part"] != "train", "picture"]
    picture = np.setdiff1d(trials.loc[trials["part"] == "train", "picture"].to_numpy(np.int64), others.to_numpy())
    images = np.load(folder / "pictures.npy", mmap_mode="r", allow_pickle=False)
    judge = load_judge(stage.judge, runtime.device)
    with weights_present():
        clip = extractors.clip(stage.clip.path, stage.clip.sha256, stage.clip.name, runtime.device)
    features = extract_features(Networks(judge, others=[clip]), len(picture), lambda row: images[picture[row]],
                                measure.BATCH, runtime.device, runtime.progress, runtime.note)
    np.save(out / "picture.npy", picture)
    for space, values in features.items():
        np.save(out / f"{space}.npy", values)


def training_pictures(world: Prepared, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A data set's images [P, H, W, 3], the rows [M] of the reference, and their classes by the judge's numbers.
    The reference's images are in part train of the split by item and in part test of no split, for any subject; rows
    are unique, ascending, and at most `most`, evenly spread. Class -1 is unknown to the judge. Raises BenchError if
    there are none."""
    folder, _ = open_dataset(world)
    trials = read_trials(folder)
    judge = read_classes(folder).set_index("label")["judge"]
    splits = [name for name in trials if name.startswith("part_")]
    tested = set(trials["picture"][(trials[splits] == "test").any(axis=1)])
    used = trials[(trials["part_item"] == "train") & ~trials["picture"].isin(tested)]
    used = used.drop_duplicates("picture").sort_values("picture")
    if not len(used):
        raise BenchError(f"{folder}: no image is in part train of the split by item and in part test of no split")
    if len(used) > most:
        used = used.iloc[np.arange(most) * len(used) // most]
    images = np.load(folder / "pictures.npy", mmap_mode="r", allow_pickle=False)
    return images, used["picture"].to_numpy(np.int64), judge.loc[used["label"]].to_numpy(np.int64)
