"""Measures pictures against the real ones, whoever made them: the one path of scoring stages and of `bench score`.

Pictures are read one item at a time; what is kept of each is its features and its metrics, never its pixels.
"""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from bench import gallery, metrics, results
from bench.errors import ENVIRONMENT, BenchError
from bench.files import sha256
from bench.runtime import silent
from bench.scale import TINY
from bench.train.loop import exact
from bench.train.targets import as_images
from models import extractors
from models.extractors import Extractor
from models.frozen import TIMM_WEIGHTS, BadWeights, MissingWeights

BATCH = 50
SPLITS = 1  # of the inception score: ten, as is usual for 50,000 pictures, would leave a few dozen in each
SUBSETS, SUBSET_SIZE = 100, 1000  # of KID: of 1,000 pictures each, or of all where there are fewer
NWAY = 50  # n of a judge that is not the shipped one (Sec. 4.3)
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
SETS = ("fid", "fid_torchmetrics", "fid_infinity", "kid", "is", "is_torchmetrics")
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
class Networks:
    """What looks at the pictures. `judge` gives classes, `sets` what FID and its like are of, `others` the rest.

    lpips: a function of two batches in [-1, 1], and its backbone's SHA-256.
    """

    judge: Extractor | None = None
    sets: Extractor | None = None
    others: Sequence[Extractor] = ()
    lpips: tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], str] | None = None

    def all(self) -> list[Extractor]:
        """Each once."""
        return list(dict.fromkeys(e for e in (self.judge, self.sets, *self.others) if e is not None))


@dataclass(frozen=True, eq=False)
class Measured:
    """rows: one for each item and sample. summary: one for each metric, columns results.METRICS."""

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
    pixels = {name: function for name, (function, _, _) in PIXELS.items() if _want(name, wanted)}
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
                    column.append(gallery.resize(picture, (extractor.size, extractor.size)))
                    if column[-1] is not picture:
                        seen.fitted.add(extractor.name)
            if pixels:
                same = np.stack([gallery.resize(picture, shown[0].shape[:2]) for picture in shown[1:]])
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


def _want(name: str, wanted: Sequence[str] | None) -> bool:
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
        if embedding is not None and clip and _want(name, wanted):
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
                if _want(name, wanted):
                    key = extractor.name, vector
                    row[name] = _likeness(name, seen.real[key], seen.generated[key][:, sample], pairs.picture)
        samples.append(pd.DataFrame(row))
    rows = pd.concat(samples).sort_values(["item", "sample"], ignore_index=True)
    about = ["item", "sample", "subject", "picture", "label", "judged_real", "judged"]
    values = [name for name in rows if name not in about and _want(name, wanted)]
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
    if pairs.label is not None and networks.judge and _want("top1_real", wanted):
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
    return pd.DataFrame(lines, columns=list(results.METRICS)).sort_values(["metric", "key"], ignore_index=True)


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
        "fid_infinity": ("features", sizes, lambda x: metrics.frechet_distance_infinity(x, reference, _rng())),
        "kid": ("features", f"{sizes}, {SUBSETS} subsets of {size}",
                lambda x: metrics.kernel_distance(x, reference, size, SUBSETS, _rng())[0]),
        "is": ("logits", scores, lambda x: metrics.inception_score(x, SPLITS, _rng())[0]),
        "is_torchmetrics": ("logits", scores, lambda x: inception_score_torchmetrics(x, SPLITS)),
    }
    if (network, "features64") in seen.real:
        of["features64"] = seen.generated[network, "features64"].swapaxes(0, 1)
        few = seen.real[network, "features64"][distinct]
        functions["fid_64"] = ("features64", sizes, lambda x: metrics.frechet_distance(x, few))
    if min(n, m) <= 2 * reference.shape[1]:  # its bias is no line there
        del functions["fid_infinity"]
    for name, (vector, key, function) in functions.items():
        if _want(name, wanted):
            yield name, f"{key}, {averaged}", float(np.mean([function(sample) for sample in of[vector]]))


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


class _Cached(nn.Identity):
    """In a feature extractor's place where the features are there already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


def fid_torchmetrics(features: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance of two sets of features [N, F] and [M, F], in float64, by torchmetrics."""
    distance = FrechetInceptionDistance(feature=_Cached(features.shape[1])).set_dtype(torch.float64)
    distance.update(torch.from_numpy(reference.astype(np.float64)), real=True)
    distance.update(torch.from_numpy(features.astype(np.float64)), real=False)
    return float(distance.compute())


def inception_score_torchmetrics(logits: np.ndarray, splits: int) -> float:
    """exp E KL(p(y|x) || p(y)) of logits [N, K], in float64, by torchmetrics; its shuffling is always the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `InceptionScore` will save all extracted features")
        value = InceptionScore(feature=_Cached(logits.shape[1]), splits=splits).set_dtype(torch.float64)
    value.update(torch.from_numpy(logits.astype(np.float64)))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"std\(\): degrees of freedom")
        torch.manual_seed(0)
        return float(value.compute()[0])


@contextmanager
def weights_present() -> Iterator[None]:
    """Turns missing or wrong weights into BenchError (exit 3)."""
    try:
        yield
    except (MissingWeights, BadWeights) as error:
        raise BenchError(str(error), ENVIRONMENT) from error


def backbone(net: str) -> Path:
    """Where LPIPS's pre-trained backbone lies. Raises BenchError (exit 3) when it is not there or is another file."""
    if net not in (backbones := ("alex", "vgg", "squeeze")):
        raise BenchError(f"no LPIPS backbone {net!r}; there are: {', '.join(backbones)}")
    with weights_present():
        return extractors.weights(net)[0]


@torch.inference_mode()
def lpips_distance(a: np.ndarray, b: np.ndarray, net: str = "alex", device: str = "cpu") -> np.ndarray:
    """LPIPS (v0.1) [N] of pictures [N, H, W, 3] uint8. Never downloads; errors as `backbone`."""
    backbone(net)
    distance, _ = extractors.perceptual(net, device)
    batches = [slice(start, start + BATCH) for start in range(0, len(a), BATCH)]
    return torch.cat([distance(as_images(a[rows], device), as_images(b[rows], device)) for rows in batches]
                     ).double().cpu().numpy()


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `bench score` found of a folder. `about`: the columns of a results CSV that say whose numbers these are."""

    summary: pd.DataFrame
    about: Mapping[str, Any]

    def text(self) -> str:
        """A plain table for a terminal."""
        table = self.summary.assign(value=[f"{value:.4g}" for value in self.summary["value"]],
                                    comparable=np.where(self.summary["comparable"] == 1, "yes", "no"))
        table = table[["metric", "value", "n", "extractor", "comparable", "key"]]
        cells = [list(table), *table.astype(str).to_numpy().tolist()]
        widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                         for row in cells)

    def csv(self) -> bytes:
        """Rows that `bench table FILE.csv` reads: results.COLUMNS."""
        return results.csv_bytes(self.summary.assign(schema=results.SCHEMA, **self.about)[list(results.COLUMNS)])

    def json(self) -> bytes:
        """The same for programs; a value that is infinite is the text "inf"."""
        rows = [{**row, "value": row["value"] if np.isfinite(row["value"]) else str(row["value"])}
                for row in self.summary.to_dict("records")]
        about = {name: value for name, value in self.about.items() if value != ""}
        return (json.dumps({"schema": results.SCHEMA, **about, "metrics": rows}, indent=1) + "\n").encode()


def compare(generated: Path, reference: Path, labels: Path | None = None, wanted: Sequence[str] | None = None,
            judge: str = "tiny", device: str = "cpu", progress: Callable[..., None] = silent) -> Comparison:
    """Scores two folders (or arrays) of pictures that match by name (`gallery.pair`), with one thread.

    judge: "tiny" (the shipped one, and the shipped CLIP), "none", a file of the same kind, or a folder of timm's.
    labels: a CSV with columns name and label. Raises BenchError: exit 2 for bad input, 3 for weights that are not
    there.
    """
    torch.set_num_threads(1)
    exact()
    made, real = gallery.gallery(Path(generated)), gallery.gallery(Path(reference))
    rows = gallery.pair(made, real)
    if len(rows) < 2:
        raise BenchError(f"{reference} holds one picture; a comparison of folders needs two or more")
    with weights_present():
        networks, wanted = _networks(judge, wanted, labels is not None, device)
    _check_sizes(real, [name for name in PIXELS if _want(name, wanted)])
    classes = _classes(networks.judge, device)
    if labels is not None and not classes:
        raise BenchError("--labels needs a judge, which tells the classes; expected --judge tiny or a judge's file")
    label = gallery.read_labels(Path(labels), real.names, classes) if labels is not None else None
    every = np.arange(len(rows))
    pairs = Pairs(every, np.zeros_like(every), every, label, rows.shape[1], real.read,
                  lambda row, sample: made.read(rows[row, sample]))
    nway = TINY.nway if judge == "tiny" else min(NWAY, classes)
    measured = measure(pairs, networks, Classes(nway), wanted, device=device, progress=progress)
    name = networks.judge and f"{networks.judge.name}@{networks.judge.sha256[:12]}"
    path = Path(generated).resolve()
    about = dict.fromkeys(results.ABOUT, "") | {
        "ablation": "external", "variant": path.stem if path.is_file() else path.name, "seed": 0, "items": "real",
        "scale": "external", "judge": name or "", "numerics": f"{device}, float32, 1 thread", "versions": _versions()}
    return Comparison(measured.summary, about)


def _networks(judge: str, wanted: Sequence[str] | None, labelled: bool,
              device: str) -> tuple[Networks, Sequence[str]]:
    """The networks that `wanted` takes, or those of the judge where nothing is; and what is to be measured."""
    own: Extractor | None = None
    others = []
    if judge == "tiny":
        part, clip = TINY.weights("judge"), TINY.weights("clip")
        own = extractors.judge(part.path, part.sha256, part.name, device)
        others.append(extractors.clip(clip.path, clip.sha256, clip.name, device))
    elif judge != "none":
        weights = Path(judge) / TIMM_WEIGHTS if Path(judge).is_dir() else Path(judge)
        if not weights.is_file():
            raise BenchError(f"no judge {judge!r}; expected tiny, none, or the file of a judge, or a folder of timm's "
                             f"(config.json, {TIMM_WEIGHTS})")
        own = extractors.judge(judge, sha256(weights), Path(judge).stem, device)
    offered = {*PIXELS, *(name for e in others for name in e.metrics)}
    if own:
        offered |= {*own.metrics, *BY_JUDGE, *SETS, "judge_distance", *(BY_LABEL if labelled else ())}
    if wanted is None:
        return Networks(own, own, others), sorted(offered)
    pinned = extractors.LITERATURE | ({} if own else dict.fromkeys((*SETS, "fid_64"), extractors.fid_inception))
    for name in wanted:
        if name not in metrics.DEFINITIONS:
            raise BenchError(f"no metric {name!r}; there are: {', '.join(sorted(metrics.DEFINITIONS))}")
        if name not in offered and name not in pinned and name != "lpips":
            raise BenchError(f"metric {name} {_unmet(name)}")
    made = {make: make(device) for make in dict.fromkeys(pinned[n] for n in wanted if n in pinned and n not in offered)}
    sets = own or made.pop(extractors.fid_inception, None)
    lpips = extractors.perceptual("alex", device) if "lpips" in wanted else None
    return Networks(own, sets, [*others, *made.values()], lpips), wanted


def _unmet(name: str) -> str:
    if name in BY_LABEL:
        return "needs a judge and --labels"
    if name in BY_SETS:
        return "needs sets of classes that only a data set of the suite has"
    if name == "fid_64":
        return "is of Inception-v3: it needs --judge none"
    of_the_judge = name.startswith(("two_way_", "correlation_", "judge_distance", *BY_JUDGE))
    return "needs --judge tiny" if of_the_judge else "cannot be measured from pictures alone"


def _classes(judge: Extractor | None, device: str) -> int:
    if judge is None:
        return 0
    with torch.inference_mode():
        blank = torch.zeros(1, 3, judge.size, judge.size, dtype=torch.uint8, device=device)
        return judge.look(blank).vectors["logits"].shape[1]


def _check_sizes(real: gallery.Gallery, pixels: Sequence[str]) -> None:
    for name in pixels:
        least = PIXELS[name][2]
        small = [picture for picture, size in zip(real.names, real.sizes, strict=True) if min(size) < least]
        if small:
            height, width = real.sizes[real.names.index(small[0])]
            raise BenchError(f"{len(small)} pictures of {real.path} are too small for {name}, which needs "
                             f"{least}x{least}: {gallery.listed(small)} ({width}x{height}); choose other --metrics")


def _versions() -> str:
    packages = ("torch", "torchmetrics", "timm", "open_clip_torch", "lpips", "pillow")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
