"""Estimates how long stages take on one CPU core; no result depends on it."""

from __future__ import annotations

from collections.abc import Iterable

from bench.experiment.key import Stage
from bench.experiment.kinds import kind_of
from bench.experiment.stages import (
    Corpus,
    Finetune,
    Generate,
    Pretrain,
    Reference,
    Targets,
    TrainFeatures,
    Trials,
    World,
)
from bench.modules import import_object

STARTUP = 8.0  # s until a worker has imported its libraries


def seconds(stage: Stage) -> float:
    """Seconds on one core of an AMD EPYC with AVX2, fitted by hand to runs at scale tiny."""
    if isinstance(stage, Pretrain):
        work = stage.encoder.depth * stage.encoder.width * (1.1 - stage.mask_ratio) / 576
        return stage.schedule.steps * stage.schedule.batch * (3.5e-4 + 1.35e-3 * work)
    if isinstance(stage, Finetune):
        return stage.schedule.steps * stage.schedule.batch * (5e-3 if stage.sd_loss else 1.5e-3)
    if isinstance(stage, Generate):
        return 3 + stage.sampling.samples * stage.sampling.steps * 0.6
    if isinstance(stage, Corpus) and isinstance(stage.world, World):
        return 3 + 1.2e-3 * stage.world.recordings * stage.world.seconds
    if function := kind_of(stage).forecast:
        return float(import_object(function)(stage))
    return 5.0 if isinstance(stage, (Trials, Targets, Reference, TrainFeatures)) else 2.0


def describe_duration(todo: Iterable[Stage], workers: int) -> str:
    """Such as "about 8 minutes on CPU cores"."""
    each = list(map(seconds, todo))
    if not each:
        return "nothing to do"
    minutes = (STARTUP + max(sum(each) / workers, *each)) / 60
    return f"about {minutes:.0f} minutes on CPU cores" if minutes >= 1.5 else "about a minute on CPU cores"
