"""The order in which a run builds, what it does about failures and deaths, how it shares a plan with another run."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from bench import FULL, systems
from bench.errors import BenchError
from bench.execute.executor import Event
from bench.execute.progress import Display
from bench.execute.runner import LIVES, run
from bench.experiment import graph
from bench.experiment.graph import Row
from bench.experiment.key import Stage
from bench.experiment.scale import MICRO
from bench.experiment.stages import Pretrain
from bench.store import lease
from bench.store.store import Store


@dataclass(frozen=True)
class Grape(Stage):
    sort: str


@dataclass(frozen=True)
class Wine(Stage):
    grape: Grape
    year: int


class Here:
    """An executor that builds in this process, one stage after another; `does` may say what becomes of a stage."""

    def __init__(self, store, does=None, ahead=False):
        self.store, self.does, self.ahead, self.submitted, self.left = store, does or {}, ahead, [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def idle(self):
        return 100 if self.ahead else 1 - len(self.left)

    def submit(self, stage, after):
        self.submitted.append((stage, list(after)))
        self.left.append(stage)

    def events(self, timeout):
        if not self.left:
            time.sleep(min(timeout, 0.05))
            return
        stage = self.left.pop(0)
        yield Event(stage, "started")
        said = self.does.get(stage, [])
        if said:
            yield said.pop(0)
            return
        try:
            self.store.build(stage, lambda out: (out / "note.txt").write_text("a"))
            yield Event(stage, "done")
        except lease.Held as error:
            yield Event(stage, "held", error=error)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


RED, WHITE = Grape("red"), Grape("white")
ROWS = [Row("red", 0, "real", Wine(RED, 1)), Row("white", 0, "real", Wine(WHITE, 1)),
        Row("red", 1, "real", Wine(RED, 2))]


def go(store, executor, rows=ROWS, **more):
    recorded, console = [], Console(file=io.StringIO(), width=200)
    outcome = run(rows, store, executor, recorded.extend, Display(console), **more)
    return outcome, recorded, console.file.getvalue()


def died(stage, begun=True):
    return Event(stage, "died", error=BenchError("its worker process died"), begun=begun)


def test_rows_are_recorded_as_soon_as_they_are_complete_and_each_stage_is_built_once(store):
    executor = Here(store)
    outcome, recorded, _ = go(store, executor)
    built = [stage for stage, _ in executor.submitted]
    assert sorted(stage.key for stage in built) == sorted(stage.key for stage in (RED, WHITE, *(row.stage for row in ROWS)))
    assert all(not after for _, after in executor.submitted)
    assert recorded.count(ROWS[0]) == 1
    assert set(recorded) == set(ROWS)
    assert outcome.built == set(built)
    outcome, recorded, _ = go(store, executor)
    assert (outcome.built, outcome.reused, recorded) == (set(), 5, ROWS)


def test_late_stages_come_first_and_among_pre_trainings_the_longest():
    from bench.execute.runner import _priority

    score = systems.plan(FULL, MICRO.items(), MICRO, 0)
    order = [stage.kind for stage in sorted(graph.stages([score]), key=_priority)]
    assert order == ["score", "generate", "finetune", "targets", "trials", "corpus", "reference", "pretrain"]
    first = next(stage for stage in graph.stages([score]) if isinstance(stage, Pretrain))
    longer = replace(first, mask_ratio=0.25)
    assert sorted([first, longer], key=_priority) == [longer, first]


def test_a_stage_that_fails_takes_its_own_rows_along_with_the_reason_and_no_others(store):
    error = Event(RED, "failed", error=BenchError("sour\ngrapes"))
    outcome, recorded, said = go(store, Here(store, {RED: [error]}))
    assert recorded == [ROWS[1]]
    path = store.root / "logs" / f"{RED.key}.jsonl"
    assert outcome.failed == dict.fromkeys((ROWS[0], ROWS[2]), f"grape: sour grapes (log: {path})")
    assert json.loads(path.read_text())["error"] == "sour grapes"
    assert "FAILED: grape: sour grapes" in said


def test_with_fail_fast_nothing_is_begun_after_a_failure_and_every_row_says_why_it_is_not_there(store):
    failing = {stage: [Event(stage, "failed", error=BenchError("sour"))] for stage in (RED, WHITE)}
    executor = Here(store, failing)
    outcome, recorded, _ = go(store, executor, fail_fast=True)
    assert len(executor.submitted) == 1
    assert recorded == []
    assert set(outcome.failed) == set(ROWS)
    journal = next((store.root / "logs").glob("*.jsonl"))
    assert f"grape: sour (log: {journal})" in outcome.failed.values()
    assert any("not begun" in cause for cause in outcome.failed.values())


def test_a_stage_whose_process_died_is_tried_again_and_given_up_after_some_deaths_at_work(store):
    executor = Here(store, {RED: [died(RED)] * (LIVES[True] - 1) + [died(RED, False)] * 5})
    assert go(store, executor)[0].failed == {}
    assert [stage for stage, _ in executor.submitted].count(RED) == LIVES[True] - 1 + 5 + 1
    again = Store(store.root.parent / "again")
    outcome, recorded, _ = go(again, Here(again, {RED: [died(RED)] * LIVES[True]}))
    journal = again.root / "logs" / f"{RED.key}.jsonl"
    assert set(outcome.failed.values()) == {f"grape: its worker process died ({LIVES[True]} times) (log: {journal})"}
    assert recorded == [ROWS[1]]


def test_a_full_disk_ends_the_run_with_exit_code_75(store):
    with pytest.raises(BenchError, match="no room left") as caught:
        go(store, Here(store, {RED: [Event(RED, "failed", error=BenchError("full", 75))]}))
    assert caught.value.exit_code == 75


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_stops_what_runs_says_how_to_go_on_and_ends_with_exit_code_75(store, number):
    class Told(Here):
        stopped = False

        def events(self, timeout):
            os.kill(os.getpid(), number)
            return iter(())

        def __exit__(self, *_):
            self.stopped = True

    executor, before = Told(store), signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP
    try:
        with pytest.raises(BenchError, match=f"told to end .{number.name}.*the same command goes on") as caught:
            go(store, executor)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert caught.value.exit_code == 75
    assert executor.stopped


def test_an_executor_that_takes_stages_ahead_is_told_what_each_comes_after(store):
    executor = Here(store, ahead=True)
    outcome, recorded, _ = go(store, executor)
    after = dict(executor.submitted)
    assert after[RED] == []
    assert after[Wine(RED, 1)] == [RED]
    assert len(outcome.built) == len(executor.submitted) == 5
    assert set(recorded) == set(ROWS)


@pytest.mark.parametrize("ahead", [False, True])
def test_what_another_process_builds_is_left_to_it_and_taken_from_it(store, ahead):
    other, begun = Store(store.root), threading.Event()

    def slow(out):
        begun.set()
        time.sleep(1.5)
        (out / "note.txt").write_text("other")

    thread = threading.Thread(target=other.build, args=(RED, slow))
    thread.start()
    begun.wait()
    executor = Here(store, ahead=ahead)
    outcome, recorded, said = go(store, executor)
    thread.join()
    if not ahead:  # what is handed over beforehand waits where it is built
        assert RED not in [stage for stage, _ in executor.submitted]
        assert f"left to another: grape, process {os.getpid()} on " in said
    assert set(recorded) == set(ROWS)
    assert outcome.failed == {}
    assert (store.path(RED) / "note.txt").read_text() == "other"


def test_what_a_dead_process_was_building_is_built_here(store, monkeypatch):
    monkeypatch.setenv(lease.LIFE, "2")  # of another machine: nobody can look for its process
    (store.root / "leases" / RED.key).write_text('{"stage": "grape", "attempt": "0123456789abcdef", "pid": 1}')
    (store.root / "work" / "grape-0123456789abcdef").mkdir()
    executor = Here(store)
    outcome, recorded, said = go(store, executor)
    assert "left to another: grape, process 1 on" in said
    assert set(recorded) == set(ROWS)
    assert RED in outcome.built
    for part in ("leases", "work"):
        assert list((store.root / part).iterdir()) == []


def test_a_run_that_is_interrupted_leaves_nothing_of_what_its_dead_workers_held(store):
    dead = subprocess.Popen(["true"])
    dead.wait()

    class Interrupted(Here):
        def events(self, timeout):
            held = {"stage": "wine", "attempt": "0" * 16, "pid": dead.pid, "start": 1, "host": "", "machine":
                    lease.machine()}
            for name in ("k" * 64, f".{'0' * 16}"):
                (self.store.root / "leases" / name).write_text(json.dumps(held))
            (self.store.root / "work" / f"{'k' * 64}-{'0' * 16}").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(store, Interrupted(store))
    assert not [*(store.root / "leases").iterdir(), *(store.root / "work").iterdir()]


def test_two_runs_at_once_build_each_stage_once_between_them(store):
    rows = [Row(str(number), 0, "real", Wine(Grape(str(number % 5)), number)) for number in range(20)]
    executors = [Here(Store(store.root)) for _ in range(2)]
    for executor in executors:
        build = executor.store.build
        executor.store.build = lambda stage, make, build=build: build(
            stage, lambda out: (time.sleep(0.02), (out / "note.txt").write_text("a")))
    outcomes = []
    threads = [threading.Thread(target=lambda e=executor: outcomes.append(go(e.store, e, rows)))
               for executor in executors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.failed for outcome, *_ in outcomes] == [{}, {}]
    assert all(set(recorded) == set(rows) for _, recorded, _ in outcomes)
    built = [stage for outcome, *_ in outcomes for stage in outcome.built]
    assert len(built) == len(set(built)) == 25
    assert all(outcome.built for outcome, *_ in outcomes)


@pytest.mark.long
def test_a_plan_of_ten_thousand_stages_is_worked_off_in_little_time(store):
    grapes = [Grape(str(number)) for number in range(2000)]
    rows = [Row(str(number), 0, "real", Wine(grapes[number % 2000], number)) for number in range(8000)]

    class Quick(Here):
        def events(self, timeout):
            while self.left:
                yield Event(self.left.pop(), "done")

    class Light(Store):
        def manifest(self, stage):
            return {"wall_s": 0.0}

    light = Light(store.root)
    began = time.process_time()
    outcome, recorded, _ = go(light, Quick(light), rows)
    assert (len(outcome.built), len(recorded)) == (10000, 8000)
    assert time.process_time() - began < 20  # 2.5 on a machine that does nothing else


def test_a_plan_of_ten_thousand_stages_is_printed_within_ten_seconds_and_500_mb(tmp_path):
    code = ("import re, sys, time; from bench.cli import main; main(sys.argv[1:]); "
            r"print(time.process_time(), *re.findall(r'VmHWM:\s+(\d+)', open('/proc/self/status').read()))")
    done = subprocess.run([sys.executable, "-c", code, "plan", "--ablation", "table2", "--scale", "micro", "--seeds",
                           ",".join(map(str, range(155)))], cwd=tmp_path, capture_output=True, text=True, check=True)
    *_, planned, used = done.stdout.splitlines()
    assert planned.startswith("a run now builds 10235 stages")
    seconds, memory = map(float, used.split())
    assert seconds < 10
    assert memory / 1024 < 500
