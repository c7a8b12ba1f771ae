"""The pre-trained parts: judge, VAE, CLIP and U-Net. Only this package loads them, freezes them and opens parameters.

A part is a file (scale tiny: safetensors of a small configuration of a real library, with its constructor's arguments
in the metadata) or a folder in the library's own format: diffusers' (the schedule beside it in ../scheduler),
open_clip's or timm's. A judge may also be a checkpoint of timm. Each is loaded completely or not at all; no weights are
random.
"""

# ruff: noqa: F401, I001  (the names that other files use)
from models.frozen.parts import CONTEXT, EMBEDDING, WIDTH, DIFFUSERS_WEIGHTS, OLD_ATTENTION, TIMM_WEIGHTS, TIMM_PICKLED
from models.frozen.parts import AnyPart, BadWeights, Clip, Judge, MissingWeights, OpenClip, Part, TimmJudge, Vae
from models.frozen.parts import freeze, latent_shape, make_unet, open_for_tuning
from models.frozen.load import load_clip, load_folder, load_judge, load_part, load_unet, load_vae, prefer_half, save
from models.frozen.load import fill_part, hash_file, quiet, read_config, read_tensors, weights_file
from models.frozen.checkpoints import TORCH, WRAPPERS, Checkpoint, read_checkpoint
from models.frozen.crop import Crop
from models.frozen.sample import SCHEDULE, make_solver, noise_schedule, sample
