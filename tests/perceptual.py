"""LPIPS by itself, as an oracle of what scoring measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.errors import BenchError
from bench.images import as_images
from bench.scoring.networks import weights_present
from models import extractors

BATCH = 50


def backbone(net: str) -> Path:
    """Returns the file of LPIPS's backbone. Raises BenchError (exit 3) if it is absent or has another hash."""
    if net not in (backbones := ("alex", "vgg", "squeeze")):
        raise BenchError(f"no LPIPS backbone {net!r}; there are: {', '.join(backbones)}")
    with weights_present():
        return extractors.weights(net)[0]


@torch.inference_mode()
def lpips_distance(a: np.ndarray, b: np.ndarray, net: str = "alex", device: str = "cpu") -> np.ndarray:
    """Returns LPIPS (v0.1) [N] of image pairs [N, H, W, 3] uint8. Downloads nothing; errors as `backbone`."""
    backbone(net)
    distance, _ = extractors.perceptual(net, device)
    batches = [slice(start, start + BATCH) for start in range(0, len(a), BATCH)]
    return torch.cat([distance(as_images(a[rows], device), as_images(b[rows], device)) for rows in batches]
                     ).double().cpu().numpy()
