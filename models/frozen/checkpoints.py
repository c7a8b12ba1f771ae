"""Checkpoints of image classifiers: safetensors, and files of torch.save, of which no code runs."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.frozen.parts import BadWeights

TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # endings of files that torch.save writes
WRAPPERS = ("module.", "_orig_mod.", "model.")  # what DataParallel, torch.compile and Lightning put before all names
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict")  # entries with averaged weights; timm prefers them too
PLAIN = ("state_dict", "model", "model_state_dict", "net")
LABELS = ("class_to_idx", "label_names", "class_names", "classes")
BLOCK = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
         "_project_conv": "conv_pwl", "_bn2": "bn3"}  # EfficientNet-PyTorch's names -> timm's
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # without expansion
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a file. tensors: by name, without a prefix that all names have; architecture: timm's name, "" if
    the file has none; labels: the names of the classes by number, () if the file has none; notes: what was chosen."""

    tensors: Mapping[str, Tensor]
    architecture: str = ""
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint. Of torch.save's files only tensors and plain values are loaded (`weights_only=True`).

    Averaged weights are taken before plain ones. Raises BadWeights for a file without named tensors.
    """
    if path.suffix.lower() not in TORCH:
        try:
            with safe_open(path, "pt") as file:
                content: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                about: Mapping[str, Any] = file.metadata() or {}
        except (SafetensorError, OSError, ValueError) as error:
            raise BadWeights(f"{path} is not a safetensors file, or is cut off ({_shorten(error)})") from error
        return _unwrap(path, content, about, "")
    content = _load_plain(path)
    if not isinstance(content, dict):
        raise BadWeights(f"{path} contains a {type(content).__name__}, no tensors by name")
    entry = next((key for key in (*AVERAGED, *PLAIN) if isinstance(content.get(key), dict)), "")
    return _unwrap(path, content[entry] if entry else content, content if entry else {}, entry)


def rename_efficientnet(names: list[str], net: nn.Module) -> dict[str, str]:
    """EfficientNet-PyTorch's names of tensors -> timm's, for a network of timm without squeeze-and-excitation.

    Raises ValueError for a name that it does not have, and for a network of another family.
    """
    blocks = [(f"blocks.{stage}.{index}.", block) for stage, inner in enumerate(getattr(net, "blocks", ()))
              for index, block in enumerate(inner)]
    renamed = {}
    for name in names:
        first, *rest = name.split(".")
        try:
            if first == "_blocks":
                number, layer, *rest = rest
                place, block = blocks[int(number)]
                first = place + (BLOCK if hasattr(block, "conv_pwl") else FIRST)[layer]
            else:
                first = OUTER[first]
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"{name} of EfficientNet-PyTorch has no place in this network") from error
        renamed[name] = ".".join([first, *rest])
    return renamed


def _load_plain(path: Path) -> Any:
    """The content of a file of torch.save; argparse's namespace, which timm's trainings save, is a plain value."""
    known: list[Any] = [(SimpleNamespace, "argparse.Namespace")]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(known):
            warnings.simplefilter("ignore")  # on the pickle's protocol
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a broken or foreign pickle raises exceptions of any class
        raise BadWeights(f"{path} cannot be read as a checkpoint of tensors ({_shorten(error)}); pickled objects are "
                         "not loaded, as they can run code") from error


def _unwrap(path: Path, content: Mapping[Any, Any], about: Mapping[str, Any], entry: str) -> Checkpoint:
    """The tensors of an entry ("": of the whole file), without their prefix."""
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise BadWeights(f"{path} contains no tensors by name" + (f" in {entry!r}" if entry else ""))
    if entry and (others := [str(name) for name in content if str(name) not in tensors]):
        raise BadWeights(f"{path}: {others[0]!r} in {entry!r} is not a tensor")
    about = about or {name: value for name, value in content.items() if str(name) not in tensors}
    notes = [f"{path}: the weights {entry!r}, of " + ", ".join(repr(key) for key in (*AVERAGED, *PLAIN)
             if isinstance(about.get(key), dict))] if entry in AVERAGED else []
    tensors.pop("n_averaged", None)  # torch's AveragedModel
    while prefix := next((wrapper for wrapper in WRAPPERS if all(name.startswith(wrapper) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        notes.append(f"read from {path}: all names of tensors without their prefix {prefix!r}")
    trained = about.get("args")
    architecture = about.get("arch") or about.get("architecture") or getattr(trained, "model", "")
    return Checkpoint(tensors, architecture if isinstance(architecture, str) else "", _read_labels(about), tuple(notes))


def _read_labels(about: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes' names by number, from a list or from a dict of numbers by name."""
    for key in LABELS:
        value = about.get(key)
        if isinstance(value, dict) and sorted(map(str, value.values())) == sorted(map(str, range(len(value)))):
            return tuple(str(name) for name in sorted(value, key=lambda name: int(value[name])))
        if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value):
            return tuple(value)
    return ()


def _shorten(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
