"""From a table's rows to stages: what would run, what is stored, counted by kind."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bench.errors import NotHere
from bench.key import Stage, kind, upstream
from bench.scale import Scale
from bench.stages import Finetune, Items, Pretrain, Readout, Retrieval, Score, Scored, training
from bench.systems import captions, retrieval
from bench.variant import FULL, On, Spec


def systems() -> list[str]:
    """The systems of the suite: the files in bench/systems/."""
    return sorted(path.stem for path in (Path(__file__).parent / "systems").glob("[!_]*.py"))


def plan(system: Any, items: Items, scale: Scale, seed: int) -> Scored:
    """The Score of a system's pictures for those items, or the Retrieval of its embeddings; `system` is a spec such as
    a Variant."""
    if isinstance(system, On):
        return system.score(plan(system.of, system.items(items, scale), system.scale(scale), seed))
    return importlib.import_module(f"bench.systems.{system.system}").plan(system, items, scale, seed)


@dataclass(frozen=True)
class Row:
    """One line of a table at one seed: `stage` is a Score or a Retrieval, or a Readout, which stands in the caption.

    items: "real", or what the row is instead: a control of the EEG, "captions" (the ceiling), "readout" and "probe"
    (classifiers), "prior" for a frozen part. beside: no row of the ablation, but what stands beside every table.
    """

    variant: str
    seed: int
    items: str
    stage: Stage
    beside: bool = False


def shown(row: Row) -> list[Stage]:
    """What a report reads of a row: scores, trials, pictures, and what its model says about its training."""
    if isinstance(row.stage, Readout):
        return [row.stage, row.stage.test.trials]
    if isinstance(row.stage, Score):
        return [row.stage, row.stage.items.trials, row.stage.pictures, *trained(row.stage)]
    if isinstance(row.stage, Retrieval):
        return [row.stage, row.stage.items.trials, *trained(row.stage)]
    return [row.stage]


def output(score: Scored) -> Stage:
    """What is scored: a system's pictures, or its embeddings."""
    return score.embedding if isinstance(score, Retrieval) else score.pictures


def trained(score: Scored) -> list[Stage]:
    """The trainings behind what a row made, upstream first: DreamDiffusion's, classifiers of the EEG, and the stages
    that a system has of its own."""
    made = output(score)
    return [stage for stage in stages([made]) if stage != made and (
        isinstance(stage, (Pretrain, Finetune, Readout)) or type(stage).__module__.startswith("bench.systems."))]


def peeked(score: Scored) -> list[Stage]:
    """The trainings behind what a row made that were given trials of the part that it is tested on."""
    def tested(stage: Stage) -> bool:
        return any(isinstance(value, Items) and value.part == score.items.part
                   for value in (getattr(stage, f.name) for f in fields(stage)))  # type: ignore[arg-type]

    return [stage for stage in trained(score) if not isinstance(stage, Readout) and tested(stage)]


@dataclass(frozen=True)
class Beside:
    """What stands beside the rows of a table: Full's shuffled EEG and the class's name as text, each None where it says
    nothing. classifiers: of the EEG, and probes of pre-trained encoders. things: all pictures are of that protocol."""

    null: Spec | None
    ceiling: Spec | None
    classifiers: bool
    things: bool = False


def beside(variants: Iterable[Spec]) -> Beside:
    """What fits the rows. Of rows that are all on protocol things: the null where Full is among them, no classifiers of
    the class, since the tested ones are new. Beside retrieval alone: nothing, as no picture is drawn."""
    drawn = [v for v in variants if v.system != retrieval.Spec.system]
    things = [_on_things(v) for v in drawn]
    if not all(things):
        return Beside(On(FULL, FULL.name, eeg="shuffled"), captions.Spec(), True)
    if not drawn:
        return Beside(None, None, False)
    on = [thing for thing in things if thing]
    full = next((thing for thing in on if thing.of == FULL and thing.eeg == "real"), None)
    return Beside(full and replace(full, name=FULL.name, eeg="shuffled", checkpoint=None),
                  replace(on[0], of=(text := captions.Spec()), name=text.name, eeg="real", checkpoint=None,
                          eeg_free=False), False, True)


def _on_things(spec: Any) -> On | None:
    """What puts a row on protocol things."""
    while hasattr(spec, "of"):
        if isinstance(spec, On) and spec.protocol == "things":
            return spec
        spec = spec.of
    return None


def rows(variants: Iterable[Spec], scale: Scale, seeds: Iterable[int]) -> list[Row]:
    """The rows of a table and what stands `beside` them: Full's shuffled-EEG null, the ceiling, classifiers of the EEG,
    and a linear probe of every pre-trained encoder."""
    items, variants, seeds = scale.items(), list(variants), list(seeds)
    table = [Row(v.name, seed, getattr(v, "eeg", "real"), plan(v, items, scale, seed))
             for seed in seeds for v in variants]
    others = beside(variants)
    controls = []
    for seed in seeds:
        if others.null:
            with suppress(NotHere):  # a data set without a corpus: the table says that this was not run
                controls.append(Row(others.null.name, seed, "shuffled", plan(others.null, items, scale, seed), True))
        if others.ceiling:
            controls.append(Row(others.ceiling.name, seed, "captions", plan(others.ceiling, items, scale, seed), True))
    if not others.classifiers:
        return table + controls
    readouts = [Row(f"{classifier} classifier", seed, "readout", captions.readout(classifier, items, scale, seed), True)
                for classifier in ("ridge", "eegnet") for seed in seeds]
    return table + controls + readouts + _probes(table, items)


def _probes(table: Iterable[Row], items: Items) -> list[Row]:
    """A linear probe on these items of each pre-trained encoder that the rows use, named after the first that does."""
    found: dict[Stage, Row] = {}
    for row in table:
        finetune = getattr(getattr(row.stage, "pictures", None), "model", None)
        if isinstance(finetune, Finetune) and isinstance(finetune.start, Pretrain):
            numerics = replace(finetune.numerics, world_size=1)
            probe = Readout(training(items), items, "probe", finetune.start, 0, numerics)
            found.setdefault(probe, Row(row.variant, row.seed, "probe", probe, True))
    return list(found.values())


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
    own = stages(row.stage for row in table if not row.beside)
    every = stages(row.stage for row in table)
    of_own = set(own)
    extra = [stage for stage in every if stage not in of_own]
    of_rows, of_controls = Counter(map(kind, own)), Counter(map(kind, extra))
    there = Counter(kind(stage) for stage in every if stored(stage))
    order = ("trials", "corpus", "reference", "targets", "pretrain", "finetune", "generate", "score", "retrieval",
             "readout")
    kinds = sorted(dict.fromkeys((*of_rows, *of_controls)), key=lambda k: order.index(k) if k in order else len(order))
    return [(k, of_rows[k], of_controls[k], there[k]) for k in kinds]
