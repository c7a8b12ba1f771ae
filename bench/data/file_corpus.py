"""Prepares a corpus for pre-training from the user's own recordings (docs/data.md)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data import catalogue, corpora, eeg_files, eeg_readers
from bench.data.catalogue import Cutting, quiet
from bench.data.eeg_files import Recording, Study
from bench.data.listing import describe_counts
from bench.data.prepared import MANIFEST, digest
from bench.data.shard_writer import HELD_OUT, cut_subject, finish_corpus, read_receipt
from bench.data.shards import CORPORA, read_manifest
from bench.data.writing import reporting_full_disk
from bench.errors import ENVIRONMENT, BenchError
from bench.files import explain

if TYPE_CHECKING:
    from mne.io import BaseRaw

PERSON, TIME = "person", "time"  # what is held out of a corpus: one person in six, or the end of each recording
TRAIN, BORDER, END = "train", "border", "held_out"  # parts of a corpus of one person


@dataclass(frozen=True)
class Header:
    """What the header of a recording tells: rate in Hz, number of EEG channels and of all channels, length in seconds,
    largest possible number of windows.

    reason: why the recording will be left out, or "". warnings: those that MNE gave.
    """

    recording: Recording
    sfreq: float = 0.0
    eeg: int = 0
    channels: int = 0
    seconds: float = 0.0
    windows: int = 0
    reason: str = ""
    warnings: tuple[str, ...] = ()


def check_name(name: str) -> None:
    """Raises BenchError for a name that a corpus of own recordings cannot have."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", name):
        raise BenchError(f"--name {name}: expected letters, digits, - and _, at most 60")
    if name in (*catalogue.CORPORA_BY_NAME, catalogue.TRAIN_ONLY, *catalogue.MOABB_ALL, *catalogue.FAKES):
        raise BenchError(f"--name {name}: this is the name of a published data set or corpus; choose another for your "
                         "own recordings")


def read_header(recording: Recording, cutting: Cutting) -> Header:
    """Opens a recording and returns what its header tells; one that cannot be opened has the reason."""
    import mne

    from bench.data.recordings import CHANNELS, shortest

    with quiet():
        try:
            raw, warnings = eeg_readers.open_recording(recording)
        except Exception as error:  # readers raise exceptions of any class
            return Header(recording, reason=f"unreadable: {explain(recording.path, error)[:200]}")
        eeg, native = len(mne.pick_types(raw.info, eeg=True, exclude=())), float(raw.info["sfreq"])
        rate, length = cutting.sfreq or native, raw.n_times
        few, many = eeg < CHANNELS[0], eeg > CHANNELS[1]
        reason = ""
        if length < (least := shortest(native, cutting.band, cutting.n_times, rate)):
            reason = f"short: {length / native:.3g} s; at least {least / native:.3g} s are needed"
        elif few or many:
            reason = f"few_channels: {eeg} EEG channels; at least {CHANNELS[0]} are needed" if few else \
                f"many_channels: {eeg} EEG channels; at most {CHANNELS[1]} are accepted"
        windows = 0 if reason else 1 + int((length * rate / native - cutting.n_times) // cutting.stride)
        return Header(recording, native, eeg, len(raw.ch_names), length / native, windows, reason, tuple(warnings))


def prepare(name: str, root: Path, study: Study, *, workers: int = 1, progress: corpora.Progress | None = None,
            cutting: Cutting | None = None, allow_missing: bool = False,
            warn: Callable[[str, list[str]], None] = lambda file, warnings: None) -> Path:
    """Cuts all recordings into root/corpora/<name>/, a folder that is complete or absent; finished people are kept.

    One person in six is held out; with one person alone, the last sixth of each recording. allow_missing: finish
    without the recordings that cannot be read, which the manifest then lists; otherwise they raise BenchError (exit 3),
    one line for each, after all others are prepared. warn: gets the warnings of the reader of each recording. Raises
    BenchError also if the name is taken, if a recording was changed since, and if two recordings hold the same data.
    """
    folder, cutting, people = root / CORPORA / name, cutting or Cutting(), study.people
    check_name(name)
    eeg_files.check_bids(study.recordings)
    wanted = corpora.settings(cutting, [name]) | {"people": {str(number): label for number, label in people.items()}}
    if (folder / MANIFEST).is_file():
        _check_same(folder, wanted, study)
        return folder
    work = corpora.open_work_folder(folder, cutting)
    by_number = {number: study.of(label) for number, label in people.items()}

    def is_done(task: corpora.Task) -> bool:
        receipt = read_receipt(work, *task)
        return receipt is not None and _is_current(receipt, by_number[task[1]], study.base) and (
            allow_missing or not _unreadable(receipt["recordings"]))

    with reporting_full_disk(root):
        tasks = [(name, number) for number in people]
        corpora.prepare_subjects(work, tasks, cutting, workers, progress or (lambda done, total, text: None),
                                 partial(prepare_person, recordings=by_number), is_done)
        receipts = [receipt for task in tasks if (receipt := read_receipt(work, *task))]
        entries = sorted((entry for receipt in receipts for entry in receipt["recordings"]), key=lambda e: e["file"])
        for entry in entries:  # not in the manifest: they depend on MNE's version
            if warnings := entry.pop("warnings", []):
                warn(entry["file"], warnings)
        if (unreadable := _unreadable(entries)) and not allow_missing:
            lines = "".join(f"\n  {file}: {reason}" for file, reason in unreadable.items())
            raise BenchError(f"{name}: {len(unreadable)} of {len(study.recordings)} recordings cannot be read; the "
                             f"others are prepared and kept{lines}\n  replace or remove these files and give the same "
                             "command again, or add --allow-missing for a corpus without them", ENVIRONMENT)
        sources = {file: entry for receipt in receipts for file, entry in sorted(receipt["sources"].items())}
        _refuse_copies(entries, sources)
        with_windows = {receipt["subject"] for receipt in receipts if receipt["shards"]}
        if not with_windows:
            raise BenchError(f"{name}: no recording gave a window" + "".join(
                f"\n  {entry['file']}: {describe_result(entry)}" for entry in entries))
        alone = len(with_windows) == 1
        parts = hold_out_ends(receipts, cutting) if alone else {}
        about = {"held_out": TIME if alone else PERSON, "parts": parts, "recordings": entries, "sources": sources,
                 "skipped": {reason: len(names) for reason, names in study.skipped.items()}}
        return finish_corpus(name, root, work, receipts, wanted | about, [])


def prepare_person(work: Path, name: str, subject: int, cutting: Cutting, *,
                   recordings: dict[int, list[Recording]]) -> None:
    """Writes the shards of one person, and the receipt with an entry for each recording and the hashes of its files."""
    sources: dict[str, Any] = {}
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    sessions: dict[str, dict[str, Callable[[], BaseRaw]]] = {}
    for each in recordings[subject]:
        entry = {"file": each.name, "subject": subject, "session": each.session, "run": each.run}
        entries[each.session, each.run] = entry
        sessions.setdefault(each.session, {})[each.run] = partial(_open, each, entry, sources)
    with quiet():
        cut_subject(work, name, subject, sessions, cutting,
                    lambda session, run, result: entries[session, run].update(result),
                    {"recordings": list(entries.values()), "sources": sources})


def _open(recording: Recording, entry: dict[str, Any], sources: dict[str, Any]) -> BaseRaw:
    """Opens a recording; its entry gets what the header tells, and `sources` the digest of each of its files."""
    import mne

    entry["files"] = [recording.name]
    if recording.path.is_file():
        sources[recording.name] = digest(recording.path)
    raw, warnings = eeg_readers.open_recording(recording)
    files = eeg_readers.list_files(recording, raw)
    sources.update({name: digest(path) for name, path in files.items() if name not in sources})
    entry.update(files=sorted(files), sfreq=float(raw.info["sfreq"]), seconds=round(raw.n_times / raw.info["sfreq"], 3),
                 channels=len(mne.pick_types(raw.info, eeg=True, exclude=())), warnings=warnings)
    return raw


def hold_out_ends(receipts: list[dict[str, Any]], cutting: Cutting) -> dict[str, int]:
    """Gives the shards of one person their "parts" and returns how many windows each part has.

    The last sixth of the windows of each recording is held out. A window that overlaps a held-out one is in neither
    part, but in BORDER. Raises BenchError if there are no two windows that do not overlap.
    """
    shards = [shard for receipt in receipts for shard in receipt["shards"]]
    windows: dict[tuple[str, str], list[tuple[float, dict[str, Any], int]]] = {}
    for shard in shards:
        for row, (session, run, onset) in enumerate(shard["places"]):
            windows.setdefault((session, run), []).append((onset, shard, row))
    longest = max(windows, key=lambda key: len(windows[key]))
    sixth = {key: round(len(placed) / HELD_OUT) for key, placed in windows.items()}
    for ends in (sixth, {longest: 1}):  # of a few windows in all, one is held out
        for shard in shards:
            shard["parts"] = [TRAIN] * shard["n"]
        for key, placed in windows.items():
            placed.sort(key=lambda window: window[0])
            first = len(placed) - ends.get(key, 0)
            for number, (onset, shard, row) in enumerate(placed):
                rate = cutting.sfreq or shard["sfreq_native"]
                if number >= first:
                    shard["parts"][row] = END
                elif first < len(placed) and onset + (cutting.n_times - 0.5) / rate > placed[first][0]:
                    shard["parts"][row] = BORDER
        count = Counter(part for shard in shards for part in shard["parts"])
        if count[TRAIN] and count[END]:
            return {part: count[part] for part in (TRAIN, BORDER, END)}
    raise BenchError(f"all recordings give {sum(map(len, windows.values()))} windows of one person; expected two that "
                     "do not overlap, one to train and one that is held out: add recordings, or cut shorter windows "
                     "with a higher --sfreq or without --sfreq")


def describe_result(entry: dict[str, Any]) -> str:
    """Returns what became of a recording, from its entry in the manifest: windows, and what was rejected and why."""
    if "unreadable" in entry:
        return f"unreadable: {entry['unreadable']}"
    return f"{entry['windows']:,} windows; rejected: {describe_counts(entry['rejected'])}"


def _unreadable(entries: list[dict[str, Any]]) -> dict[str, str]:
    """Returns why recordings could not be read, by file."""
    return {entry["file"]: entry["unreadable"] for entry in entries if "unreadable" in entry}


def _is_current(about: dict[str, Any], recordings: list[Recording], base: Path) -> bool:
    """Whether a receipt or a manifest is of these recordings, and all their files still have their hashes."""
    return {entry["file"] for entry in about["recordings"]} == {each.name for each in recordings} and \
        _find_change(about, base) is None


def _find_change(about: dict[str, Any], base: Path) -> str | None:
    """Returns a file that was changed, removed or added since the recordings were cut; None if there is none."""
    for name, entry in about["sources"].items():
        path = base / name
        if not path.is_file() or path.stat().st_size != entry["bytes"] or digest(path) != entry:
            return name
    return next((entry["file"] for entry in about["recordings"]
                 if entry["file"] not in about["sources"] and (base / entry["file"]).is_file()), None)


def _check_same(folder: Path, wanted: dict[str, Any], study: Study) -> None:
    """Raises BenchError unless the finished corpus was prepared from these recordings with these settings."""
    manifest = read_manifest(folder)
    cure = "choose another --name, or remove that folder"
    if "people" not in manifest:
        raise BenchError(f"{folder} is a corpus of {', '.join(manifest['datasets'][:3])}, not of your recordings; "
                         f"{cure}")
    different = [key for key, value in wanted.items() if manifest.get(key) != value]
    before, now = {entry["file"] for entry in manifest["recordings"]}, {each.name for each in study.recordings}
    if before != now and not different:
        different = [f"set of recordings ({sorted(before ^ now)[0]})"]
    if different:
        raise BenchError(f"{folder} was prepared with another {' and '.join(different)}; {cure}")
    if changed := _find_change(manifest, study.base):
        raise BenchError(f"{folder} was prepared from another {changed}: this file was changed or moved since; {cure}")


def _refuse_copies(entries: list[dict[str, Any]], sources: dict[str, Any]) -> None:
    """Raises BenchError if two recordings hold the same data: one of them would be trained on and tested."""
    seen: dict[str, str] = {}
    for entry in entries:
        if "unreadable" not in entry:
            data = max(entry["files"], key=lambda file: sources[file]["bytes"])
            other = seen.setdefault(sources[data]["sha256"], entry["file"])
            if other != entry["file"]:
                raise BenchError(f"{other} and {entry['file']} hold the same data, byte for byte; leave one out: "
                                 "remove it, or give the other files by name")
