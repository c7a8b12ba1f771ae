"""Costs of the stages of ATM with guided diffusion."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.cost import counting, networks, sizes
from bench.experiment.key import Stage
from bench.experiment.stages import Items
from bench.systems.guided import EMBEDDING, GuidedCaptions, GuidedEncoder, GuidedLowLevel, GuidedPictures, GuidedPrior
from models import pins
from models.parameters import count_parameters

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.cost.counting import Cost


def cost(stage: Stage) -> Cost | None:
    """Of building one of these stages at scale paper, trainings in float32. Not counted: the adapter's few tokens, and
    what GIT says word by word, and the trained encoder's passes over the items that are drawn or that the prior learns
    from."""
    import torch

    from models import configurations
    from models.captioner import PixelProjector
    from models.diffusion_prior import DiffusionPrior
    from models.guided import KINDS, LowLevel

    def world(items: Items) -> tuple[int, int]:
        return items.trials.world.n_chans, items.trials.world.n_times

    if isinstance(stage, GuidedEncoder):
        network, shape = stage.network, world(stage.items)
        with torch.device("meta"):
            encoder = KINDS[network.encoder](*shape, EMBEDDING, stage.items.trials.subjects,
                                             network.quirks == "faithful", network.filters, network.width)
        return _training(encoder, lambda n, dtype: encoder(counting.meta(n, *shape, dtype=dtype),
                                                           counting.meta(n, dtype=torch.int64)),
                         stage.schedule.epochs * sizes.trials(stage.items), stage.schedule.batch)
    if isinstance(stage, GuidedPrior):
        with torch.device("meta"):
            prior = DiffusionPrior(EMBEDDING, EMBEDDING, stage.widths, stage.time)
        return _training(prior, lambda n, dtype: prior(*_noisy(n, dtype)), stage.schedule.steps * stage.schedule.batch,
                         stage.schedule.batch)
    if isinstance(stage, GuidedLowLevel):
        shape = world(stage.items)
        with torch.device("meta"):
            net = LowLevel(shape, 4, stage.hidden, stage.widths)
        return _training(net, lambda n, dtype: net(counting.meta(n, *shape, dtype=dtype)),
                         stage.schedule.epochs * sizes.trials(stage.items), stage.schedule.batch)
    if isinstance(stage, GuidedCaptions):
        with torch.device("meta"):
            tower = configurations.git().git.image_encoder.eval().requires_grad_(False)
        seen = counting.counted(lambda: tower(counting.meta(1, 3, 224, 224)).last_hidden_state, False)[0]
        return counting.Cost(stage.schedule.epochs * sizes.shown(stage.items) * seen, None,
                          4 * count_parameters(PixelProjector()))
    if not isinstance(stage, GuidedPictures):
        return None
    n, sampling = sizes.trials(stage.items) * stage.samples, stage.sampling
    evaluation, prompt, parameters = _turbo()
    each = max(1, int(sampling.steps * stage.strength)) * evaluation + networks.vae_flops("decode")
    if stage.prior:
        with torch.device("meta"):
            prior = DiffusionPrior(EMBEDDING, EMBEDDING, stage.prior.widths, stage.prior.time).eval()
        each += 2 * stage.prior_sampling.steps * counting.counted(lambda: prior(*_noisy(1)), False)[0]
    flops = -(-n // sampling.batch) * sampling.batch * each + (n if stage.captions else 1) * prompt
    memory = counting.Memory(2 * parameters, counting.ALIVE * counting.largest_tensor("decode"), sampling.batch)
    return counting.Cost(flops, memory, 3 * n * configurations.PIXELS**2)


@functools.cache
def _turbo() -> tuple[int, int, int]:
    """Of SDXL-Turbo: FLOPs of an evaluation of its U-Net, and of encoding a prompt; the parameters of all its parts."""
    import torch


    unet, vae, text = map(counting.part, ("sdxl_unet", "sdxl_vae", "sdxl_text"))
    beside = {"text_embeds": counting.meta(1, 1280), "time_ids": counting.meta(1, 6)}
    evaluation = counting.counted(lambda: unet(counting.meta(1, 4, 64, 64), counting.meta(1), counting.meta(1, 77, 2048),
                                            added_cond_kwargs=beside).sample, False)[0]
    words = counting.meta(1, 77, dtype=torch.int64)
    prompt = sum(counting.counted(lambda one=one: one(words)[0], False)[0] for one in text)  # type: ignore[misc]
    return evaluation, prompt, sum(map(count_parameters, (unet, vae, text)))


def _training(module: nn.Module, run: Callable[[int, Any], Tensor], samples: int, batch: int) -> Cost:
    """Of a training on so many samples, of which `run` takes n."""
    import torch

    step = counting.counted(lambda: run(1, torch.float32), True)[1]
    sample = counting.another(module, lambda n: run(n, torch.bfloat16))
    return counting.training(samples * step, module, module, sample, batch)


def _noisy(n: int, dtype: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    """What the prior takes, on the meta device."""
    return counting.meta(n, EMBEDDING, dtype=dtype), counting.meta(n), counting.meta(n, EMBEDDING, dtype=dtype)


def seconds(stage: Stage) -> float:
    """On one core at scale tiny."""
    if isinstance(stage, GuidedEncoder):
        people = max(1, len(stage.items.trials.subjects) - (stage.items.trials.split == "subject"))
        return people * stage.schedule.epochs * {"atm": 3.1, "nice": 1.0, "eegnet": 1.8}.get(stage.network.encoder, 1.4)
    if isinstance(stage, GuidedPrior):
        return 2 + 0.01 * stage.schedule.steps
    if isinstance(stage, GuidedLowLevel):
        return 1.4 * stage.schedule.epochs
    if isinstance(stage, GuidedPictures):
        return 5 + stage.samples * stage.sampling.steps * stage.strength * (1.0 if stage.sampling.guidance > 1 else 0.5)
    return 2.0


def turbo_bytes() -> int:
    """Of SDXL-Turbo on the disk, in float16."""
    return 2 * sum(map(counting.part_parameters, ("sdxl_unet", "sdxl_vae", "sdxl_text")))


def clip_h_bytes() -> int:
    """Of CLIP ViT-H/14 on the disk, in float32."""
    return 4 * counting.part_parameters("clip_h")


def captioner_bytes() -> int:
    """Of GIT on the disk, in float32."""
    return 4 * counting.part_parameters("git")


def adapter_bytes() -> int:
    """Of the IP-Adapter's file, as published."""
    return pins.part("adapter").files[0].bytes or 0
