"""The rates that stages reach on a GPU, as shares of its peak: goals and assumptions until they are measured."""

from __future__ import annotations

from dataclasses import dataclass

from bench.experiment.key import Stage
from bench.experiment.kinds import kind_of
from bench.runtime import Gpu

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


def rate(stage: Stage) -> Rate:
    """The rate that a stage reaches."""
    return RATES.get(kind_of(stage).rate or stage.kind, OTHERS)


def hours(stage: Stage, flops: int, gpu: Gpu) -> float:
    """GPU-hours of a stage of that many FLOPs."""
    return flops / (gpu.tflops * 1e12 * MATMUL.share * rate(stage).share) / 3600 if flops else 0.0
