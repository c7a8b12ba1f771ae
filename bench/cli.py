"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from bench import ablation, doctor, encoders, engines, errors, fetch, gc, prepare, status
from bench.errors import BenchError
from bench.plan import systems
from bench.scale import SCALES, scale

EXAMPLES = """examples:
  bench run --ablation mask_ratio                 Table 2's rows on the mask ratio, minutes on two cores
  bench run --ablation table2 --seeds 0,1,2       all 15 rows, three seeds
  bench run --ablation mine.py --variants a,b     two variants of your own file
  bench table mask_ratio                          the table again, from its CSV
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise BenchError(f"{message} (see: {self.prog} --help)")


def parser() -> Parser:
    """All commands and their options."""
    top = Parser(prog="bench", description="An ablation benchmark for EEG-to-image generation.", epilog=EXAMPLES,
                 formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help)

    listing = command("list", "what there is: ablations with their variants, encoders, scales")
    listing.add_argument("--json", action="store_true", help="for programs")

    for name, help in (("run", "build, score and tabulate an ablation"),
                       ("plan", "what `run` would build, and what is stored"),
                       ("status", "what runs in a store, and how far the rows of an ablation are")):
        it = command(name, help)
        it.add_argument("--ablation", required=name != "status", metavar="NAME|FILE")
        it.add_argument("--scale", default="tiny", help=f"one of {', '.join(SCALES)} (default: tiny)")
        it.add_argument("--variants", metavar="A,B", help="these rows alone (default: all)")
        it.add_argument("--subjects", metavar="1,2|all", help="every row once for each of these subjects alone")
        it.add_argument("--with-controls", action="store_true",
                        help="beside every variant also its EEG shuffled, replaced by a surrogate, and set to zero")
        it.add_argument("--seeds", default="0", metavar="0,1,2", help="default: 0")
        it.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
        it.add_argument("--pairs", metavar="NAME", help="a prepared data set (default: the scale's)")
        it.add_argument("--corpus", metavar="NAME", help="a prepared corpus for pre-training (default: the scale's)")
        it.add_argument("--processes", type=int, metavar="N", help="data parallel over N processes (default: 1)")
        it.add_argument("--store", default=".bench", metavar="DIR", help="where stages are kept (default: .bench)")
        _places(it)
        if name == "plan":
            it.add_argument("--gpu", metavar="NAME", help="what it would cost on an h200, h100, a100 or 4090")
            it.add_argument("--gpus", type=int, metavar="N", help="on so many (default: 1)")
        if name == "status":
            status.add_options(it)
        if name == "run":
            it.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core; on a GPU one)")
            it.add_argument("--results", default="results", metavar="DIR", help="default: results")
            it.add_argument("--reference", action="store_true", help="write to DIR/reference/, the suite's own runs")
            status.add_run_options(it)
            engines.add_options(it)
            it.add_argument("--fail-fast", action="store_true", help="begin nothing new after a stage has failed")
            it.add_argument("--dry-run", action="store_true", help="say what would be built, and stop")

    table = command("table", "print a table from its CSV")
    table.add_argument("ablation", metavar="NAME|FILE", nargs="?", help="an ablation, table1, or a CSV of `score`")
    table.add_argument("--check", metavar="FILE.md", help="compare the tables in a document with their CSVs")
    table.add_argument("--write", action="store_true", help="with --check: put them right")
    table.add_argument("--scale", default="tiny")
    table.add_argument("--results", default="results", metavar="DIR")
    table.add_argument("--reference", action="store_true", help="the suite's own run")
    table.add_argument("--pairs", metavar="NAME", help="the run on that data set")
    table.add_argument("--subjects", metavar="1,2|all", help="the rows that the same option of `run` makes")
    table.add_argument("--with-controls", action="store_true", help="with the rows that the same flag of `run` adds")
    table.add_argument("--format", choices=("text", "md", "latex", "html", "csv"), default="text")

    audit = command("audit", "leaks between the parts of a data set: what a decoder could use beside the stimulus")
    audit.add_argument("--scale", default="tiny", help="its trials in the store (default: tiny)")
    audit.add_argument("--trials", metavar="DIR", help="instead of them a folder: trials.csv, eeg.npy, pictures.npy")
    audit.add_argument("--left-out", default="", metavar="COLUMN,...",
                       help="what the split is said to keep out of training, such as subject or label")
    audit.add_argument("--ablation", metavar="NAME|FILE", help="instead of them the rows of an ablation")
    audit.add_argument("--store", default=".bench", metavar="DIR")
    _places(audit)

    figure = command("figure", "draw a counterpart of the paper's Figure 3, 4, 5 or 6 from the store")
    figure.add_argument("figure", type=int, choices=(3, 4, 5, 6))
    figure.add_argument("--ablation", default="figure5", metavar="NAME|FILE", help="default: figure5")
    figure.add_argument("--scale", default="tiny")
    figure.add_argument("--seeds", default="0", metavar="0,1,2", help="default: 0")
    figure.add_argument("--device", default="auto", help="that of the run (default: auto)")
    figure.add_argument("--store", default=".bench", metavar="DIR")
    _places(figure)
    figure.add_argument("--out", metavar="PNG", help="default: results/SCALE/figureN.png")

    scoring = command("score", "score a folder of pictures, made by anybody, against the real ones")
    scoring.add_argument("generated", metavar="GENERATED", help="a folder of pictures, or an .npy or .npz file")
    scoring.add_argument("reference", metavar="REFERENCE", help="the real ones, by the same names (docs/metrics.md)")
    scoring.add_argument("--labels", metavar="CSV", help="columns name and label, the judge's number of the class")
    scoring.add_argument("--metrics", metavar="A,B", help="these alone (default: all that the judge allows)")
    scoring.add_argument("--judge", default="tiny", metavar="tiny|FILE|none", help="default: tiny")
    scoring.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    scoring.add_argument("--csv", metavar="FILE", help="rows that `bench table FILE` reads")
    scoring.add_argument("--json", metavar="FILE", help="for programs")

    status.add_log_options(command("logs", "the log of a stage: its attempts, progress and failures"))
    data = command("data", "prepare data sets and corpora for the paper's scale, and say what is prepared")
    prepare.add_options(data)
    fetching = command("fetch", "download the pinned weights of the paper's scale")
    fetch.add_options(fetching)
    examining = command("doctor", "whether a scale can run here: Python, packages, GPU, disk, weights, data")
    doctor.add_options(examining)

    keeping = command("store", "what lies in the store")
    gc.add_store_options(keeping)
    collecting = command("gc", "remove from the store what no result stands on")
    gc.add_options(collecting)

    prior = command("prior", "train the frozen parts and put them into bench/prior/, or check those that are shipped")
    prior.add_argument("--check", action="store_true", help="print the gates of the shipped parts")
    prior.add_argument("--parts", metavar="A,B", help="adapter, captioner: these alone, beside the others as shipped")
    prior.add_argument("--device", default="auto")
    prior.add_argument("--store", default=".bench", metavar="DIR")
    return top


def _places(it: argparse.ArgumentParser) -> None:
    it.add_argument("--data", metavar="DIR", help="where prepared data lie (default: .bench-data)")
    it.add_argument("--weights", metavar="DIR", help="where weights lie, before the libraries' own caches")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code (0, 1, 2, 3, 75 or 130)."""
    console = Console(soft_wrap=True)
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        options = parser().parse_args(arguments)
        return COMMANDS[options.command](options, console)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bench: interrupted; what is complete is kept, and the same command goes on from there", file=sys.stderr)
        return errors.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.OK


def _list(options: argparse.Namespace, console: Console) -> int:
    loaded = [ablation.load(name) for name in ablation.names()]
    if options.json:
        print(json.dumps({
            "ablations": {a.name: {"title": a.title, "variants": [v.name for v in a.variants],
                                   "contrasts": a.contrasts} for a in loaded},
            "encoders": encoders.names(), "systems": systems(), "scales": list(SCALES)}, indent=1))
        return errors.OK
    for a in loaded:
        print(f"{a.name:14s}{a.title}\n{'':14s}variants: {', '.join(v.name for v in a.variants)}")
    print(f"\nencoders: {', '.join(encoders.names())}\nsystems: {', '.join(systems())}\nscales: {', '.join(SCALES)}")
    return errors.OK


def _plan(options: argparse.Namespace, console: Console) -> int:
    from bench import report

    return report.plan(options, console)


def _run(options: argparse.Namespace, console: Console) -> int:
    from bench import report

    return report.plan(options, console) if options.dry_run else report.go(options, console)


def _table(options: argparse.Namespace, console: Console) -> int:
    from threadpoolctl import threadpool_limits

    from bench import tables

    if (options.check is None) == (options.ablation is None) or (options.write and not options.check):
        raise BenchError("bench table takes either a name, or --check FILE.md (with --write to put tables right)")
    if options.check:
        plain = vars(parser().parse_args(["table", "--check", options.check])) | {
            name: getattr(options, name) for name in ("results", "write")}
        if given := [name for name, value in vars(options).items() if value != plain[name]]:
            raise BenchError(f"bench table --check and --{given[0].replace('_', '-')}: each table's mark in the file "
                             "says which it is; leave that option out")
        differences = tables.check(Path(options.check), Path(options.results), options.write)
        for difference in differences:
            print(f"{options.check}: {difference.name} written" if options.write else f"bench: {difference}",
                  file=sys.stdout if options.write else sys.stderr)
        return errors.USAGE if differences and not options.write else errors.OK
    at = scale(options.scale)
    if options.ablation == "table1" and (options.subjects or options.with_controls):
        raise BenchError("table1 is Full's alone: it has no --subjects and no --with-controls")
    folder = Path(options.results) / ("reference" if options.reference else "") / at.name / (options.pairs or "")
    with threadpool_limits(1):  # so small a product takes 50 times as long on two threads
        printed = tables.named(options.ablation, folder, options.with_controls,
                               ablation.subjects(options.subjects, at))
    print(printed.render(options.format))
    return errors.OK


def _prior(options: argparse.Namespace, console: Console) -> int:
    from bench import report

    return report.prior(options, console)


def _audit(options: argparse.Namespace, console: Console) -> int:
    from bench import audit

    return audit.main(options, console)


def _figure(options: argparse.Namespace, console: Console) -> int:
    from bench import figure

    return figure.main(options, console)


def _score(options: argparse.Namespace, console: Console) -> int:
    from bench.results import replace_file, writing
    from bench.run import device
    from bench.train.measure import compare

    files = {kind: Path(name) for kind, name in (("csv", options.csv), ("json", options.json)) if name}
    for path in files.values():
        if not path.absolute().parent.is_dir():
            raise BenchError(f"no folder {path.parent} to write {path.name} into")
    watched = sys.stderr.isatty()
    found = compare(Path(options.generated), Path(options.reference), options.labels and Path(options.labels),
                    options.metrics.split(",") if options.metrics else None, options.judge, device(options.device),
                    lambda step, total: print(f"\r{step} of {total}", end="", file=sys.stderr) if watched else None)
    print("\r" * watched + found.text())
    for kind, path in files.items():
        with writing(path):
            replace_file(path, getattr(found, kind)())
    return errors.OK


COMMANDS = {"list": _list, "run": _run, "plan": _plan, "table": _table, "audit": _audit, "figure": _figure,
            "score": _score, "data": prepare.main, "fetch": fetch.main, "doctor": doctor.main, "store": gc.store,
            "gc": gc.main, "prior": _prior, "status": status.main, "logs": status.logs}
