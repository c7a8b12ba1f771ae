"""Shared parts of pre-training and fine-tuning: precision, steps in micro-batches, progress and checkpoints."""

from __future__ import annotations

import os
import pickle
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.key import Stage
from bench.experiment.stages import Finetune, Numerics, Pretrain
from bench.files import sha256, sync, write_text
from bench.runtime import GPUS, Runtime, Stopped, defer_stop, ignore, is_stopping, naming_memory_errors, use_exact_math
from bench.store.store import DOCUMENT
from bench.train import parallel
from bench.train.losses import check_finite
from models.counter import make_counter

EVERY = 300.0  # s between two checkpoints
AHEAD = 2  # batches fetched while the device computes
SETTLED = 3  # steps after which the memory of a step is known: the optimiser has allocated its state
Item = TypeVar("Item")
Fetched = TypeVar("Fetched")


def precision(numerics: Numerics, device: str) -> Callable[[], AbstractContextManager]:
    """Returns the context of forward passes: autocast for bfloat16, none for float32 (with `use_exact_math`)."""
    use_exact_math()
    if torch.device(device).type == "mps" and numerics.dtype != "float32":
        raise BenchError(f"device mps computes in float32, not in {numerics.dtype}; use device cuda or cpu")
    if numerics.dtype == "float32":
        return nullcontext
    if numerics.dtype == "bfloat16":
        return partial(torch.autocast, torch.device(device).type, torch.bfloat16)
    raise BenchError(f"unknown dtype {numerics.dtype!r}; expected float32 or bfloat16")


def frozen_dtype(numerics: Numerics, device: str) -> torch.dtype:
    """Returns the dtype of frozen weights: bfloat16 on a GPU if that is the stage's dtype, otherwise float32."""
    return torch.bfloat16 if numerics.dtype == "bfloat16" and torch.device(device).type == "cuda" else torch.float32


def cast_frozen(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts the frozen matrices and kernels; trained parameters, biases and norms stay float32."""
    for parameter in module.parameters():
        if not parameter.requires_grad and parameter.ndim > 1:
            parameter.data = parameter.data.to(dtype)


def compile_blocks(module: nn.Module, backend: str = "inductor") -> None:
    """Compiles each transformer block in place, for fixed shapes; the names of its tensors stay."""
    for block in module.modules():
        if isinstance(block, Block):
            block.compile(backend=backend, dynamic=False)


def to_device(tensor: Tensor, device: str) -> Tensor:
    """Copies a CPU tensor to the device; with CUDA through pinned memory, so that neither CPU nor GPU waits."""
    return tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else \
        tensor.to(device)


def prefetch(items: Iterable[Item], fetch: Callable[[Item], dict[str, Tensor]], device: str = "cpu"
             ) -> Iterator[tuple[Item, dict[str, Tensor]]]:
    """Yields each item with fetch(item), its tensors on the device, in order.
    On CUDA a thread draws items and fetches them up to AHEAD in advance, and copies on a stream of its own."""
    if torch.device(device).type != "cuda":
        for item in items:
            yield item, fetch(item)
        return
    stream = torch.cuda.Stream(device)

    def fetch_on_stream(item: Item) -> tuple[dict[str, Tensor], torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return fetch(item), stream.record_event()

    for item, (tensors, copied) in run_ahead(items, fetch_on_stream):
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for tensor in tensors.values():
            tensor.record_stream(current)  # its memory is reused after the step that reads it
        yield item, tensors


def run_ahead(items: Iterable[Item], fetch: Callable[[Item], Fetched]) -> Iterator[tuple[Item, Fetched]]:
    """Yields each item with fetch(item), in order; a thread draws and fetches up to AHEAD in advance.
    An error in the thread is raised where its item would be yielded."""
    remaining = iter(items)

    def draw() -> tuple[Item, Fetched] | None:
        for item in remaining:
            return item, fetch(item)
        return None

    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(draw) for _ in range(AHEAD))
        while (drawn := pending.popleft().result()) is not None:
            pending.append(pool.submit(draw))
            yield drawn


class Training:
    """The optimiser of a stage's model, with its progress and checkpoints.

    tensors       everything that training changes, by name: the model's own tensors, not copies
    parameters    the trained parameters, whose gradients are clipped together
    rows          this process's rows of every batch
    parts         the number of micro-batches of a step: 1 until the device runs out of memory
    """

    def __init__(self, stage: Pretrain | Finetune, tensors: dict[str, Tensor], parameters: list[nn.Parameter],
                 optimizer: torch.optim.Optimizer, rate: torch.optim.lr_scheduler.LRScheduler, runtime: Runtime):
        self.rows = parallel.rows_of_process(stage.schedule.batch, stage.numerics)
        self.share = self.rows.stop - self.rows.start
        self.step, self.parts = 0, 1
        self._stage, self._runtime, self._tensors, self._parameters = stage, runtime, tensors, parameters
        self._optimizer, self._rate, self._device = optimizer, rate, torch.device(runtime.device)
        self._averaging = parallel.Averaging(parameters) if parallel.size() > 1 else None
        self._first = 0  # the step from which this process trains
        self._flops = 0  # per item, counted in the first step on a GPU
        self._saved, self._reported = time.monotonic(), (time.monotonic(), 0)
        torch.manual_seed(stage.seed + parallel.rank())  # for dropout in an encoder; the suite draws from generators

    def update(self, loss: Callable[[slice], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Takes one optimiser step; returns the means of `loss` over the batch, on the device.
        loss(rows): scalar means over these rows of this process's share; "loss" is differentiated. On CUDA
        out-of-memory, the step is retried with twice as many micro-batches, weighted by their rows. Several processes
        average gradients during the backward pass, which cannot be retried: in the first SETTLED steps after it."""
        if self._runtime.work is not None and self._device.type == "cuda" and not self._flops:
            parts = self.parts
            with torch.compiler.set_stance("force_eager"), make_counter() as counted:  # compiled code is not counted
                means = self._compute_gradients(loss)
            if parts == self.parts:  # otherwise a retry was counted as well
                self._flops = counted.get_total_flops() // self.share
        else:
            means = self._compute_gradients(loss)
        if self._averaging is not None:
            if not self._overlaps():
                self._averaging.finish()
            means = parallel.mean(means)
        nn.utils.clip_grad_norm_(self._parameters, self._stage.schedule.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._rate.step()
        self.step += 1
        defer_stop(self._runtime.work is not None and self.step < self._stage.schedule.steps)
        return means

    def _compute_gradients(self, loss: Callable[[slice], dict[str, Tensor]]) -> dict[str, Tensor]:
        while True:
            random = self._random_state()
            try:
                with naming_memory_errors():
                    return self._accumulate(loss)
            except torch.OutOfMemoryError as error:
                if self._overlaps():
                    raise BenchError(f"{self._stage.kind}: out of memory in step {self.step}; run again: the "
                                     "training resumes from its last checkpoint and adapts its micro-batches",
                                     ENVIRONMENT) from error
                if self.parts >= self.share:
                    raise BenchError(f"{self._stage.kind}: a single item of the batch does not fit into the memory of "
                                     f"{self._runtime.device}; use a larger GPU", ENVIRONMENT) from error
            self._optimizer.zero_grad()
            self._set_random_state(random)
            self.parts = min(2 * self.parts, self.share)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            self._note("out of memory: step retried with smaller micro-batches", parts=self.parts)

    def _overlaps(self) -> bool:
        """Whether gradients are averaged over several processes during the backward pass."""
        return self._averaging is not None and self.step - self._first >= SETTLED

    def _accumulate(self, loss: Callable[[slice], dict[str, Tensor]]) -> dict[str, Tensor]:
        if self.parts == 1:
            means = self._differentiate(loss, slice(0, self.share), 1, is_last=True)
            return {name: value.detach() for name, value in means.items()}
        total: dict[str, Tensor] = {}
        edges = [self.share * part // self.parts for part in range(self.parts + 1)]
        for begin, end in pairwise(edges):
            means = self._differentiate(loss, slice(begin, end), (end - begin) / self.share, end == self.share)
            total = {name: total.get(name, 0) + value.detach() for name, value in means.items()}
        return total

    def _differentiate(self, loss: Callable[[slice], dict[str, Tensor]], rows: slice, weight: float, is_last: bool
                       ) -> dict[str, Tensor]:
        """Returns the weighted losses of a micro-batch and adds their gradients; the last one averages them."""
        averaging = self._averaging
        with averaging.paused() if averaging and not (is_last and self._overlaps()) else nullcontext():
            means = averaging.call(loss, rows) if averaging else loss(rows)
            if weight != 1:
                means = {name: value * weight for name, value in means.items()}
            means["loss"].backward()
        return means

    def report(self, means: dict[str, Tensor], step: int) -> None:
        """Reports progress; the only call that waits for the device. Raises BenchError if a loss is not finite."""
        self._runtime.owned()
        scalars = dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))
        check_finite(self._stage, scalars, self.step)
        now, (then, before) = time.monotonic(), self._reported
        self._reported = now, self.step
        items = (self.step - before) * self._stage.schedule.batch / max(now - then, 1e-9)
        rates = [group["lr"] for group in self._optimizer.param_groups]
        lr = {"lr": rates[0]} if len(set(rates)) == 1 else {f"lr_{group}": rate for group, rate in enumerate(rates)}
        cuda = self._device.type == "cuda"
        gpu_use = {"peak_cuda_bytes": torch.cuda.max_memory_allocated(self._device)} if cuda else {}
        if self._flops:  # of all processes, and their share of the GPU's peak, if known
            gpu_use["tflops"] = round(self._flops * items / 1e12, 2)
            name = torch.cuda.get_device_name(self._device).upper()
            for short, gpu in GPUS.items():
                if re.search(rf"\b{short.upper()}\b", name) and "PCIE" not in name:
                    gpu_use["mfu"] = round(gpu_use["tflops"] / gpu.tflops / parallel.size(), 4)
        self._runtime.progress(step, self._stage.schedule.steps, **scalars, **lr, items_per_s=round(items, 3),
                               parts=self.parts, **gpu_use)

    def _note(self, message: str, **values: float) -> None:
        if parallel.rank() == 0:
            self._runtime.note(message, step=self.step, **values)

    def save_when_due(self, extra: Callable[[], dict[str, Any]]) -> None:
        """Writes a checkpoint with `extra()`, tensors and plain values: every EVERY seconds, and before Stopped."""
        if self._runtime.work is None:
            return
        is_due, is_last = parallel.broadcast((time.monotonic() - self._saved >= EVERY, is_stopping()))
        if not is_due and not is_last:
            return
        processes = parallel.gather({"random": self._random_state(), "parts": self.parts})
        if parallel.rank() == 0:
            write_document(self._runtime.work, self._stage)
            write_checkpoint(self._runtime.work, self.step, {
                "key": self._stage.key, "tensors": self._tensors, "optimizer": self._optimizer.state_dict(),
                "rate": self._rate.state_dict(), "own": processes, "extra": extra()}, self._runtime.owned)
        self._saved = time.monotonic()
        if is_last:
            raise Stopped

    def resume(self) -> dict[str, Any] | None:
        """Restores the last checkpoint and returns its `extra`; None if there is no usable checkpoint."""
        if self._runtime.work is None:
            return None
        if parallel.rank() == 0:
            for part in self._runtime.work.glob("*.part"):  # its writer has exited, or has lost the stage
                part.unlink(missing_ok=True)
        if (checkpoint := read_checkpoint(self._runtime.work, self._stage.key)) is None:
            return None
        step, state = checkpoint
        shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        if {name: tensor.shape for name, tensor in state["tensors"].items()} != shapes:
            _warn_unused(self._runtime.work, "its tensors are not those of this training")
            return None
        self.step = self._first = step
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(state["tensors"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rate.load_state_dict(state["rate"])
        process = state["own"][parallel.rank()]
        self.parts = process["parts"]
        self._set_random_state(process["random"])
        self._reported = time.monotonic(), self.step
        self._note("resumed from a checkpoint")
        return state["extra"]

    def _random_state(self) -> list[Tensor]:
        """The states of torch's global generators, from which modules such as dropout draw."""
        if self._device.type == "cpu":
            return [torch.get_rng_state()]
        return [torch.get_rng_state(), torch.get_device_module(self._device).get_rng_state(self._device)]

    def _set_random_state(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device.type != "cpu":
            torch.get_device_module(self._device).set_rng_state(states[1], self._device)


def write_document(folder: Path, stage: Stage) -> None:
    """Creates a folder of checkpoints with the stage's document, which names the stages that must be kept for it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / DOCUMENT).exists():
        write_text(folder / DOCUMENT, stage.document)


def write_checkpoint(folder: Path, step: int, state: dict[str, Any], owned: Callable[[], None] = ignore) -> None:
    """Writes a checkpoint atomically and removes older ones; the file's name contains its step and SHA-256.
    owned: raises if another process has taken over the folder; then nothing in it changes."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"checkpoint.{os.getpid()}.part"
    try:
        with part.open("wb") as file:
            torch.save(state, file)
        sync(part)
        path = folder / f"checkpoint.{step:09d}.{sha256(part)}.pt"
        owned()
        os.replace(part, path)
        sync(folder)
    finally:
        part.unlink(missing_ok=True)
    for other in folder.glob("checkpoint.*.pt"):
        if other.name < path.name:
            other.unlink(missing_ok=True)


def read_checkpoint(folder: Path, key: str) -> tuple[int, dict[str, Any]] | None:
    """Returns step and state of a stage's last checkpoint, or None. Warns of damaged files and of other stages'."""
    for path in sorted(folder.glob("checkpoint.*.pt"), reverse=True):
        try:
            step, digest = path.name.split(".")[1:3]
            if sha256(path) != digest:
                raise ValueError("its content does not match its SHA-256")
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["key"] != key:
                raise ValueError(f"it belongs to stage {state['key'][:12]}, not {key[:12]}")
            return int(step), state
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            _warn_unused(path, str(error))
    return None


def _warn_unused(path: Path, reason: str) -> None:
    if parallel.rank() == 0:
        warnings.warn(f"checkpoint {path} cannot be used ({reason}); training starts from step 0", stacklevel=3)
