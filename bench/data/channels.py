"""Finds channels that hold no EEG, or EEG of another scale: trigger codes, stretches without signal, amplitudes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.data.prepared import Array
from bench.errors import BenchError

MOST_FLAT = 0.1  # share of bad channels above which a window or trial is rejected
STEADY = 1e-6  # a channel is flat if its standard deviation is at most this times the channels' median
HELD = 0.05  # s; equal samples on all channels for longer are no signal: zeros between trials, or a held value
PAIRS = 32  # equal neighbours in such a stretch, over all channels: a few coarse channels repeat a value by chance
# Scale: a channel's median absolute deviation over that of the usual channel, the median of all. At 5-95 Hz it is 0.55
# to 6 for the head electrodes of the sample recordings of EEGLAB and MNE (32, 64 and 136 channels), and 0.02 to 0.06
# for inputs without an electrode. Beside the reference it falls to about 0.14 (a correlation of 0.99). One of 32
# channels at 10 leaves the others half of their size in a normalised window; at 100, a twentieth. The deviation is
# robust as in PREP (Bigdely-Shamlo et al., Front. Neuroinform. 2015), so that one artefact makes no channel bad.
LARGE, SMALL = 10.0, 0.07
FEW = 5  # distinct values which no usable EEG has
REST = 0.5  # share of samples at the lowest or highest value, which codes have that return to zero
STILL = 0.8  # share of differences between successive samples that are exactly zero in a channel of codes
CHANGES = 50.0  # changes of a code in a second, at most; EEG that was held from a lower rate changes more often
NAMES = {"status", "sti", "din", "event", "events", "marker", "markers", "ttl"}  # besides stim... and trig...
THIN = 10_000  # samples, about, from which a recording's usual scale is taken


class Assessment(NamedTuple):
    """Why a trial cannot be used ("", "flat", "constant", "scale"), and its channels [C] that are flat or outlying."""

    reason: str
    flat: Array
    outlying: Array


def has_trigger_name(name: str) -> bool:
    """Whether a channel is named as a trigger channel, such as Status, STI 014, TRIG, DIN1, StimulusCode, Event."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return any(word in NAMES or word.startswith(("stim", "trig")) for word in words)


def check_names(names: Sequence[str], source: str) -> None:
    """Raises BenchError for the first channel that is named as a trigger channel."""
    for name in names:
        if has_trigger_name(str(name)):
            raise BenchError(f"{source}: channel {name} holds triggers by its name, which tell the image: leave it out")


def find_codes(signal: Array, sfreq: float, gaps: Array | None = None) -> Array:
    """Returns a mask [C] of the channels of `signal` [C, n] that hold codes, in any unit, and no EEG.

    Such a channel has at most FEW distinct values, or rests at its lowest or highest one (REST), or it is constant
    between steps: at least STILL of the differences between successive samples are exactly zero, there are at most
    CHANGES a second, and the steps have various sizes or one direction. EEG that is quantised coarsely also repeats
    values, but moves by one level at a time, in both directions. gaps [n]: samples that are not looked at.
    """
    coded = np.zeros(len(signal), bool)
    for row, channel in enumerate(signal):
        values = channel if gaps is None or not gaps.any() else channel[~gaps]
        coded[row] = _holds_codes(values[np.isfinite(values)], sfreq)
    if coded.any():  # not a dead channel whose rest differs from trial to trial, by rounding
        thin = signal[:, :: 1 + signal.shape[1] // THIN].astype(np.float64)
        finite = np.isfinite(thin)
        usual = np.median([np.std(thin[row], where=finite[row]) for row in np.flatnonzero(finite.any(1))])
        for number in np.flatnonzero(coded):
            values = signal[number][np.isfinite(signal[number])]
            coded[number] = float(values.max()) - float(values.min()) > STEADY * usual
    return coded


def count_levels(channel: Array) -> int:
    """Returns the number of distinct finite values of a channel [n]."""
    return len(np.unique(channel[np.isfinite(channel)]))


def _holds_codes(values: Array, sfreq: float) -> bool:
    if len(values) < 2:
        return False
    moves = values[1:] != values[:-1]
    still = 1 - moves.mean()
    if still == 1:
        return False  # flat
    rest = max((values == extreme).mean() for extreme in (values.min(), values.max()))
    if still < STILL and rest < REST and len(np.unique(values[:2000])) > FEW:
        return False
    levels = len(np.unique(values))
    if 10 * levels > len(values):
        return False  # too few samples to tell
    if levels <= FEW:
        return True
    places = np.flatnonzero(moves)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    if sum(len(run) for run in runs if len(run) > 3) > 0.2 * len(places):
        return False  # still in one part and moving in another, as a channel that fails for a time
    if rest >= REST:
        return True
    if still < STILL or moves.sum() > CHANGES * len(values) / sfreq:
        return False
    steps = np.diff(values.astype(np.float64))[places]
    usual = np.median(np.abs(steps))
    alike = (np.abs(np.abs(steps) - usual) <= 0.01 * usual).mean()
    return bool(alike < STILL or abs(np.sign(steps).mean()) > 0.5)


def find_constant(signal: Array, sfreq: float) -> Array:
    """Returns a mask [n] of stretches of equal samples, longer than HELD, on all channels of `signal` [C, n].

    Up to MOST_FLAT of the channels may move, as one that is no EEG does.
    """
    n_chans, n = signal.shape
    equal = np.zeros(max(n - 1, 0), np.int32)
    for channel in signal:
        equal += channel[1:] == channel[:-1]
    held = np.concatenate([[False], equal >= (1 - MOST_FLAT) * n_chans, [False]])
    edges = np.flatnonzero(held[1:] != held[:-1])
    mask = np.zeros(n, bool)
    for begin, stop in zip(edges[::2], edges[1::2], strict=True):  # samples begin to stop, both included, are equal
        if (stop - begin + 1) / sfreq > HELD and (stop - begin) * n_chans >= PAIRS:
            mask[begin : stop + 1] = True
    return mask


def measure_scale(windows: Array) -> Array:
    """Returns the median absolute deviation [..., C] of each channel of windows [..., C, T]."""
    middle = np.median(windows, -1, keepdims=True)
    return np.median(np.abs(windows - middle), -1)


def find_outlying(scale: Array) -> Array:
    """Returns a mask [..., C] of channels whose scale [..., C] is above LARGE or below SMALL times their median."""
    typical = np.nanmedian(scale, -1, keepdims=True)
    return (typical > 0) & ((scale > LARGE * typical) | (scale < SMALL * typical))


def assess(window: Array, sfreq: float) -> Assessment:
    """Assesses a trial [C, T]: it can be used if at most MOST_FLAT of its channels are flat or outlying."""
    deviation = window.std(1)
    flat = deviation <= STEADY * np.median(deviation)
    scale = np.where(flat, np.nan, measure_scale(window))
    if flat.mean() > MOST_FLAT:
        return Assessment("flat", flat, np.zeros(len(flat), bool))
    if find_constant(window, sfreq).any():
        return Assessment("constant", flat, np.zeros(len(flat), bool))
    outlying = find_outlying(scale)
    return Assessment("scale" if (flat | outlying).mean() > MOST_FLAT else "", flat, outlying)


def replacements(bad: Array) -> Array:
    """Returns for each channel [C] itself, or the next one that is not bad; after the last follows the first."""
    good = np.flatnonzero(~bad)
    return good[np.searchsorted(good, np.arange(len(bad))) % len(good)]
