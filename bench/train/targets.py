"""What fine-tuning aims at, computed once for every paired picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.runtime import Runtime
from bench.stages import Stage, Targets
from models import frozen

BATCH = 100


def as_images(pictures: np.ndarray, device: str) -> torch.Tensor:
    """[N, H, W, 3] uint8 -> [N, 3, H, W] float32 in [-1, 1]."""
    return torch.tensor(np.asarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def targets(stage: Targets, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes embeddings.npy [N, D] (unit norm, Eq. 3), mean.npy and std.npy [N, 8, h, w] of the VAE's posterior."""
    pictures = np.load(inputs(stage.trials) / "pictures.npy", mmap_mode="r")
    clip = frozen.load_clip(stage.clip.path, stage.clip.sha256).to(runtime.device)
    vae = frozen.load_vae(stage.vae.path, stage.vae.sha256).to(runtime.device)
    embeddings, means, stds = [], [], []
    for start in range(0, len(pictures), BATCH):
        images = as_images(pictures[start:start + BATCH], runtime.device)
        mean, logvar = vae.moments(images)
        embeddings.append(clip.embed_image(images).cpu())
        means.append(mean.cpu())
        stds.append(torch.exp(0.5 * logvar).cpu())
        runtime.progress(start + len(images), len(pictures))
    for name, parts in (("embeddings", embeddings), ("mean", means), ("std", stds)):
        np.save(out / f"{name}.npy", torch.cat(parts).numpy())
