"""Data that `bench data prepare` has brought into one form, as values: a stage's key holds the hash of the manifest."""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data.tiny_things import part_in
from bench.errors import ENVIRONMENT, BenchError
from bench.files import mapped, sha256, sync
from bench.runtime import silent

if TYPE_CHECKING:
    import pandas as pd

    from bench.stages import Trials

Array = np.ndarray

MANIFEST = "manifest.json"
PARTS = ("train", "val", "test")
COLUMNS = ("item", "subject", "picture", "label", "block", "position")  # of trials.csv, before the columns of parts
CLASS_COLUMNS = ("label", "name", "judge", "shown")
MOST_FLAT = 0.1  # share of flat channels above which a trial is rejected
STEADY = 1e-6  # of the channels' median standard deviation: a channel with less is flat
CODES = 16  # a channel of so few whole numbers, or fewer, holds triggers
AMPLITUDE = (1e-3, 1e4)  # where the median of |x| is expected for EEG in µV or in standard deviations
MIXED = 1000.0  # times that a trial's amplitude may be off the others'
ROWS = 256  # of EEG that are copied at a time
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Prepared:
    """A data set of EEG and pictures, as a folder (docs/data.md).

    sha256: of its manifest, which holds those of its files; "" where it is not there yet, so that it can be planned
    with and not run.
    """

    name: str
    sha256: str
    n_chans: int
    n_times: int
    sfreq: float  # Hz, of n_times
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Shards:
    """Unlabelled EEG windows, as a folder of un-padded float16 shards (docs/data.md); sha256 as of Prepared."""

    name: str
    sha256: str
    n_chans: int  # to which fewer are replicated
    n_times: int
    path: str = field(default="", compare=False)


def leaky(world: Prepared, split: str) -> str:
    """What is known of a split's leaks from how the data were recorded: "no: ..." or "yes: ...", and why."""
    _, manifest = opened(world)
    return str(manifest["leaky"][split])


def find(name: str, root: Path) -> Prepared:
    """The data set of that name in the folder of data, by its manifest. Raises BenchError (exit 3) where it is not."""
    folder = root / name
    if not (folder / MANIFEST).is_file():
        raise BenchError(f"no prepared data set at {folder}; prepare it: bench data prepare {name} --from DIR "
                         f"--data {root}", ENVIRONMENT)
    manifest, sha256 = _manifest(folder)
    return Prepared(manifest["name"], sha256, manifest["n_chans"], manifest["n_times"], manifest["sfreq"],
                    str(folder.resolve()))


def opened(world: Prepared) -> tuple[Path, dict[str, Any]]:
    """Folder and manifest of a data set that is the one that the value names, with files of the stated sizes.

    Raises BenchError (exit 3) for one that is absent, another, or lacks a file.
    """
    if not world.path:
        raise BenchError(f"data set {world.name} is not prepared; bench data prepare {world.name} --from DIR",
                         ENVIRONMENT)
    folder = Path(world.path)
    manifest, sha256 = _manifest(folder)
    if sha256 != world.sha256:
        raise BenchError(f"{folder / MANIFEST} has SHA-256 {sha256[:12]}, not {world.sha256[:12]}: the data set was "
                         "prepared anew; give the command again, so that the stages of this one are built", ENVIRONMENT)
    for name, entry in manifest["files"].items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            raise BenchError(f"{file}: {'missing' if size is None else f'{size:,} bytes'}, {entry['bytes']:,} bytes "
                             f"are expected; remove {folder} and prepare it again", ENVIRONMENT)
    return folder, manifest


def verify(folder: Path) -> list[str]:
    """What is wrong with a prepared data set, a line for each file, after reading all of it; empty: nothing."""
    manifest, _ = _manifest(folder)
    damage = []
    for name, entry in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            damage.append(f"{file}: missing")
        elif digest(file)["sha256"] != entry["sha256"]:
            damage.append(f"{file}: {file.stat().st_size:,} bytes ({entry['bytes']:,} are expected), another SHA-256 "
                          "than the manifest says")
    strange = {file.name for file in folder.iterdir()} - {*manifest["files"], MANIFEST}
    return [*damage, *(f"{folder / name}: not in the manifest" for name in sorted(strange))]


def write(stage: Trials, out: Path, progress: Callable[..., None] = silent) -> None:
    """Writes what a Trials stage of a prepared data set holds: its subjects' trials that have a part in its split.

    eeg.npy [N, C, T] float16 in ascending order of `item`, normalised as the windows of a corpus are, trials.csv with a
    row for each and one column `part`, classes.csv, and pictures.npy, whole, so that `picture` means the same in every
    stage of the data set. Raises BenchError for subjects, a band, a split or a window that the data set does not have.
    """
    import pandas as pd

    from bench.data.recordings import normalised

    assert isinstance(stage.world, Prepared)
    folder, manifest = opened(stage.world)
    if stage.window != "stimulus":
        raise BenchError(f"{stage.world.name} has no window {stage.window!r}: its files hold the EEG from the stimulus "
                         "on and nothing before it; there is: stimulus")
    if list(stage.band) not in manifest["bands"]:
        there = ", ".join(f"{low:g}-{high:g}" for low, high in manifest["bands"])
        raise BenchError(f"{folder} has no band {stage.band[0]:g}-{stage.band[1]:g} Hz; there are: {there}")
    table = pd.read_csv(folder / "trials.csv", keep_default_na=False)
    if absent := sorted(set(stage.subjects) - set(table["subject"])):
        raise BenchError(f"{folder} has no subject {', '.join(map(str, absent))}; there are: "
                         f"{', '.join(map(str, sorted(set(table['subject']))))}")
    chosen = _part(table, stage, folder)
    extra = [name for name in map(str, chosen) if name not in COLUMNS and not name.startswith("part")]
    chosen[["item", "subject", "picture", "label", "part", "block", "position", *extra]].to_csv(
        out / "trials.csv", index=False, lineterminator="\n")
    shutil.copyfile(folder / "classes.csv", out / "classes.csv")
    try:
        os.link(folder / "pictures.npy", out / "pictures.npy")
    except OSError:  # another file system
        shutil.copyfile(folder / "pictures.npy", out / "pictures.npy")
    source = np.load(folder / eeg_file(stage.band), mmap_mode="r", allow_pickle=False)
    eeg = mapped(out / "eeg.npy", np.float16, (len(chosen), *source.shape[1:]))
    rows = chosen.index.to_numpy()
    for begin in range(0, len(rows), ROWS):
        eeg[begin : begin + ROWS] = normalised(source[rows[begin : begin + ROWS]].astype(np.float32))
        progress(min(begin + ROWS, len(rows)), len(rows))
    eeg.flush()


def _part(table: pd.DataFrame, stage: Trials, folder: Path) -> pd.DataFrame:
    """The rows of the stage's subjects that have a part in its split, as column `part`, in ascending order of item."""
    if "part_concept" in table:  # the protocol things, whose splits by subject depend on who takes part
        last = table["subject"] == stage.subjects[-1]
        table = table.assign(**{f"part_{split}": [part_in(split, part, own) for part, own in zip(
            table["part_concept"], last, strict=True)] for split in ("subject", "subject_seen")})
    column, splits = f"part_{stage.split}", [name[5:] for name in map(str, table) if name.startswith("part_")]
    if stage.split not in splits:
        raise BenchError(f"{folder} has no split {stage.split!r}; there are: {', '.join(splits)}")
    used = table[table[column] != ""]
    chosen = used[used["subject"].isin(stage.subjects)].rename(columns={column: "part"}).sort_values("item")
    for part in ("train", "test"):
        if not (chosen["part"] == part).any():
            there = ", ".join(map(str, sorted(set(used["subject"][used[column] == part]))))
            raise BenchError(f"{folder}: the split {stage.split!r} gives subjects "
                             f"{', '.join(map(str, stage.subjects))} no {part} trials; those of {part}: {there}")
    return chosen


def eeg_file(band: Sequence[float]) -> str:
    """The name of the file of a band's EEG."""
    return f"eeg_{band[0]:g}-{band[1]:g}.npy"


def digest(file: Path) -> dict[str, Any]:
    """SHA-256 and size of a file, as a manifest states them."""
    return {"sha256": sha256(file), "bytes": file.stat().st_size}


@contextmanager
def preparing(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of `out` when the block ends without an error, and is removed otherwise.

    What stood at `out` before stays until then. Raises BenchError (exit 75) on a full disk, and (exit 3) where the
    folder cannot be made.
    """
    from bench.store import disk_full

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
    from bench.gallery import decode, resize

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


def _manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """A data set's manifest and its SHA-256."""
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest: dict[str, Any] = json.loads(text)
        known = (manifest["kind"], manifest["schema"]) == ("pairs", 1)
    except OSError as error:
        raise BenchError(f"no prepared data set at {folder} ({error.strerror}); prepare it (bench data prepare), or "
                         "give its folder with --data DIR", ENVIRONMENT) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{folder / MANIFEST}: not a data set's manifest ({error!r}); remove {folder} and prepare it "
                         "again", ENVIRONMENT) from error
    if not known:
        raise BenchError(f"{folder / MANIFEST}: kind {manifest['kind']!r}, schema {manifest['schema']!r}; 'pairs' and "
                         "1 are expected", ENVIRONMENT)
    return manifest, hashlib.sha256(text).hexdigest()
