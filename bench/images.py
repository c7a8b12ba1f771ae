"""Image files and arrays: decoded to uint8 RGB, resized with one filter, converted to tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bench.errors import BenchError
from bench.files import explain

if TYPE_CHECKING:
    from torch import Tensor

def decode(path: Path) -> np.ndarray:
    """Decodes an image file to [H, W, 3] uint8.

    Grey, palette and CMYK images become RGB. 16-bit grey values are divided by 257. Transparent images are composed
    onto white. EXIF orientation and colour profiles are ignored. Raises BenchError for a file that cannot be read, has
    several frames, or has floating-point pixels.
    """
    with open_image(path) as image:
        if image.mode.startswith("I"):
            grey = np.asarray(image)
            if grey.min() < 0 or grey.max() > 65535:
                raise BenchError(f"{path} has grey values from {grey.min()} to {grey.max()}; expected 8 or 16 bits")
            return np.repeat(np.round(grey[..., None] / 257).astype(np.uint8), 3, 2)
        if image.mode == "F":
            raise BenchError(f"{path} has floating-point pixels; expected 8 or 16 bits a channel")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
            return np.array(white.convert("RGB"))
        return np.array(image.convert("RGB"))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes [H, W, 3] uint8 to (height, width) with Pillow's antialiased bicubic filter; equal sizes return as is."""
    if image.shape[:2] == tuple(size):
        return image
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


@contextmanager
def open_image(path: Path, header_only: bool = False) -> Iterator[Image.Image]:
    """Opens an image file. Raises BenchError if it cannot be read or has several frames."""
    try:
        with Image.open(path) as image:
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise BenchError(f"{path} has several frames; expected a single image: save one frame of it")
            if not header_only:
                image.load()
            yield image
    except BenchError:
        raise
    except Exception as error:  # decoders raise exceptions of any class for a damaged file
        raise BenchError(f"{path} cannot be read as an image: {explain(path, error)}") from error


def as_images(pixels: np.ndarray, device: str) -> Tensor:
    """Converts [N, H, W, 3] uint8 to [N, 3, H, W] float32 in [-1, 1]."""
    import torch

    return scale_pixels(torch.tensor(np.asarray(pixels)).to(device))


def scale_pixels(pixels: Tensor) -> Tensor:
    """Converts [N, H, W, 3] uint8 to [N, 3, H, W] float32 in [-1, 1], on its device."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
