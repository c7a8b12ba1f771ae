"""Intervals, contrasts, verdicts and nulls for values measured on the same items under several seeds.

Values are [S, N]: S training seeds crossed with N items. An item is what was sampled independently, a test image.
Samples, and the trials of several subjects who saw the same image, are first averaged within the item (a third axis is
averaged here). Results generalise to new images and new trainings, for these subjects. See docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, chdtri, ndtr, stdtrit

POWER = 0.8
MOST_ITEMS, MOST_SEEDS = 1_000_000, 1_000  # `Verdict.needs` counts no further
LEAST = 1e-120  # a smaller p is 0
Array = np.ndarray


@dataclass(frozen=True)
class Interval:
    """A mean with its interval."""

    mean: float
    low: float
    high: float
    seeds: int
    items: int


@dataclass(frozen=True)
class Verdict:
    """The result of a contrast within its family (`verdicts`). p: Holm-adjusted. word: better, worse or not resolved.
    needs: the items or seeds that would resolve it; "" if it is resolved."""

    interval: Interval
    p: float
    word: str
    needs: str


@dataclass(frozen=True)
class Null:
    """The accuracy under permuted labels: mean, 95 % range, and one-sided p of the observed accuracy."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Anova:
    """Two-way analysis of variance of values [..., S, N]: the mean and the parts of its variance, [...] each.

    The variance of the mean is (MS_seed + MS_item - MS_residual) / (S N). seed: MS_seed / (S N), S - 1 degrees of
    freedom. item: (MS_item - MS_residual) / (S N), at least 0, N - 1 degrees. residual: MS_residual / (S N), the lower
    bound of the variance. With one seed only `item` remains, the variance over items of these trained models.
    """

    mean: Array
    seed: Array
    item: Array
    residual: Array
    seeds: int
    items: int

    @classmethod
    def of(cls, values: Array) -> Anova:
        """Analyses values [..., S, N], float64, finite, N >= 2."""
        *_, seeds, items = values.shape
        seed_means, item_means, mean = values.mean(-1), values.mean(-2), values.mean((-2, -1))
        if seeds == 1:
            zeros = np.zeros_like(mean)
            return cls(mean, zeros, values[..., 0, :].var(-1, ddof=1) / items, zeros, seeds, items)
        ms_seed, ms_item = items * seed_means.var(-1, ddof=1), seeds * item_means.var(-1, ddof=1)
        residual = values - seed_means[..., None] - item_means[..., None, :] + mean[..., None, None]
        ms_residual, count = np.square(residual).sum((-2, -1)) / ((seeds - 1) * (items - 1)), seeds * items
        seed, item = ms_seed / count, np.maximum(ms_item - ms_residual, 0) / count
        return cls(mean, seed, item, ms_residual / count, seeds, items)

    def half_width(self, alpha: float | Array) -> Array:
        """Returns half the width of the interval of confidence 1 - alpha: sqrt(t_seed^2 seed + t_item^2 item).

        Each part of the variance has its own Student's t (Banerjee 1960): the width is that of t with S - 1 degrees of
        freedom if only seeds vary, with N - 1 if only items do. With Satterthwaite's degrees of freedom, estimated from
        the same few seeds, 21 % of simulated tables of 3 seeds had a false verdict after Holm, here about 3 %
        (docs/statistics.md, tests/test_calibration.py).
        """
        squared = _t(self.items - 1, alpha) ** 2 * self.item
        if self.seeds > 1:
            squared = squared + _t(self.seeds - 1, alpha) ** 2 * self.seed
            squared = np.maximum(squared, _t((self.seeds - 1) * (self.items - 1), alpha) ** 2 * self.residual)
        return np.sqrt(squared)

    def p(self) -> Array:
        """Returns the two-sided p-value [...] of the hypothesis that the true mean is 0.

        It is the alpha at which one end of the interval is 0: 1 if the mean is 0; 0 if nothing varies around
        another mean.
        """
        return _invert(self.mean, self.half_width)

    def interval(self, alpha: float) -> Interval:
        """Returns the interval of one table, values [S, N]."""
        mean, half = float(self.mean), float(self.half_width(alpha))
        return Interval(mean, mean - half, mean + half, self.seeds, self.items)


@dataclass(frozen=True)
class Unpaired:
    """The difference of two means over different items; the numbers of seeds may differ too. Its half width is the root
    of the sum of squares of both half widths: conservative if a seed affects both alike."""

    first: Anova
    second: Anova

    @property
    def mean(self) -> Array:
        return self.first.mean - self.second.mean

    def half_width(self, alpha: float | Array) -> Array:
        """As Anova's."""
        return np.hypot(self.first.half_width(alpha), self.second.half_width(alpha))

    def p(self) -> Array:
        """As Anova's."""
        return _invert(self.mean, self.half_width)

    def interval(self, alpha: float) -> Interval:
        """As Anova's; seeds and items: the smaller number."""
        mean, half = float(self.mean), float(self.half_width(alpha))
        return Interval(mean, mean - half, mean + half, min(self.first.seeds, self.second.seeds),
                        min(self.first.items, self.second.items))


def _invert(mean: Array, half_width: Callable[[float | Array], Array]) -> Array:
    """Returns the alpha whose interval ends at 0, by bisection of its logarithm."""
    size = np.abs(mean)
    low, high = np.full_like(mean, np.log(LEAST)), np.zeros_like(mean)
    for _ in range(60):
        middle = (low + high) / 2
        inside = half_width(np.exp(middle)) >= size
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.where(size == 0, 1.0, np.where(half_width(LEAST) < size, 0.0, np.exp(low)))


def _t(df: float | Array, alpha: float | Array) -> Array:
    """Returns the t that Student's t exceeds in absolute value with probability alpha."""
    return -stdtrit(df, np.asarray(alpha) / 2)


def _table(values: Array) -> Array:
    """Returns values as [S, N] float64. Raises ValueError for values without an interval."""
    values = np.asarray(values, np.float64)
    if values.ndim == 3:
        values = values.mean(2)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(f"expected values [seeds, items] with at least two items, not {list(values.shape)}")
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite have no interval")
    return values


def _difference(a: Array, b: Array) -> Array:
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a paired contrast needs the same seeds, items and samples: {np.shape(a)}, {np.shape(b)}")
    return np.asarray(a, np.float64) - np.asarray(b, np.float64)


def crossed_interval(values: Array, confidence: float = 0.95) -> Interval:
    """Returns the interval of the mean of values [S, N] or [S, N, samples]: the same N items under each of S seeds.
    Items are crossed with seeds, and both are samples (`Anova`). With one seed: Student's t over the items, valid for
    these trained models only. Raises ValueError for NaN, for fewer than two items, and for other shapes."""
    values = _table(values)
    if values.min() == values.max():
        mean = float(values[0, 0])
        return Interval(mean, mean, mean, values.shape[0], values.shape[1])
    return Anova.of(values).interval(1 - confidence)


def paired_contrast(a: Array, b: Array, confidence: float = 0.95) -> Interval:
    """Returns the interval of the mean difference a - b of two rows on the same items under the same seeds."""
    return crossed_interval(_difference(a, b), confidence)


def holm(p: ArrayLike) -> Array:
    """Returns p values adjusted by Holm's step-down (Holm 1979), each family along the last axis [..., contrasts].
    Raises ValueError for values outside 0 to 1."""
    p = np.asarray(p, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p values must be between 0 and 1")
    order, count = np.argsort(p, -1), p.shape[-1]
    stepped = np.take_along_axis(p, order, -1) * np.arange(count, 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, -1), 1), -1)
    return adjusted


def verdicts(pairs: Mapping[str, tuple[Array, Array]], alpha: float = 0.05,
             unpaired: Collection[str] = ()) -> dict[str, Verdict]:
    """Returns the verdict of each contrast (a, b) of a family, a and b [S, N]; negate both if lower is better.

    unpaired: names of contrasts whose a and b have different items; all others share their items. word: "better" (a
    exceeds b), "worse", or "not resolved" if Holm's p exceeds alpha. Intervals are Bonferroni's, of confidence
    1 - alpha / contrasts, cut at 0 if Holm resolves a contrast whose interval crosses 0. needs: how many items at these
    seeds, or seeds at these items, would resolve a true difference of the observed size with 80 % power, at Holm's
    level for the open contrasts. With one seed all this is valid for these trained models only.
    """
    differences = {name: _table(_difference(a, b)) for name, (a, b) in pairs.items() if name not in unpaired}
    anovas = {name: Unpaired(Anova.of(_table(a)), Anova.of(_table(b))) if name in unpaired else
              Anova.of(differences[name]) for name, (a, b) in pairs.items()}
    adjusted = dict(zip(pairs, holm([float(anova.p()) for anova in anovas.values()]).tolist(), strict=True))
    unresolved = sum(p > alpha for p in adjusted.values())
    result, level = {}, alpha / max(len(pairs), 1)
    for name, anova in anovas.items():
        values = differences.get(name)
        interval = anova.interval(level) if values is None else crossed_interval(values, 1 - level)
        low, high, p = interval.low, interval.high, adjusted[name]
        if p > alpha:
            word, needs = "not resolved", "" if values is None else _needs(values, alpha / unresolved)
        elif interval.mean > 0:
            word, needs, low = "better", "", max(low, 0.0)
        else:
            word, needs, high = "worse", "", min(high, 0.0)
        result[name] = Verdict(replace(interval, low=low, high=high), p, word, needs)
    return result


def _needs(values: Array, alpha: float) -> str:
    """Describes what would resolve a true mean of the observed size at level alpha, values [S, N]."""
    (seeds, items), anova = values.shape, Anova.of(values)
    size = abs(float(anova.mean))
    if size == 0:
        return "no difference was seen"
    count = seeds * items
    residual = float(anova.residual) * count
    by_item = float(anova.item) * items
    by_seed = max(float(anova.seed) * count - residual, 0.0) / items
    answers, impossible = [], []

    def search(power: Array, counts: Array, limit: Array, noun: str, given: str) -> None:
        """Adds the first count whose power suffices. limit: the power of infinitely many."""
        if (power >= POWER).any():
            first = int(counts[np.argmax(power >= POWER)])
            answers.append(f"about {_round_up(first):,} items" if noun == "items" else f"{first:,} {noun}")
        elif limit[0] < POWER:
            impossible.append(f"no number of {noun} at {given} would")
        else:
            answers.append(f"more than {counts[-1]:,.0f} {noun}")

    these_seeds, these_items = np.array([seeds]), np.array([items])
    more = _spaced_counts(items, MOST_ITEMS)
    search(_power(size, by_seed, by_item, residual, these_seeds, more, alpha), more,
           _power(size, by_seed, 0.0, 0.0, these_seeds, more[-1:], alpha), "items", f"{seeds} seeds")
    if seeds > 1:
        more = _spaced_counts(seeds, MOST_SEEDS)
        search(_power(size, by_seed, by_item, residual, more, these_items, alpha), more,
               _power(size, 0.0, by_item, 0.0, more[-1:], these_items, alpha), "seeds", f"{items:,} items")
    return "; ".join(filter(None, [" or ".join(answers), " and ".join(impossible)]))


def _power(size: float, by_seed: float, by_item: float, residual: float, seeds: Array, items: Array,
           alpha: float) -> Array:
    """Returns the power to tell a mean of this size from 0, for seeds and items that broadcast to [K]. It is averaged
    over the chi-squared of the seeds' mean square; the items' mean square is taken as known."""
    item = by_item / items + (residual / items if seeds[0] == 1 else 0.0) + 0.0 * seeds
    seed = (by_seed + residual / items) / seeds * (seeds > 1)
    if not (seed + item).any():
        return np.ones(item.shape)
    df = np.maximum(seeds - 1, 1)
    quantiles = chdtri(df, (np.arange(64)[:, None] + 0.5) / 64) / df
    half = np.sqrt(_t(df, alpha) ** 2 * seed * quantiles + _t(items - 1, alpha) ** 2 * item)
    return ndtr((size - half) / np.sqrt(seed + item)).mean(0)


def _spaced_counts(start: int, most: int) -> Array:
    """Returns whole numbers from start to most, at most 2 % apart."""
    if start >= most:
        return np.array([start])
    return np.unique(np.geomspace(start, most, 2 + int(np.log(most / start) / 0.02)).round())


def _round_up(count: float) -> int:
    """Rounds up to two digits."""
    unit = 10 ** max(int(np.log10(count)) - 1, 0)
    return int(np.ceil(count / unit) * unit)


def _resampled(values: Array, rng: np.random.Generator, resamples: int) -> Array:
    """Returns the means [resamples, R] of rows [R, S, N]; a crossed resample draws seeds and items for all rows."""
    rows, seeds, items = values.shape
    means = []
    for start in range(0, resamples, 100):
        many = min(100, resamples - start)
        seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), many)
        drawn = rng.integers(items, size=(many, items)) + items * np.arange(many)[:, None]
        item_counts = np.bincount(drawn.ravel(), minlength=many * items).reshape(many, items).astype(np.float64)
        by_seed = (values.reshape(-1, items) @ item_counts.T).reshape(rows, seeds, many)
        means.append((by_seed * seed_counts.T).sum(1).T / (seeds * items))
    return np.concatenate(means)


def mcnemar(a: Array, b: Array) -> float:
    """Returns the exact two-sided McNemar p of two rows of right (1) or wrong (0), [N] each, on the same items.
    Binomial over the items on which the rows differ; 1 if there are none. Meant for top-1 of sample 0 under one seed:
    it is valid for these two trained models. Raises ValueError for values other than 0 and 1."""
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError(f"McNemar's test needs two rows of 0 and 1 on the same items: {a.shape}, {b.shape}")
    only_a, only_b = int((a > b).sum()), int((a < b).sum())
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def permutation_null(judged: Array, label: Array, rng: np.random.Generator, permutations: int = 1000) -> Null:
    """Returns the accuracy of judged classes [N] or [N, samples] under permuted labels [N]: EEG and image unpaired. The
    mean is exact; the 95 % range and p come from the permutations: p = (1 + those that reach the observed accuracy) /
    (1 + permutations). Raises ValueError for other shapes and for NaN."""
    judged, label = np.asarray(judged), np.asarray(label)
    judged = judged[:, None] if judged.ndim == 1 else judged
    if judged.ndim != 2 or label.shape != judged.shape[:1] or not judged.size:
        raise ValueError(f"expected judged [N] or [N, samples] and label [N], not {judged.shape}, {label.shape}")
    if not (np.isfinite(judged).all() and np.isfinite(label).all()):
        raise ValueError("classes that are not finite cannot be permuted")
    items, samples = judged.shape
    classes, label = np.unique(label, return_inverse=True)
    counts = np.stack([(judged == name).sum(1) for name in classes], 1)
    hits = np.array([counts[np.arange(items), rng.permutation(label)].sum() for _ in range(permutations)])
    observed = counts[np.arange(items), label].sum()
    low, high = np.quantile(hits, [0.025, 0.975]) / (items * samples)
    mean = counts.sum(0) @ np.bincount(label, minlength=len(classes)) / (items**2 * samples)
    return Null(float(mean), float(low), float(high), float((1 + (hits >= observed).sum()) / (1 + permutations)))


def kendall(ours: Array, paper: Array) -> float:
    """Returns Kendall's tau-b of two columns [R]; NaN if all values of one are equal, as scipy does."""
    ours, paper = np.asarray(ours, np.float64), np.asarray(paper, np.float64)
    if ours.ndim != 1 or ours.shape != paper.shape or len(ours) < 2:
        raise ValueError(f"tau needs two columns of the same two rows or more: {ours.shape}, {paper.shape}")
    return float(_kendall(ours[None], paper)[0])


def _kendall(ours: Array, paper: Array) -> Array:
    """Returns tau-b of each of ours [B, R] with paper [R]."""
    if not (np.isfinite(ours).all() and np.isfinite(paper).all()):
        raise ValueError("values that are not finite have no order; leave out rows that were not run")
    i, j = np.triu_indices(len(paper), 1)
    our_signs, paper_signs = np.sign(ours[:, i] - ours[:, j]), np.sign(paper[i] - paper[j])
    pairs = np.sqrt(np.abs(our_signs).sum(1) * np.abs(paper_signs).sum())
    return np.divide(our_signs @ paper_signs, pairs, out=np.full(len(ours), np.nan), where=pairs > 0)


def kendall_interval(ours: Array, paper: Array, rng: np.random.Generator, resamples: int = 1000,
                     confidence: float = 0.95) -> tuple[float, float, float]:
    """Returns tau-b of our rows' means, [R, S, N], with the paper's [R], and its interval from crossed resamples. The
    interval is of percentiles; a resample draws seeds and items for all rows, and counts as 0 if all rows tie. It is
    too narrow at 3 seeds (docs/statistics.md). The paper's numbers are exact. (NaN, NaN, NaN) if tau is NaN."""
    ours, paper = np.asarray(ours, np.float64), np.asarray(paper, np.float64)
    if ours.ndim != 3:
        raise ValueError(f"expected our rows as [rows, seeds, items], not {list(ours.shape)}")
    tau = kendall(ours.mean((1, 2)), paper)
    if np.isnan(tau):
        return tau, tau, tau
    taus = np.nan_to_num(_kendall(_resampled(ours, rng, resamples), paper))
    low, high = np.quantile(taus, [(1 - confidence) / 2, (1 + confidence) / 2])
    return tau, float(low), float(high)
