"""Moderated variances: the spread over seeds of all rows of a table as the prior for the spread of one (Smyth 2004)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import digamma, fdtrc, polygamma

from bench.statistics.anova import Anova, Array

LEAST_SEEDS, LEAST_ROWS, LEAST_DF = 3, 5, 14  # with less, a contrast uses its own spread alone, the plain test
PRIOR_DF = 1.0  # at most
OUTLYING = 0.05  # p of the F test at which a row keeps its own variance
NO_PRIOR = 1e9  # degrees of freedom of a prior without any spread


def can_pool(rows: int, seeds: int) -> bool:
    """Tells whether so many rows and seeds are enough: LEAST_SEEDS seeds, LEAST_ROWS rows, (R - 1) (S - 1) >= LEAST_DF
    (3 seeds of 8 rows, 4 of 6, 5 of 5). With fewer, too many simulated tables had a false verdict."""
    return seeds >= LEAST_SEEDS and rows >= LEAST_ROWS and (rows - 1) * (seeds - 1) >= LEAST_DF


@dataclass(frozen=True)
class Pool:
    """The variance over seeds of each row [..., R] of a table, for the contrasts of its rows.

    A row's variance is that of its mean under a seed, without the effect of the seed on all rows (Grubbs 1948). It is
    moderated: (d0 s0 + d v) / (d0 + d) with d = S - 1, v the row's own variance, and d0 and s0 of the inverse
    chi-squared prior that fits the rows' variances (Smyth 2004, sec. 6.2). d0 is at most PRIOR_DF. A row whose variance
    exceeds that of the others (F test, p < OUTLYING) keeps its own variance and is no part of the prior.
    Chosen by simulation (docs/statistics.md, tests/calibration.py): without these two limits, with three seeds and one
    row that varies 25 times as much as the others, 22 % of tables had a false verdict.

    variance, df   of each row, [..., R]; `fitted_df` [...]: of the prior, before the limit
    outlying       rows that keep their own variance, [..., R]
    """

    variance: Array
    df: Array
    fitted_df: Array
    outlying: Array
    seeds: int

    @classmethod
    def of(cls, means: Array, accuracy: Array | None = None) -> Pool:
        """Returns the moderated variances of rows from their means [..., R, S] under each seed.

        accuracy: mean of each row [..., R] if the values are right (1) or wrong (0); variances are then pooled as
        multiples of p (1 - p), because that is what a share's variance is proportional to: rows near 0 and 1 vary less.
        Raises ValueError for fewer rows or seeds than `can_pool` asks for.
        """
        *_, rows, seeds = means.shape
        if not can_pool(rows, seeds):
            raise ValueError(f"{rows} rows under {seeds} seeds are too few for a common variance")
        scale = np.ones(means.shape[:-1]) if accuracy is None else accuracy * (1 - accuracy)
        own, spread, kept = _without_outlying(means, scale)
        fitted_df, variance = _prior(spread / scale, kept, seeds - 1)
        df = np.where(kept, np.minimum(fitted_df, PRIOR_DF)[..., None], 0.0)
        moderated = (df * variance[..., None] * scale + (seeds - 1) * own) / (df + seeds - 1)
        return cls(moderated, df + seeds - 1, fitted_df, ~kept, seeds)

    def moderate(self, anova: Anova, first: int | Array, second: int | Array) -> Anova:
        """Returns the analysis of the difference of two rows with the moderated variance of its seeds.

        first, second: the places of the rows. Degrees of freedom by Satterthwaite over the two rows' variances.
        """
        a, b = self.variance[..., first], self.variance[..., second]
        df = (a + b) ** 2 / np.maximum(a**2 / self.df[..., first] + b**2 / self.df[..., second], 1e-300)
        return replace(anova, seed=(a + b) / self.seeds, seed_df=np.maximum(df, self.seeds - 1))


def _without_outlying(means: Array, scale: Array) -> tuple[Array, Array, Array]:
    """Returns each row's own variance, unbiased and at least 0, a positive one, and which rows are not outlying.

    Of at most every fifth row, the one that varies most is compared with the mean of the others, one after another.
    """
    *_, rows, seeds = means.shape
    effects, df = means - means.mean(-1, keepdims=True), seeds - 1
    kept = np.ones(means.shape[:-1], bool)
    for last in [False] * (rows // 5) + [True]:
        count = kept.sum(-1, keepdims=True)
        common = (effects * kept[..., None]).sum(-2, keepdims=True) / count[..., None]
        squares = np.square(effects - common).sum(-1) / df
        mean = np.where(kept, squares, 0).sum(-1, keepdims=True) / (count - 1)
        # of a kept row, `squares` holds (1 - 2/n) of its variance and 1/n of the rows' mean variance
        own = np.where(kept, (squares - mean / count) / (1 - 2 / count), squares - mean / count)
        positive = np.maximum(squares * np.where(kept, count / (count - 1), 1), 1e-12)
        if not last:
            ratio = np.where(kept, positive / scale, -1)
            largest = ratio.argmax(-1)[..., None]
            most = np.take_along_axis(ratio, largest, -1)
            others = (np.where(kept, ratio, 0).sum(-1, keepdims=True) - most) / (count - 1)
            outlying = fdtrc(df, df * (count - 1), most / others) < OUTLYING
            np.put_along_axis(kept, largest, np.take_along_axis(kept, largest, -1) & ~outlying, -1)
    return np.maximum(own, 0), positive, kept


def _prior(variances: Array, kept: Array, df: int) -> tuple[Array, Array]:
    """Returns d0 and s0 [...] of the prior from sample variances [..., R] of the kept rows, each of df degrees."""
    logs = np.log(variances) - digamma(df / 2) + np.log(df / 2)
    count = kept.sum(-1)
    mean = np.where(kept, logs, 0).sum(-1) / count
    spread = np.where(kept, np.square(logs - mean[..., None]), 0).sum(-1) / (count - 1) - polygamma(1, df / 2)
    prior = np.where(spread > 0, np.minimum(2 * _inverse_trigamma(np.maximum(spread, 1e-8)), NO_PRIOR), NO_PRIOR)
    return prior, np.exp(mean + digamma(prior / 2) - np.log(prior / 2))


def _inverse_trigamma(values: Array) -> Array:
    """Returns y with trigamma(y) = values > 0, by Newton's method (Smyth 2004, appendix)."""
    y = 0.5 + 1 / values
    for _ in range(12):
        trigamma = polygamma(1, y)
        y = y + trigamma * (1 - trigamma / values) / polygamma(2, y)
    return y
