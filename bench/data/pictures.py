"""Draws images of sixteen large shapes, with nuisance that is independent of the class, and their captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from bench.data.prepared import Array

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.15, 0.15), "orange": (0.96, 0.52, 0.08), "yellow": (0.95, 0.88, 0.20), "green": (0.15, 0.62, 0.22),
    "cyan": (0.15, 0.80, 0.85), "blue": (0.15, 0.28, 0.90), "purple": (0.55, 0.18, 0.75), "pink": (0.98, 0.55, 0.75),
    "lime": (0.60, 0.95, 0.20), "brown": (0.50, 0.30, 0.12),
}
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "black": (0.08, 0.08, 0.10), "gray": (0.45, 0.45, 0.47), "white": (0.93, 0.93, 0.92),
}
TILT = 0.15  # rad, largest rotation in both directions
SHIFT = 0.08  # half frames, largest offset of the centre along each axis
SIZES = (0.70, 0.84)  # half frames, length of one unit of a shape's coordinates


# A shape is a function of coordinates x (right) and y (up) around its centre, in which it extends about one unit. The
# function is negative inside, and close to the Euclidean distance from the outline near the outline.


def _disc(x: Array, y: Array, radius: float, cx: float = 0.0, cy: float = 0.0) -> Array:
    return np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - radius


def _box(x: Array, y: Array, left: float, right: float, bottom: float, top: float) -> Array:
    across, along = (right - left) / 2, (top - bottom) / 2
    return np.maximum(abs(x - (left + right) / 2) - across, abs(y - (bottom + top) / 2) - along)


def _polygon(x: Array, y: Array, *corners: tuple[float, float]) -> Array:
    """Returns the convex polygon with these corners, counter-clockwise."""
    distance = None
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        length = np.hypot(bx - ax, by - ay)
        edge = (x - ax) * np.float32((by - ay) / length) - (y - ay) * np.float32((bx - ax) / length)
        distance = edge if distance is None else np.maximum(distance, edge)
    return np.asarray(distance)


def _union(*distances: Array) -> Array:
    return np.minimum.reduce(distances)


def _without(distance: Array, hole: Array) -> Array:
    return np.maximum(distance, -hole)


def _star(x: Array, y: Array) -> Array:
    step = 2 * np.pi / 5
    angle, radius = np.arctan2(x, y), np.sqrt(x * x + y * y)
    folded = abs((angle % step) - step / 2)
    inner, (tip_x, tip_y) = 0.42, (1.05 * np.cos(step / 2), 1.05 * np.sin(step / 2))
    length = np.hypot(tip_x - inner, tip_y)
    return (tip_y * (radius * np.cos(folded) - inner) - (tip_x - inner) * radius * np.sin(folded)) / length


def _heart(x: Array, y: Array) -> Array:
    scale = 1.65
    x, y = abs(x) / scale, y / scale + 0.55
    diagonal = np.maximum(x + y, 0) / 2
    corner = np.minimum(x**2 + (y - 1) ** 2, (x - diagonal) ** 2 + (y - diagonal) ** 2)
    return scale * np.where(x + y > 1, _disc(x, y, 8**-0.5, 0.25, 0.75), np.sqrt(corner) * np.sign(x - y))


def _house(x: Array, y: Array) -> Array:
    roof = _polygon(x, y, (-1.0, 0.05), (1.0, 0.05), (0, 0.98))
    walls = _without(_box(x, y, -0.68, 0.68, -0.9, 0.1), _box(x, y, -0.2, 0.2, -1.0, -0.32))
    return _union(roof, walls)


def _tree(x: Array, y: Array) -> Array:
    top = _polygon(x, y, (-0.6, 0.2), (0.6, 0.2), (0, 1.05))
    bottom = _polygon(x, y, (-0.9, -0.5), (0.9, -0.5), (0, 0.55))
    return _union(top, bottom, _box(x, y, -0.16, 0.16, -1.0, -0.45))


def _fish(x: Array, y: Array) -> Array:
    body = np.maximum(_disc(x, y, 0.9, -0.25, -0.42), _disc(x, y, 0.9, -0.25, 0.42))
    return _union(body, _polygon(x, y, (0.3, 0), (0.98, -0.62), (0.98, 0.62)))


def _bolt(x: Array, y: Array) -> Array:
    upper = _polygon(x, y, (-0.55, -0.12), (0.2, -0.12), (0.5, 1.02), (-0.2, 1.02))
    lower = _polygon(x, y, (-0.35, -1.02), (0.62, 0.24), (-0.1, 0.24))
    return _union(upper, lower)


def _mushroom(x: Array, y: Array) -> Array:
    cap = np.maximum(_disc(x, y, 0.98, 0, -0.05), -0.05 - y)
    return _union(cap, _box(x, y, -0.3, 0.3, -0.92, 0.0))


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: _disc(x, y, 0.9),
    "square": lambda x, y: _box(x, y, -0.8, 0.8, -0.8, 0.8),
    "triangle": lambda x, y: _polygon(x, y, (-1.0, -0.75), (1.0, -0.75), (0.0, 0.95)),
    "star": _star,
    "cross": lambda x, y: _union(_box(x, y, -0.28, 0.28, -1, 1), _box(x, y, -1, 1, -0.28, 0.28)),
    "ring": lambda x, y: abs(_disc(x, y, 0.72)) - 0.21,
    "heart": _heart,
    "moon": lambda x, y: _without(_disc(x, y, 1.0), _disc(x, y, 0.78, 0.5)),
    "dumbbell": lambda x, y: _union(
        _disc(x, y, 0.42, 0.58), _disc(x, y, 0.42, -0.58), _box(x, y, -0.6, 0.6, -0.14, 0.14)),
    "stripes": lambda x, y: _union(*(_box(x, y, -0.92, 0.92, mid - 0.2, mid + 0.2) for mid in (-0.72, 0.0, 0.72))),
    "diamond": lambda x, y: _polygon(x, y, (0, -1.05), (0.68, 0), (0, 1.05), (-0.68, 0)),
    "house": _house, "tree": _tree, "fish": _fish, "bolt": _bolt, "mushroom": _mushroom,
}
CLASSES: tuple[str, ...] = tuple(SHAPES)
SHOWN = 10  # classes of the tiny world's stimuli; the frozen parts know all
WORDS: tuple[str, ...] = ("a", "on", *COLOURS, *BACKGROUNDS, *CLASSES)
STREAMS = ("prior", "held-out", "paired", "reference")


@dataclass(frozen=True, eq=False)
class Scenes:
    """The contents of N images. Lengths are in half frames, angles in radians."""

    label: Array  # [N] int64, index into CLASSES
    colour: Array  # [N] int64, index into COLOURS
    background: Array  # [N] int64, index into BACKGROUNDS
    gradient: Array  # [N] int64, 1: the background has a gradient of brightness
    x: Array  # [N] float32, offset of the centre to the right
    y: Array  # [N] float32, offset of the centre upwards
    size: Array  # [N] float32
    angle: Array  # [N] float32, rotation, counter-clockwise
    tint: Array  # [N, 3] float32, added to the colour
    shade: Array  # [N, 3] float32, added to the background
    slope: Array  # [N] float32, direction of the gradient

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: Array | slice) -> Scenes:
        return Scenes(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def stream(name: str, seed: int = 0) -> np.random.Generator:
    """Returns a separate generator for each of STREAMS, so that no two of them show the same image."""
    return np.random.default_rng([seed, 1 + STREAMS.index(name)])


def draw_scenes(n: int, classes: int, rng: np.random.Generator) -> Scenes:
    """Draws N scenes of the first `classes` CLASSES: labels balanced, all else independent of the label."""

    def uniform(low: float, high: float, *shape: int) -> Array:
        return rng.uniform(low, high, (n, *shape)).astype(np.float32)

    return Scenes(  # the order of the draws is part of what a seed means
        label=rng.permutation(np.arange(n, dtype=np.int64) % classes), colour=rng.integers(len(COLOURS), size=n),
        background=rng.integers(len(BACKGROUNDS), size=n), gradient=rng.integers(2, size=n),
        x=uniform(-SHIFT, SHIFT), y=uniform(-SHIFT, SHIFT), size=uniform(*SIZES), angle=uniform(-TILT, TILT),
        tint=uniform(-0.03, 0.03, 3), shade=uniform(-0.03, 0.03, 3), slope=uniform(0, 2 * np.pi))


def _render(name: str, scenes: Scenes, size: int) -> Array:
    fine = 2 * size
    axis = (np.arange(fine, dtype=np.float32) + 0.5) / size - 1
    across, up = axis[None, None, :], -axis[None, :, None]

    def column(values: Array) -> Array:
        return values.astype(np.float32)[:, None, None]

    right, above = (across - column(scenes.x)) / column(scenes.size), (up - column(scenes.y)) / column(scenes.size)
    cos, sin = column(np.cos(scenes.angle)), column(np.sin(scenes.angle))
    distance = SHAPES[name](cos * right + sin * above, cos * above - sin * right)
    inside = np.clip(0.5 - distance * column(scenes.size) * (size / 2), 0, 1)  # an edge is one pixel wide
    inside = inside.reshape(len(scenes), size, 2, size, 2).mean((2, 4))[..., None]

    axis = axis.reshape(size, 2).mean(1)
    slope = axis[None, None, :] * column(np.cos(scenes.slope)) - axis[None, :, None] * column(np.sin(scenes.slope))
    slope = slope * column(scenes.gradient) * np.float32(0.14)
    colour = (np.array(list(COLOURS.values()), np.float32)[scenes.colour] + scenes.tint)[:, None, None]
    background = (np.array(list(BACKGROUNDS.values()), np.float32)[scenes.background] + scenes.shade)[:, None, None]
    image = (background + slope[..., None]) * (1 - inside) + colour * inside
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def render(scenes: Scenes, size: int = 32) -> Array:
    """Draws images [N, size, size, 3] uint8, at twice the size, then averaged."""
    images = np.empty((len(scenes), size, size, 3), np.uint8)
    for label, name in enumerate(CLASSES):
        (rows,) = np.nonzero(scenes.label == label)
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            images[part] = _render(name, scenes[part], size)
    return images


def captions(scenes: Scenes, short: bool | Array) -> list[str]:
    """Returns captions: "a star" where `short` (bool or [N] bool) is true, else "a star green on gray"."""
    colours, backgrounds = tuple(COLOURS), tuple(BACKGROUNDS)
    rows = zip(scenes.label, scenes.colour, scenes.background, np.broadcast_to(short, len(scenes)), strict=True)
    return [f"a {CLASSES[a]}" if s else f"a {CLASSES[a]} {colours[b]} on {backgrounds[c]}" for a, b, c, s in rows]
