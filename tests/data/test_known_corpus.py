"""The corpus of a world with a known answer: what random phases keep and remove, and whom its windows belong to."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data.known import people_windows, randomise_phases
from bench.data.tiny import TinyWorld

WINDOWS = np.random.default_rng(0).standard_normal((6, 3, 32)).cumsum(-1).astype(np.float32)


def cross_spectra(windows):
    spectrum = np.fft.rfft(windows)
    return spectrum[:, :, None] * spectrum[:, None].conj()  # [N, C, C, F]


@pytest.mark.parametrize("phases", ["shared", "independent"])
def test_random_phases_keep_each_windows_power_spectrum_and_change_its_time_course(phases):
    changed = randomise_phases(WINDOWS, phases, np.random.default_rng(1))
    assert changed.dtype == np.float32
    assert np.abs(np.fft.rfft(changed)) == pytest.approx(np.abs(np.fft.rfft(WINDOWS)), rel=1e-4, abs=1e-4)
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(
        changed - changed.mean(-1, keepdims=True), WINDOWS - WINDOWS.mean(-1, keepdims=True), strict=True)]
    assert max(correlation) < 0.9
    again = randomise_phases(WINDOWS, phases, np.random.default_rng(2))
    assert not np.allclose(changed, again)


def test_shared_angles_keep_the_relations_between_channels_and_independent_ones_do_not():
    real = cross_spectra(WINDOWS)
    scale = np.abs(real).max()
    shared, independent = (cross_spectra(randomise_phases(WINDOWS, phases, np.random.default_rng(1)))
                           for phases in ("shared", "independent"))
    assert np.abs(shared - real).max() < 1e-4 * scale
    assert np.abs(independent - real)[:, 0, 1, 1:-1].max() > 0.1 * np.abs(real)[:, 0, 1, 1:-1].max()


def test_kept_phases_are_the_windows_themselves_and_other_words_are_refused():
    assert randomise_phases(WINDOWS, "kept", np.random.default_rng(1)) is WINDOWS
    with pytest.raises(ValueError, match="phases='random': expected one of kept, shared, independent, noise"):
        randomise_phases(WINDOWS, "random", np.random.default_rng(1))


def test_a_persons_windows_begin_at_known_stimuli_and_differ_between_people():
    world = TinyWorld(seed=1, pictures=60, snr=6.0, anatomy=0.0, latency_jitter=0.0)
    windows, codes, labels = people_windows(world, 0, 40, (5.0, 95.0))
    assert windows.shape == (40, world.n_chans, world.n_times)
    assert codes.shape == (40, 19)
    assert set(labels) <= set(range(10))
    class_part = codes[:, :9]
    assert all((class_part[labels == label] == class_part[labels == label][0]).all() for label in set(labels))
    pairs = np.corrcoef(windows.reshape(40, -1))
    same = (labels[:, None] == labels) & ~np.eye(40, dtype=bool)
    assert pairs[same].mean() > pairs[labels[:, None] != labels].mean() + 0.1
    again = people_windows(world, 0, 40, (5.0, 95.0))[0]
    assert np.array_equal(windows, again)
    assert not np.allclose(windows, people_windows(world, 1, 40, (5.0, 95.0))[0])


def test_noise_has_the_mean_spectrum_of_the_windows_and_no_window_of_its_own():
    rng = np.random.default_rng(3)
    loud = rng.standard_normal((4000, 2, 32)) * rng.choice([0.2, 1.8], (4000, 1, 1))
    noise = randomise_phases(loud, "noise", np.random.default_rng(4))
    power, expected = ((np.abs(np.fft.rfft(each)[..., 1:-1]) ** 2).mean(0) for each in (noise, loud))
    assert power == pytest.approx(expected, rel=0.15)
    strength = noise.var((1, 2))
    assert abs(np.corrcoef(strength, loud.var((1, 2)))[0, 1]) < 0.06
    assert strength.std() < 0.5 * loud.var((1, 2)).std()
