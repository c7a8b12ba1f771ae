"""Rows in several worlds: the same rows once in each of the tiny worlds that differ in their seed."""

from __future__ import annotations

from collections.abc import Sequence

from bench.experiment.variant import On, Spec

IN_WORLD = " in world "  # in a row's name, before the seed of its world


def rows_in(worlds: Sequence[int], rows: Sequence[Spec]) -> list[On]:
    """Returns the rows in each world, named "oracle in world 11"."""
    return [On(row, f"{row.name}{IN_WORLD}{world}", world={"seed": world}) for world in worlds for row in rows]


def contrasts_in(worlds: Sequence[int], pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns the contrasts of these pairs of rows in each world."""
    return [(f"{first}{IN_WORLD}{world}", f"{second}{IN_WORLD}{world}") for world in worlds for first, second in pairs]


def split_name(name: str) -> tuple[str, str]:
    """Returns a row's name without its world, and the seed of the world as text; "" if the name states none."""
    row, _, world = name.rpartition(IN_WORLD)
    return (row, world) if row else (name, "")
