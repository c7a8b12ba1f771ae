"""Makes every number of a Score: images against reference images, for scoring stages and for `bench score` alike.

`_Measurement.look` reads the images one item at a time and keeps their features and pixel metrics, never their pixels;
`rows` makes a value for each item and sample, `summary` makes metrics.csv. To add a metric, add its function and its
entry in DEFINITIONS (bench/metrics.py), and then

    a metric of image pairs       to PIXELS
    a similarity of features      to the `metrics` of its network (models/extractors.py) and to `_similarity`
    an accuracy of the judge      to `_accuracies`, `_keys` and BY_JUDGE or BY_LABEL
    a metric of the whole set     to `_set_metrics` and SETS; with an interval, its influence to INFLUENCE
    a metric by neighbours        to neighbours.py
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from bench import images, metrics
from bench.errors import BenchError, count_of
from bench.runtime import MicroBatches, ignore
from bench.scoring import neighbours, schema, sets
from bench.scoring.identity import Identity
from bench.scoring.networks import Networks, fit_image
from bench.scoring.retrieval import RETRIEVAL, among_distinct, retrieve, top_key
from models.extractors import Extractor

BATCH = 50
RESIZED = "Pillow bicubic"
Array = np.ndarray
PIXELS = {  # metric: function, key, smallest side
    "psnr": (metrics.psnr, "range 255", 1),
    "ssim": (metrics.ssim, "Gaussian 11x11, sigma 1.5", 11),
    "ssim_released": (metrics.ssim_released, "uniform 7x7, sample covariance", 7),
    "pixcorr": (metrics.pixcorr, "RGB", 1),
}
INFLUENCE: dict[str, Callable[[Array, Array], Array]] = {  # of an image on a metric of the set: (made, reference)
    "fid": metrics.frechet_influence,
    "is": lambda logits, _: metrics.inception_influence(logits),  # of one split: sets.SPLITS is 1
}
BY_JUDGE = ("top1_judge", "nway_judge", "nway_top5_judge")
BY_LABEL = ("top1_label", "nway_label", "nway_top5_label", "top1_shown_label", "nway_shown_label", "top1_shown_judge",
            "nway_shown_judge", "top1_real")  # these need labels, which tell the shown classes
BY_SETS = ("top1_fixed_label", "top1_fixed_judge", "nway_hard_label", "nway_hard_judge")  # these need `Classes` sets


@dataclass(frozen=True, eq=False)
class Pairs:
    """N items and the images generated for each; real(row) and generated(row, sample) return [H, W, 3] uint8. Items
    that show the same image have the same `picture`; None: unknown. Real images of equal content always count as the
    same image. Without `picture`, FID and KID compare with all N real images. label: the judge's class number."""

    item: Array
    subject: Array
    picture: Array | None
    label: Array | None
    samples: int
    real: Callable[[int], Array]
    generated: Callable[[int, int], Array]


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes that compete with a target: any `nway` - 1 of the judge's K, a fixed set, or the hardest ones. hard
    [K, K - 1]: `metrics.hard_distractors`."""

    nway: int
    fixed: Sequence[int] = ()
    hard: Array | None = None

    def sets(self, label: Array) -> dict[str, tuple[Array, str]]:
        """Returns for labels [N]: metric -> its classes, [S] or [N, S], and its key."""
        shown = np.unique(label)
        result: dict[str, tuple[Array, str]] = {"top1_shown": (shown, f"{len(shown)} shown classes")}
        if len(self.fixed):
            result["top1_fixed"] = np.asarray(self.fixed), f"{len(self.fixed)} fixed classes"
        if self.hard is not None:
            hardest = np.column_stack([label, self.hard[label][:, :self.nway - 1]])
            result["nway_hard"] = hardest, f"{self.nway} of {len(self.hard)}, the hardest"
        return result


@dataclass(frozen=True, eq=False)
class Measured:
    """rows: one for each item and sample. summary: one for each metric, columns schema.METRICS. pictures: how many
    different images the items show."""

    rows: pd.DataFrame
    summary: pd.DataFrame
    pictures: int


def measure(pairs: Pairs, networks: Networks, classes: Classes, wanted: Sequence[str] | None = None,
            reference: Array | None = None, embedding: Array | None = None, device: str = "cpu",
            progress: Callable[..., None] = ignore, training: Mapping[str, Array] | None = None,
            note: Callable[..., None] = ignore) -> Measured:
    """Measures the `wanted` metrics, or all that the networks allow.

    reference: features [M, F] of real images for FID and KID; None: those of the items' own images. embedding: [N, D'],
    each item's EEG in the space of the CLIP among the networks. training: `neighbours.extract_features` of the training
    images; None: no metric of memorisation. Samples of one item are not independent images: FID, KID, IS, precision,
    recall, density and coverage take one sample of each item, and are averaged over the sample's index. note: as in
    `MicroBatches`: memory errors divide the batches of the networks.
    """
    measurement = _Measurement(pairs, networks, classes, wanted, device, note)
    with threadpool_limits(1, user_api="blas"):  # NumPy's products; torch has its own number of threads
        measurement.look(progress)
    with threadpool_limits(1):
        if training:
            measurement.compare_training(training)
        measurement.compare_sets(reference)
        rows = measurement.rows(embedding)
        return Measured(rows, measurement.summary(rows), len(np.unique(measurement.picture)))


def is_wanted(name: str, wanted: Sequence[str] | None) -> bool:
    """Whether a metric is to be measured."""
    return wanted is None or name in wanted


@dataclass(eq=False)
class _Measurement:
    """The features and pixel metrics of all images, and what is computed from them."""

    pairs: Pairs
    networks: Networks
    classes: Classes
    wanted: Sequence[str] | None
    device: str
    note: Callable[..., None] = ignore
    real: dict[tuple[str, str], Array] = field(default_factory=dict)  # (network, vector) -> [N, D]
    generated: dict[tuple[str, str], Array] = field(default_factory=dict)  # (network, vector) -> [N, samples, D]
    pixels: dict[str, Array] = field(default_factory=dict)  # metrics of image pairs [N, samples]
    memorisation: neighbours.Memorisation = field(default_factory=neighbours.Memorisation)
    totals: list[tuple[str, str, float]] = field(default_factory=list)  # of the set: name, key, value
    pseudo: dict[str, Array] = field(default_factory=dict)  # pseudo-values [N, samples] of metrics of the set
    layers: int = 0  # of the judge's distance
    resized: bool = False  # whether an image was resized to its reference
    fitted: set[str] = field(default_factory=set)  # networks for which an image was resized
    picture: Array = field(init=False)  # [N], the identity of each item's image
    parts: dict[str, MicroBatches] = field(init=False)  # of each network

    def __post_init__(self) -> None:
        self.parts = defaultdict(lambda: MicroBatches(self.device, self.note))

    @torch.inference_mode()
    def look(self, progress: Callable[..., None]) -> None:
        """Reads all images, and computes their features and pixel metrics."""
        pairs, networks, n = self.pairs, self.networks.all(), len(self.pairs.item)
        pixels = {name: function for name, (function, _, _) in PIXELS.items() if is_wanted(name, self.wanted)}
        if self.networks.lpips:
            pixels["lpips"] = self._lpips
        for name in pixels:
            self.pixels[name] = np.empty((n, pairs.samples))
        identity = Identity()
        self.picture = np.arange(n) if pairs.picture is None else pairs.picture.copy()
        for start in range(0, n, BATCH):
            rows = range(start, min(start + BATCH, n))
            fitted: list[list[list[Array]]] = [[[] for _ in range(1 + pairs.samples)] for _ in networks]
            for row in rows:
                shown = [pairs.real(row), *(pairs.generated(row, sample) for sample in range(pairs.samples))]
                self.picture[row] = identity.find(shown[0], int(self.picture[row]))
                for network, columns in zip(networks, fitted, strict=True):
                    for column, image in zip(columns, shown, strict=True):
                        column.append(fit_image(network, image))
                        if column[-1] is not image:
                            self.fitted.add(network.name)
                if pixels:
                    same_size = np.stack([images.resize(image, shown[0].shape[:2]) for image in shown[1:]])
                    self.resized |= any(image.shape != shown[0].shape for image in shown)
                    for name, function in pixels.items():
                        self.pixels[name][row] = function(shown[0][None], same_size)
            for network, columns in zip(networks, fitted, strict=True):
                self._extract(network, columns, rows)
            progress(rows[-1] + 1, n)

    def _lpips(self, a: Array, b: Array) -> Array:
        assert self.networks.lpips is not None
        network, repeated = self.networks.lpips[0], np.repeat(a, len(b), 0)

        def compare(rows: slice) -> Array:
            both = (images.as_images(each[rows], self.device) for each in (repeated, b))
            return network(*both).cpu().numpy()

        return np.concatenate(self.parts["lpips"].run(compare, len(b)))

    def _extract(self, network: Extractor, columns: list[list[Array]], rows: range) -> None:
        """Runs a network on a batch of real images (column 0) and of each sample, and keeps the vectors."""
        n, samples, real_maps = len(self.pairs.item), len(columns) - 1, []
        for column, batch in enumerate(columns):
            full = np.stack(batch)[np.arange(BATCH) % len(batch)]  # always BATCH images: rounding depends on the size
            result = neighbours.look(network, full, self.device, self.parts[network.name])
            for name, vectors in result.vectors.items():
                kept, key = vectors.float().cpu().numpy()[:len(rows)], (network.name, name)
                if column == 0:
                    self.real.setdefault(key, np.empty((n, kept.shape[1]), np.float32))[rows] = kept
                else:
                    self.generated.setdefault(key, np.empty((n, samples, kept.shape[1]), np.float32))[
                        rows, column - 1] = kept
            if network is self.networks.judge and result.maps:
                maps = [layer.float().cpu().numpy()[:len(rows)] for layer in result.maps]
                real_maps = real_maps or maps
                if column:
                    distance = self.pixels.setdefault("judge_distance", np.empty((n, samples)))
                    distance[rows, column - 1] = metrics.judge_distance(real_maps, maps)
                self.layers = len(maps)

    def compare_training(self, training: Mapping[str, Array]) -> None:
        """Measures memorisation. training: space -> features [M, D] of the training images."""
        keys = {space: (e.name, vector) for space, (e, vector) in neighbours.find_spaces(self.networks).items()}
        self.memorisation = neighbours.measure_memorisation(
            *({space: features[key] for space, key in keys.items()} for features in (self.generated, self.real)),
            training, self.picture)

    def compare_sets(self, reference: Array | None) -> None:
        """Measures the metrics of the whole set."""
        if self.networks.sets:
            self.totals = list(self._set_metrics(self.networks.sets.name, reference))
        self.totals += sets.frechet_distances(self.networks.others, self.real, self.generated, self.picture)

    def rows(self, embedding: Array | None) -> pd.DataFrame:
        """Returns a row for each item and sample; of FID and IS its pseudo-value, the mean of which is the metric.
        judged, judged_real: the judge's class of the two images. Two-way
        identification is left out if all items show one image; where `picture` is given, that is a BenchError."""
        pairs, judge, picture = self.pairs, self.networks.judge, self.picture
        is_one_image = len(np.unique(picture)) == 1
        once: dict[str, Any] = {"item": pairs.item, "subject": pairs.subject,
                                "picture": picture if pairs.picture is None else pairs.picture}
        if pairs.label is not None:
            once["label"] = pairs.label
        if judge:
            once["judged_real"] = self.real[judge.name, "logits"].argmax(1)
        clip = next((e for e in self.networks.others if "clip_similarity" in e.metrics), None)
        if embedding is not None and clip:
            known = self.real[clip.name, "embedding"].shape[1]
            if embedding.shape[1] != known:
                raise BenchError(f"the EEG's embeddings have {embedding.shape[1]} dimensions, those of {clip.name} "
                                 f"{known}; a system must embed into the CLIP space of the scale")
            once |= {name: retrieve(picture, self.real[clip.name, "embedding"], embedding, k)
                     for name, k in RETRIEVAL.items() if is_wanted(name, self.wanted)}
        samples = []
        for sample in range(pairs.samples):
            row = {**once, "sample": sample}
            if judge:
                logits = self.generated[judge.name, "logits"][:, sample]
                row |= {"judged": logits.argmax(1),
                        **_accuracies(logits, self.real[judge.name, "logits"], pairs.label, self.classes)}
            row |= {name: values[:, sample] for name, values in (
                self.pixels | self.memorisation.values | self.pseudo).items()}
            for network in self.networks.all():
                for name, vector in network.metrics.items():
                    if not is_wanted(name, self.wanted) or name in sets.FRECHET:
                        continue
                    if is_one_image and name.startswith("two_way_"):
                        if pairs.picture is None:
                            continue
                        raise BenchError("all items show one image; two-way identification needs two or more: test on "
                                         "trials of more images")
                    key = network.name, vector
                    row[name] = _similarity(name, self.real[key], self.generated[key][:, sample], picture)
            samples.append(pd.DataFrame(row))
        rows = pd.concat(samples).sort_values(["item", "sample"], ignore_index=True)
        about = ["item", "sample", "subject", "picture", "label", "judged_real", "judged"]
        values = [name for name in rows if name not in about and is_wanted(name, self.wanted)]
        return rows[[name for name in about if name in rows] + values]

    def summary(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Returns the rows of metrics.csv. `key`: the parameters without which a number cannot be read."""
        n, sources, keys, judge = len(self.pairs.item), self._sources(), self._keys(), self.networks.judge
        table = [(name, key, rows[name].mean()) for name, key in keys.items() if name in rows]
        if self.pairs.label is not None and judge and is_wanted("top1_real", self.wanted):
            table.append(("top1_real", keys["top1_label"], (rows["judged_real"] == rows["label"]).mean()))
        table += [(name, self.memorisation.keys[name], value) for name, value in self.memorisation.totals.items()
                  if is_wanted(name, self.wanted)]
        table += self.totals
        lines = []
        for name, key, value in table:
            source = sources.get(name)
            is_fitted = source is not None and source.name in self.fitted
            if is_fitted:
                key = f"{key}, {source.crop or f'{RESIZED} to {source.size}x{source.size}'}"
            elif not source and self.resized:
                key = f"{key}, {RESIZED} to the reference's size"
            # FID in the literature resizes with another filter
            is_comparable = source and source.comparable and not (
                is_fitted and name in (*sets.SETS, *sets.FRECHET, "fid_64"))
            is_comparable = is_comparable and name not in neighbours.OTHER_NETWORKS
            origin = (source.name, source.sha256, int(is_comparable)) if source else ("", "", 1)
            if name == "lpips":
                origin = ("lpips/alex", self.networks.lpips[1], 1)
            lines.append((name, key, value, n, *origin))
        return pd.DataFrame(lines, columns=list(schema.METRICS)).sort_values(["metric", "key"], ignore_index=True)

    def _sources(self) -> dict[str, Extractor]:
        """Returns the network of each metric."""
        judge, set_network = self.networks.judge, self.networks.sets
        result = {name: e for e in self.networks.all() for name in e.metrics}
        if judge:
            result |= dict.fromkeys((*BY_LABEL, *BY_SETS, *BY_JUDGE, "judge_distance"), judge)
        if set_network:
            result |= dict.fromkeys((*sets.SETS, "fid_64", *neighbours.MANIFOLD), set_network)
        for space, (e, _) in neighbours.find_spaces(self.networks).items():
            result |= {name: e for name in neighbours.MEMORISATION if name.endswith(space)}
        return result | {name: e for e in self.networks.others if "clip_similarity" in e.metrics for name in RETRIEVAL}

    def _keys(self) -> dict[str, str]:
        """Returns the key of each metric that has a value for each item."""
        label, judge, nway = self.pairs.label, self.networks.judge, self.classes.nway
        pictures = len(np.unique(self.picture))
        keys = {name: key for name, (_, key, _) in PIXELS.items()} | {"lpips": "v0.1"}
        for target in ("label", "judge") if judge else ():
            total = self.real[judge.name, "logits"].shape[1]
            keys |= {f"top1_{target}": f"{total} classes", f"nway_{target}": f"{nway} of {total}",
                     f"nway_top5_{target}": f"top {min(5, nway)}, {nway} of {total}"}
            if label is not None:
                shown = len(np.unique(label))
                keys |= {f"{name}_{target}": key for name, (_, key) in self.classes.sets(label).items()}
                keys[f"nway_shown_{target}"] = f"{min(nway, shown)} of {shown} shown classes"
        keys["judge_distance"] = count_of(self.layers, "layer")
        for network in self.networks.all():
            for name, vector in network.metrics.items():
                keys[name] = count_of(self.real[network.name, vector].shape[1], "dimension")
                keys[name] += f", among {count_of(pictures, 'picture')}" if name.startswith("two_way_") else ""
        return keys | self.memorisation.keys | {name: top_key(k, pictures) for name, k in RETRIEVAL.items()}

    def _set_metrics(self, network: str, reference: Array | None) -> Iterator[tuple[str, str, float]]:
        """Yields name, key and value of each metric of one sample of each item, averaged over the samples."""
        pairs, distinct = self.pairs, np.arange(len(self.pairs.item))
        if pairs.picture is not None:
            distinct = np.unique(self.picture, return_index=True)[1]
        if reference is None:
            reference = self.real[network, "features"][distinct]
        n, m, averaged = len(pairs.item), len(reference), f"averaged over {count_of(pairs.samples, 'sample')}"
        size, sizes = min(sets.SUBSET_SIZE, n, m), f"N={n}, reference={m}"
        splits = f"N={n}, {count_of(sets.SPLITS, 'split')}"
        functions: dict[str, tuple[str, str, Callable[[Array], float]]] = {
            "fid": ("features", sizes, lambda x: metrics.frechet_distance(x, reference)),
            "fid_torchmetrics": ("features", sizes, lambda x: sets.fid_torchmetrics(x, reference)),
            "fid_infinity": ("features", sizes,
                             lambda x: metrics.frechet_distance_infinity(x, reference, sets.fixed_rng())),
            "kid": ("features", f"{sizes}, {sets.SUBSETS} subsets of {size}",
                    lambda x: metrics.kernel_distance(x, reference, size, sets.SUBSETS, sets.fixed_rng())[0]),
            "is": ("logits", splits, lambda x: metrics.inception_score(x, sets.SPLITS, sets.fixed_rng())[0]),
            "is_torchmetrics": ("logits", splits, lambda x: sets.inception_score_torchmetrics(x, sets.SPLITS)),
        }
        if (network, "features64") in self.real:
            few = self.real[network, "features64"][distinct]
            functions["fid_64"] = ("features64", sizes, lambda x: metrics.frechet_distance(x, few))
        if min(n, m) <= 2 * reference.shape[1]:  # its bias is not linear in 1/N
            del functions["fid_infinity"]
        for name, (vector, key, function) in functions.items():
            if is_wanted(name, self.wanted):
                made = list(self.generated[network, vector].swapaxes(0, 1))
                values = [function(sample) for sample in made]
                if name in INFLUENCE:
                    self.pseudo[name] = np.stack([value + INFLUENCE[name](sample, reference)
                                                  for value, sample in zip(values, made, strict=True)], 1)
                yield name, f"{key}, {averaged}", float(np.mean(values))
        different = np.unique(self.picture, return_index=True)[1]
        yield from neighbours.measure_manifold(
            self.generated[network, "features"], self.real[network, "features"][different], self.wanted)


def _accuracies(logits: Array, real: Array, label: Array | None, classes: Classes) -> dict[str, Array]:
    """Returns accuracies [N] of logits [N, K]; targets: the label, and the judge's class of the real image."""
    targets = {"judge": real.argmax(1)} | ({"label": label} if label is not None else {})
    result, nway = {}, classes.nway
    for name, target in targets.items():
        result |= {f"top1_{name}": metrics.top1(logits, target),
                   f"nway_{name}": metrics.nway_accuracy(logits, target, nway),
                   f"nway_top5_{name}": metrics.nway_accuracy(logits, target, nway, min(5, nway))}
    if label is not None:
        for metric, (few, _) in classes.sets(label).items():
            real_class = metrics.among(real, label, few)[0].argmax(1)
            few_logits, few_label = metrics.among(logits, label, few)
            for name, target in {"label": few_label, "judge": real_class}.items():
                result[f"{metric}_{name}"] = metrics.top1(few_logits, target)
                if metric == "top1_shown":
                    n = min(nway, few_logits.shape[1])
                    result[f"nway_shown_{name}"] = metrics.nway_accuracy(few_logits, target, n)
    return result


def _similarity(name: str, real: Array, generated: Array, picture: Array) -> Array:
    """Returns the metric [N] of features [N, D] that its name stands for."""
    if name.startswith("two_way_"):
        return among_distinct(picture, real, generated, lambda gallery, made: metrics.two_way_identification(
            gallery, made, np.arange(len(gallery))))
    return (metrics.correlation_distance if name.startswith("correlation_") else metrics.cosine_similarity)(
        real, generated)
