"""What the arrays of a data set show: equal images, equal EEG, channels that hold codes instead of EEG."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.errors import count_of
from bench.scoring.audit_predictions import ALPHA, GAIN, PERMUTATIONS
from bench.scoring.audit_report import CLEAR, FACT, LEAK, UNKNOWN, Finding, percent
from bench.scoring.audit_table import Array, find_shared

TRAINED, TESTED, CLASSES = 450, 1000, 40  # trials and classes that `find_telling_channel` uses at most
BITS = 2.0  # of information about the class in one sample: needs a response with 15 times the power of all else
LEVELS = 100.0  # variance between classes over that within a class, from which values are levels of a code
STEPS = 0.5  # share of equal successive samples, from which a channel is constant with steps, no EEG
DEAD = 1e-5  # of a channel's standard deviation; a smaller spread is rounding


def find_equal_images(trials: pd.DataFrame, pictures: Array | None) -> Finding:
    """Counts images with equal bytes under different ids in two parts. pictures: [P, H, W, 3], by `picture`."""
    name = "identical picture under two ids"
    if pictures is None:
        return Finding(name, UNKNOWN, example="no images were given")
    ids = np.unique(trials["picture"])
    content = pd.Series(_digests(pictures, ids), ids)
    copies = trials[trials["picture"].map(content.duplicated(keep=False))]
    return find_shared(copies, copies["picture"].map(content), name, "picture",
                       "identical pictures under different ids in two parts")


def find_equal_eeg(trials: pd.DataFrame, eeg: Array | None) -> Finding:
    """Counts windows of eeg [N, C, T] with equal bytes in two parts."""
    name = "identical EEG in two parts"
    if eeg is None:
        return Finding(name, UNKNOWN, example="no EEG was given")
    content = pd.Series(_digests(eeg, np.arange(len(trials))), trials.index)
    copies = trials[content.duplicated(keep=False)]
    return find_shared(copies, content[copies.index], name, "", "identical EEG windows in two parts")


def _digests(rows: Array, indices: Array) -> list[bytes]:
    return [hashlib.blake2b(np.ascontiguousarray(rows[row]).data, digest_size=16).digest() for row in indices]


def find_telling_channel(trials: pd.DataFrame, eeg: Array | None) -> tuple[Finding, Finding]:
    """Checks if one channel of eeg [N, C, T] alone, at one time point (or by its mean), tells the class of test trials,
    as a trigger channel does; and lists the channels that are constant with steps.

    The class is that of the training trial with the nearest value. Channel and time are chosen on training trials only;
    the test trials are predicted once, and p is from permutations of their labels. It is a leak if the channel is
    constant with steps, if the values are levels (LEVELS), or if they hold more than BITS about the class (Fano's
    inequality); otherwise an evoked response may be the cause, and it is a fact. If no class of the test trials is
    trained on, a third of the training trials is tested instead. Time is O(C T n log n) for n <= TRAINED training
    trials.
    """
    name, other = "one channel tells the class", "channel of steps, no EEG"
    if eeg is None:
        return (Finding(name, UNKNOWN, example="no EEG was given"),
                Finding(other, UNKNOWN, example="no EEG was given"))
    rng = np.random.default_rng(0)
    label, draw = trials["label"].to_numpy(), _draw_trials(trials, rng)
    best, steps, left_out = _scan_channels(eeg, label, draw, rng)
    stepped = np.flatnonzero(steps > STEPS).tolist()
    notes = [f"channel {channel} (from 0): {percent(steps[channel])} of successive samples are equal"
             for channel in stepped[:1]]
    notes += [f"left out: {count_of(left_out, 'trial')} with NaN or infinite EEG"] if left_out else []
    facts = Finding(other, FACT if len(stepped) else CLEAR, len(stepped), "; ".join(notes))
    if draw.reason or not best:
        reason = "no training trial has finite EEG" if left_out == len(draw.train) else "all channels are constant"
        return Finding(name, UNKNOWN, example=draw.reason or reason), facts
    strongest = max(best.values(), key=lambda score: (score[0], -score[1]))
    candidates = [strongest, *(best[channel] for channel in stepped if channel in best)]
    findings = [_judge(eeg, label, draw, channel, sample, bool(steps[channel] > STEPS), rng)
                for _, channel, sample in dict.fromkeys(candidates)]
    order = (UNKNOWN, CLEAR, FACT, LEAK)
    return max(findings, key=lambda f: (order.index(f.severity), f.count)), facts


@dataclass(frozen=True, eq=False)
class _Draw:
    """Rows of the trials that train and are tested, in random order. reason: why nothing can be predicted, or ""."""

    train: Array
    test: Array
    note: str
    reason: str = ""


def _draw_trials(trials: pd.DataFrame, rng: np.random.Generator) -> _Draw:
    label = trials["label"].to_numpy()
    train, test = (rng.permutation(np.flatnonzero(trials["part"] == part)) for part in ("train", "test"))
    note = "test trials"
    test = test[np.isin(label[test], label[train])]
    if not len(test):
        note = "training trials, as no class of the test trials is trained on"
        test, train = train[: len(train) // 3], train[len(train) // 3 :]
        test = test[np.isin(label[test], label[train])]
    classes = np.argsort(-np.bincount(label[test], minlength=1), kind="stable")[:CLASSES]
    train, test = (rows[np.isin(label[rows], classes)] for rows in (train, test))
    reason = ""
    if len(test) and np.bincount(label[train]).max() < 2:
        reason = "each class has one training trial"
    elif len(np.unique(label[test])) < 2:
        reason = "fewer than two classes of the test trials are trained on"
    return _Draw(train[:TRAINED], test[:TESTED], note, reason)


def _scan_channels(eeg: Array, label: Array, draw: _Draw, rng: np.random.Generator
                   ) -> tuple[dict[int, tuple[float, int, int]], Array, int]:
    """Returns, for each channel with signal, its best share of hits among training trials, its number and the sample
    (T: the mean); the share of equal successive samples of each channel; and how many trials were not finite."""
    rows = np.sort(draw.train)
    window = np.asarray(eeg[rows])
    finite = np.isfinite(window).all((1, 2))
    rows, window = rows[finite], window[finite]
    order = rng.permutation(len(rows))  # equal values are in random order, never in the order of the recording
    rows, window = rows[order], window[order]
    equal, spread = np.zeros(eeg.shape[1]), np.zeros(eeg.shape[1])
    for channel in range(eeg.shape[1]):
        values = window[:, channel].astype(np.float64)
        equal[channel] = (values[:, 1:] == values[:, :-1]).mean() if values[:, 1:].size else 0.0
        spread[channel] = values.std() if values.size else 0.0
    alive = np.flatnonzero(spread > DEAD * np.median(spread)) if spread.any() else np.empty(0, int)
    fits = np.arange(len(rows)) < len(rows) * 2 // 3
    best: dict[int, tuple[float, int, int]] = {}
    for channel in map(int, alive):
        values = _with_mean(window[:, channel])
        first, second = _nearest(values, label[rows], fits)
        actual = label[rows][~fits, None]
        share = ((first == actual) / 2 + (second == actual) / 2).mean(0) if actual.size else np.zeros(values.shape[1])
        share = np.where(values.std(0) > DEAD * spread[channel], share, 0.0)
        sample = int(share.argmax())
        best[channel] = float(share[sample]), channel, sample
    return best, np.where(spread > DEAD * np.median(spread), equal, 0.0), int((~finite).sum())


def _with_mean(signal: Array) -> Array:
    """[n, T] -> [n, T + 1] float64; the last column is the mean."""
    values = signal.astype(np.float64)
    return np.concatenate([values, values.mean(1, keepdims=True)], 1)


def _nearest(values: Array, label: Array, fits: Array) -> tuple[Array, Array]:
    """Returns the labels of the trials that fit with the nearest value, [n - fits, F] for values [n, F]. Two labels: if
    the values above and below are equally near, one of each; else twice the same."""
    n = len(values)
    order = np.argsort(values, axis=0, kind="stable")
    ascending, is_fit, place = np.take_along_axis(values, order, 0), fits[order], np.arange(n)[:, None]
    below = np.maximum.accumulate(np.where(is_fit, place, -1), 0)
    above = np.minimum.accumulate(np.where(is_fit, place, n)[::-1], 0)[::-1]
    low, high = (np.take_along_axis(ascending, side.clip(0, n - 1), 0) for side in (below, above))
    low, high = np.where(below < 0, np.inf, ascending - low), np.where(above == n, np.inf, high - ascending)
    labels = label[order]
    low_label, high_label = (np.take_along_axis(labels, side.clip(0, n - 1), 0) for side in (below, above))
    nearest = []
    for chosen in (np.where(low <= high, low_label, high_label), np.where(high <= low, high_label, low_label)):
        by_row = np.empty_like(chosen)
        np.put_along_axis(by_row, order, chosen, 0)
        nearest.append(by_row[~fits])
    return nearest[0], nearest[1]


def _judge(eeg: Array, label: Array, draw: _Draw, channel: int, sample: int, steps: bool,
           rng: np.random.Generator) -> Finding:
    """Predicts the classes of the tested trials from one value of a channel, and judges whether that is a leak.
    sample: the index of the value; T is the channel's mean."""
    name, n_times = "one channel tells the class", eeg.shape[-1]
    values = np.concatenate([_with_mean(np.asarray(eeg[rows, channel]))[:, sample] for rows in (draw.train, draw.test)])
    finite = np.isfinite(values)
    rows = np.concatenate([draw.train, draw.test])[finite]
    fits = (np.arange(len(finite)) < len(draw.train))[finite]
    values, actual = values[finite], label[rows][~fits]
    n, classes = len(actual), np.bincount(actual)
    if not n or math.lgamma(n + 1) - sum(math.lgamma(count + 1) for count in classes) < math.log(1 / ALPHA):
        return Finding(name, UNKNOWN, example=f"{n} {draw.note}: too few to tell")
    first, second = (labels[:, 0] for labels in _nearest(values[:, None], label[rows], fits))

    def share_of(labels: Array) -> Array:
        return ((first == labels) / 2 + (second == labels) / 2).mean(-1)

    share = float(share_of(actual))
    reached = sum(int((share_of(rng.permuted(np.tile(actual, (100, 1)), axis=1)) >= share - 1e-12).sum())
                  for _ in range(PERMUTATIONS // 100))
    p = (1 + reached) / (1 + PERMUTATIONS)
    trained = np.bincount(label[rows][fits], minlength=label.max() + 1)
    prior = (trained == trained.max()) / (trained == trained.max()).sum()
    chance = float(prior[actual].mean())
    place = f"channel {channel} " + (f"at sample {sample}" if sample < n_times else "by its mean")
    numbers = f"{percent(share)} against {percent(chance)}"
    example = f"{place} (from 0): {numbers}, p = {p:.3f}, {n} {draw.note}"
    if p > ALPHA or share - chance < GAIN * (1 - chance):
        return Finding(name, CLEAR, 0, example)
    if steps or _bits(share, classes[classes > 0] / n) > BITS or _levels(values, label[rows]) > LEVELS:
        return Finding(name, LEAK, round(share * n), example, f"{place} alone tells the class ({numbers})")
    is_strong = share - chance > (1 - chance) / 2
    note = "much for EEG: look at this channel" if is_strong else "an evoked response can do this"
    return Finding(name, FACT, round(share * n), f"{example}; {note}")


def _bits(share: float, frequency: Array) -> float:
    """Returns the least information in bits of predictions of which `share` are right, by Fano's inequality."""
    wrong = 1 - share
    entropy = float(-(frequency * np.log2(frequency)).sum())
    binary = -sum(x * math.log2(x) for x in (share, wrong) if x > 0)
    return entropy - binary - (wrong * math.log2(len(frequency) - 1) if len(frequency) > 1 else 0.0)


def _levels(values: Array, label: Array) -> float:
    """Returns the variance of the class means over the mean variance within a class, of values [n]."""
    groups = pd.Series(values).groupby(label)
    within = float(((values - groups.transform("mean")) ** 2).sum())
    total = float(((values - values.mean()) ** 2).sum())
    return (total - within) / within if within > 1e-12 * total else math.inf
