"""Agreement of the order of rows: Kendall's tau-b, its null within groups of rows, and what the seeds leave open."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain, permutations, product
from math import factorial, prod

import numpy as np

from bench.statistics.anova import Anova, Array
from bench.statistics.families import holm

ORDERS = 10_000  # of the null: all orders if there are no more, else so many random ones
ROUNDING = 1e-9


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b of our rows' order with the paper's, beside its null (`agreements`).

    name           "all", "within" (all pairs of rows of one group), or the group whose pairs are counted
    rows           how many rows are compared
    low, high      the values that tau can have if each pair of rows that the seeds do not resolve has either order
    expected       the mean under the null; null_low, null_high: its 2.5 and 97.5 % quantiles
    p              one-sided: the share of the orders of the null whose tau is at least as high
    """

    name: Hashable
    rows: int
    tau: float
    low: float
    high: float
    expected: float
    null_low: float
    null_high: float
    p: float


def kendall(ours: Array, paper: Array) -> float:
    """Returns Kendall's tau-b of two columns [R]; NaN if all values of one are equal, as scipy does."""
    ours, paper = np.asarray(ours, np.float64), np.asarray(paper, np.float64)
    if ours.ndim != 1 or ours.shape != paper.shape or len(ours) < 2:
        raise ValueError(f"tau needs two columns of the same two rows or more: {ours.shape}, {paper.shape}")
    return float(_kendall(ours[None], paper)[0])


def _kendall(ours: Array, paper: Array, counted: Array | slice = slice(None)) -> Array:
    """Returns tau-b of each of ours [B, R] with paper [R]; counted: which of the pairs i < j are compared."""
    if not (np.isfinite(ours).all() and np.isfinite(paper).all()):
        raise ValueError("values that are not finite have no order; leave out rows that were not run")
    i, j = (side[counted] for side in np.triu_indices(len(paper), 1))
    our_signs, paper_signs = np.sign(ours[:, i] - ours[:, j]), np.sign(paper[i] - paper[j])
    pairs = np.sqrt(np.abs(our_signs).sum(1) * np.abs(paper_signs).sum())
    return np.divide(our_signs @ paper_signs, pairs, out=np.full(len(ours), np.nan), where=pairs > 0)


def group_orders(groups: Sequence[Hashable], rng: np.random.Generator, most: int = ORDERS) -> tuple[Array, bool]:
    """Returns orders [B, R] of R rows that permute the rows within each group only, and whether they are all orders.

    All orders, each once, if there are at most `most`; else `most` random ones.
    """
    places = [[row for row, each in enumerate(groups) if each == group] for group in dict.fromkeys(groups)]
    is_complete = prod(factorial(len(rows)) for rows in places) <= most
    if is_complete:
        orders = np.array([[*chain.from_iterable(each)] for each in product(*map(permutations, places))])
    else:
        orders = np.hstack([rng.permuted(np.tile(rows, (most, 1)), axis=1) for rows in places])
    return orders[:, np.argsort([*chain.from_iterable(places)])], is_complete


def resolved_signs(analyses: Anova, alpha: float) -> Array:
    """Returns for differences [P] of rows 1, -1, or 0 if Holm's p over all of them exceeds alpha."""
    return np.where(holm(analyses.p()) <= alpha, np.sign(analyses.mean), 0.0)


def agreements(ours: Array, paper: Array, groups: Sequence[Hashable], signs: Array, rng: np.random.Generator,
               most: int = ORDERS) -> list[Agreement]:
    """Returns tau-b of our rows [R] with the paper's [R], over all pairs and over the pairs within the groups [R].

    Null: only the group of a row matters, so that within each group every order of our values is equally likely
    (`group_orders`). signs [P]: which of the pairs i < j, in the order of numpy's triu_indices, are resolved
    (`resolved_signs`). If these are right in at least 1 - alpha of all tables, [low, high] holds the tau of the true
    means in at least 1 - alpha of them, however many pairs are not resolved. The paper's numbers are exact. With one
    group there is only "all". A group whose tau is not defined (one row, or only ties) is left out.
    """
    ours, paper = np.asarray(ours, np.float64), np.asarray(paper, np.float64)
    i, j = np.triu_indices(len(paper), 1)
    names = [*dict.fromkeys(groups)]
    which = np.array([names.index(group) for group in groups])
    orders, is_complete = group_orders(groups, rng, most)
    drawn, paper_signs = ours[orders], np.sign(paper[i] - paper[j])
    counted: dict[Hashable, tuple[int, Array]] = {"all": (len(paper), np.full(len(i), True))}
    if len(names) > 1:
        within = which[i] == which[j]
        counted["within"] = (int(np.isin(which, which[i][within]).sum()), within)
        counted |= {name: (int((which == place).sum()), within & (which[i] == place))
                    for place, name in enumerate(names)}
    made = []
    for name, (rows, pairs) in counted.items():
        tau, null = float(_kendall(ours[None], paper, pairs)[0]), _kendall(drawn, paper, pairs)
        if np.isnan(tau):
            continue
        scale = np.sqrt(pairs.sum() * np.abs(paper_signs[pairs]).sum())
        known, is_open = (signs * paper_signs)[pairs].sum(), np.abs(paper_signs[pairs & (signs == 0)]).sum()
        reached = int((null >= tau - ROUNDING).sum())
        p = reached / len(null) if is_complete else (1 + reached) / (1 + len(null))
        low, high = np.quantile(null, [0.025, 0.975])
        made.append(Agreement(name, rows, tau, float((known - is_open) / scale), float((known + is_open) / scale),
                              float(null.mean()), float(low), float(high), p))
    return made
