"""Costs of the linear baseline's stages."""

from __future__ import annotations

from bench.cost.counting import Cost
from bench.cost.memory import disk, memory
from bench.cost.networks import evaluation_flops, vae_flops
from bench.cost.sizes import count_trials, padded, shape_of
from bench.experiment.key import Stage
from bench.experiment.stages import Captions, Generate, Targets
from bench.systems.guided import EMBEDDING
from bench.systems.linear import Factors, ImageToImage, Ridge
from models.parameters import PIXELS, TOKENS, WIDTH


def outputs(stage: Ridge) -> int:
    """The number of outputs of a regression at scale paper: an embedding, a latent of 512 pixels, or the tokens of a
    caption."""
    if stage.embedding:
        return EMBEDDING
    return 4 * (PIXELS // 8)**2 if isinstance(stage.target, Targets) else TOKENS * WIDTH


def cost(stage: Stage) -> Cost | None:
    """The cost of building one of these stages; None for any other.

    Regressions run on the CPU, in float64. Their FLOPs follow from formulas: 9 m^3 for the eigenvectors of an m x m
    matrix (Golub and Van Loan, Sec. 8.3).
    """
    if isinstance(stage, (Factors, Ridge)):
        items = (stage if isinstance(stage, Factors) else stage.factors).items
        channels, times = shape_of(items)
        n = count_trials(items)
        small, large = sorted((n, channels * times))
        if isinstance(stage, Ridge):
            out = outputs(stage)
            return Cost(2 * n * small * out * (len(stage.alphas) + 1), None, 4 * small * out)
        return Cost(4 * small**2 * large + 9 * small**3, None, 4 * (small + large) * small)
    if not isinstance(stage, ImageToImage):
        return None
    n, generate = count_trials(stage.items), Generate(Captions(stage.clip, stage.unet), stage.items, stage.vae,
                                                      stage.sampling, stage.seed, stage.numerics)
    image = stage.steps * (2 if stage.guidance != 1 else 1) * evaluation_flops() + vae_flops("decode")
    flops = padded(n * stage.samples, stage.sampling.batch) * image
    if stage.latent:
        flops += n * (vae_flops("decode") + vae_flops("encode"))
    return Cost(flops, memory(generate), disk(generate))


def seconds(stage: Stage) -> float:
    """Seconds on one core at scale tiny."""
    if isinstance(stage, ImageToImage):
        return 5 + stage.samples * stage.steps * (0.6 if stage.guidance != 1 else 0.35)
    return 7.0 if isinstance(stage, Factors) else 2.0
