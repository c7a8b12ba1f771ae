"""ATM with guided diffusion (Li et al., NeurIPS 2024): EEG into CLIP space, a diffusion prior there, and an IP-Adapter
that draws; beside it a path to the VAE's latent and one over captions.

ENIGMA's direct path (arXiv 2602.10361) is encoder="enigma", loss="direct", prior=False.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from bench.errors import BenchError
from bench.experiment.key import Stage
from bench.experiment.kinds import FrozenPart, Kind, register, register_parts
from bench.experiment.scale import Scale, sized
from bench.experiment.stages import ORACLES, Items, Numerics, Sampling, Score, Targets, Weights, training

ENCODERS = ("atm", "nice", "eegnet", "enigma", "mlp")
LOSSES = ("generation", "retrieval", "written", "direct")
QUIRKS = ("faithful", "fixed")
EMBEDDING = 1024  # D' of CLIP ViT-H/14
LEAST = 16  # samples of EEG that the encoders' kernels need (models.encoders.nice)


@dataclass(frozen=True)
class Spec:
    """A row of Li et al.'s tables. Raises BenchError for a value outside its range.

    encoder      "atm" (ATM-S), "nice", "eegnet", "enigma" or "mlp"
    quirks       "faithful": as the code was released; "fixed": as the paper has it. In every encoder the logit scale,
                 which is used without exp, and features, which keep their norm; in ATM also positions of channels,
                 which are never added, the numbers of subjects, and the last channel, which is dropped
    loss         "generation" or "retrieval": the released code's; "written": the paper's; "direct": ENIGMA's
    prior        the diffusion prior; False: the encoder's embeddings go to the adapter as they are
    clip_sample  the prior's estimates are cut to -1 to 1, as by the released code's scheduler
    low_level    drawing begins from the latent that a network of its own makes of the EEG
    caption      a caption of the drawn embedding is the prompt; False: the empty prompt
    checkpoint   (2, 5): the second of five states of the encoder, evenly over its training; None: the last
    eeg_free: as of On.
    """

    name: str = field(default="ATM", compare=False)
    encoder: str = "atm"
    quirks: str = "faithful"
    loss: str = "generation"
    prior: bool = True
    clip_sample: bool = True
    low_level: bool = False
    caption: bool = False
    checkpoint: tuple[int, int] | None = None
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "guided"

    def __post_init__(self) -> None:
        for what, value, known in (("encoder", self.encoder, ENCODERS), ("quirks", self.quirks, QUIRKS),
                                   ("loss", self.loss, LOSSES)):
            if value not in known:
                raise BenchError(f"variant {self.name!r}: {what} is one of {', '.join(known)}, not {value!r}")
        for what, given in (("prior", self.prior), ("clip_sample", self.clip_sample), ("low_level", self.low_level),
                            ("caption", self.caption)):
            if not isinstance(given, bool):
                raise BenchError(f"variant {self.name!r}: {what} is True or False, not {given!r}")
        if not self.prior and not self.clip_sample:
            raise BenchError(f"variant {self.name!r}: clip_sample=False is a setting of the prior, and prior=False has "
                             "none; leave it out")
        if self.checkpoint is not None and not 1 <= self.checkpoint[0] <= self.checkpoint[1]:
            raise BenchError(f"variant {self.name!r}: checkpoint is (which, of how many), such as (2, 5), not "
                             f"{self.checkpoint!r}")


@dataclass(frozen=True)
class EncoderSchedule:
    """AdamW at one rate; what is left of an epoch that fills no batch is left out."""

    epochs: int
    batch: int
    lr: float
    weight_decay: float = 0.01
    clip_norm: float | None = None  # 1 with ENIGMA's loss


@dataclass(frozen=True)
class PriorSchedule:
    """Adam with linear warm-up and half-cosine decay. condition_dropout: share of batches without any condition."""

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
    """AdamW at one rate."""

    epochs: int
    batch: int
    lr: float
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Network:
    """An encoder's dimensions (models.guided). filters, width: of ATM, NICE and ENIGMA the convolution's filters and
    features of a token; of EEGNet its temporal filters and spatial ones of each; of the MLP hidden rows and columns."""

    encoder: str
    quirks: str
    filters: int
    width: int


@dataclass(frozen=True)
class PriorSampling:
    """Ancestral sampling of the prior with classifier-free guidance."""

    steps: int = 50
    guidance: float = 5.0
    clip_sample: bool = True


@dataclass(frozen=True)
class Sizes:
    """The networks and schedules of a scale.

    networks: (filters, width) of each encoder. prior, prior_time: widths of the prior, and of its sinusoids. hidden: of
    a channel on the low-level path; widths: of its maps, as many as the latent's side has doublings. turbo: SDXL-Turbo
    draws, in so many steps without guidance, from embeddings of CLIP ViT-H/14, and GIT says captions, by `captions`; 0:
    the scale's U-Net, CLIP, captioner and sampling.
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
        """An encoder's dimensions."""
        return next(Network(encoder, quirks, *sizes) for name, *sizes in self.networks if name == encoder)


# Released code, but for the prior's steps: its 150 epochs of THINGS-EEG2's 66,160 trials, whatever the data set.
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
SIZES = {"paper": PAPER, "tiny": TINY, "micro": MICRO, "rehearsal": REHEARSAL}
STRENGTH = 0.5  # of image-to-image where there is a low-level path (released code)


@dataclass(frozen=True)
class GuidedEncoder(Stage):
    """An encoder of EEG into CLIP space, trained on the pictures' and class names' embeddings; its last step.

    The released code reports the epoch that is best on the test set. checkpoints: states kept, evenly over the steps;
    the last is the model.
    """

    items: Items
    targets: Targets
    network: Network
    loss: str
    schedule: EncoderSchedule
    seed: int
    numerics: Numerics
    checkpoints: int = 1


@dataclass(frozen=True)
class GuidedPrior(Stage):
    """The diffusion prior, trained on what the encoder makes of its own training trials. checkpoint: of the encoder,
    from 1 on; None: its last."""

    encoder: GuidedEncoder
    checkpoint: int | None
    widths: tuple[int, ...]
    time: int
    schedule: PriorSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class GuidedLowLevel(Stage):
    """From EEG to the VAE's latent of the whole picture, L1; its last step."""

    items: Items
    targets: Targets
    hidden: int
    widths: tuple[int, ...]
    schedule: LowLevelSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class GuidedCaptions(Stage):
    """What lets GIT, which is frozen, see an embedding: trained, on the pictures of `items`, to say of their embeddings
    what GIT's vision tower says of them, without any EEG."""

    items: Items
    targets: Targets
    git: Weights
    schedule: CaptionSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class GuidedPictures(Stage):
    """Pictures of every item's EEG, in Generate's format, and embedding.npy, what the encoder makes of it.

    prior: None: the encoder's embeddings are drawn. low_level: what makes the latents to begin from, with `strength`,
    the share of the steps that is left. captions: what says the prompt; None: the empty prompt. unet: with vae None a
    pipeline's folder, in which the VAE and what encodes prompts are, too.
    """

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
        """Of each item."""
        return self.sampling.samples

    def at_checkpoint(self, which: int, many: int) -> GuidedPictures:
        """The same of a state of the encoder, `which` of so many, evenly over its steps; the prior is trained on what
        that makes."""
        encoder, checkpoint = replace(self.encoder, checkpoints=many), None if which == many else which
        prior = self.prior and replace(self.prior, encoder=encoder, checkpoint=checkpoint)
        return replace(self, encoder=encoder, checkpoint=checkpoint, prior=prior)


@dataclass(frozen=True)
class GuidedEmbedding(Stage):
    """What the encoder makes of every item's EEG: embedding.npy [N, D'], item.npy [N]. No picture is drawn."""

    encoder: GuidedEncoder
    checkpoint: int | None
    items: Items
    numerics: Numerics


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """The encoder, the prior on its embeddings, the low-level path, and the pictures: nothing is run here."""
    sizes, times = sized(SIZES, scale, spec.system), items.trials.world.n_times
    if items.eeg in ORACLES or times < LEAST:
        found = f"the oracle {items.eeg!r} has no samples" if items.eeg in ORACLES else f"these have {times}"
        raise BenchError(f"variant {spec.name!r}: the encoders' kernels need {LEAST} samples of EEG, and {found}")
    unet, clip = (scale.weights(part) for part in (("turbo", "clip_h") if sizes.turbo else ("unet", "clip")))
    vae = _vae_of(unet) if sizes.turbo else scale.weights("vae")
    sampling = replace(scale.sampling, steps=sizes.turbo, guidance=1.0) if sizes.turbo else scale.sampling
    known = training(items)
    targets = Targets(items.trials, clip, vae, 0 if sizes.turbo else min(1, scale.views), scale.alone)
    schedule = replace(sizes.encoder_schedule, clip_norm=1.0 if spec.loss == "direct" else None)
    encoder = GuidedEncoder(known, targets, sizes.network(spec.encoder, spec.quirks), spec.loss, schedule, seed,
                            scale.fp32)
    prior = GuidedPrior(encoder, None, sizes.prior, sizes.prior_time, sizes.prior_schedule, seed,
                        scale.fp32) if spec.prior else None
    low_level = GuidedLowLevel(known, replace(targets, views=1), sizes.hidden, sizes.widths, sizes.low_level_schedule,
                               seed, scale.fp32) if spec.low_level else None
    captions: GuidedCaptions | Weights | None = None
    if spec.caption:
        captions = scale.weights("captioner")
        if sizes.captions:
            captions = GuidedCaptions(known, targets, captions, sizes.captions, seed, scale.alone)
    pictures = GuidedPictures(encoder, None, prior, PriorSampling(clip_sample=spec.clip_sample), low_level,
                              captions, items, scale.weights("adapter"), unet, None if sizes.turbo else vae, clip,
                              sampling, STRENGTH if spec.low_level else 1.0, seed, scale.alone)
    return scale.score(pictures.at_checkpoint(*spec.checkpoint) if spec.checkpoint else pictures, items)


def embedding(spec: Spec, items: Items, scale: Scale, seed: int) -> tuple[GuidedEmbedding, Targets]:
    """What `plan` draws from where there is no prior, and what its encoder aims at."""
    drawn: Any = plan(spec, items, scale, seed).pictures
    return GuidedEmbedding(drawn.encoder, drawn.checkpoint, items, scale.fp32), drawn.encoder.targets


def _vae_of(pipeline: Weights) -> Weights:
    """The VAE in a pipeline's folder, which is known by the pipeline's hash."""
    path = f"{pipeline.path}/vae" if pipeline.path else ""
    return Weights(f"{pipeline.name}/vae", f"beside {pipeline.sha256}", path)


_kind = partial(Kind, forecast="bench.cost.systems.guided:seconds", cost="bench.cost.systems.guided:cost")
register({
    GuidedEncoder: _kind("bench.train.guided:train_encoder", "finetune", trains=True),
    GuidedPrior: _kind("bench.train.guided:train_prior", "finetune", trains=True),
    GuidedLowLevel: _kind("bench.train.guided:train_low_level", "finetune", trains=True),
    GuidedCaptions: _kind("bench.train.guided:train_captions", "finetune", trains=True, omits="what GIT says"),
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
