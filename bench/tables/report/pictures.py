"""The images of a report: stimuli, samples of every row, and the judge's answers, from the store."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from bench.errors import BenchError
from bench.experiment import describe
from bench.experiment.graph import Row
from bench.experiment.scale import PAPER_HEADLINE
from bench.experiment.stages import Score
from bench.experiment.variant import FULL
from bench.scoring.networks import fit_image, load_judge
from bench.tables import sheet
from bench.tables.columns import listed
from bench.tables.figure import Page, row_label, worst_of_each

BUDGET = 8_000_000  # bytes of a report's images, as text
LARGEST = 128  # pixels along a side; larger images are reduced
LOSSLESS = 64  # pixels along a side up to which an image is a PNG; larger ones are JPEGs
QUALITY = 85  # of a JPEG
RANKED, BATCH = 5, 100  # of the judge's classes in an item's history; images at once
CLASSES = (40, 20, 10, 5, 2)  # classes with images, at most: the first number whose images fit in BUDGET
NAMES = {"shuffled": "shuffled EEG (null)", "captions": "class name as text (ceiling)"}  # of the rows beside


@dataclass(frozen=True)
class Sample:
    """A generated image and the judge's answer. is_right: None where the judge knows no class of the item. ranked: its
    most probable classes with their probabilities; "" without the judge."""

    source: str
    judged: str = ""
    is_right: bool | None = None
    distance: str = ""
    ranked: str = ""


@dataclass(frozen=True)
class Shown:
    """An item: its name, class, stimulus, and for each row its samples."""

    name: str
    label: str
    stimulus: str
    samples: tuple[tuple[Sample, ...], ...]


@dataclass(frozen=True)
class Gallery:
    """A sheet of items: a column for each item, a line for each row."""

    name: str
    title: str
    about: str
    rows: tuple[str, ...]
    items: tuple[Shown, ...]


def data_uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def read_sheet(path: Path) -> tuple[str, int, int]:
    """Returns a PNG file as a data URI, with its width and height in pixels."""
    with Image.open(path) as image:
        return data_uri(path.read_bytes()), *image.size


def encode(pixels: np.ndarray) -> str:
    """Returns an image [H, W, 3] uint8 as a data URI: a PNG up to LOSSLESS pixels, else a JPEG of at most LARGEST."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    if max(image.size) <= LOSSLESS:
        image.save(file, "PNG", optimize=True)
        return data_uri(file.getvalue())
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    image.save(file, "JPEG", quality=QUALITY)
    return data_uri(file.getvalue(), "jpeg")


def galleries(page: Page, main: str, names: Mapping[int, str]) -> tuple[list[Gallery], list[str]]:
    """Returns the sheets of the stored rows of a page, and notes about what they leave out.

    The first sheet has the first test item of each class, chosen before any result; the second the worst wrong image of
    each class in the row `main`. Rows with other stimuli than the first row are left out. names: of the judge's
    classes.
    """
    drawn = [row for row in page.rows if isinstance(row.stage, Score)]
    if not drawn:
        return [], []
    first = page.stimuli(drawn[0])
    kept, others = list[Row](), list[str]()
    for row in drawn:
        stimuli = page.stimuli(row)
        same = np.array_equal(stimuli.item, first.item) and np.array_equal(
            stimuli.pictures[:1], first.pictures[:1]) and np.array_equal(stimuli.pictures[-1:], first.pictures[-1:])
        kept.append(row) if same else others.append(page.name(row))
    notes = [f"Rows with other test images are left out here: {listed(others)}."] if others else []
    scored, judge = {row: page.scored(row) for row in kept}, None
    try:
        stage = drawn[0].stage
        assert isinstance(stage, Score)
        judge = load_judge(stage.reference.judge, "cpu")
    except BenchError as error:  # the report is made on a machine without the judge's weights
        notes.append(f"The judge's other answers are left out: {error}.")
    chosen = next((row for row in kept if row.variant == main and not row.beside), kept[0])
    truth = "judged_real" if page.scale.headline == PAPER_HEADLINE else "label"
    accuracy = "nway_judge" if page.scale.headline == PAPER_HEADLINE else "nway_label"
    for most in CLASSES:
        of_class = sheet.first_of_each(first.label, most=most)
        made = [_gallery("first", "First test item of each class", "Chosen by number before any result was seen.",
                         page, kept, of_class, [""] * len(of_class), scored, names, truth, judge)]
        if {"judged", truth, accuracy, "judge_distance"} <= set(scored[chosen]):
            worst = worst_of_each(scored[chosen], truth, accuracy)
            worst = worst.iloc[::-(-len(worst) // most) if len(worst) else 1]
            place = {item: row for row, item in enumerate(first.item)}
            heads = [f" taken for {names.get(int(judged), f'class {judged}')}" for judged in worst["judged"]]
            made.append(_gallery(
                "worst", f"Worst cases of {page.name(chosen)}", "Of each class the wrong image with the lowest n-way "
                "accuracy. Chosen by their result: they show how the system fails, not how often.", page, kept,
                np.array([place[item] for item in worst["item"]], int), heads, scored, names, truth, judge))
        if sum(map(_size, made)) <= BUDGET:
            break
    if len(of_class) < len(np.unique(first.label)):
        notes.append(f"Images of {len(of_class)} of {len(np.unique(first.label))} classes; all would make the file too "
                     "large.")
    return made, notes


def _gallery(name: str, title: str, about: str, page: Page, rows: Sequence[Row], which: np.ndarray,
             heads: Sequence[str], scored: Mapping[Row, pd.DataFrame], names: Mapping[int, str], truth: str,
             judge: Any) -> Gallery:
    """Returns a sheet of the items in the places `which`; heads: what is added to their names."""
    first, samples = page.stimuli(rows[0]), list[list[tuple[Sample, ...]]]()
    for row in rows:
        made, answers = page.pictures(row)[which], scored[row].set_index(["item", "sample"])
        ranked = _rank_classes(judge, made.reshape(-1, *made.shape[2:]), names)
        samples.append([tuple(
            _sample(made[column, number], answers.loc[(first.item[place], number)], names, truth,
                    ranked[column * made.shape[1] + number])
            for number in range(made.shape[1])) for column, place in enumerate(which)])
    items = tuple(Shown(
        f"item {first.item[place]}", f"{first.names[first.label[place]]}{head}", encode(first.pictures[[place]][0]),
        tuple(line[column] for line in samples))
        for column, (place, head) in enumerate(zip(which, heads, strict=True)))
    return Gallery(name, title, about, tuple(_line_name(page, row) for row in rows), items)


def _rank_classes(judge: Any, images: np.ndarray, names: Mapping[int, str]) -> list[str]:
    """Returns the RANKED most probable classes of each image [N, H, W, 3] by the judge: "star 71 %, ring 20 %, ...".
    judge: an Extractor; None: it is absent, and the texts are empty."""
    if judge is None or not len(images):
        return [""] * len(images)
    import torch

    texts = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            fitted = np.stack([fit_image(judge, image) for image in images[start : start + BATCH]])
            logits = judge.look(torch.from_numpy(fitted).permute(0, 3, 1, 2)).vectors["logits"].float()
            shares, classes = logits.softmax(1).topk(min(RANKED, logits.shape[1]))
            texts += [", ".join(f"{names.get(number, f'class {number}')} {100 * share:.0f} %" for number, share in zip(
                few.tolist(), each.tolist(), strict=True)) for few, each in zip(classes, shares, strict=True)]
    return texts


def _sample(pixels: np.ndarray, answer: pd.Series, names: Mapping[int, str], truth: str, ranked: str) -> Sample:
    if "judged" not in answer or truth not in answer or pd.isna(answer["judged"]) or pd.isna(answer[truth]):
        return Sample(encode(pixels), ranked=ranked)
    judged = int(answer["judged"])
    return Sample(encode(pixels), names.get(judged, f"class {judged}"), bool(judged == answer[truth]),
                  f"{answer['judge_distance']:.2f}" if "judge_distance" in answer else "", ranked)


def _line_name(page: Page, row: Row) -> str:
    """Returns the name beside a row's images, with what the row changes."""
    known = {variant.name: describe.row_label(variant).replace("  ", ": ", 1) for variant in page.ablation.variants}
    beside = NAMES.get(row.items) if row.variant == FULL.name or row.items == "captions" else None
    name = beside or row_label(row) if row.beside else known[row.variant]
    return page.name(row).replace(row_label(row), name, 1)


def _size(gallery: Gallery) -> int:
    """Returns the number of characters that a sheet's images take."""
    return sum(len(item.stimulus) + sum(len(sample.source) for line in item.samples for sample in line)
               for item in gallery.items)
