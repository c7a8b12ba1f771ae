"""Provenance in a manifest: code, packages, machine, attempts, memory, energy."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.errors import ENVIRONMENT, BenchError
from bench.execute.build import build
from bench.experiment.scale import MICRO
from bench.experiment.stages import Trials
from bench.store import provenance
from bench.store.journal import Journal
from bench.store.store import Store
from bench.tables.record import sum_resources

ROOT = Path(__file__).parents[2]
STAGE = Trials(MICRO.world, (1,), MICRO.band)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store with a stage whose first attempt was killed."""
    store = Store(tmp_path_factory.mktemp("built"))
    Journal(store.root, STAGE).start("killed")
    build(STAGE, store)
    return store


def test_a_manifest_says_code_packages_machine_attempts_seconds_and_memory(built):
    manifest = built.manifest(STAGE)
    assert manifest["code"]["version"]
    assert manifest["packages"]["torch"] in sys.modules["torch"].__version__
    assert manifest["python"].startswith("3.")
    assert manifest["hardware"]["name"]
    assert manifest["host"]
    attempts = manifest["measured"]["attempts"]
    assert [one["id"] for one in attempts[:-1]] == ["killed"]
    assert 0 < attempts[-1]["seconds"] <= manifest["wall_s"]
    assert 1e7 < manifest["measured"]["peak_rss_bytes"] < 1e11


def test_nothing_of_it_is_part_of_the_key(built):
    manifest = built.manifest(STAGE)
    assert manifest["key"] == STAGE.key
    assert not {"code", "packages", "hardware", "host", "measured"} & set(manifest["stage"])


def test_the_peak_of_memory_is_the_stages_own_and_not_what_the_process_once_took():
    try:
        Path("/proc/self/clear_refs").write_text("5")
        of = "stage" if "VmHWM" in Path("/proc/self/status").read_text() else "process"
    except OSError:  # as in some containers: the kernel keeps one peak for a process's whole life
        of = "process"
    first: dict[str, object] = {}
    with provenance.measuring(first, "cpu"):
        np.ones(40_000_000).sum()  # 320 MB
    second: dict[str, object] = {}
    with provenance.measuring(second, "cpu"):
        pass
    assert first["peak_rss_of"] == second["peak_rss_of"] == of
    assert first["peak_rss_bytes"] > 320e6
    assert (first["peak_rss_bytes"] - second["peak_rss_bytes"] > 250e6) == (of == "stage")


def test_the_commit_and_whether_files_differ_from_it_are_those_of_bench_and_not_of_a_checkout_around_it(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True,
                       capture_output=True)

    def code(place):
        env = {**os.environ, "PYTHONPATH": str(place)}
        said = subprocess.run([sys.executable, "-P", "-c", "import json; from bench.store import provenance; "
                               "print(json.dumps([provenance.__file__, provenance.code(), provenance.commit()]))"],
                              env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        file, found, commit = json.loads(said)
        assert file.startswith(str(place))
        return found, commit

    (tmp_path / "bench/store").mkdir(parents=True)
    for name in ("__init__", "errors", "modules", "runtime", "store/__init__", "store/provenance"):
        text = (ROOT / "bench" / f"{name}.py").read_text() if name != "__init__" else ""
        (tmp_path / "bench" / f"{name}.py").write_text(text)
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    found, commit = code(tmp_path)
    assert found["dirty"] is False
    assert commit == found["commit"] != ""
    (tmp_path / "bench/errors.py").open("a").write("\n")
    found, commit = code(tmp_path)
    assert found["dirty"] is True
    assert commit == found["commit"] + "-dirty"
    (tmp_path / "site").mkdir()
    shutil.move(tmp_path / "bench", tmp_path / "site/bench")  # as if installed inside another checkout
    found, commit = code(tmp_path / "site")
    assert (found["commit"], found["dirty"], commit) == ("", None, "")
    assert found["version"]


def test_the_ids_of_a_cluster_are_noted(monkeypatch):
    assert "slurm_job_id" not in provenance.cluster()
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert provenance.cluster() == {"slurm_job_id": "17", "slurm_restart_count": "1"}


def test_a_rows_memory_and_energy_are_noted_where_all_of_its_stages_have_them(built, tmp_path):
    measured = built.manifest(STAGE)["measured"]
    assert sum_resources(STAGE, built)["peak_rss_gb"] == round(measured["peak_rss_bytes"] / 1e9, 3)
    assert sum_resources(STAGE, built)["energy_kwh"] == ""
    older = Store(tmp_path / "older")
    older.build(STAGE, lambda out: None)  # as a version that measured nothing did
    assert set(sum_resources(STAGE, older).values()) == {""}


def test_energy_is_measured_only_where_it_is_asked_for_and_needs_codecarbon(monkeypatch):
    found: dict[str, object] = {}
    with provenance.measuring(found, "cpu"):
        pass
    assert "energy_kwh" not in found
    if importlib.util.find_spec("codecarbon") is None:
        monkeypatch.setenv(provenance.ENERGY, "FRA")
        with pytest.raises(BenchError, match=r'pip install "eeg2image-bench\[energy\]"') as raised, \
                provenance.measuring(found, "cpu"):
            pass
        assert raised.value.exit_code == ENVIRONMENT


@pytest.mark.parametrize("wanted", ["1", "FRA"])
def test_codecarbon_estimates_energy_and_of_a_named_country_co2(monkeypatch, wanted):
    pytest.importorskip("codecarbon", reason="needs codecarbon (extra energy)")
    monkeypatch.setenv(provenance.ENERGY, wanted)
    found: dict[str, object] = {}
    with provenance.measuring(found, "cpu"):
        np.linalg.svd(np.random.default_rng(0).normal(size=(600, 600)))
    assert 0 < found["energy_kwh"] < 0.01
    assert ("co2_kg" in found) == (wanted == "FRA")
    assert "codecarbon" in found["energy_by"]


@pytest.mark.parametrize("wanted", ["France", "XXX", "fra"])
def test_what_is_no_countrys_code_is_refused(wanted):
    pytest.importorskip("codecarbon", reason="needs codecarbon (extra energy)")
    with pytest.raises(BenchError, match=f"--energy {wanted}: expected the ISO code of a country"):
        provenance.check_energy(wanted)
