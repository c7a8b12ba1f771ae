"""The workers of this machine: how many there are, and which GPU each of them uses."""

from __future__ import annotations

import os
from dataclasses import dataclass

from bench import runtime
from bench.errors import BenchError

VISIBLE = "CUDA_VISIBLE_DEVICES"  # names the GPUs of a process, separated by commas; "": none
SHARING = 4  # workers of one GPU at scales tiny and micro: each keeps one core busy, which launches small kernels
BESIDE = 4  # workers at most that use no GPU, beside those of GPUs: a stage of real data needs gigabytes of memory


@dataclass(frozen=True)
class Layout:
    """The workers of this machine. cpu: the number of those that use no GPU; gpus: names of GPUs, as in
    CUDA_VISIBLE_DEVICES, or "mps"; per_gpu: the number of workers of each GPU."""

    cpu: int
    gpus: tuple[str, ...] = ()
    per_gpu: int = 1

    @property
    def width(self) -> int:
        """The number of stages that compute at once: those on GPUs, or without GPUs those on the CPU."""
        return len(self.gpus) * self.per_gpu or self.cpu

    def describe(self) -> str:
        """Describes the workers: "2 workers", or "1 worker on each of 4 GPUs (0, 1, 2, 3) and 4 on the CPU"."""
        if not self.gpus:
            return f"{self.cpu} workers"
        workers = f"{self.per_gpu} worker{'s' if self.per_gpu > 1 else ''}"
        where = f"GPU {self.gpus[0]}" if len(self.gpus) == 1 else (
            f"each of {len(self.gpus)} GPUs ({', '.join(self.gpus)})")
        return f"{workers} on {where} and {self.cpu} on the CPU"


def visible_gpus() -> tuple[str, ...]:
    """Returns the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers, or UUIDs of GPUs and of
    MIG devices. A name that CUDA does not know, and all after it, are left out, as CUDA does."""
    count, chosen = runtime.count_gpus(), os.environ.get(VISIBLE)
    names = list(map(str, range(count))) if chosen is None else [name.strip() for name in chosen.split(",")]
    return tuple(names[:count])


def choose_layout(wanted: int | None, device: str, is_small: bool = False) -> Layout:
    """Returns the workers of a run: on a CPU `wanted`, by default one for each available core; with GPUs `wanted` for
    each GPU, by default one, or several if its stages are small, and further workers that use no GPU.

    device: "cpu", "cuda" or "mps"; is_small: whether several stages fit on a GPU (scales tiny and micro). Raises
    BenchError for fewer than 1 worker."""
    if wanted is not None and wanted < 1:
        raise BenchError(f"--workers {wanted}: expected at least 1")
    cores = runtime.count_cores()
    if device == "cpu":
        return Layout(wanted or cores)
    gpus = visible_gpus() if device == "cuda" else (device,)
    per_gpu = wanted or (max(1, min(SHARING, cores // max(1, len(gpus)))) if is_small else 1)
    return Layout(max(1, min(BESIDE, cores - len(gpus) * per_gpu)), gpus, per_gpu)
