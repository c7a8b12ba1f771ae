"""Workers and GPUs: which worker builds which stage, and what its process sees."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace

import pytest
from rich.console import Console
from visible import Visible

from bench import runtime
from bench.cli import main
from bench.errors import BenchError
from bench.execute import devices
from bench.execute.devices import Layout, choose_layout, visible_gpus
from bench.execute.executor import Event
from bench.execute.pool import Pool
from bench.execute.progress import Display
from bench.execute.runner import run
from bench.experiment.graph import Row
from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, gpus_of, register
from bench.experiment.stages import Numerics, Readout, Retrieval
from bench.store.store import Store

CPU, CUDA = Numerics(), Numerics(device_class="cuda")
PAIR = replace(CUDA, world_size=2)


@dataclass(frozen=True)
class Work(Stage):
    """hours: how long it takes; after: what it is built from."""

    number: int
    hours: int
    numerics: Numerics = CUDA
    after: Work | None = None


@dataclass(frozen=True)
class Late(Work):
    """A stage that comes before Work in the order of building."""


register({Work: Kind(step="pretrain"), Late: Kind(step="score")})


class Machine(Pool):
    """A Pool whose stages take hours on a clock of its own, without processes. log: stage -> (start, end, GPUs)."""

    def __init__(self, layout, store):
        super().__init__(layout, store.root)
        self.now, self.log, self.ends, self.idle_while_ready = 0, {}, {}, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def _start(self, worker, gpus=()):
        worker.bound = gpus or ((worker.gpu,) if worker.gpu else ())
        worker.process, worker.connection = worker, self

    def _stop(self, worker):
        assert worker.stage is None  # no worker is stopped at work
        worker.process = worker.connection = None

    def send(self, stage):
        pass

    def submit(self, stage, after=()):
        super().submit(stage, after)
        worker = next(worker for worker in self._workers if worker.stage == stage)
        self.ends[stage] = self.now + stage.hours, worker
        self.log[stage] = self.now, self.now + stage.hours, worker.bound

    def events(self, timeout):
        stage = min(self.ends, key=lambda each: self.ends[each][0])
        self.now, worker = self.ends.pop(stage)
        self._release(worker, is_dead=False)
        yield Event(stage, "done")


class Light(Store):
    def manifest(self, stage):
        return {"wall_s": 0.0}


def simulate(folder, layout, stages):
    """The log of a run of these stages on a machine."""
    store = Light(folder / "store")
    machine = Machine(layout, store)
    rows = [Row(str(number), 0, "real", stage) for number, stage in enumerate(stages)]
    outcome = run(rows, store, machine, lambda done: None, Display(Console(file=io.StringIO())))
    assert outcome.failed == {}
    assert set(machine.log) >= set(stages)
    at_once = [sum(gpu in gpus for start, end, gpus in machine.log.values() if start <= hour < end)
               for hour in range(machine.now) for gpu in layout.gpus]
    assert max(at_once) <= layout.per_gpu
    return machine.log


def used(log, hour):
    """The GPUs on which a stage runs in that hour."""
    return {gpu for start, end, gpus in log.values() if start <= hour < end for gpu in gpus}


FOUR = Layout(1, ("0", "1", "2", "3"))


def test_four_gpus_build_twenty_stages_and_none_is_idle_while_a_stage_is_ready(tmp_path):
    log = simulate(tmp_path, FOUR, [Work(number, 1 + number % 3) for number in range(20)])
    last_start = max(start for start, *_ in log.values())
    assert all(used(log, hour) == set(FOUR.gpus) for hour in range(last_start))
    assert all(len(gpus) == 1 for *_, gpus in log.values())


def test_stages_without_a_gpu_run_beside_and_hold_none(tmp_path):
    on_gpus = [Work(number, 2) for number in range(4)]
    log = simulate(tmp_path, FOUR, [*on_gpus, *(Work(number, 5, CPU) for number in range(4, 7))])
    assert all(log[stage][0] == 0 for stage in on_gpus)
    assert [log[Work(number, 5, CPU)] for number in range(4, 7)] == [(0, 5, ()), (5, 10, ()), (10, 15, ())]


def test_a_training_over_two_gpus_starts_when_two_are_free_though_other_stages_are_ready(tmp_path):
    pair, first = Late(0, 2, PAIR), [Late(number, 1 + 3 * number) for number in range(1, 5)]
    later = [Work(number, 1) for number in range(5, 25)]
    follow = replace(pair, after=Work(99, 2, CPU))  # ready only after all GPUs are taken
    log = simulate(tmp_path, FOUR, [follow, *first, *later])
    two_free = sorted(end for stage, (_, end, _) in log.items() if stage in first)[1]
    start, _, gpus = log[follow]
    assert len(gpus) == 2
    assert 2 <= start <= two_free
    assert not used({stage: log[stage] for stage in later}, start) & set(gpus)


def test_a_training_over_two_gpus_has_them_for_itself_among_several_workers_for_each(tmp_path):
    log = simulate(tmp_path, Layout(1, ("a", "b"), 3), [Late(0, 2, PAIR), *(Work(number, 1) for number in range(1, 9))])
    start, end, gpus = log[Late(0, 2, PAIR)]
    assert (start, gpus) == (0, ("a", "b"))
    assert all(begin >= end for stage, (begin, *_) in log.items() if stage.numerics == CUDA)


def test_stages_spread_over_the_gpus_before_they_share_one(tmp_path):
    log = simulate(tmp_path, Layout(1, ("a", "b"), 2), [Work(number, 1) for number in range(4)])
    assert sorted(gpus for *_, gpus in log.values()) == [("a",), ("a",), ("b",), ("b",)]
    pool = Machine(Layout(1, ("a", "b"), 2), Light(tmp_path / "other"))
    pool.submit(Work(0, 1))
    pool.submit(Work(1, 1))
    assert sorted(gpus for *_, gpus in pool.log.values()) == [("a",), ("b",)]


def test_a_training_over_more_gpus_than_there_are_is_given_all_and_told_by_the_training(tmp_path):
    log = simulate(tmp_path, Layout(1, ("a", "b")), [Work(0, 1, replace(CUDA, world_size=3))])
    assert log[Work(0, 1, replace(CUDA, world_size=3))] == (0, 1, ("a", "b"))


def test_a_stage_of_a_gpu_is_not_built_on_a_cpu_instead(tmp_path):
    with pytest.raises(BenchError, match="work needs a GPU, but the workers have none; check CUDA_VISIBLE_DEVICES"):
        Pool(Layout(2), tmp_path).submit(Work(0, 1))


def test_classifiers_and_ranks_that_are_computed_on_the_cpu_hold_no_gpu():
    readout = Readout(None, None, "ridge", None, 0, CUDA)
    assert gpus_of(readout) == gpus_of(replace(readout, classifier="time")) == 0
    assert gpus_of(replace(readout, classifier="eegnet")) == 1
    assert gpus_of(Retrieval(None, None, None, (2,), CUDA)) == 0
    assert gpus_of(Work(0, 1, PAIR)) == 2


@pytest.mark.parametrize(("chosen", "count", "expected"), [
    (None, 0, ()), (None, 3, ("0", "1", "2")), ("", 0, ()), ("2, 0", 2, ("2", "0")),
    ("MIG-1a,GPU-2b", 2, ("MIG-1a", "GPU-2b")), ("1,9,0", 1, ("1",))])
def test_gpus_are_those_that_the_user_made_visible_up_to_the_first_that_is_not_there(
        monkeypatch, chosen, count, expected):
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    if chosen is not None:
        monkeypatch.setenv(devices.VISIBLE, chosen)
    monkeypatch.setattr(runtime, "count_gpus", lambda: count)
    assert visible_gpus() == expected


def test_workers_of_a_cpu_and_of_gpus_and_their_defaults(monkeypatch):
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    monkeypatch.setattr(runtime, "count_gpus", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    assert choose_layout(None, "cpu") == Layout(16)
    assert choose_layout(3, "cpu").describe() == "3 workers"
    assert choose_layout(None, "cuda") == Layout(4, ("0", "1"), 1)
    assert choose_layout(None, "cuda", is_small=True) == Layout(4, ("0", "1"), 4)
    assert choose_layout(8, "cuda") == Layout(1, ("0", "1"), 8)
    assert choose_layout(2, "cuda").describe() == "2 workers on each of 2 GPUs (0, 1) and 4 on the CPU"
    assert Layout(1, ("MIG-1a",)).describe() == "1 worker on GPU MIG-1a and 1 on the CPU"
    with pytest.raises(BenchError, match="--workers 0: expected at least 1"):
        choose_layout(0, "cuda")


@pytest.mark.parametrize(("arguments", "count", "expected"), [
    ((), 2, "on 4 workers on each of 2 GPUs (0, 1) and 4 on the CPU"),
    (("--workers", "2"), 1, "on 2 workers on GPU 0 and 4 on the CPU"),
    (("--device", "cpu"), 2, "on 16 workers: about a minute on CPU cores"),
    (("--scale", "paper"), 2, "on 1 worker on each of 2 GPUs (0, 1) and 4 on the CPU"),
    (("--scale", "paper"), 0, "; it needs a GPU, and the driver shows none on this machine")])
def test_a_plan_names_the_workers_and_their_gpus(tmp_path, monkeypatch, capsys, arguments, count, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    monkeypatch.setattr(runtime, "count_gpus", lambda: count)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    assert main(["run", "--dry-run", "--ablation", "mask_ratio", "--variants", "Full", "--scale", "micro",
                 *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(expected)


def final(pool, count):
    """The final events of that many stages, by stage."""
    events = {}
    while len(events) < count:
        for event in pool.events(1.0):
            if event.what not in ("started", "progress"):
                events[event.stage] = event
    return events


def test_the_process_of_each_worker_sees_its_gpu_alone_and_a_training_over_two_sees_both(tmp_path):
    store = Store(tmp_path / "store")
    single, pair = [Visible(number, CUDA) for number in (0, 1)], Visible(2, PAIR)
    beside, killed = Visible(3, CPU), Visible(4, PAIR, seconds=600)
    with Pool(Layout(1, ("GPU-a", "GPU-b")), store.root, device="cpu") as pool:
        for stage in (*single, beside):
            assert pool.accepts(stage)
            pool.submit(stage)
        assert not any(map(pool.accepts, (Visible(5, CUDA), Visible(5, CPU), pair)))
        assert {event.what for event in final(pool, 3).values()} == {"done"}
        pool.submit(pair)
        assert not pool.accepts(Visible(5, CUDA))
        assert pool.accepts(Visible(5, CPU))
        assert final(pool, 1)[pair].what == "done"
        assert [worker.process is None for worker in pool._workers] == [True, True, False]
        pool.submit(killed)
        next(event for event in iter(lambda: next(pool.events(1.0), None), 0) if event and event.what == "started")
        pool._workers[0].process.kill()
        event = final(pool, 1)[killed]
        assert (event.what, event.has_begun) == ("died", True)
        assert pool.accepts(pair)
    saw = {stage: (store.path(stage) / "visible.txt").read_text() for stage in (*single, pair, beside)}
    assert saw == {single[0]: "GPU-a cpu False", single[1]: "GPU-b cpu False", pair: "GPU-a,GPU-b cpu False",
                   beside: " cpu False"}
