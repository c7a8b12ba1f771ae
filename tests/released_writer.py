"""Writes a checkpoint like DreamDiffusion's released one: small networks under CompVis' names, and a pickled object."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from models.encoders.msm_vit import positions
from models.released import CONDITION, TIME, Condition

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
UNET = {"conv_in.": "input_blocks.0.0.", "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.", "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
        "mid_block.resnets.0.": "middle_block.0.", "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2."}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
PREFIX = "model.diffusion_model."


def unet_names(net: UNet2DConditionModel) -> dict[str, str]:
    """CompVis' name of each tensor of a U-Net."""
    layers, names, result = net.config.layers_per_block + 1, list(net.state_dict()), {}
    for name in names:
        new = name
        for old, other in UNET.items():
            if name.startswith(old):
                new = other + name.removeprefix(old)
        if match := re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name):
            side, block, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
            first = 1 + block * layers if side == "down" else block * layers
            blocks = "input_blocks" if side == "down" else "output_blocks"
            has_attention = any(other.startswith(f"{side}_blocks.{block}.attentions.") for other in names)
            place = {"resnets": f"{first + layer}.0.{rest}", "attentions": f"{first + layer}.1.{rest}",
                     "downsamplers": f"{first + layers - 1}.0.{rest.replace('conv', 'op')}",
                     "upsamplers": f"{first + layers - 1}.{2 if has_attention else 1}.{rest}"}[kind]
            new = f"{blocks}.{place}"
        if ".resnets." in name:
            new = re.sub(rf"\b({'|'.join(RESNET)})\b", lambda found: RESNET[found[0]], new)
        result[name] = PREFIX + new
    return result


def vae_names(net: AutoencoderKL) -> dict[str, str]:
    """CompVis' name of each tensor of a VAE."""
    last, result = len(net.config.block_out_channels) - 1, {}
    for name in net.state_dict():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets", lambda found: f"up.{last - int(found[1])}.block", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{last - int(found[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", new)
        if ".mid_block.attentions.0." in name:
            head, inner = new.split(".mid_block.attentions.0.")
            layer, _, kind = inner.rpartition(".")
            new = f"{head}.mid.attn_1.{VAE_ATTENTION[layer]}.{kind}"
        result[name] = f"first_stage_model.{new}"
    return result


def state_dict(unet: UNet2DConditionModel, vae: AutoencoderKL, condition: Condition) -> dict[str, Tensor]:
    """The released model_state_dict of these networks."""
    tensors = {new: unet.state_dict()[old] for old, new in unet_names(unet).items()}
    for old, new in vae_names(vae).items():
        tensor = vae.state_dict()[old]
        is_map = ".mid.attn_1." in new and new.endswith("weight") and tensor.ndim == 2
        tensors[new] = tensor[:, :, None, None] if is_map else tensor
    back = {inside: outside for outside, inside in CONDITION.items()}
    patch, width = condition.encoder.patch, condition.arguments["width"]
    for name, tensor in condition.state_dict().items():
        if name.startswith("time."):
            inside = name.removeprefix("time.")
            old = next(old for old, new in TIME.items() if inside.startswith(new))
            tensors[f"{PREFIX}time_embed_condtion.{old}{inside.removeprefix(TIME[old])}"] = tensor
            continue
        prefix = next(prefix for prefix in back if name.startswith(prefix))
        if name == "encoder.embed.weight":
            tensor = tensor.unflatten(1, (patch, -1)).transpose(1, 2)
        tensors[f"cond_stage_model.{back[prefix]}{name.removeprefix(prefix)}"] = tensor
    length = condition.arguments["times"] // patch
    tensors["cond_stage_model.mae.pos_embed"] = nn.functional.pad(positions(length, width), (0, 0, 1, 0))[None]
    tensors["cond_stage_model.mae.cls_token"] = tensors["cond_stage_model.mae.mask_token"] = torch.zeros(1, 1, width)
    tensors["image_embedder.transformer.class_embedding"] = torch.zeros(4)
    return tensors


def write_configs(folder: Path, side: int = 32, dim: int = 32
                  ) -> tuple[UNet2DConditionModel, AutoencoderKL, PNDMScheduler]:
    """Writes the configurations of small networks for images of so many pixels; returns the networks, random."""
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=side // 8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=dim, attention_head_dim=2, norm_num_groups=8).eval()
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=8,
        sample_size=side).eval()
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
                              set_alpha_to_one=False, steps_offset=1)
    unet.save_config(folder / "unet")
    vae.save_config(folder / "vae")
    scheduler.save_config(folder / "scheduler")
    return unet, vae, scheduler


def make_condition(channels: int, times: int, dim: int = 32, time: int | None = 64, embedding: int = 16) -> Condition:
    """A random condition stage with four heads."""
    torch.manual_seed(4)
    return Condition(channels, times, 32, 2, 4, 1.0, 4, 77, dim, embedding, time).eval()


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a checkpoint with the random state and an object of a class that no reader can import afterwards."""
    module: Any = ModuleType("config_of_the_release")
    module.Config = type("Config", (), {"__module__": module.__name__})
    sys.modules[module.__name__] = module
    try:
        config = module.Config()
        config.seed, config.roots, config.inner = 2022, ["a", "b"], module.Config()
        torch.save({"model_state_dict": tensors, "config": config, "state": torch.random.get_rng_state()}, path)
    finally:
        del sys.modules[module.__name__]
