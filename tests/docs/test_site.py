"""The documentation site builds strictly and offline, and has every command and every name that users import."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Builds the site as `make docs` does, without access to other machines."""
    blocked = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return subprocess.run([sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(source), str(out)],
                          cwd=ROOT, env=os.environ | blocked, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    built = build(ROOT / "docs", out)
    assert built.returncode == 0, built.stderr
    return out


def test_every_page_is_in_the_site_and_its_links_within_it_exist(site):
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")
             if "_build" not in path.parts]
    assert pages
    for page in pages:
        text = (site / page).read_text()
        for link in re.findall(r'(?:href|src)="([^"#:?]+)(?:[#?][^"]*)?"', text):
            assert (site / page.parent / link).exists(), f"{page}: {link}"


def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert not loaded, page.name


def test_every_command_and_every_public_name_has_its_place(site):
    commands = (site / "cli.html").read_text()
    for name in (name for group in COMMANDS.values() for name in group):
        assert re.search(rf'id="bench-{name}"', commands), name
    api = (site / "api.html").read_text()
    entries = {"run", "plan", "table", "score"}
    assert entries <= set(bench.__all__)
    for name in entries:
        assert f'id="bench.{name}"' in api, name


def test_a_broken_link_is_an_error(tmp_path):
    for name in ("conf.py", "statistics.md"):
        shutil.copy(ROOT / "docs" / name, tmp_path)
    (tmp_path / "index.md").write_text("# Home\n\n[gone](gone.md)\n\n```{toctree}\nstatistics\n```\n")
    built = build(tmp_path, tmp_path / "_build")
    assert built.returncode != 0
    assert "gone" in built.stderr
