"""The key of a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest

from bench.key import Stage, document, key, kind, upstream


@dataclass(frozen=True)
class Dig(Stage):
    depth: float
    note: str = field(default="", compare=False)


@dataclass(frozen=True)
class Fill(Stage):
    hole: Dig
    layers: tuple[float, ...] = ()


def test_equal_values_have_one_key_and_1_equals_1_0():
    assert key(Dig(1)) == key(Dig(1.0))
    assert key(Dig(1)) != key(Dig(1.5))


def test_a_field_that_is_not_compared_is_no_part_of_the_key():
    assert Dig(1, "by hand") == Dig(1, "by machine")
    assert key(Dig(1, "by hand")) == key(Dig(1, "by machine"))


def test_the_key_holds_the_upstream_stages_and_their_versions(monkeypatch):
    before = key(Fill(Dig(1)))
    assert key(Fill(Dig(2))) != before
    monkeypatch.setattr(Dig, "version", 2)
    assert key(Fill(Dig(1))) != before


def test_the_key_names_the_kind_so_that_two_kinds_with_the_same_fields_differ():
    @dataclass(frozen=True)
    class Drill(Stage):
        depth: float
        kind_of_drill: ClassVar[str] = "hand"

    assert key(Drill(1)) != key(Dig(1))
    assert kind(Drill(1)) == "drill"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_without_a_canonical_form_raises(value):
    with pytest.raises(ValueError, match="canonical"):
        key(Dig(value))


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, [1], print, b"x"])
def test_a_type_without_a_canonical_form_raises(value):
    with pytest.raises(TypeError, match="canonical"):
        key(Dig(value))


def test_upstream_finds_stages_inside_plain_values():
    fill = Fill(Dig(3), (1.0, 2.5))
    assert list(upstream(fill)) == [Dig(3)]
    assert '"layers":[1,2.5]' in document(fill)
    assert key(replace(fill, layers=(1.0,))) != key(fill)
