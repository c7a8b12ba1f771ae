"""Settings of engines and the jobs of Slurm, without a cluster; test_slurm.py and test_ray.py start one."""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import replace

import psutil
import pytest

from bench import FULL, systems
from bench.errors import BenchError
from bench.execute.engines import ray, settings, slurm
from bench.experiment import graph
from bench.experiment.kinds import gpus_of
from bench.experiment.scale import MICRO
from bench.experiment.stages import Numerics
from bench.store.store import Store

FILE = """
partition = "gpu"
time = "12:00:00"
memory = 64
setup = ["module load cuda"]

[options]
constraint = "h100"

[score]
gpus = 0
time = "30"

[score.options]
nice = "5"
"""


def stages():
    return {stage.kind: stage for stage in graph.stages([systems.plan(FULL, MICRO.items(), MICRO, 0)])}


def test_a_file_asks_for_all_stages_and_for_one_kind_and_the_last_word_counts(tmp_path):
    (tmp_path / "slurm.toml").write_text(FILE)
    asked = settings.read([str(tmp_path / "slurm.toml"), "time=2:00:00", "pretrain.gpus=2", "options.nice=9"],
                          slurm.KNOWN)
    every = {"partition": "gpu", "time": "2:00:00", "memory": 64, "setup": ["module load cuda"]}
    assert asked(stages()["trials"]) == every | {"options": {"constraint": "h100", "nice": "9"}}
    assert asked(stages()["pretrain"])["gpus"] == 2
    assert asked(stages()["score"]) == every | {"gpus": 0, "time": "30",
                                                "options": {"constraint": "h100", "nice": "5"}}


@pytest.mark.parametrize(("text", "why"), [
    ("partition = 3", "text"),
    ('gpus = "2"', "a whole number"),
    ("gpus = 0.5", "a whole number"),
    ("gpus = true", "a whole number"),
    ("gpus = -1", "a whole number from 0 on"),
    ("memory = inf", "a number from 0 on"),
    ("time = 02:00:00", "text"),
    ('setup = "module load cuda"', "a list of texts"),
    ("options = {nice = 5}", "a table of texts"),
    ("gpu = 1", "no setting 'gpu'"),
    ("[paint]\ngpus = 1", "no setting 'paint'"),
    ("[score]\ngpu = 1", "no setting 'gpu'"),
    ("score = 1", "no setting 'score'"),
    ("gpus = ", "not valid TOML"),
])
def test_a_file_that_asks_for_what_there_is_not_is_refused_with_what_there_is(tmp_path, text, why):
    file = tmp_path / "slurm.toml"
    file.write_text(text)
    with pytest.raises(BenchError) as refused:
        settings.read([str(file)], slurm.KNOWN)
    assert str(refused.value).startswith(str(file))
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
    if why.startswith("no setting"):
        assert "partition" in str(refused.value)
        assert "guidedencoder" in str(refused.value)


@pytest.mark.parametrize("text", ["gpus=many", "gpus=0.5", "score.gpus=x", "paint.gpus=1", "gpu=1", "nowhere.toml"])
def test_a_flag_that_is_not_understood_is_refused_alike(text):
    with pytest.raises(BenchError, match=text.partition("=")[0]):
        settings.read([text], slurm.KNOWN)


def test_fractions_of_a_gpu_are_asked_of_ray_and_not_of_slurm():
    assert settings.read(["gpus=0.25"], ray.KNOWN)(stages()["score"]) == {"gpus": 0.25}


def test_sbatchs_own_options_are_texts_whatever_a_setting_of_their_name_is():
    asked = settings.read(["options.gpus=a100:2", "options.mem-per-cpu=2G"], slurm.KNOWN)
    assert asked(stages()["score"]) == {"options": {"gpus": "a100:2", "mem-per-cpu": "2G"}}


@pytest.mark.parametrize(("text", "expected"), [
    ("90", 90), ("30:00", 30),
    ("2:00:00", 120), ("0:00:30", 1), ("1-0", 1440), ("1-02:30", 1590), ("2-00:00:01", 2881)])
def test_a_time_is_read_as_slurm_reads_it(text, expected):
    assert slurm.minutes(text) == expected


@pytest.mark.parametrize("text", ["", "two hours", "0", "0:00", "1:2:3:4", "-5", "1.5"])
def test_a_time_that_is_none_is_refused(text):
    with pytest.raises(BenchError, match="time="):
        slurm.minutes(text)


def test_a_stage_without_numerics_asks_for_no_gpu_and_a_training_for_one_a_process():
    assert gpus_of(stages()["trials"]) == gpus_of(stages()["pretrain"]) == 0
    cuda = Numerics(device_class="cuda")
    assert gpus_of(replace(stages()["score"], numerics=cuda)) == 1
    shared = replace(stages()["pretrain"], numerics=replace(cuda, world_size=4))
    assert gpus_of(shared) == slurm.processes_of(shared) == 4
    assert slurm.processes_of(stages()["trials"]) == slurm.processes_of(stages()["pretrain"]) == 1


@pytest.fixture
def job(tmp_path):
    """A job whose command writes that it began, and ends well the second time."""
    submitit = pytest.importorskip("submitit", reason="submitit is missing: pip install -e '.[slurm]'")
    store = Store(tmp_path / "s")
    (store.root / "requests").mkdir()
    script = f"echo begun >> {tmp_path}/said; test $(wc -l < {tmp_path}/said) = 2 || exec sleep 60"
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(timeout_min=60, signal_delay_s=1)
    return executor.submit(slurm.Job(["sh", "-c", script], str(store.root), "ab")), tmp_path / "said"


def test_a_job_that_is_pre_empted_ends_its_process_and_is_queued_again(job):
    running, said = job
    until = time.monotonic() + 200
    while not said.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    submitted, = psutil.Process(running._process.pid).children()
    submitted.send_signal(signal.SIGUSR2)
    running.result()
    assert said.read_text() == "begun\n" * 2
    assert "is preempted" in running.stderr()


def test_a_job_whose_disk_is_full_ends_and_does_not_try_again(tmp_path, monkeypatch):
    store = Store(tmp_path / "s")
    monkeypatch.setattr(Store, "is_full", lambda self, error=None: True)
    with pytest.raises(SystemExit) as ended:
        slurm.Job(["sh", "-c", "exit 75"], str(store.root), "ab")()
    assert ended.value.code == 75


@pytest.mark.parametrize(("command", "code"), [(["false"], 1), (["sh", "-c", "exit 75"], None),
                                               (["sh", "-c", "kill -9 $$"], 137)])
def test_a_job_ends_as_its_process_did_unless_that_was_only_stopped(tmp_path, monkeypatch, command, code):
    monkeypatch.setattr(slurm, "PATIENCE", 0.01)
    store = Store(tmp_path / "s")
    (store.root / "requests").mkdir()
    if code is None:  # the worker was stopped, but Slurm does nothing: the job runs it again
        command = ["sh", "-c", f"test -f {tmp_path}/again || {{ touch {tmp_path}/again; exit 75; }}"]
        slurm.Job(command, str(store.root), "ab")()
        assert (tmp_path / "again").exists()
        return
    with pytest.raises(SystemExit) as ended:
        slurm.Job(command, str(store.root), "ab")()
    assert ended.value.code == code


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A Slurm engine without Slurm: the commands that it would run are in `ran`."""
    monkeypatch.setattr(slurm, "read_partitions", lambda: None)
    engine = slurm.Slurm(Store(tmp_path / "s"), [])
    (engine._store.root / "requests").mkdir()
    engine.ran = []
    monkeypatch.setattr(slurm.subprocess, "run", lambda command, **_: engine.ran.append(command))
    return engine


@pytest.mark.parametrize("noted", ["", "5", "9"])
def test_a_job_that_is_queued_already_is_taken_over_also_where_its_number_was_not_noted(engine, noted):
    stage = stages()["score"]
    name = engine._job_name(stage)
    engine._queue = {"5": ("FAILED", "", name), "7": ("PENDING", slurm.NEVER, name), "8": ("PENDING", "", "other"),
                     "9": ("PENDING", "", name)}
    if noted:
        slurm._job_file(engine._store, stage).write_text(json.dumps({"engine": "slurm", "job": noted}))
    engine.submit(stage, [])
    assert (engine._open[stage].job, engine._open[stage].is_own) == ("9", False)
    engine.__exit__(None, None, None)
    assert engine.ran == []  # the job belongs to another run


def test_of_what_is_given_up_own_jobs_that_have_not_begun_are_cancelled(engine):
    first, second, third = (stages()[name] for name in ("trials", "generate", "score"))
    engine._open = {second: slurm.Submitted("3", (first,)), third: slurm.Submitted("4", (first,), is_own=False)}
    engine._lost = {first: BenchError("Slurm takes no job for it")}
    for stage in (second, third):
        assert engine._final_event(stage, engine._open[stage], set()).what == "failed"
    assert engine.ran == [["scancel", "3"]]
    engine.__exit__(None, None, None)
    assert engine.ran[1:] == [["scancel", "--state=PENDING", "3"]]


def test_a_job_that_is_held_is_said_once(engine):
    engine._queue = {"3": ("PENDING", "JobHeldUser", "bench")}
    with pytest.warns(UserWarning, match="job 3 is held .JobHeldUser.*scontrol release 3") as caught:
        assert [engine._is_queued("3") for _ in range(2)] == [True, True]
    assert len(caught) == 1


def test_a_worker_has_a_third_of_the_notice_to_put_away(tmp_path):
    pytest.importorskip("submitit", reason="submitit is missing: pip install -e '.[slurm]'")
    assert slurm.Job(["true"], str(tmp_path), "ab").grace == slurm.NOTICE / 3
    job = slurm.Job(["sh", "-c", "trap '' TERM; sleep 60"], str(tmp_path), "ab", grace=0.2)
    threading.Timer(0.5, lambda: job._worker and job.checkpoint()).start()
    assert job._run() == -signal.SIGKILL  # it did not sleep for its 60 s


def test_a_job_that_a_signal_ended_is_no_dead_one_while_it_may_be_on_its_way_back_into_the_queue(engine, monkeypatch):
    stage, now = stages()["pretrain"], [1000.0]
    monkeypatch.setattr(slurm.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(slurm, "_exit_code", lambda job: 143)
    engine._queue = {"3": ("CANCELLED", "", "bench")}
    submitted = slurm.Submitted("3", ())
    assert engine._final_event(stage, submitted, set()) is None
    now[0] += slurm.REQUEUED - 1
    assert engine._final_event(stage, submitted, set()) is None
    engine._queue = {"3": ("PENDING", "BeginTime", "bench")}
    assert engine._final_event(stage, submitted, set()) is None
    assert submitted.gone is None
    engine._queue = {"3": ("FAILED", "", "bench")}
    for _ in range(2):
        event = engine._final_event(stage, submitted, set())
        now[0] += slurm.REQUEUED + 1
    assert (event.what, event.has_begun) == ("died", True)
