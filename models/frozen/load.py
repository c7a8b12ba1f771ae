"""Loads and saves frozen parts, complete and checked by hash."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from models import pins
from models.frozen import parts
from models.frozen.checkpoints import read_checkpoint, rename_efficientnet
from models.frozen.parts import AnyNet, AnyPart, BadWeights, Clip, Judge, MissingWeights, OpenClip, Part, TimmJudge, Vae


def save(part: Part, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes a part's weights, floating-point tensors as `dtype`, and the arguments of its constructor."""
    if isinstance(part, UNet2DConditionModel):
        arguments = {"channels": part.config.in_channels, "widths": part.config.block_out_channels}
    else:
        arguments = part.arguments
    tensors = {name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
               for name, tensor in part.state_dict().items()}
    path.write_bytes(serialise(tensors, metadata={"arguments": json.dumps(arguments)}))


def load_judge(path: str | Path, sha256: str | None = None, dtype: torch.dtype = torch.float32, prefix: str = "",
               architecture: str = "") -> Judge:
    """The judge, frozen, as `dtype`: a timm folder, a checkpoint of `architecture` of timm, or "" a file of `save`.

    prefix: begins all names of tensors in a file of `save`, and is removed. Raises MissingWeights, and BadWeights if
    the file (of a folder: its weights) does not have this hash. A `sha256` that is not a hash is not compared.
    """
    if Path(path).is_dir():
        return load_folder(_timm, path, sha256, dtype)
    if architecture:
        return load_folder(partial(_checkpoint, architecture=architecture), path, sha256, dtype)
    return load_part(Judge, path, sha256, dtype, prefix)


def load_vae(path: str | Path, sha256: str | None = None, dtype: torch.dtype = torch.float32) -> Vae:
    """The VAE, frozen; errors as `load_judge`. Of a folder, only the encoder and the decoder are held as `dtype`."""
    return load_folder(_vae, path, sha256, dtype) if Path(path).is_dir() else load_part(Vae, path, sha256, dtype)


def load_clip(path: str | Path, sha256: str | None = None, dtype: torch.dtype = torch.float32) -> Clip:
    """CLIP, frozen; errors as `load_judge`."""
    return load_folder(_open_clip, path, sha256, dtype) if Path(path).is_dir() else load_part(Clip, path, sha256, dtype)


def load_unet(path: str | Path, sha256: str | None = None,
              dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """The U-Net, frozen; errors as `load_judge`. `open_for_tuning` opens parameters."""
    if Path(path).is_dir():
        return load_folder(_unet, path, sha256, dtype)
    return load_part(parts.make_unet, path, sha256, dtype)


def load_part(make: Callable[..., AnyPart], path: str | Path, sha256: str | None, dtype: torch.dtype,
              prefix: str = "") -> AnyPart:
    """The part in a file, frozen, made by its constructor or function `make`; prefix and errors as `load_judge`."""
    path, cure = Path(path), "restore the file, or run: bench prior"
    if not path.is_file():
        raise MissingWeights(f"no weights at {path}", cure)
    if sha256 is not None and (actual := hash_file(path)) != sha256:
        raise BadWeights(f"{path} has SHA-256 {actual[:12]}, not {sha256[:12]}", cure)
    try:
        with safe_open(path, "pt") as file:
            arguments = json.loads((file.metadata() or {})["arguments"])
            tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        with torch.random.fork_rng(devices=[]):
            part = make(**arguments)
        part.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
        if dtype != torch.float32:
            part.to(dtype)
    except Exception as error:  # of the file, of its arguments' JSON, or of the constructor that they are given to
        raise _misfit(path, error, cure) from error
    return parts.freeze(part)


def _misfit(path: str | Path, error: Exception, cure: str) -> BadWeights:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return BadWeights(f"{path} does not hold the expected part ({reason})", cure)


def load_folder(make: Callable[[Path, str, torch.dtype], AnyPart], path: str | Path, sha256: str | None,
                dtype: torch.dtype) -> AnyPart:
    """The part in a folder, frozen, made by make(folder, sha256, dtype); errors as `load_judge`."""
    path, cure = Path(path), "download the part again with: bench fetch"
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            part = make(path, sha256 or "", dtype)
    except FileNotFoundError as error:
        raise MissingWeights(f"no {error.filename}", cure) from error
    except Exception as error:  # of the files, or of the library that builds what the config says
        raise _misfit(path, error, cure) from error
    return parts.freeze(part)


def _unet(folder: Path, sha256: str, dtype: torch.dtype) -> UNet2DConditionModel:
    with torch.device("meta"):
        net = UNet2DConditionModel.from_config(read_config(folder / "config.json"))
    return fill_part(net, read_tensors(folder / parts.DIFFUSERS_WEIGHTS, sha256), dtype)


def _vae(folder: Path, sha256: str, dtype: torch.dtype) -> Vae:
    with torch.device("meta"):
        net = AutoencoderKL.from_config(read_config(folder / "config.json"))
    tensors = {}
    for name, tensor in read_tensors(prefer_half(folder / parts.DIFFUSERS_WEIGHTS), sha256).items():
        keys = name.split(".")
        if ".mid_block.attentions." in name and keys[-2] in parts.OLD_ATTENTION:
            keys[-2] = parts.OLD_ATTENTION[keys[-2]]
        tensors[".".join(keys)] = tensor
    return Vae(net.config.latent_channels, fill_part(net, tensors, dtype))


def _open_clip(folder: Path, sha256: str, dtype: torch.dtype) -> OpenClip:
    config = read_config(folder / "open_clip_config.json")
    if sha256 == pins.PARTS["clip"].files[0].sha256 and not config["model_cfg"].get("quick_gelu"):
        raise ValueError("open_clip_config.json has no quick_gelu, which OpenAI's weights were trained with")
    if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        weights_file(folder / "tokenizer_config.json")  # if it is missing, the library asks the hub
    tensors = read_tensors(folder / parts.OPEN_CLIP_WEIGHTS, sha256)
    net = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_image=False,
                                 pretrained_text=False)
    if not isinstance(net, open_clip.CLIP):
        raise ValueError(f"a {type(net).__name__}; expected a CLIP with its own text tower")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    preprocess |= {name: value for name, value in config.get("preprocess_cfg", {}).items() if name in preprocess}
    fill_part(net, tensors, dtype)
    net.attn_mask = net.attn_mask.to(dtype)
    return OpenClip(net, open_clip.get_tokenizer(f"local-dir:{folder}"), preprocess)


def _timm(folder: Path, sha256: str, dtype: torch.dtype) -> TimmJudge:
    config = read_config(folder / "config.json")
    file = folder / parts.TIMM_WEIGHTS
    if not file.is_file() and (folder / parts.TIMM_PICKLED).is_file():
        file = folder / parts.TIMM_PICKLED
    check_hash(file, sha256)
    tensors = dict(read_checkpoint(file).tensors)
    classes = config["num_classes"] if "num_classes" in config else config["pretrained_cfg"]["num_classes"]
    net = timm.create_model(f"local-dir:{folder}", pretrained=False, num_classes=classes)
    return TimmJudge(fill_part(net, tensors, dtype))


def _checkpoint(path: Path, sha256: str, dtype: torch.dtype, architecture: str) -> TimmJudge:
    check_hash(path, sha256)
    tensors = dict(read_checkpoint(path).tensors)
    is_foreign = all(name.startswith("_") for name in tensors)  # EfficientNet-PyTorch's names
    heads = timm.get_pretrained_cfg(architecture).classifier
    head = "_fc" if is_foreign else heads if isinstance(heads, str) else (heads or ("",))[0]
    if f"{head}.weight" not in tensors:
        raise ValueError(f"the file lacks {head}.weight, the classifier of {architecture}")
    net = timm.create_model(architecture, pretrained=False, num_classes=len(tensors[f"{head}.weight"]))
    if is_foreign:
        names = rename_efficientnet(list(tensors), net)
        tensors = {names[name]: tensor for name, tensor in tensors.items()}
    return TimmJudge(fill_part(net, tensors, dtype))


def prefer_half(file: Path) -> Path:
    """The weights in half precision beside a file (".fp16.safetensors"), if there are any, else the file itself."""
    half = file.with_name(file.name.replace(".safetensors", ".fp16.safetensors"))
    return half if half.is_file() else file


def weights_file(path: Path) -> Path:
    """The path. Raises FileNotFoundError, which names it."""
    os.stat(path)
    return path


def read_config(path: Path) -> dict[str, Any]:
    """A JSON file. Raises FileNotFoundError."""
    return json.loads(weights_file(path).read_text(encoding="utf-8"))


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """A file's tensors. Errors as `check_hash`."""
    check_hash(path, sha256)
    return load_file(path)


def check_hash(path: Path, sha256: str) -> None:
    """Raises FileNotFoundError, and ValueError if a file's hash does not begin with these digits."""
    weights_file(path)
    if sha256 and set(sha256) <= set("0123456789abcdef") and not (actual := hash_file(path)).startswith(sha256):
        raise ValueError(f"{path.name} has SHA-256 {actual[:12]}, not {sha256[:12]}")


def hash_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fill_part(net: AnyNet, tensors: dict[str, Tensor], dtype: torch.dtype) -> AnyNet:
    """The network with exactly these tensors, as `dtype`. Raises ValueError if names or shapes differ."""
    wanted = net.state_dict()
    for what, names in (("lacks", wanted.keys() - tensors.keys()), ("has unknown", tensors.keys() - wanted.keys())):
        if names:
            raise ValueError(f"the file {what} {', '.join(sorted(names)[:3])}" + ", ..." * (len(names) > 3))
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(f"{name} is {list(tensor.shape)}, expected {list(wanted[name].shape)}")
    net.load_state_dict({name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}, assign=True)
    if empty := [name for name, tensor in (*net.named_parameters(), *net.named_buffers()) if tensor.is_meta]:
        raise ValueError(f"no file fills {', '.join(empty[:3])}")
    return net


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the libraries' warnings about a network that is built now and filled later."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
