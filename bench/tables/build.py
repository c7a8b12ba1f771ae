"""Builds the table of an ablation from its results CSV: rows, contrasts, the paper's numbers, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.experiment.ablation import has_controls
from bench.experiment.describe import row_label
from bench.experiment.scale import SECOND
from bench.setup.rows import choose_baselines
from bench.statistics import holm
from bench.tables import results, slices
from bench.tables.agreement import agree
from bench.tables.captions import CEILING_NAME, NULL_NAME, caption_lines
from bench.tables.columns import NOTHING, baseline_of, document, metric_header, settings_of
from bench.tables.contrasts import contrasts as contrasts_of
from bench.tables.literature import PUBLISHED, paper_column, published_rows
from bench.tables.model import Contrast, Row, Table
from bench.tables.scores import NULL, RowKey, Scores, choose_headline, row_key
from bench.tables.summary import finding, short_notes
from bench.tables.worlds import contrasts_over_worlds, worlds_note

CEILING_PUBLISHED = "label as input"  # Sec. 4.4


def table(folder: Path, name: str, ablation: Any, published: Path = PUBLISHED, command: str = "") -> Table:
    """Builds the table of an ablation from the results in a folder; a row without results is "not run".

    Rows come from the ablation's CSV, without one from others in the folder (`slices.read`). The headline metric is
    the accuracy of the scale, or the one that the ablation names. Intervals of rows are 95 %, over test images crossed
    with seeds, after averaging samples (and subjects) within an image; those of contrasts are simultaneous. command:
    prints this table (default: bench table NAME). Errors as `results.read`.
    """
    paper, source = paper_column(ablation.published, published)
    recorded, origin = slices.read(folder, name, ablation)
    scores = Scores(recorded, choose_headline(recorded.rows, ablation))
    costs, references = getattr(ablation, "costs", False), choose_baselines(ablation.variants)
    seconds = _seconds(folder, name) if costs else {}

    def row(title: str, label: str, key: RowKey, settings: tuple[str, str, str, str], known: str,
            free: bool = False) -> Row:
        gain = scores.gain(key)
        span = scores.contrast(scores.ceiling, scores.own_null(key)) if gain else None
        null = scores.null(key) if free else None
        return Row(title, label, settings, scores.params(key), scores.seeds(key), scores.interval(key),
                   scores.means(key), gain, gain.mean / span.mean if gain and span and span.mean else None, null,
                   null.p if null else None, scores.failed(key), paper.get(known),
                   seconds.get(key) if key else None, balanced=scores.balanced(key),
                   intervals=scores.image_intervals(key))

    nothing = (NOTHING,) * 4
    rows = [row(v.name, row_label(v), row_key(v), settings_of(v), v.name, getattr(v, "eeg_free", False))
            for v in ablation.variants]
    decoding = {v.name for v in ablation.variants if has_controls(v) and not getattr(v, "eeg_free", False)}
    shown = [each for each in rows if each.top1 and each.name in decoding]
    has_gain = bool(shown) and all(each.gain for each in shown)
    rows += [row(NULL_NAME, NULL_NAME, NULL, nothing, "")] if references.null else []
    rows += [row(CEILING_NAME, CEILING_NAME, scores.ceiling, nothing, CEILING_PUBLISHED)] if references.ceiling else []
    contrasts, baseline = contrasts_of(scores, folder, name, ablation, paper), baseline_of(ablation.contrasts)
    rows, over_worlds = _judged(rows, contrasts, baseline), contrasts_over_worlds(scores, ablation)
    order = agree(scores, ablation, paper)
    second = SECOND.get(scores.headline, "")
    labels = metric_header(scores, scores.headline), metric_header(scores, second) if second else ""
    columns = tuple((metric, metric_header(scores, metric)) for metric in getattr(ablation, "metrics", ()))
    made = Table(ablation.title, tuple(rows), tuple(contrasts),
                 (*caption_lines(scores, rows, contrasts, ablation, name, paper, source, order, has_gain),
                  *filter(None, [worlds_note(over_worlds), origin])),
                 labels, bool(paper), costs, published_rows(getattr(ablation, "literature", {}), published),
                 scores.headline, second, columns, finding(scores, rows, contrasts, ablation, over_worlds),
                 short_notes(scores, rows, contrasts, ablation, bool(paper), origin, command or f"bench table {name}",
                             order[0], has_gain, over_worlds),
                 baseline, recorded.rows, tuple(order[0]), tuple(over_worlds), has_gain)
    return replace(made, document=document(made))


def _seconds(folder: Path, name: str) -> dict[RowKey, tuple[float, float | None]]:
    """Returns each row's seconds of training and of sampling: means over seeds of the last recorded runs."""
    runs = results.runs(folder, name)
    runs = runs[runs["training_s"] != ""].replace({"sampling_s": {"": np.nan}})
    last = runs.groupby(["variant", "items", "seed"])[["training_s", "sampling_s"]].last().astype(float)
    means = last.groupby(level=["variant", "items"]).mean().reset_index()
    return {(variant, items): (training, None if np.isnan(sampling) else sampling)
            for variant, items, training, sampling in means.itertuples(index=False, name=None)}


def _judged(rows: Sequence[Row], contrasts: Sequence[Contrast], baseline: str) -> list[Row]:
    """Adds Holm's p over the rows that cannot know the stimulus, and the verdicts against the baseline."""
    tested = [row for row in rows if row.exceeds is not None]
    p = holm([row.exceeds or 0.0 for row in tested]).tolist()
    adjusted = dict(zip((row.name for row in tested), p, strict=True))
    opposite = {"better": "worse", "worse": "better"}
    words = {}
    for contrast in contrasts:
        if contrast.verdict and baseline in contrast.pair:
            first, second = contrast.pair
            word = contrast.verdict.word
            words[second if first == baseline else first] = opposite.get(word, word) if first == baseline else word
    return [replace(row, exceeds=adjusted.get(row.name), verdict=words.get(row.name, "")) for row in rows]
