"""Pictures that no generator made: what a metric gives for them says what it can tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.errors import BenchError
from bench.experiment.stages import Stage, Trivial, training
from bench.images import as_images
from bench.runtime import Runtime
from bench.train.generate import in_batches
from bench.train.items import load
from bench.train.loop import frozen_dtype, precision
from bench.train.targets import PIXELS
from models import frozen

BATCH = 100


def trivial(stage: Trivial, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, and item.npy [N]."""
    test, train = (load(items, inputs(items.trials)) for items in (stage.items, training(stage.items)))
    if stage.source == "random":
        rows = [[np.random.default_rng([stage.seed, int(item), sample]).integers(len(train.item))
                 for sample in range(stage.samples)] for item in test.item]
        drawn = train.pictures[np.array(rows)]
    elif stage.source == "class_mean":
        if unseen := sorted(set(test.label) - set(train.label)):
            raise BenchError(f"no training picture of class {test.names[unseen[0]]!r}, of which a mean is asked for")
        means = {label: train.pictures[train.label == label].mean(0).round().astype(np.uint8)
                 for label in np.unique(train.label)}
        drawn = _repeated(np.stack([means[label] for label in test.label]), stage.samples)
    elif stage.source == "vae":
        autocast, dtype = precision(stage.numerics, runtime.device), frozen_dtype(stage.numerics, runtime.device)
        vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype).to(runtime.device)

        @torch.inference_mode()
        def rebuilt(rows: torch.Tensor) -> torch.Tensor:
            with autocast():
                decoded = vae.decode(vae.encode(as_images(test.pictures[rows.numpy()], runtime.device))).float()
            return ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()

        _, height, width, _ = test.pictures.shape
        batch = min(BATCH, max(1, PIXELS // (height * width)))
        drawn = _repeated(in_batches(rebuilt, torch.arange(len(test.item)), batch).numpy(), stage.samples)
    else:
        raise BenchError(f"no trivial source of pictures {stage.source!r}; there are: random, class_mean, vae")
    np.save(out / "pictures.npy", drawn)
    np.save(out / "item.npy", test.item)


def _repeated(pictures: np.ndarray, samples: int) -> np.ndarray:
    return np.repeat(pictures[:, None], samples, 1)
