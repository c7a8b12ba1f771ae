"""Prepares ImageNet-EEG (Spampinato et al., CVPR 2017; Palazzo et al., TPAMI 2020) from its published files."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import prepared, writing
from bench.data.listing import describe_counts
from bench.data.prepared import PARTS, Array
from bench.data.unpickle import load_torch
from bench.data.writing import TrialWriter
from bench.errors import BenchError
from bench.runtime import ignore

NAME = "imagenet_eeg"
SOURCES = (
    "eeg_5_95_std.pth, eeg_14_70_std.pth, eeg_55_95_std.pth: at least one of them, 3.1 GB each; "
    "https://github.com/perceivelab/eeg_visual_classification links to them (no licence is stated)",
    "block_splits_by_image_all.pth, block_splits_by_image_single.pth: from the same place",
    "the images, as --set pictures=DIR with DIR/<wnid>/<wnid>_<n>.JPEG: ImageNet's training images "
    "(https://image-net.org, for non-commercial research, on registration)",
)
OPTIONS = {
    "pictures": "folder of the images, <wnid>/<wnid>_<n>.JPEG (required)",
    "bands": "of 5-95, 14-70, 55-95 in Hz, separated by commas (default: those whose files exist)",
    "size": "side of the images in pixels (default: 512)",
}
BANDS = ((5.0, 95.0), (14.0, 70.0), (55.0, 95.0))
N_CHANS, N_TIMES = 128, 512
RATE = 1000.0  # Hz, as published; the files do not state it
BEGIN, END = 20, 460  # samples used (released code)
SFREQ = RATE * N_TIMES / (END - BEGIN)  # Hz, after interpolation
SHORTEST, LONGEST = 450, 600  # accepted samples of a segment (released code)
SINGLE_SUBJECT = 4  # the indices of block_splits_by_image_single.pth count this subject's trials, as the paper uses it
BATCH = 64  # trials interpolated at a time
SPLITS = {"item": "block_splits_by_image_all.pth", "single": "block_splits_by_image_single.pth"}
BLOCKS = "yes: each subject saw each class in one block, which train and test share: whatever drifts tells the class"
LEAKY = {"item": BLOCKS, "single": BLOCKS, "subject": "no: no person and no picture is in two parts"}


def prepare(source: Path, out: Path, pictures: Path | str | None = None,
            bands: Sequence[Sequence[float]] | str | None = None, size: int | str = 512,
            progress: Callable[..., None] = ignore) -> Path:
    """Writes the prepared data set to `out` (docs/data.md); on an error, `out` is unchanged.

    source: folder of the .pth files. bands: None takes all whose files exist. Samples 20 to 459 of each segment are
    interpolated linearly to 512 (released code). Trials that cannot be used are rejected and counted in the manifest.
    Raises BenchError (exit 2) for files that differ from the published ones in any other way.
    """
    source, side, files = Path(source), writing.parse_side(size), _find_files(Path(source), bands)
    if pictures is None:
        raise BenchError(f"{NAME} needs its images: --set pictures=DIR with <wnid>/<wnid>_<n>.JPEG")
    splits = {name: _read_split(source / file) for name, file in SPLITS.items()}
    with writing.new_folder(Path(out)) as work:
        listing: _Listing | None = None
        reasons: list[str] = []
        repaired, bad_channels, cast, writers = Counter[str](), Counter[str](), {}, {}
        for number, (band, file) in enumerate(files.items()):
            content = load_torch(file)
            current = _Listing(file, content)
            if listing is None:
                listing, reasons = current, [""] * len(current.subject)
                images = _image_files(Path(pictures), listing)
                writing.check_present(images, Path(pictures))
                parts = _assign_parts(listing, splits, source)
            else:
                listing.check_same(current)
            writer = TrialWriter(work / prepared.eeg_file(band), len(current.subject), N_CHANS, N_TIMES, sfreq=SFREQ)
            cast[file.name] = _convert(file, content.pop("dataset"), writer, number, len(files), progress)
            del content
            writer.close(str(file))
            reasons = [before or now for before, now in zip(reasons, writer.rejected, strict=True)]
            for total, counts in ((repaired, writer.repaired), (bad_channels, writer.bad_channels)):
                total.update({f"{reason}, {band[0]:g}-{band[1]:g} Hz": n for reason, n in counts.items()})
            writers[file] = writer
        assert listing is not None
        keep = np.array([not reason for reason in reasons])
        items = np.flatnonzero(keep).tolist()
        if not items:
            raise BenchError(f"{source}: all trials are rejected: {describe_counts(Counter(reasons))}")
        columns = {name: [part[item] for item in items] for name, part in parts.items()}
        for file, writer in writers.items():
            writer.keep_rows(keep, items, columns, str(file))
        label = _write_tables(work, listing, items, columns)
        writing.write_images(work / "pictures.npy", images, side, progress)
        writing.write_manifest(work, {
            "name": NAME, "n_chans": N_CHANS, "n_times": N_TIMES, "sfreq": SFREQ,
            "bands": [list(band) for band in files], "subjects": sorted({listing.subject[item] for item in items}),
            "options": {"size": side},
            "sources": {file.name: prepared.digest(file) for file in (
                *files.values(), *map(source.joinpath, SPLITS.values()))} | {
                    "pictures": writing.describe_images(images)},
            **writing.count_trials(reasons, repaired, columns, bad_channels), "cast": cast,
            "classes": len(set(label)),
            "leaky": {name: LEAKY[name] + _count_shared(listing, part) for name, part in parts.items()},
        })
    return Path(out)


class _Listing:
    """The trials listed in a band's file: image, label, subject [N]; labels: wnids; images: names of image files.

    Raises BenchError for a file of another structure.
    """

    def __init__(self, file: Path, content: Any):
        self.file = file
        if not isinstance(content, dict) or not {"dataset", "labels", "images"} <= set(content):
            raise BenchError(f"{file}: expected a dict of dataset, labels and images, not "
                             f"{', '.join(map(str, content)) if isinstance(content, dict) else type(content).__name__}")
        self.labels, self.images = (_check_texts(file, name, content[name]) for name in ("labels", "images"))
        trials = content["dataset"]
        if not isinstance(trials, list) or not trials:
            raise BenchError(f"{file}: dataset: expected a list of trials")
        self.image, self.label, self.subject = (
            [_check_number(file, item, trial, key) for item, trial in enumerate(trials)]
            for key in ("image", "label", "subject"))
        for wnid in self.labels:
            if not re.fullmatch(r"n[0-9]{8}", wnid):
                raise BenchError(f"{file}: label {wnid!r} is not a WordNet id, such as n02389026")
        for name in self.images:
            if not re.fullmatch(r"n[0-9]{8}_[0-9]+", name):
                raise BenchError(f"{file}: image {name!r} is not an accepted name, such as n02951358_31190")
        seen: dict[tuple[int, int], int] = {}
        for item, (image, label, subject) in enumerate(zip(self.image, self.label, self.subject, strict=True)):
            for name, value, known in (("image", image, self.images), ("label", label, self.labels)):
                if not 0 <= value < len(known):
                    raise BenchError(f"{file}: trial {item} has {name} {value}; expected 0 to {len(known) - 1}")
            if self.images[image].split("_")[0] != self.labels[label]:
                raise BenchError(f"{file}: trial {item} has label {label} ({self.labels[label]}) and shows "
                                 f"{self.images[image]}, whose name states another class")
            if (subject, image) in seen:
                raise BenchError(f"{file}: trials {seen[subject, image]} and {item} both show {self.images[image]} to "
                                 f"subject {subject}; expected each image once for each subject")
            seen[subject, image] = item

    def check_same(self, other: _Listing) -> None:
        """Raises BenchError if another band's file lists other trials."""
        for name in ("images", "labels", "subject", "image", "label"):
            if getattr(self, name) != getattr(other, name):
                raise BenchError(f"{other.file} does not list the trials of {self.file.name} in the same order "
                                 f"({name} differ): use bands of one release")


def _find_files(source: Path, bands: Sequence[Sequence[float]] | str | None) -> dict[tuple[float, float], Path]:
    """Returns the file of each band. Raises BenchError if a requested one is missing, or all are."""
    wanted = BANDS if bands is None else tuple(_parse_bands(bands))
    files = {band: source / f"eeg_{band[0]:g}_{band[1]:g}_std.pth" for band in wanted}
    present = {band: file for band, file in files.items() if file.is_file()}
    if not present or (bands is not None and len(present) < len(files)):
        absent = ", ".join(file.name for band, file in files.items() if band not in present)
        raise BenchError(f"{source}: no {absent}; expected the published files of {NAME}")
    return present


def _parse_bands(bands: Sequence[Sequence[float]] | str) -> list[tuple[float, float]]:
    given = [text.split("-") for text in bands.split(",")] if isinstance(bands, str) else list(bands)
    known = ", ".join(f"{low:g}-{high:g}" for low, high in BANDS)
    try:
        parsed = {(float(low), float(high)) for low, high in given}
    except ValueError as error:
        raise BenchError(f"bands={bands}: expected some of {known}, separated by commas") from error
    if not parsed or parsed - set(BANDS):
        raise BenchError(f"bands={bands}: {NAME} was published at {known} Hz")
    return sorted(parsed, key=BANDS.index)


def _check_texts(file: Path, name: str, value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(text, str) for text in value):
        raise BenchError(f"{file}: {name}: expected a list of text")
    if len(set(value)) < len(value):
        repeated = next(text for text, n in Counter(value).items() if n > 1)
        raise BenchError(f"{file}: {name} lists {repeated} twice")
    return list(value)


def _check_number(file: Path, item: int, trial: Any, key: str) -> int:
    try:
        return operator.index(trial[key])
    except (KeyError, TypeError, IndexError) as error:
        raise BenchError(f"{file}: trial {item} has no whole number {key!r}; expected a dict of eeg, image, label and "
                         "subject") from error


def _read_split(file: Path) -> dict[str, list[int]]:
    """Returns split 0 of a file: the indices of each part. Raises BenchError for another structure."""
    content = load_torch(file)
    try:
        split = content["splits"][0]
        return {part: [operator.index(index) for index in split[part]] for part in PARTS}
    except (KeyError, TypeError, IndexError) as error:
        raise BenchError(f"{file}: expected 'splits', a list of dicts with the lists of indices train, val and test "
                         f"({type(error).__name__}: {error})") from error


def _assign_parts(listing: _Listing, splits: dict[str, dict[str, list[int]]], source: Path) -> dict[str, list[str]]:
    """Returns the part of each trial [N] in each split, "" if it has none."""
    total = len(listing.subject)
    single = [item for item in range(total) if listing.subject[item] == SINGLE_SUBJECT]
    parts = {"item": _column(splits["item"], list(range(total)), total, source / SPLITS["item"], "trials")}
    if single:
        parts["single"] = _column(splits["single"], single, total, source / SPLITS["single"],
                                  f"trials of subject {SINGLE_SUBJECT}")
    subjects = sorted(set(listing.subject))
    if len(subjects) >= 3:
        parts["subject"] = _split_by_subject(listing, parts["item"], subjects)
    return parts


def _column(split: dict[str, list[int]], rows: list[int], total: int, file: Path, counted: str) -> list[str]:
    """Returns the parts of all trials [total], from indices into `rows`."""
    column: list[str] = [""] * total
    seen: dict[int, str] = {}
    for part, indices in split.items():
        for index in indices:
            if not 0 <= index < len(rows):
                raise BenchError(f"{file}: index {index} of {part}; expected 0 to {len(rows) - 1:,}, as there are "
                                 f"{len(rows):,} {counted}")
            if index in seen:
                raise BenchError(f"{file}: index {index} is in {seen[index]} and again in {part}; expected it once")
            seen[index] = part
            column[rows[index]] = part
    return column


def _split_by_subject(listing: _Listing, item_part: list[str], subjects: list[int]) -> list[str]:
    """Returns parts [N] that share neither people nor images, "" for trials in no part.

    The highest subject tests, the next one validates, the others train; each part has only the images that the split
    by item gives to no other part.
    """
    part_of = dict.fromkeys(subjects, "train") | {subjects[-1]: "test", subjects[-2]: "val"}
    image_parts = _image_parts(listing, item_part)
    return [part_of[subject] if image_parts[image] == {part_of[subject]} else ""
            for subject, image in zip(listing.subject, listing.image, strict=True)]


def _image_parts(listing: _Listing, column: Sequence[str]) -> dict[int, set[str]]:
    """Returns the parts of each image in a split; "" stands for no part."""
    parts: dict[int, set[str]] = {}
    for image, part in zip(listing.image, column, strict=True):
        parts.setdefault(image, set()).add(part)
    return parts


def _count_shared(listing: _Listing, column: Sequence[str]) -> str:
    """Returns the end of a split's statement on leaks: how many images are in two parts, if any."""
    shared = sum(len(parts - {""}) > 1 for parts in _image_parts(listing, column).values())
    return f"; {shared:,} pictures are in two parts" if shared else ""


def _image_files(folder: Path, listing: _Listing) -> list[Path]:
    """Returns the files of the images shown in any trial, in the order of the list of images."""
    names = [listing.images[image] for image in sorted(set(listing.image))]
    return [folder / name.split("_")[0] / f"{name}.JPEG" for name in names]


def _convert(file: Path, trials: list[dict[str, Any]], writer: TrialWriter, number: int, files: int,
             progress: Callable[..., None]) -> dict[str, int]:
    """Writes all trials of file `number`, BATCH at a time, and frees each; returns how many were cast, by type."""
    cast, lengths = Counter[str](), []
    total = len(trials)
    for begin in range(0, total, BATCH):
        rows, segments = [], []
        for item in range(begin, min(begin + BATCH, total)):
            segment = _read_segment(file, item, trials[item], cast)
            trials[item] = {}
            lengths.append(segment.shape[1])
            if not max(SHORTEST, END) <= lengths[-1] <= LONGEST:
                writer.rejected[item] = "short" if lengths[-1] < END else "long"
                continue
            rows.append(item)
            segments.append(segment[:, BEGIN:END])
        for row, window, segment in zip(rows, stretch(np.stack(segments)) if rows else (), segments, strict=True):
            writer.put(row, window, segment)
        progress(number * total + min(begin + BATCH, total), files * total)
    typical = float(np.median(lengths))
    if not SHORTEST <= typical <= LONGEST:
        raise BenchError(f"{file}: the median segment has {typical:g} samples; expected about {RATE / 2:g}, half a "
                         f"second at {RATE:g} Hz: is it another sampling rate?")
    return dict(cast)


def _read_segment(file: Path, item: int, trial: dict[str, Any], cast: Counter[str]) -> Array:
    """Returns a trial's EEG [128, L]; `cast` counts each conversion."""
    import torch

    eeg = trial.get("eeg")
    if not isinstance(eeg, torch.Tensor) or eeg.ndim != 2 or eeg.shape[0] != N_CHANS or eeg.is_complex():
        actual = f"{list(eeg.shape)} {eeg.dtype}" if isinstance(eeg, torch.Tensor) else type(eeg).__name__
        raise BenchError(f"{file}: trial {item} has eeg {actual}; expected a tensor [{N_CHANS}, L]")
    if eeg.dtype != torch.float32:
        cast[str(eeg.dtype).removeprefix("torch.")] += 1
    if not eeg.is_contiguous():
        cast["not contiguous"] += 1
    if eeg.requires_grad:
        cast["requires grad"] += 1
    eeg = eeg.detach()
    return (eeg.float() if eeg.dtype == torch.bfloat16 else eeg).numpy()


def stretch(windows: Array, n: int = N_TIMES) -> Array:
    """Interpolates windows [..., T] linearly to [..., n] over the same span, in float64 (released code)."""
    times = windows.shape[-1]
    place = np.linspace(0, 1, n) * (times - 1)
    low = np.minimum(place.astype(np.int64), times - 2)
    left = windows[..., low].astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite samples, rejected later
        return left + (windows[..., low + 1] - left) * (place - low)


def unstretch(windows: Array, times: int = END - BEGIN) -> Array:
    """Inverts `stretch` by least squares: windows [..., T] to the windows [..., times] before it, in float64."""
    return windows @ np.linalg.pinv(stretch(np.eye(times), windows.shape[-1]))


def _write_tables(work: Path, listing: _Listing, items: Sequence[int], parts: dict[str, list[str]]) -> list[int]:
    """Writes trials.csv and classes.csv; returns the labels [N].

    Labels are the numbers in the file, but classes that no trial shows come last.
    """
    used = {listing.label[item] for item in items}
    order = sorted(range(len(listing.labels)), key=lambda label: (label not in used, label))
    renumbered = {label: number for number, label in enumerate(order)}
    rows = {image: row for row, image in enumerate(sorted(set(listing.image)))}
    label = [renumbered[listing.label[item]] for item in items]
    names = [f"part_{name}" for name in parts]
    writing.write_table(work / "trials.csv", (*prepared.COLUMNS, *names), (
        (item, listing.subject[item], rows[listing.image[item]], label[row], -1, -1,
         *(parts[name][row] for name in parts)) for row, item in enumerate(items)))
    known = imagenet_classes()
    if unknown := [wnid for wnid in listing.labels if wnid not in known]:
        raise BenchError(f"{listing.file}: {', '.join(unknown)}: no class of ImageNet-1k, so the judge cannot know it")
    writing.write_table(work / "classes.csv", prepared.CLASS_COLUMNS, (
        (number, known[listing.labels[old]][1], known[listing.labels[old]][0], int(old in used))
        for number, old in enumerate(order)))
    return label


def imagenet_classes() -> dict[str, tuple[int, str]]:
    """Returns index and name of the 1,000 classes of ImageNet-1k by WordNet id, from timm."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return {wnid: (index, info.index_to_description(index).split(",")[0])
            for index, wnid in enumerate(info.label_names())}
