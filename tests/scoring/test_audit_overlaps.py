"""Windows that share samples with windows of another part are found, by their columns and by their signal."""

import leakfence
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import own
from bench.data.recordings import normalise
from bench.errors import BenchError
from bench.experiment import datasets, stages
from bench.scoring import audit_overlaps
from bench.scoring.audit import CLEAR, LEAK, UNKNOWN, audit, read
from bench.scoring.audit_overlaps import find_inside, find_overlapping_eeg, find_overlapping_samples
from bench.train.trials import write_prepared

SAMPLES, SIGNAL = "overlapping samples in two parts", "overlapping EEG in two parts"
LENGTH = 128


def table(n, seed=0, shares=(0.75, 0.0, 0.25), **columns):
    """n trials in order of time, in parts at random; ten classes in random order."""
    rng = np.random.default_rng(seed)
    part = np.repeat(("train", "val", "test"), np.diff(np.round(np.cumsum([0, *shares]) * n).astype(int)))
    return pd.DataFrame({"item": np.arange(n), "subject": 1, "picture": np.arange(n), "label": rng.integers(0, 10, n),
                         "part": rng.permutation(part), "block": 0, "position": np.arange(n), **columns})


def recording(n, seed=0, channels=4, sfreq=250.0, band=(5.0, 95.0), power=1.0):
    """EEG [C, n] with a spectrum of 1/f within a band."""
    rng = np.random.default_rng(seed)
    frequency = np.fft.rfftfreq(n, 1 / sfreq)
    inside = (frequency >= band[0]) & (frequency <= band[1])
    spectrum = np.where(inside, np.maximum(frequency, band[0]) ** -power, 0)
    noise = rng.standard_normal((channels, len(frequency), 2)).view(complex)[..., 0]
    signal = np.fft.irfft(noise * spectrum, n)
    return signal / signal.std()


def windows(signal, starts, length=LENGTH):
    return signal[:, np.asarray(starts)[:, None] + np.arange(length)].swapaxes(0, 1)


def found(report, name):
    return next(finding for finding in report.findings if finding.name == name)


def fence(trials, one, other):
    """The pairs of leakfence: [(row of `one`, row of `other`, share)]."""
    recordings = trials.groupby(["subject", "session"] if "session" in trials else ["subject"]).ngroup()
    rows = [np.flatnonzero(trials["part"] == part) for part in (one, other)]
    return leakfence.audit_split(*rows, sample_range=list(zip(trials["start"], trials["stop"], strict=True)),
                                 recording=recordings.tolist()).temporal_stats


def test_windows_of_128_samples_every_16_split_at_random_are_a_leak_with_and_without_start_and_stop():
    starts = 16 * np.arange(200)
    eeg = normalise(windows(recording(16 * 200 + LENGTH), starts)).astype(np.float16)
    trials = table(200, start=starts, stop=starts + LENGTH)
    oracle = fence(trials, "train", "test")
    report = audit(trials, eeg)
    pairs, tested = len(oracle.pairs), len({pair[1] for pair in oracle.pairs})
    assert pairs > 350
    assert found(report, SAMPLES).severity == LEAK
    assert found(report, SAMPLES).count == pairs
    assert report.verdict == (f"yes: {pairs} pairs of overlapping windows ({pairs} in train and test; {tested} of 50 "
                              "test trials)")
    seen = sum(share * LENGTH >= audit_overlaps.SNIPPET for *_, share in oracle.pairs)
    signal = audit(trials.drop(columns=["start", "stop"]), eeg)
    assert found(signal, SAMPLES).severity == UNKNOWN
    assert (found(signal, SIGNAL).severity, found(signal, SIGNAL).count) == (LEAK, seen)
    assert signal.verdict.startswith(f"yes: {seen} pairs of overlapping windows ({seen} in train and test; ")
    assert "overlaps below 24 samples cannot be seen" in found(signal, SIGNAL).example


@settings(deadline=None, derandomize=True, database=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(20, 90), st.integers(1, 40), st.booleans())
def test_the_pairs_counted_by_start_and_stop_are_those_of_leakfence(seed, n, spread, sessions):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 10 * spread, n)
    trials = table(n, seed, (0.5, 0.2, 0.3), start=start, stop=start + rng.integers(1, 60, n))
    trials["subject"] = rng.integers(1, 4, n)
    if sessions:
        trials["session"] = rng.integers(0, 2, n)
    finding = find_overlapping_samples(trials)
    expected = [fence(trials, *parts) for parts in audit_overlaps.COMPARED]
    assert finding.count == sum(len(stats.pairs) for stats in expected)
    assert finding.severity == (LEAK if finding.count else CLEAR)
    if finding.count:
        tested = {pair[1] for stats in expected[:2] for pair in stats.pairs}
        assert f"; {len(tested)} of {(trials['part'] == 'test').sum()} test trials)" in finding.reason


def test_windows_side_by_side_and_those_of_other_sessions_do_not_overlap():
    starts = LENGTH * np.arange(100)
    trials = table(100, start=starts, stop=starts + LENGTH)
    assert audit(trials).verdict == "no"
    assert find_overlapping_samples(trials).severity == CLEAR
    trials = table(100, start=0, stop=LENGTH, session=np.arange(100))
    assert find_overlapping_samples(trials).severity == CLEAR


def test_what_has_no_start_and_stop_is_counted_aloud():
    trials = table(100, start=-1, stop=-1)
    assert find_overlapping_samples(trials).severity == UNKNOWN
    trials.loc[:89, "start"], trials.loc[:89, "stop"] = LENGTH * np.arange(90), LENGTH * np.arange(1, 91)
    assert find_overlapping_samples(trials).example == "not checked: 10 trials without start and stop"


@pytest.mark.parametrize(("columns", "message"), [
    ({"start": 0}, "a column start alone; expected start and stop"),
    ({"start": 5, "stop": 5}, r"item 0 has start 5 and stop 5; expected .* 0 <= start < stop"),
    ({"start": -1, "stop": 5}, "item 0 has start -1 and stop 5"),
    ({"start": "early", "stop": "late"}, "column start holds text"),
])
def test_start_and_stop_that_are_no_samples_are_refused_in_one_line(columns, message):
    with pytest.raises(BenchError, match=message) as error:
        audit(table(20, **columns))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("sfreq", "band", "length"), [
    (250, (5, 95), 128), (1000, (5, 95), 256), (250, (0.1, 30), 128), (500, (0.5, 100), 128)])
def test_smooth_eeg_of_repeated_stimuli_is_no_overlap(sfreq, band, length):
    """No two windows overlap; a response of the size of all other activity repeats with each class."""
    trials = table(240, shares=(0.6, 0.2, 0.2))
    size = np.random.default_rng(2).standard_normal((10, 4, 1))
    wave = size * np.exp(-(((np.arange(length) / sfreq - 0.12) / 0.03) ** 2))
    eeg = windows(recording(240 * length, sfreq=sfreq, band=band), length * np.arange(240), length)
    assert find_overlapping_eeg(trials, normalise(eeg + wave[trials["label"]]).astype(np.float16)).severity == CLEAR


def test_smooth_eeg_at_a_high_rate_is_in_no_corpus_by_chance():
    """0.1 to 30 Hz at 1 kHz: a stretch of 24 samples alone has hardly any shape."""
    trials = table(200)
    eeg = windows(recording(200 * 512, sfreq=1000, band=(0.1, 30)), 512 * np.arange(200), 512)
    corpus = eeg[(trials["part"] == "train").to_numpy()]
    assert find_inside(trials, eeg, corpus).severity == CLEAR
    corpus[:, :, 200:] = eeg[np.flatnonzero(trials["part"] == "test")[0], :, :-200]
    assert find_inside(trials, eeg, corpus).count == 1


@pytest.mark.parametrize("length", [64, 300])
def test_windows_of_the_corpus_may_be_shorter_or_longer_than_a_test_trial_that_they_share(length):
    trials = table(40)
    eeg = windows(recording(40 * LENGTH), LENGTH * np.arange(40))
    item = int(np.flatnonzero(trials["part"] == "test")[2])
    corpus = windows(recording(20 * length, seed=5), length * np.arange(20), length)
    assert find_inside(trials, eeg, corpus).severity == CLEAR
    if length < LENGTH:
        corpus[3] = eeg[item, :, 30 : 30 + length]
    else:
        corpus[3, :, 100 : 100 + LENGTH] = eeg[item]
    finding = find_inside(trials, eeg, corpus)
    assert (finding.severity, finding.count, finding.example) == (LEAK, 1, f"item {item}")


def test_a_corpus_that_is_flat_is_not_checked():
    eeg = windows(recording(40 * LENGTH), LENGTH * np.arange(40))
    finding = find_inside(table(40), eeg, np.zeros((5, 4, LENGTH)))
    assert (finding.severity, finding.example) == (
        UNKNOWN, "flat, periodic or not finite, thus not searched: 5 windows of the corpus")


def test_a_signal_without_detail_is_not_checked_and_the_report_says_why():
    eeg = windows(recording(100 * LENGTH, band=(1, 6)), LENGTH * np.arange(100))
    assert found(audit(table(100), eeg), SIGNAL).severity == UNKNOWN
    assert "too smooth" in find_overlapping_eeg(table(100), eeg).example
    assert find_overlapping_eeg(table(100), eeg[:, :, :20]).example == "windows are shorter than 24 samples"
    assert find_overlapping_eeg(table(100), None).example == "no EEG was given"


def test_windows_of_a_periodic_test_signal_are_no_overlap_and_are_counted():
    """A square wave of 10 Hz with little noise, as an amplifier's calibration: every window looks like every other."""
    rng = np.random.default_rng(0)
    wave = np.sign(np.sin(2 * np.pi * 10 * (np.arange(100 * LENGTH + 7) + 0.3) / 250))
    eeg = windows(wave + 1e-4 * rng.standard_normal((3, len(wave))), LENGTH * np.arange(100) + rng.integers(0, 7, 100))
    assert find_overlapping_eeg(table(100), eeg).severity == UNKNOWN
    trials = table(100)
    rows = np.setdiff1d(np.arange(100), np.flatnonzero(trials["part"] == "test")[:10])
    eeg[rows] = windows(recording(90 * LENGTH, channels=3), LENGTH * np.arange(90))
    finding = find_overlapping_eeg(trials, eeg)
    assert finding.severity == CLEAR
    assert "periodic or not finite, thus not searched: 10 windows" in finding.example


def test_overlaps_are_found_whatever_baseline_scale_and_trend_a_window_has_and_though_a_channel_is_flat():
    rng = np.random.default_rng(0)
    starts = np.concatenate([LENGTH * np.arange(90), LENGTH * np.arange(10) * 9 + 50])
    eeg = windows(recording(100 * LENGTH), starts)
    trend = np.linspace(0, 1, LENGTH) * rng.standard_normal((100, 4, 1))
    eeg = rng.uniform(0.1, 10, (100, 1, 1)) * (eeg + trend) + 100 * rng.standard_normal((100, 4, 1))
    eeg[:, 0] = 3
    trials = table(100).assign(part=np.where(np.arange(100) < 90, "train", "test"))
    finding = find_overlapping_eeg(trials, eeg.astype(np.float32))
    assert finding.count == 20  # each of ten windows overlaps two
    assert "test item 90 begins 50 samples after train item 0" in finding.example


def test_windows_of_validation_that_overlap_are_counted_too():
    starts = np.concatenate([LENGTH * np.arange(80), LENGTH * np.arange(20) + 64])
    trials = table(100, start=starts, stop=starts + LENGTH).assign(
        part=np.repeat(["train", "val", "test"], [80, 10, 10]))
    report = audit(trials, windows(recording(101 * LENGTH), starts))
    for name in (SAMPLES, SIGNAL):
        assert found(report, name).count == 40
        assert "20 in train and test, 20 in train and val" in found(report, name).example
    assert report.verdict.count("overlapping windows") == 1


def test_memory_is_bounded_and_changes_nothing(monkeypatch):
    starts = 40 * np.arange(120)
    eeg = windows(recording(40 * 120 + LENGTH), starts)
    whole = find_overlapping_eeg(table(120), eeg)
    assert whole.count > 80
    monkeypatch.setattr(audit_overlaps, "CELLS", 2**14)
    monkeypatch.setattr(audit_overlaps, "PAIRS", 3)
    assert find_overlapping_eeg(table(120), eeg) == whole


def test_a_window_with_nan_hides_no_other_and_is_counted():
    trials = table(100)
    eeg = np.random.default_rng(0).standard_normal((100, 3, 64))
    test = np.flatnonzero(trials["part"] == "test")
    corpus = np.random.default_rng(1).standard_normal((50, 3, 64))
    corpus[7, :, 10:] = eeg[test[0], :, :-10]
    corpus[8] = np.nan
    eeg[test[1]] = np.nan
    finding = find_inside(trials, eeg, corpus)
    assert (finding.severity, finding.count) == (LEAK, 1)
    assert finding.example == (
        f"item {test[0]}; flat, periodic or not finite, thus not searched: 1 test trial, 1 window of the corpus")
    assert "flat, periodic or not finite, thus not searched: 1 window" in find_overlapping_eeg(trials, eeg).example


def test_overlaps_are_found_though_samples_are_nan_and_what_was_searched_in_part_is_counted():
    starts = 50 * np.arange(120)
    eeg = windows(recording(50 * 120 + LENGTH), starts)
    whole = find_overlapping_eeg(table(120), eeg)
    eeg[:, :, 40] = np.nan  # outside the ends of the overlaps
    finding = find_overlapping_eeg(table(120), eeg)
    assert finding.count == whole.count
    assert "flat, periodic or not finite in part, thus searched in part: 90 windows" in finding.example
    eeg = windows(recording(50 * 120 + LENGTH), starts)
    eeg[7, :, 3] = np.nan
    assert "searched in part: 1 window" in find_overlapping_eeg(table(120), eeg).example


def test_start_and_stop_of_a_users_data_set_reach_the_audit(tmp_path):
    starts = 16 * np.arange(60)
    trials = table(60, shares=(0.6, 0.2, 0.2)).drop(columns="item")
    trials = trials.rename(columns={"part": "part_item"}).assign(picture=0, start=starts, stop=starts + 64)
    trials["label"] = np.arange(60) % 2
    own.prepare(tmp_path / "data" / "mine", eeg=windows(recording(2000), starts, 64), sfreq=250.0, band=(5, 95),
                pictures=np.zeros((1, 32, 32, 3), np.uint8), trials=trials, classes={"a": 0, "b": 1},
                leaky="no: a test")
    (tmp_path / "stage").mkdir()
    world = datasets.find_pairs("mine", tmp_path / "data")
    write_prepared(stages.Trials(world, (1,), (5.0, 95.0)), tmp_path / "stage")
    rows = pd.read_csv(tmp_path / "stage" / "trials.csv")
    finding = found(read(tmp_path / "stage"), SAMPLES)
    assert finding.severity == LEAK
    assert finding.count == sum(len(fence(rows, *parts).pairs) for parts in audit_overlaps.COMPARED)
