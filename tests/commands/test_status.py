"""`bench status` and `bench logs` read a store's files alone."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest

from bench import FULL, systems
from bench.cli import main
from bench.errors import BenchError
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.setup import rows as rows_
from bench.store.journal import Journal, path
from bench.store.lease import machine
from bench.store.store import Store

STAGES = graph.stages([systems.plan(FULL, MICRO.items(), MICRO, 0)])


def of(name):
    return next(stage for stage in STAGES if stage.kind == name)


def lease(store, stage, pid=None, host=None, age=0.0, about=""):
    """A lease file as whoever builds a stage keeps it."""
    folder = store.root / "leases"
    folder.mkdir(exist_ok=True)
    file = folder / stage.key
    file.write_text(json.dumps({"pid": pid or os.getpid(), "host": host or socket.gethostname(), "attempt": "a1",
                                "machine": "another" if host else machine(), "began": time.time() - 100,
                                "stage": stage.kind, "about": about}))
    os.utime(file, (time.time() - age,) * 2)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Store(tmp_path / ".bench")


def status(capsys, *arguments):
    capsys.readouterr()
    assert main(["status", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def at_work(store, name, monkeypatch):
    """A stage that makes 10 steps a second."""
    own, now = Journal(store.root, of(name)), time.time()
    monkeypatch.setattr("bench.store.journal.time.time", lambda: now)
    monkeypatch.setattr("bench.store.journal.EVERY", 0.0)
    own.start("a1", device="cpu")
    for second in range(5):
        own.progress(100 + 10 * second, 1000, loss=1.0 - second / 10)
        now += 1
    monkeypatch.undo()
    return own


def test_a_running_stage_is_shown_with_who_builds_it_and_how_far_it_is(store, capsys, monkeypatch):
    at_work(store, "pretrain", monkeypatch)
    monkeypatch.chdir(store.root.parent)
    lease(store, of("pretrain"), about="job 17")
    one, = status(capsys)["running"]
    assert (one["key"], one["stage"], one["pid"], one["host"]) == (
        of("pretrain").key, "pretrain", os.getpid(), socket.gethostname())
    assert (one["step"], one["total"], one["loss"], one["attempts"], one["about"]) == (140, 1000, 0.6, 1, "job 17")
    assert one["steps_per_s"] == pytest.approx(10)
    assert one["live"]
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    first, second = out.splitlines()
    assert first.startswith(f"pretrain {of('pretrain').key[:12]}: 140/1000, 10 steps/s, loss 0.600, about 86 s left; ")
    assert f"on {socket.gethostname()}, process {os.getpid()} (job 17), attempt 1, for " in second
    assert "STALE" not in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize(("how", "stale"), [
    ({}, False), ({"age": 700}, True), ({"pid": 2 ** 22 + 1}, True), ({"pid": 2 ** 22 + 1, "host": "other"}, False)])
def test_a_lease_is_stale_without_a_heartbeat_or_when_its_process_on_this_host_is_gone(store, capsys, how, stale):
    lease(store, of("corpus"), **how)
    one, = status(capsys)["running"]
    assert one["live"] is not stale
    assert one["age"] == pytest.approx(how.get("age", 0), abs=5)
    assert main(["status"]) == 0
    assert ("STALE" in capsys.readouterr().out) is stale


def test_rows_are_complete_running_waiting_or_failed_by_their_own_stages(store, capsys):
    def counted():
        found = status(capsys, "--ablation", "mask_ratio", "--scale", "micro", "--variants", "Full,5")
        return {row["variant"]: row for row in found["rows"] if row["items"] == "real"}, found

    rows, found = counted()
    assert {row["state"] for row in found["rows"]} == {"waiting"}
    own = next(row.stage for row in rows_.rows([FULL], MICRO, [0]) if row.items == "real")
    first = own.pictures.model.start
    lease(store, first)
    rows, found = counted()
    assert (rows["Full"]["state"], rows["5"]["state"]) == ("running", "waiting")
    lease(store, first, age=700)
    assert counted()[0]["Full"]["state"] == "waiting"
    (store.root / "leases" / first.key).unlink()
    log = Journal(store.root, first)
    log.start("a1")
    log.failed(BenchError("no room"))
    rows, _ = counted()
    assert (rows["Full"]["state"], rows["Full"]["cause"], rows["5"]["state"]) == ("failed", "no room", "waiting")
    assert main(["status", "--ablation", "mask_ratio", "--scale", "micro", "--variants", "Full"]) == 0
    assert "failed: Full (seed 0, real): no room" in capsys.readouterr().out
    log.start("a2")  # somebody tries again
    assert counted()[0]["Full"]["state"] == "waiting"
    for stage in graph.report_stages(next(row for row in rows_.rows([FULL], MICRO, [0]) if row.items == "real")):
        store.build(stage, lambda out: None)
    assert counted()[0]["Full"]["state"] == "complete"


def test_status_and_logs_import_no_torch_and_write_nothing_into_the_store(store, tmp_path):
    Journal(store.root, of("corpus")).start("a1")
    lease(store, of("corpus"))
    before = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*"))
    code = ("import sys; from bench.cli import main\n"
            "codes = [main(['status', '--ablation', 'mask_ratio', '--scale', 'micro']), main(['logs', 'corpus'])]\n"
            "assert codes == [0, 0] and 'torch' not in sys.modules, codes")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*")) == before


def test_status_of_no_store_says_so(tmp_path, capsys):
    assert main(["status", "--store", str(tmp_path / "absent")]) == 2
    assert "no store in" in capsys.readouterr().err
    assert not (tmp_path / "absent").exists()


def test_a_log_is_found_by_the_beginning_of_its_key_or_by_its_kind_and_read_as_lines(store, capsys, monkeypatch):
    own = at_work(store, "pretrain", monkeypatch)
    monkeypatch.chdir(store.root.parent)
    own.done()
    for asked in (of("pretrain").key[:8], "pretrain"):
        assert main(["logs", asked]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "start of pretrain, attempt a1" in lines[0]
        assert re.search(r"\d\d:\d\d:\d\d  140/1000  loss 0\.6$", lines[-2])
        assert lines[-1].endswith("done")
    assert main(["logs", "pretrain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["loss"] == 1.0
    with path(store.root, of("pretrain").key).open("a") as file:
        file.write('{"t": 1, "ev')
    assert main(["logs", "pretrain"]) == 0
    assert "broken lines skipped: 1" in capsys.readouterr().err


def test_a_log_that_is_not_there_or_not_the_only_one_is_an_error_that_names_what_there_is(store, capsys):
    assert main(["logs", "pretrain"]) == 2
    assert "there is none yet" in capsys.readouterr().err
    other = systems.plan(FULL, MICRO.items(), MICRO, 1).pictures.model.start
    for stage in (of("pretrain"), other, of("corpus")):
        Journal(store.root, stage).start("a1")
    assert main(["logs", "finetune"]) == 2
    assert "there are: 1 of corpus, 2 of pretrain" in capsys.readouterr().err
    assert main(["logs", "pretrain"]) == 2
    err = capsys.readouterr().err
    assert of("pretrain").key[:16] in err
    assert other.key[:16] in err
    assert main(["logs"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_logs_failed_prints_the_traceback_or_the_one_line_and_refuses_where_nothing_failed(store, capsys):
    own = Journal(store.root, of("corpus"))
    own.start("a1")
    assert main(["logs", "corpus", "--failed"]) == 2
    assert "has not failed" in capsys.readouterr().err
    own.failed(BenchError("no corpus there"))
    assert main(["logs", "corpus", "--failed"]) == 0
    assert capsys.readouterr().out == "no corpus there\n"
    own.start("a2")
    try:
        raise ArithmeticError("no roots")
    except ArithmeticError as error:
        own.failed(error)
    assert main(["logs", "corpus", "--failed"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ArithmeticError: no roots"


def test_following_a_log_ends_with_its_stage(store, tmp_path):
    own = Journal(store.root, of("corpus"))
    own.start("a1")
    left = store.root / "leases" / of("corpus").key  # by a process that was killed
    left.write_text(json.dumps({"attempt": "a" * 16, "pid": 2**22 + 1, "start": 1, "machine": machine()}))
    code = "import sys; from bench.cli import main; sys.exit(main(['logs', 'corpus', '--follow']))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert "start of corpus" in process.stdout.readline()
        assert "no process builds this stage" in process.stderr.readline()
        own.progress(5, 10, loss=0.25)
        assert "5/10  loss 0.25" in process.stdout.readline()
        own.done()
        assert process.stdout.readline().endswith("done\n")
        assert process.wait(20) == 0
