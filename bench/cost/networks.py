"""FLOPs of the networks of scale paper, counted on the meta device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.cost.counting import counted, meta, part
from bench.experiment.stages import Decoder, Encoder
from bench.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor


@functools.cache
def encoder_on_meta(value: Encoder, n_chans: int, n_times: int) -> Any:
    """An encoder on the meta device, and the shape [L, width] of what it makes of a trial."""
    import torch

    from bench.train.encoder import build

    with torch.device("meta"):
        encoder = build(value, n_chans, n_times, Runtime())
        with torch.no_grad():
            tokens = encoder.eval()(torch.empty(1, n_chans, n_times))
    return encoder, tuple(tokens.shape[1:])


@functools.cache
def autoencoder_on_meta(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int) -> Any:
    """The masked autoencoder of a pre-training, on the meta device, and how many tokens it has."""
    import torch

    from models.mae import MaskedAutoencoder

    module, _ = encoder_on_meta(encoder, n_chans, n_times)
    with torch.device("meta"):
        with torch.no_grad():
            tokens, width = module.tokenize(torch.empty(1, n_chans, n_times)).shape[1:]
        model = MaskedAutoencoder(module, n_chans, n_times, width, tokens, decoder.width, decoder.depth, decoder.heads,
                                  decoder.mlp_ratio)
    return model, tokens


def masking_on_meta(tokens: int, mask_ratio: float, batch: int = 1) -> Any:
    import torch

    from models.masking import random_masking

    with torch.device("cpu"):
        return random_masking(batch, tokens, mask_ratio, torch.Generator()).to("meta")


@functools.cache
def autoencoder_flops(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int, mask_ratio: float,
                      batch: int = 1) -> tuple[int, int]:
    """FLOPs of a step of masked pre-training: (forward, forward and backward)."""
    model, tokens = autoencoder_on_meta(encoder, decoder, n_chans, n_times)
    masking = masking_on_meta(tokens, mask_ratio, batch)
    model.train().requires_grad_(True)
    return counted(lambda: model(meta(batch, n_chans, n_times), masking), True)


@functools.cache
def released_autoencoder_flops(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int,
                               mask_ratio: float) -> tuple[int, int]:
    """The same as the released code has it, for one window: all patches are embedded, a class token goes through
    encoder and decoder, and every token reaches the head."""
    import torch

    model, tokens = autoencoder_on_meta(encoder, decoder, n_chans, n_times)
    visible = tokens - int(tokens * mask_ratio)
    model.train().requires_grad_(True)

    def step() -> Tensor:
        embedded = model.encoder.tokenize(meta(1, n_chans, n_times))
        seen = model.embed(model.encoder.encode(embedded[:, [0, *range(visible)]]))
        hidden = torch.cat([seen, model.mask_token.expand(1, tokens - visible, -1)], 1)
        for block in model.blocks:
            hidden = block(hidden)
        prediction: Tensor = model.head(model.norm(hidden))
        return prediction

    return counted(step, True)


@functools.cache
def encoder_flops(encoder: Encoder, n_chans: int, n_times: int) -> tuple[int, int]:
    """FLOPs of an encoder on one trial: (forward, forward and backward to all its parameters)."""
    module, _ = encoder_on_meta(encoder, n_chans, n_times)
    module.train().requires_grad_(True)
    return counted(lambda: module(meta(1, n_chans, n_times)), True)


@functools.cache
def condition_flops(tokens: int, width: int, trained: bool, through: bool) -> int:
    """FLOPs of tau on the tokens [L, width] of one trial. trained: with the gradients of its parameters; through: of
    its input, too."""
    tau = tau_on_meta(tokens, width).requires_grad_(trained)
    return max(counted(lambda: tau(meta(1, tokens, width, requires_grad=through)), trained or through))


def tau_on_meta(tokens: int, width: int) -> Any:
    """tau for the context of Stable Diffusion 1.5."""
    import torch

    from models import configurations
    from models.condition import Tau

    with torch.device("meta"):
        return Tau(tokens, width, torch.empty(configurations.TOKENS, configurations.WIDTH),
                   torch.nn.LayerNorm(configurations.WIDTH))


def head_on_meta(aligned: str, tokens: int, width: int, out: int) -> Any:
    """h, of the context or (aligned="latent") of the encoder's tokens [L, width]."""
    import torch

    from models import configurations
    from models.condition import Head, LatentHead

    with torch.device("meta"):
        return LatentHead(tokens, width, out) if aligned == "latent" else Head(configurations.WIDTH, out)


@functools.cache
def head_flops(aligned: str, tokens: int, width: int, out: int, through: bool) -> int:
    """FLOPs of h on one trial, with the gradients of its parameters; through: of its input, too."""
    from models import configurations

    shape = (tokens, width) if aligned == "latent" else (configurations.TOKENS, configurations.WIDTH)
    head = head_on_meta(aligned, tokens, width, out)
    return max(counted(lambda: head(meta(1, *shape, requires_grad=through)), True))


def unet_on_meta(opens: frozenset[str], time: bool = False, checkpointed: bool = False) -> Any:
    """The U-Net with gradients in what `opens` names: "A", "norm2", or "all"; time: conditioned through the time step
    also, by a map that trains."""
    import torch

    from models import configurations, frozen

    unet = part("stable_diffusion_unet")
    if time:
        with torch.device("meta"):
            unet = configurations.stable_diffusion_unet()
    unet.requires_grad_("all" in opens)
    if opens & {"A", "norm2"}:
        frozen.open_for_tuning(unet, norm2="norm2" in opens)
    if time:
        unet.time_condition = time_condition_on_meta()
        unet.time_condition.attach(unet)
    (unet.enable_gradient_checkpointing if checkpointed else unet.disable_gradient_checkpointing)()
    return unet.train()


def time_condition_on_meta() -> Any:
    import torch

    from models import configurations
    from models.condition import TimeCondition

    with torch.device("meta"):
        return TimeCondition(configurations.TOKENS, configurations.WIDTH,
                             part("stable_diffusion_unet").time_embedding.linear_2.out_features)


def denoised(unet: Any, context: bool, batch: int = 1, dtype: Any = None) -> Tensor:
    """What the U-Net makes of a latent; with `context` the gradient flows to the condition."""
    import torch

    from models import configurations

    latents = meta(batch, unet.config["in_channels"], *[unet.config["sample_size"]] * 2, dtype=dtype)
    condition = meta(batch, configurations.TOKENS, configurations.WIDTH, dtype=dtype, requires_grad=context)
    prediction: Tensor = unet(latents, meta(batch, dtype=torch.int64), condition).sample
    return prediction


@functools.cache
def unet_flops(opens: frozenset[str], context: bool, time: bool = False, checkpointed: bool = False,
               batch: int = 1) -> tuple[int, int]:
    """FLOPs of the U-Net on one latent: (forward, forward and backward to what `opens` names and, with `context`, to
    the condition; 0 without either).

    time: the condition comes through the time step, too. checkpointed: every residual and transformer block is run
    forward again.
    """
    from torch.utils.checkpoint import set_checkpoint_early_stop

    unet = unet_on_meta(opens, time, checkpointed)
    with set_checkpoint_early_stop(False):
        return counted(lambda: denoised(unet, context, batch), bool(opens or context))


def evaluation_flops(time: bool = False) -> int:
    """FLOPs of one pass of the U-Net for one picture, with which a step of Full's fine-tuning begins, too."""
    return unet_flops(frozenset({"A"}), True, time)[0]


@functools.cache
def vae_flops(direction: str) -> int:
    """FLOPs of the VAE on one picture of 512 pixels: "encode" or "decode"."""
    from models import configurations

    vae, side = part("stable_diffusion_vae"), configurations.PIXELS
    if direction == "encode":
        return counted(lambda: vae.encode(meta(1, 3, side, side)), False)[0]
    return counted(lambda: vae.decode(meta(1, 4, side // 8, side // 8)), False)[0]


@functools.cache
def clip_flops(name: str = "clip") -> tuple[int, int]:
    """FLOPs of a CLIP's image tower on one picture: (forward, forward and backward to all its parameters)."""
    clip = part(name).requires_grad_(True)
    return counted(lambda: clip.encode_image(meta(1, 3, 224, 224)), True)


@functools.cache
def looked(name: str, side: int) -> int:
    """FLOPs of a network of models.configurations on one picture of that side."""
    net = part(name)
    return counted(lambda: net(meta(1, 3, side, side)), False)[0]


NETWORKS: dict[str, Callable[[], tuple[int, int]]] = {  # of Score.networks: FLOPs of a picture, and of a pair
    "inception": lambda: (looked("inception", 299), 0),
    "alexnet": lambda: (looked("alexnet", 256), 0),
    "lpips": lambda: (0, 2 * looked("alexnet", 512)),
}
