"""Compares the outputs of the networks on a device with those on the CPU in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bench.experiment.stages import Finetune, Generate, Numerics, Pretrain, Targets
from bench.runtime import Runtime
from bench.selftest.probe import relative_error
from bench.train.encoder import build
from bench.train.loop import cast_frozen, frozen_dtype, precision
from models import frozen
from models.mae import MaskedAutoencoder
from models.masking import Masking, random_masking

ROWS = 2  # of a batch
Compute = Callable[[Any, Callable[[Tensor], Tensor]], list[Tensor]]  # of a network and a function that moves its inputs


def compare(pretrain: Pretrain, finetune: Finetune, generate: Generate, device: str, dtype: str) -> dict[str, float]:
    """Returns for each network the relative difference from the CPU in float32: of its outputs, or of its gradients."""
    numerics = Numerics(device, dtype)
    autocast, held = precision(numerics, device), frozen_dtype(numerics, device)
    errors = {}
    for name, net, compute in _networks(pretrain, finetune, generate):
        with torch.random.fork_rng(devices=[]):
            expected = compute(net, lambda tensor: tensor)
        other = copy.deepcopy(net).to(device)
        if name == "U-Net":  # as in fine-tuning
            cast_frozen(other, held)
        elif isinstance(other, (frozen.Vae, frozen.Clip)):  # as in targets and generation
            torch.nn.Module.to(other.net, held)  # diffusers' own `to` would warn
        with autocast():
            found = compute(other, lambda tensor: tensor.to(device))
        errors[name] = relative_error(found, expected)
        del other
    return errors


def _networks(pretrain: Pretrain, finetune: Finetune, generate: Generate) -> Iterator[tuple[str, Any, Compute]]:
    """Yields the networks of DreamDiffusion with random inputs of the stages' shapes."""
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(ROWS, *shape, generator=draw)

    # The masked autoencoder: its loss's gradients
    shape, decoder = (pretrain.corpus.n_chans, pretrain.corpus.world.n_times), pretrain.decoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = build(pretrain.encoder, *shape, Runtime())
        with torch.no_grad():
            _, tokens, width = encoder.eval().tokenize(torch.zeros(1, *shape)).shape
        mae = MaskedAutoencoder(encoder, *shape, width, tokens, decoder.width, decoder.depth, decoder.heads,
                                decoder.mlp_ratio, pretrain.class_token)
    windows, masking = random(*shape), random_masking(ROWS, tokens, pretrain.mask_ratio, draw, pretrain.rounding)

    def gradients(net: Any, move: Callable[[Tensor], Tensor]) -> list[Tensor]:
        net.zero_grad()
        net(move(windows), Masking(move(masking.keep), move(masking.remove))).backward()
        return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]

    yield "autoencoder, gradients", mae, gradients

    # U-Net, VAE and CLIP: their outputs; images from 0 to 1
    unet = frozen.load_unet(finetune.unet.path, finetune.unet.sha256)
    latents = random(*frozen.latent_shape(unet))
    context = random(77, unet.config.cross_attention_dim)
    yield "U-Net", unet, no_grad(lambda net, move: [net(move(latents), move(torch.tensor([10, 500])),
                                                        move(context)).sample])
    vae = frozen.load_vae(generate.vae.path, generate.vae.sha256)
    yield "VAE, decoding", vae, no_grad(lambda net, move: [(net.decode(move(latents[:1])) + 1) / 2])
    targets: Targets = finetune.targets
    clip = frozen.load_clip(targets.clip.path, targets.clip.sha256)
    images = random(3, clip.size, clip.size).clamp(-1, 1)
    yield "CLIP, image", clip, no_grad(lambda net, move: [net.embed_image(move(images))])


def no_grad(compute: Compute) -> Compute:
    """Returns the function, run without gradients."""
    return torch.no_grad()(compute)
