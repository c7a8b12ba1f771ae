"""Writes the shards of a corpus, subject by subject, and its manifest at the end."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data.catalogue import N_CHANS, Cutting, dataset, person, silenced
from bench.data.prepared import MANIFEST
from bench.data.shards import CORPORA, INDEX
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.data.recordings import Segments


HELD_OUT = 6  # one person in six is held out
Array = np.ndarray
SUBJECTS = ".subjects"  # in the folder at work: what is finished
AT_ONCE = 2  # data sets that do not answer, one after the other, before the rest is not tried
FULL = (errno.ENOSPC, errno.EDQUOT)


class Absent(Exception):
    """Recordings that could not be had or read; unreachable: for want of a connection."""

    def __init__(self, reason: str, unreachable: bool = False):
        super().__init__(reason, unreachable)
        self.unreachable = unreachable

    def __str__(self) -> str:
        return str(self.args[0])


def prepare_subject(work: Path, name: str, subject: int, cutting: Cutting) -> None:
    """The shards of one person, and the receipt that says they are complete. Raises Absent with the reason."""
    with silenced():
        try:
            sessions = _recordings(name, subject)
        except Exception as error:  # MOABB and its readers raise all there is
            if getattr(error, "errno", None) in FULL:
                raise
            raise Absent(reason_of(error), is_unreachable(error)) from error
        cut_subject(work, name, subject, sessions, cutting)


def cut_subject(work: Path, name: str, subject: int, sessions: dict[str, dict[str, Any]], cutting: Cutting) -> None:
    """The shards of one person from mne Raws by session and run, which are let go one by one. Raises Absent."""
    from bench.data.recordings import segments

    made = ShardWriter(work, name, subject)
    rejected, repaired = Counter[str](), Counter[str]()
    for session in list(sessions):
        for run in list(sessions[session]):
            raw = sessions[session].pop(run)
            try:
                found: Segments = segments(raw, cutting.band, cutting.n_times, cutting.sfreq, cutting.stride)
            except (OSError, RuntimeError, ValueError, EOFError, MemoryError) as error:
                raise Absent(f"session {session}, run {run}: {reason_of(error)}") from error
            del raw
            rejected.update(found.rejected)
            repaired.update(found.repaired)
            if len(found.windows):
                made.add(found.windows, [(str(session), str(run), float(onset)) for onset in found.onsets],
                         found.sfreq, list(found.band), found.rejected, found.repaired)
    made.close(rejected, repaired, cutting.per_subject)


def _recordings(name: str, subject: int) -> dict[str, dict[str, Any]]:
    """MOABB's recordings of a person: {session: {run: Raw}}. numpy's global generator is as it was afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        found: dict[str, dict[str, Any]] = dataset(name).get_data(subjects=[subject])[subject]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return found


def reason_of(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def is_unreachable(error: BaseException) -> bool:
    """Whether an error came of a connection or a download, by the names of its kinds: MOABB has many."""
    kinds = {kind.__name__ for link in (error, error.__cause__, error.__context__) if link
             for kind in type(link).__mro__}
    return bool(kinds & {"ConnectionError", "Timeout", "TimeoutError", "HTTPError", "URLError", "gaierror",
                         "NemarDownloadError", "DatasetDownloadError"})


class ShardWriter:
    """The shards of one person while they are written: one for each number of channels (and native sampling rate)."""

    def __init__(self, work: Path, name: str, subject: int):
        self.work, self.name, self.subject = work, name, subject
        self.groups: dict[tuple[int, float], dict[str, Any]] = {}
        (work / name).mkdir(parents=True, exist_ok=True)

    def add(self, windows: Array, places: list[tuple[str, str, float]], sfreq: float, band: list[float | None],
            rejected: Counter[str] | None = None, repaired: Counter[str] | None = None) -> None:
        """Windows [n, C, T] float16 with (session, run, onset in s) of each."""
        key = (windows.shape[1], sfreq)
        if key not in self.groups:
            path = self.work / self.name / f"sub-{self.subject:03d}_C{key[0]:03d}_{sfreq:g}Hz.part"
            self.groups[key] = {"path": path, "file": path.open("wb"), "n": 0, "shape": windows.shape[1:],
                                "places": [], "band": band, "rejected": Counter(), "repaired": Counter()}
        group = self.groups[key]
        windows.astype("<f2", copy=False).tofile(group["file"])
        group["n"] += len(windows)
        group["places"] += places
        group["rejected"].update(rejected or {})
        group["repaired"].update(repaired or {})

    def close(self, rejected: Counter[str], repaired: Counter[str], per_subject: int | None = None) -> dict[str, Any]:
        """Puts the shards to their places, with so many windows in all, and writes the receipt, last."""
        shards = []
        several = Counter(channels for channels, _ in self.groups)
        n = sum(group["n"] for group in self.groups.values())
        left: Array = np.unique(np.linspace(0, max(n - 1, 0), min(n, per_subject or n)).round().astype(np.int64))
        for (channels, sfreq), group in sorted(self.groups.items()):
            group["file"].close()
            kept = left[left < group["n"]]
            left = left[len(kept):] - group["n"]
            rate = f"_{sfreq:g}Hz" if several[channels] > 1 else ""
            final = self.work / self.name / f"sub-{self.subject:03d}_C{channels:03d}{rate}.npy"
            if not len(kept):
                group["path"].unlink()
                continue
            _write(group["path"], (group["n"], *group["shape"]), kept, final)
            with final.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            shards.append({"file": f"{self.name}/{final.name}", "n": len(kept), "channels": channels,
                           "dataset": self.name, "subject": self.subject, "sfreq_native": sfreq,
                           "effective_band": group["band"], "sha256": digest, "bytes": final.stat().st_size,
                           "rejected": dict(sorted(group["rejected"].items())),
                           "repaired": dict(sorted(group["repaired"].items())),
                           "places": [group["places"][row] for row in kept]})
        receipt = {"dataset": self.name, "subject": self.subject, "shards": shards,
                   "rejected": dict(rejected), "repaired": dict(repaired)}
        target = _receipt_file(self.work, self.name, self.subject)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_suffix(".part").write_text(json.dumps(receipt))
        os.replace(target.with_suffix(".part"), target)
        return receipt


def _write(part: Path, shape: tuple[int, ...], rows: Array, final: Path) -> None:
    """Some rows of a file of bare float16 windows as .npy, whole or not at all; the file is gone afterwards."""
    found = np.memmap(part, "<f2", "r", shape=shape)
    new = final.with_suffix(".new")
    with new.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False,
                                                    "shape": (len(rows), *shape[1:])})
        for begin in range(0, len(rows), 256):
            found[rows[begin : begin + 256]].tofile(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, final)
    part.unlink()


def _receipt_file(work: Path, name: str, subject: int) -> Path:
    return work / SUBJECTS / name / f"sub-{subject:03d}.json"


def receipt(work: Path, name: str, subject: int) -> dict[str, Any] | None:
    """What was finished of a subject; None where it was not, or a shard is not as long as it was written."""
    try:
        receipt: dict[str, Any] = json.loads(_receipt_file(work, name, subject).read_text())
        whole = all((work / shard["file"]).stat().st_size == shard["bytes"] for shard in receipt["shards"])
    except (OSError, ValueError, KeyError):
        return None
    return receipt if whole else None


def parts(subjects: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Part of each (data set, subject), "train" or "held_out": by person, one in HELD_OUT of whom is held out.

    Raises BenchError for one person alone.
    """
    everyone = sorted({person(*one) for one in subjects})
    if len(everyone) < 2:
        raise BenchError("a corpus needs windows of two people at least: one is held out")
    turn = {family: hashlib.sha256(family.encode()).digest()[0] for family, _ in everyone}
    held_out = {one for one in everyone if (one[1] + turn[one[0]]) % HELD_OUT == 0}
    if not held_out:
        held_out = {everyone[-1]}
    elif len(held_out) == len(everyone):
        held_out.discard(everyone[0])
    return {one: "held_out" if person(*one) in held_out else "train" for one in subjects}


def finish_corpus(name: str, root: Path, work: Path, receipts: list[dict[str, Any]], wanted: dict[str, Any],
            missing: list[tuple[str, int]]) -> Path:
    """Writes index and manifest and moves the folder to its place in one step."""
    shards = sorted((shard for receipt in receipts for shard in receipt["shards"]), key=lambda shard: shard["file"])
    if not shards:
        reasons = Counter[str]()
        for receipt in receipts:
            reasons.update(receipt["rejected"])
        raise BenchError(f"{name}: no recording gave a window; rejected: "
                         + ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items())))
    part = parts([(shard["dataset"], shard["subject"]) for shard in shards])
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("window", "shard", "row", "dataset", "subject", "session", "run", "onset_s", "part"))
    window = 0
    for number, shard in enumerate(shards):
        for row, (session, run, onset) in enumerate(shard.pop("places")):
            one = shard["dataset"], shard["subject"]
            rows.writerow((window, number, row, *one, session, run, f"{onset:.6g}", part[one]))
            window += 1
    index = text.getvalue().encode()
    manifest = {
        "schema": 1, "kind": "corpus", "name": name, **wanted, "n_chans": N_CHANS,
        "windows": window, "missing": [list(one) for one in missing], "shards": shards,
        "datasets_found": [_found(one, receipts, shards) for one in sorted({r["dataset"] for r in receipts})],
        "files": {INDEX: {"sha256": hashlib.sha256(index).hexdigest(), "bytes": len(index)}},
    }
    (work / INDEX).write_bytes(index)
    (work / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    keep = {shard["file"] for shard in shards} | {INDEX, MANIFEST}
    for file in [file for file in work.rglob("*") if file.is_file()]:
        at = file.relative_to(work)
        if at.as_posix() not in keep and at.parts[0] != SUBJECTS:  # of a subject that was interrupted or left out
            file.unlink()
    folder = root / CORPORA / name
    try:
        os.rename(work, folder)
    except OSError as error:
        raise BenchError(f"{folder} is in the way of a finished corpus ({error.strerror}): it has no {MANIFEST}; "
                         "remove it and give the same command again") from error
    shutil.rmtree(folder / SUBJECTS)
    for empty in [one for one in folder.iterdir() if one.is_dir() and not any(one.iterdir())]:
        empty.rmdir()
    return root / CORPORA / name


def _found(name: str, receipts: list[dict[str, Any]], shards: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of a data set: its subjects, windows, and what was rejected and repaired."""
    rejected, repaired = Counter[str](), Counter[str]()
    own = [receipt for receipt in receipts if receipt["dataset"] == name]
    for receipt in own:
        rejected.update(receipt["rejected"])
        repaired.update(receipt["repaired"])
    return {"dataset": name, "subjects": len(own), "windows": sum(s["n"] for s in shards if s["dataset"] == name),
            "rejected": dict(sorted(rejected.items())), "repaired": dict(sorted(repaired.items()))}
