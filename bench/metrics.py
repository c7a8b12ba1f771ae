"""What every metric means: pure functions on arrays, in float64, that know nothing of who made the pictures.

They load no network: features, logits and embeddings come from elsewhere. Wrong shapes, dtypes and NaN are ValueErrors.
Decisions where libraries disagree: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb, inf

import numpy as np

MARGIN = 5  # pixels: half of SSIM's 11x11 window
RELEASED_WINDOW = 7  # pixels along each side: SSIM's in the released code
TIE = 1e-12  # similarities that differ by less are tied: rounding must not decide between equal pictures
BLOCK = 2**20  # numbers held at a time, as float64, of pictures, features or similarities: 8 MiB
SIZES = 8  # of subsets, for FID at infinite N


def top1(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """1 where the target's logit is above all others, else 0: [N] for logits [N, K] and classes [N].

    0 to 1, higher is better; null 1/K. A tie counts against the target. ValueError for NaN and for classes not in K.
    """
    return (_ahead(logits, target) == 0).astype(np.float64)


def nway_accuracy(logits: np.ndarray, target: np.ndarray, n: int, k: int = 1) -> np.ndarray:
    """Probability [N] that the target is among the k best of n classes: itself and n - 1 drawn from the other K - 1.

    logits [N, K], classes [N]; 0 to 1, higher is better; null k/n where all ranks are equally likely, more for a
    generator that paints any of few classes. Exact, where the paper draws at random (Sec. 4.3): with h others at least
    as high as the target, fewer than k of those drawn must be among them,
    P = sum over j < k of C(h, j) C(K-1-h, n-1-j) / C(K-1, n-1).
    ValueError unless 1 <= k <= n <= K, and as `top1`.
    """
    ahead, others = _ahead(logits, target), np.shape(logits)[1] - 1
    if not 1 <= k <= n <= others + 1:
        raise ValueError(f"top-{k} of {n}-way accuracy among {others + 1} classes: expected 1 <= k <= n <= classes")
    return _drawn(ahead, others, n, k)


def among(logits: np.ndarray, target: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, S] of some classes only and the target's place [N] among them, for `top1` and `nway_accuracy`.

    logits [N, K], target [N]; classes: [S], the same for all items (those that were shown; the paper's 50 "selected",
    Sec. 4.3), or [N, S], a set for each item (the target and its `hard_distractors`). The judge's opinion of real
    pictures must be taken among the same classes. ValueError for a class twice, for one not in K, and where a target
    is not in its set.
    """
    logits, target = _scores(logits, target)
    classes = np.asarray(classes)
    if classes.dtype.kind not in "iu" or classes.ndim not in (1, 2) or classes.shape[:-1] not in ((), target.shape):
        raise ValueError(f"expected classes [S] or [{len(target)}, S] of whole numbers, not {_said(classes)}")
    if classes.size and not 0 <= classes.min() <= classes.max() < logits.shape[1]:
        raise ValueError(f"expected classes from 0 to {logits.shape[1] - 1}, not {classes.min()} to {classes.max()}")
    if (np.diff(np.sort(classes), axis=-1) == 0).any():
        raise ValueError("a class stands twice in a set of classes")
    sets = np.broadcast_to(classes, (len(target), classes.shape[-1]))
    found = sets == target[:, None]
    if not found.any(1).all():
        raise ValueError(f"{(~found.any(1)).sum()} of {len(target)} targets are not in their set of classes, "
                         f"the first is class {target[~found.any(1)][0]}")
    return np.take_along_axis(logits, sets, 1), found.argmax(1)


def hard_distractors(logits: np.ndarray, label: np.ndarray, n: int) -> np.ndarray:
    """The n - 1 classes [K, n - 1] that a judge takes each class for most easily; -1 where a class has no picture.

    Those with the highest mean logits over the class's own real pictures, the hardest first. logits [M, K] and classes
    [M] are of real pictures that are not scored (training pictures), so that the set owes nothing to a system or to its
    test items. For n-way accuracy: `among(logits, target, np.column_stack([target, hard[target]]))` and `top1`; its
    null is 1/n. ValueError unless 2 <= n <= K.
    """
    logits, label = _scores(logits, label)
    classes = logits.shape[1]
    if not 2 <= n <= classes:
        raise ValueError(f"{n}-way accuracy among {classes} classes: expected 2 <= n <= classes")
    hard = np.full((classes, n - 1), -1)
    for own in np.unique(label):
        mean = logits[label == own].mean(0)
        mean[own] = -inf
        hard[own] = np.argsort(-mean, kind="stable")[:n - 1]
    return hard


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each picture, in dB at a range of 255: [N] for [N, H, W, 3] uint8; equal: inf.

    0 to infinity, higher is better. 10 log10(255^2 / MSE), of each picture and not of the batch.
    """
    def decibels(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return 10 * np.log10(255**2 / np.square(x - y).mean((1, 2, 3)))

    return _by_picture(decibels, a, b)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of each picture: [N] for [N, H, W, 3] uint8; -1 to 1, equal pictures 1, higher is better.

    Wang et al. 2004: Gaussian window 11x11 of sigma 1.5, population covariance, K1 = .01, K2 = .03, range 255; the
    mean over channels and over those pixels whose window lies within the picture. ValueError below 11x11 pixels.
    """
    from scipy.ndimage import gaussian_filter  # not at the top: `bench list` imports this module

    return _ssim(a, b, MARGIN, lambda x: gaussian_filter(x, sigma=1.5, radius=MARGIN, axes=(1, 2)), 1.0)


def ssim_released(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity [N] as DreamDiffusion's released code has it (eval_metrics.py): scikit-image's defaults.

    [N, H, W, 3] uint8; -1 to 1, higher is better. Uniform window 7x7, sample covariance, range 255, else as `ssim`.
    ValueError below 7x7 pixels.
    """
    from scipy.ndimage import uniform_filter

    pixels = RELEASED_WINDOW**2
    return _ssim(a, b, RELEASED_WINDOW // 2, lambda x: uniform_filter(x, RELEASED_WINDOW, axes=(1, 2)),
                 pixels / (pixels - 1))


def pixcorr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation [N] of each two pictures' values, [N, H, W, 3] uint8; -1 to 1, higher is better, null 0.

    Over pixels and channels together, at the size that the pictures have; the fMRI papers bring them to 425x425 first.
    A picture of one value correlates with none: 0.
    """
    return _by_picture(lambda x, y: _dot(_standard(x.reshape(len(x), -1)), _standard(y.reshape(len(y), -1))), a, b)


def judge_distance(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Perceptual distance [N] of two lists of the judge's feature maps [N, C, h, w]; lower is better.

    As LPIPS with all weights 1: at every place the channels are scaled to unit length, squared differences are summed
    over channels and averaged over places, then over layers. 0 to 2 for maps without negative values, else 0 to 4.
    """
    def unit(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64)
        return x / (np.sqrt(np.square(x).sum(1, keepdims=True)) + 1e-10)

    layers = [np.square(unit(x) - unit(y)).sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True)]
    return np.mean(layers, axis=0)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """FID of features [N, D] and [M, D]: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), covariances with N - 1.

    0 to infinity, lower is better; its null is not 0 but what real pictures get at the same N: about D^2/4 (1/N + 1/M)
    for standard normal features. Heusel et al. 2017, eq. 6. With S1 = A'A and S2 = B'B the trace of the root is the sum
    of the singular values of AB', where A [min(N, D), D] is the centred set or, with more than D pictures, its R of QR:
    neither a D x D covariance nor a product of covariances is formed. ValueError for fewer than two pictures and for
    unequal D.
    """
    x, y = _sets(x, y)
    return _frechet(_factor(x), _factor(y))


def frechet_distance_infinity(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> float:
    """FID of features [N, D] and [M, D] at infinite N and M, as Chong and Forsyth 2020 extrapolate it in 1/N.

    Lower is better; null 0, about which it scatters (it can be negative). Eight sizes, N/s and M/s pictures for s = 1,
    8/7, 9/7, ..., 2 (all to a half), each but the first a subset drawn by `rng` without replacement: the intercept at
    s = 0 of the line through their distances. The source varies N alone, against 50,000 real pictures; here both vary,
    so that the bias of few real pictures goes too. No estimate unless N/2 and M/2 exceed D: with fewer the bias is no
    line. ValueError for fewer than four pictures, and as `frechet_distance`.
    """
    x, y = _sets(x, y)
    if min(len(x), len(y)) < 4:
        raise ValueError(f"expected 4 or more pictures in each set, not {len(x)} and {len(y)}")
    parts = np.linspace(1, 2, SIZES)
    distances = [_frechet(*(_factor(features if part == 1 else features[
        rng.choice(len(features), round(len(features) / part), replace=False)]) for features in (x, y)))
        for part in parts]
    return float(np.polyfit(parts, distances, 1)[1])


def kernel_distance(x: np.ndarray, y: np.ndarray, subset_size: int, subsets: int,
                    rng: np.random.Generator) -> tuple[float, float]:
    """KID of features [N, D] and [M, D]: mean and SD (of the subsets themselves, ddof 0) over random subsets.

    Lower is better; null 0, about which it scatters: the estimate is unbiased at any N, and so it can be negative.
    Binkowski et al. 2018: the unbiased MMD^2 of the kernel (x.y/D + 1)^3, `subset_size` pictures of each set at a time,
    drawn by `rng` without replacement. ValueError unless 2 <= subset_size <= N, M and subsets >= 1.
    """
    x, y = _sets(x, y)
    if not 2 <= subset_size <= min(len(x), len(y)) or subsets < 1:
        raise ValueError(f"{subsets} subsets of {subset_size} from {len(x)} and {len(y)} pictures: expected 1 or more "
                         "subsets, and a size from 2 to the smaller number")

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / x.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (subset_size * (subset_size - 1))

    values = []
    for _ in range(subsets):
        a, b = (features[rng.choice(len(features), subset_size, replace=False)] for features in (x, y))
        values.append(within(a) + within(b) - 2 * kernel(a, b).mean())
    return float(np.mean(values)), float(np.std(values))


def inception_score(logits: np.ndarray, splits: int, rng: np.random.Generator) -> tuple[float, float]:
    """exp E KL(p(class|picture) || p(class)) of logits [N, K]: mean and SD (ddof 0) over splits of shuffled pictures.

    1 to K, higher is better; null 1. Salimans et al. 2016. The i-th split is rows iN/splits to (i+1)N/splits of the
    order that `rng` draws. From logits, so that no probability is lost to underflow. ValueError unless
    1 <= splits <= N.
    """
    logits = _features(logits, "logits")
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"{splits} splits of {n} pictures: expected 1 to {n}")
    logits = logits[rng.permutation(n)]
    shares = logits - _log_sum_exp(logits, 1)[:, None]
    scores = []
    for i in range(splits):
        part = shares[i * n // splits:(i + 1) * n // splits]
        mean = _log_sum_exp(part, 0) - np.log(len(part))
        scores.append(np.exp((np.exp(part) * (part - mean)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def two_way_identification(real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Share [N] of the other real pictures that a generated one is less like than its own real one.

    Features [N, D] each, row j of both of item j; 0 to 1, higher is better, null 1/2. With r_ij Pearson's correlation
    of real i and generated j: #{i: r_ij < r_jj} / (N - 1). The generated picture is held and the real ones compete, as
    in MindEye and its successors; the other way round gives other numbers. A tie counts against. Real pictures must
    differ: where several items show one picture, call it once for each set of distinct ones. ValueError for unequal
    shapes, fewer than two items, or one feature.
    """
    real, generated = _alike(real, generated)
    if len(real) < 2 or real.shape[1] < 2:
        raise ValueError(f"two-way identification needs 2 or more items and features, not {list(real.shape)}")
    return 1 - _rivals(generated, _standard(real), _standard) / (len(real) - 1)


def correlation_distance(real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """1 - Pearson's correlation [N] of features [N, D] of each item's two pictures; 0 to 2, lower is better, null 1.

    As scipy's `correlation`; features that are all equal correlate with none: 1. ValueError for unequal shapes.
    """
    real, generated = _alike(real, generated)
    return 1 - _dot(_standard(real), _standard(generated))


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine [N] of embeddings [N, D] of each item; -1 to 1, higher is better. A vector of zeros is like none: 0.

    Neither cut off at 0 nor times 100, as CLIPScore (Hessel et al. 2021) is. ValueError for unequal shapes.
    """
    a, b = _alike(a, b)
    return _dot(_unit(a.astype(np.float64)), _unit(b.astype(np.float64)))


def retrieval_topk(query: np.ndarray, gallery: np.ndarray, k: int, n: int | None = None) -> np.ndarray:
    """Whether [N] a query's own picture is among the k nearest of a gallery, by cosine; 0 to 1, higher is better.

    query [N, D]: embeddings of the EEG; gallery [M, D], M >= N, whose row j is the picture of query j. Null k/M. With
    n: the exact probability that it is among the k nearest of n, itself and n - 1 drawn from the other M - 1; null k/n.
    A tie counts against: pictures of a gallery must differ. ValueError unless 1 <= k <= n <= M.
    """
    query, gallery = _features(query, "queries"), _features(gallery, "a gallery")
    if len(query) > len(gallery) or query.shape[1] != gallery.shape[1]:
        raise ValueError(f"expected a gallery of {len(query)} or more pictures in {query.shape[1]} dimensions, "
                         f"not {list(gallery.shape)}")
    candidates = len(gallery) if n is None else n
    if not 1 <= k <= candidates <= len(gallery):
        raise ValueError(f"top-{k} of {candidates} from a gallery of {len(gallery)}: expected 1 <= k <= n <= pictures")
    ahead = _rivals(query, _unit(gallery), _unit)
    return _drawn(ahead, len(gallery) - 1, candidates, k)


def nearest(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Row [N] of the gallery [M, D] that each query [N, D] is most like, by cosine; -1 where two are equally near."""
    query, gallery = _features(query, "queries"), _features(gallery, "a gallery")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"expected a gallery in {query.shape[1]} dimensions, not {list(gallery.shape)}")
    likeness = _unit(query) @ _unit(gallery).T
    alone = np.count_nonzero(likeness >= likeness.max(1, keepdims=True) - TIE, 1) == 1
    return np.where(alone, likeness.argmax(1), -1)


def _said(x: np.ndarray) -> str:
    return f"{list(x.shape)} {x.dtype}"


def _scores(logits: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, K] in float64, which may be infinite, and classes [N]; or ValueError."""
    logits, target = np.asarray(logits), np.asarray(target)
    if logits.ndim != 2 or logits.dtype.kind not in "fiu":
        raise ValueError(f"expected logits [N, K] of numbers, not {_said(logits)}")
    logits = logits.astype(np.float64, copy=False)
    if np.isnan(logits).any():
        raise ValueError("logits are not numbers")
    if target.shape != logits.shape[:1] or target.dtype.kind not in "iu":
        raise ValueError(f"expected a class for each of {len(logits)} rows of logits, not {_said(target)}")
    if target.size and not 0 <= target.min() <= target.max() < logits.shape[1]:
        raise ValueError(f"expected classes from 0 to {logits.shape[1] - 1}, not {target.min()} to {target.max()}")
    return logits, target


def _ahead(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """h [N]: how many other classes have a logit at least as high as the target's."""
    logits, target = _scores(logits, target)
    own = np.take_along_axis(logits, target[:, None].astype(np.intp), 1)
    return np.count_nonzero(logits >= own, 1) - 1


def _drawn(ahead: np.ndarray, others: int, n: int, k: int) -> np.ndarray:
    """Probability [N] that fewer than k of n - 1 drawn from `others` are among the `ahead` [N]: hypergeometric."""
    every = comb(others, n - 1)
    known, place = np.unique(ahead, return_inverse=True)
    chance = [sum(comb(h, j) * comb(others - h, n - 1 - j) for j in range(k)) / every for h in known.tolist()]
    return np.array(chance, np.float64)[place]


def _by_picture(function: Callable[[np.ndarray, np.ndarray], np.ndarray], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """function [n] of n pictures in float64 at a time, for two [N, H, W, 3] uint8; or ValueError."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.shape != b.shape or a.ndim != 4 or a.shape[3] != 3 or not a.size:
        raise ValueError(f"expected two [N, H, W, 3] uint8, not {_said(a)} and {_said(b)}")
    step = max(1, BLOCK // a[0].size)
    parts = [slice(start, start + step) for start in range(0, len(a), step)]
    return np.concatenate([function(a[part].astype(np.float64), b[part].astype(np.float64)) for part in parts])


def _ssim(a: np.ndarray, b: np.ndarray, margin: int, smooth: Callable[[np.ndarray], np.ndarray],
          sampled: float) -> np.ndarray:
    """SSIM with a window that reaches `margin` pixels; `sampled`: by what covariances of a sample are the larger."""
    c1, c2, size = (0.01 * 255) ** 2, (0.03 * 255) ** 2, 2 * margin + 1
    if np.ndim(a) == 4 and min(np.shape(a)[1:3]) < size:
        raise ValueError(f"pictures of {a.shape[1]}x{a.shape[2]}: SSIM's window needs at least {size}x{size}")

    def inner(x: np.ndarray) -> np.ndarray:
        return smooth(x)[:, margin:-margin, margin:-margin]

    def likeness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        mean_x, mean_y = inner(x), inner(y)
        covariance = sampled * (inner(x * y) - mean_x * mean_y)
        variances = sampled * (inner(x * x) - mean_x**2 + inner(y * y) - mean_y**2)
        like = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        return (like / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))).mean((1, 2, 3))

    return _by_picture(likeness, a, b)


def _numbers(x: np.ndarray, name: str = "features") -> np.ndarray:
    """[N, D], finite and not empty; or ValueError."""
    x = np.asarray(x)
    if x.ndim != 2 or x.dtype.kind not in "fiu" or not x.size:
        raise ValueError(f"expected {name} [N, D] of numbers, not {_said(x)}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} are not all finite numbers")
    return x


def _features(x: np.ndarray, name: str = "features") -> np.ndarray:
    """[N, D] in float64, finite and not empty; or ValueError."""
    return _numbers(x, name).astype(np.float64, copy=False)


def _alike(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two [N, D] as they are; or ValueError."""
    a, b = _numbers(a), _numbers(b)
    if a.shape != b.shape:
        raise ValueError(f"expected features of the same items, not {list(a.shape)} and {list(b.shape)}")
    return a, b


def _sets(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, D] and [M, D] with two pictures or more; or ValueError."""
    x, y = _features(x), _features(y)
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError("expected [N, D] and [M, D] with 2 or more pictures each, "
                         f"not {list(x.shape)} and {list(y.shape)}")
    return x, y


def _factor(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and A [min(N, D), D] of [N, D], where A'A is the covariance."""
    n, mean = len(x), x.mean(0)
    centred = x - mean
    if n > x.shape[1]:
        centred = np.linalg.qr(centred, mode="r")
    return mean, centred / np.sqrt(n - 1)


def _frechet(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> float:
    (mean_x, a), (mean_y, b) = x, y
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(np.square(mean_x - mean_y).sum() + np.square(a).sum() + np.square(b).sum() - 2 * root))


def _log_sum_exp(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis, keepdims=True)
    return np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis)


def _unit(x: np.ndarray) -> np.ndarray:
    """Rows of unit length; zeros stay zeros."""
    length = np.sqrt(np.square(x).sum(1, keepdims=True))
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def _standard(x: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and unit length, in float64; a row of one value is zeros."""
    standard = np.empty(x.shape)
    step = max(1, BLOCK // x.shape[1])
    for start in range(0, len(x), step):
        part = x[start:start + step].astype(np.float64, copy=False)
        centred = part - part.mean(1, keepdims=True)
        centred[part.max(1) == part.min(1)] = 0
        length = np.sqrt(np.square(centred).sum(1, keepdims=True))
        standard[start:start + step] = np.divide(centred, length, out=centred, where=length > 0)
    return standard


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.clip(np.einsum("nd,nd->n", a, b), -1, 1)


def _rivals(query: np.ndarray, gallery: np.ndarray, scaled: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """How many other rows of gallery [M, D] are at least as like each row of query [N, D], once it is scaled as the
    gallery is, as that of its index: [N]."""
    step = max(1, BLOCK // max(gallery.shape))
    ahead = []
    for start in range(0, len(query), step):
        likeness = scaled(query[start:start + step]) @ gallery.T
        rows = np.arange(len(likeness))
        own = likeness[rows, start + rows]
        ahead.append(np.count_nonzero(likeness >= own[:, None] - TIE, 1) - 1)
    return np.concatenate(ahead)


@dataclass(frozen=True)
class Metric:
    """What a name in a CSV means. better: "higher" or "lower"; range: lowest and highest value; unit: "" for none.

    null: the value of pictures that owe nothing to the EEG.
    """

    name: str
    title: str
    better: str
    range: tuple[float, float]
    null: str
    source: str
    unit: str = ""


SHARE = (0.0, 1.0)
MEASURED = "measured: controls without EEG"
NWAY = "k/n if ranks are uniform; above it for a generator of few classes: measure it"
RELEASED = "DreamDiffusion's released code, in closed form"
AS_OPINION = "the judge's class of the real picture"


def _accuracies() -> list[Metric]:
    rules = {
        "top1": ("Top-1 accuracy", "1/K", "standard"),
        "nway": ("n-way top-1 accuracy, exact", NWAY, RELEASED),
        "nway_top5": ("n-way top-5 accuracy, exact", NWAY, RELEASED),
        "top1_shown": ("Top-1 accuracy among the shown classes", "1/shown classes", "this suite"),
        "nway_shown": ("n-way top-1 accuracy, distractors shown too", "1/n", "this suite"),
        "top1_fixed": ("Top-1 accuracy among fixed classes: the shown and more, named", "between 1/classes and 1/shown",
                       "DreamDiffusion, Sec. 4.3, the text"),
        "nway_hard": ("n-way top-1 accuracy, distractors the nearest classes", "1/n", "this suite: hard_distractors"),
    }
    targets = {"label": "the label", "judge": AS_OPINION}
    return [Metric(f"{rule}_{target}", f"{title}; target: {what}", "higher", SHARE, null, source, "share")
            for rule, (title, null, source) in rules.items() for target, what in targets.items()]


def _two_way(name: str, of: str, source: str) -> Metric:
    return Metric(f"two_way_{name}", f"Two-way identification, {of}", "higher", SHARE, "1/2", source, "share")


def _definitions() -> list[Metric]:
    minds_eye, stand_in = "Scotti et al. 2023 (MindEye)", "this suite: stands in at tiny, not comparable"
    positive, signed = (0.0, inf), (-1.0, 1.0)
    real = "not 0: real pictures at the same N"
    return [
        *_accuracies(),
        Metric("top1_real", "The judge's own accuracy on the real pictures; target: the label", "higher", SHARE, "1/K",
               "this suite: a ceiling", "share"),
        Metric("fid", "FID", "lower", positive, real, "Heusel et al. 2017; the extractor's last features (2048-d)"),
        Metric("fid_64", "FID of 64 features", "lower", positive, real,
               "MinD-Vis's and DreamDiffusion's code (torchmetrics feature=64)"),
        Metric("fid_infinity", "FID at infinite N", "lower", (-inf, inf), "0; no estimate unless N/2 exceeds D",
               "Chong and Forsyth 2020"),
        Metric("fid_torchmetrics", "FID by torchmetrics, as a check", "lower", positive, real, "torchmetrics"),
        Metric("kid", "KID, mean over subsets", "lower", (-inf, inf), "0, scattering to both sides",
               "Binkowski et al. 2018"),
        Metric("is", "Inception score, mean over splits", "higher", (1.0, inf), "1; at most the number of classes",
               "Salimans et al. 2016", "classes"),
        Metric("is_torchmetrics", "Inception score by torchmetrics, as a check", "higher", (1.0, inf),
               "1; at most the number of classes", "torchmetrics", "classes"),
        Metric("psnr", "PSNR", "higher", positive, MEASURED, "range 255, mean of the pictures' own", "dB"),
        Metric("ssim", "SSIM", "higher", signed, MEASURED, "Wang et al. 2004"),
        Metric("ssim_released", "SSIM as released", "higher", signed, MEASURED, "DreamDiffusion's released code"),
        Metric("lpips", "LPIPS v0.1", "lower", positive, MEASURED, "Zhang et al. 2018, AlexNet"),
        Metric("judge_distance", "Perceptual distance by the judge", "lower", (0.0, 4.0), MEASURED, stand_in),
        Metric("pixcorr", "PixCorr", "higher", signed, "0 or, as pictures have much in common, above: measure it",
               "Scotti et al. 2023, without the resize"),
        _two_way("alexnet2", "AlexNet after convolution 2", minds_eye),
        _two_way("alexnet5", "AlexNet after convolution 5", minds_eye),
        _two_way("inception", "Inception-v3, last pool", minds_eye),
        _two_way("clip", "CLIP ViT-L/14", minds_eye),
        _two_way("clip_tiny", "the tiny world's CLIP", stand_in),
        _two_way("judge_layer2", "the judge's 2nd layer", stand_in),
        _two_way("judge_layer4", "the judge's 4th layer", stand_in),
        _two_way("judge_features", "the judge's features", stand_in),
        Metric("correlation_efficientnet", "Correlation distance, EfficientNet-B1", "lower", (0.0, 2.0), MEASURED,
               minds_eye),
        Metric("correlation_swav", "Correlation distance, SwAV ResNet-50", "lower", (0.0, 2.0), MEASURED, minds_eye),
        Metric("correlation_judge", "Correlation distance, the judge's features", "lower", (0.0, 2.0), MEASURED,
               stand_in),
        Metric("clip_similarity", "Cosine of CLIP's embeddings of both pictures", "higher", signed, MEASURED,
               "as in Hessel et al. 2021, not cut off, not times 100"),
        Metric("retrieval_top1", "Retrieval of the picture from the EEG's embedding, top 1", "higher", SHARE,
               "1/pictures", "Song et al. 2024 (ATM)", "share"),
        Metric("retrieval_top5", "Retrieval of the picture from the EEG's embedding, top 5", "higher", SHARE,
               "5/pictures", "Song et al. 2024 (ATM)", "share"),
        *(Metric(f"retrieval_{n}way", f"Retrieval of the picture from the EEG's embedding, {n}-way, exact", "higher",
                 SHARE, f"1/{n}", "Song et al. 2024 (ATM), in closed form", "share") for n in (2, 4, 10)),
        Metric("readout_accuracy", "Accuracy of a classifier of the EEG", "higher", SHARE, "1/classes", "this suite",
               "share"),
        Metric("masked_mse", "Error at masked tokens of held-out EEG", "lower", positive, "mean_mse",
               "DreamDiffusion, Sec. 3.1", "standardised EEG, squared"),
        Metric("mean_mse", "The same error of the mean", "lower", positive, "itself", "this suite: a baseline",
               "standardised EEG, squared"),
        Metric("interpolation_mse", "The same error of linear interpolation", "lower", positive, "mean_mse",
               "this suite: a baseline", "standardised EEG, squared"),
        Metric("wiener_mse", "The same error of the best linear prediction", "lower", positive, "mean_mse",
               "this suite: a baseline", "standardised EEG, squared"),
        Metric("trained_parameters", "Parameters of all networks that a row trains", "lower", positive, "0",
               "this suite: a cost", "parameters"),
    ]


DEFINITIONS: dict[str, Metric] = {metric.name: metric for metric in _definitions()}
SINGLE = tuple(name for name, metric in DEFINITIONS.items()  # shares of 1 that every item has a value of
               if metric.unit == "share" and name not in ("top1_real", "readout_accuracy"))
