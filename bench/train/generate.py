"""Pictures for every item, by the system's model; one random generator per item and sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.items import Loaded, load
from bench.runtime import Runtime
from bench.stages import Captions, Generate, Stage
from bench.train.finetune import loaded, restore
from models import frozen


def generate(stage: Generate, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, item.npy [N], and embedding.npy."""
    sampling = stage.sampling
    if isinstance(stage.model, Captions):
        items = load(stage.items, inputs(stage.items.trials))
        unet, context, null = _captions(stage.model, items, inputs, runtime)
    else:
        items = loaded(stage.model, stage.items, inputs)
        model = restore(stage.model, items, inputs, runtime, stage.checkpoint)
        context = in_batches(lambda eeg: model.context(eeg.to(runtime.device)), torch.from_numpy(items.eeg),
                             sampling.batch)
        unet, null = model.unet, model.null_context
        if stage.model.align == "clip":
            np.save(out / "embedding.npy", in_batches(model.embedding, context, sampling.batch).cpu().numpy())
    vae = frozen.load_vae(stage.vae.path, stage.vae.sha256).to(runtime.device)
    noise = initial_noise(items.item, sampling.samples, stage.seed, frozen.latent_shape(unet))
    done, total = 0, len(noise)

    @torch.inference_mode()
    def draw(batch: Tensor) -> Tensor:
        nonlocal done
        latents = frozen.sample(unet, context[batch // sampling.samples], null, noise[batch].to(runtime.device),
                                sampling.steps, sampling.guidance)
        images = (vae.decode(latents).clamp(-1, 1) + 1) * 127.5
        done = min(done + len(batch), total)
        runtime.progress(done, total)
        return images.round().to(torch.uint8).permute(0, 2, 3, 1).cpu()

    drawn = in_batches(draw, torch.arange(total), sampling.batch)
    np.save(out / "pictures.npy", drawn.reshape(len(items.item), sampling.samples, *drawn.shape[1:]).numpy())
    np.save(out / "item.npy", items.item)


def initial_noise(item: np.ndarray, samples: int, seed: int, shape: tuple[int, ...]) -> Tensor:
    """[N * samples, *shape]: what each picture begins from, drawn for (seed, item, sample) alone."""
    def draw(i: int, sample: int) -> np.ndarray:
        return np.random.default_rng([seed, int(i), sample]).standard_normal(shape, np.float32)

    return torch.from_numpy(np.stack([draw(i, sample) for i in item for sample in range(samples)]))


def in_batches(function: Callable[[Tensor], Tensor], rows: Tensor, batch: int) -> Tensor:
    """function over rows in batches of one size: the last is padded with its first row, since floating point depends
    on the batch size."""
    done = []
    for part in rows.split(batch):
        padded = torch.cat([part, part[:1].expand(batch - len(part), *part.shape[1:])])
        done.append(function(padded)[:len(part)])
    return torch.cat(done)


@torch.inference_mode()
def _captions(model: Captions, items: Loaded, inputs: Callable[[Stage], Path],
              runtime: Runtime) -> tuple[torch.nn.Module, Tensor, Tensor]:
    """The untouched U-Net, the context [N, M, D] of each item's caption, and that of the empty caption."""
    clip = frozen.load_clip(model.clip.path, model.clip.sha256).to(runtime.device)
    unet = frozen.load_unet(model.unet.path, model.unet.sha256).to(runtime.device)
    words = clip.text_tokens(clip.tokenize([f"a {name}" for name in items.names] + [""]).to(runtime.device))
    if model.classes == "none":
        said = np.full(len(items.label), len(words) - 1)
    elif model.classes == "true":
        said = items.label
    else:
        verdicts = pd.read_csv(inputs(model.classes) / "verdicts.csv").set_index("item")["predicted"]
        said = verdicts.loc[items.item].to_numpy(copy=True)
    return unet, words[torch.from_numpy(said)], words[-1:]
