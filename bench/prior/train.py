"""Trains the frozen parts of scale tiny on images that no other stage uses."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from bench.data import pictures
from bench.experiment.stages import Weights
from bench.prior import recipe
from bench.runtime import Runtime, ignore
from bench.train import Inputs
from bench.train.losses import descend, seeded
from models import adapter as adapters
from models import captioner as captioners
from models import frozen

Loss = Callable[[Tensor, torch.Generator], Tensor]  # of a batch's rows [B]; draws its noise from the generator


def judge(stage: recipe.Judge, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes judge.safetensors."""
    scenes, images = _render(stage)
    labels = torch.from_numpy(scenes.label).to(runtime.device)
    part = _make(stage, lambda: frozen.Judge(len(pictures.CLASSES)))
    part.to(runtime.device, memory_format=torch.channels_last)

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        logits = part.logits(_batch(images, rows, runtime.device))
        return cross_entropy(logits, labels[rows], label_smoothing=stage.smoothing)

    _minimise(loss, part, stage, runtime)
    frozen.save(part, out / "judge.safetensors")


def vae(stage: recipe.Vae, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes vae.safetensors, which includes the latents' mean and standard deviation.
    Encoder and decoder are trained together, then the decoder alone on the final latents."""
    _, images = _render(stage)
    part = _make(stage, frozen.Vae).to(runtime.device)

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        real = _batch(images, rows, runtime.device)
        posterior = part.net.encode(real).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(real)
        reconstruction = part.net.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().mean() / posterior.mean[0, 0].numel()
        return _difference(reconstruction, real, stage) + stage.kl * kl

    _minimise(loss, part, stage, runtime)
    latents = in_batches(part.eval().encode, images, runtime.device)
    part.mean.copy_(latents.mean((0, 2, 3)).view_as(part.mean))
    part.std.copy_(latents.std((0, 2, 3)).view_as(part.std))

    # The decoder alone, on the posterior of the frozen encoder
    decoder = frozen.freeze(part).net.decoder.train().requires_grad_(True)
    mean, logvar = (in_batches(lambda real, i=i: part.moments(real)[i], images, runtime.device) for i in (0, 1))
    std, decoder_stage = torch.exp(logvar / 2), replace(stage, steps=stage.decoder_steps, batch=stage.decoder_batch)

    def decoder_loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn((decoder_stage.batch, *mean.shape[1:]), generator=generator).to(mean)
        reconstruction = part.net.decode((mean[rows] + std[rows] * noise) * part.std + part.mean).sample
        return _difference(reconstruction, _batch(images, rows, runtime.device), stage)

    _minimise(decoder_loss, decoder, decoder_stage, runtime)
    frozen.save(part, out / "vae.safetensors")


def _difference(reconstruction: Tensor, real: Tensor, stage: recipe.Vae) -> Tensor:
    return (reconstruction - real).abs().mean() + stage.mse * mse_loss(reconstruction, real)


def clip(stage: recipe.Clip, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes clip.safetensors."""
    scenes, images = _render(stage)
    part = _make(stage, lambda: frozen.Clip(list(pictures.WORDS))).to(runtime.device)
    part.net.visual.to(memory_format=torch.channels_last)
    short, long = (part.tokenize(pictures.captions(scenes, kind)).to(runtime.device) for kind in (True, False))

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        is_short = (torch.rand(stage.batch, 1, generator=generator) < stage.short).to(runtime.device)
        captions, which = torch.where(is_short, short[rows], long[rows]).unique(dim=0, return_inverse=True)
        embedding = part.embed_image(_batch(images, rows, runtime.device))
        logits = part.net.logit_scale.exp().clamp(max=50) * embedding @ part.embed_text(captions)[which].T
        same = (which[:, None] == which).float()
        same = same / same.sum(1, keepdim=True)
        return (cross_entropy(logits, same) + cross_entropy(logits.T, same)) / 2

    _minimise(loss, part, stage, runtime)
    frozen.save(part, out / "clip.safetensors")


def unet(stage: recipe.Unet, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes unet.safetensors: the running mean of the weights."""
    scenes, images = _render(stage)
    encoder = frozen.load_vae(*_weights(stage.vae, "vae", inputs)).to(runtime.device)
    latents = in_batches(encoder.encode, images, runtime.device)
    text = frozen.load_clip(*_weights(stage.clip, "clip", inputs)).to(runtime.device)
    captions = _encode_captions(text, scenes, runtime.device)
    part = _make(stage, lambda: frozen.make_unet(widths=stage.widths)).to(runtime.device)
    average = frozen.freeze(copy.deepcopy(part))

    def update_average(step: int) -> None:
        weight = 1 - min(stage.average, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(part.parameters()), weight)

    loss = _denoising_loss(part, stage, latents, captions)
    _minimise(loss, part, stage, runtime, betas=(0.9, 0.99), after_step=update_average)
    frozen.save(average, out / "unet.safetensors")


def adapter(stage: recipe.Adapter, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes adapter.safetensors in the format of an IP-Adapter; the U-Net is frozen."""
    scenes, images = _render(stage)
    encoder = frozen.load_vae(*_weights(stage.vae, "vae", inputs)).to(runtime.device)
    latents = in_batches(encoder.encode, images, runtime.device)
    text = frozen.load_clip(*_weights(stage.clip, "clip", inputs)).to(runtime.device)
    embeddings = in_batches(text.embed_image, images, runtime.device)
    captions = _encode_captions(text, scenes, runtime.device)
    unet = frozen.load_unet(*_weights(stage.unet, "unet", inputs)).to(runtime.device)
    with seeded(stage.seed):
        adapters.pipeline(encoder, unet, frozen.noise_schedule(), adapters.fresh(unet, embeddings.shape[1]))
    tensors = adapters.trained(unet)
    loss = _denoising_loss(unet, stage, latents, captions, embeddings)
    _minimise(loss, nn.ParameterList(tensors.values()).requires_grad_(True), stage, runtime, betas=(0.9, 0.99))
    adapters.save(tensors, out / "adapter.safetensors")


def _denoising_loss(unet: nn.Module, stage: recipe.Unet | recipe.Adapter, latents: Tensor,
                    captions: tuple[Tensor, Tensor, Tensor], embeddings: Tensor | None = None) -> Loss:
    """The v-prediction loss under `_encode_captions`, and for an adapter under the images' embeddings [N, D']."""
    schedule, (contexts, short, long) = frozen.noise_schedule(), captions

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        times = torch.randint(len(schedule), (stage.batch,), generator=generator).to(clean.device)
        draws = torch.rand(2 if embeddings is None else 3, stage.batch, generator=generator).to(clean.device)
        caption = torch.where(draws[0] < stage.short, short[rows], long[rows])
        caption = torch.where(draws[1] < stage.dropout, len(contexts) - 1, caption)
        condition = {}
        if embeddings is not None:
            embedding = embeddings[rows] * (draws[2] >= stage.blank)[:, None]
            condition = {"added_cond_kwargs": {"image_embeds": [embedding[:, None]]}}
        v = unet(schedule.add_noise(clean, noise, times), times, contexts[caption], **condition).sample
        return mse_loss(v, schedule.get_velocity(clean, noise, times))

    return loss


def captioner(stage: recipe.Captioner, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes captioner.safetensors."""
    scenes, images = _render(stage)
    text = frozen.load_clip(*_weights(stage.clip, "clip", inputs)).to(runtime.device)
    embeddings = in_batches(text.embed_image, images, runtime.device)
    slots = [list(pictures.CLASSES), list(pictures.COLOURS), list(pictures.BACKGROUNDS)]
    words = torch.from_numpy(np.stack([scenes.label, scenes.colour, scenes.background])).to(runtime.device)
    part = _make(stage, lambda: captioners.Captioner("a {} {} on {}", slots, embeddings.shape[1], stage.width))
    part.to(runtime.device)

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        embedding = embeddings[rows]
        embedding = embedding + stage.noise * torch.randn(embedding.shape, generator=generator).to(embedding)
        return sum(cross_entropy(logits, word) for logits, word in zip(part.logits(embedding), words[:, rows],
                                                                       strict=True))

    _minimise(loss, part, stage, runtime)
    frozen.save(part, out / "captioner.safetensors")


def _minimise(loss: Loss, part: nn.Module, stage: recipe.Part, runtime: Runtime,
              betas: tuple[float, float] = (0.9, 0.999), after_step: Callable[[int], None] = ignore) -> None:
    """Trains a part in place by AdamW with linear warm-up and half-cosine decay. after_step: called with the step."""
    optimizer = torch.optim.AdamW(part.parameters(), stage.lr, betas, weight_decay=stage.weight_decay, fused=True)
    generator = torch.Generator().manual_seed(stage.seed)
    for step in range(stage.steps):
        rate = min(1, (step + 1) / stage.warmup) * (1 + math.cos(math.pi * step / stage.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * rate
        rows = torch.randint(stage.pictures, (stage.batch,), generator=generator).to(runtime.device)
        value = loss(rows, generator)
        descend(value, optimizer, clip_norm=1.0)
        after_step(step)
        if step % 10 == 9 or step == stage.steps - 1:
            runtime.progress(step + 1, stage.steps, loss=value.item())


def _weights(part: recipe.Part | Weights, name: str, inputs: Inputs) -> tuple[Path, str | None]:
    """The file of a part's weights, and its expected hash; None for a part that is trained by this recipe."""
    if isinstance(part, Weights):
        return Path(part.path), part.sha256
    return inputs(part) / f"{name}.safetensors", None


@torch.no_grad()
def _encode_captions(clip: frozen.Clip, scenes: pictures.Scenes, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the text tokens [K, M, D] of all distinct captions, the empty one last, and the number [N] of each
    scene's short and long caption."""
    captions, which = clip.tokenize([caption for kind in (True, False) for caption in pictures.captions(scenes, kind)]
                                    ).unique(dim=0, return_inverse=True)
    contexts = clip.text_tokens(torch.cat([captions, clip.tokenize([""])]).to(device))
    short, long = which.to(device).view(2, -1)
    return contexts, short, long


def _render(stage: recipe.Part) -> tuple[pictures.Scenes, np.ndarray]:
    """The scenes of the prior's stream, and their images [N, H, W, 3] uint8."""
    scenes = pictures.draw_scenes(stage.pictures, len(pictures.CLASSES), pictures.stream("prior", stage.seed))
    return scenes, pictures.render(scenes)


def _make(stage: recipe.Part, make: Callable[[], frozen.AnyPart]) -> frozen.AnyPart:
    with seeded(stage.seed):
        return make().train()


def _batch(images: np.ndarray, rows: Tensor, device: str) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images[rows.cpu().numpy()]).to(device).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], images: np.ndarray, device: str, batch: int = 250) -> Tensor:
    """Applies a function to all images [N, H, W, 3] uint8, in batches."""
    rows = torch.arange(len(images))
    return torch.cat([function(_batch(images, part, device)) for part in rows.split(batch)])
