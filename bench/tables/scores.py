"""Recorded numbers by row: intervals, nulls, paired differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.experiment.ablation import HEADLINE
from bench.scoring import schema
from bench.statistics import Interval, Null, crossed_interval, mcnemar, paired_contrast, permutation_null
from bench.tables import results

NULL = ("Full", "shuffled")
RETRIEVED = "retrieval_top1"
NULLS = {"top1_label": ("judged", "label"), RETRIEVED: ("retrieved", "picture")}  # what was found, what was right
MASKED = ("masked_mse", "mean_mse", "interpolation_mse", "wiener_mse")
PERMUTATIONS = 1000

Whose = Any  # (variant, items), or None for what was not run


def whose_row(spec: Any) -> Whose:
    return spec.name, getattr(spec, "eeg", "real")


@dataclass(frozen=True)
class Measured:
    """A metric's mean over seeds: its interval if it is one of pictures, else `sd` over seeds."""

    mean: float
    interval: Interval | None
    sd: float | None
    seeds: int
    key: str
    by: str  # the extractor, "" where the literature uses it or none is needed


class Scores:
    """What is recorded, by (variant, items)."""

    def __init__(self, recorded: results.Results, headline: str = HEADLINE):
        self.headline = headline
        self.failures = recorded.rows[recorded.rows["metric"] == schema.FAILED]
        self.rows, self.items = recorded.rows[recorded.rows["metric"] != schema.FAILED], recorded.items
        self.scored = self.rows[self.rows["metric"] == headline]
        self.at = dict(iter(self.rows.groupby(["variant", "items"])))
        self.of: dict[Any, pd.DataFrame] = {}
        self.pictures: dict[Any, pd.DataFrame] = {}
        self.labels: dict[Any, np.ndarray] = {}
        self.first: dict[Any, pd.DataFrame] = {}
        self.found: dict[Any, dict[str, float]] = {}
        if len(self.items):
            self.of = dict(iter(self.items.groupby(["variant", "items"])))
            for whose, frame in self.of.items():
                if headline not in frame or frame[headline].isna().all():
                    continue
                self.pictures[whose] = self._by_picture(frame, headline)
                seen = np.unique(frame["picture"].to_numpy(), return_index=True)[1]
                self.labels[whose] = frame["label"].fillna(-1).to_numpy()[seen] if "label" in frame else seen * 0
        ceilings = self.scored.loc[self.scored["items"] == "captions", "variant"]
        self.ceiling = (ceilings.iloc[0], "captions") if len(ceilings) else None
        self.keys = {metric: each["key"].value_counts(sort=True).index[0]
                     for metric, each in self.rows.groupby("metric")}

    @staticmethod
    def _by_picture(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
        return frame.groupby(["seed", "picture"])[metric].mean().unstack("picture")

    def top1(self, whose: Whose) -> pd.DataFrame | None:
        """The headline, top-1 accuracy or another, of each picture under each seed, [seeds, pictures]."""
        if whose not in self.pictures:
            return None
        values = self.pictures[whose]
        if values.isna().to_numpy().any():
            raise self._again(whose, "its seeds were scored on different pictures")
        return values

    def _again(self, whose: Whose, why: str) -> BenchError:
        """What is recorded of a row does not fit together."""
        name = self.rows["ablation"].iloc[0]
        return BenchError(f"{name}: row {whose[0]} ({whose[1]}): {why}; run all its seeds together, with the options "
                          f"that its results were made with: bench run --ablation {name} --variants {whose[0]!r}")

    def seeds(self, whose: Whose) -> tuple[int, ...]:
        values = self.top1(whose)
        return () if values is None else tuple(int(seed) for seed in values.index)

    def interval(self, whose: Whose) -> Interval | None:
        values = self.top1(whose)
        return None if values is None else crossed_interval(values.to_numpy())

    def paired(self, a: Whose, b: Whose) -> tuple[np.ndarray, np.ndarray] | None:
        """Both [S, N], over the seeds that both have; None where there are none, or the test pictures are others."""
        one, other = self.top1(a), self.top1(b)
        if one is None or other is None or not one.columns.equals(other.columns):
            return None
        seeds = one.index.intersection(other.index)
        if not len(seeds) or not np.array_equal(self.labels[a], self.labels[b]):
            return None
        return one.loc[seeds].to_numpy(), other.loc[seeds].to_numpy()

    def apart(self, a: Whose, b: Whose) -> tuple[np.ndarray, np.ndarray] | None:
        """Both [S, N] over the seeds that both have, each on its own test pictures; None where a row or seed lacks."""
        one, other = self.top1(a), self.top1(b)
        if one is None or other is None or not len(seeds := one.index.intersection(other.index)):
            return None
        return one.loc[seeds].to_numpy(), other.loc[seeds].to_numpy()

    def contrast(self, a: Whose, b: Whose) -> Interval | None:
        """95 % interval of the paired difference."""
        pair = self.paired(a, b)
        return None if pair is None else paired_contrast(*pair)

    def gain(self, whose: Whose) -> Interval | None:
        """Over the row's own shuffled EEG where that was run, else over Full's."""
        return self.contrast(whose, self.shuffled(whose))

    def shuffled(self, whose: Whose) -> Whose:
        """The row's own shuffled EEG where that was run (`ablation.with_controls` names it), else Full's."""
        own = (f"{whose[0]} / EEG shuffled", "shuffled") if whose else NULL
        return own if own in self.pictures else NULL

    def mcnemar(self, a: Whose, b: Whose) -> dict[int, float]:
        """By seed, on sample 0 of each item; nothing for a headline that is no right or wrong."""
        for whose in (a, b):
            if whose not in self.first:
                frame = self.of[whose]
                self.first[whose] = frame[frame["sample"] == 0].pivot(index="seed", columns="item",
                                                                      values=self.headline)
        seeds = self.first[a].index.intersection(self.first[b].index)
        one, other = (self.first[whose].loc[seeds] for whose in (a, b))
        if not one.columns.equals(other.columns) or not (one.isin((0, 1)) & other.isin((0, 1))).all(axis=None):
            return {}
        return {int(seed): mcnemar(one.loc[seed].to_numpy(), other.loc[seed].to_numpy()) for seed in seeds}

    def null(self, whose: Whose) -> Null | None:
        """Accuracy under permuted labels, in retrieval under permuted pictures, the same permutation for all seeds and
        samples; always the same draws. None for another headline."""
        found, right = NULLS.get(self.headline, ("", ""))
        if self.top1(whose) is None or found not in self.of[whose]:
            return None
        frame = self.of[whose].sort_values(["item", "seed", "sample"])
        item = frame["item"].to_numpy()
        first = np.unique(item, return_index=True)[1]
        if len(frame) % len(first) or (np.diff(np.append(first, len(frame))) != len(frame) // len(first)).any():
            raise self._again(whose, "its items do not have as many samples each")
        judged = frame[found].to_numpy().reshape(len(first), -1)
        return permutation_null(judged, frame[right].to_numpy()[first], np.random.default_rng(0), PERMUTATIONS)

    def means(self, whose: Whose) -> dict[str, float]:
        """Of each metric over seeds; of one that was taken in several ways, the most usual."""
        if whose not in self.found:
            found = self.found[whose] = {}
            if whose in self.at:
                values = self.at[whose].groupby(["metric", "key"])["value"].mean().reset_index()
                for metric, key, value in values.itertuples(index=False, name=None):
                    if metric not in found or key == self.keys[metric]:
                        found[metric] = float(value)
        return self.found[whose]

    def measured(self, whose: Whose) -> dict[str, Measured]:
        """Each metric with its uncertainty."""
        found = {}
        for metric, mean in self.means(whose).items():
            rows = self.at[whose][self.at[whose]["metric"] == metric]
            rows = rows[rows["key"] == self.keys[metric]] if self.keys[metric] in set(rows["key"]) else rows
            interval = None
            if whose in self.of and metric in self.of[whose] and np.isfinite(self.of[whose][metric]).all():
                interval = crossed_interval(self._by_picture(self.of[whose], metric).to_numpy())
            sd = float(rows["value"].std(ddof=1)) if len(rows) > 1 else None
            by = "" if rows["comparable"].all() else rows["extractor"].iloc[0]
            found[metric] = Measured(mean, interval, sd, len(rows), rows["key"].iloc[0], by)
        return found

    def failed(self, whose: Whose) -> bool:
        if whose is None:
            return bool((self.failures["items"] == "captions").any())
        return bool(((self.failures["variant"] == whose[0]) & (self.failures["items"] == whose[1])).any())

    def params(self, whose: Whose) -> int | None:
        known = list(self.at[whose]["params"].dropna()) if whose in self.at else []
        return int(known[0]) if known else None

    def specs(self, whose: Whose) -> set[str]:
        """Digests of the settings that a row was recorded with."""
        rows = self.at.get(whose)
        return set() if rows is None else set(rows["spec"]) - {""}

    def values(self, column: str, metric: str = "") -> list[str]:
        """What a column says about the rows of a metric, of the headline's: one value, or several where rows differ."""
        rows = self.rows[self.rows["metric"] == (metric or self.headline)]
        return sorted({str(value) for value in rows[column]} - {""})

    def key(self, metric: str) -> str:
        return "; ".join(self.values("key", metric))
