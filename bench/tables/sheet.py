"""Draws sheets: the images of each variant for the same items below the stimuli, matrices, titles and captions."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.files import replace_file, writing

GAP, WIDE, TEXT = 2, 12, 14  # pixels: between samples, between items, height of letters
LARGEST = 128  # pixels along a side of a sheet's images
CELL = 26  # pixels: height of a matrix's cells
FULL_SHADE = (20, 60, 140)  # red, green, blue of a matrix's cell with 100 %


def first_of_each(label: np.ndarray, per_class: int = 1, most: int | None = None) -> np.ndarray:
    """Returns the rows of the first `per_class` items of every class, independent of any result.

    With more than `most` classes, only every second class, or third, and so on.
    """
    classes = np.unique(label)
    step = math.ceil(len(classes) / most) if most else 1
    return np.concatenate([np.flatnonzero(label == value)[:per_class] for value in classes[::step]])


def sheet(path: Path, real: np.ndarray, label: np.ndarray, variants: Mapping[str, np.ndarray],
          names: Sequence[str], per_class: int = 1, scale: int = 2) -> None:
    """Writes a PNG: a column for each item under its class's name; the stimulus, then a line for each variant.

    real [N, H, W, 3] uint8, label [N]; variants: name -> [N, samples, H, W, 3] uint8, in order; names: of the labels.
    Equal images give equal files. Raises ValueError if a variant's images do not fit the stimuli.
    """
    rows = first_of_each(label, per_class)
    lines = {name: pictures[rows] for name, pictures in fitting(real, variants).items()}
    save(path, block(lines, [names[label[row]] for row in rows], min(real.shape[1] * scale, LARGEST)))


def fitting(real: np.ndarray, variants: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the lines of a block: "stimulus", then the variants. Raises ValueError for images that do not fit."""
    for name, images in variants.items():
        if images.ndim != 5 or (images.shape[:1] + images.shape[2:]) != real.shape:
            raise ValueError(f"{name}: images {list(images.shape)} do not fit stimuli {list(real.shape)}")
    return {"stimulus": real[:, None], **variants}


def block(lines: Mapping[str, np.ndarray], heads: Sequence[str], side: int) -> Image.Image:
    """Draws lines of images under the heads of their columns, with the name of each line on the left.

    lines: name -> [n, samples, H, W, 3] uint8, for n heads. side: the height of an image in pixels; images are enlarged
    pixel by pixel, and reduced by Lanczos.
    """
    font = ImageFont.load_default(TEXT)
    height, width = next(iter(lines.values())).shape[2:4]
    size = (round(side * width / height), side)
    rule = Image.Resampling.NEAREST if side >= height else Image.Resampling.LANCZOS
    high, wide = size[1] + GAP, size[0] + GAP
    samples = max(images.shape[1] for images in lines.values())
    column = max(samples * wide, *(round(font.getlength(head)) for head in heads)) + WIDE
    margin, top = max(round(font.getlength(name)) for name in lines) + WIDE, 2 * TEXT
    image = Image.new("RGB", (margin + len(heads) * column, top + len(lines) * high), "white")
    draw = ImageDraw.Draw(image)
    for place, head in enumerate(heads):
        draw.text((margin + place * column, TEXT // 2), head, "black", font)
    for line, (name, images) in enumerate(lines.items()):
        draw.text((GAP, top + line * high + (high - TEXT) // 2), name, "black", font)
        for place, drawn in enumerate(images):
            for sample, pixels in enumerate(drawn):
                shown = Image.fromarray(pixels).resize(size, rule)
                image.paste(shown, (margin + place * column + sample * wide, top + line * high))
    return image


def matrix(share: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """Draws shares [R, C] from 0 to 1 as shaded cells in per cent; a number that rounds to 0 is left out."""
    font = ImageFont.load_default(TEXT)
    margin = max(round(font.getlength(name)) for name in rows) + WIDE
    wide = max(round(font.getlength(name)) for name in columns) + WIDE
    image = Image.new("RGB", (margin + len(columns) * wide, 2 * TEXT + len(rows) * CELL), "white")
    draw = ImageDraw.Draw(image)
    for place, name in enumerate(columns):
        draw.text((margin + place * wide + wide // 2, TEXT // 2), name, "black", font, anchor="ma")
    for line, name in enumerate(rows):
        top = 2 * TEXT + line * CELL
        draw.text((GAP, top + CELL // 2), name, "black", font, anchor="lm")
        for place, value in enumerate(share[line]):
            red, green, blue = (round(255 + float(value) * (full - 255)) for full in FULL_SHADE)
            left = margin + place * wide
            draw.rectangle((left, top, left + wide - GAP, top + CELL - GAP), (red, green, blue))
            if number := round(100 * value):
                draw.text((left + wide // 2, top + CELL // 2), str(number), "white" if value > 0.5 else "black", font,
                          anchor="mm")
    return image


def stacked(title: str, blocks: Sequence[Image.Image], caption: Sequence[str]) -> Image.Image:
    """Draws the title, the blocks below it, and the caption, wrapped to the width of the blocks."""
    font = ImageFont.load_default(TEXT)
    wide = max(40 * TEXT, *(block.width for block in blocks)) + 2 * WIDE
    head, foot = _wrapped([title], wide - 2 * WIDE), _wrapped(caption, wide - 2 * WIDE)
    step = TEXT * 4 // 3
    image = Image.new("RGB", (wide, (len(head) + len(foot)) * step + 4 * WIDE + sum(b.height + WIDE for b in blocks)),
                      "white")
    draw, top = ImageDraw.Draw(image), WIDE
    for line in head:
        draw.text((WIDE, top), line, "black", font)
        top += step
    top += WIDE
    for drawn in blocks:
        image.paste(drawn, (WIDE, top))
        top += drawn.height + WIDE
    for line in foot:
        draw.text((WIDE, top), line, "black", font)
        top += step
    return image


def save(path: Path, image: Image.Image) -> None:
    """Writes a PNG as a whole; equal images give equal files. Raises BenchError if it cannot be written."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, buffer.getvalue())


def _wrapped(lines: Sequence[str], wide: int) -> list[str]:
    font, done = ImageFont.load_default(TEXT), list[str]()
    for line in lines:
        current = ""
        for word in line.split():
            if current and font.getlength(f"{current} {word}") > wide:
                done.append(current)
                current = word
            else:
                current = f"{current} {word}".strip()
        done.append(current)
    return done
