"""`bench data tiny`: the files of the generated world that the small scales use, with Croissant metadata."""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import errors
from bench.commands.options import show_progress
from bench.data import croissant
from bench.data.tiny import TinyWorld
from bench.data.writing import new_folder
from bench.errors import BenchError
from bench.experiment.scale import MICRO, TINY
from bench.experiment.stages import Trials
from bench.runtime import Runtime

SCALES = {"tiny": TINY, "micro": MICRO}
DESCRIPTION = """\
Writes the paired recordings and images of the generated world as files that other programs can read: eeg.npy,
pictures.npy, trials.csv and classes.csv, with croissant.json (Croissant 1.0). docs/datasheet.md describes the data."""


def add_parser(actions: Any) -> None:
    """Adds `tiny` to the actions of `bench data`."""
    parser = actions.add_parser("tiny", help="write the generated world's files, with Croissant metadata",
                                description=DESCRIPTION)
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder to write to")
    parser.add_argument("--scale", choices=SCALES, default="tiny", help="whose world (default: tiny)")
    parser.add_argument("--seed", type=int, metavar="N", help="number of the world (default: the scale's)")
    parser.add_argument("--url", default="", help="address at which the files are published (default: none)")
    parser.add_argument("--date", default="", metavar="YYYY-MM-DD", help="day of publication (default: none)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Writes the files and prints what is missing in the metadata; returns the exit code. Raises BenchError for an
    existing folder and a bad seed."""
    out = Path(options.out)
    if out.exists():
        raise BenchError(f"{out} exists; name a new folder with --out")
    if options.seed is not None and options.seed < 0:
        raise BenchError(f"--seed must be 0 or above, not {options.seed}")
    from bench.train.trials import trials

    stage = SCALES[options.scale].items().trials
    world = stage.world
    assert isinstance(world, TinyWorld)
    if options.seed is not None:
        world = replace(world, seed=options.seed)
    stage = replace(stage, world=world)
    with show_progress(console) as progress, new_folder(out) as folder:
        trials(stage, lambda _: folder, folder, Runtime(progress=progress))
        lacking = croissant.write(folder, describe(stage, options.scale, options.url, options.date))
    print(f"{out}: {len(stage.subjects) * world.pictures:,} trials, {world.pictures:,} images, {croissant.FILE}")
    if lacking:
        print(f"Croissant 1.0 also requires {' and '.join(lacking)}: --url and --date, once the files are published")
    return errors.OK


def describe(stage: Trials, scale: str, url: str = "", date: str = "") -> dict[str, Any]:
    """Returns name, description, license, creator and version of a world's files; url and day if they are given."""
    low, high = stage.band
    world = stage.world
    assert isinstance(world, TinyWorld)
    people = f"{len(stage.subjects)} simulated {'person' if len(stage.subjects) == 1 else 'people'}"
    text = (f"Simulated EEG of {people}, [trials, {stage.n_chans} channels, {world.n_times} samples at "
            f"{world.sfreq:g} Hz], {low:g} to {high:g} Hz, and rendered images of shapes; world "
            f"{world.seed} of scale {scale} of eeg2image-bench. No person was recorded. Results on these data "
            "check software; they say nothing about brains.")
    facts = {"name": f"eeg2image-bench-{scale}-world-{world.seed}", "description": text,
             "license": {"@type": "sc:CreativeWork", "name": "MIT"},
             "creator": {"@type": "sc:Organization", "name": "The eeg2image-bench authors"},
             "version": version("eeg2image-bench")}
    return facts | {name: value for name, value in (("url", url), ("datePublished", date)) if value}
