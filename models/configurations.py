"""The real configurations of the paper's frozen parts, without weights: for counting and timing.

Each name is a function without arguments that builds a network on the active device; `with torch.device("meta"):` needs
neither memory nor time. The random weights are never used in a stage.
"""

from __future__ import annotations

from functools import partial

import open_clip
import timm
import torchvision
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, GitConfig, GitForCausalLM

from models.parameters import PIXELS, TOKENS, WIDTH

stable_diffusion_unet = partial(  # of Stable Diffusion 1.5: latents [B, 4, 64, 64], condition [B, 77, 768]
    UNet2DConditionModel, sample_size=64, in_channels=4, out_channels=4,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), mid_block_type="UNetMidBlock2DCrossAttn",
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, block_out_channels=(320, 640, 1280, 1280),
    layers_per_block=2, cross_attention_dim=WIDTH, attention_head_dim=8, norm_num_groups=32, norm_eps=1e-5,
    act_fn="silu", center_input_sample=False, downsample_padding=1, flip_sin_to_cos=True, freq_shift=0,
    mid_block_scale_factor=1)
stable_diffusion_vae = partial(  # of Stable Diffusion 1.5: images [B, 3, 512, 512], latents [B, 4, 64, 64]
    AutoencoderKL, sample_size=PIXELS, in_channels=3, out_channels=3, latent_channels=4,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, norm_num_groups=32, act_fn="silu",
    scaling_factor=0.18215)
sdxl_unet = partial(  # of SDXL-Turbo: latents [B, 4, 64, 64], conditions [B, 77, 2048], [B, 1280] and six numbers
    UNet2DConditionModel, sample_size=64, in_channels=4, out_channels=4,
    down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2, mid_block_type="UNetMidBlock2DCrossAttn",
    up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",), block_out_channels=(320, 640, 1280),
    layers_per_block=2, transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
    cross_attention_dim=2048, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816, norm_num_groups=32, norm_eps=1e-5, act_fn="silu")
sdxl_vae = partial(stable_diffusion_vae, scaling_factor=0.13025, force_upcast=True, sample_size=1024)
clip_h = partial(open_clip.CLIP, **open_clip.get_model_config("ViT-H-14"))  # LAION's: [B, 3, 224, 224] -> [B, 1024]
clip = partial(open_clip.CLIP, **open_clip.get_model_config("ViT-L-14"), quick_gelu=True)  # OpenAI's: -> [B, 768]
judge = partial(timm.create_model, "vit_large_patch16_224", pretrained=False)  # [B, 3, 224, 224] -> 1,000 logits
inception = partial(  # without its auxiliary classifier: [B, 3, 299, 299]
    torchvision.models.inception_v3, weights=None, aux_logits=False, init_weights=False)
released_judge = partial(torchvision.models.vit_h_14, weights=None, image_size=518)  # [B, 3, 518, 518]


def sdxl_text() -> nn.ModuleList:
    """The text encoders of SDXL-Turbo, for prompts [B, 77]: CLIP ViT-L/14's and OpenCLIP ViT-bigG/14's."""
    first, second = (
        CLIPTextConfig(vocab_size=49408, max_position_embeddings=TOKENS, hidden_size=width, intermediate_size=4 * width,
                       num_hidden_layers=layers, num_attention_heads=heads, projection_dim=width, hidden_act=act)
        for width, layers, heads, act in ((768, 12, 12, "quick_gelu"), (1280, 32, 20, "gelu")))
    return nn.ModuleList([CLIPTextModel(first), CLIPTextModelWithProjection(second)])


def git() -> GitForCausalLM:
    """GIT-large (git-large-coco): images [B, 3, 224, 224], or its tower's output [B, 257, 1024], to captions."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
              "patch_size": 14, "image_size": 224}
    return GitForCausalLM(GitConfig(vision_config=vision, hidden_size=768, intermediate_size=3072, num_hidden_layers=6,
                                    num_attention_heads=12, max_position_embeddings=1024, vocab_size=30522))


def alexnet() -> nn.Module:
    """AlexNet's convolutions: two-way identification uses 256 pixels, LPIPS the whole image."""
    return torchvision.models.alexnet(weights=None).features
