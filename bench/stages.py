"""The stages: frozen values whose fields are everything that their output depends on. Nesting is the graph."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.data.tiny import TinyWorld
from bench.key import Stage

__all__ = ["Captions", "Corpus", "Encoder", "Finetune", "FinetuneSchedule", "Generate", "Items", "Numerics", "Pretrain",
           "Readout", "Reference", "Sampling", "Schedule", "Score", "Stage", "Targets", "Trials",
           "Weights", "World"]

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
    """The paired recordings of some subjects: EEG after band and window, pictures, labels, parts."""

    world: World
    subjects: tuple[int, ...]
    band: tuple[float, float]  # Hz; Sec. 4.1: 5-95


@dataclass(frozen=True)
class Corpus(Stage):
    """Unlabelled EEG windows of many devices, filtered, resampled, cut, channels replicated (Sec. 4.1)."""

    world: World
    band: tuple[float, float]  # Hz


@dataclass(frozen=True)
class Pretrain(Stage):
    """Masked signal modelling (Sec. 3.1): an encoder's weights after pre-training on the corpus."""

    corpus: Corpus
    encoder: Encoder
    mask_ratio: float
    schedule: Schedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Items:
    """Which trials a system trains on or generates for; every control is `replace(items, eeg=...)`.

    part: "train", "val" or "test" (pictures are disjoint). eeg: "real", or "shuffled": each trial has the EEG of
    another trial of its part, in training and in testing alike.
    """

    trials: Trials
    part: str = "test"
    eeg: str = "real"


@dataclass(frozen=True)
class Targets(Stage):
    """What fine-tuning aims at, computed once: CLIP image embeddings and VAE moments of every paired picture."""

    trials: Trials
    clip: Weights
    vae: Weights
    numerics: Numerics


@dataclass(frozen=True)
class FinetuneSchedule:
    """Fine-tuning (Sec. 3.2, 3.3): a learning rate for each of E, A and the projections tau and h."""

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


@dataclass(frozen=True)
class Finetune(Stage):
    """Fine-tuning with Stable Diffusion's loss and CLIP alignment; the folder holds only what changed."""

    items: Items
    targets: Targets
    unet: Weights
    clip: Weights
    start: Pretrain | Encoder
    align: str | None
    sd_loss: bool
    tune: str
    schedule: FinetuneSchedule
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Captions:
    """In a model's place: the true class name of each item as text, through the untouched prior (the ceiling)."""

    clip: Weights
    unet: Weights


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: DPM-Solver++ steps, classifier-free guidance, samples of each item, batch."""

    steps: int
    guidance: float
    samples: int
    batch: int


@dataclass(frozen=True)
class Generate(Stage):
    """Pictures for every item: pictures.npy [N, samples, H, W, 3] uint8 in the order of the items."""

    model: Finetune | Captions
    items: Items
    vae: Weights
    sampling: Sampling
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Reference(Stage):
    """The judge's features of fresh real pictures of the shown classes, once for the whole suite."""

    world: World
    judge: Weights
    pictures: int
    numerics: Numerics


@dataclass(frozen=True)
class Score(Stage):
    """Metrics of a folder of pictures, and one row per item and sample. Does not know who made the pictures."""

    pictures: Stage
    items: Items
    reference: Reference
    nway: int
    numerics: Numerics


@dataclass(frozen=True)
class Readout(Stage):
    """A linear read-out of the class from the EEG itself: what is there to be found without any network."""

    train: Items
    test: Items
