"""Simulates tables: how often a verdict is false, how often an interval holds, how often a difference is detected.

    python tests/calibration.py        prints the table of docs/statistics.md; nothing is trained

A table has 15 rows and 400 items and the contrasts of Table 2. What is drawn are the sufficient statistics: each row's
mean under each seed, and the part of the items. A row's mean varies over seeds by 3 points (standard deviation), the
seed's effect on all rows by 3 more; items add a standard error of 1.2 points to a difference. Rows near 0 and 100 %
are drawn item by item, as right or wrong. Nothing here depends on the committed results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ablations import table2
from bench.statistics import Anova, Pool, can_pool

NAMES = [variant.name for variant in table2.variants]
CONTRASTS = np.array([[NAMES.index(a), NAMES.index(b)] for a, b in table2.contrasts])
FAMILIES = {1: [0], 4: [table2.contrasts.index(pair) for pair in table2.primary], 15: list(range(15))}
SEED, ITEM, ITEMS = 0.03, 0.012, 400  # SD of a row over seeds; standard error of a difference from the items
SIZES = (0.03, 0.05, 0.10)
SEEDS = (2, 3, 5, 10)
TABLES, BOUNDED_TABLES = 6000, 600
SPREADS = {"all rows vary alike": 0.0, "log-SD 0.2": 0.2, "log-SD 0.4": 0.4, "log-SD 0.8": 0.8}
WILD = {"Full varies 4 times as much": (0, 4.0), "Full 25 times": (0, 25.0), "row 13 25 times": (13, 25.0)}
BOUNDED = {"all at 2 %": (0.02,) * 15, "all at 98 %": (0.98,) * 15,
           "2, 50 and 98 %": (0.98, 0.02, 0.02, 0.98, 0.5, 0.98, 0.5, 0.5, 0.5, 0.98, 0.02, 0.5, 0.98, 0.98, 0.98)}


@dataclass(frozen=True)
class Cell:
    """What was measured in one regime. Per cent.

    false      of tables, with any false verdict, by the number of contrasts in the family
    coverage   of 95 % intervals of a single difference, that hold the true one
    power      by true difference: of differences that are resolved at the level of a family of four
    """

    regime: str
    seeds: int
    test: str
    false: dict[int, float]
    coverage: float
    power: dict[float, float]


def cells(tables: int = TABLES, bounded_tables: int = BOUNDED_TABLES) -> Iterator[tuple[Cell, Cell]]:
    """Yields, for each regime and number of seeds, what the table's test gives and what the plain test gives."""
    for seeds in SEEDS:
        for regime in (*SPREADS, *WILD):
            rng = np.random.default_rng([seeds, *regime.encode()])
            yield tuple(cell(regime, seeds, *each) for each in both(*gaussian(regime, seeds, tables, rng)))
        for regime, accuracies in BOUNDED.items():
            rng = np.random.default_rng([seeds, *regime.encode()])
            drawn = [both(*binary(accuracies, seeds, bounded_tables // 20, rng)) for _ in range(20)]
            alike = np.array(accuracies)[CONTRASTS]
            yield tuple(cell(regime, seeds, test, joined([part[place][1] for part in drawn]),
                             alike[:, 0] == alike[:, 1], ()) for place, test in ((0, drawn[0][0][0]), (1, "plain")))


def gaussian(regime: str, seeds: int, tables: int, rng: np.random.Generator) -> tuple[np.ndarray, Anova, None]:
    """Draws means [tables, R, S] of rows without true differences; returns them and the analysis of their contrasts."""
    variance = np.exp(SPREADS.get(regime, 0.0) * rng.standard_normal((tables, len(NAMES), 1)))
    if regime in WILD:
        row, times = WILD[regime]
        variance[:, row] *= times
    means = SEED * (np.sqrt(variance) * rng.standard_normal((tables, len(NAMES), seeds))
                    + rng.standard_normal((tables, 1, seeds)))
    means += ITEM / 2**0.5 * rng.standard_normal((tables, len(NAMES), 1))
    difference = means[:, CONTRASTS[:, 0]] - means[:, CONTRASTS[:, 1]]
    item = np.full(difference.shape[:2], ITEM**2) * rng.chisquare(ITEMS - 1, difference.shape[:2]) / (ITEMS - 1)
    anova = Anova(difference.mean(2), difference.var(2, ddof=1) / seeds, item, 0 * item, seeds, ITEMS)
    return means, anova, None


def binary(accuracies: tuple[float, ...], seeds: int, tables: int,
           rng: np.random.Generator) -> tuple[np.ndarray, Anova, np.ndarray]:
    """As `gaussian`, of 0/1 values; seeds and items move the log odds by a standard deviation of 0.4 and 1."""
    centre = np.array([log_odds(accuracy, 0.4, 1.0) for accuracy in accuracies])[:, None, None]
    shape = (tables, len(accuracies), seeds, ITEMS)
    odds = centre + 0.4 * rng.standard_normal((*shape[:3], 1), np.float32)
    odds = odds + rng.standard_normal((tables, len(accuracies), 1, ITEMS), np.float32)
    y = (rng.random(shape, np.float32) < expit(odds)).astype(np.float64)
    anova = Anova.of(y[:, CONTRASTS[:, 0]] - y[:, CONTRASTS[:, 1]]).of_shares()
    count = seeds * ITEMS
    return y.mean(3), anova, (y.mean((2, 3)) * count + 2) / (count + 4)


def log_odds(accuracy: float, *spreads: float) -> float:
    """The log odds around which normal effects of these standard deviations give the accuracy on average."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    effects, low, high = np.hypot(*spreads) * nodes, -15.0, 15.0
    for _ in range(60):
        middle = (low + high) / 2
        below = (expit(middle + effects) * weights).sum() / weights.sum() < accuracy
        low, high = (middle, high) if below else (low, middle)
    return low


def both(means: np.ndarray, anova: Anova, accuracy: np.ndarray | None) -> list[tuple[str, Anova]]:
    """The test that a table would use, and the plain one."""
    rows, seeds = means.shape[1:]
    if not can_pool(rows, seeds):
        return [("plain", anova), ("plain", anova)]
    return [("moderated", Pool.of(means, accuracy).moderate(anova, *CONTRASTS.T)), ("plain", anova)]


def joined(parts: list[Anova]) -> Anova:
    """Many tables as one array."""
    names = ("mean", "seed", "item", "residual") + (() if parts[0].seed_df is None else ("seed_df",))
    return Anova(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
                 seeds=parts[0].seeds, items=parts[0].items)


def cell(regime: str, seeds: int, test: str, anova: Anova, equal: np.ndarray | None = None,
         sizes: tuple[float, ...] = SIZES) -> Cell:
    """Measures tables without a true difference. equal: the contrasts whose rows are alike (default: all).

    A family has a false verdict by Holm if, and only if, its smallest p is below 0.05 / contrasts.
    """
    equal = np.ones(len(CONTRASTS), bool) if equal is None else equal
    size = np.abs(anova.mean)
    found = {count: (size > anova.half_width(0.05 / count))[:, chosen] for count, chosen in FAMILIES.items()}
    false = {count: 100 * float((each & equal[FAMILIES[count]]).any(1).mean()) for count, each in found.items()}
    half = anova.half_width(0.05 / 4)
    return Cell(regime, seeds, test, false, 100 * float((size <= anova.half_width(0.05))[:, equal].mean()),
                {true: 100 * float((np.abs(anova.mean + true) > half).mean()) for true in sizes})


def printed(found: list[tuple[Cell, Cell]]) -> str:
    """The table in Markdown: the table's test, in brackets the plain one."""
    lines = ["| rows | seeds | test | any false of 1 | of 4 | of 15 | interval holds | 3 points | 5 | 10 |",
             "| :-- | --: | :-- |" + " --: |" * 7]
    for used, plain in found:
        numbers = [*zip(used.false.values(), plain.false.values(), strict=True), (used.coverage, plain.coverage),
                   *zip(used.power.values(), plain.power.values(), strict=True)]
        texts = [f"{a:.1f}" if used.test == "plain" else f"{a:.1f} ({b:.1f})" for a, b in numbers]
        texts += ["-"] * (7 - len(texts))
        lines.append(f"| {used.regime} | {used.seeds} | {used.test} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(printed(list(cells())))
