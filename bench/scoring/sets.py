"""FID and the inception score by torchmetrics, as a check of bench/metrics.py, and the settings of set metrics."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

SPLITS = 1  # of the inception score; ten, as usual for 50,000 images, would leave a few dozen in each
SUBSETS, SUBSET_SIZE = 100, 1000  # of KID; all images if there are fewer
SETS = ("fid", "fid_torchmetrics", "fid_infinity", "kid", "is", "is_torchmetrics")


def fixed_rng() -> np.random.Generator:
    """Returns a generator with seed 0, so that set metrics are deterministic."""
    return np.random.default_rng(0)


class _Cached(nn.Identity):
    """Replaces a feature extractor where the features are already computed."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


def fid_torchmetrics(features: np.ndarray, reference: np.ndarray) -> float:
    """Returns the Frechet distance of features [N, F] and [M, F] by torchmetrics, in float64."""
    distance = FrechetInceptionDistance(feature=_Cached(features.shape[1])).set_dtype(torch.float64)
    distance.update(torch.from_numpy(reference.astype(np.float64)), real=True)
    distance.update(torch.from_numpy(features.astype(np.float64)), real=False)
    return float(distance.compute())


def inception_score_torchmetrics(logits: np.ndarray, splits: int) -> float:
    """Returns exp E KL(p(y|x) || p(y)) of logits [N, K] by torchmetrics, in float64, with a fixed shuffle."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `InceptionScore` will save all extracted features")
        value = InceptionScore(feature=_Cached(logits.shape[1]), splits=splits).set_dtype(torch.float64)
    value.update(torch.from_numpy(logits.astype(np.float64)))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"std\(\): degrees of freedom")
        torch.manual_seed(0)
        return float(value.compute()[0])
