"""What needs a GPU, or weights that are not shipped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench import FULL, systems
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.scale import MICRO

GREY_LEVELS = 1.0  # mean difference of two builds: some sums on a GPU have no fixed order, and training amplifies it


@pytest.mark.gpu
def test_a_row_is_built_on_a_gpu_twice_with_the_same_images_but_for_rounding(tmp_path):
    from bench.store.store import Store

    scale = replace(MICRO, numerics=replace(MICRO.numerics, device_class="cuda"))
    score = systems.plan(FULL, scale.items(), scale, 0)
    pictures = []
    for name in ("a", "b"):
        store = Store(tmp_path / name)
        for stage in graph.stages([score]):
            build(stage, store, "cuda")
        pictures.append(np.load(store.path(score.pictures) / "pictures.npy"))
    assert pictures[0].std() > 1
    first, second = (images.astype(float) for images in pictures)
    assert np.abs(first - second).mean() < GREY_LEVELS


@pytest.mark.hub
def test_lpips_with_its_own_backbone_is_zero_for_equal_pictures_and_not_for_others():
    from perceptual import lpips_distance

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 3, 64, 64, 3), np.uint8)
    assert np.allclose(lpips_distance(a, a), 0)
    assert (lpips_distance(a, b) > 0.1).all()


@pytest.mark.hub
def test_dinov2_gives_equal_sets_the_distance_0_and_others_more():
    import torch

    from bench import metrics
    from models import extractors, frozen

    try:
        network = extractors.dinov2_giant()
    except frozen.MissingWeights as error:
        pytest.skip(str(error))  # the mark checks AlexNet's weights only; DINOv2 is another download
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 224, 224), np.uint8))
    features = network.look(images).vectors["features"].numpy()
    assert features.shape == (4, 1536)
    assert metrics.frechet_distance(features, features) == pytest.approx(0, abs=1e-3)
    assert metrics.frechet_distance(features, features[::-1] + 1) > 1
