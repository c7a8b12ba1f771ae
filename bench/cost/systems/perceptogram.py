"""Costs of Perceptogram's images; its regressions are the linear baseline's."""

from __future__ import annotations

from bench.cost import counting
from bench.cost.counting import Cost, Memory
from bench.cost.networks import vae_flops
from bench.cost.sizes import count_trials, image_bytes, padded
from bench.cost.systems.guided import turbo_bytes, turbo_flops
from bench.experiment.key import Stage
from bench.systems.perceptogram import EmbeddedPictures


def cost(stage: Stage) -> Cost | None:
    """The cost of the images at scale paper, with SDXL-Turbo; None for any other stage."""
    if not isinstance(stage, EmbeddedPictures):
        return None
    n, batch = count_trials(stage.items) * stage.samples, stage.sampling.batch
    evaluation, prompt = turbo_flops()
    image = stage.sampling.steps * evaluation + vae_flops("decode")
    return Cost(padded(n, batch) * image + prompt, Memory(turbo_bytes(), counting.forward_bytes("decode"), batch),
                image_bytes(n))


def seconds(stage: EmbeddedPictures) -> float:
    """Seconds on one core at scale tiny."""
    return 5 + stage.samples * stage.sampling.steps * (1.0 if stage.sampling.guidance > 1 else 0.5)
