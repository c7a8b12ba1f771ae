"""Runs a user's file: its function `fit` on the training trials, and its function `pictures` for the items."""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_limits
from torch import Tensor

from bench import modules
from bench.data.ranges import describe_conversion
from bench.errors import BenchError
from bench.experiment import encoders
from bench.experiment.stages import Numerics, Weights
from bench.files import create_npy
from bench.runtime import Runtime, ignore, is_out_of_memory
from bench.scoring.networks import weights_present
from bench.systems.own import Own, OwnFit
from bench.train import Inputs
from bench.train.encoder import find_source
from bench.train.generate import initial_noise
from bench.train.items import Loaded, Stimuli, load_items
from bench.train.loop import frozen_dtype, precision
from bench.train.losses import seeded
from models import frozen

BATCH = 64  # images copied at once


class UserFileError(Exception):
    """An exception in a user's file: the file, the line and the message, in one line."""


@dataclass(frozen=True, eq=False)
class Tested:
    """The N items to generate images for; it contains nothing about the shown images."""

    item: np.ndarray  # [N] int64, ids, ascending
    subject: np.ndarray  # [N] int64
    eeg: np.ndarray  # [N, C, T] float32: the items', or a control's


@dataclass(frozen=True, eq=False)
class Run:
    """The environment of a user's functions. torch, numpy and random are seeded with `seed` before each call.

    seed        of the row
    samples     images of each item; 1 in `fit`
    device      "cpu" or "cuda"
    progress    progress(step, total, loss=...) reports the stage's progress
    fitted      the values returned by `fit`, as tensors on the CPU; empty in `fit`, and without it
    """

    seed: int
    samples: int
    device: str = "cpu"
    progress: Callable[..., None] = ignore
    fitted: Mapping[str, Tensor] = field(default_factory=dict)
    numerics: Numerics = Numerics()
    parts: tuple[Weights, ...] = ()

    def noise(self, items: Tested | Loaded, *shape: int) -> Tensor:
        """Draws normal noise [N, samples, *shape] float32 from (seed, item, sample) only, as the other systems do, so
        that differences are paired."""
        drawn = initial_noise(items.item, self.samples, self.seed, shape)
        return drawn.unflatten(0, (len(items.item), self.samples)).to(self.device)

    def vae(self) -> frozen.Vae:
        """The suite's VAE, frozen: encode(images [B, 3, H, W] in [-1, 1]) and decode(latents)."""
        return self._part(frozen.load_vae, 0)

    def clip(self) -> frozen.Clip:
        """The suite's CLIP, frozen: embed_image, embed_text, tokenize, text_tokens."""
        return self._part(frozen.load_clip, 1)

    def unet(self) -> UNet2DConditionModel:
        """The suite's U-Net, frozen; models.frozen.sample samples from it, with `schedule`."""
        return self._part(frozen.load_unet, 2)

    def schedule(self) -> Any:
        """The noise schedule of the U-Net's training."""
        with weights_present():
            return frozen.noise_schedule(self.parts[2].path)

    def autocast(self) -> AbstractContextManager:
        """The context of forward passes through the frozen parts: bfloat16 at scale paper, none otherwise."""
        return precision(self.numerics, self.device)()

    def _part(self, load_part: Callable[..., Any], number: int) -> Any:
        weights = self.parts[number]
        with weights_present():
            return load_part(weights.path, weights.sha256, frozen_dtype(self.numerics, self.device)).to(self.device)


def fit(stage: OwnFit, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes fitted.safetensors, the values returned by the file's `fit(train, run, **settings)`, and summary.json.
    Floating-point values count as trained parameters. Raises BenchError unless it is a dict of finite arrays."""
    with _training_trials(stage, inputs, out) as train:
        run = Run(stage.seed, 1, runtime.device, runtime.progress, {}, stage.numerics, stage.parts)
        values = _call(stage, "fit", runtime, train, run)
    file = f"{stage.source.name}.py"
    if not isinstance(values, Mapping):
        raise BenchError(f"{file}: fit returned {_describe(values)}; expected a dict of names and arrays or tensors")
    tensors = {name: _to_tensor(f"{file}: fit's {name!r}", value) for name, value in values.items()}
    save_file({str(name): tensor for name, tensor in tensors.items()}, out / "fitted.safetensors")
    count = sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point())
    (out / "summary.json").write_text(json.dumps({"trained_parameters": {"fit": count}}, indent=1) + "\n")


def generate_images(stage: Own, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, item.npy [N], and, if the file's
    `pictures(train, test, run, **settings)` returns a pair, embedding.npy [N, D'].

    The arguments contain no image and no label of the items. Raises BenchError if the result has another shape or type.
    """
    fitted = load_file(inputs(stage.fit) / "fitted.safetensors") if stage.fit else {}
    with _training_trials(stage, inputs, out) as train:
        shape = train.pictures.shape[1:]
        items = load_items(stage.items, inputs, stage.targets)
        test = Tested(items.item.copy(), items.subject.copy(), items.eeg)
        del items  # the frames that the user's code can inspect hold no image of the test items
        run = Run(stage.seed, stage.samples, runtime.device, runtime.progress, fitted, stage.numerics, stage.parts)
        result = _call(stage, "pictures", runtime, train, test, run)
    file = f"{stage.source.name}.py"
    images, embedding = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    np.save(out / "pictures.npy", _check_images(images, (len(test.item), stage.samples, *shape), file))
    np.save(out / "item.npy", test.item)
    if embedding is not None:
        vectors = _to_tensor(f"{file}: the embedding", embedding).float().numpy()
        if vectors.ndim != 2 or len(vectors) != len(test.item):
            raise BenchError(f"{file}: the embedding is {list(vectors.shape)}; expected [{len(test.item)}, D'], a "
                             "vector in CLIP's space for each item")
        np.save(out / "embedding.npy", vectors)


@contextmanager
def _training_trials(stage: Own | OwnFit, inputs: Inputs, out: Path) -> Iterator[Loaded]:
    """The training trials, with a temporary file of their images only, and `picture` renumbered accordingly."""
    train = load_items(stage.train, inputs, stage.targets)
    path = out / "training.npy"
    _, first, row = np.unique(train.picture, return_index=True, return_inverse=True)
    copy = create_npy(path, np.uint8, (len(first), *train.pictures.shape[1:]))
    for start in range(0, len(first), BATCH):
        copy[start:start + BATCH] = train.pictures[first[start:start + BATCH]]
    copy.flush()
    picture = row.reshape(-1).astype(np.int64)
    try:
        yield replace(train, picture=picture, pictures=Stimuli(np.load(path, mmap_mode="r"), picture))
    finally:
        path.unlink()


def _call(stage: Own | OwnFit, function: str, runtime: Runtime, *arguments: Any) -> Any:
    """Calls a function of the user's file with the stage's settings, seeded, with the stage's number of threads."""
    path = find_source(stage.source, runtime)
    with _seeded(stage.seed), threadpool_limits(stage.numerics.threads), _naming_line(path):
        module = modules.import_file(path, f"own_{stage.source.code}")
        return getattr(module, function)(*arguments, **dict(stage.settings))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the generators of random, numpy and torch, and restores their states at the end."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with seeded(seed):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _naming_line(path: Path) -> Iterator[None]:
    """Turns an exception into UserFileError with the line in the user's file, or in a module beside it."""
    try:
        yield
    except BenchError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        beside = {file.resolve(): file.relative_to(path.parent).as_posix() for file in encoders.sources(path)}
        frames = [(Path(frame.filename).resolve(), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        places = [(beside[file], line) for file, line in frames if file in beside]
        file, line = places[-1] if places else (path.name, None)
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserFileError(f"{file}, line {line}: {message}" if line else f"{file}: {message}") from error


def _to_tensor(name: str, value: Any) -> Tensor:
    """A contiguous copy on the CPU; of a pandas object the values in their order. Raises BenchError for a value that is
    not numeric, or not finite."""
    try:
        value = np.array(value) if hasattr(value, "to_numpy") else value
        tensor = torch.as_tensor(value).detach().cpu().clone(memory_format=torch.contiguous_format)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BenchError(f"{name} is {_describe(value)}; expected an array or a tensor of numbers") from error
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise BenchError(f"{name} has values that are not finite; check for divergence or division by zero")
    return tensor


def _check_images(images: Any, expected: tuple[int, ...], file: str) -> np.ndarray:
    """Returns the images as an array. Raises BenchError unless they are uint8 of the expected shape."""
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
    if isinstance(array, np.ndarray) and array.shape == expected and array.dtype == np.uint8:
        return array
    raise BenchError(f"{file}: pictures returned {_describe(array)}; expected uint8 {list(expected)} "
                     f"(items, samples, height, width, colours){describe_conversion(array)}")


def _describe(value: Any) -> str:
    if isinstance(value, (np.ndarray, Tensor)):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"{type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
