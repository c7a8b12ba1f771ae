"""The definitions: closed forms, what is refused, and the page that lists them.

After a change of a definition: python tests/test_metrics.py writes the table of docs/metrics.md.
"""

import csv
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from bench import metrics

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "metrics.md"
BEGIN, END = "<!-- the table of bench.metrics.DEFINITIONS: python tests/test_metrics.py -->", "<!-- end -->"


def ranked(h: int, classes: int = 1000) -> np.ndarray:
    """Logits [1, classes] in which h other classes are ahead of class 0."""
    logits = -np.arange(classes, dtype=float)[None]
    logits[0, 0] = -h - 0.5
    return logits


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def drawn_features(rng: np.random.Generator, n: int, dimensions: int, scale: float = 1.0) -> np.ndarray:
    """Normal features [n, dimensions] with falling variances, and means above 0 for scale > 1."""
    return rng.standard_normal((n, dimensions)) * scale / np.arange(1, dimensions + 1) ** 0.5 + (scale - 1)


def drawn_logits(rng: np.random.Generator, n: int, classes: int) -> np.ndarray:
    logits = 2 * rng.standard_normal((n, classes))
    logits[np.arange(n), rng.integers(classes // 2, size=n)] += rng.choice([0, 6], n)
    return logits


def jackknife(statistic, rows: np.ndarray) -> np.ndarray:
    """The influence [N] of each row by leaving it out."""
    without = np.array([statistic(np.delete(rows, row, 0)) for row in range(len(rows))])
    return (len(rows) - 1) * (without.mean() - without)


def score(logits: np.ndarray) -> float:
    return metrics.inception_score(logits, 1, np.random.default_rng(0))[0]


@pytest.mark.parametrize(("n", "dimensions"), [(120, 8), (30, 64)])
def test_the_influence_on_fid_sums_to_zero_and_agrees_with_leaving_an_image_out(n, dimensions):
    rng = np.random.default_rng(0)
    reference, made = drawn_features(rng, 300, dimensions), drawn_features(rng, n, dimensions, 1.5)
    influence = metrics.frechet_influence(made, reference)
    fid = metrics.frechet_distance(made, reference)
    assert (fid + influence).mean() == pytest.approx(fid, abs=1e-9)
    left_out = jackknife(lambda rows: metrics.frechet_distance(rows, reference), made)
    assert np.corrcoef(influence, left_out)[0, 1] > 0.98
    assert influence.std() == pytest.approx(left_out.std(), rel=0.1 if n > dimensions else 0.5)


def test_the_standard_error_of_fid_is_that_of_simulated_sets():
    rng = np.random.default_rng(1)
    reference, fids, errors = drawn_features(rng, 500, 6), [], []
    for _ in range(80):
        made = drawn_features(rng, 200, 6, 1.5)
        fids.append(metrics.frechet_distance(made, reference))
        errors.append(metrics.frechet_influence(made, reference).std(ddof=1) / np.sqrt(200))
    assert np.mean(errors) == pytest.approx(np.std(fids, ddof=1), rel=0.25)


@pytest.mark.parametrize(("n", "classes"), [(200, 10), (40, 300)])
def test_the_influence_on_the_inception_score_is_that_of_leaving_an_image_out(n, classes):
    logits = drawn_logits(np.random.default_rng(2), n, classes)
    influence = metrics.inception_influence(logits)
    assert (score(logits) + influence).mean() == pytest.approx(score(logits), abs=1e-9)
    assert influence == pytest.approx(jackknife(score, logits), abs=1e-8)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    divergence = (p * np.log(p / p.mean(0))).sum(1)
    first_order = score(logits) * (divergence - divergence.mean())
    assert np.corrcoef(influence, first_order)[0, 1] > 0.99
    assert influence.std() == pytest.approx(first_order.std(), rel=0.02) or n < classes


def test_the_standard_error_of_the_inception_score_is_that_of_simulated_sets():
    rng, scores, errors = np.random.default_rng(3), [], []
    for _ in range(80):
        logits = drawn_logits(rng, 100, 20)
        scores.append(score(logits))
        errors.append(metrics.inception_influence(logits).std(ddof=1) / 10)
    assert np.mean(errors) == pytest.approx(np.std(scores, ddof=1), rel=0.25)


def test_an_influence_needs_two_images():
    with pytest.raises(ValueError, match="2 or more images"):
        metrics.inception_influence(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="2 or more images"):
        metrics.frechet_influence(np.zeros((1, 3)), np.zeros((4, 3)))


@pytest.mark.parametrize(("h", "k", "expected"), [
    (0, 1, 1.0), (1, 1, 0.950950951), (5, 1, 0.777258828), (20, 1, 0.362113118), (100, 1, 0.004973101),
    (20, 5, 0.997948196), (100, 5, 0.444938854)])
def test_50_way_accuracy_of_1000_classes_has_the_known_values(h, k, expected):
    assert metrics.nway_accuracy(ranked(h), np.array([0]), 50, k) == pytest.approx(expected, abs=1e-9)


def test_a_uniform_rank_gives_exactly_chance():
    every_rank = np.concatenate([ranked(h) for h in range(1000)])
    assert metrics.nway_accuracy(every_rank, np.zeros(1000, int), 50).mean() == pytest.approx(1 / 50, abs=1e-12)


def test_a_generator_that_paints_any_of_forty_classes_gets_more_than_chance():
    """In-set null of the paper's protocol: 1/40 right, else one class ahead and the rank among the rest uniform."""
    missed = np.concatenate([ranked(h) for h in range(1, 1000)])
    missed = metrics.nway_accuracy(missed, np.zeros(999, int), 50)
    assert 1 / 40 + 39 / 40 * missed.mean() == pytest.approx(0.043543544, abs=1e-9)


def test_nway_accuracy_agrees_with_drawing_at_random():
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((4, 16))
    target = np.array([3, 0, 15, 7])
    for n, k in ((10, 1), (10, 3), (2, 1)):
        hits = np.zeros(4)
        for _ in range(2000):
            for row in range(4):
                others = rng.choice(np.delete(np.arange(16), target[row]), n - 1, replace=False)
                hits[row] += (logits[row, others] >= logits[row, target[row]]).sum() < k
        assert metrics.nway_accuracy(logits, target, n, k) == pytest.approx(hits / 2000, abs=0.045)


def test_all_classes_drawn_make_nway_accuracy_top1():
    logits = np.random.default_rng(0).standard_normal((50, 16))
    target = np.arange(50) % 16
    assert (metrics.nway_accuracy(logits, target, 16) == metrics.top1(logits, target)).all()


def test_ties_count_against_the_target_wherever_it_stands():
    for target in (0, 15):
        assert metrics.top1(np.zeros((1, 16)), np.array([target])) == 0
        assert metrics.nway_accuracy(np.zeros((1, 16)), np.array([target]), 10) == 0


@pytest.mark.parametrize(("n", "k"), [(17, 1), (10, 0), (3, 4)])
def test_nway_accuracy_refuses_what_cannot_be_drawn(n, k):
    with pytest.raises(ValueError, match="16 classes"):
        metrics.nway_accuracy(np.zeros((1, 16)), np.array([0]), n, k)


def test_logits_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="contain NaN"):
        metrics.top1(np.full((1, 16), np.nan), np.array([0]))


def test_psnr_of_bytes_does_not_wrap_around():
    a, b = np.full((1, 16, 16, 3), 250, np.uint8), np.full((1, 16, 16, 3), 5, np.uint8)
    assert metrics.psnr(a, b) == pytest.approx(20 * np.log10(255 / 245))
    assert metrics.psnr(a, a) == np.inf


def test_psnr_is_of_each_picture_not_of_the_batch():
    a, b = noise(3, 16, 16, 3), noise(3, 16, 16, 3, seed=1)
    assert metrics.psnr(a, b).tolist() == [metrics.psnr(a[i:i + 1], b[i:i + 1])[0] for i in range(3)]


def test_ssim_of_flat_pictures_is_the_formula_in_float64():
    flat = np.zeros((1, 16, 16, 3), np.uint8)
    assert metrics.ssim(flat + 100, flat + 150) == pytest.approx(0.923092311, abs=1e-9)


def test_ssim_is_torchmetrics_full_image_without_the_padded_margin():
    a = noise(2, 32, 40, 3)
    b = (0.6 * a + 0.4 * noise(2, 32, 40, 3, seed=1)).astype(np.uint8)
    x, y = (torch.from_numpy(p).permute(0, 3, 1, 2).double() for p in (a, b))
    _, full = structural_similarity_index_measure(x, y, data_range=255.0, return_full_image=True, reduction="none")
    assert metrics.ssim(a, b) == pytest.approx(full[:, :, 5:-5, 5:-5].mean((1, 2, 3)).numpy(), abs=1e-12)
    assert abs(metrics.ssim(a, b) - full.mean((1, 2, 3)).numpy()).min() > 1e-4


def test_pictures_too_small_for_the_window_or_of_another_type_are_refused():
    with pytest.raises(ValueError, match="11x11"):
        metrics.ssim(noise(1, 10, 32, 3), noise(1, 10, 32, 3))
    with pytest.raises(ValueError, match="uint8"):
        metrics.psnr(noise(1, 16, 16, 3).astype(float), noise(1, 16, 16, 3))


def test_judge_distance_depends_on_directions_alone():
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 3))
    assert metrics.judge_distance([x], [7 * x]) == pytest.approx(0, abs=1e-15)
    assert metrics.judge_distance([x], [-x]) == pytest.approx(4)
    east, north = np.zeros((1, 2, 3, 3)), np.zeros((1, 2, 3, 3))
    east[:, 0], north[:, 1] = 5, 0.1
    assert metrics.judge_distance([east], [north]) == pytest.approx(2)
    assert metrics.judge_distance([east, east], [north, east]) == pytest.approx(1)


# Closed forms

def whitened(n: int, d: int, seed: int = 0) -> np.ndarray:
    """[n, d] with a sample mean of exactly 0 and a sample covariance of exactly 1."""
    x = np.random.default_rng(seed).standard_normal((n, d))
    return np.linalg.qr(x - x.mean(0))[0] * np.sqrt(n - 1)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 90), (300, 12)])
def test_frechet_distance_of_gaussians_with_known_moments_is_the_formula(n, m):
    a, b, mean = np.linspace(0.5, 2, 10), np.linspace(3, 0.1, 10), np.linspace(-1, 1, 10)
    x, y = whitened(n, 10) * a + 5, whitened(m, 10, 1) * b + 5 + mean
    expected = (mean**2).sum() + ((a - b)**2).sum()
    assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_covariances_that_do_not_commute_is_the_formula():
    """In two dimensions tr M^1/2 = (tr M + 2 (det M)^1/2)^1/2."""
    a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.0, -0.9], [-0.9, 3.0]])
    x, y = (whitened(50, 2) @ np.linalg.cholesky(c).T for c in (a, b))
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    assert metrics.frechet_distance(x, y) == pytest.approx(np.trace(a + b) - 2 * root, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (8, 60)])
def test_frechet_distance_of_a_set_moved_away_is_the_move_squared(n, d):
    x = rng().standard_normal((n, d))
    assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-10)
    assert metrics.frechet_distance(x, x[::-1] + 2) == pytest.approx(4 * d, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(9, 4000), (500, 8)])
def test_frechet_distance_looks_at_no_matrix_larger_than_the_smaller_of_pictures_and_dimensions(n, d, monkeypatch):
    shapes, svd = [], np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda a, **options: shapes.append(a.shape) or svd(a, **options))
    x, y = rng().standard_normal((2, n, d))
    assert metrics.frechet_distance(x, y) > 0
    assert shapes == [(min(n, d),) * 2]


def test_frechet_distance_at_infinity_of_two_points_is_their_squared_distance():
    """Where all covariances are 0 there is nothing to extrapolate."""
    x, y = np.full((10, 3), 1.0), np.full((20, 3), 3.0)
    assert metrics.frechet_distance_infinity(x, y, rng()) == pytest.approx(12)


def test_kernel_distance_of_two_points_each_is_the_formula():
    """k(x, x') = 8 within the first set, (2 + 1)^3 within the second, 1 across."""
    x, y = np.array([[1.0, 1], [1, 1]]), np.array([[2.0, -2], [1, -1]])
    assert metrics.kernel_distance(x, y, 2, 3, rng()) == (pytest.approx(8 + 27 - 2), 0)


def test_inception_score_of_certain_pictures_is_the_number_of_classes_and_of_uncertain_ones_one():
    assert metrics.inception_score(np.eye(7) * 1e4, 1, rng()) == (pytest.approx(7), 0)
    assert metrics.inception_score(np.repeat(np.eye(7) * 50, 3, 0), 1, rng())[0] == pytest.approx(7)
    assert metrics.inception_score(np.zeros((20, 7)), 4, rng()) == (pytest.approx(1), pytest.approx(0))
    assert metrics.inception_score(np.tile(np.arange(7.0), (20, 1)), 4, rng())[0] == pytest.approx(1)


def test_equal_pictures_have_the_best_of_every_metric():
    a = noise(3, 16, 16, 3)
    assert (metrics.psnr(a, a) == np.inf).all()
    for metric in (metrics.ssim, metrics.ssim_released, metrics.pixcorr):
        assert metric(a, a) == pytest.approx(1, abs=1e-12)


def test_a_negative_correlates_with_its_picture_at_minus_one_and_a_flat_picture_not_at_all():
    a = noise(2, 8, 9, 3)
    assert metrics.pixcorr(a, 255 - a) == pytest.approx(-1)
    assert metrics.pixcorr(a, np.full_like(a, 7)).tolist() == [0, 0]


def test_many_pictures_at_once_and_one_for_all_are_as_each_alone():
    a, b = noise(5, 12, 16, 3), noise(5, 12, 16, 3, seed=1)
    for metric in (metrics.psnr, metrics.ssim, metrics.ssim_released, metrics.pixcorr):
        together = metric(a, b)
        assert [metric(x[None], y[None])[0] for x, y in zip(a, b, strict=True)] == together.tolist()
        repeated = metric(np.repeat(a[:1], 5, 0), b)
        assert metric(a[:1], b).tolist() == repeated.tolist()


def test_a_generator_that_always_paints_the_same_is_identified_exactly_half_the_time():
    real = rng().standard_normal((30, 8))
    assert metrics.two_way_identification(real, np.tile(real[3], (30, 1))).mean() == pytest.approx(0.5, abs=1e-12)
    assert metrics.two_way_identification(real, real).tolist() == [1] * 30
    assert metrics.two_way_identification(real, np.zeros((30, 8))).tolist() == [0] * 30


def test_real_pictures_that_are_equal_are_ties_whatever_the_rounding():
    real = np.repeat(rng().standard_normal((1, 129)), 300, 0)
    assert metrics.two_way_identification(real, rng().standard_normal((300, 129))).tolist() == [0] * 300
    assert metrics.retrieval_topk(rng().standard_normal((300, 129)), real, 299).tolist() == [0] * 300


def test_two_way_identification_and_retrieval_do_not_depend_on_how_many_are_held_at_a_time(monkeypatch):
    a, b = rng().standard_normal((2, 40, 6))
    whole = metrics.two_way_identification(a, a + b), metrics.retrieval_topk(a + b, a, 3)
    monkeypatch.setattr(metrics, "BLOCK", 7 * 40)
    assert metrics.two_way_identification(a, a + b).tolist() == whole[0].tolist()
    assert metrics.retrieval_topk(a + b, a, 3).tolist() == whole[1].tolist()


def test_perfect_copies_seen_by_four_people_are_identified_for_sure():
    """Four people, three images: an image does not compete with itself, so no tie counts as wrong."""
    shown, image = rng().standard_normal((3, 16)), np.tile(["cat", "dog", "car"], 4)
    real = np.tile(shown, (4, 1))
    assert metrics.two_way_identification(real, real, image).tolist() == [1] * 12
    assert metrics.retrieval_topk(real, real, 1, image=image).tolist() == [1] * 12
    assert metrics.retrieval_topk(real, real, 1, 2, image).tolist() == [1] * 12
    assert metrics.nearest(real, real, image).tolist() == [0, 1, 2] * 4
    with pytest.warns(UserWarning, match="give `image`, the identity of each row"):
        assert metrics.two_way_identification(real, real).mean() == pytest.approx(8 / 11)
    with pytest.raises(ValueError, match=r"not \[12, 16\] of 1 images"):
        metrics.two_way_identification(real, real, np.zeros(12))
    with pytest.raises(ValueError, match=r"each of 12 images, not \[3\]"):
        metrics.retrieval_topk(real, real, 1, image=image[:3])


def test_repeated_images_count_once_among_the_others_and_different_ones_as_before():
    real, made = rng().standard_normal((2, 9, 6))
    image = np.array([4, 0, 4, 7, 0, 1, 1, 7, 7])
    real = real[[0, 1, 0, 3, 1, 5, 5, 3, 3]]
    correlation = np.corrcoef(real, made)[:9, 9:]
    for row, value in enumerate(metrics.two_way_identification(real, made, image)):
        others = [np.flatnonzero(image == other)[0] for other in set(image) - {image[row]}]
        beaten = np.mean([correlation[other, row] < correlation[row, row] for other in others])
        assert value == pytest.approx(beaten, abs=1e-15)
    different = rng().standard_normal((9, 6))
    for function in (metrics.two_way_identification, lambda a, b, *image: metrics.retrieval_topk(b, a, 2, None, *image),
                     lambda a, b, *image: metrics.retrieval_topk(b, a, 1, 4, *image),
                     lambda a, b, *image: metrics.nearest(b, a, *image)):
        assert function(different, made, rng().permutation(9)).tolist() == function(different, made).tolist()


def test_correlation_distance_and_cosine_have_their_ends_and_their_middle():
    x = rng().standard_normal((4, 6))
    assert metrics.correlation_distance(x, 3 * x + 1) == pytest.approx(0, abs=1e-12)
    assert metrics.correlation_distance(x, -x) == pytest.approx(2)
    flat = np.full_like(x, 0.1)  # whose mean in float64 is not 0.1
    for other in (x, flat):
        assert metrics.correlation_distance(other, flat).tolist() == [1] * 4
    assert metrics.cosine_similarity(x, np.zeros_like(x)).tolist() == [0] * 4
    assert metrics.cosine_similarity([[1.0, 0]], [[1.0, 1]]) == pytest.approx(np.sqrt(0.5))


def test_a_query_that_is_always_the_same_retrieves_exactly_at_chance():
    gallery = rng().standard_normal((20, 6))
    query = np.tile(rng().standard_normal(6), (20, 1))
    for k in (1, 5):
        assert metrics.retrieval_topk(query, gallery, k).mean() == pytest.approx(k / 20)
        assert metrics.retrieval_topk(query, gallery, k, 8).mean() == pytest.approx(k / 8)
    assert metrics.retrieval_topk(gallery, gallery, 1).tolist() == [1] * 20


def test_nearest_distance_of_copies_is_zero_and_does_not_depend_on_how_many_are_held_at_a_time(monkeypatch):
    gallery = (1e3 + rng().standard_normal((50, 7))).astype(np.float32)
    query = np.concatenate([gallery[[8, 3]], gallery[:4] + np.float32(0.25)])
    distance, row = metrics.nearest_distance(query, gallery)
    assert distance[:2].tolist() == [0, 0]
    assert row[:2].tolist() == [8, 3]
    assert (distance[2:] > 0).all()
    monkeypatch.setattr(metrics, "BLOCK", 30)
    again = metrics.nearest_distance(query, gallery)
    assert again[0].tolist() == distance.tolist()
    assert again[1].tolist() == row.tolist()


def test_density_and_coverage_of_equal_sets_are_one_and_of_distant_sets_zero(monkeypatch):
    x = rng().standard_normal((80, 6))
    assert metrics.density_coverage(x, x, 5) == (1, 1)
    assert metrics.density_coverage(x + 100, x, 5) == (0, 0)
    y = rng().permuted(x, axis=0)
    whole = metrics.density_coverage(y, x, 5)
    monkeypatch.setattr(metrics, "BLOCK", 200)
    assert metrics.density_coverage(y, x, 5) == whole


def test_coverage_by_other_images_of_the_same_kind_has_its_closed_form():
    """The first k of the 2N - 1 others, in order of their distance, are all real with the probability below."""
    n, k = 100, 3
    real_first = np.prod([(n - 1 - i) / (2 * n - 1 - i) for i in range(k)])
    found = [metrics.density_coverage(*np.random.default_rng(seed).standard_normal((2, n, 4)), k)[1]
             for seed in range(40)]
    assert np.mean(found) == pytest.approx(1 - real_first, abs=0.01)


def test_a_target_among_its_hard_distractors_wins_only_against_all_of_them():
    logits = np.array([[5.0, 4, 3, 0], [1, 9, 0, 8]])
    hard = metrics.hard_distractors(logits, np.array([0, 1]), 3)
    assert hard.tolist() == [[1, 2], [3, 0], [-1, -1], [-1, -1]]
    target = np.array([0, 1])
    found, own = metrics.among(np.array([[2.0, 1, 1.5, 9], [5, 4, 9, 3]]), target,
                               np.column_stack([target, hard[target]]))
    assert found.tolist() == [[2, 1, 1.5], [4, 3, 5]]
    assert metrics.top1(found, own).tolist() == [1, 0]


# What is refused

PICTURES, FEATURES, LOGITS = noise(3, 16, 16, 3), np.eye(6)[:4], np.eye(4)
MAPS = np.ones((4, 2, 3, 3))
LOST, CLASSES = np.where(np.eye(6)[:4] == 1, np.nan, 0), np.arange(4)


@pytest.mark.parametrize(("call", "match"), [
    (lambda: metrics.top1(LOGITS[0], CLASSES), r"logits \[N, K\]"),
    (lambda: metrics.top1(LOGITS.astype(str), CLASSES), "logits .* <U"),
    (lambda: metrics.top1(LOGITS, CLASSES[:3]), r"each of 4 rows .* \[3\]"),
    (lambda: metrics.top1(LOGITS, CLASSES / 1), "class .* float64"),
    (lambda: metrics.top1(LOGITS, CLASSES - 1), "from 0 to 3, not -1 to 2"),
    (lambda: metrics.nway_accuracy(LOGITS, CLASSES + 1, 2), "from 0 to 3, not 1 to 4"),
    (lambda: metrics.among(LOGITS, CLASSES, np.array([0, 1, 2])), "1 of 4 targets .* class 3"),
    (lambda: metrics.among(LOGITS, CLASSES, np.array([0, 1, 2, 2])), "a class is repeated"),
    (lambda: metrics.among(LOGITS, CLASSES, np.array([0, 1, 2, 3, 4])), "not 0 to 4"),
    (lambda: metrics.among(LOGITS, CLASSES, np.full((4, 2), -1)), "not -1 to -1"),
    (lambda: metrics.among(LOGITS, CLASSES, np.zeros((3, 2), int)), r"\[4, S\] of whole"),
    (lambda: metrics.hard_distractors(LOGITS, CLASSES, 5), "5-way .* 4 classes"),
    (lambda: metrics.psnr(PICTURES, PICTURES[:2]), "uint8, not"),
    (lambda: metrics.psnr(PICTURES[:0], PICTURES[:0]), "uint8, not"),
    (lambda: metrics.ssim(PICTURES[..., :2], PICTURES[..., :2]), "uint8, not"),
    (lambda: metrics.ssim_released(PICTURES[:, :6], PICTURES[:, :6]), "7x7"),
    (lambda: metrics.pixcorr(PICTURES / 255, PICTURES), "float64"),
    (lambda: metrics.judge_distance([MAPS], [MAPS * np.nan]), "maps are not all finite"),
    (lambda: metrics.judge_distance([MAPS, MAPS - np.inf], [MAPS, MAPS]), "maps are not all finite"),
    (lambda: metrics.judge_distance([MAPS], [MAPS, MAPS]), r"same shapes, not \[\(4, 2, 3, 3\)\] and"),
    (lambda: metrics.judge_distance([MAPS], [MAPS[:3]]), r"same shapes, not \[\(4, 2, 3, 3\)\] and"),
    (lambda: metrics.judge_distance([], []), "two lists of feature maps"),
    (lambda: metrics.frechet_distance(FEATURES, FEATURES[:, :5]), r"\[4, 6\] and \[4, 5\]"),
    (lambda: metrics.frechet_distance(FEATURES, FEATURES[:1]), "2 or more"),
    (lambda: metrics.frechet_distance(FEATURES, LOST), "finite"),
    (lambda: metrics.frechet_distance(FEATURES, FEATURES + np.inf), "finite"),
    (lambda: metrics.frechet_distance(FEATURES > 0, FEATURES), "bool"),
    (lambda: metrics.frechet_distance_infinity(FEATURES[:3], FEATURES, rng()), "4 or more"),
    (lambda: metrics.kernel_distance(FEATURES, FEATURES, 5, 1, rng()), "subsets of 5 from 4 and 4"),
    (lambda: metrics.kernel_distance(FEATURES, FEATURES, 1, 1, rng()), "subsets of 1"),
    (lambda: metrics.kernel_distance(FEATURES, FEATURES, 2, 0, rng()), "0 subsets"),
    (lambda: metrics.inception_score(FEATURES, 5, rng()), "5 splits of 4"),
    (lambda: metrics.inception_score(FEATURES, 0, rng()), "0 splits"),
    (lambda: metrics.inception_score(LOST, 1, rng()), "logits are not all finite"),
    (lambda: metrics.two_way_identification(FEATURES, FEATURES[:3]), "same items"),
    (lambda: metrics.two_way_identification(FEATURES[:1], FEATURES[:1]), "2 or more items"),
    (lambda: metrics.two_way_identification(FEATURES[:, :1], FEATURES[:, :1]), "features, not"),
    (lambda: metrics.correlation_distance(FEATURES, FEATURES.ravel()), r"\[N, D\]"),
    (lambda: metrics.cosine_similarity(FEATURES * 1j, FEATURES), "complex"),
    (lambda: metrics.nearest_distance(FEATURES, FEATURES[:, :5]), r"\[4, 6\] and \[4, 5\]"),
    (lambda: metrics.nearest_distance(FEATURES, FEATURES[:0]), r"features \[N, D\]"),
    (lambda: metrics.density_coverage(FEATURES, FEATURES, 4), "from 1 to 3, .* not 4"),
    (lambda: metrics.density_coverage(FEATURES, FEATURES, 0), "not 0"),
    (lambda: metrics.retrieval_topk(FEATURES, FEATURES[:3], 1), "4 or more images"),
    (lambda: metrics.retrieval_topk(FEATURES, LOST, 1), "gallery embeddings are not"),
    (lambda: metrics.retrieval_topk(FEATURES, FEATURES, 5), "top-5 of 4"),
    (lambda: metrics.retrieval_topk(FEATURES, FEATURES, 3, 2), "top-3 of 2"),
    (lambda: metrics.retrieval_topk(FEATURES, FEATURES, 1, 5), "top-1 of 5"),
])
def test_what_makes_no_sense_is_refused_in_one_line(call, match):
    with pytest.raises(ValueError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


# The module and its page

def test_definitions_change_no_input_and_load_neither_torch_nor_scipys_slow_half():
    x, y = rng().standard_normal((2, 12, 5))
    a, b = noise(2, 16, 16, 3), noise(2, 16, 16, 3, seed=1)
    before = [array.tobytes() for array in (x, y, a, b)]
    for pair in (metrics.frechet_distance, metrics.two_way_identification, metrics.correlation_distance,
                 metrics.cosine_similarity):
        pair(x, y)
    for pair in (metrics.psnr, metrics.ssim, metrics.ssim_released, metrics.pixcorr):
        pair(a, b)
    metrics.inception_score(x, 2, rng())
    assert [array.tobytes() for array in (x, y, a, b)] == before
    code = "import sys, bench.metrics; print(*{'torch', 'scipy.stats', 'pandas'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert loaded.strip() == ""


def test_every_metric_of_the_committed_results_is_defined():
    found = set()
    for path in (ROOT / "results" / "reference").rglob("*.csv"):
        with path.open(newline="") as file:
            found |= {row["metric"] for row in csv.DictReader(file) if "metric" in row}
    assert found - {"failed"} <= set(metrics.DEFINITIONS)
    assert "top1_label" in found


def test_every_definition_is_whole():
    for name, metric in metrics.DEFINITIONS.items():
        assert name == metric.name
        assert metric.better in ("higher", "lower")
        assert metric.range[0] < metric.range[1]
        assert all((metric.title, metric.null, metric.source))
    assert len({metric.title for metric in metrics.DEFINITIONS.values()}) == len(metrics.DEFINITIONS)


NAN, ONE = np.where(np.eye(6)[:4] == 1, np.nan, 0.5), np.arange(4)
WITH_NAN = {  # every public metric of floating-point values, given NaN in each argument in turn
    "top1": [lambda: metrics.top1(NAN, ONE)],
    "nway_accuracy": [lambda: metrics.nway_accuracy(NAN, ONE, 2)],
    "among": [lambda: metrics.among(NAN, ONE, ONE)],
    "hard_distractors": [lambda: metrics.hard_distractors(NAN, ONE, 2)],
    "judge_distance": [lambda: metrics.judge_distance([MAPS * np.nan], [MAPS]),
                       lambda: metrics.judge_distance([MAPS], [MAPS * np.nan])],
    "frechet_distance": [lambda: metrics.frechet_distance(NAN, FEATURES),
                         lambda: metrics.frechet_distance(FEATURES, NAN)],
    "frechet_influence": [lambda: metrics.frechet_influence(NAN, FEATURES),
                          lambda: metrics.frechet_influence(FEATURES, NAN)],
    "inception_influence": [lambda: metrics.inception_influence(NAN)],
    "nearest_distance": [lambda: metrics.nearest_distance(NAN, FEATURES),
                         lambda: metrics.nearest_distance(FEATURES, NAN)],
    "density_coverage": [lambda: metrics.density_coverage(NAN, FEATURES, 1),
                         lambda: metrics.density_coverage(FEATURES, NAN, 1)],
    "frechet_distance_infinity": [lambda: metrics.frechet_distance_infinity(NAN, FEATURES, rng()),
                                  lambda: metrics.frechet_distance_infinity(FEATURES, NAN, rng())],
    "kernel_distance": [lambda: metrics.kernel_distance(NAN, FEATURES, 2, 1, rng()),
                        lambda: metrics.kernel_distance(FEATURES, NAN, 2, 1, rng())],
    "inception_score": [lambda: metrics.inception_score(NAN, 1, rng())],
    "two_way_identification": [lambda: metrics.two_way_identification(NAN, FEATURES),
                               lambda: metrics.two_way_identification(FEATURES, NAN)],
    "correlation_distance": [lambda: metrics.correlation_distance(NAN, FEATURES),
                             lambda: metrics.correlation_distance(FEATURES, NAN)],
    "cosine_similarity": [lambda: metrics.cosine_similarity(NAN, FEATURES),
                          lambda: metrics.cosine_similarity(FEATURES, NAN)],
    "retrieval_topk": [lambda: metrics.retrieval_topk(NAN, FEATURES, 1),
                       lambda: metrics.retrieval_topk(FEATURES, NAN, 1)],
    "nearest": [lambda: metrics.nearest(NAN, FEATURES), lambda: metrics.nearest(FEATURES, NAN)],
}
OF_BYTES = {"psnr", "ssim", "ssim_released", "pixcorr"}  # uint8 has no NaN


def test_no_public_metric_takes_nan():
    public = {name for name, value in vars(metrics).items() if inspect.isfunction(value) and not name.startswith("_")
              and value.__module__ == metrics.__name__}
    assert public == set(WITH_NAN) | OF_BYTES
    for calls in WITH_NAN.values():
        for call in calls:
            with pytest.raises(ValueError, match="NaN|not all finite numbers") as caught:
                call()
            assert "\n" not in str(caught.value)


def test_every_public_function_says_what_it_gives():
    public = [value for name, value in vars(metrics).items() if inspect.isfunction(value) and not name.startswith("_")
              and value.__module__ == metrics.__name__]
    assert metrics.frechet_distance in public
    for function in public:
        assert "[N" in function.__doc__ or "[K" in function.__doc__, function.__name__


def table() -> str:
    """DEFINITIONS in Markdown, in their order."""
    def ends(metric: metrics.Metric) -> str:
        return " to ".join(f"{end:g}".replace("inf", "∞").replace("-", "−") for end in metric.range)

    lines = ["| metric | what it is | better | range | null | unit | source |", "|" + " :-- |" * 7]
    lines += [f"| `{m.name}` | {m.title} | {m.better} | {ends(m)} | {m.null} | {m.unit} | {m.source} |"
              for m in metrics.DEFINITIONS.values()]
    return "\n".join(lines)


def test_the_page_lists_the_definitions_as_they_are():
    page = PAGE.read_text()
    assert page.split(BEGIN)[1].split(END)[0].strip() == table(), "python tests/test_metrics.py writes it anew"


if __name__ == "__main__":
    page = PAGE.read_text()
    PAGE.write_text(page.split(BEGIN)[0] + BEGIN + "\n\n" + table() + "\n\n" + END + page.split(END)[1])
