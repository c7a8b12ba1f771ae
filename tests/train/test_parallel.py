"""Tests trainings in several processes: losses as in one process, resumption to equal bytes, and clear errors."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paper import PAPER

from bench import FULL, runtime, systems
from bench.cost.memory import memory
from bench.cost.rates import GIGA
from bench.errors import BenchError
from bench.experiment.scale import MICRO
from bench.runtime import Runtime, Stopped
from bench.train import parallel
from bench.train.finetune import finetune
from bench.train.loop import read_checkpoint
from bench.train.parallel import launch
from bench.train.pretrain import pretrain


def tuned(**numerics):
    stage = systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model
    stage = replace(stage, schedule=replace(stage.schedule, steps=11))
    return replace(stage, numerics=replace(stage.numerics, **numerics))


def first(**numerics):
    stage = tuned().start
    return replace(stage, numerics=replace(stage.numerics, **numerics))


TRAININGS = """
import os
from dataclasses import replace

import torch

from bench.train import finetune as tuning, loop, parallel, pretrain as training
from models.condition import Tau

loop.EVERY = 0


def pretrain(*given):
    training.pretrain(*given)


def finetune(*given):
    tuning.finetune(*given)


def killed(stage, inputs, out, runtime):
    reports = []

    def owned():
        reports.append(0)
        if parallel.rank() == 1 and len(reports) == 3:
            os.kill(os.getpid(), 9)

    training.pretrain(stage, inputs, out, replace(runtime, owned=owned))


def short_of_memory(stage, inputs, out, runtime, first=0):
    # memory for three items in the second process, from a step on
    real, steps = Tau.forward, []

    def forward(self, tokens):
        steps.append(0)
        if parallel.rank() == 1 and len(tokens) > 3 and len(steps) > first:
            raise torch.OutOfMemoryError("injected")
        return real(self, tokens)

    Tau.forward = forward
    tuning.finetune(stage, inputs, out, runtime)


def short_of_memory_later(*given):
    short_of_memory(*given, first=5)
"""


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    """Both trainings with a checkpoint at every report, in a module that other processes import."""
    for folder in ("one", "two", "ended", "resumed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "trainings.py").write_text(TRAININGS)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("trainings")


def curve(function, stage, micro, out, work=None):
    """Runs a training; returns step, loss and whether there is a rate for each report, and the notes."""
    steps, notes = [], []
    launch(function, stage, micro.path, out, Runtime(
        progress=lambda step, total, **scalars: steps.append((step, scalars["loss"], "items_per_s" in scalars)),
        note=lambda event, **values: notes.append((event, values["step"])), work=work))
    return steps, notes


def near(steps):
    return [(step, pytest.approx(loss, rel=1e-5), has_rate) for step, loss, has_rate in steps]


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_two_processes_pretrain_as_one_does_and_resume_after_a_kill_to_the_same_bytes(micro, tmp_path, trainings):
    def long(**numerics):
        return replace(first(**numerics), schedule=replace(first().schedule, steps=50))

    alone, shared = long(), long(world_size=2)
    steps, _ = curve(pretrain, alone, micro, tmp_path / "one")
    assert len(steps) >= 3
    assert steps == near(curve(pretrain, shared, micro, tmp_path / "two")[0])
    one, two = (json.loads((tmp_path / folder / "pretrain.json").read_text()) for folder in ("one", "two"))
    assert [point["held_out"] for point in one["curve"]] == pytest.approx(
        [point["held_out"] for point in two["curve"]], rel=1e-5)
    assert one["masked_mse"] == pytest.approx(two["masked_mse"], rel=1e-5)
    with pytest.raises(BenchError, match=r"pretrain: process 1 of 2 died .signal 9"):
        curve(trainings.killed, shared, micro, tmp_path / "ended", tmp_path / "work")
    _, state = read_checkpoint(tmp_path / "work", shared.key)
    own = state["own"]
    assert len(own) == 2
    assert not torch.equal(own[0]["random"][0], own[1]["random"][0])  # dropout differs between their items
    rest, notes = curve(trainings.pretrain, shared, micro, tmp_path / "resumed", tmp_path / "work")
    assert notes == [("resumed from a checkpoint", 21)]
    assert [step for step, *_ in rest] == [40]
    assert contents(tmp_path / "resumed") == contents(tmp_path / "two")


def test_two_processes_fine_tune_as_one_does_also_when_stopped_in_between(micro, tmp_path, trainings, monkeypatch):
    alone, shared = tuned(), tuned(world_size=2)
    steps, _ = curve(finetune, alone, micro, tmp_path / "one")
    with monkeypatch.context() as stopping:
        stopping.setattr(parallel, "is_stopping", lambda: True)
        with pytest.raises(Stopped):
            curve(trainings.finetune, shared, micro, tmp_path / "ended", tmp_path / "work")
    assert not contents(tmp_path / "ended")
    rest, notes = curve(trainings.finetune, shared, micro, tmp_path / "resumed", tmp_path / "work")
    assert notes == [("resumed from a checkpoint", 10)]
    assert [steps[-1]] == near(rest)
    losses = [json.loads((tmp_path / folder / "finetune.json").read_text())["losses"] for folder in ("one", "resumed")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.long
def test_a_process_that_runs_out_of_memory_splits_its_share_in_the_first_steps_and_ends_the_training_later(
        micro, tmp_path, trainings):
    shared = tuned(world_size=2)
    expected, _ = curve(finetune, tuned(), micro, tmp_path / "one")
    steps, _ = curve(trainings.short_of_memory, shared, micro, tmp_path / "two")
    assert steps == near(expected)
    with pytest.raises(BenchError, match="out of memory in step 5; run again"):
        curve(trainings.short_of_memory_later, shared, micro, tmp_path / "ended")


def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_both_numbers(micro, tmp_path):
    with pytest.raises(BenchError, match="a batch of 16 .* 3 processes"):
        launch(pretrain, first(world_size=3), micro.path, tmp_path, Runtime())


def test_more_processes_than_gpus_are_refused_with_both_numbers(micro, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BenchError, match="2 processes need a GPU each, but this machine has 1"):
        launch(pretrain, first(world_size=2, device_class="cuda"), micro.path, tmp_path, Runtime(device="cuda"))


def test_a_stage_for_two_processes_does_not_run_in_one(micro, tmp_path):
    with pytest.raises(BenchError, match="requires 2 processes but runs in 1"):
        pretrain(first(world_size=2), micro.path, tmp_path, Runtime())


@pytest.mark.long
def test_an_exception_in_a_process_ends_the_stage_with_its_text(micro, tmp_path, monkeypatch):
    (tmp_path / "raising.py").write_text("def pretrain(*_):\n    raise ZeroDivisionError('of nothing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BenchError, match="pretrain: process . of 2: ZeroDivisionError: of nothing"):
        launch(importlib.import_module("raising").pretrain, first(world_size=2), micro.path, tmp_path, Runtime())


def test_processes_that_the_nodes_of_a_slurm_job_cannot_share_evenly_are_refused(micro, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    with pytest.raises(BenchError, match="2 processes .* 3 nodes"):
        launch(pretrain, first(world_size=2), micro.path, tmp_path, Runtime())


def test_one_process_runs_where_it_is_called(tmp_path):
    called = []
    launch(lambda *arguments: called.append(arguments), first(), lambda stage: tmp_path, tmp_path, Runtime())
    assert len(called) == 1


def test_the_page_on_real_size_states_the_memory_that_fsdp_would_divide():
    page = (Path(__file__).parents[2] / "docs" / "paper-scale.md").read_text()
    model = systems.plan(FULL, PAPER.items(), PAPER, 0).pictures.model
    states = [memory(stage).fixed / GIGA for stage in (model.start, model)]
    assert "These take {:.1f} GB in\n  pre-training and {:.1f} GB in fine-tuning".format(*states) in page
    assert all(10 * state < runtime.GPUS["h200"].gigabytes for state in states)
