"""What the arrays of a data set show: equal images, equal EEG, test trials inside the corpus."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from bench.scoring.audit_report import CLEAR, LEAK, UNKNOWN, Finding
from bench.scoring.audit_table import Array, find_shared

SNIPPET, SAME = 24, 0.999  # samples of a channel that are compared with the corpus, and the correlation of a match
CHUNK = 200  # windows of the corpus that are compared at once


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


def find_inside(trials: pd.DataFrame, eeg: Array | None, corpus: Array | None) -> Finding:
    """Finds test trials whose first channel starts or ends with a stretch of a corpus window's first channel. A trial
    inside a corpus of adjacent windows has at least one end inside a window, at any offset. The differences between
    successive samples are correlated, so scale and offset, which normalisation changes, do not matter."""
    name = "test trial inside the corpus"
    if eeg is None or corpus is None:
        return Finding(name, UNKNOWN, example=f"no {'EEG' if eeg is None else 'corpus'} was given")
    if min(eeg.shape[-1], corpus.shape[-1]) < SNIPPET:
        return Finding(name, UNKNOWN, example=f"windows are shorter than {SNIPPET} samples")
    test = np.flatnonzero(trials["part"] == "test")
    channel = np.asarray(eeg[test, 0], np.float32)
    ends = np.diff(np.concatenate([channel[:, :SNIPPET], channel[:, -SNIPPET:]]), axis=1)
    size = np.linalg.norm(ends, axis=1, keepdims=True)
    ends = (ends / np.where(size > 0, size, np.inf)).T
    matches = np.zeros(ends.shape[1], bool)
    for begin in range(0, len(corpus), CHUNK):
        steps = np.diff(np.asarray(corpus[begin : begin + CHUNK, 0], np.float32), axis=1)
        stretches = np.lib.stride_tricks.sliding_window_view(steps, SNIPPET - 1, axis=1).reshape(-1, SNIPPET - 1)
        norm = np.linalg.norm(stretches, axis=1, keepdims=True)
        matches |= ((stretches / np.where(norm > 0, norm, np.inf)) @ ends).max(0) > SAME
    inside = test[matches.reshape(2, -1).any(0)]
    if not len(inside):
        return Finding(name, CLEAR)
    return Finding(name, LEAK, len(inside), f"item {trials['item'][inside[0]]}",
                   f"{len(inside)} test trial{'s' * (len(inside) > 1)} inside the pre-training corpus")
