"""Generates the images of DreamDiffusion's released checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.errors import ENVIRONMENT, BenchError
from bench.files import sha256
from bench.runtime import Runtime
from bench.systems.released import ReleasedPictures
from bench.train import Inputs
from bench.train.generate import decode, in_batches, initial_noise, resize_images, write_images
from bench.train.items import load_items
from bench.train.loop import frozen_dtype, precision
from models import frozen
from models.released import Condition


def generate_images(stage: ReleasedPictures, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy and item.npy (`write_images`), and embedding.npy [N, D'] if the checkpoint has h. Images get
    the size of the items'. Raises BenchError (exit 3) for a changed noise schedule."""
    sampling, device = stage.sampling, runtime.device
    autocast, dtype = precision(stage.numerics, device), frozen_dtype(stage.numerics, device)
    file = Path(stage.unet.path).parent / "scheduler" / frozen.SCHEDULE
    if not file.is_file() or sha256(file) != stage.schedule:
        raise BenchError(f"{file} is missing or changed; remove its folder and import the checkpoint again",
                         ENVIRONMENT)
    items = load_items(stage.items, inputs)
    condition = frozen.load_part(Condition, stage.condition.path, stage.condition.sha256, torch.float32).to(device)
    unet = frozen.load_unet(stage.unet.path, stage.unet.sha256, dtype).to(device)
    vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype).to(device)
    if condition.time is not None:
        condition.time.attach(unet)

    # Conditions
    eeg = torch.from_numpy(items.eeg)
    with torch.inference_mode(), autocast():
        context = in_batches(lambda eeg: condition(eeg.to(device))[0].float(), eeg, sampling.batch, runtime)
        if condition.head is not None:
            embedding = in_batches(lambda eeg: condition(eeg.to(device))[1].float(), eeg, sampling.batch, runtime)
            np.save(out / "embedding.npy", embedding.cpu().numpy())

    # Images
    schedule = frozen.noise_schedule(stage.unet.path)
    noise = initial_noise(items.item, sampling.samples, stage.seed, frozen.latent_shape(unet))

    def sample(rows: Tensor) -> Tensor:
        latents = frozen.sample(unet, context[rows // sampling.samples], context[:1], noise[rows].to(device),
                                sampling.steps, sampling.guidance, sampling.sampler, schedule)
        return (resize_images(decode(vae, latents), items.pictures.shape[1:3]).clamp(-1, 1) + 1) * 127.5

    write_images(out, items, sampling.samples, sampling.batch, sample, runtime, autocast)
