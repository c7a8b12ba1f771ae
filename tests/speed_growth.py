"""How the CPU time of a run grows with its sizes: python tests/speed_growth.py [KINDS]

A benchmark, not a test. KINDS: such as steps,seeds (default: all). Builds real stages of scale micro in this process,
with one thread, and prints a markdown table: the process time for four sizes of each kind, and the slope of a line
through the logarithms of size and time. A slope of 1 is linear; below 1, a part of the time does not grow.

steps      of a pre-training
items      test items that are scored, with two random real images each
variants   rows of one seed with other mask ratios: pre-training, fine-tuning, generation and scores
seeds      rows of one variant: the same stages

What all sizes share (trials, corpus, targets, reference features) is built before and is not in the times.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import FULL, systems
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.key import Stage
from bench.experiment.scale import MICRO
from bench.experiment.stages import Trivial
from bench.store.store import Store

STEPS = (20, 40, 80, 160)
IMAGES = (240, 480, 960, 1920)  # of the world; a part of them is shown in the test trials
ROWS = (1, 2, 3, 4)


def measure(wanted: Iterable[Stage], store: Store) -> float:
    """Returns the CPU seconds of building stages, with the inputs that are not stored."""
    began = time.process_time()
    for stage in graph.stages(wanted, store.has):
        build(stage, store)
    return time.process_time() - began


def measure_steps(store: Store) -> list[tuple[int, float]]:
    """Pre-trainings of different lengths; the corpus is stored before."""
    start = systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model.start
    measure([replace(start, schedule=replace(start.schedule, steps=2, warmup=1))], store)
    return [(steps, measure([replace(start, schedule=replace(start.schedule, steps=steps))], store))
            for steps in STEPS]


def measure_items(store: Store) -> list[tuple[int, float]]:
    """Scores of random real images; everything that a score reads is stored before."""
    points = []
    for images in IMAGES:
        scale = replace(MICRO, world=replace(MICRO.world, pictures=images))
        row = systems.plan(FULL, scale.items(), scale, 0)
        score = replace(row, pictures=Trivial("random", row.items, row.pictures.vae, 2, 0, scale.fp32))
        measure([stage for stage in graph.stages([score], store.has) if stage != score], store)
        if not points:
            measure([replace(score, pictures=replace(score.pictures, seed=1))], store)  # loads the libraries
        folder, seconds = store.path(score.pictures), measure([score], store)
        points.append((len(np.load(folder / "pictures.npy", mmap_mode="r")), seconds))
    return points


def measure_rows(rows: list[Stage], store: Store) -> list[tuple[int, float]]:
    """Returns the CPU seconds of the first 1 to 4 rows after `rows[0]`, which stores what all of them share."""
    measure(rows[:1], store)
    seconds = np.cumsum([measure([row], store) for row in rows[1:]])
    return [(size, float(seconds[size - 1])) for size in ROWS]


def measure_variants(store: Store) -> list[tuple[int, float]]:
    """Rows of one seed, with mask ratios that no other row has."""
    ratios = np.linspace(0.3, 0.7, ROWS[-1] + 1).round(2).tolist()
    return measure_rows([systems.plan(replace(FULL, mask_ratio=ratio), MICRO.items(), MICRO, 0) for ratio in ratios],
                        store)


def measure_seeds(store: Store) -> list[tuple[int, float]]:
    """Rows of Full."""
    return measure_rows([systems.plan(FULL, MICRO.items(), MICRO, seed) for seed in range(ROWS[-1] + 1)], store)


KINDS = {"steps": measure_steps, "items": measure_items, "variants": measure_variants, "seeds": measure_seeds}


def main(kinds: str = ",".join(KINDS)) -> None:
    """Prints a line of the table for each kind as soon as it is measured."""
    print("| grows | sizes | CPU seconds | slope |\n| :-- | :-- | :-- | --: |", flush=True)
    for kind in kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            sizes, seconds = zip(*KINDS[kind](Store(Path(folder))), strict=True)
        slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
        print(f"| {kind} | {', '.join(map(str, sizes))} | {', '.join(f'{value:.2f}' for value in seconds)} | "
              f"{slope:.2f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
