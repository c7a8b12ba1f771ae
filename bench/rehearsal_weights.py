"""Frozen parts for the scale rehearsal: random weights of small networks, in the real formats of their libraries.

What they say means nothing; that they are read by the code that reads the real ones is the point.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.errors import ENVIRONMENT, BenchError
from bench.files import sha256
from bench.stages import Weights

SIDE = 64  # pixels of a picture's side; latents are [4, 8, 8], the condition is [77, 32]
WIDTH = 32  # D, of a condition's token; and D', of CLIP space
FOLDERS = {"vae": "stable-diffusion/vae", "unet": "stable-diffusion/unet", "clip": "clip", "judge": "judge"}
MAIN = {"vae": "diffusion_pytorch_model.safetensors", "unet": "diffusion_pytorch_model.safetensors",
        "clip": "open_clip_model.safetensors", "judge": "model.safetensors"}
BESIDE = {"unet": "stable-diffusion/scheduler/"}  # what a part is not complete without
PROVENANCE = "provenance.json"


def write_rehearsal(folder: Path, seed: int) -> dict[str, Weights]:
    """Writes all parts and provenance.json into `folder`, the same bytes for the same seed; returns the parts."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _diffusers(folder / "stable-diffusion")
        _open_clip(folder / FOLDERS["clip"])
        _timm(folder / FOLDERS["judge"])
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != PROVENANCE)
    record = {"schema": 1, "seed": seed, "weights": "random: none of these networks was trained",
              "files": {path.relative_to(folder).as_posix(): sha256(path) for path in files}}
    (folder / PROVENANCE).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return {name: rehearsal(folder, name) for name in FOLDERS}


def rehearsal(folder: Path, name: str) -> Weights:
    """A part that `write_rehearsal` wrote, by the hash of its weights. Raises BenchError (exit 3) for a missing or
    changed one."""
    place, main = folder / FOLDERS[name], f"{FOLDERS[name]}/{MAIN[name]}"
    cure = "write the parts again"
    try:
        files = json.loads((folder / PROVENANCE).read_text())["files"]
        for file in (file for file in files if file.startswith((f"{FOLDERS[name]}/", BESIDE.get(name, f"{name}/")))):
            if (found := sha256(folder / file)) != files[file]:
                raise BenchError(f"{folder / file} has SHA-256 {found[:12]}, not {files[file][:12]}; {cure}",
                                 ENVIRONMENT)
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(f"{folder}: no complete part {name!r} for the rehearsal ({error!r}); {cure}",
                         ENVIRONMENT) from error
    return Weights(f"rehearsal/{name}", files[main], str(place))


def _diffusers(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_pndm import PNDMScheduler

    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=SIDE,
    ).save_pretrained(folder / "vae")
    UNet2DConditionModel(
        sample_size=SIDE // 8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=2, norm_num_groups=8,
    ).save_pretrained(folder / "unet")
    PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
                  set_alpha_to_one=False, steps_offset=1).save_pretrained(folder / "scheduler")


def _open_clip(folder: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    config = {"embed_dim": WIDTH, "quick_gelu": True,
              "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "patch_size": 16},
              "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2}}
    net = open_clip.CLIP(**config)
    folder.mkdir(parents=True)
    save_file(net.state_dict(), folder / MAIN["clip"])
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess},
                                                             indent=1) + "\n")


def _timm(folder: Path) -> None:
    import timm
    from timm.models import save_for_hf

    size = (3, SIDE, SIDE)
    net = timm.create_model("test_vit", img_size=SIDE, num_classes=1000)
    save_for_hf(net, str(folder), model_args={"img_size": SIDE}, safe_serialization=True,
                model_config={"pretrained_cfg": {"input_size": size, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}})
