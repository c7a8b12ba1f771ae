"""The shell lines of the workflows for users' repositories run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "docs" / "ci"


def lines_of(name: str) -> list[str]:
    """Returns the shell lines of a workflow, without the installation."""
    document = yaml.safe_load((CI / name).read_text())
    if name == "github.yml":
        text = "\n".join(step.get("run", "") for step in document["jobs"]["micro"]["steps"])
    else:
        text = "\n".join([*document["encoder"]["before_script"], *document["encoder"]["script"]])
    every = [line for line in text.splitlines() if line]
    assert every[0].startswith("python -m pip install eeg2image-bench")
    return every[1:]


def test_both_workflows_give_the_same_commands():
    github, gitlab = (lines_of(name) for name in ("github.yml", "gitlab.yml"))
    assert [line.partition(" >>")[0] for line in github] == gitlab


@pytest.mark.long  # the tutorial own_encoder runs the same ablation in `make test`
def test_the_lines_run_in_a_folder_with_an_own_encoder(tmp_path):
    tutorial = (ROOT / "docs" / "tutorials" / "own_encoder.md").read_text()
    (tmp_path / "mine.py").write_text(re.search(r"^```python\n(# mine\.py\n.*?)^```$", tutorial, re.M | re.S)[1])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in lines_of("github.yml"):
        ran = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False,
                             env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT),
                                               "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")})
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "| mine" in (tmp_path / "summary.md").read_text()


def test_containers_install_the_pinned_versions_and_start_bench():
    for name in ("Dockerfile", "bench.def"):
        text = (CI / name).read_text()
        assert "-c /opt/bench/constraints.txt /opt/bench" in text
        assert re.search(r'ENTRYPOINT \["bench"\]|exec bench "\$@"', text)
