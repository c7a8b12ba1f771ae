"""Splits of paired data from a BIDS folder: parts share no image, and no session, person or block where told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.bids_splits import SPLITS, assign_parts, draw_images, order_parts


@settings(deadline=None, derandomize=True, database=None, max_examples=20)
@given(label=st.lists(st.integers(0, 5), min_size=3, max_size=60), seed=st.integers(0, 9), data=st.data())
def test_no_part_shares_an_image_or_a_unit_with_another(label, seed, data):
    n = data.draw(st.integers(len(label), 3 * len(label)))
    rng = np.random.default_rng(seed)
    picture = np.concatenate([np.arange(len(label)), rng.integers(len(label), size=n - len(label))])
    content = [str(number % max(3, len(label) - 2)) for number in range(len(label))]  # some images equal another one
    subject = rng.permutation(np.arange(n) % 3)
    trials = pd.DataFrame({
        "picture": picture, "label": np.array(label)[picture], "subject": subject,
        "session": [f"ses-{number}" for number in rng.integers(3, size=n)], "block": subject * 9 + np.arange(n) % 7})
    trials.loc[:1, ["session", "subject"]] = [["ses-0", 0], ["ses-1", 0]]
    trials.loc[:1, "block"] = [100, 101]
    trials.loc[2, ["subject", "block"]] = [1, 102]
    for split in SPLITS:
        part = pd.Series(assign_parts(split, trials, content, seed))
        assert set(part) <= {"train", "val", "test", ""}
        used = part != ""
        assert (part[used].groupby([content[row] for row in picture[used]]).nunique() == 1).all()
        if split == "item":
            assert used.all()
            assert {"train", "test"} <= set(part)
        elif split != "session":
            for names in (("train", "test"), ("val", "test")):
                first, second = (set(trials[split][part == name]) for name in names)
                assert not first & second
        else:
            seen = trials.groupby(["subject", "session"]).groups
            assert all(not {"train", "test"} <= set(part[rows]) for rows in seen.values())


def test_each_class_of_three_images_or_more_trains_validates_and_tests():
    label = {f"{name}{number}": name for name in range(4) for number in range(3 + 4 * name)}
    parts = draw_images(label, 0)
    for name in range(4):
        assert {parts[image] for image in label if label[image] == name} == {"train", "val", "test"}
    assert parts == draw_images(dict(reversed(label.items())), 0)
    assert parts != draw_images(label, 1)


@pytest.mark.parametrize(("units", "expected"), [
    (1, ["train"]), (2, ["train", "test"]), (3, ["train", "val", "test"]),
    (12, ["train"] * 8 + ["val"] * 2 + ["test"] * 2)])
def test_the_last_sixth_tests_and_the_sixth_before_validates(units, expected):
    assert list(order_parts(range(units)).values()) == expected
