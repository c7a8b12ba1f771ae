"""A contact sheet: for an item of every class the stimulus, and below it what each variant made of its EEG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.results import replace_file, writing

GAP, WIDE, TEXT = 2, 12, 14  # pixels: between samples, between items, height of letters


def first_of_each(label: np.ndarray, per_class: int = 1) -> np.ndarray:
    """Rows of the first `per_class` items of every class, class by class: chosen before any result is seen."""
    return np.concatenate([np.flatnonzero(label == one)[:per_class] for one in np.unique(label)])


def sheet(path: Path, real: np.ndarray, label: np.ndarray, variants: Mapping[str, np.ndarray],
          names: Sequence[str], per_class: int = 1, scale: int = 2) -> None:
    """Writes a PNG: a column for each item under its class's name; the stimulus, then a line for each variant.

    real [N, H, W, 3] uint8, label [N]; variants: name -> [N, samples, H, W, 3] uint8, in order; names: what labels
    mean. Equal pictures are equal files. ValueError where a variant's pictures do not fit the stimuli.
    """
    for name, pictures in variants.items():
        if pictures.ndim != 5 or (pictures.shape[:1] + pictures.shape[2:]) != real.shape:
            raise ValueError(f"{name}: pictures {list(pictures.shape)} do not fit stimuli {list(real.shape)}")
    rows, lines = first_of_each(label, per_class), {"stimulus": real[:, None], **variants}
    font = ImageFont.load_default(TEXT)
    high, wide = real.shape[1] * scale + GAP, real.shape[2] * scale + GAP
    samples = max(pictures.shape[1] for pictures in lines.values())
    column = max(samples * wide, *(round(font.getlength(names[label[row]])) for row in rows)) + WIDE
    margin, top = max(round(font.getlength(name)) for name in lines) + WIDE, 2 * TEXT
    image = Image.new("RGB", (margin + len(rows) * column, top + len(lines) * high), "white")
    draw = ImageDraw.Draw(image)
    for place, row in enumerate(rows):
        draw.text((margin + place * column, TEXT // 2), names[label[row]], "black", font)
    for line, (name, pictures) in enumerate(lines.items()):
        draw.text((GAP, top + line * high + (high - TEXT) // 2), name, "black", font)
        for place, row in enumerate(rows):
            for sample, picture in enumerate(np.asarray(pictures[row])):
                shown = Image.fromarray(picture).resize((wide - GAP, high - GAP), Image.Resampling.NEAREST)
                image.paste(shown, (margin + place * column + sample * wide, top + line * high))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, buffer.getvalue())
