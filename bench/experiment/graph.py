"""The graph of stages: what a row of a table needs, in building order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

from bench.experiment.key import Stage, upstream
from bench.experiment.kinds import kind_of
from bench.experiment.stages import Finetune, Items, Readout, Retrieval, Score, Scored


@dataclass(frozen=True)
class Row:
    """One row of a table at one seed.

    items   "real"; a control of the EEG; "captions" (the ceiling); "readout", "probe" (classifiers of the EEG); "prior"
            (a frozen part)
    stage   the last stage: a Score, a Retrieval, or a Readout, which is shown in the caption
    beside  the row is not part of the ablation; it is added to every table
    """

    variant: str
    seed: int
    items: str
    stage: Stage
    beside: bool = False


def report_stages(row: Row) -> list[Stage]:
    """Returns the stages whose files a report reads: scores, trials, images, and training summaries."""
    if isinstance(row.stage, Readout):
        return [row.stage, row.stage.test.trials]
    if isinstance(row.stage, Score):
        return [row.stage, row.stage.items.trials, row.stage.pictures, *trainings(row.stage)]
    if isinstance(row.stage, Retrieval):
        return [row.stage, row.stage.items.trials, *trainings(row.stage)]
    return [row.stage]


def scored_stage(score: Scored) -> Stage:
    """Returns the stage that is scored: a system's images or its embeddings."""
    return score.embedding if isinstance(score, Retrieval) else score.pictures


def trainings(score: Scored) -> list[Stage]:
    """Returns the trainings behind a score, upstream first; classifiers of the EEG are included."""
    scored = scored_stage(score)
    return [stage for stage in stages([scored]) if stage != scored and kind_of(stage).trains]


def leaky_trainings(score: Scored) -> list[Stage]:
    """Returns the trainings behind a score that get trials of the part on which it is tested."""
    def gets_tested_part(stage: Stage) -> bool:
        return any(isinstance(value, Items) and value.part == score.items.part
                   for value in (getattr(stage, f.name) for f in fields(stage)))  # type: ignore[arg-type]

    return [stage for stage in trainings(score) if not isinstance(stage, Readout) and gets_tested_part(stage)]


def needs(stage: Stage) -> Iterator[Stage]:
    """Yields the stages that are read to build a stage: its fields, and also the start of a Finetune.

    A Finetune stores only the weights that it trained; the others are read from its start.
    """
    for above in upstream(stage):
        yield above
        if isinstance(above, Finetune):
            yield from upstream(above)


def stages(roots: Iterable[Stage], stored: Callable[[Stage], bool] = lambda stage: False) -> list[Stage]:
    """Returns each stage that must be built for `roots` upstream first. Stages above a stored one are left out."""
    ordered: dict[Stage, None] = {}

    def visit(stage: Stage) -> None:
        if stage not in ordered and not stored(stage):
            for above in needs(stage):
                visit(above)
            ordered[stage] = None

    for root in roots:
        visit(root)
    return list(ordered)


def counts(table: Iterable[Row], stored: Callable[[Stage], bool]) -> list[tuple[str, int, int, int]]:
    """Returns (kind, stages of the rows, stages that only the controls add, stored ones of both), in building order."""
    table = list(table)
    of_rows = dict.fromkeys(stages(row.stage for row in table if not row.beside))
    every = dict.fromkeys([*of_rows, *stages(row.stage for row in table)])
    in_rows, in_all, in_store = (Counter(stage.kind for stage in group)
                                 for group in (of_rows, every, filter(stored, every)))
    places = {stage.kind: kind_of(stage).place for stage in every}
    return [(kind, in_rows[kind], in_all[kind] - in_rows[kind], in_store[kind])
            for kind in sorted(places, key=places.__getitem__)]
