"""The command line: errors in one line, exit codes, help, version, completion, and `bench list`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import pytest

from bench import runtime
from bench.cli import COMMANDS, main, parser
from bench.experiment import ablation


def stderr(capsys) -> str:
    return capsys.readouterr().err.strip()


@pytest.mark.parametrize(("arguments", "code", "line"), [
    (["run", "--ablation", "mask"], 2, "no ablation 'mask'; there are:"),
    (["run", "--ablation", "mask_ratio", "--variants", "99"], 2, "no variant '99' in mask_ratio; there are: Full, 5"),
    (["run", "--ablation", "mask_ratio", "--scale", "huge"], 2, "no scale 'huge'; there are: tiny, micro"),
    (["run", "--ablation", "mask_ratio", "--device", "tpu"], 2, "no device 'tpu'; there are: auto, cpu, cuda"),
    (["run", "--ablation", "mask_ratio", "--seeds", "one"], 2, "--seeds one: whole numbers"),
    (["run", "--ablation", "mask_ratio", "--seeds", "1,1"], 2, "a seed is repeated"),
    (["run", "--ablation", "mask_ratio", "--workers", "0"], 2, "--workers 0: expected at least 1"),
    (["run", "--ablation", "mask_ratio", "--workers", "two"], 2, "argument --workers: invalid int value: 'two'"),
    (["run"], 2, "the following arguments are required: --ablation"),
    (["fly"], 2, "invalid choice: 'fly'"),
    (["table", "mask_ratio", "--results", "nowhere"], 2, "no results of 'mask_ratio'"),
])
def test_bad_input_gets_one_line_and_its_exit_code(capsys, tmp_path, monkeypatch, arguments, code, line):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    text = stderr(capsys)
    assert line in text
    assert len(text.splitlines()) == 1
    assert not list(tmp_path.rglob("*.csv"))


def test_cuda_where_there_is_none_is_refused_with_exit_code_3(capsys, monkeypatch, tmp_path):

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "count_gpus", lambda: 0)
    assert main(["run", "--ablation", "mask_ratio", "--device", "cuda"]) == 3
    assert "the driver shows no GPU" in stderr(capsys)


def test_a_store_that_is_a_file_is_refused_with_exit_code_3(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").write_text("")
    assert main(["run", "--ablation", "mask_ratio", "--scale", "micro", "--store", "store"]) == 3
    assert "store store is not writable" in stderr(capsys)


def test_a_frozen_part_that_is_not_there_is_said_before_any_work_with_exit_code_3(capsys, tmp_path, monkeypatch):
    from bench.experiment import scale

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scale, "PRIOR", tmp_path / "prior")
    assert main(["run", "--ablation", "mask_ratio"]) == 3
    assert "bench prior" in stderr(capsys)
    assert not (tmp_path / ".bench").exists()


def test_list_as_json_has_ablations_encoders_systems_and_scales(capsys):
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"table2", "mask_ratio", "encoder_size", "freezing", "clip", "pretraining", "figure5"} <= set(
        listed["ablations"])
    assert listed["ablations"]["mask_ratio"]["variants"] == ["Full", "5", "6", "7"]
    assert {"linear", "msm_channel", "msm_vit"} <= set(listed["encoders"])
    assert {"captions", "dreamdiffusion", "trivial"} <= set(listed["systems"])


def test_list_has_one_line_for_each_ablation_within_100_columns(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    head, names = lines[0], ablation.names()
    assert head.split() == ["ablation", "variants", "question"]
    for name, line in zip(names, lines[1:1 + len(names)], strict=True):
        loaded = ablation.load(name)
        first, count, title = line.split(maxsplit=2)
        assert (first, int(count)) == (name, len(loaded.variants))
        assert loaded.title.startswith(title.removesuffix(" ..."))
        assert line.index(title) == head.index("question")
    rest = "\n".join(lines[1 + len(names):])
    assert "scales:   tiny, micro, rehearsal, paper" in rest
    assert "encoders: atm, linear," in rest


def test_list_of_one_ablation_names_what_each_variant_changes_its_contrasts_and_its_headline(capsys):
    assert main(["list", "clip"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "13     no CLIP" in lines
    assert "Full - 13 (no CLIP)" in lines
    assert "top1_label (Top-1 accuracy; target: the label)" in lines
    assert main(["list", "clip", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["ablations"]) == ["clip"]
    assert main(["list", "clop"]) == 2
    assert "no ablation 'clop'" in stderr(capsys)


def test_dry_run_and_plan_count_the_stages_and_build_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--ablation", "table2"]) == 0
    planned = capsys.readouterr().out
    for line in (["pretrain", "8", "0"], ["finetune", "15", "0"], ["generate", "15", "2"], ["score", "15", "2"]):
        assert any(row.split()[:3] == line for row in planned.splitlines())
    assert main(["run", "--ablation", "table2", "--dry-run"]) == 0
    assert capsys.readouterr().out == planned
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("arguments", "absent"), [
    (["--help"], ["numpy", "pandas", "scipy", "rich", "torch", "mne", "bench.experiment", "bench.store"]),
    (["--version"], ["numpy", "pandas", "scipy", "rich", "torch", "mne"]),
    (["list"], ["pandas", "scipy", "sklearn", "PIL", "torch", "mne", "moabb"]),
    (["list", "systems"], ["pandas", "scipy", "sklearn", "PIL", "torch", "mne", "moabb"]),
    *(([name, "--help"], ["pandas", "scipy", "torch", "mne"]) for name in ("run", "plan", "status", "table", "score")),
    (["logs"], ["pandas", "scipy", "torch", "mne"]), (["store", "ls"], ["pandas", "scipy", "torch", "mne"]),
    (["plan", "--ablation", "table2"], ["torch", "diffusers", "timm", "open_clip"]),
    (["table", "table2", "--results", "none"], ["torch", "diffusers", "timm", "open_clip"])])
def test_a_command_imports_only_what_it_needs(arguments, absent, tmp_path):
    code = ("import sys\nfrom bench.cli import main\ntry:\n    main(sys.argv[2:])\nexcept SystemExit:\n    pass\n"
            "print('imported', [name for name in sys.argv[1].split() if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, " ".join(absent), *arguments], cwd=tmp_path, check=True,
                          capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "imported []"


def test_help_lists_every_command_by_group_with_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    for group, commands in COMMANDS.items():
        begin = lines.index(f"{group}:") + 1
        assert [line.split(maxsplit=1) for line in lines[begin:begin + len(commands)]] == [
            [name, help] for name, help in commands.items()]


def parsers():
    """(name, parser) of every command and of the actions of `bench data` and `bench store`."""
    inner = [("bench", parser())]
    for name, one in inner:
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                inner += [(f"{name} {word}", below) for word, below in action.choices.items()]
    return inner[1:]


def test_every_option_has_a_help_text_that_states_its_default_once():
    every = parsers()
    assert {name.split()[1] for name, _ in every} == {name for group in COMMANDS.values() for name in group}
    for name, one in every:
        groups = {group.title for group in one._action_groups if group._group_actions}
        assert len(groups) > 2 or len(one._actions) <= 7, f"{name}: options without named groups"
        for action in one._actions:
            if not isinstance(action, argparse._SubParsersAction):
                text = one._get_formatter()._expand_help(action)
                assert len(text) > 3, (name, action.dest)
                assert text.count("(default") <= 1, (name, text)
                if action.option_strings and action.default not in (None, False, [], "", argparse.SUPPRESS):
                    assert "(default: " in text, (name, text)


def test_no_command_reads_an_option_that_it_does_not_define():
    for file in (ablation.FOLDER.parent / "bench" / "commands").glob("*.py"):
        assert "getattr(options" not in file.read_text()


@pytest.mark.parametrize("start", [["-m", "bench"], ["-c", "import sys; from bench.cli import main; sys.exit(main())"]])
def test_version_is_that_of_the_package_with_the_commit_of_a_checkout(start, tmp_path):
    from bench.store import provenance

    done = subprocess.run([sys.executable, *start, "--version"], cwd=tmp_path, check=True, capture_output=True)
    commit = provenance.commit()
    assert done.stdout.decode() == f"bench {provenance.code()['version']}" + f" (commit {commit})" * bool(commit) + "\n"


@pytest.mark.parametrize(("line", "expected", "absent"), [
    ("bench ", {"run", "list", "score", "gc"}, set()),
    ("bench l", {"list", "logs"}, {"run"}),
    ("bench run --", {"--ablation", "--seeds", "--on", "--dry-run"}, {"--gpu"}),
    ("bench run --ablation ma", {"mask_ratio", "masking"}, {"clip"}),
    ("bench list s", {"subjects", "systems", "selection", "supervision"}, {"clip"}),
    ("bench run --ablation clip --scale ", {"tiny", "micro", "rehearsal", "paper", "paper-short", "laptop"}, set()),
    ("bench score a b --device c", {"cpu", "cuda"}, {"auto"}),
    ("bench store verify --d", {"--delete-damaged"}, {"--sort"}),
])
def test_the_shell_completes_commands_options_and_values(line, expected, absent, tmp_path):
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    answer.touch()
    protocol = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
                "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = subprocess.run([sys.executable, "-c", "from bench.cli import main; main()"], env=os.environ | protocol,
                          cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    values = set(answer.read_text().split("\n"))
    assert expected <= values
    assert not absent & values


def test_a_batch_that_processes_cannot_share_evenly_is_refused_before_any_work(capsys):
    assert main(["plan", "--ablation", "clip", "--processes", "5"]) == 2
    assert "a batch of 64 cannot be shared evenly; scale tiny has batches of 64 and 24" in capsys.readouterr().err


def test_a_corpus_is_chosen_where_the_scale_has_none_of_its_own(capsys):
    assert main(["plan", "--ablation", "clip", "--corpus", "moabb_all"]) == 2
    assert "--corpus moabb_all: scale tiny has a corpus of its own" in capsys.readouterr().err
