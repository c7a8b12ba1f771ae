"""What `make lint` asks of the layout holds, and each rule fails on a planted violation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from structure import LINES, ROOT, violations

BIN = Path(sys.executable).parent


@pytest.fixture
def copy(tmp_path) -> Path:
    """The suite's sources, to plant something in."""
    for package in ("bench", "models", "ablations"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "tiny"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_layout_is_as_it_should_be():
    assert list(violations()) == []


@pytest.mark.parametrize(("file", "text", "message"), [
    ("bench/store/lease.py", "\n\ndef later():\n    from bench.store import store\n", "circle of imports: "),
    ("bench/store/lease.py", "\n# a line" * LINES, "bench/store/lease.py: "),
    ("bench/another.py", "", "bench/ has 11 files, at most 10 are allowed"),
    ("bench/tables/sheet.py", "\nimport argparse\n", "argparse outside the command line"),
    ("bench/tables/sheet.py", "\nfrom bench.files import _private\n", "_private, a private name of another file"),
    ("bench/tables/sheet.py", "\nfrom bench import files\nfiles._private\n", "files._private, a private name"),
])
def test_a_planted_violation_is_found(copy, file, text, message):
    with (copy / file).open("a") as stream:
        stream.write(text)
    assert any(message in line for line in violations(copy))


@pytest.mark.parametrize(("file", "text", "broken"), [
    ("bench/store/lease.py", "\n\ndef later():\n    from bench.experiment import key\n", "rooms: imports go downwards"),
    ("bench/train/score.py", "\nfrom bench.cost import price\n", "rooms: imports go downwards"),
    ("models/masking.py", "\nfrom bench import errors\n", "models knows neither bench nor ablations"),
])
def test_a_planted_import_breaks_a_contract(copy, file, text, broken):
    with (copy / file).open("a") as stream:
        stream.write(text)
    run = subprocess.run([BIN / "lint-imports", "--no-cache"], cwd=copy, capture_output=True, text=True,
                         env=os.environ | {"PYTHONPATH": str(copy)}, check=False)
    assert run.returncode == 1
    assert any(broken in line and "BROKEN" in line for line in run.stdout.splitlines())
