"""Costs of the stages of ATM with guided diffusion."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.cost import counting
from bench.cost.counting import Cost, Memory, forward_flops, meta, on_meta, part, part_parameters
from bench.cost.networks import vae_flops
from bench.cost.sizes import count_images, count_trials, image_bytes, padded, shape_of
from bench.experiment.key import Stage
from bench.systems.guided import EMBEDDING, GuidedCaptions, GuidedEncoder, GuidedLowLevel, GuidedPictures, GuidedPrior
from models import pins
from models.parameters import count_parameters

if TYPE_CHECKING:
    from torch import Tensor, nn

TURBO = ("sdxl_unet", "sdxl_vae", "sdxl_text")  # the parts of SDXL-Turbo in models.configurations


def cost(stage: Stage) -> Cost | None:
    """The cost of building one of these stages at scale paper, trainings in float32; None for any other.

    Not counted: the adapter's few tokens, GIT's generation word by word, and the trained encoder's passes over the
    items that are generated or that the prior learns from.
    """
    if isinstance(stage, GuidedEncoder):
        from models.guided import KINDS

        network, shape = stage.network, shape_of(stage.items)
        encoder = on_meta(KINDS[network.encoder], *shape, EMBEDDING, stage.items.trials.subjects,
                          network.quirks == "faithful", network.filters, network.width)
        return _training_cost(encoder, lambda n, dtype=None: encoder(meta(n, *shape, dtype=dtype),
                                                                     meta(n, dtype="int64")),
                              stage.schedule.epochs * count_trials(stage.items), stage.schedule.batch)
    if isinstance(stage, GuidedPrior):
        prior = _build_prior(stage)
        return _training_cost(prior, lambda n, dtype=None: prior(*_prior_inputs(n, dtype)),
                              stage.schedule.steps * stage.schedule.batch, stage.schedule.batch)
    if isinstance(stage, GuidedLowLevel):
        from models.guided import LowLevel

        shape = shape_of(stage.items)
        net = on_meta(LowLevel, shape, 4, stage.hidden, stage.widths)
        return _training_cost(net, lambda n, dtype=None: net(meta(n, *shape, dtype=dtype)),
                              stage.schedule.epochs * count_trials(stage.items), stage.schedule.batch)
    if isinstance(stage, GuidedCaptions):
        from models.captioner import PixelProjector

        tower = part("git").git.image_encoder
        image = forward_flops(lambda: tower(meta(1, 3, 224, 224)).last_hidden_state)
        return Cost(stage.schedule.epochs * count_images(stage.items) * image, None,
                    4 * count_parameters(PixelProjector()))
    return _pictures_cost(stage) if isinstance(stage, GuidedPictures) else None


def _pictures_cost(stage: GuidedPictures) -> Cost:
    n, sampling = count_trials(stage.items) * stage.samples, stage.sampling
    evaluation, prompt = turbo_flops()
    image = max(1, int(sampling.steps * stage.strength)) * evaluation + vae_flops("decode")
    if stage.prior:
        prior = _build_prior(stage.prior).eval()
        image += 2 * stage.prior_sampling.steps * forward_flops(lambda: prior(*_prior_inputs(1)))
    flops = padded(n, sampling.batch) * image + (n if stage.captions else 1) * prompt
    return Cost(flops, Memory(turbo_bytes(), counting.forward_bytes("decode"), sampling.batch), image_bytes(n))


@functools.cache
def turbo_flops() -> tuple[int, int]:
    """FLOPs of an evaluation of SDXL-Turbo's U-Net, and of encoding a prompt."""
    unet, words = part("sdxl_unet"), meta(1, 77, dtype="int64")
    conditions = {"text_embeds": meta(1, 1280), "time_ids": meta(1, 6)}
    evaluation = forward_flops(lambda: unet(meta(1, 4, 64, 64), meta(1), meta(1, 77, 2048),
                                            added_cond_kwargs=conditions).sample)
    return evaluation, sum(forward_flops(lambda tower=tower: tower(words)[0])  # type: ignore[misc]
                           for tower in part("sdxl_text"))


def _training_cost(module: nn.Module, run: Callable[..., Tensor], samples: int, batch: int) -> Cost:
    """The cost of a training on so many samples; run(n, dtype) takes n of them."""
    step = counting.step_flops(lambda: run(1))
    return counting.training_cost(samples * step, module, module, counting.bytes_per_sample(module, run), batch)


def _build_prior(stage: GuidedPrior) -> Any:
    from models.diffusion_prior import DiffusionPrior

    return on_meta(DiffusionPrior, EMBEDDING, EMBEDDING, stage.widths, stage.time)


def _prior_inputs(n: int, dtype: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy embeddings, times and conditions."""
    return meta(n, EMBEDDING, dtype=dtype), meta(n), meta(n, EMBEDDING, dtype=dtype)


def seconds(stage: Stage) -> float:
    """Seconds on one core at scale tiny."""
    if isinstance(stage, GuidedEncoder):
        subjects = max(1, len(stage.items.trials.subjects) - (stage.items.trials.split == "subject"))
        epoch = {"atm": 3.1, "nice": 1.0, "eegnet": 1.8}.get(stage.network.encoder, 1.4)
        return subjects * stage.schedule.epochs * epoch
    if isinstance(stage, GuidedPrior):
        return 2 + 0.01 * stage.schedule.steps
    if isinstance(stage, GuidedLowLevel):
        return 1.4 * stage.schedule.epochs
    if isinstance(stage, GuidedPictures):
        return 5 + stage.samples * stage.sampling.steps * stage.strength * (1.0 if stage.sampling.guidance > 1 else 0.5)
    return 2.0


def turbo_bytes() -> int:
    """Bytes of SDXL-Turbo in float16."""
    return 2 * sum(map(part_parameters, TURBO))


def clip_h_bytes() -> int:
    """Bytes of CLIP ViT-H/14 on disk, in float32."""
    return 4 * part_parameters("clip_h")


def captioner_bytes() -> int:
    """Bytes of GIT on disk, in float32."""
    return 4 * part_parameters("git")


def adapter_bytes() -> int:
    """Bytes of the IP-Adapter's published file."""
    return pins.part("adapter").files[0].bytes or 0
