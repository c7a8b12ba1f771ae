"""bench.execute.worker: builds one stage by its key, as an engine runs it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time
import warnings
from dataclasses import replace

import pytest

from bench import FULL, systems
from bench.errors import BenchError
from bench.execute import worker
from bench.execute.executor import Event
from bench.execute.worker import write_request
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.runtime import Runtime
from bench.store import lease
from bench.store.journal import Journal
from bench.store.store import Store
from bench.train import loop
from bench.train.pretrain import pretrain


@pytest.fixture
def here(monkeypatch):
    """Restores what a worker changes in its process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    environment = dict(os.environ)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.environ.clear()
    os.environ.update(environment)


def stages():
    """The stages of Full at scale micro, by kind."""
    return {stage.kind: stage for stage in graph.stages([systems.plan(FULL, MICRO.items(), MICRO, 0)])}


def work(store, stage) -> int:
    return worker.main([stage.key, "--store", str(store.root), "--device", "cpu"])


def test_a_process_builds_a_stage_from_its_request_and_a_second_one_finds_it_done(tmp_path):
    store, trials = Store(tmp_path / "s"), stages()["trials"]
    write_request(store, trials)
    command = worker.command(trials, store, "cpu")
    for _ in range(2):
        with subprocess.Popen(command, cwd=tmp_path, text=True, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as process:
            assert process.stdout.read() == f"trials {trials.key} is complete\n"
            assert process.wait(200) == 0
    assert store.is_intact(trials)
    assert not list((store.root / "work").iterdir())


def test_a_worker_whose_inputs_are_not_there_says_which_and_keeps_its_word(tmp_path, here, capsys):
    store, score = Store(tmp_path / "s"), stages()["score"]
    write_request(store, score)
    assert work(store, score) == 2
    said = capsys.readouterr().err
    assert said.startswith("bench: score needs generate ")
    assert said.count("\n") == 1
    noted = worker.read_failure(store, score.key)
    assert f"bench: {noted}\n" == said
    assert noted.exit_code == 2
    worker.write_failure(store, score.key, None)
    assert worker.read_failure(store, score.key) is None


@pytest.mark.parametrize(("change", "code", "why"), [
    (lambda store, stage: write_request(store, stage).unlink(), 2, "no readable request"),
    (lambda store, stage: write_request(store, stage).write_text("{}"), 2, "cannot be read"),
    (lambda store, stage: write_request(store, stage).write_text(
        write_request(store, replace(stage, split="block")).read_text()), 2, "another stage"),
])
def test_a_request_that_is_not_there_or_not_its_own_is_refused(tmp_path, here, capsys, change, code, why):
    store, trials = Store(tmp_path / "s"), stages()["trials"]
    change(store, trials)
    assert work(store, trials) == code
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
    assert not store.has(trials)


def test_a_store_that_this_machine_does_not_see_is_no_empty_store(tmp_path, here, capsys):
    assert worker.main(["ab", "--store", str(tmp_path / "elsewhere")]) == 3
    assert "a disk that this machine shares" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_a_stage_that_breaks_leaves_its_traceback_and_its_reason(tmp_path, here, capsys, monkeypatch):
    store, trials = Store(tmp_path / "s"), stages()["trials"]
    write_request(store, trials)

    def broken(*_, **__):
        raise ZeroDivisionError("of nothing")

    monkeypatch.setattr("bench.execute.build.build", broken)
    assert work(store, trials) == 1
    assert "Traceback" in capsys.readouterr().err
    assert str(worker.read_failure(store, trials.key)) == "ZeroDivisionError: of nothing"


def longer(store):
    """A pre-training that takes a while, above the stages of the shared store."""
    first = stages()["pretrain"]
    stage = replace(first, schedule=replace(first.schedule, steps=100))
    write_request(store, stage)
    return stage


def test_a_stage_that_the_engine_stops_is_put_away_and_goes_on_from_its_last_checkpoint(micro, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "EVERY", 0.05)
    stage = longer(micro)
    fork = multiprocessing.get_context("fork")  # libraries take seconds to import
    process = fork.Process(target=lambda: os._exit(work(micro, stage)))
    process.start()
    until = time.monotonic() + 200
    while not list(micro.checkpoints(stage).glob("checkpoint.*.pt")):
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGUSR2)
    process.join(200)
    assert process.exitcode == 75
    assert not micro.has(stage)
    assert not list((micro.root / "work").iterdir())
    assert worker.read_failure(micro, stage.key) is None
    process = fork.Process(target=lambda: os._exit(work(micro, stage)))
    process.start()
    process.join(200)
    assert process.exitcode == 0
    lines = [json.loads(line) for file in (micro.root / "logs").glob("*.jsonl") if stage.key[:16] in file.name
             for line in file.read_text().splitlines()]
    assert any(line.get("what") == "resumed from a checkpoint" and line["step"] > 0 for line in lines)
    (tmp_path / "whole").mkdir()
    pretrain(stage, micro.path, tmp_path / "whole", Runtime())
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (micro.path(stage) / file.name).read_bytes(), file.name


def test_a_worker_on_a_leash_stops_when_whoever_began_it_is_gone(micro):
    stage = replace(longer(micro), seed=1)
    write_request(micro, stage)
    process = subprocess.Popen(worker.command(stage, micro, "cpu"), stdin=subprocess.PIPE)
    process.stdin.close()
    assert process.wait(200) == 75
    assert not micro.has(stage)


def test_a_note_about_a_full_disk_is_not_tried(tmp_path, monkeypatch):
    store = Store(tmp_path / "s")
    (store.root / "requests").mkdir()
    monkeypatch.setattr(Store, "is_full", lambda self, error=None: True)
    worker.write_failure(store, "ab", BenchError("no room"))
    assert worker.read_failure(store, "ab") is None


def test_who_handed_a_stage_to_an_engine_reads_in_its_journal_how_far_it_is(tmp_path):
    store, stage = Store(tmp_path / "s"), stages()["pretrain"]
    dead = Journal(store.root, stage)
    dead.start("a" * 16)
    dead.progress(9, 10, loss=0.1)
    assert worker.read_progress(store, stage) is None  # no process builds it
    with lease.acquire(store.root / "leases", stage.key, "pretrain") as claim:
        assert worker.read_progress(store, stage) == Event(stage, "started")  # the last line is another attempt's
        journal = Journal(store.root, stage)
        journal.start(claim.attempt)
        assert worker.read_progress(store, stage) == Event(stage, "started")
        journal.progress(1, 10, loss=0.5)
        assert worker.read_progress(store, stage) == Event(stage, "progress", 1, 10, {"loss": 0.5})
