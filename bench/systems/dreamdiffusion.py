"""DreamDiffusion (Bai et al., ECCV 2024): masked pre-training, fine-tuning with Stable Diffusion, CLIP alignment."""

from __future__ import annotations

from dataclasses import replace

from bench.experiment import encoders
from bench.experiment.scale import Scale
from bench.experiment.stages import Finetune, Generate, Items, Pretrain, Score, Targets, training
from bench.experiment.variant import Variant, refuse


def plan(variant: Variant, items: Items, scale: Scale, seed: int) -> Score:
    """Plans a row in the order of the method (Fig. 2). Raises BenchError for settings that do not fit together."""
    vae, clip, unet = map(scale.weights, ("vae", "clip", "unet"))
    world = items.trials.world
    encoder = encoders.resolve(variant, scale, world)
    tokens = world.n_times // encoder.patch
    ratio = variant.mask_ratio or 0
    masked = int(tokens * ratio) if variant.rounding == "masked" else tokens - int(tokens * (1 - ratio))
    if variant.mask_ratio is not None and not encoder.code and not 0 < masked < tokens:
        raise refuse(variant, f"mask_ratio={variant.mask_ratio} masks {masked} of {tokens} tokens; it must mask one or "
                              "more, but not all")
    if scale.sampling.guidance != 1 and not scale.finetune.condition_dropout:
        raise refuse(variant, f"guidance {scale.sampling.guidance:g} needs a condition that is dropped in training, but"
                              " condition_dropout is 0")
    if variant.class_token and variant.encoder != encoders.DREAMDIFFUSION:
        raise refuse(variant, f"class_token=True needs the encoder {encoders.DREAMDIFFUSION}, whose blocks accept one "
                              f"more token, not {variant.encoder}")
    decoder = scale.decoder if variant.decoder_mlp_ratio is None else replace(scale.decoder,
                                                                             mlp_ratio=variant.decoder_mlp_ratio)
    start = encoder if variant.mask_ratio is None else Pretrain(
        scale.windows(items.trials.channels), encoder, decoder, variant.mask_ratio, scale.pretrain,
        seed if scale.pretrain_seeds == "each" else 0, scale.numerics, variant.class_token, variant.rounding,
        scale.divisor)
    targets = Targets(items.trials, clip, vae, scale.views, scale.single_process)
    model = Finetune(training(items), targets, unet, clip, start, variant.align, variant.aligned, variant.sd_loss,
                     variant.tune, variant.time_condition, scale.finetune, seed, scale.numerics, tau=variant.tau)
    return scale.score(Generate(model, items, vae, scale.sampling, seed, scale.single_process), items)


def embedding(variant: Variant, items: Items, scale: Scale, seed: int) -> tuple[Generate, Targets]:
    """Plans the embedding that h makes of the EEG, stored with the images, and its targets.

    Raises BenchError for a variant without alignment to CLIP.
    """
    images = plan(variant, items, scale, seed).pictures
    assert isinstance(images, Generate)
    assert isinstance(images.model, Finetune)
    if variant.align != "clip":
        raise refuse(variant, f"align={variant.align!r} leaves no embedding in CLIP space to retrieve images by")
    return images, images.model.targets
