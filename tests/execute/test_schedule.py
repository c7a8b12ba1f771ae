"""The runner: order of stages, failures, dead workers, two runs of one plan."""

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
from bench.cli import main
from bench.errors import BenchError
from bench.execute.executor import Event
from bench.execute.progress import Display
from bench.execute.runner import MAX_ATTEMPTS, run
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
    """An executor that builds in this process, one stage at a time; `does`: events that replace building a stage."""

    def __init__(self, store, does=None, ahead=False):
        self.store, self.does, self.ahead, self.submitted, self.left = store, does or {}, ahead, [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def accepts(self, stage):
        return self.ahead or not self.left

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
    return Event(stage, "died", error=BenchError("its worker process died"), has_begun=begun)


def test_rows_are_recorded_as_soon_as_they_are_complete_and_each_stage_is_built_once(store):
    executor = Here(store)
    outcome, recorded, _ = go(store, executor)
    built = [stage for stage, _ in executor.submitted]
    assert sorted(stage.key for stage in built) == sorted(
        stage.key for stage in (RED, WHITE, *(row.stage for row in ROWS)))
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
    assert order == ["score", "generate", "finetune", "pretrain", "targets", "reference", "trainfeatures", "corpus",
                     "trials"]
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
    assert any("not started" in cause for cause in outcome.failed.values())


def test_a_stage_whose_process_died_is_tried_again_and_given_up_after_some_deaths_at_work(store):
    executor = Here(store, {RED: [died(RED)] * (MAX_ATTEMPTS[True] - 1) + [died(RED, False)] * 5})
    assert go(store, executor)[0].failed == {}
    assert [stage for stage, _ in executor.submitted].count(RED) == MAX_ATTEMPTS[True] - 1 + 5 + 1
    again = Store(store.root.parent / "again")
    outcome, recorded, _ = go(again, Here(again, {RED: [died(RED)] * MAX_ATTEMPTS[True]}))
    journal = again.root / "logs" / f"{RED.key}.jsonl"
    assert set(outcome.failed.values()) == {
        f"grape: its worker process died ({MAX_ATTEMPTS[True]} times) (log: {journal})"}
    assert recorded == [ROWS[1]]


def test_a_full_disk_ends_the_run_with_exit_code_75(store):
    with pytest.raises(BenchError, match="no space left") as caught:
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
        with pytest.raises(BenchError, match=f"stopped by {number.name}.*the same command resumes") as caught:
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
    if not ahead:  # else the executor waits for the other process
        assert RED not in [stage for stage, _ in executor.submitted]
        assert f"waiting for grape, built by process {os.getpid()} on " in said
    assert set(recorded) == set(ROWS)
    assert outcome.failed == {}
    assert (store.path(RED) / "note.txt").read_text() == "other"


def test_what_a_dead_process_was_building_is_built_here(store):
    path = store.root / "leases" / RED.key  # of another machine: its process cannot be looked up
    path.write_text('{"stage": "grape", "attempt": "0123456789abcdef", "pid": 1}')
    (store.root / "work" / "grape-0123456789abcdef").mkdir()

    class Waiting(Here):
        def events(self, timeout):
            if not self.left and path.exists() and '"pid": 1}' in path.read_text():
                os.utime(path, (0, 0))  # without a heartbeat, the lease expires
            yield from super().events(timeout)

    executor = Waiting(store)
    outcome, recorded, said = go(store, executor)
    assert "waiting for grape, built by process 1 on" in said
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


def count_calls(action):
    """How many Python functions an action calls: work that does not depend on the machine or its load."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def test_a_plan_of_many_stages_is_worked_off_with_work_in_proportion_to_its_size(store):
    class Quick(Here):
        def events(self, timeout):
            while self.left:
                yield Event(self.left.pop(), "done")

    class Light(Store):
        def manifest(self, stage):
            return {"wall_s": 0.0}

    def work(grapes):
        rows = [Row(str(number), 0, "real", Wine(Grape(str(number % grapes)), number)) for number in range(4 * grapes)]
        light = Light(store.root)
        outcome, recorded, _ = go(light, Quick(light), rows)
        assert (len(outcome.built), len(recorded)) == (5 * grapes, 4 * grapes)

    small, large = (count_calls(lambda grapes=grapes: work(grapes)) for grapes in (50, 400))
    assert large < 10 * small  # of 8 times as many stages


def test_a_plan_of_ten_thousand_stages_is_printed_within_500_mb_and_hashes_each_stage_once(tmp_path):
    code = ("import hashlib, re, sys; from bench.cli import main; sha256, hashes = hashlib.sha256, []; "
            "hashlib.sha256 = lambda *given, **more: hashes.append(1) or sha256(*given, **more); main(sys.argv[1:]); "
            r"print(len(hashes), *re.findall(r'VmHWM:\s+(\d+)', open('/proc/self/status').read()))")
    done = subprocess.run([sys.executable, "-c", code, "plan", "--ablation", "table2", "--scale", "micro", "--seeds",
                           ",".join(map(str, range(155)))], cwd=tmp_path, capture_output=True, text=True, check=True)
    *_, planned, used = done.stdout.splitlines()
    assert planned.startswith("a run now builds 10546 stages")
    hashes, kilobytes = map(int, used.split())
    assert 10546 <= hashes < 10620  # a few files are hashed, too
    assert kilobytes / 1024 < 500


def test_the_work_of_printing_a_plan_grows_with_its_size(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def plan(seeds):
        assert main(["plan", "--ablation", "table2", "--scale", "micro", "--seeds",
                     ",".join(map(str, range(seeds)))]) == 0

    plan(1)  # imports
    small, large = (count_calls(lambda seeds=seeds: plan(seeds)) for seeds in (3, 24))
    assert large < 10 * small  # of 8 times as many stages
