"""The simulated schedule of a plan on several GPUs, against its bounds and against plans that a hand can place."""

from __future__ import annotations

import pytest

from bench import FULL, Variant, systems
from bench.cost import schedule
from bench.execute import runner
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.experiment.stages import Finetune, Pretrain, Score

ROWS = [FULL, *(Variant(f"mask {ratio}", mask_ratio=ratio) for ratio in (0.25, 0.5, 0.85))]
STAGES = graph.stages([systems.plan(row, MICRO.items(), MICRO, 0) for row in ROWS])


def of(*kinds, hours=1.0):
    return {stage: hours if isinstance(stage, kinds) else 0.0 for stage in STAGES}


@pytest.mark.parametrize(("gpus", "expected"), [(1, 8.0), (2, 4.0), (3, 4.0), (4, 2.0), (9, 2.0)])
def test_trainings_wait_for_what_they_start_from(gpus, expected):
    # with 3 GPUs the fourth pre-training waits for the fine-tunings of the first three
    assert schedule.simulate(of(Pretrain, Finetune), gpus) == expected


def test_a_chain_is_not_divided_among_gpus():
    hours = {stage: float(isinstance(stage, (Pretrain, Finetune, Score)))
             for stage in graph.stages([systems.plan(FULL, MICRO.items(), MICRO, 0)])}
    assert schedule.simulate(hours, 1) == schedule.simulate(hours, 8) == 3.0


def test_the_longest_of_one_kind_begins_first():
    hours, trainings = of(), [stage for stage in STAGES if isinstance(stage, Pretrain)]
    hours |= dict(zip(trainings, (1.0, 1.0, 1.0, 3.0), strict=True))
    assert schedule.simulate(hours, 2) == 3.0  # in the plan's order it would be 4


def test_stages_that_are_stored_are_not_waited_for():
    hours = {stage: hour for stage, hour in of(Pretrain, Finetune).items() if not isinstance(stage, Pretrain)}
    assert schedule.simulate(hours, 4) == 1.0
    assert schedule.simulate({}, 4) == 0.0


def test_the_runner_has_this_order():
    order = sorted(STAGES, key=runner._priority)
    places = [type(stage) for stage in order if isinstance(stage, (Pretrain, Finetune, Score))]
    assert places == [Score] * 4 + [Finetune] * 4 + [Pretrain] * 4
