"""The tutorials run as they stand: files are written, commands are given, and what they print is compared."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.name != "README.md")
COMPARE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Yields the language and the text of each fenced block."""
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_tutorial_runs_as_it_stands(page, tmp_path):
    if page.stem == "own_recordings":
        pytest.importorskip("mne_bids", reason="the tutorial needs mne-bids: pip install eeg2image-bench[bids]")
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]), "COLUMNS": "100",
                                "PYTHONPATH": str(ROOT)}
    printed, commands = "", 0
    for language, text in blocks(page.read_text()):
        if language == "sh":
            for command in text.splitlines():
                ran = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True,
                                     check=False)
                assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
                printed, commands = ran.stdout, commands + 1
        elif language == "text":
            assert doctest.OutputChecker().check_output(text, printed, COMPARE), f"expected:\n{text}\nnot:\n{printed}"
        else:
            name = re.match(r"# (\S+\.\w+)\n", text)
            assert name, f"{page.name}: a file begins with a comment of its name, not with {text.splitlines()[0]!r}"
            (tmp_path / name[1]).write_text(text)
    assert commands, f"{page.name} gives no command"


def test_the_overview_names_every_tutorial():
    overview = (ROOT / "docs" / "tutorials" / "README.md").read_text()
    assert sorted(re.findall(r"\((\w+\.md)\)", overview)) == [page.name for page in PAGES]
