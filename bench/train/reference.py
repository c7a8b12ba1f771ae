"""What real pictures look like to the judge: the reference of FID, once for the whole suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.data.pictures import SHOWN, draw_scenes, render, stream
from bench.runtime import Runtime
from bench.stages import Reference, Stage
from bench.train.targets import as_images
from models import frozen

BATCH = 100


@torch.inference_mode()
def reference(stage: Reference, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes features.npy [M, F] float32: the judge's features of M fresh pictures of the shown classes.

    No picture of the reference is among the paired ones or among those that trained a frozen part.
    """
    pictures = render(draw_scenes(stage.pictures, SHOWN, stream("reference", stage.world.seed)))
    judge = frozen.load_judge(stage.judge.path, stage.judge.sha256).to(runtime.device)
    batches = []
    for start in range(0, len(pictures), BATCH):
        rows = np.arange(start, start + BATCH) % len(pictures)
        batches.append(judge.features(as_images(pictures[rows], runtime.device)).float().cpu().numpy())
        runtime.progress(min(start + BATCH, len(pictures)), len(pictures))
    np.save(out / "features.npy", np.concatenate(batches)[: len(pictures)])
