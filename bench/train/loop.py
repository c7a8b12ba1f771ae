"""What both trainings share: precision, steps over batches that are split where memory ends, checkpoints."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.key import Stage
from bench.experiment.stages import Finetune, Numerics, Pretrain
from bench.files import put, sync
from bench.runtime import Runtime, Stopped, keeps, stopping, unquestioned, use_exact_math
from bench.store.store import DOCUMENT
from bench.train import parallel

EVERY = 300.0  # s from one checkpoint to the next
AHEAD = 2  # batches that are fetched while the device works
Fetched = TypeVar("Fetched")


def precision(numerics: Numerics, device: str) -> Callable[[], AbstractContextManager]:
    """What a forward pass runs under: nothing (but `use_exact_math`), or autocast to bfloat16. BenchError for other dtypes."""
    use_exact_math()
    if numerics.dtype == "float32":
        return nullcontext
    if numerics.dtype == "bfloat16":
        return partial(torch.autocast, torch.device(device).type, torch.bfloat16)
    raise BenchError(f"no precision {numerics.dtype!r}; there are: float32, bfloat16")


def frozen_dtype(numerics: Numerics, device: str) -> torch.dtype:
    """What frozen parts are held as: bfloat16 where that is asked for on a GPU, else float32."""
    half = numerics.dtype == "bfloat16" and torch.device(device).type == "cuda"
    return torch.bfloat16 if half else torch.float32


def hold(module: nn.Module, dtype: torch.dtype) -> None:
    """Converts the matrices and kernels that do not train. What trains stays float32, and so do biases and norms."""
    for parameter in module.parameters():
        if not parameter.requires_grad and parameter.ndim > 1:
            parameter.data = parameter.data.to(dtype)


def prefetched(items: Iterable[Any], fetch: Callable[[Any], Fetched], ahead: int = AHEAD) -> Iterator[Fetched]:
    """fetch(item) for each, in order; with ahead > 0 in a thread, that many before they are asked for."""
    if not ahead:
        yield from map(fetch, items)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(fetch, item))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


class Training:
    """An optimiser at work on a stage's model.

    tensors: all that training changes, by name, live. parameters: what it trains, whose gradients are clipped
    together. `rows` are this process's of every batch, and `parts` says in how many parts it takes them: 1, until
    memory ends.
    """

    def __init__(self, stage: Pretrain | Finetune, tensors: dict[str, Tensor], parameters: list[nn.Parameter],
                 optimizer: torch.optim.Optimizer, rate: torch.optim.lr_scheduler.LRScheduler, runtime: Runtime):
        self.rows = parallel.share(stage.schedule.batch, stage.numerics)
        self.share = self.rows.stop - self.rows.start
        self.step, self.parts = 0, 1
        self._stage, self._runtime, self._tensors, self._parameters = stage, runtime, tensors, parameters
        self._optimizer, self._rate, self._key = optimizer, rate, stage.key
        self._device = torch.device(runtime.device)
        self._flops = 0
        self._saved, self._reported = time.monotonic(), (time.monotonic(), 0)
        torch.manual_seed(stage.seed + parallel.rank())  # for an encoder's dropout; nothing of ours draws from it

    def update(self, loss: Callable[[slice], dict[str, Tensor]]) -> dict[str, Tensor]:
        """One step of the optimiser; the means over the batch of what `loss` gives, on the device.

        loss(rows): scalars that are means over those rows of this process's share, of which "loss" is differentiated.
        Where memory ends, the step is taken again in twice as many parts, weighted by their rows: the same mathematics.
        """
        if self._runtime.work is not None and self._device.type == "cuda" and not self._flops:
            parts = self.parts
            with FlopCounterMode(display=False) as counter:
                found = self._gradients(loss)
            if parts == self.parts:  # else some were counted twice
                self._flops = counter.get_total_flops() // self.share
        else:
            found = self._gradients(loss)
        parallel.average([p.grad for p in self._parameters if p.grad is not None] + list(found.values()))
        nn.utils.clip_grad_norm_(self._parameters, self._stage.schedule.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._rate.step()
        self.step += 1
        keeps(self._runtime.work is not None and self.step < self._stage.schedule.steps)
        return found

    def _gradients(self, loss: Callable[[slice], dict[str, Tensor]]) -> dict[str, Tensor]:
        while True:
            before = self._random()
            try:
                return self._accumulate(loss)
            except torch.OutOfMemoryError as error:
                if self.parts >= self.share:
                    raise BenchError(f"{self._stage.kind}: a single item of the batch does not fit into the memory of "
                                     f"{self._runtime.device}", ENVIRONMENT) from error
            self._optimizer.zero_grad()
            self._set_random(before)
            self.parts = min(2 * self.parts, self.share)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            self._note("memory ended: a batch is taken in more parts", parts=self.parts)

    def _accumulate(self, loss: Callable[[slice], dict[str, Tensor]]) -> dict[str, Tensor]:
        if self.parts == 1:
            found = loss(slice(0, self.share))
            found["loss"].backward()
            return {name: value.detach() for name, value in found.items()}
        total: dict[str, Tensor] = {}
        edges = [self.share * part // self.parts for part in range(self.parts + 1)]
        for begin, end in pairwise(edges):
            found = {name: value * ((end - begin) / self.share) for name, value in loss(slice(begin, end)).items()}
            found["loss"].backward()
            total = {name: total.get(name, 0) + value.detach() for name, value in found.items()}
        return total

    def report(self, found: dict[str, Tensor], step: int) -> None:
        """Tells `runtime.progress` how far it is: the one time that the device is waited for."""
        self._runtime.owned()
        scalars = dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))
        if lost := [name for name, value in scalars.items() if not math.isfinite(value)]:
            raise BenchError(f"{self._stage.kind} has lost its way: {', '.join(lost)} is no finite number at step "
                             f"{self.step}; lower the learning rate, or look at the EEG")
        now, (then, before) = time.monotonic(), self._reported
        self._reported = now, self.step
        items = (self.step - before) * self._stage.schedule.batch / max(now - then, 1e-9)
        self._runtime.progress(step, self._stage.schedule.steps, **scalars, **self._rates(),
                               items_per_s=round(items, 3), parts=self.parts, **self._utilisation(items))

    def _rates(self) -> dict[str, float]:
        """The learning rate; where groups of parameters have their own, each with its group's number."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        return {"lr": rates[0]} if len(set(rates)) == 1 else {f"lr_{i}": rate for i, rate in enumerate(rates)}

    def _utilisation(self, items: float) -> dict[str, float]:
        """On a GPU: the peak of this process's memory, TFLOP/s of all processes by the FLOPs counted in the first step,
        and their share of the peak where known."""
        found: dict[str, float] = {}
        if self._device.type == "cuda":
            found["peak_cuda_bytes"] = torch.cuda.max_memory_allocated(self._device)
        if not self._flops:
            return found
        from bench.runtime import GPUS

        found["tflops"] = round(self._flops * items / 1e12, 2)
        name = torch.cuda.get_device_name(self._device)
        for short, gpu in GPUS.items():
            if re.search(rf"\b{short.upper()}\b", name.upper()) and "PCIE" not in name.upper():
                found["mfu"] = round(found["tflops"] / gpu.tflops / parallel.size(), 4)
        return found

    def _note(self, what: str, **values: float) -> None:
        if parallel.rank() == 0:
            self._runtime.note(what, step=self.step, **values)

    def save_when_due(self, extra: Callable[[], dict[str, Any]]) -> None:
        """Keeps the state and `extra()`, tensors and plain values, if that was done too long ago; raises Stopped after
        that where the process was asked to end."""
        if self._runtime.work is None:
            return
        due, last = parallel.agreed((time.monotonic() - self._saved >= EVERY, stopping()))
        if not due and not last:
            return
        if parallel.rank() == 0:
            describe(self._runtime.work, self._stage)
        own = parallel.gathered({"random": self._random(), "parts": self.parts})
        if parallel.rank() == 0:
            write(self._runtime.work, self.step, {
                "key": self._key, "tensors": self._tensors, "optimizer": self._optimizer.state_dict(),
                "rate": self._rate.state_dict(), "own": own, "extra": extra()}, self._runtime.owned)
        self._saved = time.monotonic()
        if last:
            raise Stopped

    def resume(self) -> dict[str, Any] | None:
        """Goes back to the last kept state and gives the `extra` kept with it; None where there is none that fits."""
        if self._runtime.work is None:
            return None
        if parallel.rank() == 0:
            for part in self._runtime.work.glob("*.part"):  # its writer is dead, or has lost the stage
                part.unlink(missing_ok=True)
        if (found := read(self._runtime.work, self._key)) is None:
            return None
        step, state = found
        shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        if {name: tensor.shape for name, tensor in state["tensors"].items()} != shapes:
            _refuse(self._runtime.work, "it holds other tensors than this training")
            return None
        self.step = step
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(state["tensors"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rate.load_state_dict(state["rate"])
        own = state["own"][parallel.rank()]
        self.parts = own["parts"]
        self._set_random(own["random"])
        self._reported = time.monotonic(), self.step
        self._note("goes on from a checkpoint")
        return state["extra"]

    def _random(self) -> list[Tensor]:
        """The states of the generators that a module draws from, such as its dropout."""
        cuda = [torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else []
        return [torch.get_rng_state(), *cuda]

    def _set_random(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self._device)


def describe(folder: Path, stage: Stage) -> None:
    """Makes a folder of checkpoints that says what the stage is built from, which is kept as long as it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / DOCUMENT).exists():
        put(folder / DOCUMENT, stage.document)


def write(folder: Path, step: int, state: dict[str, Any], owned: Callable[[], None] = unquestioned) -> None:
    """Keeps a state of tensors and plain values, complete or not at all; its file's name holds its step and SHA-256.

    owned: raises where the folder is another's by now; then nothing in it changes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"checkpoint.{os.getpid()}.part"
    try:
        with part.open("wb") as file:
            hashing = _Hashing(file)
            torch.save(state, hashing)
            file.flush()
            os.fsync(file.fileno())
        path = folder / f"checkpoint.{step:09d}.{hashing.digest.hexdigest()}.pt"
        owned()
        os.replace(part, path)
        sync(folder)
    finally:
        part.unlink(missing_ok=True)
    for other in folder.glob("checkpoint.*.pt"):
        if other.name < path.name:
            other.unlink(missing_ok=True)


def read(folder: Path, name: str) -> tuple[int, dict[str, Any]] | None:
    """The step and state last kept for the stage of that key. One that is damaged or another's is refused with a
    warning."""
    for path in sorted(folder.glob("checkpoint.*.pt"), reverse=True):
        try:
            step, digest = path.name.split(".")[1:3]
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise ValueError("its bytes are not those that were written")
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["key"] != name:
                raise ValueError(f"it belongs to stage {state['key'][:12]}, not {name[:12]}")
            return int(step), state
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            _refuse(path, str(error))
    return None


def _refuse(path: Path, why: str) -> None:
    if parallel.rank() == 0:
        warnings.warn(f"checkpoint {path} is not used ({why}): training begins anew", stacklevel=3)


class _Hashing:
    """A file that is written from its beginning to its end, and the SHA-256 of what was written."""

    def __init__(self, file: Any):
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
