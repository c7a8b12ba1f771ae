"""Contrasts over worlds: the world is the sample, and rows are compared within their world."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench import FULL, replace
from bench.experiment import ablation
from bench.experiment.ablation import Ablation
from bench.experiment.key import digest
from bench.experiment.scale import TINY
from bench.experiment.stages import Finetune, Readout, Score
from bench.experiment.worlds import contrasts_in, rows_in, split_name
from bench.scoring import schema
from bench.setup.rows import rows
from bench.statistics import verdicts_over_worlds
from bench.tables import build, results

SPECS = [FULL, replace(FULL, name="3", mask_ratio=None)]
ITEMS, SEEDS = 30, 2


def record(folder, name, variants, shares, world="tiny, seed {}"):
    """Records correct answers; shares: of each row, by its name."""
    lines, items = [], []
    for number, variant in enumerate(variants):
        for seed in range(SEEDS):
            about = dict.fromkeys(schema.ABOUT, "") | {
                "variant": variant.name, "seed": seed, "items": "real", "spec": digest(variant),
                "world": world.format(split_name(variant.name)[1]), "scale": "tiny"}
            right = np.random.default_rng((number, seed)).permutation(ITEMS) < round(ITEMS * shares[variant.name])
            lines.append({"metric": "top1_label", "key": "16 classes", "value": right.mean(), "n": ITEMS,
                          "extractor": "", "extractor_sha256": "", "comparable": 1} | about)
            items += [{"variant": variant.name, "seed": seed, "items": "real", "item": item, "picture": item,
                       "sample": 0, "label": 0, "top1_label": float(hit)} for item, hit in enumerate(right)]
    results.record(folder, name, pd.DataFrame(lines), pd.DataFrame(items))


def test_a_verdict_over_worlds_is_that_of_the_t_test_over_their_differences_after_holm():
    differences = {"a": np.array([0.11, 0.14, 0.09, 0.16]), "b": np.array([0.05, -0.02, 0.03, 0.01])}
    judged = verdicts_over_worlds(differences)
    p = {name: stats.ttest_1samp(values, 0).pvalue for name, values in differences.items()}
    assert judged["a"].p == pytest.approx(2 * p["a"], rel=1e-6)
    assert judged["b"].p == pytest.approx(p["b"], rel=1e-6)
    assert (judged["a"].word, judged["b"].word) == ("better", "not resolved")
    low, high = stats.t.interval(0.975, 3, loc=differences["b"].mean(), scale=stats.sem(differences["b"]))
    assert (judged["b"].interval.low, judged["b"].interval.high) == pytest.approx((low, high))
    assert judged["a"].interval.seeds == 4


def test_the_table_counts_each_world_once_however_many_images_and_seeds_it_has(tmp_path):
    worlds = (1, 2, 3, 4)
    variants = tuple(rows_in(worlds, SPECS))
    chosen = Ablation("mine", "Mine", variants, tuple(contrasts_in(worlds, [("Full", "3")])), None)
    shares = {v.name: 0.5 if v.name.startswith("3") else 0.6 + int(split_name(v.name)[1]) / 30 for v in variants}
    record(tmp_path, "mine", variants, shares)
    table = build.table(tmp_path, "mine", chosen)
    line = table.document.frame.set_index("kind").loc["over worlds"]
    differences = np.array([shares[f"Full in world {w}"] - 0.5 for w in worlds])
    assert line["first"] == "Full"
    assert line["worlds"] == len(worlds)
    assert line["top1"] == pytest.approx(100 * differences.mean())
    low, high = stats.t.interval(0.95, 3, loc=differences.mean(), scale=stats.sem(differences))
    assert (line["top1_low"], line["top1_high"]) == pytest.approx((100 * low, 100 * high))
    assert line["verdict"] == "better"
    assert table.finding.startswith("Over worlds, 1 of 1 contrast is resolved. Best row")
    assert "Not comparable" not in table.render("md", details=True)
    assert "Over worlds: the sample is the world" in table.render("text")


def test_rows_of_one_world_with_results_of_two_are_still_not_comparable(tmp_path):
    variants = tuple(rows_in((1, 2, 3), SPECS))
    chosen = Ablation("mine", "Mine", variants, tuple(contrasts_in((1, 2, 3), [("Full", "3")])), None)
    record(tmp_path, "mine", variants, dict.fromkeys([v.name for v in variants], 0.5))
    record(tmp_path, "mine", variants[:1], {variants[0].name: 0.5}, world="another")
    assert "Not comparable: rows differ in world" in build.table(tmp_path, "mine", chosen).render("text")


def test_two_worlds_have_no_verdict(tmp_path):
    variants = tuple(rows_in((1, 2), SPECS))
    chosen = Ablation("mine", "Mine", variants, tuple(contrasts_in((1, 2), [("Full", "3")])), None)
    record(tmp_path, "mine", variants, dict.fromkeys([v.name for v in variants], 0.5))
    contrast = build.table(tmp_path, "mine", chosen).over_worlds[0]
    assert (contrast.verdict, contrast.outcome) == (None, "no verdict: 2 worlds")


def test_a_table_in_one_world_has_no_contrast_over_worlds(tmp_path):
    chosen = Ablation("mine", "Mine", tuple(SPECS), (("Full", "3"),), None)
    record(tmp_path, "mine", SPECS, {"Full": 0.8, "3": 0.5})
    assert build.table(tmp_path, "mine", chosen).over_worlds == ()


def test_a_row_in_a_world_is_pretrained_and_probed_there():
    chosen = ablation.load("worlds").variants
    table = rows(chosen, TINY, [0])
    for row in table:
        world = split_name(row.variant)[1].partition(",")[0]
        if (row.beside and not isinstance(row.stage, Readout)) or not world:
            continue
        if isinstance(row.stage, Score):
            model = row.stage.pictures.model
            assert isinstance(model, Finetune)
            assert model.items.trials.world.seed == row.stage.reference.world.seed == int(world)
            if hasattr(model.start, "corpus"):
                assert model.start.corpus.world.seed == int(world)
        else:
            assert row.stage.test.trials.world.seed == int(world)
    assert sum(isinstance(row.stage, Readout) and "world 25" in row.variant for row in table) == 4
