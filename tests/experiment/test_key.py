"""The key of a stage."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
from paper import PAPER

from bench import FULL, systems
from bench.errors import BenchError, NotHere
from bench.experiment import ablation
from bench.experiment.graph import Row, shown, stages
from bench.experiment.key import Stage, dump, load, upstream
from bench.experiment.scale import MICRO, REHEARSAL
from bench.experiment.stages import Numerics, Prepared, Trials
from bench.prior import recipe


@dataclass(frozen=True)
class Dig(Stage):
    depth: float
    note: str = field(default="", compare=False)


@dataclass(frozen=True)
class Fill(Stage):
    hole: Dig
    layers: tuple[float, ...] = ()


def test_equal_values_have_one_key_and_1_equals_1_0():
    assert Dig(1).key == Dig(1.0).key
    assert Dig(1).key != Dig(1.5).key


def test_a_field_that_is_not_compared_is_no_part_of_the_key():
    assert Dig(1, "by hand") == Dig(1, "by machine")
    assert Dig(1, "by hand").key == Dig(1, "by machine").key


def test_the_key_holds_the_upstream_stages_and_their_versions(monkeypatch):
    before = Fill(Dig(1)).key
    assert Fill(Dig(2)).key != before
    monkeypatch.setattr(Dig, "version", 2)
    assert Fill(Dig(1)).key != before


def test_the_key_names_the_kind_so_that_two_kinds_with_the_same_fields_differ():
    @dataclass(frozen=True)
    class Drill(Stage):
        depth: float
        kind_of_drill: ClassVar[str] = "hand"

    assert Drill(1).key != Dig(1).key
    assert Drill(1).kind == "drill"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_without_a_canonical_form_raises(value):
    with pytest.raises(ValueError, match="canonical"):
        _ = Dig(value).key


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, [1], print, b"x"])
def test_a_type_without_a_canonical_form_raises(value):
    with pytest.raises(TypeError, match="canonical"):
        _ = Dig(value).key


def test_upstream_finds_stages_inside_plain_values():
    fill = Fill(Dig(3), (1.0, 2.5))
    assert list(upstream(fill)) == [Dig(3)]
    assert '"layers":[1,2.5]' in fill.document
    assert replace(fill, layers=(1.0,)).key != fill.key


def every(at):
    """Every stage of every ablation of the suite at a scale."""
    found = {}
    for name in ablation.names():
        for variant in ablation.load(name).variants:
            with suppress(NotHere):
                row = Row(variant.name, 0, "real", systems.plan(variant, at.items(), at, 0))
                found |= dict.fromkeys(stages(shown(row)))
    return list(found)


@pytest.mark.parametrize("at", [MICRO, replace(REHEARSAL, prior=""), PAPER], ids=lambda at: at.name)
def test_every_stage_of_every_ablation_is_read_back_as_it_was(at):
    found = every(at)
    assert len(found) > 200
    for stage in found:
        again = load(dump(stage), stage.key)
        assert again == stage
        assert repr(again) == repr(stage)  # 1 and 1.0 are equal, and so is what is not compared


def test_a_systems_own_stages_and_frozen_parts_are_read_back_too():
    kinds = {type(stage).__module__ for stage in every(MICRO)}
    assert {"bench.systems.guided", "bench.systems.linear", "bench.systems.brain2image"} <= kinds
    for part in recipe.recipe(Numerics()).values():
        assert load(dump(part), part.key) == part


def test_where_a_file_lies_is_written_out_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trials = Trials(Prepared("mine", "ab", 4, 64, 128.0, path="data/mine"), (0,), (5, 95))
    assert load(dump(trials), trials.key).world.path == str(tmp_path / "data/mine")


def trials():
    return systems.plan(FULL, MICRO.items(), MICRO, 0).items.trials


@pytest.mark.parametrize(("old", "new", "why"), [
    ("bench.experiment.stages.Trials", "os.Trials", "no class of the suite"),
    ("bench.experiment.stages.Trials", "bench.experiment.stages.subprocess.Popen", "no class of this suite"),
    ("bench.experiment.stages.Trials", "bench.store.store.Store", "no frozen dataclass"),
    ("bench.experiment.stages.Trials", "bench.experiment.stages.replace", "no frozen dataclass"),
    ("bench.experiment.stages.Trials", "bench.execute.runner.Outcome", "no frozen dataclass"),
    ("bench.experiment.stages.Trials", "bench.experiment.variant.On", "other fields"),
    ("bench.experiment.stages.Trials", "bench..Trials", "no class of the suite"),
    ('"window"', '"door"', "other fields: door, window"),
    ('"version": 3', '"version": 2', "version 2 of Trials, and this suite has 3"),
    ('"split": "item"', '"split": "block"', "another stage than its name says"),
    ('"key": "', '"key": "0', "another stage than its name says"),
    ('"stage"', '"age"', "KeyError"),
    ("{", "", "JSONDecodeError"),
])
def test_a_request_that_was_tampered_with_is_refused_in_one_line(old, new, why):
    text = dump(trials())
    assert old in text
    with pytest.raises(BenchError) as refused:
        load(text.replace(old, new, 1), trials().key)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
    assert trials().key[:12] in str(refused.value)


def test_a_request_of_another_stage_is_refused():
    other = replace(trials(), split="block")
    with pytest.raises(BenchError, match="another stage"):
        load(dump(other), trials().key)


def test_a_value_that_has_no_plain_form_is_not_written():
    with pytest.raises(TypeError, match="request"):
        dump(Dig(1, Path("x")))
