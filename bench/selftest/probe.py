"""Measures a stage while it is built: time a step, memory, launches and waits; and the rate of matrix products."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.experiment.key import Stage

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")  # how the names of the driver's calls begin
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
READ = "aten::_local_scalar_dense"  # a number that Python reads from a tensor
FLOPS_OF_PRODUCT = 2  # for a multiply-add


class Enough(BaseException):
    """Ends a stage whose measurement is complete. It is no Exception, so that a stage does not catch it."""


@dataclass
class Probe:
    """Receives the progress of a stage. reports: (step, seconds, values) of each log line; total: of all steps.

    profiled: whether the steps between the first two log lines are profiled; the stage then ends by Enough.
    """

    profiled: bool = False
    total: int = 1
    reports: list[tuple[int, float, dict[str, float]]] = field(default_factory=list)
    events: list[tuple[str, bool]] = field(default_factory=list)  # (name, whether on the GPU)
    _profiler: Any = None

    def __call__(self, step: int, total: int, **values: float) -> None:
        self.total = total
        self.reports.append((step, time.perf_counter(), values))
        if not self.profiled:
            return
        if self._profiler is None:
            cuda = torch.cuda.is_initialized()
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
            self._profiler = profile(activities=kinds)
            self._profiler.start()
            return
        self._profiler.stop()
        self.events = [(event.name(), event.device_type() == torch.autograd.DeviceType.CUDA)
                       for event in self._profiler.profiler.kineto_results.events()]
        raise Enough

    @property
    def seconds_per_step(self) -> float | None:
        """The median over the intervals between two log lines; None if there is no interval."""
        spans = [(then - now) / (after - before) for (before, now, _), (after, then, _) in pairwise(self.reports)
                 if after > before]
        return statistics.median(spans) if spans else None

    @property
    def steps(self) -> int:
        """The number of steps between the first two log lines."""
        return self.reports[1][0] - self.reports[0][0]

    def values(self, name: str) -> list[float]:
        """Returns a value of all log lines that have it, such as the loss."""
        return [values[name] for *_, values in self.reports if name in values]

    def counts(self) -> dict[str, float]:
        """Returns launches, kernels and operators of a step, and waits and reads of a log line, of a profiled stage."""
        def count(keep: Callable[[str, bool], bool]) -> int:
            return sum(keep(name, on_gpu) for name, on_gpu in self.events)

        return {
            "launches_per_step": count(lambda name, _: name.startswith(LAUNCHES)) / self.steps,
            "kernels_per_step": count(lambda name, on_gpu: on_gpu and not name.startswith("Mem")) / self.steps,
            "operators_per_step": count(lambda name, _: name.startswith("aten::")) / self.steps,
            "waits_per_log_line": count(lambda name, _: name.startswith(WAITS)),
            "reads_per_log_line": count(lambda name, _: name == READ)}


def measure_products(device: str, dtype: torch.dtype, side: int, seconds: float = 1.0) -> float:
    """Returns the TFLOP/s of products of two square matrices [side, side]: the median over rounds of some products."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    products, spans = 10 if device == "cuda" else 1, list[float]()

    def run() -> float:
        began = time.perf_counter()
        for _ in range(products):
            torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    run()  # the first calls also set the library up
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(spans) < 3:
        spans.append(run())
    return FLOPS_OF_PRODUCT * side**3 * products / statistics.median(spans) / 1e12


def relative_error(found: Iterable[torch.Tensor], expected: Iterable[torch.Tensor]) -> float:
    """Returns the norm of the difference over the norm of what is expected, of all tensors together."""
    pairs = [(a.detach().double().cpu().flatten(), b.detach().double().cpu().flatten())
             for a, b in zip(found, expected, strict=True)]
    difference, norm = (torch.cat(values).norm() for values in
                        ([a - b for a, b in pairs], [b for _, b in pairs]))
    return float(difference / norm)


def stage_name(stage: Stage) -> str:
    """Returns the kind of a stage, with its batch if it is a training of DreamDiffusion."""
    schedule = getattr(stage, "schedule", None)
    batch = getattr(schedule, "batch", None)
    return f"{stage.kind}, batch {batch}" if batch else stage.kind
