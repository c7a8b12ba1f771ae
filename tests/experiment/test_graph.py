"""From rows to stages: what is shared, and what a knob rebuilds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from paper import PAPER
from timm.data import ImageNetInfo

from bench import FULL, On, systems
from bench.errors import BenchError, NotAvailable
from bench.experiment import ablation, graph
from bench.experiment.scale import TINY
from bench.experiment.stages import Pretrain, Readout
from bench.experiment.variant import Variant
from bench.setup import rows as rows_
from bench.systems import captions


def planned(variant=FULL, scale=TINY, seed=0, eeg="real"):
    """kind -> keys of the stages of one row."""
    stages = graph.stages([systems.plan(variant, scale.items(eeg), scale, seed)])
    return {name: {s.key for s in stages if s.kind == name} for name in {s.kind for s in stages}}


def test_table2_at_one_seed_is_8_pretrainings_15_finetunings_15_generations_15_scorings_and_the_controls():
    table = rows_.rows(ablation.load("table2").variants, TINY, [0])
    counted = {name: (own, extra) for name, own, extra, _ in graph.counts(table, lambda stage: False)}
    assert counted["pretrain"] == (8, 0)
    assert counted["finetune"] == (15, 0)
    assert counted["generate"] == (15, 2)
    assert counted["score"] == (15, 2)
    assert counted["readout"] == (0, 12)  # ridge, EEGNet, probes of 8 pre-trained encoders, and of 2 of them untrained


def test_an_encoder_with_and_without_pretraining_is_probed_in_both_states_at_every_seed():
    table = rows_.rows(ablation.load("pretraining").variants, TINY, [0, 1])
    probes = {(row.variant, row.seed): row.stage for row in table if row.items == "probe"}
    assert set(probes) == {(name, seed) for seed in (0, 1) for name in (
        "Full", "11", "3, untrained encoder", "4, untrained encoder")}
    for seed in (0, 1):
        for trained, untrained in (("Full", "3"), ("11", "4")):
            zero = probes[f"{untrained}, untrained encoder", seed]
            assert zero.encoder == probes[trained, seed].encoder.encoder
            assert zero.seed == seed
            assert not any(isinstance(stage, Pretrain) for stage in graph.stages([zero]))
    alone = rows_.rows([replace(FULL, name="alone", mask_ratio=None)], TINY, [0])
    assert [row.variant for row in alone if row.items == "probe"] == ["alone, untrained encoder"]


def test_own_nulls_add_generations_and_scores_of_each_row_that_uses_the_eeg_and_no_training():
    variants = ablation.load("table2").variants
    table = rows_.rows(variants, TINY, [0, 1], has_own_nulls=True)
    counted = {name: (own, extra) for name, own, extra, _ in graph.counts(table, lambda stage: False)}
    assert counted["finetune"] == (30, 0)
    assert counted["generate"] == counted["score"] == (30, 32)  # fifteen nulls and the ceiling, at two seeds
    nulls = [row for row in table if row.beside and row.items == "shuffled" and row.seed == 0]
    assert [row.variant for row in nulls] == ["Full", *(f"{v.name} / EEG shuffled" for v in variants[1:])]
    row, null = (next(row.stage for row in table if row.variant == name) for name in ("3", "3 / EEG shuffled"))
    assert row.pictures.model == null.pictures.model
    assert (row.pictures.items.eeg, null.pictures.items.eeg) == ("real", "shuffled")


def test_own_nulls_are_neither_those_of_controls_nor_built_twice():
    controlled = ablation.load("mask_ratio", controls=True).variants
    names = [(row.variant, row.items) for row in rows_.rows(controlled, TINY, [0], has_own_nulls=True)]
    assert len(set(names)) == len(names)
    assert [v.name for v in rows_.own_nulls(ablation.load("systems").variants, True)] == [
        "ThoughtViz with its leak / EEG shuffled"]


def test_three_seeds_have_three_times_the_pretrainings_unless_one_serves_all():
    variants = ablation.load("table2").variants
    for choice, expected in (("each", 24), ("one", 8)):
        table = rows_.rows(variants, replace(TINY, pretrain_seeds=choice), [0, 1, 2])
        assert Counter(stage.kind for stage in graph.stages(row.stage for row in table))["pretrain"] == expected


def test_what_is_stored_hides_what_lies_above_it():
    score = systems.plan(FULL, TINY.items(), TINY, 0)
    left = graph.stages([score], stored=lambda stage: stage.kind in ("generate", "trials"))
    assert [stage.kind for stage in left] == ["reference", "trainfeatures", "score"]


def test_generating_reads_what_fine_tuning_began_from():
    generate = systems.plan(FULL, TINY.items(), TINY, 0).pictures
    assert any(isinstance(stage, Pretrain) for stage in graph.needs(generate))


WEIGHTS, OF_TRIALS = {"finetune", "generate", "score"}, {"trials", "trainfeatures", "targets"}
KNOBS = [
    (dict(variant=replace(FULL, mask_ratio=0.5)), {"pretrain", *WEIGHTS}),
    (dict(variant=replace(FULL, size="74M")), {"pretrain", *WEIGHTS}),
    (dict(variant=replace(FULL, align=None)), WEIGHTS),
    (dict(variant=replace(FULL, align="label")), WEIGHTS),
    (dict(variant=replace(FULL, sd_loss=False)), WEIGHTS),
    (dict(variant=replace(FULL, tune="A")), WEIGHTS),
    (dict(variant=replace(FULL, name="another name")), set()),
    (dict(seed=1), {"pretrain", *WEIGHTS}),
    (dict(scale=replace(TINY, pretrain_seeds="one"), seed=0), set()),
    (dict(scale=replace(TINY, name="another name")), set()),
    (dict(eeg="shuffled"), {"generate", "score"}),
    (dict(eeg="within_class"), {"generate", "score"}),
    (dict(eeg="other_trial"), {"generate", "score"}),
    (dict(eeg="surrogate"), {"generate", "score"}),
    (dict(eeg="zero"), {"generate", "score"}),
    (dict(eeg="mean"), {"generate", "score"}),
    (dict(eeg="pairs_shuffled"), WEIGHTS),
    (dict(eeg="label"), WEIGHTS),
    (dict(eeg="clip"), WEIGHTS),
    (dict(variant=On(FULL, "same")), set()),
    (dict(variant=On(FULL, "blank", window="blank")), {*OF_TRIALS, *WEIGHTS}),
    (dict(variant=On(FULL, "by block", split="block")), {*OF_TRIALS, *WEIGHTS}),
    (dict(variant=On(FULL, "high-pass", band=(14.0, 95.0))), {*OF_TRIALS, *WEIGHTS}),
    (dict(variant=On(FULL, "drift", world={"block_drift": 0.3})), {*OF_TRIALS, *WEIGHTS}),
    (dict(scale=replace(TINY, pretrain=replace(TINY.pretrain, steps=7))), {"pretrain", *WEIGHTS}),
    (dict(scale=replace(TINY, finetune=replace(TINY.finetune, clip_weight=2.0))), WEIGHTS),
    (dict(scale=replace(TINY, sampling=replace(TINY.sampling, guidance=1.5))), {"generate", "score"}),
    (dict(scale=replace(TINY, sampling=replace(TINY.sampling, batch=32))), {"generate", "score"}),
    (dict(scale=replace(TINY, nway=5)), {"score"}),
    (dict(scale=replace(TINY, reference_pictures=500)), {"reference", "score"}),
    (dict(scale=replace(TINY, subjects=(1,))), {*OF_TRIALS, *WEIGHTS}),
    (dict(scale=replace(TINY, band=(14.0, 70.0))), {"corpus", "pretrain", *OF_TRIALS, *WEIGHTS}),
    (dict(scale=replace(TINY, world=replace(TINY.world, seed=9))),
     {"corpus", "pretrain", "reference", *OF_TRIALS, *WEIGHTS}),
    (dict(scale=replace(TINY, numerics=replace(TINY.numerics, dtype="bfloat16"))),
     {"trainfeatures", "targets", "pretrain", "reference", *WEIGHTS}),
]


@pytest.mark.parametrize(("knob", "rebuilt"), KNOBS)
def test_one_knob_rebuilds_what_depends_on_it_and_nothing_else(knob, rebuilt):
    before, after = planned(), planned(**knob)
    assert {name for name in before if before[name] != after[name]} == rebuilt


@pytest.mark.parametrize(("part", "rebuilt"), [
    ("judge", {"reference", "trainfeatures", "score"}), ("vae", {"targets", *WEIGHTS}),
    ("clip", {"trainfeatures", "targets", *WEIGHTS}),
    ("unet", WEIGHTS)])
def test_another_frozen_part_rebuilds_what_reads_it(monkeypatch, part, rebuilt):
    before, shipped = planned(), type(TINY).weights
    monkeypatch.setattr(type(TINY), "weights", lambda self, name: replace(
        shipped(self, name), **({"sha256": "0" * 64} if name == part else {})))
    after = planned()
    assert {name for name in before if before[name] != after[name]} == rebuilt


def test_rows_without_pretraining_have_none():
    assert "pretrain" not in planned(replace(FULL, mask_ratio=None))


@pytest.mark.parametrize(("wrong", "said"), [
    (dict(mask_ratio=0.0), "between 0 and 1"), (dict(mask_ratio=1), "between 0 and 1"),
    (dict(mask_ratio="much"), "between 0 and 1"), (dict(align="text"), "'clip'"), (dict(tune="B"), "'E\\+A'"),
    (dict(align=None, sd_loss=False), "leaves no loss to train with")])
def test_a_variant_outside_its_range_is_refused(wrong, said):
    with pytest.raises(BenchError, match=said):
        Variant("wrong", **wrong)


@pytest.mark.parametrize(("wrong", "said"), [
    (dict(eeg="noise"), "eeg must be one of real, shuffled"),
    (dict(world={"colour": 1}), "world has no field colour; it has"),
    (dict(window="before"), "window must be one of stimulus, blank"),
    (dict(split="day"), "split must be one of item, block")])
def test_a_system_on_items_that_do_not_exist_is_refused(wrong, said):
    with pytest.raises(BenchError, match=said):
        On(FULL, "wrong", **wrong)


def test_a_classifier_that_draws_nothing_is_built_once_for_all_seeds_and_eegnet_once_for_each():
    variants = [captions.Spec(name, classes=name) for name in ("ridge", "eegnet")]
    built = graph.stages(row.stage for row in rows_.rows(variants, TINY, [0, 1]))
    kinds = Counter(stage.classifier for stage in built if isinstance(stage, Readout))
    assert kinds == {"ridge": 1, "eegnet": 2}


def test_a_mask_ratio_that_masks_no_token_is_refused_before_any_work():
    with pytest.raises(BenchError, match="masks 0 of 32 tokens"):
        planned(replace(FULL, mask_ratio=0.01))


def test_an_unknown_encoder_or_size_is_refused_naming_those_that_exist():
    with pytest.raises(BenchError, match="there are: .*msm_vit"):
        planned(replace(FULL, encoder="msm"))
    with pytest.raises(BenchError, match="there are: .*297M"):
        planned(replace(FULL, size="1B"))


def test_epochs_and_sampling_of_a_row_change_what_they_name_and_nothing_before_it():
    whole = planned()
    longer = systems.plan(On(FULL, "longer", epochs=600), TINY.items(), TINY, 0).pictures.model
    assert longer.schedule == replace(TINY.finetune, steps=2 * TINY.finetune.steps)
    finer = planned(On(FULL, "finer", sampling={"steps": 50}))
    assert finer["finetune"] == whole["finetune"]
    assert finer["generate"] != whole["generate"]
    with pytest.raises(NotAvailable, match="PLMS cannot start"):
        planned(On(FULL, "plms", sampling={"sampler": "plms"}))
    assert planned(On(FULL, "the same", epochs=300, sampling={"steps": TINY.sampling.steps})) == whole
    for wrong in ({"epochs": 0}, {"epochs": 2.5}, {"views": -1}, {"sampling": {"eta": 1.0}}):
        with pytest.raises(BenchError):
            On(FULL, "wrong", **wrong)


def test_table2_at_the_papers_scale_is_8_15_15_15_before_any_data_or_weights_are_there():
    table = rows_.rows(ablation.load("table2").variants, PAPER, [0])
    counted = {name: own for name, own, _, _ in graph.counts(table, lambda stage: False)}
    assert [counted[name] for name in ("pretrain", "finetune", "generate", "score")] == [8, 15, 15, 15]


def test_the_tiny_world_has_no_published_splits():
    with pytest.raises(NotAvailable, match="no split 'single'; it has: item, block"):
        planned(On(FULL, "single", split="single"))


def test_a_recorded_data_set_has_no_other_world_and_no_blank_interval():
    for wrong in ({"world": {"order": "blocked"}}, {"window": "blank"}):
        with pytest.raises(NotAvailable, match="imagenet_eeg is a recorded data set"):
            systems.plan(On(FULL, "other", **wrong), PAPER.items(), PAPER, 0)
    moved = systems.plan(On(FULL, "other", band=(14.0, 70.0), split="subject"), PAPER.items(), PAPER, 0).items.trials
    assert (moved.band, moved.split) == ((14.0, 70.0), "subject")


def test_the_papers_fifty_classes_are_the_forty_shown_and_ten_more_each_once():
    assert len(set(PAPER.fixed)) == 50
    names = [ImageNetInfo().index_to_description(number).split(",")[0] for number in PAPER.fixed]
    assert [names[0], names[8], names[36], names[39]] == ["sorrel", "giant panda", "airliner", "Egyptian cat"]
    assert (names[40], names[49]) == ("tench", "ostrich")


def test_every_size_whose_mlp_ratio_is_in_no_publication_is_marked_as_inferred():
    assert {size.label: size.inferred for size in PAPER.sizes} == {
        "297M": True, "458M": True, "162M": True, "74M": True, "18.3M": True, "released": False}


def test_guidance_without_dropped_conditions_is_refused():
    with pytest.raises(BenchError, match="guidance 7.5 needs a condition that is dropped"):
        systems.plan(On(FULL, "guided", sampling={"guidance": 7.5}), PAPER.items(), PAPER, 0)


def test_several_processes_are_in_the_keys_of_the_trainings_alone():
    before, after = planned(), planned(scale=replace(TINY, numerics=replace(TINY.numerics, world_size=2)))
    score = systems.plan(FULL, TINY.items(), replace(TINY, numerics=replace(TINY.numerics, world_size=2)), 0)
    assert before["targets"] == after["targets"]
    assert before["reference"] == after["reference"]
    assert score.pictures.model.numerics.world_size == score.pictures.model.start.numerics.world_size == 2
    assert score.numerics.world_size == score.pictures.numerics.world_size == 1


def test_every_seed_has_a_classifier_of_the_eeg_and_one_that_draws_nothing_is_built_once():
    rows = [row for row in rows_.rows([FULL], TINY, [0, 1]) if row.items == "readout"]
    assert [(row.variant, row.seed) for row in rows] == [
        ("ridge classifier", 0), ("ridge classifier", 1), ("eegnet classifier", 0), ("eegnet classifier", 1)]
    assert len({row.stage for row in rows}) == 3
