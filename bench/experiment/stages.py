"""The stages: frozen values whose fields are everything that their output depends on. Nesting is the graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from bench.data.tiny import TinyWorld
from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register


@dataclass(frozen=True)
class Prepared:
    """A data set of EEG and pictures, as a folder (docs/data.md).

    sha256: of its manifest, which holds those of its files; "" where it is not there yet, so that it can be planned
    with and not run.
    """

    name: str
    sha256: str
    n_chans: int
    n_times: int
    sfreq: float  # Hz, of n_times
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Shards:
    """Unlabelled EEG windows, as a folder of un-padded float16 shards (docs/data.md); sha256 as of Prepared."""

    name: str
    sha256: str
    n_chans: int  # to which fewer are replicated
    n_times: int
    path: str = field(default="", compare=False)


__all__ = ["CONTROLS", "Captions", "Corpus", "Decoder", "Encoder", "Finetune", "FinetuneSchedule", "Generate", "Items",
           "Numerics", "Prepared", "Pretrain", "Readout", "Reference", "Retrieval", "Sampling", "Schedule", "Score",
           "Scored", "Shards", "Stage", "Targets", "Trials", "Trivial", "Weights", "World", "training"]
World = TinyWorld


@dataclass(frozen=True)
class Numerics:
    """What floating point depends on; part of the key of every stage that computes."""

    device_class: str = "cpu"  # or "cuda"
    dtype: str = "float32"
    threads: int = 1
    world_size: int = 1


@dataclass(frozen=True)
class Weights:
    """A frozen part by the hash of its file; `path` says where it lies and is no part of the key."""

    name: str
    sha256: str
    path: str = field(compare=False)


@dataclass(frozen=True)
class Encoder:
    """An EEG encoder of a definite size. `code` is the hash of a user's own source; empty for the suite's own."""

    name: str
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 1.0
    patch: int = 4  # time steps in a token (Sec. 4.1)
    code: str = ""
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Decoder:
    """The masked autoencoder's decoder (Sec. 3.1), which is thrown away."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float


@dataclass(frozen=True)
class Schedule:
    """AdamW with linear warm-up and half-cosine decay; `steps` and `warmup` in optimiser steps."""

    steps: int
    batch: int
    lr: float
    warmup: int
    weight_decay: float = 0.05
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Trials(Stage):
    """The paired recordings of some subjects: EEG after band and window, pictures, labels, parts.

    window: "stimulus" begins at the stimulus, "blank" ends half a second before it. split: what a part is made of,
    "item" (pictures, by class), "block" (whole blocks of the recording, in the blocked order by class), "subject"
    (whole subjects, and no picture of another part), "single" (ImageNet-EEG's file of that name, as it was released);
    of the protocol things (docs/data.md) "concept" (concepts), "subject" (concepts, and the last of `subjects` is
    left out of training), "subject_seen" (so, but the last one's training trials train, too: a leak).
    """

    version: ClassVar[int] = 3

    world: World | Prepared
    subjects: tuple[int, ...]
    band: tuple[float, float]  # Hz; Sec. 4.1: 5-95
    window: str = "stimulus"
    split: str = "item"


@dataclass(frozen=True)
class Corpus(Stage):
    """Unlabelled EEG windows of many devices, filtered, resampled, cut, channels replicated (Sec. 4.1)."""

    world: World | Shards
    band: tuple[float, float]  # Hz


@dataclass(frozen=True)
class Pretrain(Stage):
    """Masked signal modelling (Sec. 3.1): an encoder's weights after pre-training on the corpus."""

    corpus: Corpus
    encoder: Encoder
    decoder: Decoder
    mask_ratio: float
    schedule: Schedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Items:
    """Which trials a system generates for, and with which EEG; every control is `replace(items, eeg=...)`.

    part: "train", "val" or "test" (pictures are disjoint). eeg: one of CONTROLS. What a system trains on follows
    from that: `training`.
    """

    trials: Trials
    part: str = "test"
    eeg: str = "real"


CONTROLS = {  # of the EEG: what an item has in place of its own
    "real": "its own",
    "shuffled": "that of another item of the same part and subject",
    "within_class": "that of another item of the same part, subject and class",
    "other_trial": "that of a trial of the same class and subject that is in no other use (the validation part)",
    "surrogate": "Gaussian noise with the mean power spectrum of the subject's training trials, channel by channel",
    "zero": "zeros",
    "mean": "the mean of the subject's training trials",
    "pairs_shuffled": "its own; the EEG of the training pairs is shuffled",
    "label": "the class as a one-hot vector [1, K], in training too: an oracle",
    "clip": "the CLIP embedding of the stimulus [1, D'], in training too: an oracle",
}
ORACLES = ("label", "clip")


def training(items: Items) -> Items:
    """The training items of what is tested on `items`: their own EEG, but for oracles and shuffled pairs."""
    eeg = {"pairs_shuffled": "shuffled", **{name: name for name in ORACLES}}.get(items.eeg, "real")
    return replace(items, part="train", eeg=eeg)


@dataclass(frozen=True)
class Targets(Stage):
    """What fine-tuning aims at, computed once: CLIP image embeddings and VAE moments of every paired picture.

    views: of each picture to the VAE, the whole and views - 1 fixed crops; 0: crops are drawn in training, nothing of
    the VAE is kept. CLIP sees the whole picture.
    """

    trials: Trials
    clip: Weights
    vae: Weights
    views: int
    numerics: Numerics


@dataclass(frozen=True)
class FinetuneSchedule:
    """Fine-tuning (Sec. 3.2, 3.3): a learning rate for each of E, A and the projections tau and h.

    decay: "cosine" (half of one, after a linear warm-up) or "constant".
    """

    steps: int
    batch: int
    lr_encoder: float
    lr_attention: float
    lr_projection: float
    warmup: int
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    clip_weight: float = 1.0  # of L_clip (Eq. 3) beside L_SD (Eq. 2)
    condition_dropout: float = 0.1  # share of a batch that is trained with the empty caption
    decay: str = "cosine"


@dataclass(frozen=True)
class Finetune(Stage):
    """Fine-tuning with Stable Diffusion's loss and CLIP alignment; the folder holds only what changed.

    aligned: what h sees, "context" (Eq. 3) or "latent" (the encoder's tokens, as the released code). time_condition:
    the condition enters through the time step, too (released code).
    """

    items: Items
    targets: Targets
    unet: Weights
    clip: Weights
    start: Pretrain | Encoder
    align: str | None
    aligned: str
    sd_loss: bool
    tune: str
    time_condition: bool
    schedule: FinetuneSchedule
    seed: int
    numerics: Numerics
    checkpoints: int = 1  # kept, evenly over the steps; the last is the model


@dataclass(frozen=True)
class Readout(Stage):
    """A classifier of the EEG: what is there to be found without any picture.

    classifier: "ridge"; "probe" (ridge on the tokens of a pre-trained encoder); "eegnet"; or "time" (the place of a
    trial in its recording, no EEG).
    """

    version: ClassVar[int] = 2

    train: Items
    test: Items
    classifier: str
    encoder: Pretrain | None
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Captions:
    """In a model's place: a caption for each item, through the untouched prior.

    classes: "true" (the ceiling), "none" (the empty caption), or a classifier's verdict on the EEG.
    """

    clip: Weights
    unet: Weights
    classes: str | Readout = "true"


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: steps of a sampler ("dpmsolver++" or "plms"), classifier-free guidance (1: none), samples
    of each item, batch."""

    steps: int
    guidance: float
    samples: int
    batch: int
    sampler: str = "dpmsolver++"


@dataclass(frozen=True)
class Generate(Stage):
    """Pictures for every item: pictures.npy [N, samples, H, W, 3] uint8 in the order of the items.

    embedding.npy [N, D'], where the model is aligned to CLIP: what h makes of each item's EEG.
    """

    version: ClassVar[int] = 2

    model: Finetune | Captions
    items: Items
    vae: Weights
    sampling: Sampling
    seed: int
    numerics: Numerics
    checkpoint: int | None = None  # from 1 on; None: the last


@dataclass(frozen=True)
class Trivial(Stage):
    """Pictures that no generator made, in Generate's format.

    source: "random" (a training picture), "class_mean" (of the training pictures of the item's class), "vae" (the
    stimulus through the VAE).
    """

    source: str
    items: Items
    vae: Weights
    samples: int
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Reference(Stage):
    """What the judge makes of real pictures of the shown classes that are not scored, once for the whole suite: fresh
    ones, or of a prepared data set the training pictures, `pictures` at most."""

    version: ClassVar[int] = 2

    world: World | Prepared
    judge: Weights
    pictures: int
    numerics: Numerics


@dataclass(frozen=True)
class Score(Stage):
    """Metrics of a folder of pictures, and one row per item and sample. Does not know who made the pictures.

    fixed: the classes of the paper's 50-way accuracy as its text has it (Sec. 4.3): those shown, and more. networks:
    those of the literature that measure beside the judge (models.extractors.FILES).
    """

    version: ClassVar[int] = 3

    pictures: Stage
    items: Items
    reference: Reference
    clip: Weights
    nway: int
    fixed: tuple[int, ...]
    networks: tuple[Weights, ...]
    numerics: Numerics


@dataclass(frozen=True)
class Retrieval(Stage):
    """Which of the items' pictures their EEG is nearest to, in the space of the CLIP that it was aligned to; a row per
    item. No picture is drawn.

    embedding: what leaves embedding.npy [N, D'] and item.npy [N]. targets: CLIP's embeddings of the pictures. ways:
    sizes of the galleries whose top-1 accuracy is exact; of more than there are pictures there is none.
    """

    embedding: Stage
    items: Items
    targets: Targets
    ways: tuple[int, ...]
    numerics: Numerics


Scored = Score | Retrieval  # what a row of a table ends in

register({
    Trials: Kind("bench.train.trials:trials", "trials"),
    Corpus: Kind("bench.train.corpus:corpus", "corpus"),
    Reference: Kind("bench.train.reference:reference", "reference"),
    Targets: Kind("bench.train.targets:targets", "targets"),
    Pretrain: Kind("bench.train.pretrain:pretrain", "pretrain", trains=True),
    Finetune: Kind("bench.train.finetune:finetune", "finetune", trains=True),
    Generate: Kind("bench.train.generate:generate", "generate"),
    Trivial: Kind("bench.train.trivial:trivial", "generate"),
    Score: Kind("bench.train.score:score", "score"),
    Retrieval: Kind("bench.train.retrieval:retrieval", "retrieval"),
    Readout: Kind("bench.train.readout:readout", "readout", trains=True),
})
