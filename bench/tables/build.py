"""Tables from a results CSV: rows beside the paper's numbers, verdicts, and a caption that says what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.experiment.ablation import HEADLINE
from bench.experiment.variant import innermost
from bench.setup.rows import beside
from bench.statistics import holm, verdicts
from bench.tables import results
from bench.tables.captions import CEILING_NAME, NULL_NAME, caption_lines
from bench.tables.columns import (
    ALPHA,
    NOT_RUN,
    NOTHING,
    metric_header,
    print_table,
    settings_of,
)
from bench.tables.literature import PUBLISHED, paper_column, published_rows
from bench.tables.model import Contrast, Row, Table
from bench.tables.scores import NULL, Scores, Whose, whose_row

CEILING_PUBLISHED = "label as input"  # Sec. 4.4


def table(folder: Path, name: str, ablation: Any, published: Path = PUBLISHED) -> Table:
    """The table of an ablation from the results in a folder; rows without results say "not run".

    Accuracies are against the label, or the headline that the ablation names. Intervals of rows are 95 %, over test
    pictures crossed with seeds, after samples (and subjects) were averaged within a picture; those of contrasts are
    simultaneous. Errors as `results.read`.
    """
    paper, source = paper_column(ablation.published, published)
    recorded = results.read(folder, name)
    scores = Scores(recorded, _headline(recorded, getattr(ablation, "headline", (HEADLINE,))))
    costs, others = getattr(ablation, "costs", False), beside(ablation.variants)
    seconds = _seconds(folder, name) if costs else {}

    def row(title: str, whose: Whose, settings: tuple[str, str, str, str], known: str, free: bool = False) -> Row:
        gain = None if whose == NULL else scores.gain(whose)
        floor = NULL if NULL in scores.pictures else scores.shuffled(whose)
        way = scores.contrast(scores.ceiling, floor) if gain else None
        null = scores.null(whose) if free else None
        return Row(title, settings, scores.params(whose), scores.seeds(whose), scores.interval(whose),
                   scores.means(whose), gain, gain.mean / way.mean if gain and way and way.mean else None, null,
                   null.p if null else None, scores.failed(whose), paper.get(known),
                   seconds.get(whose) if whose else None)

    nothing = (NOTHING,) * 4
    rows = [row(v.name, whose_row(v), settings_of(v), v.name, getattr(v, "eeg_free", False)) for v in ablation.variants]
    rows += [row(NULL_NAME, NULL, nothing, "")] if others.null else []
    rows += [row(CEILING_NAME, scores.ceiling, nothing, CEILING_PUBLISHED)] if others.ceiling else []
    rows = _adjusted(rows)
    labels = (f"top-1 of {scores.key('top1_label').removesuffix(' classes')}, %",
              f"{scores.key('nway_label').replace(' of ', '-way of ')}, %")
    if scores.headline != HEADLINE:
        labels = (metric_header(scores, scores.headline), "")
    columns = tuple((metric, metric_header(scores, metric)) for metric in getattr(ablation, "metrics", ()))
    contrasts = _contrasts(scores, ablation, paper)
    caption = tuple(caption_lines(scores, rows, contrasts, ablation, name, paper, source))
    made = Table(ablation.title, tuple(rows), tuple(contrasts), caption, labels, bool(paper), costs,
                 published_rows(getattr(ablation, "literature", {}), published), scores.headline, columns, recorded.rows)
    return replace(made, printed=print_table(made))


def _headline(recorded: results.Results, asked: Sequence[str]) -> str:
    """The first of those that any row has."""
    there = set(recorded.rows["metric"])
    return next((metric for metric in asked if metric in there), asked[0])


def _seconds(folder: Path, name: str) -> dict[Whose, tuple[float, float | None]]:
    """Of each row the seconds of its trainings and of drawing its pictures, means over seeds, as last noted."""
    runs = results.runs(folder, name)
    runs = runs[runs["training_s"] != ""].replace({"sampling_s": {"": np.nan}})
    last = runs.groupby(["variant", "items", "seed"])[["training_s", "sampling_s"]].last().astype(float)
    means = last.groupby(level=["variant", "items"]).mean().reset_index()
    return {(variant, items): (training, None if np.isnan(sampling) else sampling)
            for variant, items, training, sampling in means.itertuples(index=False, name=None)}


def _about_pretraining(a: Any, b: Any) -> bool:
    """Whether two rows differ in pre-training, mask ratio or size."""
    a, b = innermost(a), innermost(b)
    return any(getattr(a, name, None) != getattr(b, name, None) for name in ("mask_ratio", "size", "encoder"))


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """Holm's p over the rows that must not exceed their null."""
    tested = [row for row in rows if row.exceeds is not None]
    adjusted = dict(zip((row.name for row in tested), holm([row.exceeds or 0.0 for row in tested]), strict=True))
    return [Row(**vars(row) | {"exceeds": adjusted.get(row.name)}) for row in rows]


def _contrasts(scores: Scores, ablation: Any, paper: Mapping[str, float]) -> list[Contrast]:
    """One for each that the ablation lists, with Holm's verdicts over those that can have one."""
    specs = {v.name: v for v in ablation.variants}
    one_pretraining = "one" in scores.values("pretrain_seeds")
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    said: dict[str, str] = {}
    apart = set()
    for a, b in ablation.contrasts:
        name, whose = f"{a} - {b}", (whose_row(specs[a]), whose_row(specs[b]))
        pair = scores.paired(*whose)
        if pair is None and (pair := scores.apart(*whose)) is not None:
            apart.add(name)
        if pair is None:
            ran = [scores.top1(one) is not None for one in whose]
            lost = any(scores.failed(one) for one, there in zip(whose, ran, strict=True) if not there)
            said[name] = "failed" if lost else NOT_RUN if not all(ran) else "no verdict: other seeds"
        elif one_pretraining and _about_pretraining(specs[a], specs[b]):
            said[name] = "no verdict: one pre-training"
        else:
            pairs[name] = pair
    found = verdicts(pairs, ALPHA, apart) if pairs else {}
    contrasts = []
    for a, b in ablation.contrasts:
        name, whose = f"{a} - {b}", (whose_row(specs[a]), whose_row(specs[b]))
        one, other = scores.interval(whose[0]), scores.interval(whose[1])
        verdict = found.get(name)
        mean = verdict.interval.mean if verdict else one.mean - other.mean if one and other else None
        word = said.get(name, "")
        if verdict:
            word = verdict.word + (", given these models" if verdict.interval.seeds == 1 else "")
            word += ", not paired: other test pictures" if name in apart else ""
        contrasts.append(Contrast(name, mean, verdict, word,
                                  scores.mcnemar(*whose) if verdict and name not in apart else {},
                                  paper[a] - paper[b] if a in paper and b in paper else None))
    return contrasts
