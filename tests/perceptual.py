"""LPIPS by itself, as an oracle of what scoring measures."""

from __future__ import annotations

import numpy as np
import torch

from bench.images import as_images
from bench.scoring.networks import backbone
from models import extractors

BATCH = 50


@torch.inference_mode()
def lpips_distance(a: np.ndarray, b: np.ndarray, net: str = "alex", device: str = "cpu") -> np.ndarray:
    """LPIPS (v0.1) [N] of pictures [N, H, W, 3] uint8. Never downloads; errors as `backbone`."""
    backbone(net)
    distance, _ = extractors.perceptual(net, device)
    batches = [slice(start, start + BATCH) for start in range(0, len(a), BATCH)]
    return torch.cat([distance(as_images(a[rows], device), as_images(b[rows], device)) for rows in batches]
                     ).double().cpu().numpy()
