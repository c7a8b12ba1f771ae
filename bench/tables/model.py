"""A table as a value: its rows, their differences, its notes, and the same as DataFrames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from bench.experiment.scale import HEADLINE, SECOND
from bench.statistics import Agreement, Interval, Null, Verdict
from bench.tables.formats import Document, Printed


@dataclass(frozen=True)
class Row:
    """A variant or a reference row. Accuracies are shares of 1, unless another unit is stated.

    label      the name and what the row changes (bench.experiment.describe)
    settings   pre-training, CLIP, tuned, encoder
    top1       the headline metric (`scores.choose_headline`); None: not run, or `failed`
    means      of each metric, over seeds
    gain       top1 minus that of the row's own shuffled EEG, paired; None: that was not run; share_of_ceiling: as a
               share of the ceiling's gain
    null       under permuted labels, for a row that cannot know the stimulus; exceeds: Holm's p that it exceeds that
    verdict    of the contrast with the table's baseline, about this row; "" without such a contrast
    paper      per cent; None: the paper has no such row
    balanced   mean over classes of the accuracy within a class; None where all classes have as many test items
    intervals  of SSIM, PSNR, LPIPS, FID and IS, over test images crossed with seeds
    seconds    of training and of sampling; None: nothing is sampled
    """

    name: str
    label: str
    settings: tuple[str, str, str, str]
    params: int | None
    seeds: tuple[int, ...]
    top1: Interval | None
    means: Mapping[str, float]
    gain: Interval | None
    share_of_ceiling: float | None
    null: Null | None
    exceeds: float | None
    failed: bool
    paper: float | None
    seconds: tuple[float, float | None] | None = None
    verdict: str = ""
    balanced: Interval | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Contrast:
    """The difference of two rows in the headline metric, a share of 1.

    pair     the names of both rows; label: also what each changes
    outcome  the verdict in words, or why there is none (`verdict` is None)
    mcnemar  by seed: exact p of sample 0, given these models
    paper    the paper's difference in points
    family   primary or secondary; "" if the ablation names no primary contrasts
    home     the ablation whose family that is, if it is not the table's own; count: how many contrasts the family has
    """

    pair: tuple[str, str]
    label: str
    mean: float | None
    verdict: Verdict | None
    outcome: str
    mcnemar: Mapping[int, float]
    paper: float | None
    family: str = ""
    home: str = ""
    count: int = 0

    @property
    def name(self) -> str:
        """Returns both names: "Full - 3"."""
        return " - ".join(self.pair)


@dataclass(frozen=True, eq=False)
class Table:
    """The table of an ablation.

    entries, differences   its rows and contrasts as values; `rows` and `contrasts` are the same as DataFrames
    finding                the result in one sentence
    notes, caption         the notes of the short form (at most five), and all notes
    labels                 headers of the headline metric, and of `second` ("" where it does not apply)
    second                 the metric that is always beside the headline
    columns                (metric, header) of the further metrics that the ablation asks for
    baseline               the row that `Row.verdict` compares with; "" without one
    scores                 every recorded number, columns bench.scoring.schema.COLUMNS: numbers are int64 and float64
                           (params Int64), the others text
    has_gain               whether every row that decodes EEG has its gain, so that there is a column
    agreements             of the rows' order with the paper's; () if it has fewer than four of the rows
    over_worlds            contrasts with the world as the sample (`bench.tables.worlds`); () if rows have one world
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
    second: str = SECOND[HEADLINE]
    columns: tuple[tuple[str, str], ...] = ()
    finding: str = ""
    notes: tuple[str, ...] = ()
    baseline: str = ""
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    agreements: tuple[Agreement, ...] = ()
    over_worlds: tuple[Contrast, ...] = ()
    has_gain: bool = False
    document: Document = Document(Printed("", "", (), ()), Printed("", "", (), ()), pd.DataFrame())

    @property
    def rows(self) -> pd.DataFrame:
        """Returns one line for each row of the table, in its order.

        name, label: text. failed: bool. seeds: int64, the number of seeds. Per cent, float64: the headline metric
        (top1, or its name) with _low and _high of the 95 % interval; balanced, gain (points) and null (permuted labels)
        with their intervals; null_to_ceiling; paper_50way_imagenet_eeg. p: Holm's p that the row exceeds its null.
        verdict: against `baseline`. pretraining, clip, tuned, encoder: text. params: Int64. mean_<metric>: float64,
        the mean over seeds in the metric's own unit. A missing number is NaN; a column without any value is left out.
        """
        return self._lines("row")

    @property
    def contrasts(self) -> pd.DataFrame:
        """Returns one line for each contrast, in the order of the ablation.

        name ("Full - 3"), label (in words), first, second: text. difference, difference_low, difference_high: float64,
        points with their simultaneous interval. p: Holm's, within `family`. seeds: Int64. verdict: better, worse, not
        resolved, or why there is none. test: moderated or plain. detectable: points that are detected with 80 % power;
        seeds_for_5, seeds_for_10: the seeds that detect as many points, float64. paper_50way_imagenet_eeg: points.
        """
        top1 = "top1" if self.headline == HEADLINE else self.headline
        return self._lines("contrast").rename(
            columns={f"{top1}{end}": f"difference{end}" for end in ("", "_low", "_high")})

    def _lines(self, kind: str) -> pd.DataFrame:
        """Returns the lines of one kind with their columns as numbers or text."""
        frame = self.document.frame
        lines = frame[frame["kind"] == kind].drop(columns="kind").dropna(axis="columns", how="all")
        lines = lines.reset_index(drop=True).infer_objects()
        types = {"params": "Int64", "seeds": "Int64" if lines.get("seeds", pd.Series()).isna().any() else "int64",
                 "failed": bool}
        return lines.astype({name: type_ for name, type_ in types.items() if name in lines})

    def render(self, format: str = "text", details: bool | None = None) -> str:
        """Returns the table as "text", "md", "latex", "html" or "csv".

        details: the complete form; default: the short form as text, else the complete one. Raises BenchError for an
        unknown format.
        """
        return self.document.render(format, details)

    def __str__(self) -> str:
        return self.render()
