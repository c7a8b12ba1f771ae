"""What an item has in place of its own EEG."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.experiment.scale import MICRO
from bench.experiment.stages import CONTROLS, Items, Trials, training
from bench.train import items
from bench.train.trials import write_classes

TRIALS = Trials(MICRO.world, MICRO.subjects, MICRO.band)


@pytest.fixture(scope="module")
def folder(micro):
    return micro.path(TRIALS)


def under(eeg, folder, part="test"):
    return items.load(Items(TRIALS, part, eeg), folder)


def sources(eeg, pool):
    """For each of `eeg` the index of the one equal window in `pool`."""
    return [np.flatnonzero((pool == one).all((1, 2))).item() for one in eeg]


@pytest.mark.parametrize("eeg", sorted(set(CONTROLS) - {"clip"}))
def test_a_control_changes_the_eeg_alone_and_is_always_the_same(eeg, folder):
    real, control = under("real", folder), under(eeg, folder)
    for name in ("item", "picture", "subject", "label", "pictures"):
        assert np.array_equal(getattr(real, name), getattr(control, name))
    assert control.eeg.dtype == np.float32
    assert np.array_equal(control.eeg, under(eeg, folder).eeg)


@pytest.mark.parametrize(("eeg", "same_class"), [("shuffled", 0.5), ("within_class", 1.0)])
def test_a_shuffled_item_has_the_eeg_of_another_of_its_part(eeg, same_class, folder):
    real, control = under("real", folder), under(eeg, folder)
    whose = np.array(sources(control.eeg, real.eeg))
    assert not (whose == np.arange(len(whose))).any()
    assert sorted(whose) == list(range(len(whose)))
    alike = (real.label[whose] == real.label).mean()
    assert alike == 1 if same_class == 1 else alike < same_class


def test_another_trial_comes_from_the_validation_part_and_is_of_the_same_class(folder):
    control, pool = under("other_trial", folder), under("real", folder, "val")
    assert np.array_equal(pool.label[sources(control.eeg, pool.eeg)], control.label)


def test_a_surrogate_has_the_spectrum_of_the_training_trials_and_none_of_the_item(folder):
    control, real, train = under("surrogate", folder), under("real", folder), under("real", folder, "train")

    def spectrum(eeg):
        return np.square(np.abs(np.fft.rfft(eeg, axis=-1))).mean((0, 1))[2:40]

    assert np.allclose(spectrum(control.eeg), spectrum(train.eeg), rtol=0.15)
    own = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(control.eeg, real.eeg, strict=True)]
    assert abs(np.mean(own)) < 0.02


def test_zero_and_mean_are_the_same_for_every_item_of_a_subject(folder):
    assert not under("zero", folder).eeg.any()
    mean = under("mean", folder).eeg
    assert np.array_equal(mean, np.broadcast_to(mean[0], mean.shape))
    assert np.allclose(mean[0], under("real", folder, "train").eeg.mean(0), atol=1e-6)


def test_shuffled_pairs_are_tested_on_their_own_eeg_and_trained_on_anothers(folder):
    assert np.array_equal(under("pairs_shuffled", folder).eeg, under("real", folder).eeg)
    trained = training(Items(TRIALS, "test", "pairs_shuffled"))
    assert (trained.part, trained.eeg) == ("train", "shuffled")


@pytest.mark.parametrize("eeg", sorted(set(CONTROLS) - {"pairs_shuffled", "label", "clip"}))
def test_every_control_of_the_test_items_trains_on_the_real_eeg(eeg):
    assert training(Items(TRIALS, "test", eeg)) == Items(TRIALS, "train", "real")


def test_an_oracle_sees_the_label_or_the_embedding_and_no_eeg(folder, tmp_path):
    label = under("label", folder)
    assert np.array_equal(label.eeg[:, 0].argmax(1), label.label)
    np.save(tmp_path / "embeddings.npy", np.arange(240 * 3, dtype=np.float32).reshape(240, 3))
    clip = items.load(Items(TRIALS, "test", "clip"), folder, tmp_path / "embeddings.npy")
    assert np.array_equal(clip.eeg[:, 0, 0], clip.picture * 3)
    with pytest.raises(BenchError, match="systems with CLIP targets only"):
        under("clip", folder)


def test_an_unknown_part_or_control_is_refused(folder):
    with pytest.raises(BenchError, match="no part 'exam'; available: test, train, val"):
        under("real", folder, "exam")
    with pytest.raises(BenchError, match="unknown EEG control 'noise'; available: real, shuffled"):
        under("noise", folder)


def test_an_item_that_is_alone_cannot_be_shuffled(folder, tmp_path):
    trials = pd.read_csv(folder / "trials.csv")
    trials = trials[(trials["part"] != "test") | (trials["item"] == trials.loc[trials["part"] == "test", "item"].min())]
    trials.to_csv(tmp_path / "trials.csv", index=False)
    write_classes(tmp_path)
    with pytest.raises(BenchError, match="is the only trial of its group"):
        items.load(Items(TRIALS, "test", "shuffled"), tmp_path)
