"""The networks of scale paper on the meta device, and their FLOPs for one sample."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from bench.cost.counting import count_flops, forward_flops, meta, on_meta, part
from bench.experiment.stages import Decoder, Encoder
from bench.runtime import Runtime
from models.parameters import PIXELS, TOKENS, WIDTH

if TYPE_CHECKING:
    from torch import Tensor


Counts = TypeVar("Counts", int, tuple[int, int])
EQUAL_BLOCKS = ("msm_vit",)  # encoders whose blocks are equal and follow one another


def by_depth(count: Callable[..., Counts]) -> Callable[..., Counts]:
    """Caches count(encoder, ...). Where the count is linear in the depth, only depths 1 and 2 are counted.

    An encoder of EQUAL_BLOCKS and a decoder, if it is among the arguments, have equal blocks: each block adds as much
    as the second does.
    """
    count = functools.cache(count)

    @functools.cache
    def counted(encoder: Encoder, *others: Any, **options: Any) -> Counts:
        if encoder.name not in EQUAL_BLOCKS:
            return count(encoder, *others, **options)
        deep: list[Any] = [encoder, *(each for each in others if isinstance(each, Decoder))]

        def at(*depths: int) -> tuple[int, ...]:
            shallow = [replace(each, depth=depth) for each, depth in zip(deep, depths, strict=True)]
            result = count(*shallow, *others[len(deep) - 1:], **options)
            return result if isinstance(result, tuple) else (result,)

        ones = [1] * len(deep)
        base = total = at(*ones)
        for number, each in enumerate(deep):
            second = at(*ones[:number], 2, *ones[number + 1:])
            total = tuple(known + (each.depth - 1) * (more - less)
                          for known, more, less in zip(total, second, base, strict=True))
        return total if len(total) > 1 else total[0]  # type: ignore[return-value]

    return counted


@functools.cache
def encoder_on_meta(value: Encoder, n_chans: int, n_times: int) -> Any:
    """An encoder, and the shape [L, width] of its output for one trial."""
    import torch

    from bench.train.encoder import build

    with torch.device("meta"):
        encoder = build(value, n_chans, n_times, Runtime())
        with torch.no_grad():
            tokens = encoder.eval()(torch.empty(1, n_chans, n_times))
    return encoder, tuple(tokens.shape[1:])


@functools.cache
def autoencoder_on_meta(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int,
                        class_token: bool = False) -> Any:
    """The masked autoencoder of a pre-training, and its number of tokens."""
    import torch

    from models.mae import MaskedAutoencoder

    module, _ = encoder_on_meta(encoder, n_chans, n_times)
    with torch.device("meta"):
        with torch.no_grad():
            tokens, width = module.tokenize(torch.empty(1, n_chans, n_times)).shape[1:]
        model = MaskedAutoencoder(module, n_chans, n_times, width, tokens, decoder.width, decoder.depth, decoder.heads,
                                  decoder.mlp_ratio, class_token)
    return model, tokens


def masking_on_meta(tokens: int, mask_ratio: float, batch: int = 1, rounding: str = "masked") -> Any:
    """A random masking, drawn on the CPU."""
    import torch

    from models.masking import random_masking

    with torch.device("cpu"):
        return random_masking(batch, tokens, mask_ratio, torch.Generator(), rounding).to("meta")


def tau_on_meta(tokens: int, width: int, kind: str = "text") -> Any:
    """tau of a kind (Variant.tau) for the context of Stable Diffusion 1.5."""
    from torch import nn

    from models.condition import build_tau

    return on_meta(lambda: build_tau(kind, tokens, width, meta(TOKENS, WIDTH), nn.LayerNorm(WIDTH)))


def head_on_meta(aligned: str, tokens: int, width: int, out: int) -> Any:
    """h, on the context or (aligned="latent") on the encoder's tokens [L, width]."""
    from models.condition import Head, LatentHead

    return on_meta(LatentHead, tokens, width, out) if aligned == "latent" else on_meta(Head, WIDTH, out)


def time_condition_on_meta() -> Any:
    """The map from the context to the U-Net's time embedding."""
    from models.condition import TimeCondition

    return on_meta(TimeCondition, TOKENS, WIDTH, part("stable_diffusion_unet").time_embedding.linear_2.out_features)


def unet_on_meta(opens: frozenset[str], time: bool = False, checkpointed: bool = False) -> Any:
    """The U-Net with gradients in what `opens` names: "A", "norm2", or "all".

    time: it is also conditioned through the time step, by a map that trains.
    """
    from models import configurations, frozen

    unet = on_meta(configurations.stable_diffusion_unet) if time else part("stable_diffusion_unet")
    unet.requires_grad_("all" in opens)
    if opens & {"A", "norm2"}:
        frozen.open_for_tuning(unet, norm2="norm2" in opens)
    if time:
        unet.time_condition = time_condition_on_meta()
        unet.time_condition.attach(unet)
    (unet.enable_gradient_checkpointing if checkpointed else unet.disable_gradient_checkpointing)()
    return unet.train()


def denoise(unet: Any, context: bool, batch: int = 1, dtype: Any = None) -> Tensor:
    """The U-Net's prediction for a batch of latents; context: the condition needs its gradient."""
    latents = meta(batch, unet.config["in_channels"], *[unet.config["sample_size"]] * 2, dtype=dtype)
    condition = meta(batch, TOKENS, WIDTH, dtype=dtype, requires_grad=context)
    return unet(latents, meta(batch, dtype="int64"), condition).sample


@by_depth
def autoencoder_flops(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int, mask_ratio: float, batch: int = 1,
                      class_token: bool = False, rounding: str = "masked") -> tuple[int, int]:
    """FLOPs of a step of masked pre-training: (forward, forward and backward)."""
    model, tokens = autoencoder_on_meta(encoder, decoder, n_chans, n_times, class_token)
    masking = masking_on_meta(tokens, mask_ratio, batch, rounding)
    model.train().requires_grad_(True)
    return count_flops(lambda: model(meta(batch, n_chans, n_times), masking), True)


@by_depth
def released_autoencoder_flops(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int,
                               mask_ratio: float) -> tuple[int, int]:
    """As `autoencoder_flops` for one window, in the released code.

    All patches are embedded, a class token passes through encoder and decoder, and every token reaches the head.
    """
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
        return model.head(model.norm(hidden))

    return count_flops(step, True)


@by_depth
def encoder_flops(encoder: Encoder, n_chans: int, n_times: int) -> tuple[int, int]:
    """FLOPs of an encoder on one trial: (forward, forward and backward to all its parameters)."""
    module, _ = encoder_on_meta(encoder, n_chans, n_times)
    module.train().requires_grad_(True)
    return count_flops(lambda: module(meta(1, n_chans, n_times)), True)


@functools.cache
def condition_flops(tokens: int, width: int, trained: bool, through: bool, kind: str = "text") -> int:
    """FLOPs of tau (kind: Variant.tau) on the tokens [L, width] of one trial.

    trained: with the gradients of its parameters; through: with the gradient of its input.
    """
    tau = tau_on_meta(tokens, width, kind).requires_grad_(trained)
    return max(count_flops(lambda: tau(meta(1, tokens, width, requires_grad=through)), trained or through))


@functools.cache
def head_flops(aligned: str, tokens: int, width: int, out: int, through: bool) -> int:
    """FLOPs of h on one trial, with the gradients of its parameters; through: with the gradient of its input."""
    shape = (tokens, width) if aligned == "latent" else (TOKENS, WIDTH)
    head = head_on_meta(aligned, tokens, width, out)
    return max(count_flops(lambda: head(meta(1, *shape, requires_grad=through)), True))


@functools.cache
def unet_flops(opens: frozenset[str], context: bool, time: bool = False, checkpointed: bool = False,
               batch: int = 1) -> tuple[int, int]:
    """FLOPs of the U-Net on one latent: (forward, forward and backward), the latter 0 where nothing needs a gradient.

    opens, time: as `unet_on_meta`; context: the condition needs its gradient. checkpointed: every residual and
    transformer block runs forward twice.
    """
    from torch.utils.checkpoint import set_checkpoint_early_stop

    unet = unet_on_meta(opens, time, checkpointed)
    with set_checkpoint_early_stop(False):
        return count_flops(lambda: denoise(unet, context, batch), bool(opens or context), simple=not checkpointed)


def evaluation_flops(time: bool = False) -> int:
    """FLOPs of one forward pass of the U-Net for one image."""
    return unet_flops(frozenset({"A"}), True, time)[0]


@functools.cache
def vae_flops(direction: str) -> int:
    """FLOPs of the VAE on one image of 512 pixels: "encode" or "decode"."""
    shape = (3, PIXELS, PIXELS) if direction == "encode" else (4, PIXELS // 8, PIXELS // 8)
    return forward_flops(lambda: getattr(part("stable_diffusion_vae"), direction)(meta(1, *shape)))


@functools.cache
def clip_flops(name: str = "clip") -> tuple[int, int]:
    """FLOPs of a CLIP's image tower on one image: (forward, forward and backward to all its parameters)."""
    clip = part(name).requires_grad_(True)
    return count_flops(lambda: clip.encode_image(meta(1, 3, 224, 224)), True)


@functools.cache
def image_flops(name: str, side: int) -> int:
    """FLOPs of a network of models.configurations on one image of that side."""
    net = part(name)
    return forward_flops(lambda: net(meta(1, 3, side, side)))


NETWORKS: dict[str, Callable[[], tuple[int, int]]] = {  # by the names of Score.networks: FLOPs of an image, of a pair
    "inception": lambda: (image_flops("inception", 299), 0),
    "alexnet": lambda: (image_flops("alexnet", 256), 0),
    "lpips": lambda: (0, 2 * image_flops("alexnet", 512)),
}
