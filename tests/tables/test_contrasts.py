"""Families of contrasts, one p for each, and what a table says about them."""

from functools import cache

import numpy as np
import pytest
from test_short import copy, reference
from test_tables import ABLATION, REFERENCE, SPECS, cell, changed, made, put, put_all

from bench.experiment import ablation
from bench.experiment.key import digest
from bench.experiment.variant import FULL, Variant
from bench.statistics import holm
from bench.tables import named, results
from bench.tables.build import table as build_table
from bench.tables.scores import Scores, row_key

SHARING = ("table2", "supervision", "controls", "systems", "clip", "mask_ratio", "freezing")


@cache
def pools():
    """The pools of Table 2's rows in the suite's own run."""
    rows = [row_key(v) for v in ablation.load("table2").variants]
    scores = Scores(results.read(REFERENCE, "table2"))
    return rows, scores.pools([*rows, ("Full", "shuffled")])


def test_one_contrast_has_one_p_in_every_table_of_the_same_run():
    found = {}
    for name in SHARING:
        specs = {v.name: digest(v) for v in ablation.load(name).variants}
        for contrast in reference(name).differences:
            if contrast.verdict:
                key = frozenset(specs[each] for each in contrast.pair), contrast.home or name
                found.setdefault(key, []).append((name, contrast.verdict.p, contrast.verdict.detectable))
    repeated = [each for each in found.values() if len(each) > 1]
    assert len(repeated) >= 8
    for each in repeated:
        assert len({(p, detects) for _, p, detects in each}) == 1, each


def test_table_2_has_four_primary_contrasts_corrected_apart_from_the_others():
    table = reference("table2")
    primary = [c for c in table.differences if c.family == "primary"]
    assert [c.name for c in primary] == ["Full - 3", "Full - 13", "Full - 5", "Full - 11"]
    assert {(c.family, c.count) for c in table.differences} == {("primary", 4), ("secondary", 11)}
    assert "Holm over 4 primary contrasts and over 11 secondary contrasts; test: moderated" in " ".join(table.notes)
    assert table.contrasts["family"].value_counts().to_dict() == {"secondary": 11, "primary": 4}
    assert set(table.contrasts["test"]) == {"moderated"}


def test_a_slice_says_to_which_family_its_p_belongs():
    table, whole = reference("mask_ratio"), reference("table2")
    ps = {c.name: c.verdict.p for c in whole.differences}
    assert {c.name: c.verdict.p for c in table.differences} == {name: ps[name] for name in
                                                                ("Full - 5", "Full - 6", "Full - 7")}
    assert "over 4 primary contrasts of table2 and over 11 secondary contrasts of table2" in " ".join(table.notes)
    assert cell(table.document.short, "family in table2", "Full - 5", 1) == "primary"
    assert cell(table.document.complete, "family", "Full - 6", 1) == "table2, secondary"
    assert table.contrasts["paper_50way_imagenet_eeg"].tolist() == pytest.approx([26.1, 7.5, 12.4])


def test_a_contrast_that_another_table_lists_the_other_way_round_is_turned(tmp_path):
    copy(tmp_path, "supervision")
    clip, supervision = (named.named(name, tmp_path).differences for name in ("clip", "supervision"))
    clip, supervision = clip[-1], supervision[0]
    assert (clip.pair, supervision.pair) == (("label", "Full"), ("Full", "label"))
    assert clip.home == "supervision"
    assert clip.verdict.p == supervision.verdict.p
    assert clip.mean == -supervision.mean
    assert (clip.verdict.interval.low, clip.verdict.interval.high) == (
        -supervision.verdict.interval.high, -supervision.verdict.interval.low)


def test_a_row_run_again_with_other_values_has_a_family_of_its_own(tmp_path):
    put_all(tmp_path)
    for name, share in (("Full", 0.6), ("5", 0.4)):
        put(tmp_path, name, share, ablation="table2", spec=SPECS[name])
    first, second = made(tmp_path).differences
    assert (first.home, first.family, second.home) == ("table2", "primary", "")
    assert "over 1 primary contrast of table2 and over 1 contrast of this table" in " ".join(made(tmp_path).notes)
    put(tmp_path, "5", 0.4, seed=1, ablation="table2", spec=SPECS["5"])
    put(tmp_path, "Full", 0.6, seed=1, ablation="table2", spec=SPECS["Full"])
    assert {c.home for c in made(tmp_path).differences} == {""}


def test_the_rows_that_lend_each_other_their_spread_are_the_trained_ones():
    rows, found = pools()
    assert set(found) == set(rows)
    assert len({id(pool) for pool, _ in found.values()}) == 1
    assert ("Full", "shuffled") not in found


def test_a_table_of_few_rows_uses_the_plain_test_and_says_so(tmp_path):
    put_all(tmp_path, seeds=(0, 1, 2))
    table = made(tmp_path)
    assert not any(c.verdict.moderated for c in table.differences)
    assert "test: plain" in " ".join(table.notes)
    assert cell(table.document.complete, "test", "Full - 5", 1) == "plain"


def test_fewer_than_20_test_images_give_no_verdict(tmp_path):
    put_all(tmp_path, pictures=19)
    table = made(tmp_path)
    assert [c.outcome for c in table.differences] == ["no verdict: fewer than 20 test images"] * 2
    assert table.differences[0].mean > 0
    assert cell(table.document.complete, "verdict", "Full - 5", 1) == "no verdict: fewer than 20 test images"
    put_all(tmp_path / "more", pictures=20)
    assert all(c.verdict for c in made(tmp_path / "more").differences)


def test_all_right_images_have_an_interval_with_a_width(tmp_path):
    put(tmp_path, "Full", 1.0)
    put(tmp_path, "5", 1.0)
    put(tmp_path, "6", 0.0)
    table = made(tmp_path)
    printed = table.document.complete
    assert cell(printed, "top-1", "Full") == "100.0 [91.2, 100.0]"
    assert cell(printed, "top-1", "6") == "0.0 [0.0, 8.8]"
    low, high = (getattr(table.differences[0].verdict.interval, end) for end in ("low", "high"))
    assert low < 0 < high


def test_balanced_accuracy_stands_beside_top_1_where_classes_differ_in_size(tmp_path):
    put_all(tmp_path)
    assert "balanced" not in made(tmp_path).render(details=True)
    other = tmp_path / "other"
    constant = np.arange(44) * 7 % 10 < 3  # classes 0, 1, 4 and 7 have five images, the others four
    put(other, "Full", 0, pictures=44, right=constant)
    put(other, "5", 0, pictures=44, right=~constant)
    put(other, "6", 0, pictures=44, right=np.arange(44) % 2 == 0)
    table = made(other)
    full, five = table.entries[0], table.entries[1]
    assert full.top1.mean == pytest.approx(14 / 44)
    assert full.balanced.mean == pytest.approx(0.3)
    assert five.balanced.mean == pytest.approx(0.7)
    assert cell(table.document.short, "balanced accuracy", "Full").startswith("30.0 [")
    assert table.finding.startswith("Best row: 5 (mask 0.25), 68.2 %, balanced 70.0 %")
    assert "Balanced accuracy: each class has the same weight" in " ".join(table.notes)
    assert table.rows.loc[0, "balanced"] == pytest.approx(30)
    assert len(table.document.short.blocks[0]) <= 8


def test_primary_contrasts_are_corrected_apart_in_any_ablation(tmp_path):
    put_all(tmp_path)
    whole, apart = made(tmp_path), made(tmp_path, changed(primary=[("Full", "6")]))
    raw = [c.verdict.p for c in (made(tmp_path, changed(contrasts=[pair])).differences[0] for pair in
                                 ABLATION.contrasts)]
    assert [c.verdict.p for c in apart.differences] == pytest.approx(raw)
    assert [c.verdict.p for c in whole.differences] == pytest.approx(holm(raw).tolist())
    assert [c.family for c in apart.differences] == ["secondary", "primary"]


def test_eight_rows_of_three_seeds_are_moderated(tmp_path):
    variants = [FULL, *(Variant(f"mask {number}", 0.1 * number) for number in range(1, 8))]
    rng = np.random.default_rng(0)
    for seed in range(3):
        for v in variants:
            right = rng.random(60) < 0.5
            put(tmp_path, v.name, 0, seed, pictures=60, right=right, spec=digest(v))
    recorded = results.read(tmp_path, "mask_ratio")
    lines = recorded.rows[recorded.rows["metric"] == "top1_label"].assign(
        metric="trained_parameters", key="in all", value=9.0, n=1, extractor="", extractor_sha256="", comparable=1)
    results.record(tmp_path, "mask_ratio", lines, recorded.items.iloc[:0])
    asked = changed(variants=variants, contrasts=[("Full", "mask 1"), ("Full", "mask 2")])
    assert all(c.verdict.moderated for c in build_table(tmp_path, "mask_ratio", asked).differences)
