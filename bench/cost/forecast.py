"""Estimates how long stages take on one CPU core; no result depends on it."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable

from bench.experiment.key import Stage
from bench.experiment.kinds import kind_of
from bench.experiment.stages import (
    Corpus,
    Finetune,
    Generate,
    Pretrain,
    Readout,
    Reference,
    Targets,
    TrainFeatures,
    Trials,
    World,
)
from bench.modules import import_object

STARTUP = 8.0  # s until the workers' libraries are imported
PRODUCT = 3.25e-3  # s of a float32 product of two matrices of SIDE rows on that core
SIDE, PRODUCTS = 512, 60
DIFFERS = 1.25  # a machine's slowness from which a forecast mentions it


def seconds(stage: Stage) -> float:
    """Seconds on one core of an AMD EPYC with AVX2, fitted by hand to runs at scale tiny."""
    if isinstance(stage, Pretrain):
        work = stage.encoder.depth * stage.encoder.width * (1.1 - stage.mask_ratio) / 576
        return stage.schedule.steps * stage.schedule.batch * (3.5e-4 + 1.35e-3 * work)
    if isinstance(stage, Finetune):
        return stage.schedule.steps * stage.schedule.batch * (5.8e-3 if stage.sd_loss else 1.5e-3)
    if isinstance(stage, Generate):
        return 3 + stage.sampling.samples * stage.sampling.steps
    if isinstance(stage, Readout) and stage.classifier == "eegnet":
        return 10.0
    if isinstance(stage, Corpus) and isinstance(stage.world, World):
        return 3 + 1.2e-3 * stage.world.recordings * stage.world.seconds
    if function := kind_of(stage).forecast:
        return float(import_object(function)(stage))
    return 5.0 if isinstance(stage, (Trials, Targets, Reference, TrainFeatures)) else 2.0


@functools.cache
def measure_slowness() -> float:
    """Returns the time of a matrix product on this machine, over its time on the core of `seconds`.

    Other work on the machine counts. It takes a fraction of a second, and is measured once for each process."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    matrix = np.ones((SIDE, SIDE), np.float32)
    with threadpool_limits(1):
        matrix @ matrix  # the first call also sets the library up
        began = time.perf_counter()
        for _ in range(PRODUCTS):
            matrix @ matrix
        return (time.perf_counter() - began) / PRODUCTS / PRODUCT


def describe_duration(todo: Iterable[Stage], workers: int) -> str:
    """Describes the time that the stages take: "about 8 minutes on CPU cores".

    If this machine is faster or slower at present, the time at its speed is added."""
    each = list(map(seconds, todo))
    if not each:
        return "nothing to do"
    minutes = (STARTUP + max(sum(each) / workers, *each)) / 60
    text = f"about {minutes:.0f} minutes on CPU cores" if minutes >= 1.5 else "about a minute on CPU cores"
    slowness = measure_slowness() if minutes >= 1.5 else 1.0
    if 1 / DIFFERS < slowness < DIFFERS:
        return text
    return f"{text}; about {max(1, round(minutes * slowness))} at this machine's present speed"
