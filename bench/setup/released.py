"""Imports DreamDiffusion's released generation checkpoint: a folder of parts that the suite's loaders read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data.unpickle import load_checkpoint
from bench.errors import ENVIRONMENT, BenchError
from bench.files import sha256, writing
from bench.systems.released import MANIFEST

STATE = "model_state_dict"
CONFIGS = ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")


def import_checkpoint(file: Path, folder: Path, like: Path | None = None, heads: int = 16, use_ema: bool = False
                      ) -> dict[str, Any]:
    """Writes unet/, vae/, scheduler/, condition.safetensors and the manifest into a new folder; returns the manifest.

    like: a folder with CONFIGS, which say what U-Net, VAE and noise schedule to expect; None: Stable Diffusion 1.5.
    heads: of the EEG encoder's attention. Raises BenchError: exit 2 for a file that is not such a checkpoint and for a
    folder that exists, exit 3 for a missing configuration, exit 75 for a full disk.
    """
    import torch
    from safetensors.torch import save_file

    from models import frozen
    from models.released_checkpoint import split_checkpoint

    if folder.exists():
        raise BenchError(f"{folder} exists; remove it, or import into another folder with --to")
    unet, vae, scheduler = _expected(like)
    content, skipped = load_checkpoint(file)
    state = content.get(STATE) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise BenchError(f"{file} has no {STATE} of tensors alone; expected DreamDiffusion's generation checkpoint")
    with frozen.quiet():
        try:
            parts = split_checkpoint(state, unet, vae, scheduler, heads, use_ema)
        except ValueError as error:
            raise BenchError(f"{file} is not DreamDiffusion's generation checkpoint as expected: {error}") from error
    work = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    with writing(folder):
        try:
            for name, net, tensors in (("unet", unet, parts.unet), ("vae", vae, parts.vae)):
                net.save_config(work / name)
                save_file({key: tensor.contiguous() for key, tensor in tensors.items()},
                          work / name / frozen.DIFFUSERS_WEIGHTS)
            scheduler.save_config(work / "scheduler")
            condition: Any = parts.condition  # no frozen part of the suite's own, but stored like these
            frozen.save(condition, work / "condition.safetensors")
            files = {"unet": f"unet/{frozen.DIFFUSERS_WEIGHTS}", "vae": f"vae/{frozen.DIFFUSERS_WEIGHTS}",
                     "condition": "condition.safetensors"}
            manifest = {
                "schema": 1, "source": {"file": file.name, "bytes": file.stat().st_size, "sha256": sha256(file)},
                "ema": use_ema, "skipped": skipped, "unused": parts.unused,
                "tensors": {"unet": len(parts.unet), "vae": len(parts.vae),
                            "condition": len(parts.condition.state_dict())},
                "channels": parts.condition.arguments["channels"], "times": parts.condition.arguments["times"],
                "scheduler": sha256(work / CONFIGS[2]),
                "parts": {name: {"path": path, "sha256": sha256(work / path)} for name, path in files.items()}}
            (work / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return manifest


def _expected(like: Path | None) -> tuple[Any, Any, Any]:
    """The expected U-Net and VAE, without memory, and the noise schedule."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel

    from models import configurations, frozen

    with torch.device("meta"):
        if like is None:
            unet, vae = configurations.stable_diffusion_unet(), configurations.stable_diffusion_vae()
    if like is None:
        return unet, vae, PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                        skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    if missing := [name for name in CONFIGS if not (like / name).is_file()]:
        raise BenchError(f"--like {like}: no {missing[0]}; expected a folder with {', '.join(CONFIGS)}", ENVIRONMENT)
    configs = [json.loads((like / name).read_text()) for name in CONFIGS]
    with torch.device("meta"), frozen.quiet():
        unet, vae = UNet2DConditionModel.from_config(configs[0]), AutoencoderKL.from_config(configs[1])
    return unet, vae, PNDMScheduler.from_config(configs[2])
