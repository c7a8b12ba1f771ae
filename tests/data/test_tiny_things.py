"""The protocol things: different concepts in each part, means over repetitions, people who are left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from bench.cli import main
from bench.data import tiny
from bench.data.pictures import BACKGROUNDS, CLASSES, COLOURS, SHOWN, WORDS, captions, render
from bench.data.recordings import as_raw, cut_epochs
from bench.data.tiny_things import LEFT_OUT, TinyThings, assign_part, draw_images, things_recording
from bench.errors import BenchError
from bench.execute.build import build
from bench.experiment.scale import TINY
from bench.experiment.stages import Items, Trials
from bench.images import as_images
from bench.scoring.audit import CLEAR, FACT, audit
from bench.store.store import Store
from bench.tables.record import leak_of
from bench.train import items
from models import frozen

SMALL = TinyThings(seed=1, train_concepts=30, val_concepts=10, test_concepts=14, exemplars=3, means=3)
BAND = (5.0, 95.0)
CONCEPT = Trials(SMALL, (1, 2), BAND, split="concept")
PEOPLE = {split: Trials(SMALL, (1, 2, 3), BAND, split=split) for split in LEFT_OUT}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("things"))
    for stage in (CONCEPT, *PEOPLE.values()):
        build(stage, store)
    return store


def table(store, stage):
    return pd.read_csv(store.path(stage) / "trials.csv")


def eeg(store, stage):
    return np.load(store.path(stage) / "eeg.npy")


@pytest.mark.parametrize("world", [TinyThings(), TinyThings(seed=1), TinyThings(seed=2), SMALL],
                         ids=["tiny", "seed 1", "seed 2", "small"])
def test_parts_have_concepts_of_their_own_and_training_has_every_shape_colour_and_background(world):
    images = draw_images(world)
    concepts = pd.DataFrame({"part": images.part, "label": images.label, "shape": images.scenes.label,
                             "colour": images.scenes.colour, "background": images.scenes.background})
    concepts = concepts.drop_duplicates()
    assert len(concepts) == world.train_concepts + world.val_concepts + world.test_concepts == len(images.names)
    assert not concepts.duplicated(["shape", "colour", "background"]).any()
    assert concepts["label"].is_unique
    sizes = concepts.groupby("part")["label"].nunique().tolist()
    assert sizes == [world.train_concepts, world.val_concepts, world.test_concepts]
    training = concepts[concepts["part"] == 0]
    assert [training[name].nunique() for name in ("shape", "colour", "background")] == [
        SHOWN, len(COLOURS), len(BACKGROUNDS)]
    for _, own in concepts.groupby("part"):
        counts = own["shape"].value_counts().reindex(range(SHOWN), fill_value=0)
        assert counts.max() - counts.min() <= 1


def test_the_tiny_protocol_tests_sixty_concepts_or_more_and_fits_two_thousand_training_trials():
    world = TinyThings()
    assert world.test_concepts >= 60
    assert world.train_concepts * world.exemplars * world.repetitions <= 2000
    assert world.pictures == 160 * 6 + 60 + 80


def test_a_concept_is_named_by_the_words_of_a_caption_that_is_true_of_its_pictures():
    images = draw_images(SMALL)
    assert [f"a {images.names[label]}" for label in images.label] == captions(images.scenes, False)
    assert set(" ".join(images.names).split()) <= set(WORDS)


def test_pictures_of_a_concept_differ_and_none_is_a_paired_picture_of_the_tiny_world():
    seen = [picture.tobytes() for picture in render(draw_images(SMALL).scenes)]
    paired = {picture.tobytes() for picture in render(tiny.paired_scenes(tiny.TinyWorld(seed=1, pictures=300))[0])}
    assert len(set(seen)) == len(seen) == SMALL.pictures
    assert not paired & set(seen)


def test_a_recording_shows_each_picture_as_often_as_its_part_says_in_no_order_of_parts_or_concepts():
    images, recording = draw_images(SMALL), things_recording(SMALL, 1)
    assert np.array_equal(np.bincount(recording.pictures), images.repeats)
    assert set(images.repeats[images.part == 0]) == {2}
    assert set(images.repeats[images.part > 0]) == {3}
    for half in np.array_split(images.part[recording.pictures], 2):
        assert (half == 2).mean() == pytest.approx((images.part[recording.pictures] == 2).mean(), abs=0.06)
    label = images.label[recording.pictures]
    assert (label[1:] == label[:-1]).mean() < 0.08
    assert (np.diff(recording.onsets) >= SMALL.n_times).all()
    assert np.array_equal(recording.data, things_recording(SMALL, 1).data)
    assert not np.array_equal(recording.pictures, things_recording(SMALL, 2).pictures)


def test_a_training_item_is_a_repetition_and_a_test_item_the_mean_of_all(store):
    rows, windows, recording = table(store, CONCEPT), eeg(store, CONCEPT), things_recording(SMALL, 2)
    raw = as_raw(recording.data, recording.sfreq, recording.ch_names)
    single = cut_epochs(raw, recording.onsets, BAND, SMALL.sfreq, SMALL.n_times)
    own = rows[rows["subject"] == 2]
    assert own["part"].value_counts().to_dict() == {"train": 30 * 3 * 2, "val": 10, "test": 14}
    for part, repetitions in (("train", {0, 1}), ("val", {-1}), ("test", {-1})):
        assert set(own["repetition"][own["part"] == part]) == repetitions
    training = own[own["part"] == "train"]
    assert np.array_equal(recording.pictures[training["position"]], training["picture"])
    np.testing.assert_allclose(windows[training.index], single[training["position"]], atol=1e-6)
    for row in own.index[own["part"] != "train"]:
        shows = np.flatnonzero(recording.pictures == rows.loc[row, "picture"])
        mean = single[shows].mean(0)
        assert len(shows) == 3
        assert rows.loc[row, "position"] == shows[0]
        np.testing.assert_allclose(windows[row], mean / mean.std(), atol=1e-4)


def test_the_splits_by_subject_test_the_last_alone_and_differ_in_whether_training_saw_them(store):
    own = {part: count * 3 for part, count in {"train": 180, "val": 10, "test": 14}.items()}
    counts = {split: table(store, stage).groupby(["part", "subject"]).size().unstack(fill_value=0).to_dict("index")
              for split, stage in PEOPLE.items()}
    assert {part: sum(people.values()) for part, people in counts["concept"].items()} == own
    assert counts["subject"]["train"] == {1: 180, 2: 180, 3: 0}
    assert counts["subject_seen"]["train"] == {1: 180, 2: 180, 3: 180}
    for split in ("subject", "subject_seen"):
        assert counts[split]["test"] == {1: 0, 2: 0, 3: 14}
        assert counts[split]["val"] == {1: 0, 2: 0, 3: 10}


def test_an_item_is_the_same_in_every_split_and_whoever_else_takes_part(store):
    everybody = table(store, PEOPLE["concept"]).set_index("item")
    windows = dict(zip(everybody.index, eeg(store, PEOPLE["concept"]), strict=True))
    for stage in (CONCEPT, PEOPLE["subject"], PEOPLE["subject_seen"]):
        rows = table(store, stage).set_index("item")
        assert rows.equals(everybody.loc[rows.index])
        assert all(np.array_equal(one, windows[item]) for item, one in zip(rows.index, eeg(store, stage), strict=True))


@pytest.mark.parametrize("split", LEFT_OUT)
def test_the_audit_passes_new_concepts_and_a_left_out_subject_and_flags_one_who_was_trained_on(store, split, capsys):
    folder = store.path(PEOPLE[split])
    code = main(["audit", "--trials", str(folder), "--left-out", ",".join(LEFT_OUT[split])])
    said = "yes: 14 test trials of a subject that is said to be left out and is trained on" if (
        split == "subject_seen") else "no"
    assert capsys.readouterr().out.endswith(f"leaky: {said}\n")
    assert code == (split == "subject_seen")
    assert leak_of(PEOPLE[split], store) == said
    report = audit(table(store, PEOPLE[split]), eeg(store, PEOPLE[split]), np.load(folder / "pictures.npy"))
    shared = next(f for f in report.findings if f.name == "subject in train and test")
    assert (shared.severity, shared.count) == {
        "concept": (FACT, 42), "subject": (CLEAR, 0), "subject_seen": (FACT, 14)}[split]


def test_a_concept_that_is_trained_on_is_no_new_one(store):
    rows = table(store, CONCEPT)
    rows.loc[rows["part"] == "test", "label"] = 0
    report = audit(rows, left_out=("label",))
    assert "28 test trials of a label that is said to be left out and is trained on" in report.verdict
    with pytest.raises(BenchError, match="the trials have no column session to leave out"):
        audit(rows, left_out=("session",))


def test_the_files_are_the_same_each_time_and_a_knob_or_a_split_changes_the_key(store, tmp_path):
    again = Store(tmp_path)
    build(CONCEPT, again)
    for name in ("eeg.npy", "pictures.npy", "trials.csv", "classes.csv"):
        assert (again.path(CONCEPT) / name).read_bytes() == (store.path(CONCEPT) / name).read_bytes()
    others = [replace(CONCEPT, world=replace(SMALL, means=4)), PEOPLE["subject"], PEOPLE["subject_seen"],
              replace(CONCEPT, world=tiny.TinyWorld(seed=1))]
    assert len({stage.key for stage in (CONCEPT, *others)}) == 5
    assert '"pictures":114' in CONCEPT.document


def test_a_class_is_a_concept_and_the_judge_knows_its_shape(store):
    loaded = items.load(Items(CONCEPT), store.path(CONCEPT))
    names = [loaded.names[label].split()[0] for label in loaded.label]
    assert names == [CLASSES[shape] for shape in loaded.judge_label]
    assert loaded.shown == len(loaded.names) == 54
    assert np.array_equal(loaded.pictures[:], render(draw_images(SMALL).scenes)[loaded.picture])


@pytest.mark.parametrize("control", ["shuffled", "surrogate", "mean", "zero", "pairs_shuffled"])
def test_a_control_works_for_a_subject_who_is_left_out(store, control):
    folder = store.path(PEOPLE["subject"])
    real, under = (items.load(Items(PEOPLE["subject"], eeg=name), folder) for name in ("real", control))
    assert np.array_equal(real.item, under.item)
    assert np.array_equal(real.eeg, under.eeg) == (control == "pairs_shuffled")
    if control == "mean":
        others = items.load(Items(PEOPLE["subject"], "train"), folder)
        assert set(others.subject) == {1, 2}
        np.testing.assert_allclose(under.eeg, np.broadcast_to(others.eeg.mean(0), under.eeg.shape), atol=1e-6)


def test_a_control_that_needs_a_second_trial_of_a_test_concept_is_refused(store):
    for control, said in (("within_class", "is the only trial of its group"),
                          ("other_trial", "has no other trial of class")):
        with pytest.raises(BenchError, match=said):
            items.load(Items(CONCEPT, eeg=control), store.path(CONCEPT))


@pytest.mark.parametrize(("changes", "said"), [
    ({"test_concepts": 81}, "301 concepts in all; expected at most 300"),
    ({"train_concepts": 29}, "expected at least 30"),
    ({"means": 0}, "means=0: expected a whole number from 1 on"),
    ({"exemplars": 1.5}, "exemplars=1.5: expected a whole number from 1 on"),
    ({"order": "blocked"},
     "order='blocked' has no effect without classes in blocks; expected the default, 'interleaved'"),
    ({"artefacts": 1.0}, "artefacts=1.0 has no effect without classes in blocks"),
])
def test_numbers_that_do_not_fit_are_refused(changes, said):
    with pytest.raises(BenchError, match=f"protocol things: .*{said}"):
        TinyThings(**changes)


def test_a_split_or_a_subject_that_is_none_is_refused(tmp_path):
    store = Store(tmp_path)
    for stage, said in ((replace(CONCEPT, split="item"), "no split 'item'; available: concept, subject, subject_seen"),
                        (replace(CONCEPT, subjects=(9,)), "no subject 9; available: 1, 2, 3, 4, 5, 6"),
                        (replace(CONCEPT, split="subject", subjects=(2,)), "needs at least two, not 1")):
        with pytest.raises(BenchError, match=said):
            build(stage, store)
    with pytest.raises(BenchError, match="no split 'block'"):
        assign_part("block", "train", False)


@pytest.fixture(scope="module")
def retrieved(tmp_path_factory):
    """Top-1 retrieval of the test image by ridge regression from EEG to CLIP, for a world, subjects and a split."""
    weights, store = TINY.weights("clip"), Store(tmp_path_factory.mktemp("retrieval"))
    clip = frozen.load_clip(weights.path, weights.sha256, torch.float32)

    def top1(world, subjects, split):
        stage = Trials(world, subjects, BAND, split=split)
        build(stage, store)
        train, test = (items.load(Items(stage, part), store.path(stage)) for part in ("train", "test"))
        with torch.inference_mode():
            aim, gallery = (clip.embed_image(as_images(one.pictures[:], "cpu")).numpy() for one in (train, test))
        flat = [one.eeg.reshape(len(one.item), -1).astype(np.float64) for one in (train, test)]
        scaler = StandardScaler().fit(flat[0])
        with threadpool_limits(1):
            ridge = Ridge(3e3).fit(scaler.transform(flat[0]), aim)
            found = ridge.predict(scaler.transform(flat[1])) @ gallery.T
        return (found.argmax(1) == np.arange(len(found))).mean()

    return top1


WORLD = TinyThings(seed=1, train_concepts=120, val_concepts=1, test_concepts=60, exemplars=4, repetitions=1, means=8)


def test_a_mean_over_repetitions_tells_the_picture_better_than_one_trial_and_no_response_tells_nothing(retrieved):
    mean, single, none = (retrieved(replace(WORLD, **changes), (1,), "concept")
                          for changes in ({}, {"means": 1}, {"snr": 0.0}))
    assert 0.15 < mean < 0.8
    assert 1 / 60 < single < mean - 0.05
    assert none < 0.12


def test_who_was_seen_in_training_is_read_better_than_who_was_left_out(retrieved):
    unlike = replace(WORLD, anatomy=0.4)  # people whose heads differ more than those of the tiny world
    out, seen = (retrieved(unlike, (1, 2, 3), split) for split in ("subject", "subject_seen"))
    assert seen > out + 0.05
