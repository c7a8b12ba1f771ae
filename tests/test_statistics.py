"""Intervals, verdicts and nulls: exact where they are known, and covering as often as they say."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from bench.statistics import (
    Anova,
    Pool,
    Unpaired,
    agreements,
    balanced_interval,
    can_pool,
    crossed_interval,
    design,
    detectable,
    holm,
    kendall,
    mcnemar,
    paired_contrast,
    permutation_null,
    power,
    resolved_signs,
    seeds_for,
    share_difference,
    share_interval,
    verdicts,
)
from bench.statistics.anova import as_table
from bench.statistics.moderation import PRIOR_DF, _inverse_trigamma, _prior
from bench.statistics.order import group_orders


def p_value(values: np.ndarray) -> float:
    """Two-sided p that the mean of values [S, N] is 0, by `crossed_interval`: below 0.05 where that leaves 0 out."""
    return float(Anova.of(as_table(values)).p())


def variance(anova: Anova) -> np.ndarray:
    """Variance of the mean, [...]."""
    return np.maximum(anova.seed + anova.item, anova.residual)


def df(values: np.ndarray, alpha: float = 0.05) -> float:
    """Degrees of freedom of the Student's t that is as wide as the interval; infinite where nothing varies."""
    anova = Anova.of(as_table(values))
    half = float(anova.half_width(alpha))
    return float(special.stdtridf(1 - alpha / 2, half / np.sqrt(variance(anova)))) if half > 0 else np.inf


def crossed_resamples(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Means [resamples] of values [S, N]; a resample draws seeds and items."""
    seeds, items = values.shape
    drawn = [np.bincount(row, minlength=items) for row in rng.integers(items, size=(resamples, items))]
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    return ((values @ np.array(drawn, float).T).T * weights).sum(1) / (seeds * items)


def crossed_bootstrap(values: np.ndarray, rng: np.random.Generator, resamples: int = 2000,
                      confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean of values [S, N], as a check of `crossed_interval`.

    A resample draws items once, for all seeds together, and seeds. With few seeds it is too narrow where seeds matter:
    it takes (S - 1) / S of their variance and knows no Student's t.
    """
    values = as_table(values)
    means = crossed_resamples(values, rng, resamples)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def table(seeds, items, by_seed=0.0, by_item=0.35, residual=0.35, mean=0.0, rng=0):
    """Normal values [S, N] with these standard deviations."""
    rng = np.random.default_rng(rng)
    return (mean + rng.normal(0, by_seed, (seeds, 1)) + rng.normal(0, by_item, (1, items))
            + rng.normal(0, residual, (seeds, items)))


def test_one_seed_gives_a_t_interval_over_items_and_scipys_p():
    values = table(1, 50, mean=0.1)
    found = crossed_interval(values)
    low, high = stats.t.interval(0.95, 49, values.mean(), stats.sem(values[0]))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert (found.seeds, found.items) == (1, 50)
    assert df(values) == pytest.approx(49)
    assert p_value(values) == pytest.approx(stats.ttest_1samp(values[0], 0).pvalue, rel=1e-9)
    assert crossed_interval(np.concatenate([values, values + 1])).seeds == 2


def test_several_seeds_give_the_two_way_analysis_of_variance_each_part_with_its_own_t():
    values = np.array([[1.0, 2.0, 4.0], [2.0, 2.0, 7.0]])
    ms_seed, ms_item, ms_residual = 8 / 3, 9.5, 7 / 6
    found = crossed_interval(values)
    by_seed, by_item = stats.t.ppf(0.975, 1) ** 2 * ms_seed, stats.t.ppf(0.975, 2) ** 2 * (ms_item - ms_residual)
    assert found.mean == 3
    assert found.high - found.mean == pytest.approx(((by_seed + by_item) / 6) ** 0.5)
    assert variance(Anova.of(values)) == pytest.approx((ms_seed + ms_item - ms_residual) / 6)
    error = ((ms_seed + ms_item - ms_residual) / 6) ** 0.5
    assert stats.t.ppf(0.975, df(values)) * error == pytest.approx(found.high - found.mean)


def test_where_only_seeds_vary_the_interval_is_that_of_the_seeds_means():
    means = np.array([0.1, 0.4, 0.7, 0.2])
    values = np.repeat(means[:, None], 30, 1)
    found = crossed_interval(values)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 3, means.mean(), stats.sem(means)))
    assert df(values) == pytest.approx(3)


@pytest.mark.parametrize(("seeds", "by_seed", "least", "most"), [
    (1, 0.0, 0.94, 0.96), (2, 0.0, 0.94, 0.995), (2, 0.1, 0.94, 0.98), (3, 0.0, 0.94, 0.98), (3, 0.03, 0.94, 0.98),
    (3, 0.1, 0.94, 0.97), (5, 0.03, 0.94, 0.975), (5, 0.1, 0.94, 0.97)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds, by_seed, least, most):
    anova = Anova.of(np.stack([table(seeds, 200, by_seed, rng=[seeds, i]) for i in range(4000)]))
    covered = np.abs(anova.mean) <= anova.half_width(0.05)
    assert least <= covered.mean() <= most
    assert ((anova.p() > 0.05) == covered).all()
    assert (np.abs(anova.mean) > anova.half_width(0.05 / 15)).mean() <= 0.05 / 15 + 0.003


def test_many_tables_at_once_are_each_as_alone():
    values = np.stack([table(3, 20, 0.1, mean=0.2, rng=i) for i in range(5)])
    p, half = Anova.of(values).p(), Anova.of(values).half_width(0.05)
    assert p.tolist() == pytest.approx([p_value(one) for one in values], rel=1e-12)
    assert half.tolist() == pytest.approx([crossed_interval(one).high - one.mean() for one in values], rel=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_p_is_the_level_whose_interval_ends_at_zero(seeds, confidence):
    values = table(seeds, 12, 0.1)
    found = crossed_interval(values, confidence)
    assert p_value(values - found.low) == pytest.approx(1 - confidence, rel=1e-6)
    assert p_value(found.high - values) == pytest.approx(1 - confidence, rel=1e-6)


def test_seeds_that_agree_too_well_do_not_shrink_the_interval_to_nothing():
    values = np.random.default_rng(0).standard_normal((3, 100))
    values -= values.mean(1, keepdims=True)
    found = crossed_interval(values)
    assert found.high - found.low > 2 * 1.9 * np.sqrt(values.var() / 300) * 0.9


def test_pairing_takes_out_what_both_rows_share():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 1, (3, 200))
    a, b = shared + 0.1 + rng.normal(0, 0.05, (3, 200)), shared
    found = paired_contrast(a, b)
    assert found.low < 0.1 < found.high
    assert found.high - found.low < 0.05 < crossed_interval(a).high - crossed_interval(a).low
    swapped = paired_contrast(b, a)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))


def test_samples_are_averaged_within_an_item_first():
    values = np.random.default_rng(2).standard_normal((3, 40, 5))
    assert crossed_interval(values) == crossed_interval(values.mean(2))
    assert df(np.repeat(values, 2, 2)) == pytest.approx(df(values))


@pytest.mark.parametrize("seeds", [1, 3])
def test_values_that_are_all_equal_give_an_interval_without_width(seeds):
    found = crossed_interval(np.full((seeds, 7), 0.1))
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)
    assert df(np.full((seeds, 7), 0.5)) == np.inf
    assert p_value(np.full((seeds, 7), 0.1)) < 1e-15
    assert p_value(np.zeros((seeds, 7))) == 1


@pytest.mark.parametrize("seeds", [1, 2])
def test_two_items_are_enough_for_a_wide_interval(seeds):
    values = np.array([[0.0, 1.0], [1.0, 1.0]])[:seeds]
    found = crossed_interval(values)
    assert np.isfinite([found.low, found.high]).all()
    assert found.low < 0 < 1 < found.high
    assert 0.05 < p_value(values) <= 1


@pytest.mark.parametrize("values", [np.array([[1.0, np.nan]]), np.array([[1.0, np.inf]]), np.ones((3, 1)), np.ones(4),
                                    np.ones((0, 4))])
def test_values_without_an_interval_are_refused(values):
    for asked in (crossed_interval, p_value, lambda v: crossed_bootstrap(v, np.random.default_rng(0))):
        with pytest.raises(ValueError, match=r"interval|expected values"):
            asked(values)


def test_a_contrast_of_different_items_is_refused():
    for asked in (paired_contrast, lambda a, b: verdicts({"a - b": (a, b)})):
        with pytest.raises(ValueError, match="same seeds, items"):
            asked(np.ones((2, 3)), np.ones((2, 4)))


def test_holm_is_the_step_down_of_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([0.02]).tolist() == [0.02]
    assert holm([]).tolist() == []
    p = np.random.default_rng(0).uniform(0, 0.2, (6, 15))
    for row, found in zip(p, holm(p), strict=True):
        order = sorted(range(15), key=row.__getitem__)
        expected, largest = [0.0] * 15, 0.0
        for rank, index in enumerate(order):
            largest = max(largest, min(1.0, (15 - rank) * row[index]))
            expected[index] = largest
        assert found.tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, float("nan")])


def test_a_verdict_names_the_direction_and_never_contradicts_its_interval():
    rng = np.random.default_rng(3)
    words = set()
    for _ in range(30):
        base = rng.normal(0, 0.3, (5, 80))
        rows = {str(shift): (base + shift + rng.normal(0, 0.03, (5, 1)) + rng.normal(0, 0.3, (5, 80)), base)
                for shift in rng.normal(0, 0.25, 6)}
        for name, found in verdicts(rows).items():
            words.add(found.word)
            low, high = found.interval.low, found.interval.high
            assert (found.p <= 0.05) == (found.word != "not resolved")
            if found.word == "not resolved":
                assert low < 0 < high
            else:
                assert (0 <= low < high) if found.word == "better" else (low < high <= 0)
            alone = share_difference(*rows[name], 1 - 0.05 / 6)
            assert found.interval.mean == alone.mean
            assert low in (pytest.approx(alone.low), 0.0)
            assert high in (pytest.approx(alone.high), 0.0)
    assert words == {"better", "worse", "not resolved"}


def test_holm_resolves_what_bonferroni_does_not_and_the_interval_ends_at_zero():
    steady = table(5, 100, 0.0, 0.3, 0.1)
    steady -= steady.mean()
    clear, faint = steady + 1, steady + crossed_interval(steady, 0.97).high
    found = verdicts({"clear": (clear, 0 * clear), "faint": (faint, 0 * faint)})
    assert paired_contrast(faint, 0 * faint, 0.975).low < 0
    assert (found["faint"].word, found["faint"].interval.low) == ("better", 0.0)
    assert found["faint"].p == pytest.approx(0.03, rel=1e-6)
    turned = verdicts({"clear": (0 * clear, clear), "faint": (0 * faint, faint)})
    assert (turned["faint"].word, turned["faint"].interval.high) == ("worse", 0.0)


def test_verdicts_of_rows_that_do_not_differ_or_do_not_vary():
    same, ones = table(3, 20), np.ones((3, 20))
    found = verdicts({"itself": (same, same), "sure": (ones, 0 * ones)})
    assert (found["itself"].word, found["itself"].p) == ("not resolved", 1.0)
    assert found["sure"].word == "better"
    assert 0 < found["sure"].p < 1e-6
    assert verdicts({}) == {}


@pytest.mark.parametrize(("seeds", "items", "by_seed", "by_item", "residual", "size"), [
    (3, 200, 0.03, 0.2, 0.4, 0.15), (5, 200, 0.03, 0.2, 0.4, 0.06), (5, 50, 0.0, 0.3, 0.3, 0.2),
    (1, 300, 0.0, 0.4, 0.0, 0.06), (10, 400, 0.05, 0.1, 0.3, 0.05)])
def test_the_power_that_is_counted_with_is_that_of_simulated_tables(seeds, items, by_seed, by_item, residual, size):
    rng = np.random.default_rng(items)
    values = (size + rng.normal(0, by_seed, (3000, seeds, 1)) + rng.normal(0, by_item, (3000, 1, items))
              + rng.normal(0, residual, (3000, seeds, items)))
    seed, df = ((by_seed**2 + residual**2 / items) / seeds, seeds - 1) if seeds > 1 else (0.0, 1)
    item = (by_item**2 + residual**2 * (seeds == 1)) / items
    for alpha in (0.05, 0.01):
        seen = (Anova.of(values).p() < alpha).mean()
        assert 0.1 < seen < 0.99
        assert power(size, seed, df, item, items, alpha) == pytest.approx(seen, abs=0.05)


def exactly(means, by_item, items=100):
    """Values [S, N] with these means of the seeds and this spread over items, and a small residual."""
    rng = np.random.default_rng(0)
    wave, noise = rng.standard_normal(items), rng.standard_normal((len(means), items))
    wave = (wave - wave.mean()) / wave.std()
    return np.array(means)[:, None] + by_item * wave + 0.01 * (noise - noise.mean(1, keepdims=True))


def test_a_detectable_difference_of_one_seed_is_the_textbooks_sum_of_two_quantiles():
    found = verdicts({"it": (exactly([0.1], 0.5, 400), np.zeros((1, 400)))})["it"]
    assert found.detectable == pytest.approx((1.966 + 0.842) * 0.5 / 20, abs=0.001)
    assert found.seeds_for == {}
    with pytest.raises(ValueError, match="one seed"):
        seeds_for(Anova.of(exactly([0.1], 0.5)), 0.1, 0.05)


def test_where_only_seeds_vary_the_detectable_difference_is_that_of_the_noncentral_t():
    anova = Anova.of(exactly([0.0, 0.1, 0.3, 0.2], 0.0))
    size, error = detectable(anova, 0.05), float(anova.seed) ** 0.5
    assert stats.nct.sf(stats.t.ppf(0.975, 3), 3, size / error) == pytest.approx(0.8, abs=0.01)
    count = seeds_for(anova, 0.1, 0.05)
    for seeds, enough in ((count, True), (count - 1, False)):
        noncentral = 0.1 / (error * (4 / seeds) ** 0.5)
        assert (stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, noncentral) >= 0.8) == enough
    assert seeds_for(anova, 0.05, 0.05) > 3 * count


def test_no_number_of_seeds_replaces_items_and_no_difference_above_100_points_is_promised():
    assert seeds_for(Anova.of(exactly([0.10, 0.11, 0.12], 1.0)), 0.05, 0.05) is None
    assert detectable(Anova.of(exactly([0.0, 0.9], 0.1)), 0.05) == np.inf


def test_fewer_contrasts_and_more_seeds_detect_smaller_differences():
    values = {seeds: table(seeds, 200, 0.03, rng=7) for seeds in (3, 5, 10)}
    sizes = [verdicts({"it": (each, 0 * each)})["it"].detectable for each in values.values()]
    assert sizes == sorted(sizes, reverse=True)
    many = verdicts({str(i): (values[5], 0 * values[5]) for i in range(15)})
    assert many["0"].detectable > sizes[1]


def test_the_crossed_bootstrap_agrees_with_the_interval_where_seeds_do_not_matter():
    values = table(5, 300, 0.0, 0.4, 0.1)
    low, high = crossed_bootstrap(values, np.random.default_rng(0))
    found = crossed_interval(values)
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.1 * (found.high - found.low))
    assert crossed_bootstrap(values, np.random.default_rng(0)) == (low, high)


def test_the_crossed_bootstrap_draws_one_set_of_items_for_all_seeds():
    by_item, by_seed = np.tile(np.arange(40.0), (3, 1)), np.repeat([[0.0], [1.0], [2.0]], 40, 1)
    low, high = crossed_bootstrap(by_item, np.random.default_rng(0), 4000)
    assert high - low == pytest.approx(2 * 1.96 * by_item[0].std() / 40**0.5, rel=0.06)
    assert crossed_bootstrap(by_seed, np.random.default_rng(0)) == (0.0, 2.0)


def test_mcnemar_is_the_exact_binomial_of_the_items_on_which_two_rows_differ():
    rng = np.random.default_rng(0)
    for _ in range(30):
        a, b = (rng.random(40) < 0.5).astype(float), (rng.random(40) < 0.3).astype(float)
        only_a, only_b = int((a > b).sum()), int((a < b).sum())
        assert mcnemar(a, b) == pytest.approx(stats.binomtest(min(only_a, only_b), only_a + only_b, 0.5).pvalue)
        assert mcnemar(a, b) == mcnemar(b, a)
    assert mcnemar(np.ones(5), np.ones(5)) == 1
    assert mcnemar(np.array([True] * 5), np.array([False] * 5)) == pytest.approx(2 / 2**5)


@pytest.mark.parametrize(("a", "b"), [(np.array([0.5]), np.array([1.0])), (np.ones(3), np.ones(4)),
                                      (np.ones((2, 2)), np.ones((2, 2))), (np.array([np.nan]), np.array([1.0]))])
def test_mcnemar_refuses_what_is_not_right_or_wrong(a, b):
    with pytest.raises(ValueError, match="0 and 1"):
        mcnemar(a, b)


def test_the_permutation_null_of_four_items_is_that_of_all_permutations():
    judged, label = np.array([7, 7, 8, 9]), np.array([7, 8, 8, 9])
    found = permutation_null(judged, label, np.random.default_rng(0), 20_000)
    assert found.mean == pytest.approx((2 * 1 + 1 * 2 + 1 * 1) / 16)
    assert found.p == pytest.approx(4 / 24, abs=0.01)  # three are right: the 7 in either place, either 8 third
    assert (found.low, found.high) == (0.0, 0.75)


def test_the_permutation_null_is_one_sided_and_never_zero():
    label = np.arange(200) % 10
    right = permutation_null(label, label, np.random.default_rng(0))
    assert (right.mean, right.p) == (pytest.approx(0.1), pytest.approx(1 / 1001))
    assert right.low < 0.1 < right.high < 0.2
    wrong = permutation_null((label + 1) % 10, label, np.random.default_rng(0))
    assert wrong.p == 1


def test_what_always_paints_one_class_equals_its_own_null():
    label = np.arange(40) % 4
    found = permutation_null(np.full(40, 2), label, np.random.default_rng(0))
    assert (found.mean, found.low, found.high, found.p) == (0.25, 0.25, 0.25, 1.0)


def test_false_alarms_of_the_permutation_null_are_as_rare_as_it_says():
    rng = np.random.default_rng(0)
    p = [permutation_null(rng.integers(0, 5, (60, 2)), rng.integers(0, 5, 60), rng, 199).p for _ in range(400)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.08


def test_the_samples_of_an_item_are_permuted_together():
    label = np.arange(100) % 2
    alone = permutation_null(label, label, np.random.default_rng(0))
    twice = permutation_null(np.stack([label] * 3, 1), label, np.random.default_rng(0))
    assert twice == alone


@pytest.mark.parametrize(("judged", "label"), [(np.ones(3), np.ones(4)), (np.ones((2, 2, 2)), np.ones(2)),
                                               (np.ones(0), np.ones(0)), (np.array([1, np.nan]), np.ones(2))])
def test_the_permutation_null_refuses_what_does_not_fit(judged, label):
    with pytest.raises(ValueError, match=r"expected judged|not finite"):
        permutation_null(judged, label, np.random.default_rng(0))


def test_tau_is_scipys_with_ties_and_without():
    rng = np.random.default_rng(0)
    for ties in (0, 1, 4):
        for _ in range(20):
            a, b = rng.standard_normal((2, 15))
            a = np.round(a * ties) if ties else a
            assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, nan_ok=True)
            assert kendall(a, np.round(b)) == pytest.approx(stats.kendalltau(a, np.round(b)).statistic, nan_ok=True)
    assert np.isnan(kendall(np.ones(4), np.arange(4)))


def signs_of(values, alpha=0.05):
    """Signs of the resolved pairs of rows [R, S, N]."""
    i, j = np.triu_indices(len(values), 1)
    return resolved_signs(Anova.of(values[i] - values[j]), alpha)


def test_tau_is_certain_where_all_pairs_are_resolved_and_open_where_none_is():
    paper, rng = np.arange(8.0), np.random.default_rng(0)
    noise = rng.normal(0, 0.3, (8, 3, 100))
    for size in (1.0, 0.0005):
        rows = size * paper[:, None, None] + noise
        made, = agreements(rows.mean((1, 2)), paper, ["clip"] * 8, signs_of(rows), rng)
        assert made.tau == kendall(rows.mean((1, 2)), paper)
        assert (made.low, made.high) == pytest.approx((1, 1) if size == 1 else (-1, 1))


def test_the_range_of_tau_is_that_of_all_orders_of_the_open_pairs():
    paper, signs = np.array([1.0, 2.0, 3.0, 3.0]), np.array([-1.0, 0, -1, 1, 0, 0])
    made, = agreements(np.array([1.0, 4.0, 3.0, 5.0]), paper, "aaaa", signs, np.random.default_rng(0))
    # pairs 01 (agrees), 02 (open), 03 (agrees), 12 (disagrees), 13 (open), 23 (a tie of the paper)
    assert (made.low, made.high) == pytest.approx(((1 - 2) / 30**0.5, (1 + 2) / 30**0.5))


def test_all_orders_within_groups_are_listed_once_and_random_ones_stay_within_them():
    orders, is_complete = group_orders("abab", np.random.default_rng(0))
    assert is_complete
    assert sorted(map(tuple, orders.tolist())) == [(0, 1, 2, 3), (0, 3, 2, 1), (2, 1, 0, 3), (2, 3, 0, 1)]
    orders, is_complete = group_orders("a" * 9 + "bb", np.random.default_rng(0), 500)
    assert not is_complete
    assert orders.shape == (500, 11)
    assert (np.sort(orders[:, :9], 1) == np.arange(9)).all()
    assert (np.sort(orders[:, 9:], 1) == [9, 10]).all()
    assert len(np.unique(orders, axis=0)) > 490


def test_the_null_of_one_group_is_that_of_scipys_exact_test():
    rng = np.random.default_rng(1)
    paper, ours = rng.standard_normal((2, 7))
    made, = agreements(ours, paper, ["clip"] * 7, np.zeros(21), rng)
    assert made.expected == pytest.approx(0, abs=1e-12)
    assert made.p == pytest.approx(stats.kendalltau(ours, paper, alternative="greater", method="exact").pvalue)
    drawn, = agreements(ours, paper, ["clip"] * 7, np.zeros(21), rng, most=3000)
    assert drawn.p == pytest.approx(made.p, abs=0.03)


def test_rows_that_agree_only_in_their_groups_have_the_tau_that_the_groups_give():
    paper = np.array([50.0, 40, 30, 45, 4, 3, 2, 5])
    ours = np.array([70.0, 80, 90, 60, 10, 20, 30, 15])
    groups = ["clip"] * 4 + ["none"] * 4
    whole, within, clip, none = agreements(ours, paper, groups, np.zeros(28), np.random.default_rng(0))
    assert [each.name for each in (whole, within, clip, none)] == ["all", "within", "clip", "none"]
    assert [each.rows for each in (whole, within, clip, none)] == [8, 8, 4, 4]
    assert whole.expected == pytest.approx(16 / 28)
    assert (within.expected, clip.expected) == pytest.approx((0, 0), abs=1e-12)
    assert clip.tau == kendall(ours[:4], paper[:4]) < 0
    assert within.tau == pytest.approx((clip.tau + none.tau) / 2)
    assert whole.tau == pytest.approx((16 + 12 * within.tau) / 28)
    assert 0.5 < within.p == whole.p < 1  # a high tau of all rows, and no agreement beyond that of the groups
    best = agreements(paper, paper, groups, np.zeros(28), np.random.default_rng(0))[0]
    assert (best.tau, best.p) == (1, 1 / 24**2)


def test_groups_without_pairs_or_without_an_order_have_no_tau():
    made = agreements(np.array([3.0, 2.0, 1.0, 1.0]), np.arange(4.0), "abcc", np.zeros(6), np.random.default_rng(0))
    assert [each.name for each in made] == ["all"]
    assert agreements(np.ones(4), np.arange(4.0), "aabb", np.zeros(6), np.random.default_rng(0)) == []
    with pytest.raises(ValueError, match="not finite"):
        kendall(np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="two rows or more"):
        kendall(np.ones(1), np.ones(1))


def test_the_module_does_not_load_what_a_table_would_wait_for():
    code = "import sys, bench.statistics; print(*(m for m in ('scipy.stats', 'scipy.optimize') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_fifteen_verdicts_evaluate_few_intervals_and_powers(monkeypatch):
    calls = {"half_width": 0, "power": 0}
    half_width, counted = Anova.half_width, design.power

    def counted_half_width(self, alpha):
        calls["half_width"] += 1
        return half_width(self, alpha)

    def counted_power(*arguments):
        calls["power"] += 1
        return counted(*arguments)

    monkeypatch.setattr(Anova, "half_width", counted_half_width)
    monkeypatch.setattr(design, "power", counted_power)
    rows = {str(i): (table(3, 400, 0.03, rng=i), table(3, 400, 0.03, rng=i + 50)) for i in range(15)}
    verdicts(rows)
    assert calls["half_width"] <= 15 * 63  # 60 steps of bisection and the ends, once for each contrast
    assert calls["power"] <= 15 * 3 * 12  # by bisection


def test_two_rows_on_other_items_each_get_an_interval_that_is_no_narrower_than_welchs():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.6, 0.3, (1, 80)), rng.normal(0.4, 0.2, (1, 120))
    apart = Unpaired(Anova.of(a), Anova.of(b))
    welch = stats.ttest_ind(a[0], b[0], equal_var=False)
    low, high = welch.confidence_interval(0.95)
    found = apart.interval(0.05)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert found.low <= low
    assert found.high >= high
    assert found.high - found.low < 1.02 * (high - low)
    assert float(apart.p()) == pytest.approx(welch.pvalue, rel=0.3)
    assert float(apart.half_width(float(apart.p()))) == pytest.approx(abs(found.mean), rel=1e-6)


def test_rows_on_other_items_differ_falsely_in_no_more_than_one_table_of_twenty():
    rng = np.random.default_rng(4)

    def tables():
        seed, item = rng.normal(0, 0.03, (4000, 3, 1)), rng.normal(0, 0.3, (4000, 1, 60))
        return Anova.of(0.5 + seed + item + rng.normal(0, 0.2, (4000, 3, 60)))

    false = (Unpaired(tables(), tables()).p() < 0.05).mean()
    assert 0.005 < false < 0.06


def test_a_verdict_on_other_items_is_not_paired_and_names_no_detectable_difference():
    rng = np.random.default_rng(5)
    pairs = {"apart": (rng.normal(0.6, 0.1, (3, 90)), rng.normal(0.3, 0.1, (3, 70))),
             "close": (rng.normal(0.5, 0.3, (3, 90)), rng.normal(0.5, 0.3, (3, 70)))}
    found = verdicts(pairs, unpaired=set(pairs))
    assert found["apart"].word == "better"
    assert (found["close"].word, found["close"].seeds_for) == ("not resolved", {})
    assert np.isnan(found["close"].detectable)


def test_80_of_80_right_items_do_not_give_an_interval_without_width():
    for values in (np.ones((1, 80)), np.ones((3, 80))):
        found = share_interval(values)
        exact = stats.binomtest(80, 80).proportion_ci(0.95, "exact")
        assert (found.mean, found.high, found.low) == (1.0, 1.0, pytest.approx(exact.low))
        none = share_interval(1 - values)
        assert (none.mean, none.low, none.high) == (0.0, 0.0, pytest.approx(1 - exact.low))
        apart = share_difference(values, values)
        assert -0.05 < apart.low < -0.01
    assert crossed_interval(np.ones((1, 80))).low == 1.0  # of values without bounds


def test_one_right_item_of_80_gives_an_interval_that_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = rng.binomial(80, 0.0125, 2000)
    exact = {count: share_interval((np.arange(80) < count)[None].astype(float)) for count in set(hits)}
    assert np.mean([exact[count].low <= 0.0125 <= exact[count].high for count in hits]) >= 0.93
    plain = {count: crossed_interval((np.arange(80) < count)[None].astype(float)) for count in set(hits)}
    assert np.mean([plain[count].low <= 0.0125 <= plain[count].high for count in hits]) < 0.7


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(st.integers(1, 4), st.integers(2, 30), st.randoms(use_true_random=False), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_an_interval_of_a_share_lies_between_0_and_1_and_turns_with_the_values(seeds, items, random, share):
    values = np.array([[float(random.random() < share) for _ in range(items)] for _ in range(seeds)])
    found, turned = share_interval(values), share_interval(1 - values)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.low < found.high
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)
    if seeds == 1:
        exact = stats.binomtest(int(values.sum()), items).proportion_ci(0.95, "exact")
        assert found.high - found.low >= 0.999 * (exact.high - exact.low)


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        share_interval(np.array([[0.5, 1.2]]))


@pytest.mark.parametrize("seeds", [1, 3])
def test_two_items_that_always_differ_do_not_resolve_a_difference(seeds):
    found = verdicts({"it": (np.ones((seeds, 2)), np.zeros((seeds, 2)))})["it"]
    assert (found.word, found.p) == ("too few items", 1.0)
    assert found.interval.low < 0 < found.interval.high
    assert float(Anova.of(np.ones((seeds, 2))).of_shares().p()) > 0.05
    assert verdicts({"it": (np.ones((seeds, 20)), np.zeros((seeds, 20)))})["it"].word == "better"


def test_a_constant_predictor_has_the_balanced_accuracy_of_chance():
    labels = np.repeat([0, 1], [90, 10])
    always_first = np.tile((labels == 0).astype(float), (3, 1))
    found = balanced_interval(always_first, labels)
    assert share_interval(always_first).mean == 0.9
    assert found.mean == 0.5
    assert found.low < 0.45 < 0.55 < found.high
    rng = np.random.default_rng(0)
    values = (rng.random((3, 100)) < 0.6).astype(float)
    recall = np.mean([values[:, labels == label].mean() for label in (0, 1)])
    assert balanced_interval(values, labels).mean == pytest.approx(recall)
    even = np.repeat([0, 1], 50)
    assert balanced_interval(values, even).mean == pytest.approx(values.mean())


@pytest.mark.parametrize(("sizes", "accuracy"), [
    ([100, 30, 10], [0.9, 0.5, 0.3]), ([6, 5, 5, 4], [0.9, 0.5, 0.3, 0.1]), ([5] * 10 + [4] * 10, [0.5] * 20),
    ([1] * 10 + [2] * 10, [0.7] * 20)])
def test_the_interval_of_balanced_accuracy_holds_as_often_as_it_says(sizes, accuracy):
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    held = 0
    for _ in range(400):
        right = rng.random((1, len(labels))) < np.array(accuracy)[labels]
        found = balanced_interval(right.astype(float), labels)
        held += found.low <= np.mean(accuracy) <= found.high
    assert 0.93 <= held / 400 <= 0.99


def rows_of(seeds=3, rows=15, spread=0.03, rng=0):
    """Means of rows [R, S] without a difference between rows, with a common effect of the seed."""
    rng = np.random.default_rng(rng)
    return 0.5 + rng.normal(0, spread, (rows, seeds)) + rng.normal(0, 0.1, (1, seeds))


def test_the_variance_of_a_row_leaves_out_what_a_seed_does_to_all_rows():
    means = np.stack([rows_of(5, rng=i) for i in range(400)])
    pool = Pool.of(means)
    assert pool.variance.mean() == pytest.approx(0.03**2, rel=0.05)
    shifted = Pool.of(means + np.random.default_rng(1).normal(0, 1, (400, 1, 5)))
    assert shifted.variance == pytest.approx(pool.variance, rel=1e-6)


def test_a_pool_of_many_tables_is_that_of_each():
    means = np.stack([rows_of(rng=i) for i in range(6)])
    means[2, 4] += np.array([0, 1.4, -0.5])
    pool = Pool.of(means)
    for place, each in enumerate(means):
        alone = Pool.of(each)
        assert pool.variance[place] == pytest.approx(alone.variance)
        assert pool.outlying[place].tolist() == alone.outlying.tolist()
    assert pool.outlying[2, 4]


def test_a_row_that_varies_much_more_keeps_its_own_variance_and_three_seeds_degrees():
    means = rows_of()
    means[3] = [0.2, 0.5, 0.8]
    pool = Pool.of(means)
    assert pool.outlying[3]
    own = (means[3] - means[~pool.outlying].mean(0)).var(ddof=1)
    assert pool.variance[3] == pytest.approx(own, rel=0.01)
    assert pool.df[3] == 2
    assert set(pool.df[~pool.outlying]) == {2 + PRIOR_DF}
    assert Pool.of(np.stack([rows_of(rng=i) for i in range(500)])).outlying.mean() < 0.1  # by chance


def test_rows_near_0_and_1_keep_a_smaller_variance():
    rng, accuracy = np.random.default_rng(0), np.repeat([0.5, 0.02], [8, 7])
    means = rng.binomial(400, accuracy[:, None], (500, 15, 3)) / 400
    scaled, raw = Pool.of(means, np.broadcast_to(accuracy, (500, 15))), Pool.of(means)
    near, half = scaled.variance[:, 8:].mean(), scaled.variance[:, :8].mean()
    assert near < raw.variance[:, 8:].mean() < half
    assert (near, half) == (pytest.approx(0.02 * 0.98 / 400, rel=0.4), pytest.approx(0.25 / 400, rel=0.1))


def test_the_prior_is_that_from_which_the_variances_were_drawn():
    rng = np.random.default_rng(0)
    true = 0.02 * 6 / rng.chisquare(6, 20_000)
    sample = true * rng.chisquare(4, 20_000) / 4
    df, variance = _prior(sample, np.ones(20_000, bool), 4)
    assert (df, variance) == (pytest.approx(6, rel=0.06), pytest.approx(0.02, rel=0.03))
    y = np.geomspace(0.01, 1e4, 50)
    assert _inverse_trigamma(special.polygamma(1, y)) == pytest.approx(y, rel=1e-6)


def test_a_difference_that_three_seeds_alone_do_not_resolve_is_resolved_with_the_rows_of_the_table():
    rng = np.random.default_rng(5)
    values = (rng.random((15, 3, 400)) < 0.6 + rng.normal(0, 0.02, (15, 3, 1))).astype(float)
    values[1] = rng.random((3, 400)) < 0.45 + rng.normal(0, 0.02, (3, 1))
    pool = Pool.of(values.mean(2), values.mean((1, 2)))
    pairs = {str(row): (values[0], values[row]) for row in range(1, 15)}
    plain, moderated = verdicts(pairs), verdicts(pairs, pools={str(row): (pool, 0, row) for row in range(1, 15)})
    assert plain["1"].word == "not resolved"
    assert moderated["1"].word == "better"
    assert {each.word for name, each in moderated.items() if name != "1"} == {"not resolved"}
    assert all(each.moderated for each in moderated.values())
    assert not any(each.moderated for each in plain.values())
    assert np.median([each.detectable for each in moderated.values()]) < 0.5 * np.median(
        [each.detectable for each in plain.values()])


@pytest.mark.parametrize(("rows", "seeds", "enough"), [(15, 3, True), (8, 3, True), (7, 3, False), (15, 2, False),
                                                       (4, 10, False), (5, 5, True), (15, 1, False)])
def test_too_few_rows_or_seeds_are_not_pooled(rows, seeds, enough):
    assert can_pool(rows, seeds) == enough
    if not enough:
        with pytest.raises(ValueError, match="too few for a common variance"):
            Pool.of(rows_of(seeds, rows))
