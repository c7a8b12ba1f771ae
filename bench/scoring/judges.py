"""A user's judge (`bench score --judge FILE`): loads it, or says in one line what is wrong in the file."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.errors import ENVIRONMENT, BenchError, one_line
from bench.files import explain, sha256
from models import extractors, frozen
from models.extractors import Extractor
from models.frozen import TIMM_WEIGHTS, BadWeights, MissingWeights

CONFIG = "config.json"
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before the names of tensors
TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # endings of files that torch.save writes
SAVE_FOLDER = ("save the classifier as a folder: timm.models.save_for_hf(model, 'folder', safe_serialization=True) "
               f"writes {CONFIG} and {TIMM_WEIGHTS}")
SAVE_FILE = "save it with models.frozen.save(judge, path), or a classifier of timm as a folder of timm's"
PREPROCESSING = ("input_size", "mean", "std")
Shapes = Mapping[str, tuple[int, ...]]


def open_judge(path: Path, device: str) -> tuple[Extractor, tuple[str, ...]]:
    """Loads a judge: a file of `models.frozen.save`, or a folder in timm's format.

    Returns it with notes on what was changed: a prefix of all tensor names, as DataParallel writes it, is removed.
    Nothing else is repaired, and no pickled code runs. Raises BenchError: exit 2 for a path without a judge, exit 3 for
    a file that is not a judge, with the reason.
    """
    weights = path / TIMM_WEIGHTS if path.is_dir() else path
    if path.is_dir() and not weights.is_file():
        _refuse_folder(path)
    if not weights.is_file():
        raise BenchError(f"no judge {str(path)!r}; expected tiny, none, the file of a judge, or a folder of timm's "
                         f"({CONFIG}, {TIMM_WEIGHTS})")
    if weights.suffix.lower() in TORCH:
        _refuse_checkpoint(path)
    shapes, metadata = _read_header(weights)
    prefix = next((wrapper for wrapper in WRAPPERS if all(name.startswith(wrapper) for name in shapes)), "")
    shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    architecture = _check_folder(path, shapes) if path.is_dir() else _check_file(path, shapes, metadata)
    try:
        part = frozen.load_judge(path, None, prefix=prefix).to(device)
    except (BadWeights, MissingWeights) as error:
        raise _fault(f"{error.fault}: the tensors are not those of {architecture}",
                     SAVE_FOLDER if path.is_dir() else SAVE_FILE) from error
    judge = extractors.judge_extractor(part, sha256(weights), path.stem)
    _check_layers(path, judge, architecture, device)
    return judge, (f"read from {weights}: all names of tensors without their prefix {prefix!r}",) if prefix else ()


def _fault(problem: str, cure: str) -> BenchError:
    return BenchError(f"{problem}; {cure}", ENVIRONMENT)


def _refuse_folder(folder: Path) -> None:
    """Raises BenchError for a folder without weights in safetensors."""
    others = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in (*TORCH, ".safetensors"))
    if others or (folder / CONFIG).is_file():
        raise _fault(f"{folder} has {others[0] if others else CONFIG}, but no {TIMM_WEIGHTS}", SAVE_FOLDER)


def _refuse_checkpoint(path: Path) -> None:
    """Raises BenchError for a file of torch.save; says what it contains, and runs no code of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the pickle's protocol
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a broken or foreign pickle raises exceptions of any class
        raise _fault(f"{path} cannot be read as a checkpoint of tensors ({explain(path, error)[:120]}); pickled "
                     "objects are not loaded, as they can run code", SAVE_FOLDER) from error
    nested = next((key for key in ("state_dict", "model", "model_state_dict", "net")
                   if isinstance(content, dict) and isinstance(content.get(key), dict)), None)
    tensors = content[nested] if nested else content
    names = [name for name, value in tensors.items() if isinstance(value, Tensor)] if isinstance(tensors, dict) else []
    contents = f"{len(names)} tensors ({', '.join(map(str, names[:3]))}, ...)" if names else "no tensors by name"
    wrapper = next((f", all with the prefix {wrapper!r}" for wrapper in WRAPPERS
                    if names and all(str(name).startswith(wrapper) for name in names)), "")
    raise _fault(f"{path} is a checkpoint of torch.save with {contents}{f' in {nested!r}' if nested else ''}{wrapper}; "
                 "it does not say its architecture", f"load it into its model, then {SAVE_FOLDER}")


def _read_header(file: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Returns the shapes of a safetensors file's tensors, and its metadata."""
    try:
        with safe_open(file, "pt") as content:
            shapes = {name: tuple(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
            metadata = content.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise _fault(f"{file} does not hold the expected part: it is not a safetensors file, or is cut off "
                     f"({explain(file, error)[:120]})", SAVE_FILE) from error
    if not shapes:
        raise _fault(f"{file} contains no tensors", SAVE_FILE)
    return shapes, metadata


def _check_file(file: Path, shapes: Shapes, metadata: Mapping[str, str]) -> str:
    """Checks a file of `models.frozen.save`; returns what it should be."""
    try:
        classes = json.loads(metadata["arguments"])["classes"]
    except (KeyError, TypeError, ValueError) as error:
        raise _fault(f"{file} does not say its architecture and its number of classes (no 'arguments' with 'classes' "
                     "in its metadata), as a judge's file does", SAVE_FILE) from error
    _check_classes(file, "its metadata", "net.fc", classes, shapes)
    return f"a judge of {classes} classes"


def _check_folder(folder: Path, shapes: Shapes) -> str:
    """Checks a folder's config.json against its tensors; returns the architecture."""
    file = folder / CONFIG
    if not file.is_file():
        raise _fault(f"{folder} has no {CONFIG}, which names the architecture and the number of classes", SAVE_FOLDER)
    try:
        config: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _fault(f"{file} cannot be read as JSON ({explain(file, error)})", SAVE_FOLDER) from error
    if not isinstance(config, dict) or not isinstance(architecture := config.get("architecture"), str):
        kind = config.get("model_type") if isinstance(config, dict) else None
        library = f", as transformers' config of a {kind}" if kind else ""
        raise _fault(f"{file} has no 'architecture'{library}; expected timm's format", SAVE_FOLDER)
    if not timm.is_model(architecture):
        raise _fault(f"{file} names the architecture {architecture!r}, which timm {timm.__version__} does not have",
                     "use the version of timm that saved it, or correct the name")
    preprocessing = config.get("pretrained_cfg", config)  # older files have one level
    preprocessing = preprocessing if isinstance(preprocessing, dict) else {}
    if missing := [name for name in PREPROCESSING if not preprocessing.get(name)]:
        raise _fault(f"{file} has no {', '.join(missing)} in 'pretrained_cfg', so how images are prepared is unknown",
                     SAVE_FOLDER)
    classes = config.get("num_classes", preprocessing.get("num_classes"))
    if not isinstance(classes, int) or classes < 1:
        raise _fault(f"{file} says num_classes {classes}: it has no classifier" if classes == 0 else
                     f"{file} has no number of classes (num_classes)", "a judge needs a classifier of images")
    heads = preprocessing.get("classifier") or timm.models.get_pretrained_cfg_value(architecture, "classifier")
    for head in heads if isinstance(heads, (list, tuple)) else [heads]:
        if head:
            _check_classes(file, "it", head, classes, shapes)
    return architecture


def _check_classes(file: Path, source: str, head: str, classes: object, shapes: Shapes) -> None:
    shape = shapes.get(f"{head}.weight")
    if shape and shape[0] != classes:
        raise _fault(f"{file}: {source} says {classes} classes, but the last layer in the file ({head}.weight) has "
                     f"{shape[0]}", "correct the number of classes, or use the weights that belong to it")


def _check_layers(path: Path, judge: Extractor, architecture: str, device: str) -> None:
    """Raises BenchError unless the network gives logits, features and the feature maps of the judge's metrics."""
    blank = torch.zeros(1, 3, judge.size, judge.size, dtype=torch.uint8, device=device)
    try:
        with torch.inference_mode():
            judge.look(blank)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # timm and torch raise exceptions of any class for what a network lacks
        raise _fault(f"{path}: {architecture} does not give what a judge needs: logits, features and four feature maps "
                     f"by timm's forward_intermediates ({one_line(error)[:120]})",
                     "choose another architecture of timm") from error
