"""The real configurations of the paper's frozen parts, without weights: for counting and timing.

Every function builds its module on the active device; `with torch.device("meta"):` needs neither memory nor time. The
random weights are never used in a stage.
"""

from __future__ import annotations

from typing import Any

import open_clip
import timm
import torchvision
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, GitConfig, GitForCausalLM

PIXELS = 512  # side of an image of Stable Diffusion 1.5
TOKENS = 77  # M, of a caption and of a condition
WIDTH = 768  # D, channels of a condition's token
EMBEDDING = 768  # D', dimensions of CLIP space

STABLE_DIFFUSION_UNET: dict[str, Any] = {  # unet/config.json of Stable Diffusion 1.5
    "sample_size": 64, "in_channels": 4, "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2, "cross_attention_dim": WIDTH, "attention_head_dim": 8, "norm_num_groups": 32,
    "norm_eps": 1e-5, "act_fn": "silu", "center_input_sample": False, "downsample_padding": 1, "flip_sin_to_cos": True,
    "freq_shift": 0, "mid_block_scale_factor": 1}
STABLE_DIFFUSION_VAE: dict[str, Any] = {  # vae/config.json of Stable Diffusion 1.5
    "sample_size": PIXELS, "in_channels": 3, "out_channels": 3, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32, "act_fn": "silu",
    "scaling_factor": 0.18215}
SDXL_UNET: dict[str, Any] = {  # unet/config.json of SDXL-Turbo
    "sample_size": 64, "in_channels": 4, "out_channels": 4,
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2, "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",), "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2, "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048, "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816, "norm_num_groups": 32,
    "norm_eps": 1e-5, "act_fn": "silu"}
SDXL_TEXT: tuple[dict[str, Any], dict[str, Any]] = (  # text_encoder/ and text_encoder_2/config.json of SDXL
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
     "projection_dim": 768, "hidden_act": "quick_gelu"},
    {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
     "projection_dim": 1280, "hidden_act": "gelu"})
GIT: dict[str, Any] = {  # config.json of git-large-coco
    "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                      "num_attention_heads": 16, "patch_size": 14, "image_size": 224},
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 6, "num_attention_heads": 12,
    "max_position_embeddings": 1024, "vocab_size": 30522}
CLIP = "ViT-L-14"  # open_clip's name; OpenAI's weights need quick_gelu
CLIP_H = "ViT-H-14"  # open_clip's name
JUDGE = "vit_large_patch16_224"  # timm's name


def stable_diffusion_unet() -> UNet2DConditionModel:
    """The U-Net of Stable Diffusion 1.5: latents [B, 4, 64, 64], condition [B, 77, 768]."""
    return UNet2DConditionModel(**STABLE_DIFFUSION_UNET)


def stable_diffusion_vae() -> AutoencoderKL:
    """The VAE of Stable Diffusion 1.5: images [B, 3, 512, 512], latents [B, 4, 64, 64]."""
    return AutoencoderKL(**STABLE_DIFFUSION_VAE)


def sdxl_unet() -> UNet2DConditionModel:
    """The U-Net of SDXL-Turbo: latents [B, 4, 64, 64], conditions [B, 77, 2048], [B, 1280] and six numbers."""
    return UNet2DConditionModel(**SDXL_UNET)


def sdxl_vae() -> AutoencoderKL:
    """The VAE of SDXL-Turbo: Stable Diffusion's architecture with another factor."""
    return AutoencoderKL(**STABLE_DIFFUSION_VAE | {"scaling_factor": 0.13025, "force_upcast": True,
                                                   "sample_size": 1024})


def sdxl_text() -> nn.ModuleList:
    """The text encoders of SDXL-Turbo, for prompts [B, 77]: CLIP ViT-L/14's and OpenCLIP ViT-bigG/14's."""
    first, second = (CLIPTextConfig(vocab_size=49408, max_position_embeddings=TOKENS, **text) for text in SDXL_TEXT)
    return nn.ModuleList([CLIPTextModel(first), CLIPTextModelWithProjection(second)])


def clip_h() -> open_clip.CLIP:
    """CLIP ViT-H/14 of LAION: images [B, 3, 224, 224] and captions [B, 77] to 1,024 dimensions."""
    return open_clip.CLIP(**open_clip.get_model_config(CLIP_H))


def git() -> GitForCausalLM:
    """GIT-large: images [B, 3, 224, 224], or its vision tower's output [B, 257, 1024], to captions."""
    return GitForCausalLM(GitConfig(**GIT))


def clip() -> open_clip.CLIP:
    """CLIP ViT-L/14: images [B, 3, 224, 224] and captions [B, 77] to 768 dimensions."""
    return open_clip.CLIP(**open_clip.get_model_config(CLIP), quick_gelu=True)


def judge() -> nn.Module:
    """The judge, an ImageNet classifier: images [B, 3, 224, 224] to 1,000 logits."""
    return timm.create_model(JUDGE, pretrained=False)


def inception() -> nn.Module:
    """Inception-v3 without its auxiliary classifier: images [B, 3, 299, 299]."""
    return torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False)


def alexnet() -> nn.Module:
    """AlexNet's convolutions: two-way identification uses 256 pixels, LPIPS the whole image."""
    return torchvision.models.alexnet(weights=None).features


def released_judge() -> nn.Module:
    """The classifier of DreamDiffusion's released code: torchvision's ViT-H/14, images [B, 3, 518, 518]."""
    return torchvision.models.vit_h_14(weights=None, image_size=518)
