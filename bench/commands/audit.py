"""`bench audit`: leaks between the parts of a data set, or in what an ablation's rows are trained on."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench import errors
from bench.commands.options import add_places, add_scale, add_store, request_of
from bench.data import prepared
from bench.data.shards import first_channels
from bench.data.tiny import PARTS
from bench.errors import BenchError
from bench.experiment import ablation
from bench.experiment.stages import Prepared, Shards, Trials
from bench.scoring.audit import Array, claimed, read, read_table, trained_on
from bench.setup import places
from bench.setup.request import Request
from bench.store.store import Store
from bench.systems import plan


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which trials, or which ablation's rows."""
    add_scale(parser)
    parser.add_argument("--trials", metavar="DIR", help="instead of them a folder: trials.csv, eeg.npy, pictures.npy")
    parser.add_argument("--left-out", default="", metavar="COLUMN,...",
                        help="what the split is said to keep out of training, such as subject or label")
    parser.add_argument("--ablation", metavar="NAME|FILE", help="instead of them the rows of an ablation")
    add_store(parser)
    add_places(parser)


def main(options: argparse.Namespace, console: Console) -> int:
    """Audits options.trials, a folder as `read` has it (with corpus.npy, if it is there), or the rows of
    options.ablation, or else the trials and the corpus of options.scale in options.store; builds nothing.

    Prints findings and verdict; returns 0 without a leak, else 1. Raises BenchError for what is not there.
    """
    request = request_of(options)
    if request.ablation:
        return _rows(request)
    corpus: Path | Array | None
    known, left_out = "no", tuple(name for name in options.left_out.split(",") if name)
    if options.trials:
        folder, name = Path(options.trials), options.trials
        corpus = folder / "corpus.npy"
    else:
        at, store = places.placed_scale(request, needed=False), Store(request.store, create=False)
        stage, windows = at.items().trials, at.windows()
        if not store.sound(stage):
            raise BenchError(f"no trials of scale {at.name} in the store {options.store}; a run makes them, such as: "
                             f"bench run --ablation clip --scale {at.name} --store {options.store}")
        folder, name = store.path(stage), f"scale {at.name}, store {options.store}"
        left_out += claimed(stage)
        if isinstance(stage.world, Prepared):
            known = prepared.leaky(stage.world, stage.split)
        corpus = None
        if store.sound(windows):
            corpus = first_channels(store.path(windows)) if isinstance(windows.world, Shards) else \
                store.path(windows) / "windows.npy"
    parts = read_table(folder / "trials.csv").get("part", pd.Series(dtype=object)).value_counts()
    report = read(folder, corpus, known, left_out)
    print(f"{name}: " + ", ".join(f"{parts[part]} {part}" for part in PARTS if part in parts) + " trials\n")
    print(report.render())
    return errors.SOME_FAILED if report.leaky else errors.OK


def _rows(request: Request) -> int:
    """Audits what the rows of an ablation are trained on, and their trials where the store has them."""
    at, store = places.placed_scale(request, needed=False), Store(request.store, create=False)
    leaky, verdicts = False, dict[Trials, str]()
    for variant in ablation.load(request.ablation).variants:
        try:
            score = plan(variant, at.items(), at, 0)
        except errors.NotHere as error:
            print(f"{variant.name}: left out at scale {at.name} ({error})")
            continue
        found = [own] if (own := trained_on(score)) else []
        trials, unseen = score.items.trials, ""
        if store.has(trials):
            known = prepared.leaky(trials.world, trials.split) if isinstance(trials.world, Prepared) else "no"
            if trials not in verdicts:
                verdicts[trials] = read(store.path(trials), known=known, left_out=claimed(trials)).verdict
            found += [verdicts[trials].removeprefix("yes: ")] if verdicts[trials].startswith("yes") else []
        else:
            unseen = " (its trials are not in the store: what it is trained on alone was looked at)"
        leaky = leaky or bool(found)
        print(f"{variant.name}: {'yes: ' + '; '.join(found) if found else 'no'}{unseen}")
    return errors.SOME_FAILED if leaky else errors.OK
