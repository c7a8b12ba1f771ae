"""The command line: one clear line for what is wrong, and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench import runtime
from bench.cli import main


def said(capsys) -> str:
    return capsys.readouterr().err.strip()


@pytest.mark.parametrize(("arguments", "code", "line"), [
    (["run", "--ablation", "mask"], 2, "no ablation 'mask'; there are:"),
    (["run", "--ablation", "mask_ratio", "--variants", "99"], 2, "no variant '99' in mask_ratio; there are: Full, 5"),
    (["run", "--ablation", "mask_ratio", "--scale", "huge"], 2, "no scale 'huge'; there are: tiny, micro"),
    (["run", "--ablation", "mask_ratio", "--device", "tpu"], 2, "no device 'tpu'; there are: auto, cpu, cuda"),
    (["run", "--ablation", "mask_ratio", "--seeds", "one"], 2, "--seeds one: whole numbers"),
    (["run", "--ablation", "mask_ratio", "--seeds", "1,1"], 2, "a seed stands there twice"),
    (["run", "--ablation", "mask_ratio", "--workers", "0"], 2, "--workers 0: at least 1"),
    (["run", "--ablation", "mask_ratio", "--workers", "two"], 2, "argument --workers: invalid int value: 'two'"),
    (["run"], 2, "the following arguments are required: --ablation"),
    (["fly"], 2, "invalid choice: 'fly'"),
    (["table", "mask_ratio", "--results", "nowhere"], 2, "no results of 'mask_ratio'"),
])
def test_bad_input_gets_one_line_and_its_exit_code(capsys, tmp_path, monkeypatch, arguments, code, line):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    text = said(capsys)
    assert line in text
    assert len(text.splitlines()) == 1
    assert not list(tmp_path.rglob("*.csv"))


def test_cuda_where_there_is_none_is_refused_with_exit_code_3(capsys, monkeypatch, tmp_path):

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "_gpus", lambda: 0)
    assert main(["run", "--ablation", "mask_ratio", "--device", "cuda"]) == 3
    assert "the driver shows no GPU" in said(capsys)


def test_a_store_that_is_a_file_is_refused_with_exit_code_3(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").write_text("")
    assert main(["run", "--ablation", "mask_ratio", "--scale", "micro", "--store", "store"]) == 3
    assert "store store: a folder that can be written is needed" in said(capsys)


def test_a_frozen_part_that_is_not_there_is_said_before_any_work_with_exit_code_3(capsys, tmp_path, monkeypatch):
    from bench.experiment import scale

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scale, "PRIOR", tmp_path / "prior")
    assert main(["run", "--ablation", "mask_ratio"]) == 3
    assert "bench prior" in said(capsys)
    assert not (tmp_path / ".bench").exists()


def test_list_names_ablations_encoders_and_scales_for_programs_too(capsys):
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"table2", "mask_ratio", "encoder_size", "freezing", "clip", "pretraining", "figure5"} <= set(
        listed["ablations"])
    assert listed["ablations"]["mask_ratio"]["variants"] == ["Full", "5", "6", "7"]
    assert {"linear", "msm_channel", "msm_vit"} <= set(listed["encoders"])
    assert {"captions", "dreamdiffusion", "trivial"} <= set(listed["systems"])
    assert main(["list"]) == 0
    assert "variants: Full, 5, 6, 7" in capsys.readouterr().out


def test_dry_run_and_plan_count_the_stages_and_build_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--ablation", "table2"]) == 0
    planned = capsys.readouterr().out
    for line in (["pretrain", "8", "0"], ["finetune", "15", "0"], ["generate", "15", "2"], ["score", "15", "2"]):
        assert any(row.split()[:3] == line for row in planned.splitlines())
    assert main(["run", "--ablation", "table2", "--dry-run"]) == 0
    assert capsys.readouterr().out == planned
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["list"], ["plan", "--ablation", "table2"],
                                       ["table", "table2", "--results", "none"]])
def test_list_plan_and_table_import_no_torch(arguments, tmp_path):
    code = ("import sys; from bench.cli import main; main(sys.argv[1:]); "
            "sys.exit(any(name.split('.')[0] in ('torch', 'diffusers', 'timm', 'open_clip') for name in sys.modules))")
    assert subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, check=False,
                          capture_output=True).returncode == 0


def test_a_batch_that_processes_cannot_share_evenly_is_refused_before_any_work(capsys):
    assert main(["plan", "--ablation", "clip", "--processes", "5"]) == 2
    assert "a batch of 64 cannot be shared evenly; those of scale tiny are of 64 and 24" in capsys.readouterr().err


def test_a_corpus_is_chosen_where_the_scale_has_none_of_its_own(capsys):
    assert main(["plan", "--ablation", "clip", "--corpus", "moabb_all"]) == 2
    assert "--corpus moabb_all: scale tiny has a corpus of its own" in capsys.readouterr().err
