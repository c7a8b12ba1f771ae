"""What fine-tuning aims at, computed once for every paired picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bench.errors import BenchError
from bench.experiment.stages import Stage, Targets
from bench.files import mapped
from bench.images import as_images
from bench.runtime import Runtime
from bench.train.loop import frozen_dtype, precision
from models import frozen

BATCH, PIXELS = 100, 1 << 22  # pictures at a time, and pixels of them, at most
CROP = 0.8  # side of a crop, as a share of the picture's (released code)


def room(pictures: np.ndarray) -> int:
    """By how many pixels a crop of pictures [N, H, H, 3] can be moved. Raises BenchError where they are no squares."""
    height, width = pictures.shape[1:3]
    if height != width:
        raise BenchError(f"crops are of square pictures, and these are {height} x {width}: prepare the data set with "
                         "square ones")
    return width - round(CROP * width)


def cropped(images: Tensor, corners: np.ndarray) -> Tensor:
    """A square of CROP of each image [B, 3, H, H] from its upper left corner [B, 2] on, resized to the whole's size."""
    side = images.shape[-1]
    own = round(CROP * side)
    squares = [image[:, top:top + own, left:left + own] for image, (top, left) in zip(images, corners, strict=True)]
    return interpolate(torch.stack(squares), (side, side), mode="bilinear", antialias=False)


def corners(picture: int, crops: int, free: int) -> np.ndarray:
    """Upper left corners [crops, 2], 0 to `free`, of the fixed crops of a picture; drawn for its number alone."""
    return np.random.default_rng([picture]).integers(0, free + 1, (crops, 2))


@torch.inference_mode()
def targets(stage: Targets, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes embeddings.npy [P, D'] (unit norm, Eq. 3), mean.npy and std.npy of the VAE's posterior.

    Those are [P, C, h, w] float32 of the whole pictures with one view, [P, views, C, h, w] float16 with the whole
    picture first and then fixed crops with several, and absent with views=0.
    """
    pictures = np.load(inputs(stage.trials) / "pictures.npy", mmap_mode="r")
    total, crops = len(pictures), max(0, stage.views - 1)
    free = room(pictures) if crops else 0
    batch = min(BATCH, max(1, PIXELS // (pictures.shape[1] * pictures.shape[2])))
    autocast, dtype = precision(stage.numerics, runtime.device), frozen_dtype(stage.numerics, runtime.device)
    clip = frozen.load_clip(stage.clip.path, stage.clip.sha256, dtype).to(runtime.device)
    vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype).to(runtime.device) if stage.views else None
    arrays: dict[str, np.memmap] = {}

    def put(name: str, rows: range, values: list[Tensor]) -> None:
        """Writes one value for each view."""
        whole = values[0] if len(values) == 1 else torch.stack(values, 1).half()
        whole = whole.cpu().numpy()
        if name not in arrays:
            arrays[name] = mapped(out / f"{name}.npy", whole.dtype, (total, *whole.shape[1:]))
        arrays[name][rows.start:rows.stop] = whole

    for start in range(0, total, batch):
        rows = range(start, min(start + batch, total))
        images = as_images(pictures[rows.start:rows.stop], runtime.device)
        with autocast():
            put("embeddings", rows, [clip.embed_image(images).float()])
            if vae is not None:
                moments = [vae.moments(images)]
                at = np.array([corners(picture, crops, free) for picture in rows])
                moments += [vae.moments(cropped(images, at[:, crop])) for crop in range(crops)]
                put("mean", rows, [mean.float() for mean, _ in moments])
                put("std", rows, [torch.exp(0.5 * logvar.float()) for _, logvar in moments])
        runtime.progress(rows.stop, total)
    for array in arrays.values():
        array.flush()
