"""A table as a value: its entries, their differences, its caption, and the same as DataFrames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from bench.experiment.ablation import HEADLINE
from bench.statistics import Interval, Null, Verdict
from bench.tables.formats import Printed


@dataclass(frozen=True)
class Row:
    """A variant or a reference. `settings`: pre-training, CLIP, tuned, encoder. Accuracies are shares of 1.

    top1: the headline metric, top-1 accuracy unless the ablation names another; without it the row was not run, or
    `failed`. means: of each metric, over seeds. gain: top1 less that of the shuffled EEG, paired. way: the gain as a
    share of the ceiling's. null: permuted labels, for a row that must not know the stimulus; exceeds: Holm's p that it
    does. `paper` is in per cent, None where the paper has no such row. seconds: of training and of drawing, None where
    nothing is drawn.
    """

    name: str
    settings: tuple[str, str, str, str]
    params: int | None
    seeds: tuple[int, ...]
    top1: Interval | None
    means: Mapping[str, float]
    gain: Interval | None
    way: float | None
    null: Null | None
    exceeds: float | None
    failed: bool
    paper: float | None
    seconds: tuple[float, float | None] | None = None


@dataclass(frozen=True)
class Contrast:
    """Two rows' difference in the headline, a share of 1. Without `verdict`, `said` says why; mcnemar: exact p of
    sample 0 by seed, given these models; the paper's difference is in points."""

    name: str
    mean: float | None
    verdict: Verdict | None
    said: str
    mcnemar: Mapping[int, float]
    paper: float | None


@dataclass(frozen=True, eq=False)
class Table:
    """A table with all that must be said about it.

    entries, differences: its rows and contrasts as values; `rows` and `contrasts` are the same as DataFrames. labels:
    headers of the headline, and of n-way accuracy where that belongs to it. columns: what the ablation asks for beside
    them, metrics and headers. scores: every number that is recorded, columns bench.scoring.schema.COLUMNS.
    """

    title: str
    entries: tuple[Row, ...]
    differences: tuple[Contrast, ...]
    caption: tuple[str, ...]
    labels: tuple[str, str]
    has_paper: bool
    costs: bool = False
    literature: pd.DataFrame | None = None
    headline: str = HEADLINE
    columns: tuple[tuple[str, str], ...] = ()
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    printed: Printed = field(default_factory=lambda: Printed("", (), (), pd.DataFrame()))

    @property
    def rows(self) -> pd.DataFrame:
        """A line for each entry: name, settings, seeds, accuracies with their intervals in per cent, means of all
        metrics."""
        return self._of_kind("row")

    @property
    def contrasts(self) -> pd.DataFrame:
        """A line for each difference: name, points with their interval, p, verdict."""
        return self._of_kind("contrast")

    def _of_kind(self, kind: str) -> pd.DataFrame:
        frame = self.printed.frame
        found = frame[frame["kind"] == kind].drop(columns="kind").dropna(axis="columns", how="all")
        return found.infer_objects().reset_index(drop=True)

    def render(self, format: str = "text") -> str:
        """"text" for a terminal, "md", "latex", "html", or "csv" for programs. Raises BenchError for another."""
        return self.printed.render(format)

    def __str__(self) -> str:
        return self.render()
