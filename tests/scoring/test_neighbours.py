"""Memorisation, and precision, recall, density and coverage: brute force by definition, and the known ends."""

import numpy as np
import pandas as pd
import pytest
import scipy.spatial.distance
import torch
from test_measure import items_of, metrics_of, write_trials

from bench.data.pictures import draw_scenes, render
from bench.experiment.scale import TINY
from bench.experiment.stages import Items, Numerics, Reference, Score, TrainFeatures, Trials, World
from bench.runtime import Runtime
from bench.scoring import measure, neighbours
from bench.scoring.networks import Networks
from bench.train.reference import reference, train_features
from bench.train.score import score
from models import extractors

TRIALS = Trials(World(seed=7), (1, 4), (5.0, 95.0))
N, M, SAMPLES, DIMENSIONS = 30, 80, 2, 6


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_memorisation_is_what_brute_force_finds():
    made, real, known = drawn(N, SAMPLES, DIMENSIONS), drawn(N, DIMENSIONS, seed=1), drawn(M, DIMENSIONS, seed=2)
    found = neighbours.measure_memorisation({"clip": made}, {"clip": real}, {"clip": known}, np.arange(N))
    generated = np.array([[min(np.linalg.norm(image - other) for other in known) for image in item] for item in made])
    tested = np.array([min(np.linalg.norm(image - other) for other in known) for image in real])
    assert found.values["train_distance_clip"] == pytest.approx(generated, rel=1e-6)
    assert found.values["train_distance_real_clip"] == pytest.approx(np.repeat(tested[:, None], SAMPLES, 1), rel=1e-6)
    assert found.totals["train_ratio_clip"] == pytest.approx(np.median(generated) / np.median(tested), rel=1e-6)
    assert (found.values["copies_clip"] == (generated <= tested.min())).all()
    assert (found.values["near_copies_clip"] == (generated <= np.sort(tested)[0])).all()  # one of 20 to 39 test images
    assert found.keys["copies_clip"] == "80 training images, 6 dimensions, 30 test images"


def test_copies_of_training_images_are_all_copies_and_test_images_have_ratio_one():
    real, known = drawn(2 * 20, DIMENSIONS), drawn(M, DIMENSIONS, seed=1)
    copies = neighbours.measure_memorisation({"judge": known[:40][:, None]}, {"judge": real}, {"judge": known},
                                             np.arange(40))
    assert (copies.values["train_distance_judge"] == 0).all()
    assert (copies.values["copies_judge"] == 1).all()
    assert (copies.values["near_copies_judge"] == 1).all()
    assert copies.totals["train_ratio_judge"] == 0
    same = neighbours.measure_memorisation({"judge": real[:, None]}, {"judge": real}, {"judge": known}, np.arange(40))
    assert same.totals["train_ratio_judge"] == 1
    assert same.values["copies_judge"].sum() == 1
    assert same.values["near_copies_judge"].sum() == 2  # 5 % of 40


def test_an_image_that_several_people_saw_counts_once_in_the_baseline():
    real, known = drawn(20, DIMENSIONS), drawn(M, DIMENSIONS, seed=1)
    picture = np.tile(np.arange(20), 3)
    found = neighbours.measure_memorisation({"clip": real[picture][:, None]}, {"clip": real[picture]}, {"clip": known},
                                            picture)
    assert found.keys["copies_clip"].endswith("20 test images")
    assert found.values["copies_clip"].sum() == 3


def test_too_few_test_images_and_no_training_images_give_no_metric():
    real, known = drawn(19, DIMENSIONS), drawn(M, DIMENSIONS, seed=1)
    found = neighbours.measure_memorisation({"clip": real[:, None]}, {"clip": real}, {"clip": known}, np.arange(19))
    assert set(found.values) == {"train_distance_clip", "train_distance_real_clip", "copies_clip"}
    none = neighbours.measure_memorisation({"clip": real[:, None]}, {"clip": real}, {"clip": known[:0]}, np.arange(19))
    assert (none.values, none.totals, none.keys) == ({}, {}, {})
    leaky = neighbours.measure_memorisation({"clip": real[:, None]}, {"clip": real}, {"clip": real}, np.arange(19))
    assert leaky.totals == {}


@pytest.mark.parametrize(("n", "m"), [(60, 60), (50, 90)])
def test_precision_and_recall_are_what_brute_force_finds(n, m):
    made, real = drawn(n, 4) + 1, drawn(m, 4, seed=1)

    def share_in_balls(x, balls, k=3):
        radius = np.sort(scipy.spatial.distance.cdist(balls, balls), axis=1)[:, k]
        return (scipy.spatial.distance.cdist(x, balls) <= radius).any(1).mean()

    expected = share_in_balls(made, real), share_in_balls(real, made)
    assert neighbours.precision_recall(made, real, 3) == pytest.approx(expected, rel=1e-6)
    assert all(0 < value < 1 for value in expected)
    found = {name: (key, value) for name, key, value in neighbours.measure_manifold(made[:, None], real, None)}
    assert tuple(found) == neighbours.MANIFOLD
    assert found["precision"] == (f"k=3, N={n}, real={m}, averaged over 1 sample", pytest.approx(expected[0], rel=1e-6))
    assert found["coverage"][0] == f"k=5, N={n}, real={m}, averaged over 1 sample"


def test_the_set_itself_has_the_best_values_and_too_small_sets_have_none():
    real = drawn(neighbours.LEAST, 4)
    assert [value for _, _, value in neighbours.measure_manifold(real[:, None], real, None)] == [1, 1, 1, 1]
    assert list(neighbours.measure_manifold(real[:-1, None], real, None)) == []
    assert list(neighbours.measure_manifold(real[:, None], real, ["fid"])) == []


def build(tmp_path, change):
    """Scores images of 40 items of two subjects: `change` makes them from the test and training images."""
    folders = {name: tmp_path / name for name in ("trials", "pictures", "reference", "known", "score")}
    write_trials(folders["trials"])
    for name in ("pictures", "reference", "known", "score"):
        folders[name].mkdir()
    table = pd.read_csv(folders["trials"] / "trials.csv")
    images = np.load(folders["trials"] / "pictures.npy")
    tested = table[table["part"] == "test"]
    training = images[np.unique(table.loc[table["part"] == "train", "picture"])]
    made = change(images[tested["picture"]], training)
    np.save(folders["pictures"] / "pictures.npy", made[:, None])
    np.save(folders["pictures"] / "item.npy", tested["item"])
    parts = TINY.weights("judge"), TINY.weights("clip")
    against, known = Reference(TRIALS.world, parts[0], 60, Numerics()), TrainFeatures(TRIALS, *parts, Numerics())
    stage = Score(Trials(World(seed=8), (1,), (5.0, 95.0)), Items(TRIALS), against, parts[1], 10, tuple(range(12)), (),
                  Numerics(), known)
    inputs = {TRIALS: folders["trials"], stage.pictures: folders["pictures"], against: folders["reference"],
              known: folders["known"]}.__getitem__
    reference(against, inputs, folders["reference"], Runtime())
    train_features(known, inputs, folders["known"], Runtime())
    score(stage, inputs, folders["score"], Runtime())
    return folders


def test_a_stage_measures_memorisation_against_the_images_of_the_training_part_alone(tmp_path):
    folders = build(tmp_path, lambda tested, training: training[np.arange(len(tested)) % len(training)])
    copied, rows = metrics_of(folders["score"]), items_of(folders["score"])
    picture = np.load(folders["known"] / "picture.npy")
    assert picture.tolist() == [row for row in range(60) if row % 3]  # every third is a test image
    assert np.load(folders["known"] / "judge.npy").shape == (40, 96)
    for space, extractor in (("clip", "tiny/clip"), ("judge", "tiny/judge")):
        assert copied.loc[f"copies_{space}", "value"] == copied.loc[f"near_copies_{space}", "value"] == 1
        assert copied.loc[f"train_distance_{space}", "value"] == copied.loc[f"train_ratio_{space}", "value"] == 0
        assert copied.loc[f"train_distance_real_{space}", "value"] > 0
        assert copied.loc[f"copies_{space}", ["extractor", "comparable"]].tolist() == [extractor, 0]
        assert (rows[f"train_distance_{space}"] == 0).all()
    assert copied.loc["copies_clip", "key"] == "40 training images, 64 dimensions, 20 test images"
    assert "precision" not in copied.index  # 20 different test images


def test_test_images_are_as_far_from_training_images_as_themselves(tmp_path):
    same = metrics_of(build(tmp_path, lambda tested, training: tested)["score"])["value"]
    for space in neighbours.SPACES:
        assert same[f"train_ratio_{space}"] == 1
        assert same[f"copies_{space}"] == pytest.approx(1 / 20)
        assert same[f"train_distance_{space}"] == same[f"train_distance_real_{space}"] > 0


def test_an_image_that_is_also_in_another_part_is_no_training_image(tmp_path):
    folder = write_trials(tmp_path / "trials")
    table = pd.read_csv(folder / "trials.csv")
    table.loc[(table["subject"] == 4) & (table["picture"] == 1), "part"] = "test"
    table.to_csv(folder / "trials.csv", index=False)
    known = TrainFeatures(TRIALS, TINY.weights("judge"), TINY.weights("clip"), Numerics())
    train_features(known, {TRIALS: folder}.__getitem__, tmp_path, Runtime())
    assert np.load(tmp_path / "picture.npy").tolist() == [row for row in range(60) if row % 3 and row != 1]
    table["part"] = np.where(table["subject"] == 1, "train", "test")
    table.to_csv(folder / "trials.csv", index=False)
    train_features(known, {TRIALS: folder}.__getitem__, tmp_path, Runtime())
    assert len(np.load(tmp_path / "picture.npy")) == len(np.load(tmp_path / "clip.npy")) == 0


def test_features_of_training_images_are_those_that_scoring_extracts():
    images = render(draw_scenes(30, 10, np.random.default_rng(0)))
    weights = {name: TINY.weights(name) for name in ("judge", "clip")}
    networks = Networks(extractors.judge(weights["judge"].path, weights["judge"].sha256, "judge"), others=[
        extractors.clip(weights["clip"].path, weights["clip"].sha256, "clip")])
    known = neighbours.extract_features(networks, 30, images.__getitem__, measure.BATCH, "cpu")
    with torch.inference_mode():
        batch = torch.from_numpy(images).permute(0, 3, 1, 2)
        expected = networks.judge.look(batch).vectors["features"].numpy()
    assert known["judge"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    every = np.arange(30)
    pairs = measure.Pairs(every, every, every, None, 1, images.__getitem__, lambda row, sample: images[row])
    rows = measure.measure(pairs, networks, measure.Classes(10), training=known).rows
    assert (rows[["train_distance_clip", "train_distance_judge", "train_distance_real_clip"]] == 0).all(axis=None)
