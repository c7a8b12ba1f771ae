"""`bench data pairs`: paired data from a BIDS folder and the images that its events name, audited at once."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console

from bench import errors
from bench.arguments import names
from bench.commands.options import read_band, show_progress
from bench.data import own, prepared, writing
from bench.data.bids_splits import SPLITS
from bench.data.listing import describe_counts
from bench.data.prepared import MANIFEST
from bench.errors import BenchError
from bench.scoring.audit import UNKNOWN, Report, audit
from bench.setup.request import DATA

if TYPE_CHECKING:
    from bench.data.bids_pairs import Plan, Settings

ORDER = "the time tells the class"  # the audit's check of the order of the trials
DESCRIPTION = """\
Prepares paired data from a BIDS folder of EEG: an epoch for each event whose events.tsv names an image. Needs mne-bids
(pip install eeg2image-bench[bids]). Run it first with --dry-run."""


def add_parser(actions: Any) -> None:
    """Adds `pairs` to the actions of `bench data`."""
    parser = actions.add_parser("pairs", help="prepare paired data from a BIDS folder", description=DESCRIPTION)
    parser.add_argument("bids", metavar="BIDS", help="the BIDS folder, with sub-XX/[ses-YY/]eeg")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the images that the events name")
    parser.add_argument("--name", help="name of the data set (default: that of the BIDS folder)")
    parser.add_argument("--data", default=str(DATA), metavar="DIR", help="folder to write to")
    parser.add_argument("--dry-run", action="store_true", help="print what was found and what is left out, and stop")
    events = parser.add_argument_group("events and images")
    events.add_argument("--event-column", default="stim_file", metavar="COLUMN",
                        help="column of events.tsv with the image's file")
    events.add_argument("--class-column", metavar="COLUMN", help="column of events.tsv with the class "
                        "(default: the image's folder)")
    events.add_argument("--judge", default="", metavar="NAME=NUMBER,...", help="number of a class for the judge "
                        "(default: by a WordNet id, else unknown)")
    events.add_argument("--size", default="512", metavar="N", help="side of the images in pixels; at tiny and micro 32")
    for option in ("subjects", "sessions", "tasks"):
        events.add_argument(f"--{option}", default="", metavar="A,B", help="only these labels (default: all)")
    epochs = parser.add_argument_group("epochs")
    epochs.add_argument("--tmin", type=float, default=0.0, metavar="S", help="begin, in s from the onset (default: 0)")
    epochs.add_argument("--tmax", type=float, default=0.5, metavar="S", help="end, in s from the onset")
    epochs.add_argument("--band", default="5,95", metavar="LOW,HIGH", help="pass band in Hz")
    epochs.add_argument("--sfreq", type=float, metavar="HZ", help="resample to this rate (default: no resampling)")
    split = parser.add_argument_group("splits")
    split.add_argument("--split", default="item", metavar="A,B", help=f"{', '.join(SPLITS)}; item (by image) is always "
                       "made; the other splits separate images as well")
    split.add_argument("--block-column", metavar="COLUMN", help="column of events.tsv with the block "
                       "(default: the recording, where a session has several)")
    split.add_argument("--seed", type=int, default=0, metavar="N", help="draws the images of each part")
    split.add_argument("--leaky", metavar="TEXT", help="'no: REASON' or 'yes: REASON': whether anything but the image "
                       "tells the class of a test trial (default: what the audit finds in the order of the events)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prepares the data set and prints its audit; returns the exit code. Raises BenchError for input that is not as
    expected."""
    from bench.data import bids_pairs  # not at the top: --help and `bench data status` need no mne

    settings, root = _settings(options), Path(options.bids)
    out = Path(options.data) / (options.name or root.resolve().name)
    own.check_name(out.name)  # as own.prepare does, but before the recordings are read
    if (out / MANIFEST).is_file() and not options.dry_run:
        raise BenchError(f"{out} is already prepared; remove it, or choose another --name")
    plan = bids_pairs.make_plan(root, settings)
    print(f"{root}\n{bids_pairs.describe(plan)}")
    splits = [name.removeprefix("part_") for name in map(str, plan.trials) if name.startswith("part_")]
    if options.dry_run:
        return errors.OK
    leaky = {split: options.leaky or _derive_leak(plan, split) for split in splits}
    with show_progress(console) as progress:
        bids_pairs.prepare(plan, out, leaky, lambda done, total, **_: progress(done, total))
    table = pd.read_csv(out / "trials.csv", keep_default_na=False)
    rejected = prepared.read_manifest(out)[0]["rejected"]
    print(f"\n{out}: {len(table):,} trials written; rejected: {describe_counts(rejected)}")
    eeg = np.load(out / prepared.eeg_file(plan.band), mmap_mode="r")
    pictures = np.load(out / "pictures.npy", mmap_mode="r")
    stated = dict(leaky)
    for split in splits:
        report = _audit(table, split, eeg, pictures, options.leaky or "no")
        print(f"\naudit of split {split} (stated: {stated[split]})\n{report.render()}")
        if report.leaky and not options.leaky:
            leaky[split] = report.verdict
        elif report.leaky and stated[split].startswith("no"):
            print(f"warning: --leaky says {stated[split]!r}, and the audit finds a leak", file=sys.stderr)
    if leaky != stated:  # the EEG and the images tell more than the table of trials
        writing.write_manifest(out, prepared.read_manifest(out)[0] | {"leaky": leaky})
    return errors.OK


def _settings(options: argparse.Namespace) -> Settings:
    from bench.data.bids_pairs import Settings

    splits = names(options.split)
    if unknown := [split for split in splits if split not in SPLITS]:
        raise BenchError(f"--split {options.split}: no split {unknown[0]!r}; expected {', '.join(SPLITS)}")
    band = read_band(options.band)
    if not -float("inf") < options.tmin < options.tmax < float("inf"):
        raise BenchError(f"--tmin {options.tmin:g} --tmax {options.tmax:g}: the end must be after the begin")
    if options.sfreq is not None and not 0 < options.sfreq < float("inf"):
        raise BenchError(f"--sfreq {options.sfreq:g}: a number above 0 is expected")
    if options.seed < 0:
        raise BenchError(f"--seed {options.seed}: a whole number from 0 on is expected")
    if options.leaky and not options.leaky.startswith(("no: ", "yes: ")):
        raise BenchError(f"--leaky {options.leaky!r}: expected 'no: ' or 'yes: ' and the reason")
    judge = dict[str, int]()
    for pair in names(options.judge):
        name, _, number = pair.rpartition("=")
        if not name or not number.isdecimal():
            raise BenchError(f"--judge {pair}: NAME=NUMBER is expected, such as dog=207")
        judge[name] = int(number)
    subjects, sessions, tasks = (tuple(label.removeprefix(prefix) for label in names(text)) for prefix, text in (
        ("sub-", options.subjects), ("ses-", options.sessions), ("task-", options.tasks)))
    return Settings(Path(options.images), options.event_column, options.class_column, options.block_column,
                    options.tmin, options.tmax, band, options.sfreq, splits, options.seed,
                    writing.parse_side(options.size), subjects, sessions, tasks, judge)


def _derive_leak(plan: Plan, split: str) -> str:
    """Returns "no: ..." or "yes: ...", as the audit of the table of trials finds. Raises BenchError if it cannot."""
    shares = "no image is in two parts" if split == "item" else f"no image and no {split} is in two parts"
    if len(plan.classes) == 1:
        return f"no: {shares}, and all images are of one class"
    report = _audit(plan.trials, split)
    if report.leaky:
        return report.verdict
    if unknown := [finding for finding in report.findings if finding.name == ORDER and finding.severity == UNKNOWN]:
        raise BenchError(f"split {split}: whether the order of the events tells the class cannot be known "
                         f"({unknown[0].example}); state it: --leaky 'no: REASON' or --leaky 'yes: REASON'")
    return f"no: {shares}, and the order of the events does not tell the class"


def _audit(table: pd.DataFrame, split: str, eeg: Any = None, pictures: Any = None, known: str = "no") -> Report:
    rows = np.flatnonzero(table[f"part_{split}"] != "")
    chosen = table.iloc[rows].rename(columns={f"part_{split}": "part"}).reset_index(drop=True)
    left_out = (split,) if split in ("subject", "block") else ()
    if len(rows) < len(table) and eeg is not None:
        eeg = eeg[rows]
    return audit(chosen, eeg, pictures, known=known, left_out=left_out)
