"""`bench score`: scores two folders of images, matched by name. The numbers are made in measure.py."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench import metrics
from bench.errors import BenchError, count_of, join_names
from bench.experiment.scale import TINY
from bench.runtime import ignore, use_exact_math
from bench.scoring import gallery, neighbours, schema
from bench.scoring.class_names import count_classes
from bench.scoring.identity import Identity
from bench.scoring.judges import open_judge
from bench.scoring.measure import (
    BATCH,
    BY_JUDGE,
    BY_LABEL,
    BY_SETS,
    PIXELS,
    Classes,
    Measured,
    Pairs,
    is_wanted,
    measure,
)
from bench.scoring.networks import Networks, weights_present
from bench.scoring.sets import SETS
from models import extractors
from models.extractors import Extractor

NWAY = 50  # n for any judge but the shipped one (Sec. 4.3)
NAMES = 5  # of files left out, for each reason, in the JSON


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result of `bench score`. about: the columns of a results CSV that identify the images and the setting.
    rows: a line for each image, as `measure.Measured`; notes: remarks on the input, such as what was left out; skipped:
    reason -> files left out."""

    summary: pd.DataFrame
    about: Mapping[str, Any]
    rows: pd.DataFrame
    notes: Sequence[str] = ()
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def text(self) -> str:
        """Returns a plain-text table, and the notes below it."""
        table = self.summary.assign(value=[f"{value:.4g}" for value in self.summary["value"]],
                                    comparable=np.where(self.summary["comparable"] == 1, "yes", "no"))
        table = table[["metric", "value", "n", "extractor", "comparable", "key"]]
        return "\n".join([*schema.align([[*map(str, table)], *table.astype(str).to_numpy().tolist()]), *self.notes])

    def csv(self) -> bytes:
        """Returns a CSV that `bench table FILE.csv` reads: schema.COLUMNS."""
        return schema.csv_bytes(self.summary.assign(schema=schema.SCHEMA, **self.about)[list(schema.COLUMNS)])

    def json(self) -> bytes:
        """Returns the same as JSON; an infinite value is the text "inf". skipped: how many files were left out for each
        reason; skipped_files: the first of them."""
        rows = [{**row, "value": row["value"] if np.isfinite(row["value"]) else str(row["value"])}
                for row in self.summary.to_dict("records")]
        about = {name: value for name, value in self.about.items() if value != ""}
        skipped = {"skipped": {reason: len(files) for reason, files in self.skipped.items()},
                   "skipped_files": {reason: list(files[:NAMES]) for reason, files in self.skipped.items()}}
        return (json.dumps({"schema": schema.SCHEMA, **about, "notes": list(self.notes), **skipped, "metrics": rows},
                           indent=1) + "\n").encode()


def compare(generated: Path, reference: Path, labels: Path | None = None, wanted: Sequence[str] | None = None,
            judge: str = "tiny", device: str = "cpu", progress: Callable[..., None] = ignore,
            train: Path | None = None, architecture: str = "", fit: str = "") -> Comparison:
    """Scores two folders or arrays of images that match by name (`gallery.pair`), with one thread. judge: "tiny" (the
    shipped judge and CLIP), "none", or a judge with its architecture and fit, as of `open_judge`. labels: a CSV with
    columns name and label. train: the training images, of any names, for the metrics of memorisation. Reference images
    of equal content are one image: they do not compete in two-way identification. Raises BenchError: exit 2 for invalid
    input, 3 for missing or wrong weights."""
    torch.set_num_threads(1)
    use_exact_math()
    made, real = gallery.open_gallery(generated), gallery.open_gallery(reference)
    rows = gallery.pair(made, real)
    if len(rows) < 2:
        raise BenchError(f"{reference} contains one image; expected two or more")
    with weights_present():
        networks, chosen, judge_notes = _networks(judge, wanted, labels is not None, train is not None, device,
                                                  architecture, fit)
    _check_sizes(real, [name for name in PIXELS if is_wanted(name, chosen)])
    classes = _count_classes(networks.judge, device)
    if labels is not None and not classes:
        raise BenchError("--labels needs a judge; expected --judge tiny or a judge's file")
    label = gallery.read_labels(labels, real.names, classes) if labels is not None else None
    known = _Known(gallery.open_gallery(train)) if train is not None else None
    every = np.arange(len(rows))
    pairs = Pairs(every, np.zeros_like(every), None, label, rows.shape[1],
                  known.watch(real.read) if known else real.read, lambda row, sample: made.read(rows[row, sample]))
    repeated: list[str] = []

    def note(event: str, parts: int) -> None:
        repeated.append(f"{event} ({parts} of a batch); numbers are equal to rounding")

    nway = TINY.nway if judge == "tiny" else min(NWAY, classes)
    try:
        training = known.extract(networks, device, progress, note) if known else None
        measured = measure(pairs, networks, Classes(nway), chosen, device=device, progress=progress, training=training,
                           note=note)
    except ValueError as error:  # such as NaN, which a network of damaged weights gives
        raise BenchError(f"{generated} cannot be scored with the judge {judge}: {error}; is it damaged?") from error
    notes = [*made.describe(), *real.describe(), *(known.describe() if known else ()), *judge_notes,
             *dict.fromkeys(repeated)]
    if networks.judge and networks.judge.classes:
        real_rows = measured.rows.drop_duplicates("item")
        shown = {"generated": measured.rows["judged"], "reference": real_rows["judged_real"]}
        notes += [f"judge {networks.judge.name}: {kind} images: {count_classes(list(judged), networks.judge.classes)}"
                  for kind, judged in shown.items()]
    if labels is not None and (unused := gallery.unused_labels(labels, real.names)):
        notes.append(f"left out of {labels}: {count_of(len(unused), 'label')} of no image ({join_names(unused)})")
    notes += _describe_repeats(measured, len(rows), reference, chosen, wanted is not None)
    notes += _describe_too_few(measured, chosen, wanted is not None)
    sides = (made, real, *([known.images] if known else ()))
    skipped = {reason: [f"{side.path}/{name}" for side in sides for name in side.skipped.get(reason, ())]
               for reason in sorted({reason for side in sides for reason in side.skipped})}
    path = generated.resolve()
    packages = ("torch", "torchmetrics", "timm", "open_clip_torch", "lpips", "pillow")
    return Comparison(measured.summary, dict.fromkeys(schema.ABOUT, "") | {
        "ablation": "external", "variant": path.stem if path.is_file() else path.name, "seed": 0, "items": "real",
        "scale": "external", "numerics": f"{device}, float32, 1 thread",
        "judge": f"{networks.judge.name}@{networks.judge.sha256[:12]}" if networks.judge else "",
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)},
        measured.rows, notes, skipped)


class _Known:
    """The training images of a comparison, and which reference images are equal to one of them."""

    def __init__(self, images: gallery.Gallery):
        self.images, self._identity, self._shared = images, Identity(), set[int]()

    def extract(self, networks: Networks, device: str, progress: Callable[..., None],
                note: Callable[..., None]) -> dict[str, np.ndarray]:
        """Returns the features of the training images by space, and remembers their content."""
        def read(row: int) -> np.ndarray:
            image = self.images.read(row)
            self._identity.find(image, row)
            return image

        return neighbours.extract_features(networks, len(self.images.names), read, BATCH, device, progress, note)

    def watch(self, read: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
        """Wraps the reading of reference images, so that those among the training images are counted."""
        def watched(row: int) -> np.ndarray:
            image = read(row)
            if self._identity.find(image, -1) >= 0:  # the number of a training image
                self._shared.add(row)
            return image

        return watched

    def describe(self) -> list[str]:
        """Returns lines for what was left out of the training images, and for reference images among them."""
        lines = self.images.describe()
        if self._shared:
            lines.append(f"{count_of(len(self._shared), 'reference image')} are among the training images of "
                         f"{self.images.path}: their distance to the nearest is 0, which lowers the baseline of "
                         "memorisation")
        return lines


def _describe_too_few(measured: Measured, chosen: Sequence[str], is_requested: bool) -> list[str]:
    """Returns a note for each kind of metric by neighbours that has too few images. Raises BenchError if one of them is
    requested."""
    left_out = [name for name in chosen if name in neighbours.OTHER_NETWORKS and name not in set(
        measured.summary["metric"])]
    needs = {neighbours.MANIFOLD: f"{neighbours.LEAST} or more different reference images, not {measured.pictures}",
             ("near_copies",): f"{neighbours.ONE_IN} or more different reference images, not {measured.pictures}",
             ("train_ratio",): "reference images most of which are not among the training images"}
    notes = [f"left out: {', '.join(names)}: expected {need}" for kind, need in needs.items()
             if (names := [name for name in left_out if name.startswith(kind)])]
    if notes and is_requested:
        raise BenchError(f"{notes[0].removeprefix('left out: ')}; choose other --metrics")
    return notes


def _describe_repeats(measured: Measured, n: int, reference: Path, chosen: Sequence[str],
                      is_requested: bool) -> list[str]:
    """Returns a note if reference images are repeated. Raises BenchError if a requested metric needs more images."""
    two_way = [name for name in chosen if name.startswith("two_way_")]
    if measured.pictures == n or not two_way:
        return []
    if measured.pictures > 1:
        return [f"the {n} images of {reference} show {measured.pictures} different ones: in two-way "
                f"identification, {measured.pictures - 1} others compete"]
    problem = f"the {n} images of {reference} are all the same; two-way identification needs two different images"
    if is_requested:
        raise BenchError(f"{problem}; choose other --metrics than {', '.join(two_way)}")
    return [f"left out: {', '.join(two_way)}: {problem}"]


def _networks(judge: str, wanted: Sequence[str] | None, has_labels: bool, has_training: bool, device: str,
              architecture: str, fit: str) -> tuple[Networks, Sequence[str], Sequence[str]]:
    """Loads the networks of the judge, and those that `wanted` needs besides; returns them, the metrics, and notes."""
    classifier: Extractor | None = None
    others: list[Extractor] = []
    notes: Sequence[str] = ()
    if judge in ("tiny", "none") and (architecture or fit):
        raise BenchError(f"--arch and --fit are for a judge of timm; leave them out with --judge {judge}")
    if judge == "tiny":
        part, clip = TINY.weights("judge"), TINY.weights("clip")
        classifier = extractors.judge(part.path, part.sha256, part.name, device)
        others.append(extractors.clip(clip.path, clip.sha256, clip.name, device))
    elif judge != "none":
        classifier, notes = open_judge(judge, device, architecture, fit)
    offered = {*PIXELS, *(name for e in others for name in e.metrics)}
    if classifier:
        offered |= {*classifier.metrics, *BY_JUDGE, *SETS, *neighbours.MANIFOLD, "judge_distance",
                    *(BY_LABEL if has_labels else ())}
    spaces = neighbours.find_spaces(Networks(classifier, others=others)) if has_training else ()
    offered |= {name for space in spaces for name in neighbours.MEMORISATION if name.endswith(f"_{space}")}
    if wanted is None:
        if has_training and not spaces:
            raise BenchError("--train needs a network; expected --judge tiny or a judge's file, or --metrics such as "
                             "train_distance_clip,copies_clip")
        return Networks(classifier, classifier, others), sorted(offered), notes
    if has_training and not set(wanted) & set(neighbours.MEMORISATION):
        raise BenchError(f"--train is used by none of --metrics; add one of {', '.join(neighbours.MEMORISATION)}")
    pinned = extractors.LITERATURE | ({} if classifier else dict.fromkeys(
        (*SETS, "fid_64", *neighbours.MANIFOLD), extractors.fid_inception))
    if has_training:
        pinned |= {name: extractors.open_clip_l14 for name in neighbours.MEMORISATION if name.endswith("_clip")}
    for name in wanted:
        if name not in metrics.DEFINITIONS:
            raise BenchError(f"no metric {name!r}; there are: {', '.join(sorted(metrics.DEFINITIONS))}")
        if name not in offered and name not in pinned and name != "lpips":
            raise BenchError(f"metric {name} {_describe_need(name)}")
    made = {make: make(device) for make in dict.fromkeys(pinned[n] for n in wanted if n in pinned and n not in offered)}
    sets = classifier or made.pop(extractors.fid_inception, None)
    lpips = extractors.perceptual("alex", device) if "lpips" in wanted else None
    return Networks(classifier, sets, [*others, *made.values()], lpips), wanted, notes


def _describe_need(name: str) -> str:
    if name in BY_LABEL:
        return "needs a judge and --labels"
    if name in neighbours.MEMORISATION:
        return "needs --train DIR, the training images" + (", and a judge" if name.endswith("_judge") else "")
    if name in BY_SETS:
        return "needs sets of classes, which only the suite's data sets have"
    if name == "fid_64":
        return "needs --judge none: its features are Inception-v3's"
    if name.startswith(("two_way_", "correlation_", "judge_distance", *BY_JUDGE)):
        return "needs --judge tiny"
    return "cannot be measured from images alone"


def _count_classes(judge: Extractor | None, device: str) -> int:
    if judge is None:
        return 0
    with torch.inference_mode():
        blank = torch.zeros(1, 3, judge.size, judge.size, dtype=torch.uint8, device=device)
        return judge.look(blank).vectors["logits"].shape[1]


def _check_sizes(real: gallery.Gallery, pixels: Sequence[str]) -> None:
    for name in pixels:
        least = PIXELS[name][2]
        small = [row for row, size in enumerate(real.sizes) if min(size) < least]
        if small:
            height, width = real.sizes[small[0]]
            names = join_names(real.names[row] for row in small)
            raise BenchError(f"{len(small)} images of {real.path} are too small for {name}, which needs "
                             f"{least}x{least}: {names} ({width}x{height}); choose other --metrics")
