"""The graph of stages: what a row needs, in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

from bench.experiment.key import Stage, upstream
from bench.experiment.kinds import kind_of
from bench.experiment.stages import Finetune, Items, Readout, Retrieval, Score, Scored


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
    return [stage for stage in stages([made]) if stage != made and kind_of(stage).trains]


def peeked(score: Scored) -> list[Stage]:
    """The trainings behind what a row made that were given trials of the part that it is tested on."""
    def tested(stage: Stage) -> bool:
        return any(isinstance(value, Items) and value.part == score.items.part
                   for value in (getattr(stage, f.name) for f in fields(stage)))  # type: ignore[arg-type]

    return [stage for stage in trained(score) if not isinstance(stage, Readout) and tested(stage)]


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
    of_rows, of_controls = (Counter(stage.kind for stage in some) for some in (own, extra))
    there = Counter(stage.kind for stage in every if stored(stage))
    places = {stage.kind: kind_of(stage).place for stage in (*own, *extra)}
    return [(name, of_rows[name], of_controls[name], there[name]) for name in sorted(places, key=places.__getitem__)]
