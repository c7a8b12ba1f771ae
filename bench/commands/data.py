"""`bench data`: prepares data sets and corpora in the suite's form, and shows what is prepared."""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.commands import data_files, data_tiny, features, pairs
from bench.commands.options import read_band, read_subjects, show_progress
from bench.data import catalogue, corpora, file_corpus, prepared, shards
from bench.data.listing import describe_counts, list_files
from bench.data.prepared import MANIFEST
from bench.errors import ENVIRONMENT, BenchError
from bench.execute.progress import format_seconds
from bench.setup.request import DATA

PAIRS = {"imagenet_eeg": "bench.data.imagenet_eeg", "things_eeg2": "bench.data.things",
         "alljoined": "bench.data.alljoined"}
GB = 1e9
SHOWN = 10  # reasons and channels in a line
DESCRIPTION = """\
Prepares a data set of EEG and images from its published files, or a corpus for pre-training: from MOABB, which
downloads missing files, or from your own recordings (EDF, BDF, GDF, SET, BrainVision, FIF, CNT, BIDS):

  bench data prepare FOLDER --name mine --dry-run    what is in it, and what will be left out and why
  bench data prepare FOLDER --name mine              then: bench run --corpus mine

The same command resumes an interrupted one."""


def add_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="prepare|status|pairs|features|tiny")
    prepare = actions.add_parser("prepare", help="prepare a data set or a corpus", description=DESCRIPTION)
    common = prepare.add_argument_group("data sets and corpora")
    common.add_argument("sources", nargs="+", metavar="NAME|PATH", help=f"{', '.join(PAIRS)}; a corpus: "
                        f"{catalogue.TRAIN_ONLY}, {', '.join(catalogue.CORPORA_BY_NAME)}, MOABB data sets A,B, or "
                        "FILE.txt with one a line; with --name: files and folders of your own recordings")
    common.add_argument("--from", dest="source", metavar="DIR", help="folder of the published files; for a corpus "
                        "MOABB's downloads (default: MNE_DATA)")
    common.add_argument("--data", "--out", default=str(DATA), metavar="DIR", help="folder to write to")
    common.add_argument("--subjects", metavar="1,2", help="only these subjects (default: all); of own recordings the "
                        "labels that --dry-run prints")
    common.add_argument("--dry-run", action="store_true", help="print the approximate size, or what was found in your "
                        "own recordings, and stop")
    prepare.add_argument_group("data sets only").add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="an option of the data set; repeatable")
    corpus = prepare.add_argument_group("corpora only")
    corpus.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one for each core)")
    corpus.add_argument("--band", default="5,95", metavar="LOW,HIGH", help="pass band in Hz")
    corpus.add_argument("--sfreq", type=float, metavar="HZ", help="resample to this rate (default: no resampling)")
    corpus.add_argument("--stride", type=int, metavar="N", help="samples from window to window (default: no overlap)")
    corpus.add_argument("--per-subject", type=int, metavar="N", help="most windows of a subject (default: all)")
    corpus.add_argument("--allow-missing", action="store_true", help="finish without recordings that are unavailable")
    files = prepare.add_argument_group("corpora of your own recordings only")
    files.add_argument("--name", dest="title", metavar="NAME", help="name of the new corpus")
    files.add_argument("--subject-pattern", metavar="REGEX", default="", help="a pattern, searched in each file's "
                       "path, whose group is the person (default: sub-... of BIDS; else each folder in a given folder, "
                       "and each file outside of these)")
    status = actions.add_parser("status", help="show what is prepared and whether it is complete")
    status.add_argument("--data", default=str(DATA), metavar="DIR", help="folder of prepared data")
    status.add_argument("--verify", action="store_true", help="read every file and compare its hash")
    pairs.add_parser(actions)
    features.add_parser(actions)
    data_tiny.add_parser(actions)


def main(options: argparse.Namespace, console: Console) -> int:
    """Prepares or shows data; returns the exit code (1: `status --verify` found damage)."""
    if options.action == "pairs":
        return pairs.main(options, console)
    if options.action == "features":
        return features.main(options, console)
    if options.action == "tiny":
        return data_tiny.main(options, console)
    if options.action == "status":
        return _status(options)
    options.name = options.sources[0]
    if data_files.is_asked_for(options, PAIRS):
        folder = _prepare_files(options, console)
    else:
        folder = _prepare_pairs(options, console) if options.name in PAIRS else _prepare_corpus(options, console)
    if folder:
        print(_describe(folder))
        print("".join(f"{line}\n" for line in _describe_losses(folder)), end="")
    return errors.OK


def _prepare_files(options: argparse.Namespace, console: Console) -> Path | None:
    """Prepares a corpus of the user's own recordings; returns its folder, or None after --dry-run."""
    if options.set or options.source:
        raise BenchError(f"--{'set' if options.set else 'from'} cannot be combined with --name: your own recordings "
                         "are given by their files and folders")
    recordings, cutting = data_files.find(options), _cutting(options)
    if options.dry_run:
        print(data_files.describe(recordings, cutting))
        return None
    print(data_files.summarise(recordings))
    with show_progress(console) as progress:
        folder = file_corpus.prepare(options.title, Path(options.data), recordings,
                                     workers=options.workers or os.cpu_count() or 1, progress=progress,
                                     cutting=cutting, allow_missing=options.allow_missing, warn=data_files.warn)
    print(data_files.describe_result(folder))
    return folder


def _prepare_pairs(options: argparse.Namespace, console: Console) -> Path | None:
    """Prepares a data set of EEG and images; returns its folder, or None if nothing was done."""
    out = Path(options.data) / options.name
    try:
        module = importlib.import_module(PAIRS[options.name])
    except ModuleNotFoundError as error:
        raise BenchError(f"{options.name} needs the package {error.name}, which is not installed",
                         ENVIRONMENT) from error
    if options.source is None:
        sources = module.SOURCES
        lines = [f"{name}: {text}" for name, text in sources.items()] if isinstance(sources, dict) else \
            [sources] if isinstance(sources, str) else list(sources)
        raise BenchError(f"{options.name} is prepared from its published files: --from DIR with\n  "
                         + "\n  ".join(lines))
    if not Path(options.source).is_dir():
        raise BenchError(f"{options.source}: a folder with the files of {options.name} is expected")
    chosen = _settings(options.set, module.OPTIONS, options.name)
    if options.subjects:
        if "subjects" not in module.OPTIONS:
            raise BenchError(f"{options.name} always prepares all subjects; leave out --subjects")
        chosen["subjects"] = options.subjects
    if (out / MANIFEST).is_file():
        made = {name: str(value) for name, value in json.loads((out / MANIFEST).read_text()).get("options", {}).items()}
        if changed := [name for name, value in chosen.items() if name in made and made[name] != value]:
            had = ", ".join(f"{name}={made[name]}" for name in changed)
            raise BenchError(f"{out} was prepared with {had}; remove it, or prepare elsewhere with --data DIR")
        print(f"{out} is already prepared; remove it to prepare it again")
        return None
    if options.dry_run:
        size = _size(Path(options.source))
        print(f"{options.name}: {size / GB:.1f} GB of files in {options.source}; {out} needs about as much")
        return None
    with show_progress(console) as progress:
        module.prepare(Path(options.source), out, **chosen,
                       progress=lambda done, total, **_: progress(done, total))
    return out


def _prepare_corpus(options: argparse.Namespace, console: Console) -> Path | None:
    """Prepares a corpus of windows, from MOABB or from a prepared ImageNet-EEG; returns its folder, or None if nothing
    was done."""
    root = Path(options.data)
    if options.set:
        raise BenchError(f"--set is for {', '.join(PAIRS)}; the options of a corpus are in --help")
    if options.name == catalogue.TRAIN_ONLY:
        return None if options.dry_run else corpora.from_pairs(root, read_band(options.band))
    name, datasets = catalogue.parse_corpus(options.name)
    subjects = sorted(set(read_subjects(options.subjects))) if options.subjects not in (None, "all") else None
    cutting = _cutting(options)
    if options.source:
        if not Path(options.source).is_dir():
            raise BenchError(f"{options.source}: the folder of MOABB's downloads is expected; create it if it is new")
        os.environ["MNE_DATA"] = str(Path(options.source).resolve())
    catalogue.check_names(datasets)
    workers = options.workers or os.cpu_count() or 1
    if not (root / corpora.CORPORA / name / MANIFEST).is_file():
        about = catalogue.estimate_size(datasets, cutting, subjects)
        print(f"{name}: {len(datasets)} data sets, {about.people} subjects; about {about.windows:,} windows, "
              f"{about.disk / GB:.1f} GB on disk, {about.download / GB:.0f} GB to download (less what is present), "
               f"{format_seconds(about.seconds / workers)} on {workers} workers without the download. MOABB states "
               "neither durations nor sizes: the estimate may be wrong by a factor of three")
        free = shutil.disk_usage(next(folder for folder in (root, *root.resolve().parents) if folder.is_dir())).free
        if about.disk > free:
            print(f"warning: the disk of {root} has {free / GB:.1f} GB left; fewer windows: --per-subject N",
                  file=sys.stderr)
    if options.dry_run:
        return None
    with show_progress(console) as progress:
        return corpora.prepare(name, root, datasets, subjects, workers=workers, progress=progress, cutting=cutting,
                               allow_missing=options.allow_missing)


def _status(options: argparse.Namespace) -> int:
    """Prints a line for each prepared or unfinished folder, by its manifest; --verify also compares all hashes."""
    root = Path(options.data)
    inner = root / corpora.CORPORA
    folders = [folder for folder in (*sorted(root.glob("*/")), *sorted(inner.glob("*/")))
               if folder != inner and folder.suffix != ".partial" and not folder.name.startswith(".")]
    lines = [_describe(folder) for folder in folders]
    lines += [_line(name, _size(inner / f"{name}.partial"), f"incomplete: {done} subjects done; the same command "
                    "resumes") for name, done in corpora.list_unfinished(root)]
    print("\n".join(lines) or f"nothing is prepared in {root}: bench data prepare NAME")
    if not options.verify:
        return errors.OK
    damage = [line for folder in folders if (folder / MANIFEST).is_file()
              for line in (shards if folder.parent == inner else prepared).verify(folder)]
    for line in damage:
        print(f"bench: {line}", file=sys.stderr)
    if not damage:
        print("every file has the hash in its manifest")
    return errors.SOME_FAILED if damage else errors.OK


def _describe(folder: Path) -> str:
    """A line about a prepared folder, by its manifest and the sizes of its files."""
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest = json.loads(text)
        files = {name: entry["bytes"] for name, entry in manifest["files"].items()}
        if manifest["kind"] == "corpus":
            files |= {shard["file"]: shard["bytes"] for shard in manifest["shards"]}
            counts = sorted({shard["channels"] for shard in manifest["shards"]})
            rows, bands = f"{manifest['windows']:,} windows", [manifest["band"]]
            channels = f"{counts[0]}-{counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        else:
            bands, channels = manifest["bands"], f"{manifest['n_chans']}"
            with (folder / "trials.csv").open(newline="") as file:  # a value may have several lines
                rows = f"{sum(1 for _ in csv.reader(file)) - 1:,} trials"
    except (OSError, ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
        return _line(folder.name, _size(folder), f"incomplete: {MANIFEST} cannot be read ({type(error).__name__}); "
                     "remove the folder and prepare it again")
    wrong = [name for name, size in files.items()
             if not (folder / name).is_file() or (folder / name).stat().st_size != size]
    state = f"incomplete: {wrong[0]} is missing or of another size" if wrong else "complete"
    if not wrong and manifest.get("missing"):
        state = f"complete without {len(manifest['missing'])} subjects"
    elif not wrong and (unreadable := [entry for entry in manifest.get("recordings", ()) if "unreadable" in entry]):
        state = f"complete without {len(unreadable)} recordings"
    band = ", ".join("-".join(f"{edge:g}" for edge in band) for band in bands)
    return _line(manifest["name"], sum(files.values()), state, rows, channels, band,
                 hashlib.sha256(text).hexdigest()[:12])


def _line(name: str, size: int, state: str, rows: str = "-", channels: str = "-", band: str = "-",
          sha256: str = "-") -> str:
    return (f"{name:<26}{rows:>18}  {channels:>7} channels  {band:>10} Hz  {size / 1e6:>10,.1f} MB  {sha256:<12}  "
            f"{state}")


def _describe_losses(folder: Path) -> Iterator[str]:
    """Yields a line each on what was skipped, rejected and repaired, and on bad channels, by a folder's manifest."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for key in ("skipped", "rejected", "repaired", "bad_channels"):
        total = Counter[str]()
        for entry in manifest.get("datasets_found", [manifest]):
            total.update(entry.get(key, {}))
        if total:
            more = f" and {len(total) - SHOWN} more, in {folder / MANIFEST}" if len(total) > SHOWN else ""
            yield f"  {key.replace('_', ' ')}: {describe_counts(dict(total.most_common(SHOWN)))}{more}"


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in list_files(folder, hidden=True).files if file.is_file())


def _settings(given: Sequence[str], known: dict[str, str], name: str) -> dict[str, str]:
    """OPTION=VALUE pairs as a dict. Raises BenchError for an option that the data set does not have."""
    settings = {}
    for pair in given:
        option, equals, value = pair.partition("=")
        if not equals or option not in known:
            every = "; ".join(f"{option}: {help}" for option, help in known.items()) or "none"
            raise BenchError(f"--set {pair}: {name} has the options {every}; write OPTION=VALUE")
        settings[option] = value
    return settings


def _cutting(options: argparse.Namespace) -> catalogue.Cutting:
    """Returns how recordings become windows. Raises BenchError for an option that is no number above 0."""
    for option in ("workers", "stride", "sfreq", "per_subject"):
        if (value := vars(options)[option]) is not None and not 0 < value < float("inf"):
            raise BenchError(f"--{option.replace('_', '-')} {value}: a number above 0 is expected")
    return catalogue.Cutting(read_band(options.band), sfreq=options.sfreq, stride=options.stride or catalogue.N_TIMES,
                             per_subject=options.per_subject)
