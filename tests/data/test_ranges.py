"""Images in floating point: rounding is accepted, overshoot is named, and each scale has its own conversion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.ranges import ROUNDING, FloatRange, describe_conversion

SEEDS = st.integers(0, 10**6)


def images(seed, low=0.0, high=1.0):
    """Four images with values from low to high, both included."""
    values = np.random.default_rng(seed).uniform(low, high, (4, 6, 6, 3))
    values.flat[:2] = low, high
    return values


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(SEEDS, st.sampled_from([np.float16, np.float32, np.float64]), st.floats(0, ROUNDING * 0.99),
       st.floats(0, ROUNDING * 0.99))
def test_rounding_around_0_and_1_is_accepted_and_clipping_changes_no_byte(seed, dtype, under, over):
    values = np.concatenate([images(seed), images(seed + 1, -under, 1 + over)]).astype(dtype)
    span = FloatRange().add(values[:3]).add(values[3:])
    assert span.fits
    assert span.outside == ((values < 0) | (values > 1)).sum()
    unclipped = np.round(values.astype(np.float64) * 255)
    assert np.array_equal(unclipped, np.round(values.astype(np.float64).clip(0, 1) * 255))


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(SEEDS, st.floats(0.01, 0.5), st.booleans(), st.booleans())
def test_overshoot_is_never_taken_for_another_scale(seed, beyond, is_low, is_high):
    values = images(seed)
    chosen = np.random.default_rng(seed).permutation(values.size)[:4]
    values.flat[chosen[:2]] = -beyond if is_low else 0
    values.flat[chosen[2:]] = 1 + beyond if is_high or not is_low else 1
    span = FloatRange().add(values)
    assert not span.fits
    assert "overshoot" in span.describe_cure()
    assert "array.clip(0, 1)" in span.describe_cure()
    assert "255" not in span.describe_cure()
    assert "/ 2" not in span.describe_cure()


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(SEEDS, st.sampled_from(["byte", "byte over", "signed", "signed over"]))
def test_following_the_advice_gives_the_images_that_were_meant(seed, scale):
    meant = images(seed)
    over = 0.05 * np.random.default_rng(seed).standard_normal(meant.shape) * ("over" in scale)
    array = (meant + over) * 255 if "byte" in scale else (meant + over) * 2 - 1
    span = FloatRange().add(array)
    cure = span.describe_cure()
    assert ("255" in cure) == ("byte" in scale)
    converted = eval("array / 255" if cure == "divide by 255" else cure.split("save ")[1])
    assert FloatRange().add(converted).fits
    assert converted == pytest.approx((meant + over).clip(0, 1), abs=1e-12)


@pytest.mark.parametrize(("values", "scale"), [
    ([0, 1.0000002], "0 to 1"), ([-1e-7, 1], "0 to 1"), ([0, 0.5, 1.04], "0 to 1"), ([-0.03, 0.5, 1], "0 to 1"),
    ([0, 0, 2, 3], "0 to 255"), ([0.5, 127.5, 255], "0 to 255"), ([0, 255], "0 to 255"), ([-1, 0, 1], "-1 to 1"),
    ([-0.9, -0.5, 0.3], "-1 to 1"), ([-2.1, 0.3, 2.6], ""), ([0, 1e6], ""), ([0, 65535.5], "")])
def test_each_scale_is_recognised(values, scale):
    assert FloatRange().add(np.array(values, float)).scale == scale


def test_black_images_with_noise_are_overshoot_not_minus_1_to_1():
    noise = np.random.default_rng(0).normal(0, 0.03, (4, 8, 8, 3))
    assert FloatRange().add(noise).scale == "0 to 1"


@pytest.mark.parametrize(("values", "hint"), [
    ([0.1, 1.04], r"(255 * x.clip(0, 1)).round()"), ([-1, 0.0, 1], "((x + 1) * 127.5).clip(0, 255)"),
    ([0, 200], "; for values from 0 to 255: x.clip(0, 255)"), ([0, np.nan], "; 1 values are not finite")])
def test_a_conversion_to_bytes_fits_the_scale(values, hint):
    assert hint in describe_conversion(np.array(values))


@pytest.mark.parametrize("array", [np.zeros(3, np.uint8), np.array([0, 1e6]), np.array(["a"]), [0.5], np.zeros(0)])
def test_no_conversion_is_proposed_for_bytes_unknown_scales_and_what_is_no_array_of_numbers(array):
    assert describe_conversion(array) == ""
