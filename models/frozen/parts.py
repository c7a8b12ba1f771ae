"""The frozen networks, and the parameters that are opened for tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import open_clip
import timm
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.frozen.crop import Crop

CONTEXT = 8  # M, tokens of a caption and of a condition
WIDTH = 64  # D, channels of a condition's token
EMBEDDING = 64  # D', dimensions of CLIP space
SIZE = 32  # side in pixels of the images that tiny's parts were trained on
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
TIMM_WEIGHTS = "model.safetensors"
TIMM_PICKLED = "pytorch_model.bin"  # of older timm folders; only its tensors are read
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # in files before 2023


class WeightsError(Exception):
    """A frozen part cannot be loaded. fault: what is wrong; the message also says what to do, if `cure` is given."""

    def __init__(self, fault: str, cure: str = ""):
        super().__init__(f"{fault}; {cure}" if cure else fault)
        self.fault = fault


class MissingWeights(WeightsError):
    """The file of a frozen part is missing."""


class BadWeights(WeightsError):
    """The file of a frozen part is not the expected one."""


class Judge(nn.Module):
    """The image classifier of scale tiny: timm's smallest ResNet, without the stem's pool, which loses small shapes."""

    def __init__(self, classes: int):
        super().__init__()
        self.arguments = {"classes": classes}
        self.size = SIZE
        self.crop = None
        self.net = timm.create_model("test_resnet", num_classes=classes)
        self.net.maxpool = nn.Identity()

    indices = None  # of the blocks after which `look` takes maps; None: after the stem and each of the four stages

    def logits(self, images: Tensor) -> Tensor:
        """Class logits [B, classes] of images [B, 3, H, W] in [-1, 1]. Raises ValueError for a size it cannot take."""
        return self.net(self._normalise(images))

    def features(self, images: Tensor) -> Tensor:
        """The input of the last layer, [B, F]."""
        return self.net.forward_head(self.net.forward_features(self._normalise(images)), pre_logits=True)

    def look(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits [B, classes], features [B, F] and feature maps [B, C, h, w], from one pass."""
        final, maps = self.net.forward_intermediates(self._normalise(images), indices=self.indices)
        features = self.net.forward_head(final, pre_logits=True)
        return self.net.get_classifier()(features), features, maps

    def _normalise(self, images: Tensor) -> Tensor:
        return images


class TimmJudge(Judge):
    """A classifier of timm with the size and the normalisation of its config.

    crop: timm's own preparation of an image in evaluation; the alternative is to resize the whole image. `look` takes
    maps by timm's `feature_info`: after each quarter of the blocks if all have one resolution, as in a transformer;
    else after every stage. Raises ValueError for a config whose images are not square or not of three channels.
    """

    def __init__(self, net: nn.Module):
        nn.Module.__init__(self)
        self.net, config = net, timm.data.resolve_model_data_config(net)
        self.arguments = {"classes": net.num_classes}
        channels, height, self.size = config["input_size"]
        if (channels, height) != (3, self.size):
            raise ValueError(f"its images are [{channels}, {height}, {self.size}]; expected squares of 3 channels")
        self.crop = Crop(self.size, config["crop_pct"], config["crop_mode"], config["interpolation"],
                         tuple(config["mean"]))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name])[:, None, None], persistent=False)
        reductions = [level["reduction"] for level in net.feature_info]
        depth = len(reductions)
        self.indices = [max(0, depth * quarter // 4 - 1) for quarter in (1, 2, 3, 4)] \
            if len(set(reductions)) == 1 else None

    def look(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits, features and feature maps [B, C, h, w], from one pass.

        The logits are the network's own: a distilled network averages those of its two heads.
        """
        final, maps = self.net.forward_intermediates(self._normalise(images), indices=self.indices)
        return self.net.forward_head(final), self.net.forward_head(final, pre_logits=True), maps

    def _normalise(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.size, self.size):
            raise ValueError(f"images are {images.shape[-2]}x{images.shape[-1]}; the judge expects "
                             f"{self.size}x{self.size}")
        weight = next(self.net.parameters())
        return (((images.float() + 1) / 2 - self.mean) / self.std).to(weight.dtype)


class Vae(nn.Module):
    """diffusers' AutoencoderKL; its latents, as the U-Net takes them, are (encoder output - mean) / std.

    Without `net` it is tiny's: f4, 8 channels, latents of mean 0 and variance 1 in every channel. With `net`, std is
    1 / scaling_factor (Stable Diffusion: 0.18215).
    """

    def __init__(self, channels: int = 8, net: AutoencoderKL | None = None):
        super().__init__()
        self.arguments = {"channels": channels}
        self.net = net or AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(16, 32, 64), layers_per_block=1, latent_channels=channels, norm_num_groups=8,
            sample_size=32, mid_block_add_attention=False)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        if net is not None:
            self.mean.fill_(net.config.shift_factor or 0)
            self.std.fill_(1 / net.config.scaling_factor)

    def encode(self, images: Tensor) -> Tensor:
        """The posterior's mode, latents [B, C, H/f, W/f], of images [B, 3, H, W] in [-1, 1]."""
        return self.moments(images)[0]

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior, each [B, C, H/f, W/f], in units of the latents."""
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
        text = {"context_length": CONTEXT, "vocab_size": len(self.vocabulary), "width": WIDTH, "heads": 2, "layers": 2,
                "mlp_ratio": 2.0}  # <end> has the highest index: open_clip pools there
        self.net = open_clip.CLIP(EMBEDDING, vision, text)
        self.net.visual.trunk.maxpool = nn.Identity()

    def tokenize(self, captions: list[str]) -> Tensor:
        """Indices of words [B, M] int64. Raises ValueError for an unknown word or a caption that is too long."""
        tokens = torch.zeros(len(captions), CONTEXT, dtype=torch.long)
        for row, caption in zip(tokens, captions, strict=True):
            words = ["<start>", *caption.split(), "<end>"]
            if len(words) > CONTEXT:
                raise ValueError(f"caption {caption!r} has {len(words) - 2} words; at most {CONTEXT - 2} fit")
            if unknown := [word for word in words if word not in self.vocabulary]:
                raise ValueError(f"caption {caption!r} has words outside the text tower's vocabulary: {unknown}")
            row[: len(words)] = torch.tensor([self.vocabulary[word] for word in words])
        return tokens

    def text_tokens(self, tokens: Tensor) -> Tensor:
        """The U-Net's condition: all text tokens after `ln_final`, [B, M, D]."""
        hidden = self.net.token_embedding(tokens) + self.net.positional_embedding
        return self.net.ln_final(self.net.transformer(hidden, attn_mask=self.net.attn_mask))

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Unit vectors [B, D'] of captions [B, M]."""
        return self.net.encode_text(tokens, normalize=True)

    def embed_image(self, images: Tensor) -> Tensor:
        """Unit vectors [B, D'] of images [B, 3, H, W] in [-1, 1]."""
        return self.net.encode_image(images, normalize=True)


class OpenClip(Clip):
    """A CLIP of open_clip with its own text tower (such as OpenAI's ViT-L/14) and tokenizer."""

    def __init__(self, net: open_clip.CLIP, tokenizer: Callable[..., Tensor], preprocess: dict[str, Any]):
        nn.Module.__init__(self)
        self.net, self.tokenizer = net, tokenizer
        side = net.visual.image_size
        self.size = side if isinstance(side, int) else side[0]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(preprocess[name])[:, None, None], persistent=False)

    def tokenize(self, captions: list[str]) -> Tensor:
        """Indices [B, M] int64, padded with the end token as in Stable Diffusion. Raises ValueError if one is too long.

        open_clip pads with zeros. The padding reaches the U-Net, but not CLIP's own embedding.
        """
        length = self.net.context_length
        tokens = self.tokenizer(captions, context_length=length + 1)
        if (long := tokens[:, length] != 0).any():
            caption = captions[int(long.nonzero()[0])]
            raise ValueError(f"caption {caption!r} is too long; at most {length - 2} tokens fit")
        end = tokens.argmax(1, keepdim=True)  # the end token has the highest index
        return torch.where(torch.arange(length) > end, tokens.gather(1, end), tokens[:, :length])

    def text_tokens(self, tokens: Tensor) -> Tensor:
        """The U-Net's condition: all text tokens after `ln_final`, [B, M, D], as Stable Diffusion 1.5 takes them."""
        return super().text_tokens(tokens).float()

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Unit vectors [B, D'] of captions [B, M]."""
        return super().embed_text(tokens).float()

    def embed_image(self, images: Tensor) -> Tensor:
        """Unit vectors [B, D'] of images [B, 3, H, W] in [-1, 1], resized as a whole to CLIP's size."""
        images = (images.float() + 1) / 2
        if images.shape[-2:] != (self.size, self.size):
            images = interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        images = ((images - self.mean) / self.std).to(self.net.token_embedding.weight.dtype)
        return self.net.encode_image(images, normalize=True).float()


Part = Judge | Vae | Clip | UNet2DConditionModel
AnyPart = TypeVar("AnyPart", bound=Part)
AnyNet = TypeVar("AnyNet", bound=nn.Module)


def make_unet(channels: int = 8, widths: tuple[int, int] = (32, 64)) -> UNet2DConditionModel:
    """An untrained U-Net over latents [B, 8, 8, 8] with cross-attention to [B, M, D] in every block."""
    return UNet2DConditionModel(
        sample_size=8, in_channels=channels, out_channels=channels, layers_per_block=1,
        block_out_channels=tuple(widths), down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2, mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=WIDTH, attention_head_dim=2, norm_num_groups=16)


def freeze(part: AnyPart) -> AnyPart:
    """The same part in eval mode, without gradients."""
    return part.eval().requires_grad_(False)


def latent_shape(unet: UNet2DConditionModel) -> tuple[int, int, int]:
    """Channels, height and width of the latents that the U-Net denoises."""
    return unet.config.in_channels, unet.config.sample_size, unet.config.sample_size


def open_for_tuning(unet: UNet2DConditionModel, norm2: bool = False) -> list[tuple[str, nn.Parameter]]:
    """Opens only A: q, k, v and out of every cross-attention (`attn2`); with `norm2` also its LayerNorm.

    Returns names and parameters that are open, in the order of `unet.named_parameters()`.
    """
    unet.requires_grad_(False)
    expected = set()
    for name, block in unet.named_modules():
        if isinstance(block, BasicTransformerBlock) and block.attn2 is not None:
            expected |= {f"{name}.attn2.{layer}" for layer in (
                "to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")}
            block.attn2.requires_grad_(True)
            if norm2:
                expected |= {f"{name}.norm2.weight", f"{name}.norm2.bias"}
                block.norm2.requires_grad_(True)
    opened = [(name, parameter) for name, parameter in unet.named_parameters() if parameter.requires_grad]
    names = {name for name, _ in opened}
    if not expected or names != expected:
        raise AssertionError(f"opened for tuning: {sorted(names)}; expected {sorted(expected)}")
    return opened
