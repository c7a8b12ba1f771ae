"""Memory of a stage on the GPU, and the bytes that it leaves on disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.cost import networks, sizes
from bench.cost.counting import AUTOCAST, Memory, forward_bytes, meta, part_parameters, saved_bytes
from bench.cost.flops import encoder_of, head_size, system_cost
from bench.cost.sizes import (
    count_images,
    count_reference_images,
    count_trials,
    image_bytes,
    samples_of,
    shape_of,
    size_of,
)
from bench.experiment.key import Stage
from bench.experiment.stages import (
    Captions,
    Corpus,
    Finetune,
    Generate,
    Items,
    Pretrain,
    Reference,
    Score,
    Targets,
    TrainFeatures,
    Trials,
    Trivial,
)
from bench.experiment.variant import OPENS
from models.parameters import EMBEDDING, PIXELS, count_parameters

if TYPE_CHECKING:
    from bench.experiment.stages import Decoder, Encoder

SCORED_AT_ONCE = 50  # images in a batch of Score and TrainFeatures
REFERENCE_AT_ONCE = 100  # images in a batch of Reference
JUDGED = 1024  # features of the judge
TARGETS_AT_ONCE = 16  # images of 512 pixels in a batch of Targets


def memory(stage: Stage) -> Memory | None:
    """Memory of a stage on the GPU; None if it needs almost none.

    Trained parameters take 18 bytes (float32 value, gradient, AdamW's two moments, a bfloat16 copy), frozen ones 2
    (bfloat16), measuring networks 4; a system's own stages what their cost states. A training step keeps what autograd
    saves, counted on the meta device in bfloat16 with fused attention, times AUTOCAST; a forward pass takes the
    tensors that live at its peak, in float32. A stage in float32 has no copy, frozen parameters of 4 bytes, and
    saves twice the bytes of pure bfloat16.
    """
    if cost := system_cost(stage):
        return cost.memory
    return MEMORY[type(stage)](stage) if type(stage) in MEMORY else None


def _pretrain(stage: Pretrain) -> Memory:
    shape = stage.corpus.n_chans, stage.corpus.world.n_times
    parameters, saved = _pretrain_memory(stage.encoder, stage.decoder, *shape, stage.mask_ratio, stage.class_token,
                                         stage.rounding)
    return Memory(_trained_bytes(stage) * parameters, _saved_as(stage, saved), stage.schedule.batch)


def _finetune(stage: Finetune) -> Memory:
    trained, unet = trained_parameters(stage), 0
    if stage.sd_loss:
        unet = part_parameters("stable_diffusion_unet") - trained["unet"]
    vae = part_parameters("stable_diffusion_vae") if stage.targets.views == 0 else 0
    fixed = _trained_bytes(stage) * sum(trained.values()) + _frozen_bytes(stage) * (unet + vae)
    return Memory(fixed, _saved_as(stage, _finetune_bytes(stage)), stage.schedule.batch)


def _generate(stage: Generate) -> Memory:
    """Memory of generation: the U-Net and the VAE; in float32 the encoder and what was trained, or CLIP for captions.
    """
    frozen = _images(stage.sampling.batch, ("decode",), _frozen_bytes(stage), "stable_diffusion_unet",
                     "stable_diffusion_vae")
    if isinstance(stage.model, Captions):
        return replace(frozen, fixed=frozen.fixed + 4 * part_parameters("clip"))
    trained = trained_parameters(stage.model)
    encoder = networks.encoder_on_meta(encoder_of(stage.model), *shape_of(stage.items))[0]
    kept = count_parameters(encoder) + trained["tau"] + trained["head"]
    return replace(frozen, fixed=frozen.fixed + 4 * kept + (4 - _frozen_bytes(stage)) * trained["unet"])


def _trained_bytes(stage: Any) -> int:
    """Bytes of a trained parameter: value, gradient and two moments in float32, and autocast's copy."""
    return 16 if stage.numerics.dtype == "float32" else 18


def _frozen_bytes(stage: Any) -> int:
    """Bytes of a frozen parameter."""
    return 4 if stage.numerics.dtype == "float32" else 2


def _saved_as(stage: Any, saved: int) -> int:
    """Bytes that autograd saves in the stage's dtype; saved: with autocast."""
    return round(2 * saved / AUTOCAST) if stage.numerics.dtype == "float32" else saved


def _images(at_once: int, passes: Sequence[str], bytes_each: int, *networks: str) -> Memory:
    """Memory of forward passes, one after the other: `forward_bytes` of each, bytes of a parameter, images at once."""
    return Memory(bytes_each * sum(map(part_parameters, networks)), max(map(forward_bytes, passes)), at_once)


MEMORY: dict[type[Stage], Callable[[Any], Memory]] = {
    Pretrain: _pretrain, Finetune: _finetune, Generate: _generate,
    Targets: lambda stage: _images(TARGETS_AT_ONCE, ("encode", "clip"), _frozen_bytes(stage), "clip",
                                   "stable_diffusion_vae"),
    Score: lambda stage: _images(SCORED_AT_ONCE, ("judge", "clip", "inception"), 4, "judge", "clip", "inception",
                                 "alexnet"),
    Reference: lambda stage: _images(REFERENCE_AT_ONCE, ("judge",), 4, "judge"),
    TrainFeatures: lambda stage: _images(SCORED_AT_ONCE, ("judge", "clip"), 4, "judge", "clip")}


def trained_parameters(stage: Finetune) -> dict[str, int]:
    """The numbers of parameters that fine-tuning trains: encoder, tau (with the map to the time step), head, U-Net."""
    encoder, (tokens, width) = networks.encoder_on_meta(encoder_of(stage), *shape_of(stage.items))
    opens = OPENS[stage.tune]
    counts = {"encoder": count_parameters(encoder) if "E" in opens else 0, "tau": 0, "head": 0, "unet": 0}
    if "tau" in opens:
        counts["tau"] = count_parameters(networks.tau_on_meta(tokens, width, stage.tau))
        if stage.time_condition:
            counts["tau"] += count_parameters(networks.time_condition_on_meta())
    if stage.align:
        counts["head"] = count_parameters(networks.head_on_meta(stage.aligned, tokens, width, head_size(stage)))
    if stage.sd_loss and opens & {"A", "norm2"}:
        counts["unet"] = _count_opened(frozenset(opens & {"A", "norm2"}))
    return counts


@functools.cache
def _count_opened(opens: frozenset[str]) -> int:
    """The number of the U-Net's parameters that train (`networks.unet_on_meta`)."""
    return sum(p.numel() for p in networks.unet_on_meta(opens).parameters() if p.requires_grad)


@networks.by_depth
def _pretrain_memory(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int, mask_ratio: float,
                     class_token: bool, rounding: str) -> tuple[int, int]:
    """Parameters of the masked autoencoder, and bytes saved for one window."""
    model, tokens = networks.autoencoder_on_meta(encoder, decoder, n_chans, n_times, class_token)
    masking = networks.masking_on_meta(tokens, mask_ratio, rounding=rounding)
    model.train().requires_grad_(True)
    return count_parameters(model), saved_bytes(
        model, lambda dtype: model(meta(1, n_chans, n_times, dtype=dtype), masking))


@networks.by_depth
def _encoder_bytes(encoder: Encoder, n_chans: int, n_times: int) -> int:
    module = networks.encoder_on_meta(encoder, n_chans, n_times)[0].train().requires_grad_(True)
    return saved_bytes(module, lambda dtype: module(meta(1, n_chans, n_times, dtype=dtype)))


@functools.cache
def _unet_bytes(opens: frozenset[str], context: bool, time: bool) -> int:
    unet = networks.unet_on_meta(opens, time)
    return saved_bytes(unet, lambda dtype: networks.denoise(unet, context, dtype=dtype))


def _finetune_bytes(stage: Finetune) -> int:
    """Bytes saved for one trial; tau and h add almost none."""
    opens = OPENS[stage.tune]
    saved = _encoder_bytes(encoder_of(stage), *shape_of(stage.items)) if "E" in opens else 0
    if stage.sd_loss:
        saved += _unet_bytes(frozenset(opens & {"A", "norm2"}), bool(opens & {"E", "tau"}), stage.time_condition)
    return max(saved, forward_bytes("encode")) if stage.targets.views == 0 else saved


def disk(stage: Stage) -> int:
    """Bytes that a stage leaves on disk, large files only; of a corpus an upper bound, as its shards are unpadded."""
    if cost := system_cost(stage):
        return cost.disk
    if isinstance(stage, Corpus):  # fewer electrodes are read from the same files
        return 0 if stage.channels else sizes.PUBLISHED_WINDOWS * stage.world.n_chans * stage.world.n_times * 2
    if isinstance(stage, Trials):
        data = size_of(stage)
        return sum(data.trials.values()) * stage.n_chans * stage.world.n_times * 2 + image_bytes(data.pictures)
    if isinstance(stage, Pretrain):
        encoder, _ = networks.encoder_on_meta(stage.encoder, stage.corpus.n_chans, stage.corpus.world.n_times)
        return 4 * count_parameters(encoder)
    if isinstance(stage, Targets):
        number = 4 if stage.views == 1 else 2  # bytes of mean and standard deviation
        return size_of(stage.trials).pictures * (stage.views * 2 * 4 * (PIXELS // 8)**2 * number + EMBEDDING * 4)
    if isinstance(stage, Finetune):
        return 4 * sum(trained_parameters(stage).values()) * stage.checkpoints
    if isinstance(stage, (Generate, Trivial)):
        return image_bytes(count_trials(stage.items) * samples_of(stage))
    if isinstance(stage, TrainFeatures):
        return count_images(Items(stage.trials, "train")) * (JUDGED + EMBEDDING) * 4
    return count_reference_images(stage) * JUDGED * 4 if isinstance(stage, Reference) else 0
