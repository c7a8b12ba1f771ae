"""Images: files of any kind as uint8 RGB arrays, resized by one filter, and as tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bench.errors import BenchError

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")


def decode(path: Path) -> np.ndarray:
    """A file's picture [H, W, 3] uint8.

    Grey, palette and CMYK become RGB; 16-bit grey is divided by 257; transparency is laid over white; EXIF
    orientation and colour profiles are ignored. Raises BenchError for a file that holds no single such picture.
    """
    with open_image(path) as image:
        if image.mode.startswith("I"):
            grey = np.asarray(image)
            if grey.min() < 0 or grey.max() > 65535:
                raise BenchError(f"{path} has grey values from {grey.min()} to {grey.max()}; expected 8 or 16 bits")
            return np.repeat(np.round(grey[..., None] / 257).astype(np.uint8), 3, 2)
        if image.mode == "F":
            raise BenchError(f"{path} holds floating-point pixels; expected 8 or 16 bits a channel")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
            return np.array(white.convert("RGB"))
        return np.array(image.convert("RGB"))


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] uint8 at another height and width by Pillow's bicubic filter, antialiased; as it is where equal."""
    if picture.shape[:2] == tuple(size):
        return picture
    return np.array(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))


@contextmanager
def open_image(path: Path, header_only: bool = False) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise BenchError(f"{path} has several frames; expected a single picture: save one frame of it")
            if not header_only:
                image.load()
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise BenchError(f"{path} cannot be read as a picture: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def as_images(pictures: np.ndarray, device: str) -> Tensor:
    """[N, H, W, 3] uint8 -> [N, 3, H, W] float32 in [-1, 1]."""
    import torch

    return torch.tensor(np.asarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
