"""Verdicts on the contrasts of a family: Holm's p, simultaneous intervals, and what the design can detect."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from bench.statistics.anova import Anova, Array, Interval, Unpaired, as_table, paired_difference
from bench.statistics.design import detectable, seeds_for
from bench.statistics.moderation import Pool

LEAST_ITEMS = 20  # for a verdict
SIZES = (0.05, 0.10)  # differences for which `Verdict.seeds_for` is given


@dataclass(frozen=True)
class Verdict:
    """The result of a contrast within its family (`verdicts`).

    p            adjusted by Holm over the family
    word         better, worse, not resolved, or too few items
    detectable   the smallest true difference (a share) that is detected with 80 % power; NaN: not known
    seeds_for    by difference (SIZES): the seeds that detect it with 80 % power on these items; None: no number does
    moderated    whether the variance over seeds also uses the other rows of the table (`Pool`)
    """

    interval: Interval
    p: float
    word: str
    detectable: float
    seeds_for: Mapping[float, int | None]
    moderated: bool = False


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


def verdicts(pairs: Mapping[str, tuple[Array, Array]], alpha: float = 0.05, unpaired: Collection[str] = (),
             pools: Mapping[str, tuple[Pool, int, int]] | None = None) -> dict[str, Verdict]:
    """Returns the verdict of each contrast (a, b) of a family, a and b shares [S, N]; negate both if lower is better.

    unpaired: names of contrasts whose a and b have different items; all others share their items. pools: for a name,
    the pool of both rows and their places in it; the test is then moderated, without it plain (Student's t with S - 1
    degrees of freedom for the seeds). word: "better" (a exceeds b), "worse", "not resolved" if Holm's p exceeds alpha,
    or "too few items" with fewer than LEAST_ITEMS items (p is 1 and counts in the family). Intervals are Bonferroni's,
    of confidence 1 - alpha / contrasts, cut at 0 if Holm resolves a contrast whose interval crosses 0; what is
    detectable is so at that level too. With one seed all this is valid for these trained models only.
    """
    anovas = {name: _analysis(a, b, name in unpaired, (pools or {}).get(name)) for name, (a, b) in pairs.items()}
    return _judged(anovas, alpha, {name for name, anova in anovas.items() if _items(anova) < LEAST_ITEMS})


def verdicts_over_worlds(differences: Mapping[str, Array], alpha: float = 0.05) -> dict[str, Verdict]:
    """Returns the verdict of each contrast of a family, from its differences of shares in W worlds, [W] each, W >= 2.

    The worlds are the sample: Student's t with W - 1 degrees of freedom. The variance over worlds includes that over
    the seeds and items in each. Words, intervals and p: as `verdicts`; seeds, detectable and seeds_for count worlds.
    """
    anovas = {}
    for name, values in differences.items():
        values = as_table(np.asarray(values, np.float64)[None])[0]
        count, zero = len(values), np.zeros(())
        anovas[name] = Anova(values.mean(), values.var(ddof=1) / count, zero, zero, count, LEAST_ITEMS)
    return _judged(anovas, alpha, set())


def _judged(anovas: Mapping[str, Anova | Unpaired], alpha: float, few: Collection[str]) -> dict[str, Verdict]:
    """Returns the verdicts of a family. few: names of contrasts with too few items."""
    p = [1.0 if name in few else float(anova.p()) for name, anova in anovas.items()]
    adjusted = dict(zip(anovas, holm(p).tolist(), strict=True))
    result, level = {}, alpha / max(len(anovas), 1)
    for name, anova in anovas.items():
        interval, p_value = anova.interval(level), adjusted[name]
        low, high = interval.low, interval.high
        if p_value > alpha:
            word = "too few items" if name in few else "not resolved"
        elif interval.mean > 0:
            word, low = "better", max(low, 0.0)
        else:
            word, high = "worse", min(high, 0.0)
        smallest, seeds = float("nan"), {}
        if isinstance(anova, Anova) and name not in few:
            smallest = detectable(anova, level)
            seeds = {size: seeds_for(anova, size, level) for size in SIZES} if anova.seeds > 1 else {}
        result[name] = Verdict(replace(interval, low=low, high=high), p_value, word, smallest, seeds,
                               isinstance(anova, Anova) and anova.seed_df is not None)
    return result


def _analysis(a: Array, b: Array, unpaired: bool, pool: tuple[Pool, int, int] | None) -> Anova | Unpaired:
    if unpaired:
        return Unpaired(Anova.of(as_table(a)).of_shares(), Anova.of(as_table(b)).of_shares())
    anova = Anova.of(as_table(paired_difference(a, b))).of_shares()
    return anova if pool is None else pool[0].moderate(anova, *pool[1:])


def _items(anova: Anova | Unpaired) -> int:
    return anova.items if isinstance(anova, Anova) else min(anova.first.items, anova.second.items)
