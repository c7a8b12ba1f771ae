"""Checkpoints of a training: one that was killed goes on as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch

from bench import FULL, systems
from bench.experiment.scale import MICRO
from bench.runtime import Runtime, Stopped
from bench.store import lease
from bench.train import finetune as finetuning
from bench.train import loop
from bench.train.finetune import finetune
from bench.train.pretrain import pretrain


def trainings():
    """Both trainings of Full with steps enough to be interrupted, and the step at which they are."""
    tuned = systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model
    first = replace(tuned.start, schedule=replace(tuned.start.schedule, steps=50))
    return {"pretrain": (pretrain, first, 40),
            "finetune": (finetune, replace(tuned, schedule=replace(tuned.schedule, steps=32), checkpoints=3), 32)}


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_bytes(micro, tmp_path, monkeypatch, name):
    function, stage, last = trainings()[name]
    for folder in ("whole", "killed", "resumed"):
        (tmp_path / folder).mkdir()
    function(stage, micro.path, tmp_path / "whole", Runtime())
    work = tmp_path / "work"

    def killed():
        def progress(step, total, **scalars):
            if step >= last:
                os.kill(os.getpid(), signal.SIGKILL)

        function(stage, micro.path, tmp_path / "killed", Runtime(progress=progress, work=work))

    monkeypatch.setattr(loop, "EVERY", 0)
    process = multiprocessing.get_context("fork").Process(target=killed)  # libraries take seconds to import
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not list((tmp_path / "killed").glob("*.json"))
    said, notes = [], []
    function(stage, micro.path, tmp_path / "resumed", Runtime(
        progress=lambda step, total, **scalars: said.append({"step": step, **scalars}), work=work,
        note=lambda what, **values: notes.append((what, values["step"]))))
    (what, step), = notes
    assert what == "resumed from a checkpoint"
    assert 0 < step < said[0]["step"]
    assert said[0]["step"] >= 30  # not from the beginning
    assert {"step", "loss", "items_per_s", "parts"} <= set(said[0])
    assert any(name.startswith("lr") for name in said[0])
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "resumed").iterdir())
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "resumed" / file).read_bytes(), file


@pytest.mark.parametrize("is_old", [False, True])
def test_a_checkpoint_stores_each_loss_as_one_array_and_older_checkpoints_resume_to_the_same_bytes(
        micro, tmp_path, monkeypatch, is_old):
    function, stage, _ = trainings()["finetune"]
    work = tmp_path / "work"
    for folder in ("whole", "stopped", "resumed"):
        (tmp_path / folder).mkdir()
    function(stage, micro.path, tmp_path / "whole", Runtime())

    def interrupt(step, total, **scalars):
        if step == 30:  # the last checkpoint is that of step 20
            raise Stopped

    monkeypatch.setattr(loop, "EVERY", 0)
    with pytest.raises(Stopped):
        function(stage, micro.path, tmp_path / "stopped", Runtime(progress=interrupt, work=work))
    step, state = loop.read_checkpoint(work, stage.key)
    history = state["extra"]["history"]
    assert (step, {name: values.shape for name, values in history.items()}) == (20, {"sd": (20,), "align": (20,)})
    if is_old:
        state["extra"]["history"] = {name: [value.clone() for value in values] for name, values in history.items()}
        for file in work.glob("checkpoint.*"):
            file.unlink()
        loop.write_checkpoint(work, step, state)
    notes = []
    function(stage, micro.path, tmp_path / "resumed", Runtime(
        work=work, note=lambda what, **values: notes.append((what, values["step"]))))
    assert notes == [("resumed from a checkpoint", 20)]
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "resumed" / file.name).read_bytes(), file.name


def test_a_loss_that_is_not_trained_leaves_no_values_in_a_checkpoint():
    assert finetuning._unpack(finetuning._pack([]), "cpu") == finetuning._unpack([], "cpu") == []


def small(work, seed=0):
    """A training of one matrix, one step in."""
    stage = replace(trainings()["pretrain"][1], seed=seed)
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.AdamW([weight])
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    training = loop.Training(stage, {"weight": weight}, [weight], optimizer, rate, Runtime(work=work))
    training.update(lambda rows: {"loss": weight.square().mean()})
    return stage, weight, training


def test_a_checkpoint_that_is_damaged_or_anothers_is_refused_and_training_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "EVERY", 0)
    stage, weight, training = small(tmp_path)
    training.save_when_due(lambda: {"curve": [1.5]})
    file, = tmp_path.glob("checkpoint.*")
    after = weight.detach().clone()
    step, state = loop.read_checkpoint(tmp_path, stage.key)
    assert (step, state["extra"]) == (1, {"curve": [1.5]})
    with pytest.warns(UserWarning, match="belongs to stage .* training starts from step 0"):
        assert loop.read_checkpoint(tmp_path, replace(stage, seed=1).key) is None
    training.update(lambda rows: {"loss": weight.square().mean()})
    assert not torch.equal(weight, after)
    assert training.resume() == {"curve": [1.5]}
    assert torch.equal(weight, after)
    assert training.step == 1
    sound = file.read_bytes()
    for damaged in (sound[:-100], sound[:500] + bytes([sound[500] ^ 1]) + sound[501:], b""):
        file.write_bytes(damaged)
        with pytest.warns(UserWarning, match="does not match its SHA-256.* training starts from step 0"):
            assert training.resume() is None


def test_a_checkpoint_that_was_being_written_when_the_process_died_counts_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "EVERY", 0)
    stage, _, training = small(tmp_path)
    (tmp_path / "checkpoint.7.part").write_bytes(b"half")
    assert loop.read_checkpoint(tmp_path, stage.key) is None
    assert training.resume() is None
    assert not list(tmp_path.glob("*.part"))
    training.save_when_due(dict)
    training.update(lambda rows: {"loss": training._parameters[0].sum()})
    training.save_when_due(dict)
    assert [path.name.split(".")[1] for path in tmp_path.glob("checkpoint.*.pt")] == ["000000002"]


def test_a_process_that_lost_its_stage_changes_nothing_among_the_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "EVERY", 0)
    _, _, training = small(tmp_path)
    training.save_when_due(dict)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def lost():
        raise lease.Lost("pretrain", lease.Lease("ab" * 32))

    training._runtime = replace(training._runtime, owned=lost)
    training.update(lambda rows: {"loss": training._parameters[0].sum()})
    for write in (lambda: training.save_when_due(dict), lambda: training.report({"loss": torch.ones(())}, 1)):
        with pytest.raises(lease.Lost):
            write()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_is_kept_before_it_is_due_or_without_a_folder(tmp_path):
    small(tmp_path)[2].save_when_due(dict)
    assert not list(tmp_path.glob("checkpoint.*"))
    training = small(None)[2]
    training.save_when_due(dict)
    assert training.resume() is None
