"""From continuous EEG to windows: the one path that every recording takes, made-up or real (Sec. 4.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import mne
import numpy as np

from bench.errors import BenchError

Array = np.ndarray

CLIP = 20.0  # standard deviations, where normalised EEG is cut off
FLAT = 0.1e-6  # V, peak to peak within a window: less than any electrode on a head
PHYSICAL = 1e6  # V to µV, only to keep numbers near one


@dataclass
class Report:
    """What became of a device's recordings: effective band (Hz; no upper edge where Nyquist is too low), counts."""

    sfreq: float
    channels: int
    band: tuple[float, float | None]
    recordings: int = 0
    windows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


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


def filtered(raw: mne.io.BaseRaw, band: tuple[float, float], sfreq: float) -> tuple[Array, Array, Array]:
    """EEG [C, n] float32 in µV at `sfreq`, zero-phase band-passed; and two masks: gaps [n] and flat channels [C, n].

    Samples without signal are set to zero before the filter, which rings for half its length (0.8 s) on either side;
    the mask of gaps is widened by as much.
    """
    raw = raw.copy().pick("eeg").load_data(verbose="error")
    data, native = raw.get_data(), raw.info["sfreq"]
    gaps = _gaps(raw, data)
    data = np.where(gaps, 0.0, data)
    low, high = effective_band(band, native)
    taps = mne.filter.create_filter(None, native, low, high, verbose="error")
    steady = np.abs(np.diff(data, axis=1, prepend=data[:, :1])) < FLAT
    rings = np.convolve(gaps, np.ones(len(taps)), "same") > 0.5 if gaps.any() else gaps
    data = mne.filter.filter_data(data, native, low, high, verbose="error")
    if native != sfreq:
        data = mne.filter.resample(data, up=sfreq, down=native, method="polyphase", verbose="error")
    at = np.minimum(np.arange(data.shape[1]) * native / sfreq, raw.n_times - 1).astype(np.int64)
    return (data * PHYSICAL).astype(np.float32), rings[at], steady[:, at]


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
