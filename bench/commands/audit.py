"""`bench audit`: finds leaks between the parts of a data set, or in what an ablation's rows are trained on."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench import errors
from bench.arguments import names
from bench.commands.options import add_ablation, add_places, add_scale, request_of
from bench.data import prepared
from bench.data.prepared import PARTS
from bench.data.shards import read_first_channels
from bench.errors import BenchError
from bench.experiment import ablation
from bench.experiment.stages import Prepared, Shards, Trials
from bench.scoring.audit import Array, claimed, read, read_table, trained_on
from bench.setup import places
from bench.setup.request import Request
from bench.store.store import Store
from bench.systems import plan


def add_options(parser: argparse.ArgumentParser) -> None:
    audited = parser.add_argument_group("what is audited (default: the stored trials and corpus of the scale)")
    add_scale(audited)
    audited.add_argument("--trials", metavar="DIR", help="a folder with trials.csv, eeg.npy, pictures.npy instead")
    audited.add_argument("--left-out", default="", metavar="COLUMN,...",
                         help="what the split keeps out of training, such as subject or label (default: nothing)")
    add_ablation(audited, "--ablation", help="the rows of an ablation instead")
    add_places(parser)


def main(options: argparse.Namespace, console: Console) -> int:
    """Audits a folder (with corpus.npy if it exists), the rows of an ablation, or the stored trials and corpus of a
    scale; builds nothing.

    Prints findings and verdict; returns 1 for a leak, else 0. Raises BenchError for missing input.
    """
    request = request_of(options)
    if request.ablation:
        return _audit_rows(request)
    corpus: Path | Array | None = None
    known, left_out = "no", names(options.left_out)
    if options.trials:
        folder, title = Path(options.trials), options.trials
        corpus = folder / "corpus.npy"
    else:
        scale, store = places.resolve_scale(request, needed=False), Store(request.store, create=False)
        trials, windows = scale.items().trials, scale.windows()
        if not store.is_intact(trials):
            raise BenchError(f"no trials of scale {scale.name} in the store {options.store}; make them with a run such "
                             f"as: bench run --ablation clip --scale {scale.name} --store {options.store}")
        folder, title = store.path(trials), f"scale {scale.name}, store {options.store}"
        left_out += claimed(trials)
        if isinstance(trials.world, Prepared):
            known = prepared.describe_leak(trials.world, trials.split)
        if store.is_intact(windows):
            path = store.path(windows)
            corpus = read_first_channels(path) if isinstance(windows.world, Shards) else path / "windows.npy"
    counts = read_table(folder / "trials.csv").get("part", pd.Series(dtype=object)).value_counts()
    report = read(folder, corpus, known, left_out)
    print(f"{title}: " + ", ".join(f"{counts[part]} {part}" for part in PARTS if part in counts) + " trials\n")
    print(report.render())
    return errors.SOME_FAILED if report.leaky else errors.OK


def _audit_rows(request: Request) -> int:
    """Audits what the rows of an ablation are trained on, and their trials if they are stored."""
    scale, store = places.resolve_scale(request, needed=False), Store(request.store, create=False)
    is_leaky, verdicts = False, dict[Trials, str]()
    for variant in ablation.load(request.ablation).variants:
        try:
            score = plan(variant, scale.items(), scale, 0)
        except errors.NotAvailable as error:
            print(f"{variant.name}: left out at scale {scale.name} ({error})")
            continue
        trials = score.items.trials
        if store.has(trials) and trials not in verdicts:
            known = prepared.describe_leak(trials.world, trials.split) if isinstance(trials.world, Prepared) else "no"
            verdicts[trials] = read(store.path(trials), known=known, left_out=claimed(trials)).verdict
        verdict = verdicts.get(trials, "")
        leaks = list(filter(None, [trained_on(score), verdict.removeprefix("yes: ") * verdict.startswith("yes")]))
        is_leaky |= bool(leaks)
        print(f"{variant.name}: {'yes: ' + '; '.join(leaks) if leaks else 'no'}"
              + ("" if verdict else " (its trials are not stored; only what it is trained on was checked)"))
    return errors.SOME_FAILED if is_leaky else errors.OK
