"""The definitions: oracle values, closed forms, and where libraries differ."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from bench import metrics


def ranked(h: int, classes: int = 1000) -> np.ndarray:
    """Logits [1, classes] in which h other classes are ahead of class 0."""
    logits = -np.arange(classes, dtype=float)[None]
    logits[0, 0] = -h - 0.5
    return logits


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


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
    with pytest.raises(ValueError, match="not numbers"):
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
