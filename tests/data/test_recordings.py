"""The path of every recording: band, sampling rate, windows, normalisation, rejection, channels."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from bench.data.recordings import as_raw, cut_epochs, cut_windows, effective_band, normalise, replicate
from bench.errors import BenchError

SFREQ, BAND, TIMES = 250.0, (5.0, 95.0), 128


def noise(channels=4, seconds=10.0, sfreq=SFREQ, seed=0):
    return 20 * np.random.default_rng(seed).standard_normal((channels, int(seconds * sfreq)))


def raw(data, sfreq=SFREQ, annotations=()):
    return as_raw(data, sfreq, [f"E{i}" for i in range(len(data))], annotations)


def test_the_band_has_no_upper_edge_where_nyquist_lies_below_it_and_that_is_recorded():
    assert effective_band(BAND, 250.0) == (5.0, 95.0)
    assert effective_band(BAND, 190.0) == (5.0, None)
    assert cut_windows(raw(noise(sfreq=160.0), 160.0), BAND, SFREQ, TIMES)[1].band == (5.0, None)


@pytest.mark.parametrize(("frequency", "passes"), [(1.0, False), (20.0, True), (122.0, False)])
def test_what_lies_outside_the_band_is_gone(frequency, passes):
    time = np.arange(int(20 * SFREQ)) / SFREQ
    data = noise(2, 20.0) * 0.05 + 50 * np.sin(2 * np.pi * frequency * time)
    windows, _ = cut_windows(raw(data), BAND, SFREQ, TIMES)
    power = np.abs(np.fft.rfft(windows[5:-5], axis=-1)) ** 2
    at = np.abs(np.fft.rfftfreq(TIMES, 1 / SFREQ) - frequency).argmin()
    assert (power[..., at].mean() > 0.3 * power.sum(-1).mean()) == passes


def test_windows_are_whole_side_by_side_and_normalised_over_all_channels():
    data = noise() * np.array([[1], [2], [3], [4]])
    windows, report = cut_windows(raw(data), BAND, SFREQ, TIMES)
    assert windows.shape == (10 * 250 // TIMES, 4, TIMES) == (report.windows, 4, TIMES)
    assert np.allclose(windows.mean(-1), 0, atol=1e-5)
    assert np.allclose((windows**2).mean((1, 2)), 1, atol=1e-4)
    assert windows[:, 3].std() > 2 * windows[:, 0].std()


def test_another_sampling_rate_becomes_the_common_one():
    windows, report = cut_windows(raw(noise(sfreq=500.0), 500.0), BAND, SFREQ, TIMES)
    assert report.sfreq == 500.0
    assert len(windows) == 10 * 250 // TIMES


def test_missing_samples_bad_marks_flat_channels_and_short_recordings_are_rejected_and_counted():
    gap, flat = noise(), noise()
    gap[:, 1200:1210] = np.nan
    flat[2, 1000:2000] = 7.0
    for data, marks, reason in ((gap, (), "gap"), (noise(), ((4.0, 1.0, "BAD_amplifier"),), "gap"),
                                      (flat, (), "flat")):
        windows, report = cut_windows(raw(data, annotations=marks), BAND, SFREQ, TIMES)
        assert 0 < report.rejected[reason] < 19
        assert len(windows) + sum(report.rejected.values()) == 19
        assert np.isfinite(windows).all()
    assert cut_windows(raw(noise(seconds=0.6)), BAND, SFREQ, TIMES)[1].rejected == {"short": 1}


def test_stimulus_channels_are_left_out():
    with_trigger = raw(noise(3))
    with_trigger.set_channel_types({"E2": "stim"}, verbose="error")
    windows, report = cut_windows(with_trigger, BAND, SFREQ, TIMES)
    assert windows.shape[1] == report.channels == 2


def test_channels_are_replicated_in_order_and_surplus_ones_dropped():
    windows = np.arange(3.0)[None, :, None] * np.ones((1, 3, 2))
    assert replicate(windows, 8)[0, :, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert replicate(windows, 2)[0, :, 0].tolist() == [0, 1]


def test_outliers_are_clipped_at_twenty_standard_deviations():
    windows = np.zeros((1, 10, 1000), np.float32)
    windows[0, 0, 0] = 1e9
    assert np.abs(normalise(windows)).max() == 20


def test_epochs_begin_at_their_stimulus_and_none_may_be_lost():
    data = noise(2, 20.0) * 0.01
    onsets = np.array([1000, 2000, 3000])
    for onset in onsets:
        data[:, onset + 50:onset + 60] += 100
    windows = cut_epochs(raw(data), onsets, BAND, SFREQ, TIMES)
    assert (np.abs(windows).sum(1).argmax(-1) // 10 == 5).all()
    with pytest.raises(BenchError, match="trials without signal"):
        cut_epochs(raw(data), np.array([4990]), BAND, SFREQ, TIMES)
    unscaled = cut_epochs(raw(data), onsets, BAND, SFREQ, TIMES, normalised=False)
    assert unscaled.dtype == np.float32
    assert np.allclose(normalise(unscaled), windows, atol=1e-5)
    data[:, 2050] = np.nan
    with pytest.raises(BenchError, match="trials without signal"):
        cut_epochs(raw(data), onsets, BAND, SFREQ, TIMES)


def test_the_tiny_corpus_is_a_moabb_dataset_that_moabb_reads():
    from moabb.datasets.base import BaseDataset

    from bench.data.tiny import DEVICES
    from bench.data.tiny_moabb import Tiny
    from bench.experiment.scale import MICRO

    dataset = Tiny(MICRO.world, DEVICES[0])
    assert isinstance(dataset, BaseDataset)
    runs = dataset.get_data(subjects=[1])[1]
    assert all(isinstance(run, mne.io.BaseRaw) for session in runs.values() for run in session.values())
