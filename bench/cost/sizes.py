"""How much data there is: counted in prepared files, or as published."""

from __future__ import annotations

import csv
import functools
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.tiny_things import LEFT_OUT, part_in
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.key import Stage
from bench.experiment.stages import Generate, Items, Prepared, Reference, Trials, Weights


@dataclass(frozen=True)
class Size:
    """How much data there is: distinct pictures, trials of each part, classes. exact: counted in the prepared files."""

    pictures: int
    trials: dict[str, int]
    classes: int
    exact: bool


PUBLISHED = {  # by data set: pictures; trials of each part and subject; classes
    "imagenet_eeg": (2000, {"train": 1600, "val": 200, "test": 200}, 40),  # Sec. 4.1, in shares of 80, 10, 10 %
    "things_eeg2": (16_740, {"train": 62_160, "val": 4_000, "test": 200}, 1854),  # val: 100 concepts of 10 pictures
}
PUBLISHED_SHOWN = {"imagenet_eeg": {"train": 1600, "val": 200, "test": 200},  # pictures of each part
                   "things_eeg2": {"train": 15_540, "val": 1_000, "test": 200}}
PUBLISHED_WINDOWS = 120_000  # of pre-training's corpus (Sec. 4.1)


def size(world: Any, subjects: tuple[int, ...], split: str = "item") -> Size:
    """How much data those subjects' trials are: counted in trials.csv of a prepared data set, else as published.

    A split by blocks is taken to have parts as large as that by pictures. Raises BenchError for a world that was not
    prepared (exit 2), and for an absent one of which nothing is published here (exit 3).
    """
    if not isinstance(world, Prepared):
        raise BenchError(f"no price for the world of scale tiny: prepared data sets have one, such as "
                         f"{', '.join(PUBLISHED)}")
    if world.path:
        rows = _parted(world, subjects, split)
        return Size(len({row["picture"] for row in rows}), dict(Counter(row["part"] for row in rows)),
                    len({row["label"] for row in rows}), True)
    if world.name not in PUBLISHED:
        raise BenchError(f"no price for {world.name}, whose size is not known: bench data prepare {world.name}",
                         ENVIRONMENT)
    pictures, parts, classes = PUBLISHED[world.name]
    things = split in LEFT_OUT and world.name == "things_eeg2"
    people = [part_in(split, part, one == subjects[-1]) if things else part for part in parts for one in subjects]
    return Size(pictures, {part: n * people.count(part) for part, n in parts.items()}, classes, False)


def _parted(world: Prepared, subjects: tuple[int, ...], split: str) -> list[dict[str, str]]:
    """The rows of those subjects in a prepared data set's trials.csv that are in a part, which is their `part`."""
    rows = [row for row in trial_rows(Path(world.path) / "trials.csv") if int(row["subject"]) in subjects]
    if rows and "part_concept" in rows[0] and split in ("subject", "subject_seen"):  # depends on who takes part
        rows = [row | {"part": part_in(split, row["part_concept"], int(row["subject"]) == subjects[-1])}
                for row in rows]
    else:
        column = f"part_{split}" if rows and f"part_{split}" in rows[0] else "part_item"
        rows = [row | {"part": row[column]} for row in rows]
    return [row for row in rows if row["part"]]


@functools.cache
def trial_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def size_of(trials: Trials) -> Size:
    return size(trials.world, trials.subjects, trials.split)


def trials(items: Items) -> int:
    """How many trials that part has."""
    found = size_of(items.trials).trials
    if items.part not in found:
        raise BenchError(f"no part {items.part!r} among those of the data set: {', '.join(sorted(found))}")
    return found[items.part]


def shown(items: Items) -> int:
    """How many different pictures that part shows; as `trials`."""
    own = items.trials
    if isinstance(own.world, Prepared) and own.world.path:
        rows = _parted(own.world, own.subjects, own.split)
        return len({row["picture"] for row in rows if row["part"] == items.part})
    trials(items)  # raises where nothing is known
    return PUBLISHED_SHOWN[own.world.name][items.part]  # type: ignore[union-attr]


def padded(n: int, batch: int) -> int:
    return math.ceil(n / batch) * batch


def check_known(*parts: Weights) -> None:
    """Raises BenchError for a part whose configuration does not stand in models.configurations."""
    for part in parts:
        if part.name not in ("vae", "unet", "clip", "judge", "turbo/vae", "clip_h"):
            raise BenchError(f"no price for the part {part.name}: priced are those of scale paper")


def samples_of(stage: Stage) -> int:
    """How many pictures there are of each item."""
    return stage.sampling.samples if isinstance(stage, Generate) else getattr(stage, "samples", 1)


def reference_images(stage: Reference) -> int:
    """How many real pictures the judge looks at: the training pictures of a data set, `pictures` at most."""
    if isinstance(stage.world, Prepared) and stage.world.path:
        rows = trial_rows(Path(stage.world.path) / "trials.csv")
        return min(stage.pictures, len({row["picture"] for row in rows if row["part_item"] == "train"}))
    return min(stage.pictures, size(stage.world, (1,)).trials["train"])
