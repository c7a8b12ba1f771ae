"""The agreement of a table's rows with the paper's order, beside the agreement that CLIP alone gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bench.experiment.variant import innermost
from bench.statistics import Agreement, Anova, Pool, agreements, resolved_signs
from bench.statistics.order import ORDERS
from bench.tables.columns import ALPHA, p_text
from bench.tables.scores import RowKey, Scores, row_key

LEAST_ROWS = 4
GROUPS = {"clip": "with CLIP alignment", "label": "with label alignment", None: "without alignment"}


def agree(scores: Scores, ablation: Any, paper: Mapping[str, float]) -> tuple[list[Agreement], str]:
    """Returns Kendall's tau-b with the paper's order (`statistics.agreements`), and why there is none, or "".

    The groups of the null are the values of the rows' `align`. Rows without a result or without a number in the paper
    are left out; fewer than LEAST_ROWS rows are not compared.
    """
    variants = [v for v in ablation.variants if v.name in paper and scores.top1(row_key(v)) is not None]
    if len(variants) < LEAST_ROWS:
        return [], ""
    keys = [row_key(v) for v in variants]
    tables = [scores.top1(key) for key in keys]
    seeds = sorted(set.intersection(*(set(table.index) for table in tables if table is not None)))
    if not seeds or len({tuple(table.columns) for table in tables if table is not None}) > 1:
        return [], "the rows share no seed, or no test images"
    values = np.stack([table.loc[seeds].to_numpy() for table in tables if table is not None])
    groups = [GROUPS.get(getattr(innermost(v), "align", ""), "of another system") for v in variants]
    made = agreements(values.mean((1, 2)), np.array([paper[v.name] for v in variants]), groups,
                      resolved_signs(_differences(values, scores.pools(keys), keys, seeds), ALPHA),
                      np.random.default_rng(0))
    return made, "" if made else "all rows have the same accuracy"


def _differences(values: np.ndarray, pools: Mapping[RowKey, tuple[Pool, int]], keys: Sequence[RowKey],
                 seeds: Sequence[int]) -> Anova:
    """Returns the analysis of the difference of each pair of rows [R, S, N], moderated if all rows are in one pool."""
    i, j = np.triu_indices(len(values), 1)
    analysis = Anova.of(values[i] - values[j]).of_shares()
    pool = next(iter(pools.values()))[0] if pools else None
    if pool is None or pool.seeds != len(seeds) or any(pools.get(key, (None,))[0] is not pool for key in keys):
        return analysis
    places = np.array([pools[key][1] for key in keys])
    return pool.moderate(analysis, places[i], places[j])


def agreement_lines(made: Sequence[Agreement], reason: str, seeds: int) -> Iterator[str]:
    """Yields the note of the complete form."""
    if reason:
        yield f"Kendall's tau with the paper's order is left out: {reason}."
    if not made:
        return
    whole, *parts = made
    null = "every order of the rows is equally likely" if not parts else (
        "only CLIP matters: within the rows of the same alignment every order is equally likely")
    yield (f"Kendall's tau-b with the paper's order of {whole.rows} rows: {_measured(whole)}. Expected: the mean and "
           f"the range of 95 % if {null} (all orders, or {ORDERS:,} random ones); p: one-sided."
           + (" Pairs of rows of the same alignment only: " + "; ".join(
               f"{'together' if each.name == 'within' else each.name} ({each.rows} rows) {_measured(each)}"
               for each in parts) + "." if parts else "")
           + " [ ] after tau: every tau that is possible if each pair of rows that is not resolved (Holm over all "
           f"pairs, {ALPHA:g}) can have either order" + ("; with one seed [ ] is too narrow, because it leaves out "
           "training" if seeds == 1 else "") + "; the paper's numbers as printed.")


def _measured(each: Agreement) -> str:
    return (f"{each.tau:+.2f} [{each.low:+.2f}, {each.high:+.2f}], expected {_expected(each)} "
            f"[{each.null_low:+.2f}, {each.null_high:+.2f}], p {p_text(each.p, '= ')}")


def _expected(each: Agreement) -> str:
    return f"{round(each.expected, 2) + 0.0:+.2f}"  # without a minus before zero


def agreement_note(made: Sequence[Agreement]) -> str:
    """Returns the note of the short form, "" without an agreement."""
    if not made:
        return ""
    null = "if only CLIP alignment mattered" if len(made) > 1 else "of random orders"
    return (f"Order of the {made[0].rows} rows: Kendall's tau with the paper's {made[0].tau:+.2f}; expected {null}: "
            f"{_expected(made[0])} (p {p_text(made[0].p, '= ')}).")
