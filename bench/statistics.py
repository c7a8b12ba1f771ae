"""Intervals, contrasts, verdicts and nulls for numbers that were measured on the same items under several seeds.

Values are [S, N]: S training seeds crossed with N items. An item is what was drawn by itself, a test picture. Samples,
and the trials of several subjects who saw the same picture, are averaged within the item first (a third axis is
averaged here), so that what is said holds for new pictures and new trainings, and for these subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import bdtr, chdtri, ndtr, stdtridf, stdtrit

POWER = 0.8
MOST_ITEMS, MOST_SEEDS = 1_000_000, 1_000  # beyond these `needs` does not count
LEAST = 1e-120  # a smaller p is 0


@dataclass(frozen=True)
class Interval:
    """A mean with its interval. `df`: of the Student's t that is as wide; infinite where nothing varies."""

    mean: float
    low: float
    high: float
    seeds: int
    items: int
    df: float


@dataclass(frozen=True)
class Verdict:
    """What a contrast says within its family: see `verdicts`. `p`: Holm-adjusted. `needs`: "" once it is resolved."""

    interval: Interval
    p: float
    word: str
    needs: str


@dataclass(frozen=True)
class Null:
    """What permuted labels give: mean, 95 % range, and p that they reach what was observed (one-sided)."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Anova:
    """The two-way analysis of variance of values [..., S, N]: a mean and parts of its variance, [...] each.

    The variance of the mean is (MS_seed + MS_item - MS_residual) / (S N). `seed` is MS_seed / (S N), with S - 1
    degrees of freedom; `item` is (MS_item - MS_residual) / (S N), not below 0, with N - 1; `residual` is
    MS_residual / (S N), below which the variance is not set. With one seed only `item` is left, the variance over
    items of these trained models.
    """

    mean: np.ndarray
    seed: np.ndarray
    item: np.ndarray
    residual: np.ndarray
    seeds: int
    items: int

    @classmethod
    def of(cls, values: np.ndarray) -> Anova:
        """Of values [..., S, N], float64, finite, N >= 2."""
        *_, seeds, items = values.shape
        seed_means, item_means, mean = values.mean(-1), values.mean(-2), values.mean((-2, -1))
        if seeds == 1:
            none = np.zeros_like(mean)
            return cls(mean, none, values[..., 0, :].var(-1, ddof=1) / items, none, seeds, items)
        ms_seed = items * seed_means.var(-1, ddof=1)
        ms_item = seeds * item_means.var(-1, ddof=1)
        residual = values - seed_means[..., None] - item_means[..., None, :] + mean[..., None, None]
        ms_residual = np.square(residual).sum((-2, -1)) / ((seeds - 1) * (items - 1))
        by_seed, by_item, left = ms_seed, np.maximum(ms_item - ms_residual, 0), ms_residual
        count = seeds * items
        return cls(mean, by_seed / count, by_item / count, left / count, seeds, items)

    def half(self, alpha: float | np.ndarray) -> np.ndarray:
        """Half the width of the interval of confidence 1 - alpha: sqrt(t_seed^2 seed + t_item^2 item).

        Each part of the variance is multiplied by the square of its own Student's t (Banerjee 1960): as wide as
        t with S - 1 degrees of freedom where only seeds vary, as t with N - 1 where only items do. Satterthwaite's
        degrees of freedom are estimated from the same few seeds, come out too large where the seeds happen to agree,
        and fail where a family needs them, far out in the tail. Measured on 5,000 tables of Table 2's 15 contrasts
        with the reference run's variances and no effect (tests/test_calibration.py): any false verdict after Holm in
        21 % of tables of 3 seeds and 10 % of 5 by Satterthwaite, about 3 % here; single contrasts at 5 %: 7 and 5.8 %,
        4.0 and 4.3 % here. It is cautious where seeds do not matter: 95 % intervals then hold the truth in
        97 % of cases at 3 seeds, 99 % at 2.
        """
        squared = _t(self.items - 1, alpha) ** 2 * self.item
        if self.seeds > 1:
            squared = squared + _t(self.seeds - 1, alpha) ** 2 * self.seed
            squared = np.maximum(squared, _t((self.seeds - 1) * (self.items - 1), alpha) ** 2 * self.residual)
        return np.sqrt(squared)

    def variance(self) -> np.ndarray:
        """Variance of the mean, [...]."""
        return np.maximum(self.seed + self.item, self.residual)

    def p(self) -> np.ndarray:
        """Two-sided p that the true mean is 0, [...]: the alpha whose interval ends at 0.

        1 where the mean is 0; 0 where it is not and nothing varies.
        """
        return _reached(self.mean, self.half)

    def interval(self, alpha: float) -> Interval:
        """Of one table, values [S, N]."""
        mean, half = float(self.mean), float(self.half(alpha))
        df = float(stdtridf(1 - alpha / 2, half / np.sqrt(self.variance()))) if half > 0 else np.inf
        return Interval(mean, mean - half, mean + half, self.seeds, self.items, df)


@dataclass(frozen=True)
class Apart:
    """The difference of two means over other items each, under the same number of seeds or another: nothing is paired.

    Half the width of its interval is the root of the sum of squares of both halves. Where both share what a seed
    decides, that is cautious.
    """

    one: Anova
    other: Anova

    @property
    def mean(self) -> np.ndarray:
        return self.one.mean - self.other.mean

    def half(self, alpha: float | np.ndarray) -> np.ndarray:
        """As of Anova."""
        return np.hypot(self.one.half(alpha), self.other.half(alpha))

    def p(self) -> np.ndarray:
        """As of Anova."""
        return _reached(self.mean, self.half)

    def interval(self, alpha: float) -> Interval:
        """Seeds and items: the fewer of both sides. `df`: infinite, as no single Student's t is as wide."""
        mean, half = float(self.mean), float(self.half(alpha))
        return Interval(mean, mean - half, mean + half, min(self.one.seeds, self.other.seeds),
                        min(self.one.items, self.other.items), np.inf)


def _reached(mean: np.ndarray, half: Callable[[float | np.ndarray], np.ndarray]) -> np.ndarray:
    """The alpha whose interval, of half the width half(alpha), ends at 0."""
    size, one = np.abs(mean), np.ones_like(mean)
    low, high = np.log(LEAST) * one, 0 * one
    for _ in range(60):
        middle = (low + high) / 2
        inside = half(np.exp(middle)) >= size
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    p = np.where(half(LEAST) < size, 0.0, np.exp(low))
    return np.where(size == 0, 1.0, p)


def _t(df: float | np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
    """t such that Student's t lies outside -t and t with probability alpha."""
    return -stdtrit(df, np.asarray(alpha) / 2)


def _table(values: np.ndarray) -> np.ndarray:
    """Values as [S, N] float64. Raises ValueError for what has no interval."""
    values = np.asarray(values, np.float64)
    if values.ndim == 3:
        values = values.mean(2)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(f"expected values [seeds, items] with at least two items, not {list(values.shape)}")
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite have no interval")
    return values


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a paired contrast needs the same seeds, items and samples: {np.shape(a)}, {np.shape(b)}")
    return np.asarray(a, np.float64) - np.asarray(b, np.float64)


def crossed_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Interval of the mean of values [S, N] or [S, N, samples]: the same N items under each of S seeds.

    Items are crossed with seeds; both are drawn from more: see `Anova`. With one seed: Student's t over the items,
    which holds for these trained models only. Raises ValueError for NaN, for fewer than two items, another shape.
    """
    values = _table(values)
    if values.min() == values.max():
        only = float(values[0, 0])
        return Interval(only, only, only, values.shape[0], values.shape[1], float("inf"))
    return Anova.of(values).interval(1 - confidence)


def paired_contrast(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Interval:
    """Interval of the mean difference a - b of two rows measured on the same items under the same seeds."""
    return crossed_interval(_difference(a, b), confidence)


def holm(p: Sequence[float]) -> list[float]:
    """The p values of a family, adjusted by Holm's step-down (Holm 1979), in their order."""
    return holm_last(np.asarray(p, np.float64)).tolist()


def holm_last(p: np.ndarray) -> np.ndarray:
    """`holm` of many families at once, along the last axis of p [..., contrasts]. Raises ValueError outside 0 to 1."""
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p values lie between 0 and 1")
    order, count = np.argsort(p, -1), p.shape[-1]
    stepped = np.take_along_axis(p, order, -1) * np.arange(count, 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, -1), 1), -1)
    return adjusted


def verdicts(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], alpha: float = 0.05,
             apart: Collection[str] = ()) -> dict[str, Verdict]:
    """The verdict of each contrast (a, b) of a family, a and b [S, N] each; negate both where lower is better. Those
    named in `apart` were measured on other items each (`Apart`), all others on the same.

    "better": a exceeds b; "worse"; "not resolved" where Holm's adjusted p exceeds alpha. The intervals are
    Bonferroni's, each of confidence 1 - alpha / contrasts; where Holm resolves a contrast whose interval still reaches
    across 0, it ends at 0 (which is then outside it), so that interval and word never disagree. Measured on tables with
    the reference run's means and variances: all 15 hold together in 97 % of them. `needs` says how many items at
    these seeds, or seeds at these items, would resolve a true difference of the observed size with 80 % power, at the
    level that Holm sets the contrasts still open. With one seed all this holds for these trained models.
    """
    differences = {name: _table(_difference(a, b)) for name, (a, b) in pairs.items() if name not in apart}
    anovas = {name: Apart(Anova.of(_table(a)), Anova.of(_table(b))) if name in apart else Anova.of(differences[name])
              for name, (a, b) in pairs.items()}
    adjusted = dict(zip(pairs, holm([float(anova.p()) for anova in anovas.values()]), strict=True))
    unresolved = sum(p > alpha for p in adjusted.values())
    found = {}
    for name, anova in anovas.items():
        values = differences.get(name)
        level = alpha / len(pairs)
        interval = anova.interval(level) if values is None else crossed_interval(values, 1 - level)
        low, high, p = interval.low, interval.high, adjusted[name]
        if p > alpha:
            word, needs = "not resolved", "" if values is None else _needs(values, alpha / unresolved)
        elif interval.mean > 0:
            word, needs, low = "better", "", max(low, 0.0)
        else:
            word, needs, high = "worse", "", min(high, 0.0)
        found[name] = Verdict(replace(interval, low=low, high=high), p, word, needs)
    return found


def _needs(values: np.ndarray, alpha: float) -> str:
    """What would resolve a true mean of the observed size at level alpha, values [S, N]."""
    (seeds, items), anova = values.shape, Anova.of(values)
    size = abs(float(anova.mean))
    if size == 0:
        return "no difference was seen"
    count = seeds * items
    residual = float(anova.residual) * count
    by_item = float(anova.item) * items
    by_seed = max(float(anova.seed) * count - residual, 0.0) / items
    answers, never = [], []

    def ask(power: np.ndarray, counts: np.ndarray, ever: np.ndarray, what: str, where: str) -> None:
        """`power` of these counts; `ever`: of more than could be counted."""
        if (power >= POWER).any():
            found = int(counts[np.argmax(power >= POWER)])
            answers.append(f"about {_rounded(found):,} items" if what == "items" else f"{found:,} {what}")
        elif ever[0] < POWER:
            never.append(f"no number of {what} at {where} would")
        else:
            answers.append(f"more than {counts[-1]:,.0f} {what}")

    these_seeds, these_items = np.array([seeds]), np.array([items])
    more = _counts(items, MOST_ITEMS)
    ask(_power(size, by_seed, by_item, residual, these_seeds, more, alpha), more,
        _power(size, by_seed, 0.0, 0.0, these_seeds, more[-1:], alpha), "items", f"{seeds} seeds")
    if seeds > 1:
        more = _counts(seeds, MOST_SEEDS)
        ask(_power(size, by_seed, by_item, residual, more, these_items, alpha), more,
            _power(size, 0.0, by_item, 0.0, more[-1:], these_items, alpha), "seeds", f"{items:,} items")
    return "; ".join(filter(None, [" or ".join(answers), " and ".join(never)]))


def _power(size: float, by_seed: float, by_item: float, residual: float, seeds: np.ndarray, items: np.ndarray,
           alpha: float) -> np.ndarray:
    """Chance that a mean of this size is told from 0, for seeds and items that broadcast to [K].

    Averaged over the chi-squared of the seeds' mean square; that of the items' is taken as known.
    """
    item = by_item / items + (residual / items if seeds[0] == 1 else 0.0) + 0.0 * seeds
    seed = (by_seed + residual / items) / seeds * (seeds > 1)
    if not (seed + item).any():
        return np.ones(item.shape)
    df = np.maximum(seeds - 1, 1)
    drawn = chdtri(df, (np.arange(64)[:, None] + 0.5) / 64) / df
    half = np.sqrt(_t(df, alpha) ** 2 * seed * drawn + _t(items - 1, alpha) ** 2 * item)
    return ndtr((size - half) / np.sqrt(seed + item)).mean(0)


def _counts(start: int, most: int) -> np.ndarray:
    """Whole numbers from start to most, each or 2 % apart."""
    if start >= most:
        return np.array([start])
    return np.unique(np.geomspace(start, most, 2 + int(np.log(most / start) / 0.02)).round())


def _rounded(count: float) -> int:
    """To two digits, upwards."""
    unit = 10 ** max(int(np.log10(count)) - 1, 0)
    return int(np.ceil(count / unit) * unit)


def _resampled(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Means [resamples, R] of rows [R, S, N] under crossed resamples of seeds and items that all rows share."""
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


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact two-sided McNemar p of two rows of right (1) or wrong (0), [N] each, on the same items.

    The binomial of the items on which they differ; 1 where they differ on none. Meant for plain top-1 of sample 0
    under one seed: it holds for these two trained models. Raises ValueError for values other than 0 and 1.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError(f"McNemar's test needs two rows of 0 and 1 on the same items: {a.shape}, {b.shape}")
    only_a, only_b = int((a > b).sum()), int((a < b).sum())
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def permutation_null(judged: np.ndarray, label: np.ndarray, rng: np.random.Generator,
                     permutations: int = 1000) -> Null:
    """Accuracy of judged classes [N] or [N, samples] when the labels [N] are permuted: EEG and picture come apart.

    The mean is exact, the 95 % range and p are of the permutations; p = (1 + those that reach the observed accuracy)
    / (1 + permutations). Raises ValueError for shapes that do not fit and for NaN.
    """
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


def kendall(ours: np.ndarray, paper: np.ndarray) -> float:
    """Kendall's tau-b of two columns [R]; NaN where all values of one are equal, as scipy has it."""
    ours, paper = np.asarray(ours, np.float64), np.asarray(paper, np.float64)
    if ours.ndim != 1 or ours.shape != paper.shape or len(ours) < 2:
        raise ValueError(f"tau needs two columns of the same two rows or more: {ours.shape}, {paper.shape}")
    return float(_kendall(ours[None], paper)[0])


def _kendall(ours: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """tau-b of each of ours [B, R] with paper [R]."""
    if not (np.isfinite(ours).all() and np.isfinite(paper).all()):
        raise ValueError("values that are not finite have no order; leave rows out that were not run")
    i, j = np.triu_indices(len(paper), 1)
    mine, theirs = np.sign(ours[:, i] - ours[:, j]), np.sign(paper[i] - paper[j])
    pairs = np.sqrt(np.abs(mine).sum(1) * np.abs(theirs).sum())
    return np.divide(mine @ theirs, pairs, out=np.full(len(ours), np.nan), where=pairs > 0)


def kendall_interval(ours: np.ndarray, paper: np.ndarray, rng: np.random.Generator, resamples: int = 1000,
                     confidence: float = 0.95) -> tuple[float, float, float]:
    """tau-b of our rows' means, [R, S, N], with the paper's [R], and its interval from crossed resamples.

    A resample draws seeds and items that all rows share; the interval is of its percentiles (on tables like the
    reference run's it holds the tau of the true means in 88 % of cases at 3 seeds, 92 % at 5). The paper's numbers
    are taken as they are. A resample in which all rows tie counts as 0. (NaN, NaN, NaN) where tau is.
    """
    ours, paper = np.asarray(ours, np.float64), np.asarray(paper, np.float64)
    if ours.ndim != 3:
        raise ValueError(f"expected our rows as [rows, seeds, items], not {list(ours.shape)}")
    tau = kendall(ours.mean((1, 2)), paper)
    if np.isnan(tau):
        return tau, tau, tau
    taus = np.nan_to_num(_kendall(_resampled(ours, rng, resamples), paper))
    low, high = np.quantile(taus, [(1 - confidence) / 2, (1 + confidence) / 2])
    return tau, float(low), float(high)
