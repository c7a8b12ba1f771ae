"""The tiny world: pictures, paired EEG, corpus."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench import items
from bench.data import pictures, tiny
from bench.data.pictures import CLASSES, SHOWN
from bench.errors import BenchError
from bench.scale import MICRO
from bench.stages import Corpus, Items, Trials

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
    from bench.runtime import Runtime
    from bench.stages import Readout
    from bench.train.readout import readout
    from bench.train.trials import trials

    reached = {}
    for snr in (0.0, 2.0):
        stage = replace(TRIALS, world=replace(MICRO.world, snr=snr, pictures=600))
        (tmp_path / str(snr) / "trials").mkdir(parents=True)
        trials(stage, lambda upstream: tmp_path, tmp_path / str(snr) / "trials", Runtime())
        readout(Readout(Items(stage, "train"), Items(stage, "val")), lambda upstream, snr=snr: tmp_path / str(snr)
                / "trials", tmp_path / str(snr), Runtime())
        reached[snr] = pd.read_csv(tmp_path / str(snr) / "metrics.csv")["value"].item()
    assert reached[0.0] < 0.25
    assert reached[2.0] > 0.6


def test_blocked_recording_shows_a_class_at_a_stretch_and_interleaved_does_not():
    for order, low, high in (("blocked", 0.9, 1.0), ("interleaved", 0.0, 0.25)):
        world = replace(MICRO.world, order=order)
        label = tiny.paired_scenes(world)[0].label[tiny.paired_recording(world, 1).pictures]
        assert low <= (label[1:] == label[:-1]).mean() <= high


def test_shuffled_items_have_the_eeg_of_another_trial_of_their_part_and_the_same_pictures(micro):
    folder = micro.path(TRIALS)
    real, shuffled = (items.load(Items(TRIALS, "test", eeg), folder) for eeg in ("real", "shuffled"))
    assert np.array_equal(real.item, shuffled.item)
    assert np.array_equal(real.pictures, shuffled.pictures)
    assert not (real.eeg == shuffled.eeg).all((1, 2)).any()
    assert sorted(x.tobytes() for x in real.eeg) == sorted(x.tobytes() for x in shuffled.eeg)


def test_an_unknown_part_or_control_is_refused(micro):
    with pytest.raises(BenchError, match="no part 'exam'.* there are: test, train, val"):
        items.load(Items(TRIALS, "exam"), micro.path(TRIALS))
    with pytest.raises(BenchError, match="no control 'noise'.* there are: real, shuffled"):
        items.load(Items(TRIALS, "test", "noise"), micro.path(TRIALS))


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
