"""`bench protocol`: makes a challenge whose labels are held back, and scores what participants send."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.commands.options import add_device
from bench.errors import count_of
from bench.runtime import device


def add_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="make|score")
    make = actions.add_parser("make", help="make a challenge from test images", description="Make a challenge.")
    items = make.add_argument_group("test set")
    items.add_argument("images", metavar="IMAGES", help="the test images: a folder, or an .npy or .npz file")
    items.add_argument("--name", required=True, metavar="NAME", help="of the challenge")
    items.add_argument("--labels", metavar="CSV", help="columns name and label, the judge's class numbers "
                       "(default: none)")
    items.add_argument("--eeg", metavar="NPY", help="the EEG [N, ...], a row for each image in the order of their "
                       "names (default: none; hand it out yourself)")
    rules = make.add_argument_group("rules and output")
    rules.add_argument("--samples", type=int, default=1, metavar="N", help="images of each item (default: 1)")
    rules.add_argument("--judge", default="tiny", metavar="NAME|FILE", help="as of bench score (default: tiny)")
    rules.add_argument("--hide", action="store_true", help="keep images and labels out of the public part (default: "
                       "they are in it)")
    rules.add_argument("--out", default="challenge", metavar="DIR", help="the new folder (default: challenge)")
    score = actions.add_parser("score", help="score a participant's images",
                               description="Score a participant's images.")
    score.add_argument("secret", metavar="SECRET", help="the secret part of the challenge")
    score.add_argument("generated", metavar="GENERATED", help="the images: NUMBER.png, or NUMBER_0.png, "
                       "NUMBER_1.png, ...")
    score.add_argument("--name", required=True, metavar="NAME", help="of the system on the board")
    score.add_argument("--out", required=True, metavar="DIR", help="the new folder of the submission")
    add_device(score)


def main(options: argparse.Namespace, console: Console) -> int:
    """Makes a challenge or scores a submission, and prints where it is; returns the exit code."""
    from bench.tables.submission import challenge  # imports torch

    if options.action == "score":
        folder = challenge.score_challenge(Path(options.secret), Path(options.generated), options.name,
                                           Path(options.out), device(options.device))
        print(f"submission: {folder}\nboard: bench leaderboard {folder} ...")
        return errors.OK
    out = Path(options.out)
    made = challenge.make_protocol(Path(options.images), out, options.name, options.labels and Path(options.labels),
                                   options.eeg and Path(options.eeg), options.samples, options.judge, options.hide)
    samples = count_of(made["samples"], "sample")
    print(f"{made['name']}: {made['items']} items, {samples} of each, judge {made['judge']}")
    print(f"hand out: {out / challenge.PUBLIC}\nkeep:     {out / challenge.SECRET}")
    return errors.OK
