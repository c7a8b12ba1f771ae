"""The order in which ready stages begin, and the time that a plan takes on several GPUs in this order."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from bench.experiment.graph import needs
from bench.experiment.key import Stage
from bench.experiment.kinds import kind_of


def priority(stage: Stage, duration: float) -> tuple[int, float]:
    """Orders ready stages: late kinds first, so that rows are complete early; of one kind the longest first."""
    return -kind_of(stage).place, -duration


def simulate(hours: Mapping[Stage, float], gpus: int) -> float:
    """Hours until all stages are built, each on one of the GPUs, ready stages in the order of `priority`.

    hours: of a GPU for each stage that is not stored, upstream stages first; a stage of 0 hours needs no GPU.
    """
    number = {stage: position for position, stage in enumerate(hours)}
    above = {stage: set(hours).intersection(needs(stage)) for stage in hours}
    below: dict[Stage, list[Stage]] = {stage: [] for stage in hours}
    for stage, inputs in above.items():
        for each in inputs:
            below[each].append(stage)
    ready: list[tuple[int, float, int, Stage]] = []  # the numbers are unique: stages have no order
    running: list[tuple[float, int, Stage]] = []
    now, free = 0.0, gpus

    def push(stage: Stage) -> None:
        if hours[stage]:
            heapq.heappush(ready, (*priority(stage, hours[stage]), number[stage], stage))
        else:
            complete(stage)

    def complete(stage: Stage) -> None:
        for each in below[stage]:
            above[each].discard(stage)
            if not above[each]:
                push(each)

    for stage in [stage for stage, inputs in above.items() if not inputs]:
        push(stage)
    while ready or running:
        while ready and free:
            *_, stage = heapq.heappop(ready)
            heapq.heappush(running, (now + hours[stage], number[stage], stage))
            free -= 1
        now, _, stage = heapq.heappop(running)
        free += 1
        complete(stage)
    return now
