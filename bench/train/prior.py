"""Trains the frozen parts on pictures of their own, ships them with their provenance, and measures their gates."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from bench import prior_parts
from bench.data import pictures
from bench.errors import ENVIRONMENT, SOME_FAILED, BenchError
from bench.key import Stage, canonical
from bench.runtime import Runtime
from models import frozen

HELD_OUT, BATCH = 2_000, 125  # pictures of the gates, and how many are drawn at once
STEPS, GUIDANCE = 10, 2.0  # of the gates' samples
LIBRARIES = ("torch", "diffusers", "open_clip_torch", "timm", "safetensors", "numpy")
LOADERS = {
    "judge": frozen.load_judge,
    "vae": frozen.load_vae,
    "clip": frozen.load_clip,
    "unet": frozen.load_unet,
}


def judge(stage: prior_parts.Judge, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
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


def vae(stage: prior_parts.Vae, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
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
    latents = _in_batches(part.eval().encode, images, runtime.device)
    part.mean.copy_(latents.mean((0, 2, 3)).view_as(part.mean))
    part.std.copy_(latents.std((0, 2, 3)).view_as(part.std))
    _train_decoder(replace(stage, steps=stage.decoder_steps, batch=stage.decoder_batch), part, images, runtime)
    frozen.save(part, out / "vae.safetensors")


def _train_decoder(stage: prior_parts.Vae, part: frozen.Vae, images: np.ndarray, runtime: Runtime) -> None:
    """Trains the decoder in place; the encoder stays as it is."""
    half = frozen.freeze(part).net.decoder.train().requires_grad_(True)
    mean, logvar = (_in_batches(lambda real, i=i: part.moments(real)[i], images, runtime.device) for i in (0, 1))
    std = torch.exp(logvar / 2)
    optimizer = _adamw(half, stage)
    for step, rows, generator in _steps(stage, optimizer, runtime):
        noise = torch.randn((stage.batch, *mean.shape[1:]), generator=generator).to(mean)
        copied = part.net.decode((mean[rows] + std[rows] * noise) * part.std + part.mean).sample
        loss = _difference(copied, _batch(images, rows, runtime.device), stage)
        _descend(loss, half, optimizer)
        _tell(runtime, stage, step, loss)


def _difference(copied: Tensor, real: Tensor, stage: prior_parts.Vae) -> Tensor:
    return (copied - real).abs().mean() + stage.mse * mse_loss(copied, real)


def clip(stage: prior_parts.Clip, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
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


def unet(stage: prior_parts.Unet, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes unet.safetensors: the running mean of the weights."""
    scenes, images = _drawn(stage)
    encoder = frozen.load_vae(inputs(stage.vae) / "vae.safetensors").to(runtime.device)
    latents = _in_batches(encoder.encode, images, runtime.device)
    text = frozen.load_clip(inputs(stage.clip) / "clip.safetensors").to(runtime.device)
    with torch.no_grad():
        every, which = text.tokenize([c for kind in (True, False) for c in pictures.captions(scenes, kind)]).unique(
            dim=0, return_inverse=True
        )
        contexts = text.text_tokens(torch.cat([every, text.tokenize([""])]).to(runtime.device))
    short, long = which.to(runtime.device).view(2, -1)
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


@dataclass(frozen=True)
class Gate:
    """What a frozen part must be able to do before anything may be built on it: shares of `n` held-out cases."""

    name: str
    measured: float
    needed: float
    n: int

    @property
    def passed(self) -> bool:
        return self.measured >= self.needed


def check(folder: Path, runtime: Runtime) -> list[Gate]:
    """The gates of the parts in `folder`, whose files must be those that its provenance.json names.

    Raises frozen.MissingWeights, frozen.BadWeights; BenchError (exit 3) where the provenance cannot be read.
    """
    try:
        entries = json.loads((folder / "provenance.json").read_text())["parts"]
        hashes = {name: entries[name]["sha256"] for name in LOADERS}
    except (OSError, ValueError, KeyError) as error:
        message = f"{folder / 'provenance.json'} is no readable provenance ({error!r}); restore it, or: bench prior"
        raise BenchError(message, ENVIRONMENT) from error
    torch.set_num_threads(1)  # networks so small lose time on several
    return measure(runtime, **_load(folder, hashes))


@torch.inference_mode()
def measure(
    runtime: Runtime, judge: frozen.Judge, vae: frozen.Vae, clip: frozen.Clip, unet: UNet2DConditionModel
) -> list[Gate]:
    """The four gates, on pictures and captions of the held-out stream, over all classes."""
    device = runtime.device
    for part in (judge, vae, clip, unet):
        part.to(device)
    scenes = pictures.draw_scenes(HELD_OUT, len(pictures.CLASSES), pictures.stream("held-out"))
    images, labels = pictures.render(scenes), torch.from_numpy(scenes.label).to(device)
    classes = clip.embed_text(clip.tokenize([f"a {name}" for name in pictures.CLASSES]).to(device))
    short = np.arange(HELD_OUT) % 2 == 0
    contexts = clip.text_tokens(clip.tokenize(pictures.captions(scenes, short)).to(device))
    empty = clip.text_tokens(clip.tokenize([""]).to(device))
    noise = torch.randn((HELD_OUT, *frozen.latent_shape(unet)), generator=torch.Generator().manual_seed(0)).to(device)

    def drawn(rows: Tensor) -> Tensor:
        latents = frozen.sample(unet, contexts[rows], empty, noise[rows], STEPS, GUIDANCE)
        runtime.progress(int(rows[-1]) + 1, HELD_OUT)
        return judge.logits(vae.decode(latents))

    logits = {
        "judge recognises pictures": (_in_batches(judge.logits, images, device), 0.99),
        "judge recognises VAE reconstructions": (
            _in_batches(lambda real: judge.logits(vae.decode(vae.encode(real))), images, device),
            0.97,
        ),
        "CLIP names the class, zero-shot": (
            _in_batches(lambda real: clip.embed_image(real) @ classes.T, images, device),
            0.95,
        ),
        "judge recognises text-conditioned samples": (
            torch.cat([drawn(rows) for rows in torch.arange(HELD_OUT).split(BATCH)]),
            0.95,
        ),
    }
    return [
        Gate(name, (scores.argmax(1) == labels).double().mean().item(), needed, HELD_OUT)
        for name, (scores, needed) in logits.items()
    ]


def ship(
    parts: dict[str, prior_parts.Part], inputs: Callable[[Stage], Path], folder: Path, runtime: Runtime
) -> list[Gate]:
    """Exports the trained `parts` (prior_parts.recipe()) as float16 into `folder`, with provenance.json.

    The gates are those of the exported files. Raises BenchError, and replaces nothing, when one is not passed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary)
        for name, stage in parts.items():
            trained = LOADERS[name](inputs(stage) / f"{name}.safetensors")
            frozen.save(trained, made / f"{name}.safetensors", torch.float16)
        exported = _load(made, {})
        gates = measure(runtime, **exported)
        if missed := [f"{g.name}: {g.measured:.1%}, needed {g.needed:.0%}" for g in gates if not g.passed]:
            raise BenchError("not shipped, gates not passed: " + "; ".join(missed), SOME_FAILED)
        provenance = {
            "date": datetime.now(UTC).date().isoformat(),
            "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
            "gates": [asdict(gate) for gate in gates],
            "parts": {
                name: {
                    "sha256": hashlib.sha256((made / f"{name}.safetensors").read_bytes()).hexdigest(),
                    "bytes": (made / f"{name}.safetensors").stat().st_size,
                    "parameters": sum(parameter.numel() for parameter in exported[name].parameters()),
                    "recipe": canonical(stage),
                }
                for name, stage in parts.items()
            },
        }
        (made / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")
        for file in (*(f"{name}.safetensors" for name in parts), "provenance.json"):
            os.replace(made / file, folder / file)
    return gates


def _load(folder: Path, hashes: dict[str, str]) -> dict[str, Any]:
    return {name: load(folder / f"{name}.safetensors", hashes.get(name)) for name, load in LOADERS.items()}


def _drawn(stage: prior_parts.Part) -> tuple[pictures.Scenes, np.ndarray]:
    """The pictures of the prior's own stream: scenes, and images [N, H, W, 3] uint8."""
    scenes = pictures.draw_scenes(stage.pictures, len(pictures.CLASSES), pictures.stream("prior", stage.seed))
    return scenes, pictures.render(scenes)


def _fresh(stage: prior_parts.Part, make: Callable[[], frozen.AnyPart]) -> frozen.AnyPart:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        return make().train()


def _adamw(
    part: nn.Module, stage: prior_parts.Part, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(part.parameters(), stage.lr, betas, weight_decay=stage.weight_decay, fused=True)


def _steps(
    stage: prior_parts.Part, optimizer: torch.optim.Optimizer, runtime: Runtime
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


def _tell(runtime: Runtime, stage: prior_parts.Part, step: int, loss: Tensor) -> None:
    if step % 10 == 9 or step == stage.steps - 1:
        runtime.progress(step + 1, stage.steps, loss=loss.item())


def _batch(images: np.ndarray, rows: Tensor, device: str) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images[rows.cpu().numpy()]).to(device).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


@torch.no_grad()
def _in_batches(function: Callable[[Tensor], Tensor], images: np.ndarray, device: str, batch: int = 250) -> Tensor:
    """The function's results for all images [N, H, W, 3] uint8, one after the other."""
    rows = torch.arange(len(images))
    return torch.cat([function(_batch(images, part, device)) for part in rows.split(batch)])
