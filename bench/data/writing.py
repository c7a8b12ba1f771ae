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

from bench.data.prepared import MANIFEST, ROWS, Array, digest
from bench.errors import ENVIRONMENT, BenchError
from bench.files import mapped, sync
from bench.runtime import silent

MOST_FLAT = 0.1  # share of flat channels above which a trial is rejected
STEADY = 1e-6  # of the channels' median standard deviation: a channel with less is flat
CODES = 16  # a channel of so few whole numbers, or fewer, holds triggers
AMPLITUDE = (1e-3, 1e4)  # where the median of |x| is expected for EEG in µV or in standard deviations
MIXED = 1000.0  # times that a trial's amplitude may be off the others'
LARGEST = float(np.finfo(np.float16).max)


@contextmanager
def preparing(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of `out` when the block ends without an error, and is removed otherwise.

    What stood at `out` before stays until then. Raises BenchError (exit 75) on a full disk, and (exit 3) where the
    folder cannot be made.
    """
    from bench.files import disk_full

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise BenchError(f"{out.parent}: a folder that can be written is needed ({error.strerror}); give another with "
                         "--data DIR", ENVIRONMENT) from error
    before = work / "before"
    try:
        made = work / out.name
        made.mkdir()
        yield made
        if out.exists():
            out.rename(before)
        try:
            made.rename(out)
        except OSError:
            if before.exists():
                before.rename(out)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(out.parent) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def finish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes manifest.json: what is given, and hash and size of every file in the folder."""
    files = {file.name: digest(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    document = {"schema": 1, "kind": "pairs", **manifest, "files": files}
    for name in files:
        sync(folder / name)
    (folder / MANIFEST).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    sync(folder / MANIFEST)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def write_pictures(path: Path, files: Sequence[Path], size: int, progress: Callable[..., None] = silent) -> None:
    """Writes the pictures [P, size, size, 3] uint8: RGB, squashed by Pillow's antialiased bicubic filter.

    Raises BenchError (exit 2) naming the first ten files that are missing, and a file that is no whole picture.
    """
    from bench.images import decode, resize

    pictures = mapped(path, np.uint8, (len(files), size, size, 3))
    for row, file in enumerate(files):
        pictures[row] = resize(decode(file), (size, size))
        progress(row + 1, len(files))
    pictures.flush()


def present(files: Sequence[Path], folder: Path) -> None:
    """Raises BenchError (exit 2) where any of the pictures is missing: their number, and the first ten."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        names = ", ".join(str(file.relative_to(folder)) for file in missing[:10])
        more = f" and {len(missing) - 10:,} more" if len(missing) > 10 else ""
        raise BenchError(f"{folder}: {len(missing):,} of {len(files):,} pictures are missing: {names}{more}")


def picture_source(files: Sequence[Path]) -> dict[str, Any]:
    """One entry of a manifest's sources for many pictures: the SHA-256 of their names and hashes, and their bytes."""
    entries = sorted((file.name, digest(file)) for file in files)
    text = "".join(f"{entry['sha256']}  {name}\n" for name, entry in entries)
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": sum(entry["bytes"] for _, entry in entries),
            "pictures": len(entries)}


def chosen(subjects: Sequence[int] | str | None, there: Iterable[int], source: Path) -> list[int]:
    """Subjects by number, ascending; None: all that are there. Raises BenchError naming those for one that is not."""
    found = sorted(there)
    try:
        wanted = found if subjects is None else sorted(
            {int(one) for one in (subjects.split(",") if isinstance(subjects, str) else subjects)})
    except ValueError as error:
        raise BenchError(f"subjects={subjects}: numbers are expected, such as 1,2") from error
    if not wanted or set(wanted) - set(found):
        raise BenchError(f"{source}: no subject {', '.join(map(str, sorted(set(wanted) - set(found)))) or 'at all'}; "
                         f"there are: {', '.join(map(str, found)) or 'none'}")
    return wanted


def side(value: int | str) -> int:
    """A picture's side in pixels. Raises BenchError for what is none."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if not 16 <= number <= 4096:
        raise BenchError(f"size={value}: a picture's side in pixels is expected, 16 to 4096")
    return number


class TrialWriter:
    """Writes the trials of a data set row by row, as float16, and keeps count of what is wrong with them.

    rejected [N]: the reason for each row, "" where it is kept; repaired: channels of trials, by reason.
    """

    def __init__(self, path: Path, n: int, n_chans: int, n_times: int):
        self.path = path
        self.eeg = mapped(path, np.float16, (n, n_chans, n_times))
        self.rejected = [""] * n
        self.repaired: Counter[str] = Counter()
        self.amplitudes: list[float] = []
        self.digests: list[bytes] = [b""] * n
        self._first: list[Array] = []

    def put(self, row: int, window: Array, recorded: Array | None = None) -> None:
        """A trial [C, T]; flat channels are replaced by the next one that moves, and too many make it rejected.

        recorded: the same before it was resampled, which would hide a channel of triggers.
        """
        window = np.asarray(window, np.float64)
        reason, flat = self.fault(window)
        if reason:
            self.rejected[row] = reason
            return
        if len(self._first) < CODES:
            self._first.append(window if recorded is None else np.asarray(recorded, np.float64))
        if flat.any():
            window = window[neighbours(flat)]
            self.repaired["flat channel"] += int(flat.sum())
        self.amplitudes.append(float(np.median(np.abs(window[::3, ::3]))))
        self.eeg[row] = window
        self.digests[row] = hashlib.blake2b(self.eeg[row].tobytes(), digest_size=16).digest()

    @staticmethod
    def fault(window: Array) -> tuple[str, Array]:
        """Why a trial [C, T] cannot be used ("" where it can), and which of its channels are flat [C]."""
        none = np.zeros(len(window), bool)
        if not np.isfinite(window).all():
            return "not finite", none
        if np.abs(window).max() > LARGEST:
            return "beyond float16", none
        moves = window.std(1)
        flat = moves <= STEADY * np.median(moves)
        return ("flat" if flat.mean() > MOST_FLAT else ""), flat

    def close(self, source: str, amplitude: tuple[float, float] = AMPLITUDE) -> None:
        """Raises BenchError where the whole is no EEG: no trial left, another unit, a channel of triggers."""
        self.eeg.flush()
        if not self.amplitudes:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(Counter(self.rejected).items()))
            raise BenchError(f"{source}: none of its {len(self.rejected):,} trials can be used ({reasons})")
        typical = float(np.median(self.amplitudes))
        if not amplitude[0] <= typical <= amplitude[1]:
            raise BenchError(f"{source}: the median of |EEG| is {typical:.3g}; {amplitude[0]:g} to {amplitude[1]:g} is "
                             "expected (µV, or standard deviations): is it in another unit?")
        shares = np.array(self.amplitudes) / typical
        if strange := int(((shares < 1 / MIXED) | (shares > MIXED)).sum()):
            raise BenchError(f"{source}: the median of |EEG| of {strange:,} of its {len(shares):,} trials lies more "
                             f"than {MIXED:g} times off that of all: are they in another unit?")
        if coded := triggers(np.concatenate(self._first, axis=1)):
            raise BenchError(f"{source}: channel {coded[0]} holds {CODES} or fewer whole numbers, as a trigger channel "
                             "does; such a channel tells the class: leave it out")


def triggers(signal: Array) -> list[int]:
    """Channels of [C, n] that hold 2 to CODES different whole numbers and nothing else."""
    codes = np.rint(signal)
    whole = np.flatnonzero((np.abs(signal - codes) < 1e-3).all(1))
    return [int(channel) for channel in whole if 1 < len(np.unique(codes[channel])) <= CODES]


def neighbours(flat: Array) -> Array:
    """For each channel [C] the next one that moves, itself included; the first again after the last."""
    moving = np.flatnonzero(~flat)
    return moving[np.searchsorted(moving, np.arange(len(flat))) % len(moving)]


def keep_rows(path: Path, keep: Array) -> None:
    """Leaves only some rows, a mask [N], in an .npy."""
    if keep.all():
        return
    before = np.load(path, mmap_mode="r", allow_pickle=False)
    kept, rows = path.with_suffix(".kept"), np.flatnonzero(keep)
    after = mapped(kept, before.dtype, (len(rows), *before.shape[1:]))
    for begin in range(0, len(rows), ROWS):
        after[begin : begin + ROWS] = before[rows[begin : begin + ROWS]]
    after.flush()
    os.replace(kept, path)


def no_copies(digests: Sequence[bytes], items: Sequence[int], parts: Mapping[str, Sequence[str]], source: str) -> None:
    """Raises BenchError where the same EEG stands in two parts of a split: digests, items and parts of N trials."""
    for split, part in parts.items():
        seen: dict[bytes, int] = {}
        for row, (print_, own) in enumerate(zip(digests, part, strict=True)):
            if not own:
                continue
            first = seen.setdefault(print_, row)
            if part[first] != own:
                raise BenchError(f"{source}: trials {items[first]} ({part[first]}) and {items[row]} ({own}) of the "
                                 f"split {split!r} hold the same EEG, byte for byte: a leak")
