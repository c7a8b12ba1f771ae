"""Every p, interval and correction that statsmodels knows, against statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from bench.statistics import (
    Anova,
    Unpaired,
    crossed_interval,
    detectable,
    holm,
    mcnemar,
    power,
    seeds_for,
    share_interval,
    verdicts,
)


def crossed(seeds: int, items: int, by_seed: float = 0.3, by_item: float = 0.5, rng: int = 0) -> np.ndarray:
    """Values [seeds, items] with a part of each seed, a part of each item and a residual."""
    draw = np.random.default_rng(rng)
    return (0.4 + by_seed * draw.standard_normal((seeds, 1)) + by_item * draw.standard_normal(items)
            + 0.4 * draw.standard_normal((seeds, items)))


@pytest.mark.parametrize("rng", range(5))
def test_holm_is_multipletests(rng):
    p = np.random.default_rng(rng).random((3, 15)) ** 4
    for family, adjusted in zip(p, holm(p), strict=True):
        rejected, theirs, *_ = multipletests(family, alpha=0.05, method="holm")
        assert adjusted == pytest.approx(theirs, rel=1e-12)
        assert np.array_equal(adjusted <= 0.05, rejected)


def test_verdicts_and_their_intervals_are_multipletests_of_t_tests():
    """One seed: p is the t test's over items, corrected by Holm; intervals are Bonferroni's."""
    draw = np.random.default_rng(0)
    pairs = {str(size): ((draw.random((1, 120)) < 0.5 + size).astype(float),
                         (draw.random((1, 120)) < 0.5).astype(float)) for size in (0.0, 0.1, 0.2, 0.3)}
    theirs = [DescrStatsW((a - b)[0]) for a, b in pairs.values()]
    rejected, adjusted, *_ = multipletests([each.ttest_mean(0)[1] for each in theirs], method="holm")
    assert 0 < rejected.sum() < len(pairs)
    for i, verdict in enumerate(verdicts(pairs).values()):
        assert verdict.p == pytest.approx(adjusted[i], rel=1e-6)
        assert (verdict.word != "not resolved") == rejected[i]
        low, high = theirs[i].tconfint_mean(0.05 / len(pairs))
        if not (rejected[i] and low < 0 < high):  # an interval that Holm alone resolves is cut at 0
            assert (verdict.interval.low, verdict.interval.high) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_the_mean_squares_are_those_of_anova_lm(seeds):
    values, count = crossed(seeds, 25, rng=seeds), seeds * 25
    seed, item = np.indices(values.shape).reshape(2, -1)
    frame = pd.DataFrame({"value": values.ravel(), "seed": seed, "item": item})
    squares = anova_lm(smf.ols("value ~ C(seed) + C(item)", frame).fit())["mean_sq"]
    ours = Anova.of(values)
    assert float(ours.seed) * count == pytest.approx(squares["C(seed)"], rel=1e-9)
    assert float(ours.residual) * count == pytest.approx(squares["Residual"], rel=1e-9)
    assert float(ours.item) * count == pytest.approx(squares["C(item)"] - squares["Residual"], rel=1e-9)


def test_the_variance_of_the_mean_is_that_of_a_mixed_model():
    """Crossed random effects by restricted maximum likelihood, which equals the analysis of variance if balanced."""
    values = crossed(6, 20, rng=3)
    seed, item = np.indices(values.shape).reshape(2, -1)
    frame = pd.DataFrame({"value": values.ravel(), "seed": seed, "item": item, "all": 1})
    parts = {"seed": "0 + C(seed)", "item": "0 + C(item)"}
    fit = smf.mixedlm("value ~ 1", frame, groups="all", vc_formula=parts).fit(reml=True)
    ours = Anova.of(values)
    assert float(ours.mean) == pytest.approx(fit.fe_params["Intercept"], rel=1e-9)
    assert float(ours.seed + ours.item) ** 0.5 == pytest.approx(fit.bse_fe["Intercept"], rel=1e-3)


def test_one_seed_is_the_t_interval_and_test_of_the_mean():
    values = crossed(1, 40)
    theirs, ours = DescrStatsW(values[0]), crossed_interval(values)
    assert (ours.low, ours.high) == pytest.approx(theirs.tconfint_mean(0.05), rel=1e-12)
    assert float(Anova.of(values).p()) == pytest.approx(theirs.ttest_mean(0)[1], rel=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_if_only_seeds_vary_the_interval_and_p_are_those_of_the_seeds_means(seeds):
    values = np.repeat(crossed(seeds, 1, rng=seeds), 30, axis=1)
    theirs, ours = DescrStatsW(values[:, 0]), crossed_interval(values)
    assert (ours.low, ours.high) == pytest.approx(theirs.tconfint_mean(0.05), rel=1e-12)
    assert float(Anova.of(values).p()) == pytest.approx(theirs.ttest_mean(0)[1], rel=1e-9)


@pytest.mark.parametrize(("hits", "items"), [(0, 80), (80, 80), (0, 20), (20, 20)])
def test_all_right_or_all_wrong_is_clopper_pearsons_interval(hits, items):
    values = np.repeat([1.0, 0.0], [hits, items - hits])
    for seeds in (1, 3):
        ours = share_interval(np.tile(values, (seeds, 1)))
        assert (ours.low, ours.high) == pytest.approx(proportion_confint(hits, items, 0.05, "beta"), abs=1e-12)


@pytest.mark.parametrize("hits", [1, 4, 40, 79])
def test_one_seeds_share_is_clopper_pearsons_interval_of_almost_as_many_items(hits):
    """The effective number of items makes the t interval and the binomial's normal one equally wide: N - 1 of N."""
    ours = share_interval(np.repeat([1.0, 0.0], [hits, 80 - hits])[None])
    theirs = proportion_confint(hits * 79 / 80, 79, 0.05, "beta")
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-9)


def test_mcnemars_test_is_the_exact_one():
    draw = np.random.default_rng(0)
    for _ in range(20):
        a, b = draw.integers(2, size=(2, 60))
        table = [[((a == i) & (b == j)).sum() for j in (0, 1)] for i in (0, 1)]
        assert mcnemar(a, b) == pytest.approx(min(1, their_mcnemar(table, exact=True).pvalue), rel=1e-9)


def test_rows_on_other_items_have_an_interval_as_wide_as_two_t_intervals_and_no_narrower_than_welchs():
    a, b = crossed(1, 40), crossed(1, 25, rng=1)
    first, second = DescrStatsW(a[0]), DescrStatsW(b[0])
    ours = Unpaired(Anova.of(a), Anova.of(b)).interval(0.05)
    halves = [np.diff(each.tconfint_mean(0.05))[0] / 2 for each in (first, second)]
    assert (ours.high - ours.low) / 2 == pytest.approx(np.hypot(*halves), rel=1e-9)
    welch = CompareMeans(first, second).tconfint_diff(0.05, usevar="unequal")
    assert ours.low <= welch[0] < welch[1] <= ours.high


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 15])
def test_power_and_what_is_detectable_are_the_t_tests_where_only_seeds_vary(alpha):
    draw, seeds = np.random.default_rng(0), 5
    means = 0.05 * draw.standard_normal(seeds)
    anova, spread = Anova.of(np.repeat(means[:, None], 50, axis=1)), means.std(ddof=1)
    theirs = TTestPower()
    for size in (0.5 * spread, spread, 2 * spread):
        expected = theirs.power(size / spread, seeds, alpha)
        assert power(size, float(anova.seed), seeds - 1, 0.0, 50, alpha) == pytest.approx(expected, abs=0.01)
    smallest = spread * theirs.solve_power(nobs=seeds, alpha=alpha, power=0.8)
    assert detectable(anova, alpha) == pytest.approx(smallest, rel=0.02)
    needed = int(np.ceil(theirs.solve_power(effect_size=1.0, alpha=alpha, power=0.8)))
    assert abs(seeds_for(anova, spread, alpha) - needed) <= 1


def test_one_seeds_detectable_difference_is_the_t_tests_over_items():
    values = (np.random.default_rng(0).random(200) < 0.5).astype(float)[None] - 0.5
    smallest = values.std(ddof=1) * TTestPower().solve_power(nobs=200, alpha=0.05, power=0.8)
    assert detectable(Anova.of(values), 0.05) == pytest.approx(smallest, rel=0.02)
