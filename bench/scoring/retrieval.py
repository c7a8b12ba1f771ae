"""Retrieval of images by embeddings of the EEG, and metrics among distinct images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from bench import metrics
from bench.errors import count_of

RETRIEVAL = {"retrieval_top1": 1, "retrieval_top5": 5}  # metric: k
Array = np.ndarray


def among_distinct(picture: Array, real: Array, other: Array, function: Callable[[Array, Array], Array]) -> Array:
    """Computes a metric [N] of `other` [N, D] among the distinct images: an image that several items show counts once.

    function(a, b), both [P, D] for the P distinct images, returns a value [P] for each row of b among all rows of a. It
    is called several times, each time with one item of each image."""
    _, first, inverse = np.unique(picture, return_index=True, return_inverse=True)
    distinct = real[first]
    turn = pd.Series(inverse).groupby(inverse).cumcount().to_numpy()
    values = np.empty(len(picture))
    for number in range(turn.max() + 1):
        rows = np.flatnonzero(turn == number)
        filled = distinct.copy()
        filled[inverse[rows]] = other[rows]
        values[rows] = function(distinct, filled)[inverse[rows]]
    return values


def retrieve(picture: Array, real: Array, embedding: Array, k: int, n: int | None = None) -> Array:
    """Returns `metrics.retrieval_topk` [N] of the items' embeddings among the distinct images."""
    return among_distinct(picture, real, embedding, lambda gallery, query: metrics.retrieval_topk(
        query, gallery, min(k, len(gallery)), n, np.arange(len(gallery))))


def score_retrieval(picture: Array, real: Array, embedding: Array, ways: Sequence[int]) -> dict[str, tuple[str, Array]]:
    """Scores the retrieval of each item's image among the distinct images: metric -> key and values [N].

    picture [N]; real [N, D'], CLIP embeddings of the images; embedding [N, D'], of the items' EEG. ways: the n of n-way
    retrieval; an n above the number of images is skipped. The entry `retrieved`, with an empty key, is the nearest
    image, -1 for a tie.
    """
    distinct = np.unique(picture)
    scores = {name: (top_key(k, len(distinct)), retrieve(picture, real, embedding, k))
              for name, k in RETRIEVAL.items()}
    for n in ways:
        if n <= len(distinct):
            scores[f"retrieval_{n}way"] = (f"{n} of {count_of(len(distinct), 'picture')}",
                                           retrieve(picture, real, embedding, 1, n))
    place = among_distinct(picture, real, embedding, lambda gallery, query: metrics.nearest(
        query, gallery, np.arange(len(gallery))))
    place = place.astype(np.int64)
    return {**scores, "retrieved": ("", np.where(place < 0, -1, distinct[place]))}


def top_key(k: int, pictures: int) -> str:
    """Returns "top 5 of 200 pictures", the key of a retrieval metric."""
    return f"top {min(k, pictures)} of {count_of(pictures, 'picture')}"
