"""Runs a user's own file: its function `fit` on the training trials, its function `pictures` for the items."""

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
from bench.errors import BenchError
from bench.experiment import encoders
from bench.experiment.stages import Items, Numerics, Stage, Weights
from bench.files import mapped
from bench.runtime import Runtime, silent
from bench.scoring.networks import weights_present
from bench.systems.own import Own, OwnFit
from bench.train.generate import initial_noise
from bench.train.items import Loaded, Stimuli, load
from bench.train.loop import frozen_dtype, precision
from models import frozen

AT_ONCE = 64  # pictures that are copied at a time


class InYourFile(Exception):
    """What a user's own file raised: its file and line, and the first line of what it says."""


@dataclass(frozen=True, eq=False)
class Tested:
    """What is known of the N items that pictures are asked for: nothing of what was shown."""

    item: np.ndarray  # [N] int64, ids, ascending
    subject: np.ndarray  # [N] int64
    eeg: np.ndarray  # [N, C, T] float32: their own, or a control's


@dataclass(frozen=True, eq=False)
class Run:
    """Where and with what a user's functions run. torch, numpy and random are seeded with `seed` before each of them.

    seed        of the row
    samples     pictures of each item; in `fit` 1
    device      "cpu" or "cuda"
    progress    progress(step, total, loss=...): shown while the stage is at work
    fitted      what `fit` returned, as tensors on the CPU; empty in `fit`, and where there is none
    """

    seed: int
    samples: int
    device: str = "cpu"
    progress: Callable[..., None] = silent
    fitted: Mapping[str, Tensor] = field(default_factory=dict)
    numerics: Numerics = Numerics()
    parts: tuple[Weights, ...] = ()

    def noise(self, items: Tested | Loaded, *shape: int) -> Tensor:
        """Normal noise [N, samples, *shape] float32, drawn for (seed, item, sample) alone: the other systems' in
        generation, so that differences are paired."""
        drawn = initial_noise(items.item, self.samples, self.seed, shape)
        return drawn.unflatten(0, (len(items.item), self.samples)).to(self.device)

    def vae(self) -> frozen.Vae:
        """The suite's VAE, frozen: encode(images [B, 3, H, W] in [-1, 1]) and decode(latents)."""
        return self._part(frozen.load_vae, 0)

    def clip(self) -> frozen.Clip:
        """The suite's CLIP, frozen: embed_image, embed_text, tokenize, text_tokens."""
        return self._part(frozen.load_clip, 1)

    def unet(self) -> UNet2DConditionModel:
        """The suite's U-Net, frozen; models.frozen.sample draws with it, by `schedule`."""
        return self._part(frozen.load_unet, 2)

    def schedule(self) -> Any:
        """The noise schedule that the U-Net was trained with."""
        with weights_present():
            return frozen.noise_schedule(self.parts[2].path)

    def autocast(self) -> AbstractContextManager:
        """What a forward pass through the frozen parts runs under: bfloat16 at scale paper, else nothing."""
        return precision(self.numerics, self.device)()

    def _part(self, loaded: Callable[..., Any], which: int) -> Any:
        weights = self.parts[which]
        with weights_present():
            return loaded(weights.path, weights.sha256, frozen_dtype(self.numerics, self.device)).to(self.device)


def fit(stage: OwnFit, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes fitted.safetensors, what the file's `fit(train, run, **settings)` returns, and summary.json.

    The numbers of floating point in it count as trained parameters. Raises BenchError where it is no dict of arrays, or
    has values that are not finite.
    """
    with _training(stage, inputs, out) as train:
        found = _called(stage, "fit", runtime, train, _run(stage, 1, runtime))
    file = f"{stage.source.name}.py"
    if not isinstance(found, Mapping):
        raise BenchError(f"{file}: fit returned {_described(found)}; a dict of names and arrays or tensors is expected")
    tensors = {name: _tensor(f"{file}: fit's {name!r}", value) for name, value in found.items()}
    save_file({str(name): tensor for name, tensor in tensors.items()}, out / "fitted.safetensors")
    learnt = sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point())
    (out / "summary.json").write_text(json.dumps({"trained_parameters": {"fit": learnt}}, indent=1) + "\n")


def generate_images(stage: Own, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, item.npy [N], and, where the file's
    `pictures(train, test, run, **settings)` returns a pair, embedding.npy [N, D'].

    What it is given leads to no picture and no label of the items. Raises BenchError where the pictures are others than
    were asked for.
    """
    fitted = load_file(inputs(stage.fit) / "fitted.safetensors") if stage.fit else {}
    with _training(stage, inputs, out) as train:
        shape = train.pictures.shape[1:]
        run = replace(_run(stage, stage.samples, runtime), fitted=fitted)
        test = _tested(_loaded(stage, stage.items, inputs))
        found = _called(stage, "pictures", runtime, train, test, run)
    file = f"{stage.source.name}.py"
    drawn, embedding = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    np.save(out / "pictures.npy", _pictures(drawn, (len(test.item), stage.samples, *shape), file))
    np.save(out / "item.npy", test.item)
    if embedding is not None:
        vectors = _tensor(f"{file}: the embedding", embedding).float().numpy()
        if vectors.ndim != 2 or len(vectors) != len(test.item):
            raise BenchError(f"{file}: the embedding is {list(vectors.shape)}; [{len(test.item)}, D'], a vector for "
                             "each item in CLIP's space, is expected")
        np.save(out / "embedding.npy", vectors)


def _loaded(stage: Own | OwnFit, items: Items, inputs: Callable[[Stage], Path]) -> Loaded:
    return load(items, inputs(items.trials),
                inputs(stage.targets) / "embeddings.npy" if stage.targets else None)


def _tested(items: Loaded) -> Tested:
    return Tested(items.item.copy(), items.subject.copy(), items.eeg)


@contextmanager
def _training(stage: Own | OwnFit, inputs: Callable[[Stage], Path], out: Path) -> Iterator[Loaded]:
    """The training trials with a file of their pictures alone, in which `picture` is renumbered."""
    train = _loaded(stage, stage.train, inputs)
    path = out / "training.npy"
    _, first, row = np.unique(train.picture, return_index=True, return_inverse=True)
    copy = mapped(path, np.uint8, (len(first), *train.pictures.shape[1:]))
    for start in range(0, len(first), AT_ONCE):
        copy[start:start + AT_ONCE] = train.pictures[first[start:start + AT_ONCE]]
    copy.flush()
    picture = row.reshape(-1).astype(np.int64)
    try:
        yield replace(train, picture=picture, pictures=Stimuli(np.load(path, mmap_mode="r"), picture))
    finally:
        path.unlink()


def _run(stage: Own | OwnFit, samples: int, runtime: Runtime) -> Run:
    return Run(stage.seed, samples, runtime.device, runtime.progress, {}, stage.numerics, stage.parts)


def _called(stage: Own | OwnFit, function: str, runtime: Runtime, *given: Any) -> Any:
    """What a function of the user's file returns, called with the stage's settings, seeded, on the stage's threads. The
    file is the store's copy of what was planned with, or, without a store, where it lies."""
    source = stage.source
    path = runtime.encoders / source.code / f"{source.name}.py" if runtime.encoders else Path(source.path)
    if encoders.code(path) != source.code:
        raise BenchError(f"{path} is not the source that this stage was planned with; run again")
    with _seeded(stage.seed), threadpool_limits(stage.numerics.threads), _told(path):
        module = modules.from_file(path, f"own_{source.code}")
        return getattr(module, function)(*given, **dict(stage.settings))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Everything random that a user's file may forget to seed; as it was before at the end."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Says of an exception in which line of the user's file, or of a module beside it, it was raised."""
    try:
        yield
    except (BenchError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        beside = {file.resolve(): file.relative_to(path.parent).as_posix() for file in encoders.sources(path)}
        frames = [(Path(frame.filename).resolve(), frame.lineno) for frame in
                  traceback.extract_tb(error.__traceback__)]
        file, line = next(((beside[file], line) for file, line in reversed(frames) if file in beside),
                          (path.name, None))
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InYourFile(f"{file}, line {line}: {said}" if line else f"{file}: {said}") from error


def _tensor(what: str, value: Any) -> Tensor:
    """A contiguous tensor on the CPU of its own memory. Raises BenchError for what is none, or not finite."""
    try:
        tensor = torch.as_tensor(value).detach().cpu().clone(memory_format=torch.contiguous_format)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BenchError(f"{what} is {_described(value)}; an array or a tensor of numbers is expected") from error
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise BenchError(f"{what} has values that are not finite: the training has lost its way, or divided by zero")
    return tensor


def _pictures(drawn: Any, expected: tuple[int, ...], file: str) -> np.ndarray:
    """The pictures as an array. Raises BenchError where they are not uint8 of the expected shape."""
    array = drawn.detach().cpu().numpy() if isinstance(drawn, Tensor) else drawn
    if not isinstance(array, np.ndarray) or array.shape != expected or array.dtype != np.uint8:
        kinds = ["items", "samples", "height", "width", "colours"]
        wrong = ""
        if isinstance(array, np.ndarray) and array.dtype != np.uint8:
            wrong = "; of numbers from 0 to 1: (255 * x.clip(0, 1)).round().astype(np.uint8)"
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                wrong = f"; {int((~np.isfinite(array)).sum()):,} of its values are not finite"
        raise BenchError(f"{file}: pictures returned {_described(array)}; uint8 {list(expected)} "
                         f"({', '.join(kinds)}) is expected{wrong}")
    return array


def _described(value: Any) -> str:
    if isinstance(value, (np.ndarray, Tensor)):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"{type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
