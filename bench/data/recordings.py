"""Cuts continuous EEG into windows; every recording takes this path, synthetic or real (Sec. 4.1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import mne
import numpy as np

from bench.data.prepared import Array
from bench.data.writing import CODES, MOST_FLAT, replacements
from bench.errors import BenchError

CLIP = 20.0  # standard deviations at which normalised EEG is clipped
FLAT = 0.1e-6  # V, change from sample to sample below which a channel is flat: less than any electrode on a head
MICROVOLT = 1e6  # µV in a V; keeps numbers near one
GROUP = 8  # channels filtered at a time
CHANNELS = (30, 128)  # accepted for pre-training; replication to 128 never drops any
AMPLITUDE = (0.1, 1e4)  # µV, expected median of |filtered EEG|, for any amplifier
BATCH = 32  # windows normalised at a time


@dataclass
class Report:
    """Results for a device's recordings: effective band (Hz; no upper edge if Nyquist is too low), counts."""

    sfreq: float
    channels: int
    band: tuple[float, float | None]
    recordings: int = 0
    windows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class Segments:
    """The windows of one recording: [N, C, n_times] float16, and the seconds at which each begins [N].

    sfreq: before resampling. rejected: number of windows (or 1 for the whole recording), by reason. repaired: number
    of replaced channels of windows ("flat") and of removed channels ("trigger").
    """

    windows: Array
    onsets: Array
    sfreq: float
    band: tuple[float, float | None]
    rejected: Counter[str]
    repaired: Counter[str]


def as_raw(data: Array, sfreq: float, ch_names: Sequence[str],
           annotations: Sequence[tuple[float, float, str]] = ()) -> mne.io.RawArray:
    """Returns an mne Raw from EEG [C, n] in µV and annotations (onset in s, duration in s, description)."""
    info = mne.create_info(list(ch_names), sfreq, "eeg")
    raw = mne.io.RawArray(np.asarray(data, np.float64) / MICROVOLT, info, verbose="error")
    if annotations:
        onset, duration, description = zip(*annotations, strict=True)
        raw.set_annotations(mne.Annotations(onset, duration, description))
    return raw


def effective_band(band: tuple[float, float], sfreq: float) -> tuple[float, float | None]:
    """Returns the band that a sampling rate allows: at 190 Hz and below, 5-95 Hz has no upper edge."""
    low, high = band
    return (low, high) if high < sfreq / 2 else (low, None)


def _find_gaps(raw: mne.io.BaseRaw, data: Array) -> Array:
    """Returns a mask of the samples [n] without signal: not finite, or in an annotation that begins with BAD."""
    gaps = ~np.isfinite(data).all(0)
    for mark in raw.annotations:
        if mark["description"].upper().startswith("BAD"):
            begin = round((mark["onset"] - raw.first_time) * raw.info["sfreq"])
            gaps[max(begin, 0) : begin + round(mark["duration"] * raw.info["sfreq"])] = True
    return gaps


def read_channels(raw: mne.io.BaseRaw, picks: Array, dtype: type = np.float64) -> tuple[Array, Array]:
    """Reads channels [C, n] in V, minute by minute into one array, and a mask of the samples [n] without signal."""
    data, minute = np.empty((len(picks), raw.n_times), dtype), round(60 * raw.info["sfreq"])
    for begin in range(0, raw.n_times, minute):
        stop = min(begin + minute, raw.n_times)
        data[:, begin:stop] = raw.get_data(picks, begin, stop, verbose="error")
    return data, _find_gaps(raw, data)


def _filter_raw(raw: mne.io.BaseRaw, band: tuple[float, float], sfreq: float) -> tuple[Array, Array, Array]:
    """Reads all EEG channels and returns what `band_pass` returns."""
    data, gaps = read_channels(raw, mne.pick_types(raw.info, eeg=True, exclude=()))
    return band_pass(data, gaps, raw.info["sfreq"], band, sfreq)


def band_pass(data: Array, gaps: Array, native: float, band: tuple[float, float],
              sfreq: float) -> tuple[Array, Array, Array]:
    """Filters data [C, n] in V, zero-phase, to EEG [C, n] float32 in µV at `sfreq`; and masks of gaps [n], flat [C, n].

    Samples without signal are set to zero before the filter, which rings for half its length (0.8 s) on either side;
    the mask of gaps is widened by as much. Only a few channels at a time are float64, but each in its whole length, so
    that the filter is exact.
    """
    low, high = effective_band(band, native)
    taps = _filter_length(native, band)
    ringing = np.convolve(gaps, np.ones(taps), "same") > 0.5 if gaps.any() else gaps
    length = data.shape[1] if native == sfreq else math.ceil(data.shape[1] * Fraction(sfreq) / Fraction(native))
    samples = np.minimum(np.arange(length) * native / sfreq, data.shape[1] - 1).astype(np.int64)
    signal, steady = np.empty((len(data), length), np.float32), np.empty((len(data), length), bool)
    for begin in range(0, len(data), GROUP):
        rows = slice(begin, begin + GROUP)
        group = np.where(gaps, 0.0, data[rows].astype(np.float64, copy=False))
        steady[rows] = (np.abs(np.diff(group, axis=1, prepend=group[:, :1])) < FLAT)[:, samples]
        group = mne.filter.filter_data(group, native, low, high, verbose="error")
        if native != sfreq:
            group = mne.filter.resample(group, up=sfreq, down=native, method="polyphase", verbose="error")
        signal[rows] = group * MICROVOLT
    return signal, ringing[samples], steady


def _filter_length(sfreq: float, band: tuple[float, float]) -> int:
    """Returns the length of the filter in samples."""
    return len(mne.filter.create_filter(None, sfreq, *effective_band(band, sfreq), verbose="error"))


def shortest(native: float, band: tuple[float, float], n_times: int, sfreq: float) -> int:
    """Returns how many samples at `native` Hz a recording must have for a window of `n_times` samples at `sfreq` Hz."""
    return max(math.ceil(n_times * native / sfreq), _filter_length(native, band))


def normalise(windows: Array) -> Array:
    """Normalises windows [N, C, T] to float32: each channel's mean 0, then the whole window's standard deviation 1.

    This comes before the replication of channels, so that a window's scale does not depend on which are repeated.
    """
    centred = windows - windows.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean((1, 2), keepdims=True))
    return np.clip(centred / np.maximum(scale, 1e-6), -CLIP, CLIP).astype(np.float32)


def replicate(windows: Array, n_chans: int) -> Array:
    """Returns windows [N, C, T] with exactly `n_chans` channels: the first ones repeated, or only those (Sec. 4.1)."""
    return windows[:, np.arange(n_chans) % windows.shape[1]]


def cut_windows(raw: mne.io.BaseRaw, band: tuple[float, float], sfreq: float, n_times: int,
                report: Report | None = None) -> tuple[Array, Report]:
    """Returns all windows [N, C, n_times] of a recording, filtered and normalised, side by side; ignores events.

    A window is rejected as "gap" (missing samples or a BAD annotation within the filter's reach) or "flat" (a channel
    is flat). A recording shorter than the filter counts once as "short".
    """
    native, channels = raw.info["sfreq"], len(mne.pick_types(raw.info, eeg=True))
    report = report or Report(native, channels, effective_band(band, native))
    report.recordings += 1
    if raw.n_times / native < max(n_times / sfreq, 3.3 / band[0] + 1 / native):
        report.rejected["short"] += 1
        return np.empty((0, channels, n_times), np.float32), report
    data, gaps, steady = _filter_raw(raw, band, sfreq)
    n = data.shape[1] // n_times
    windows = data[:, : n * n_times].reshape(channels, n, n_times).swapaxes(0, 1)
    gap = gaps[: n * n_times].reshape(n, n_times).any(-1)
    flat = steady[:, : n * n_times].reshape(channels, n, n_times).all(-1).any(0) & ~gap
    for reason, rows in (("gap", gap), ("flat", flat)):
        report.rejected.update({reason: int(rows.sum())} if rows.any() else {})
    windows = normalise(windows[~(gap | flat)])
    report.windows += len(windows)
    return windows, report


def cut_segments(raw: mne.io.BaseRaw, band: tuple[float, float], n_times: int, sfreq: float | None = None,
                 stride: int | None = None) -> Segments:
    """Returns the windows of a recording for pre-training, every `stride` samples (default: n_times); ignores events.

    sfreq: rate after resampling; None: the recording's own. Channels whose values are trigger codes are removed. A
    recording is rejected as "few_channels", "many_channels" (CHANNELS), "short" (than a window or the filter), or
    "amplitude" (median outside AMPLITUDE: wrong unit); a window as "gap" (missing samples or a BAD annotation within
    the filter's reach) or "flat" (more than MOST_FLAT of its channels are flat or marked bad). Fewer flat channels are
    each replaced by the next one that is not.
    """
    native, stride = float(raw.info["sfreq"]), stride or n_times
    rate = sfreq or native
    rejected, repaired = Counter[str](), Counter[str]()
    picks = mne.pick_types(raw.info, eeg=True, exclude=())
    edges = effective_band(band, min(native, rate))

    def reject(reason: str) -> Segments:
        rejected[reason] += 1
        return Segments(np.empty((0, len(picks), n_times), np.float16), np.empty(0), native, edges, rejected, repaired)

    if raw.n_times < shortest(native, band, n_times, rate):
        return reject("short")
    if len(picks) < CHANNELS[0]:
        return reject("few_channels")
    data, gaps = read_channels(raw, picks, np.float32)
    triggers = np.array([_is_trigger(channel[~gaps]) for channel in data])
    if triggers.any():
        repaired["trigger"] += int(triggers.sum())
        data, picks = data[~triggers], picks[~triggers]
        gaps = _find_gaps(raw, data)
    if not CHANNELS[0] <= len(picks) <= CHANNELS[1]:
        return reject("few_channels" if len(picks) < CHANNELS[0] else "many_channels")
    samples = _thin_out(gaps)
    alive = (data[:, samples] != data[:, samples[:1]]).any(1)
    data, gaps, steady = band_pass(data, gaps, native, band, rate)
    samples = _thin_out(gaps)
    if alive.any() and len(samples):
        typical = np.median(np.abs(data[alive][:, samples]))
        if not AMPLITUDE[0] <= typical <= AMPLITUDE[1]:
            return reject("amplitude")
    steady[[raw.ch_names[pick] in raw.info["bads"] for pick in picks]] = True

    starts = np.arange(0, data.shape[1] - n_times + 1, stride)
    gap = _count_within(gaps, starts, n_times) > 0
    flat = np.stack([_count_within(channel, starts, n_times) == n_times for channel in steady], 1)
    mostly_flat = (flat.mean(1) > MOST_FLAT) & ~gap
    for reason, rows in (("gap", gap), ("flat", mostly_flat)):
        rejected.update({reason: int(rows.sum())} if rows.any() else {})
    starts, flat = starts[~(gap | mostly_flat)], flat[~(gap | mostly_flat)]
    if flat.any():
        repaired["flat"] += int(flat.sum())
    windows = np.empty((len(starts), len(picks), n_times), np.float16)
    for begin in range(0, len(starts), BATCH):
        batch = data[:, starts[begin : begin + BATCH, None] + np.arange(n_times)].swapaxes(0, 1)
        for window, dead in zip(batch, flat[begin : begin + BATCH], strict=True):
            if dead.any():
                window[dead] = window[replacements(dead)[dead]]
        windows[begin : begin + BATCH] = normalise(batch)
    return Segments(windows, starts / rate, native, edges, rejected, repaired)


def _thin_out(gaps: Array) -> Array:
    """Returns up to about 10,000 sample indices, evenly spread over those with signal."""
    samples = np.flatnonzero(~gaps)
    return samples[:: 1 + len(samples) // 10_000]


def _count_within(mask: Array, starts: Array, n_times: int) -> Array:
    """Returns how many samples of each window [N] a mask [n] marks."""
    total = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
    return total[starts + n_times] - total[starts]


def _is_trigger(channel: Array) -> bool:
    """Whether a channel [n] in V holds codes: 2 to CODES distinct values, all of them whole numbers, in V or in µV."""
    for values, tolerance in ((channel, 0.0), (channel * MICROVOLT, 1e-3)):
        if all(np.abs(part - np.rint(part)).max(initial=0) <= tolerance for part in (values[:1000], values)) and (
                1 < len(np.unique(np.rint(values))) <= CODES):
            return True
    return False


def cut_epochs(raw: mne.io.BaseRaw, onsets: Array, band: tuple[float, float], sfreq: float, n_times: int) -> Array:
    """Returns windows [N, C, n_times] that begin at `onsets` (native samples), filtered and normalised.

    Raises BenchError if a trial contains missing samples or ends after the recording.
    """
    data, gaps, _ = _filter_raw(raw, band, sfreq)
    first = np.round(np.asarray(onsets) * sfreq / raw.info["sfreq"]).astype(np.int64)
    index = first[:, None] + np.arange(n_times)
    if index.max() >= data.shape[1] or gaps[index].any():
        raise BenchError("a paired recording has trials without signal: leave these trials out")
    return normalise(data[:, index].swapaxes(0, 1))
