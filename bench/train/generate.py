"""Pictures for every item, by the system's model; one random generator per item and sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.experiment.stages import Captions, Generate, Stage
from bench.files import mapped
from bench.runtime import Runtime
from bench.train.finetune import loaded, restore
from bench.train.items import Loaded, load
from bench.train.loop import frozen_dtype, precision
from bench.train.targets import PIXELS
from models import frozen


def generate(stage: Generate, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, item.npy [N], and embedding.npy."""
    sampling = stage.sampling
    autocast, dtype = precision(stage.numerics, runtime.device), frozen_dtype(stage.numerics, runtime.device)
    if isinstance(stage.model, Captions):
        items = load(stage.items, inputs(stage.items.trials))
        unet, context, null = _captions(stage.model, items, inputs, runtime, dtype)
    else:
        items = loaded(stage.model, stage.items, inputs)
        model = restore(stage.model, items, inputs, runtime, stage.checkpoint)
        eeg = torch.from_numpy(items.eeg)
        with autocast():
            context = in_batches(lambda eeg: model.context(eeg.to(runtime.device)), eeg, sampling.batch).float()
            if stage.model.align == "clip":
                seen = in_batches(lambda eeg: model.embedding(eeg.to(runtime.device)), eeg, sampling.batch)
                np.save(out / "embedding.npy", seen.float().cpu().numpy())
        unet, null = model.unet, model.null_context
    vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype).to(runtime.device)
    schedule = frozen.noise_schedule(stage.model.unet.path)
    noise = initial_noise(items.item, sampling.samples, stage.seed, frozen.latent_shape(unet))
    pictures: np.memmap | None = None
    done = 0
    for rows, padded in batches(torch.arange(len(noise)), sampling.batch):
        with torch.inference_mode(), autocast():
            latents = frozen.sample(unet, context[padded // sampling.samples], null, noise[padded].to(runtime.device),
                                    sampling.steps, sampling.guidance, sampling.sampler, schedule)
            few = max(1, PIXELS // (64 * latents.shape[2] * latents.shape[3]))
            images = torch.cat([vae.decode(part).float().clamp(-1, 1) for part in latents.split(few)])
            images = (images + 1) * 127.5
        drawn = images.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()[:len(rows)]
        if pictures is None:
            shape = (len(items.item), sampling.samples, *drawn.shape[1:])
            pictures = mapped(out / "pictures.npy", np.uint8, shape)
        pictures.reshape(-1, *drawn.shape[1:])[done:done + len(rows)] = drawn
        done += len(rows)
        runtime.progress(done, len(noise))
    pictures.flush()
    np.save(out / "item.npy", items.item)


def initial_noise(item: np.ndarray, samples: int, seed: int, shape: tuple[int, ...]) -> Tensor:
    """[N * samples, *shape]: what each picture begins from, drawn for (seed, item, sample) alone."""
    def draw(i: int, sample: int) -> np.ndarray:
        return np.random.default_rng([seed, int(i), sample]).standard_normal(shape, np.float32)

    return torch.from_numpy(np.stack([draw(i, sample) for i in item for sample in range(samples)]))


def batches(rows: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows in batches, and those made of one size: the last is padded with its first row, since floating point depends
    on the batch size."""
    for part in rows.split(batch):
        yield part, torch.cat([part, part[:1].expand(batch - len(part), *part.shape[1:])])


def in_batches(function: Callable[[Tensor], Tensor], rows: Tensor, batch: int) -> Tensor:
    """function over rows in batches of one size."""
    return torch.cat([function(padded)[:len(part)] for part, padded in batches(rows, batch)])


@torch.inference_mode()
def _captions(model: Captions, items: Loaded, inputs: Callable[[Stage], Path], runtime: Runtime,
              dtype: torch.dtype) -> tuple[torch.nn.Module, Tensor, Tensor]:
    """The untouched U-Net, the context [N, M, D] of each item's caption, and that of the empty caption."""
    clip = frozen.load_clip(model.clip.path, model.clip.sha256).to(runtime.device)
    unet = frozen.load_unet(model.unet.path, model.unet.sha256, dtype).to(runtime.device)
    words = clip.text_tokens(clip.tokenize([f"a {name}" for name in items.names] + [""]).to(runtime.device))
    if model.classes == "none":
        said = np.full(len(items.label), len(words) - 1)
    elif model.classes == "true":
        said = items.label
    else:
        verdicts = pd.read_csv(inputs(model.classes) / "verdicts.csv").set_index("item")["predicted"]
        said = verdicts.loc[items.item].to_numpy(copy=True)
    return unet, words[torch.from_numpy(said)], words[-1:]
