"""The wheel has all that a user needs without a checkout, and the source distribution builds the same one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
IGNORED = shutil.ignore_patterns(".*", "docs", "tests", "__pycache__", "*.egg-info", "build", "tiny.old")


def build(kind: str, source: Path, out: Path) -> Path:
    """Builds a wheel or a source distribution without network, and returns its file."""
    out.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    return next(out.iterdir())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a wheel and a source distribution of this checkout, built in a copy."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "copy", ignore=IGNORED)
    build("wheel", folder / "copy", folder / "wheel")
    build("sdist", folder / "copy", folder / "sdist")
    return folder


@pytest.fixture(scope="module")
def installed(folder):
    """The wheel, installed without its dependencies into a folder."""
    wheel = next((folder / "wheel").iterdir())
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target",
                    str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def bench(installed: Path, empty: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", "COLUMNS": "100"}
    return subprocess.run([sys.executable, "-m", "bench", *words], cwd=empty, env=environment, capture_output=True,
                          text=True, check=False)


def test_a_wheel_without_checkout_has_ablations_published_numbers_and_the_reference(installed, tmp_path):
    listed = bench(installed, tmp_path, "list")
    assert listed.returncode == 0, listed.stderr
    assert "table2" in listed.stdout
    table2 = bench(installed, tmp_path, "table", "table2", "--reference")
    assert table2.returncode == 0, table2.stderr
    full = next(line for line in table2.stdout.splitlines() if line.startswith("Full "))
    assert full.split()[-1] == "45.8"  # the paper's column
    table1 = bench(installed, tmp_path, "table", "table1", "--reference")
    assert table1.returncode == 0, table1.stderr
    assert "Brain2Image" in table1.stdout
    instrument = bench(installed, tmp_path, "doctor", "--instrument")
    assert "gates hold" in instrument.stdout
    assert "no results" not in instrument.stdout
    assert not list(tmp_path.iterdir())


def test_a_wheel_prints_every_column_of_table_2_as_the_checkout_does(installed, tmp_path):
    shipped = bench(installed, tmp_path, "table", "table2", "--reference", "--details")
    here = bench(ROOT, tmp_path, "table", "table2", "--reference", "--details", "--results", str(ROOT / "results"))
    assert here.returncode == 0, here.stderr
    without_command = [text.split("- More: ")[0] for text in (shipped.stdout, here.stdout)]
    assert without_command[0] == without_command[1]


@pytest.mark.long
def test_a_wheel_runs_a_row_at_micro(installed, tmp_path):
    ran = bench(installed, tmp_path, "run", "--ablation", "clip", "--variants", "1", "--scale", "micro")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "results" / "micro" / "clip.csv").is_file()


def test_the_source_distribution_builds_the_same_wheel_and_has_all_results(folder):
    source = next((folder / "sdist").iterdir())
    with tarfile.open(source) as archive:
        archive.extractall(folder / "source", filter="data")
    unpacked = next((folder / "source").iterdir())
    again = build("wheel", unpacked, folder / "again")
    wheels = [zipfile.ZipFile(path) for path in (next((folder / "wheel").iterdir()), again)]
    first, second = ({entry.filename: entry.CRC for entry in wheel.infolist() if "dist-info" not in entry.filename}
                     for wheel in wheels)
    assert first == second
    results = sorted(path.relative_to(ROOT) for path in (ROOT / "results" / "reference").rglob("*.csv.gz"))
    assert results
    assert all((unpacked / path).is_file() for path in results)


FOREIGN = """
from setuptools import setup

setup(name="frappe-bench", version="5.0", packages=["bench"] + EXTRA)
"""


def make_foreign(folder: Path, files: dict[str, str], name: str) -> Path:
    """Builds the wheel of a made-up distribution that also ships a top-level bench, and returns its file."""
    source = folder / name
    for file, text in files.items():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_text(text)
    extra = sorted({file.split("/")[0] for file in files} - {"bench"})
    (source / "setup.py").write_text(FOREIGN.replace("EXTRA", repr(extra)))
    return build("wheel", source, folder / f"{name}-wheel")


@pytest.fixture(scope="module")
def environment(folder):
    """A fresh virtual environment; a .pth file lends it the libraries of this one, which have no package bench."""
    place = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    site = next(place.glob("lib/*/site-packages"))
    libraries = sysconfig.get_paths()["purelib"]
    (site / "libraries.pth").write_text(f"{libraries}\n")
    return place


def install(environment: Path, *wheels: Path) -> None:
    """Installs the wheels one after another with pip, without network; an earlier one is removed first."""
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "uninstall", "-q", "-y", "eeg2image-bench", "frappe-bench"], check=True, capture_output=True)
    for wheel in wheels:
        subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)


def call(environment: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command `bench` of the environment."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "300"}
    return subprocess.run([environment / "bin" / "bench", *words], cwd=environment, env=variables, capture_output=True,
                          text=True, check=False)


@pytest.mark.long
@pytest.mark.parametrize(("name", "files", "cause"), [
    ("package", {"bench/__init__.py": "VERSION = '5.0'\n", "bench/app.py": ""},
     "bench/__init__.py is not this project's (it lacks this project's names)"),
    ("command", {"bench/__init__.py": "", "bench/cli.py": "def cli():\n    pass\n"},
     "bench/cli.py is not this project's (cannot import name 'COMMANDS' from 'bench.cli'"),
])
def test_a_distribution_with_a_bench_that_is_installed_later_is_refused(folder, environment, name, files, cause):
    wheel = next((folder / "wheel").iterdir())
    foreign = make_foreign(folder, files, name)
    install(environment, wheel)
    assert call(environment, "list").returncode == 0
    install(environment, wheel, foreign)
    refused = call(environment, "list")
    assert refused.returncode == 3, refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert cause in refused.stderr
    assert ("the installed package frappe-bench has the same name; python -m pip uninstall frappe-bench, then install "
            "eeg2image-bench again, or use an environment for this project alone") in refused.stderr
    install(environment, wheel)  # as the line advises
    assert call(environment, "list").returncode == 0


@pytest.mark.long
def test_a_distribution_with_a_bench_that_is_installed_earlier_is_named_by_doctor(folder, environment):
    foreign = make_foreign(folder, {"bench/__init__.py": "", "bench/app.py": "", "models/__init__.py": ""}, "earlier")
    install(environment, foreign, next((folder / "wheel").iterdir()))
    assert call(environment, "list").returncode == 0
    examined = call(environment, "doctor")
    assert "frappe-bench (also has bench, models) could replace them" in examined.stdout, examined.stderr


def test_a_wheel_has_no_tests_and_nothing_large(folder):
    wheel = next((folder / "wheel").iterdir())
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(("tests/", "docs/", "results/"))]
    items = [entry for entry in zipfile.ZipFile(wheel).infolist() if entry.filename.endswith(".items.csv.gz")]
    assert items
    assert max(entry.file_size for entry in items) < 5e6
    assert wheel.stat().st_size < 15e6
