"""What `bench data prepare PATH... --name NAME` prints about a user's own recordings."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from bench.arguments import names
from bench.data import catalogue, eeg_files, file_corpus
from bench.data.catalogue import Cutting
from bench.data.eeg_files import Study
from bench.data.file_corpus import Header
from bench.data.listing import describe_counts, describe_names, describe_skipped
from bench.data.prepared import MANIFEST
from bench.errors import BenchError

WIDTH = 44  # of a file's path in a list; longer ones lose their beginning
EXAMPLES = 3  # warnings printed of a recording


def is_asked_for(options: argparse.Namespace, pairs: Collection[str]) -> bool:
    """Whether the arguments are paths of recordings. Raises BenchError for paths without --name, or --name without
    paths."""
    sources, known = options.sources, (*pairs, *catalogue.CORPORA_BY_NAME, catalogue.TRAIN_ONLY)
    if options.title is not None:
        for name in sources:
            if not Path(name).exists() and (name in known or _is_list(name)):
                raise BenchError(f"--name {options.title}: {name} has a name already; --name is for your own "
                                 "recordings, given by files and folders")
        if options.title in pairs:
            raise BenchError(f"--name {options.title}: this is the name of a published data set; choose another for "
                             "your own recordings")
        file_corpus.check_name(options.title)
        return True
    if options.subject_pattern:
        raise BenchError("--subject-pattern is for your own recordings; give the new corpus a name: --name NAME")
    first = sources[0]
    is_known = first in known or first.endswith(".txt") or not Path(first).exists() or _is_list(first)
    if len(sources) > 1 or not is_known:
        paths = [name for name in sources if Path(name).exists()]
        raise BenchError(f"{paths[0]}: for your own recordings give the new corpus a name: bench data prepare "
                         f"{' '.join(sources[:3])}{' ...' * (len(sources) > 3)} --name NAME" if paths else
                         f"{' '.join(sources)}: expected one name; write several MOABB data sets as one list, A,B")
    return False


def _is_list(text: str) -> bool:
    """Whether a text is a list of MOABB's data sets, "A,B". This imports MOABB, which takes seconds."""
    return "/" not in text and all(catalogue.is_dataset(part.strip()) for part in text.split(","))


def find(options: argparse.Namespace) -> Study:
    """Finds the recordings of the arguments, of the requested people only. Raises BenchError as `eeg_files.find`."""
    study = eeg_files.find([Path(name) for name in options.sources], options.subject_pattern)
    if options.subjects not in (None, "", "all"):
        study = study.only(names(options.subjects))
    eeg_files.check_bids(study.recordings)
    return study


def describe(study: Study, cutting: Cutting) -> str:
    """Returns the text of --dry-run: the recordings, what will be left out, and how people are told apart."""
    headers = [file_corpus.read_header(recording, cutting) for recording in study.recordings]
    lines = [f"{'recording':{WIDTH}}  {'person':14}{'Hz':>6}{'EEG/all':>9}{'hours':>8}{'windows':>9}"]
    for header in headers:
        line = f"{_short(header.recording.name, WIDTH):{WIDTH}}  {_short(header.recording.person, 13):14}"
        if header.channels:
            line += f"{header.sfreq:>6g}{f'{header.eeg}/{header.channels}':>9}{header.seconds / 3600:>8.3f}"
            line += "" if header.reason else f"{header.windows:>9,}"
        lines.append(line.rstrip())
        if header.reason:
            lines.append(f"    left out: {header.reason}")
        lines += _describe_warnings(header.warnings)
    used = [header for header in headers if not header.reason]
    reasons = Counter(header.reason.split(":")[0] for header in headers if header.reason)
    people = {header.recording.person for header in used}
    lines += [
        "",
        f"{len(used):,} of {_count(len(headers), 'recording')} will be cut: {_count(len(people), 'person', 'people')}, "
        f"{sum(header.seconds for header in used) / 3600:.3f} hours, at most "
        f"{_count(sum(header.windows for header in used), 'window')} of {cutting.n_times} samples"
        + _describe_length(used, cutting),
        *([f"left out: {describe_counts(reasons)}"] if reasons else []),
        *_describe_skipped(study), _describe_people(study)]
    if used and len(people) == 1:
        lines.append("one person alone: the last sixth of each recording will be held out")
    lines.append("more may be rejected when the samples are read: gaps, flat channels, wrong units")
    return "\n".join(lines)


def summarise(study: Study) -> str:
    """Returns how many recordings were found, of how many people, and what was skipped."""
    endings = Counter(eeg_files.split_ending(recording.path.name)[1] for recording in study.recordings)
    kinds = ", ".join(f"{n:,} {ending}" for ending, n in sorted(endings.items()))
    return "\n".join([f"{_count(len(study.recordings), 'recording')} ({kinds}) in {study.base}",
                      *_describe_skipped(study),
                      _describe_people(study)])


def describe_result(folder: Path) -> str:
    """Returns what became of the recordings of a finished corpus, by its manifest."""
    manifest = json.loads((folder / MANIFEST).read_text())
    entries = manifest["recordings"]
    empty = [entry for entry in entries if not entry.get("windows")]
    lines = [f"{len(entries) - len(empty):,} of {_count(len(entries), 'recording')} gave windows"]
    lines += [f"  left out: {entry['file']}: {file_corpus.describe_result(entry)}" for entry in empty]
    if manifest["held_out"] == file_corpus.TIME:
        parts = manifest["parts"]
        lines.append(f"one person alone: the last sixth of each recording is held out: {parts['train']:,} windows "
                     f"train, {parts['held_out']:,} are held out, {parts['border']:,} overlap and are not used")
    return "\n".join(lines)


def _describe_length(headers: Sequence[Header], cutting: Cutting) -> str:
    """Returns how long a window is, which differs where recordings keep their own rates."""
    seconds = sorted({cutting.n_times / (cutting.sfreq or header.sfreq) for header in headers})
    if len(seconds) < 2:
        return "".join(f" ({each:.3g} s)" for each in seconds)
    return f"\n  a window is {seconds[0]:.3g} to {seconds[-1]:.3g} s long; --sfreq HZ gives all the same rate"


def warn(file: str, warnings: Sequence[str]) -> None:
    """Prints the warnings that MNE gave while it read a recording."""
    print("\n".join([f"  {file}:", *_describe_warnings(warnings)]))


def _describe_warnings(warnings: Sequence[str]) -> list[str]:
    lines = [f"    reader: {text[:85]}{'...' * (len(text) > 85)}" for text in warnings[:EXAMPLES]]
    return [*lines, *([f"    reader: {len(warnings) - EXAMPLES} more warnings"] if len(warnings) > EXAMPLES else [])]


def _describe_skipped(study: Study) -> list[str]:
    """Returns a line for each reason for which files were skipped."""
    return [f"skipped: {describe_skipped({reason: files})}" for reason, files in study.skipped.items()]


def _describe_people(study: Study) -> str:
    labels = list(study.people.values())
    shown = ", ".join(labels[:8]) + f", ... ({len(labels):,})" * (len(labels) > 8)
    counts = Counter(label.rsplit("/", 1)[-1] for label in labels)
    same = [name for name, n in counts.items() if n > 1]
    repeated = (f"\n  in several folders, taken for different people: {describe_names(same)}; if they are the same: "
                "--subject-pattern REGEX") if same else ""
    return (f"people: {shown}\n  a person is a BIDS subject; else a folder in the given folder, or a file outside of "
            "such folders\n  (another rule: --subject-pattern REGEX)" + repeated)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"...{text[len(text) - width + 3:]}"


def _count(n: int, singular: str, plural: str = "") -> str:
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"
