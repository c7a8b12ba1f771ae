"""Draws counterparts of the paper's Figures 3 to 6 from the store."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from PIL import Image

from bench.data.prepared import read_classes
from bench.errors import BenchError
from bench.experiment.ablation import Ablation
from bench.experiment.describe import describe_change
from bench.experiment.graph import Row
from bench.experiment.scale import PAPER_HEADLINE, Scale
from bench.experiment.stages import Score, Stage, Trials
from bench.experiment.variant import FULL, Variant
from bench.store.store import Store
from bench.tables import sheet
from bench.train import items

TITLES = {
    3: "samples (counterpart of DreamDiffusion's Fig. 3, main results)",
    4: "three classes compared (counterpart of DreamDiffusion's Fig. 4, comparison with Brain2Image)",
    5: "variants (counterpart of DreamDiffusion's Fig. 5, ablations)",
    6: "confusion and worst cases (counterpart of DreamDiffusion's Fig. 6, failure cases)",
}
COMPARED = {  # the classes of the paper's Figure 4 (Sec. 4.2), and their names in data sets
    "Airliner": ("airliner",), "Jack-o-Lantern": ("jack-o'-lantern", "jack-o-lantern"),
    "Panda": ("giant panda", "panda")}
PER_CLASS = {3: 3, 4: 5}  # items drawn of each class
COLUMNS = 10  # items side by side
OTHERS = 20  # of the classes that are not shown, those the judge names most often have a column in Figure 6
SIDE = (64, 128)  # pixels on the page: small images are enlarged to the first, large ones reduced to the second


@dataclass(frozen=True, eq=False)
class Page:
    """The rows of a table that a figure shows; all are in the store."""

    ablation: Ablation
    scale: Scale
    store: Store
    rows: Sequence[Row]

    def name(self, row: Row) -> str:
        """Returns the name beside a row's images; with its seed if there are several."""
        return row_label(row) if len({row.seed for row in self.rows}) == 1 else f"{row_label(row)}, seed {row.seed}"

    def stimuli(self, row: Row) -> items.Loaded:
        """Loads the items of a row; labels and stimuli do not depend on the control of the EEG."""
        shown = replace(_score(row).items, eeg="real")
        return items.load(shown, self.store.path(shown.trials))

    def judged(self, row: Row) -> dict[int, str]:
        """Returns the data set's names for the judge's class numbers; for several classes with one number, the words
        with which all their names begin."""
        classes = read_classes(self.store.path(_score(row).items.trials))
        words: dict[int, list[list[str]]] = {}
        for number, name in zip(classes["judge"], classes["name"], strict=True):
            words.setdefault(int(number), []).append(name.split())
        shared = {number: os.path.commonprefix(every)  # noqa: RUF071 - of lists it compares elements, here whole words
                  for number, every in words.items()}
        return {number: " ".join(same) for number, same in shared.items() if same}

    def pictures(self, row: Row) -> np.ndarray:
        """Loads the images [N, samples, H, W, 3] uint8, in the order of the items."""
        return np.load(self.store.path(_score(row).pictures) / "pictures.npy")

    def scored(self, row: Row) -> pd.DataFrame:
        """Loads the scores, a row for each item and sample."""
        data = (self.store.path(row.stage) / "items.csv.gz").read_bytes()
        return pd.read_csv(io.BytesIO(gzip.decompress(data)))


Drawn = tuple[list[Image.Image], list[str]]


def draw_samples(page: Page) -> Drawn:
    """Draws the first items of each class: the stimulus, then all samples of each seed."""
    stimuli = page.stimuli(page.rows[0])
    lines = {page.name(row): page.pictures(row) for row in page.rows}
    blocks = [block for nth in range(PER_CLASS[3]) for block in _blocks(
        stimuli, lines, [rows[nth] for rows in _by_class(stimuli.label) if len(rows) > nth])]
    return blocks, [f"The first {PER_CLASS[3]} test items of each class in the order of their ids, chosen before any "
                    "result was seen; every sample is drawn. The samples are below their line of stimuli."]


def draw_compared(page: Page) -> Drawn:
    """Draws a block for each of three classes, with a line for each system."""
    stimuli = page.stimuli(page.rows[0])
    lines = {page.name(row): page.pictures(row) for row in page.rows}
    classes, as_paper = choose_classes(stimuli.names, stimuli.label)
    blocks = [block for label in classes
              for block in _blocks(stimuli, lines, np.flatnonzero(stimuli.label == label)[:PER_CLASS[4]])]
    names = ", ".join(stimuli.names[label] for label in classes)
    which = "The classes of the paper's figure" if as_paper else f"The first {len(classes)} classes of the scale"
    caption = [f"{which} ({names}), and the first {PER_CLASS[4]} test items of each in the order of their ids, chosen "
               "before any result was seen." + f" The paper shows {', '.join(COMPARED)}." * (not as_paper)]
    if "brain2image" not in {variant.system for variant in page.ablation.variants}:
        caption.append(f"Brain2Image is not a row of the ablation {page.ablation.name} and is not drawn. Below the "
                       "method are its null (shuffled EEG) and its ceiling (the class name as text).")
    return blocks, caption


def choose_classes(names: Sequence[str], label: np.ndarray) -> tuple[list[int], bool]:
    """Returns the classes of Figure 4 and whether they are the paper's: these if all have items, else the first ones.

    names: of the classes, by label; label [N]: of the items.
    """
    shown = {names[number].lower(): int(number) for number in np.unique(label)}
    known = [next((shown[name] for name in spellings if name in shown), None) for spellings in COMPARED.values()]
    found = [number for number in known if number is not None]
    if len(found) == len(COMPARED):
        return found, True
    return [int(number) for number in np.unique(label)[:len(COMPARED)]], False


def draw_variants(page: Page) -> Drawn:
    """Draws the first item of each class, with a line for each variant; a block for each seed and set of trials."""
    groups: dict[tuple, list[Row]] = {}
    for row in page.rows:
        groups.setdefault((row.seed, *_shown(row)), []).append(row)
    blocks = []
    for rows in groups.values():
        stimuli = page.stimuli(rows[0])
        lines = {page.name(row): page.pictures(row) for row in rows}
        blocks += _blocks(stimuli, lines, [same[0] for same in _by_class(stimuli.label)])
    changes = [f"{v.name}: {describe_change(v)}." for v in page.ablation.variants if isinstance(v, Variant)
               and v != FULL]
    return blocks, ["The first test item of each class in the order of ids, chosen before any result was seen; every "
                    "sample is drawn.", *([f"Changes from Full: {' '.join(changes)}"] if changes else [])]


def draw_failures(page: Page) -> Drawn:
    """Draws the confusion matrix over all seeds, then for each seed the worst wrong image of each class."""
    stimuli = page.stimuli(page.rows[0])
    scored = [page.scored(row) for row in page.rows]
    every, names = pd.concat(scored), page.judged(page.rows[0])
    truth, accuracy = ("judged_real", PAPER_HEADLINE) if page.scale.headline == PAPER_HEADLINE else (
        "label", "nway_label")
    if "label" not in every:
        raise BenchError("figure 6 needs items whose classes the judge knows; take an ablation with such items")
    counts = pd.crosstab(every["label"], every["judged"])
    others = counts.drop(columns=counts.index, errors="ignore").sum().sort_values(ascending=False, kind="stable")
    seen = sorted([*counts.index, *others.index[:OTHERS]])
    rest = counts[others.index[OTHERS:]].sum(axis=1).to_numpy()[:, None]
    shares = np.hstack([counts.reindex(columns=seen, fill_value=0), *[rest] * (len(others) > OTHERS)])

    def named(number: int) -> str:
        return names.get(number, f"class {number}")

    blocks = [sheet.matrix(shares / shares.sum(1, keepdims=True), [*map(named, counts.index)],
                           [*map(named, seen), *["another"] * (len(others) > OTHERS)])]
    place = {item: row for row, item in enumerate(stimuli.item)}
    for row, rows in zip(page.rows, scored, strict=True):
        worst = worst_of_each(rows, truth, accuracy)
        which, images = [place[item] for item in worst["item"]], page.pictures(row)
        heads = [f"{named(a)} > {named(b)}" for a, b in zip(worst["label"], worst["judged"], strict=True)]
        lines = {"stimulus": stimuli.pictures[which][:, None],
                 page.name(row): images[which, worst["sample"]][:, None]}
        blocks += [_block({name: line[begin : begin + COLUMNS] for name, line in lines.items()},
                          heads[begin : begin + COLUMNS]) for begin in range(0, len(which), COLUMNS)]
    right = (every[truth] == every["judged"]).mean()
    target = "label" if truth == "label" else "judge's class of the real image"
    return blocks, [
        f"Above: rows are the class shown, columns the judge's class of the generated image, per cent of the row; "
        f"{len(every)} images of {len(stimuli.item)} test items, {100 * right:.1f} % of them right"
        f"{'' if truth == 'label' else f': the {target}'}.",
        "Below: the worst image of each class, shown > judged: among the wrong ones, that with the lowest n-way "
        f"accuracy against the {target}; of equal ones the farthest from the stimulus, then the lowest item and "
        "sample. "
        "Worst cases are chosen by their result: they show how the system fails, not how often."]


def worst_of_each(scored: pd.DataFrame, truth: str = "label", accuracy: str = "nway_label") -> pd.DataFrame:
    """Returns the worst wrong sample of each class shown: the lowest accuracy, then the greatest judge_distance, then
    the lowest item and sample. A class without a wrong sample has none. truth, accuracy: columns with the class that
    counts as right, and with the n-way accuracy against it."""
    wrong = scored[scored["judged"] != scored[truth]]
    order = wrong.sort_values(["label", accuracy, "judge_distance", "item", "sample"],
                              ascending=[True, True, False, True, True], kind="stable")
    return order.drop_duplicates("label")


def rows_of_figure(number: int, chosen: Ablation, table: Sequence[Row]) -> list[Row]:
    """Returns the rows that a figure shows, in its order."""
    table = [row for row in table if isinstance(row.stage, Score)]
    main = [row for row in table if row.variant == main_variant(chosen) and not row.beside]
    if number in (3, 6):
        return main
    beside = [row for row in table if row.beside]
    if number == 4:
        others = [row for row in table if row.variant in _other_systems(chosen) and not row.beside]
        shown = {_shown(row) for row in main}
        return [row for row in [*others, *main, *beside] if _shown(row) in shown]
    return [*(row for row in table if not row.beside), *beside]


def main_variant(chosen: Ablation) -> str:
    """Returns the name of the variant that represents the method: Full if it is a row, else the first."""
    names = [variant.name for variant in chosen.variants]
    return FULL.name if FULL.name in names else names[0]


def _other_systems(chosen: Ablation) -> list[str]:
    """Returns the variants of another system than the main one."""
    system = next(variant.system for variant in chosen.variants if variant.name == main_variant(chosen))
    return [variant.name for variant in chosen.variants if variant.system != system]


def stages_of_figure(number: int, row: Row) -> list[Stage]:
    """Returns the stages that must be stored to draw a row."""
    score = _score(row)
    return [score.pictures, score.items.trials, *([score] if number == 6 else [])]


def _score(row: Row) -> Score:
    assert isinstance(row.stage, Score)
    return row.stage


def _shown(row: Row) -> tuple[Trials, str]:
    """Returns the trials and the part of a row; rows that agree in both have the same stimuli."""
    return _score(row).items.trials, _score(row).items.part


def row_label(row: Row) -> str:
    """Returns the name of a row in a figure."""
    return row.variant if not row.beside or row.items in ("real", "captions") else f"{row.variant}, {row.items} EEG"


def _by_class(label: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(label == value) for value in np.unique(label)]


def _blocks(stimuli: items.Loaded, lines: dict[str, np.ndarray], rows: Sequence[int] | np.ndarray) -> list[Image.Image]:
    """Draws the items `rows`, at most COLUMNS side by side."""
    every, blocks = sheet.fitting(stimuli.pictures[:], lines), []
    for begin in range(0, len(rows), COLUMNS):
        shown = np.asarray(rows[begin : begin + COLUMNS])
        heads = [stimuli.names[label] for label in stimuli.label[shown]]
        blocks.append(_block({name: images[shown] for name, images in every.items()}, heads))
    return blocks


def _block(lines: dict[str, np.ndarray], heads: Sequence[str]) -> Image.Image:
    height = next(iter(lines.values())).shape[2]
    small, large = SIDE
    return sheet.block(lines, heads, height * max(1, small // height) if height <= large else large)


def about_page(page: Page) -> list[str]:
    """Returns the lines that every figure shows: scale, seeds, rows, judge and numerics."""
    at, seeds = page.scale, sorted({row.seed for row in page.rows})
    judges = sorted({f"{_score(row).reference.judge.name}@{_score(row).reference.judge.sha256[:12]}"
                     for row in page.rows})
    about = (f"Scale {at.name}. Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}. Ablation "
             f"{page.ablation.name}: {', '.join(dict.fromkeys(map(row_label, page.rows)))}. "
             f"Judge {', '.join(judges)}. Numerics "
             f"{at.numerics.device_class}, {at.numerics.dtype}, {at.numerics.threads} thread.")
    return [about] if not at.prior else [  # pinned weights: the scales with real data
        about, f"Scale {at.name} uses synthetic images and EEG; nothing here can be compared with the paper's figure."]
