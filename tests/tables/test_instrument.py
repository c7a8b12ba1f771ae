"""The gates of the instrument: verdicts from recorded results, and what is not run."""

from __future__ import annotations

import pandas as pd
import pytest

from bench.cli import main
from bench.experiment import ablation
from bench.experiment.key import digest
from bench.experiment.worlds import IN_WORLD
from bench.scoring import schema
from bench.tables import instrument, results
from bench.tables.instrument import GATES, Gate, judge

NAME = "known_pretraining"


def record(folder, changes, spec=None):
    """Records a class_top1 for each world of the rows "none" (0.2) and of others, which differ from it by `changes`."""
    chosen, lines = ablation.load(NAME), []
    for variant in chosen.variants:
        row, _, world = variant.name.partition(" in world ")
        if row != "none" and row not in changes:
            continue
        offset = 0.001 * int(world) if row != "none" else 0
        for metric, value in {"class_top1": 0.2 + changes.get(row, 0) + offset - 0.013 * (row != "none"),
                              **({"masked_mse": 0.5 + offset, "joint_wiener_mse": 0.6} if row == "masked" else {})
                              }.items():
            about = dict.fromkeys(schema.ABOUT, "") | {"variant": variant.name, "seed": 0, "items": "real",
                                                          "spec": spec or digest(variant)}
            lines.append({"metric": metric, "key": "10 classes", "value": value, "n": 400, "extractor": "",
                          "extractor_sha256": "", "comparable": 1} | about)
    results.record(folder, NAME, pd.DataFrame(lines), pd.DataFrame())


def words(folder):
    return {each.gate.claim: each.word for each in judge(folder=folder) if each.gate.ablation == NAME}


def test_a_gate_holds_where_the_interval_over_worlds_lies_on_its_side(tmp_path):
    record(tmp_path, {"oracle": 0.3, "noise": -0.1, "masked": 0.0})
    assert set(words(tmp_path).values()) == {"pass"}
    oracle = judge(folder=tmp_path)[0]
    assert oracle.mean == pytest.approx(0.3)
    assert oracle.worlds == 5
    half = 2.776 * (0.001**2 * 2.5) ** 0.5 / 5**0.5  # Student's t with 4 degrees of freedom
    assert (oracle.low, oracle.high) == pytest.approx((0.3 - half, 0.3 + half), abs=1e-5)


def test_an_instrument_that_finds_something_in_noise_or_misses_an_oracle_fails(tmp_path):
    record(tmp_path, {"oracle": -0.01, "noise": 0.05, "masked": 0.0})
    found = words(tmp_path)
    assert found["an oracle start is better than none"] == "FAIL"
    assert found["pre-training on noise is not better than none"] == "FAIL"
    assert found["masked error is below linear prediction's"] == "pass"


def test_rows_that_were_not_run_and_results_of_other_settings_are_no_pass(tmp_path):
    assert set(words(tmp_path).values()) == {"not run"}
    record(tmp_path, {"oracle": 0.3})
    assert words(tmp_path)["pre-training on noise is not better than none"] == "not run"
    record(tmp_path / "other", {"oracle": 0.3, "noise": 0.0, "masked": 0.0}, spec="0123456789ab")
    assert {each.reason for each in judge(folder=tmp_path / "other")} == {"other settings", "no results"}


def test_every_gate_names_rows_of_its_ablation_in_at_least_three_worlds():
    for gate in GATES:
        names = [variant.name for variant in ablation.load(gate.ablation).variants]
        for side in (gate.first, gate.second):
            if isinstance(side, tuple):
                assert sum(name.startswith(side[0] + IN_WORLD) for name in names) >= instrument.LEAST
    assert {gate.expected for gate in GATES} <= {"above", "below", "apart", "not above"}


@pytest.mark.parametrize(("expected", "word"), [("above", "pass"), ("below", "FAIL"), ("apart", "pass"),
                                                ("not above", "FAIL")])
def test_each_expectation_is_judged_by_the_interval(tmp_path, expected, word):
    record(tmp_path, {"oracle": 0.3})
    gate = Gate(NAME, "x", ("oracle", "class_top1"), ("none", "class_top1"), expected)
    assert judge([gate], tmp_path)[0].word == word
    below = Gate(NAME, "x", ("none", "class_top1"), 0.95, "below")
    assert judge([below], tmp_path)[0].word == "pass"


def test_the_command_prints_the_table_and_how_to_run_what_is_missing(tmp_path, capsys):
    record(tmp_path / "tiny", {"oracle": 0.3, "noise": -0.1, "masked": 0.0})
    assert main(["doctor", "--instrument", str(tmp_path / "tiny")]) == 1
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert f"3 of {len(GATES)} gates hold; 0 fail; {len(GATES) - 3} not run." in printed
    assert "bench run --ablation known_clip --seeds 0,1,2 --results" in " ".join(printed.split())
