"""`bench doctor`: a line for everything a scale needs, and what to do where it is not there."""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from paper import PAPER
from rich.console import Console

from bench import runtime
from bench.commands import doctor
from bench.errors import ENVIRONMENT, OK
from bench.experiment.scale import REHEARSAL, TINY
from bench.setup.places import PARTS
from bench.setup.request import Request

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("alone")
FREE = 500e9  # bytes; the room on this machine's disk is no matter of these tests


@pytest.fixture(autouse=True)
def _disk(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: argparse.Namespace(free=FREE))


def lines(scale, tmp_path, store="store"):
    request = Request(data=tmp_path / "data", store=tmp_path / store)
    return {line.what: line for line in doctor.examine(scale, request)}


def test_tiny_can_run_here_and_nothing_is_written(tmp_path):
    parser = argparse.ArgumentParser()
    doctor.add_options(parser)
    console = Console(file=io.StringIO(), soft_wrap=True)
    options = parser.parse_args(["--store", str(tmp_path / "store"), "--data", str(tmp_path / "data")])
    assert doctor.main(options, console) == OK
    said = console.file.getvalue().splitlines()
    assert [line.split()[:2] for line in said[:-1]] == [["ok", what] for what in (
        "Python", "packages", "imports", "GPU", "vae", "unet", "clip", "judge", "data", "disk")]
    assert said[-1] == "scale tiny can run here"
    assert re.search(rf"torch {re.escape(importlib.metadata.version('torch'))}\b", said[1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(runtime.device("auto") == "cuda", reason="a GPU is there, and its lines are others")
def test_what_the_papers_scale_lacks_is_said_part_by_part_with_what_to_do(tmp_path):
    found = lines(PAPER, tmp_path)
    assert not found["GPU"].ok
    assert "the driver shows none, and scale paper needs one" in found["GPU"].message
    for part in ("vae", "unet", "clip", "judge", *PAPER.networks):
        assert not found[part].ok
        assert found[part].message.endswith(f"bench fetch --what {part}")
    assert not found["data"].ok
    assert "bench data prepare imagenet_eeg" in found["data"].message
    assert not found["corpus"].ok
    assert "bench data prepare moabb_v046" in found["corpus"].message
    assert found["Python"].ok
    assert found["packages"].ok


def test_the_rehearsal_makes_what_it_needs_itself(tmp_path):
    found = lines(REHEARSAL, tmp_path)
    assert all(line.ok for line in found.values())
    assert set(found) == {"Python", "packages", "imports", "GPU", "weights", "data", "disk"}


def test_a_scale_that_cannot_run_exits_with_3(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.places, "load_scale", lambda name: replace(TINY, prior="", networks=("alexnet",)))
    parser = argparse.ArgumentParser()
    doctor.add_options(parser)
    console = Console(file=io.StringIO(), soft_wrap=True)
    assert doctor.main(parser.parse_args(["--store", str(tmp_path)]), console) == ENVIRONMENT
    said = console.file.getvalue().splitlines()
    assert said[-1] == "scale tiny cannot run here"
    assert [line.split()[1] for line in said if line.startswith("NO")] == ["vae", "unet", "clip", "judge", "alexnet"]


def test_an_old_or_missing_package_is_named_with_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [
        "numpy>=99.1", "rich>=13", "no-such-package>=1", 'pytest>=99; extra == "test"'])
    line = lines(TINY, tmp_path)["packages"]
    assert not line.ok
    assert line.message == (f"numpy is {importlib.metadata.version('numpy')}, not 99.1 or newer, no-such-package is "
                         "missing: python -m pip install -e .")


def test_a_full_disk_is_said_with_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: argparse.Namespace(free=1e9))
    line = lines(TINY, tmp_path, "not/yet/there")["disk"]
    assert not line.ok
    assert line.message == (f"1 GB free in {tmp_path}; Full alone needs about 2 GB: free some, or name another folder "
                         "with --store DIR")


@pytest.mark.parametrize(("older", "newer"), [("2.9", "2.11"), ("2.15.0", "2.15.1+cu130"), ("3.11", "3.12.1")])
def test_versions_are_compared_as_numbers(older, newer):
    assert doctor._parse_version(older) < doctor._parse_version(newer)


@pytest.mark.gpu
def test_on_a_gpu_its_memory_and_what_fits_are_said(tmp_path):
    found = lines(PAPER, tmp_path)
    assert found["GPU"].ok
    assert re.search(r"\d+ GB, \d+ GB free", found["GPU"].message)
    assert Path(tmp_path).exists()


def test_of_an_ablation_what_only_its_rows_need_is_looked_for_too(tmp_path):
    console = Console(file=io.StringIO(), soft_wrap=True)
    parser = argparse.ArgumentParser()
    doctor.add_options(parser)
    for name, own in (("table2", []), ("guided_retrieval", ["things_eeg2", "clip_h"]),
                      ("guided_parts", ["things_eeg2", "clip_h", "adapter", "turbo", "captioner"])):
        console.file.truncate(0)
        console.file.seek(0)
        options = ["--scale", "paper", "--ablation", name, "--store", str(tmp_path), "--data", str(tmp_path / "data"),
                   "--weights", str(tmp_path)]
        assert doctor.main(parser.parse_args(options), console) == ENVIRONMENT
        said = console.file.getvalue().splitlines()
        lacking = [line.split()[1] for line in said if line.startswith("NO")]
        assert [what for what in lacking if what not in (*PARTS, *PAPER.networks, "GPU", "data", "corpus")] == own


def install(site, distribution, version, files):
    """Makes an installed distribution in the folder `site`, as pip leaves it."""
    lines = []
    for name, text in files.items():
        file = site / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(text)}")
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/METADATA,,", f"{info.name}/RECORD,,"]) + "\n")


def command(folder, *arguments, path=()):
    """What `bench` prints where these folders come first on sys.path, and its exit code."""
    places = os.pathsep.join([*map(str, path), str(ROOT)])
    done = subprocess.run([sys.executable, "-P", "-m", "bench", *arguments], cwd=folder, capture_output=True, text=True,
                          check=False, env=os.environ | {"PYTHONPATH": places, "COLUMNS": "300"})
    return done.returncode, done.stdout, done.stderr


def test_another_package_with_the_name_models_is_named_with_what_to_do(tmp_path):
    site = tmp_path / "site-packages"
    install(site, "sloppy-nets", "1.0", {"models/__init__.py": "raise RuntimeError('not for you')\n"})
    for arguments in (["list"], ["doctor"], ["run", "--ablation", "clip"]):
        code, _, said = command(tmp_path, *arguments, path=[site])
        assert code == ENVIRONMENT, said
        assert said == (f"bench: models is imported from {site / 'models'}, not from {ROOT / 'models'}, where this "
                        "project's is: the installed package sloppy-nets has the same name; python -m pip uninstall "
                        "sloppy-nets, or install this project into an environment of its own\n")


def test_a_folder_models_that_comes_first_is_named(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    code, _, said = command(tmp_path, "list", path=[tmp_path])
    assert code == ENVIRONMENT
    assert said.startswith(f"bench: models is imported from {tmp_path / 'models'}, not from {ROOT / 'models'}")
    assert said.endswith(f"{tmp_path} comes first on sys.path; use the command bench instead of python -m bench, and "
                         "take this folder out of PYTHONPATH\n")
    notebook = ("import bench\nfor entry in (lambda: bench.plan('clip'), lambda: bench.score('a', 'b')):\n    try:\n"
                "        entry()\n    except bench.errors.BenchError as error:\n        print(error)")
    done = subprocess.run([sys.executable, "-c", notebook], cwd=tmp_path, capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.stdout.count(f"models is imported from {tmp_path / 'models'}, not from") == 2


def test_a_package_that_could_replace_this_projects_files_is_named(tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    install(site, "frappe-bench", "5.0", {"bench/app.py": "", "models/x.py": ""})
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    line = doctor._check_imports()
    assert line.ok
    assert "frappe-bench (also has bench, models) could replace them" in line.message


def test_files_that_another_package_has_replaced_are_named(tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    install(site, "eeg2image-bench", "0.1.0", {"bench/cli.py": "x = 1\n", "models/mae.py": "y = 1\n"})
    install(site, "frappe-bench", "5.0", {"bench/cli.py": "def cli():\n    pass\n"})
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    line = doctor._check_imports()
    assert not line.ok
    assert line.message.startswith("1 files differ from those that were installed, the first is bench/cli.py; perhaps "
                                   "replaced by frappe-bench (also has bench): python -m pip uninstall it")
