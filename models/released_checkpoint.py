"""Splits DreamDiffusion's released generation checkpoint into a U-Net, a VAE and a condition stage.

The checkpoint has the names of CompVis' latent diffusion; diffusers' own converters rename them. Every tensor is used,
or named in the result with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor, nn

from models.released import Condition, condition_sizes, load_condition, load_time

UNET, VAE, STAGE, EMA = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "model_ema."
TIME = f"{UNET}time_embed_condtion."  # spelt so in the release
TARGET = "image_embedder."  # CLIP's image tower
SCHEDULE = (  # buffers of latent diffusion that follow from its noise schedule
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "lvlb_weights", "logvar")
SHOWN = 3  # names in an error


@dataclass(frozen=True)
class Parts:
    """What a checkpoint holds. unet, vae: tensors by diffusers' names. unused: names of tensors by the reason."""

    unet: dict[str, Tensor]
    vae: dict[str, Tensor]
    condition: Condition
    unused: dict[str, list[str]]


def split_checkpoint(tensors: Mapping[str, Tensor], unet: UNet2DConditionModel, vae: AutoencoderKL,
                     schedule: DDPMScheduler, heads: int, use_ema: bool = False) -> Parts:
    """Splits a released model_state_dict.

    unet, vae: networks of the expected configuration, also without memory (device "meta"). heads: of the encoder's
    attention. use_ema: takes the U-Net and its time condition from the moving average. Raises ValueError, which names
    and counts the tensors, if some are absent, unknown or of another shape, and for another noise schedule.
    """
    tensors, unused = dict(tensors), dict[str, list[str]]()

    def set_aside(reason: str, names: list[str]) -> None:
        if names:
            unused[reason] = sorted(names)
        for name in names:
            del tensors[name]

    _check_schedule(tensors, schedule)
    set_aside("follows from the noise schedule", [name for name in SCHEDULE if name in tensors])
    set_aside("CLIP's image tower, used in training only", [name for name in tensors if name.startswith(TARGET)])
    averages = [name for name in tensors if name.startswith(EMA)]
    if use_ema:
        averaged = {name: f"{EMA}{''.join(name.split('.')[1:])}" for name in tensors if name.startswith(UNET)}
        _refuse("moving average", "absent", [new for new in averaged.values() if new not in tensors], len(averaged))
        tensors |= {name: tensors[new] for name, new in averaged.items()}
        set_aside("moving average, in use under its other names", averages)
    else:
        set_aside("moving average, not in use", averages)
    known = [name for name in tensors if name.startswith((UNET, VAE, STAGE))]
    _refuse("checkpoint", "unknown", [name for name in tensors if name not in set(known)], len(tensors))

    def take(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}

    stage, time = take(STAGE), take(TIME)
    width = time["2.weight"].shape[0] if "2.weight" in time else None
    if time and width is None:
        raise ValueError(f"the checkpoint has {TIME} without 2.weight")
    sizes: dict[str, Any] = condition_sizes(stage, heads, width)
    with torch.device(next(iter(stage.values())).device), torch.random.fork_rng(devices=[]):
        condition = Condition(**sizes)
    modules = {name: part for name, part in (("encoder", condition.encoder), ("tau", condition.tau),
                                             ("head", condition.head)) if part is not None}
    left = [f"{STAGE}{name}" for name in load_condition(modules, stage)]
    if condition.time is not None:
        load_time(condition.time, time)
    if left:
        unused["parameters that the released forward pass does not use"] = left
    return Parts(_convert("U-Net", convert_ldm_unet_checkpoint, tensors, UNET, unet),
                 _convert("VAE", convert_ldm_vae_checkpoint, tensors, VAE, vae), condition, unused)


def _convert(what: str, convert: Callable[..., dict[str, Tensor]], tensors: Mapping[str, Tensor], prefix: str,
             net: nn.Module) -> dict[str, Tensor]:
    """The tensors of one network under diffusers' names.

    The converter gets numbers instead of tensors, of as many dimensions, so that the source of each result is known.
    """
    given = [name for name in tensors if name.startswith(prefix)]
    numbers = {name: torch.full([1] * tensors[name].ndim, float(number)) for number, name in enumerate(given)}
    try:
        renamed = convert(numbers, config=net.config)
    except (KeyError, IndexError, ValueError) as error:  # the converters expect the names of a complete network
        raise ValueError(f"{what}: diffusers cannot convert these names ({error!r})") from error
    sources = {new: given[int(number)] for new, number in renamed.items()}
    expected = net.state_dict()
    _refuse(what, "absent", [new for new in expected if new not in sources], len(expected))
    used = {old for new, old in sources.items() if new in expected}
    _refuse(what, "unknown", [name for name in given if name not in used], len(given))
    converted = {}
    for new, old in sources.items():
        tensor = tensors[old]
        while tensor.ndim > renamed[new].ndim and tensor.shape[-1] == 1:  # a convolution of size 1 that became linear
            tensor = tensor[..., 0]
        converted[new] = tensor
    wrong = [f"{sources[new]} {list(converted[new].shape)} instead of {list(expected[new].shape)}"
             for new in expected if converted[new].shape != expected[new].shape]
    _refuse(what, "of another shape", wrong, len(expected))
    return converted


def _check_schedule(tensors: Mapping[str, Tensor], schedule: DDPMScheduler) -> None:
    """Raises ValueError unless the stored noise schedule, if there is one, is the expected one."""
    stored = tensors.get("alphas_cumprod")
    expected = schedule.alphas_cumprod
    if stored is None:
        return
    if stored.shape != expected.shape or not torch.allclose(stored.float(), expected, atol=1e-5):
        raise ValueError("alphas_cumprod is not that of the expected noise schedule")


def _refuse(what: str, problem: str, names: list[str], among: int) -> None:
    if names:
        raise ValueError(f"{what}: {len(names)} of {among} tensors {'is' if len(names) == 1 else 'are'} {problem}: "
                         f"{', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)}")
