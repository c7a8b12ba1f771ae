"""The request: seeds, subjects and rows as they come from a command line, a notebook, numpy and pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import bench
from bench import FULL, On
from bench.cli import main
from bench.errors import USAGE, BenchError
from bench.setup.request import SEEDS, Request

SHUFFLED = pd.Series([3, 1, 2], [2, 0, 1])


def test_the_nulls_are_fulls_or_each_rows():
    assert Request().nulls == "full"
    with pytest.raises(BenchError, match="--nulls all: expected full or each"):
        Request(nulls="all")


def test_larger_seeds_would_repeat_the_numbers_of_smaller_ones():
    first, other = (torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in (1, SEEDS + 1))
    assert torch.equal(first, other)


@pytest.mark.parametrize("seed", [2**32, 2**63, 2**64, 10**30])
def test_a_seed_that_generators_cannot_tell_apart_is_refused_when_it_is_planned(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in ("plan", "run"):
        assert main([command, "--ablation", "clip", "--scale", "micro", "--seeds", f"0,{seed}"]) == USAGE
        message = capsys.readouterr().err.strip()
        assert message.startswith(f"bench: --seeds 0,{seed}: ")
        assert "\n" not in message
    for entry in (bench.plan, bench.run):
        with pytest.raises(BenchError, match="expected integers from 0 to 4294967295") as caught:
            entry("clip", scale="micro", seeds=[seed])
        assert caught.value.exit_code == USAGE
    assert list(tmp_path.iterdir()) == []
    assert Request(seeds=(SEEDS - 1,)).seeds == (SEEDS - 1,)


@pytest.mark.parametrize(("seeds", "said"), [
    ([-1], "--seeds -1: expected integers from 0 on"), ([], "expected integers from 0 on"), (3, "a int; expected a "),
    ([0.0], "--seeds: 0.0 is a float; expected integers"), ([True], "--seeds: True is a bool"),
    ("0", "a str; expected"), (b"12", "a bytes; expected"),
    (np.array(3), "--seeds 3 is a ndarray; expected a sequence"),
    (pd.DataFrame({"a": [1]}), "is a DataFrame; expected a sequence"),
    ({0, 1}, "a set; expected a sequence"), (np.array([0.5]), "is a float64; expected integers"),
    (pd.Series(["1"]), "'1' is a str; expected integers"), ([0, np.int64(0)], "a seed is repeated")])
def test_other_seeds_are_refused_in_one_line(seeds, said):
    with pytest.raises(BenchError) as caught:
        bench.plan("clip", scale="micro", seeds=seeds)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_too_long_to_read_is_refused_in_one_line(capsys):
    for option in ("--seeds", "--subjects"):
        assert main(["plan", "--ablation", "clip", "--scale", "micro", option, "1" * 5000]) == USAGE
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_request_chooses_whether_seeds_share_a_pretraining(tmp_path):
    chosen = {choice: bench.plan("clip", variants=["Full"], seeds=[0, 1], pretrain_seeds=choice, store=tmp_path / "no")
              for choice in ("", "one", "each")}
    built = {choice: planned.stages.set_index("kind").loc["pretrain", "rows"] for choice, planned in chosen.items()}
    assert built == {"": 2, "one": 1, "each": 2}
    assert chosen["one"].plan.scale.pretrain_seeds == "one"
    with pytest.raises(BenchError, match=r"^--pretrain-seeds 1: expected each or one$"):
        Request("clip", pretrain_seeds="1")


@pytest.mark.parametrize("values", [np.array([3, 1, 2]), np.array([3, 1, 2], np.uint8), SHUFFLED, pd.Index([3, 1, 2]),
                                    [np.int64(3), 1, 2], pd.array([3, 1, 2], dtype="Int64")])
def test_seeds_and_subjects_may_be_numpy_or_pandas_in_the_order_given(values, tmp_path):
    request = Request("clip", seeds=values, subjects=values)
    assert request == Request("clip", seeds=(3, 1, 2), subjects=(3, 1, 2))
    assert {type(seed) for seed in (*request.seeds, *request.subjects)} == {int}
    planned = bench.plan("clip", scale="micro", seeds=values, store=tmp_path / "none")
    assert list(planned.rows["seed"].drop_duplicates()) == [3, 1, 2]
    assert planned.rows.equals(bench.plan("clip", scale="micro", seeds=[3, 1, 2], store=tmp_path / "none").rows)


def test_names_of_rows_and_of_metrics_may_be_pandas_objects(tmp_path):
    assert Request(variants=pd.Series(["5", "Full"], [1, 0])).variants == ("5", "Full")
    with pytest.raises(BenchError, match="--variants: 5 is a int; expected the names of rows"):
        Request(variants=[5])
    with pytest.raises(BenchError, match="a str; expected a sequence, such as a list"):
        bench.plan("clip", variants="Full")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.save(tmp_path / "a.npy", images)
    for names in (pd.Series(["psnr", "ssim"], [7, 3]), np.array(["psnr", "ssim"]), pd.Index(["psnr", "ssim"])):
        scored = bench.score(tmp_path / "a.npy", tmp_path / "a.npy", judge="none", metrics=names)
        assert set(scored.summary["metric"]) == {"psnr", "ssim"}
    with pytest.raises(BenchError, match="--metrics psnr is a str; expected a sequence"):
        bench.score(tmp_path / "a.npy", tmp_path / "a.npy", judge="none", metrics="psnr")


@pytest.mark.parametrize("seed", [-1, 0.5, "1", True])
def test_the_seed_of_a_rows_world_is_checked_where_the_row_is_written(seed):
    with pytest.raises(BenchError, match="variant 'x': world's seed must be an integer from 0 on"):
        On(FULL, "x", world={"seed": seed})
