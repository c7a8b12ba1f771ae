"""Costs of Brain2Image's stages."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from bench.experiment.key import Stage
from bench.systems.brain2image import Brain2ImageEncoder, Brain2ImageGan, Brain2ImagePictures, Brain2ImageVae

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.cost.counting import Cost


def cost(stage: Stage) -> Cost | None:
    """Of building one of these stages, in float32."""
    from bench.cost import counting, sizes
    from models import configurations

    if isinstance(stage, Brain2ImageEncoder):
        return _encoder(stage)[1]
    if isinstance(stage, Brain2ImageGan):
        return _gan(stage)
    if isinstance(stage, Brain2ImageVae):
        return _vae(stage)
    if not isinstance(stage, Brain2ImagePictures):
        return None
    count, decoder = sizes.trials(stage.items), stage.decoder
    generator, (noise, feature) = _generator(decoder), _inputs(decoder, 1)
    drawn = -(-count * stage.samples // stage.batch) * stage.batch
    flops = (count * _encoder(decoder.encoder)[0]
             + drawn * counting.counted(lambda: generator.eval()(noise, feature), False)[0])
    return counting.Cost(flops, None, count * stage.samples * 3 * configurations.PIXELS**2)


@functools.cache
def _encoder(stage: Brain2ImageEncoder) -> tuple[int, Cost]:
    """FLOPs of the feature of one trial, and the cost of the training. Both grow by the same with each time step, of
    which two and three are counted."""
    import torch

    from bench.cost import counting, sizes
    from models.brain2image import Encoder

    trials = stage.items.trials
    world, classes = trials.world, sizes.size(trials.world, trials.subjects, trials.split).classes
    with torch.device("meta"):
        encoder = Encoder(world.n_chans, world.n_times, classes, stage.hidden, stage.feature)

    def run(samples: int, times: int, dtype: torch.dtype = torch.float32) -> Tensor:
        found: Tensor = encoder.logits(counting.meta(samples, world.n_chans, times, dtype=dtype))
        return found

    def over(two: int, three: int) -> int:
        return two + (three - two) * (world.n_times - 2)

    two, three = counting.counted(lambda: run(1, 2), True), counting.counted(lambda: run(1, 3), True)
    once, step = over(two[0], three[0]), over(two[1], three[1])
    kept = [over(counting.saved(encoder, lambda: run(1, 2, torch.bfloat16)),
                 counting.saved(encoder, lambda: run(1, 3, torch.bfloat16))),
            over(counting.saved(encoder, lambda: run(2, 2, torch.bfloat16)),
                 counting.saved(encoder, lambda: run(2, 3, torch.bfloat16)))]
    flops = stage.schedule.steps * stage.schedule.batch * step + once * sizes.trials(stage.items)
    sample = round(2 * (kept[1] - kept[0]) / counting.AUTOCAST)
    return once, counting.training(flops, encoder, encoder, sample, stage.schedule.batch)


def _gan(stage: Brain2ImageGan) -> Cost:
    """Every step takes the discriminator over real and made pictures, and the generator through it. In memory both are
    counted as if they were held at once."""
    import torch

    from bench.cost import counting
    from models.brain2image import Discriminator

    generator = _generator(stage)
    with torch.device("meta"):
        discriminator = Discriminator(stage.encoder.feature, stage.width, stage.side)

    def told(n: int, conditional: bool, dtype: torch.dtype = torch.float32) -> Tensor:
        pictures, feature = counting.meta(n, 3, stage.side, stage.side, dtype=dtype), _inputs(stage, n, dtype)[1]
        seen = discriminator.trunk(pictures)
        found: Tensor = discriminator.judge(seen, feature) + discriminator(pictures, feature)
        return found + discriminator.judge(seen, feature) if conditional else found

    def fooled(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
        noise, feature = _inputs(stage, n, dtype)
        found: Tensor = discriminator(generator(noise, feature), feature)
        return found

    alone, conditional = (counting.counted(lambda: told(1, False), True)[1], counting.counted(lambda: told(1, True), True)[1])
    discriminator.requires_grad_(False)
    through = counting.counted(lambda: fooled(1), True)[1]
    discriminator.requires_grad_(True)
    before = stage.schedule.alone * stage.schedule.batch * (alone + through)
    both = torch.nn.ModuleList([generator, discriminator])
    flops = stage.schedule.steps * stage.schedule.batch * (conditional + through) + before
    sample = counting.another(both, lambda n: told(n, True, torch.bfloat16) + fooled(n, torch.bfloat16))
    return counting.training(flops, both, generator, sample, stage.schedule.batch)


def _vae(stage: Brain2ImageVae) -> Cost:
    import torch

    from bench.cost import counting
    from models.brain2image import PictureEncoder

    decoder = _generator(stage)
    with torch.device("meta"):
        encoder = PictureEncoder(stage.noise, stage.width, stage.side)

    def run(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
        mean, log_variance = encoder(counting.meta(n, 3, stage.side, stage.side, dtype=dtype))
        found: Tensor = decoder(mean + log_variance, _inputs(stage, n, dtype)[1])
        return found

    both = torch.nn.ModuleList([decoder, encoder])
    flops = stage.schedule.steps * stage.schedule.batch * counting.counted(lambda: run(1), True)[1]
    return counting.training(flops, both, decoder, counting.another(both, lambda n: run(n, torch.bfloat16)),
                          stage.schedule.batch)


def _generator(stage: Brain2ImageGan | Brain2ImageVae) -> nn.Module:
    """On the meta device."""
    import torch

    from models.brain2image import Generator

    with torch.device("meta"):
        return Generator(stage.noise, stage.encoder.feature, stage.width, stage.side)


def _inputs(stage: Brain2ImageGan | Brain2ImageVae, n: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Noise and features of n samples on the meta device."""
    from bench.cost import counting

    return counting.meta(n, stage.noise, dtype=dtype), counting.meta(n, stage.encoder.feature, dtype=dtype)


def seconds(stage: Stage) -> float:
    """On one core at scale tiny."""
    if isinstance(stage, Brain2ImageEncoder):
        return 1 + 0.015 * stage.schedule.steps
    if isinstance(stage, Brain2ImageGan):
        return 1 + 0.04 * (stage.schedule.alone + stage.schedule.steps)
    return 1 + 0.035 * stage.schedule.steps if isinstance(stage, Brain2ImageVae) else 1.0
