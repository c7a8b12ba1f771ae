"""Loads the frozen networks of `bench score-embeddings` and embeds images with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.errors import BenchError
from bench.experiment.scale import TINY
from bench.runtime import use_exact_math
from bench.scoring.gallery import Gallery, open_gallery
from bench.scoring.identity import Identity
from bench.scoring.networks import fit_image, weights_present
from bench.setup.image_features import locate_clip
from models import extractors, pins
from models.extractors import Extractor

BATCH = 50  # images that a network sees at once
CLIP = {"clip": "clip", "clip-h": "clip_h"}  # a space -> its part in pins.PARTS


def open_space(space: str, folder: Path | None, device: str) -> Extractor:
    """Loads the network of a space, which gives one vector for an image.

    space: tiny, the shipped CLIP; clip, ViT-L/14; clip-h, ViT-H/14; dinov2-g, DINOv2's giant by torch-fidelity; or a
    folder of an open_clip model. folder: where clip and clip-h are looked for besides the libraries' caches. Nothing is
    downloaded. Raises BenchError for an unknown space, and exit 3 for missing weights.
    """
    with weights_present():
        if space == "tiny":
            clip = TINY.weights("clip")
            return extractors.clip(clip.path, clip.sha256, clip.name, device)
        if space == "dinov2-g":
            return extractors.dinov2_giant(device)
        if space not in CLIP and not (Path(space) / pins.PARTS["clip"].files[0].path).is_file():
            raise BenchError(f"--space {space}: expected tiny, {', '.join(CLIP)}, dinov2-g, or a folder of an "
                             "open_clip model")
        path, name = locate_clip(CLIP.get(space, space), folder)
        return extractors.clip(path, pins.PARTS[CLIP[space]].identity if space in CLIP else "", name, device)


def embed_images(folder: Path, network: Extractor, device: str) -> tuple[np.ndarray, np.ndarray, Gallery]:
    """Embeds a folder or an array of images by a network of one vector: [M, D] in float64; also the identity [M] of the
    images, equal where their pixels are, and the images. Errors as `open_gallery`."""
    torch.set_num_threads(1)
    use_exact_math()
    images, identity = open_gallery(folder), Identity()
    number = np.array([identity.find(images.read(row), row) for row in range(len(images.names))])
    parts = []
    for start in range(0, len(number), BATCH):
        rows = range(start, min(start + BATCH, len(number)))
        pixels = np.stack([fit_image(network, images.read(row)) for row in rows])
        with torch.inference_mode():
            vector, = network.look(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)).vectors.values()
        parts.append(vector.double().cpu().numpy())
    return np.concatenate(parts), number, images
