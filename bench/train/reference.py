"""What real pictures look like to the judge, once for the whole suite: FID's reference, and hard distractors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench import metrics
from bench.data.pictures import SHOWN, draw_scenes, render, stream
from bench.runtime import Runtime
from bench.stages import Reference, Stage
from bench.train.targets import as_images
from models import frozen

BATCH = 100


@torch.inference_mode()
def reference(stage: Reference, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes features.npy [M, F] float32: the judge's features of M fresh pictures of the shown classes.

    hard.npy [K, K - 1]: the other classes that the judge takes those of each class for most easily, the hardest first;
    -1 for a class that is not shown. No picture of the reference is among the paired ones or among those that trained a
    frozen part.
    """
    scenes = draw_scenes(stage.pictures, SHOWN, stream("reference", stage.world.seed))
    pictures = render(scenes)
    judge = frozen.load_judge(stage.judge.path, stage.judge.sha256).to(runtime.device)
    features, logits = [], []
    for start in range(0, len(pictures), BATCH):
        rows = np.arange(start, start + BATCH) % len(pictures)
        images = as_images(pictures[rows], runtime.device)
        found = judge.features(images)
        features.append(found.float().cpu().numpy())
        logits.append(judge.net.get_classifier()(found).float().cpu().numpy())
        runtime.progress(min(start + BATCH, len(pictures)), len(pictures))
    np.save(out / "features.npy", np.concatenate(features)[: len(pictures)])
    seen = np.concatenate(logits)[: len(pictures)]
    np.save(out / "hard.npy", metrics.hard_distractors(seen, scenes.label, seen.shape[1]))
