"""Which windows share samples: by the columns start and stop, by the signal, and with the windows of the corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.errors import count_of
from bench.scoring.audit_report import CLEAR, LEAK, UNKNOWN, Finding
from bench.scoring.audit_table import Array, number_recordings

SNIPPET, SAME = 24, 0.999  # values of a channel in a stretch that is searched, and the correlation of a match
LAGS = (1, 2, 4, 8, 16, 32)  # samples between these values; more for smoother signals
DISTINCT = 8  # independent values of a stretch, at least: 1 over the mean squared correlation of random stretches
SAMPLE = 256  # windows that `_choose_lag` looks at
CHANNELS = 8  # that confirm a match
CELLS = 2**24  # correlations in memory at once
PAIRS = 512  # matches that are confirmed at once
COMPARED = (("train", "test"), ("val", "test"), ("train", "val"))  # parts whose windows must not overlap


def find_overlapping_samples(trials: pd.DataFrame) -> Finding:
    """Counts the pairs of windows in two parts that share samples [start, stop) of a recording. Exact; O(N log N)."""
    name = "overlapping samples in two parts"
    if "start" not in trials:
        return Finding(name, UNKNOWN, example="no columns start and stop")
    recording, part = number_recordings(trials), trials["part"].to_numpy()
    start, stop = (trials[column].to_numpy() for column in ("start", "stop"))
    known = start >= 0
    if not known.any():
        return Finding(name, UNKNOWN, example="the data set does not record start and stop")
    partners = {parts: np.zeros(len(trials), np.int64) for parts in COMPARED}
    for number in np.unique(recording[known]):
        rows = {kind: np.flatnonzero(known & (recording == number) & (part == kind)) for kind in np.unique(part)}
        for first, second in COMPARED:
            if first in rows and second in rows:
                before = np.searchsorted(np.sort(start[rows[first]]), stop[rows[second]], "left")
                after = np.searchsorted(np.sort(stop[rows[first]]), start[rows[second]], "right")
                partners[first, second][rows[second]] = before - after
    unknown = int((~known).sum())
    note = f"not checked: {count_of(unknown, 'trial')} without start and stop" if unknown else ""
    example = ""
    for (first, _), count in partners.items():
        if count.any() and not example:
            row = int(np.flatnonzero(count)[0])
            partner = int(np.flatnonzero(known & (recording == recording[row]) & (part == first)
                                         & (start < stop[row]) & (stop > start[row]))[0])
            example = " and ".join(f"{part[i]} item {trials['item'][i]} (samples {start[i]} to {stop[i]})"
                                   for i in (row, partner))
    return _describe(name, trials, {parts: (int(count.sum()), np.flatnonzero(count))
                                    for parts, count in partners.items()}, example, note)


def find_overlapping_eeg(trials: pd.DataFrame, eeg: Array | None) -> Finding:
    """Counts the pairs of windows of eeg [N, C, T] in two parts that share a stretch of signal. Those with equal bytes
    are not counted (`find_equal_eeg`). Time is O(E M T) for E and M windows of the two parts (`_search`): 10,000
    trials of 512 samples take two CPU minutes."""
    name = "overlapping EEG in two parts"
    if (reason := _missing(eeg)) or eeg is None:
        return Finding(name, UNKNOWN, example=reason)
    if not (choice := _choose_lag(eeg, np.arange(len(eeg)), _spread_channels(eeg))):
        return Finding(name, UNKNOWN, example=f"too smooth or too regular for windows of {eeg.shape[-1]} samples")
    overlaps, example = dict[tuple[str, str], tuple[int, Array]](), ""
    unsearched, partly = np.zeros((2, len(eeg)), bool)
    part = trials["part"].to_numpy()
    for first, second in COMPARED:
        matches = _search(eeg, np.flatnonzero(part == second), eeg, np.flatnonzero(part == first), *choice)
        unsearched[matches.unsearched] = unsearched[matches.blind] = True
        partly[matches.one_end] = partly[matches.with_gaps] = True
        pairs = [pair for pair in matches.pairs.tolist() if pair[2] or not np.array_equal(eeg[pair[0]], eeg[pair[1]])]
        overlaps[first, second] = len(pairs), np.unique([pair[0] for pair in pairs]).astype(int)
        if pairs and not example:
            row, partner, shift = min(pairs)
            example = (f"{second} item {trials['item'][row]} begins {abs(shift)} samples "
                       f"{'after' if shift >= 0 else 'before'} {first} item {trials['item'][partner]}")
    note = _describe_unsearched({"window": int(unsearched.sum())}, {"window": int((partly & ~unsearched).sum())})
    if unsearched[part == "test"].all() and not any(count for count, _ in overlaps.values()):
        return Finding(name, UNKNOWN, example=note)
    notes = f"overlaps below {_span(choice[1])} samples cannot be seen", note
    return _describe(name, trials, overlaps, example, "; ".join(filter(None, notes)))


def find_inside(trials: pd.DataFrame, eeg: Array | None, corpus: Array | None) -> Finding:
    """Counts test trials of eeg [N, C, T] that share a stretch of the first channel with a window of the corpus
    [M, C', T'] (`_search`)."""
    name = "test trial inside the corpus"
    if eeg is None or corpus is None:
        return Finding(name, UNKNOWN, example=f"no {'EEG' if eeg is None else 'corpus'} was given")
    if reason := _missing(eeg) or _missing(corpus):
        return Finding(name, UNKNOWN, example=reason)
    test = np.flatnonzero(trials["part"] == "test")
    if not (choice := _choose_lag(eeg, test, (0,))) or _span(choice[1]) > corpus.shape[-1]:
        return Finding(name, UNKNOWN, example="the first channel is flat, or too smooth or regular for its length")
    is_short = corpus.shape[-1] < eeg.shape[-1]  # the ends of the shorter windows are searched in the longer ones
    arrays = (eeg, test), (corpus, np.arange(len(corpus)))
    matches = _search(*arrays[is_short], *arrays[not is_short], *choice)
    sides = (matches.unsearched, matches.one_end), (matches.blind, matches.with_gaps)
    of_test, of_corpus = sides[is_short], sides[not is_short]
    note = _describe_unsearched(*({"test trial": len(rows), "window of the corpus": len(windows)}
                                  for rows, windows in zip(of_test, of_corpus, strict=True)))
    if len(of_test[0]) == len(test) or len(of_corpus[0]) == len(corpus):
        return Finding(name, UNKNOWN, example=note)
    inside = np.unique(matches.pairs[:, int(is_short)])
    if not len(inside):
        return Finding(name, CLEAR, example=note)
    return Finding(name, LEAK, len(inside), "; ".join(filter(None, [f"item {trials['item'][inside[0]]}", note])),
                   f"{count_of(len(inside), 'test trial')} inside the pre-training corpus")


def _describe_unsearched(unsearched: Mapping[str, int], partly: Mapping[str, int]) -> str:
    texts = []
    for counts, text in ((unsearched, ", thus not searched"), (partly, " in part, thus searched in part")):
        if listed := ", ".join(count_of(count, noun) for noun, count in counts.items() if count):
            texts.append(f"flat, periodic or not finite{text}: {listed}")
    return "; ".join(texts)


def _missing(eeg: Array | None) -> str:
    if eeg is None:
        return "no EEG was given"
    return f"windows are shorter than {SNIPPET} samples" if eeg.shape[-1] < SNIPPET else ""


def _describe(name: str, trials: pd.DataFrame, overlaps: Mapping[tuple[str, str], tuple[int, Array]], example: str,
              note: str) -> Finding:
    """overlaps: for each two parts, the number of pairs, and the rows of the second part that are in a pair."""
    pairs = {f"{first} and {second}": count for (first, second), (count, _) in overlaps.items() if count}
    if not pairs:
        return Finding(name, CLEAR, example=note)
    tested = len(np.unique(np.concatenate([rows for (_, second), (_, rows) in overlaps.items() if second == "test"])))
    listed = ", ".join(f"{count} in {parts}" for parts, count in pairs.items())
    total = sum(pairs.values())
    reason = (f"{count_of(total, 'pair of overlapping windows')} ({listed}; {tested} of "
              f"{(trials['part'] == 'test').sum()} test trials)")
    return Finding(name, LEAK, total, "; ".join(filter(None, [listed, example, note])), reason)


@dataclass(frozen=True, eq=False)
class _Matches:
    """pairs [P, 3]: row of the searched array, row of the windows, and the sample of that window at which the row
    begins. A stretch that is flat, periodic or not finite is not usable. unsearched: rows without a usable stretch
    at either end; one_end: rows with one at one end only. blind: windows without any usable stretch; with_gaps: other
    windows with values that are not finite."""

    pairs: Array
    unsearched: Array
    one_end: Array
    blind: Array
    with_gaps: Array


def _span(lag: int) -> int:
    """Returns the samples that a stretch covers."""
    return lag * (SNIPPET - 1) + 1


def _spread_channels(eeg: Array) -> tuple[int, ...]:
    return tuple(map(int, np.unique(np.linspace(0, eeg.shape[1] - 1, CHANNELS).astype(int))))


def _choose_lag(eeg: Array, rows: Array, channels: Sequence[int]) -> tuple[tuple[int, ...], int] | None:
    """Returns channels, the one to search first, and the smallest lag for which stretches are not alike by chance:
    random stretches of that channel have DISTINCT independent values. None if no lag in half a window is enough: the
    signal is smooth or periodic, or all channels are flat."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(rows)[:SAMPLE])
    for lag in LAGS:
        if _span(lag) > (eeg.shape[-1] if lag == 1 else eeg.shape[-1] // 2):
            break
        for channel in channels:
            signal = np.asarray(eeg[rows, channel])
            start = rng.integers(0, signal.shape[1] - _span(lag) + 1, len(signal))
            values = np.take_along_axis(signal, start[:, None] + lag * np.arange(SNIPPET), 1).astype(np.float32)
            units = _units(np.diff(values, axis=1), _rounding(signal))
            units = units[units.any(1)]
            n = len(units)
            if n >= max(2, len(rows) // 2) and (np.square(units @ units.T).sum() - n) * DISTINCT <= n * (n - 1):
                return (channel, *(other for other in channels if other != channel)), lag
    return None


def _rounding(signal: Array) -> Array:
    """Returns the size [n, 1] of changes in windows [n, T] that may be rounding."""
    precision = np.finfo(signal.dtype if signal.dtype.kind == "f" else np.float32).eps
    size = np.abs(signal.astype(np.float32))
    largest = np.where(np.isfinite(size), size, 0).max(-1, keepdims=True)
    return 2 * max(precision, np.finfo(np.float32).eps) * largest


def _units(steps: Array, rounding: Array) -> Array:
    """Scales stretches [..., k] to mean 0 and norm 1, so that products are correlations; zeros if flat or not finite.
    rounding: broadcasts to [..., 1]."""
    with np.errstate(invalid="ignore", over="ignore"):
        centred = steps - steps.mean(-1, keepdims=True)
        norm = np.linalg.norm(centred, axis=-1, keepdims=True)
        usable = np.isfinite(norm) & (norm > rounding)
        return np.where(usable, centred / np.where(usable, norm, 1), 0).astype(np.float32)


def _fill(steps: Array, finite: Array) -> Array:
    """Replaces the steps [..., k] that are not `finite` by the mean of the others, which adds nothing to a
    correlation."""
    count = finite.sum(-1, keepdims=True)
    mean = np.where(finite, steps, 0).sum(-1, keepdims=True) / np.maximum(count, 1)
    return np.where(finite, steps, mean)


def _cut_stretches(signal: Array, lag: int) -> Array:
    """Returns the stretches of signals [n, T] at each place, as `_units`: [n, T - _span(lag) + 1, SNIPPET - 1]."""
    values = signal.astype(np.float32)
    steps = values[:, lag:] - values[:, :-lag]
    stretches = np.lib.stride_tricks.sliding_window_view(steps, _span(lag) - lag, axis=1)[..., ::lag]
    return _units(stretches, _rounding(signal)[:, None])


def _cut_ends(signal: Array, lag: int) -> Array:
    """Returns the first and the last stretch of signals [n, T]: [2, n, SNIPPET - 1]; zeros if the same signal has such
    a stretch elsewhere too, since a match of a periodic signal says nothing."""
    stretches = _cut_stretches(signal, lag)
    places, ends = np.arange(stretches.shape[1]), []
    for place in (0, places[-1]):
        correlation = np.einsum("npk,nk->np", stretches, stretches[:, place])
        periodic = (correlation[:, abs(places - place) > _span(lag) // 2] > SAME).any(1)
        ends.append(np.where(periodic[:, None], 0, stretches[:, place]))
    return np.stack(ends)


def _search(eeg: Array, rows: Array, windows: Array, others: Array, channels: Sequence[int], lag: int) -> _Matches:
    """Finds the rows of eeg [N, C, T] whose signal begins or ends inside windows [M, C', T'] (rows `others`), at any
    place. These are all that overlap if T <= T'.

    The first and last stretch of a row, SNIPPET values of channels[0] that are `lag` samples apart, is correlated with
    all stretches of the windows. Differences between successive values are compared, and their mean is removed, so that
    scale, offset and linear trend, which normalisation and baselines change, do not matter. A correlation above SAME is
    a match if the differences in the whole overlap correlate as much in at least half of the channels that are not
    flat. Time is 2 R M' T' SNIPPET multiplications, for R rows and M' others; memory is CELLS numbers and one channel
    of R windows.
    """
    length, span = windows.shape[-1], _span(lag)
    ends = np.concatenate([_cut_ends(np.asarray(eeg[some, channels[0]]), lag) for some in np.array_split(
        rows, 1 + len(rows) // PAIRS)], 1).reshape(-1, SNIPPET - 1)
    usable = ends.any(1)
    usable_ends = usable.reshape(2, -1).sum(0)
    searched = np.flatnonzero(usable)
    places = length - span + 1
    pairs, blind, with_gaps = [np.empty((0, 3), np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    columns = max(1, CELLS // 16 // places)
    for first in range(0, len(searched), columns):
        block = searched[first : first + columns]
        chunk = max(1, CELLS // (places * max(len(block), 64)))
        for begin in range(0, len(others), chunk):
            chosen = others[begin : begin + chunk]
            signal = np.asarray(windows[chosen, channels[0]])
            stretches = _cut_stretches(signal, lag)
            if not first:
                is_usable = stretches.any((1, 2))
                blind.append(chosen[~is_usable])
                with_gaps.append(chosen[is_usable & ~np.isfinite(signal).all(1)])
            correlation = (stretches.reshape(-1, SNIPPET - 1) @ ends[block].T).reshape(len(chosen), places, len(block))
            window, end = np.nonzero(correlation.max(1) > SAME)
            if not len(window):
                continue
            place = correlation[window, :, end].argmax(1)
            number = block[end]
            shift = place - (number >= len(rows)) * (eeg.shape[-1] - span)
            candidates = np.unique(np.stack([rows[number % len(rows)], chosen[window], shift], 1), axis=0)
            pairs.append(candidates[_confirm(eeg, windows, candidates, channels, lag)])
    matches = np.concatenate(pairs)
    _, first_of_pair = np.unique(matches[:, :2], axis=0, return_index=True)
    return _Matches(matches[first_of_pair], rows[usable_ends == 0], rows[usable_ends == 1], np.concatenate(blind),
                    np.concatenate(with_gaps))


def _confirm(eeg: Array, windows: Array, candidates: Array, channels: Sequence[int], lag: int) -> Array:
    """Returns which candidates [P, 3], as in _Matches, agree in the whole overlap, in at least half of the channels.
    Samples that are not finite in one of the two windows are not compared."""
    confirmed = np.zeros(len(candidates), bool)
    for shift in np.unique(candidates[:, 2]):
        begin, end = max(0, -shift), min(eeg.shape[-1], windows.shape[-1] - shift)
        rows = np.flatnonzero(candidates[:, 2] == shift)
        for some in np.array_split(rows, -(-len(rows) // PAIRS)):
            steps, rounding = [], []
            for array, column, offset in ((eeg, 0, 0), (windows, 1, shift)):
                signal = np.asarray(array[candidates[some, column][:, None], list(channels)])
                signal = signal[..., begin + offset : end + offset]
                values = signal.astype(np.float32)
                steps.append(values[..., lag:] - values[..., :-lag])
                rounding.append(_rounding(signal))
            finite = np.isfinite(steps[0]) & np.isfinite(steps[1])
            units = [_units(_fill(step, finite), size) for step, size in zip(steps, rounding, strict=True)]
            correlation = (units[0] * units[1]).sum(-1)
            usable = units[0].any(-1) & units[1].any(-1)
            agreeing = (correlation > SAME).sum(1)
            confirmed[some] = (agreeing > 0) & (2 * agreeing >= usable.sum(1))
    return confirmed
