"""Every metric against implementations that are not ours; what was decided where they disagree (docs/metrics.md)."""

from __future__ import annotations

import inspect
import warnings

import lpips
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance
import scipy.stats
import skimage.color
import skimage.metrics
import torch
import torch_fidelity.metric_fid
import torch_fidelity.metric_isc
import torch_fidelity.metric_kid
import torchmetrics.functional.image as tm
import torchmetrics.functional.image.lpips
import torchvision
from sklearn.neighbors import NearestNeighbors
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import poly_mmd

from bench import images, metrics
from models import extractors, pins

TOLERANCE = {  # relative, in float64, and in float32 for networks
    "top1": 0, "nway_accuracy": 1e-12, "among": 0, "hard_distractors": 0,
    "psnr": 1e-12, "psnr, torchmetrics": 1e-7,  # whose logarithm of 10 is in float32
    "ssim": 1e-10, "ssim_released": 1e-10, "pixcorr": 1e-10, "judge_distance": 1e-12,
    "frechet_distance": 1e-9, "frechet_distance, fewer pictures than dimensions": 1e-6,  # their eigenvalues' error
    "frechet_distance_infinity": 1e-6, "kernel_distance": 1e-10, "inception_score": 1e-12,
    "two_way_identification": 1e-12, "correlation_distance": 1e-10, "cosine_similarity": 1e-10, "retrieval_topk": 1e-12,
    "nearest": 0, "nearest_distance": 1e-12, "density_coverage": 1e-12, "lpips": 1e-5,
}


def close(metric: str, expected):
    return pytest.approx(expected, rel=TOLERANCE[metric], abs=1e-14)


def pictures(n: int = 3, height: int = 24, width: int = 31) -> tuple[np.ndarray, np.ndarray]:
    """Two sets that have something in common, of which one is not square."""
    rng = np.random.default_rng(0)
    a, other = rng.integers(0, 256, (2, n, height, width, 3), dtype=np.uint8)
    return a, (0.6 * a + 0.4 * other).astype(np.uint8)


def features(n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets with unlike means and correlated, unlike covariances."""
    rng = np.random.default_rng(1)
    return (rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) / np.sqrt(d),
            rng.standard_normal((m, d)) @ rng.standard_normal((d, d)) / np.sqrt(d) + 0.1)


def channels_first(a: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(a).permute(0, 3, 1, 2).double()


class Cached(torch.nn.Identity):
    """Stands where torchmetrics wants a network that it can ask for features."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


def test_every_metric_has_a_tolerance_and_none_is_laxer_than_agreed():
    public = {name for name, value in vars(metrics).items()
              if inspect.isfunction(value) and value.__module__ == metrics.__name__
              and not name.startswith("_") and not name.endswith("_influence")}  # of an interval: by leaving out
    assert public | {"lpips"} == {name.split(",")[0] for name in TOLERANCE}
    assert max(value for name, value in TOLERANCE.items() if name != "lpips") <= 1e-6
    assert TOLERANCE["lpips"] <= 1e-5


# Accuracies

def scored(n: int = 60, classes: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.standard_normal((n, classes)), rng.integers(0, classes, n)


def test_top1_is_torchmetrics():
    logits, target = scored()
    expected = multiclass_accuracy(torch.from_numpy(logits), torch.from_numpy(target), 30, average="micro").item()
    assert metrics.top1(logits, target).mean() == pytest.approx(expected, abs=1e-7)
    assert metrics.top1(logits, target).tolist() == (logits.argmax(1) == target).tolist()


@pytest.mark.parametrize(("n", "k"), [(2, 1), (10, 1), (10, 5), (30, 1), (30, 30)])
def test_nway_accuracy_is_scipys_hypergeometric_distribution_of_scipys_ranks(n, k):
    logits, target = scored()
    ranks = scipy.stats.rankdata(-logits, method="max", axis=1)[np.arange(60), target]
    expected = scipy.stats.hypergeom.cdf(k - 1, 29, ranks - 1, n - 1)
    assert metrics.nway_accuracy(logits, target, n, k) == close("nway_accuracy", expected)


def test_among_some_classes_the_others_are_as_if_they_were_not_there():
    logits, target = scored()
    shown = np.unique(target)[::-1]
    found, own = metrics.among(logits, target, shown)
    hidden = np.where(np.isin(np.arange(30), shown), logits, -np.inf)
    assert metrics.top1(found, own).tolist() == (hidden.argmax(1) == target).tolist()
    sets = np.stack([[row, (row + 1) % 30, (row + 9) % 30] for row in target])
    found, own = metrics.among(logits, target, sets)
    assert found.tolist() == [[row[c] for c in some] for row, some in zip(logits, sets, strict=True)]
    assert (own == 0).all()


def test_hard_distractors_are_the_classes_that_a_sorted_list_puts_next():
    logits, label = scored(200)
    label[label == 7] = 8
    hard = metrics.hard_distractors(logits, label, 5)
    assert hard.shape == (30, 4)
    assert (hard[7] == -1).all()
    for own in set(range(30)) - {7}:
        mean = {c: np.mean([row[c] for row, b in zip(logits, label, strict=True) if b == own]) for c in range(30)}
        assert hard[own].tolist() == [c for c in sorted(mean, key=mean.get, reverse=True) if c != own][:4]


# Pixels

def test_psnr_is_scikit_images_and_torchmetrics_of_each_picture():
    a, b = pictures()
    expected = [skimage.metrics.peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(a, b, strict=True)]
    assert metrics.psnr(a, b) == close("psnr", expected)
    theirs = tm.peak_signal_noise_ratio(channels_first(a), channels_first(b), 255.0, dim=(1, 2, 3), reduction="none")
    assert metrics.psnr(a, b) == close("psnr, torchmetrics", theirs.numpy())


def test_ssim_is_scikit_images_with_wangs_settings():
    a, b = pictures()
    expected = [skimage.metrics.structural_similarity(x, y, gaussian_weights=True, sigma=1.5, data_range=255,
                                                      use_sample_covariance=False, channel_axis=-1)
                for x, y in zip(a, b, strict=True)]
    assert metrics.ssim(a, b) == close("ssim", expected)


@pytest.mark.parametrize(("height", "width"), [(11, 11), (26, 27), (128, 40), (150, 290)])
def test_ssim_of_one_picture_and_several_is_scikit_images_at_any_size(height, width):
    """Sizes below, at and above the rows and columns that are filtered at once."""
    a, b = pictures(2, height, width)
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for metric, settings in ((metrics.ssim, wang), (metrics.ssim_released, {})):
        expected = [skimage.metrics.structural_similarity(a[0], y, data_range=255, channel_axis=-1, **settings)
                    for y in b]
        assert metric(a[:1], b) == close(metric.__name__, expected)


def test_ssim_as_released_is_scikit_images_with_its_defaults():
    a, b = pictures()
    expected = [skimage.metrics.structural_similarity(x, y, data_range=255, channel_axis=-1)
                for x, y in zip(a, b, strict=True)]
    assert metrics.ssim_released(a, b) == close("ssim_released", expected)


def test_ssim_as_released_is_the_formula_over_every_window():
    a, b = pictures(1, 9, 8)
    values = []
    for row, column, channel in np.ndindex(3, 2, 3):
        x, y = (p[0, row:row + 7, column:column + 7, channel].astype(float).ravel() for p in (a, b))
        (xx, xy), (_, yy) = np.cov(x, y)
        values.append((2 * x.mean() * y.mean() + 2.55**2) * (2 * xy + 7.65**2)
                      / ((x.mean()**2 + y.mean()**2 + 2.55**2) * (xx + yy + 7.65**2)))
    assert metrics.ssim_released(a, b) == close("ssim_released", [np.mean(values)])


def test_pixcorr_is_scipys_pearson():
    a, b = pictures()
    expected = [scipy.stats.pearsonr(x.ravel().astype(float), y.ravel().astype(float)).statistic
                for x, y in zip(a, b, strict=True)]
    assert metrics.pixcorr(a, b) == close("pixcorr", expected)


# Networks' layers

def test_judge_distance_is_lpips_own_steps_with_weights_of_one():
    rng = np.random.default_rng(3)
    a, b = ([rng.standard_normal((4, c, s, s)) for c, s in ((3, 8), (5, 4))] for _ in range(2))
    layers = [lpips.spatial_average(
        ((lpips.normalize_tensor(torch.from_numpy(x)) - lpips.normalize_tensor(torch.from_numpy(y))) ** 2).sum(
            1, keepdim=True), keepdim=False).flatten().numpy() for x, y in zip(a, b, strict=True)]
    assert metrics.judge_distance(a, b) == close("judge_distance", np.mean(layers, 0))


def lpips_input(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_lpips_is_torchmetrics_on_the_same_random_backbone_file(tmp_path, monkeypatch):
    """Also: pictures in [0, 1] pass in both without a word and give another number, so that ours go in in [-1, 1]."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    pinned = extractors.FILES["squeeze"]
    monkeypatch.setitem(extractors.FILES, "squeeze", pins.Pinned(pinned.url))
    path = tmp_path / "hub" / "checkpoints" / pinned.file
    path.parent.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(torchvision.models.squeezenet1_1().state_dict(), path)
    distance, _ = extractors.perceptual("squeeze")
    a, b = lpips_input(0), lpips_input(1)

    def theirs(x: torch.Tensor, y: torch.Tensor) -> float:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            return tm.learned_perceptual_image_patch_similarity(x, y, net_type="squeeze").item()

    with torch.inference_mode():
        ours = distance(a, b)
        assert ours.mean().item() == close("lpips", theirs(a, b))
        assert (ours > 0.01).all()
        raw = distance((a + 1) / 2, (b + 1) / 2).mean().item()
        assert raw == close("lpips", theirs((a + 1) / 2, (b + 1) / 2))
        assert abs(raw / ours.mean().item() - 1) > 0.05


def test_lpips_with_alexnet_is_torchmetrics_on_the_same_random_backbone():
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        torch.manual_seed(0)
        ours = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        theirs = torchmetrics.functional.image.lpips._LPIPS(net="alex", pnet_rand=True)
    theirs.net.load_state_dict(ours.net.state_dict())
    a, b = lpips_input(0), lpips_input(1)
    with torch.inference_mode():
        assert ours(a, b).flatten().numpy() == close("lpips", theirs(a, b).flatten().numpy())


# Distances of sets

def fid_by_square_root(x: np.ndarray, y: np.ndarray) -> float:
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real))


def fid_by_symmetric_eigenvalues(x: np.ndarray, y: np.ndarray) -> float:
    """Stable for covariances without full rank: tr (S1^1/2 S2 S1^1/2)^1/2."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
    return float(np.square(x.mean(0) - y.mean(0)).sum() + a.trace() + b.trace() - 2 * cross)


def fid_by_torch_fidelity(x: np.ndarray, y: np.ndarray) -> float:
    moments = [torch_fidelity.metric_fid.fid_features_to_statistics(torch.from_numpy(z)) for z in (x, y)]
    return torch_fidelity.metric_fid.fid_statistics_to_metric(*moments, False)["frechet_inception_distance"]


def fid_by_torchmetrics(x: np.ndarray, y: np.ndarray) -> float:
    distance = FrechetInceptionDistance(feature=Cached(x.shape[1])).set_dtype(torch.float64)
    distance.update(torch.from_numpy(x), real=True)
    distance.update(torch.from_numpy(y), real=False)
    return distance.compute().item()


@pytest.mark.parametrize("theirs", [fid_by_square_root, fid_by_symmetric_eigenvalues, fid_by_torch_fidelity,
                                    fid_by_torchmetrics])
@pytest.mark.parametrize(("n", "m"), [(100, 100), (60, 400)])
def test_frechet_distance_is_theirs_with_more_pictures_than_dimensions(theirs, n, m):
    x, y = features(n, m, 20)
    assert metrics.frechet_distance(x, y) == close("frechet_distance", theirs(x, y))
    assert metrics.frechet_distance(y, x) == close("frechet_distance", theirs(x, y))


@pytest.mark.parametrize("theirs", [fid_by_symmetric_eigenvalues, fid_by_torch_fidelity, fid_by_torchmetrics])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (30, 200), (200, 30), (64, 65), (2, 3)])
def test_frechet_distance_is_theirs_with_fewer_pictures_than_dimensions(theirs, n, m):
    x, y = features(n, m, 64)
    assert metrics.frechet_distance(x, y) == close("frechet_distance, fewer pictures than dimensions", theirs(x, y))


def test_frechet_distance_at_infinity_is_the_intercept_of_the_line_through_theirs():
    x, y = features(90, 150, 8)
    rng, values = np.random.default_rng(4), []
    parts = [1 + i / 7 for i in range(8)]
    for part in parts:
        sets = [z if part == 1 else z[rng.choice(len(z), round(len(z) / part), replace=False)] for z in (x, y)]
        values.append(fid_by_torch_fidelity(*sets))
    expected = scipy.stats.linregress(parts, values).intercept
    ours = metrics.frechet_distance_infinity(x, y, np.random.default_rng(4))
    assert ours == close("frechet_distance_infinity", expected)


def test_kernel_distance_is_torch_fidelitys_and_torchmetrics_and_the_sum_over_pairs():
    x, y = features(30, 30, 6)
    mean, spread = metrics.kernel_distance(x, y, 30, 1, np.random.default_rng(0))
    theirs = torch_fidelity.metric_kid.kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=1, kid_subset_size=30, kid_kernel="poly",
        kid_kernel_poly_degree=3, kid_kernel_poly_coef0=1, kid_kernel_poly_gamma=None, rng_seed=0, verbose=False)
    assert mean == close("kernel_distance", theirs["kernel_inception_distance_mean"])
    assert mean == close("kernel_distance", poly_mmd(torch.from_numpy(x), torch.from_numpy(y)).item())
    pairs = [(i, j) for i in range(30) for j in range(30)]
    within = [(x[i] @ x[j] / 6 + 1) ** 3 + (y[i] @ y[j] / 6 + 1) ** 3 for i, j in pairs if i != j]
    across = [(x[i] @ y[j] / 6 + 1) ** 3 for i, j in pairs]
    assert mean == close("kernel_distance", np.mean(within) - 2 * np.mean(across))
    assert spread == 0


def test_kernel_distance_over_subsets_has_numpys_mean_and_spread_of_theirs():
    x, y = features(40, 70, 6)
    rng, values = np.random.default_rng(5), []
    for _ in range(7):
        a, b = (torch.from_numpy(z[rng.choice(len(z), 20, replace=False)]) for z in (x, y))
        values.append(poly_mmd(a, b).item())
    expected = np.mean(values), np.std(values)
    assert metrics.kernel_distance(x, y, 20, 7, np.random.default_rng(5)) == close("kernel_distance", expected)


@pytest.mark.parametrize("splits", [1, 4, 7])
def test_inception_score_is_torch_fidelitys_of_the_same_order(splits):
    logits = np.random.default_rng(6).standard_normal((40, 9)) * 2
    shuffled = torch.from_numpy(logits[np.random.default_rng(7).permutation(40)])
    theirs = torch_fidelity.metric_isc.isc_features_to_metric(shuffled, splits=splits, shuffle=False)
    expected = theirs["inception_score_mean"], theirs["inception_score_std"]
    assert metrics.inception_score(logits, splits, np.random.default_rng(7)) == close("inception_score", expected)


# Likeness of items

def test_two_way_identification_is_the_count_over_numpys_correlations():
    rng = np.random.default_rng(8)
    real = rng.standard_normal((40, 12))
    made = real + 3 * rng.standard_normal((40, 12))
    r = np.corrcoef(real, made)[:40, 40:]
    expected = [np.mean([r[i, j] < r[j, j] for i in range(40) if i != j]) for j in range(40)]
    assert metrics.two_way_identification(real, made) == close("two_way_identification", expected)
    other_way = [np.mean([r[j, i] < r[j, j] for i in range(40) if i != j]) for j in range(40)]
    assert metrics.two_way_identification(made, real) == close("two_way_identification", other_way)
    assert np.mean(expected) != pytest.approx(np.mean(other_way), abs=1e-3)


def test_correlation_and_cosine_are_scipys():
    a, b = np.random.default_rng(9).standard_normal((2, 20, 7)) + 0.3
    rows = list(zip(a, b, strict=True))
    expected = [scipy.spatial.distance.correlation(x, y) for x, y in rows]
    assert metrics.correlation_distance(a, b) == close("correlation_distance", expected)
    expected = [1 - scipy.spatial.distance.cosine(x, y) for x, y in rows]
    assert metrics.cosine_similarity(a, b) == close("cosine_similarity", expected)


def test_retrieval_is_the_rank_in_a_sorted_list_of_scipys_distances():
    rng = np.random.default_rng(10)
    gallery_of = rng.standard_normal((50, 16))
    query = gallery_of[:30] + 2 * rng.standard_normal((30, 16))
    order = scipy.spatial.distance.cdist(query, gallery_of, "cosine").argsort(1)
    ranks = (order == np.arange(30)[:, None]).argmax(1)
    assert len(set(ranks)) > 1
    assert metrics.nearest(query, gallery_of).tolist() == order[:, 0].tolist()
    assert metrics.nearest(np.ones((1, 2)), np.array([[0, 1.0], [3.0, 0], [-1, -1]])).tolist() == [-1]
    for k in (1, 5, 50):
        assert metrics.retrieval_topk(query, gallery_of, k).tolist() == (ranks < k).tolist()
        if k < 50:
            expected = scipy.stats.hypergeom.cdf(k - 1, 49, ranks, 9)
            assert metrics.retrieval_topk(query, gallery_of, k, 10) == close("retrieval_topk", expected)


def test_nearest_distance_is_scikit_learns_nearest_neighbour():
    query, gallery = features(40, 90, 6)
    distance, row = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(gallery).kneighbors(query)
    found, rows = metrics.nearest_distance(query, gallery)
    assert found == close("nearest_distance", distance[:, 0])
    assert rows.tolist() == row[:, 0].tolist()


@pytest.mark.parametrize(("n", "m", "k"), [(60, 60, 5), (30, 70, 5), (70, 30, 1)])
def test_density_and_coverage_count_the_balls_of_scikit_learns_neighbours(n, m, k):
    generated, real = features(n, m, 4)
    radius = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(real).kneighbors(real)[0][:, k]
    inside = scipy.spatial.distance.cdist(real, generated) < radius[:, None]
    expected = inside.sum() / (k * n), inside.any(1).mean()
    assert metrics.density_coverage(generated, real, k) == close("density_coverage", expected)
    assert 0 < expected[1] < 1


# Where libraries disagree

def test_torchmetrics_lets_the_first_class_win_ties_and_ours_counts_them_as_misses():
    even = np.zeros((1, 50))
    assert multiclass_accuracy(torch.from_numpy(even), torch.tensor([0]), 50, average="micro") == 1
    assert multiclass_accuracy(torch.from_numpy(even), torch.tensor([49]), 50, average="micro") == 0
    assert metrics.top1(even, np.array([0])) == metrics.top1(even, np.array([49])) == 0


def test_a_softmax_in_float32_underflows_into_ties_that_logits_do_not_have():
    logits = np.full((1, 1000), -300.0)
    logits[0, :2] = 0, -200
    softmax = torch.from_numpy(logits).float().softmax(1).double().numpy()
    assert metrics.nway_accuracy(logits, np.array([1]), 50) == pytest.approx(0.950950951, abs=1e-9)
    assert metrics.nway_accuracy(softmax, np.array([1]), 50) == 0


def test_bytes_that_are_subtracted_as_bytes_wrap_around_and_ours_do_not():
    a, b = pictures()
    wrapped, true = np.square(a - b).mean(), np.square(a.astype(float) - b).mean()
    assert not np.isclose(wrapped, true, rtol=0.1)
    assert np.mean(255**2 / 10 ** (metrics.psnr(a, b) / 10)) == close("psnr", true)


def test_torchmetrics_pools_psnr_over_the_batch_unless_told_and_ours_never():
    a, b = pictures()
    b[0] = a[0] ^ 1
    pooled = tm.peak_signal_noise_ratio(channels_first(a), channels_first(b), 255.0).item()
    assert metrics.psnr(a, b).mean() > pooled + 5
    assert metrics.psnr(a, b)[1:] == close("psnr", metrics.psnr(a[1:], b[1:]))


def test_other_settings_of_ssim_give_other_numbers_and_ours_are_wangs():
    a, b = (p // 4 for p in pictures(1))
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    grey = [skimage.color.rgb2gray(x[0]) for x in (a, b)]
    others = [metrics.ssim_released(a, b)[0],
              skimage.metrics.structural_similarity(a[0], b[0], data_range=2, channel_axis=-1, **wang),
              skimage.metrics.structural_similarity(*grey, data_range=1.0, **wang)]
    assert all(abs(value - metrics.ssim(a, b)[0]) > 0.005 for value in others)


def test_torchmetrics_ssim_without_a_range_depends_on_the_other_pictures_and_ours_does_not():
    a, b = pictures()
    a[0], b[0] = a[0] // 4, b[0] // 4
    x, y = channels_first(a), channels_first(b)
    alone, together = (tm.structural_similarity_index_measure(x[:n], y[:n], reduction="none")[0].item() for n in (1, 3))
    assert abs(alone - together) > 0.01
    assert metrics.ssim(a, b)[0] == close("ssim", metrics.ssim(a[:1], b[:1])[0])


def test_ssim_in_float32_loses_digits_and_ours_is_the_formula():
    flat = np.zeros((1, 16, 16, 3), np.uint8)
    a, b = flat + 100, flat + 150
    exact = (2 * 100 * 150 + 2.55**2) / (100**2 + 150**2 + 2.55**2)
    single = tm.structural_similarity_index_measure(channels_first(a).float(), channels_first(b).float(),
                                                    data_range=255.0).item()
    assert abs(single / exact - 1) > 1e-6
    assert metrics.ssim(a, b) == close("ssim", [exact])


def test_pictures_are_resized_for_fid_by_antialiased_bicubic_and_not_as_torch_fidelity_would():
    picture = np.random.default_rng(11).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
    ours = torch.from_numpy(images.resize(picture, (299, 299))).permute(2, 0, 1)[None]
    bicubic = torch.nn.functional.interpolate(tensor, (299, 299), mode="bicubic", antialias=True)
    tensorflow = interpolate_bilinear_2d_like_tensorflow1x(tensor, (299, 299), align_corners=False)
    assert (ours - bicubic.clamp(0, 255)).abs().mean() < 0.5
    assert (ours - tensorflow).abs().mean() > 20


def test_eigenvalues_of_the_product_are_good_to_six_digits_and_singular_values_to_ten():
    x, y = features(40, 40, 200)
    ours = metrics.frechet_distance(x, y)
    shared = np.concatenate([x, y])
    basis = np.linalg.qr((shared - shared.mean(0)).T)[0]  # 80 of 200 dimensions, in which nothing is lost
    assert metrics.frechet_distance(x @ basis, y @ basis) == pytest.approx(ours, rel=1e-10)
    for theirs in (fid_by_torch_fidelity, fid_by_torchmetrics):
        assert 1e-10 < abs(theirs(x, y) / ours - 1) < 1e-6


def test_kid_in_float32_loses_digits_and_ours_takes_float32_features_in_float64():
    x, y = (z.astype(np.float32) * 10 for z in features(30, 30, 6))
    single = poly_mmd(torch.from_numpy(x), torch.from_numpy(y)).item()
    ours, _ = metrics.kernel_distance(x, y, 30, 1, np.random.default_rng(0))
    assert ours == close("kernel_distance", poly_mmd(torch.from_numpy(x).double(), torch.from_numpy(y).double()).item())
    assert single != pytest.approx(ours, rel=1e-9)


def test_kid_of_one_population_is_nought_on_average_and_negative_half_the_time():
    rng = np.random.default_rng(12)
    values = np.array([metrics.kernel_distance(*rng.standard_normal((2, 20, 8)), 20, 1, rng)[0] for _ in range(400)])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(400)
    assert 0.3 < (values < 0).mean() < 0.8


def inception_by_torchmetrics(logits: np.ndarray, splits: int) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = InceptionScore(feature=Cached(logits.shape[1]), splits=splits).set_dtype(torch.float64)
        score.update(torch.from_numpy(logits))
        return tuple(value.item() for value in score.compute())


def test_inception_scores_order_is_torchs_global_state_in_torchmetrics_and_the_callers_rng_in_ours():
    logits = np.random.default_rng(13).standard_normal((40, 9)) * 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert len({inception_by_torchmetrics(logits, 4) for _ in range(3)}) == 3
        whole = inception_by_torchmetrics(logits, 1)
    ours = [metrics.inception_score(logits, 4, np.random.default_rng(1)) for _ in range(2)]
    assert ours[0] == ours[1] != metrics.inception_score(logits, 4, np.random.default_rng(2))
    assert metrics.inception_score(logits, 1, np.random.default_rng(1)) == close("inception_score", (whole[0], 0.0))
    assert np.isnan(whole[1])
    values = [metrics.inception_score(logits, splits, np.random.default_rng(1))[0] for splits in (1, 4, 10)]
    assert values[0] > values[1] > values[2]


def test_torchmetrics_makes_fewer_splits_than_asked_and_ours_as_many():
    logits = np.random.default_rng(14).standard_normal((10, 5))
    assert len(torch.from_numpy(logits).chunk(6)) == 5
    order = np.random.default_rng(0).permutation(10)
    parts = [logits[order][i * 10 // 6:(i + 1) * 10 // 6] for i in range(6)]
    singly = [metrics.inception_score(part, 1, np.random.default_rng(0))[0] for part in parts]
    expected = np.mean(singly), np.std(singly)
    assert metrics.inception_score(logits, 6, np.random.default_rng(0)) == close("inception_score", expected)


def test_certain_logits_are_nan_in_torch_fidelity_and_the_number_of_classes_in_ours():
    certain = np.eye(8) * 2000
    theirs = torch_fidelity.metric_isc.isc_features_to_metric(torch.from_numpy(np.pad(certain, ((0, 0), (0, 1)))), 1)
    assert np.isnan(theirs["inception_score_mean"])
    ours, _ = metrics.inception_score(np.pad(certain, ((0, 0), (0, 1))), 1, np.random.default_rng(0))
    assert ours == close("inception_score", 8.0)


def test_cosines_below_nought_are_kept_where_clip_score_cuts_them_off():
    a = np.random.default_rng(15).standard_normal((5, 8))
    assert metrics.cosine_similarity(a, -a) == pytest.approx(-1)
    assert metrics.cosine_similarity(a, 7 * a) == pytest.approx(1)


def test_frechet_distance_grows_with_fewer_pictures_and_its_extrapolation_does_not():
    rng, found = np.random.default_rng(16), []
    true = 16 * 0.1**2
    for n in (100, 200, 400):
        sets = [(rng.standard_normal((n, 16)) + 0.1, rng.standard_normal((n, 16))) for _ in range(20)]
        found.append((np.mean([metrics.frechet_distance(x, y) for x, y in sets]),
                      np.mean([metrics.frechet_distance_infinity(x, y, rng) for x, y in sets])))
    plain, infinite = np.array(found).T
    assert plain[0] > 1.5 * plain[1] > 1.5**2 * plain[2] > 1.5**3 * true
    assert infinite == pytest.approx(true, abs=0.15)
    assert (abs(infinite - true) < 0.5 * abs(plain - true)).all()
