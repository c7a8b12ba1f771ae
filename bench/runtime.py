"""Where a stage runs and whom it reports to, how a process is told to stop, and the devices and GPUs that are known."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ENVIRONMENT, BenchError


def ignore(*_: object, **__: object) -> None:
    """Does nothing: the default of every callback of a `Runtime`."""


class Stopped(BaseException):
    """The process was told to stop; a training that can resume has saved its state."""


_requested, _deferred = threading.Event(), threading.Event()


def stop(*_: object) -> None:
    """Tells the running stage to stop; a signal handler. Further calls are ignored during cleanup. Raises Stopped,
    unless the stage defers it (`defer_stop`)."""
    if not _requested.is_set():
        _requested.set()
        if not _deferred.is_set():
            raise Stopped


def is_stopping() -> bool:
    """Whether this process was told to stop."""
    return _requested.is_set()


def defer_stop(deferred: bool) -> None:
    """Sets whether the running stage polls `is_stopping` and raises Stopped itself, once its state is saved."""
    (_deferred.set if deferred else _deferred.clear)()


@dataclass(frozen=True)
class Runtime:
    """What a stage needs to run, apart from its settings; it is not part of the stage's key.

    device      "cpu" or "cuda"
    progress    progress(step, total, **scalars), called repeatedly by a running stage
    encoders    folder with copies of users' encoders; None: the user's own file is imported
    work        folder of this stage's checkpoints, which remain after the process is killed; None: no checkpoints
    note        note(event, **values), called for single events, such as resuming from a checkpoint
    owned       raises lease.Lost if another process has taken over the stage; called before `work` is written
    """

    device: str = "cpu"
    progress: Callable[..., None] = ignore
    encoders: Path | None = None
    work: Path | None = None
    note: Callable[..., None] = ignore
    owned: Callable[[], None] = ignore


@dataclass(frozen=True)
class Gpu:
    """A GPU. tflops: dense bfloat16 peak; gigabytes: memory, decimal; watts: board power; source: the data sheet."""

    name: str
    tflops: float
    gigabytes: float
    watts: float
    source: str


GPUS = {
    "h200": Gpu("H200", 989, 141, 700, "NVIDIA H200 Tensor Core GPU data sheet, SXM; without sparsity"),
    "h100": Gpu("H100", 989, 80, 700, "NVIDIA H100 Tensor Core GPU data sheet, SXM; without sparsity"),
    "a100": Gpu("A100 80GB", 312, 80, 400, "NVIDIA A100 Tensor Core GPU data sheet, 80GB SXM; without sparsity"),
    "4090": Gpu("RTX 4090", 165.2, 24, 450,
                "NVIDIA Ada GPU architecture white paper, FP32 accumulate; without sparsity"),
}
DEVICES = ("auto", "cpu", "cuda")


def device(name: str) -> str:
    """Resolves a device name to "cpu" or "cuda"; "auto" is "cuda" if the driver shows a GPU. Raises BenchError for an
    unknown name, and (exit 3) for "cuda" without a GPU."""
    if name not in DEVICES:
        raise BenchError(f"no device {name!r}; there are: {', '.join(DEVICES)}")
    has_gpu = count_gpus() > 0
    if name == "cuda" and not has_gpu:
        raise BenchError("device cuda: the driver shows no GPU on this machine; use --device cpu", ENVIRONMENT)
    return "cuda" if has_gpu and name != "cpu" else "cpu"


def count_gpus() -> int:
    """Returns the number of GPUs that CUDA's driver shows, without importing torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def release_memory(error: BaseException) -> None:
    """Frees what a failed stage still holds, such as its model, and empties CUDA's cache.
    Removes the tracebacks of the error, of its cause, its context and its parts: their frames hold the objects."""
    waiting, cleared = [error], set[int]()
    while waiting:
        each = waiting.pop()
        cleared.add(id(each))
        each.__traceback__ = None
        parts = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        waiting += [other for other in (each.__cause__, each.__context__, *parts)
                    if other is not None and id(other) not in cleared]
    gc.collect()  # objects that refer to each other
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def use_exact_math() -> None:
    """Switches TF32 off, for cuBLAS and cuDNN: float32 is computed as float32 on every device."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
