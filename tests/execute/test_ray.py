"""`bench run --on ray` with a Ray that the test starts on this machine, with a token."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time

import psutil
import pytest

from bench.cli import main

pytestmark = pytest.mark.long

TWO = """
from ablations.table2 import row3
from bench import replace
variants = [row3, replace(row3, name="label", align="label")]
"""
BENCH = [sys.executable, "-c", "import sys; from bench.cli import main; sys.exit(main(sys.argv[1:]))"]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a Ray with two CPUs and two simulated GPUs; its token is in the environment."""
    pytest.importorskip("ray", reason="Ray is missing: pip install -e '.[ray]'")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = dict(os.environ)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_worker_niceness="0")
    os.environ.pop("RAY_ADDRESS", None)
    command = [*RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--num-gpus=2",
               "--include-dashboard=false", "--disable-usage-stats"]
    with (tmp_path_factory.mktemp("ray") / "head").open("w+") as out:
        head = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            until = time.monotonic() + 120
            while "Ray runtime started" not in (out.seek(0), out.read())[1]:
                assert head.poll() is None, (out.seek(0), out.read())[1]
                assert time.monotonic() < until
                time.sleep(0.5)
            yield f"127.0.0.1:{port}"
        finally:
            children = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
            head.terminate()
            for process in psutil.wait_procs(children, 20)[1]:
                process.kill()
            head.wait(20)
            os.environ.clear()
            os.environ.update(before)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    return tmp_path


def command(files, where: str, *more: str) -> list[str]:
    return ["run", "--scale", "micro", "--ablation", str(files / "two.py"), "--store", str(files / where),
            "--results", str(files / f"results-{where}"), *more]


def test_the_table_is_that_of_a_run_without_ray_also_when_a_process_was_killed(cluster, files):
    assert main(command(files, "here")) == 0
    on = command(files, "there", "--on", "ray", "--ray", f"address={cluster}", "--ray", "gpus=0.5")
    with subprocess.Popen([*BENCH, *on], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        killed: list[int] = []
        while run.poll() is None:
            for process in psutil.process_iter(["cmdline", "pid"]):
                line = process.info["cmdline"] or []
                if not killed and "bench.execute.worker" in line and str(files / "there") in line:
                    killed.append(process.info["pid"])
                    process.kill()
            time.sleep(0.2)
        assert run.returncode == 0, run.stdout.read()
    assert killed
    name = "micro/two.csv"
    assert (files / "results-there" / name).read_bytes() == (files / "results-here" / name).read_bytes()
    assert not list((files / "there" / "leases").iterdir())


def said(arguments: list[str]) -> tuple[int, str]:
    """Exit code and standard error of a run in its own process: Ray caches the first token of a process."""
    done = subprocess.run([*BENCH, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_stranger_is_not_let_in(cluster, files, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    code, error = said(command(files, "s", "--on", "ray", "--ray", f"address={cluster}"))
    assert (code, "RAY_AUTH_TOKEN are needed on both sides" in error) == (3, True), error


def test_what_the_whole_of_ray_cannot_give_is_refused_and_does_not_wait(cluster, files):
    code, error = said(command(files, "s", "--on", "ray", "--ray", f"address={cluster}", "--ray", "gpus=8"))
    assert (code, "it requests 8 GPU, but the whole of Ray has 2" in error) == (1, True), error
