"""Processes of a run are killed and stopped at random; the results are byte-identical to those of an undisturbed run.

EEG2IMAGE_BENCH_KILLS (100): number of kills; EEG2IMAGE_BENCH_KILL_S (2): mean seconds between them. Many kills would
hit workers that build nothing. Therefore each kill waits up to WORKING seconds for a worker that builds a stage, and
prefers it. Takes about ten minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.store import lease
from bench.store.store import Store

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("EEG2IMAGE_BENCH_KILLS", "100"))
MEAN = float(os.environ.get("EEG2IMAGE_BENCH_KILL_S", "2"))
WORKING = 6.0  # s
CODE = "import sys; from bench.cli import main; sys.exit(main(sys.argv[1:]))"
FILES = ("table2.csv", "table2.items.csv.gz", "table2.sha256")


def start(folder: Path, name: str, workers: int = 3, life: float = 600.0, log: str = "log") -> subprocess.Popen:
    """`bench run --ablation table2 --scale micro` in its own process group; its output is appended to a file."""
    command = [sys.executable, "-c", CODE, "run", "--ablation", "table2", "--scale", "micro", "--workers", str(workers),
               "--store", f"{name}/store", "--results", f"{name}/results"]
    (folder / name).mkdir(exist_ok=True)
    with (folder / name / log).open("a") as file:
        return subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                                env=os.environ | {lease.LIFETIME: str(life)})


def workers(process: subprocess.Popen) -> list[int]:
    """The worker processes of a run: the children of the process that forks them."""
    return [worker for pid in children(process.pid) if is_server(pid) for worker in children(pid)]


def children(parent: int) -> list[int]:
    """The child processes of a process; none if it has exited."""
    with contextlib.suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return []


def is_server(pid: int) -> bool:
    """Whether a process forks workers."""
    with contextlib.suppress(OSError):
        return b"multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def at_work(folder: Path, name: str, process: subprocess.Popen) -> list[int]:
    """The workers of a run that build a stage now."""
    owners = set()
    for path in (folder / name / "store/leases").glob("[!.]*"):
        with contextlib.suppress(OSError, ValueError):
            owners.add(json.loads(path.read_text())["pid"])
    return [pid for pid in workers(process) if pid in owners]


def results(folder: Path, name: str) -> dict[str, bytes]:
    return {file: (folder / name / "results/micro" / file).read_bytes() for file in FILES}


def left_behind(folder: Path, name: str) -> list[str]:
    """Leases, attempts, checkpoints, half-written files: a run must leave none of them."""
    store = folder / name / "store"
    found = [path for part in ("leases", "runs", "work", "checkpoints") for path in (store / part).glob("*")]
    found += [path for pattern in ("*.part", "*.new", ".*.new") for path in (folder / name).rglob(pattern)]
    return [str(path) for path in found]


def built(folder: Path, name: str, log: str = "log") -> int:
    """The number of stages that a run built, by its output."""
    return int(re.findall(r"^built (\d+) stages", (folder / name / log).read_text(), re.MULTILINE)[-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which `undisturbed` ran through."""
    folder = tmp_path_factory.mktemp("chaos")
    assert start(folder, "undisturbed").wait(3600) == 0
    return folder


def test_workers_that_are_killed_at_random_cost_time_alone(whole):
    chance, killed, busy, runs = random.Random(0), 0, 0, 0
    names, process = ["killed0"], start(whole, "killed0")
    while killed < KILLS:
        time.sleep(chance.expovariate(1 / MEAN))
        if process.poll() is not None:
            runs += 1
            assert process.returncode in (0, 1), (whole / names[-1] / "log").read_text()[-3000:]
            if process.returncode == 0:  # complete: start another run, which can be killed
                names.append(f"killed{len(names)}")
            process = start(whole, names[-1])
            continue
        end = time.monotonic() + WORKING
        while not (building := at_work(whole, names[-1], process)) and time.monotonic() < end:
            time.sleep(0.1)
        if victims := building or workers(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
                killed, busy = killed + 1, busy + bool(building)
    while process.wait(3600) == 1:  # the same command retries what died too often
        process = start(whole, names[-1])
    print(f"{killed} kills, {busy} of them at work; {runs} runs ended meanwhile; {len(names)} stores")
    assert process.returncode == 0
    for name in names:
        assert results(whole, name) == results(whole, "undisturbed"), name
        assert left_behind(whole, name) == []
        store = Store(whole / name / "store", create=False)
        assert list(store.keys()) == list(Store(whole / "undisturbed/store", create=False).keys())


def test_a_run_that_is_killed_with_all_its_workers_goes_on_where_it_was(whole):
    chance, killed = random.Random(1), 0
    for _ in range(8):
        process = start(whole, "group")
        while process.poll() is None and not at_work(whole, "group", process):
            time.sleep(0.1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.expovariate(1 / 4))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed >= 3
    assert start(whole, "group").wait(3600) == 0
    assert results(whole, "group") == results(whole, "undisturbed")
    assert left_behind(whole, "group") == []


def test_two_runs_of_one_plan_at_once_build_each_stage_once_and_end_with_the_same_table(whole):
    runs = [start(whole, "both", 2, log=log) for log in ("one", "two")]
    assert [process.wait(3600) for process in runs] == [0, 0]
    assert results(whole, "both") == results(whole, "undisturbed")
    counts = [built(whole, "both", log) for log in ("one", "two")]
    assert sum(counts) == built(whole, "undisturbed")
    assert min(counts) > 0
    tables = [(whole / "both" / log).read_text().partition(" s\n\n")[2] for log in ("one", "two")]
    assert tables[0] == tables[1] != ""
    assert left_behind(whole, "both") == []


def test_workers_that_are_stopped_for_longer_than_a_lease_lives_overwrite_nothing(whole):
    life, chance, stopped = 4.0, random.Random(2), 0
    runs = [start(whole, "stopped", 2, life, log) for log in ("one", "two")]
    while any(process.poll() is None for process in runs):
        time.sleep(chance.expovariate(1 / 2))
        victims = [pid for process in runs for pid in at_work(whole, "stopped", process)]
        if victims and stopped < 8:
            pid = chance.choice(victims)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(2.5 * life)
                os.kill(pid, signal.SIGCONT)
                stopped += 1
    assert [process.returncode for process in runs] == [0, 0]
    assert stopped >= 3
    assert results(whole, "stopped") == results(whole, "undisturbed")
    assert left_behind(whole, "stopped") == []
    code = [sys.executable, "-c", CODE, "store", "verify", "--store", "stopped/store"]
    assert subprocess.run(code, cwd=whole, check=False).returncode == 0
