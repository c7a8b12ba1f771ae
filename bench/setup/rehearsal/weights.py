"""Writes the scale rehearsal's frozen parts: small random networks, in the formats of their libraries.

Their outputs mean nothing; they are read by the same code as the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.stages import Weights
from bench.files import sha256

if TYPE_CHECKING:
    from torch import nn

Make = Callable[[], Any]  # builds a network
SIDE = 64  # pixels; latents are [4, 8, 8], the condition is [77, 32]
WIDTH = 32  # D of a condition's token, and D' of CLIP space
FOLDERS = {"vae": "stable-diffusion/vae", "unet": "stable-diffusion/unet", "clip": "clip", "judge": "judge",
           "turbo": "sdxl-turbo", "adapter": "IP-Adapter/sdxl_models", "clip_h": "clip-h", "captioner": "git"}
MAIN = {"vae": "diffusion_pytorch_model.safetensors", "unet": "diffusion_pytorch_model.safetensors",
        "clip": "open_clip_model.safetensors", "judge": "model.safetensors",
        "turbo": "unet/diffusion_pytorch_model.fp16.safetensors", "adapter": "ip-adapter_sdxl_vit-h.safetensors",
        "clip_h": "open_clip_model.safetensors", "captioner": "model.safetensors"}
ALSO = {"unet": "stable-diffusion/scheduler/"}  # further files that belong to a part
PROVENANCE = "provenance.json"


def write_rehearsal(folder: Path, seed: int) -> dict[str, Weights]:
    """Writes all parts and provenance.json into `folder`, with equal bytes for equal seeds; returns the parts."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_stable_diffusion(folder / "stable-diffusion", _make_vae, _make_unet)
        write_open_clip(folder / FOLDERS["clip"], _clip_config(quick_gelu=True))
        write_timm(folder / FOLDERS["judge"], _make_judge(), SIDE)
        unet = write_sdxl(folder / FOLDERS["turbo"], _make_sdxl_vae, _make_sdxl_unet, _make_sdxl_texts())
        write_adapter(folder / FOLDERS["adapter"], unet, WIDTH)
        write_open_clip(folder / FOLDERS["clip_h"], _clip_config(quick_gelu=False))
        write_git(folder / FOLDERS["captioner"], _make_git(), _WORDS)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != PROVENANCE)
    record = {"schema": 1, "seed": seed, "weights": "random: none of these networks was trained",
              "files": {path.relative_to(folder).as_posix(): sha256(path) for path in files}}
    (folder / PROVENANCE).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return {name: load_part(folder, name) for name in FOLDERS}


def load_part(folder: Path, name: str) -> Weights:
    """Returns a written part, with the hash of its weights. Raises BenchError (exit 3) if it is absent or changed."""
    cure = "delete the folder; the next run writes it again"
    try:
        files = json.loads((folder / PROVENANCE).read_text())["files"]
        for file in (file for file in files if file.startswith((f"{FOLDERS[name]}/", ALSO.get(name, f"{name}/")))):
            if (actual := sha256(folder / file)) != files[file]:
                raise BenchError(f"{folder / file} has SHA-256 {actual[:12]}, not {files[file][:12]}; {cure}",
                                 ENVIRONMENT)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{folder}: no complete part {name!r} for the rehearsal ({error!r}); {cure}",
                         ENVIRONMENT) from error
    return Weights(f"rehearsal/{name}", files[f"{FOLDERS[name]}/{MAIN[name]}"], str(folder / FOLDERS[name]))


def _write_json(path: Path, value: Any, indent: int = 2) -> None:
    path.write_text(json.dumps(value, indent=indent) + "\n")


def write_stable_diffusion(folder: Path, make_vae: Make, make_unet: Make) -> None:
    """Writes a VAE, a U-Net and the noise schedule of Stable Diffusion 1.5, as diffusers does."""
    from diffusers.schedulers.scheduling_pndm import PNDMScheduler

    make_vae().save_pretrained(folder / "vae")
    make_unet().save_pretrained(folder / "unet")
    PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
                  set_alpha_to_one=False, steps_offset=1).save_pretrained(folder / "scheduler")


def write_open_clip(folder: Path, config: dict[str, Any], make: Callable[..., Any] | None = None) -> None:
    """Writes a folder of open_clip. config: its `model_cfg`; make: builds the network from it, else open_clip does."""
    import open_clip
    from safetensors.torch import save_file

    net = (make or open_clip.CLIP)(**config)
    folder.mkdir(parents=True)
    save_file(net.state_dict(), folder / MAIN["clip"])
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    _write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocess}, 1)


def write_timm(folder: Path, net: nn.Module, side: int) -> None:
    """Writes a folder of timm for a vision transformer on images of that side."""
    from timm.models import save_for_hf

    about = {"input_size": (3, side, side), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    save_for_hf(net, str(folder), model_args={"img_size": side}, safe_serialization=True,
                model_config={"pretrained_cfg": about})


def write_sdxl(folder: Path, make_vae: Make, make_unet: Make, texts: Iterable[Any]) -> Any:
    """Writes a pipeline folder like SDXL-Turbo's in half precision, with its names of tensors and its tokenizers.

    texts: the two text encoders. Returns the U-Net.
    """
    from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
    from safetensors.torch import save_file

    half = {"variant": "fp16"}
    make_vae().half().save_pretrained(folder / "vae", **half)
    unet = make_unet().half()
    unet.save_pretrained(folder / "unet", **half)
    EulerAncestralDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                                    timestep_spacing="trailing").save_pretrained(folder / "scheduler")
    words = _byte_pairs()
    for net, name, pad in zip(texts, ("", "_2"), ("<|endoftext|>", "!"), strict=True):
        path = folder / f"text_encoder{name}"
        net.config.save_pretrained(path)
        tensors = net.state_dict()
        if not any(key.startswith("text_model.") for key in tensors):
            tensors = {f"text_model.{key}": tensor for key, tensor in tensors.items()}
        save_file(tensors, path / "model.fp16.safetensors", {"format": "pt"})
        _write_tokenizer(folder / f"tokenizer{name}", words, pad)
    index = {"_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.24.0.dev0",
             "force_zeros_for_empty_prompt": True, "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
             "text_encoder": ["transformers", "CLIPTextModel"],
             "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
             "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "CLIPTokenizer"],
             "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    _write_json(folder / "model_index.json", index)
    return unet


def _byte_pairs() -> dict[str, int]:
    """Returns the vocabulary of CLIP's byte-pair encoding without merges: each byte, inside a word and at its end."""
    import open_clip.tokenizer

    single = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*single, *(f"{byte}</w>" for byte in single), "<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}


def _write_tokenizer(folder: Path, words: dict[str, int], pad: str) -> None:
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
               "pad_token": pad}
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(folder / "tokenizer_config.json",
                special | {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True})


def write_adapter(folder: Path, unet: Any, width: int) -> None:
    """Writes a file like the released adapter for SDXL and CLIP ViT-H, for this U-Net and embeddings of that width."""
    import torch

    from models import adapter

    folder.mkdir(parents=True)
    adapter.save(adapter.fresh(unet, width), folder / MAIN["adapter"], torch.float16)


def write_git(folder: Path, net: Any, words: list[str]) -> None:
    """Writes a folder like GIT's, with its names of tensors. words: the vocabulary, special tokens first."""
    import torch
    from safetensors.torch import save_file

    vision = net.config.vision_config
    net.config.save_pretrained(folder)
    net.generation_config.save_pretrained(folder)
    positions = {"git.embeddings": net.config.max_position_embeddings,
                 "git.image_encoder.vision_model.embeddings": (vision.image_size // vision.patch_size) ** 2 + 1}
    numbers = {f"{name}.position_ids": torch.arange(many)[None] for name, many in positions.items()}
    save_file(net.state_dict() | numbers, folder / MAIN["captioner"], {"format": "pt"})
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    _write_json(folder / "special_tokens_map.json", SPECIAL)
    _write_json(folder / "tokenizer_config.json",
                SPECIAL | {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"})
    processor = {"image_processor_type": "CLIPImageProcessor", "processor_class": "GitProcessor", "resample": 3,
                 "size": {"shortest_edge": vision.image_size},
                 "crop_size": {"height": vision.image_size, "width": vision.image_size},
                 "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    _write_json(folder / "preprocessor_config.json", processor)


SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
           "mask_token": "[MASK]"}
_WORDS = [*SPECIAL.values(), "a", "dog", "cat", "on", "the", "grass", "of", "two", "red", "bus", "##s"]


# The rehearsal's networks; each draws its weights from torch's generator when it is built.


def _clip_config(quick_gelu: bool) -> dict[str, Any]:
    return {"embed_dim": WIDTH, "quick_gelu": quick_gelu,
            "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "patch_size": 16},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2}}


def _make_vae(**settings: Any) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=SIDE,
        **settings)


def _make_sdxl_vae() -> Any:
    return _make_vae(scaling_factor=0.13025, force_upcast=True)


def _make_unet() -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE // 8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=2, norm_num_groups=8)


def _make_sdxl_unet() -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE // 8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2), attention_head_dim=(2, 4), use_linear_projection=True,
        cross_attention_dim=2 * WIDTH, norm_num_groups=8, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH)


def _make_sdxl_texts() -> Iterable[Any]:
    """Yields the two text encoders, each built when it is taken."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    for kind, act in ((CLIPTextModel, "quick_gelu"), (CLIPTextModelWithProjection, "gelu")):
        yield kind(CLIPTextConfig(
            vocab_size=len(_byte_pairs()), hidden_size=WIDTH, intermediate_size=2 * WIDTH, projection_dim=WIDTH,
            num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77, hidden_act=act, bos_token_id=0,
            eos_token_id=2, pad_token_id=1, dtype=torch.float16)).half()


def _make_judge() -> nn.Module:
    import timm

    return timm.create_model("test_vit", img_size=SIDE, num_classes=1000)


def _make_git() -> Any:
    from transformers import GitConfig, GitForCausalLM

    small: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2,
                             "num_attention_heads": 2}
    return GitForCausalLM(GitConfig(
        vision_config=small | {"image_size": SIDE, "patch_size": 16}, vocab_size=len(_WORDS), bos_token_id=2,
        eos_token_id=3, max_position_embeddings=128, **small))
