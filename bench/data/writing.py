"""Writes prepared data sets: trials, images, tables, manifest."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.channels import assess, count_levels, find_codes, replacements
from bench.data.listing import describe_counts, describe_names
from bench.data.prepared import MANIFEST, PARTS, ROWS, Array, digest
from bench.errors import ENVIRONMENT, BenchError
from bench.files import create_npy, disk_full, sync
from bench.runtime import ignore

TOKEN = 4  # time steps of a token (Sec. 4.1); the length of a window is a multiple of it
EXAMPLES = 64  # trials, evenly over a data set, in which codes are looked for
AMPLITUDE = (1e-3, 1e4)  # expected median of |x| for EEG in µV or in standard deviations
MIXED = 1000.0  # largest accepted factor between a trial's amplitude and the median of all
LARGEST = float(np.finfo(np.float16).max)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def reporting_full_disk(folder: Path) -> Iterator[None]:
    """Turns the OSError of a full disk into a BenchError (exit 75)."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise disk_full(folder) from error
        raise


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields a new folder that replaces `out` if the block ends without an error, and is removed otherwise.

    A previous `out` stays until then. Raises BenchError: exit 75 on a full disk, exit 3 if the folder cannot be made.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise BenchError(f"{out.parent}: cannot write to this folder ({error.strerror}); name another with --data DIR",
                         ENVIRONMENT) from error
    new, previous = work / out.name, work / ".previous"
    try:
        with reporting_full_disk(out.parent):
            new.mkdir()
            yield new
            if out.exists():
                out.rename(previous)
            try:
                new.rename(out)
            except OSError:
                if previous.exists():
                    previous.rename(out)
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes manifest.json: the given values, and hash and size of every file in the folder."""
    files = {file.name: digest(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    document = {"schema": 1, "kind": "pairs", **manifest, "files": files}
    for name in files:
        sync(folder / name)
    (folder / MANIFEST).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    sync(folder / MANIFEST)


def count_trials(rejected: Sequence[str], repaired: Counter[str], parts: Mapping[str, list[str]],
                 bad_channels: Counter[str]) -> dict[str, Any]:
    """Returns the manifest's counts: rejected trials and repairs by reason, the trials in which each replaced channel
    was bad by name and reason, and the size of each part of each split."""
    return {"rejected": dict(Counter(filter(None, rejected))), "repaired": dict(+repaired),
            "bad_channels": dict(+bad_channels),
            "coverage": {split: {part: column.count(part) for part in PARTS} for split, column in parts.items()}}


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def write_images(path: Path, files: Sequence[Path], size: int, progress: Callable[..., None] = ignore) -> None:
    """Writes the images [P, size, size, 3] uint8 RGB, squashed to a square by Pillow's antialiased bicubic filter.

    Raises BenchError (exit 2) for a file that is not a complete image.
    """
    from bench.images import decode, resize

    images = create_npy(path, np.uint8, (len(files), size, size, 3))
    for row, file in enumerate(files):
        images[row] = resize(decode(file), (size, size))
        progress(row + 1, len(files))
    images.flush()


def check_present(files: Sequence[Path], folder: Path) -> None:
    """Raises BenchError (exit 2) with the number of missing image files and the first ten names."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        names = describe_names([str(file.relative_to(folder)) for file in missing])
        raise BenchError(f"{folder}: {len(missing):,} of {len(files):,} images are missing: {names}")


def describe_images(files: Sequence[Path]) -> dict[str, Any]:
    """Returns one entry of a manifest's sources for many images: SHA-256 of names and hashes, bytes, number."""
    entries = sorted(((file.name, digest(file)) for file in files), key=lambda entry: (entry[0], entry[1]["sha256"]))
    text = "".join(f"{entry['sha256']}  {name}\n" for name, entry in entries)
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": sum(entry["bytes"] for _, entry in entries),
            "pictures": len(entries)}


def choose_subjects(subjects: Sequence[int] | str | None, available: Iterable[int], source: Path) -> list[int]:
    """Returns the requested subject numbers, ascending; None: all. Raises BenchError for one that is not available."""
    known = sorted(available)
    try:
        wanted = known if subjects is None else sorted(
            {int(text) for text in (subjects.split(",") if isinstance(subjects, str) else subjects)})
    except ValueError as error:
        raise BenchError(f"subjects={subjects}: expected numbers, such as 1,2") from error
    if not wanted or set(wanted) - set(known):
        raise BenchError(f"{source}: no subject {', '.join(map(str, sorted(set(wanted) - set(known)))) or 'at all'}; "
                         f"available: {', '.join(map(str, known)) or 'none'}")
    return wanted


def parse_side(value: int | str) -> int:
    """Returns an image's side in pixels. Raises BenchError if it is not a whole number from 16 to 4096."""
    number = int(value) if str(value).isdecimal() else 0
    if not 16 <= number <= 4096:
        raise BenchError(f"size={value}: expected the side of the images in pixels, 16 to 4096")
    return number


class Repairs:
    """Replaces the bad channels of trials, and counts them.

    ch_names [C]: () if unknown; channels are then named by their number, from 0 on. repaired: number of replaced
    channels of trials, by reason. bad_channels: by name and reason, such as "T7 (scale)", the number of trials.
    """

    def __init__(self, n_chans: int, ch_names: Sequence[str] = ()):
        self.ch_names = [*map(str, ch_names)] or [str(number) for number in range(n_chans)]
        self.repaired: Counter[str] = Counter()
        self.bad_channels: Counter[str] = Counter()

    def repair(self, window: Array, flat: Array, outlying: Array) -> Array:
        """Returns a trial [C, T] in which channels that are flat or outlying [C] are replaced by the next good one."""
        for reason, title, where in (("flat", "flat channel", flat), ("scale", "channel of another scale", outlying)):
            self.repaired[title] += int(where.sum())
            self.bad_channels.update(f"{self.ch_names[channel]} ({reason})" for channel in np.flatnonzero(where))
        bad = flat | outlying
        return window[replacements(bad)] if bad.any() else window


class TrialWriter(Repairs):
    """Writes the trials of a data set row by row as float16, and records rejected and repaired trials.

    sfreq: Hz. rejected [N]: the reason for each row, "" if it is kept.
    """

    def __init__(self, path: Path, n: int, n_chans: int, n_times: int, *, sfreq: float, ch_names: Sequence[str] = ()):
        super().__init__(n_chans, ch_names)
        self.path, self.sfreq = path, sfreq
        self.eeg = create_npy(path, np.float16, (n, n_chans, n_times))
        self.rejected = [""] * n
        self.amplitudes: list[float] = []
        self.digests: list[bytes] = [b""] * n
        self._examples: list[Array] = []

    def put(self, row: int, window: Array, recorded: Array | None = None) -> None:
        """Writes a trial [C, T]. Channels that are flat or of another scale are replaced by the next one that is not.

        Too many of them reject the trial, and so does a stretch without signal ("constant"). recorded: the trial before
        resampling or averaging, which would hide a trigger channel.
        """
        window = np.asarray(window, np.float64)
        if not np.isfinite(window).all():
            self.rejected[row] = "not finite"
            return
        if np.abs(window).max() > LARGEST:
            self.rejected[row] = "beyond float16"
            return
        if row >= len(self._examples) * len(self.rejected) / EXAMPLES:
            self._examples.append(window if recorded is None else np.asarray(recorded, np.float64))
        self.rejected[row], flat, outlying = assess(window, self.sfreq)
        if self.rejected[row]:
            return
        window = self.repair(window, flat, outlying)
        self.amplitudes.append(float(np.median(np.abs(window[::3, ::3]))))
        self.eeg[row] = window
        self.digests[row] = hashlib.blake2b(self.eeg[row].tobytes(), digest_size=16).digest()

    def close(self, source: str, amplitude: tuple[float, float] = AMPLITUDE) -> Array:
        """Returns a mask [N] of the trials to keep.

        Raises BenchError if no trial is left, the unit is wrong or mixed, or a channel holds triggers.
        """
        self.eeg.flush()
        examples = np.concatenate(self._examples, axis=1) if self._examples else np.empty((0, 0))
        for channel in np.flatnonzero(find_codes(examples, self.sfreq)):
            raise BenchError(f"{source}: channel {self.ch_names[channel]} holds {count_levels(examples[channel])} "
                             "distinct values, as a trigger channel does, which tells the class: leave it out")
        if not self.amplitudes:
            raise BenchError(f"{source}: all {len(self.rejected):,} trials are rejected "
                             f"({describe_counts(Counter(self.rejected))})")
        typical = float(np.median(self.amplitudes))
        if not amplitude[0] <= typical <= amplitude[1]:
            raise BenchError(f"{source}: the median of |EEG| is {typical:.3g}; expected {amplitude[0]:g} to "
                             f"{amplitude[1]:g} (µV, or standard deviations): is it in another unit?")
        shares = np.array(self.amplitudes) / typical
        if strange := int(((shares < 1 / MIXED) | (shares > MIXED)).sum()):
            raise BenchError(f"{source}: in {strange:,} of {len(shares):,} trials the median of |EEG| differs from "
                             f"that of all trials by a factor above {MIXED:g}: are they in another unit?")
        return np.array([not reason for reason in self.rejected])

    def keep_rows(self, keep: Array, items: Sequence[int], parts: Mapping[str, Sequence[str]], source: str) -> None:
        """Removes all rows from the file that the mask [N] does not keep. items, parts: of the K rows that are kept.

        Raises BenchError if the same EEG is in two parts of a split.
        """
        rows = np.flatnonzero(keep)
        for split, part in parts.items():
            seen: dict[bytes, int] = {}
            for index, row in enumerate(rows):
                if not part[index]:
                    continue
                first = seen.setdefault(self.digests[row], index)
                if part[first] != part[index]:
                    raise BenchError(f"{source}: trials {items[first]} ({part[first]}) and {items[index]} "
                                     f"({part[index]}) of the split {split!r} hold the same EEG, byte for byte: a leak")
        if keep.all():
            return
        kept = self.path.with_suffix(".kept")
        after = create_npy(kept, self.eeg.dtype, (len(rows), *self.eeg.shape[1:]))
        for begin in range(0, len(rows), ROWS):
            after[begin : begin + ROWS] = self.eeg[rows[begin : begin + ROWS]]
        after.flush()
        os.replace(kept, self.path)
