"""The pre-trained parts: judge, VAE, CLIP and U-Net. They are loaded, held without gradients and opened only here.

Each part is a small configuration of a real library. A part's file is safetensors; what its constructor needs to know
(the words of the vocabulary, the number of classes) stands in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import open_clip
import timm
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

CONTEXT = 8  # M, tokens of a caption and of a condition
WIDTH = 64  # D, channels of a condition's token
EMBEDDING = 64  # D', dimensions of CLIP space

class MissingWeights(Exception):
    """The file of a frozen part is not there."""


class BadWeights(Exception):
    """The file of a frozen part is not the one that was expected."""


class Judge(nn.Module):
    """The classifier that recognises pictures: timm's smallest ResNet; small shapes need it without the stem's pool."""

    def __init__(self, classes: int):
        super().__init__()
        self.arguments = {"classes": classes}
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


class Vae(nn.Module):
    """diffusers' AutoencoderKL, f4 with 8 channels; its latents have mean 0 and variance 1 in every channel."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.arguments = {"channels": channels}
        self.net = AutoencoderKL(
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

    def encode(self, images: Tensor) -> Tensor:
        """The posterior's mode, latents [B, 8, H/4, W/4], of images [B, 3, H, W] in [-1, 1]."""
        return self.moments(images)[0]

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the posterior, each [B, 8, H/4, W/4], in units of the latents."""
        posterior = self.net.encode(images).latent_dist
        return (posterior.mean - self.mean) / self.std, posterior.logvar - 2 * self.std.log()

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1]."""
        return self.net.decode(latents * self.std + self.mean).sample.clamp(-1, 1)


class Clip(nn.Module):
    """open_clip's CLIP with timm's smallest ResNet as image tower and two text layers over a vocabulary of words."""

    def __init__(self, words: list[str]):
        super().__init__()
        self.arguments = {"words": list(words)}
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


Part = Judge | Vae | Clip | UNet2DConditionModel
AnyPart = TypeVar("AnyPart", bound=Part)


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


def load_judge(path: str | Path, sha256: str | None = None) -> Judge:
    """The judge, frozen. Raises MissingWeights, and BadWeights where the file is not the one with this hash."""
    return _load(Judge, path, sha256)


def load_vae(path: str | Path, sha256: str | None = None) -> Vae:
    """The VAE, frozen; errors as `load_judge`."""
    return _load(Vae, path, sha256)


def load_clip(path: str | Path, sha256: str | None = None) -> Clip:
    """CLIP, frozen; errors as `load_judge`."""
    return _load(Clip, path, sha256)


def load_unet(path: str | Path, sha256: str | None = None) -> UNet2DConditionModel:
    """The U-Net, frozen; errors as `load_judge`. `open_for_tuning` opens part of it."""
    return _load(make_unet, path, sha256)


def _load(make: Callable[..., AnyPart], path: str | Path, sha256: str | None) -> AnyPart:
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
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadWeights(f"{path} is no such part ({reason}); restore it, or run `bench prior`") from error
    return freeze(part)


def freeze(part: AnyPart) -> AnyPart:
    """The part in eval mode, without gradients."""
    return part.eval().requires_grad_(False)


def latent_shape(unet: UNet2DConditionModel) -> tuple[int, int, int]:
    """Channels, height and width of the latents that the U-Net denoises."""
    return unet.config.in_channels, unet.config.sample_size, unet.config.sample_size


def noise_schedule() -> DDPMScheduler:
    """Stable Diffusion's schedule, rescaled to zero terminal signal-to-noise; the U-Net predicts v."""
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
    unet: UNet2DConditionModel, context: Tensor, null_context: Tensor, noise: Tensor, steps: int, guidance: float
) -> Tensor:
    """Latents [B, 8, 8, 8] for conditions [B, M, D], by DPM-Solver++ of second order from `noise` [B, 8, 8, 8].

    With guidance other than 1 each step is one call of the U-Net with 2B rows, the second half under `context`, the
    first under `null_context` [1, M, D].
    """
    solver = DPMSolverMultistepScheduler.from_config(
        noise_schedule().config, algorithm_type="dpmsolver++", solver_order=2
    )
    solver.set_timesteps(steps, device=noise.device)
    latents, guided = noise, guidance != 1
    if guided:
        context = torch.cat([null_context.expand_as(context), context])
    for time in solver.timesteps:
        v = unet(torch.cat([latents, latents]) if guided else latents, time, context).sample
        if guided:
            without, given = v.chunk(2)
            v = without + guidance * (given - without)
        latents = solver.step(v, time, latents).prev_sample
    return latents


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
