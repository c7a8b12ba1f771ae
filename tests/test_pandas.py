"""pandas objects at the edges of the Python API: the values count in their order, whatever the index."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench import metrics, statistics
from bench.scoring import audit

RNG = np.random.default_rng(0)
N = 24
LOGITS, OTHER = RNG.standard_normal((N, 6)), RNG.standard_normal((N, 6))
LABEL = RNG.integers(0, 6, N)
RIGHT = RNG.integers(0, 2, (4, N))
FEATURES, MORE = RNG.standard_normal((N, 4)), RNG.standard_normal((N, 4))


def odd(values):
    """A Series or a DataFrame of the values, with an index in disorder and with repeated labels."""
    index = np.random.default_rng(len(np.shape(values))).permutation(len(values)) // 2
    return pd.Series(values, index) if np.ndim(values) == 1 else pd.DataFrame(values, index)


@pytest.mark.parametrize(("function", "arguments"), [
    (metrics.top1, (LOGITS, LABEL)), (lambda a, b: metrics.nway_accuracy(a, b, 4), (LOGITS, LABEL)),
    (lambda a, b: metrics.hard_distractors(a, b, 3), (LOGITS, LABEL)),
    (metrics.frechet_distance, (FEATURES, MORE)), (metrics.two_way_identification, (LOGITS, OTHER)),
    (metrics.correlation_distance, (LOGITS, OTHER)), (metrics.cosine_similarity, (LOGITS, OTHER)),
    (lambda a, b: metrics.retrieval_topk(a, b, 2), (LOGITS, OTHER)), (metrics.nearest, (LOGITS, OTHER)),
    (statistics.crossed_interval, (RIGHT,)), (statistics.paired_contrast, (RIGHT[:2], RIGHT[2:])),
    (statistics.holm, ([0.01, 0.2, 0.04],)), (statistics.mcnemar, (RIGHT[0], RIGHT[1])),
    (statistics.kendall, ([1.0, 2.0, 4.0, 3.0], [1.0, 3.0, 2.0, 4.0])),
    (lambda a, b: statistics.verdicts({"x": (a, b)}), (RIGHT[:2], RIGHT[2:])),
    (lambda a, b: statistics.verdicts({"x": (a, b)}, unpaired=["x"]), (RIGHT[:2], RIGHT[2:])),
    (lambda a, b: statistics.permutation_null(a, b, np.random.default_rng(1), 50), (LABEL, LABEL[::-1].copy())),
])
def test_metrics_and_statistics_of_series_are_those_of_their_values(function, arguments):
    expected, of_pandas = function(*arguments), function(*map(odd, map(np.asarray, arguments)))
    if isinstance(expected, (np.ndarray, float)):
        np.testing.assert_allclose(of_pandas, expected, rtol=1e-12)  # a frame lies otherwise in memory: last digits
    else:
        assert repr(expected) == repr(of_pandas)  # NaN does not equal NaN


def test_the_audit_reads_trials_in_their_order_whatever_the_index():
    label = np.arange(N) % 3
    trials = pd.DataFrame({"item": np.arange(N), "subject": 1, "picture": np.arange(N), "label": label,
                           "part": np.repeat(["train", "test"], N // 2), "block": np.arange(N) // 4,
                           "position": np.arange(N), "session": label})
    eeg = RNG.standard_normal((N, 2, 8))
    eeg[N - 1] = eeg[0]  # the same EEG in both parts, by position
    expected = audit.audit(trials, eeg)
    assert expected.leaky
    assert audit.audit(trials.set_axis(RNG.permutation(N) // 2, axis=0), eeg).render() == expected.render()


def test_the_audit_takes_positions_of_any_type_of_integer():
    trials = pd.DataFrame({"item": np.arange(N), "subject": 1, "picture": np.arange(N), "label": np.arange(N) % 3,
                           "part": np.repeat(["train", "test"], N // 2), "block": np.arange(N) // 4,
                           "position": np.arange(N)})
    expected = audit.audit(trials).render()
    assert audit.audit(trials.astype({"position": np.uint64, "block": np.uint8})).render() == expected
