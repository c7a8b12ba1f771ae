"""Costs of generating images with DreamDiffusion's released checkpoint."""

from __future__ import annotations

from bench.cost.counting import Cost
from bench.cost.memory import disk, memory
from bench.cost.networks import evaluation_flops, vae_flops
from bench.cost.sizes import count_trials, padded
from bench.experiment.key import Stage
from bench.experiment.stages import Captions, Generate
from bench.systems.released import ReleasedPictures


def cost(stage: Stage) -> Cost | None:
    """The cost of the images at scale paper; None for another stage. The encoder's one pass for each item is not
    counted. PLMS takes one evaluation more than steps."""
    if not isinstance(stage, ReleasedPictures):
        return None
    generate = Generate(Captions(stage.unet, stage.unet), stage.items, stage.vae, stage.sampling, stage.seed,
                        stage.numerics)
    images = padded(count_trials(stage.items) * stage.samples, stage.sampling.batch)
    flops = images * ((stage.sampling.steps + 1) * evaluation_flops() + vae_flops("decode"))
    return Cost(flops, memory(generate), disk(generate))


def seconds(stage: Stage) -> float:
    """Seconds on one core at scale tiny, by the number of U-Net evaluations."""
    assert isinstance(stage, ReleasedPictures)
    return 5 + 0.35 * stage.samples * stage.sampling.steps
