"""Small files in the formats of published data sets, for the scale rehearsal and for tests."""

from __future__ import annotations

import colorsys
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray
WNIDS = ("n02951358", "n03452741", "n04069434", "n02389026", "n07753592", "n03888257")  # unsorted, as published
LENGTHS = (491, 499, 500, 511)  # samples of a segment
FOLDS = 6
TESTED = 5  # test concepts of THINGS-EEG2


def write_imagenet_eeg(folder: Path, subjects: Sequence[int] = (1, 2, 3, 4, 5, 6), wnids: Sequence[str] = WNIDS[:4],
                       per_class: int = 6, seed: int = 0, serialisation: str = "legacy",
                       bands: Sequence[tuple[int, int]] = ((5, 95),), side: int = 48,
                       missing: int = 1) -> dict[str, Any]:
    """Writes ImageNet-EEG's files, and its images into folder/images; returns the content of the first band's file.

    EEG: float32 tensors [128, L], noise and a weak response to the class. The last `missing` trials are omitted.
    serialisation: "legacy", as published, or "zip". Equal seeds give equal bytes only for "zip", because torch writes
    memory addresses into the legacy form.
    """
    rng, classes = np.random.default_rng(seed), len(wnids)
    images = [(f"{wnid}_{1000 * (label + 1) + 7 * number}", label, number)
              for number in range(per_class) for label, wnid in enumerate(wnids)]
    for name, label, number in images:
        draw(folder / "images" / name.split("_")[0] / f"{name}.JPEG", label, classes, side, rng,
             mode={1: "L", 2: "CMYK"}.get(number if label == 0 else 0, "RGB"))
    shown = [(subject, image) for subject in subjects for image in range(len(images))]
    shown = shown[: len(shown) - missing]
    responses = rng.standard_normal((classes, 128, 4)) @ _waves(max(LENGTHS), rng)
    first: dict[str, Any] = {}
    for band in bands:
        content = {"dataset": [_trial(subject, image, images[image][1], responses, rng) for subject, image in shown],
                   "labels": list(wnids), "images": [name for name, _, _ in images]}
        save(folder / f"eeg_{band[0]}_{band[1]}_std.pth", content, serialisation)
        first = first or content
    held_out = max(1, round(per_class / 6))
    folds = []
    for fold in range(FOLDS):
        split: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        for index, (_, image) in enumerate(shown):
            split[_part((images[image][2] + fold * held_out) % per_class, per_class, held_out)].append(index)
        folds.append(split)
    save(folder / "block_splits_by_image_all.pth", {"splits": folds}, serialisation)
    single: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    half = max(3, -(-per_class // 2))  # the first half of subject 4's images, as published
    for index, image in enumerate([image for subject, image in shown if subject == 4][: classes * half]):
        single[_part(image // classes, half, max(1, round(half / 6)))].append(index)
    save(folder / "block_splits_by_image_single.pth", {"splits": [single]}, serialisation)
    return first


def write_things(folder: Path, variant: str = "gifford", subjects: Sequence[int] = (1, 2), concepts: int = 10,
                 seed: int = 0, side: int = 32) -> None:
    """Writes THINGS-EEG2's files, and its images into folder/images.

    variant: "gifford" (np.save of a dict, 17 channels, 100 Hz) or "nice" (a pickle named .npy, 63 channels, 250 Hz, 300
    times for 250 samples, which belong to the last 250). Training: two images of each concept x 4 repetitions; test: 5
    images x 8; noise and a weak response to the concept.
    """
    rng = np.random.default_rng(seed)
    channels, times, samples = {"gifford": (17, np.arange(-20, 80) / 100, 100),
                                "nice": (63, np.arange(-50, 250) / 250, 250)}[variant]
    names = [f"E{number + 1}" for number in range(channels)]
    responses = rng.standard_normal((concepts + TESTED, channels, 1)) * np.sin(2 * np.pi * 6 * times[-samples:])
    metadata: dict[str, list[str]] = {}
    for part, prefix, first, count, each in (("train", "training", 0, concepts, 2),
                                             ("test", "test", concepts, TESTED, 1)):
        titles = [f"{number + 1:05d}_thing_{chr(97 + first + number)}" for number in range(count)]
        shown = [(title, f"{title[6:]}_{copy + 1:02d}b.jpg") for title in titles for copy in range(each)]
        labels = [first + number // each for number in range(len(shown))]
        for (title, file), label in zip(shown, labels, strict=True):
            draw(folder / "images" / f"{prefix}_images" / title / file, label, concepts + TESTED, side, rng)
        metadata[f"{part}_img_concepts"] = [title for title, _ in shown]
        metadata[f"{part}_img_concepts_THINGS"] = [title for title, _ in shown]
        metadata[f"{part}_img_files"] = [file for _, file in shown]
        for subject in subjects:
            path = folder / f"sub-{subject:02d}" / f"preprocessed_eeg_{prefix}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            eeg = rng.standard_normal((len(shown), 4 if part == "train" else 8, channels, samples))
            content = {"preprocessed_eeg_data": eeg + 0.15 * responses[labels][:, None], "ch_names": names,
                       "times": times}
            dump(path, content, variant)
    np.save(folder / "image_metadata.npy", metadata)  # type: ignore[arg-type]


def dump(path: Path, content: dict[str, Any], variant: str) -> None:
    """Writes a dict as a variant of THINGS-EEG2 does."""
    if variant == "gifford":
        np.save(path, content)  # type: ignore[arg-type]
    else:
        path.write_bytes(pickle.dumps(content, protocol=4))


def save(path: Path, content: Any, serialisation: str = "legacy") -> None:
    """Writes content with torch.save, in the legacy form (a pickle) or in the zip form."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, _use_new_zipfile_serialization={"legacy": False, "zip": True}[serialisation])


def draw(path: Path, label: int, classes: int, side: int, rng: np.random.Generator, mode: str = "RGB") -> None:
    """Saves an image of a class: its colour (a hue) and shape, at a random position and size."""
    colour = tuple(int(255 * channel) for channel in colorsys.hsv_to_rgb(label / classes, 0.9, 0.8))
    ground = tuple(int(value) for value in rng.integers(150, 230, 3))
    image = Image.new("RGB", (side + side // 3, side), ground)
    radius = side * rng.uniform(0.2, 0.35)
    x, y = rng.uniform(radius, image.width - radius), rng.uniform(radius, side - radius)
    box = (x - radius, y - radius, x + radius, y + radius)
    pen = ImageDraw.Draw(image)
    if label % 3 == 0:
        pen.ellipse(box, fill=colour)
    elif label % 3 == 1:
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path)


def _part(place: int, count: int, held_out: int) -> str:
    """Returns the part of the image at a place of `count`: the last `held_out` test, as many before them validate."""
    return "test" if place >= count - held_out else "val" if place >= count - 2 * held_out else "train"


def _waves(n: int, rng: np.random.Generator) -> Array:
    """Returns four damped oscillations [4, n] at 1 kHz."""
    time = np.arange(n) / 1000
    onset, rate = rng.uniform(0.05, 0.2, (4, 1)), rng.uniform(6, 20, (4, 1))
    since = np.clip(time - onset, 0, None)
    return np.sin(2 * np.pi * rate * since) * np.exp(-since / 0.12)


def _trial(subject: int, image: int, label: int, responses: Array, rng: np.random.Generator) -> dict[str, Any]:
    import torch

    length = int(rng.choice(LENGTHS))
    noise = rng.standard_normal((128, length + 8), np.float32)
    smooth = np.cumsum(noise, 1)
    eeg = (smooth[:, 8:] - smooth[:, :-8]) / np.sqrt(8) + 0.15 * responses[label][:, :length]
    return {"eeg": torch.tensor(eeg, dtype=torch.float32), "image": image, "label": label, "subject": subject}
