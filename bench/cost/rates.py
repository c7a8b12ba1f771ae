"""The rates that stages reach on a GPU, as shares of its peak: goals, assumptions, or measured by `bench selftest`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from bench.errors import BenchError, one_line
from bench.experiment.key import Stage
from bench.experiment.kinds import kind_of
from bench.runtime import GPUS, Gpu

EXA, GIGA = 10**18, 10**9
HEADROOM = 0.9  # share of a GPU's memory that a plan may use


@dataclass(frozen=True)
class Rate:
    """share: of the rate of large matrix products. source: "goal", "assumption" or "measured"."""

    share: float
    source: str


MATMUL = Rate(0.80, "assumption")  # share of the peak that large bfloat16 matrix products reach
RATES = {  # by kind of stage; pretrain's goal is for batches of 1,024, the protocol's 100 will reach less
    "pretrain": Rate(0.40, "goal"), "finetune": Rate(0.30, "goal"), "generate": Rate(0.30, "goal"),
    **dict.fromkeys(("targets", "reference", "trainfeatures", "score", "trivial"), Rate(0.25, "assumption"))}
PIXEL_METRICS = 0.034  # s of one core for an image of 512 pixels: python tests/speed_score.py pixels, 5 samples
OTHERS = Rate(0.10, "assumption")  # a system's own networks: too small to use a large GPU fully
PRODUCTS = "matmul"  # name of the rate of large matrix products in a file of measured rates


@dataclass(frozen=True)
class Rates:
    """matmul: of the peak; kinds: by kind of stage; others: of all other kinds."""

    matmul: Rate
    kinds: Mapping[str, Rate]
    others: Rate

    @property
    def are_measured(self) -> bool:
        """Whether every rate was measured."""
        return all(rate.source == "measured" for rate in (self.matmul, *self.kinds.values()))


ASSUMED = Rates(MATMUL, RATES, OTHERS)
_current: ContextVar[Rates | None] = ContextVar("rates", default=None)


def current() -> Rates:
    """Returns the rates that prices use now."""
    return _current.get() or ASSUMED


@contextmanager
def using(rates: Rates) -> Iterator[None]:
    """Sets the rates that prices use inside this context."""
    token = _current.set(rates)
    try:
        yield
    finally:
        _current.reset(token)


def read(path: Path, gpu: str) -> Rates:
    """Returns the rates that `bench selftest` measured on a GPU, a key of GPUS; kinds it did not measure keep theirs.

    path: its JSON lines. Raises BenchError for another file, for a test with small sizes, and for another GPU.
    """
    cure = f"measure with: bench selftest --out {path.name}"
    try:
        lines = [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        about = next((line for line in lines if "gpu" in line), {})
        measured = {str(name): Rate(float(share), "measured") for line in lines if line.get("ok")
                    for name, share in line.get("rates", {}).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BenchError(f"--rates {path}: expected the JSON lines of bench selftest, found {one_line(error)}; "
                         f"{cure}") from error
    if about.get("sizes") != "real" or not measured:
        raise BenchError(f"--rates {path}: the file has no rate measured on a GPU at real sizes; {cure}")
    if about["gpu"] != gpu:
        raise BenchError(f"--rates {path}: measured on {about['gpu'] or about.get('name')}, not on {gpu}; use it with "
                         f"--gpu {about['gpu'] or 'NAME'}, or {cure}")
    if wrong := [name for name, rate in measured.items() if not 0 < rate.share <= 1]:
        raise BenchError(f"--rates {path}: the share of {wrong[0]} is {measured[wrong[0]].share:g}; expected more than "
                         f"0 and at most 1; {cure}")
    return replace(ASSUMED, matmul=measured.pop(PRODUCTS, MATMUL), kinds={**RATES, **measured})


def find_gpu(name: str) -> str:
    """Returns the key in GPUS of the GPU with this name of the driver; "" if it is none of them, as a PCIe card."""
    return next((short for short in GPUS if re.search(rf"\b{short}\b", name, re.IGNORECASE)
                 and "PCIE" not in name.upper()), "")


def rate(stage: Stage) -> Rate:
    """Returns the rate that a stage reaches."""
    return current().kinds.get(kind_of(stage).rate or stage.kind, current().others)


def hours(stage: Stage, flops: int, gpu: Gpu) -> float:
    """Returns the GPU-hours of a stage of that many FLOPs."""
    share = current().matmul.share * rate(stage).share
    return flops / (gpu.tflops * 1e12 * share) / 3600 if flops else 0.0
