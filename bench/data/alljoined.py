"""Alljoined1 (Xu et al., 2024) from its parquet files: EEG to pictures of COCO, with session, block and time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data import prepared, writing
from bench.data.prepared import PARTS
from bench.data.writing import TrialWriter
from bench.errors import ENVIRONMENT, BenchError
from bench.runtime import silent

if TYPE_CHECKING:
    import pandas as pd

NAME = "alljoined"
SOURCES = (
    "the parquet files of https://huggingface.co/datasets/Alljoined/05_125, in any folders below DIR (CC-BY-NC-ND-4.0)",
    "the pictures, as --set pictures=DIR with DIR/<coco_id, 12 digits>.jpg: COCO 2017's train and val pictures "
    "(https://cocodataset.org) in one folder",
)
OPTIONS = {
    "pictures": "folder of the pictures, <coco_id, 12 digits>.jpg (needed)",
    "subjects": "these alone (default: all that are there)",
    "size": "side of the pictures in pixels (default: 512)",
}
BAND = (0.5, 125.0)  # Hz, of the published files
RATE = 512.0  # Hz; the files do not state it
N_CHANS = 64
SECONDS = (0.6, 0.7)  # of a trial, about 0.65
MULTIPLE = 4  # of which the number of time steps is one: the tokens of Sec. 4.1 take 4 each
VOLT = 1e6  # µV
AMPLITUDE = (0.1, 1e4)  # µV, where the median of |x| is expected
HELD_OUT = 6  # one in six pictures, and one in six blocks, is tested on, and one in six validates
NUMBERS = ("subject_id", "session", "block", "trial", "73k_id", "coco_id")
COLUMNS = ("EEG", *NUMBERS, "curr_time")
TOGETHER = 64  # trials that are read at a time

Array = np.ndarray


def prepare(source: Path, out: Path, pictures: Path | str | None = None, subjects: Sequence[int] | str | None = None,
            size: int | str = 512, progress: Callable[..., None] = silent) -> Path:
    """The prepared data set at `out` (docs/data.md), complete or, on any error, as it was before.

    part_item goes by picture, part_block by picture and block; the pictures have no classes, so that all have one.
    Raises BenchError (exit 2) for files that are not as published, (exit 3) where pyarrow is not installed.
    """
    source, side = Path(source), writing.side(size)
    if pictures is None:
        raise BenchError(f"{NAME} needs its pictures: --set pictures=DIR with <coco_id, 12 digits>.jpg")
    files = sorted(source.rglob("*.parquet"))
    if not files:
        raise BenchError(f"{source}: no .parquet file in it; the files of {NAME} are expected there")
    table = _listing(files)
    people = writing.chosen(subjects, set(table["subject_id"]), source)
    wanted = table["subject_id"].isin(people).to_numpy()
    part_item, part_block = _parts(table)
    shown = sorted(set(table["coco_id"][wanted]))
    paths = [Path(pictures) / f"{number:012d}.jpg" for number in shown]
    writing.present(paths, Path(pictures))
    position = table.groupby(["subject_id", "session"])["curr_time"].rank(method="first").astype(int) - 1
    with writing.preparing(Path(out)) as work:
        writer: TrialWriter | None = None
        item, row = 0, 0
        for file in files:
            for windows in _windows(file):
                if writer is None:
                    n_times = windows.shape[2] // MULTIPLE * MULTIPLE
                    writer = TrialWriter(work / prepared.eeg_file(BAND), int(wanted.sum()), N_CHANS, n_times)
                    length = windows.shape[2]
                if windows.shape[2] != length:
                    raise BenchError(f"{file}: trials of {windows.shape[2]} samples, {length} in {files[0]}")
                for window in windows:
                    if wanted[item]:
                        writer.put(row, window[:, :n_times] * VOLT)
                        row += 1
                    item += 1
                progress(item, len(table))
        assert writer is not None
        writer.close(str(source), AMPLITUDE)
        keep = np.array([not reason for reason in writer.rejected])
        items = np.flatnonzero(wanted)[keep]
        parts = {"item": [part_item[one] for one in items], "block": [part_block[one] for one in items]}
        writing.no_copies([one for one, good in zip(writer.digests, keep, strict=True) if good], list(map(int, items)),
                           parts, str(source))
        writing.keep_rows(writer.path, keep)
        rows = {number: picture for picture, number in enumerate(shown)}
        columns = [table[name].to_numpy()[items] for name in ("subject_id", "coco_id", "block", "session")]
        writing.write_table(work / "trials.csv", (*prepared.COLUMNS, "session", *(f"part_{name}" for name in parts)), (
            (one, subject, rows[coco], 0, block, position[one], session, *own)
            for one, subject, coco, block, session, *own in zip(items, *columns, *parts.values(), strict=True)))
        writing.write_table(work / "classes.csv", prepared.CLASS_COLUMNS, [(0, "photograph", -1, 1)])
        writing.write_pictures(work / "pictures.npy", paths, side, progress)
        writing.finish(work, {
            "name": NAME, "n_chans": N_CHANS, "n_times": n_times, "sfreq": RATE, "bands": [list(BAND)],
            "subjects": people, "options": {"size": side},
            "sources": {file.relative_to(source).as_posix(): prepared.digest(file) for file in files} | {
                "pictures": writing.picture_source(paths)},
            "rejected": dict(Counter(filter(None, writer.rejected))), "repaired": dict(writer.repaired),
            "coverage": {name: {part: column.count(part) for part in PARTS} for name, column in parts.items()},
            "leaky": {"item": "no: no picture is in two parts; blocks are shared, in an order without classes",
                      "block": "no: no picture and no block is in two parts"},
        })
    return Path(out)


def _parquet(file: Path) -> Any:
    """The opened file. Raises BenchError where pyarrow is not installed or the file is none."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise BenchError(f"{NAME} is read from parquet, which needs the package pyarrow: pip install pyarrow",
                         ENVIRONMENT) from error
    try:
        return ParquetFile(file)
    except (ArrowException, OSError) as error:
        raise BenchError(f"{file} ({file.stat().st_size:,} bytes) cannot be read as parquet; it is cut short or "
                         f"something else ({' '.join(str(error).split())[:120]}): get it anew") from error


def _listing(files: Sequence[Path]) -> pd.DataFrame:
    """All trials without their EEG, in the order of the files. Raises BenchError for another structure."""
    import pandas as pd

    tables = []
    for file in files:
        opened = _parquet(file)
        if missing := set(COLUMNS) - set(opened.schema_arrow.names):
            raise BenchError(f"{file}: no column {', '.join(sorted(missing))}; {', '.join(COLUMNS)} are expected")
        table = opened.read(columns=list(COLUMNS[1:])).to_pandas()
        for name in NUMBERS:
            if not pd.api.types.is_integer_dtype(table[name]) or (table[name] < 0).any():
                raise BenchError(f"{file}: column {name} is expected to hold whole numbers from 0 on, none missing")
        if table["curr_time"].isna().any():
            raise BenchError(f"{file}: column curr_time has gaps")
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    if not len(table):
        raise BenchError(f"{files[0].parent}: the parquet files hold no trial")
    place = ["subject_id", "session", "block", "trial"]
    if (twice := table.duplicated(place)).any():
        subject, session, block, trial = table[place][twice].to_numpy()[0]
        raise BenchError(f"{files[0].parent}: subject {subject}, session {session}, block {block}, trial {trial} "
                         "stands there twice")
    return table


def _parts(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The part of each trial [N] by its picture, and by picture and block: "" where the two disagree.

    A picture's part follows from its number alone; the blocks of a subject take turns.
    """
    of_turn = {0: "test", 1: "val"}
    picture = {number: of_turn.get(hashlib.sha256(str(number).encode()).digest()[0] % HELD_OUT, "train")
               for number in set(table["coco_id"])}
    item = [picture[number] for number in table["coco_id"]]
    blocks = table[["subject_id", "session", "block"]].drop_duplicates().sort_values(["subject_id", "session", "block"])
    blocks["turn"] = blocks.groupby("subject_id").cumcount() % HELD_OUT
    block = [of_turn.get(turn, "train") for turn in table.merge(blocks, how="left")["turn"]]
    return item, [one if one == other else "" for one, other in zip(item, block, strict=True)]


def _windows(file: Path) -> Iterator[Array]:
    """The EEG of a file in V, [n, 64, T] at a time. Raises BenchError for another shape or rate."""
    opened = _parquet(file)
    from pyarrow.compute import list_value_length

    for batch in opened.iter_batches(batch_size=TOGETHER, columns=["EEG"]):
        column = batch.column(0)
        column = getattr(column, "storage", column)
        channels = column.flatten() if column.null_count == 0 else None
        if channels is None or not hasattr(channels, "flatten") or channels.null_count:
            raise BenchError(f"{file}: column EEG is expected to hold [{N_CHANS}, T] for each trial, none missing")
        counts, lengths = (np.unique(list_value_length(part).to_numpy(zero_copy_only=False))
                           for part in (column, channels))
        if counts.tolist() != [N_CHANS] or len(lengths) != 1:
            raise BenchError(f"{file}: trials of {_span(counts)} channels and {_span(lengths)} samples; {N_CHANS} "
                             "channels of one length are expected")
        samples = int(lengths[0])
        if not SECONDS[0] <= samples / RATE <= SECONDS[1]:
            raise BenchError(f"{file}: trials of {samples} samples; some 334 are expected of 0.65 s at {RATE:g} Hz: is "
                             "it another sampling rate?")
        values = channels.flatten().to_numpy(zero_copy_only=False)
        yield np.asarray(values, np.float64).reshape(-1, N_CHANS, samples)


def _span(counts: Array) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
