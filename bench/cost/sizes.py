"""How much data there is: counted in prepared files, or as published."""

from __future__ import annotations

import csv
import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.tiny_things import LEFT_OUT, assign_part
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.key import Stage
from bench.experiment.stages import Generate, Items, Prepared, Reference, Trials, Weights
from models.parameters import PIXELS

PUBLISHED = {  # by data set: images; trials of each part and subject; classes
    "imagenet_eeg": (2000, {"train": 1600, "val": 200, "test": 200}, 40),  # Sec. 4.1, in shares of 80, 10, 10 %
    "things_eeg2": (16_740, {"train": 62_160, "val": 4_000, "test": 200}, 1854),  # val: 100 concepts of 10 images
}
PUBLISHED_IMAGES = {"imagenet_eeg": {"train": 1600, "val": 200, "test": 200},  # of each part
                    "things_eeg2": {"train": 15_540, "val": 1_000, "test": 200}}
PUBLISHED_WINDOWS = 120_000  # of pre-training's corpus (Sec. 4.1)
PRICED_PARTS = ("vae", "unet", "clip", "judge", "turbo/vae", "clip_h")  # frozen parts that models.configurations has


@dataclass(frozen=True)
class Size:
    """The size of a data set: distinct images, trials of each part, classes. exact: counted in the prepared files."""

    pictures: int
    trials: dict[str, int]
    classes: int
    exact: bool


def size(world: Any, subjects: tuple[int, ...], split: str = "item") -> Size:
    """The size of the subjects' data: counted in trials.csv of a prepared data set, else as published.

    A split by blocks is assumed to have parts as large as the split by images. Raises BenchError for a world that is
    not a prepared data set (exit 2), and for an absent one of unpublished size (exit 3).
    """
    if not isinstance(world, Prepared):
        raise BenchError(f"the world of scale tiny has no price; use prepared data, such as {', '.join(PUBLISHED)}")
    if world.path:
        rows = _rows_in_parts(world, subjects, split)
        return Size(len({row["picture"] for row in rows}), dict(Counter(row["part"] for row in rows)),
                    len({row["label"] for row in rows}), True)
    if world.name not in PUBLISHED:
        raise BenchError(f"no price for {world.name}, whose size is unknown; run: bench data prepare {world.name}",
                         ENVIRONMENT)
    images, parts, classes = PUBLISHED[world.name]
    things = split in LEFT_OUT and world.name == "things_eeg2"
    assigned = [assign_part(split, part, subject == subjects[-1]) if things else part
                for part in parts for subject in subjects]
    return Size(images, {part: n * assigned.count(part) for part, n in parts.items()}, classes, False)


def _rows_in_parts(world: Prepared, subjects: tuple[int, ...], split: str) -> list[dict[str, str]]:
    """The subjects' rows of trials.csv that belong to a part of the split, which becomes their column `part`."""
    rows = [row for row in trial_rows(Path(world.path) / "trials.csv") if int(row["subject"]) in subjects]
    if rows and "part_concept" in rows[0] and split in ("subject", "subject_seen"):  # depends on who takes part
        rows = [row | {"part": assign_part(split, row["part_concept"], int(row["subject"]) == subjects[-1])}
                for row in rows]
    else:
        column = f"part_{split}" if rows and f"part_{split}" in rows[0] else "part_item"
        rows = [row | {"part": row[column]} for row in rows]
    return [row for row in rows if row["part"]]


@functools.cache
def trial_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a trials.csv."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def size_of(trials: Trials) -> Size:
    """The size of the data that Trials holds; errors as `size`."""
    return size(trials.world, trials.subjects, trials.split)


def shape_of(items: Items) -> tuple[int, int]:
    """Channels and times of a trial."""
    return items.trials.n_chans, items.trials.world.n_times


def count_trials(items: Items) -> int:
    """The number of trials of a part."""
    parts = size_of(items.trials).trials
    if items.part not in parts:
        raise BenchError(f"the data set has no part {items.part!r}; it has: {', '.join(sorted(parts))}")
    return parts[items.part]


def count_images(items: Items) -> int:
    """The number of distinct images of a part; errors as `count_trials`."""
    trials = items.trials
    if isinstance(trials.world, Prepared) and trials.world.path:
        rows = _rows_in_parts(trials.world, trials.subjects, trials.split)
        return len({row["picture"] for row in rows if row["part"] == items.part})
    count_trials(items)  # raises for an unknown size
    return PUBLISHED_IMAGES[trials.world.name][items.part]  # type: ignore[union-attr]


def count_reference_images(stage: Reference) -> int:
    """The number of real images that the judge processes: a data set's training images, at most `pictures`."""
    if isinstance(stage.world, Prepared) and stage.world.path:
        rows = trial_rows(Path(stage.world.path) / "trials.csv")
        return min(stage.pictures, len({row["picture"] for row in rows if row["part_item"] == "train"}))
    return min(stage.pictures, size(stage.world, (1,)).trials["train"])


def samples_of(stage: Stage) -> int:
    """The number of images that a stage makes of each item."""
    return stage.sampling.samples if isinstance(stage, Generate) else getattr(stage, "samples", 1)


def image_bytes(count: int) -> int:
    """Bytes of so many images of PIXELS, uint8."""
    return count * 3 * PIXELS**2


def padded(n: int, batch: int) -> int:
    """n rounded up to whole batches."""
    return -(-n // batch) * batch


def check_known(*parts: Weights) -> None:
    """Raises BenchError for a part whose configuration is not in models.configurations."""
    for part in parts:
        if part.name not in PRICED_PARTS:
            raise BenchError(f"the part {part.name} has no price; only the parts of scale paper have one")
