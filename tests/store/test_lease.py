"""Leases: one process builds a stage; without heartbeats, or dead, it loses the lease."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

from bench.errors import BenchError
from bench.runtime import Stopped
from bench.store import lease

KEY = "ab" * 32
OTHER = """
import os, sys, time
offset = float(sys.argv[3])
true = time.time
time.time = lambda: true() + offset
from pathlib import Path
from bench.store import lease
try:
    with lease.acquire(Path(sys.argv[1]), sys.argv[2], "note") as claim:
        print("taken", flush=True)
        sys.stdin.readline()
        claim.check()
        print("kept", flush=True)
except lease.Lost as error:
    print("lost", error.lease.pid, flush=True)
except lease.Held as error:
    print("held", error.lease.pid, flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "leases").mkdir()
    return tmp_path / "leases"


@pytest.fixture
def other(folder):
    """Starts another process that holds the lease until it reads a line."""
    started = []

    def start(offset: float = 0.0):
        process = subprocess.Popen([sys.executable, "-c", OTHER, str(folder), KEY, str(offset)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline().split()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stop(process):
    """Stops a process, and waits until it is stopped."""
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_stage_that_another_process_builds_is_refused_at_once_and_free_when_that_one_is_done(folder, other):
    process, said = other()
    assert said == ["taken"]
    with pytest.raises(lease.Held, match=f"note abababababab is being built by process {process.pid} on ") as caught, \
            lease.acquire(folder, KEY, "note"):
        pass
    assert caught.value.exit_code == 75
    held, = lease.running(folder)
    assert (held.key, held.stage, held.pid) == (KEY, "note", process.pid)
    assert process.communicate("\n")[0] == "kept\n"
    assert names(folder) == []
    with lease.acquire(folder, KEY, "note"):
        assert names(folder) == [KEY]
    assert names(folder) == []


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_at_once_also_before_it_is_buried(folder, other):
    process, _ = other()
    process.kill()
    while lease._start_tick(process.pid) != -1:  # until it is a zombie
        time.sleep(0.01)
    assert lease.running(folder) == []
    with lease.acquire(folder, KEY, "note") as claim:
        claim.check()
    assert names(folder) == []


def test_a_number_that_now_belongs_to_another_process_is_no_sign_of_life(folder, other, monkeypatch):
    other()
    monkeypatch.setattr(lease, "_start_tick", lambda pid: 7)
    assert lease.running(folder) == []


def test_who_was_stopped_for_longer_than_a_lease_lives_has_lost_it(folder, other):
    process, _ = other()
    stop(process)
    assert len(lease.running(folder)) == 1
    os.utime(folder / KEY, (0, 0))  # as if it had been stopped for long
    assert lease.running(folder) == []
    with lease.acquire(folder, KEY, "note") as claim:
        process.send_signal(signal.SIGCONT)
        assert process.communicate("\n")[0] == f"lost {os.getpid()}\n"
        claim.check()
        assert names(folder) == [KEY]
    assert names(folder) == []


def test_a_process_that_lives_keeps_its_lease_for_longer_than_that(folder, other, monkeypatch):
    monkeypatch.setenv(lease.LIFETIME, "10")  # a heartbeat each second
    process, _ = other()
    for _ in range(2):
        stop(process)
        os.utime(folder / KEY, (0, 0))
        assert lease.running(folder) == []
        process.send_signal(signal.SIGCONT)
        end = time.monotonic() + 60
        while not lease.running(folder) and time.monotonic() < end:  # until the next heartbeat
            time.sleep(0.05)
        assert len(lease.running(folder)) == 1
    assert process.communicate("\n")[0] == "kept\n"


@pytest.mark.parametrize("offset", [-3600.0, 3600.0])
def test_a_host_whose_clock_is_an_hour_off_neither_steals_nor_loses_a_lease(folder, other, offset, monkeypatch):
    monkeypatch.setenv(lease.LIFETIME, "60")
    with lease.acquire(folder, KEY, "note"):
        assert other(offset)[1] == ["held", str(os.getpid())]
    process, said = other(offset)
    assert said == ["taken"]
    with pytest.raises(lease.Held), lease.acquire(folder, KEY, "note"):
        pass
    assert process.communicate("\n")[0] == "kept\n"


def _try(folder, barrier, wins):
    barrier.wait()
    try:
        with lease.acquire(folder, KEY, "note") as claim:
            time.sleep(0.05)
            claim.check()
            wins.put(1)
            barrier.wait()
    except lease.Held:
        barrier.wait()


def test_of_many_who_find_a_dead_process_s_lease_one_gets_it(folder, monkeypatch):
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        (folder / KEY).write_text('{"stage": "note", "attempt": "0123456789abcdef", "pid": 1}')
        os.utime(folder / KEY, (0, 0))
        wins, barrier = context.Queue(), context.Barrier(6)
        processes = [context.Process(target=_try, args=(folder, barrier, wins)) for _ in range(6)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30)
        assert wins.get(timeout=5) == 1
        assert wins.empty()
        assert names(folder) == []


def test_a_lease_that_changed_hands_while_it_was_being_taken_away_is_put_back(folder, monkeypatch):
    path, rename = folder / KEY, os.rename
    path.write_text('{"stage": "note", "attempt": "0123456789abcdef"}')

    def late(source, target):  # another process steals it between the check and the rename
        path.write_text('{"stage": "note", "attempt": "fedcba9876543210"}')
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    lease._remove(path, "0123456789abcdef")
    assert lease._read_attempt(path) == "fedcba9876543210"
    assert names(folder) == [KEY]


def test_a_signal_that_comes_as_a_lease_s_file_is_made_leaves_none(folder, monkeypatch):
    def told(*arguments, really=os.open):
        os.close(really(*arguments))
        raise Stopped

    monkeypatch.setattr("bench.store.lease.os.open", told)
    with pytest.raises(Stopped), lease.acquire(folder, "k", "stage"):
        pass
    assert list(folder.iterdir()) == []


def test_a_lease_that_says_nothing_holds_until_its_life_is_over(folder, monkeypatch):
    monkeypatch.setenv(lease.LIFETIME, "30")
    (folder / KEY).write_text("")
    with pytest.raises(lease.Held), lease.acquire(folder, KEY, "note"):
        pass
    os.utime(folder / KEY, (time.time() - 40,) * 2)
    with lease.acquire(folder, KEY, "note"):
        pass


def test_sweeping_removes_what_dead_processes_left_and_nothing_of_a_live_one(folder, other):
    other()
    (folder / "cd").write_text('{"stage": "note", "attempt": "0123456789abcdef", "pid": 1}')
    (folder / ".half").write_text("")
    for name in ("cd", ".half"):
        os.utime(folder / name, (0, 0))
    (folder / ".new").write_text("")
    lease.sweep(folder)
    assert names(folder) == [".new", KEY]


def test_what_says_who_holds_a_stage_survives_the_way_between_processes():
    for kind in (lease.Held, lease.Lost):
        error = pickle.loads(pickle.dumps(kind("note", lease.Lease(KEY, host="there", pid=3))))
        assert type(error) is kind
        assert (error.lease.pid, error.exit_code) == (3, 75)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_life_that_is_no_number_of_seconds_is_refused(monkeypatch, text):
    monkeypatch.setenv(lease.LIFETIME, text)
    with pytest.raises(BenchError, match=f"{lease.LIFETIME}={text}: expected a positive number of seconds") as caught:
        lease.lifetime()
    assert caught.value.exit_code == 2
