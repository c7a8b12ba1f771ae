"""ImageNet-EEG (Spampinato et al., CVPR 2017; Palazzo et al., TPAMI 2020) from its published files, converted once."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import prepared, writing
from bench.data.prepared import PARTS
from bench.data.unpickle import load_torch
from bench.data.writing import TrialWriter
from bench.errors import BenchError
from bench.runtime import silent

NAME = "imagenet_eeg"
SOURCES = (
    "eeg_5_95_std.pth, eeg_14_70_std.pth, eeg_55_95_std.pth: any of them, 3.1 GB each; "
    "https://github.com/perceivelab/eeg_visual_classification links to them (no licence is stated)",
    "block_splits_by_image_all.pth, block_splits_by_image_single.pth: from the same place",
    "the pictures, as --set pictures=DIR with DIR/<wnid>/<wnid>_<n>.JPEG: ImageNet's training pictures "
    "(https://image-net.org, for non-commercial research, on registration)",
)
OPTIONS = {
    "pictures": "folder of the pictures, <wnid>/<wnid>_<n>.JPEG (needed)",
    "bands": "of 5-95, 14-70, 55-95 in Hz, with commas (default: those whose files are there)",
    "size": "side of the pictures in pixels (default: 512)",
}
BANDS = ((5.0, 95.0), (14.0, 70.0), (55.0, 95.0))
N_CHANS, N_TIMES = 128, 512
RATE = 1000.0  # Hz, as published; the files do not state it
BEGIN, END = 20, 460  # samples that are used (released code)
SFREQ = RATE * N_TIMES / (END - BEGIN)  # Hz, after stretching
SHORTEST, LONGEST = 450, 600  # samples of a segment that is used (released code)
SINGLE_SUBJECT = 4  # whose trials the indices of block_splits_by_image_single.pth count, in the paper's use
TOGETHER = 64  # trials that are interpolated at a time
SPLITS = {"item": "block_splits_by_image_all.pth", "single": "block_splits_by_image_single.pth"}
LEAKY = {
    "item": "yes: each subject saw each class in one block, which train and test share: whatever drifts tells the "
            "class{shared}",
    "single": "yes: each subject saw each class in one block, which train and test share: whatever drifts tells the "
              "class{shared}",
    "subject": "no: no person and no picture is in two parts",
}

Array = np.ndarray


def prepare(source: Path, out: Path, pictures: Path | str | None = None,
            bands: Sequence[Sequence[float]] | str | None = None, size: int | str = 512,
            progress: Callable[..., None] = silent) -> Path:
    """The prepared data set at `out` (docs/data.md), complete or, on any error, as it was before.

    source: folder of the .pth files; bands: None takes those whose files are there. Samples 20 to 459 of each segment
    are linearly interpolated to 512 (released code). Raises BenchError (exit 2) for everything about the files that is
    not as published, but for trials that are rejected and counted in the manifest.
    """
    source, side, files = Path(source), writing.side(size), _files(Path(source), bands)
    if pictures is None:
        raise BenchError(f"{NAME} needs its pictures: --set pictures=DIR with <wnid>/<wnid>_<n>.JPEG")
    splits = {name: _split(source / file) for name, file in SPLITS.items()}
    with writing.preparing(Path(out)) as work:
        listing: _Listing | None = None
        reasons: list[str] = []
        repaired, cast, digests = Counter[str](), {}, []
        for number, (band, file) in enumerate(files.items()):
            content = load_torch(file)
            found = _Listing(file, content)
            if listing is None:
                listing, reasons = found, [""] * len(found.subject)
                shown = _shown(Path(pictures), listing)
                writing.present(shown, Path(pictures))
                parts = _parts(listing, splits, source)
            else:
                listing.same(found)
            writer = TrialWriter(work / prepared.eeg_file(band), len(found.subject), N_CHANS, N_TIMES)
            cast[file.name] = _convert(file, content.pop("dataset"), writer, number, len(files), progress)
            del content
            writer.close(str(file))
            reasons = [before or now for before, now in zip(reasons, writer.rejected, strict=True)]
            repaired.update({f"{reason}, {band[0]:g}-{band[1]:g} Hz": n for reason, n in writer.repaired.items()})
            digests.append((file, writer.digests))
        assert listing is not None
        kept = [item for item, reason in enumerate(reasons) if not reason]
        if not kept:
            raise BenchError(f"{source}: no trial is left: {dict(Counter(reasons))}")
        columns = {name: [part[item] for item in kept] for name, part in parts.items()}
        for file, prints in digests:
            writing.no_copies([prints[item] for item in kept], kept, columns, str(file))
        for band in files:
            writing.keep_rows(work / prepared.eeg_file(band), np.array([not reason for reason in reasons]))
        label = _tables(work, listing, kept, columns)
        writing.write_pictures(work / "pictures.npy", shown, side, progress)
        shared = {name: _shared(listing, part) for name, part in parts.items()}
        writing.finish(work, {
            "name": NAME, "n_chans": N_CHANS, "n_times": N_TIMES, "sfreq": SFREQ,
            "bands": [list(band) for band in files], "subjects": sorted({listing.subject[item] for item in kept}),
            "options": {"size": side},
            "sources": {file.name: prepared.digest(file) for file in (
                *files.values(), *(source / file for file in SPLITS.values()))} | {
                    "pictures": writing.picture_source(shown)},
            "rejected": dict(Counter(filter(None, reasons))), "repaired": dict(repaired), "cast": cast,
            "classes": len(set(label)),
            "coverage": {name: {part: column.count(part) for part in PARTS} for name, column in columns.items()},
            "leaky": {name: LEAKY[name].format(shared=shared[name]) for name in parts},
        })
    return Path(out)


class _Listing:
    """What a band's file says of its trials: image, label, subject [N]; labels: wnids; images: names of pictures.

    Raises BenchError for a file of another structure.
    """

    def __init__(self, file: Path, content: Any):
        self.file = file
        if not isinstance(content, dict) or not {"dataset", "labels", "images"} <= set(content):
            raise BenchError(f"{file}: a dict of dataset, labels and images is expected, not "
                             f"{', '.join(map(str, content)) if isinstance(content, dict) else type(content).__name__}")
        self.labels, self.images = (_texts(file, name, content[name]) for name in ("labels", "images"))
        trials = content["dataset"]
        if not isinstance(trials, list) or not trials:
            raise BenchError(f"{file}: dataset is expected to be a list of trials")
        self.image, self.label, self.subject = (
            [_number(file, item, trial, key) for item, trial in enumerate(trials)]
            for key in ("image", "label", "subject"))
        for wnid in self.labels:
            if not re.fullmatch(r"n[0-9]{8}", wnid):
                raise BenchError(f"{file}: label {wnid!r} is no WordNet id such as n02389026")
        for picture in self.images:
            if not re.fullmatch(r"n[0-9]{8}_[0-9]+", picture):
                raise BenchError(f"{file}: image {picture!r} is no name such as n02951358_31190; other names are not "
                                 "looked up")
        seen: dict[tuple[int, int], int] = {}
        for item, (image, label, subject) in enumerate(zip(self.image, self.label, self.subject, strict=True)):
            for name, value, there in (("image", image, self.images), ("label", label, self.labels)):
                if not 0 <= value < len(there):
                    raise BenchError(f"{file}: trial {item} has {name} {value}; 0 to {len(there) - 1} are expected")
            if self.images[image].split("_")[0] != self.labels[label]:
                raise BenchError(f"{file}: trial {item} has label {label} ({self.labels[label]}) and shows "
                                 f"{self.images[image]}; the picture's name states another class")
            if (subject, image) in seen:
                raise BenchError(f"{file}: trials {seen[subject, image]} and {item} are both subject {subject} seeing "
                                 f"{self.images[image]}; each picture was shown to a subject once")
            seen[subject, image] = item

    def same(self, other: _Listing) -> None:
        """Raises BenchError where another band's file lists other trials."""
        for name in ("images", "labels", "subject", "image", "label"):
            if getattr(self, name) != getattr(other, name):
                raise BenchError(f"{other.file} does not list the trials of {self.file.name} in the same order "
                                 f"({name} differ): the bands must come from one release")


def _files(source: Path, bands: Sequence[Sequence[float]] | str | None) -> dict[tuple[float, float], Path]:
    """The file of each band. Raises BenchError where a wanted one is missing, or all are."""
    wanted = BANDS if bands is None else tuple(_bands(bands))
    files = {band: source / f"eeg_{band[0]:g}_{band[1]:g}_std.pth" for band in wanted}
    there = {band: file for band, file in files.items() if file.is_file()}
    if not there or (bands is not None and len(there) < len(files)):
        absent = ", ".join(file.name for band, file in files.items() if band not in there)
        raise BenchError(f"{source}: no {absent}; the files of {NAME} are expected there as they were published")
    return there


def _bands(bands: Sequence[Sequence[float]] | str) -> list[tuple[float, float]]:
    given = [text.split("-") for text in bands.split(",")] if isinstance(bands, str) else list(bands)
    known = ", ".join(f"{low:g}-{high:g}" for low, high in BANDS)
    try:
        found = [(float(low), float(high)) for low, high in given]
    except ValueError as error:
        raise BenchError(f"bands={bands}: of {known} are expected, with commas") from error
    if not found or set(found) - set(BANDS):
        raise BenchError(f"bands={bands}: {NAME} was published at {known} Hz")
    return sorted(set(found), key=BANDS.index)


def _texts(file: Path, name: str, value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(text, str) for text in value):
        raise BenchError(f"{file}: {name} is expected to be a list of text")
    if len(set(value)) < len(value):
        twice = next(text for text, n in Counter(value).items() if n > 1)
        raise BenchError(f"{file}: {name} lists {twice} twice")
    return list(value)


def _number(file: Path, item: int, trial: Any, key: str) -> int:
    try:
        return operator.index(trial[key])
    except (KeyError, TypeError, IndexError) as error:
        raise BenchError(f"{file}: trial {item} has no whole number {key!r}; a dict of eeg, image, label and subject "
                         "is expected") from error


def _split(file: Path) -> dict[str, list[int]]:
    """Split 0 of a file of splits: the indices of each part. Raises BenchError for another structure."""
    content = load_torch(file)
    try:
        split = content["splits"][0]
        return {part: [operator.index(index) for index in split[part]] for part in PARTS}
    except (KeyError, TypeError, IndexError) as error:
        raise BenchError(f"{file}: 'splits', a list of dicts with lists of indices train, val and test, is expected "
                         f"({type(error).__name__}: {error})") from error


def _parts(listing: _Listing, splits: dict[str, dict[str, list[int]]], source: Path) -> dict[str, list[str]]:
    """The part of each trial [N] in each split, "" where it has none."""
    total = len(listing.subject)
    own = [item for item in range(total) if listing.subject[item] == SINGLE_SUBJECT]
    parts = {"item": _column(splits["item"], list(range(total)), total, source / SPLITS["item"], "trials")}
    if own:
        parts["single"] = _column(splits["single"], own, total, source / SPLITS["single"],
                                  f"trials of subject {SINGLE_SUBJECT}")
    subjects = sorted(set(listing.subject))
    if len(subjects) >= 3:
        parts["subject"] = _by_subject(listing, parts["item"], subjects)
    return parts


def _column(split: dict[str, list[int]], rows: list[int], total: int, file: Path, named: str) -> list[str]:
    """Parts of all trials [total], from indices that count those in `rows`."""
    column: list[str] = [""] * total
    seen: dict[int, str] = {}
    for part, indices in split.items():
        for index in indices:
            if not 0 <= index < len(rows):
                raise BenchError(f"{file}: index {index} of {part}; there are {len(rows):,} {named}, 0 to "
                                 f"{len(rows) - 1:,}")
            if index in seen:
                raise BenchError(f"{file}: index {index} stands in {seen[index]} and again in {part}")
            seen[index] = part
            column[rows[index]] = part
    return column


def _by_subject(listing: _Listing, item_part: list[str], subjects: list[int]) -> list[str]:
    """Parts [N] that share neither people nor pictures, "" for trials that are in none.

    The highest subject tests, the next one validates, the others train, each on the pictures that the split by item
    gives to that part alone.
    """
    whose = dict.fromkeys(subjects, "train") | {subjects[-1]: "test", subjects[-2]: "val"}
    of_picture: dict[int, set[str]] = {}
    for image, part in zip(listing.image, item_part, strict=True):
        of_picture.setdefault(image, set()).add(part)
    return [whose[subject] if of_picture[image] == {whose[subject]} else ""
            for subject, image in zip(listing.subject, listing.image, strict=True)]


def _shared(listing: _Listing, column: Sequence[str]) -> str:
    """What to add where pictures stand in two parts of a split."""
    parts: dict[int, set[str]] = {}
    for image, part in zip(listing.image, column, strict=True):
        if part:
            parts.setdefault(image, set()).add(part)
    twice = sum(len(found) > 1 for found in parts.values())
    return f"; {twice:,} pictures are in two parts" if twice else ""


def _shown(pictures: Path, listing: _Listing) -> list[Path]:
    """The files of the pictures that any trial shows, in the order of the list of images."""
    names = [listing.images[image] for image in sorted(set(listing.image))]
    return [pictures / name.split("_")[0] / f"{name}.JPEG" for name in names]


def _convert(file: Path, trials: list[dict[str, Any]], writer: TrialWriter, number: int, files: int,
             progress: Callable[..., None]) -> dict[str, int]:
    """Writes all trials of file `number`, TOGETHER at a time, and lets go of each; returns how many were cast."""
    cast, lengths = Counter[str](), []
    total = len(trials)
    for begin in range(0, total, TOGETHER):
        rows, segments = [], []
        for item in range(begin, min(begin + TOGETHER, total)):
            segment = _segment(file, item, trials[item], cast)
            trials[item] = {}
            lengths.append(segment.shape[1])
            if not max(SHORTEST, END) <= lengths[-1] <= LONGEST:
                writer.rejected[item] = "short" if lengths[-1] < END else "long"
                continue
            rows.append(item)
            segments.append(segment[:, BEGIN:END])
        for row, window, segment in zip(rows, stretched(np.stack(segments)) if rows else (), segments, strict=True):
            writer.put(row, window, segment)
        progress(number * total + min(begin + TOGETHER, total), files * total)
    typical = float(np.median(lengths))
    if not SHORTEST <= typical <= LONGEST:
        raise BenchError(f"{file}: the median segment has {typical:g} samples; some {RATE / 2:g} are expected of half "
                         f"a second at {RATE:g} Hz: is it another sampling rate?")
    return dict(cast)


def _segment(file: Path, item: int, trial: dict[str, Any], cast: Counter[str]) -> Array:
    """A trial's EEG [128, L]; what had to be done with it is counted."""
    import torch

    eeg = trial.get("eeg")
    if not isinstance(eeg, torch.Tensor) or eeg.ndim != 2 or eeg.shape[0] != N_CHANS or eeg.is_complex():
        found = f"{list(eeg.shape)} {eeg.dtype}" if isinstance(eeg, torch.Tensor) else type(eeg).__name__
        raise BenchError(f"{file}: trial {item} has eeg {found}; a tensor [{N_CHANS}, L] is expected")
    if eeg.dtype != torch.float32:
        cast[str(eeg.dtype).removeprefix("torch.")] += 1
    if not eeg.is_contiguous():
        cast["not contiguous"] += 1
    if eeg.requires_grad:
        cast["requires grad"] += 1
    eeg = eeg.detach()
    return (eeg.float() if eeg.dtype == torch.bfloat16 else eeg).numpy()


def stretched(windows: Array, n: int = N_TIMES) -> Array:
    """Windows [..., T] linearly interpolated to [..., n] over the same span, in float64 (released code)."""
    times = windows.shape[-1]
    at = np.linspace(0, 1, n) * (times - 1)
    low = np.minimum(at.astype(np.int64), times - 2)
    left = windows[..., low].astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite samples, which are rejected
        return left + (windows[..., low + 1] - left) * (at - low)


def _tables(work: Path, listing: _Listing, kept: Sequence[int], parts: dict[str, list[str]]) -> list[int]:
    """Writes trials.csv and classes.csv; returns the labels [N].

    Labels are the file's own numbers, unless a class was not shown: those come last.
    """
    used = {listing.label[item] for item in kept}
    order = sorted(range(len(listing.labels)), key=lambda label: (label not in used, label))
    renumbered = {label: number for number, label in enumerate(order)}
    rows = {image: row for row, image in enumerate(sorted(set(listing.image)))}
    label = [renumbered[listing.label[item]] for item in kept]
    names = [f"part_{name}" for name in parts]
    writing.write_table(work / "trials.csv", (*prepared.COLUMNS, *names), (
        (item, listing.subject[item], rows[listing.image[item]], label[row], -1, -1,
         *(parts[name][row] for name in parts)) for row, item in enumerate(kept)))
    known = imagenet_classes()
    if strange := [wnid for wnid in listing.labels if wnid not in known]:
        raise BenchError(f"{listing.file}: {', '.join(strange)}: no class of ImageNet-1k; the judge could not know it")
    writing.write_table(work / "classes.csv", prepared.CLASS_COLUMNS, (
        (number, known[listing.labels[old]][1], known[listing.labels[old]][0], int(old in used))
        for number, old in enumerate(order)))
    return label


def imagenet_classes() -> dict[str, tuple[int, str]]:
    """Index and name of the 1,000 classes of ImageNet-1k by WordNet id, as timm lists them."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return {wnid: (index, info.index_to_description(index).split(",")[0])
            for index, wnid in enumerate(info.label_names())}
