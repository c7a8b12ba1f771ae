"""The key of a stage."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
from paper import PAPER, REHEARSAL

from bench import FULL, systems
from bench.errors import BenchError, NotAvailable
from bench.experiment import ablation
from bench.experiment.graph import Row, report_stages, stages
from bench.experiment.key import Stage, dump, load, upstream
from bench.experiment.scale import MICRO
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
            with suppress(NotAvailable):
                row = Row(variant.name, 0, "real", systems.plan(variant, at.items(), at, 0))
                found |= dict.fromkeys(stages(report_stages(row)))
    return list(found)


@pytest.mark.parametrize("at", [MICRO, REHEARSAL, PAPER], ids=lambda at: at.name)
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
    ("bench.experiment.stages.Trials", "os.Trials", "is not a class of the suite or of an installed system"),
    ("bench.experiment.stages.Trials", "bench.experiment.stages.subprocess.Popen", "cannot be imported"),
    ("bench.experiment.stages.Trials", "bench.store.store.Store", "is not a frozen dataclass"),
    ("bench.experiment.stages.Trials", "bench.experiment.stages.replace", "is not a frozen dataclass"),
    ("bench.experiment.stages.Trials", "bench.execute.runner.Outcome", "is not a frozen dataclass"),
    ("bench.experiment.stages.Trials", "bench.experiment.variant.On", "other fields"),
    ("bench.experiment.stages.Trials", "bench..Trials", "is not a class of the suite or of an installed system"),
    ('"window"', '"door"', "other fields: door, window"),
    ('"version": 3', '"version": 2', "version 2 of Trials, but this suite has version 3"),
    ('"split": "item"', '"split": "block"', "another stage than its name says"),
    ('"key": "', '"key": "0', "another stage than its name says"),
    ('"stage"', '"age"', "KeyError"),
    ("{", "", "JSONDecodeError"),
    ('"class": "bench.experiment.stages.Trials"', '"class": 5', "AttributeError"),
    ('"fields": {', '"fields": [7], "left": {', "TypeError"),
    ('"window": "stimulus"', '"window": NaN', "has no canonical form"),
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


OLD_PATHS = {  # classes in requests of the version before bench/ had rooms -> now
    "bench.data.prepared.Prepared": "bench.experiment.stages.Prepared",
    "bench.data.prepared.Shards": "bench.experiment.stages.Shards",
    "bench.encoders.": "bench.experiment.encoders.",
    "bench.prior_parts.": "bench.prior.recipe.",
    "bench.stages.": "bench.experiment.stages.",
}
OLD_CORPUS = {"key": "b49f952df48bf9878b6ad23b77a34b14b0525c9ccd50b1a8d04a6560f5ce8460", "stage": {  # as it was written
    "class": "bench.stages.Corpus", "version": 1, "fields": {"band": [5.0, 95.0], "world": {
        "class": "bench.data.prepared.Shards", "fields": {"name": "moabb_v046", "sha256": "", "n_chans": 128,
                                                          "n_times": 512, "path": ""}}}}}


@pytest.mark.parametrize("at", [MICRO, PAPER], ids=lambda at: at.name)
def test_a_request_of_the_older_version_is_read_as_the_same_stage(at):
    written = set()
    for stage in [*every(at), *recipe.recipe(Numerics()).values()]:
        text = dump(stage)
        for old, new in OLD_PATHS.items():
            text = text.replace(f'"class": "{new}', f'"class": "{old}')
        written.update(re.findall(r'"class": "(.+)"', text))
        again = load(text, stage.key)
        assert again == stage
        assert repr(again) == repr(stage)
    assert {"bench.stages.Trials", "bench.encoders.Braindecode", "bench.prior_parts.Judge",
            "bench.systems.guided.GuidedEncoder"} <= written
    assert not [name for name in written if name.startswith("bench.experiment.")]
    if at is PAPER:
        assert {"bench.data.prepared.Prepared", "bench.data.prepared.Shards"} <= written


def test_a_request_that_the_older_version_wrote_is_refused_for_its_missing_field_and_read_with_it():
    with pytest.raises(BenchError, match=r"b49f952df48b cannot be read \(.*Corpus has other fields: channels\); write"):
        load(json.dumps(OLD_CORPUS), OLD_CORPUS["key"])
    corpus = PAPER.windows()
    stage = OLD_CORPUS["stage"] | {"fields": OLD_CORPUS["stage"]["fields"] | {"channels": None}}
    assert load(json.dumps({"key": corpus.key, "stage": stage}), corpus.key) == corpus


def test_queued_jobs_of_the_older_version_find_the_worker_and_the_pickled_job():
    ran = subprocess.run([sys.executable, "-P", "-m", "bench.worker", "--help"], capture_output=True, text=True,
                         check=True)
    assert ran.stdout.startswith("usage: ")
    assert "--store" in ran.stdout
    code = ("import pickle, bench; job = pickle.loads(b'cbench.engines.slurm\\nJob\\n.'); import bench.engines.slurm; "
            "import bench.execute.engines.slurm as now; assert job is bench.engines.slurm.Job is now.Job; "
            "assert bench.engines.slurm is now; print(job.__module__)")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "bench.execute.engines.slurm"


def test_a_value_that_has_no_plain_form_is_not_written():
    with pytest.raises(TypeError, match="request"):
        dump(Dig(1, Path("x")))
