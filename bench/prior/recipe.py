"""The frozen parts as stages; the default values are those of the shipped weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.errors import BenchError
from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register
from bench.experiment.stages import Numerics, Weights

CPU = Numerics()


@dataclass(frozen=True)
class Judge(Stage):
    """The image classifier; cross-entropy."""

    pictures: int = 20_000
    steps: int = 400
    batch: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.02
    smoothing: float = 0.05
    warmup: int = 20
    seed: int = 0
    numerics: Numerics = CPU


@dataclass(frozen=True)
class Vae(Stage):
    """The autoencoder; L1 + mse * MSE + kl * KL per position of the latents. Then the decoder is trained alone."""

    pictures: int = 20_000
    steps: int = 800
    batch: int = 64
    decoder_steps: int = 2_000
    decoder_batch: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.01
    mse: float = 0.5
    kl: float = 1e-4
    warmup: int = 50
    seed: int = 0
    numerics: Numerics = CPU


@dataclass(frozen=True)
class Clip(Stage):
    """Image and text tower; cross-entropy with soft targets: images of equal captions share the probability."""

    pictures: int = 20_000
    steps: int = 500
    batch: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.05
    short: float = 0.5  # share of captions that name the class alone
    warmup: int = 30
    seed: int = 0
    numerics: Numerics = CPU


@dataclass(frozen=True)
class Unet(Stage):
    """The denoiser; v-prediction of the VAE's latents, conditioned on text tokens; a running mean of the weights."""

    vae: Vae = field(default_factory=Vae)
    clip: Clip = field(default_factory=Clip)
    pictures: int = 20_000
    steps: int = 4_000
    batch: int = 64
    lr: float = 1.5e-3
    weight_decay: float = 0.01
    short: float = 0.5
    dropout: float = 0.1  # share of captions that are empty
    average: float = 0.998  # decay of the running mean of the weights
    widths: tuple[int, int] = (32, 64)
    warmup: int = 100
    seed: int = 0
    numerics: Numerics = CPU


@dataclass(frozen=True)
class Adapter(Stage):
    """The U-Net's IP-Adapter; the U-Net's loss, conditioned on the images' embeddings and captions."""

    unet: Unet | Weights = field(default_factory=Unet)
    vae: Vae | Weights = field(default_factory=Vae)
    clip: Clip | Weights = field(default_factory=Clip)
    pictures: int = 10_000
    steps: int = 1_500
    batch: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.01
    short: float = 0.5  # share of captions that name the class alone
    dropout: float = 0.5  # share of captions that are empty
    blank: float = 0.1  # share of embeddings that are zero
    warmup: int = 50
    seed: int = 0
    numerics: Numerics = CPU


@dataclass(frozen=True)
class Captioner(Stage):
    """Names shape, colour and background of an embedding; cross-entropy, one term for each."""

    clip: Clip | Weights = field(default_factory=Clip)
    pictures: int = 10_000
    steps: int = 1_000
    batch: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.01
    noise: float = 0.1  # standard deviation of the noise on each coordinate of an embedding (a unit vector)
    width: int = 128
    warmup: int = 30
    seed: int = 0
    numerics: Numerics = CPU


Part = Judge | Vae | Clip | Unet | Adapter | Captioner


def recipe(numerics: Numerics = CPU) -> dict[str, Part]:
    """The shipped parts by name, in the order of building."""
    vae, clip = Vae(numerics=numerics), Clip(numerics=numerics)
    unet = Unet(vae, clip, numerics=numerics)
    return {"judge": Judge(numerics=numerics), "vae": vae, "clip": clip, "unet": unet,
            "adapter": Adapter(unet, vae, clip, numerics=numerics), "captioner": Captioner(clip, numerics=numerics)}


def separate_parts(shipped: Callable[[str], Weights], numerics: Numerics = CPU) -> dict[str, Part]:
    """The parts that can be trained alone, on the shipped weights of the others."""
    return {"adapter": Adapter(shipped("unet"), shipped("vae"), shipped("clip"), numerics=numerics),
            "captioner": Captioner(shipped("clip"), numerics=numerics)}


def choose_parts(names: str | None, shipped: Callable[[str], Weights], numerics: Numerics = CPU) -> dict[str, Part]:
    """"adapter,captioner" -> those of `separate_parts`; None -> all. Raises BenchError for other parts."""
    if names is None:
        return recipe(numerics)
    parts, wanted = separate_parts(shipped, numerics), [name.strip() for name in names.split(",")]
    if unknown := [name for name in wanted if name not in parts]:
        raise BenchError(f"--parts {names}: part {unknown[0]!r} cannot be trained alone; available: "
                         f"{', '.join(parts)}; without --parts all are trained: {', '.join(recipe())}")
    return {name: part for name, part in parts.items() if name in wanted}


register({Judge: Kind("bench.prior.train:judge"), Vae: Kind("bench.prior.train:vae"),
          Clip: Kind("bench.prior.train:clip"), Unet: Kind("bench.prior.train:unet"),
          Adapter: Kind("bench.prior.train:adapter"), Captioner: Kind("bench.prior.train:captioner")})
