"""Measures by nearest neighbours: memorisation of training images, and precision, recall, density and coverage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from bench import metrics
from bench.errors import count_of
from bench.runtime import MicroBatches, ignore
from bench.scoring.networks import Networks, fit_image
from models.extractors import Extractor, Seen

PRECISION_K, DENSITY_K = 3, 5  # neighbours, as in Kynkäänniemi et al. 2019 and Naeem et al. 2020
LEAST = 50  # images in each set, for precision, recall, density and coverage
ONE_IN = 20  # test images are the nearest 5 %, for near_copies, which needs as many
MANIFOLD = ("precision", "recall", "density", "coverage")
SPACES = ("clip", "judge")
MEMORISATION = tuple(f"{name}_{space}" for space in SPACES for name in (
    "train_distance", "train_distance_real", "train_ratio", "copies", "near_copies"))
OTHER_NETWORKS = (*MANIFOLD, *MEMORISATION)  # of metrics that the literature measures with other networks
Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Memorisation:
    """values: metric -> [N, samples]. totals: metric -> a value of the whole set. keys: of all of them."""

    values: dict[str, Array] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def find_spaces(networks: Networks) -> dict[str, tuple[Extractor, str]]:
    """Returns the spaces in which distances to training images are measured: space -> network and its vector."""
    clip = next((e for e in networks.others if "clip_similarity" in e.metrics), None)
    spaces = {"clip": (clip, "embedding"), "judge": (networks.judge, "features")}
    return {space: (network, vector) for space, (network, vector) in spaces.items() if network is not None}


def look(network: Extractor, images: Array, device: str, parts: MicroBatches) -> Seen:
    """Runs a network on images [B, H, W, 3] uint8, on the device; memory errors divide the batch."""
    seen = parts.run(lambda rows: network.look(torch.tensor(images[rows]).to(device).permute(0, 3, 1, 2)), len(images))
    if len(seen) == 1:
        return seen[0]
    return Seen({name: torch.cat([few.vectors[name] for few in seen]) for name in seen[0].vectors},
                tuple(torch.cat(layers) for layers in zip(*(few.maps for few in seen), strict=True)))


@torch.inference_mode()
def extract_features(networks: Networks, count: int, read: Callable[[int], Array], batch: int, device: str,
                     progress: Callable[..., None] = ignore, note: Callable[..., None] = ignore) -> dict[str, Array]:
    """Returns the features [M, D] float32 of M = `count` images in each space. read(row): [H, W, 3] uint8. batch: that
    of `measure`, since rounding depends on it: an exact copy then has distance 0. note: as in `MicroBatches`."""
    parts = {space: MicroBatches(device, note) for space in SPACES}
    features: dict[str, list[Array]] = {space: [] for space in find_spaces(networks)}
    for start in range(0, count, batch):
        rows = range(start, min(start + batch, count))
        shown = [read(row) for row in rows]
        for space, (network, vector) in find_spaces(networks).items():
            fitted = np.stack([fit_image(network, image) for image in shown])
            full = fitted[np.arange(batch) % len(fitted)]
            seen = look(network, full, device, parts[space]).vectors[vector]
            features[space].append(seen.float().cpu().numpy()[:len(fitted)])
        progress(rows.stop, count)
    return {space: np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
            for space, parts in features.items()}


def measure_memorisation(generated: Mapping[str, Array], real: Mapping[str, Array], training: Mapping[str, Array],
                         picture: Array) -> Memorisation:
    """Measures how near generated images are to training images, in each space.

    generated: space -> [N, samples, D]; real: space -> [N, D], the items' images; training: space -> [M, D]. picture
    [N]: the identity of each item's image; the baseline counts each image once. A space without training images has no
    metric. near_copies needs ONE_IN test images, and the ratio a median above 0.
    """
    result = Memorisation()
    first = np.unique(picture, return_index=True)[1]
    for space, known in training.items():
        if not len(known):
            continue
        items, samples, dimensions = generated[space].shape
        made = metrics.nearest_distance(generated[space].reshape(-1, dimensions), known)[0].reshape(items, samples)
        shown = metrics.nearest_distance(real[space], known)[0]
        tested = np.sort(shown[first])
        against = f"{count_of(len(known), 'training image')}, {count_of(dimensions, 'dimension')}"
        compared = f"{against}, {count_of(len(tested), 'test image')}"
        result.values[f"train_distance_{space}"] = made
        result.values[f"train_distance_real_{space}"] = np.repeat(shown[:, None], samples, 1)
        result.values[f"copies_{space}"] = (made <= tested[0]).astype(np.float64)
        if len(tested) >= ONE_IN:
            limit = tested[len(tested) // ONE_IN - 1]
            result.values[f"near_copies_{space}"] = (made <= limit).astype(np.float64)
        if np.median(tested) > 0:
            result.totals[f"train_ratio_{space}"] = float(np.median(made) / np.median(tested))
        result.keys.update({f"train_distance_{space}": against, f"train_distance_real_{space}": against})
        result.keys.update({f"{name}_{space}": compared for name in ("train_ratio", "copies", "near_copies")})
    return result


def measure_manifold(generated: Array, real: Array, wanted: Sequence[str] | None) -> Iterator[tuple[str, str, float]]:
    """Yields name, key and value of precision, recall, density and coverage, averaged over the samples.

    generated [N, samples, D], of which one sample of each item is taken at a time; real [M, D], distinct images.
    Nothing is yielded if N or M is below LEAST.
    """
    chosen = [name for name in MANIFOLD if wanted is None or name in wanted]
    n, m, samples = len(generated), len(real), generated.shape[1]
    if min(n, m) < LEAST or not chosen:
        return
    each: dict[str, list[float]] = {name: [] for name in MANIFOLD}
    for sample in generated.swapaxes(0, 1):
        for name, value in zip(MANIFOLD, (*precision_recall(sample, real, PRECISION_K),
                                          *metrics.density_coverage(sample, real, DENSITY_K)), strict=True):
            each[name].append(value)
    for name in chosen:
        k = PRECISION_K if name in ("precision", "recall") else DENSITY_K
        yield name, f"k={k}, N={n}, real={m}, averaged over {count_of(samples, 'sample')}", float(np.mean(each[name]))


def precision_recall(generated: Array, real: Array, k: int) -> tuple[float, float]:
    """Returns precision and recall of features [N, D] and [M, D] by torch-fidelity, in float64 (Kynkäänniemi et al.
    2019, Eq. 2): the share of generated images in the ball of a real image, which reaches to its k-th nearest other
    one, and the share of real images in the ball of a generated one."""
    found = prc_features_to_metric(
        *(torch.from_numpy(np.asarray(x, np.float64)) for x in (generated, real)), prc_neighborhood=k,
        prc_batch_size=max(1, metrics.BLOCK // max(len(generated), len(real))), save_cpu_ram=True, verbose=False)
    return found["precision"], found["recall"]
