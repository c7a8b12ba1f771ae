"""The stages: frozen values whose fields are everything their output depends on. Nested stages form the graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from bench.data.tiny import TinyWorld
from bench.experiment.key import Stage, added
from bench.experiment.kinds import Kind, register


@dataclass(frozen=True)
class Prepared:
    """A prepared data set of EEG and images: a folder (docs/data.md). sha256: of its manifest, which contains the
    hashes of its files; "" if the folder does not exist yet, for planning."""

    name: str
    sha256: str
    n_chans: int
    n_times: int
    sfreq: float  # Hz, of n_times
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Shards:
    """A corpus of unlabelled EEG windows: a folder of float16 shards without padding (docs/data.md); sha256 as in
    Prepared."""

    name: str
    sha256: str
    n_chans: int  # recordings with fewer channels repeat them
    n_times: int
    path: str = field(default="", compare=False)


World = TinyWorld


@dataclass(frozen=True)
class Numerics:
    """Everything that floating-point results depend on; part of the key of every stage that computes."""

    device_class: str = "cpu"  # or "cuda", "mps"
    dtype: str = "float32"
    threads: int = 1
    world_size: int = 1


@dataclass(frozen=True)
class Weights:
    """A frozen part, identified by the hash of its file; `path` is not part of the key."""

    name: str
    sha256: str
    path: str = field(compare=False)


@dataclass(frozen=True)
class Encoder:
    """An EEG encoder of one size; `code`: the hash of its source, "" for msm_vit and braindecode."""

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
    """The masked autoencoder's decoder (Sec. 3.1), discarded after pre-training."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float


@dataclass(frozen=True)
class Schedule:
    """AdamW with linear warm-up and half-cosine decay; `steps` and `warmup` in optimiser steps.

    compiled: whether pre-training compiles its transformer blocks (torch.compile); on a GPU only.
    """

    steps: int
    batch: int
    lr: float
    warmup: int
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    compiled: bool = added(False)


@dataclass(frozen=True)
class Trials(Stage):
    """The paired recordings of some subjects: EEG after band and window, images, labels, parts.

    window  "stimulus" starts at the stimulus, "blank" ends half a second before it
    split   the unit of a part: "item" (images, by class), "block" (whole blocks of the recording; by class if blocks
            are of one class), "subject" (whole subjects, and no image of another part), "single" (ImageNet-EEG's split
            file of that name, as released). Of protocol things (docs/data.md): "concept" (concepts), "subject"
            (concepts, and the last of `subjects` does not train), "subject_seen" (the same, but the last subject's
            training trials do train: a leak)
    normalised  False: EEG in the data set's unit (tiny: µV)
    cut         "prepared", or of ImageNet-EEG "truncated": its samples before the interpolation to n_times, then zeros
    channels    the electrodes that are kept, a nested set of so many (bench.data.montages); None: all
    """

    version: ClassVar[int] = 3

    world: World | Prepared
    subjects: tuple[int, ...]
    band: tuple[float, float]  # Hz; Sec. 4.1: 5-95
    window: str = "stimulus"
    split: str = "item"
    normalised: bool = added(True)
    cut: str = added("prepared")
    channels: int | None = added(None)

    @property
    def n_chans(self) -> int:
        """The number of channels of a trial."""
        return self.channels or self.world.n_chans


@dataclass(frozen=True)
class Corpus(Stage):
    """Unlabelled EEG windows from many devices: filtered, resampled, cut, missing channels repeated (Sec. 4.1).

    channels  the electrodes of each recording that are kept, as in Trials, fewer ones repeated; None: all
    """

    world: World | Shards
    band: tuple[float, float]  # Hz
    channels: int | None = added(None)

    @property
    def n_chans(self) -> int:
        """The number of channels of a window."""
        return self.channels or self.world.n_chans


@dataclass(frozen=True)
class Pretrain(Stage):
    """Masked signal modelling (Sec. 3.1): an encoder's weights after pre-training on the corpus.

    class_token, rounding: as in bench.experiment.variant.Variant. divisor: of the windows (released code: 10).
    """

    corpus: Corpus
    encoder: Encoder
    decoder: Decoder
    mask_ratio: float
    schedule: Schedule
    seed: int
    numerics: Numerics
    class_token: bool = added(False)
    rounding: str = added("masked")
    divisor: float = added(1.0)


@dataclass(frozen=True)
class Items:
    """The trials for which a system generates images, and their EEG; a control is `replace(items, eeg=...)`. part:
    "train", "val" or "test", with disjoint images. eeg: one of CONTROLS. `training` gives the training items."""

    trials: Trials
    part: str = "test"
    eeg: str = "real"


CONTROLS = {  # the EEG that an item gets
    "real": "its own",
    "shuffled": "that of another item of the same part and subject",
    "within_class": "that of another item of the same part, subject and class",
    "other_trial": "that of a trial of the same class and subject from the validation part",
    "surrogate": "Gaussian noise with the mean power spectrum of the subject's training trials, per channel",
    "zero": "zeros",
    "mean": "the mean of the subject's training trials",
    "pairs_shuffled": "its own; the EEG of the training pairs is shuffled",
    "label": "the class as a one-hot vector [1, K], also in training: an oracle",
    "clip": "the CLIP embedding of the stimulus [1, D'], also in training: an oracle",
}
ORACLES = ("label", "clip")


def training(items: Items) -> Items:
    """Returns the training items for tests on `items`: with real EEG, except for oracles and shuffled pairs."""
    eeg = {"pairs_shuffled": "shuffled", **{name: name for name in ORACLES}}.get(items.eeg, "real")
    return replace(items, part="train", eeg=eeg)


@dataclass(frozen=True)
class Targets(Stage):
    """The targets of fine-tuning, computed once: CLIP embeddings of the whole paired images, and VAE moments of `views`
    of each, the whole image and views - 1 fixed crops; 0: training draws random crops and no moments are stored."""

    trials: Trials
    clip: Weights
    vae: Weights
    views: int
    numerics: Numerics


@dataclass(frozen=True)
class Features(Stage):
    """Published CLIP embeddings of the images and class names of a data set, instead of Targets (data.features)."""

    trials: Trials


@dataclass(frozen=True)
class FinetuneSchedule:
    """Fine-tuning (Sec. 3.2, 3.3): learning rates of E, of A, and of the projections tau and h. decay: "cosine" (half
    of one, after linear warm-up) or "constant"."""

    steps: int
    batch: int
    lr_encoder: float
    lr_attention: float
    lr_projection: float
    warmup: int
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    clip_weight: float = 1.0  # of L_clip (Eq. 3) beside L_SD (Eq. 2)
    condition_dropout: float = 0.1  # share of a batch that gets the empty caption
    decay: str = "cosine"


@dataclass(frozen=True)
class Finetune(Stage):
    """Fine-tuning with Stable Diffusion's loss and CLIP alignment; stores only the trained weights. align to
    time_condition, and tau: as in bench.experiment.variant.Variant."""

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
    checkpoints: int = 1  # stored, evenly spaced over the steps; the last one is the model
    tau: str = added("text")


@dataclass(frozen=True)
class Readout(Stage):
    """A classifier of the EEG, without images: "ridge", "probe" (ridge on the tokens of `encoder`, pre-trained or as
    initialised), "eegnet", or "time" (a trial's position in the recording, no EEG)."""

    version: ClassVar[int] = 3

    train: Items
    test: Items
    classifier: str
    encoder: Pretrain | Encoder | None
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Captions:
    """Captions instead of a model, drawn by the unchanged prior. classes: "true" (the ceiling), "none" (the empty
    caption), or a classifier of the EEG."""

    clip: Weights
    unet: Weights
    classes: str | Readout = "true"


@dataclass(frozen=True)
class Sampling:
    """Sampling: steps, classifier-free guidance (1: none), samples per item, batch, "dpmsolver++" or "plms"."""

    steps: int
    guidance: float
    samples: int
    batch: int
    sampler: str = "dpmsolver++"


@dataclass(frozen=True)
class Generate(Stage):
    """Images of every item: pictures.npy [N, samples, H, W, 3] uint8, in the order of the items. If the model is
    aligned to CLIP, also embedding.npy [N, D']: h's output for each item's EEG."""

    version: ClassVar[int] = 2

    model: Finetune | Captions
    items: Items
    vae: Weights
    sampling: Sampling
    seed: int
    numerics: Numerics
    checkpoint: int | None = None  # 1 is the first; None: the last


@dataclass(frozen=True)
class Trivial(Stage):
    """Images without a generator, in Generate's format. source: "random" (a training image), "class_mean" (the mean
    training image of the item's class), "vae" (the stimulus through the VAE)."""

    source: str
    items: Items
    vae: Weights
    samples: int
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Reference(Stage):
    """The judge's features of real images that are not scored, computed once for the suite: newly drawn images of the
    shown classes, or the training images of a prepared data set; at most `pictures`."""

    version: ClassVar[int] = 2

    world: World | Prepared
    judge: Weights
    pictures: int
    numerics: Numerics


@dataclass(frozen=True)
class TrainFeatures(Stage):
    """Features of training images by judge and CLIP, for memorisation. Images of other parts are left out."""

    trials: Trials
    judge: Weights
    clip: Weights
    numerics: Numerics


@dataclass(frozen=True)
class Score(Stage):
    """Metrics of a folder of images, and one row per item and sample; independent of the system that made the images.

    fixed: the classes of the 50-way accuracy as the paper's text defines it (Sec. 4.3): those shown, and others.
    networks: measuring networks of the literature, besides the judge (models.extractors.FILES). training: of the
    trials of the items; None: memorisation is not measured.
    """

    version: ClassVar[int] = 5

    pictures: Stage
    items: Items
    reference: Reference
    clip: Weights
    nway: int
    fixed: tuple[int, ...]
    networks: tuple[Weights, ...]
    numerics: Numerics
    training: TrainFeatures | None = None


@dataclass(frozen=True)
class Retrieval(Stage):
    """Ranks the items' images by their distance to the EEG's embedding in CLIP space; no image is generated.

    embedding: the stage with embedding.npy [N, D'] and item.npy [N]. targets: CLIP embeddings of the images. ways:
    gallery sizes whose exact expected top-1 accuracy is computed; sizes above the number of images are left out.
    """

    embedding: Stage
    items: Items
    targets: Targets | Features
    ways: tuple[int, ...]
    numerics: Numerics


Scored = Score | Retrieval  # the last stage of a row of a table

register({
    Trials: Kind("bench.train.trials:trials", "trials"),
    Corpus: Kind("bench.train.corpus:corpus", "corpus"),
    Reference: Kind("bench.train.reference:reference", "reference"),
    TrainFeatures: Kind("bench.train.reference:train_features", "reference"),
    Targets: Kind("bench.train.targets:targets", "targets"),
    Features: Kind("bench.train.targets:features", "targets"),
    Pretrain: Kind("bench.train.pretrain:pretrain", "pretrain", trains=True),
    Finetune: Kind("bench.train.finetune:finetune", "finetune", trains=True),
    Generate: Kind("bench.train.generate:generate", "generate"),
    Trivial: Kind("bench.train.generate:trivial", "generate"),
    Score: Kind("bench.train.score:score", "score"),
    Retrieval: Kind("bench.train.score:retrieval", "retrieval", on_cpu=lambda stage: True),
    Readout: Kind("bench.train.readout:readout", "readout", trains=True,
                  on_cpu=lambda stage: stage.classifier in ("ridge", "time")),
})
