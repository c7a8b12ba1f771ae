"""Measures pictures against the real ones, whoever made them: the one path of scoring stages and of `bench score`.

Pictures are read one item at a time; what is kept of each is its features and its metrics, never its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from bench import images, metrics
from bench.images import as_images
from bench.runtime import silent
from bench.scoring import schema
from bench.scoring.networks import Networks
from bench.scoring.sets import (
    SETS,
    SPLITS,
    SUBSET_SIZE,
    SUBSETS,
    fid_torchmetrics,
    fixed_rng,
    inception_score_torchmetrics,
)
from models.extractors import Extractor

BATCH = 50
RESIZED = "Pillow bicubic"
PIXELS = {  # metric: function, key, the smallest side that it is defined for
    "psnr": (metrics.psnr, "range 255", 1),
    "ssim": (metrics.ssim, "Gaussian 11x11, sigma 1.5", 11),
    "ssim_released": (metrics.ssim_released, "uniform 7x7, sample covariance", 7),
    "pixcorr": (metrics.pixcorr, "RGB", 1),
}
BY_JUDGE = ("top1_judge", "nway_judge", "nway_top5_judge")
BY_LABEL = ("top1_label", "nway_label", "nway_top5_label", "top1_shown_label", "nway_shown_label", "top1_shown_judge",
            "nway_shown_judge", "top1_real")  # what labels are needed for: they tell which classes were shown
BY_SETS = ("top1_fixed_label", "top1_fixed_judge", "nway_hard_label", "nway_hard_judge")  # of Classes
RETRIEVAL = {"retrieval_top1": 1, "retrieval_top5": 5}


@dataclass(frozen=True, eq=False)
class Pairs:
    """N items and the pictures that were made for each: real(row) and generated(row, sample) are [H, W, 3] uint8.

    Items that show the same picture have the same `picture`. label: the class of each by the judge's numbers.
    """

    item: np.ndarray
    subject: np.ndarray
    picture: np.ndarray
    label: np.ndarray | None
    samples: int
    real: Callable[[int], np.ndarray]
    generated: Callable[[int, int], np.ndarray]


@dataclass(frozen=True, eq=False)
class Classes:
    """What competes with a target among the judge's K classes: any `nway` - 1, or the sets that are known.

    fixed: the classes of the accuracy among fixed ones. hard [K, K - 1]: `metrics.hard_distractors`.
    """

    nway: int
    fixed: Sequence[int] = ()
    hard: np.ndarray | None = None

    def sets(self, label: np.ndarray) -> dict[str, tuple[np.ndarray, str]]:
        """Metrics' names, the classes of each, [S] or [N, S], and their keys; labels [N]."""
        shown, found = np.unique(label), {}
        if len(self.fixed):
            found["top1_fixed"] = np.asarray(self.fixed), f"{len(self.fixed)} fixed classes"
        if self.hard is not None:
            found["nway_hard"] = np.column_stack([label, self.hard[label][:, :self.nway - 1]]), \
                f"{self.nway} of {len(self.hard)}, the hardest"
        return {"top1_shown": (shown, f"{len(shown)} shown classes"), **found}


@dataclass(frozen=True, eq=False)
class Measured:
    """rows: one for each item and sample. summary: one for each metric, columns schema.METRICS."""

    rows: pd.DataFrame
    summary: pd.DataFrame


def measure(pairs: Pairs, networks: Networks, classes: Classes, wanted: Sequence[str] | None = None,
            reference: np.ndarray | None = None, embedding: np.ndarray | None = None, device: str = "cpu",
            progress: Callable[..., None] = silent) -> Measured:
    """All that the networks allow, or the metrics that are `wanted`.

    reference: features [M, F] of real pictures that FID and KID are against; None: those of the items' own pictures.
    embedding: [N, D'], each item's EEG in the space of the CLIP among the networks. Samples of one item are no
    independent pictures: FID, KID and IS take one sample of each item and are averaged over the sample's index.
    """
    seen = _look(pairs, networks, wanted, device, progress)
    with threadpool_limits(1):
        rows = _rows(pairs, networks, seen, classes, embedding, wanted)
        return Measured(rows, _summary(pairs, networks, seen, rows, reference, classes, wanted))


@dataclass(eq=False)
class _Seen:
    """Vectors of the networks, by their names and the vector's, and the metrics of pairs [N, samples]."""

    real: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)  # [N, D]
    generated: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)  # [N, samples, D]
    pairs: dict[str, np.ndarray] = field(default_factory=dict)
    maps: int = 0  # that the judge's distance is over
    resized: bool = False  # to the real picture's size
    fitted: set[str] = field(default_factory=set)  # the networks to whose size


@torch.inference_mode()
def _look(pairs: Pairs, networks: Networks, wanted: Sequence[str] | None, device: str,
          progress: Callable[..., None]) -> _Seen:
    n, seen, looking = len(pairs.item), _Seen(), networks.all()
    pixels = {name: function for name, (function, _, _) in PIXELS.items() if is_wanted(name, wanted)}
    if networks.lpips:
        pixels["lpips"] = lambda a, b: networks.lpips[0](as_images(a, device), as_images(b, device)).cpu().numpy()
    for name in pixels:
        seen.pairs[name] = np.empty((n, pairs.samples))
    for start in range(0, n, BATCH):
        rows = range(start, min(start + BATCH, n))
        fitted: list[list[list[np.ndarray]]] = [[[] for _ in range(1 + pairs.samples)] for _ in looking]
        for row in rows:
            shown = [pairs.real(row), *(pairs.generated(row, sample) for sample in range(pairs.samples))]
            for extractor, columns in zip(looking, fitted, strict=True):
                for column, picture in zip(columns, shown, strict=True):
                    column.append(images.resize(picture, (extractor.size, extractor.size)))
                    if column[-1] is not picture:
                        seen.fitted.add(extractor.name)
            if pixels:
                same = np.stack([images.resize(picture, shown[0].shape[:2]) for picture in shown[1:]])
                seen.resized |= any(picture.shape != shown[0].shape for picture in shown)
                for name, function in pixels.items():
                    seen.pairs[name][row] = function(np.repeat(shown[0][None], len(same), 0), same)
        for extractor, columns in zip(looking, fitted, strict=True):
            _keep(seen, extractor, columns, rows, n, networks.judge, device)
        progress(rows[-1] + 1, n)
    return seen


def _keep(seen: _Seen, extractor: Extractor, columns: list[list[np.ndarray]], rows: range, n: int,
          judge: Extractor | None, device: str) -> None:
    """Looks at a batch of real pictures and at one of each sample, and keeps the vectors."""
    samples, maps = len(columns) - 1, []
    for column, pictures in enumerate(columns):
        full = np.stack(pictures)[np.arange(BATCH) % len(pictures)]  # floating point depends on a batch's size
        found = extractor.look(torch.tensor(full).to(device).permute(0, 3, 1, 2))
        for name, vectors in found.vectors.items():
            kept = vectors.float().cpu().numpy()[:len(rows)]
            if column == 0:
                seen.real.setdefault((extractor.name, name), np.empty((n, kept.shape[1]), np.float32))[rows] = kept
            else:
                place = seen.generated.setdefault((extractor.name, name),
                                                  np.empty((n, samples, kept.shape[1]), np.float32))
                place[rows, column - 1] = kept
        if extractor is judge and found.maps:
            layers = [layer.float().cpu().numpy()[:len(rows)] for layer in found.maps]
            maps = maps or layers
            if column:
                distance = seen.pairs.setdefault("judge_distance", np.empty((n, samples)))
                distance[rows, column - 1] = metrics.judge_distance(maps, layers)
            seen.maps = len(layers)


def is_wanted(name: str, wanted: Sequence[str] | None) -> bool:
    return wanted is None or name in wanted


def _rows(pairs: Pairs, networks: Networks, seen: _Seen, classes: Classes, embedding: np.ndarray | None,
          wanted: Sequence[str] | None) -> pd.DataFrame:
    """A row for each item and sample. `judged` is the class that the judge sees, `judged_real` in the real picture."""
    once: dict[str, Any] = {"item": pairs.item, "subject": pairs.subject, "picture": pairs.picture}
    if pairs.label is not None:
        once["label"] = pairs.label
    if networks.judge:
        once["judged_real"] = seen.real[networks.judge.name, "logits"].argmax(1)
    for name, k in RETRIEVAL.items():
        clip = next((e for e in networks.others if "clip_similarity" in e.metrics), None)
        if embedding is not None and clip and is_wanted(name, wanted):
            real = seen.real[clip.name, "embedding"]
            once[name] = _among(pairs.picture, real, embedding, lambda own, other, k=k: metrics.retrieval_topk(
                other, own, min(k, len(own))))
    samples = []
    for sample in range(pairs.samples):
        row = {**once, "sample": sample}
        if networks.judge:
            logits = seen.generated[networks.judge.name, "logits"][:, sample]
            real = seen.real[networks.judge.name, "logits"]
            row |= {"judged": logits.argmax(1), **_accuracies(logits, real, pairs.label, classes)}
        row |= {name: values[:, sample] for name, values in seen.pairs.items()}
        for extractor in networks.all():
            for name, vector in extractor.metrics.items():
                if is_wanted(name, wanted):
                    key = extractor.name, vector
                    row[name] = _likeness(name, seen.real[key], seen.generated[key][:, sample], pairs.picture)
        samples.append(pd.DataFrame(row))
    rows = pd.concat(samples).sort_values(["item", "sample"], ignore_index=True)
    about = ["item", "sample", "subject", "picture", "label", "judged_real", "judged"]
    values = [name for name in rows if name not in about and is_wanted(name, wanted)]
    return rows[[name for name in about if name in rows] + values]


def _accuracies(logits: np.ndarray, real: np.ndarray, label: np.ndarray | None,
                classes: Classes) -> dict[str, np.ndarray]:
    """Accuracies [N] of logits [N, K], against the label and against the judge's opinion of the real picture, too."""
    targets = {"judge": real.argmax(1)} | ({"label": label} if label is not None else {})
    found, nway = {}, classes.nway
    for name, target in targets.items():
        found |= {f"top1_{name}": metrics.top1(logits, target),
                  f"nway_{name}": metrics.nway_accuracy(logits, target, nway),
                  f"nway_top5_{name}": metrics.nway_accuracy(logits, target, nway, min(5, nway))}
    if label is not None:
        for metric, (few, _) in classes.sets(label).items():
            opinion = metrics.among(real, label, few)[0].argmax(1)
            logits_few, own = metrics.among(logits, label, few)
            for name, target in {"label": own, "judge": opinion}.items():
                found[f"{metric}_{name}"] = metrics.top1(logits_few, target)
                if metric == "top1_shown":
                    found[f"nway_shown_{name}"] = metrics.nway_accuracy(logits_few, target,
                                                                        min(nway, logits_few.shape[1]))
    return found


def _likeness(name: str, real: np.ndarray, generated: np.ndarray, picture: np.ndarray) -> np.ndarray:
    if name.startswith("two_way_"):
        return _among(picture, real, generated, metrics.two_way_identification)
    return metrics.correlation_distance(real, generated) if name.startswith("correlation_") else \
        metrics.cosine_similarity(real, generated)


def _among(picture: np.ndarray, real: np.ndarray, other: np.ndarray,
           function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """A metric [N] of `other` [N, D] among the distinct pictures [P, D]: several items may show the same one.

    `function` takes two [P, D] and its value for a row depends on all of the first and on that row of the second; it is
    called for as many items at a time as show different pictures.
    """
    _, first, own = np.unique(picture, return_index=True, return_inverse=True)
    distinct = real[first]
    turn = pd.Series(own).groupby(own).cumcount().to_numpy()
    values = np.empty(len(picture))
    for now in range(turn.max() + 1):
        rows = np.flatnonzero(turn == now)
        filled = distinct.copy()
        filled[own[rows]] = other[rows]
        values[rows] = function(distinct, filled)[own[rows]]
    return values


def retrieved(picture: np.ndarray, real: np.ndarray, embedding: np.ndarray,
              ways: Sequence[int]) -> dict[str, tuple[str, np.ndarray]]:
    """Retrieval of each item's own among the distinct pictures: by its metric's name a key and values [N].

    picture [N]; real [N, D'], CLIP's embeddings of the pictures; embedding [N, D'], of the items' EEG. Of so many
    `ways` as there are pictures at least. Beside them `retrieved`, which has no key: the nearest picture, -1 for a tie.
    """
    distinct = np.unique(picture)
    found = {name: (_of_all(k, len(distinct)), _among(picture, real, embedding, lambda own, other, k=k: (
        metrics.retrieval_topk(other, own, min(k, len(own)))))) for name, k in RETRIEVAL.items()}
    for n in ways:
        if n <= len(distinct):
            found[f"retrieval_{n}way"] = f"{n} of {_count(len(distinct), 'picture')}", _among(
                picture, real, embedding, lambda own, other, n=n: metrics.retrieval_topk(other, own, 1, n))
    place = _among(picture, real, embedding, lambda own, other: metrics.nearest(other, own)).astype(np.int64)
    return {**found, "retrieved": ("", np.where(place < 0, -1, distinct[place]))}


def _of_all(k: int, pictures: int) -> str:
    return f"top {min(k, pictures)} of {_count(pictures, 'picture')}"


def _summary(pairs: Pairs, networks: Networks, seen: _Seen, rows: pd.DataFrame, reference: np.ndarray | None,
             classes: Classes, wanted: Sequence[str] | None) -> pd.DataFrame:
    """The rows of metrics.csv. `key` holds what a number cannot be read without."""
    n, sources = len(pairs.item), _sources(networks)
    keys = _keys(pairs, networks, seen, classes)
    table = [(name, key, rows[name].mean()) for name, key in keys.items() if name in rows]
    if pairs.label is not None and networks.judge and is_wanted("top1_real", wanted):
        table.append(("top1_real", keys["top1_label"], (rows["judged_real"] == rows["label"]).mean()))
    if networks.sets:
        table += _sets(networks.sets.name, seen, reference, pairs, wanted)
    fit = f"{RESIZED} to {{0}}x{{0}}"
    lines = []
    for name, key, value in table:
        source = sources.get(name)
        fitted = source is not None and source.name in seen.fitted
        if fitted:
            key = f"{key}, {fit.format(source.size)}"
        if not source and seen.resized:
            key = f"{key}, {RESIZED} to the reference's size"
        literal = source and source.comparable and not (fitted and name in (*SETS, "fid_64"))
        of = (source.name, source.sha256, int(literal)) if source else ("", "", 1)  # FID's own resize is another
        if name == "lpips":
            of = ("lpips/alex", networks.lpips[1], 1)
        lines.append((name, key, value, n, *of))
    return pd.DataFrame(lines, columns=list(schema.METRICS)).sort_values(["metric", "key"], ignore_index=True)


def _sources(networks: Networks) -> dict[str, Extractor]:
    """The network that each metric is of."""
    found = {name: e for e in networks.all() for name in e.metrics}
    if networks.judge:
        found |= dict.fromkeys((*BY_LABEL, *BY_SETS, *BY_JUDGE, "judge_distance"), networks.judge)
    if networks.sets:
        found |= dict.fromkeys((*SETS, "fid_64"), networks.sets)
    return found | {name: e for e in networks.others if "clip_similarity" in e.metrics for name in RETRIEVAL}


def _keys(pairs: Pairs, networks: Networks, seen: _Seen, classes: Classes) -> dict[str, str]:
    pictures, nway = len(np.unique(pairs.picture)), classes.nway
    keys = {name: key for name, (_, key, _) in PIXELS.items()} | {"lpips": "v0.1"}
    if networks.judge:
        total = seen.real[networks.judge.name, "logits"].shape[1]
        for target in ("label", "judge"):
            keys |= {f"top1_{target}": f"{total} classes", f"nway_{target}": f"{nway} of {total}",
                     f"nway_top5_{target}": f"top {min(5, nway)}, {nway} of {total}"}
        if pairs.label is not None:
            shown = len(np.unique(pairs.label))
            for target in ("label", "judge"):
                keys |= {f"{name}_{target}": key for name, (_, key) in classes.sets(pairs.label).items()}
                keys[f"nway_shown_{target}"] = f"{min(nway, shown)} of {shown} shown classes"
        keys["judge_distance"] = _count(seen.maps, "layer")
    for extractor in networks.all():
        for name, vector in extractor.metrics.items():
            dimensions = _count(seen.real[extractor.name, vector].shape[1], "dimension")
            among = f", among {_count(pictures, 'picture')}" if name.startswith("two_way_") else ""
            keys[name] = dimensions + among
    return keys | {name: _of_all(k, pictures) for name, k in RETRIEVAL.items()}


def _sets(network: str, seen: _Seen, reference: np.ndarray | None, pairs: Pairs,
          wanted: Sequence[str] | None) -> Iterator[tuple[str, str, float]]:
    """FID and its like: one sample of each item at a time, averaged over the sample's index."""
    distinct = np.unique(pairs.picture, return_index=True)[1]
    if reference is None:
        reference = seen.real[network, "features"][distinct]
    n, m, averaged = len(pairs.item), len(reference), f"averaged over {_count(pairs.samples, 'sample')}"
    of = {name: seen.generated[network, name].swapaxes(0, 1) for name in ("features", "logits")}
    size, sizes, scores = min(SUBSET_SIZE, n, m), f"N={n}, reference={m}", f"N={n}, {_count(SPLITS, 'split')}"
    functions: dict[str, tuple[str, str, Callable[[np.ndarray], float]]] = {
        "fid": ("features", sizes, lambda x: metrics.frechet_distance(x, reference)),
        "fid_torchmetrics": ("features", sizes, lambda x: fid_torchmetrics(x, reference)),
        "fid_infinity": ("features", sizes, lambda x: metrics.frechet_distance_infinity(x, reference, fixed_rng())),
        "kid": ("features", f"{sizes}, {SUBSETS} subsets of {size}",
                lambda x: metrics.kernel_distance(x, reference, size, SUBSETS, fixed_rng())[0]),
        "is": ("logits", scores, lambda x: metrics.inception_score(x, SPLITS, fixed_rng())[0]),
        "is_torchmetrics": ("logits", scores, lambda x: inception_score_torchmetrics(x, SPLITS)),
    }
    if (network, "features64") in seen.real:
        of["features64"] = seen.generated[network, "features64"].swapaxes(0, 1)
        few = seen.real[network, "features64"][distinct]
        functions["fid_64"] = ("features64", sizes, lambda x: metrics.frechet_distance(x, few))
    if min(n, m) <= 2 * reference.shape[1]:  # its bias is no line there
        del functions["fid_infinity"]
    for name, (vector, key, function) in functions.items():
        if is_wanted(name, wanted):
            yield name, f"{key}, {averaged}", float(np.mean([function(sample) for sample in of[vector]]))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
