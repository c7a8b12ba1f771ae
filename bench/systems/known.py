"""A probe in CLIP space for worlds with known answers: an encoder with a start, trained on few pairs; no images.

The probe has the parts of DreamDiffusion that the worlds are about (pre-training, encoder, alignment to CLIP) and none
of the generator, so that a row takes a minute on one core. `docs/instrument.md` describes the worlds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from bench.data.known import PHASES
from bench.errors import NotAvailable
from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register
from bench.experiment.scale import Scale, sized
from bench.experiment.stages import (
    Corpus,
    Encoder,
    Items,
    Numerics,
    Pretrain,
    Retrieval,
    Schedule,
    Targets,
    World,
    training,
)
from bench.experiment.variant import check_choices, refuse
from bench.systems.retrieval import WAYS

STARTS = ("none", "masked", "oracle")
TARGETS = ("image", "class", "label")
_SMALL = (("n_chans", 16), ("n_times", 64), ("sfreq", 125.0), ("anatomy", 0.03))  # people are nearly alike
WORLDS: dict[str, tuple[tuple[str, float], ...]] = {  # changed fields of the scale's world (docs/instrument.md)
    "pretraining": (*_SMALL, ("pink", 2.0), ("alpha", 0.0), ("beta", 0.0), ("sensor", 6.0), ("sources", 4),
                    ("latency_jitter", 0.05), ("instance", 0.4), ("snr", 1.0)),
    "mask_ratio": (*_SMALL, ("pink", 6.0), ("alpha", 0.0), ("beta", 0.0), ("sensor", 2.0), ("sources", 8),
                   ("instance", 0.0), ("snr", 0.7)),
    "clip": (*_SMALL, ("pink", 2.0), ("alpha", 0.0), ("beta", 0.0), ("sensor", 6.0), ("instance", 1.2), ("snr", 2.0)),
}


@dataclass(frozen=True)
class Spec:
    """A row of a world with a known answer. Raises BenchError for a value outside its range.

    world       the name of a world in WORLDS; its fields replace those of the items' world, which gives the seed
    start       of the encoder: "none", new; "masked", pre-trained by masked modelling (Sec. 3.1); "oracle",
                pre-trained to predict the codes of the corpus's stimuli, which no real pre-training knows
    mask        share of tokens that masked pre-training masks
    windows     size of the corpus
    snr         signal-to-noise ratio of the corpus; the world's applies to the pairs
    phases      of the corpus (bench.data.known.randomise_phases)
    pairs       number of training pairs, drawn by the seed
    steps       of the probe's training, as a multiple of the scale's
    size        the encoder's size, by its label in the paper
    patch       samples in one of its tokens
    target      what the probe is trained on: "image", the CLIP embedding of the pair's image (Eq. 3); "class", the mean
                embedding of the images of its class (Eq. 3); "label", the class (cross-entropy; its embedding is the
                mean of the classes' embeddings, weighted by their probabilities)
    eeg_free    as in On
    dials       the fields of the world, so that they identify the row
    """

    name: str = field(compare=False)
    world: str = "pretraining"
    start: str = "none"
    mask: float = 0.75
    windows: int = 12_000
    snr: float = 4.0
    phases: str = "kept"
    pairs: int = 200
    steps: float = 1.0
    size: str = "18.3M"
    patch: int = 8
    target: str = "image"
    eeg_free: bool = field(default=False, compare=False)
    dials: tuple[tuple[str, float], ...] = field(init=False)

    system: ClassVar[str] = "known"

    def __post_init__(self) -> None:
        check_choices(self, True, world=WORLDS, start=STARTS, phases=PHASES, target=TARGETS)
        object.__setattr__(self, "dials", WORLDS[self.world])
        if not 0 < self.mask < 1:
            raise refuse(self, f"mask must be between 0 and 1, not {self.mask!r}")
        for name in ("windows", "pairs", "patch"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int) or value < 1:
                raise refuse(self, f"{name} must be an integer of at least 1, not {value!r}")
        if self.steps <= 0 or self.snr < 0:
            raise refuse(self, f"steps must be above 0 and snr at least 0, not {self.steps!r} and {self.snr!r}")


@dataclass(frozen=True)
class Sizes:
    """Schedules of a scale, and the number of people in the corpus. share: of a row's corpus and pairs that is used."""

    pretrain: Schedule
    oracle: Schedule
    probe: Schedule
    people: int = 12
    share: float = 1.0


TINY = Sizes(pretrain=Schedule(steps=2000, batch=64, lr=1e-2, warmup=50),
             oracle=Schedule(steps=800, batch=64, lr=3e-3, warmup=50),
             probe=Schedule(steps=600, batch=32, lr=1e-3, warmup=30))
MICRO = Sizes(pretrain=Schedule(steps=6, batch=16, lr=3e-3, warmup=2),
              oracle=Schedule(steps=6, batch=16, lr=2e-3, warmup=2),
              probe=Schedule(steps=6, batch=16, lr=1e-3, warmup=2), people=6, share=0.02)
SIZES = {"tiny": TINY, "micro": MICRO}


@dataclass(frozen=True)
class KnownCorpus(Corpus):
    """A corpus of time-locked windows with the codes of their stimuli, on the device of the paired recordings.

    world: its `snr` is that of the corpus. people: each gives as many windows; one in six is held out.
    """

    windows: int = 0
    people: int = 0
    phases: str = "kept"


@dataclass(frozen=True)
class KnownPretrain(Pretrain):
    """Masked pre-training as Pretrain, compared in addition with the best linear prediction from all channels."""


@dataclass(frozen=True)
class Oracle(Stage):
    """An encoder that is trained to predict the codes of the corpus's stimuli from the mean of its tokens."""

    corpus: KnownCorpus
    encoder: Encoder
    schedule: Schedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Probe(Stage):
    """An encoder and a linear map of the mean of its tokens to CLIP space, trained on `pairs` of the items (Eq. 3)."""

    items: Items
    targets: Targets
    start: KnownPretrain | Oracle | Encoder
    pairs: int
    target: str
    schedule: Schedule
    seed: int
    numerics: Numerics

    @property
    def encoder(self) -> Encoder:
        """The encoder's architecture."""
        return self.start if isinstance(self.start, Encoder) else self.start.encoder


@dataclass(frozen=True)
class ProbeEmbedding(Stage):
    """The probe's embeddings of every item's EEG: embedding.npy [N, D'], item.npy [N]."""

    model: Probe
    items: Items
    numerics: Numerics


@dataclass(frozen=True)
class Identification(Retrieval):
    """As Retrieval; in addition the class whose mean image embedding is nearest to the EEG's embedding."""


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Identification:
    """Plans the corpus, the start, the probe and the ranks of the images."""
    sizes, size = sized(SIZES, scale, spec.system), scale.size(spec.size)
    encoder = Encoder("msm_vit", size.width, size.depth, size.heads, size.mlp_ratio, spec.patch)
    world, band = items.trials.world, items.trials.band
    if not isinstance(world, World):
        raise refuse(spec, f"{world.name} is a recorded data set; worlds with known answers are simulated",
                     NotAvailable)
    dials: dict[str, Any] = dict(spec.dials)
    world = replace(world, **dials)
    items = replace(items, trials=replace(items.trials, world=world))
    targets = Targets(items.trials, scale.weights("clip"), scale.weights("vae"), 0, scale.single_process)
    start: KnownPretrain | Oracle | Encoder = encoder
    if spec.start != "none":
        windows = max(8 * sizes.people, round(spec.windows * sizes.share))
        corpus = KnownCorpus(replace(world, snr=spec.snr), band, windows=windows, people=sizes.people,
                             phases=spec.phases)
        start = Oracle(corpus, encoder, sizes.oracle, seed, scale.fp32) if spec.start == "oracle" else KnownPretrain(
            corpus, encoder, scale.decoder, spec.mask, sizes.pretrain, seed, scale.fp32)
    schedule = replace(sizes.probe, steps=max(1, round(sizes.probe.steps * spec.steps)))
    probe = Probe(training(items), targets, start, max(20, round(spec.pairs * sizes.share)), spec.target, schedule,
                  seed, scale.fp32)
    return Identification(ProbeEmbedding(probe, items, scale.fp32), items, targets, WAYS, scale.single_process)


_kind = partial(Kind, forecast="bench.cost.systems.known:seconds", cost="bench.cost.systems.known:cost")
register({
    KnownCorpus: _kind("bench.train.known:write_corpus", "corpus"),
    KnownPretrain: _kind("bench.train.known:pretrain", "pretrain", trains=True),
    Oracle: _kind("bench.train.known:train_oracle", "pretrain", trains=True),
    Probe: _kind("bench.train.known:train_probe", "finetune", trains=True),
    ProbeEmbedding: _kind("bench.train.known:embed_items", "generate"),
    Identification: _kind("bench.train.known:identify", "retrieval", on_cpu=lambda stage: True),
})
