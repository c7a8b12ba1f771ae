"""Costs of the linear baseline's stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.experiment.key import Stage
from bench.experiment.stages import Captions, Generate, Targets
from bench.systems.linear import Factors, ImageToImage, Ridge

if TYPE_CHECKING:
    from bench.cost.counting import Cost


def outputs(stage: Ridge) -> int:
    """Numbers that a regression predicts at scale paper: the latent of 512 pixels, or a caption's tokens."""
    return 4 * 64 * 64 if isinstance(stage.target, Targets) else 77 * 768


def cost(stage: Stage) -> Cost | None:
    """The regressions run on the CPU, in float64; their FLOPs are by formula, 9 m^3 of them for the eigenvectors of an
    m x m matrix (Golub and Van Loan, Sec. 8.3)."""
    from bench.cost import counting, memory, networks, sizes

    if isinstance(stage, (Factors, Ridge)):
        factors = stage if isinstance(stage, Factors) else stage.factors
        world, n = factors.items.trials.world, sizes.trials(factors.items)
        small, large = sorted((n, world.n_chans * world.n_times))
        if isinstance(stage, Ridge):
            found = outputs(stage)
            return counting.Cost(2 * n * small * found * (len(stage.alphas) + 1), None, 4 * small * found)
        return counting.Cost(4 * small**2 * large + 9 * small**3, None, 4 * (small + large) * small)
    if not isinstance(stage, ImageToImage):
        return None
    n, generate = sizes.trials(stage.items), Generate(Captions(stage.clip, stage.unet), stage.items, stage.vae,
                                                      stage.sampling, stage.seed, stage.numerics)
    batches = -(-n * stage.samples // stage.sampling.batch)
    evaluations = stage.steps * (2 if stage.guidance != 1 else 1)
    flops = batches * stage.sampling.batch * (evaluations * networks.evaluation_flops() + networks.vae_flops("decode"))
    if stage.latent:
        flops += n * (networks.vae_flops("decode") + networks.vae_flops("encode"))
    return counting.Cost(flops, memory.memory(generate), memory.disk(generate))


def seconds(stage: Stage) -> float:
    """On one core at scale tiny."""
    if isinstance(stage, ImageToImage):
        return 5 + stage.samples * stage.steps * (0.6 if stage.guidance != 1 else 0.35)
    return 7.0 if isinstance(stage, Factors) else 2.0
