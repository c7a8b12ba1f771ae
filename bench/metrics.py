"""What every metric means: pure functions on arrays, in float64, that know nothing of who made the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
from scipy.ndimage import gaussian_filter

MARGIN = 5  # pixels: half of SSIM's 11x11 window


def _ahead(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """h [N]: how many other classes have a logit at least as high as the target's. A tie counts against the target."""
    logits, target = np.asarray(logits, np.float64), np.asarray(target)
    if np.isnan(logits).any():
        raise ValueError("logits are not numbers")
    own = logits[np.arange(len(logits)), target]
    return (logits >= own[:, None]).sum(1) - 1


def top1(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """1 where the target's logit is above all others, else 0: [N] for logits [N, K] and classes [N]."""
    return (_ahead(logits, target) == 0).astype(np.float64)


def nway_accuracy(logits: np.ndarray, target: np.ndarray, n: int, k: int = 1) -> np.ndarray:
    """Probability [N] that the target is among the k best of n classes: itself and n - 1 drawn from the other K - 1.

    Exact, where the paper draws at random (Sec. 4.3): with h others at least as high as the target, fewer than k of
    those drawn must be among them, P = sum over j < k of C(h, j) C(K-1-h, n-1-j) / C(K-1, n-1).
    ValueError unless 1 <= k <= n <= K.
    """
    others = np.shape(logits)[1] - 1
    if not 1 <= k <= n <= others + 1:
        raise ValueError(f"top-{k} of {n}-way accuracy among {others + 1} classes: expected 1 <= k <= n <= classes")

    def probability(h: int) -> float:
        return sum(comb(h, j) * comb(others - h, n - 1 - j) for j in range(k)) / comb(others, n - 1)

    return np.array([probability(h) for h in range(others + 1)])[_ahead(logits, target)]


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"expected two [N, H, W, 3] uint8, not {a.shape} {a.dtype} and {b.shape} {b.dtype}")
    return a.astype(np.float64), b.astype(np.float64)


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each picture, in dB at a range of 255: [N] for [N, H, W, 3] uint8; equal: inf."""
    a, b = _pair(a, b)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / np.square(a - b).mean((1, 2, 3)))


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of each picture: [N] for [N, H, W, 3] uint8.

    Wang et al. 2004: Gaussian window 11x11 of sigma 1.5, population covariance, K1 = .01, K2 = .03, range 255; the
    mean over channels and over those pixels whose window lies within the picture.
    """
    a, b = _pair(a, b)
    if min(a.shape[1:3]) <= 2 * MARGIN:
        raise ValueError(f"pictures of {a.shape[1]}x{a.shape[2]}: SSIM's window needs at least 11x11")

    def smooth(x: np.ndarray) -> np.ndarray:
        blurred = gaussian_filter(x, sigma=1.5, radius=MARGIN, axes=(1, 2))
        return blurred[:, MARGIN:-MARGIN, MARGIN:-MARGIN]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = smooth(a), smooth(b)
    covariance = smooth(a * b) - mean_a * mean_b
    variances = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (likeness / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))).mean((1, 2, 3))


def judge_distance(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Perceptual distance [N] of two lists of the judge's feature maps [N, C, h, w].

    As LPIPS with all weights 1: at every place the channels are scaled to unit length, squared differences are summed
    over channels and averaged over places, then over layers. 0 to 2 for maps without negative values, else 0 to 4.
    """
    def unit(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64)
        return x / (np.sqrt(np.square(x).sum(1, keepdims=True)) + 1e-10)

    layers = [np.square(unit(x) - unit(y)).sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True)]
    return np.mean(layers, axis=0)
