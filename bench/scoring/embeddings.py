"""`bench score-embeddings`: how often embeddings of the EEG find the image that was shown, for all and by subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd

from bench import metrics
from bench.errors import BenchError, count_of, join_names
from bench.files import open_array
from bench.scoring import schema
from bench.scoring.gallery import read_text_table
from bench.statistics import Interval, share_interval

WAYS = (2, 4, 10, 50, 200)
WIDTH = 100  # of the text
EVERYBODY = "all"  # the subject of numbers over all subjects
LAYOUT = "an array of embeddings [N, D], floats"
Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Trials:
    """Which image each embedding of the EEG belongs to. image [N]: rows of the gallery; subject [N]: names, or ""."""

    image: Array
    subject: Array


@dataclass(frozen=True, eq=False)
class Retrieval:
    """The result of `bench score-embeddings`.

    summary: for each subject and for all a row for each k and n, columns subject, metric, k, n, value, low, high,
    chance, trials, images; rows: for each trial its image, its subject, the retrieved image (-1 for a tie), and the
    value of each metric; images: different images in the gallery.
    """

    summary: pd.DataFrame
    rows: pd.DataFrame
    images: int
    notes: Sequence[str] = field(default_factory=tuple)

    def text(self) -> str:
        """Returns a table with a row for each metric, one with a row for each subject, and the notes."""
        every = self.summary[self.summary["subject"] == EVERYBODY]
        lines = schema.align([("metric", "% [95% CI]", "chance, %"), *zip(
            every["metric"], _percent(every), [f"{100 * chance:.3g}" for chance in every["chance"]], strict=True)])
        people = self.summary[self.summary["subject"] != EVERYBODY]
        if len(people):
            shown = people[people["n"] == self.images]
            cells = shown.assign(text=_percent(shown)).pivot(index="subject", columns="metric", values="text")
            cells = cells[list(dict.fromkeys(shown["metric"]))]
            lines += ["", *schema.align([("subject", *cells), *((str(name), *row) for name, row in
                                                                zip(cells.index, cells.to_numpy(), strict=True))])]
        wrapped = [fill(note, WIDTH, initial_indent="- ", subsequent_indent="  ") for note in self.notes]
        return "\n".join([*lines, "", *wrapped])


def _percent(lines: pd.DataFrame) -> list[str]:
    values = 100 * lines[["value", "low", "high"]].to_numpy()
    return [f"{value:.1f} [{low:.1f}, {high:.1f}]" for value, low, high in values]


def read_embeddings(path: Path) -> Array:
    """Reads embeddings [N, D] in float64. Raises BenchError for another layout, for NaN, and for a row of zeros."""
    array = open_array(path, LAYOUT)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise BenchError(f"{path} is {list(array.shape)} {array.dtype}; expected {LAYOUT}")
    values = array.astype(np.float64)
    for is_wrong, problem in ((~np.isfinite(values).all(1), "has NaN or infinite values"),
                              (~values.any(1), "has only zeros, which have no direction")):
        if is_wrong.any():
            raise BenchError(f"{path}: row {int(is_wrong.argmax())} {problem} ({int(is_wrong.sum())} of {len(values)} "
                             "rows); expected finite embeddings of a length above 0")
    return values


def read_trials(path: Path, names: Sequence[str], count: int) -> Trials:
    """Reads a CSV with a line for each of `count` embeddings, in their order: column image, and subject if there are
    several.

    image: a name of the gallery's. Raises BenchError for other columns, another number of lines and unknown images.
    """
    table = read_text_table(path, "a CSV of trials")
    if "image" not in table:
        raise BenchError(f"{path} has columns {', '.join(map(str, table))}; expected image, and subject if there are "
                         "several")
    if len(table) != count:
        raise BenchError(f"{path} has {count_of(len(table), 'line')} below its header; expected one for each of "
                         f"{count_of(count, 'embedding')}")
    row_of = {name: row for row, name in enumerate(names)}
    if unknown := [name for name in dict.fromkeys(table["image"]) if name not in row_of]:
        raise BenchError(f"{path}: {count_of(len(unknown), 'image')} not in the gallery: {join_names(unknown)}; "
                         f"expected names such as {join_names(list(names[:2]))}")
    subject = table["subject"].to_numpy(str) if "subject" in table else np.full(count, "")
    if "subject" in table and (EVERYBODY in subject or "" in subject):
        raise BenchError(f"{path}: a subject has no name, or the name {EVERYBODY!r}; expected another name")
    return Trials(table["image"].map(row_of).to_numpy(np.int64), subject)


def score_embeddings(eeg: Array, gallery: Array, trials: Trials, tops: Sequence[int], ways: Sequence[int],
                     identity: Array | None = None) -> Retrieval:
    """Scores the retrieval of each trial's image, by cosine.

    eeg [N, D]; gallery [M, D]; identity [M]: equal where rows show one image (None: where rows are equal). For each k
    of `tops`: the share of trials whose image is among the k nearest of the gallery, and of n, the image and n - 1
    others, for each n of `ways`: the exact mean over all choices of the others (`metrics.retrieval_topk`). A tie with
    another image counts as wrong. A k of n or more, and an n above the number of images, are left out and named in the
    notes.

    The value is the mean over images of the mean over their trials. If there are two or more subjects and each has a
    trial of every image that was shown, its interval is over images crossed with subjects, else over images.
    Raises BenchError if embeddings and gallery differ in D, or fewer than two images are different.
    """
    if eeg.shape[1] != gallery.shape[1]:
        raise BenchError(f"embeddings of the EEG have {eeg.shape[1]} dimensions and those of the gallery "
                         f"{gallery.shape[1]}; expected the same space")
    if identity is None:
        _, first, inverse = np.unique(gallery, axis=0, return_index=True, return_inverse=True)
        identity = first[inverse.reshape(-1)]
    images = len(np.unique(identity))
    if images < 2:
        raise BenchError("the gallery has one different image; retrieval needs two or more")
    shown = len(np.unique(identity[trials.image]))
    notes = [f"{len(eeg)} embeddings of the EEG in {eeg.shape[1]} dimensions; {shown} of {images} images were shown",
             "cosine; a tie with another image counts as wrong"]
    if images < len(gallery):
        notes.append(f"{len(gallery)} rows of the gallery show {images} different images; equal ones do not compete")
    sets = {n: f"{n}-way" for n in ways if n < images} | {images: f"of {images}"}
    left_out = [f"{n}-way" for n in ways if n > images]
    queried, others = gallery[trials.image], np.concatenate([identity[trials.image], identity])
    values = {}
    for n, name in sets.items():
        for k in tops:
            if k < n:
                values[f"top-{k} {name}", k, n] = metrics.retrieval_topk(
                    eeg, np.concatenate([queried, gallery]), k, n, others)
            else:
                left_out.append(f"top-{k} {name}")
    if left_out:
        notes.append(f"left out: {', '.join(left_out)}: a set has more than k images, and at most {images}")
    if not values:
        raise BenchError(f"nothing to score: {notes[-1].removeprefix('left out: ')}")
    frame = pd.DataFrame({"subject": trials.subject, "image": identity[trials.image]})
    chosen = {EVERYBODY: np.ones(len(eeg), bool)} | {name: trials.subject == name
                                                     for name in sorted(set(trials.subject)) if name}
    is_crossed = _is_crossed(frame)
    notes.append("CI: over images crossed with subjects" if is_crossed else "CI: over images, for these trials and "
                 "subjects; it does not cover other subjects")
    lines = []
    for subject, rows in chosen.items():
        for (metric, k, n), value in values.items():
            mean = _interval(frame[rows].assign(value=value[rows]), is_crossed and subject == EVERYBODY)
            lines.append((subject, metric, k, n, mean.mean, mean.low, mean.high, k / n, int(rows.sum()),
                          frame.loc[rows, "image"].nunique()))
    nearest = metrics.nearest(eeg, gallery, identity)
    rows = pd.DataFrame({"row": np.arange(len(eeg)), "subject": trials.subject, "image": trials.image,
                         "retrieved": nearest, **{metric: value for (metric, _, _), value in values.items()}})
    columns = ("subject", "metric", "k", "n", "value", "low", "high", "chance", "trials", "images")
    return Retrieval(pd.DataFrame(lines, columns=list(columns)), rows, images, tuple(notes))


def _is_crossed(frame: pd.DataFrame) -> bool:
    """Returns whether there are two or more subjects and each has a trial of every image; columns subject and image."""
    subjects, images = frame["subject"].nunique(), frame["image"].nunique()
    return subjects > 1 and len(frame.drop_duplicates(["subject", "image"])) == subjects * images


def _interval(frame: pd.DataFrame, is_crossed: bool) -> Interval:
    """Returns the interval of a mean over images, crossed with subjects or not; columns subject, image, value."""
    if is_crossed:
        return share_interval(frame.groupby(["subject", "image"])["value"].mean().unstack("image").to_numpy())
    return share_interval(frame.groupby("image")["value"].mean().to_numpy()[None])
