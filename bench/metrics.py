"""Definitions of all metrics: pure functions on arrays, in float64, and DEFINITIONS, which describes each metric.

The functions load no network: bench/scoring/measure.py gives them images, features, logits and embeddings, and makes
every number of a Score. To add a metric, add a function and an entry in DEFINITIONS here, and compute it in
measure.py (docs/design.md). Wrong shapes, wrong dtypes and NaN raise ValueError. Choices where libraries disagree:
docs/metrics.md.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb, inf, sqrt

import numpy as np

MARGIN = 5  # pixels: half of SSIM's 11x11 window
RELEASED_WINDOW = 7  # pixels: SSIM's window in the released code
TIE = 1e-12  # similarities that differ by less are ties: rounding must not rank equal images
BLOCK = 2**20  # float64 values of features or similarities that are held at once: 8 MiB
TILE = 16  # pixels: rows or columns of SSIM's local means that a matrix product makes; the fastest of 8 to 64
STRIP = 96  # rows of SSIM's local means at once, so that they stay in the processor's cache; the fastest of 24 to 128
ROOT_TOLERANCE = 1e-7  # of the largest singular value: smaller ones have no inverse in `frechet_influence`
SIZES = 8  # subset sizes of FID at infinite N
Array = np.ndarray


def top1(logits: Array, target: Array) -> Array:
    """Returns 1 if the target has the highest logit, else 0: [N] for logits [N, K] and classes [N]. 0 to 1, higher is
    better; null 1/K. A tie counts as wrong. ValueError for NaN and for classes outside 0 to K - 1."""
    return (_count_ahead(logits, target) == 0).astype(np.float64)


def nway_accuracy(logits: Array, target: Array, n: int, k: int = 1) -> Array:
    """Returns the probability [N] that the target is among the k best of itself and n - 1 random other classes.

    logits [N, K], classes [N]; 0 to 1, higher is better; null k/n if all ranks are equally likely, more for a generator
    that draws only few classes. Exact expectation; the paper draws at random (Sec. 4.3). With h other classes at least
    as high as the target, fewer than k of them may be drawn: P = sum over j < k of
    C(h, j) C(K-1-h, n-1-j) / C(K-1, n-1). ValueError unless 1 <= k <= n <= K, and as `top1`.
    """
    ahead, others = _count_ahead(logits, target), np.shape(logits)[1] - 1
    if not 1 <= k <= n <= others + 1:
        raise ValueError(f"top-{k} of {n}-way accuracy among {others + 1} classes: expected 1 <= k <= n <= classes")
    return _hypergeometric(ahead, others, n, k)


def among(logits: Array, target: Array, classes: Array) -> tuple[Array, Array]:
    """Restricts logits to some classes: logits [N, S], and the target's column [N], for `top1` and `nway_accuracy`.

    logits [N, K], target [N]. classes: [S] for all items (the shown ones; the paper's 50 "selected" ones, Sec. 4.3), or
    [N, S], a set for each item (the target and its `hard_distractors`). The judge's class of a real image must be taken
    among the same classes. ValueError for a class that is repeated or not in K, and for a target outside its set.
    """
    logits, target = _check_scores(logits, target)
    classes = np.asarray(classes)
    if classes.dtype.kind not in "iu" or classes.ndim not in (1, 2) or classes.shape[:-1] not in ((), target.shape):
        raise ValueError(f"expected classes [S] or [{len(target)}, S] of whole numbers, not {_describe(classes)}")
    if classes.size and not 0 <= classes.min() <= classes.max() < logits.shape[1]:
        raise ValueError(f"expected classes from 0 to {logits.shape[1] - 1}, not {classes.min()} to {classes.max()}")
    if (np.diff(np.sort(classes), axis=-1) == 0).any():
        raise ValueError("a class is repeated in a set of classes")
    sets = np.broadcast_to(classes, (len(target), classes.shape[-1]))
    is_target = sets == target[:, None]
    if not (has_target := is_target.any(1)).all():
        raise ValueError(f"{(~has_target).sum()} of {len(target)} targets are not in their set of classes, "
                         f"the first is class {target[~has_target][0]}")
    return np.take_along_axis(logits, sets, 1), is_target.argmax(1)


def hard_distractors(logits: Array, label: Array, n: int) -> Array:
    """Returns the n - 1 classes [K, n - 1] that the judge most easily confuses with each class; -1 for absent classes.

    They have the highest mean logits over the class's real images, highest first. logits [M, K] and classes [M] are of
    training images, so that no test item matters. For n-way accuracy (null 1/n): `top1` of
    `among(logits, target, np.column_stack([target, hard[target]]))`. ValueError unless 2 <= n <= K.
    """
    logits, label = _check_scores(logits, label)
    classes = logits.shape[1]
    if not 2 <= n <= classes:
        raise ValueError(f"{n}-way accuracy among {classes} classes: expected 2 <= n <= classes")
    hard = np.full((classes, n - 1), -1)
    for name in np.unique(label):
        mean = logits[label == name].mean(0)
        mean[name] = -inf
        hard[name] = np.argsort(-mean, kind="stable")[:n - 1]
    return hard


def psnr(a: Array, b: Array) -> Array:
    """Returns the peak signal-to-noise ratio [N] in dB of image pairs; equal images: inf. 0 to infinity, higher is
    better. 10 log10(255^2 / MSE) of each pair, not of the batch. a [N, H, W, 3] uint8, or [1, H, W, 3]: one image for
    all b; b [N, H, W, 3]."""
    mse = [(xx + yy - 2 * xy) / count for count, _, _, xx, yy, xy in _sum_pairs(a, b)]
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / np.array(mse))


def ssim(a: Array, b: Array) -> Array:
    """Returns the structural similarity [N] of image pairs, as `psnr`; -1 to 1, higher is better. Wang et al. 2004:
    Gaussian window 11x11, sigma 1.5, population covariance, K1 = .01, K2 = .03, range 255; the mean over channels and
    over pixels whose window is inside the image. ValueError below 11x11 pixels."""
    return _ssim(a, b, 2 * MARGIN + 1, 1, _weight_windows, 1.0)


def ssim_released(a: Array, b: Array) -> Array:
    """Returns the structural similarity [N] as in DreamDiffusion's released code (scikit-image's defaults), of image
    pairs as `psnr`; -1 to 1, higher is better. Uniform window 7x7, sample covariance, range 255, else as `ssim`.
    ValueError below 7x7 pixels."""
    pixels = RELEASED_WINDOW**2
    return _ssim(a, b, RELEASED_WINDOW, pixels, _sum_windows, pixels / (pixels - 1))


def pixcorr(a: Array, b: Array) -> Array:
    """Returns Pearson's correlation [N] of the pixels of image pairs, as `psnr`. -1 to 1, higher is better, null 0.
    Over pixels and channels together, at the given size; the fMRI papers resize to 425x425 first. A constant image has
    correlation 0."""
    values = []
    for count, x, y, xx, yy, xy in _sum_pairs(a, b):
        product = (count * xx - x * x) * (count * yy - y * y)
        values.append((count * xy - x * y) / sqrt(product) if product else 0.0)
    return np.clip(values, -1, 1)


def judge_distance(a: Sequence[Array], b: Sequence[Array]) -> Array:
    """Returns the perceptual distance [N] of two lists of the judge's feature maps [N, C, h, w]; lower is better. LPIPS
    with all weights 1: channels are scaled to unit length at each position, squared differences are summed over
    channels and averaged over positions, then over layers. 0 to 2 for non-negative maps, else 0 to 4. ValueError for
    lists of other lengths or shapes, and for NaN."""
    shapes = [[np.shape(maps) for maps in side] for side in (a, b)]
    if not shapes[0] or shapes[0] != shapes[1] or any(len(shape) != 4 or 0 in shape for shape in shapes[0]):
        raise ValueError(f"expected two lists of feature maps [N, C, h, w] of the same shapes, not {shapes[0]} and "
                         f"{shapes[1]}")

    def unit(x: Array) -> Array:
        x = np.asarray(x, np.float64)
        if not np.isfinite(x).all():
            raise ValueError("feature maps are not all finite numbers")
        return x / (np.sqrt(np.square(x).sum(1, keepdims=True)) + 1e-10)

    layers = [np.square(unit(x) - unit(y)).sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True)]
    return np.mean(layers, axis=0)


def frechet_distance(x: Array, y: Array) -> float:
    """Returns the FID of features [N, D] and [M, D]: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), covariances with N - 1.

    0 to infinity, lower is better; null: the value of real images at the same N, about D^2/4 (1/N + 1/M) for standard
    normal features. Heusel et al. 2017, Eq. 6. With S1 = A'A and S2 = B'B the trace of the root is the sum of the
    singular values of AB'. A [min(N, D), D] is the centred set or, for N > D, its R of QR, so no D x D covariance is
    formed. ValueError for fewer than two images and for unequal D.
    """
    x, y = _check_sets(x, y)
    return _frechet(_factorize(x), _factorize(y))


def frechet_influence(x: Array, y: Array) -> Array:
    """Returns the influence [N] of each row of x [N, D] on the FID to y [M, D]; the sum is 0, y counts as fixed.

    FID plus influence are pseudo-values of the infinitesimal jackknife (Efron 1982): their mean is the FID, and the
    standard error of their mean is that of the FID at this N. With c = x - m1 and covariances S1, S2 it is
    2 (m1 - m2).c + c'(I - S2^1/2 (S2^1/2 S1 S2^1/2)^-1/2 S2^1/2) c, minus the mean of the second term. With N < D the
    inverse is the pseudo-inverse. With few images for D, and near distance 0, the standard error is too large.
    ValueError as `frechet_distance`.
    """
    x, y = _check_sets(x, y)
    (mean_x, a), (mean_y, b) = _factorize(x), _factorize(y)
    _, singular, directions = np.linalg.svd(a @ b.T, full_matrices=False)
    is_kept = singular > ROOT_TOLERANCE * singular.max(initial=0)
    centred = x - mean_x
    projected = centred @ (b.T @ directions[is_kept].T)
    spread = np.square(centred).sum(1) - (np.square(projected) / singular[is_kept]).sum(1)
    return 2 * centred @ (mean_x - mean_y) + spread - spread.mean()


def frechet_distance_infinity(x: Array, y: Array, rng: np.random.Generator) -> float:
    """Returns the FID of features [N, D] and [M, D] at infinite N and M, extrapolated in 1/N (Chong and Forsyth 2020).

    Lower is better; null 0, with values on both sides. The intercept at s = 0 of a line through the distances of eight
    subset sizes, N/s and M/s for s = 1, 8/7, ..., 2, drawn by `rng` without replacement. The paper varies N alone,
    against 50,000 real images; varying both also removes the bias of few real images. Valid only if N/2 and M/2 exceed
    D: below, the bias is not linear. ValueError for fewer than four images, and as `frechet_distance`.
    """
    x, y = _check_sets(x, y)
    if min(len(x), len(y)) < 4:
        raise ValueError(f"expected 4 or more images in each set, not {len(x)} and {len(y)}")
    parts = np.linspace(1, 2, SIZES)
    distances = [_frechet(*(_factorize(features if part == 1 else features[
        rng.choice(len(features), round(len(features) / part), replace=False)]) for features in (x, y)))
        for part in parts]
    return float(np.polyfit(parts, distances, 1)[1])


def kernel_distance(x: Array, y: Array, subset_size: int, subsets: int,
                    rng: np.random.Generator) -> tuple[float, float]:
    """Returns the KID of features [N, D] and [M, D]: mean and SD (ddof 0) over random subsets.

    Lower is better; null 0: the estimate is unbiased at any N and may be negative. Binkowski et al. 2018: unbiased
    MMD^2 of the kernel (x.y/D + 1)^3, for `subset_size` images of each set, drawn by `rng` without replacement.
    ValueError unless 2 <= subset_size <= N, M and subsets >= 1.
    """
    x, y = _check_sets(x, y)
    if not 2 <= subset_size <= min(len(x), len(y)) or subsets < 1:
        raise ValueError(f"{subsets} subsets of {subset_size} from {len(x)} and {len(y)} images: expected 1 or more "
                         "subsets, and a size from 2 to the smaller number")

    def kernel(a: Array, b: Array) -> Array:
        values = a @ b.T
        values /= x.shape[1]
        values += 1
        return values * values * values  # values**3 calls pow, which takes over ten times as long

    def within(a: Array) -> float:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (subset_size * (subset_size - 1))

    values = []
    for _ in range(subsets):
        a, b = (features[rng.choice(len(features), subset_size, replace=False)] for features in (x, y))
        values.append(within(a) + within(b) - 2 * kernel(a, b).mean())
    return float(np.mean(values)), float(np.std(values))


def inception_score(logits: Array, splits: int, rng: np.random.Generator) -> tuple[float, float]:
    """Returns exp E KL(p(class|image) || p(class)) of logits [N, K]: mean and SD (ddof 0) over random splits. 1 to K,
    higher is better; null 1. Salimans et al. 2016. The i-th split is rows iN/splits to (i+1)N/splits of the order that
    `rng` draws. Computed from logits: no probability underflows. ValueError unless 1 <= splits <= N."""
    logits = _as_float64(logits, "logits")
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"{splits} splits of {n} images: expected 1 to {n}")
    logits = logits[rng.permutation(n)]
    shares = logits - _log_sum_exp(logits, 1)[:, None]
    scores = []
    for i in range(splits):
        part = shares[i * n // splits:(i + 1) * n // splits]
        mean = _log_sum_exp(part, 0) - np.log(len(part))
        scores.append(np.exp((np.exp(part) * (part - mean)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def inception_influence(logits: Array) -> Array:
    """Returns the influence [N] of each row of logits [N, K] on the inception score of one split; the sum is 0.

    It is that of the jackknife, (N - 1) (mean IS without a row - IS without this row), so that score plus influence are
    pseudo-values as in `frechet_influence`. For many images it is IS (KL_i - mean KL): the first-order term through the
    marginal p(class) is 0, because its change dp adds -sum p dp / p = -sum dp, and dp sums to 0. With fewer images than
    classes the second-order term counts, and the jackknife has it. ValueError for fewer than two rows.
    """
    logits = _as_float64(logits, "logits")
    n = len(logits)
    if n < 2:
        raise ValueError(f"expected logits of 2 or more images, not {_describe(logits)}")
    shares = logits - _log_sum_exp(logits, 1)[:, None]
    p = np.exp(shares)
    own = (p * shares).sum(1)
    others = np.maximum(p.sum(0) - p, 0) / (n - 1)  # the marginal without each row
    logarithm = np.log(others, out=np.zeros_like(others), where=others > 0)
    without = np.exp((own.sum() - own) / (n - 1) - (others * logarithm).sum(1))
    return (n - 1) * (without.mean() - without)


def two_way_identification(real: Array, generated: Array, image: Array | None = None) -> Array:
    """Returns the share [N] of other real images that are less similar to a generated image than its own real image is.

    Features [N, D], row j of item j; 0 to 1, higher is better, null 1/2. image [N]: the identity of each item's real
    image, equal where several people saw one image; None: all are different. With r_ij Pearson's correlation of real i
    and generated j, over the M different images i: #{i: r_ij < r_jj} / (M - 1), so real images compete for a generated
    one, as in MindEye, and an image never competes with itself. A tie of two images counts as wrong. ValueError for
    unequal shapes, fewer than two images, or one feature.
    """
    real, generated = _check_pairs(real, generated)
    first, shown = _identify(real, image)
    if len(first) < 2 or real.shape[1] < 2:
        raise ValueError(f"two-way identification needs 2 or more items and features, not {list(real.shape)}"
                         + f" of {len(first)} images" * (len(first) < len(real)))
    return 1 - _count_rivals(generated, _standardize(_take(real, first)), shown, _standardize) / (len(first) - 1)


def correlation_distance(real: Array, generated: Array) -> Array:
    """Returns 1 - Pearson's correlation [N] of paired features [N, D]; 0 to 2, lower is better, null 1. As scipy's
    `correlation`, but constant features give 1. ValueError for unequal shapes."""
    real, generated = _check_pairs(real, generated)
    return 1 - _dot(_standardize(real), _standardize(generated))


def cosine_similarity(a: Array, b: Array) -> Array:
    """Returns the cosine [N] of paired embeddings [N, D]; -1 to 1, higher is better; 0 for a zero vector. CLIPScore
    (Hessel et al. 2021) is 100 times it, cut off at 0. ValueError for unequal shapes."""
    a, b = _check_pairs(a, b)
    return _dot(_normalize(a.astype(np.float64)), _normalize(b.astype(np.float64)))


def retrieval_topk(query: Array, gallery: Array, k: int, n: int | None = None, image: Array | None = None) -> Array:
    """Returns whether [N] a query's own image is among its k nearest in a gallery, by cosine; 0 to 1, higher is better.

    query [N, D]: embeddings of the EEG; gallery [P, D], P >= N: row j is the image of query j. image [P]: the identity
    of each row, equal where rows are one image, which then is one of the M images of the gallery; None: M = P. Null
    k/M. With n: the exact probability of being among the k nearest of n, itself and n - 1 drawn from the other M - 1;
    null k/n. A tie of two images counts as wrong. ValueError unless 1 <= k <= n <= M.
    """
    query, gallery = _as_float64(query, "query embeddings"), _as_float64(gallery, "gallery embeddings")
    if len(query) > len(gallery) or query.shape[1] != gallery.shape[1]:
        raise ValueError(f"expected a gallery of {len(query)} or more images in {query.shape[1]} dimensions, "
                         f"not {list(gallery.shape)}")
    first, shown = _identify(gallery, image)
    candidates = len(first) if n is None else n
    if not 1 <= k <= candidates <= len(first):
        raise ValueError(f"top-{k} of {candidates} from a gallery of {len(first)}: expected 1 <= k <= n <= images")
    ahead = _count_rivals(query, _normalize(_take(gallery, first)), shown, _normalize)
    return _hypergeometric(ahead, len(first) - 1, candidates, k)


def nearest(query: Array, gallery: Array, image: Array | None = None) -> Array:
    """Returns the row [N] of the gallery [P, D] with the highest cosine to each query [N, D]; -1 for a tie of two
    images. image [P]: the identity of each row; None: all are different. Of rows of one image, the first."""
    query, gallery = _as_float64(query, "query embeddings"), _as_float64(gallery, "gallery embeddings")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"expected a gallery in {query.shape[1]} dimensions, not {list(gallery.shape)}")
    first, _ = _identify(gallery, image)
    likeness = _normalize(query) @ _normalize(_take(gallery, first)).T
    unique = np.count_nonzero(likeness >= likeness.max(1, keepdims=True) - TIE, 1) == 1
    return np.where(unique, first[likeness.argmax(1)], -1)


def nearest_distance(query: Array, gallery: Array) -> tuple[Array, Array]:
    """Finds the row of gallery [M, D] nearest to each row of query [N, D]: its Euclidean distance [N] and number [N].
    0 to infinity; exactly 0 for equal rows.

    The nearest row is searched by |q|^2 + |g|^2 - 2 q.g in blocks of BLOCK values, so that no [N, M] is held; its
    distance is then computed from the difference. ValueError for unequal D.
    """
    query, gallery = _check_numbers(query), _check_numbers(gallery)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"expected [N, D] and [M, D], not {list(query.shape)} and {list(gallery.shape)}")
    least, row = np.full(len(query), inf), np.zeros(len(query), np.int64)
    for columns in _blocks(len(gallery), gallery.shape[1]):
        part = gallery[columns].astype(np.float64)
        for rows in _blocks(len(query), max(part.shape)):
            squares = _square_distances(query[rows].astype(np.float64), part)
            place = squares.argmin(1)
            smallest = np.take_along_axis(squares, place[:, None], 1)[:, 0]
            is_nearer = smallest < least[rows]
            least[rows] = np.where(is_nearer, smallest, least[rows])
            row[rows] = np.where(is_nearer, place + columns.start, row[rows])
    distance = np.empty(len(query))
    for rows in _blocks(len(query), query.shape[1]):
        difference = query[rows].astype(np.float64) - gallery[row[rows]].astype(np.float64)
        distance[rows] = np.sqrt(np.square(difference).sum(1))
    return distance, row


def density_coverage(generated: Array, real: Array, k: int) -> tuple[float, float]:
    """Returns density and coverage of generated features [N, D] against real features [M, D] (Naeem et al. 2020).

    The ball of a real image reaches to its k-th nearest other real image, which is outside of it. Density: the mean
    number of balls in which a generated image lies, over k; 0 to M/k, higher is better, 1 for real images. Coverage:
    the share of balls with a generated image; 0 to 1, higher is better, 1 for equal sets, about 1 - 1/2^k for other
    real images and N = M. ValueError unless 1 <= k < M.
    """
    generated, real = _check_sets(generated, real)
    if not 1 <= k < len(real):
        raise ValueError(f"expected a neighbour k from 1 to {len(real) - 1}, the number of other real images, not {k}")
    inside = covered = 0
    for rows in _blocks(len(real), max(len(real), len(generated), real.shape[1])):
        among_real = _square_distances(real[rows], real)
        among_real[np.arange(len(among_real)), np.arange(rows.start, rows.stop)] = 0  # itself, also with rounding
        radius = np.partition(among_real, k, axis=1)[:, k]
        is_inside = _square_distances(real[rows], generated) < radius[:, None]
        inside += int(np.count_nonzero(is_inside))
        covered += int(np.count_nonzero(is_inside.any(1)))
    return inside / (k * len(generated)), covered / len(real)


def _blocks(count: int, width: int) -> list[slice]:
    """Returns slices of rows; a slice of rows of `width` values has at most BLOCK values."""
    step = max(1, BLOCK // width)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _square_distances(a: Array, b: Array) -> Array:
    """Returns the squared Euclidean distances [N, M] of [N, D] and [M, D]."""
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    return np.maximum(squares, 0, out=squares)


def _describe(x: Array) -> str:
    return f"{list(x.shape)} {x.dtype}"


def _check_scores(logits: Array, target: Array) -> tuple[Array, Array]:
    """Returns logits [N, K] in float64, which may be infinite, and classes [N]. ValueError for anything else."""
    logits, target = np.asarray(logits), np.asarray(target)
    if logits.ndim != 2 or logits.dtype.kind not in "fiu":
        raise ValueError(f"expected logits [N, K] of numbers, not {_describe(logits)}")
    logits = logits.astype(np.float64, copy=False)
    if np.isnan(logits).any():
        raise ValueError("logits contain NaN")
    if target.shape != logits.shape[:1] or target.dtype.kind not in "iu":
        raise ValueError(f"expected a class for each of {len(logits)} rows of logits, not {_describe(target)}")
    if target.size and not 0 <= target.min() <= target.max() < logits.shape[1]:
        raise ValueError(f"expected classes from 0 to {logits.shape[1] - 1}, not {target.min()} to {target.max()}")
    return logits, target


def _count_ahead(logits: Array, target: Array) -> Array:
    """Returns h [N], the number of other classes whose logit is at least the target's."""
    logits, target = _check_scores(logits, target)
    return np.count_nonzero(logits >= np.take_along_axis(logits, target[:, None].astype(np.intp), 1), 1) - 1


def _hypergeometric(ahead: Array, others: int, n: int, k: int) -> Array:
    """Returns the probability [N] that fewer than k of n - 1 drawn from `others` are among the `ahead` [N]."""
    total = comb(others, n - 1)
    counts, inverse = np.unique(ahead, return_inverse=True)
    chance = [sum(comb(h, j) * comb(others - h, n - 1 - j) for j in range(k)) / total for h in counts.tolist()]
    return np.array(chance, np.float64)[inverse]


def _check_images(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns [N or 1, H, W, 3] and [N, H, W, 3] uint8. ValueError for anything else."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.ndim != 4 or a.shape[3] != 3 or not a.size or (
            b.shape != a.shape and (len(a) != 1 or b.shape[1:] != a.shape[1:] or not b.size)):
        raise ValueError(f"expected two [N, H, W, 3] uint8, not {_describe(a)} and {_describe(b)}")
    return a, b


def _sum_pairs(a: Array, b: Array) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yields for each image pair: count, sum x, sum y, sum xx, sum yy, sum xy over its values. They are exact: whole
    numbers below 2^53 in float64."""
    a, b = _check_images(a, b)
    for row, other in enumerate(b):
        if row < len(a):
            x = a[row].ravel().astype(np.float64)
            of_x = int(x.sum()), int(x @ x)
        y = other.ravel().astype(np.float64)
        yield y.size, of_x[0], int(y.sum()), of_x[1], int(y @ y), int(x @ y)


def _ssim(a: Array, b: Array, size: int, area: int, sum_windows: Callable[[Array, Array], None],
          sampled: float) -> Array:
    """Returns SSIM with a square window of `size` pixels; `sampled`: sample over population covariance.

    sum_windows(x [h, 3, w], out [(h - size + 1) 3, w - size + 1]): fills out with `area` times the local means. Those
    of a[0] are computed once if it is the image of all pairs.
    """
    a, b = _check_images(a, b)
    if min(a.shape[1:3]) < size:
        raise ValueError(f"images of {a.shape[1]}x{a.shape[2]}: SSIM's window needs at least {size}x{size}")
    # like = (2 E[x] E[y] + c1) (2 cov + c2) / ((E[x]^2 + E[y]^2 + c1) (var x + var y + c2)), all times area^2, halved
    c1, c2 = (0.01 * 255 * area) ** 2 / 2, (0.03 * 255 * area) ** 2 / 2 / sampled
    height, width = a.shape[1] - size + 1, a.shape[2] - size + 1
    a, b = (np.ascontiguousarray(images.transpose(0, 1, 3, 2)) for images in (a, b))  # [N, H, 3, W]
    x: Array  # mypy takes an image of `a` or `b` for an array of unknown numbers
    y: Array
    dtype = np.float64 if area == 1 else np.float32  # exact where the sums are whole numbers
    total, memory = np.zeros(len(b)), np.empty((7, 3 * min(STRIP, height), width))  # written again for each strip
    for start in range(0, height, STRIP):
        rows = slice(start, min(start + STRIP, height) + size - 1)
        mean_x, square_x, mean_x_2, mean_y, product, square_y, like = memory[:, :3 * min(STRIP, height - start)]
        for pair, other in enumerate(b):
            if pair < len(a):
                x = a[pair, rows].astype(dtype)
                sum_windows(x, mean_x)
                sum_windows(x * x, square_x)
                square_x *= area
                square_x += 2 * (c1 + c2)
                np.multiply(mean_x, mean_x, out=mean_x_2)
                mean_x_2 += 2 * c1
            y = other[rows].astype(dtype)
            sum_windows(y, mean_y)
            sum_windows(x * y, product)
            y *= y
            sum_windows(y, square_y)
            if area != 1:
                product *= area
                square_y *= area
            np.multiply(mean_x, mean_y, out=like)
            product -= like
            product += c2
            like += c1
            like *= product
            mean_y *= mean_y
            mean_y += mean_x_2
            square_y += square_x
            square_y -= mean_y
            square_y *= mean_y
            like /= square_y
            total[pair] += like.sum()
    return np.clip(4 * total / (3 * height * width), -1, 1)  # rounding of equal images


def _weight_windows(x: Array, out: Array) -> None:
    """Fills out [(h - 10) 3, w - 10] with the means of x [h, 3, w] in Gaussian windows of 11x11, sigma 1.5."""
    weights = np.exp(-0.5 * (np.arange(-MARGIN, MARGIN + 1) / 1.5) ** 2)
    reach = len(weights) - 1
    band = np.zeros((TILE, TILE + reach))  # the window, in each row one pixel further
    for row in range(TILE):
        band[row, row:row + len(weights)] = weights / weights.sum()

    def tiles(count: int) -> Iterator[tuple[slice, slice, Array]]:
        for start in range(0, count, TILE):
            n = min(TILE, count - start)
            yield slice(start, start + n), slice(start, start + n + reach), band[:n, :n + reach]

    flat = x.reshape(len(x), -1)
    down = np.empty((len(x) - reach, flat.shape[1]))
    for made, used, part in tiles(len(down)):
        np.matmul(part, flat[used], out=down[made])
    down = down.reshape(-1, x.shape[2])
    for made, used, part in tiles(out.shape[1]):
        np.matmul(down[:, used], part.T, out=out[:, made])


def _sum_windows(x: Array, out: Array) -> None:
    """Fills out [(h - 6) 3, w - 6] with the sums of x [h, 3, w] in windows of 7x7.

    x holds whole numbers up to 255^2 in float32, which is exact: the sums stay below 2^24.
    """
    def sum_rows(x: Array) -> Array:
        twos = x[:-1] + x[1:]
        fours = twos[:-2] + twos[2:]
        sevens = fours[:-3] + twos[4:-1]
        sevens += x[6:]
        return sevens

    down = sum_rows(x).reshape(-1, x.shape[2])
    out[:] = sum_rows(down.T).T


def _check_numbers(x: Array, name: str = "features") -> Array:
    """Returns [N, D], finite and not empty. ValueError for anything else."""
    x = np.asarray(x)
    if x.ndim != 2 or x.dtype.kind not in "fiu" or not x.size:
        raise ValueError(f"expected {name} [N, D] of numbers, not {_describe(x)}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} are not all finite numbers")
    return x


def _as_float64(x: Array, name: str = "features") -> Array:
    """Returns [N, D] in float64, finite and not empty. ValueError for anything else."""
    return _check_numbers(x, name).astype(np.float64, copy=False)


def _check_pairs(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns two [N, D] unchanged. ValueError for unequal shapes."""
    a, b = _check_numbers(a), _check_numbers(b)
    if a.shape != b.shape:
        raise ValueError(f"expected features of the same items, not {list(a.shape)} and {list(b.shape)}")
    return a, b


def _check_sets(x: Array, y: Array) -> tuple[Array, Array]:
    """Returns [N, D] and [M, D] with at least two rows. ValueError for anything else."""
    x, y = _as_float64(x), _as_float64(y)
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError("expected [N, D] and [M, D] with 2 or more images each, "
                         f"not {list(x.shape)} and {list(y.shape)}")
    return x, y


def _factorize(x: Array) -> tuple[Array, Array]:
    """Returns the mean [D] and A [min(N, D), D] of [N, D]; A'A is the covariance."""
    n, mean = len(x), x.mean(0)
    centred = x - mean
    if n > x.shape[1]:
        centred = np.linalg.qr(centred, mode="r")
    return mean, centred / np.sqrt(n - 1)


def _frechet(x: tuple[Array, Array], y: tuple[Array, Array]) -> float:
    (mean_x, a), (mean_y, b) = x, y
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(np.square(mean_x - mean_y).sum() + np.square(a).sum() + np.square(b).sum() - 2 * root))


def _log_sum_exp(x: Array, axis: int) -> Array:
    top = x.max(axis, keepdims=True)
    return np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis)


def _normalize(x: Array) -> Array:
    """Scales rows to unit length; rows of zeros stay zeros."""
    length = np.sqrt(np.square(x).sum(1, keepdims=True))
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def _standardize(x: Array) -> Array:
    """Scales rows to mean 0 and unit length, in float64; constant rows become zeros."""
    standard = np.empty(x.shape)
    step = max(1, BLOCK // x.shape[1])
    for start in range(0, len(x), step):
        part = x[start:start + step].astype(np.float64, copy=False)
        centred = part - part.mean(1, keepdims=True)
        centred[part.max(1) == part.min(1)] = 0
        length = np.sqrt(np.square(centred).sum(1, keepdims=True))
        standard[start:start + step] = np.divide(centred, length, out=centred, where=length > 0)
    return standard


def _dot(a: Array, b: Array) -> Array:
    return np.clip(np.einsum("nd,nd->n", a, b), -1, 1)


def _identify(features: Array, image: Array | None) -> tuple[Array, Array]:
    """Returns the first row of each different image [M], in the order of the rows, and for each row [N] which of these
    it shows. Warns if rows are equal and no identity is given. ValueError unless image is [N]."""
    if image is None:
        if len({hashlib.sha256(row.tobytes()).digest() for row in features}) < len(features):
            warnings.warn("some images have equal features, which count as wrong ties: give `image`, the identity of "
                          "each row, so that an image does not compete with itself", stacklevel=3)
        rows = np.arange(len(features))
        return rows, rows
    image = np.asarray(image)
    if image.shape != (len(features),):
        raise ValueError(f"expected the identity of each of {len(features)} images, not {_describe(image)}")
    _, first, shown = np.unique(image, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[shown]


def _take(features: Array, rows: Array) -> Array:
    """Returns rows of features [N, D], in ascending order; without a copy if they are all."""
    return features if len(rows) == len(features) else features[rows]


def _count_rivals(query: Array, gallery: Array, shown: Array, scaled: Callable[[Array], Array]) -> Array:
    """Returns [N]: how many other rows of gallery [M, D] are at least as similar to row j of query [N, D] as its image,
    row shown[j], is. scaled: scales the query as the gallery already is."""
    step = max(1, BLOCK // max(gallery.shape))
    ahead = []
    for start in range(0, len(query), step):
        likeness = scaled(query[start:start + step]) @ gallery.T
        rows = np.arange(len(likeness))
        ahead.append(np.count_nonzero(likeness >= likeness[rows, shown[start + rows], None] - TIE, 1) - 1)
    return np.concatenate(ahead)


@dataclass(frozen=True)
class Metric:
    """What a metric's name in a CSV means. better: "higher" or "lower"; range: lowest and highest value; null: the
    value without EEG; unit: "" for none."""

    name: str
    title: str
    better: str
    range: tuple[float, float]
    null: str
    source: str
    unit: str = ""


SHARE = (0.0, 1.0)
MEASURED = "measured: controls without EEG"
SUBSTITUTE = "this suite: a substitute at tiny, not comparable"


def _accuracies() -> list[Metric]:
    nway = "k/n if ranks are uniform; higher for a generator of few classes: measure it"
    released = "DreamDiffusion's released code, in closed form"
    rules = {
        "top1": ("Top-1 accuracy", "1/K", "standard"),
        "nway": ("n-way top-1 accuracy, exact", nway, released),
        "nway_top5": ("n-way top-5 accuracy, exact", nway, released),
        "top1_shown": ("Top-1 accuracy among the shown classes", "1/shown classes", "this suite"),
        "nway_shown": ("n-way top-1 accuracy among the shown classes", "1/n", "this suite"),
        "top1_fixed": ("Top-1 accuracy among a fixed set of classes that includes the shown ones",
                       "between 1/classes and 1/shown", "DreamDiffusion, Sec. 4.3, the text"),
        "nway_hard": ("n-way top-1 accuracy against the nearest classes", "1/n", "this suite: hard_distractors"),
    }
    targets = {"label": "the label", "judge": "the judge's class of the real image"}
    return [_share(f"{rule}_{name}", f"{title}; target: {target}", null, source)
            for rule, (title, null, source) in rules.items() for name, target in targets.items()]


def _share(name: str, title: str, null: str, source: str) -> Metric:
    return Metric(name, title, "higher", SHARE, null, source, "share")


def _lower(name: str, title: str, null: str, source: str, unit: str = "", most: float = inf) -> Metric:
    return Metric(name, title, "lower", (0.0, most), null, source, unit)


def _memorisation() -> list[Metric]:
    spaces = {"clip": "CLIP's embeddings", "judge": "the judge's features"}
    copying, ours = "as Meehan et al. 2020: against real test images", "this suite"

    def defined(space: str, where: str) -> list[Metric]:
        nearest, share = f"to the nearest training image, {where}", "Share of generated images"
        return [
            Metric(f"train_distance_{space}", f"Distance {nearest}", "higher", (0.0, inf),
                   f"train_distance_real_{space}", ours),
            Metric(f"train_distance_real_{space}", f"The same distance of the test image, {where}", "higher",
                   (0.0, inf), "itself", "this suite: a baseline"),
            Metric(f"train_ratio_{space}", f"Median distance {nearest}, over that of the test images", "higher",
                   (0.0, inf), "1: real images", copying),
            _lower(f"copies_{space}", f"{share} no farther from a training image than any test image, {where}",
                   "1/(test images + 1): real images", copying, "share", 1.0),
            _lower(f"near_copies_{space}", f"{share} as near to a training image as the nearest 5 % of the test "
                   f"images, {where}", ".05: real images", copying, "share", 1.0),
        ]

    return [metric for space, where in spaces.items() for metric in defined(space, where)]


def _definitions() -> list[Metric]:
    minds_eye, atm, baseline = "Scotti et al. 2023 (MindEye)", "Song et al. 2024 (ATM)", "this suite: a baseline"
    signed, any_number, from_one = (-1.0, 1.0), (-inf, inf), (1.0, inf)
    real, classes = "not 0: real images at the same N", "1; at most the number of classes"
    eeg = "standardised EEG, squared"
    two_way, retrieval = "Two-way identification", "Retrieval of the image by the EEG's embedding"
    return [
        *_accuracies(),
        _share("top1_real", "The judge's accuracy on real images; target: the label", "1/K", "this suite: a ceiling"),
        _lower("fid", "FID", real, "Heusel et al. 2017; the extractor's last features (2048-d)"),
        _lower("fid_64", "FID of 64 features", real, "MinD-Vis's and DreamDiffusion's code (torchmetrics feature=64)"),
        _lower("fd_dinov2", "Frechet distance of DINOv2's features", real,
               "Stein et al. 2023; ViT-g/14, by torch-fidelity"),
        Metric("fid_infinity", "FID at infinite N", "lower", any_number, "0; no estimate unless N/2 exceeds D",
               "Chong and Forsyth 2020"),
        _lower("fid_torchmetrics", "FID by torchmetrics, as a check", real, "torchmetrics"),
        Metric("kid", "KID, mean over subsets", "lower", any_number, "0, on both sides of it", "Binkowski et al. 2018"),
        Metric("is", "Inception score, mean over splits", "higher", from_one, classes, "Salimans et al. 2016",
               "classes"),
        Metric("is_torchmetrics", "Inception score by torchmetrics, as a check", "higher", from_one, classes,
               "torchmetrics", "classes"),
        _share("precision", "Share of generated images among the real ones", "measured: controls without EEG",
               "Kynkäänniemi et al. 2019, by torch-fidelity; k = 3"),
        _share("recall", "Share of real images among the generated ones", "measured: controls without EEG",
               "Kynkäänniemi et al. 2019, by torch-fidelity; k = 3"),
        Metric("density", "Density of the real images where generated ones are", "higher", (0.0, inf),
               "measured: controls without EEG; 1 for real images", "Naeem et al. 2020; k = 5"),
        _share("coverage", "Share of real images with a generated one nearby",
               "measured: controls without EEG; 1 - 1/2^k for real images", "Naeem et al. 2020; k = 5"),
        *_memorisation(),
        Metric("psnr", "PSNR", "higher", (0.0, inf), MEASURED, "range 255, mean over images", "dB"),
        Metric("ssim", "SSIM", "higher", signed, MEASURED, "Wang et al. 2004"),
        Metric("ssim_released", "SSIM as released", "higher", signed, MEASURED, "DreamDiffusion's released code"),
        _lower("lpips", "LPIPS v0.1", MEASURED, "Zhang et al. 2018, AlexNet"),
        _lower("judge_distance", "Perceptual distance by the judge", MEASURED, SUBSTITUTE, most=4.0),
        Metric("pixcorr", "PixCorr", "higher", signed, "0, or higher because images are alike: measure it",
               "Scotti et al. 2023, without the resize"),
        _share("two_way_alexnet2", f"{two_way}, AlexNet after convolution 2", "1/2", minds_eye),
        _share("two_way_alexnet5", f"{two_way}, AlexNet after convolution 5", "1/2", minds_eye),
        _share("two_way_inception", f"{two_way}, Inception-v3, last pool", "1/2", minds_eye),
        _share("two_way_clip", f"{two_way}, CLIP ViT-L/14", "1/2", minds_eye),
        _share("two_way_clip_tiny", f"{two_way}, the tiny world's CLIP", "1/2", SUBSTITUTE),
        _share("two_way_judge_layer2", f"{two_way}, the judge's 2nd layer", "1/2", SUBSTITUTE),
        _share("two_way_judge_layer4", f"{two_way}, the judge's 4th layer", "1/2", SUBSTITUTE),
        _share("two_way_judge_features", f"{two_way}, the judge's features", "1/2", SUBSTITUTE),
        _lower("correlation_efficientnet", "Correlation distance, EfficientNet-B1", MEASURED, minds_eye, most=2.0),
        _lower("correlation_swav", "Correlation distance, SwAV ResNet-50", MEASURED, minds_eye, most=2.0),
        _lower("correlation_judge", "Correlation distance, the judge's features", MEASURED, SUBSTITUTE, most=2.0),
        Metric("clip_similarity", "Cosine of CLIP's embeddings of both images", "higher", signed, MEASURED,
               "as in Hessel et al. 2021, not cut off, not times 100"),
        *(_share(f"retrieval_top{k}", f"{retrieval}, top {k}", f"{k}/images", atm) for k in (1, 5)),
        *(_share(f"retrieval_{n}way", f"{retrieval}, {n}-way, exact", f"1/{n}", f"{atm}, in closed form")
          for n in (2, 4, 10)),
        _share("class_top1", "Class whose mean image embedding is nearest to the EEG's embedding", "1/classes",
               "this suite"),
        _share("train_class_top1", "The same on the training pairs", "1/classes", "this suite: shows overfitting"),
        _share("readout_accuracy", "Accuracy of a classifier of the EEG", "1/classes", "this suite"),
        _lower("masked_mse", "Error at masked tokens of held-out EEG", "mean_mse", "DreamDiffusion, Sec. 3.1", eeg),
        _lower("mean_mse", "The same error of the mean", "itself", baseline, eeg),
        _lower("interpolation_mse", "The same error of linear interpolation", "mean_mse", baseline, eeg),
        _lower("wiener_mse", "The same error of the best linear prediction", "mean_mse", baseline, eeg),
        _lower("joint_wiener_mse", "The same error of the best linear prediction from all channels", "mean_mse",
               baseline, eeg),
        _lower("trained_parameters", "Parameters of all networks that a row trains", "0", "this suite: a cost",
               "parameters"),
    ]


DEFINITIONS: dict[str, Metric] = {metric.name: metric for metric in _definitions()}
SINGLE = tuple(name for name, metric in DEFINITIONS.items()  # shares of 1 with a value for each item
               if metric.unit == "share" and metric.better == "higher"
               and name not in ("top1_real", "readout_accuracy", "precision", "recall", "coverage", "train_class_top1"))
