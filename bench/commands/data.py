"""`bench data`: brings data sets and corpora into the suite's form, and says what is there."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import errors
from bench.data.prepared import MANIFEST
from bench.errors import ENVIRONMENT, BenchError
from bench.setup.request import DATA

PAIRS = {"imagenet_eeg": "bench.data.imagenet_eeg", "things_eeg2": "bench.data.things",
         "alljoined": "bench.data.alljoined"}
GB = 1e9


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `bench data prepare` and `bench data status`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    it = actions.add_parser("prepare", help="bring a data set or a corpus into the suite's form", description=(
        "A data set of EEG and pictures from its published files, or a corpus for pre-training from MOABB, which "
        "downloads what is not there. Interrupted, the same command goes on."))
    it.add_argument("name", metavar="NAME", help=f"{', '.join(PAIRS)}; a corpus: moabb_v046, moabb_all, "
                    "imagenet_eeg_train_only, fake, a list of MOABB's data sets (A,B), or FILE.txt with one on a line")
    it.add_argument("--from", dest="source", metavar="DIR", help="where its files lie; of a corpus: where MOABB keeps "
                    "its downloads (default: as MNE_DATA says)")
    it.add_argument("--data", "--out", default=str(DATA), metavar="DIR", help=f"where it goes (default: {DATA})")
    it.add_argument("--subjects", metavar="1,2", help="these alone (default: all)")
    it.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="an option of the data set")
    it.add_argument("--dry-run", action="store_true", help="say about how much it is, and stop")
    corpus = it.add_argument_group("of a corpus")
    corpus.add_argument("--workers", type=int, metavar="N", help="processes, a subject each (default: one a core)")
    corpus.add_argument("--band", default="5,95", metavar="LOW,HIGH", help="Hz (default: 5,95)")
    corpus.add_argument("--sfreq", type=float, metavar="HZ", help="resample to this rate (default: each its own)")
    corpus.add_argument("--stride", type=int, metavar="N", help="samples between windows (default: side by side)")
    corpus.add_argument("--per-subject", type=int, metavar="N", help="windows of each subject at most (default: all)")
    corpus.add_argument("--allow-missing", action="store_true", help="finish without what cannot be had")
    status = actions.add_parser("status", help="what is prepared, and whether it is complete")
    status.add_argument("--data", default=str(DATA), metavar="DIR", help=f"default: {DATA}")
    status.add_argument("--verify", action="store_true", help="read every file and compare it with its hash")


def main(options: argparse.Namespace, console: Console) -> int:
    """Runs options.action and returns the exit code: 0; of `status --verify`, 1 where a file is damaged."""
    return {"prepare": _prepare, "status": _status}[options.action](options, console)


def _prepare(options: argparse.Namespace, console: Console) -> int:
    return _pairs(options, console) if options.name in PAIRS else _corpus(options, console)


def _pairs(options: argparse.Namespace, console: Console) -> int:
    """A data set of EEG and pictures, by its own module."""
    module, out = _module(options.name), Path(options.data) / options.name
    if options.source is None:
        raise BenchError(f"{options.name} is prepared from its published files: --from DIR with\n  "
                         + "\n  ".join(_lines(module.SOURCES)))
    if not Path(options.source).is_dir():
        raise BenchError(f"{options.source}: a folder with the files of {options.name} is expected there")
    chosen = _settings(options.set, module.OPTIONS, options.name)
    if options.subjects:
        if "subjects" not in module.OPTIONS:
            raise BenchError(f"{options.name} has no choice of subjects; all are prepared")
        chosen["subjects"] = options.subjects
    if (out / MANIFEST).is_file():
        made = {name: str(value) for name, value in json.loads((out / MANIFEST).read_text()).get("options", {}).items()}
        if other := {name: value for name, value in chosen.items() if name in made and made[name] != value}:
            had = ", ".join(f"{name}={made[name]}" for name in other)
            raise BenchError(f"{out} was prepared with {had}; remove it, or prepare elsewhere with --data DIR")
        console.print(f"{out} is prepared already; remove it to prepare it again", markup=False, highlight=False)
        return errors.OK
    if options.dry_run:
        size = sum(file.stat().st_size for file in Path(options.source).rglob("*") if file.is_file())
        console.print(f"{options.name}: {size / GB:.1f} GB of files in {options.source}; about as much goes to {out}",
                      markup=False, highlight=False)
        return errors.OK
    with _bar(console) as progress:
        module.prepare(Path(options.source), out, **chosen,
                       progress=lambda done, total, **_: progress(done, total, ""))
    console.print(_line(_entry(out)), markup=False, highlight=False)
    return errors.OK


def _corpus(options: argparse.Namespace, console: Console) -> int:
    """A corpus of windows, from MOABB or from a prepared ImageNet-EEG."""
    from bench.data import catalogue, corpora

    root, low_high = Path(options.data), _band(options.band)
    if options.set:
        raise BenchError(f"--set is for {', '.join(PAIRS)}; a corpus has options of its own (see --help)")
    if options.name == catalogue.TRAIN_ONLY:
        if not options.dry_run:
            corpora.from_pairs(root, low_high)
            console.print(_line(_entry(root / corpora.CORPORA / options.name)), markup=False, highlight=False)
        return errors.OK
    name, datasets = catalogue.members(options.name)
    subjects = _numbers(options.subjects) if options.subjects else None
    for what, value in (("--workers", options.workers), ("--stride", options.stride), ("--sfreq", options.sfreq),
                        ("--per-subject", options.per_subject)):
        if value is not None and not value > 0:
            raise BenchError(f"{what} {value}: a number above 0 is expected")
    if options.source:
        if not Path(options.source).is_dir():
            raise BenchError(f"{options.source}: the folder in which MOABB keeps its downloads is expected there; make "
                             "it, if nothing is downloaded yet")
        os.environ["MNE_DATA"] = str(Path(options.source).resolve())
    catalogue.check(datasets)
    cutting = catalogue.Cutting(low_high, sfreq=options.sfreq, stride=options.stride or catalogue.N_TIMES,
                              per_subject=options.per_subject)
    workers = options.workers or os.cpu_count() or 1
    if not (root / corpora.CORPORA / name / MANIFEST).is_file():
        about = catalogue.estimate(datasets, cutting, subjects)
        console.print(
            f"{name}: {len(datasets)} data sets, {about.people} subjects; about {about.windows:,} windows, "
            f"{about.disk / GB:.1f} GB on disk, {about.download / GB:.0f} GB to download (unless there), "
            f"{_duration(about.seconds / workers)} on {workers} workers without the download. MOABB states neither "
            "durations nor sizes: it may be three times as much, or a third", markup=False, highlight=False)
        free = shutil.disk_usage(next(folder for folder in (root, *root.resolve().parents) if folder.is_dir())).free
        if about.disk > free:
            print(f"warning: the disk of {root} has {free / GB:.1f} GB left; fewer windows: --per-subject N",
                  file=sys.stderr)
    if options.dry_run:
        return errors.OK
    with _bar(console) as progress:
        corpora.prepare(name, root, datasets, subjects, workers=workers, progress=progress, cutting=cutting,
                        allow_missing=options.allow_missing)
    console.print(_line(_entry(root / corpora.CORPORA / name)), markup=False, highlight=False)
    return errors.OK


class _bar:
    """A progress bar on a terminal; elsewhere a line for each step that has a text."""

    def __init__(self, console: Console):
        self.console = console
        self.bars = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                             TextColumn("left"), TimeRemainingColumn(), console=console, transient=True)
        self.task = self.bars.add_task("preparing")

    def __enter__(self) -> Callable[[int, int, str], None]:
        if self.console.is_terminal:
            self.bars.start()
        return self.advanced

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.bars.stop()

    def advanced(self, done: int, total: int, text: str) -> None:
        if self.console.is_terminal:
            self.bars.update(self.task, completed=done, total=total, description=text or "preparing")
        elif text:
            self.console.print(f"[{done}/{total}] {text}", markup=False, highlight=False)


@dataclass(frozen=True)
class Entry:
    """A line of `bench data status`."""

    name: str
    rows: str
    channels: str
    band: str
    bytes: int
    sha256: str
    state: str


def entries(root: Path) -> list[Entry]:
    """What is prepared in a folder of data, finished or not, with sizes checked and hashes believed."""
    from bench.data import corpora

    at = root / corpora.CORPORA
    folders = [*sorted(root.glob("*/")), *sorted(at.glob("*/"))] if root.is_dir() else []
    found = [_entry(folder) for folder in folders
             if folder != at and folder.suffix != ".partial" and not folder.name.startswith(".")]
    return [*found, *(Entry(name, "-", "-", "-", _size(at / f"{name}.partial"), "",
                            f"incomplete: {done} subjects done; give the same command again")
                      for name, done in corpora.partial(root))]


def _status(options: argparse.Namespace, console: Console) -> int:
    root = Path(options.data)
    found = entries(root)
    if not found:
        console.print(f"nothing is prepared in {root}: bench data prepare NAME", markup=False, highlight=False)
    for entry in found:
        console.print(_line(entry), markup=False, highlight=False)
    if not options.verify:
        return errors.OK
    from bench.data import corpora, prepared, shards

    damage = []
    for manifest in sorted([*root.glob(f"*/{MANIFEST}"), *root.glob(f"{corpora.CORPORA}/*/{MANIFEST}")]):
        if manifest.parent.suffix != ".partial":
            corpus = manifest.parent.parent.name == corpora.CORPORA
            damage += (shards if corpus else prepared).verify(manifest.parent)
    for line in damage:
        print(f"bench: {line}", file=sys.stderr)
    if not damage:
        console.print("every file is as its manifest says", markup=False, highlight=False)
    return errors.SOME_FAILED if damage else errors.OK


def _entry(folder: Path) -> Entry:
    """A prepared folder by its manifest."""
    try:
        text = (folder / MANIFEST).read_bytes()
        it = json.loads(text)
        if it["kind"] == "corpus":
            files = {shard["file"]: shard["bytes"] for shard in it["shards"]} | _bytes(it["files"])
            channels = sorted({shard["channels"] for shard in it["shards"]})
            rows, bands = f"{it['windows']:,} windows", [it["band"]]
            shape = f"{channels[0]}-{channels[-1]}" if len(channels) > 1 else f"{channels[0]}"
        else:
            files, bands, shape = _bytes(it["files"]), it["bands"], f"{it['n_chans']}"
            rows = f"{sum(1 for _ in (folder / 'trials.csv').open()) - 1:,} trials"
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        return Entry(folder.name, "-", "-", "-", _size(folder), "", f"incomplete: no {MANIFEST} that can be read "
                     f"({type(error).__name__}); remove the folder and prepare it again")
    wrong = [name for name, size in files.items()
             if not (folder / name).is_file() or (folder / name).stat().st_size != size]
    state = f"incomplete: {wrong[0]} is missing or of another size" if wrong else "complete"
    if not wrong and it.get("missing"):
        state = f"complete without {len(it['missing'])} subjects"
    band = ", ".join("-".join(f"{edge:g}" for edge in band) for band in bands)
    return Entry(it["name"], rows, shape, band, sum(files.values()), hashlib.sha256(text).hexdigest(), state)


def _line(entry: Entry) -> str:
    return (f"{entry.name:<26}{entry.rows:>18}  {entry.channels:>7} channels  {entry.band:>10} Hz  "
            f"{entry.bytes / 1e6:>10,.1f} MB  {entry.sha256[:12] or '-':<12}  {entry.state}")


def _bytes(files: dict[str, dict[str, int]]) -> dict[str, int]:
    return {name: entry["bytes"] for name, entry in files.items()}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(PAIRS[name])
    except ModuleNotFoundError as error:
        raise BenchError(f"{name} needs the package {error.name}, which is not installed", ENVIRONMENT) from error


def _settings(given: Sequence[str], known: dict[str, str], name: str) -> dict[str, str]:
    """OPTION=VALUE pairs. Raises BenchError for an option that the data set does not have."""
    found = {}
    for pair in given:
        option, equals, value = pair.partition("=")
        if not equals or option not in known:
            there = "; ".join(f"{one}: {help}" for one, help in known.items()) or "none"
            raise BenchError(f"--set {pair}: {name} has the options {there}; write OPTION=VALUE")
        found[option] = value
    return found


def _lines(sources: object) -> list[str]:
    """SOURCES of a data set's module, a line each."""
    if isinstance(sources, dict):
        return [f"{name}: {text}" for name, text in sources.items()]
    return [str(sources)] if isinstance(sources, str) else [str(one) for one in sources]  # type: ignore[attr-defined]


def _band(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise BenchError(f"--band {text}: two numbers in Hz are expected, such as 5,95") from error
    if not 0 < low < high:
        raise BenchError(f"--band {text}: the second is above the first, and both above 0")
    return low, high


def _numbers(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise BenchError(f"--subjects {text}: numbers are expected, such as 1,2") from error


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"
