"""The main job at scale micro, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from bench.cli import main
from bench.files import sha256
from bench.setup.request import Request
from bench.setup.rows import plan_request
from bench.store.store import Store

TWO = """
from ablations.table2 import full, row3
variants = [full, row3]
contrasts = [("Full", "3")]
"""
OWN = """
from torch import nn
from ablations.table2 import row3
from bench import replace
from layers import squash


class Encoder(nn.Module):
    def __init__(self, channels, times, width, depth, heads):
        super().__init__()
        self.mix = nn.Conv1d(channels, width, 8, stride=8)

    def forward(self, eeg):  # [B, C, T] -> [B, L, width]
        return squash(self.mix(eeg)).transpose(1, 2)


variants = [row3, replace(row3, name="mine", encoder=__file__)]
"""


def run(*arguments: str, store="store", results="results") -> int:
    return main(["run", "--scale", "micro", "--store", str(store), "--results", str(results), *arguments])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder in which two rows of Table 2 were run, with two workers."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "two.py").write_text(TWO)
    here = os.getcwd()
    os.chdir(folder)
    try:
        assert run("--ablation", "two.py", "--workers", "2") == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def there(done, monkeypatch):
    monkeypatch.chdir(done)
    return done


def csv(folder) -> bytes:
    return (folder / "micro" / "two.csv").read_bytes()


def test_a_run_ends_with_numbers_items_a_table_and_a_contact_sheet(there, capsys):
    frame = pd.read_csv(there / "results/micro/two.csv", dtype={"variant": str})
    for variant, items in (("Full", "real"), ("3", "real"), ("Full", "shuffled"), ("class name as text", "captions")):
        row = frame[(frame["variant"] == variant) & (frame["items"] == items)]
        assert {"top1_label", "top1_judge", "nway_label", "nway_judge", "fid", "is", "psnr", "ssim",
                "judge_distance"} <= set(row["metric"])
    assert {"masked_mse", "mean_mse", "interpolation_mse", "wiener_mse"} <= set(
        frame.loc[frame["variant"] == "Full", "metric"])
    assert "readout_accuracy" in set(frame["metric"])
    assert (there / "results/micro/two.png").read_bytes().startswith(b"\x89PNG")
    assert main(["table", "two.py", "--scale", "micro"]) == 0
    table = capsys.readouterr().out
    assert "Full, shuffled EEG (null)" in table
    assert "Full - 3" in table


def test_a_second_run_starts_no_worker_reads_each_file_once_and_changes_no_byte(there, capsys, monkeypatch):
    before, read = csv(there / "results"), []
    monkeypatch.setattr("bench.store.store.sha256", lambda path: read.append(path) or sha256(path))
    monkeypatch.setattr("bench.execute.pool.Pool.__enter__", lambda pool: pytest.fail("workers were started"))
    assert run("--ablation", "two.py") == 0
    assert len(read) == len(set(read)) > 0
    assert "built 0 stages" in capsys.readouterr().out
    assert csv(there / "results") == before


def test_another_store_and_another_number_of_workers_give_the_same_bytes_and_another_seed_does_not(there, tmp_path):
    assert run("--ablation", "two.py", "--workers", "1", store=tmp_path / "s", results=tmp_path / "r") == 0
    assert csv(tmp_path / "r") == csv(there / "results")
    assert run("--ablation", "two.py", "--seeds", "1", "--variants", "3", results=tmp_path / "other") == 0
    first, other = (pd.read_csv(folder / "micro/two.csv", dtype={"variant": str}) for folder in (
        there / "results", tmp_path / "other"))
    first, other = (frame[(frame["variant"] == "3") & (frame["metric"] == "judge_distance")]["value"].item()
                    for frame in (first, other))
    assert first != other


def test_a_damaged_stage_is_built_again_with_one_warning(there, capsys, tmp_path):
    store = Store(there / "store")
    score = next(row.stage for row in planned_rows("two.py") if row.variant == "3")
    path = store.path(score) / "metrics.csv"
    path.write_text(path.read_text().replace("0", "1"))
    before = csv(there / "results")
    capsys.readouterr()
    assert run("--ablation", "two.py") == 0
    err = capsys.readouterr().err
    assert err.count("warning:") == 1
    assert "score" in err
    assert "damaged" in err
    assert csv(there / "results") == before


def planned_rows(ablation: str):
    return plan_request(Request(ablation=ablation, scale="micro")).rows


def test_running_one_variant_keeps_the_others_rows(there, tmp_path):
    results = tmp_path / "r"
    assert run("--ablation", "two.py", "--variants", "Full", results=results) == 0
    assert run("--ablation", "two.py", "--variants", "3", results=results) == 0
    assert csv(results) == csv(there / "results")


def test_a_results_csv_that_was_edited_by_hand_is_refused_and_left_as_it_is(there, capsys, tmp_path):
    results = tmp_path / "r"
    assert run("--ablation", "two.py", results=results) == 0
    path = results / "micro" / "two.csv"
    edited = path.read_text().replace("top1_label", "top1_labels")
    path.write_text(edited)
    assert run("--ablation", "two.py", results=results) == 2
    assert "was changed since bench wrote it" in capsys.readouterr().err
    assert path.read_text() == edited


def test_a_users_encoder_runs_and_editing_a_module_that_it_imports_changes_its_own_row_only(there, capsys, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(OWN)
    (tmp_path / "layers.py").write_text("def squash(x):\n    return x.tanh()\n")
    assert run("--ablation", str(mine)) == 0
    before = {row.variant: row.stage for row in planned_rows(str(mine)) if row.items == "real"}
    (tmp_path / "layers.py").write_text("def squash(x):\n    return x.relu()\n")
    after = {row.variant: row.stage for row in planned_rows(str(mine)) if row.items == "real"}
    assert before["3"] == after["3"]
    assert before["mine"] != after["mine"]
    capsys.readouterr()
    assert run("--ablation", str(mine)) == 0
    assert "built 4 stages" in capsys.readouterr().out


def test_a_row_that_fails_does_not_lose_the_others(there, capsys, tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(OWN.replace("from layers import squash", "def squash(x):\n    raise ArithmeticError('no roots')\n"))
    assert run("--ablation", str(bad), results=tmp_path / "r") == 1
    captured = capsys.readouterr()
    assert "failed: mine (seed 0, real): finetune: ArithmeticError: no roots (log: " in captured.err
    rows = pd.read_csv(tmp_path / "r/micro/bad.csv", dtype={"variant": str})
    assert "3" in set(rows["variant"])
    failed = rows[rows["variant"] == "mine"]
    assert failed["metric"].tolist() == ["failed"]
    assert failed["value"].isna().all()
    assert failed["failed"].item() == "finetune: ArithmeticError: no roots"
    assert "mine" in captured.out
    assert ("Failed: mine, seed 0: finetune: ArithmeticError: no roots; mine, untrained encoder, probe, seed 0: "
            "readout: ArithmeticError: no roots.") in " ".join(captured.out.split())


def test_ctrl_c_ends_with_130_keeps_what_is_complete_and_leaves_no_attempt_behind(there, tmp_path):
    program = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # may come ignored
               "from bench.cli import main; sys.exit(main(sys.argv[1:]))")
    command = [sys.executable, "-c", program, "run", "--ablation", "two.py", "--scale", "micro", "--store",
               str(tmp_path / "s"), "--results", str(tmp_path / "r")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    for line in process.stdout:
        if line.startswith("[1/"):
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines() == [
        "bench: interrupted; complete stages are kept, and the same command resumes"]
    store = Store(tmp_path / "s")
    assert list((store.root / "objects").glob("*/*"))
    assert not list((tmp_path / "r").glob("*/*.new"))
    assert not list((store.root / "work").iterdir())
    assert not list((store.root / "leases").iterdir())
    assert main(command[3:]) == 0
    assert csv(tmp_path / "r") == csv(there / "results")
    assert not list((store.root / "work").iterdir())
