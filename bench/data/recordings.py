"""From continuous EEG to windows: the one path that every recording takes, made-up or real (Sec. 4.1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import mne
import numpy as np

from bench.data.writing import CODES, neighbours
from bench.errors import BenchError

Array = np.ndarray

CLIP = 20.0  # standard deviations, where normalised EEG is cut off
FLAT = 0.1e-6  # V, peak to peak within a window: less than any electrode on a head
PHYSICAL = 1e6  # V to µV, only to keep numbers near one
GROUP = 8  # channels that are filtered at a time
CHANNELS = (30, 128)  # of a recording that takes part in pre-training; replicating never drops any
MOST_FLAT = 0.1  # share of flat channels above which a window is rejected
AMPLITUDE = (0.1, 1e4)  # µV, between which the median of filtered EEG lies, whatever the amplifier
SOME = 32  # windows that are normalised at a time


@dataclass
class Report:
    """What became of a device's recordings: effective band (Hz; no upper edge where Nyquist is too low), counts."""

    sfreq: float
    channels: int
    band: tuple[float, float | None]
    recordings: int = 0
    windows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class Segments:
    """The windows of one recording: [N, C, n_times] float16 and the seconds at which each begins [N].

    sfreq: before resampling. rejected: windows or the whole recording, by reason. repaired: channels of windows
    ("flat"), and channels left out ("trigger").
    """

    windows: Array
    onsets: Array
    sfreq: float
    band: tuple[float, float | None]
    rejected: Counter[str]
    repaired: Counter[str]


def as_raw(data: Array, sfreq: float, ch_names: Sequence[str],
           annotations: Sequence[tuple[float, float, str]] = ()) -> mne.io.RawArray:
    """An mne Raw of EEG channels from data [C, n] in µV and annotations (onset s, duration s, description)."""
    info = mne.create_info(list(ch_names), sfreq, "eeg")
    raw = mne.io.RawArray(np.asarray(data, np.float64) / PHYSICAL, info, verbose="error")
    if annotations:
        onset, duration, description = zip(*annotations, strict=True)
        raw.set_annotations(mne.Annotations(onset, duration, description))
    return raw


def effective_band(band: tuple[float, float], sfreq: float) -> tuple[float, float | None]:
    """The band that a recording of this sampling rate allows: from 190 Hz downwards, 5-95 Hz has no upper edge."""
    low, high = band
    return (low, high) if high < sfreq / 2 else (low, None)


def _gaps(raw: mne.io.BaseRaw, data: Array) -> Array:
    """Samples [n] that hold no signal: not finite, or inside an annotation that begins with BAD."""
    gaps = ~np.isfinite(data).all(0)
    for mark in raw.annotations:
        if mark["description"].upper().startswith("BAD"):
            begin = round((mark["onset"] - raw.first_time) * raw.info["sfreq"])
            gaps[max(begin, 0) : begin + round(mark["duration"] * raw.info["sfreq"])] = True
    return gaps


def read(raw: mne.io.BaseRaw, picks: Array, dtype: type = np.float64) -> tuple[Array, Array]:
    """Channels [C, n] in V, read minute by minute into one array, and a mask of the samples [n] without signal."""
    data, minute = np.empty((len(picks), raw.n_times), dtype), round(60 * raw.info["sfreq"])
    for begin in range(0, raw.n_times, minute):
        stop = min(begin + minute, raw.n_times)
        data[:, begin:stop] = raw.get_data(picks, begin, stop, verbose="error")
    return data, _gaps(raw, data)


def filtered(raw: mne.io.BaseRaw, band: tuple[float, float], sfreq: float) -> tuple[Array, Array, Array]:
    """EEG [C, n] float32 in µV at `sfreq`, zero-phase band-passed; and two masks: gaps [n] and flat channels [C, n]."""
    data, gaps = read(raw, mne.pick_types(raw.info, eeg=True, exclude=()))
    return band_passed(data, gaps, raw.info["sfreq"], band, sfreq)


def band_passed(
    data: Array, gaps: Array, native: float, band: tuple[float, float], sfreq: float
) -> tuple[Array, Array, Array]:
    """What `filtered` returns, from data [C, n] in V of any precision; a few channels at a time are held as float64.

    Samples without signal are set to zero before the filter, which rings for half its length (0.8 s) on either side;
    the mask of gaps is widened by as much. The filter sees each channel's whole length, so that it is exact.
    """
    low, high = effective_band(band, native)
    taps = _taps(native, band)
    rings = np.convolve(gaps, np.ones(taps), "same") > 0.5 if gaps.any() else gaps
    length = data.shape[1] if native == sfreq else math.ceil(data.shape[1] * Fraction(sfreq) / Fraction(native))
    at = np.minimum(np.arange(length) * native / sfreq, data.shape[1] - 1).astype(np.int64)
    signal, steady = np.empty((len(data), length), np.float32), np.empty((len(data), length), bool)
    for begin in range(0, len(data), GROUP):
        some = slice(begin, begin + GROUP)
        group = np.where(gaps, 0.0, data[some].astype(np.float64, copy=False))
        steady[some] = (np.abs(np.diff(group, axis=1, prepend=group[:, :1])) < FLAT)[:, at]
        group = mne.filter.filter_data(group, native, low, high, verbose="error")
        if native != sfreq:
            group = mne.filter.resample(group, up=sfreq, down=native, method="polyphase", verbose="error")
        signal[some] = group * PHYSICAL
    return signal, rings[at], steady


def _taps(sfreq: float, band: tuple[float, float]) -> int:
    """Length of the filter in samples."""
    return len(mne.filter.create_filter(None, sfreq, *effective_band(band, sfreq), verbose="error"))


def normalised(windows: Array) -> Array:
    """Windows [N, C, T] float32: each channel's mean removed, then the whole window's standard deviation made one.

    Done before channels are replicated, so that a window's scale does not depend on which of them stand twice.
    """
    centred = windows - windows.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean((1, 2), keepdims=True))
    return np.clip(centred / np.maximum(scale, 1e-6), -CLIP, CLIP).astype(np.float32)


def replicated(windows: Array, n_chans: int) -> Array:
    """Windows [N, C, T] with exactly `n_chans` channels: the first ones again, or the first ones only (Sec. 4.1)."""
    return windows[:, np.arange(n_chans) % windows.shape[1]]


def cut(
    raw: mne.io.BaseRaw, band: tuple[float, float], sfreq: float, n_times: int, report: Report | None = None
) -> tuple[Array, Report]:
    """All whole windows [N, C, n_times] of a recording, filtered and normalised, side by side; events are ignored.

    A window is rejected with its reason: "gap" (missing samples or a BAD annotation within the filter's reach), "flat"
    (a channel that does not move). A recording shorter than the filter counts once as "short".
    """
    native, channels = raw.info["sfreq"], len(mne.pick_types(raw.info, eeg=True))
    report = report or Report(native, channels, effective_band(band, native))
    report.recordings += 1
    if raw.n_times / native < max(n_times / sfreq, 3.3 / band[0] + 1 / native):
        report.rejected["short"] += 1
        return np.empty((0, channels, n_times), np.float32), report
    data, gaps, steady = filtered(raw, band, sfreq)
    whole = data.shape[1] // n_times
    windows = data[:, : whole * n_times].reshape(channels, whole, n_times).swapaxes(0, 1)
    gap = gaps[: whole * n_times].reshape(whole, n_times).any(-1)
    flat = steady[:, : whole * n_times].reshape(channels, whole, n_times).all(-1).any(0) & ~gap
    for reason, rows in (("gap", gap), ("flat", flat)):
        if rows.any():
            report.rejected[reason] += int(rows.sum())
    windows = normalised(windows[~(gap | flat)])
    report.windows += len(windows)
    return windows, report


def segments(raw: mne.io.BaseRaw, band: tuple[float, float], n_times: int, sfreq: float | None = None,
             stride: int | None = None) -> Segments:
    """The windows of a recording for pre-training, every `stride` samples (default: side by side); events are ignored.

    sfreq: to which it is resampled; None: its own. Channels that are triggers by their values are left out. A
    recording is rejected as "few_channels", "many_channels" (CHANNELS), "short" (than a window or the filter), or
    "amplitude" (a median outside AMPLITUDE: wrong unit); a window as "gap" (missing samples or a BAD annotation within
    the filter's reach) or "flat" (more than MOST_FLAT of its channels do not move, or are marked bad). Fewer flat
    channels are replaced by the next one that moves.
    """
    native, stride = float(raw.info["sfreq"]), stride or n_times
    at = sfreq or native
    rejected, repaired = Counter[str](), Counter[str]()
    picks = mne.pick_types(raw.info, eeg=True, exclude=())
    edge = effective_band(band, min(native, at))

    def none(reason: str, channels: int) -> Segments:
        rejected[reason] += 1
        return Segments(np.empty((0, channels, n_times), np.float16), np.empty(0), native, edge, rejected, repaired)

    if raw.n_times < max(math.ceil(n_times * native / at), _taps(native, band)):
        return none("short", len(picks))
    if len(picks) < CHANNELS[0]:
        return none("few_channels", len(picks))
    data, gaps = read(raw, picks, np.float32)
    triggers = np.array([_trigger(channel[~gaps]) for channel in data])
    if triggers.any():
        repaired["trigger"] += int(triggers.sum())
        data, picks = data[~triggers], picks[~triggers]
        gaps = _gaps(raw, data)
    if not CHANNELS[0] <= len(picks) <= CHANNELS[1]:
        return none("few_channels" if len(picks) < CHANNELS[0] else "many_channels", len(picks))
    there = _sample(gaps)
    alive = (data[:, there] != data[:, there[:1]]).any(1)
    data, gaps, steady = band_passed(data, gaps, native, band, at)
    there = _sample(gaps)
    if alive.any() and len(there):
        typical = np.median(np.abs(data[alive][:, there]))
        if not AMPLITUDE[0] <= typical <= AMPLITUDE[1]:
            return none("amplitude", len(picks))
    steady[[raw.ch_names[pick] in raw.info["bads"] for pick in picks]] = True

    starts = np.arange(0, data.shape[1] - n_times + 1, stride)
    gap = _within(gaps, starts, n_times) > 0
    flat = np.stack([_within(channel, starts, n_times) == n_times for channel in steady], 1)
    worst = (flat.mean(1) > MOST_FLAT) & ~gap
    for reason, rows in (("gap", gap), ("flat", worst)):
        if rows.any():
            rejected[reason] += int(rows.sum())
    starts, flat = starts[~(gap | worst)], flat[~(gap | worst)]
    if flat.any():
        repaired["flat"] += int(flat.sum())
    windows = np.empty((len(starts), len(picks), n_times), np.float16)
    for begin in range(0, len(starts), SOME):
        some = data[:, starts[begin : begin + SOME, None] + np.arange(n_times)].swapaxes(0, 1)
        for window, dead in zip(some, flat[begin : begin + SOME], strict=True):
            if dead.any():
                window[dead] = window[neighbours(dead)[dead]]
        windows[begin : begin + SOME] = normalised(some)
    return Segments(windows, starts / at, native, edge, rejected, repaired)


def _sample(gaps: Array) -> Array:
    """Up to some 10,000 samples, evenly spread over those that hold signal."""
    there = np.flatnonzero(~gaps)
    return there[:: 1 + len(there) // 10_000]


def _within(mask: Array, starts: Array, n_times: int) -> Array:
    """How many samples of each window [N] a mask [n] marks."""
    total = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
    return total[starts + n_times] - total[starts]


def _trigger(channel: Array) -> bool:
    """Whether a channel [n] in V holds codes: 2 to CODES distinct values, all of them whole numbers, in V or in µV."""
    for values, off in ((channel, 0.0), (channel * PHYSICAL, 1e-3)):
        if all(np.abs(some - np.rint(some)).max(initial=0) <= off for some in (values[:1000], values)) and (
                1 < len(np.unique(np.rint(values))) <= CODES):
            return True
    return False


def epochs(
    raw: mne.io.BaseRaw, onsets: Array, band: tuple[float, float], sfreq: float, n_times: int
) -> Array:
    """Windows [N, C, n_times] from `onsets` (native samples) on, filtered and normalised; no trial may be lost."""
    data, gaps, _ = filtered(raw, band, sfreq)
    first = np.round(np.asarray(onsets) * sfreq / raw.info["sfreq"]).astype(np.int64)
    index = first[:, None] + np.arange(n_times)
    if index.max() >= data.shape[1] or gaps[index].any():
        raise BenchError("a paired recording has trials without signal: mark them and leave them out of the trials")
    return normalised(data[:, index].swapaxes(0, 1))
