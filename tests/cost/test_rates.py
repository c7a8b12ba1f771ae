"""Measured rates: read from the self-test's lines, used by prices, refused where they do not fit."""

from __future__ import annotations

import json

import pytest

from bench import FULL
from bench.cli import main
from bench.cost import rates
from bench.errors import BenchError
from bench.experiment.scale import PAPER
from bench.runtime import GPUS
from bench.setup.places import load_scale
from bench.systems import plan

LINES = ({"check": "device", "ok": True, "sizes": "real", "gpu": "h200", "name": "NVIDIA H200"},
         {"check": "matrix products", "ok": True, "rates": {"matmul": 0.7}},
         {"check": "pretrain", "ok": True, "rates": {"pretrain": 0.2}},
         {"check": "finetune", "ok": False, "reason": "out of memory", "rates": {"finetune": 0.9}})


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_price_uses_measured_rates_and_assumes_the_others(tmp_path):
    scale = load_scale(PAPER.name)
    stage = plan(FULL, scale.items(), scale, 0).pictures.model
    measured = rates.read(write(tmp_path / "selftest.jsonl", *LINES), "h200")
    assert (measured.matmul, measured.kinds["pretrain"]) == (rates.Rate(0.7, "measured"), rates.Rate(0.2, "measured"))
    assert measured.kinds["finetune"] == rates.RATES["finetune"]  # its check failed
    flops, before = 10**18, rates.hours(stage.start, 10**18, GPUS["h200"])
    with rates.using(measured):
        after = rates.hours(stage.start, flops, GPUS["h200"])
        assert rates.rate(stage).source == "goal"
    assert after / before == pytest.approx(0.8 * 0.4 / (0.7 * 0.2))
    assert rates.hours(stage.start, flops, GPUS["h200"]) == before
    assert rates.current() == rates.ASSUMED


@pytest.mark.parametrize(("lines", "message"), [
    (({**LINES[0], "sizes": "small"}, LINES[1]), "no rate measured on a GPU at real sizes; measure with: bench"),
    (LINES[:1], "no rate measured on a GPU at real sizes"),
    (({**LINES[0], "gpu": "h100"}, LINES[1]), "measured on h100, not on h200; use it with --gpu h100"),
    (({**LINES[0], "gpu": "", "name": "Tesla T4"}, LINES[1]), "measured on Tesla T4, not on h200"),
    ((LINES[0], {"ok": True, "rates": {"matmul": 1.2}}), "the share of matmul is 1.2; expected more than 0"),
    ((["a list"],), "expected the JSON lines of bench selftest, found"),
])
def test_a_file_that_has_no_rates_for_this_gpu_is_refused(tmp_path, lines, message):
    with pytest.raises(BenchError, match=message):
        rates.read(write(tmp_path / "selftest.jsonl", *lines), "h200")
    with pytest.raises(BenchError, match="No such file"):
        rates.read(tmp_path / "absent.jsonl", "h200")


@pytest.mark.parametrize(("name", "key"), [("NVIDIA H200", "h200"), ("NVIDIA H100 80GB HBM3", "h100"),
                                           ("NVIDIA H100 PCIe", ""), ("NVIDIA A100-SXM4-80GB", "a100"),
                                           ("NVIDIA GeForce RTX 4090", "4090"), ("Tesla T4", "")])
def test_a_gpu_is_found_by_the_name_that_its_driver_gives(name, key):
    assert rates.find_gpu(name) == key


def test_measured_rates_need_a_kind_of_gpu(capsys, tmp_path):
    assert main(["plan", "--ablation", "mask_ratio", "--rates", "selftest.jsonl"]) == 2
    assert "--rates selftest.jsonl needs --gpu NAME" in capsys.readouterr().err
