"""Accuracy under permuted labels, and McNemar's test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from bench.statistics.anova import Array


@dataclass(frozen=True)
class Null:
    """The accuracy under permuted labels: mean, 95 % range, and one-sided p of the observed accuracy."""

    mean: float
    low: float
    high: float
    p: float


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
