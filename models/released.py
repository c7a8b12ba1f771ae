"""Loads tensors of DreamDiffusion's released classes, by their names there, into the suite's modules.

Every tensor is used, or named in the result. Positions are fixed in both; they are compared. Every LayerNorm gets the
released eps, because the blocks of timm now have a smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.condition import LatentHead, LinearTau, TimeCondition
from models.encoders.msm_vit import Encoder, positions

AUTOENCODER = {  # prefixes of MAEforEEG: those of models.mae.MaskedAutoencoder
    "patch_embed.proj.": "encoder.embed.", "blocks.": "encoder.blocks.", "norm.": "encoder.norm.",
    "cls_token": "class_token", "mask_token": "mask_token", "decoder_embed.": "embed.", "decoder_blocks.": "blocks.",
    "decoder_norm.": "norm.", "decoder_pred.": "head."}
CONDITION = {  # prefixes of cond_stage_model: parts, and names in the parts' modules
    "mae.patch_embed.proj.": "encoder.embed.", "mae.blocks.": "encoder.blocks.", "mae.norm.": "encoder.norm.",
    "channel_mapper.": "tau.mix.", "dim_mapper.": "tau.project.", "mapping.maxpool.": "head.mix.",
    "mapping.fc.": "head.linear.", "cls_net.maxpool.": "classifier.mix.", "cls_net.fc.": "classifier.linear."}
TIME = {"0.": "mix.0.", "1.": "mix.1.", "2.": "linear."}  # of time_embed_condtion, in TimeCondition
POSITIONS = ("pos_embed", "decoder_pos_embed", "mae.pos_embed")
EPS = 1e-5  # of every LayerNorm in the released classes
WITHOUT_USE = ("mae.cls_token", "mae.mask_token")  # parameters of the released encoder that its forward pass lacks


class Condition(nn.Module):
    """The released networks between EEG [B, C, T] and the U-Net: encoder, tau, and, where the sizes are given, h and
    the condition through the time step.

    context, dim: M and D of the U-Net's condition [B, M, D]. space: D' of h's output. time: width of the U-Net's time
    embedding. `arguments` are those of the constructor.
    """

    def __init__(self, channels: int, times: int, width: int, depth: int, heads: int, mlp_ratio: float, patch: int,
                 context: int, dim: int, space: int | None = None, time: int | None = None):
        super().__init__()
        self.arguments = {"channels": channels, "times": times, "width": width, "depth": depth, "heads": heads,
                          "mlp_ratio": mlp_ratio, "patch": patch, "context": context, "dim": dim, "space": space,
                          "time": time}
        tokens = times // patch
        self.encoder = Encoder(channels, times, width, depth, heads, mlp_ratio, patch)
        self.tau = LinearTau(tokens, width, context, dim, max(1, tokens // 2))
        self.head = None if space is None else LatentHead(tokens, width, space)
        self.time = None if time is None else TimeCondition(context, dim, time)
        _set_eps(self)

    def forward(self, eeg: Tensor) -> tuple[Tensor, Tensor | None]:
        """EEG [B, C, T] -> the context [B, M, D] and h's output [B, D'], or None without h."""
        tokens = self.encoder(eeg)
        return self.tau(tokens), None if self.head is None else self.head(tokens)


def condition_sizes(tensors: Mapping[str, Tensor], heads: int, time: int | None) -> dict[str, int | float | None]:
    """The arguments of Condition for a released condition stage. heads: of the encoder's attention, which the tensors
    do not show. Raises ValueError for a tensor that is missing."""
    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise ValueError(f"the condition stage lacks {name}")
        return tuple(tensors[name].shape)

    width, channels, patch = shape("mae.patch_embed.proj.weight")
    depth = len({name.split(".")[2] for name in tensors if name.startswith("mae.blocks.")})
    if depth == 0 or width % heads:
        raise ValueError(f"the condition stage has {depth} blocks of width {width}; expected blocks of {heads} heads")
    return {"channels": channels, "times": (shape("mae.pos_embed")[1] - 1) * patch, "width": width, "depth": depth,
            "heads": heads, "mlp_ratio": shape("mae.blocks.0.mlp.fc1.weight")[0] / width, "patch": patch,
            "context": shape("channel_mapper.1.weight")[0], "dim": shape("dim_mapper.weight")[0],
            "space": shape("mapping.fc.weight")[0] if "mapping.fc.weight" in tensors else None, "time": time}


def load_autoencoder(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads a released MAEforEEG into a MaskedAutoencoder with a class token.

    Raises ValueError for a tensor that is missing, unknown, of another shape, or of other positions.
    """
    _load(model, {_new_name(name, AUTOENCODER): _convert(name, tensor) for name, tensor in tensors.items()
                  if not _is_position(name, tensor)})


def load_condition(parts: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> list[str]:
    """Loads a released condition stage into its parts; returns the names of the tensors that nothing uses, sorted.

    parts: "encoder" (msm_vit's Encoder), "tau" (LinearTau with tokens in between), "head" (LatentHead to CLIP space)
    and "classifier" (LatentHead to class logits); the tensors of a part that is left out are among those returned.
    Raises ValueError as `load_autoencoder`.
    """
    by_part: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    unused = []
    for name, tensor in tensors.items():
        if _is_position(name, tensor):
            continue
        part, _, inside = ("" if name in WITHOUT_USE else _new_name(name, CONDITION)).partition(".")
        if part in parts:
            by_part[part][inside] = _convert(name, tensor)
        else:
            unused.append(name)
    for part, module in parts.items():
        _load(module, by_part[part])
    return sorted(unused)


def load_time(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads a released time condition, named within its Sequential, into a TimeCondition. Raises ValueError as
    `load_autoencoder`."""
    _load(module, {_new_name(name, TIME): tensor for name, tensor in tensors.items()})


def _new_name(name: str, prefixes: Mapping[str, str]) -> str:
    """The suite's name of a released tensor. Raises ValueError for an unknown one."""
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise ValueError(f"no tensor {name!r} in DreamDiffusion's released classes; known prefixes: {', '.join(prefixes)}")


def _convert(name: str, tensor: Tensor) -> Tensor:
    """The patch embedding, a convolution [width, C, patch] over time, as a linear map [width, patch * C]; others as
    they are."""
    return tensor.transpose(1, 2).flatten(1) if name.endswith("patch_embed.proj.weight") else tensor


def _is_position(name: str, tensor: Tensor) -> bool:
    """Whether the tensor holds positions [1, 1 + L, width]. Raises ValueError unless these are zero for the class token
    and then those of msm_vit."""
    if name not in POSITIONS:
        return False
    expected = nn.functional.pad(positions(tensor.shape[1] - 1, tensor.shape[2]), (0, 0, 1, 0))[None]
    if not torch.allclose(tensor.float(), expected, atol=1e-5):
        raise ValueError(f"{name} does not hold the sine-cosine positions of DreamDiffusion's released code")
    return True


def _load(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads tensors into a module and sets EPS. Raises ValueError unless names and shapes are the module's."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise ValueError(f"{type(module).__name__}: {name} is {_shape(given.get(name))} in the released tensors, "
                             f"but {_shape(expected.get(name))} in the module; build it with the released sizes")
    module.load_state_dict(dict(tensors))
    _set_eps(module)


def _set_eps(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = EPS


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))
