"""Where a stage runs and whom it reports to, how a process is told to stop, and the devices that are known."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from bench.errors import ENVIRONMENT, BenchError

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

Result = TypeVar("Result")
OUT_OF_MEMORY = re.compile(  # messages of the RuntimeErrors by which libraries report that memory is exhausted
    r"CUDA (error: )?out of memory|\bCU(BLAS|DNN|SOLVER|SPARSE)_STATUS_\w*ALLOC(ATION)?_FAILED|\bCUFFT_ALLOC_FAILED"
    r"|MPS backend out of memory|DefaultCPUAllocator: (can't allocate memory|not enough memory)")


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

    device      "cpu", "cuda" or "mps"
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
DEVICES = ("auto", "cpu", "cuda", "mps")


def device(name: str) -> str:
    """Resolves a device name to "cpu", "cuda" or "mps", the GPU of a Mac; "auto" is "cuda" if the driver shows a GPU,
    and never "mps". Raises BenchError for an unknown name, and (exit 3) for a device that is not in this machine."""
    if name not in DEVICES:
        raise BenchError(f"no device {name!r}; there are: {', '.join(DEVICES)}")
    if name == "mps":
        if (sys.platform, platform.machine()) != ("darwin", "arm64"):
            raise BenchError("device mps: this machine is no Mac with Apple silicon; use --device cpu", ENVIRONMENT)
        return name
    has_gpu = count_gpus() > 0
    if name == "cuda" and not has_gpu:
        raise BenchError("device cuda: the driver shows no GPU on this machine; use --device cpu", ENVIRONMENT)
    return "cuda" if has_gpu and name != "cpu" else "cpu"


def count_cores() -> int:
    """Returns the number of cores that this process may use; all of the machine's where the system does not say it
    (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allow_open_files(number: int) -> None:
    """Raises this process's limit of open files to the system's, if it is below `number`. Windows has no such limit."""
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard and soft < number:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def peak_memory(of_children: bool = False) -> int:
    """Returns the system's peak of the memory of this process in bytes, or of its largest child; 0 on Windows."""
    if resource is None:
        return 0
    usage = resource.getrusage(resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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
    empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports exhausted memory: torch's and Python's own errors, and those of cuBLAS, cuDNN, pinned
    memory and torch's CPU allocator, which are RuntimeErrors and have only their message (OUT_OF_MEMORY)."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)) is not None


@contextmanager
def naming_memory_errors() -> Iterator[None]:
    """Raises every error that reports exhausted memory (`is_out_of_memory`) as torch.OutOfMemoryError."""
    import torch

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(str(error)) from error


class MicroBatches:
    """Computes batches without gradients in micro-batches; their number doubles when memory is exhausted.

    device    "cpu", "cuda" or "mps"
    note      note(event, **values), called each time that the number of micro-batches rises
    parts     the number of micro-batches of a batch; it is kept for later batches
    """

    def __init__(self, device: str, note: Callable[..., None]):
        self.parts, self._device, self._note = 1, device, note

    def run(self, function: Callable[[slice], Result], count: int) -> list[Result]:
        """Returns function(rows) for the micro-batches of a batch of `count` items, in order.
        The function must give the same for the same rows when it is called again. Raises BenchError if a single item
        does not fit."""
        while True:
            parts = min(self.parts, count)
            edges = [count * part // parts for part in range(parts + 1)]
            try:
                return [function(slice(begin, end)) for begin, end in pairwise(edges)]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if parts == count:
                    raise BenchError(f"a single item of the batch does not fit into the memory of {self._device}; use "
                                     "a device with more memory, or end other processes that use it",
                                     ENVIRONMENT) from error
            self.parts = min(2 * parts, count)
            if self._device == "cuda":
                empty_cache()
            self._note("out of memory: batch repeated in smaller micro-batches", parts=self.parts)


def empty_cache() -> None:
    """Returns the memory that torch keeps on the GPU without using it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def use_exact_math() -> None:
    """Switches TF32 off, for cuBLAS and cuDNN: float32 is computed as float32 on every device."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
