"""The range of images in floating point: rounding, overshoot, or another scale than [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDING = 1 / 510  # half a grey level of 255: nearer to [0, 1] than that, clipping changes no byte
DEEP, DEEP_SHARE = -0.25, 0.01  # images from -1 to 1 have at least this share of values below it
BRIGHT = 16.0  # of fractions from 0 to 255, the maximum is above it
OVERSHOOT = 0.5  # how far filters and decoders go beyond [0, 1]; beyond [-1, 1] and [0, 255]: in the same proportion


@dataclass
class FloatRange:
    """Counts of finite values, given in parts to `add`. low, high: the extremes; outside: values outside [0, 1]."""

    low: float = np.inf
    high: float = -np.inf
    total: int = 0
    outside: int = 0
    negative: int = 0  # beyond rounding
    deep: int = 0  # below DEEP
    fractions: int = 0  # above 0, up to 1 and its rounding
    large: int = 0  # above 1, beyond rounding
    is_whole: bool = True  # all are whole numbers

    def add(self, values: np.ndarray) -> FloatRange:
        """Counts these values, of any shape; returns the range itself."""
        values = np.asarray(values)
        low, high = float(values.min()), float(values.max())
        self.low, self.high, self.total = min(self.low, low), max(self.high, high), self.total + values.size
        large = int(np.count_nonzero(values > 1 + ROUNDING))
        self.large += large
        self.fractions += int(np.count_nonzero(values > 0)) - large
        if low < 0 or high > 1:
            self.outside += int(np.count_nonzero((values < 0) | (values > 1)))
            self.negative += int(np.count_nonzero(values < -ROUNDING))
            self.deep += int(np.count_nonzero(values < DEEP))
        self.is_whole = self.is_whole and bool((values == np.round(values)).all())
        return self

    @property
    def fits(self) -> bool:
        """Whether all values are in [0, 1], or less than half a grey level outside it."""
        return self.low > -ROUNDING and self.high < 1 + ROUNDING

    @property
    def scale(self) -> str:
        """What the values look like: "0 to 1", "-1 to 1", "0 to 255", each also with overshoot, or "" for unknown.

        A filter or a decoder takes few values beyond its range. In images from 0 to 255 most values that are not 0
        exceed 1; images from -1 to 1 have many values far below 0.
        """
        if self.fits:
            return "0 to 1"
        whole = self.is_whole and self.low >= 0 and self.high <= 255
        most = self.high > BRIGHT and self.large > self.fractions
        if whole or (most and self.low >= -255 * OVERSHOOT and self.high <= 255 * (1 + OVERSHOOT)):
            return "0 to 255"
        if self.deep > DEEP_SHARE * self.total and self.low >= -1 - OVERSHOOT and self.high <= 1 + OVERSHOOT:
            return "-1 to 1"
        return "0 to 1" if self.low >= -OVERSHOOT and self.high <= 1 + OVERSHOOT else ""

    def describe_cure(self) -> str:
        """Returns how to make [0, 1] of the values of an `array` that does not fit."""
        if self.scale == "0 to 255":
            is_exact = self.low >= 0 and self.high <= 255
            return "divide by 255" if is_exact else \
                "they look like 0 to 255 with overshoot: save array.clip(0, 255) / 255"
        if self.scale == "-1 to 1":
            is_exact = self.low >= -1 and self.high <= 1
            return "save (array + 1) / 2" if is_exact else \
                "they look like [-1, 1] with overshoot: save ((array + 1) / 2).clip(0, 1)"
        if self.scale == "0 to 1":
            return (f"{self.negative + self.large} of {self.total} values overshoot, as after a resize or a decoder "
                    "without a limit: clip it yourself: array.clip(0, 1)")
        return "scale it; the values look neither like 0 to 255 nor like [-1, 1]"


def describe_conversion(array: object) -> str:
    """Returns "; " and how to make uint8 of an array `x` of another type; "" for uint8 and for an unknown scale."""
    if not isinstance(array, np.ndarray) or array.dtype == np.uint8 or array.dtype.kind not in "fiu" or not array.size:
        return ""
    if count := int(np.count_nonzero(~np.isfinite(array))):
        return f"; {count:,} values are not finite"
    return {"0 to 1": "; for values from 0 to 1: (255 * x.clip(0, 1)).round().astype(np.uint8)",
            "-1 to 1": "; for values from -1 to 1: ((x + 1) * 127.5).clip(0, 255).round().astype(np.uint8)",
            "0 to 255": "; for values from 0 to 255: x.clip(0, 255).round().astype(np.uint8)",
            }.get(FloatRange().add(array).scale, "")
