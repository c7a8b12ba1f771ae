"""Writes the shards of a corpus, subject by subject, and finally its index and manifest."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.catalogue import N_CHANS, Cutting, identify_person, load_dataset, quiet
from bench.data.listing import describe_counts
from bench.data.prepared import MANIFEST, Array, digest
from bench.data.shards import CORPORA, INDEX
from bench.data.writing import DISK_FULL
from bench.errors import BenchError

HELD_OUT = 6  # one person in six is held out
FAILURES = (OSError, RuntimeError, ValueError, EOFError, MemoryError)  # of cutting a recording that MOABB loaded
SUBJECTS = ".subjects"  # in the work folder: receipts of finished subjects


class Unavailable(Exception):
    """Recordings that cannot be downloaded or read. is_offline: because a connection failed."""

    def __init__(self, reason: str, is_offline: bool = False):
        super().__init__(reason)
        self.is_offline = is_offline


def prepare_subject(work: Path, name: str, subject: int, cutting: Cutting) -> None:
    """Writes the shards of one person, and the receipt that marks them complete. Raises Unavailable."""
    with quiet():
        try:
            sessions = _load_recordings(name, subject)
        except Exception as error:  # MOABB and its readers raise exceptions of any class
            if getattr(error, "errno", None) in DISK_FULL:
                raise
            raise Unavailable(_describe(error), _is_connection_error(error)) from error
        cut_subject(work, name, subject, sessions, cutting)


def cut_subject(work: Path, name: str, subject: int, sessions: dict[str, dict[str, Any]], cutting: Cutting,
                report: Callable[[str, str, dict[str, Any]], None] | None = None,
                about: dict[str, Any] | None = None) -> None:
    """Writes the shards of one person from mne Raws by session and run, freed one at a time, or functions that open
    them.

    report: gets session, run, and number of windows with what was rejected and repaired, or why a recording is
    "unreadable"; without it, such a recording raises Unavailable. about: further entries of the receipt.
    """
    from bench.data.recordings import cut_segments

    failures = Exception if report else FAILURES  # readers of files raise exceptions of any class
    writer = ShardWriter(work, name, subject)
    rejected, repaired, bad_channels = Counter[str](), Counter[str](), Counter[str]()
    for session in list(sessions):
        for run in list(sessions[session]):
            raw = sessions[session].pop(run)
            try:
                raw = raw() if callable(raw) else raw
                cut = cut_segments(raw, cutting.band, cutting.n_times, cutting.sfreq, cutting.stride)
            except failures as error:
                if report is None:
                    raise Unavailable(f"session {session}, run {run}: {_describe(error)}") from error
                report(session, run, {"unreadable": _describe(error)})
                continue
            del raw
            if report:
                report(session, run, {"windows": len(cut.windows), "rejected": dict(cut.rejected),
                                      "repaired": dict(cut.repaired), "bad_channels": sorted(cut.bad_channels)})
            rejected.update(cut.rejected)
            repaired.update(cut.repaired)
            bad_channels.update(cut.bad_channels)
            if len(cut.windows):
                writer.add(cut.windows, [(str(session), str(run), float(onset)) for onset in cut.onsets],
                           cut.sfreq, list(cut.band), cut.rejected, cut.repaired, cut.ch_names)
    writer.close(rejected, repaired, cutting.per_subject, {"bad_channels": dict(bad_channels), **(about or {})})


def _load_recordings(name: str, subject: int) -> dict[str, dict[str, Any]]:
    """Loads MOABB's recordings of a person, {session: {run: Raw}}, and restores numpy's global generator."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        recordings: dict[str, dict[str, Any]] = load_dataset(name).get_data(subjects=[subject])[subject]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return recordings


def _describe(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _is_connection_error(error: BaseException) -> bool:
    """Whether an error came from a connection or a download, by the names of its classes: MOABB has many."""
    kinds = {kind.__name__ for link in (error, error.__cause__, error.__context__) if link
             for kind in type(link).__mro__}
    return bool(kinds & {"ConnectionError", "Timeout", "TimeoutError", "HTTPError", "URLError", "gaierror",
                         "NemarDownloadError", "DatasetDownloadError"})


class ShardWriter:
    """Writes the shards of one person: one for each list of channels (and native sampling rate)."""

    def __init__(self, work: Path, name: str, subject: int):
        self.work, self.name, self.subject = work, name, subject
        self.groups: dict[tuple[int, float, tuple[str, ...]], dict[str, Any]] = {}
        (work / name).mkdir(parents=True, exist_ok=True)

    def add(self, windows: Array, places: list[tuple[str, str, float]], sfreq: float, band: list[float | None],
            rejected: Counter[str] | None = None, repaired: Counter[str] | None = None,
            ch_names: Sequence[str] = ()) -> None:
        """Adds windows [n, C, T] float16 with (session, run, onset in s) of each. ch_names [C]: () if unknown."""
        key = (windows.shape[1], sfreq, tuple(ch_names))
        if key not in self.groups:
            path = self.work / self.name / f"sub-{self.subject:03d}_{len(self.groups)}.part"
            self.groups[key] = {"path": path, "file": path.open("wb"), "n": 0, "shape": windows.shape[1:],
                                "places": [], "band": band, "rejected": Counter(), "repaired": Counter()}
        group = self.groups[key]
        windows.astype("<f2", copy=False).tofile(group["file"])
        group["n"] += len(windows)
        group["places"] += places
        group["rejected"].update(rejected or {})
        group["repaired"].update(repaired or {})

    def close(self, rejected: Counter[str], repaired: Counter[str], per_subject: int | None = None,
              about: dict[str, Any] | None = None) -> dict[str, Any]:
        """Writes the final shards, with at most `per_subject` windows in all, and then the receipt with the entries
        `about`; returns it."""
        shards = []
        rates = {channels: len({rate for other, rate, _ in self.groups if other == channels})
                 for channels, _, _ in self.groups}
        copies = Counter[str]()  # lists of channels with the same number of channels and rate
        n = sum(group["n"] for group in self.groups.values())
        left: Array = np.unique(np.linspace(0, max(n - 1, 0), min(n, per_subject or n)).round().astype(np.int64))
        for (channels, sfreq, ch_names), group in sorted(self.groups.items(), key=lambda entry: entry[0][:2]):
            group["file"].close()
            kept = left[left < group["n"]]
            left = left[len(kept):] - group["n"]
            stem = f"sub-{self.subject:03d}_C{channels:03d}" + (f"_{sfreq:g}Hz" if rates[channels] > 1 else "")
            copies[stem] += 1
            copy = f"_{copies[stem]}" if copies[stem] > 1 else ""
            final = self.work / self.name / f"{stem}{copy}.npy"
            if not len(kept):
                group["path"].unlink()
                continue
            write_shard(group["path"], (group["n"], *group["shape"]), kept, final)
            shards.append({"file": f"{self.name}/{final.name}", "n": len(kept), "channels": channels,
                           "ch_names": list(ch_names),
                           "dataset": self.name, "subject": self.subject, "sfreq_native": sfreq,
                           "effective_band": group["band"], **digest(final),
                           "rejected": dict(sorted(group["rejected"].items())),
                           "repaired": dict(sorted(group["repaired"].items())),
                           "places": [group["places"][row] for row in kept]})
        receipt = {"dataset": self.name, "subject": self.subject, "shards": shards,
                   "rejected": dict(rejected), "repaired": dict(repaired), **(about or {})}
        target = _receipt_file(self.work, self.name, self.subject)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_suffix(".part").write_text(json.dumps(receipt))
        os.replace(target.with_suffix(".part"), target)
        return receipt


def write_shard(part: Path, shape: tuple[int, ...], rows: Array, final: Path) -> None:
    """Writes some rows of a file of plain float16 windows as .npy, atomically, and removes the file."""
    windows = np.memmap(part, "<f2", "r", shape=shape)
    new = final.with_suffix(".new")
    with new.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False,
                                                    "shape": (len(rows), *shape[1:])})
        for begin in range(0, len(rows), 256):
            windows[rows[begin : begin + 256]].tofile(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, final)
    part.unlink()


def _receipt_file(work: Path, name: str, subject: int) -> Path:
    return work / SUBJECTS / name / f"sub-{subject:03d}.json"


def read_receipt(work: Path, name: str, subject: int) -> dict[str, Any] | None:
    """Reads the receipt of a subject; None if it is not finished, or a shard has another size."""
    try:
        receipt: dict[str, Any] = json.loads(_receipt_file(work, name, subject).read_text())
        whole = all((work / shard["file"]).stat().st_size == shard["bytes"] for shard in receipt["shards"])
    except (OSError, ValueError, KeyError):
        return None
    return receipt if whole else None


def assign_parts(subjects: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Returns the part of each (data set, subject), "train" or "held_out"; one person in HELD_OUT is held out.

    Raises BenchError if there is only one person.
    """
    people = sorted({identify_person(*subject) for subject in subjects})
    if len(people) < 2:
        raise BenchError("a corpus needs windows of at least two people, as one is held out; add subjects")
    turn = {family: hashlib.sha256(family.encode()).digest()[0] for family, _ in people}
    held_out = {person for person in people if (person[1] + turn[person[0]]) % HELD_OUT == 0}
    if not held_out:
        held_out = {people[-1]}
    elif len(held_out) == len(people):
        held_out.discard(people[0])
    return {subject: "held_out" if identify_person(*subject) in held_out else "train" for subject in subjects}


def finish_corpus(name: str, root: Path, work: Path, receipts: list[dict[str, Any]], wanted: dict[str, Any],
                  missing: list[tuple[str, int]]) -> Path:
    """Writes index and manifest, moves the folder to root/corpora/<name> in one step, and returns its path.

    wanted: the settings of the corpus, for the manifest. A shard's entry may have "parts", the part of each window;
    else `assign_parts` decides. Raises BenchError if there is no window, or only one person and no "parts".
    """
    shards = sorted((shard for receipt in receipts for shard in receipt["shards"]), key=lambda shard: shard["file"])
    if not shards:
        raise BenchError(f"{name}: no recording gave a window; rejected: "
                         f"{describe_counts(_total(receipts, 'rejected'))}")
    part = {} if all("parts" in shard for shard in shards) else assign_parts([
        (shard["dataset"], shard["subject"]) for shard in shards])
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("window", "shard", "row", "dataset", "subject", "session", "run", "onset_s", "part"))
    window = 0
    for number, shard in enumerate(shards):
        parts = shard.pop("parts", None)
        for row, (session, run, onset) in enumerate(shard.pop("places")):
            subject = shard["dataset"], shard["subject"]
            rows.writerow((window, number, row, *subject, session, run, f"{onset:.6g}",
                           parts[row] if parts else part[subject]))
            window += 1
    (work / INDEX).write_bytes(text.getvalue().encode())
    manifest = {
        "schema": 1, "kind": "corpus", "name": name, **wanted, "n_chans": N_CHANS,
        "windows": window, "missing": [list(subject) for subject in missing], "shards": shards,
        "datasets_found": [_summarise(dataset, receipts, shards)
                           for dataset in sorted({each["dataset"] for each in receipts})],
        "files": {INDEX: digest(work / INDEX)},
    }
    (work / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    keep = {shard["file"] for shard in shards} | {INDEX, MANIFEST}
    for file in [file for file in work.rglob("*") if file.is_file()]:
        path = file.relative_to(work)
        if path.as_posix() not in keep and path.parts[0] != SUBJECTS:  # of a subject that was interrupted or left out
            file.unlink()
    folder = root / CORPORA / name
    try:
        os.rename(work, folder)
    except OSError as error:
        raise BenchError(f"{folder} exists without a {MANIFEST}, so the finished corpus cannot be moved there "
                         f"({error.strerror}); remove it and give the same command again") from error
    shutil.rmtree(folder / SUBJECTS)
    for empty in [path for path in folder.iterdir() if path.is_dir() and not any(path.iterdir())]:
        empty.rmdir()
    return folder


def _summarise(name: str, receipts: list[dict[str, Any]], shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a data set's entry in the manifest: subjects, windows, what was rejected and repaired, bad channels."""
    chosen = [receipt for receipt in receipts if receipt["dataset"] == name]
    return {"dataset": name, "subjects": len(chosen), "windows": sum(s["n"] for s in shards if s["dataset"] == name),
            "rejected": _total(chosen, "rejected"), "repaired": _total(chosen, "repaired"),
            "bad_channels": _total(chosen, "bad_channels")}


def _total(receipts: list[dict[str, Any]], key: str) -> dict[str, int]:
    """Returns the sum of the receipts' counts, by reason."""
    total = Counter[str]()
    for receipt in receipts:
        total.update(receipt.get(key, {}))
    return dict(sorted(total.items()))
