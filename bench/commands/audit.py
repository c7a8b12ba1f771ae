"""`bench audit`: finds leaks between the parts of a data set, or in what an ablation's rows are trained on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import errors
from bench.arguments import names
from bench.commands.options import add_ablation, add_places, add_scale, output_file, request_of
from bench.data import prepared
from bench.data.shards import read_first_channels
from bench.errors import BenchError
from bench.experiment import ablation
from bench.experiment.scale import Scale
from bench.experiment.stages import Prepared, Shards, Trials
from bench.files import replace_file, writing
from bench.scoring.audit import Array, Report, claimed, json_bytes, read, trained_on
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
    output = parser.add_argument_group("output")
    output.add_argument("--json", nargs="?", const="", metavar="FILE",
                        help="write the whole report as JSON; without FILE, print it instead of the text")
    add_places(parser)


def main(options: argparse.Namespace, console: Console) -> int:
    """Audits a folder (with corpus.npy if it exists), the rows of an ablation, or the stored trials and corpus of a
    scale; builds nothing.

    Prints findings and verdict, or writes them as JSON; returns 1 for a leak, else 0. Raises BenchError for missing
    input.
    """
    file = output_file(options.json) if options.json else None
    request = request_of(options)
    if request.ablation and (options.trials or options.left_out):
        raise BenchError("--ablation audits the trials of its rows; give --trials and --left-out without it")
    text, document = _audit_rows(request) if request.ablation else _audit_trials(request, options)
    if options.json == "":
        print(json_bytes(document).decode(), end="")
    else:
        print(text)
    if file:
        with writing(file):
            replace_file(file, json_bytes(document))
    return errors.SOME_FAILED if document["leaky"] else errors.OK


def _audit_trials(request: Request, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Audits the folder of --trials, or the stored trials and corpus of a scale; returns the text and the JSON."""
    corpus: Path | Array | None = None
    known, left_out = "no", names(options.left_out)
    if options.trials:
        folder, title = Path(options.trials), options.trials
        corpus = folder / "corpus.npy"
    else:
        scale, store = places.resolve_scale(request, needed=False), Store(request.store, create=False)
        trials = scale.items().trials
        if not store.is_intact(trials):
            raise BenchError(f"no trials of scale {scale.name} in the store {options.store}; make them with a run such "
                             f"as: bench run --ablation clip --scale {scale.name} --store {options.store}; trials of "
                             f"other rows are audited with: bench audit --ablation NAME --scale {scale.name}")
        folder, title = store.path(trials), f"scale {scale.name}, store {options.store}"
        left_out += claimed(trials)
        known, corpus = _describe_known(trials), _open_corpus(scale, store)
    report = read(folder, corpus, known, left_out)
    counts = ", ".join(f"{count} {part}" for part, count in report.parts.items())
    return f"{title}: {counts} trials\n\n{report.render()}", {"audited": title, **report.as_dict()}


def _describe_known(trials: Trials) -> str:
    return prepared.describe_leak(trials.world, trials.split) if isinstance(trials.world, Prepared) else "no"


def _open_corpus(scale: Scale, store: Store) -> Path | Array | None:
    """Returns the windows of the scale's corpus; None if it has none or it is not stored."""
    try:
        windows = scale.windows()
    except errors.NotAvailable:
        return None
    if not store.is_intact(windows):
        return None
    path = store.path(windows)
    return read_first_channels(path) if isinstance(windows.world, Shards) else path / "windows.npy"


def _audit_rows(request: Request) -> tuple[str, dict[str, Any]]:
    """Audits what the rows of an ablation are trained on, and their trials if they are stored; returns the text and the
    JSON."""
    scale, store = places.resolve_scale(request, needed=False), Store(request.store, create=False)
    lines, rows, missing, reports = list[str](), list[dict[str, Any]](), list[dict[str, str]](), dict[Trials, Report]()
    for variant in ablation.load(request.ablation).variants:
        try:
            score = plan(variant, scale.items(), scale, 0)
        except errors.NotAvailable as error:
            lines.append(f"{variant.name}: left out at scale {scale.name} ({error})")
            missing.append({"variant": variant.name, "reason": str(error)})
            continue
        trials = score.items.trials
        if store.has(trials) and trials not in reports:
            reports[trials] = read(store.path(trials), known=_describe_known(trials), left_out=claimed(trials))
        report = reports.get(trials)
        leaks = [text for text in (trained_on(score), report.verdict.removeprefix("yes: ") if report and report.leaky
                                   else "") if text]
        verdict = f"yes: {'; '.join(leaks)}" if leaks else "no"
        lines.append(f"{variant.name}: {verdict}" + (
            "" if report else " (its trials are not stored; only what it is trained on was checked)"))
        rows.append({"variant": variant.name, "leaky": bool(leaks), "verdict": verdict,
                     "trials": trials.key if report else None})
    for trials, report in reports.items():  # not a row: the verdicts are on standard output, one a line
        print(f"trials {trials.key[:12]}, not checked: {report.unchecked or 'nothing'}", file=sys.stderr)
    return "\n".join(lines), {
        "audited": f"ablation {request.ablation}, scale {scale.name}", "leaky": any(row["leaky"] for row in rows),
        "rows": rows, "left_out": missing,
        "trials": {trials.key: report.as_dict() for trials, report in reports.items()}}
