"""About how long stages take on one core: a forecast for the user, nothing depends on it."""

from __future__ import annotations

from collections.abc import Iterable

from bench.key import Stage
from bench.stages import Corpus, Finetune, Generate, Pretrain, Reference, Score, Targets, Trials

STARTUP = 8.0  # s until a worker has imported its libraries


def seconds(stage: Stage) -> float:
    """Seconds of one core, measured on a server CPU of 2023 at scale tiny."""
    if isinstance(stage, Pretrain):
        seen = 1.15 - stage.mask_ratio
        return stage.schedule.steps * stage.schedule.batch * (1.0 + stage.encoder.depth * stage.encoder.width
                                                              * seen / 250) * 2.2e-4
    if isinstance(stage, Finetune):
        return stage.schedule.steps * stage.schedule.batch * (3.5e-3 if stage.sd_loss else 1e-3)
    if isinstance(stage, Generate):
        return 2 + 500 * stage.sampling.samples * stage.sampling.steps * 2.2e-3
    if isinstance(stage, Corpus):
        return 3 + 0.003 * stage.world.recordings * stage.world.seconds
    if isinstance(stage, (Trials, Targets)):
        return 6.0
    return 8.0 if isinstance(stage, (Score, Reference)) else 4.0


def said(todo: Iterable[Stage], workers: int) -> str:
    """"about 8 minutes"."""
    todo = list(todo)
    if not todo:
        return "nothing to do"
    minutes = (STARTUP + max(sum(map(seconds, todo)) / workers, max(map(seconds, todo)))) / 60
    return f"about {minutes:.0f} minutes on CPU cores" if minutes >= 1.5 else "about a minute on CPU cores"
