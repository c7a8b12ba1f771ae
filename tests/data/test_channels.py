"""Channels that hold no EEG: trigger codes by name and by values, stretches without signal, another scale."""

from __future__ import annotations

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfilt

from bench.data import channels

SFREQ = 250.0


def eeg(n, sfreq=SFREQ, seed=0, rows=1):
    """EEG-like noise [rows, n] of unit variance, below 40 Hz."""
    noise = np.random.default_rng(seed).standard_normal((rows, n + 1000))
    smooth = sosfilt(butter(2, 40 / (sfreq / 2), output="sos"), noise)[:, 1000:]
    return smooth / smooth.std(1, keepdims=True)


def pulses(codes, n=20_000, held=1):
    """A channel [n] that is 0, and one of the codes in turn for `held` samples at each of 100 stimuli."""
    channel = np.zeros(n)
    for number, onset in enumerate(np.linspace(10, n - 30, 100).astype(int)):
        channel[onset : onset + held] = codes[number % len(codes)]
    return channel


CODES = {
    "twenty classes": pulses(np.arange(1, 21)),
    "a code for each picture": pulses(np.random.default_rng(0).permutation(5000)[:100] + 1.0),
    "codes times 0.25": pulses(0.25 * np.arange(1, 21)),
    "codes in volt, of an amplifier's gain": pulses(3.1e-8 * np.arange(1, 41) + 2e-7, held=25),
    "codes held until the next one": np.repeat(np.random.default_rng(1).permutation(200) + 1.0, 100),
    "picture numbers in ascending order": np.repeat(np.arange(200.0), 100),
    "the same, once for each of two people": np.tile(np.repeat(np.arange(24.0), 40), 2),
    "on and off": pulses([1]),
    "codes of one sample, twenty a second": pulses(np.arange(1, 31), 1250),
    "a binary sequence of 60 Hz": np.repeat(np.random.default_rng(2).integers(0, 2, 5000), 4).astype(float),
    "codes that change at every sample": np.arange(20_000.0) % 5,
}


@pytest.mark.parametrize("codes", CODES.values(), ids=CODES)
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_a_channel_of_codes_is_found_however_many_codes_and_in_whatever_unit(codes, kind):
    signal = np.concatenate([eeg(len(codes), rows=4), codes[None]]).astype(kind)
    assert channels.find_codes(signal, SFREQ).tolist() == [False] * 4 + [True]


@settings(deadline=None, derandomize=True, database=None, max_examples=80)
@given(step=st.floats(0.001, 0.8), sfreq=st.sampled_from([100.0, 250.0, 512.0, 1000.0, 5000.0]),
       n=st.integers(60, 6000), seed=st.integers(0, 99),
       kind=st.sampled_from([np.float64, np.float32, np.float16, np.int16]))
def test_eeg_of_coarse_steps_and_low_amplitude_is_no_trigger_channel(step, sfreq, n, seed, kind):
    levels = np.rint(eeg(n, sfreq, seed, 3) / step)
    signal = levels.astype(kind) if kind == np.int16 else (levels * 0.1).astype(kind)
    enough = [len(np.unique(row)) > channels.FEW for row in signal]  # five levels are no EEG
    assert not (channels.find_codes(signal, sfreq) & enough).any()


def test_eeg_that_fails_for_most_of_a_recording_or_was_held_from_a_lower_rate_is_no_trigger_channel():
    failing = np.rint(eeg(20_000) * 20)
    failing[0, 1000:18_500] = 0
    held = np.repeat(np.rint(eeg(4000, 100.0) * 20), 5, axis=1)
    dead = np.repeat(np.random.default_rng(0).choice([0, 1e-17, -1e-17, 2e-17], 200), 100)[None]  # what a mean leaves
    signal = np.concatenate([failing, held, dead, eeg(20_000, rows=3)])
    assert not channels.find_codes(signal, 500.0).any()


def test_samples_that_are_missing_do_not_hide_codes():
    signal = np.concatenate([eeg(20_000, rows=3), CODES["twenty classes"][None]])
    gaps = np.zeros(20_000, bool)
    gaps[5000:9000] = True
    signal[3, 5000:9000] = np.nan
    assert channels.find_codes(signal, SFREQ, gaps).tolist() == [False, False, False, True]
    assert channels.find_codes(signal, SFREQ).tolist() == [False, False, False, True]


@pytest.mark.parametrize("name", ["Status", "STATUS", "STI 014", "STI101", "STIM", "stim", "Stim_Channel", "TRIG",
                                  "Trigger", "TriggerIn", "TRIGGERS", "DIN1", "DIN 128", "Event", "Events",
                                  "EEG Marker", "StimulusCode", "TTL1", "EEG STI"])
def test_a_channel_named_as_a_trigger_channel_is_known(name):
    assert channels.has_trigger_name(name)


def test_no_electrode_of_any_montage_is_named_as_a_trigger_channel():
    names = {name for montage in mne.channels.get_builtin_montages()
             for name in mne.channels.make_standard_montage(montage).ch_names}
    names |= {"EEG 001", "EEG Fp1-Ref", "A1", "E128", "EXG1", "HEOG", "VEO", "M1", "CB1", "GSR", "Resp", "ECG", "EMG1"}
    assert len(names) > 500
    assert [name for name in sorted(names) if channels.has_trigger_name(name)] == []


def test_equal_samples_on_all_channels_for_longer_than_50_ms_are_no_signal():
    signal = eeg(2000, rows=32)
    signal[:, 500:512] = signal[:, 500:501]  # 48 ms
    assert not channels.find_constant(signal, SFREQ).any()
    signal[:, 500:513] = 7.0
    signal[3] = eeg(2000, seed=5)  # one that is no EEG goes on
    assert np.flatnonzero(channels.find_constant(signal, SFREQ)).tolist() == list(range(500, 513))
    coarse = np.rint(eeg(20_000, 100.0, rows=2))  # two channels of whole numbers -3 to 3 repeat a value by chance
    assert not channels.find_constant(coarse, 100.0).any()


@pytest.mark.parametrize("factor", [100, 0.01])
def test_a_channel_of_another_scale_is_outlying_and_one_with_a_blink_is_not(factor):
    window = eeg(250, rows=32)
    window[5] *= factor
    window[9, 100:150] += 40 * np.hanning(50)
    reason, flat, outlying = channels.assess(window, SFREQ)
    assert (reason, flat.any(), np.flatnonzero(outlying).tolist()) == ("", False, [5])
    window[10:13] *= factor
    assert channels.assess(window, SFREQ).reason == "scale"
