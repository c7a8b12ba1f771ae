"""A channel that holds codes instead of EEG is found; an evoked response is none."""

import numpy as np
import pandas as pd
import pytest

from bench.data.recordings import normalise
from bench.scoring.audit import CLEAR, FACT, LEAK, UNKNOWN, audit
from bench.scoring.audit_signals import find_telling_channel

N, LENGTH = 400, 64


def table(n=N, classes=20, seed=0):
    rng = np.random.default_rng(seed)
    part = rng.permutation(np.resize(["train", "train", "train", "test"], n))
    return pd.DataFrame({"item": np.arange(n), "subject": 1, "picture": np.arange(n),
                         "label": rng.permutation(np.arange(n) % classes), "part": part, "block": 0,
                         "position": np.arange(n)})


def eeg(n=N, seed=1, channels=4):
    """Smooth noise [n, C, T]."""
    noise = np.random.default_rng(seed).standard_normal((n, channels, LENGTH + 3))
    return np.mean([noise[:, :, shift : shift + LENGTH] for shift in range(4)], 0)


def pulse(windows, codes, channel=2, samples=10):
    """Replaces a channel by codes [n] during its first samples, zeros afterwards."""
    windows[:, channel] = 0
    windows[:, channel, :samples] = np.asarray(codes)[:, None]
    return windows


def telling(trials, windows):
    return find_telling_channel(trials.assign(label=pd.factorize(trials["label"])[0]), windows)


@pytest.mark.parametrize("codes", ["a code for each class", "codes x 0.25", "a code for each picture"])
@pytest.mark.parametrize("normalised", [False, True])
def test_a_trigger_channel_tells_the_class_and_is_a_leak(codes, normalised):
    trials = table()
    picture = np.argsort(np.argsort(trials["label"].to_numpy(), kind="stable")) + 1  # files in folders of classes
    codes = {"a code for each class": trials["label"] + 1, "codes x 0.25": 0.25 * (trials["label"] + 1),
             "a code for each picture": picture}[codes]
    windows = pulse(eeg(), codes)
    report = audit(trials, normalise(windows) if normalised else windows)
    assert report.verdict.startswith("yes: channel 2 at sample ")
    assert " alone tells the class (" in report.verdict
    finding, steps = telling(trials, windows)
    assert (finding.severity, steps.severity, steps.count) == (LEAK, FACT, 1)
    assert "channel 2 (from 0)" in steps.example
    assert finding.count >= 0.9 * (trials["part"] == "test").sum()


def test_a_held_code_is_read_from_the_mean_of_a_channel_and_a_filtered_one_from_its_size():
    trials = table(classes=10)
    held = eeg()
    held[:, 1] += 50 * trials["label"].to_numpy()[:, None]
    assert telling(trials, held)[0].severity == LEAK
    filtered = pulse(eeg(), trials["label"] + 1)
    filtered[:, 2] = np.apply_along_axis(np.convolve, 1, filtered[:, 2], np.hanning(9) / 4, "same")
    filtered[:, 2] += 0.05 * eeg(seed=5)[:, 2]
    finding, steps = telling(trials, filtered)
    assert (finding.severity, steps.severity) == (LEAK, CLEAR)


@pytest.mark.parametrize(("classes", "size", "severity"), [
    (2, 1.0, FACT), (10, 1.0, FACT), (40, 1.0, CLEAR), (10, 2.0, FACT)])
def test_an_evoked_response_as_large_as_all_other_activity_is_a_fact_and_no_leak(classes, size, severity):
    trials = table(800, classes)
    level = np.random.default_rng(3).standard_normal((classes, 4, 1))
    wave = np.exp(-(((np.arange(LENGTH) - 25) / 6) ** 2))
    background = eeg(800)
    windows = normalise(background + size * background.std() * level[trials["label"]] * wave)
    assert telling(trials, windows)[0].severity == severity


@pytest.mark.parametrize("seed", range(4))
def test_eeg_without_a_response_and_flat_channels_tell_nothing(seed):
    """Trials of a class follow each other: equal values must not be read in their order."""
    trials = table(classes=10, seed=seed).sort_values("label", ignore_index=True)
    windows = eeg(seed=seed)
    windows[:, 0] = 7
    windows[:, 3] -= windows[:, 3]
    finding, steps = telling(trials, windows)
    assert (finding.severity, steps.severity) == (CLEAR, CLEAR)


def test_codes_that_tell_no_class_are_a_fact():
    finding, steps = telling(table(), pulse(eeg(), np.random.default_rng(0).permutation(N)))
    assert finding.severity == CLEAR
    assert (steps.severity, steps.count) == (FACT, 1)


def test_where_no_tested_class_is_trained_on_training_trials_are_tested_instead():
    trials = table()
    trials["part"] = np.where(trials["label"] < 15, "train", "test")
    finding = telling(trials, pulse(eeg(), trials["label"] + 1))[0]
    assert finding.severity == LEAK
    assert "100 training trials, as no class of the test trials is trained on" in finding.example


def test_too_few_trials_and_a_single_class_are_not_checked_and_the_report_says_why():
    few = table(12, classes=6)
    assert "few" in telling(few, eeg(12))[0].example
    assert telling(few, eeg(12))[0].severity == UNKNOWN
    single = table().assign(label=0)
    assert telling(single, eeg())[0].example == "fewer than two classes of the test trials are trained on"
    assert telling(table(), np.zeros((N, 4, LENGTH)))[0].example == "all channels are constant"
    assert [finding.example for finding in telling(table(), None)] == ["no EEG was given"] * 2


def test_trials_with_nan_are_left_out_and_counted():
    windows = pulse(eeg(), table()["label"] + 1)
    windows[np.flatnonzero(table()["part"] == "train")[:3], 0, 5] = np.nan
    finding, steps = telling(table(), windows)
    assert finding.severity == LEAK
    assert "left out: 3 trials with NaN or infinite EEG" in steps.example
    windows[:, 1] = np.nan
    finding, steps = telling(table(), windows)
    assert (finding.severity, finding.example) == (UNKNOWN, "no training trial has finite EEG")
