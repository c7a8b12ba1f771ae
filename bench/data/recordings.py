"""Cuts continuous EEG into windows; every recording takes this path, synthetic or real (Sec. 4.1)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import mne
import numpy as np
from scipy.signal import resample_poly

from bench.data.channels import (
    MOST_FLAT,
    find_codes,
    find_constant,
    find_outlying,
    has_trigger_name,
    measure_scale,
    replacements,
)
from bench.data.prepared import Array
from bench.errors import BenchError

CLIP = 20.0  # standard deviations at which normalised EEG is clipped
FLAT = 0.1e-6  # V, change from sample to sample below which a channel is flat: less than any electrode on a head
MICROVOLT = 1e6  # µV in a V; keeps numbers near one
GROUP = 8  # channels filtered at a time
CHANNELS = (30, 128)  # accepted for pre-training; replication to 128 never drops any
AMPLITUDE = (0.1, 1e4)  # µV, expected median of |filtered EEG|, for any amplifier
BATCH = 32  # windows normalised at a time
LARGEST_FACTOR = 4096  # of a resampling: exact for rates as published, else an error of at most 0.2 ms in an hour
Mark = tuple[float, float, str]  # onset and duration in s, description
# Where two recordings meet: MNE's concatenate_raws, EEGLAB (also "boundary", -99), BrainVision (also LostSamples)
JOIN = re.compile(r"(bad|edge)[ _]?boundary|boundary|-99(\.0)?|new segment(/.*)?", re.IGNORECASE | re.DOTALL)


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
    of replaced channels of windows ("flat", "scale") and of removed channels ("trigger"). bad_channels: by name and
    reason, such as "T7 (scale)", the number of windows in which a channel was bad, also of those rejected for it.
    ch_names: of the channels of the windows.
    """

    windows: Array
    onsets: Array
    sfreq: float
    band: tuple[float, float | None]
    rejected: Counter[str]
    repaired: Counter[str]
    bad_channels: Counter[str]
    ch_names: tuple[str, ...] = ()


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


def list_marks(raw: mne.io.BaseRaw) -> list[Mark]:
    """Returns the annotations of a recording, their onsets counted from its first sample."""
    return [(float(mark["onset"]) - raw.first_time, float(mark["duration"]), str(mark["description"]))
            for mark in raw.annotations]


def mask_bad(marks: Iterable[Mark], n: int, sfreq: float) -> Array:
    """Returns a mask of the samples [n] in a mark that begins with BAD; one without a duration marks one sample.

    Marks of a join are not among them.
    """
    bad = np.zeros(n, bool)
    for onset, duration, text in marks:
        if text.upper().startswith("BAD") and not JOIN.fullmatch(text.strip()):
            begin, length = round(onset * sfreq), round(np.nan_to_num(duration) * sfreq)
            bad[max(begin, 0) : max(begin + max(length, 1), 0)] = True
    return bad


def mask_joins(marks: Iterable[Mark], n: int, sfreq: float) -> Array:
    """Returns a mask of the samples [n] before which two recordings were joined, by the marks (JOIN).

    A mark stands for one sample, whatever its duration, which EEGLAB states for what was cut out. One at the first
    sample or after the last is no join: a BrainVision file begins with a New Segment.
    """
    joins = np.zeros(n, bool)
    for onset, _, text in marks:
        sample = math.ceil(round(onset * sfreq, 3))
        if JOIN.fullmatch(text.strip()) and 0 < sample < n:
            joins[sample] = True
    return joins


def _find_gaps(raw: mne.io.BaseRaw, data: Array) -> Array:
    """Returns a mask of the samples [n] without signal: not finite, or marked as bad."""
    return ~np.isfinite(data).all(0) | mask_bad(list_marks(raw), raw.n_times, raw.info["sfreq"])


def find_joins(raw: mne.io.BaseRaw) -> Array:
    """Returns the mask of joins [n] of a recording, by its annotations."""
    return mask_joins(list_marks(raw), raw.n_times, raw.info["sfreq"])


def read_channels(raw: mne.io.BaseRaw, picks: Array, dtype: type = np.float64) -> tuple[Array, Array]:
    """Reads channels [C, n] in V, minute by minute into one array, and a mask of the samples [n] without signal."""
    data, minute = np.empty((len(picks), raw.n_times), dtype), round(60 * raw.info["sfreq"])
    for begin in range(0, raw.n_times, minute):
        stop = min(begin + minute, raw.n_times)
        data[:, begin:stop] = raw.get_data(picks, begin, stop, verbose="error")
    return data, _find_gaps(raw, data)


def _filter_raw(raw: mne.io.BaseRaw, band: tuple[float, float], sfreq: float) -> tuple[Array, Array, Array]:
    """Reads all EEG channels and returns what `band_pass` returns; a join counts as a gap."""
    data, gaps = read_channels(raw, mne.pick_types(raw.info, eeg=True, exclude=()))
    data, ringing, steady = band_pass(data, gaps, raw.info["sfreq"], band, sfreq)
    return data, ringing | widen(find_joins(raw), raw.info["sfreq"], band, sfreq, data.shape[1]), steady


def band_pass(data: Array, gaps: Array, native: float, band: tuple[float, float],
              sfreq: float) -> tuple[Array, Array, Array]:
    """Filters data [C, n] in V, zero-phase, to EEG [C, m] float32 in µV at `sfreq`; and masks of gaps [m], flat [C, m].

    Samples without signal are set to zero before the filter, which rings for half its length (0.8 s) on either side;
    the mask of gaps is widened by as much. Only a few channels at a time are float64, but each in its whole length, so
    that the filter is exact. m is the length that resampling gives, of which every mask is made.
    """
    low, high = effective_band(band, native)
    signal: Array = np.empty((len(data), 0), np.float32)
    steady: Array = np.empty((len(data), 0), bool)
    for begin in range(0, len(data), GROUP):
        rows = slice(begin, begin + GROUP)
        group = np.where(gaps, 0.0, data[rows].astype(np.float64, copy=False))
        still = np.abs(np.diff(group, axis=1, prepend=group[:, :1])) < FLAT
        group = mne.filter.filter_data(group, native, low, high, verbose="error")
        if native != sfreq:
            group = resample_poly(group, *find_factors(native, sfreq), axis=1, padtype="reflect")
        if begin == 0:
            samples = _source_samples(group.shape[1], data.shape[1], native, sfreq)
            signal, steady = (np.empty((len(data), len(samples)), kind) for kind in (np.float32, bool))
        signal[rows], steady[rows] = group * MICROVOLT, still[:, samples]
    return signal, widen(gaps, native, band, sfreq, signal.shape[1]), steady


def find_factors(native: float, sfreq: float) -> tuple[int, int]:
    """Returns the factors (up, down) of a resampling, which depend on the two rates in Hz alone.

    The resampling filter has 20 x the larger one + 1 coefficients. If the factors came from the length of a recording
    before and after, as in MNE, a prime length would need a filter 20 times as long as the recording.
    """
    low, high = sorted((Fraction(sfreq), Fraction(native)))
    ratio = (low / high).limit_denominator(LARGEST_FACTOR)
    factors = ratio.numerator, ratio.denominator
    return factors if sfreq <= native else factors[::-1]


def _source_samples(length: int, n: int, native: float, sfreq: float) -> Array:
    """Returns, for each sample after resampling [length], the sample of the recording [n] at or before it."""
    return np.minimum(np.arange(length) * native / sfreq, n - 1).astype(np.int64)


def widen(mask: Array, native: float, band: tuple[float, float], sfreq: float, length: int) -> Array:
    """Returns a mask of samples [n], widened by the filter's reach, half its length, for resampled EEG [C, length]."""
    reach = (_filter_length(native, band) - 1) // 2
    if not mask.any():
        return np.zeros(length, bool)
    total, places = np.concatenate([[0], np.cumsum(mask)]), np.arange(len(mask))
    marked = total[np.minimum(places + reach + 1, len(mask))] > total[np.maximum(places - reach, 0)]
    return np.asarray(marked[_source_samples(length, len(mask), native, sfreq)])


def _filter_length(sfreq: float, band: tuple[float, float]) -> int:
    """Returns the length of the filter in samples, an odd number."""
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

    A window is rejected as "gap" (missing samples, a BAD annotation or a join within the filter's reach) or "flat" (a
    channel is flat). A recording shorter than the filter counts once as "short".
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

    sfreq: rate after resampling; None: the recording's own. Channels that hold trigger codes, or are named as such,
    are removed. A recording is rejected as "few_channels", "many_channels" (CHANNELS), "short" (than a window or the
    filter), or "amplitude" (median outside AMPLITUDE: wrong unit). A window is rejected, for the first reason that
    holds, as "gap" (missing samples or a BAD annotation), "join" (of two recordings), "constant" (equal samples on all
    channels for longer than 50 ms), each within the filter's reach, "flat" (more than MOST_FLAT of its channels are
    flat or marked bad) or "scale" (more are flat, marked bad or of another scale than the others: in this window, or
    in most windows of the recording). Fewer bad channels are each replaced by the next one that is not.
    """
    native, stride = float(raw.info["sfreq"]), stride or n_times
    rate = sfreq or native
    rejected, repaired, bad_channels = Counter[str](), Counter[str](), Counter[str]()
    picks = mne.pick_types(raw.info, eeg=True, exclude=())
    edges = effective_band(band, min(native, rate))

    def reject(reason: str) -> Segments:
        rejected[reason] += 1
        return Segments(np.empty((0, len(picks), n_times), np.float16), np.empty(0), native, edges, rejected, repaired,
                        bad_channels)

    # Channels and samples without EEG
    if raw.n_times < shortest(native, band, n_times, rate):
        return reject("short")
    if len(picks) < CHANNELS[0]:
        return reject("few_channels")
    data, gaps = read_channels(raw, picks, np.float32)
    triggers = find_codes(data, native, gaps) | [has_trigger_name(raw.ch_names[pick]) for pick in picks]
    if triggers.any():
        repaired["trigger"] += int(triggers.sum())
        bad_channels.update(f"{raw.ch_names[pick]} (trigger)" for pick in picks[triggers])
        data, picks = data[~triggers], picks[~triggers]
        gaps = _find_gaps(raw, data)
    if not CHANNELS[0] <= len(picks) <= CHANNELS[1]:
        return reject("few_channels" if len(picks) < CHANNELS[0] else "many_channels")
    constant = find_constant(data, native)
    samples = _thin_out(gaps | constant)
    alive = (data[:, samples] != data[:, samples[:1]]).any(1)

    # Filter
    data, lost, steady = band_pass(data, gaps, native, band, rate)
    if data.shape[1] < n_times:
        return reject("short")
    excluded = {"gap": lost} | {reason: widen(mask, native, band, rate, data.shape[1]) for reason, mask in (
        ("join", find_joins(raw)), ("constant", constant))}
    samples = _thin_out(np.any(list(excluded.values()), 0))
    if alive.any() and len(samples):
        typical = np.median(np.abs(data[alive][:, samples]))
        if not AMPLITUDE[0] <= typical <= AMPLITUDE[1]:
            return reject("amplitude")

    # Windows
    starts = np.arange(0, data.shape[1] - n_times + 1, stride)
    for reason, mask in excluded.items():
        hit = _count_within(mask, starts, n_times) > 0
        rejected.update({reason: int(hit.sum())} if hit.any() else {})
        starts = starts[~hit]
    flat, marked, outlying = _find_bad(data, steady, starts, n_times,
                                       np.array([raw.ch_names[pick] in raw.info["bads"] for pick in picks]))
    for reason, where in (("flat", flat), ("marked bad", marked), ("scale", outlying)):
        bad_channels.update({f"{raw.ch_names[pick]} ({reason})": int(n) for pick, n in zip(picks, where.sum(0),
                                                                                      strict=True) if n})
    flat |= marked
    mostly_flat = flat.mean(1) > MOST_FLAT
    mostly_bad = ((flat | outlying).mean(1) > MOST_FLAT) & ~mostly_flat
    kept = ~(mostly_flat | mostly_bad)
    for counter, reason, n in ((rejected, "flat", mostly_flat.sum()), (rejected, "scale", mostly_bad.sum()),
                               (repaired, "flat", flat[kept].sum()), (repaired, "scale", outlying[kept].sum())):
        counter.update({reason: int(n)} if n else {})
    starts, bad = starts[kept], (flat | outlying)[kept]
    windows = np.empty((len(starts), len(picks), n_times), np.float16)
    for begin in range(0, len(starts), BATCH):
        batch = data[:, starts[begin : begin + BATCH, None] + np.arange(n_times)].swapaxes(0, 1)
        for window, dead in zip(batch, bad[begin : begin + BATCH], strict=True):
            if dead.any():
                window[dead] = window[replacements(dead)[dead]]
        windows[begin : begin + BATCH] = normalise(batch)
    return Segments(windows, starts / rate, native, edges, rejected, repaired, bad_channels,
                    tuple(raw.ch_names[pick] for pick in picks))


def _find_bad(data: Array, steady: Array, starts: Array, n_times: int, marked: Array) -> tuple[Array, Array, Array]:
    """Returns which channels of which windows [N, C] are flat, marked bad [C], or else of another scale.

    The last ones are outlying in that window, or by the median of their scale over the windows of the recording.
    """
    shape = len(starts), len(data)
    flat = np.zeros(shape, bool)
    for row, channel in enumerate(steady):
        flat[:, row] = _count_within(channel, starts, n_times) == n_times
    scale = np.empty(shape, np.float32)
    for row, start in enumerate(starts):
        scale[row] = measure_scale(data[:, start : start + n_times : 1 + n_times // 256])
    marked = np.broadcast_to(marked, shape) & ~flat
    scale[flat | marked] = np.nan
    judged = np.isfinite(scale)
    outlying = np.zeros(shape, bool)
    rows = np.flatnonzero(judged.any(1))
    outlying[rows] = find_outlying(scale[rows])
    known = np.flatnonzero(judged.any(0))
    if len(known):
        outlying[:, known] |= find_outlying(np.nanmedian(scale[:, known], 0))
    return flat, marked, outlying & judged


def _thin_out(gaps: Array) -> Array:
    """Returns up to about 10,000 sample indices, evenly spread over those with signal."""
    samples = np.flatnonzero(~gaps)
    return samples[:: 1 + len(samples) // 10_000]


def _count_within(mask: Array, starts: Array, n_times: int) -> Array:
    """Returns how many samples of each window [N] a mask [n] marks."""
    total = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
    return total[starts + n_times] - total[starts]


def cut_epochs(raw: mne.io.BaseRaw, onsets: Array, band: tuple[float, float], sfreq: float, n_times: int,
               normalised: bool = True) -> Array:
    """Returns windows [N, C, n_times] that begin at `onsets` (native samples), filtered and normalised.

    normalised=False: filtered only, in µV, float32. Raises BenchError if a trial contains missing samples or a join,
    or is not wholly inside the recording.
    """
    data, gaps, _ = _filter_raw(raw, band, sfreq)
    first = np.round(np.asarray(onsets) * sfreq / raw.info["sfreq"]).astype(np.int64)
    index = first[:, None] + np.arange(n_times)
    if first.min() < 0 or index.max() >= data.shape[1] or gaps[index].any():
        raise BenchError("a paired recording has trials without signal: leave these trials out")
    windows = data[:, index].swapaxes(0, 1)
    return normalise(windows) if normalised else np.ascontiguousarray(windows)
