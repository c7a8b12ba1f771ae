"""What a design detects: the smallest difference, and the seeds that a difference needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import chdtri, ndtr

from bench.statistics.anova import Anova, t_quantile
from bench.statistics.moderation import LEAST_SEEDS, PRIOR_DF

POWER = 0.8
MOST_SEEDS = 1_000  # `seeds_for` counts no further
CHANCES = (np.arange(64) + 0.5) / 64


def power(size: float, seed: float, df: float, item: float, items: int, alpha: float) -> float:
    """Returns the power to tell a mean of this size > 0 from 0 at level alpha.

    seed, item: the true parts of the variance of the mean; df: degrees of freedom of the estimate of `seed`. Averaged
    over the chi-squared of that estimate; `item` is taken as known.
    """
    error = (seed + item) ** 0.5
    if error == 0:
        return 1.0
    widths = t_quantile(df, alpha) ** 2 * seed * chdtri(df, CHANCES) / df + t_quantile(items - 1, alpha) ** 2 * item
    return float(ndtr((size - np.sqrt(widths)) / error).mean())


def detectable(anova: Anova, alpha: float) -> float:
    """Returns the smallest true difference of shares that this design detects at level alpha with a probability of
    POWER, if the parts of the variance are as estimated; infinity if it is more than 1. With one seed: for these
    trained models only."""
    seed, df = (float(anova.seed), float(anova.df)) if anova.seeds > 1 else (0.0, 1.0)
    item = max(float(anova.item), float(anova.residual) - seed)
    steps = 2000  # of 0.05 points
    first = _first(lambda step: power(step / steps, seed, df, item, anova.items, alpha) >= POWER, 1, steps)
    return float("inf") if first is None else first / steps


def seeds_for(anova: Anova, size: float, alpha: float) -> int | None:
    """Returns the number of seeds at which a true difference of `size` is detected at level alpha with a probability of
    POWER, on these items; None if no number up to MOST_SEEDS is enough. Raises ValueError for one seed, whose
    variance over seeds is unknown.

    The variance over seeds is taken as estimated. If it is moderated, the degrees of freedom grow by those that each
    seed adds to both rows; with two seeds it would not be.
    """
    if anova.seeds < 2:
        raise ValueError("one seed tells nothing about the variance over seeds")
    moderated = anova.seed_df is not None
    growth = float(np.clip(anova.df / (anova.seeds - 1 + PRIOR_DF), 1, 2)) if moderated else 1.0

    def is_enough(count: int) -> bool:
        plain = not moderated or count < LEAST_SEEDS
        df = count - 1.0 if plain else max(float(anova.df) + (count - anova.seeds) * growth, count - 1.0)
        return power(size, float(anova.seed) * anova.seeds / count, df, float(anova.item), anova.items, alpha) >= POWER

    return _first(is_enough, 2, MOST_SEEDS)


def _first(is_enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """Returns the smallest number from low to high that is enough, by bisection; None if the largest is not."""
    if not is_enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low
