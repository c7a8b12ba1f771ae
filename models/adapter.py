"""An IP-Adapter (Ye et al. 2023): diffusers' own pipelines generate images from embeddings in CLIP space.

The adapter is a safetensors file in the layout of the released ones: image_proj.proj and image_proj.norm map an
embedding to four tokens; ip_adapter.1.to_k_ip, .to_v_ip, ip_adapter.3... are keys and values of these tokens for every
cross-attention. At scale paper the model is SDXL-Turbo, a folder in diffusers' format.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from safetensors import SafetensorError
from safetensors.torch import save as serialise
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel
from transformers.utils import logging

from models import frozen

TOKENS = 4  # of an embedding
RELEASED = "ip-adapter_sdxl_vit-h.safetensors"  # the file in a folder of the released adapters


class _RowEmbeddings:
    """One embedding for each row of a batch. diffusers 0.42 gives all embeddings to every row."""

    def prepare_ip_adapter_image_embeds(self, image: None, embeddings: list[Tensor], *_: Any) -> list[Tensor]:
        """embeddings: one tensor [B, 1, D'], or [2B, 1, D'] with those for guidance first."""
        return embeddings


class _FromNoise:
    """Image-to-image from latents of any number of channels and from a given noise, which diffusers would draw."""

    def prepare_latents(self, image: Tensor, timestep: Tensor, *_: Any, **__: Any) -> Tensor:
        """image: [B, 2C, h, w], the latents to begin from and the noise."""
        start, noise = image.chunk(2, dim=1)
        return self.scheduler.add_noise(start, noise, timestep)


class TextToImage(_RowEmbeddings, diffusers.StableDiffusionPipeline):
    """Stable Diffusion's pipeline with one embedding for each image."""


class ImageToImage(_RowEmbeddings, _FromNoise, diffusers.StableDiffusionImg2ImgPipeline):
    """Stable Diffusion's pipeline from latents, with one embedding for each image."""


class TextToImageXL(_RowEmbeddings, diffusers.StableDiffusionXLPipeline):
    """SDXL's pipeline with one embedding for each image."""


class ImageToImageXL(_RowEmbeddings, _FromNoise, diffusers.StableDiffusionXLImg2ImgPipeline):
    """SDXL's pipeline from latents, with one embedding for each image."""


Pipe = TextToImage | ImageToImage | TextToImageXL | ImageToImageXL


def pipeline(vae: frozen.Vae, unet: UNet2DConditionModel, schedule: DDPMScheduler,
             adapter: str | Path | dict[str, Tensor], img2img: bool = False, sha256: str | None = None) -> Pipe:
    """Stable Diffusion's pipeline of these parts, with the adapter in the U-Net, which is changed in place.

    schedule: the U-Net's; sampled by DPM-Solver++ of second order, as in `frozen.sample`. adapter: a file or its
    tensors. Raises frozen.MissingWeights if it is missing, and frozen.BadWeights if it has another hash or does not fit
    the U-Net.
    """
    absent = ("text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor")
    pipe = (ImageToImage if img2img else TextToImage)(
        vae=vae.net, unet=unet, requires_safety_checker=False, **dict.fromkeys(absent))
    pipe.register_modules(scheduler=frozen.make_solver("dpmsolver++", schedule))  # the constructor would change it
    return _insert_adapter(pipe, adapter, sha256)


def turbo(folder: str | Path, adapter: str | Path, img2img: bool = False, sha256: str | None = None,
          adapter_sha256: str | None = None, dtype: torch.dtype = torch.float32) -> tuple[Pipe, frozen.Vae]:
    """SDXL-Turbo's pipeline from a folder in diffusers' format, with the adapter in its U-Net, and its VAE.

    Parts are held as `dtype`, but a VAE whose config demands it in float32 (SDXL's overflows in half precision). The
    scheduler is the folder's own. sha256: of the U-Net's weights. If weights exist in two precisions, those in half
    precision (".fp16.safetensors") are read, as in the released code. Errors as `pipeline`.
    """
    def make(folder: Path, sha256: str, dtype: torch.dtype) -> Any:
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(frozen.read_config(folder / "unet" / "config.json"))
            vae = AutoencoderKL.from_config(frozen.read_config(folder / "vae" / "config.json"))
        for net, name, digest, held in ((unet, "unet", sha256, dtype),
                                        (vae, "vae", "", torch.float32 if vae.config.force_upcast else dtype)):
            file = frozen.prefer_half(folder / name / frozen.DIFFUSERS_WEIGHTS)
            frozen.fill_part(net, frozen.read_tensors(file, digest), held)
        for name in ("text_encoder/config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"):
            for file in (folder / name, folder / name.replace("/", "_2/")):  # transformers invents a missing file
                frozen.weights_file(file)
        parts: dict[str, Any] = {name: CLIPTokenizer.from_pretrained(folder / name, local_files_only=True)
                                 for name in ("tokenizer", "tokenizer_2")}
        for name, kind in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
            file = frozen.weights_file(frozen.prefer_half(folder / name / frozen.TIMM_WEIGHTS))
            parts[name] = read(kind, folder / name, dtype, "fp16" if ".fp16." in file.name else None)
        schedule = frozen.read_config(folder / "scheduler" / frozen.SCHEDULE)
        index = frozen.read_config(folder / "model_index.json")
        if not hasattr(diffusers, schedule["_class_name"]):
            raise ValueError(f"diffusers {diffusers.__version__} has no scheduler {schedule['_class_name']}")
        scheduler = getattr(diffusers, schedule["_class_name"]).from_config(schedule)
        pipe = (ImageToImageXL if img2img else TextToImageXL)(
            vae=vae, unet=unet, scheduler=scheduler,
            force_zeros_for_empty_prompt=index["force_zeros_for_empty_prompt"], add_watermarker=False, **parts)
        return _Pipeline(pipe)

    pipe = frozen.load_folder(make, folder, sha256, dtype).pipe
    vae = frozen.freeze(frozen.Vae(pipe.vae.config.latent_channels, pipe.vae))
    return _insert_adapter(pipe, adapter, adapter_sha256), vae


@torch.no_grad()
def prompts(pipe: Pipe, captions: list[str]) -> tuple[Tensor, Tensor]:
    """SDXL's encoding of captions: tokens [B, M, D] of both text encoders, pooled output [B, P] of the second."""
    context, _, pooled, _ = pipe.encode_prompt(captions, do_classifier_free_guidance=False)
    return context, pooled


@torch.no_grad()
def draw(pipe: Pipe, embeddings: Tensor, context: Tensor, null: Tensor, noise: Tensor, steps: int, guidance: float,
         start: Tensor | None = None, strength: float = 1.0, pooled: Tensor | None = None,
         null_pooled: Tensor | None = None) -> Tensor:
    """Latents [B, C, h, w] float32 for embeddings [B, D'] (unit vectors) and prompts `context` [B, M, D].

    noise: [B, C, h, w]; everything random follows from it (a sampler that adds noise in each step is seeded by it,
    image by image). guidance: above 1, each step is one call of the U-Net with 2B rows, the first half under `null`
    [1, M, D] with zeros instead of embeddings, as the adapter was trained. start: [B, C, h, w], latents to begin from
    at `strength` (share of the steps that are taken); only for a pipeline made with img2img, which needs it. pooled
    [B, P], null_pooled [1, P]: of SDXL only (`prompts`). Raises ValueError if `start` and the pipeline do not fit.
    """
    if (start is not None) != isinstance(pipe, _FromNoise):
        raise ValueError("`start` is needed by a pipeline made with img2img, and only by such a pipeline")
    dtype = pipe.unet.dtype
    options: dict[str, Any] = {"latents": noise.to(dtype)} if start is None else {
        "image": torch.cat([start, noise.to(start)], dim=1).to(dtype), "strength": strength}
    embeddings = embeddings[:, None].to(dtype)
    if guidance > 1:
        embeddings = torch.cat([torch.zeros_like(embeddings), embeddings])
        options["negative_prompt_embeds"] = null.expand_as(context).to(dtype)
    if pooled is not None:
        options["pooled_prompt_embeds"] = pooled.to(dtype)
        if guidance > 1:
            options["negative_pooled_prompt_embeds"] = null_pooled.expand_as(pooled).to(dtype)
    return pipe(prompt_embeds=context.to(dtype), ip_adapter_image_embeds=[embeddings], num_inference_steps=steps,
                guidance_scale=guidance, generator=noise_generators(noise), output_type="latent",
                **options).images.float()


def fresh(unet: UNet2DConditionModel, embedding: int) -> dict[str, Tensor]:
    """The tensors of an untrained adapter for embeddings of that many dimensions, by their names in its file.

    Keys and values begin as those of the prompt's tokens, the projection as torch's layers (released code).
    """
    width = unet.config.cross_attention_dim
    project, norm = nn.Linear(embedding, TOKENS * width), nn.LayerNorm(width)
    tensors = {f"image_proj.{name}.{key}": value for name, layer in (("proj", project), ("norm", norm))
               for key, value in layer.state_dict().items()}
    for number, attention in _attentions(unet):
        tensors[f"ip_adapter.{number}.to_k_ip.weight"] = attention.to_k.weight.detach().clone()
        tensors[f"ip_adapter.{number}.to_v_ip.weight"] = attention.to_v.weight.detach().clone()
    return tensors


def trained(unet: UNet2DConditionModel) -> dict[str, nn.Parameter]:
    """The parameters of the adapter in a U-Net, by their names in the adapter's file."""
    [projection] = unet.encoder_hid_proj.image_projection_layers
    named = {f"image_proj.{name.replace('image_embeds', 'proj')}": parameter
             for name, parameter in projection.named_parameters()}
    for number, attention in _attentions(unet):
        named |= {f"ip_adapter.{number}.{name.replace('.0.', '.')}": parameter
                  for name, parameter in attention.processor.named_parameters()}
    return named


def save(tensors: dict[str, Tensor], path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes an adapter's file."""
    path.write_bytes(serialise({name: tensor.detach().to("cpu", dtype).contiguous()
                                for name, tensor in sorted(tensors.items())}))


def load(path: str | Path, sha256: str | None = None) -> dict[str, Tensor]:
    """An adapter's tensors as stored, of a file or of RELEASED in a folder. Errors as `pipeline`."""
    path = Path(path) / RELEASED if Path(path).is_dir() else Path(path)
    cure = "restore the file, or make it again with: bench prior (tiny), bench fetch (paper)"
    try:
        return frozen.read_tensors(path, sha256 or "")
    except FileNotFoundError as error:
        raise frozen.MissingWeights(f"no IP-Adapter at {path}", cure) from error
    except (SafetensorError, ValueError) as error:
        raise frozen.BadWeights(f"{path} is not the expected IP-Adapter ({error})", cure) from error


class _Pipeline(nn.Module):
    """The networks of a pipeline as one module, so that `frozen.freeze` freezes all."""

    def __init__(self, pipe: Pipe):
        super().__init__()
        self.parts = nn.ModuleList(part for part in pipe.components.values() if isinstance(part, nn.Module))
        self.pipe = pipe


def read(kind: type[PreTrainedModel], folder: Path, dtype: torch.dtype, variant: str | None = None) -> PreTrainedModel:
    """A network of transformers from a folder in its format.

    Raises ValueError if the file does not fill it exactly; stored position_ids, which old files have, are ignored.
    """
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        net, report = kind.from_pretrained(folder, variant=variant, dtype=dtype, local_files_only=True,
                                           use_safetensors=True, output_loading_info=True)
    finally:
        if bars:
            logging.enable_progress_bar()
    unknown = [name for name in report["unexpected_keys"] if not name.endswith("position_ids")]
    wrong = {"lacks": report["missing_keys"], "has unknown": unknown, "has other shapes": report["mismatched_keys"]}
    if faults := [f"{what} {', '.join(sorted(map(str, names))[:3])}" for what, names in wrong.items() if names]:
        raise ValueError(f"the file {', '.join(faults)}")
    return net


def _insert_adapter(pipe: Any, adapter: str | Path | dict[str, Tensor], sha256: str | None) -> Any:
    """The pipeline with the adapter in its U-Net, everything frozen, without a progress bar."""
    tensors, name = (adapter, "the adapter") if isinstance(adapter, dict) else (load(adapter, sha256), adapter)
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    projection = tensors.get("image_proj.proj.weight")
    with torch.device("meta"):
        layout = fresh(pipe.unet, 1 if projection is None or projection.ndim != 2 else projection.shape[1])
    wanted = {key: tensor.shape for key, tensor in layout.items()}
    problem = f"{name} does not fit this U-Net:"
    for what, keys in (("lacks", wanted.keys() - tensors.keys()), ("has unknown", tensors.keys() - wanted.keys())):
        if keys:
            raise frozen.BadWeights(f"{problem} it {what} {', '.join(sorted(keys)[:3])}")
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key]:
            raise frozen.BadWeights(f"{problem} {key} is {list(tensor.shape)}, expected {list(wanted[key])}")
        part, _, inner = key.partition(".")
        parts[part][inner] = tensor.to(pipe.unet.device, pipe.unet.dtype)
    with torch.random.fork_rng(devices=[]), frozen.quiet():
        pipe.load_ip_adapter(parts, subfolder="", weight_name="", image_encoder_folder=None)
    frozen.freeze(pipe.unet)
    channels = pipe.unet.config.in_channels * (2 if isinstance(pipe, _FromNoise) else 1)
    pipe.image_processor = VaeImageProcessor(vae_scale_factor=pipe.vae_scale_factor, vae_latent_channels=channels)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _attentions(unet: UNet2DConditionModel) -> list[tuple[int, nn.Module]]:
    """The cross-attentions with their numbers in an adapter's file: odd, in the order of `attn_processors`."""
    names = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    return [(2 * index + 1, unet.get_submodule(name)) for index, name in enumerate(names)]


def noise_generators(noise: Tensor) -> list[torch.Generator]:
    """One generator for each image, seeded by the SHA-256 of its noise."""
    digests = [hashlib.sha256(row.float().cpu().numpy().tobytes()).digest() for row in noise]
    return [torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1) for digest in digests]
