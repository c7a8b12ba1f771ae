"""A contact sheet: for an item of every class the stimulus and what each variant made of its EEG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.results import replace_file, writing

GAP, WIDE, TEXT = 3, 15, 13  # pixels: between samples, between columns, height of letters


def first_of_each(label: np.ndarray, per_class: int = 1) -> np.ndarray:
    """Rows of the first `per_class` items of every class, class by class: chosen before any result is seen."""
    return np.concatenate([np.flatnonzero(label == one)[:per_class] for one in np.unique(label)])


def sheet(path: Path, real: np.ndarray, label: np.ndarray, columns: Mapping[str, np.ndarray],
          names: Sequence[str] | None = None, per_class: int = 1, scale: int = 3) -> None:
    """Writes a PNG: a line for each item, the stimulus first, then every variant's samples under its name.

    real [N, H, W, 3] uint8, label [N]; columns: name -> [N, samples, H, W, 3] uint8, in order; names: what labels
    mean. Equal pictures are equal files. ValueError where a variant's pictures do not fit the stimuli.
    """
    for name, pictures in columns.items():
        if pictures.ndim != 5 or (pictures.shape[:1] + pictures.shape[2:]) != real.shape:
            raise ValueError(f"{name}: pictures {list(pictures.shape)} do not fit stimuli {list(real.shape)}")
    rows = first_of_each(label, per_class)
    cells = {"stimulus": real[:, None], **columns}
    font = ImageFont.load_default(TEXT)
    high, wide = real.shape[1] * scale, real.shape[2] * scale

    def spread(text: str) -> int:
        return round(font.getlength(text))

    margin = max((spread(names[label[row]]) for row in rows), default=0) + 2 * GAP if names else GAP
    lefts, right = {}, margin
    for name, pictures in cells.items():
        lefts[name] = right
        right += max(pictures.shape[1] * (wide + GAP), spread(name)) + WIDE
    top = 2 * TEXT
    image = Image.new("RGB", (right - WIDE + GAP, top + len(rows) * (high + GAP)), "white")
    draw = ImageDraw.Draw(image)
    for name, pictures in cells.items():
        draw.text((lefts[name], TEXT // 2), name, "black", font)
        for line, row in enumerate(rows):
            for sample, picture in enumerate(np.asarray(pictures[row])):
                shown = Image.fromarray(picture).resize((wide, high), Image.Resampling.NEAREST)
                image.paste(shown, (lefts[name] + sample * (wide + GAP), top + line * (high + GAP)))
    if names:
        for line, row in enumerate(rows):
            draw.text((GAP, top + line * (high + GAP) + (high - TEXT) // 2), names[label[row]], "black", font)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, buffer.getvalue())
