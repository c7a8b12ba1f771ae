"""Windows for pre-training from recordings with joins, stretches without signal, channels of another scale, codes."""

from __future__ import annotations

import json
from dataclasses import asdict

import mne
import numpy as np
import pybv
import pytest
from eeg_writers import write, write_set
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import catalogue, corpora, shard_writer
from bench.data.catalogue import Cutting
from bench.data.recordings import (
    LARGEST_FACTOR,
    as_raw,
    band_pass,
    cut_epochs,
    cut_segments,
    cut_windows,
    find_factors,
    find_joins,
)
from bench.errors import BenchError

SFREQ, BAND, TIMES, REACH = 256.0, (5.0, 95.0), 512, 0.82


def noise(channels=32, seconds=20.0, sfreq=SFREQ, seed=0):
    return 20 * np.random.default_rng(seed).standard_normal((channels, int(seconds * sfreq)))


def raw(data, sfreq=SFREQ, annotations=()):
    return as_raw(data, sfreq, [f"E{i}" for i in range(len(data))], annotations)


def concatenated():
    """Two recordings of 10 s, the second 1 mV higher, put together by MNE."""
    whole = noise()
    second = whole[:, 2560:] + 1000
    return mne.concatenate_raws([raw(whole[:, :2560]), raw(second)], verbose="error")


def stepped():
    data = noise()
    data[:, 2560:] += 1000
    return data


def brainvision(folder, *segments):
    """The same, as BrainVision writes it: New Segment at these samples, from 1 on."""
    pybv.write_brainvision(data=stepped() * 1e-6, sfreq=SFREQ, ch_names=[f"E{i}" for i in range(32)],
                           fname_base="two", folder_out=folder, resolution=0.5)
    with (folder / "two.vmrk").open("a") as file:
        file.writelines(f"Mk{number}=New Segment,{text},{sample},1,0\n" for number, (sample, text) in
                        enumerate(segments, 2))
    return mne.io.read_raw_brainvision(folder / "two.vhdr", verbose="error")


def check_join(cut, without_step):
    """The window at 8 s ends with the join, that at 10 s begins with it; all others are as without the step."""
    assert cut.rejected == {"join": 2}
    assert cut.onsets.tolist() == [0, 2, 4, 6, 12, 14, 16, 18]
    assert np.allclose(cut.windows, without_step.windows[[0, 1, 2, 3, 6, 7, 8, 9]], atol=0.02)


@pytest.mark.parametrize(("description", "duration"), [
    ("BAD boundary", 0.0), ("EDGE boundary", 0.0), ("boundary", 0.0), ("boundary", np.nan), ("boundary", 3.0),
    ("BAD_boundary", 0.0), ("-99", 0.0), ("New Segment/", 0.001), ("New Segment/LostSamples: 12", 0.0)])
def test_a_window_with_a_join_in_it_or_in_the_filters_reach_is_rejected(description, duration):
    marked = raw(stepped(), annotations=((10.0, 0.0, description),))
    marked.annotations.duration[:] = duration
    check_join(cut_segments(marked, BAND, TIMES), cut_segments(raw(noise()), BAND, TIMES))


def test_joins_are_those_that_mne_and_brainvision_write_and_no_mark_is_no_join(tmp_path):
    without = cut_segments(raw(noise()), BAND, TIMES)
    check_join(cut_segments(concatenated(), BAND, TIMES), without)
    check_join(cut_segments(brainvision(tmp_path, (1, ""), (2561, "")), BAND, TIMES), without)
    concatenated().save(tmp_path / "two_raw.fif", verbose="error")
    check_join(cut_segments(mne.io.read_raw_fif(tmp_path / "two_raw.fif", verbose="error"), BAND, TIMES), without)
    cropped = concatenated().crop(4.0)  # onsets then count from the first sample of the original
    assert np.flatnonzero(find_joins(cropped)).tolist() == [6 * 256]
    assert cut_segments(raw(stepped()), BAND, TIMES).rejected == {}  # what is marked nowhere cannot be known


def test_a_new_segment_at_the_beginning_or_after_the_end_is_no_join(tmp_path):
    recording = brainvision(tmp_path, (1, ""), (5121, ""))
    assert not find_joins(recording).any()
    assert not find_joins(raw(noise(), annotations=((0.0, 0.0, "boundary"), (19.999, 0.0, "boundary")))).any()
    between = raw(noise(), annotations=((2559.5 / 256, 0.0, "boundary"),))  # as EEGLAB writes it, between two samples
    assert np.flatnonzero(find_joins(between)).tolist() == [2560]


def test_a_bad_mark_without_a_duration_marks_its_sample():
    cut = cut_segments(raw(noise(), annotations=((9.9, 0.0, "BAD_jump"),)), BAND, TIMES)
    assert cut.rejected == {"gap": 2}
    assert cut.onsets.tolist() == [0, 2, 4, 6, 12, 14, 16, 18]


def test_a_join_counts_as_a_gap_in_simulated_recordings_and_an_epoch_over_one_is_an_error():
    windows, report = cut_windows(concatenated(), BAND, SFREQ, 256)
    assert report.rejected == {"gap": 2}
    assert len(windows) == 18
    with pytest.raises(BenchError, match="trials without signal"):
        cut_epochs(concatenated(), np.array([2500]), BAND, SFREQ, 256)
    with pytest.raises(BenchError, match="trials without signal"):
        cut_epochs(raw(noise()), np.array([-300]), BAND, SFREQ, 256)  # not the end of the recording


def demeaned(seconds, trials, sfreq, channels):
    data = noise(channels, seconds * trials, sfreq).reshape(channels, trials, -1) + 300
    return (data - data.mean(-1, keepdims=True)).swapaxes(0, 1)


def stacked(trials, zeros):
    """Joins trials [N, C, T] in time with `zeros` zeros before and after each, as MOABB stacks them."""
    return np.concatenate([np.pad(trial, ((0, 0), (zeros, zeros))) for trial in trials], 1)


MOABB = {  # at their rate: recordings, and the seconds that have a signal
    "Weibo2014": (stacked(demeaned(8, 6, 200.0, 60), 50), 200.0, 6 * 8),
    "Wang2016": (stacked(demeaned(6, 6, 250.0, 64), 50), 250.0, 6 * 6),
    "Cho2017": (np.concatenate([noise(64, 20.0), np.zeros((64, 500)), noise(64, 20.0, seed=1)], 1), SFREQ, 40),
    "EPFLP300": (np.pad(noise(32, 20.0), ((0, 0), (0, 3000))), SFREQ, 20),
    "a held value": (np.pad(noise(32, 20.0), ((0, 0), (0, 3000)), mode="edge"), SFREQ, 20),
}


@pytest.mark.parametrize(("data", "sfreq", "seconds"), MOABB.values(), ids=MOABB)
def test_no_window_holds_zeros_between_trials_as_moabb_stacks_them_nor_their_edges(data, sfreq, seconds):
    cut = cut_segments(raw(data, sfreq), BAND, TIMES)
    whole = 1 + (data.shape[1] - TIMES) // TIMES
    assert set(cut.rejected) == {"constant"}
    assert len(cut.windows) + cut.rejected["constant"] == whole
    silent = (np.diff(data, axis=1) == 0).all(0)
    reach = int(REACH * sfreq)
    for onset in (cut.onsets * sfreq).round().astype(int):
        assert not silent[max(onset - reach, 0) : onset + TIMES + reach].any()
    assert 0.25 * seconds * sfreq / TIMES < len(cut.windows) <= seconds * sfreq / TIMES


def test_every_rejected_window_has_one_reason_and_all_are_counted():
    data = stepped()
    data[:, 500:600] = np.nan
    data[:, 3900:4000] = 0
    data[:9, 4600:] = 5.0
    cut = cut_segments(raw(data, annotations=((10.0, 0.0, "boundary"),)), BAND, TIMES)
    assert cut.rejected == {"gap": 2, "join": 2, "constant": 2, "flat": 1}
    assert len(cut.windows) == 3


@pytest.mark.parametrize("factor", [100, 0.01])
def test_a_channel_of_another_scale_is_replaced_and_named_and_crushes_no_other(factor):
    data = noise()
    data[7] *= factor
    cut = cut_segments(raw(data), BAND, TIMES)
    assert (cut.rejected, cut.repaired, cut.bad_channels) == ({}, {"scale": 10}, {"E7 (scale)": 10})
    assert np.array_equal(cut.windows[:, 7], cut.windows[:, 8])
    assert 0.9 < cut.windows.astype(float).std(-1).min() < cut.windows.astype(float).std(-1).max() < 1.1


def test_more_channels_of_another_scale_reject_the_windows_and_are_named():
    data = noise()
    data[[2, 7, 8, 30]] *= 100
    data[:, 3000:] = noise()[:, 3000:]  # in most windows of the recording, so in all
    cut = cut_segments(raw(data), BAND, TIMES)
    assert cut.rejected == {"scale": 10}
    assert cut.bad_channels == {f"E{number} (scale)": 10 for number in (2, 7, 8, 30)}


def test_a_channel_that_is_loud_in_one_part_is_replaced_there_alone():
    data = noise()
    data[7, 512:1536] *= 100
    cut = cut_segments(raw(data), BAND, TIMES)
    assert (cut.rejected, cut.bad_channels) == ({}, {"E7 (scale)": 2})
    assert not np.array_equal(cut.windows[5, 7], cut.windows[5, 8])


def test_flat_and_marked_channels_and_triggers_are_named():
    data = noise(35)
    data[3, 1000:1550] = 7.0
    data[33] = np.repeat(np.random.default_rng(0).permutation(40) * 0.25, 128)
    recording = as_raw(data, SFREQ, [*(f"E{i}" for i in range(34)), "Status"])
    recording.info["bads"] = ["E5"]
    cut = cut_segments(recording, BAND, TIMES)
    assert cut.windows.shape == (10, 33, TIMES)
    assert cut.repaired == {"trigger": 2, "flat": 11}
    assert cut.bad_channels == {"E33 (trigger)": 1, "Status (trigger)": 1, "E3 (flat)": 1, "E5 (marked bad)": 10}


def test_bad_channels_are_in_the_receipt_of_a_person_and_in_the_manifest(tmp_path):
    data = noise()
    data[7] *= 100
    for subject in (1, 2):
        (tmp_path / "work" / ".subjects").mkdir(parents=True, exist_ok=True)
        shard_writer.cut_subject(tmp_path / "work", "one", subject, {"0": {"0": raw(data), "1": raw(data)}}, Cutting())
    receipts = [shard_writer.read_receipt(tmp_path / "work", "one", subject) for subject in (1, 2)]
    assert receipts[0]["bad_channels"] == {"E7 (scale)": 20}
    (tmp_path / "corpora").mkdir()
    folder = shard_writer.finish_corpus("one", tmp_path, tmp_path / "work", receipts, {}, [])
    assert json.loads((folder / "manifest.json").read_text())["datasets_found"][0]["bad_channels"] == {"E7 (scale)": 40}


def test_windows_that_an_older_version_cut_are_neither_taken_for_these_nor_mixed_with_them(tmp_path):
    old = {name: value for name, value in asdict(Cutting()).items() if name != "rules"}
    work = tmp_path / "corpora" / "two.partial" / ".subjects"
    work.mkdir(parents=True)
    (work / "cutting").write_text(json.dumps(old, sort_keys=True))
    with pytest.raises(BenchError, match=r"was started with .* not .*\"rules\": 2"):
        corpora.open_work_folder(tmp_path / "corpora" / "two", Cutting())
    done = tmp_path / "corpora" / "one"
    done.mkdir()
    band = list(old.pop("band"))
    (done / "manifest.json").write_text(json.dumps({
        "schema": 1, "kind": "corpus", "name": "one", "n_chans": 128, "band": band, "window": old, "windows": 0,
        "shards": [], "files": {}, "datasets": ["Fake032"], "subjects": None}))
    with pytest.raises(BenchError, match="was prepared with another window; remove it"):
        corpora.prepare("one", tmp_path, ("Fake032",), cutting=Cutting())
    assert catalogue.RULES == 2


RATES = [100.0, 128.0, 160.0, 200.0, 250.0, 256.0, 300.0, 1000 / 3, 499.907, 500.0, 512.0, 1000.0, 1024.0, 2048.0]


@settings(deadline=None, derandomize=True, database=None, max_examples=16)
@given(native=st.sampled_from(RATES), target=st.sampled_from(RATES), more=st.integers(0, 400),
       stride=st.integers(50, 200))
def test_any_length_and_any_two_rates_give_windows_and_masks_of_one_length(native, target, more, stride):
    n = int(native * max(1.7, 130 / target)) + more
    data = 2e-5 * np.random.default_rng(n).standard_normal((9, n))
    gaps = np.zeros(n, bool)
    gaps[: n // 10] = True
    signal, lost, steady = band_pass(data, gaps, native, BAND, target)  # two groups of channels
    assert signal.shape == steady.shape == (9, len(lost))
    assert abs(len(lost) - n * target / native) < 1.001
    assert lost[0]
    cut = cut_segments(raw(np.tile(data * 1e6, (4, 1))[:30], native), BAND, 128, sfreq=target, stride=stride)
    assert len(cut.windows) == 1 + (len(lost) - 128) // stride
    assert cut.onsets[-1] + 128 / target <= n / native + 1 / target
    epochs = cut_epochs(raw(data * 1e6, native), np.array([n // 2]), BAND, target, 64)
    assert epochs.shape == (1, 9, 64)


def test_10001_samples_are_resampled_from_500_to_250_hz():
    cut = cut_segments(raw(noise(32, 20.002, 500.0), 500.0), BAND, TIMES, sfreq=250.0)
    assert (len(cut.windows), cut.rejected) == (9, {})


def test_the_work_of_resampling_depends_on_the_rates_alone_and_not_on_a_prime_length():
    assert find_factors(500.0, 250.0) == (1, 2)  # whatever the length; by 10,007 samples it would be 5004 to 10007
    assert find_factors(1000.0, 512.0) == (64, 125)
    assert all(max(find_factors(native, target)) <= LARGEST_FACTOR for native in RATES for target in RATES)
    data = 2e-5 * np.random.default_rng(0).standard_normal((1, 10_007))
    none = np.zeros(10_007, bool)
    prime, even = (band_pass(data[:, :n], none[:n], 500.0, BAND, 250.0)[0] for n in (10_007, 10_000))
    assert np.allclose(prime[0, :4000], even[0, :4000], atol=1e-4)  # the same filter, and no drift


def test_resampling_is_that_of_mne_where_the_lengths_fit():
    data = np.random.default_rng(0).standard_normal((3, 5120))
    filtered = mne.filter.filter_data(data, 256.0, 5.0, 95.0, verbose="error")
    expected = mne.filter.resample(filtered, up=250.0, down=256.0, method="polyphase", verbose="error")
    assert np.array_equal(band_pass(data, np.zeros(5120, bool), 256.0, BAND, 250.0)[0], np.float32(expected * 1e6))


@pytest.mark.parametrize("name", ["a.set", "a.edf"])
def test_a_recording_read_from_a_file_gives_windows_at_its_own_rate_and_at_another(tmp_path, name):
    file, recording = tmp_path / name, raw(noise(32, 12.0, 128.0), 128.0)
    if name == "a.edf":
        write(recording, file)
    else:
        write_set(recording, file, boundary=768.5)
    recording = mne.io.read_raw(file, verbose="error")
    native_rate, other = (cut_segments(recording, BAND, 256, sfreq=rate) for rate in (None, 250.0))
    assert (len(native_rate.windows), native_rate.rejected["join"]) == ((6, 0) if name == "a.edf" else (4, 2))
    assert len(other.windows) + other.rejected["join"] == 12 * 250 // 256
