"""FLOPs of building a stage: in the suite, and in DreamDiffusion's released code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from bench.cost import networks
from bench.cost.counting import Cost
from bench.cost.sizes import (
    check_known,
    count_images,
    count_reference_images,
    count_trials,
    padded,
    samples_of,
    shape_of,
    size_of,
)
from bench.experiment.key import Stage
from bench.experiment.kinds import kind_of
from bench.experiment.stages import (
    Encoder,
    Finetune,
    Generate,
    Items,
    Pretrain,
    Reference,
    Score,
    Targets,
    TrainFeatures,
    Trivial,
)
from bench.experiment.variant import OPENS
from bench.modules import import_object
from models.parameters import EMBEDDING

PLMS_STEPS = 250  # of the released code


@functools.cache
def system_cost(stage: Stage) -> Cost | None:
    """Returns the cost of a system's own stage, from the cost function of its kind; None for other stages."""
    function = kind_of(stage).cost
    return import_object(function)(stage) if function else None


def flops(stage: Stage) -> int:
    """All FLOPs of building a stage, 2 for each multiply-add, without what price.NOT_COUNTED lists.

    Raises BenchError for frozen parts of unknown configuration, and for data of unknown size.
    """
    if cost := system_cost(stage):
        return cost.flops
    return FLOPS[type(stage)](stage) if type(stage) in FLOPS else 0


def _pretrain(stage: Pretrain, count: Callable[..., tuple[int, int]] = networks.autoencoder_flops) -> int:
    corpus = stage.corpus
    step = count(stage.encoder, stage.decoder, corpus.n_chans, corpus.world.n_times, stage.mask_ratio,
                 class_token=stage.class_token, rounding=stage.rounding)[1]
    return stage.schedule.steps * stage.schedule.batch * step


def _targets(stage: Targets) -> int:
    check_known(stage.clip, stage.vae)
    image = stage.views * networks.vae_flops("encode") + networks.clip_flops(stage.clip.name)[0]
    return size_of(stage.trials).pictures * image


def _trivial(stage: Trivial) -> int:
    check_known(stage.vae)
    image = networks.vae_flops("encode") + networks.vae_flops("decode")
    return count_trials(stage.items) * image if stage.source == "vae" else 0


def _reference(stage: Reference) -> int:
    check_known(stage.judge)
    return count_reference_images(stage) * networks.image_flops("judge", 224)


def _train_features(stage: TrainFeatures) -> int:
    check_known(stage.judge, stage.clip)
    image = networks.image_flops("judge", 224) + networks.clip_flops()[0]
    return count_images(Items(stage.trials, "train")) * image


def _score(stage: Score) -> int:
    check_known(stage.reference.judge, stage.clip)
    items, samples = count_trials(stage.items), samples_of(stage.pictures)
    costs = [networks.NETWORKS[network.name]() for network in stage.networks if network.name in networks.NETWORKS]
    once = networks.image_flops("judge", 224) + networks.clip_flops()[0] + sum(image for image, _ in costs)
    return items * (1 + samples) * once + items * samples * sum(pair for _, pair in costs)


def encoder_of(stage: Finetune) -> Encoder:
    """The encoder that a fine-tuning starts from."""
    return stage.start.encoder if isinstance(stage.start, Pretrain) else stage.start


def _finetune(stage: Finetune) -> int:
    """A frozen encoder processes every trial once; a trained one in every step."""
    check_known(stage.unet, stage.clip, stage.targets.vae)
    encoder, shape, opens = encoder_of(stage), shape_of(stage.items), OPENS[stage.tune]
    _, (tokens, width) = networks.encoder_on_meta(encoder, *shape)
    once, sample = 0, networks.condition_flops(tokens, width, "tau" in opens, "E" in opens, stage.tau)
    if "E" in opens:
        sample += networks.encoder_flops(encoder, *shape)[1]
    else:
        once = count_trials(stage.items) * networks.encoder_flops(encoder, *shape)[0]
    through = bool(opens & {"E", "tau"})
    if stage.align:
        sample += networks.head_flops(stage.aligned, tokens, width, head_size(stage),
                             "E" in opens if stage.aligned == "latent" else through)
    if stage.sd_loss:
        sample += max(networks.unet_flops(frozenset(opens & {"A", "norm2"}), through, stage.time_condition))
    if stage.targets.views == 0:
        sample += networks.vae_flops("encode")
    return once + stage.schedule.steps * stage.schedule.batch * sample


def head_size(stage: Finetune) -> int:
    """Outputs of h: dimensions of CLIP space, or the number of classes."""
    return EMBEDDING if stage.align == "clip" else size_of(stage.items.trials).classes


def evaluations(stage: Generate) -> int:
    """Forward passes of the U-Net for one image: PLMS needs one more than steps, guidance doubles them."""
    steps = stage.sampling.steps + (stage.sampling.sampler == "plms")
    return steps * (2 if stage.sampling.guidance != 1 else 1)


def _generate(stage: Generate) -> int:
    """The last batch is padded."""
    check_known(stage.vae, stage.model.unet)
    items, time = count_trials(stage.items), isinstance(stage.model, Finetune) and stage.model.time_condition
    drawn = padded(items * stage.sampling.samples, stage.sampling.batch)
    total = drawn * (evaluations(stage) * networks.evaluation_flops(time) + networks.vae_flops("decode"))
    if isinstance(stage.model, Finetune):
        shape, encoder = shape_of(stage.items), encoder_of(stage.model)
        _, (tokens, width) = networks.encoder_on_meta(encoder, *shape)
        total += padded(items, stage.sampling.batch) * (
            networks.encoder_flops(encoder, *shape)[0]
            + networks.condition_flops(tokens, width, False, False, stage.model.tau))
    return total


def naive(stage: Stage) -> int:
    """FLOPs of a stage in DreamDiffusion's released code, with the stage's own schedule, data and samples.

    Pretrain    a class token, and every token through the decoder's head
    Finetune    in every step the image through the VAE and, with L_clip, through CLIP with gradients; gradients of
                encoder and tau whatever is tuned, and of the whole U-Net, whose checkpointed blocks run forward twice
    Generate    PLMS of 250 steps without guidance, 251 passes of the U-Net
    Score       ViT-H/14 at 518 pixels on both images of every pair, LPIPS of every image with every real one
    others      0: there are no stored Targets, no Reference and no TrainFeatures
    Nothing is shared: a naive plan is the sum of all stages over the rows. Images of the test set that the released
    code makes during training are not counted.
    """
    return NAIVE[type(stage)](stage) if type(stage) in NAIVE else 0


def _naive_pretrain(stage: Pretrain) -> int:
    world = stage.corpus.world
    return stage.schedule.steps * stage.schedule.batch * networks.released_autoencoder_flops(
        stage.encoder, stage.decoder, world.n_chans, world.n_times, stage.mask_ratio)[1]


def _naive_finetune(stage: Finetune) -> int:
    check_known(stage.unet, stage.clip, stage.targets.vae)
    shape, encoder = shape_of(stage.items), encoder_of(stage)
    _, (tokens, width) = networks.encoder_on_meta(encoder, *shape)
    sample = networks.encoder_flops(encoder, *shape)[1]
    sample += networks.condition_flops(tokens, width, True, True, stage.tau)
    if stage.align:
        sample += networks.head_flops(stage.aligned, tokens, width, head_size(stage), True)
    if stage.align == "clip":
        sample += networks.clip_flops()[1]
    if stage.sd_loss:
        sample += networks.vae_flops("encode")
        sample += networks.unet_flops(frozenset({"all"}), True, stage.time_condition, checkpointed=True)[1]
    return stage.schedule.steps * stage.schedule.batch * sample


def _naive_generate(stage: Generate) -> int:
    check_known(stage.vae, stage.model.unet)
    passes = (PLMS_STEPS + 1) * networks.evaluation_flops() + networks.vae_flops("decode")
    return count_trials(stage.items) * stage.sampling.samples * passes


def _naive_score(stage: Score) -> int:
    items, samples = count_trials(stage.items), samples_of(stage.pictures)
    judged = 2 * networks.image_flops("released_judge", 518)
    return items * samples * (judged + items * 2 * networks.image_flops("alexnet", 512))


FLOPS: dict[type[Stage], Callable[[Any], int]] = {
    Pretrain: _pretrain, Targets: _targets, Finetune: _finetune, Generate: _generate, Trivial: _trivial,
    Reference: _reference, TrainFeatures: _train_features, Score: _score}
NAIVE: dict[type[Stage], Callable[[Any], int]] = {
    Pretrain: _naive_pretrain, Finetune: _naive_finetune, Generate: _naive_generate, Score: _naive_score}
