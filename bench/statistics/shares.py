"""Intervals of shares and of their differences, which hold near 0 and 1 too."""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from bench.statistics.anova import Anova, Array, Interval, as_table, paired_difference, t_quantile


def share_interval(values: Array, confidence: float = 0.95) -> Interval:
    """Returns the interval of the mean of values [S, N] or [S, N, samples] from 0 to 1: Clopper-Pearson's for an
    effective number of items (Korn and Graubard 1998).

    The effective number is the one whose binomial interval is as wide as the crossed one (`crossed_interval`), which
    takes in the seeds; where all values are 0, or all are 1, it is N. So 80 of 80 right items give 95.5 to 100 %. It is
    at most N (1 + N min(p, 1 - p)), so that probabilities near 0, which differ little, have an interval with a width.
    Raises ValueError for values outside 0 to 1, and as `crossed_interval`.
    """
    values = as_table(values)
    if values.min() < 0 or values.max() > 1:
        raise ValueError("a share lies between 0 and 1")
    return _bounded(Anova.of(values), 1 - confidence)


def balanced_interval(values: Array, labels: Array, confidence: float = 0.95) -> Interval:
    """Returns the interval, as `share_interval`, of the mean over classes of the mean within a class (balanced
    accuracy): each class has the same weight, however many items it has. values [S, N]; labels [N].

    The variance over items is that within the classes, with n - 1 degrees of freedom each; an item that is alone in
    its class is compared with the mean of all classes.
    """
    values = as_table(values)
    classes, number = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.bincount(number)
    within = np.stack([values[:, number == place].mean(1) for place in range(len(classes))], 1)
    mean = within.mean(1, keepdims=True)
    weights = values.shape[1] / (len(classes) * counts) * np.sqrt(counts / np.maximum(counts - 1, 1))
    parts = weights[number] * (values - np.where(counts > 1, within, mean)[:, number])
    return _bounded(Anova.of(mean + parts - parts.mean(1, keepdims=True)), 1 - confidence)


def share_difference(a: Array, b: Array, confidence: float = 0.95) -> Interval:
    """Returns the interval of the mean difference a - b of two rows of shares on the same items under the same seeds;
    it has a width where no item differs, too (`Anova.of_shares`)."""
    return Anova.of(as_table(paired_difference(a, b))).of_shares().interval(1 - confidence)


def _bounded(anova: Anova, alpha: float) -> Interval:
    """Returns Clopper-Pearson's interval for the effective number of items of an analysis of shares."""
    mean, half = min(max(float(anova.mean), 0.0), 1.0), float(anova.half_width(alpha))
    items = float(anova.items)
    if half > 0 and 0 < mean < 1:
        items = mean * (1 - mean) * float(t_quantile(anova.items - 1, alpha)) ** 2 / half**2
        items = min(items, anova.items * (1 + anova.items * min(mean, 1 - mean)))
    hits = mean * items
    low = float(betaincinv(hits, items - hits + 1, alpha / 2)) if mean > 0 else 0.0
    high = float(betaincinv(hits + 1, items - hits, 1 - alpha / 2)) if mean < 1 else 1.0
    return Interval(mean, low, high, anova.seeds, anova.items)
