"""Intervals: exact where they are known, and covering as often as they say."""

import numpy as np
import pytest
from scipy import stats

from bench.statistics import crossed_interval, paired_contrast, t_quantile


@pytest.mark.parametrize("df", [1, 1.3, 2, 3.7, 10, 399, 1e4, 1e7])
def test_the_quantile_of_students_t_is_scipys(df):
    assert t_quantile(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-7)
    assert t_quantile(df, 0.5) == pytest.approx(stats.t.ppf(0.75, df), rel=1e-7)


def test_one_seed_gives_a_t_interval_over_items_and_says_what_it_leaves_out():
    values = np.random.default_rng(0).standard_normal((1, 50))
    found = crossed_interval(values)
    low, high = stats.t.interval(0.95, 49, values.mean(), stats.sem(values[0]))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert found.seeds == 1
    assert crossed_interval(np.concatenate([values, values + 1])).seeds == 2


def test_several_seeds_give_the_two_way_analysis_of_variance():
    values = np.array([[1.0, 2.0, 4.0], [2.0, 2.0, 7.0]])
    ms_seed, ms_item, ms_residual = 8 / 3, 9.5, 7 / 6
    variance = (ms_seed + ms_item - ms_residual) / 6
    df = (6 * variance) ** 2 / (ms_seed**2 / 1 + ms_item**2 / 2 + ms_residual**2 / 2)
    found = crossed_interval(values)
    assert found.mean == 3
    assert found.df == pytest.approx(df)
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, df) * variance**0.5)


@pytest.mark.parametrize(("seeds", "seed_sd", "least"), [
    (1, 0.0, 0.93), (3, 0.0, 0.92), (3, 0.03, 0.92), (5, 0.1, 0.91)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds, seed_sd, least):
    rng = np.random.default_rng(seeds)
    covered = []
    for _ in range(300):
        values = (rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, 0.35, (1, 200))
                  + rng.normal(0, 0.35, (seeds, 200)))
        found = crossed_interval(values)
        covered.append(found.low <= 0 <= found.high)
    assert least <= np.mean(covered) <= 0.985


def test_seeds_that_agree_too_well_do_not_shrink_the_interval_to_nothing():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 100))
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
    assert crossed_interval(np.repeat(values, 2, 2)).df == pytest.approx(crossed_interval(values).df)


@pytest.mark.parametrize("seeds", [1, 3])
def test_values_that_are_all_equal_give_an_interval_without_width(seeds):
    found = crossed_interval(np.full((seeds, 7), 0.1))
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("values", [np.array([[1.0, np.nan]]), np.array([[1.0, np.inf]]), np.ones((3, 1)), np.ones(4),
                                    np.ones((0, 4))])
def test_values_without_an_interval_are_refused(values):
    with pytest.raises(ValueError, match=r"interval|expected values"):
        crossed_interval(values)


def test_a_contrast_of_different_items_is_refused():
    with pytest.raises(ValueError, match="same seeds, items"):
        paired_contrast(np.ones((2, 3)), np.ones((2, 4)))
