"""DreamDiffusion (Bai et al., ECCV 2024): masked pre-training, fine-tuning with Stable Diffusion, CLIP alignment."""

from __future__ import annotations

from bench.errors import BenchError
from bench.experiment import encoders
from bench.experiment.scale import Scale
from bench.experiment.stages import Finetune, Generate, Items, Pretrain, Score, Targets, training
from bench.experiment.variant import Variant


def plan(variant: Variant, items: Items, scale: Scale, seed: int) -> Score:
    """The whole of a row, in the method's order (Fig. 2): nothing is run here."""
    vae, clip, unet = (scale.weights(part) for part in ("vae", "clip", "unet"))
    world = items.trials.world
    encoder = encoders.encoder(variant, scale, world)
    tokens = world.n_times // encoder.patch
    if variant.mask_ratio is not None and not encoder.code and not 0 < int(tokens * variant.mask_ratio) < tokens:
        raise BenchError(f"variant {variant.name!r}: mask_ratio={variant.mask_ratio} masks "
                         f"{int(tokens * variant.mask_ratio)} of {tokens} tokens: at least one must be, and not all")
    if scale.sampling.guidance != 1 and not scale.finetune.condition_dropout:
        raise BenchError(f"variant {variant.name!r}: guidance {scale.sampling.guidance:g} needs a condition that is "
                         "dropped in training, and condition_dropout is 0")
    start = encoder if variant.mask_ratio is None else Pretrain(
        scale.windows(), encoder, scale.decoder, variant.mask_ratio, scale.pretrain,
        seed if scale.pretrain_seeds == "each" else 0, scale.numerics)
    targets = Targets(items.trials, clip, vae, scale.views, scale.alone)
    model = Finetune(training(items), targets, unet, clip, start, variant.align, variant.aligned,
                     variant.sd_loss, variant.tune, variant.time_condition, scale.finetune, seed, scale.numerics)
    pictures = Generate(model, items, vae, scale.sampling, seed, scale.alone)
    return scale.score(pictures, items)


def embedding(variant: Variant, items: Items, scale: Scale, seed: int) -> tuple[Generate, Targets]:
    """What h makes of the EEG, which lies beside the pictures, and what it aims at. Raises BenchError for a variant
    without CLIP."""
    drawn = plan(variant, items, scale, seed).pictures
    assert isinstance(drawn, Generate)
    assert isinstance(drawn.model, Finetune)
    if variant.align != "clip":
        raise BenchError(f"variant {variant.name!r}: align={variant.align!r} leaves no embedding in CLIP space to "
                         "retrieve pictures by")
    return drawn, drawn.model.targets
