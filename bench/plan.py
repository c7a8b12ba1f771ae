"""From a table's rows to stages: what would run, what is stored, counted by kind."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bench.key import Stage, kind, upstream
from bench.scale import Scale
from bench.stages import Finetune, Generate, Items, Pretrain, Readout, Score
from bench.systems import captions
from bench.variant import FULL, Variant


def plan(system: Any, items: Items, scale: Scale, seed: int) -> Score:
    """The Score of a system's pictures for those items; `system` is a spec such as a Variant."""
    return importlib.import_module(f"bench.systems.{system.system}").plan(system, items, scale, seed)


@dataclass(frozen=True)
class Row:
    """One line of a table at one seed: `stage` is a Score, or the Readout that stands in the caption.

    items: "real", or what the row is instead ("shuffled", "captions", "readout"; "prior" for a frozen part).
    """

    variant: str
    seed: int
    items: str
    stage: Stage


def shown(row: Row) -> list[Stage]:
    """What a report reads of a row: its scores, its pictures, and what its model says about its training."""
    found = [row.stage]
    if isinstance(row.stage, Score):
        found.append(row.stage.pictures)
        if isinstance(row.stage.pictures, Generate) and isinstance(row.stage.pictures.model, Finetune):
            found.append(row.stage.pictures.model)
            if isinstance(row.stage.pictures.model.start, Pretrain):
                found.append(row.stage.pictures.model.start)
    return found


def rows(variants: Iterable[Variant], scale: Scale, seeds: Iterable[int]) -> list[Row]:
    """The rows of a table and what stands beside every table: Full's shuffled-EEG null, the ceiling, the read-out."""
    items, variants, seeds = scale.items(), list(variants), list(seeds)
    table = [Row(v.name, seed, "real", plan(v, items, scale, seed)) for seed in seeds for v in variants]
    controls = [row for seed in seeds for row in (
        Row(FULL.name, seed, "shuffled", plan(FULL, replace(items, eeg="shuffled"), scale, seed)),
        Row(captions.Spec().name, seed, "captions", plan(captions.Spec(), items, scale, seed)))]
    readout = [Row("linear read-out", seeds[0], "readout", Readout(replace(items, part="train"), items))]
    return table + controls + readout


def needs(stage: Stage) -> Iterator[Stage]:
    """What building a stage reads: the stages inside it, and through a Finetune, which holds only what changed, also
    what that began from."""
    for above in upstream(stage):
        yield above
        if isinstance(above, Finetune):
            yield from upstream(above)


def stages(roots: Iterable[Stage], stored: Callable[[Stage], bool] = lambda stage: False) -> list[Stage]:
    """Every stage that must be built for `roots`, upstream first, each once; a stored one hides what lies above it."""
    found: dict[Stage, None] = {}

    def visit(stage: Stage) -> None:
        if stage not in found and not stored(stage):
            for above in needs(stage):
                visit(above)
            found[stage] = None

    for root in roots:
        visit(root)
    return list(found)


def counts(table: Iterable[Row], stored: Callable[[Stage], bool]) -> list[tuple[str, int, int, int]]:
    """(kind, stages of the rows, stages that only the controls add, how many of both are stored), in building order."""
    table = list(table)
    own = stages(row.stage for row in table if row.items == "real")
    every = stages(row.stage for row in table)
    extra = [stage for stage in every if stage not in set(own)]
    of_rows, of_controls = Counter(map(kind, own)), Counter(map(kind, extra))
    there = Counter(kind(stage) for stage in every if stored(stage))
    order = ("trials", "corpus", "reference", "targets", "pretrain", "finetune", "generate", "score", "readout")
    kinds = sorted({*of_rows, *of_controls}, key=lambda k: order.index(k) if k in order else len(order))
    return [(k, of_rows[k], of_controls[k], there[k]) for k in kinds]
