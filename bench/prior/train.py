"""Trains the frozen parts on pictures of their own, ships them with their provenance, and measures their gates."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from bench.data import pictures
from bench.experiment.key import Stage
from bench.experiment.stages import Weights
from bench.prior import recipe
from bench.runtime import Runtime
from models import adapter as adapters
from models import captioner as captioners
from models import frozen


def judge(stage: recipe.Judge, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes judge.safetensors."""
    scenes, images = _drawn(stage)
    labels = torch.from_numpy(scenes.label).to(runtime.device)
    part = _fresh(stage, lambda: frozen.Judge(len(pictures.CLASSES)))
    part.to(runtime.device, memory_format=torch.channels_last)
    optimizer = _adamw(part, stage)
    for step, rows, _ in _steps(stage, optimizer, runtime):
        logits = part.logits(_batch(images, rows, runtime.device))
        loss = cross_entropy(logits, labels[rows], label_smoothing=stage.smoothing)
        _descend(loss, part, optimizer)
        _tell(runtime, stage, step, loss)
    frozen.save(part, out / "judge.safetensors")


def vae(stage: recipe.Vae, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes vae.safetensors, the latents' mean and standard deviation within.

    Both halves are trained together; then the decoder alone goes on, from the latents as they will stay.
    """
    _, images = _drawn(stage)
    part = _fresh(stage, frozen.Vae).to(runtime.device)
    optimizer = _adamw(part, stage)
    for step, rows, generator in _steps(stage, optimizer, runtime):
        real = _batch(images, rows, runtime.device)
        posterior = part.net.encode(real).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(real)
        copied = part.net.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().mean() / posterior.mean[0, 0].numel()
        loss = _difference(copied, real, stage) + stage.kl * kl
        _descend(loss, part, optimizer)
        _tell(runtime, stage, step, loss)
    latents = in_batches(part.eval().encode, images, runtime.device)
    part.mean.copy_(latents.mean((0, 2, 3)).view_as(part.mean))
    part.std.copy_(latents.std((0, 2, 3)).view_as(part.std))
    _train_decoder(replace(stage, steps=stage.decoder_steps, batch=stage.decoder_batch), part, images, runtime)
    frozen.save(part, out / "vae.safetensors")


def _train_decoder(stage: recipe.Vae, part: frozen.Vae, images: np.ndarray, runtime: Runtime) -> None:
    """Trains the decoder in place; the encoder stays as it is."""
    half = frozen.freeze(part).net.decoder.train().requires_grad_(True)
    mean, logvar = (in_batches(lambda real, i=i: part.moments(real)[i], images, runtime.device) for i in (0, 1))
    std = torch.exp(logvar / 2)
    optimizer = _adamw(half, stage)
    for step, rows, generator in _steps(stage, optimizer, runtime):
        noise = torch.randn((stage.batch, *mean.shape[1:]), generator=generator).to(mean)
        copied = part.net.decode((mean[rows] + std[rows] * noise) * part.std + part.mean).sample
        loss = _difference(copied, _batch(images, rows, runtime.device), stage)
        _descend(loss, half, optimizer)
        _tell(runtime, stage, step, loss)


def _difference(copied: Tensor, real: Tensor, stage: recipe.Vae) -> Tensor:
    return (copied - real).abs().mean() + stage.mse * mse_loss(copied, real)


def clip(stage: recipe.Clip, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes clip.safetensors."""
    scenes, images = _drawn(stage)
    part = _fresh(stage, lambda: frozen.Clip(list(pictures.WORDS))).to(runtime.device)
    part.net.visual.to(memory_format=torch.channels_last)
    short, long = (part.tokenize(pictures.captions(scenes, kind)).to(runtime.device) for kind in (True, False))
    optimizer = _adamw(part, stage)
    for step, rows, generator in _steps(stage, optimizer, runtime):
        brief = (torch.rand(stage.batch, 1, generator=generator) < stage.short).to(runtime.device)
        captions, which = torch.where(brief, short[rows], long[rows]).unique(dim=0, return_inverse=True)
        seen = part.embed_image(_batch(images, rows, runtime.device))
        logits = part.net.logit_scale.exp().clamp(max=50) * seen @ part.embed_text(captions)[which].T
        same = (which[:, None] == which).float()
        same = same / same.sum(1, keepdim=True)
        loss = (cross_entropy(logits, same) + cross_entropy(logits.T, same)) / 2
        _descend(loss, part, optimizer)
        _tell(runtime, stage, step, loss)
    frozen.save(part, out / "clip.safetensors")


def unet(stage: recipe.Unet, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes unet.safetensors: the running mean of the weights."""
    scenes, images = _drawn(stage)
    encoder = frozen.load_vae(inputs(stage.vae) / "vae.safetensors").to(runtime.device)
    latents = in_batches(encoder.encode, images, runtime.device)
    text = frozen.load_clip(inputs(stage.clip) / "clip.safetensors").to(runtime.device)
    contexts, short, long = _contexts(text, scenes, runtime.device)
    empty = len(contexts) - 1

    part = _fresh(stage, lambda: frozen.make_unet(widths=stage.widths)).to(runtime.device)
    average = frozen.freeze(copy.deepcopy(part))
    schedule = frozen.noise_schedule()
    optimizer = _adamw(part, stage, betas=(0.9, 0.99))
    for step, rows, generator in _steps(stage, optimizer, runtime):
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        times = torch.randint(len(schedule), (stage.batch,), generator=generator).to(clean.device)
        brief, without = torch.rand(2, stage.batch, generator=generator).to(clean.device)
        caption = torch.where(brief < stage.short, short[rows], long[rows])
        caption = torch.where(without < stage.dropout, empty, caption)
        v = part(schedule.add_noise(clean, noise, times), times, contexts[caption]).sample
        loss = mse_loss(v, schedule.get_velocity(clean, noise, times))
        _descend(loss, part, optimizer)
        forget = 1 - min(stage.average, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(part.parameters()), forget)
        _tell(runtime, stage, step, loss)
    frozen.save(average, out / "unet.safetensors")


def adapter(stage: recipe.Adapter, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes adapter.safetensors, an IP-Adapter's file: the U-Net stays as it is."""
    scenes, images = _drawn(stage)
    part = frozen.load_vae(*_shipped(stage.vae, "vae", inputs)).to(runtime.device)
    latents = in_batches(part.encode, images, runtime.device)
    clip = frozen.load_clip(*_shipped(stage.clip, "clip", inputs)).to(runtime.device)
    embeddings = in_batches(clip.embed_image, images, runtime.device)
    contexts, short, long = _contexts(clip, scenes, runtime.device)
    empty = len(contexts) - 1

    unet = frozen.load_unet(*_shipped(stage.unet, "unet", inputs)).to(runtime.device)
    schedule = frozen.noise_schedule()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        adapters.pipeline(part, unet, schedule, adapters.fresh(unet, embeddings.shape[1]))
    tensors = adapters.trained(unet)
    opened = nn.ParameterList(tensors.values()).requires_grad_(True)
    optimizer = _adamw(opened, stage, betas=(0.9, 0.99))
    for step, rows, generator in _steps(stage, optimizer, runtime):
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        times = torch.randint(len(schedule), (stage.batch,), generator=generator).to(clean.device)
        brief, without, blank = torch.rand(3, stage.batch, generator=generator).to(clean.device)
        caption = torch.where(brief < stage.short, short[rows], long[rows])
        caption = torch.where(without < stage.dropout, empty, caption)
        seen = embeddings[rows] * (blank >= stage.blank)[:, None]
        v = unet(schedule.add_noise(clean, noise, times), times, contexts[caption],
                 added_cond_kwargs={"image_embeds": [seen[:, None]]}).sample
        loss = mse_loss(v, schedule.get_velocity(clean, noise, times))
        _descend(loss, opened, optimizer)
        _tell(runtime, stage, step, loss)
    adapters.save(tensors, out / "adapter.safetensors")


def captioner(stage: recipe.Captioner, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes captioner.safetensors."""
    scenes, images = _drawn(stage)
    clip = frozen.load_clip(*_shipped(stage.clip, "clip", inputs)).to(runtime.device)
    embeddings = in_batches(clip.embed_image, images, runtime.device)
    slots = [list(pictures.CLASSES), list(pictures.COLOURS), list(pictures.BACKGROUNDS)]
    said = torch.from_numpy(np.stack([scenes.label, scenes.colour, scenes.background])).to(runtime.device)
    part = _fresh(stage, lambda: captioners.Captioner("a {} {} on {}", slots, embeddings.shape[1], stage.width))
    part.to(runtime.device)
    optimizer = _adamw(part, stage)
    for step, rows, generator in _steps(stage, optimizer, runtime):
        seen = embeddings[rows]
        seen = seen + stage.noise * torch.randn(seen.shape, generator=generator).to(seen)
        loss = sum(cross_entropy(logits, words) for logits, words in zip(part.logits(seen), said[:, rows], strict=True))
        _descend(loss, part, optimizer)
        _tell(runtime, stage, step, loss)
    frozen.save(part, out / "captioner.safetensors")


def _shipped(part: recipe.Part | Weights, name: str, inputs: Callable[[Stage], Path]) -> tuple[Path, str | None]:
    """Where the weights of a part lie, and the hash that they must have."""
    if isinstance(part, Weights):
        return Path(part.path), part.sha256
    return inputs(part) / f"{name}.safetensors", None


@torch.no_grad()
def _contexts(clip: frozen.Clip, scenes: pictures.Scenes, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """The text tower's tokens [K, M, D] of all captions, the empty one last, and which [N] is each scene's, short and
    long."""
    every, which = clip.tokenize([c for kind in (True, False) for c in pictures.captions(scenes, kind)]).unique(
        dim=0, return_inverse=True
    )
    contexts = clip.text_tokens(torch.cat([every, clip.tokenize([""])]).to(device))
    short, long = which.to(device).view(2, -1)
    return contexts, short, long


def _drawn(stage: recipe.Part) -> tuple[pictures.Scenes, np.ndarray]:
    """The pictures of the prior's own stream: scenes, and images [N, H, W, 3] uint8."""
    scenes = pictures.draw_scenes(stage.pictures, len(pictures.CLASSES), pictures.stream("prior", stage.seed))
    return scenes, pictures.render(scenes)


def _fresh(stage: recipe.Part, make: Callable[[], frozen.AnyPart]) -> frozen.AnyPart:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        return make().train()


def _adamw(
    part: nn.Module, stage: recipe.Part, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(part.parameters(), stage.lr, betas, weight_decay=stage.weight_decay, fused=True)


def _steps(
    stage: recipe.Part, optimizer: torch.optim.Optimizer, runtime: Runtime
) -> Iterator[tuple[int, Tensor, torch.Generator]]:
    """Yields step, rows of the batch [B] and the generator; sets the rate: linear warm-up, half-cosine decay."""
    generator = torch.Generator().manual_seed(stage.seed)
    for step in range(stage.steps):
        rate = min(1, (step + 1) / stage.warmup) * (1 + math.cos(math.pi * step / stage.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * rate
        yield step, torch.randint(stage.pictures, (stage.batch,), generator=generator).to(runtime.device), generator


def _descend(loss: Tensor, part: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    nn.utils.clip_grad_norm_(part.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _tell(runtime: Runtime, stage: recipe.Part, step: int, loss: Tensor) -> None:
    if step % 10 == 9 or step == stage.steps - 1:
        runtime.progress(step + 1, stage.steps, loss=loss.item())


def _batch(images: np.ndarray, rows: Tensor, device: str) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images[rows.cpu().numpy()]).to(device).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], images: np.ndarray, device: str, batch: int = 250) -> Tensor:
    """The function's results for all images [N, H, W, 3] uint8, one after the other."""
    rows = torch.arange(len(images))
    return torch.cat([function(_batch(images, part, device)) for part in rows.split(batch)])
