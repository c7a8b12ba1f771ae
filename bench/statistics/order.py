"""Agreement of the order of rows: Kendall's tau-b, with crossed resamples."""

from __future__ import annotations

import numpy as np

from bench.statistics.anova import Array


def crossed_resamples(values: Array, rng: np.random.Generator, resamples: int) -> Array:
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
    taus = np.nan_to_num(_kendall(crossed_resamples(ours, rng, resamples), paper))
    low, high = np.quantile(taus, [(1 - confidence) / 2, (1 + confidence) / 2])
    return tau, float(low), float(high)
