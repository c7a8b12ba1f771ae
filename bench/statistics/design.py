"""The smallest difference that a design detects, and the seeds that a difference needs."""

from __future__ import annotations

import numpy as np
from scipy.special import chdtri, ndtr

from bench.statistics.anova import Anova, Array, t_quantile
from bench.statistics.moderation import LEAST_SEEDS, PRIOR_DF

POWER = 0.8
MOST_SEEDS = 1_000  # `seeds_for` counts no further


def power(size: float | Array, seed: float | Array, df: float | Array, item: float | Array, items: int,
          alpha: float) -> Array:
    """Returns the power to tell a mean of this size from 0 at level alpha.

    seed, item: the true parts of the variance of the mean; df: degrees of freedom of the estimate of `seed`. All
    broadcast to [...]. Averaged over the chi-squared of that estimate; `item` is taken as known.
    """
    size, seed, df, item = np.broadcast_arrays(*(np.asarray(each, np.float64) for each in (size, seed, df, item)))
    quantiles = chdtri(df, (np.arange(64).reshape(-1, *[1] * df.ndim) + 0.5) / 64) / df
    half = np.sqrt(t_quantile(df, alpha) ** 2 * seed * quantiles + t_quantile(items - 1, alpha) ** 2 * item)
    error = np.sqrt(seed + item)
    certain = np.where(size > 0, 1.0, 0.0)
    return np.where(error > 0, ndtr((size - half) / np.where(error > 0, error, 1)), certain).mean(0)


def detectable(anova: Anova, alpha: float) -> float:
    """Returns the smallest true difference of shares that this design detects at level alpha with a probability of
    POWER, if the parts of the variance are as estimated; infinity if it is more than 1. With one seed: for these
    trained models only."""
    seed, df = (float(anova.seed), float(anova.df)) if anova.seeds > 1 else (0.0, 1.0)
    item = max(float(anova.item), float(anova.residual) - seed)
    sizes = np.linspace(0, 1, 2001)[1:]
    enough = power(sizes, seed, df, item, anova.items, alpha) >= POWER
    return float(sizes[np.argmax(enough)]) if enough.any() else float("inf")


def seeds_for(anova: Anova, size: float, alpha: float) -> int | None:
    """Returns the number of seeds at which a true difference of `size` is detected at level alpha with a probability of
    POWER, on these items; None if no number up to MOST_SEEDS is enough. Raises ValueError for one seed, whose
    variance over seeds is unknown.

    The variance over seeds is taken as estimated. Its degrees of freedom grow by those that each seed adds; if it is
    moderated, with two seeds it would not be.
    """
    if anova.seeds < 2:
        raise ValueError("one seed tells nothing about the variance over seeds")
    counts = np.arange(2, MOST_SEEDS + 1)
    if anova.seed_df is None:
        df = counts - 1.0
    else:
        growth = np.clip(anova.seed_df / (anova.seeds - 1 + PRIOR_DF), 1, 2)  # of two rows, unless one outweighs
        df = np.where(counts < LEAST_SEEDS, 1.0, np.maximum(anova.seed_df + (counts - anova.seeds) * growth, 1.0))
    seed = float(anova.seed) * anova.seeds / counts
    enough = power(size, seed, df, float(anova.item), anova.items, alpha) >= POWER
    return int(counts[np.argmax(enough)]) if enough.any() else None
