"""Where a stage runs and whom it tells how far it is: travels beside the stage, never inside it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ENVIRONMENT, BenchError


def silent(step: int, total: int, **scalars: float) -> None:
    """Progress that nobody watches."""


def unheard(what: str, **values: float) -> None:
    """A note that nobody keeps."""


class Stopped(BaseException):
    """This process was asked to end, and what can be gone on from is kept."""


_asked, _keeps = threading.Event(), threading.Event()


def stop(*_: object) -> None:
    """Asks the stage at work in this process to end; a handler of signals. It ends with Stopped: at once, or where it
    is a training that keeps its state, as soon as that is done. Asked again, it goes on ending: putting away is not to
    be interrupted."""
    if not _asked.is_set():
        _asked.set()
        if not _keeps.is_set():
            raise Stopped


def stopping() -> bool:
    """Whether this process was asked to end."""
    return _asked.is_set()


def keeps(state: bool) -> None:
    """Whether what is at work looks at `stopping` itself, now and then, and ends with Stopped."""
    (_keeps.set if state else _keeps.clear)()


def unquestioned() -> None:
    """The stage is this process's own: nobody else can take it over."""


@dataclass(frozen=True)
class Runtime:
    """device: "cpu" or "cuda". progress(step, total, **scalars): called now and then by a stage at work.

    encoders: folder of the kept copies of users' encoders; None: a user's encoder is loaded from where it lies.
    work: folder of one stage's checkpoints, which outlives a process that is killed; None: none are kept.
    note(what, **values): called for what happens once, such as that a training goes on from a checkpoint.
    owned: raises lease.Lost where another process has taken the stage over, before anything is written into `work`.
    """

    device: str = "cpu"
    progress: Callable[..., None] = silent
    encoders: Path | None = None
    work: Path | None = None
    note: Callable[..., None] = unheard
    owned: Callable[[], None] = unquestioned


@dataclass(frozen=True)
class Gpu:
    """tflops: peak of dense bfloat16 matrix products; gigabytes: of memory, decimal; watts: board power."""

    name: str
    tflops: float
    gigabytes: float
    watts: float
    source: str


GPUS = {
    "h200": Gpu("H200", 989, 141, 700, "NVIDIA H200 Tensor Core GPU data sheet, SXM; without sparsity"),
    "h100": Gpu("H100", 989, 80, 700, "NVIDIA H100 Tensor Core GPU data sheet, SXM; without sparsity"),
    "a100": Gpu("A100 80GB", 312, 80, 400, "NVIDIA A100 Tensor Core GPU data sheet, 80GB SXM; without sparsity"),
    "4090": Gpu("RTX 4090", 165.2, 24, 450, "NVIDIA Ada GPU architecture white paper, FP32 accumulate; without "
                                            "sparsity"),
}


DEVICES = ("auto", "cpu", "cuda")


def device(name: str) -> str:
    """"cpu" or "cuda"; "auto" takes a GPU where the driver shows one. Raises BenchError (exit 3) where none is."""
    if name not in DEVICES:
        raise BenchError(f"no device {name!r}; there are: {', '.join(DEVICES)}")
    found = _gpus() > 0
    if name == "cuda" and not found:
        raise BenchError("device cuda: the driver shows no GPU on this machine; use --device cpu", ENVIRONMENT)
    return "cuda" if found and name != "cpu" else "cpu"


def _gpus() -> int:
    """How many GPUs CUDA's driver shows, asked without importing torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def use_exact_math() -> None:
    """What is computed in float32 is so on every device: TF32 is switched off, cuDNN's too."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
