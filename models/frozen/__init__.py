"""The pre-trained parts: judge, VAE, CLIP and U-Net. They are loaded, held without gradients and opened only here.

A part is a file or a folder. The file (scale tiny) is safetensors of a small configuration of a real library; what its
constructor needs to know (the words of the vocabulary, the number of classes) stands in the file's metadata. The folder
is in the library's own format: diffusers' (config.json, diffusion_pytorch_model.safetensors, the schedule beside it in
../scheduler), open_clip's (open_clip_config.json, open_clip_model.safetensors) or timm's (config.json,
model.safetensors). Either is loaded completely or not at all, and nothing is ever random.
"""

from __future__ import annotations

from models.frozen.load import (
    fill_part,
    load_clip,
    load_folder,
    load_judge,
    load_part,
    load_unet,
    load_vae,
    quiet,
    read_config,
    read_tensors,
    save,
    weights_file,
)
from models.frozen.parts import (
    CONTEXT,
    DIFFUSERS_WEIGHTS,
    EMBEDDING,
    OLD_ATTENTION,
    OPEN_CLIP_WEIGHTS,
    SIZE,
    TIMM_WEIGHTS,
    WIDTH,
    AnyNet,
    AnyPart,
    BadWeights,
    Clip,
    Judge,
    MissingWeights,
    OpenClip,
    Part,
    TimmJudge,
    Vae,
    freeze,
    latent_shape,
    make_unet,
    open_for_tuning,
)
from models.frozen.sample import SCHEDULE, make_solver, noise_schedule, sample

__all__ = ["CONTEXT", "DIFFUSERS_WEIGHTS", "EMBEDDING", "OLD_ATTENTION", "OPEN_CLIP_WEIGHTS", "SCHEDULE", "SIZE", "TIMM_WEIGHTS", "WIDTH", "AnyNet", "AnyPart", "BadWeights", "Clip", "Judge", "MissingWeights", "OpenClip", "Part", "TimmJudge", "Vae", "fill_part", "freeze", "latent_shape", "load_clip", "load_folder", "load_judge", "load_part", "load_unet", "load_vae", "make_solver", "make_unet", "noise_schedule", "open_for_tuning", "quiet", "read_config", "read_tensors", "sample", "save", "weights_file"]
