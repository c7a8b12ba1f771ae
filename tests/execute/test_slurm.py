"""`bench run --on slurm` with a Slurm on this machine (tests/slurm.py): jobs pre-empted, killed, never started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import psutil
import pytest
import slurm

from bench.cli import main
from bench.cost import forecast
from bench.execute.build import build
from bench.execute.engines.slurm import Slurm
from bench.experiment import graph
from bench.experiment.ablation import load
from bench.experiment.scale import TINY
from bench.setup import rows as rows_
from bench.store.store import Store

pytestmark = pytest.mark.long

RUN = ["run", "--scale", "micro", "--ablation"]
ON = ["--on", "slurm", "--slurm", "gpus=1", "--slurm", "time=1:00:00"]
BROKEN = """
from torch import nn
from ablations.table2 import row3
from bench import replace


class Encoder(nn.Module):
    def __init__(self, channels, times, width, depth, heads):
        super().__init__()
        raise ZeroDivisionError("of nothing")


variants = [row3, replace(row3, name="broken", encoder=__file__)]
contrasts = [("broken", "3")]
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("submitit", reason="submitit is missing: pip install -e '.[slurm]'")
    if lacking := slurm.missing():
        pytest.skip(lacking)  # only root can start a Slurm; a replacement would test nothing
    with slurm.cluster(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """mask_ratio, built by this machine's workers."""
    folder = tmp_path_factory.mktemp("here")
    assert main([*RUN, "mask_ratio", "--store", str(folder / "store"), "--results", str(folder / "results")]) == 0
    return folder


def csv(folder, name="mask_ratio") -> bytes:
    return (folder / "results" / "micro" / f"{name}.csv").read_bytes()


def jobs(*states: str) -> dict[str, str]:
    """The name of each job in one of the states, by its number."""
    found = subprocess.run(["squeue", "-h", "-t", ",".join(states or ("all",)), "-o", "%i %j"], capture_output=True,
                           text=True, check=True).stdout.split()
    return dict(zip(found[::2], found[1::2], strict=True))


def shown(job: str) -> str:
    return subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=False).stdout


def until(true, tries=1200):
    """Asks until `true` returns a true value; returns it. Fails after so many tries, so that nothing hangs."""
    for _ in range(tries):
        if found := true():
            return found
        time.sleep(0.2)
    pytest.fail(f"not after {tries} tries; jobs: {jobs()}")


def begin_soon() -> None:
    """Slurm holds a job that was queued again for two minutes. Some seconds do; in the same second the node takes the
    new one for the one that ended, and refuses it."""
    for job in jobs("PENDING"):
        said = shown(job)
        begins = re.search(r"StartTime=([\d:T-]+)", said)
        if "Reason=BeginTime" in said and begins and (
                datetime.fromisoformat(begins[1]) - datetime.now()).total_seconds() > 30:
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now+10"], check=False)


def processes(module: str, folder: Path) -> list[psutil.Process]:
    """The processes that run a module on a folder of this test."""
    found = [(process, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [process for process, line in found if {module, str(folder)} <= set(line) and "python" in line[0]]


def test_jobs_that_are_pre_empted_and_killed_give_the_same_table_as_a_run_without_a_cluster(cluster, here, tmp_path):
    store = tmp_path / "store"
    own = ["--store", str(store), "--results", str(tmp_path / "results")]
    assert main([*RUN, "mask_ratio", *ON, *own]) == 0
    submitted = jobs()
    assert len(submitted) > 20
    assert not (tmp_path / "results" / "micro" / "mask_ratio.csv").exists()

    assert main([*RUN, "mask_ratio", *ON, *own]) == 0  # returns; nothing is submitted twice
    assert jobs() == submitted

    command = [sys.executable, "-c", "import sys; from bench.cli import main; sys.exit(main(sys.argv[1:]))", *RUN,
               "mask_ratio", *ON, *own, "--wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        try:
            until(lambda: [name for name in jobs("RUNNING").values() if "pretrain" in name or "finetune" in name])
            time.sleep(3)
            before = jobs("RUNNING")
            subprocess.run(["sbatch", "-p", "high", "--gres=gpu:2", "-c", "4", "-t", "5", "-o", "/dev/null", "--wrap",
                            "sleep 1"], check=True, capture_output=True)
            again = until(lambda: [job for job in before if "Restarts=1" in shown(job)])
            until(lambda: "wrap" in jobs("COMPLETED").values())
            begin_soon()
            assert any("is preempted" in (store / "slurm" / f"{job}_0_log.out").read_text() for job in again)

            for what in (("bench.execute.worker", store), ("submitit.core._submit", store / "slurm")):  # a stage, a job
                victim = until(lambda what=what: processes(*what))[0]
                job = victim.environ()["SLURM_JOB_ID"]
                victim.kill()
                until(lambda job=job: "JobState=FAILED" in shown(job))
            while run.poll() is None:
                begin_soon()
                time.sleep(1)
            said = run.stdout.read()
        finally:
            run.kill()
    assert run.returncode == 0, said
    assert csv(tmp_path) == csv(here)
    assert len(list((store / "slurm").glob("*_submission.sh"))) > len(submitted)  # killed jobs were resubmitted
    assert not [*(store / "work").iterdir(), *(store / "leases").iterdir()]


def test_what_can_never_begin_is_a_failed_row_with_its_cause_and_the_others_go_on(cluster, here, tmp_path, capsys,
                                                                                   monkeypatch):
    monkeypatch.setattr("bench.execute.engines.slurm.POLL", 1.0)
    (tmp_path / "broken.py").write_text(BROKEN)
    own = ["--store", str(here / "store"), "--results", str(tmp_path / "results")]

    def cancelled(before: dict[str, str]) -> dict[str, str]:
        return {job: name.split("-")[1] for job, name in jobs("CANCELLED").items() if job not in before}

    before = jobs()
    assert main([*RUN, str(tmp_path / "broken.py"), *ON, *own]) == 0
    until(lambda: not jobs("PENDING", "RUNNING", "COMPLETING").keys() - before.keys())
    by_slurm = cancelled(before)  # no run was active
    assert set(by_slurm.values()) == {"generate", "score"}
    assert all("DependencyNeverSatisfied" in shown(job) for job in by_slurm)

    before = jobs()
    assert main([*RUN, str(tmp_path / "broken.py"), *ON, *own, "--wait"]) == 1
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("bench: failed: ")]
    assert len(lines) == 1
    assert lines[0].startswith("bench: failed: broken (seed 0, real): finetune: ")
    assert "ZeroDivisionError: of nothing" in lines[0]
    assert re.search(r"^3 +", said.out, re.MULTILINE)
    assert set(cancelled(before).values()) == {"generate", "score"}


def test_a_training_that_takes_longer_than_its_jobs_goes_on_in_the_next_one(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.execute.engines.slurm.POLL", 1.0)
    store = Store(tmp_path / "store")
    planned = graph.stages(row.stage for row in rows_.rows(load("mask_ratio").variants, TINY, [0]))
    training = max((stage for stage in planned if stage.kind == "pretrain"), key=forecast.seconds)
    for above in graph.stages(graph.needs(training)):
        build(above, store, "cpu")
    heard = []
    with Slurm(store, ["time=2", "notice=25", "cpus=1"]) as executor:
        executor.submit(training, [])
        for _ in range(1200):  # rounds of a second at most, so that nothing hangs
            begin_soon()
            heard += executor.events(1)
            if heard and heard[-1].what not in ("started", "progress"):
                break
    assert heard[-1].what == "done"
    job, = {path.name.partition("_")[0] for path in (store.root / "slurm").glob("*_0_log.out")}
    assert "this job is timed-out" in (store.root / "slurm" / f"{job}_0_log.out").read_text()
    assert int(re.search(r"Restarts=(\d+)", shown(job))[1]) >= 1
    steps = [event.step for event in heard if event.what == "progress"]
    assert steps
    assert steps == sorted(steps)  # no step was repeated


def test_no_more_jobs_run_at_once_than_asked_for(cluster, tmp_path):
    own = ["--store", str(tmp_path / "store"), "--results", str(tmp_path / "results"), "--slurm", "at_once=1"]
    assert main([*RUN, "mask_ratio", "--variants", "5", *ON, *own]) == 0
    mine = {path.name.partition("_")[0] for path in (tmp_path / "store" / "slurm").iterdir()}
    most = 0
    while mine & jobs("PENDING", "RUNNING", "COMPLETING").keys():
        most = max(most, len(mine & jobs("RUNNING", "COMPLETING").keys()))
        time.sleep(0.2)
    assert len(mine) > 3
    assert most == 1
    assert main([*RUN, "mask_ratio", "--variants", "5", *own[:4]]) == 0


def test_slurm_that_takes_no_job_is_a_failed_row_with_slurms_own_word(cluster, here, tmp_path, capsys):
    own = ["--store", str(here / "store"), "--results", str(tmp_path / "results")]
    arguments = [*RUN, "mask_ratio", "--seeds", "1", "--variants", "5", *own, "--on", "slurm", "--wait"]
    assert main([*arguments, "--slurm", "partition=nowhere"]) == 1
    said = capsys.readouterr().err
    assert "invalid partition" in said
    assert main([*arguments, "--slurm", "nowhere=1"]) == 2
    assert "no setting 'nowhere'" in capsys.readouterr().err


def test_doctor_says_that_slurm_is_here_and_a_run_where_it_does_not_answer_builds_nothing(
        cluster, capsys, monkeypatch, tmp_path):
    main(["doctor", "--scale", "micro", "--on", "slurm"])
    assert re.search(r"^ok +slurm +submitit [\d.]+, slurm\S* [\d.]+, partitions low, high$", capsys.readouterr().out,
                     re.MULTILINE)
    nobody = re.sub(r"(?<=SlurmctldPort=)\d+", "1", Path(os.environ["SLURM_CONF"]).read_text())
    (tmp_path / "slurm.conf").write_text(nobody)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    own = ["--store", str(tmp_path / "store"), "--results", str(tmp_path / "results")]
    assert main([*RUN, "mask_ratio", *ON, *own]) == 3
    assert re.fullmatch(r"bench: --on slurm: Slurm does not answer \(.+\); run it where .+\n", capsys.readouterr().err)
    assert not list(tmp_path.glob("store/objects/*/*"))
    assert not list(tmp_path.rglob("*.csv"))


def test_without_slurm_a_run_says_what_is_missing_and_builds_nothing(tmp_path, monkeypatch, capsys):
    pytest.importorskip("submitit", reason="submitit is missing: pip install -e '.[slurm]'")
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    own = ["--store", str(tmp_path / "store"), "--results", str(tmp_path / "results")]
    assert main([*RUN, "mask_ratio", *ON, *own]) == 3
    assert "login node" in capsys.readouterr().err
    assert main(["doctor", "--scale", "micro", "--on", "slurm"]) == 3
    assert re.search(r"^NO +slurm +--on slurm: no sbatch", capsys.readouterr().out, re.MULTILINE)
