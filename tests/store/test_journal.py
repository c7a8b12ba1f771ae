"""The journal of a stage, over several attempts and after kills."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import socket

import pytest

from bench.errors import RESUMABLE, BenchError
from bench.experiment.scale import MICRO
from bench.experiment.stages import Trials
from bench.store import journal
from bench.store.journal import Journal
from bench.store.store import Store
from bench.systems import captions

STAGE = Trials(MICRO.world, MICRO.subjects, MICRO.band)


@pytest.fixture
def root(tmp_path):
    return Store(tmp_path / "store").root


def lines(root):
    return journal.read(journal.path(root, STAGE.key))[0]


def test_an_attempt_is_a_start_its_progress_and_an_end_each_with_who_wrote_it(root):
    own = Journal(root, STAGE)
    own.start("a1", device="cpu")
    own.progress(10, 20, loss=0.5, odd=float("nan"), attempt="spoofed", event="x", t=5)
    own.note("goes on from a checkpoint", step=10)
    own.done()
    first, progress, note, last = lines(root)
    assert (first["event"], first["kind"], first["device"]) == ("start", "trials", "cpu")
    assert (progress["step"], progress["total"], progress["loss"], progress["odd"]) == (10, 20, 0.5, "nan")
    assert (note["what"], note["step"]) == ("goes on from a checkpoint", 10)
    assert last["event"] == "done"
    for line in lines(root):
        assert (line["attempt"], line["host"], line["pid"]) == ("a1", socket.gethostname(), os.getpid())
    assert "NaN" not in journal.path(root, STAGE.key).read_text()  # not valid JSON


def test_progress_is_a_line_a_second_and_the_first_and_the_last_are_always_there(root, monkeypatch):
    own, clock = Journal(root, STAGE), itertools.count(100, 0.25)
    monkeypatch.setattr(journal.time, "monotonic", lambda: next(clock))
    own.start("a1")
    for step in range(1, 1001):
        own.progress(step, 2000)
    own.failed(ValueError("no roots"))
    steps = [line["step"] for line in lines(root) if line["event"] == "progress"]
    assert steps[0] == 1
    assert steps[-1] == 1000
    assert 200 <= len(steps) <= 400


def test_nothing_is_written_of_a_stage_that_was_there_already_or_that_another_holds(root):
    own = Journal(root, STAGE)
    own.progress(1, 2)
    own.failed(BenchError("held by another"))
    own.done()
    assert list((root / "logs").iterdir()) == []


def test_a_failure_is_one_line_and_only_of_a_bug_is_the_whole_traceback_kept_until_the_stage_is_done(root):
    own = Journal(root, STAGE)
    own.start("a1")
    own.failed(BenchError("no file\nthere"))
    assert lines(root)[-1]["error"] == "no file there"
    assert not journal.traceback_path(root, STAGE.key).exists()
    own.start("a2")
    try:
        raise ArithmeticError("no roots")
    except ArithmeticError as error:
        own.failed(error)
    assert lines(root)[-1]["error"] == "ArithmeticError: no roots"
    assert "test_journal.py" in journal.traceback_path(root, STAGE.key).read_text()
    own.start("a3")
    own.done()
    assert not journal.traceback_path(root, STAGE.key).exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BenchError("no space left on the disk", RESUMABLE)])
def test_an_attempt_that_can_be_gone_on_from_is_stopped_and_has_not_failed(root, error):
    own = Journal(root, STAGE)
    own.start("a1")
    own.failed(error)
    assert (lines(root)[-1]["event"], lines(root)[-1]["error"]) == (
        "stopped", str(error) or "KeyboardInterrupt:")
    assert not journal.traceback_path(root, STAGE.key).exists()


def test_attempts_are_counted_from_when_the_stage_was_last_complete(root):
    own = Journal(root, STAGE)
    for attempt in ("a1", "a2"):
        own.start(attempt)
        own.progress(1, 2)
    own.done()
    file = journal.path(root, STAGE.key)
    assert [attempt["id"] for attempt in journal.unfinished_attempts(file)] == ["a1"]
    assert (lines(root)[-1]["event"], lines(root)[-1]["attempt"]) == ("done", "a2")
    own.start("a3")
    assert [attempt["id"] for attempt in journal.unfinished_attempts(file)] == ["a3"]


def test_a_line_that_a_kill_cut_is_skipped_and_counted_and_the_next_attempt_starts_on_a_line_of_its_own(root):
    def killed():
        own = Journal(root, STAGE)
        own.start("a1")
        file = journal.path(root, STAGE.key).open("ab", buffering=0)
        file.write(b'{"t": 3, "event": "progr')
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    found, broken = journal.read(journal.path(root, STAGE.key))
    assert ([line["event"] for line in found], broken) == (["start"], 1)
    for _ in range(2):  # its parent reports its death; only one line is written
        journal.record_failure(root, STAGE, "its worker process died (signal 9)")
    own = Journal(root, STAGE)
    own.start("a2")
    own.done()
    found, broken = journal.read(journal.path(root, STAGE.key))
    assert ([(line["event"], line["attempt"]) for line in found], broken) == (
        [("start", "a1"), ("failed", "a1"), ("start", "a2"), ("done", "a2")], 1)
    assert found[1]["error"] == "its worker process died (signal 9)"


def test_the_end_of_a_long_journal_is_read_from_a_whole_line_on(root):
    own = Journal(root, STAGE)
    own.start("a1")
    for step in range(1000):
        own.progress(1000, 1000, loss=float(step))
    found, broken = journal.read(journal.path(root, STAGE.key), 5000)
    assert broken == 0
    assert found[-1]["loss"] == 999
    assert 10 < len(found) < 100


def test_following_gives_every_line_once_also_those_that_come_in_pieces(root):
    file = journal.path(root, STAGE.key)
    following = journal.follow(file, every=0)
    assert next(following) is None  # no journal yet
    own = Journal(root, STAGE)
    own.start("a1")
    assert next(following)["event"] == "start"
    assert next(following) is None
    text = json.dumps({"t": 1, "event": "progress"}).encode()
    with file.open("ab", buffering=0) as stream:
        stream.write(text[:10])
        assert next(following) is None
        stream.write(text[10:] + b"\n")
    assert next(following)["t"] == 1


def test_no_stage_fails_because_its_log_cannot_be_written(root):
    own = Journal(root, STAGE)
    journal.path(root, STAGE.key).mkdir()
    with pytest.warns(UserWarning, match="a line of a stage's log could not be written: .*Is a directory"):
        own.start("a1")


def test_building_a_stage_writes_its_journal_and_failing_to_build_it_says_why(tmp_path):
    from bench.execute.build import build

    store = Store(tmp_path / "store")
    build(STAGE, store)
    first, *between, last = [line["event"] for line in lines(store.root)]
    assert (first, set(between), last) == ("start", {"progress"}, "done")
    build(STAGE, store)
    assert [line["event"] for line in lines(store.root)].count("start") == 1
    readout = captions.readout("ridge", MICRO.items(), MICRO, 0)
    root = tmp_path / "empty"
    trials = Store(root).path(readout.train.trials)
    trials.mkdir(parents=True)
    (trials / "trials.csv").write_text("item,subject,picture,label,block,position,part\n0,1,0,0,-1,-1,train\n")
    (trials / "classes.csv").write_text("label,name,judge,shown\n0,circle,0,1\n")
    with pytest.raises(FileNotFoundError) as raised:  # their EEG is missing
        build(readout, Store(root))
    last = journal.read(journal.path(root, readout.key))[0][-1]
    assert last["event"] == "failed"
    assert last["error"] == f"FileNotFoundError: {raised.value}"
    assert "Traceback" in journal.traceback_path(root, readout.key).read_text()


def test_what_fails_before_an_attempt_begins_leaves_its_own_traceback_and_not_that_of_an_older_failure(root):
    old = Journal(root, STAGE)
    old.start("a1")
    old.failed(ArithmeticError("no roots"))
    Journal(root, STAGE).failed(ImportError("no such library"))
    assert [line["error"] for line in lines(root) if line["event"] == "failed"] == [
        "ArithmeticError: no roots", "ImportError: no such library"]
    assert "ImportError: no such library" in journal.traceback_path(root, STAGE.key).read_text()
    assert [attempt["id"] for attempt in journal.unfinished_attempts(journal.path(root, STAGE.key))] == ["a1"]
    before = lines(root)
    Journal(root, STAGE).failed(BenchError("being built by another process", RESUMABLE))  # writes nothing
    assert lines(root) == before
    journal.record_failure(root, STAGE, "its process died")
    assert lines(root)[-1]["error"] == "its process died"
