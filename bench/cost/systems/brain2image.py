"""Costs of Brain2Image's stages."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from bench.cost import counting
from bench.cost.counting import Cost, meta, on_meta
from bench.cost.sizes import count_trials, image_bytes, padded, shape_of, size_of
from bench.experiment.key import Stage
from bench.systems.brain2image import Brain2ImageEncoder, Brain2ImageGan, Brain2ImagePictures, Brain2ImageVae

if TYPE_CHECKING:
    from torch import Tensor


def cost(stage: Stage) -> Cost | None:
    """The cost of building one of these stages, in float32; None for any other."""
    if isinstance(stage, Brain2ImageEncoder):
        return _encoder_cost(stage)[1]
    if isinstance(stage, Brain2ImageGan):
        return _gan_cost(stage)
    if isinstance(stage, Brain2ImageVae):
        return _vae_cost(stage)
    if not isinstance(stage, Brain2ImagePictures):
        return None
    items, decoder = count_trials(stage.items), stage.decoder
    generator, inputs = _build_generator(decoder).eval(), _inputs(decoder, 1)
    flops = (items * _encoder_cost(decoder.encoder)[0]
             + padded(items * stage.samples, stage.batch) * counting.forward_flops(lambda: generator(*inputs)))
    return Cost(flops, None, image_bytes(items * stage.samples))


@functools.cache
def _encoder_cost(stage: Brain2ImageEncoder) -> tuple[int, Cost]:
    """FLOPs of the feature of one trial, and the cost of the training.

    Both grow linearly with time steps: two and three steps are counted, all others extrapolated.
    """
    from models.brain2image import Encoder

    channels, times = shape_of(stage.items)
    encoder = on_meta(Encoder, channels, times, size_of(stage.items.trials).classes, stage.hidden, stage.feature)

    def run(samples: int, steps: int, dtype: Any = None) -> Tensor:
        return encoder.logits(meta(samples, channels, steps, dtype=dtype))

    def extrapolate(two: int, three: int) -> int:
        return two + (three - two) * (times - 2)

    def saved(samples: int) -> int:
        return extrapolate(*(counting.saved_bytes(encoder, functools.partial(run, samples, steps)) for steps in (2, 3)))

    two, three = (counting.count_flops(functools.partial(run, 1, steps), True) for steps in (2, 3))
    once, step = extrapolate(two[0], three[0]), extrapolate(two[1], three[1])
    flops = stage.schedule.steps * stage.schedule.batch * step + once * count_trials(stage.items)
    sample = round(2 * (saved(2) - saved(1)) / counting.AUTOCAST)
    return once, counting.training_cost(flops, encoder, encoder, sample, stage.schedule.batch)


def _gan_cost(stage: Brain2ImageGan) -> Cost:
    """A step runs the discriminator on real and generated images, and the generator through it, all held at once."""
    from torch import nn

    from models.brain2image import Discriminator

    generator = _build_generator(stage)
    discriminator = on_meta(Discriminator, stage.encoder.feature, stage.width, stage.side)

    def judge(n: int, conditional: bool, dtype: Any = None) -> Tensor:
        images, feature = meta(n, 3, stage.side, stage.side, dtype=dtype), _inputs(stage, n, dtype)[1]
        seen = discriminator.trunk(images)
        total = discriminator.judge(seen, feature) + discriminator(images, feature)
        return total + discriminator.judge(seen, feature) if conditional else total

    def fool(n: int, dtype: Any = None) -> Tensor:
        noise, feature = _inputs(stage, n, dtype)
        return discriminator(generator(noise, feature), feature)

    alone, conditional = (counting.step_flops(lambda given=given: judge(1, given))  # type: ignore[misc]
                          for given in (False, True))
    discriminator.requires_grad_(False)
    through = counting.step_flops(lambda: fool(1))
    both = nn.ModuleList([generator, discriminator.requires_grad_(True)])
    batch = stage.schedule.batch
    flops = stage.schedule.steps * batch * (conditional + through) + stage.schedule.alone * batch * (alone + through)
    sample = counting.bytes_per_sample(both, lambda n, dtype: judge(n, True, dtype) + fool(n, dtype))
    return counting.training_cost(flops, both, generator, sample, batch)


def _vae_cost(stage: Brain2ImageVae) -> Cost:
    from torch import nn

    from models.brain2image import ImageEncoder

    decoder, encoder = _build_generator(stage), on_meta(ImageEncoder, stage.noise, stage.width, stage.side)

    def run(n: int, dtype: Any = None) -> Tensor:
        mean, log_variance = encoder(meta(n, 3, stage.side, stage.side, dtype=dtype))
        return decoder(mean + log_variance, _inputs(stage, n, dtype)[1])

    both = nn.ModuleList([decoder, encoder])
    flops = stage.schedule.steps * stage.schedule.batch * counting.step_flops(lambda: run(1))
    return counting.training_cost(flops, both, decoder, counting.bytes_per_sample(both, run), stage.schedule.batch)


def _build_generator(stage: Brain2ImageGan | Brain2ImageVae) -> Any:
    from models.brain2image import Generator

    return on_meta(Generator, stage.noise, stage.encoder.feature, stage.width, stage.side)


def _inputs(stage: Brain2ImageGan | Brain2ImageVae, n: int, dtype: Any = None) -> tuple[Tensor, Tensor]:
    """Noise and features of n samples."""
    return meta(n, stage.noise, dtype=dtype), meta(n, stage.encoder.feature, dtype=dtype)


def seconds(stage: Stage) -> float:
    """Seconds on one core at scale tiny."""
    if isinstance(stage, Brain2ImageEncoder):
        return 1 + 0.015 * stage.schedule.steps
    if isinstance(stage, Brain2ImageGan):
        return 1 + 0.04 * (stage.schedule.alone + stage.schedule.steps)
    return 1 + 0.035 * stage.schedule.steps if isinstance(stage, Brain2ImageVae) else 1.0
