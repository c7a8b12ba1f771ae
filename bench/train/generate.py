"""Generation: samples images for every item; each item and sample has its own random generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bench.errors import BenchError
from bench.experiment.stages import Captions, Generate, Trivial, training
from bench.files import create_npy
from bench.images import as_images
from bench.runtime import MicroBatches, Runtime
from bench.train import Inputs
from bench.train.finetune import restore
from bench.train.items import Loaded, load_items
from bench.train.loop import frozen_dtype, precision
from bench.train.targets import BATCH, PIXELS
from models import frozen

ALONE = Runtime()  # of a call outside a stage: on a CPU, without a log


def generate(stage: Generate, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy and item.npy (`write_images`), and embedding.npy [N, D'] of a model aligned with CLIP."""
    sampling, device = stage.sampling, runtime.device
    autocast, dtype = precision(stage.numerics, device), frozen_dtype(stage.numerics, device)
    if isinstance(stage.model, Captions):
        items = load_items(stage.items, inputs)
        unet, context, null = _encode_captions(stage.model, items, inputs, runtime, dtype)
    else:
        items = load_items(stage.items, inputs, stage.model.targets)
        model = restore(stage.model, items, inputs, runtime, stage.checkpoint)
        eeg = torch.from_numpy(items.eeg)
        with autocast():
            context = in_batches(lambda eeg: model.context(eeg.to(device)), eeg, sampling.batch, runtime).float()
            if stage.model.align == "clip":
                embedding = in_batches(lambda eeg: model.embedding(eeg.to(device)), eeg, sampling.batch, runtime)
                np.save(out / "embedding.npy", embedding.float().cpu().numpy())
        unet, null = model.unet, model.null_context
    vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype).to(device)
    schedule = frozen.noise_schedule(stage.model.unet.path)
    noise = initial_noise(items.item, sampling.samples, stage.seed, frozen.latent_shape(unet))

    def sample(rows: Tensor) -> Tensor:
        latents = frozen.sample(unet, context[rows // sampling.samples], null, noise[rows].to(device), sampling.steps,
                                sampling.guidance, sampling.sampler, schedule)
        return (decode(vae, latents) + 1) * 127.5

    write_images(out, items, sampling.samples, sampling.batch, sample, runtime, autocast)


def trivial(stage: Trivial, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, and item.npy [N].
    "random": random training images; "class_mean": the mean training image of the class; "vae": the reconstruction."""
    test, train = (load_items(items, inputs) for items in (stage.items, training(stage.items)))
    if stage.source == "random":
        rows = [[np.random.default_rng([stage.seed, int(item), sample]).integers(len(train.item))
                 for sample in range(stage.samples)] for item in test.item]
        images = train.pictures[np.array(rows)]
    elif stage.source == "class_mean":
        if unseen := sorted(set(test.label) - set(train.label)):
            raise BenchError(f"class {test.names[unseen[0]]!r} has no training image to compute a mean of")
        means = {label: train.pictures[train.label == label].mean(0).round().astype(np.uint8)
                 for label in np.unique(train.label)}
        images = np.stack([means[label] for label in test.label])[:, None].repeat(stage.samples, 1)
    elif stage.source == "vae":
        autocast, dtype = precision(stage.numerics, runtime.device), frozen_dtype(stage.numerics, runtime.device)
        vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype).to(runtime.device)

        @torch.inference_mode()
        def reconstruct(rows: Tensor) -> Tensor:
            with autocast():
                decoded = vae.decode(vae.encode(as_images(test.pictures[rows.numpy()], runtime.device))).float()
            return ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()

        _, height, width, _ = test.pictures.shape
        batch = min(BATCH, max(1, PIXELS // (height * width)))
        reconstructed = in_batches(reconstruct, torch.arange(len(test.item)), batch, runtime).numpy()
        images = reconstructed[:, None].repeat(stage.samples, 1)
    else:
        raise BenchError(f"unknown trivial source {stage.source!r}; expected random, class_mean or vae")
    np.save(out / "pictures.npy", images)
    np.save(out / "item.npy", test.item)


def write_images(out: Path, items: Loaded, samples: int, batch: int, sample: Callable[[Tensor], Tensor],
                 runtime: Runtime, autocast: Callable[[], AbstractContextManager] = nullcontext) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, and item.npy [N].
    sample(rows): images [B, 3, H, W], 0 to 255, for rows [B] of the N * samples images; B is `batch`, or less after a
    memory error (`MicroBatches`)."""
    total, images, parts = len(items.item) * samples, None, MicroBatches(runtime.device, runtime.note)

    @torch.inference_mode()
    def draw(rows: Tensor) -> np.ndarray:
        with autocast():
            return sample(rows).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    for rows, padded in batches(torch.arange(total), batch):
        drawn = np.concatenate(parts.run(lambda part, padded=padded: draw(padded[part]), batch))[:len(rows)]
        if images is None:
            images = create_npy(out / "pictures.npy", np.uint8, (len(items.item), samples, *drawn.shape[1:]))
        done = int(rows[-1]) + 1
        images.reshape(-1, *drawn.shape[1:])[done - len(rows):done] = drawn
        runtime.progress(done, total)
    images.flush()
    np.save(out / "item.npy", items.item)


def initial_noise(item: np.ndarray, samples: int, seed: int, shape: tuple[int, ...]) -> Tensor:
    """Draws the initial noise [N * samples, *shape] of each image; it depends on (seed, item, sample) only."""
    def draw(i: int, sample: int) -> np.ndarray:
        return np.random.default_rng([seed, int(i), sample]).standard_normal(shape, np.float32)

    return torch.from_numpy(np.stack([draw(i, sample) for i in item for sample in range(samples)]))


def decode(vae: frozen.Vae, latents: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1] of latents [B, C, h, w]; decoded in small parts to bound memory."""
    part = max(1, PIXELS // (64 * latents.shape[2] * latents.shape[3]))
    return torch.cat([vae.decode(few).float().clamp(-1, 1) for few in latents.split(part)])


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [B, 3, *size] by bicubic interpolation, not clamped; unchanged if they have that size."""
    if images.shape[-2:] == tuple(size):
        return images
    return interpolate(images, tuple(size), mode="bicubic", antialias=True)


def batches(rows: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields rows in batches, and each batch padded to one size with its first row: floating-point results depend on
    the batch size."""
    for part in rows.split(batch):
        yield part, torch.cat([part, part[:1].expand(batch - len(part), *part.shape[1:])])


def in_batches(function: Callable[[Tensor], Tensor], rows: Tensor, batch: int, runtime: Runtime = ALONE) -> Tensor:
    """Applies a function to rows in batches of one size (`batches`), which memory errors divide (`MicroBatches`).
    runtime: whose log says so; a user's system has none."""
    parts, results = MicroBatches(runtime.device, runtime.note), []
    for few, padded in batches(rows, batch):
        results.append(torch.cat(parts.run(lambda part, padded=padded: function(padded[part]), batch))[:len(few)])
    return torch.cat(results)


@torch.inference_mode()
def _encode_captions(model: Captions, items: Loaded, inputs: Inputs, runtime: Runtime,
                     dtype: torch.dtype) -> tuple[torch.nn.Module, Tensor, Tensor]:
    """Returns the frozen U-Net, the context [N, M, D] of each item's caption, and that of the empty caption."""
    clip = frozen.load_clip(model.clip.path, model.clip.sha256).to(runtime.device)
    unet = frozen.load_unet(model.unet.path, model.unet.sha256, dtype).to(runtime.device)
    contexts = clip.text_tokens(clip.tokenize([f"a {name}" for name in items.names] + [""]).to(runtime.device))
    if model.classes == "none":
        label = np.full(len(items.label), len(contexts) - 1)
    elif model.classes == "true":
        label = items.label
    else:
        verdicts = pd.read_csv(inputs(model.classes) / "verdicts.csv").set_index("item")["predicted"]
        label = verdicts.loc[items.item].to_numpy(copy=True)
    return unet, contexts[torch.from_numpy(label)], contexts[-1:]
