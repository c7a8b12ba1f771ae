"""FID and the inception score by torchmetrics, as a check of bench/metrics.py, and the settings of set metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from bench import metrics
from bench.errors import count_of
from models.extractors import Extractor

Array = np.ndarray

SPLITS = 1  # of the inception score; ten, as usual for 50,000 images, would leave a few dozen in each
SUBSETS, SUBSET_SIZE = 100, 1000  # of KID; all images if there are fewer
FRECHET = ("fd_dinov2",)  # metrics of sets by a network of their own
SETS = ("fid", "fid_torchmetrics", "fid_infinity", "kid", "is", "is_torchmetrics")


def fixed_rng() -> np.random.Generator:
    """Returns a generator with seed 0, so that set metrics are deterministic."""
    return np.random.default_rng(0)


def frechet_distances(networks: Sequence[Extractor], real: Mapping[tuple[str, str], Array],
                      generated: Mapping[tuple[str, str], Array], picture: Array) -> Iterator[tuple[str, str, float]]:
    """Yields name, key and value of each metric of FRECHET, averaged over samples.

    real [N, F], generated [N, samples, F]: by network and vector; picture [N]: the identity of each real image.
    """
    distinct = np.unique(picture, return_index=True)[1]
    for network in networks:
        for name in FRECHET:
            if vector := network.metrics.get(name):
                made = generated[network.name, vector].swapaxes(0, 1)
                values = [metrics.frechet_distance(sample, real[network.name, vector][distinct]) for sample in made]
                key = f"N={len(picture)}, reference={len(distinct)}, averaged over {count_of(len(made), 'sample')}"
                yield name, key, float(np.mean(values))


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
