"""Fine-tuning's targets, computed once for every paired image: CLIP embeddings and VAE latents."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bench.data.features import CLASS_FILE, IMAGE_FILE
from bench.data.prepared import check_hashes, open_dataset
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.stages import Features, Prepared, Targets
from bench.files import create_npy
from bench.images import as_images
from bench.runtime import MicroBatches, Runtime
from bench.train import Inputs
from bench.train.loop import frozen_dtype, precision
from models import frozen

BATCH, PIXELS = 100, 1 << 22  # maximum number of images, and of their pixels, at once
CROP = 0.8  # side of a crop relative to the image's (released code)


def crop_range(images: np.ndarray) -> int:
    """The largest coordinate of a crop's corner in images [N, H, H, 3], in pixels. Raises BenchError unless square."""
    height, width = images.shape[1:3]
    if height != width:
        raise BenchError(f"crops need square images, but these are {height} x {width}; prepare the data set with "
                         "square images")
    return width - round(CROP * width)


def crop(images: Tensor, corners: np.ndarray) -> Tensor:
    """Crops images [B, 3, H, H] to squares with upper left corners [B, 2], resized to H."""
    side = images.shape[-1]
    size = round(CROP * side)
    squares = [image[:, top:top + size, left:left + size] for image, (top, left) in zip(images, corners, strict=True)]
    return interpolate(torch.stack(squares), (side, side), mode="bilinear", antialias=False)


def draw_corners(image: int, crops: int, largest: int) -> np.ndarray:
    """Draws the upper left corners [crops, 2], 0 to `largest`, of an image's fixed crops, from its number only."""
    return np.random.default_rng([image]).integers(0, largest + 1, (crops, 2))


@torch.inference_mode()
def targets(stage: Targets, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes embeddings.npy [P, D'] (unit norm, Eq. 3), and mean.npy and std.npy of the VAE's posterior.
    views=1: [P, C, h, w] float32 of the whole images. views > 1: [P, views, C, h, w] float16, the whole image first,
    then fixed crops. views=0: no posterior."""
    images = np.load(inputs(stage.trials) / "pictures.npy", mmap_mode="r")
    total, crops = len(images), max(0, stage.views - 1)
    largest = crop_range(images) if crops else 0
    batch = min(BATCH, max(1, PIXELS // (images.shape[1] * images.shape[2])))
    autocast, dtype = precision(stage.numerics, runtime.device), frozen_dtype(stage.numerics, runtime.device)
    clip = frozen.load_clip(stage.clip.path, stage.clip.sha256, dtype).to(runtime.device)
    vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype).to(runtime.device) if stage.views else None
    arrays: dict[str, np.memmap] = {}

    parts = MicroBatches(runtime.device, runtime.note)

    def write(name: str, rows: range, views: list[Tensor]) -> None:
        values = (views[0] if len(views) == 1 else torch.stack(views, 1).half()).cpu().numpy()
        if name not in arrays:
            arrays[name] = create_npy(out / f"{name}.npy", values.dtype, (total, *values.shape[1:]))
        arrays[name][rows.start:rows.stop] = values

    def compute(rows: range) -> None:
        part = as_images(images[rows.start:rows.stop], runtime.device)
        with autocast():
            write("embeddings", rows, [clip.embed_image(part).float()])
            if vae is not None:
                corners = np.array([draw_corners(image, crops, largest) for image in rows])
                moments = [vae.moments(part), *(vae.moments(crop(part, corners[:, n])) for n in range(crops))]
                write("mean", rows, [mean.float() for mean, _ in moments])
                write("std", rows, [torch.exp(0.5 * logvar.float()) for _, logvar in moments])

    for start in range(0, total, batch):
        rows = range(start, min(start + batch, total))
        parts.run(lambda part, rows=rows: compute(rows[part]), len(rows))
        runtime.progress(rows.stop, total)
    for array in arrays.values():
        array.flush()


def features(stage: Features, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes embeddings.npy [P, D'] and classes.npy [K, D'], unit norm, as the prepared data set holds them. Raises
    BenchError (exit 3) for a data set without features."""
    world = stage.trials.world
    if not isinstance(world, Prepared):
        raise BenchError("a generated data set has no published CLIP features; use a prepared one")
    folder, manifest = open_dataset(world)
    if IMAGE_FILE not in manifest["files"]:
        raise BenchError(f"{folder} has no CLIP features of its images; prepare it again with --set features=FILE "
                         "(docs/laptop.md)", ENVIRONMENT)
    check_hashes(folder, manifest["files"], (IMAGE_FILE, CLASS_FILE))
    shutil.copyfile(folder / IMAGE_FILE, out / "embeddings.npy")
    shutil.copyfile(folder / CLASS_FILE, out / "classes.npy")
    runtime.progress(1, 1)
