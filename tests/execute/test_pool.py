"""Workers: a worker that dies fails its stage and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from bench import FULL, systems
from bench.execute import build
from bench.execute.devices import Layout
from bench.execute.pool import Pool
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.experiment.stages import Trials
from bench.store.store import Store
from bench.train import loop

TRIALS = Trials(MICRO.world, MICRO.subjects, MICRO.band)


LAST = ("done", "held", "failed", "died")


def hear(pool, *what):
    """The next of these events; fails at another final event."""
    while True:
        for event in pool.events(1.0):
            if event.what in what:
                return event
            assert event.what not in LAST, event


def test_a_worker_that_died_while_it_waited_is_replaced_and_one_that_dies_at_work_fails_its_stage(tmp_path):
    store = Store(tmp_path / "store")
    with Pool(Layout(1), store.root, [TRIALS]) as pool:
        pool._workers[0].process.kill()
        pool._workers[0].process.join()
        pool.submit(TRIALS)
        assert hear(pool, *LAST).what == "done"
        assert store.is_intact(TRIALS)
        pool.submit(Trials(MICRO.world, (1, 2, 3), MICRO.band))
        hear(pool, "started")
        pool._workers[0].process.kill()
        event = hear(pool, *LAST)
        assert (event.what, event.has_begun) == ("died", True)
        assert "its worker process died (signal 9" in str(event.error)
        again = Trials(MICRO.world, (1,), MICRO.band)
        assert pool.accepts(again)
        pool.submit(again)
        assert not pool.accepts(TRIALS)
        assert hear(pool, *LAST).what == "done"


def test_a_training_that_is_stopped_keeps_its_state_first_and_goes_on_from_there_to_the_same_bytes(micro, tmp_path):
    first = systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model.start
    stage = replace(first, schedule=replace(first.schedule, steps=120))
    with Pool(Layout(1), micro.root) as pool:
        pool.submit(stage)
        hear(pool, "progress")
        assert micro.holder(stage).pid == pool._workers[0].process.pid
        for number in (signal.SIGHUP, signal.SIGTERM):  # both reach a process group; the pool sends another SIGTERM
            os.kill(pool._workers[0].process.pid, number)
    step, _ = loop.read_checkpoint(micro.checkpoints(stage), stage.key)
    assert 0 < step < 120
    assert micro.running() == []
    assert list((micro.root / "leases").iterdir()) == list((micro.root / "work").iterdir()) == []
    steps = []
    path = build.build(stage, micro, progress=lambda step, total, **scalars: steps.append(step))
    assert steps[0] >= step
    assert not micro.checkpoints(stage).exists()
    again = Store(tmp_path)
    for above in graph.stages([stage])[:-1]:
        again.path(above).parent.mkdir(parents=True, exist_ok=True)
        again.path(above).symlink_to(micro.path(above))
    whole = build.build(stage, again)
    for file in ("pretrain.json", *(path.name for path in path.glob("*.safetensors"))):
        assert (path / file).read_bytes() == (whole / file).read_bytes(), file


def test_workers_are_forked_from_a_process_without_threads_or_cuda_that_ignores_signals_to_the_group():
    program = ("import os, pathlib, signal, sys; from bench.execute import pool; os.environ.update(pool.QUIET); "
               "import bench.execute.preload as preload, torch; "
               "print(sorted(set(preload.MODULES) - set(sys.modules)), torch.cuda.is_initialized(), "
               "signal.getsignal(signal.SIGTERM) is signal.SIG_IGN); "
               "print(*(path.joinpath('comm').read_text().strip() for path in pathlib.Path('/proc/self/task').iterdir()"
               " if path.name != str(os.getpid())))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, threads = done.stdout.splitlines()
    assert first == "[] False True"
    assert set(threads.split()) <= {"jemalloc_bg_thd"}  # pyarrow's allocator, which handles a fork


@pytest.mark.long
def test_a_process_that_was_stopped_while_another_took_over_spoils_neither_its_checkpoints_nor_its_result(
        micro, monkeypatch):
    first = systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model.start
    stage = replace(first, schedule=replace(first.schedule, steps=110))
    monkeypatch.setenv("EEG2IMAGE_BENCH_LEASE_S", "2")
    monkeypatch.setattr(loop, "EVERY", 0)
    with Pool(Layout(1), micro.root) as pool:
        pool.submit(stage)
        hear(pool, "progress")
        os.kill(pool._workers[0].process.pid, signal.SIGSTOP)
        stalled, end = micro.holder(stage), time.monotonic() + 60
        while micro.holder(stage) and time.monotonic() < end:
            time.sleep(0.1)
        seen = []

        def progress(step, total, **scalars):
            if step == 80:  # the thief has saved a state: now the stopped process continues
                kept = os.listdir(micro.checkpoints(stage))
                os.kill(pool._workers[0].process.pid, signal.SIGCONT)
                word = hear(pool, *LAST)
                seen.append((word.what, micro.holder(stage).attempt != stalled.attempt,
                             os.listdir(micro.checkpoints(stage)) == kept, len(kept)))

        path = build.build(stage, micro, progress=progress)
        assert seen == [("held", True, True, 2)]  # the state, and what it is built from
    assert sorted(Store(micro.root).manifest(stage)["files"]) == sorted(
        file.name for file in path.iterdir() if file.name != "MANIFEST.json")
    assert Store(micro.root).is_intact(stage)
    assert list((micro.root / "leases").iterdir()) == list((micro.root / "work").iterdir()) == []


HOLDING = """
import os, pathlib, sys, weakref
from bench.errors import BenchError
from bench.execute import build, pool
from bench.experiment.scale import MICRO
from bench.experiment.stages import Trials

class Model:
    pass

models, sent = [], []

def build_or_fail(stage, *_, **__):
    if models:
        print("held" if models[0]() else "freed")
        return
    model = Model()
    model.itself = model
    models.append(weakref.ref(model))
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise FAILURE("no roots") from error

class Connection:
    stages = [Trials(MICRO.world, (1,), MICRO.band)] * 2

    def recv(self):
        if not self.stages:
            raise EOFError
        return self.stages.pop()

    def send(self, event):
        sent.append(event)

build.build = build_or_fail
pool._work(Connection(), dict(os.environ), pathlib.Path(sys.argv[1]), "cpu")
print([event.what for event in sent], sent[1].error)
"""


@pytest.mark.parametrize(("failure", "message"), [("BenchError", "no roots"), ("ValueError", "ValueError: no roots")])
def test_what_a_failed_stage_held_is_free_before_the_next_one_is_built(tmp_path, failure, message):
    program = HOLDING.replace("FAILURE", failure)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "store")], capture_output=True, text=True,
                          check=True)
    assert done.stdout.splitlines() == ["freed", f"['started', 'failed', 'started', 'done'] {message}"]
