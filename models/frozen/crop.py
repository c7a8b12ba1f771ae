"""timm's own preparation of an image for a classifier in evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval


@dataclass(frozen=True)
class Crop:
    """Resizes an image so that the crop is `share` of it, and crops the centre.

    mode: timm's crop_mode: "center" (the shorter side decides), "squash" (both sides are resized), "border" (the longer
    side decides; the border has the colour `mean`). interpolation: timm's name of the filter.
    """

    size: int  # side of the result in pixels
    share: float
    mode: str
    interpolation: str
    mean: tuple[float, float, float]

    def __str__(self) -> str:
        return f"timm {self.mode} crop {self.share:g}, {self.interpolation} to {self.size}x{self.size}"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """An image [H, W, 3] uint8 as [size, size, 3] uint8."""
        prepare = transforms_imagenet_eval(self.size, self.share, self.mode, interpolation=self.interpolation,
                                           mean=self.mean, normalize=False)
        return prepare(Image.fromarray(image)).permute(1, 2, 0).numpy()
