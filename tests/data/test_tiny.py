"""The tiny world: images, paired EEG, corpus."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.data import pictures, tiny
from bench.data.pictures import CLASSES, SHOWN
from bench.experiment.scale import MICRO
from bench.experiment.stages import Corpus, Items, Numerics, Readout, Trials
from bench.runtime import Runtime
from bench.train.readout import readout
from bench.train.trials import trials

TRIALS = Trials(MICRO.world, MICRO.subjects, MICRO.band)


def test_ten_classes_are_shown_and_the_frozen_parts_know_at_least_half_as_many_again():
    assert SHOWN == 10
    assert len(set(CLASSES)) == len(CLASSES) >= 15


def test_pictures_are_balanced_and_their_nuisance_says_nothing_about_the_class():
    scenes = pictures.draw_scenes(4000, SHOWN, np.random.default_rng(0))
    assert set(np.bincount(scenes.label)) == {400}
    for name in ("colour", "background"):
        shares = pd.crosstab(scenes.label, getattr(scenes, name), normalize="index").to_numpy()
        assert np.abs(shares - shares.mean(0)).max() < 0.1
    for name in ("x", "y", "size", "angle"):
        values = getattr(scenes, name)
        means = np.array([values[scenes.label == c].mean() for c in range(SHOWN)])
        assert np.abs(means - values.mean()).max() < 4 * values.std() / np.sqrt(400)


def test_the_same_scene_is_the_same_picture_and_another_seed_another():
    first, again, other = (pictures.render(pictures.draw_scenes(8, SHOWN, np.random.default_rng(seed)))
                           for seed in (0, 0, 1))
    assert first.shape == (8, 32, 32, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_captions_name_the_class_first():
    scenes = pictures.draw_scenes(16, len(CLASSES), np.random.default_rng(0))
    for label, short, full in zip(scenes.label, pictures.captions(scenes, True), pictures.captions(scenes, False),
                                  strict=True):
        assert short == f"a {CLASSES[label]}"
        assert full.startswith(short + " ")


def test_train_val_test_prior_and_reference_pictures_are_disjoint(micro):
    seen = {}
    paired = np.load(micro.path(TRIALS) / "pictures.npy")
    parts = pd.read_csv(micro.path(TRIALS) / "trials.csv").set_index("picture")["part"]
    for index, picture in enumerate(paired):
        seen.setdefault(picture.tobytes(), set()).add(parts[index])
    for name in ("prior", "reference"):
        scenes = pictures.draw_scenes(500, SHOWN, pictures.stream(name, MICRO.world.seed))
        for picture in pictures.render(scenes):
            seen.setdefault(picture.tobytes(), set()).add(name)
    assert max(map(len, seen.values())) == 1
    assert set().union(*seen.values()) == {"train", "val", "test", "prior", "reference"}


def test_a_subject_sees_every_picture_once_and_two_subjects_the_same_pictures():
    world = MICRO.world
    first, second = (tiny.paired_recording(world, subject) for subject in (1, 2))
    assert sorted(first.pictures) == sorted(second.pictures) == list(range(world.pictures))
    assert not np.array_equal(first.data, second.data)
    assert np.array_equal(first.data, tiny.paired_recording(world, 1).data)


def test_without_evoked_responses_the_class_cannot_be_read_and_with_them_it_can(tmp_path):
    reached = {}
    for snr in (0.0, 2.0):
        stage = replace(TRIALS, world=replace(MICRO.world, snr=snr, pictures=600))
        (tmp_path / str(snr) / "trials").mkdir(parents=True)
        trials(stage, lambda upstream: tmp_path, tmp_path / str(snr) / "trials", Runtime())
        stage = Readout(Items(stage, "train"), Items(stage, "val"), "ridge", None, 0, Numerics())
        readout(stage, lambda upstream, snr=snr: tmp_path / str(snr) / "trials", tmp_path / str(snr), Runtime())
        reached[snr] = pd.read_csv(tmp_path / str(snr) / "metrics.csv")["value"].item()
    assert reached[0.0] < 0.25
    assert reached[2.0] > 0.6


def test_blocked_recording_shows_a_class_at_a_stretch_and_interleaved_does_not():
    for order, low, high in (("blocked", 0.9, 1.0), ("interleaved", 0.0, 0.25)):
        world = replace(MICRO.world, order=order)
        label = tiny.paired_scenes(world)[0].label[tiny.paired_recording(world, 1).pictures]
        assert low <= (label[1:] == label[:-1]).mean() <= high


@pytest.mark.parametrize("order", ["blocked", "interleaved"])
def test_a_split_by_block_gives_every_block_one_part_and_every_part_all_classes(order, tmp_path):
    stage = replace(TRIALS, split="block", world=replace(MICRO.world, order=order, blocks=60))
    trials(stage, lambda upstream: tmp_path, tmp_path, Runtime())
    table = pd.read_csv(tmp_path / "trials.csv")
    assert (table.groupby("block")["part"].nunique() == 1).all()
    assert table["part"].value_counts(normalize=True).round(2).to_dict() == {"train": 0.67, "val": 0.17, "test": 0.17}
    assert (table.groupby("block")["label"].nunique() == 1).all() == (order == "blocked")
    if order == "blocked":
        assert (table.groupby("part")["label"].nunique() == 10).all()


def test_a_number_of_blocks_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a divisor of 240 images"):
        tiny.paired_recording(replace(MICRO.world, blocks=7), 1)
    with pytest.raises(ValueError, match="a multiple of 10 classes"):
        tiny.paired_recording(replace(MICRO.world, order="blocked", blocks=24), 1)
    world = replace(MICRO.world, order="blocked")
    with pytest.raises(ValueError, match="three blocks of each class"):
        tiny.block_parts(world, 1, tiny.paired_recording(world, 1))


def test_the_interval_before_the_stimulus_holds_no_response_where_trials_lie_far_apart(tmp_path):
    loud = replace(MICRO.world, gap=(1.2, 1.3), snr=30.0)
    stage = Trials(loud, MICRO.subjects, MICRO.band)
    reached = {}
    for window in ("stimulus", "blank"):
        trials(replace(stage, window=window), lambda upstream: tmp_path, tmp_path, Runtime())
        run = [Items(stage, part) for part in ("train", "test")]
        readout(Readout(*run, "ridge", None, 0, Numerics()), lambda upstream: tmp_path, tmp_path, Runtime())
        reached[window] = pd.read_csv(tmp_path / "metrics.csv")["value"].item()
    assert reached["stimulus"] > 0.5
    assert reached["blank"] < 0.3


def test_the_classes_lie_equally_far_apart_in_every_world():
    for seed in range(3):
        classes = tiny.draw_anatomy(replace(MICRO.world, seed=seed)).classes
        distance = np.linalg.norm(classes[:, None] - classes, axis=-1)[np.triu_indices(len(classes), 1)]
        assert np.allclose(distance, distance[0])


def test_the_corpus_comes_from_devices_with_8_to_32_channels_and_holds_recordings_out(micro):
    folder = micro.path(Corpus(MICRO.world, MICRO.band))
    windows, index = np.load(folder / "windows.npy"), pd.read_csv(folder / "index.csv")
    assert windows.shape == (len(index), MICRO.world.n_chans, MICRO.world.n_times)
    assert np.isfinite(windows).all()
    assert np.abs(windows).max() <= 20
    by_part = index.groupby("part")["recording"].unique()
    assert not set(by_part["train"]) & set(by_part["held_out"])
    devices = json.loads((folder / "manifest.json").read_text())["devices"]
    assert len({device["sfreq"] for device in devices}) >= 4
    assert min(device["channels"] for device in devices) == 8
    assert max(device["channels"] for device in devices) == 32
