"""The pre-trained parts: judge, VAE, CLIP and U-Net. They are loaded, held without gradients and opened only here.

A part is a file or a folder. The file (scale tiny) is safetensors of a small configuration of a real library; what its
constructor needs to know (the words of the vocabulary, the number of classes) stands in the file's metadata. The folder
is in the library's own format: diffusers' (config.json, diffusion_pytorch_model.safetensors, the schedule beside it in
../scheduler), open_clip's (open_clip_config.json, open_clip_model.safetensors) or timm's (config.json,
model.safetensors). Either is loaded completely or not at all, and nothing is ever random.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import open_clip
import timm
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models import pins

CONTEXT = 8  # M, tokens of a caption and of a condition
WIDTH = 64  # D, channels of a condition's token
EMBEDDING = 64  # D', dimensions of CLIP space
SIZE = 32  # pixels along each side of the pictures that tiny's parts were trained on
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
TIMM_WEIGHTS = "model.safetensors"
SCHEDULE = "scheduler_config.json"
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # in files before 2023


class MissingWeights(Exception):
    """The file of a frozen part is not there."""


class BadWeights(Exception):
    """The file of a frozen part is not the one that was expected."""


class Judge(nn.Module):
    """The classifier that recognises pictures: timm's smallest ResNet; small shapes need it without the stem's pool."""

    def __init__(self, classes: int):
        super().__init__()
        self.arguments = {"classes": classes}
        self.size = SIZE
        self.net = timm.create_model("test_resnet", num_classes=classes)
        self.net.maxpool = nn.Identity()

    def logits(self, images: Tensor) -> Tensor:
        """Class logits [B, classes] of images [B, 3, H, W] in [-1, 1]."""
        return self.net(images)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees: [B, F]."""
        return self.net.forward_head(self.net.forward_features(images), pre_logits=True)

    def layers(self, images: Tensor) -> list[Tensor]:
        """Feature maps [B, C, h, w] after the stem and after each of the four stages."""
        return self.net.forward_intermediates(images, intermediates_only=True)

    def look(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits [B, classes], features [B, F] and the maps of `layers`, all of one pass."""
        final, maps = self.net.forward_intermediates(images)
        features = self.net.forward_head(final, pre_logits=True)
        return self.net.get_classifier()(features), features, maps


class TimmJudge(Judge):
    """A classifier of timm's, with the size and the normalisation that its config states.

    `interpolation`: the filter that the config wants pictures to be resized with. The suite resizes the whole picture,
    where timm's own evaluation crops the centre.
    """

    def __init__(self, net: nn.Module):
        nn.Module.__init__(self)
        self.net, about = net, net.pretrained_cfg
        self.arguments = {"classes": net.num_classes}
        self.size, self.interpolation = about["input_size"][-1], about["interpolation"]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(about[name])[:, None, None], persistent=False)
        depth = len(getattr(net, "blocks", ()))  # of a transformer
        self.indices = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)] if depth else None

    def logits(self, images: Tensor) -> Tensor:
        """Class logits [B, classes] of images [B, 3, size, size] in [-1, 1]. ValueError for another size."""
        return self.net(self._normalised(images))

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees: [B, F]."""
        return self.net.forward_head(self.net.forward_features(self._normalised(images)), pre_logits=True)

    def layers(self, images: Tensor) -> list[Tensor]:
        """Feature maps [B, C, h, w] after each quarter of a transformer's blocks, or after each stage."""
        return self.look(images)[2]

    def look(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits [B, classes], features [B, F] and the maps of `layers`, all of one pass."""
        final, maps = self.net.forward_intermediates(self._normalised(images), indices=self.indices)
        features = self.net.forward_head(final, pre_logits=True)
        return self.net.get_classifier()(features), features, maps

    def _normalised(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.size, self.size):
            raise ValueError(f"pictures are {images.shape[-2]}x{images.shape[-1]}, the judge looks at "
                             f"{self.size}x{self.size}")
        weight = next(self.net.parameters())
        return (((images.float() + 1) / 2 - self.mean) / self.std).to(weight.dtype)


class Vae(nn.Module):
    """diffusers' AutoencoderKL; its latents are (what the encoder gives - mean) / std, as the U-Net sees them.

    tiny's is f4 with 8 channels, and its latents have mean 0 and variance 1 in every channel; of another `net`, std is
    1 / scaling_factor (Stable Diffusion: 0.18215).
    """

    def __init__(self, channels: int = 8, net: AutoencoderKL | None = None):
        super().__init__()
        self.arguments = {"channels": channels}
        self.net = net or AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(16, 32, 64),
            layers_per_block=1,
            latent_channels=channels,
            norm_num_groups=8,
            sample_size=32,
            mid_block_add_attention=False,
        )
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        if net is not None:
            self.mean.fill_(net.config.shift_factor or 0)
            self.std.fill_(1 / net.config.scaling_factor)

    def encode(self, images: Tensor) -> Tensor:
        """The posterior's mode, latents [B, C, H/f, W/f], of images [B, 3, H, W] in [-1, 1]."""
        return self.moments(images)[0]

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the posterior, each [B, C, H/f, W/f], in units of the latents."""
        posterior = self.net.encode(images.to(self.net.dtype)).latent_dist
        return (posterior.mean.float() - self.mean) / self.std, posterior.logvar.float() - 2 * self.std.log()

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1]."""
        return self.net.decode((latents * self.std + self.mean).to(self.net.dtype)).sample.float().clamp(-1, 1)


class Clip(nn.Module):
    """open_clip's CLIP with timm's smallest ResNet as image tower and two text layers over a vocabulary of words."""

    def __init__(self, words: list[str]):
        super().__init__()
        self.arguments = {"words": list(words)}
        self.size = SIZE
        self.vocabulary = {word: index for index, word in enumerate(("<pad>", "<start>", *words, "<end>"))}
        vision = {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32}
        text = {
            "context_length": CONTEXT,
            "vocab_size": len(self.vocabulary),  # <end> has the highest index: open_clip pools there
            "width": WIDTH,
            "heads": 2,
            "layers": 2,
            "mlp_ratio": 2.0,
        }
        self.net = open_clip.CLIP(EMBEDDING, vision, text)
        self.net.visual.trunk.maxpool = nn.Identity()

    @property
    def text_projection(self) -> Tensor:
        """From a token after `ln_final` to CLIP space: [D, D']."""
        return self.net.text_projection

    @property
    def ln_final(self) -> nn.LayerNorm:
        """The text tower's last LayerNorm, over D."""
        return self.net.ln_final

    def tokenize(self, captions: list[str]) -> Tensor:
        """Indices of words [B, M] int64. ValueError for a word outside the vocabulary or a caption too long."""
        tokens = torch.zeros(len(captions), CONTEXT, dtype=torch.long)
        for row, caption in zip(tokens, captions, strict=True):
            words = ["<start>", *caption.split(), "<end>"]
            if len(words) > CONTEXT:
                raise ValueError(f"caption {caption!r} has {len(words) - 2} words; at most {CONTEXT - 2} fit")
            if unknown := [word for word in words if word not in self.vocabulary]:
                raise ValueError(f"caption {caption!r} has words that the text tower does not know: {unknown}")
            row[: len(words)] = torch.tensor([self.vocabulary[word] for word in words])
        return tokens

    def text_tokens(self, tokens: Tensor) -> Tensor:
        """The U-Net's condition: all text tokens after `ln_final`, [B, M, D]."""
        hidden = self.net.token_embedding(tokens) + self.net.positional_embedding
        return self.ln_final(self.net.transformer(hidden, attn_mask=self.net.attn_mask))

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Unit vectors [B, D'] of captions [B, M]."""
        return self.net.encode_text(tokens, normalize=True)

    def embed_image(self, images: Tensor) -> Tensor:
        """Unit vectors [B, D'] of images [B, 3, H, W] in [-1, 1]."""
        return self.net.encode_image(images, normalize=True)


class OpenClip(Clip):
    """A CLIP of open_clip's whose text tower is the model's own (OpenAI's ViT-L/14 is such), with its tokenizer."""

    def __init__(self, net: open_clip.CLIP, tokenizer: Callable[..., Tensor], preprocess: dict[str, Any]):
        nn.Module.__init__(self)
        self.net, self.tokenizer = net, tokenizer
        side = net.visual.image_size
        self.size = side if isinstance(side, int) else side[0]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(preprocess[name])[:, None, None], persistent=False)

    def tokenize(self, captions: list[str]) -> Tensor:
        """Indices [B, M] int64, filled up with the end's as Stable Diffusion does. ValueError for one too long.

        open_clip fills up with zeros; the U-Net sees what follows the end, CLIP's own embedding does not.
        """
        length = self.net.context_length
        tokens = self.tokenizer(captions, context_length=length + 1)
        if (long := tokens[:, length] != 0).any():
            caption = captions[int(long.nonzero()[0])]
            raise ValueError(f"caption {caption!r} is too long; at most {length - 2} tokens fit")
        end = tokens.argmax(1, keepdim=True)  # open_clip pools there: the end has the highest index
        return torch.where(torch.arange(length) > end, tokens.gather(1, end), tokens[:, :length])

    def text_tokens(self, tokens: Tensor) -> Tensor:
        """The U-Net's condition: all text tokens after `ln_final`, [B, M, D], as Stable Diffusion 1.5 takes them."""
        return super().text_tokens(tokens).float()

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Unit vectors [B, D'] of captions [B, M]."""
        return super().embed_text(tokens).float()

    def embed_image(self, images: Tensor) -> Tensor:
        """Unit vectors [B, D'] of images [B, 3, H, W] in [-1, 1]; others than of its size are resized as a whole."""
        images = (images.float() + 1) / 2
        if images.shape[-2:] != (self.size, self.size):
            images = interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        images = ((images - self.mean) / self.std).to(self.net.token_embedding.weight.dtype)
        return self.net.encode_image(images, normalize=True).float()


Part = Judge | Vae | Clip | UNet2DConditionModel
AnyPart = TypeVar("AnyPart", bound=Part)
AnyNet = TypeVar("AnyNet", bound=nn.Module)


def make_unet(channels: int = 8, widths: tuple[int, int] = (32, 64)) -> UNet2DConditionModel:
    """An untrained U-Net over latents [B, 8, 8, 8], with a cross-attention to [B, M, D] in every block."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=tuple(widths),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=16,
    )


def save(part: Part, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes a part's weights, floating-point tensors as `dtype`, and the arguments of its constructor."""
    if isinstance(part, UNet2DConditionModel):
        arguments = {"channels": part.config.in_channels, "widths": part.config.block_out_channels}
    else:
        arguments = part.arguments
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in part.state_dict().items()
    }
    path.write_bytes(serialise(tensors, metadata={"arguments": json.dumps(arguments)}))


def load_judge(path: str | Path, sha256: str | None = None, dtype: torch.dtype = torch.float32) -> Judge:
    """The judge, frozen, held as `dtype`. Raises MissingWeights, and BadWeights where the file is not the one with this
    hash (of a folder: the weights in it; a text that is no hash is not compared)."""
    return _load_folder(_timm, path, sha256, dtype) if Path(path).is_dir() else _load(Judge, path, sha256, dtype)


def load_vae(path: str | Path, sha256: str | None = None, dtype: torch.dtype = torch.float32) -> Vae:
    """The VAE, frozen; errors as `load_judge`. Of a folder only what encodes and decodes is held as `dtype`."""
    return _load_folder(_vae, path, sha256, dtype) if Path(path).is_dir() else _load(Vae, path, sha256, dtype)


def load_clip(path: str | Path, sha256: str | None = None, dtype: torch.dtype = torch.float32) -> Clip:
    """CLIP, frozen; errors as `load_judge`."""
    return _load_folder(_open_clip, path, sha256, dtype) if Path(path).is_dir() else _load(Clip, path, sha256, dtype)


def load_unet(path: str | Path, sha256: str | None = None,
              dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """The U-Net, frozen; errors as `load_judge`. `open_for_tuning` opens part of it."""
    return _load_folder(_unet, path, sha256, dtype) if Path(path).is_dir() else _load(make_unet, path, sha256, dtype)


def _load(make: Callable[..., AnyPart], path: str | Path, sha256: str | None, dtype: torch.dtype) -> AnyPart:
    path = Path(path)
    if not path.is_file():
        raise MissingWeights(f"no weights at {path}; restore the file, or run `bench prior`")
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise BadWeights(f"{path} has SHA-256 {found[:12]}, not {sha256[:12]}; restore it, or run `bench prior`")
    try:
        with safe_open(path, "pt") as file:
            arguments = json.loads((file.metadata() or {})["arguments"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        with torch.random.fork_rng(devices=[]):
            part = make(**arguments)
        part.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
        if dtype != torch.float32:
            part.to(dtype)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadWeights(f"{path} is no such part ({reason}); restore it, or run `bench prior`") from error
    return freeze(part)


def _load_folder(make: Callable[[Path, str, torch.dtype], AnyPart], path: str | Path, sha256: str | None,
                 dtype: torch.dtype) -> AnyPart:
    path = Path(path)
    cure = "get the part again with: bench fetch"
    try:
        with torch.random.fork_rng(devices=[]), _quiet():
            part = make(path, sha256 or "", dtype)
    except FileNotFoundError as error:
        raise MissingWeights(f"no {error.filename}; {cure}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadWeights(f"{path} is no such part ({reason}); {cure}") from error
    return freeze(part)


def _unet(folder: Path, sha256: str, dtype: torch.dtype) -> UNet2DConditionModel:
    with torch.device("meta"):
        net = UNet2DConditionModel.from_config(_config(folder / "config.json"))
    return _filled(net, _tensors(folder / DIFFUSERS_WEIGHTS, sha256), dtype)


def _vae(folder: Path, sha256: str, dtype: torch.dtype) -> Vae:
    with torch.device("meta"):
        net = AutoencoderKL.from_config(_config(folder / "config.json"))
    tensors = {}
    half = folder / DIFFUSERS_WEIGHTS.replace(".safetensors", ".fp16.safetensors")  # SDXL-Turbo's is there only so
    for name, tensor in _tensors(half if half.is_file() else folder / DIFFUSERS_WEIGHTS, sha256).items():
        parts = name.split(".")
        if ".mid_block.attentions." in name and parts[-2] in OLD_ATTENTION:
            parts[-2] = OLD_ATTENTION[parts[-2]]
        tensors[".".join(parts)] = tensor
    return Vae(net.config.latent_channels, _filled(net, tensors, dtype))


def _open_clip(folder: Path, sha256: str, dtype: torch.dtype) -> OpenClip:
    config = _config(folder / "open_clip_config.json")
    if sha256 == pins.PARTS["clip"].files[0].sha256 and not config["model_cfg"].get("quick_gelu"):
        raise ValueError("open_clip_config.json has no quick_gelu, with which OpenAI's weights were trained")
    if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        _file(folder / "tokenizer_config.json")  # or its library would ask the hub
    tensors = _tensors(folder / OPEN_CLIP_WEIGHTS, sha256)
    net = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_image=False,
                                 pretrained_text=False)
    if not isinstance(net, open_clip.CLIP):
        raise ValueError(f"a {type(net).__name__}; expected a CLIP whose text tower is the model's own")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    preprocess |= {name: value for name, value in config.get("preprocess_cfg", {}).items() if name in preprocess}
    _filled(net, tensors, dtype)
    net.attn_mask = net.attn_mask.to(dtype)
    return OpenClip(net, open_clip.get_tokenizer(f"local-dir:{folder}"), preprocess)


def _timm(folder: Path, sha256: str, dtype: torch.dtype) -> TimmJudge:
    config = _config(folder / "config.json")
    tensors = _tensors(folder / TIMM_WEIGHTS, sha256)
    classes = config["num_classes"] if "num_classes" in config else config["pretrained_cfg"]["num_classes"]
    return TimmJudge(_filled(timm.create_model(f"local-dir:{folder}", pretrained=False, num_classes=classes), tensors,
                             dtype))


def _file(path: Path) -> Path:
    """The path. Raises FileNotFoundError, which names it."""
    os.stat(path)
    return path


def _config(path: Path) -> dict[str, Any]:
    return json.loads(_file(path).read_text(encoding="utf-8"))


def _tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """A file's tensors. Raises ValueError where it has another hash than these (first) digits."""
    _file(path)
    if sha256 and set(sha256) <= set("0123456789abcdef"):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(sha256):
            raise ValueError(f"{path.name} has SHA-256 {found[:12]}, not {sha256[:12]}")
    return load_file(path)


def _filled(net: AnyNet, tensors: dict[str, Tensor], dtype: torch.dtype) -> AnyNet:
    """The network with exactly these tensors, as `dtype`. ValueError where names or shapes differ."""
    wanted = net.state_dict()
    for what, names in (("lacks", wanted.keys() - tensors.keys()), ("has unknown", tensors.keys() - wanted.keys())):
        if names:
            raise ValueError(f"the file {what} {', '.join(sorted(names)[:3])}" + ", ..." * (len(names) > 3))
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(f"{name} is {list(tensor.shape)}, expected {list(wanted[name].shape)}")
    net.load_state_dict({name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()},
                        assign=True)
    if left := [name for name, tensor in (*net.named_parameters(), *net.named_buffers()) if tensor.is_meta]:
        raise ValueError(f"no file fills {', '.join(left[:3])}")
    return net


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' remarks on the building of a network that is filled afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def freeze(part: AnyPart) -> AnyPart:
    """The part in eval mode, without gradients."""
    return part.eval().requires_grad_(False)


def latent_shape(unet: UNet2DConditionModel) -> tuple[int, int, int]:
    """Channels, height and width of the latents that the U-Net denoises."""
    return unet.config.in_channels, unet.config.sample_size, unet.config.sample_size


def noise_schedule(path: str | Path = "") -> DDPMScheduler:
    """The schedule that a U-Net was trained with.

    For "" or a file that of tiny: Stable Diffusion's, rescaled to zero terminal signal-to-noise, with a U-Net that
    predicts v. For a folder that of ../scheduler. Raises MissingWeights where it is not there.
    """
    if path and Path(path).is_dir():
        file = Path(path).parent / "scheduler" / SCHEDULE
        if not file.is_file():
            raise MissingWeights(f"no {file}, the schedule of the U-Net beside it; get the part again with: "
                                 "bench fetch --what unet")
        with _quiet():
            return DDPMScheduler.from_config(json.loads(file.read_text(encoding="utf-8")))
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel,
    context: Tensor,
    null_context: Tensor,
    noise: Tensor,
    steps: int,
    guidance: float,
    sampler: str = "dpmsolver++",
    schedule: DDPMScheduler | None = None,
    start: Tensor | None = None,
    first: int = 0,
) -> Tensor:
    """Latents [B, C, h, w] float32 for conditions [B, M, D], from `noise` [B, C, h, w].

    start: latents [B, C, h, w] to begin from, with as much of that noise as the schedule has before step `first`, as in
    diffusers' image-to-image; steps before that are not taken.

    sampler: "dpmsolver++" (DPM-Solver++ of second order) or "plms" (Liu et al. 2022 without Runge-Kutta steps, one
    call of the U-Net more than steps). schedule: the U-Net's; None: tiny's. With guidance other than 1 each step is one
    call of the U-Net with 2B rows, the second half under `context`, the first under `null_context` [1, M, D].
    ValueError for an unknown sampler, for PLMS on a schedule that ends without any signal, and for PLMS with `start`.
    """
    solver = _solver(sampler, schedule or noise_schedule())
    solver.set_timesteps(steps, device=noise.device)
    latents, guided, times = noise, guidance != 1, solver.timesteps[first:]
    if start is not None:
        if sampler == "plms":
            raise ValueError("PLMS begins from noise alone; image-to-image takes dpmsolver++")
        solver.set_begin_index(first)
        latents = solver.add_noise(start, noise, times[:1])
    if guided:
        context = torch.cat([null_context.expand_as(context), context])
    dtype = unet.conv_in.weight.dtype
    context = context.to(dtype)
    for time in times:
        seen = latents.to(dtype)
        predicted = unet(torch.cat([seen, seen]) if guided else seen, time, context).sample.float()
        if guided:
            without, given = predicted.chunk(2)
            predicted = without + guidance * (given - without)
        latents = solver.step(predicted, time, latents).prev_sample
    return latents


def _solver(sampler: str, schedule: DDPMScheduler) -> DPMSolverMultistepScheduler | PNDMScheduler:
    with _quiet():
        if sampler == "dpmsolver++":
            return DPMSolverMultistepScheduler.from_config(schedule.config, algorithm_type="dpmsolver++",
                                                           solver_order=2)
        if sampler != "plms":
            raise ValueError(f"no sampler {sampler!r}; there are: dpmsolver++, plms")
        if schedule.config.rescale_betas_zero_snr:
            raise ValueError("PLMS cannot begin where no signal is left: this schedule has zero terminal "
                             "signal-to-noise")
        return PNDMScheduler.from_config(schedule.config, skip_prk_steps=True)


def open_for_tuning(unet: UNet2DConditionModel, norm2: bool = False) -> list[tuple[str, nn.Parameter]]:
    """Opens A and nothing else: q, k, v, out of every cross-attention (`attn2`), with `norm2` also its LayerNorm.

    Returns the opened parameters with their names, in the order of `unet.named_parameters()`.
    """
    unet.requires_grad_(False)
    expected = set()
    for name, block in unet.named_modules():
        if isinstance(block, BasicTransformerBlock) and block.attn2 is not None:
            layers = ["to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"]
            expected |= {f"{name}.attn2.{layer}" for layer in layers}
            block.attn2.requires_grad_(True)
            if norm2:
                expected |= {f"{name}.norm2.weight", f"{name}.norm2.bias"}
                block.norm2.requires_grad_(True)
    opened = [(name, parameter) for name, parameter in unet.named_parameters() if parameter.requires_grad]
    found = {name for name, _ in opened}
    if not expected or found != expected:
        raise AssertionError(f"opened for tuning: {sorted(found)}, expected {sorted(expected)}")
    return opened
