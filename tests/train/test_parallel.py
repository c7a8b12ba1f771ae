"""Trainings on several processes: the same curve as on one, and clear words where that cannot be."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import pytest
import torch

from bench import FULL, systems
from bench.errors import BenchError
from bench.experiment.scale import MICRO
from bench.runtime import Runtime
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


SAVING = """
from bench.train import loop, pretrain as training

def pretrain(*given):
    loop.EVERY = 0
    training.pretrain(*given)
"""


def both(functions, stage, micro, tmp_path):
    """The folders of one process and of two."""
    shared = replace(stage, numerics=replace(stage.numerics, world_size=2))
    folders, steps = [tmp_path / "one", tmp_path / "two"], []
    for function, folder, it in zip(functions, folders, (stage, shared), strict=True):
        folder.mkdir()
        launch(function, it, micro.path, folder, Runtime(
            progress=lambda step, total, **scalars: steps.append((step, scalars["loss"], "items_per_s" in scalars)),
            work=tmp_path / "work"))
    assert len(steps) >= 2
    assert steps[:len(steps) // 2] == [(step, pytest.approx(loss, rel=1e-5), True)
                                       for step, loss, _ in steps[len(steps) // 2:]]
    return folders


def test_two_processes_pretrain_as_one_does_and_keep_the_state_of_both(micro, tmp_path, monkeypatch):
    (tmp_path / "saving.py").write_text(SAVING)
    monkeypatch.syspath_prepend(tmp_path)
    one, two = both((pretrain, importlib.import_module("saving").pretrain), first(), micro, tmp_path)
    _, state = read_checkpoint(tmp_path / "work", first(world_size=2).key)
    own = state["own"]
    assert len(own) == 2
    assert not torch.equal(own[0]["random"][0], own[1]["random"][0])  # dropout differs between their items
    one, two = (json.loads((folder / "pretrain.json").read_text()) for folder in (one, two))
    assert [point["held_out"] for point in one["curve"]] == pytest.approx(
        [point["held_out"] for point in two["curve"]], rel=1e-5)
    assert one["masked_mse"] == pytest.approx(two["masked_mse"], rel=1e-5)


def test_two_processes_fine_tune_as_one_does(micro, tmp_path):
    one, two = both((finetune, finetune), tuned(), micro, tmp_path)
    losses = [json.loads((folder / "finetune.json").read_text())["losses"] for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


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


def test_a_process_that_dies_ends_the_stage_with_its_signal(micro, tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text("import os\n\ndef pretrain(*_):\n    os.kill(os.getpid(), 9)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BenchError, match="pretrain: process . of 2 died .signal 9"):
        launch(importlib.import_module("dying").pretrain, first(world_size=2), micro.path, tmp_path, Runtime())


def test_one_process_runs_where_it_is_called(tmp_path):
    called = []
    launch(lambda *arguments: called.append(arguments), first(), lambda stage: tmp_path, tmp_path, Runtime())
    assert len(called) == 1
