"""Intervals for numbers that were measured on the same items under several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from math import atan, exp, lgamma, pi, sqrt, tan

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean with its interval. `df`: degrees of freedom of Student's t; infinite where nothing varies."""

    mean: float
    low: float
    high: float
    seeds: int
    items: int
    df: float


def crossed_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Interval of the mean of values [S, N] or [S, N, samples]: the same N items under each of S seeds.

    Items are crossed with seeds; both are drawn from more. Samples are averaged within an item first. The variance of
    the mean is (MS_seed + MS_item - MS_residual) / (S N), never below what the residual alone makes, with
    Satterthwaite's degrees of freedom. With one seed: Student's t over the items, which holds for this seed only.
    Raises ValueError for NaN, for fewer than two items and for another shape.
    """
    values = np.asarray(values, np.float64)
    if values.ndim == 3:
        values = values.mean(2)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(f"expected values [seeds, items] with at least two items, not {list(values.shape)}")
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite have no interval")
    seeds, items = values.shape
    mean = float(values.mean())
    if values.min() == values.max():
        return Interval(float(values[0, 0]), float(values[0, 0]), float(values[0, 0]), seeds, items, float("inf"))
    if seeds == 1:
        variance, df = values.var(ddof=1) / items, items - 1.0
    else:
        variance, df = _crossed(values)
    half = t_quantile(df, confidence) * sqrt(variance)
    return Interval(mean, mean - half, mean + half, seeds, items, float(df))


def paired_contrast(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Interval:
    """Interval of the mean difference a - b of two rows measured on the same items under the same seeds."""
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a paired contrast needs the same seeds, items and samples: {np.shape(a)}, {np.shape(b)}")
    return crossed_interval(np.asarray(a, np.float64) - np.asarray(b, np.float64), confidence)


def _crossed(values: np.ndarray) -> tuple[float, float]:
    """Variance of the mean and its degrees of freedom, from the two-way analysis of variance."""
    seeds, items = values.shape
    seed_means, item_means = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    residual = values - seed_means - item_means + values.mean()
    df = np.array([seeds - 1, items - 1, (seeds - 1) * (items - 1)])
    squares = np.array([items * seed_means.var() * seeds, seeds * item_means.var() * items, np.square(residual).sum()])
    ms = squares / df
    total = max(ms[0] + ms[1] - ms[2], ms[2])
    return total / (seeds * items), max(total**2 / (ms**2 / df).sum(), 1.0)


def t_quantile(df: float, confidence: float = 0.95) -> float:
    """t such that Student's t with df >= 1 lies within -t and t with this probability, up to 0.95.

    With t = sqrt(df) tan(angle) the density is proportional to cos(angle) ** (df - 1). That needs no scipy, whose
    import would take a third of the second that a table may take.
    """
    if not (df >= 1 and 0 < confidence <= 0.95):
        raise ValueError(f"df={df}, confidence={confidence}: expected df >= 1 and a confidence in (0, 0.95]")
    nodes, weights = np.polynomial.legendre.leggauss(64)
    whole = sqrt(pi) / 2 * exp(lgamma(df / 2) - lgamma((df + 1) / 2))

    def within(angle: float) -> float:
        at = (nodes + 1) * angle / 2
        return float(weights @ np.exp((df - 1) * np.log(np.cos(at)))) * angle / 2 / whole

    low, high = 0.0, atan(13 / sqrt(df))  # t is 12.7 at df = 1
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < confidence else (low, middle)
    return sqrt(df) * tan(low)
