"""Perceptogram: images from the embeddings and latents that ridge regressions predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.errors import BenchError
from bench.runtime import Runtime
from bench.systems.linear import Ridge
from bench.systems.perceptogram import EmbeddedPictures
from bench.train import Inputs
from bench.train.generate import decode, in_batches, initial_noise, resize_images, write_images
from bench.train.guided import encode_prompts, open_generator
from bench.train.items import load_items
from bench.train.linear import Predictor
from bench.train.loop import precision
from models import adapter, frozen


def generate_images(stage: EmbeddedPictures, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy and item.npy (`write_images`) and embedding.npy [N, D'], the predictions.

    The adapter gets predictions scaled to unit length, as CLIP's targets are, and the empty prompt.
    """
    sampling, device = stage.sampling, runtime.device
    autocast = precision(stage.numerics, device)
    items = load_items(stage.items, inputs, stage.embedding.factors.embeddings)
    eeg = torch.from_numpy(items.eeg)
    pipe, vae = open_generator(stage, False, device)

    def predict(ridge: Ridge) -> Tensor:
        predictor = Predictor(inputs(ridge.factors), inputs(ridge), stage.restandardise, device)
        return in_batches(predictor, eeg, sampling.batch, runtime).clone()

    with torch.inference_mode():
        embeddings = predict(stage.embedding)
        latents = predict(stage.latent).cpu() if stage.latent else None
        with autocast():
            prompts = encode_prompts(stage, pipe, [""] * (len(eeg) * stage.samples), runtime)
    shape = frozen.latent_shape(pipe.unet)
    if latents is not None and latents.shape[1:] != shape:
        raise BenchError(f"perceptogram: the VAE's latents are {list(latents.shape[1:])}, the U-Net's are "
                         f"{list(shape)}; prepare the data set with images of another size")
    noise = initial_noise(items.item, stage.samples, stage.seed, shape)
    if latents is not None:
        noise = noise + stage.gain * latents.repeat_interleave(stage.samples, 0)
    directions = normalize(embeddings, dim=1)

    def sample(rows: Tensor) -> Tensor:
        drawn = adapter.draw(pipe, directions[rows // stage.samples], noise=noise[rows].to(device),
                             steps=sampling.steps, guidance=sampling.guidance, **prompts(rows))
        return (resize_images(decode(vae, drawn), items.pictures.shape[1:3]).clamp(-1, 1) + 1) * 127.5

    write_images(out, items, stage.samples, sampling.batch, sample, runtime, autocast)
    if stage.vae:  # otherwise the target is a CLIP in which nothing is scored
        np.save(out / "embedding.npy", embeddings.cpu().numpy())
