"""Recorded numbers by row: intervals, nulls, paired differences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.experiment.scale import HEADLINE, PAPER_HEADLINE, SCALES
from bench.metrics import SINGLE
from bench.scoring import schema
from bench.statistics import (
    Interval,
    Null,
    Pool,
    balanced_interval,
    can_pool,
    crossed_interval,
    mcnemar,
    permutation_null,
    share_difference,
    share_interval,
)
from bench.tables import results

FULL_ROW, NULL = ("Full", "real"), ("Full", "shuffled")
RETRIEVED = "retrieval_top1"
NULLS = {HEADLINE: ("judged", "label"), PAPER_HEADLINE: ("judged", "judged_real"),  # answer, truth
         RETRIEVED: ("retrieved", "picture")}
MASKED = ("masked_mse", "mean_mse", "interpolation_mse", "wiener_mse", "joint_wiener_mse")
PERMUTATIONS = 1000
PER_IMAGE = ("ssim", "psnr", "lpips", "fid", "is")  # metrics with an interval beside the headline's

RowKey = Any  # (variant, items); None: was not run


def row_key(spec: Any) -> RowKey:
    """Returns the (variant, items) under which a variant is recorded."""
    return spec.name, getattr(spec, "eeg", "real")


def choose_headline(rows: pd.DataFrame, ablation: Any) -> str:
    """Returns the first of the ablation's headline metrics that any recorded row has; for top-1, the accuracy of the
    scale (`Scale.headline`), if the rows have it and are of scales that agree."""
    metrics, candidates = set(rows["metric"]), getattr(ablation, "headline", (HEADLINE,))
    chosen = next((metric for metric in candidates if metric in metrics), candidates[0])
    scales = {SCALES[name].headline if name in SCALES else HEADLINE for name in set(rows["scale"])}
    return scales.pop() if chosen == HEADLINE and len(scales) == 1 and scales <= metrics else chosen


@dataclass(frozen=True)
class Measured:
    """A metric's mean over seeds, with its interval if it is a per-image metric, else `sd` over seeds.

    by: the extractor, "" if the literature uses it or none is needed.
    """

    mean: float
    interval: Interval | None
    sd: float | None
    seeds: int
    key: str
    by: str


class Scores:
    """The recorded numbers by (variant, items)."""

    def __init__(self, recorded: results.Results, headline: str = HEADLINE):
        self.headline = headline
        self.failures = recorded.rows[recorded.rows["metric"] == schema.FAILED]
        self.rows, self.items = recorded.rows[recorded.rows["metric"] != schema.FAILED], recorded.items
        self.scored = self.rows[self.rows["metric"] == headline]
        self.numbers = dict(iter(self.rows.groupby(["variant", "items"])))
        self.of: dict[Any, pd.DataFrame] = {}
        self.images: dict[Any, pd.DataFrame] = {}
        self.labels: dict[Any, np.ndarray] = {}
        self.first: dict[Any, pd.DataFrame] = {}
        self._means: dict[Any, dict[str, float]] = {}
        if len(self.items):
            self.of = dict(iter(self.items.groupby(["variant", "items"])))
            for row, frame in self.of.items():
                if headline not in frame or frame[headline].isna().all():
                    continue
                self.images[row] = self._by_image(frame, headline)
                seen = np.unique(frame["picture"].to_numpy(), return_index=True)[1]
                self.labels[row] = frame["label"].fillna(-1).to_numpy()[seen] if "label" in frame else seen * 0
        ceilings = self.scored.loc[self.scored["items"] == "captions", "variant"]
        self.ceiling = (ceilings.iloc[0], "captions") if len(ceilings) else None
        self.keys = {metric: each["key"].value_counts(sort=True).index[0]
                     for metric, each in self.rows.groupby("metric")}

    @staticmethod
    def _by_image(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
        return frame.groupby(["seed", "picture"])[metric].mean().unstack("picture")

    def top1(self, row: RowKey) -> pd.DataFrame | None:
        """Returns the headline metric of each image under each seed, [seeds, images]; None: was not run.

        Raises BenchError if the seeds were scored on different images.
        """
        if row not in self.images:
            return None
        values = self.images[row]
        if values.isna().to_numpy().any():
            raise self._inconsistent(row, "its seeds were scored on different images")
        return values

    def _inconsistent(self, row: RowKey, why: str) -> BenchError:
        name = self.rows["ablation"].iloc[0]
        return BenchError(f"{name}: row {row[0]} ({row[1]}): {why}; run all its seeds together with the options of "
                          f"the earlier run: bench run --ablation {name} --variants {row[0]!r}")

    def seeds(self, row: RowKey) -> tuple[int, ...]:
        values = self.top1(row)
        return () if values is None else tuple(int(seed) for seed in values.index)

    def interval(self, row: RowKey) -> Interval | None:
        values = self.top1(row)
        return None if values is None else share_interval(values.to_numpy())

    def balanced(self, row: RowKey) -> Interval | None:
        """Returns the mean over classes of the accuracy within a class; None if each class has as many test images."""
        values = self.top1(row)
        if values is None or self.headline not in (HEADLINE, PAPER_HEADLINE):
            return None
        counts = np.unique(self.labels[row], return_counts=True)[1]
        return None if counts.min() == counts.max() else balanced_interval(values.to_numpy(), self.labels[row])

    def pools(self, rows: Iterable[RowKey]) -> dict[RowKey, tuple[Pool, int]]:
        """Returns, for each trained row that shares its seeds and test images with enough others, their `Pool` and its
        place in it. Rows that cannot know the stimulus, and rows without trained parameters, are in none."""
        groups: dict[Any, list[RowKey]] = {}
        for row in rows:
            values = self.top1(row)
            if values is not None and row[1] == "real" and self.means(row).get("trained_parameters"):
                group = (tuple(values.index), tuple(values.columns), self.labels[row].tobytes())
                groups.setdefault(group, []).append(row)
        pools: dict[RowKey, tuple[Pool, int]] = {}
        for group, members in groups.items():
            if can_pool(len(members), len(group[0])):
                shares = np.stack([self.images[row].to_numpy() for row in members])
                count = shares[0].size
                pool = Pool.of(shares.mean(2), (shares.mean((1, 2)) * count + 2) / (count + 4))
                pools |= {row: (pool, place) for place, row in enumerate(members)}
        return pools

    def paired(self, a: RowKey, b: RowKey) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns both rows [S, N] over their common seeds; None without such seeds or with different test images."""
        pair = self.unpaired(a, b)
        same = pair and self.images[a].columns.equals(self.images[b].columns) and np.array_equal(
            self.labels[a], self.labels[b])
        return pair if same else None

    def unpaired(self, a: RowKey, b: RowKey) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns both rows [S, N] over their common seeds, each on its own test images; None without such seeds."""
        first, second = self.top1(a), self.top1(b)
        if first is None or second is None or not len(seeds := first.index.intersection(second.index)):
            return None
        return first.loc[seeds].to_numpy(), second.loc[seeds].to_numpy()

    def same(self, row: RowKey, other: Scores, key: RowKey) -> bool:
        """Tells whether a row has the values of another's row: the same accuracy of each image under each seed."""
        return row in self.images and key in other.images and self.images[row].equals(other.images[key])

    def contrast(self, a: RowKey, b: RowKey) -> Interval | None:
        """Returns the 95 % interval of the paired difference; None if the rows cannot be paired."""
        pair = self.paired(a, b)
        return None if pair is None else share_difference(*pair)

    def gain(self, row: RowKey) -> Interval | None:
        """Returns the gain over the row's own shuffled EEG; None if that was not run. Full's is no substitute: a row
        with another preference for some classes has another null."""
        return self.contrast(row, self.own_null(row))

    def own_null(self, row: RowKey) -> RowKey:
        """Returns the row's own shuffled EEG; None if that was not run."""
        if row is None or row[1] != "real":
            return None
        nulls = [(f"{row[0]} / EEG shuffled", "shuffled"), *([NULL] if row == FULL_ROW else [])]
        return next((null for null in nulls if null in self.images), None)

    def mcnemar(self, a: RowKey, b: RowKey) -> dict[int, float]:
        """Returns p by seed, on sample 0 of each item: of top-1 where the headline is an n-way accuracy, which is a
        probability; empty for another headline metric that is not 0 or 1."""
        metric = HEADLINE if self.headline == PAPER_HEADLINE else self.headline
        if not all(metric in self.of[row] for row in (a, b)):
            return {}
        for row in (a, b):
            if row not in self.first:
                frame = self.of[row]
                self.first[row] = frame[frame["sample"] == 0].pivot(index="seed", columns="item", values=metric)
        seeds = self.first[a].index.intersection(self.first[b].index)
        first, second = (self.first[row].loc[seeds] for row in (a, b))
        if not first.columns.equals(second.columns) or not (first.isin((0, 1)) & second.isin((0, 1))).all(axis=None):
            return {}
        return {int(seed): mcnemar(first.loc[seed].to_numpy(), second.loc[seed].to_numpy()) for seed in seeds}

    def null(self, row: RowKey) -> Null | None:
        """Returns the accuracy under permuted labels (in retrieval: images); None for another headline metric. For the
        paper's n-way accuracy it is top-1 against the judge's class of the real image: items hold no logits.

        All seeds and samples share a permutation; the draws are always the same.
        """
        answer, truth = NULLS.get(self.headline, ("", ""))
        if self.top1(row) is None or not {answer, truth} <= set(self.of[row]):
            return None
        frame = self.of[row].sort_values(["item", "seed", "sample"])
        item = frame["item"].to_numpy()
        first = np.unique(item, return_index=True)[1]
        if len(frame) % len(first) or (np.diff(np.append(first, len(frame))) != len(frame) // len(first)).any():
            raise self._inconsistent(row, "its items have different numbers of samples")
        judged = frame[answer].to_numpy().reshape(len(first), -1)
        return permutation_null(judged, frame[truth].to_numpy()[first], np.random.default_rng(0), PERMUTATIONS)

    def means(self, row: RowKey) -> dict[str, float]:
        """Returns each metric's mean over seeds; of a metric with several keys, that of the most frequent key."""
        if row not in self._means:
            means = self._means[row] = {}
            if row in self.numbers:
                values = self.numbers[row].groupby(["metric", "key"])["value"].mean().reset_index()
                for metric, key, value in values.itertuples(index=False, name=None):
                    if metric not in means or key == self.keys[metric]:
                        means[metric] = float(value)
        return self._means[row]

    def measured(self, row: RowKey) -> dict[str, Measured]:
        """Returns each metric with its uncertainty."""
        measured = {}
        for metric, mean in self.means(row).items():
            rows = self.numbers[row][self.numbers[row]["metric"] == metric]
            rows = rows[rows["key"] == self.keys[metric]] if self.keys[metric] in set(rows["key"]) else rows
            interval = None
            if row in self.of and metric in self.of[row] and np.isfinite(self.of[row][metric]).all():
                interval = (share_interval if metric in SINGLE else crossed_interval)(
                    self._by_image(self.of[row], metric).to_numpy())
            sd = float(rows["value"].std(ddof=1)) if len(rows) > 1 else None
            by = "" if rows["comparable"].all() else rows["extractor"].iloc[0]
            measured[metric] = Measured(mean, interval, sd, len(rows), rows["key"].iloc[0], by)
        return measured

    def image_intervals(self, row: RowKey) -> dict[str, Interval]:
        """Returns the 95 % interval of each of PER_IMAGE, over test images crossed with seeds."""
        frame = self.of.get(row)
        metrics = [] if frame is None else [each for each in PER_IMAGE if each in frame and np.isfinite(
            frame[each]).all()]
        return {each: crossed_interval(self._by_image(self.of[row], each).to_numpy()) for each in metrics}

    def leak(self, row: RowKey) -> str:
        """Returns why the audit calls a row leaky, "" if it does not."""
        verdicts = set(self.numbers[row]["leaky"]) if row in self.numbers else set()
        return "; ".join(sorted(verdict.removeprefix("yes: ") for verdict in verdicts if verdict.startswith("yes")))

    def failed(self, row: RowKey) -> bool:
        """Tells whether the row failed under any seed; None means the ceiling."""
        if row is None:
            return bool((self.failures["items"] == "captions").any())
        return bool(((self.failures["variant"] == row[0]) & (self.failures["items"] == row[1])).any())

    def params(self, row: RowKey) -> int | None:
        """Returns the parameters of the row's EEG encoder."""
        known = list(self.numbers[row]["params"].dropna()) if row in self.numbers else []
        return int(known[0]) if known else None

    def specs(self, row: RowKey) -> set[str]:
        """Returns the digests of the settings that a row was recorded with."""
        rows = self.numbers.get(row)
        return set() if rows is None else set(rows["spec"]) - {""}

    def values(self, column: str, metric: str = "") -> list[str]:
        """Returns the distinct values of a column in the rows of a metric (default: the headline metric)."""
        rows = self.rows[self.rows["metric"] == (metric or self.headline)]
        return sorted({str(value) for value in rows[column]} - {""})

    def key(self, metric: str) -> str:
        """Returns the parameters of a metric, such as "16 classes"."""
        return "; ".join(self.values("key", metric))
