"""ATM with guided diffusion (Li et al., NeurIPS 2024): EEG to CLIP space, a diffusion prior there, images by an
IP-Adapter; optionally a low-level path to the VAE's latent and a caption path.

ENIGMA's direct path (arXiv 2602.10361) is encoder="enigma", loss="direct", prior=False.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from bench.experiment.key import Stage
from bench.experiment.kinds import FrozenPart, Kind, register, register_parts
from bench.experiment.scale import Scale, sized
from bench.experiment.stages import ORACLES, Features, Items, Numerics, Sampling, Score, Targets, Weights, training
from bench.experiment.variant import check_checkpoint, check_choices, check_flags, refuse

ENCODERS = ("atm", "nice", "eegnet", "enigma", "mlp")
LOSSES = ("generation", "retrieval", "written", "direct")
QUIRKS = ("faithful", "fixed")
EMBEDDING = 1024  # D' of CLIP ViT-H/14
LEAST = 16  # samples of EEG that the encoders' kernels need (models.encoders.nice)


@dataclass(frozen=True)
class Spec:
    """A row of Li et al.'s tables. Raises BenchError for a value outside its range.

    encoder      "atm" (ATM-S), "nice", "eegnet", "enigma" or "mlp"
    quirks       "faithful": as in the released code; "fixed": as in the paper. The quirks: in every encoder the logit
                 scale is used without exp and features are not normalised; in ATM also channel positions are never
                 added, subject 10 counts as unknown, and the last channel is dropped (models.encoders.atm)
    loss         "generation" or "retrieval": the released code's; "written": the paper's; "direct": ENIGMA's
    prior        the diffusion prior; False: the adapter gets the encoder's embeddings directly
    clip_sample  the prior's estimates are clipped to [-1, 1], as by the released code's scheduler
    normalised   the adapter gets the prior's samples scaled to unit length; False: as they are (released code). Without
                 the prior it gets the encoder's embeddings, always scaled, because the losses leave their length free
    low_level    sampling starts from a latent that a separate network predicts from the EEG
    caption      the prompt is a caption of the sampled embedding; False: the empty prompt
    checkpoint   (2, 5): the second of five states of the encoder, evenly spaced over its training; None: the last
    eeg_free     as in On
    """

    name: str = field(default="ATM", compare=False)
    encoder: str = "atm"
    quirks: str = "faithful"
    loss: str = "generation"
    prior: bool = True
    clip_sample: bool = True
    normalised: bool = False
    low_level: bool = False
    caption: bool = False
    checkpoint: tuple[int, int] | None = None
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "guided"

    def __post_init__(self) -> None:
        check_choices(self, encoder=ENCODERS, quirks=QUIRKS, loss=LOSSES)
        check_flags(self, "prior", "clip_sample", "normalised", "low_level", "caption")
        if not self.prior and not self.clip_sample:
            raise refuse(self, "clip_sample=False is a setting of the prior, but prior=False; leave it out")
        if not self.prior and self.normalised:
            raise refuse(self, "normalised=True is a setting of the prior, but prior=False; leave it out")
        check_checkpoint(self)


@dataclass(frozen=True)
class EncoderSchedule:
    """AdamW with a constant rate; the incomplete last batch of an epoch is dropped."""

    epochs: int
    batch: int
    lr: float
    weight_decay: float = 0.01
    clip_norm: float | None = None  # 1 with ENIGMA's loss


@dataclass(frozen=True)
class PriorSchedule:
    """Adam with linear warm-up and half-cosine decay. condition_dropout: share of batches without a condition."""

    steps: int
    batch: int
    lr: float
    warmup: int
    clip_norm: float = 1.0
    condition_dropout: float = 0.1


@dataclass(frozen=True)
class LowLevelSchedule:
    """AdamW with half-cosine decay to `lr_end`."""

    epochs: int
    batch: int
    lr: float
    lr_end: float = 1e-6
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class CaptionSchedule:
    """AdamW with a constant rate."""

    epochs: int
    batch: int
    lr: float
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Network:
    """An encoder's dimensions (models.guided). filters, width: ATM, NICE and ENIGMA: the convolution's filters, and
    features per token; EEGNet: temporal filters, and spatial filters for each; MLP: hidden rows and columns."""

    encoder: str
    quirks: str
    filters: int
    width: int


@dataclass(frozen=True)
class PriorSampling:
    """Ancestral sampling of the prior with classifier-free guidance. normalised: samples are scaled to unit length."""

    steps: int = 50
    guidance: float = 5.0
    clip_sample: bool = True
    normalised: bool = False


@dataclass(frozen=True)
class Sizes:
    """Networks and schedules of a scale.

    networks: (encoder, filters, width). prior, prior_time: widths of the prior and of its sinusoidal time embedding.
    hidden, widths: of the low-level path, features per channel, and widths of its maps, one for each doubling up to the
    latent's side. turbo: steps of SDXL-Turbo without guidance, from embeddings of CLIP ViT-H/14, with captions by GIT
    (`captions`); 0: the scale's U-Net, CLIP, captioner and sampling.
    """

    networks: tuple[tuple[str, int, int], ...]
    prior: tuple[int, ...]
    prior_time: int
    hidden: int
    widths: tuple[int, ...]
    encoder_schedule: EncoderSchedule
    prior_schedule: PriorSchedule
    low_level_schedule: LowLevelSchedule
    turbo: int = 0
    captions: CaptionSchedule | None = None

    def network(self, encoder: str, quirks: str) -> Network:
        """Returns an encoder's dimensions."""
        return next(Network(encoder, quirks, *sizes) for name, *sizes in self.networks if name == encoder)


# Released code, except that the prior's steps, 150 epochs of THINGS-EEG2's 66,160 trials, are fixed for all data sets.
PAPER = Sizes(
    networks=(("atm", 40, 40), ("nice", 40, 40), ("eegnet", 8, 20), ("enigma", 40, 4), ("mlp", 64, 1024)),
    prior=(1024, 512, 256, 128, 64), prior_time=512, hidden=128, widths=(1024, 512, 256, 128, 64, 32),
    encoder_schedule=EncoderSchedule(epochs=40, batch=64, lr=3e-4),
    prior_schedule=PriorSchedule(steps=9750, batch=1024, lr=1e-3, warmup=500),
    low_level_schedule=LowLevelSchedule(epochs=200, batch=30, lr=1e-3),
    turbo=4, captions=CaptionSchedule(epochs=30, batch=32, lr=1e-3))
TINY = Sizes(
    networks=(("atm", 24, 24), ("nice", 24, 24), ("eegnet", 8, 8), ("enigma", 24, 4), ("mlp", 32, 128)),
    prior=(256, 128, 64), prior_time=64, hidden=16, widths=(128, 64, 32),
    encoder_schedule=EncoderSchedule(epochs=16, batch=64, lr=3e-3),
    prior_schedule=PriorSchedule(steps=1500, batch=128, lr=3e-3, warmup=100),
    low_level_schedule=LowLevelSchedule(epochs=10, batch=30, lr=3e-3))
MICRO = Sizes(
    networks=(("atm", 4, 4), ("nice", 4, 4), ("eegnet", 2, 2), ("enigma", 4, 4), ("mlp", 4, 8)),
    prior=(16, 8), prior_time=16, hidden=4, widths=(16, 8, 4),
    encoder_schedule=EncoderSchedule(epochs=2, batch=16, lr=1e-3),
    prior_schedule=PriorSchedule(steps=20, batch=32, lr=1e-3, warmup=2),
    low_level_schedule=LowLevelSchedule(epochs=2, batch=16, lr=1e-3))
REHEARSAL = replace(MICRO, encoder_schedule=EncoderSchedule(epochs=2, batch=16, lr=1e-3),
                    prior_schedule=PriorSchedule(steps=4, batch=32, lr=1e-3, warmup=2),
                    low_level_schedule=LowLevelSchedule(epochs=1, batch=16, lr=1e-3),
                    turbo=4, captions=CaptionSchedule(epochs=1, batch=32, lr=1e-3))
# Two cores: a tenth of the released code's passes, in larger batches at a higher rate (docs/laptop.md).
LAPTOP = replace(PAPER, encoder_schedule=EncoderSchedule(epochs=4, batch=256, lr=1e-3))
SIZES = {"paper": PAPER, "laptop": LAPTOP, "tiny": TINY, "micro": MICRO, "rehearsal": REHEARSAL}
STRENGTH = 0.5  # of image-to-image with the low-level path (released code)


@dataclass(frozen=True)
class GuidedEncoder(Stage):
    """An encoder of EEG to CLIP space, trained on the embeddings of images and class names; the last step is the result
    (released code: the best epoch on the test set). checkpoints: stored, evenly spaced over the steps."""

    items: Items
    targets: Targets | Features
    network: Network
    loss: str
    schedule: EncoderSchedule
    seed: int
    numerics: Numerics
    checkpoints: int = 1


@dataclass(frozen=True)
class GuidedPrior(Stage):
    """The diffusion prior, trained on the encoder's embeddings of its training trials. checkpoint: of the encoder; 1 is
    the first, None the last."""

    encoder: GuidedEncoder
    checkpoint: int | None
    widths: tuple[int, ...]
    time: int
    schedule: PriorSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class GuidedLowLevel(Stage):
    """A network from EEG to the VAE's latent of the whole image, L1 loss; the last step is the result."""

    items: Items
    targets: Targets
    hidden: int
    widths: tuple[int, ...]
    schedule: LowLevelSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class GuidedCaptions(Stage):
    """A map from an image's CLIP embedding to the input of the frozen captioner GIT, trained without EEG on the images
    of `items` to match GIT's vision tower."""

    items: Items
    targets: Targets
    git: Weights
    schedule: CaptionSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class GuidedPictures(Stage):
    """Images from every item's EEG, in Generate's format, and the encoder's embeddings (embedding.npy).

    prior      None: images are generated from the encoder's embeddings, scaled to unit length
    low_level  predicts the starting latents; `strength` is the share of sampling steps that remain
    captions   makes the prompts; None: empty prompts
    unet       if vae is None, the folder of a pipeline that contains the VAE and the prompt encoders too
    """

    version: ClassVar[int] = 2

    encoder: GuidedEncoder
    checkpoint: int | None
    prior: GuidedPrior | None
    prior_sampling: PriorSampling
    low_level: GuidedLowLevel | None
    captions: GuidedCaptions | Weights | None
    items: Items
    adapter: Weights
    unet: Weights
    vae: Weights | None
    clip: Weights
    sampling: Sampling
    strength: float
    seed: int
    numerics: Numerics

    @property
    def samples(self) -> int:
        """Samples per item."""
        return self.sampling.samples

    def at_checkpoint(self, which: int, many: int) -> GuidedPictures:
        """Returns the stage for state `which` of `many` of the encoder, with a prior trained on its embeddings."""
        encoder, checkpoint = replace(self.encoder, checkpoints=many), None if which == many else which
        prior = self.prior and replace(self.prior, encoder=encoder, checkpoint=checkpoint)
        return replace(self, encoder=encoder, checkpoint=checkpoint, prior=prior)


@dataclass(frozen=True)
class GuidedEmbedding(Stage):
    """The encoder's embeddings of every item's EEG, without images: embedding.npy [N, D'], item.npy [N]."""

    encoder: GuidedEncoder
    checkpoint: int | None
    items: Items
    numerics: Numerics


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Plans the encoder, the prior, the other paths and the images. Raises BenchError for EEG that is too short."""
    sizes = sized(SIZES, scale, spec.system)
    _check_items(spec, items)
    unet, clip, vae, sampling = plan_generator(scale)
    train = training(items)
    targets = Targets(items.trials, clip, vae, 0 if sizes.turbo else min(1, scale.views), scale.single_process)
    encoder = _plan_encoder(spec, items, targets, sizes, scale, seed)
    prior = GuidedPrior(encoder, None, sizes.prior, sizes.prior_time, sizes.prior_schedule, seed,
                        scale.fp32) if spec.prior else None
    low_level = GuidedLowLevel(train, replace(targets, views=1), sizes.hidden, sizes.widths, sizes.low_level_schedule,
                               seed, scale.fp32) if spec.low_level else None
    captions: GuidedCaptions | Weights | None = None
    if spec.caption:
        captions = scale.weights("captioner")
        if sizes.captions:
            captions = GuidedCaptions(train, targets, captions, sizes.captions, seed, scale.single_process)
    prior_sampling = PriorSampling(clip_sample=spec.clip_sample, normalised=spec.normalised)
    images = GuidedPictures(encoder, None, prior, prior_sampling, low_level, captions, items, scale.weights("adapter"),
                            unet, None if sizes.turbo else vae, clip, sampling, STRENGTH if spec.low_level else 1.0,
                            seed, scale.single_process)
    return scale.score(images.at_checkpoint(*spec.checkpoint) if spec.checkpoint else images, items)


def plan_generator(scale: Scale) -> tuple[Weights, Weights, Weights, Sampling]:
    """Returns the U-Net, CLIP, the VAE and the sampling of a scale's IP-Adapter. If the VAE's name begins with the
    U-Net's, the U-Net is the folder of a pipeline (SDXL-Turbo) that contains it."""
    turbo = sized(SIZES, scale, Spec.system).turbo
    unet, clip = (scale.weights(part) for part in (("turbo", "clip_h") if turbo else ("unet", "clip")))
    vae = _vae_of(unet) if turbo else scale.weights("vae")
    return unet, clip, vae, replace(scale.sampling, steps=turbo, guidance=1.0) if turbo else scale.sampling


def embedding(spec: Spec, items: Items, scale: Scale, seed: int) -> tuple[GuidedEmbedding, Targets | Features]:
    """Plans the encoder's embeddings of the items, and its targets, for retrieval."""
    if scale.retrieval_only:
        _check_items(spec, items)
        features = Features(items.trials)
        encoder = _plan_encoder(spec, items, features, sized(SIZES, scale, spec.system), scale, seed)
        if spec.checkpoint:
            encoder = replace(encoder, checkpoints=spec.checkpoint[1])
        checkpoint = spec.checkpoint[0] if spec.checkpoint and spec.checkpoint[0] != spec.checkpoint[1] else None
        return GuidedEmbedding(encoder, checkpoint, items, scale.fp32), features
    images: Any = plan(spec, items, scale, seed).pictures
    return GuidedEmbedding(images.encoder, images.checkpoint, items, scale.fp32), images.encoder.targets


def _check_items(spec: Spec, items: Items) -> None:
    """Raises BenchError for an oracle, and for EEG that is too short."""
    times = items.trials.world.n_times
    if items.eeg in ORACLES or times < LEAST:
        given = f"the oracle {items.eeg!r} has no samples" if items.eeg in ORACLES else f"these items have {times}"
        raise refuse(spec, f"the encoders' kernels need {LEAST} samples of EEG, but {given}")


def _plan_encoder(spec: Spec, items: Items, targets: Targets | Features, sizes: Sizes, scale: Scale,
                  seed: int) -> GuidedEncoder:
    """Plans the encoder's training."""
    schedule = replace(sizes.encoder_schedule, clip_norm=1.0 if spec.loss == "direct" else None)
    return GuidedEncoder(training(items), targets, sizes.network(spec.encoder, spec.quirks), spec.loss, schedule, seed,
                         scale.fp32)


def _vae_of(pipeline: Weights) -> Weights:
    """Returns the VAE in a pipeline's folder; it is identified by the pipeline's hash."""
    path = f"{pipeline.path}/vae" if pipeline.path else ""
    return Weights(f"{pipeline.name}/vae", f"beside {pipeline.sha256}", path)


_kind = partial(Kind, forecast="bench.cost.systems.guided:seconds", cost="bench.cost.systems.guided:cost")
register({
    GuidedEncoder: _kind("bench.train.guided:train_encoder", "finetune", trains=True),
    GuidedPrior: _kind("bench.train.guided:train_prior", "finetune", trains=True),
    GuidedLowLevel: _kind("bench.train.guided:train_low_level", "finetune", trains=True),
    GuidedCaptions: _kind("bench.train.guided:train_captions", "finetune", trains=True, omits="GIT's captions"),
    GuidedPictures: _kind("bench.train.guided:generate_images", "generate"),
    GuidedEmbedding: _kind("bench.train.guided:embed_items", "generate"),
})
register_parts({
    "turbo": FrozenPart(size="bench.cost.systems.guided:turbo_bytes"),
    "adapter": FrozenPart(size="bench.cost.systems.guided:adapter_bytes"),
    "clip_h": FrozenPart(size="bench.cost.systems.guided:clip_h_bytes"),
    "captioner": FrozenPart(size="bench.cost.systems.guided:captioner_bytes"),
    "swav": FrozenPart(),
})
