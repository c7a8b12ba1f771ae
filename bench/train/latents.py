"""The latents of the images that fine-tuning denoises: of views stored by Targets, or of random crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.experiment.stages import Finetune
from bench.images import as_images, scale_pixels
from bench.runtime import Runtime
from bench.train.items import Loaded
from bench.train.loop import frozen_dtype, precision, to_device
from bench.train.targets import crop, crop_range
from models import frozen


class Latents:
    """The VAE's posterior of each item's image: of a view stored by Targets or of a random crop."""

    def __init__(self, stage: Finetune, items: Loaded, targets: Path, shape: tuple[int, ...], runtime: Runtime):
        self._views, self._items, self._device = stage.targets.views, items, runtime.device
        self._vae, self._moments = None, []
        if self._views == 0:
            self._vae = frozen.load_vae(stage.targets.vae.path, stage.targets.vae.sha256,
                                        frozen_dtype(stage.numerics, runtime.device)).to(runtime.device)
            self._autocast = precision(stage.numerics, runtime.device)
            self._range = crop_range(items.pictures)
            with torch.no_grad(), self._autocast():
                size = self._vae.moments(as_images(items.pictures[:1], runtime.device))[0].shape[1:]
        else:
            self._moments = [np.load(targets / f"{name}.npy", mmap_mode="r") for name in ("mean", "std")]
            size = self._moments[0].shape[-3:]
        if tuple(size) != shape:
            raise BenchError(f"the images' latents are {list(size)}, but those of U-Net {stage.unet.name} are "
                             f"{list(shape)}; prepare the data set with images of another size")
        if self._views == 1:
            self._moments = [torch.from_numpy(array[items.picture]).to(runtime.device) for array in self._moments]

    def draw(self, batch: int, generator: torch.Generator) -> Tensor | None:
        """Draws a batch's views, half of them the whole image (released code): numbers of stored views [B], or with
        views=0 whether to crop, and the corner [B, 3]. None if there is only one view."""
        if self._views == 1:
            return None
        cropped = torch.rand(batch, generator=generator) >= 0.5
        if self._views > 1:
            return torch.where(cropped, torch.randint(1, self._views, (batch,), generator=generator), 0)
        corner = torch.randint(0, self._range + 1, (batch, 2), generator=generator)
        return torch.cat([cropped[:, None], corner], 1)

    def fetch(self, index: Tensor, view: Tensor | None) -> dict[str, Tensor]:
        """What `moments` needs beside the items: the stored moments of views, or the images [B, H, W, 3] uint8."""
        if view is None:
            return {}
        if self._vae is None:
            rows = self._items.picture[index.numpy()], view.numpy()
            return {name: to_device(torch.from_numpy(array[rows]), self._device)
                    for name, array in zip(("mean", "std"), self._moments, strict=True)}
        return {"images": to_device(torch.from_numpy(self._items.pictures[index.numpy()]), self._device),
                "cropped": to_device(view[:, 0].bool(), self._device)}

    @torch.no_grad()
    def moments(self, fetched: dict[str, Tensor], view: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of items [B], each [B, C, h, w] float32.
        fetched: the items, and the tensors of `fetch`."""
        if view is None:
            mean, std = (array[fetched["item"]] for array in self._moments)
        elif self._vae is None:
            mean, std = fetched["mean"].float(), fetched["std"].float()
        else:
            images = scale_pixels(fetched["images"])
            crops = crop(images, view[:, 1:].numpy())
            with self._autocast():
                mean, logvar = self._vae.moments(torch.where(fetched["cropped"][:, None, None, None], crops, images))
            mean, std = mean.float(), torch.exp(0.5 * logvar.float())
        return mean, std
