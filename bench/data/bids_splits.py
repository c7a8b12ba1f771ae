"""Splits of paired data by image, and by image and session, person or block together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError

SPLITS = ("item", "session", "subject", "block")
HELD_OUT = 6  # one image in six (session, person, block) tests, one in six validates


def assign_parts(split: str, trials: pd.DataFrame, content: Sequence[str], seed: int) -> list[str]:
    """Returns the part of each trial [N].

    In the split item it is the part of the trial's image. In the other splits the image and the session (person, block)
    both have a part: the trial has it if both are equal, else "". content: a hash of each image; images with equal
    hashes are in one part.
    """
    image = draw_images({content[picture]: label for picture, label in
                         zip(trials["picture"], trials["label"], strict=True)}, seed)
    parts = [image[content[picture]] for picture in trials["picture"]]
    if split == "item":
        return parts
    if split == "session" and "session" not in trials:
        raise BenchError("--split session: the BIDS folder has no sessions")
    if split == "block" and (trials["block"] < 0).any():
        raise BenchError("--split block: no block is known; name a column of events.tsv with --block-column")
    unit = trials[split]
    group = trials["subject"] if split != "subject" else pd.Series(0, trials.index)
    units = {key: order_parts(list(dict.fromkeys(unit[group == key]))) for key in dict.fromkeys(group)}
    if not any("test" in of_unit.values() for of_unit in units.values()):
        raise BenchError(f"--split {split}: expected at least two {'people' if split == 'subject' else split + 's'}"
                         + ("" if split == "subject" else " of one person"))
    joint = []
    for part, key, value in zip(parts, group, unit, strict=True):
        of_unit = units[key]
        also_validates = part == "val" and of_unit[value] == "train" and "val" not in of_unit.values()
        joint.append(part if part == of_unit[value] or also_validates else "")
    return joint


def draw_images(label: Mapping[str, int], seed: int) -> dict[str, str]:
    """Draws the part of each image. In each class a sixth of the images tests and a sixth validates, at least one each.
    Classes of fewer than three images are treated as one class."""
    pools: dict[int, list[str]] = {}
    count = Counter(label.values())
    for image in sorted(label):
        pools.setdefault(label[image] if count[label[image]] >= 3 else -1, []).append(image)
    rng = np.random.default_rng(seed)
    parts = dict[str, str]()
    for number in sorted(pools):
        parts |= order_parts([pools[number][place] for place in rng.permutation(len(pools[number]))])
    return parts


def order_parts(units: Sequence[Any]) -> dict[Any, str]:
    """Returns the part of each unit: the last sixth tests, the sixth before validates (of three or more), at least one
    each; a single one trains."""
    held = max(1, round(len(units) / HELD_OUT))
    tests, validates = held * (len(units) > 1), held * (len(units) > 2)
    trains = len(units) - tests - validates
    return dict(zip(units, ["train"] * trains + ["val"] * validates + ["test"] * tests, strict=True))
