"""The best linear prediction from all channels, against a process whose best prediction is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.train.known import joint_wiener
from bench.train.pretrain import baselines
from models.masking import random_masking

TOKENS, CHANNELS, TIMES = 8, 4, 16


def waves(n, noise, seed):
    """Windows [n, C, T]: one Gaussian amplitude times a pattern over channels and times, plus white noise."""
    pattern = np.random.default_rng(0).standard_normal((CHANNELS, TIMES))
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, 1, 1)) * pattern + noise * rng.standard_normal((n, CHANNELS, TIMES))).astype(
        np.float32)


def test_the_joint_prediction_reaches_the_error_of_the_best_linear_one_and_that_of_one_channel_does_not():
    noise, held_out = 1.0, waves(800, 1.0, 2)
    train = waves(6000, noise, 1)
    pattern = np.random.default_rng(0).standard_normal((CHANNELS, TIMES))
    masks = random_masking(16, TOKENS, 0.75, torch.Generator().manual_seed(0))
    span, best = TIMES // TOKENS, []
    for keep, remove in zip(masks.keep, masks.remove, strict=True):
        seen, hidden = ([t for token in index.tolist() for t in range(span * token, span * (token + 1))]
                        for index in (keep, remove))
        left = 1 / (1 + (pattern[:, seen] ** 2).sum() / noise**2)  # variance of the amplitude, given what is seen
        best.append(noise**2 + left * (pattern[:, hidden] ** 2).mean())
    joint = joint_wiener(train, held_out, TOKENS, 0.75)
    assert joint == pytest.approx(np.mean(best), rel=0.05)
    turn = torch.arange(len(held_out)) % 16
    single = baselines(torch.from_numpy(train), torch.from_numpy(held_out),
                       type(masks)(masks.keep[turn], masks.remove[turn]))
    assert joint < single["wiener_mse"] < single["mean_mse"]


def test_white_noise_cannot_be_predicted_better_than_by_the_mean():
    error = joint_wiener(waves(4000, 30.0, 1), waves(400, 30.0, 2), TOKENS, 0.25) / 30.0**2
    assert 0.97 < error < 1.06
