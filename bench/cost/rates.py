"""The rates that stages reach on a GPU, as shares of its peak: goals and assumptions until they are measured."""

from __future__ import annotations

from dataclasses import dataclass

from bench.experiment.key import Stage
from bench.experiment.kinds import kind_of
from bench.runtime import Gpu

EXA, GIGA = 10**18, 10**9


@dataclass(frozen=True)
class Rate:
    """share: of the rate of large matrix products that a stage reaches. source: "goal", "assumption" or "measured"."""

    share: float
    source: str


MATMUL = Rate(0.80, "assumption")  # of the peak: what large bfloat16 matrix products reach
RATES = {  # of MATMUL; pretrain's goal is for batches of 1,024, and the protocol's 100 will reach less
    "pretrain": Rate(0.40, "goal"),
    "finetune": Rate(0.30, "goal"),
    "generate": Rate(0.30, "goal"),
    "targets": Rate(0.25, "assumption"),
    "reference": Rate(0.25, "assumption"),
    "score": Rate(0.25, "assumption"),
    "trivial": Rate(0.25, "assumption"),
}
OTHERS = Rate(0.10, "assumption")  # of a system's own small networks, which a large GPU waits for


def rate(stage: Stage) -> Rate:
    """The rate that a stage reaches."""
    return RATES.get(kind_of(stage).rate or stage.kind, OTHERS)


HEADROOM = 0.9  # of a GPU's memory that a plan may fill


def hours(stage: Stage, total: int, gpu: Gpu) -> float:
    """GPU-hours of a stage of that many FLOPs."""
    if not total:
        return 0.0
    return total / (gpu.tflops * 1e12 * MATMUL.share * rate(stage).share) / 3600
