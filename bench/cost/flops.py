"""FLOPs of building a stage, here and as DreamDiffusion's released code spends them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from bench.cost.counting import Cost
from bench.cost.networks import (
    NETWORKS,
    autoencoder_flops,
    clip_flops,
    condition_flops,
    encoder_flops,
    encoder_on_meta,
    evaluation_flops,
    head_flops,
    looked,
    released_autoencoder_flops,
    unet_flops,
    vae_flops,
)
from bench.cost.sizes import check_known, padded, reference_images, samples_of, size_of, trials
from bench.experiment.key import Stage
from bench.experiment.kinds import kind_of
from bench.experiment.stages import Encoder, Finetune, Generate, Items, Pretrain, Reference, Score, Targets, Trivial
from bench.experiment.variant import OPENS
from bench.modules import import_object

PLMS_STEPS = 250  # of the released code


@functools.cache
def system_cost(stage: Stage) -> Cost | None:
    """The cost of a system's own stage, by the function that its kind names; None for every other stage."""
    cost = kind_of(stage).cost
    found: Cost | None = import_object(cost)(stage) if cost else None
    return found


def flops(stage: Stage) -> int:
    """All FLOPs of building a stage, 2 for each multiply-add; what NOT_COUNTED lists is left out.

    Raises BenchError for frozen parts whose configuration is not known, and for data whose size is not.
    """
    if own := system_cost(stage):
        return own.flops
    return FLOPS[type(stage)](stage) if type(stage) in FLOPS else 0


def _pretrain(stage: Pretrain) -> int:
    world = stage.corpus.world
    return stage.schedule.steps * stage.schedule.batch * autoencoder_flops(
        stage.encoder, stage.decoder, world.n_chans, world.n_times, stage.mask_ratio)[1]


def _targets(stage: Targets) -> int:
    check_known(stage.clip, stage.vae)
    return size_of(stage.trials).pictures * (stage.views * vae_flops("encode") + clip_flops(stage.clip.name)[0])


def _trivial(stage: Trivial) -> int:
    check_known(stage.vae)
    return trials(stage.items) * (vae_flops("encode") + vae_flops("decode")) * (stage.source == "vae")


def _reference(stage: Reference) -> int:
    check_known(stage.judge)
    return reference_images(stage) * looked("judge", 224)


def _score(stage: Score) -> int:
    check_known(stage.reference.judge, stage.clip)
    items, samples = trials(stage.items), samples_of(stage.pictures)
    costs = [NETWORKS[network.name]() for network in stage.networks if network.name in NETWORKS]
    once = looked("judge", 224) + clip_flops()[0] + sum(picture for picture, _ in costs)
    return items * (1 + samples) * once + items * samples * sum(pair for _, pair in costs)


def encoder_of(stage: Finetune) -> Encoder:
    return stage.start.encoder if isinstance(stage.start, Pretrain) else stage.start


def shape_of(items: Items) -> tuple[int, int]:
    return items.trials.world.n_chans, items.trials.world.n_times


def _finetune(stage: Finetune) -> int:
    """A frozen encoder sees every trial once; a trained one in every step."""
    check_known(stage.unet, stage.clip, stage.targets.vae)
    encoder, shape, opens = encoder_of(stage), shape_of(stage.items), OPENS[stage.tune]
    _, (tokens, width) = encoder_on_meta(encoder, *shape)
    once, sample = 0, condition_flops(tokens, width, "tau" in opens, "E" in opens)
    if "E" in opens:
        sample += encoder_flops(encoder, *shape)[1]
    else:
        once = trials(stage.items) * encoder_flops(encoder, *shape)[0]
    through = bool(opens & {"E", "tau"})
    if stage.align:
        sample += head_flops(stage.aligned, tokens, width, head_size(stage),
                             "E" in opens if stage.aligned == "latent" else through)
    if stage.sd_loss:
        sample += max(unet_flops(frozenset(opens & {"A", "norm2"}), through, stage.time_condition))
    if stage.targets.views == 0:
        sample += vae_flops("encode")
    return once + stage.schedule.steps * stage.schedule.batch * sample


def head_size(stage: Finetune) -> int:
    """Dimensions that h maps to: CLIP's, or as many as there are classes."""
    from models import configurations

    return configurations.EMBEDDING if stage.align == "clip" else size_of(stage.items.trials).classes


def evaluations(stage: Generate) -> int:
    """Forward passes of the U-Net for one picture: PLMS begins with one more, guidance doubles them."""
    steps = stage.sampling.steps + (stage.sampling.sampler == "plms")
    return steps * (2 if stage.sampling.guidance != 1 else 1)


def _generate(stage: Generate) -> int:
    """The last batch is padded."""
    check_known(stage.vae, stage.model.unet)
    items, time = trials(stage.items), isinstance(stage.model, Finetune) and stage.model.time_condition
    drawn = padded(items * stage.sampling.samples, stage.sampling.batch)
    total = drawn * (evaluations(stage) * evaluation_flops(time) + vae_flops("decode"))
    if isinstance(stage.model, Finetune):
        shape, encoder = shape_of(stage.items), encoder_of(stage.model)
        _, (tokens, width) = encoder_on_meta(encoder, *shape)
        total += padded(items, stage.sampling.batch) * (encoder_flops(encoder, *shape)[0]
                                                         + condition_flops(tokens, width, False, False))
    return total


def naive(stage: Stage) -> int:
    """FLOPs of a stage as DreamDiffusion's released code spends them, under this stage's schedule, data and samples.

    Pretrain    a class token, and every token through the decoder's head
    Finetune    in every step the picture through the VAE and, with L_clip, through CLIP with gradients; gradients of
                encoder and tau whatever is tuned, and of the whole U-Net, whose blocks are checkpointed and so run
                forward twice
    Generate    PLMS of 250 steps without guidance, which are 251 passes of the U-Net
    Score       ViT-H/14 at 518 pixels on both pictures of every pair, LPIPS of every picture with every real one
    else        0: there are no stored Targets and no Reference
    Nothing is shared: a naive plan is the sum over rows of all their stages. What the released code spends on pictures
    of the test set while it trains is not in it.
    """
    return NAIVE[type(stage)](stage) if type(stage) in NAIVE else 0


def _naive_pretrain(stage: Pretrain) -> int:
    world = stage.corpus.world
    return stage.schedule.steps * stage.schedule.batch * released_autoencoder_flops(
        stage.encoder, stage.decoder, world.n_chans, world.n_times, stage.mask_ratio)[1]


def _naive_finetune(stage: Finetune) -> int:
    check_known(stage.unet, stage.clip, stage.targets.vae)
    shape, encoder = shape_of(stage.items), encoder_of(stage)
    _, (tokens, width) = encoder_on_meta(encoder, *shape)
    sample = encoder_flops(encoder, *shape)[1] + condition_flops(tokens, width, True, True) \
        + (head_flops(stage.aligned, tokens, width, head_size(stage), True) if stage.align else 0) \
        + (clip_flops()[1] if stage.align == "clip" else 0)
    if stage.sd_loss:
        sample += vae_flops("encode") + unet_flops(frozenset({"all"}), True, stage.time_condition, True)[1]
    return stage.schedule.steps * stage.schedule.batch * sample


def _naive_generate(stage: Generate) -> int:
    check_known(stage.vae, stage.model.unet)
    passes = (PLMS_STEPS + 1) * evaluation_flops() + vae_flops("decode")
    return trials(stage.items) * stage.sampling.samples * passes


def _naive_score(stage: Score) -> int:
    items, samples = trials(stage.items), samples_of(stage.pictures)
    return items * samples * (2 * looked("released_judge", 518) + items * 2 * looked("alexnet", 512))


FLOPS: dict[type[Stage], Callable[[Any], int]] = {
    Pretrain: _pretrain, Targets: _targets, Finetune: _finetune, Generate: _generate, Trivial: _trivial,
    Reference: _reference, Score: _score}
NAIVE: dict[type[Stage], Callable[[Any], int]] = {
    Pretrain: _naive_pretrain, Finetune: _naive_finetune, Generate: _naive_generate, Score: _naive_score}
