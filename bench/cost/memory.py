"""A stage's memory on the GPU, and the bytes that it leaves on the disk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.cost.counting import ALIVE, Memory, largest_tensor, meta, part_parameters, saved
from bench.cost.flops import encoder_of, head_size, shape_of, system_cost
from bench.cost.networks import (
    autoencoder_on_meta,
    denoised,
    encoder_on_meta,
    head_on_meta,
    masking_on_meta,
    tau_on_meta,
    time_condition_on_meta,
    unet_on_meta,
)
from bench.cost.sizes import PUBLISHED_WINDOWS, reference_images, samples_of, size_of, trials
from bench.experiment.key import Stage
from bench.experiment.stages import (
    Corpus,
    Decoder,
    Encoder,
    Finetune,
    Generate,
    Pretrain,
    Reference,
    Score,
    Targets,
    Trials,
    Trivial,
)
from bench.experiment.variant import OPENS
from models.parameters import count_parameters

if TYPE_CHECKING:
    from torch import nn


MEASURED_AT_ONCE = 50  # pictures that scoring and the reference look at
TARGETS_AT_ONCE = 16  # pictures of 512 pixels that Targets takes at a time


def memory(stage: Stage) -> Memory | None:
    """A stage's memory on the GPU; None where it needs next to none.

    Trained parameters: 18 bytes each (float32 value, gradient, AdamW's two, a bfloat16 copy); others 2 (bfloat16),
    those that measure 4; a system's own stages as it says. A training step keeps what autograd saves, counted on the
    meta device in bfloat16 with fused attention, times AUTOCAST; a forward pass ALIVE tensors of its largest one's size
    in float32.
    """
    if own := system_cost(stage):
        return own.memory
    return MEMORY[type(stage)](stage) if type(stage) in MEMORY else None


def _pretrain(stage: Pretrain) -> Memory:
    shape = stage.corpus.world.n_chans, stage.corpus.world.n_times
    parameters, kept = _pretrain_memory(stage.encoder, stage.decoder, *shape, stage.mask_ratio)
    return Memory(18 * parameters, kept, stage.schedule.batch)


def _finetune(stage: Finetune) -> Memory:
    trained, others = sum(trained_parameters(stage).values()), _frozen_parameters(stage)
    return Memory(18 * trained + 2 * others, _finetune_memory(stage), stage.schedule.batch)


def _generate(stage: Generate) -> Memory:
    return Memory(2 * (part_parameters("stable_diffusion_unet") + part_parameters("stable_diffusion_vae")),
                  ALIVE * largest_tensor("decode"), stage.sampling.batch)


def _targets(stage: Targets) -> Memory:
    return Memory(2 * (part_parameters("clip") + part_parameters("stable_diffusion_vae")),
                  ALIVE * largest_tensor("encode"), TARGETS_AT_ONCE)


def _measured(*networks: str) -> Memory:
    """Of a stage that looks at pictures with these networks."""
    return Memory(4 * sum(map(part_parameters, networks)), ALIVE * largest_tensor("judge"), MEASURED_AT_ONCE)


MEMORY: dict[type[Stage], Callable[[Any], Memory]] = {
    Pretrain: _pretrain, Finetune: _finetune, Generate: _generate, Targets: _targets,
    Score: lambda stage: _measured("judge", "clip", "inception", "alexnet"),
    Reference: lambda stage: _measured("judge")}


def trained_parameters(stage: Finetune) -> dict[str, int]:
    """How many parameters fine-tuning trains: of the encoder, tau (with the map to the time step), head and U-Net."""
    encoder, (tokens, width) = encoder_on_meta(encoder_of(stage), *shape_of(stage.items))
    opens = OPENS[stage.tune]
    parts: dict[str, list[nn.Module]] = {
        "encoder": [encoder] if "E" in opens else [], "tau": [], "head": [], "unet": []}
    if "tau" in opens:
        parts["tau"] = [tau_on_meta(tokens, width), *([time_condition_on_meta()] if stage.time_condition else [])]
    if stage.align:
        parts["head"] = [head_on_meta(stage.aligned, tokens, width, head_size(stage))]
    found = {name: sum(map(count_parameters, modules)) for name, modules in parts.items()}
    if stage.sd_loss and opens & {"A", "norm2"}:
        unet = unet_on_meta(frozenset(opens & {"A", "norm2"}))
        found["unet"] = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    return found


def _frozen_parameters(stage: Finetune) -> int:
    unet = part_parameters("stable_diffusion_unet") - trained_parameters(stage)["unet"] if stage.sd_loss else 0
    return unet + (part_parameters("stable_diffusion_vae") if stage.targets.views == 0 else 0)


@functools.cache
def _pretrain_memory(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int,
                     mask_ratio: float) -> tuple[int, int]:
    """Parameters of the masked autoencoder, and bytes saved for one window."""
    import torch

    model, tokens = autoencoder_on_meta(encoder, decoder, n_chans, n_times)
    masking = masking_on_meta(tokens, mask_ratio)
    model.train().requires_grad_(True)
    return count_parameters(model), saved(
        model, lambda: model(meta(1, n_chans, n_times, dtype=torch.bfloat16), masking))


@functools.cache
def _encoder_memory(encoder: Encoder, n_chans: int, n_times: int) -> int:
    import torch

    module = encoder_on_meta(encoder, n_chans, n_times)[0].train().requires_grad_(True)
    return saved(module, lambda: module(meta(1, n_chans, n_times, dtype=torch.bfloat16)))


@functools.cache
def _unet_memory(opens: frozenset[str], context: bool, time: bool) -> int:
    import torch

    unet = unet_on_meta(opens, time)
    return saved(unet, lambda: denoised(unet, context, dtype=torch.bfloat16))


def _finetune_memory(stage: Finetune) -> int:
    """Bytes saved for one trial; tau and h add next to nothing."""
    opens = OPENS[stage.tune]
    through = bool(opens & {"E", "tau"})
    saved = _encoder_memory(encoder_of(stage), *shape_of(stage.items)) if "E" in opens else 0
    if stage.sd_loss:
        saved += _unet_memory(frozenset(opens & {"A", "norm2"}), through, stage.time_condition)
    return max(saved, ALIVE * largest_tensor("encode")) if stage.targets.views == 0 else saved


def disk(stage: Stage) -> int:
    """Bytes that a stage leaves on the disk, its large files alone. A corpus: at most, as its shards are un-padded."""
    side = 512
    if own := system_cost(stage):
        return own.disk
    if isinstance(stage, Corpus):
        return PUBLISHED_WINDOWS * stage.world.n_chans * stage.world.n_times * 2
    if isinstance(stage, Trials):
        found = size_of(stage)
        return sum(found.trials.values()) * stage.world.n_chans * stage.world.n_times * 2 + found.pictures * side**2 * 3
    if isinstance(stage, Pretrain):
        encoder, _ = encoder_on_meta(stage.encoder, stage.corpus.world.n_chans, stage.corpus.world.n_times)
        return 4 * count_parameters(encoder)
    if isinstance(stage, Targets):
        number = 4 if stage.views == 1 else 2  # bytes of mean and standard deviation
        return size_of(stage.trials).pictures * (stage.views * 2 * 4 * (side // 8)**2 * number + 768 * 4)
    if isinstance(stage, Finetune):
        return 4 * sum(trained_parameters(stage).values()) * stage.checkpoints
    if isinstance(stage, (Generate, Trivial)):
        return trials(stage.items) * samples_of(stage) * side**2 * 3
    return reference_images(stage) * 1024 * 4 if isinstance(stage, Reference) else 0
