"""The ablations released_code and projector: a row's plan differs from Full's in the named fields and in no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from paper import PAPER, REHEARSAL

from bench import FULL, On, replace, systems
from bench.errors import BenchError, NotAvailable
from bench.experiment import ablation, graph
from bench.experiment.scale import MICRO, TINY
from bench.experiment.stages import Trials
from bench.experiment.variant import pretraining_settings

CHANGES = {  # row -> fields of its plan
    "tau as released": {"model.tau"},
    "MLP ratio 1": {"encoder.mlp_ratio"},
    "time condition": {"model.time_condition"},
    "h on tokens": {"model.aligned"},
    "norm2 tuned": {"model.tune"},
    "mask 0.1": {"start.mask_ratio"},
    "decoder MLP ratio 1": {"decoder.mlp_ratio"},
    "class token": {"start.class_token"},
    "mask 0.1 kept rounded": {"start.mask_ratio", "start.rounding"},
    "scaled as released": {"start.divisor", "trials.normalised"},
    "split single": {"trials.split"},
    "crops drawn anew": {"targets.views"},
    "500 epochs": {"schedule.steps"},
    "PLMS 250": {"sampling.sampler", "sampling.steps"},
    "EEG truncated": {"trials.cut"},
}
MODEL = list(CHANGES)[:9]
ROWS = {variant.name: variant for variant in ablation.load("released_code").variants}


def plan(variant, scale):
    return systems.plan(variant, scale.items(), scale, 0)


def differences(first: Any, second: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The fields in which two values differ, by their last two names, with the second value."""
    if type(first) is type(second) and is_dataclass(first):
        for field in fields(first):
            if field.compare:
                name = f"{path.rpartition('.')[2]}.{field.name}"
                yield from differences(getattr(first, field.name), getattr(second, field.name), name)
    elif first != second:
        yield path, second


@pytest.mark.parametrize("scale", [PAPER, REHEARSAL], ids=lambda scale: scale.name)
def test_a_row_differs_from_full_in_what_it_says_and_in_nothing_else(scale):
    full = plan(FULL, scale)
    changed = {name: {path for path, _ in differences(full, plan(variant, scale))} for name, variant in ROWS.items()}
    every = set[str]().union(*CHANGES.values()) - {"trials.cut"}  # Full interpolates as the released code does
    assert changed == {"Full": set(), **CHANGES, "all of them": every,
                       "model as released": set[str]().union(*(CHANGES[name] for name in MODEL))}
    for variant in ROWS.values():
        assert sum(isinstance(stage, Trials) for stage in graph.stages([plan(variant, scale)])) == 1


def test_all_of_them_has_the_values_of_its_parts():
    full, every = plan(FULL, PAPER), dict(differences(plan(FULL, PAPER), plan(ROWS["all of them"], PAPER)))
    for name in CHANGES.keys() - {"EEG truncated"}:
        for path, value in differences(full, plan(ROWS[name], PAPER)):
            assert every[path] == value
    assert every["start.divisor"] == 10
    assert every["schedule.steps"] == 32_000
    assert every["decoder.mlp_ratio"] == every["encoder.mlp_ratio"] == 1


def test_the_settings_of_pretraining_are_those_whose_rows_have_another_pretraining():
    full = plan(FULL, PAPER).pictures.model.start
    for variant in ROWS.values():
        changed = plan(variant, PAPER).pictures.model.start != full
        assert (pretraining_settings(variant) != pretraining_settings(FULL)) == changed, variant.name


@pytest.mark.parametrize("scale", [TINY, MICRO], ids=lambda scale: scale.name)
def test_what_a_world_that_is_made_up_lacks_is_refused_and_what_it_has_already_equals_full(scale):
    refused = {}
    for name, variant in ROWS.items():
        try:
            plan(variant, scale)
        except NotAvailable as error:
            refused[name] = str(error)
    assert set(refused) == {"split single", "PLMS 250", "EEG truncated", "all of them"}
    assert "the EEG of the tiny world was not" in refused["EEG truncated"]
    for name in ("MLP ratio 1", "decoder MLP ratio 1"):
        assert plan(ROWS[name], scale) == plan(FULL, scale)


def test_other_data_have_no_scaling_or_cut_as_released():
    for wrong in ({"scaling": "released"}, {"cut": "truncated"}):
        with pytest.raises(NotAvailable):
            plan(On(FULL, "things", protocol="things", **wrong), PAPER)
    with pytest.raises(NotAvailable, match="the EEG of mine was not"):
        plan(On(FULL, "other", cut="truncated"), replace(PAPER, world=replace(PAPER.world, name="mine")))
    assert plan(On(FULL, "same", scaling="normalised", cut="prepared"), PAPER) == plan(FULL, PAPER)


def test_a_row_around_another_keeps_its_scaling_and_cut():
    inner = On(FULL, "inner", band=(14.0, 70.0))
    outer = On(inner, "outer", scaling="released", cut="truncated")
    assert {path for path, _ in differences(plan(inner, PAPER), plan(outer, PAPER))} == {
        "start.divisor", "trials.normalised", "trials.cut"}


def test_the_projectors_rows_differ_in_tau_and_pretraining_alone():
    rows = {variant.name: plan(variant, TINY).pictures.model for variant in ablation.load("projector").variants}
    assert {(model.tau, model.start.kind if hasattr(model.start, "kind") else "") for model in rows.values()} == {
        (tau, start) for tau in ("text", "released", "linear") for start in ("pretrain", "")}
    for name, model in rows.items():
        assert {path for path, _ in differences(rows["Full"], model)} <= {".tau", ".start"}, name


@pytest.mark.parametrize(("changes", "message"), [
    ({"tau": "mlp"}, "tau must be one of 'text', 'released', 'linear', not 'mlp'"),
    ({"rounding": "up"}, "rounding must be one of 'masked', 'kept', not 'up'"),
    ({"class_token": 1}, "class_token must be True or False, not 1"),
    ({"decoder_mlp_ratio": 0}, "decoder_mlp_ratio must be a number above 0, or None for the scale's, not 0"),
    ({"decoder_mlp_ratio": True}, "decoder_mlp_ratio must be a number above 0"),
    ({"mask_ratio": None, "class_token": True}, "class_token=True changes pre-training only, but mask_ratio=None"),
    ({"mask_ratio": None, "rounding": "kept"}, "rounding='kept' changes pre-training only"),
    ({"mask_ratio": None, "decoder_mlp_ratio": 2.0}, "decoder_mlp_ratio=2.0 changes pre-training only"),
])
def test_a_setting_outside_its_range_is_refused(changes, message):
    with pytest.raises(BenchError, match=message):
        replace(FULL, name="wrong", **changes)


@pytest.mark.parametrize("changes", [{"scaling": "z-score"}, {"cut": "stretched"}])
def test_items_outside_their_range_are_refused(changes):
    with pytest.raises(BenchError, match="must be one of"):
        On(FULL, "wrong", **changes)


def test_a_class_token_is_refused_beside_another_encoder():
    with pytest.raises(BenchError, match="class_token=True needs the encoder msm_vit, .*, not msm_channel"):
        plan(replace(FULL, name="wrong", encoder="msm_channel", class_token=True), TINY)


def test_a_ratio_that_masks_no_token_under_its_rounding_is_refused():
    assert plan(replace(FULL, name="one", mask_ratio=0.01, rounding="kept"), PAPER).pictures.model.start.rounding
    with pytest.raises(BenchError, match="mask_ratio=0.005 masks 0 of 128 tokens"):
        plan(replace(FULL, name="none", mask_ratio=0.005), PAPER)
    with pytest.raises(BenchError, match="mask_ratio=0.995 masks 128 of 128 tokens"):
        plan(replace(FULL, name="all", mask_ratio=0.995, rounding="kept"), PAPER)
