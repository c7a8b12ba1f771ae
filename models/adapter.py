"""An IP-Adapter (Ye et al. 2023): pictures from points of CLIP space, drawn by diffusers' own pipelines.

The adapter is a safetensors file in the layout of the released ones: image_proj.proj and image_proj.norm make four
tokens of an embedding, ip_adapter.1.to_k_ip, .to_v_ip, ip_adapter.3... are keys and values of these tokens for every
cross-attention. It is loaded by `load_ip_adapter`; embeddings go in as `ip_adapter_image_embeds`. At scale paper the
model is SDXL-Turbo, a folder in diffusers' format.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import StableDiffusionImg2ImgPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import (
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from safetensors import SafetensorError
from safetensors.torch import save as serialise
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel
from transformers.utils import logging

from models import frozen

TOKENS = 4  # that an embedding becomes
RELEASED = "ip-adapter_sdxl_vit-h.safetensors"  # the file in a folder of the released adapters


class _EachItsOwn:
    """An embedding for each row of a batch. diffusers 0.42 repeats all of them for every row, as if they were of one
    picture that the rows share, and attends to the lot of them."""

    def prepare_ip_adapter_image_embeds(self, image: None, embeddings: list[Tensor], *_: Any) -> list[Tensor]:
        """embeddings: one tensor [B, 1, D'], or [2B, 1, D'] with those for guidance in front."""
        return embeddings


class _FromNoise:
    """Image-to-image from latents of any number of channels and from a given noise, which diffusers would draw."""

    def prepare_latents(self, image: Tensor, timestep: Tensor, *_: Any, **__: Any) -> Tensor:
        """image: [B, 2C, h, w], the latents to begin from and the noise."""
        start, noise = image.chunk(2, dim=1)
        return self.scheduler.add_noise(start, noise, timestep)


class Drawn(_EachItsOwn, StableDiffusionPipeline):
    """Stable Diffusion's pipeline, an embedding for each picture."""


class Redrawn(_EachItsOwn, _FromNoise, StableDiffusionImg2ImgPipeline):
    """The same, beginning from latents."""


class DrawnXL(_EachItsOwn, StableDiffusionXLPipeline):
    """SDXL's pipeline, an embedding for each picture."""


class RedrawnXL(_EachItsOwn, _FromNoise, StableDiffusionXLImg2ImgPipeline):
    """The same, beginning from latents."""


Pipe = Drawn | Redrawn | DrawnXL | RedrawnXL


def pipeline(vae: frozen.Vae, unet: UNet2DConditionModel, schedule: DDPMScheduler,
             adapter: str | Path | dict[str, Tensor], img2img: bool = False, sha256: str | None = None) -> Pipe:
    """Stable Diffusion's pipeline around these parts, with the adapter in the U-Net (which is changed in place).

    schedule: the U-Net's; sampled by DPM-Solver++ of second order, as `frozen.sample` does. adapter: a file or its
    tensors. Raises frozen.MissingWeights and frozen.BadWeights where it is not there, has another hash, or is none for
    this U-Net.
    """
    absent = ("text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor")
    pipe = (Redrawn if img2img else Drawn)(
        vae=vae.net, unet=unet, requires_safety_checker=False, **dict.fromkeys(absent))
    pipe.register_modules(scheduler=frozen.make_solver("dpmsolver++", schedule))  # its constructor would change it
    return _adapted(pipe, adapter, sha256)


def turbo(folder: str | Path, adapter: str | Path, img2img: bool = False, sha256: str | None = None,
          adapter_sha256: str | None = None, dtype: torch.dtype = torch.float32) -> tuple[Pipe, frozen.Vae]:
    """SDXL-Turbo's pipeline of a folder in diffusers' format, with the adapter in its U-Net; and its VAE, to decode.

    Parts are held as `dtype`, but in float32 a VAE whose config asks for that (SDXL's overflows in half precision). The
    scheduler is the folder's own. sha256: of the U-Net's weights. Of weights in two precisions those in half
    (".fp16.safetensors") are read, as by the released code. Errors as `pipeline`.
    """
    def make(folder: Path, sha256: str, dtype: torch.dtype) -> Any:
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(frozen.read_config(folder / "unet" / "config.json"))
            vae = AutoencoderKL.from_config(frozen.read_config(folder / "vae" / "config.json"))
        frozen.fill_part(unet, frozen.read_tensors(_weights(folder / "unet", frozen.DIFFUSERS_WEIGHTS), sha256), dtype)
        frozen.fill_part(vae, frozen.read_tensors(_weights(folder / "vae", frozen.DIFFUSERS_WEIGHTS), ""),
                       torch.float32 if vae.config.force_upcast else dtype)
        for name in ("text_encoder/config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"):
            for place in (folder / name, folder / name.replace("/", "_2/")):  # or their library makes up what is absent
                frozen.weights_file(place)
        parts: dict[str, Any] = {name: CLIPTokenizer.from_pretrained(folder / name, local_files_only=True)
                                 for name in ("tokenizer", "tokenizer_2")}
        for name, kind in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
            file = frozen.weights_file(_weights(folder / name, frozen.TIMM_WEIGHTS))
            parts[name] = read(kind, folder / name, dtype, "fp16" if ".fp16." in file.name else None)
        about = frozen.read_config(folder / "scheduler" / frozen.SCHEDULE)
        index = frozen.read_config(folder / "model_index.json")
        if not hasattr(diffusers, about["_class_name"]):
            raise ValueError(f"diffusers {diffusers.__version__} has no scheduler {about['_class_name']}")
        scheduler = getattr(diffusers, about["_class_name"]).from_config(about)
        pipe = (RedrawnXL if img2img else DrawnXL)(
            vae=vae, unet=unet, scheduler=scheduler,
            force_zeros_for_empty_prompt=index["force_zeros_for_empty_prompt"], add_watermarker=False, **parts)
        return _Loaded(pipe)

    pipe = frozen.load_folder(make, folder, sha256, dtype).pipe
    return _adapted(pipe, adapter, adapter_sha256), frozen.freeze(frozen.Vae(pipe.vae.config.latent_channels, pipe.vae))


@torch.no_grad()
def prompts(pipe: Pipe, captions: list[str]) -> tuple[Tensor, Tensor]:
    """What SDXL makes of captions: tokens [B, M, D] of both text encoders, and the second one's pooled [B, P]."""
    context, _, pooled, _ = pipe.encode_prompt(captions, do_classifier_free_guidance=False)
    return context, pooled


@torch.no_grad()
def draw(pipe: Pipe, embeddings: Tensor, context: Tensor, null: Tensor, noise: Tensor, steps: int, guidance: float,
         start: Tensor | None = None, strength: float = 1.0, pooled: Tensor | None = None,
         null_pooled: Tensor | None = None) -> Tensor:
    """Latents [B, C, h, w] float32 for embeddings [B, D'] (unit vectors) beside prompts `context` [B, M, D].

    noise: [B, C, h, w], of which alone follows everything random (a sampler that adds noise in each step is seeded by
    it, picture by picture). guidance: where it is more than 1, each step is one call of the U-Net with 2B rows, the
    first half under `null` [1, M, D] and zeros in place of the embeddings, as the adapter was trained. start:
    [B, C, h, w], latents to begin from at `strength` (share of the steps that are left), of a pipeline made with
    img2img. ValueError where one comes without the other. pooled: [B, P], and null_pooled [1, P]: of SDXL's prompts
    alone (`prompts`).
    """
    if (start is not None) != isinstance(pipe, _FromNoise):
        raise ValueError("latents to begin from need a pipeline made with img2img, and such a pipeline needs them")
    dtype = pipe.unet.dtype
    given: dict[str, Any] = {"latents": noise.to(dtype)} if start is None else {
        "image": torch.cat([start, noise.to(start)], dim=1).to(dtype), "strength": strength}
    embeddings = embeddings[:, None].to(dtype)
    if guidance > 1:
        embeddings = torch.cat([torch.zeros_like(embeddings), embeddings])
        given["negative_prompt_embeds"] = null.expand_as(context).to(dtype)
    if pooled is not None:
        given["pooled_prompt_embeds"] = pooled.to(dtype)
        if guidance > 1:
            given["negative_pooled_prompt_embeds"] = null_pooled.expand_as(pooled).to(dtype)
    return pipe(prompt_embeds=context.to(dtype), ip_adapter_image_embeds=[embeddings], num_inference_steps=steps,
                guidance_scale=guidance, generator=_generators(noise), output_type="latent", **given).images.float()


def fresh(unet: UNet2DConditionModel, embedding: int) -> dict[str, Tensor]:
    """An untrained adapter for embeddings of that many dimensions, by file name of tensor.

    Keys and values begin as those of the prompt's tokens, the projection as torch's layers do (released code).
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
    """The parameters of the adapter that a pipeline put into the U-Net, by their names in its file."""
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
    """An adapter's tensors, as they are in the file. Raises frozen.MissingWeights and frozen.BadWeights."""
    path = Path(path)
    path = path / RELEASED if path.is_dir() else path
    cure = "restore the file, or get it again with: bench prior (tiny), bench fetch (paper)"
    try:
        return frozen.read_tensors(path, sha256 or "")
    except FileNotFoundError as error:
        raise frozen.MissingWeights(f"no IP-Adapter at {path}; {cure}") from error
    except (SafetensorError, ValueError) as error:
        raise frozen.BadWeights(f"{path} is not the IP-Adapter that was expected ({error}); {cure}") from error


class _Loaded(nn.Module):
    """The networks of a pipeline as one module, for `frozen.freeze`."""

    def __init__(self, pipe: Pipe):
        super().__init__()
        self.parts = nn.ModuleList(part for part in pipe.components.values() if isinstance(part, nn.Module))
        self.pipe = pipe


def _weights(folder: Path, file: str) -> Path:
    """The weights in half precision, or else those without a variant in their name."""
    half = folder / file.replace(".safetensors", ".fp16.safetensors")
    return half if half.is_file() else folder / file


def read(kind: type[PreTrainedModel], folder: Path, dtype: torch.dtype, variant: str | None = None) -> PreTrainedModel:
    """A network of transformers' from a folder in its format, under the names that it was published with.

    ValueError where the file does not fill it. Numbers of positions, which files once held, are no part of it.
    """
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        net, about = kind.from_pretrained(folder, variant=variant, dtype=dtype, local_files_only=True,
                                          use_safetensors=True, output_loading_info=True)
    finally:
        if bars:
            logging.enable_progress_bar()
    unknown = [name for name in about["unexpected_keys"] if not name.endswith("position_ids")]
    wrong = {"lacks": about["missing_keys"], "has unknown": unknown, "has other shapes": about["mismatched_keys"]}
    if said := [f"{what} {', '.join(sorted(map(str, names))[:3])}" for what, names in wrong.items() if names]:
        raise ValueError(f"the file {', '.join(said)}")
    return net


def _adapted(pipe: Any, adapter: str | Path | dict[str, Tensor], sha256: str | None) -> Any:
    """The pipeline with the adapter in its U-Net, everything frozen, and without a progress bar."""
    tensors, name = (adapter, "an adapter") if isinstance(adapter, dict) else (load(adapter, sha256), adapter)
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    wanted = {key: tensor.shape for key, tensor in _shapes(pipe.unet, tensors).items()}
    for what, names in (("lacks", wanted.keys() - tensors.keys()), ("has unknown", tensors.keys() - wanted.keys())):
        if names:
            raise frozen.BadWeights(f"{name} is no IP-Adapter for this U-Net: it {what} {', '.join(sorted(names)[:3])}")
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key]:
            raise frozen.BadWeights(f"{name} is no IP-Adapter for this U-Net: {key} is {list(tensor.shape)}, expected "
                                    f"{list(wanted[key])}")
        part, _, inner = key.partition(".")
        parts[part][inner] = tensor.to(pipe.unet.device, pipe.unet.dtype)
    with torch.random.fork_rng(devices=[]), frozen.quiet():
        pipe.load_ip_adapter(parts, subfolder="", weight_name="", image_encoder_folder=None)
    frozen.freeze(pipe.unet)
    channels = pipe.unet.config.in_channels * (2 if isinstance(pipe, _FromNoise) else 1)
    pipe.image_processor = VaeImageProcessor(vae_scale_factor=pipe.vae_scale_factor, vae_latent_channels=channels)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _shapes(unet: UNet2DConditionModel, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An adapter of this U-Net without memory, for embeddings of as many dimensions as the tensors take."""
    projection = tensors.get("image_proj.proj.weight")
    with torch.device("meta"):
        return fresh(unet, 1 if projection is None or projection.ndim != 2 else projection.shape[1])


def _attentions(unet: UNet2DConditionModel) -> list[tuple[int, nn.Module]]:
    """The cross-attentions with their numbers in an adapter's file: odd ones, in the order of `attn_processors`."""
    names = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    return [(2 * index + 1, unet.get_submodule(name)) for index, name in enumerate(names)]


def _generators(noise: Tensor) -> list[torch.Generator]:
    """One for each picture, seeded by its noise."""
    def seed(one: Tensor) -> int:
        return int.from_bytes(hashlib.sha256(one.float().cpu().numpy().tobytes()).digest()[:8], "little") >> 1

    return [torch.Generator().manual_seed(seed(one)) for one in noise]
