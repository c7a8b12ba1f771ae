"""Prepares Alljoined1 (Xu et al., 2024) from its parquet files: EEG for images of COCO, with session, block, time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data import prepared, writing
from bench.data.listing import describe_skipped, list_files
from bench.data.prepared import Array
from bench.data.writing import TOKEN, TrialWriter
from bench.errors import ENVIRONMENT, BenchError
from bench.files import explain
from bench.runtime import ignore

if TYPE_CHECKING:
    import pandas as pd

NAME = "alljoined"
SOURCES = (
    "the parquet files of https://huggingface.co/datasets/Alljoined/05_125, in any folders below DIR (CC-BY-NC-ND-4.0)",
    "the images, as --set pictures=DIR with DIR/<coco_id, 12 digits>.jpg: COCO 2017's train and val images "
    "(https://cocodataset.org) in one folder",
)
OPTIONS = {
    "pictures": "folder of the images, <coco_id, 12 digits>.jpg (required)",
    "subjects": "only these subjects (default: all in the files)",
    "size": "side of the images in pixels (default: 512)",
}
BAND = (0.5, 125.0)  # Hz, of the published files
RATE = 512.0  # Hz; the files do not state it
N_CHANS = 64
SECONDS = (0.6, 0.7)  # accepted length of a trial; about 0.65 as published
VOLT = 1e6  # µV
AMPLITUDE = (0.1, 1e4)  # µV, expected median of |x|
HELD_OUT = 6  # one in six images (and blocks) tests, one in six validates
NUMBERS = ("subject_id", "session", "block", "trial", "73k_id", "coco_id")
COLUMNS = ("EEG", *NUMBERS, "curr_time")
BATCH = 64  # trials read at a time


def prepare(source: Path, out: Path, pictures: Path | str | None = None, subjects: Sequence[int] | str | None = None,
            size: int | str = 512, progress: Callable[..., None] = ignore) -> Path:
    """Writes the prepared data set to `out` (docs/data.md); on an error, `out` is unchanged.

    part_item follows from the image, part_block from image and block. All images have the same class.
    Raises BenchError: exit 2 for files that differ from the published ones, exit 3 if pyarrow is not installed.
    """
    source, side = Path(source), writing.parse_side(size)
    if pictures is None:
        raise BenchError(f"{NAME} needs its images: --set pictures=DIR with <coco_id, 12 digits>.jpg")
    listing = list_files(source, (".parquet",))
    files = listing.files
    if not files:
        left_out = f"; left out: {describe_skipped(listing.skipped)}" if listing.skipped else ""
        raise BenchError(f"{source}: no .parquet file; expected the files of {NAME}{left_out}")
    table = _read_tables(files)
    people = writing.choose_subjects(subjects, set(table["subject_id"]), source)
    wanted = table["subject_id"].isin(people).to_numpy()
    part_item, part_block = assign_parts(table)
    coco_ids = sorted(set(table["coco_id"][wanted]))
    images = [Path(pictures) / f"{number:012d}.jpg" for number in coco_ids]
    writing.check_present(images, Path(pictures))
    position = table.groupby(["subject_id", "session"])["curr_time"].rank(method="first").astype(int) - 1
    with writing.new_folder(Path(out)) as work:
        writer: TrialWriter | None = None
        item, row = 0, 0
        for file in files:
            for windows in _read_windows(file):
                if writer is None:
                    length = windows.shape[2]
                    n_times = length // TOKEN * TOKEN
                    writer = TrialWriter(work / prepared.eeg_file(BAND), int(wanted.sum()), N_CHANS, n_times,
                                         sfreq=RATE)
                if windows.shape[2] != length:
                    raise BenchError(f"{file}: trials of {windows.shape[2]} samples; expected {length} as {files[0]}")
                for window in windows:
                    if wanted[item]:
                        writer.put(row, window[:, :n_times] * VOLT)
                        row += 1
                    item += 1
                progress(item, len(table))
        assert writer is not None
        keep = writer.close(str(source), AMPLITUDE)
        items = np.flatnonzero(wanted)[keep]
        parts = {"item": [part_item[item] for item in items], "block": [part_block[item] for item in items]}
        writer.keep_rows(keep, items.tolist(), parts, str(source))
        rows = {number: row for row, number in enumerate(coco_ids)}
        columns = [table[name].to_numpy()[items] for name in ("subject_id", "coco_id", "block", "session")]
        writing.write_table(work / "trials.csv", (*prepared.COLUMNS, "session", *(f"part_{name}" for name in parts)), (
            (item, subject, rows[coco], 0, block, position[item], session, *part)
            for item, subject, coco, block, session, *part in zip(items, *columns, *parts.values(), strict=True)))
        writing.write_table(work / "classes.csv", prepared.CLASS_COLUMNS, [(0, "photograph", -1, 1)])
        writing.write_images(work / "pictures.npy", images, side, progress)
        writing.write_manifest(work, {
            "name": NAME, "n_chans": N_CHANS, "n_times": n_times, "sfreq": RATE, "bands": [list(BAND)],
            "subjects": people, "options": {"size": side},
            "sources": {file.relative_to(source).as_posix(): prepared.digest(file) for file in files} | {
                "pictures": writing.describe_images(images)},
            "skipped": {reason: len(names) for reason, names in listing.skipped.items()},
            **writing.count_trials(writer.rejected, writer.repaired, parts, writer.bad_channels),
            "leaky": {"item": "no: no picture is in two parts; blocks are shared, in an order without classes",
                      "block": "no: no picture and no block is in two parts"},
        })
    return Path(out)


def _open_parquet(file: Path) -> Any:
    """Opens a parquet file. Raises BenchError if pyarrow is not installed or the file cannot be read."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise BenchError(f"{NAME} is read from parquet files, which needs the package pyarrow: pip install pyarrow",
                         ENVIRONMENT) from error
    try:
        return ParquetFile(file)
    except (ArrowException, OSError) as error:
        raise BenchError(f"{file} ({file.stat().st_size:,} bytes) cannot be read as parquet: truncated, or another "
                         f"format ({explain(file, error)[:200]}); download it again") from error


def _read_tables(files: Sequence[Path]) -> pd.DataFrame:
    """Reads all trials without their EEG, in the order of the files. Raises BenchError for another structure."""
    import pandas as pd

    tables = []
    for file in files:
        parquet = _open_parquet(file)
        if missing := set(COLUMNS) - set(parquet.schema_arrow.names):
            raise BenchError(f"{file}: no column {', '.join(sorted(missing))}; expected {', '.join(COLUMNS)}")
        table = parquet.read(columns=list(COLUMNS[1:])).to_pandas()
        for name in NUMBERS:
            if not pd.api.types.is_integer_dtype(table[name]) or (table[name] < 0).any():
                raise BenchError(f"{file}: column {name}: expected whole numbers from 0 on, none missing")
        if table["curr_time"].isna().any():
            raise BenchError(f"{file}: column curr_time has missing values")
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    if not len(table):
        raise BenchError(f"{files[0].parent}: the parquet files contain no trials")
    place = ["subject_id", "session", "block", "trial"]
    if (repeated := table.duplicated(place)).any():
        subject, session, block, trial = table[place][repeated].to_numpy()[0]
        raise BenchError(f"{files[0].parent}: subject {subject}, session {session}, block {block}, trial {trial} "
                         "is listed twice")
    return table


def assign_parts(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Returns the part of each trial [N] by image, and by image and block: "" where these two differ.

    An image's part depends on its number only. The blocks of a subject take turns.
    """
    of_turn = {0: "test", 1: "val"}
    of_image = {number: of_turn.get(hashlib.sha256(str(number).encode()).digest()[0] % HELD_OUT, "train")
                for number in set(table["coco_id"])}
    item = [of_image[number] for number in table["coco_id"]]
    blocks = table[["subject_id", "session", "block"]].drop_duplicates().sort_values(["subject_id", "session", "block"])
    blocks["turn"] = blocks.groupby("subject_id").cumcount() % HELD_OUT
    block = [of_turn.get(turn, "train") for turn in table.merge(blocks, how="left")["turn"]]
    return item, [first if first == second else "" for first, second in zip(item, block, strict=True)]


def _read_windows(file: Path) -> Iterator[Array]:
    """Yields the EEG of a file in V, [n, 64, T] at a time. Raises BenchError for another shape or rate."""
    parquet = _open_parquet(file)
    from pyarrow.compute import list_value_length

    for batch in parquet.iter_batches(batch_size=BATCH, columns=["EEG"]):
        column = batch.column(0)
        column = getattr(column, "storage", column)
        channels = column.flatten() if column.null_count == 0 else None
        if channels is None or not hasattr(channels, "flatten") or channels.null_count:
            raise BenchError(f"{file}: column EEG: expected [{N_CHANS}, T] for each trial, none missing")
        counts, lengths = (np.unique(list_value_length(level).to_numpy(zero_copy_only=False))
                           for level in (column, channels))
        if counts.tolist() != [N_CHANS] or len(lengths) != 1:
            raise BenchError(f"{file}: trials of {_range(counts)} channels and {_range(lengths)} samples; expected "
                             f"{N_CHANS} channels of the same length")
        samples = int(lengths[0])
        if not SECONDS[0] <= samples / RATE <= SECONDS[1]:
            raise BenchError(f"{file}: trials of {samples} samples; expected about 334, which are 0.65 s at {RATE:g} "
                             "Hz: is it another sampling rate?")
        values = channels.flatten().to_numpy(zero_copy_only=False)
        yield np.asarray(values, np.float64).reshape(-1, N_CHANS, samples)


def _range(counts: Array) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
