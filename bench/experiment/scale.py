"""The scales: sizes, schedules, data and frozen parts that all rows of a table share."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from bench.data import montages
from bench.data.tiny import SUBJECTS
from bench.data.tiny_things import TinyThings
from bench.errors import ENVIRONMENT, BenchError, NotAvailable
from bench.experiment.judge import ChosenJudge
from bench.experiment.key import added
from bench.experiment.stages import (
    Corpus,
    Decoder,
    FinetuneSchedule,
    Items,
    Numerics,
    Prepared,
    Reference,
    Sampling,
    Schedule,
    Score,
    Shards,
    Stage,
    TrainFeatures,
    Trials,
    Weights,
    World,
)
from bench.files import note_content

Sizes = TypeVar("Sizes")
PRIOR = Path(__file__).parent.parent / "prior"  # the shipped frozen parts
HEADLINE, PAPER_HEADLINE = "top1_label", "nway_judge"  # accuracies that a table is about: top-1, and the paper's 50-way
SECOND = {HEADLINE: "nway_label", PAPER_HEADLINE: "top1_fixed_judge"}  # what is always beside it


@dataclass(frozen=True)
class Size:
    """An encoder's dimensions at a scale, by its label in the paper (Table 2, Params); inferred: at least one of them
    is neither in the paper nor in the released code."""

    label: str
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 1.0
    inferred: bool = False


@dataclass(frozen=True)
class Things:
    """Protocol things at a scale (docs/data.md): world, band of the EEG in Hz, subjects of the within-subject rows, and
    people of the rows that leave a subject out (the last one)."""

    world: TinyThings | Prepared
    band: tuple[float, float]
    subjects: tuple[int, ...]
    people: tuple[int, ...]


@dataclass(frozen=True)
class Scale:
    """Everything besides the row itself that a row's numbers depend on.

    people          the subjects of the data set
    corpus          the pre-training corpus; None: the world's own
    prior           folder of the frozen parts in bench/prior/; "": they are pinned (bench.setup.weights)
    parts           the frozen parts whose path is known (bench.setup.places)
    views           of each image for the VAE (Targets)
    divisor         of the windows of pre-training (released code: 10)
    networks        measuring networks of the literature, by their names in models.extractors.FILES
    pretrain_seeds  "each": every seed has its own pre-training; "one": all seeds share that of seed 0, so that a table
                    does not include the spread of pre-training
    sizes_like      the scale whose sizes the systems use (`sized`); "": its own
    nway            n of the n-way accuracy (the paper: 50 of 1,000)
    retrieval_only  the world brings CLIP features of its images (Features); there are no frozen parts, no images are
                    generated
    fixed           classes of the accuracy over fixed classes: those shown, and a quarter more (the paper: 40 and 10)
    """

    name: str = field(compare=False)
    world: World | Prepared
    subjects: tuple[int, ...]
    band: tuple[float, float]
    sizes: tuple[Size, ...]
    decoder: Decoder
    prior: str
    pretrain: Schedule
    pretrain_seeds: str
    finetune: FinetuneSchedule
    sampling: Sampling
    reference_pictures: int
    nway: int
    fixed: tuple[int, ...]
    people: tuple[int, ...] = SUBJECTS
    corpus: Shards | None = None
    views: int = 1
    divisor: float = added(1.0)
    things: Things | None = field(default=None, compare=False)  # its rows have it in their keys
    networks: tuple[str, ...] = ()
    parts: tuple[Weights, ...] = field(default=(), compare=False)
    judge: ChosenJudge | None = field(default=None, compare=False)  # its rows have it in their keys
    numerics: Numerics = Numerics()
    sizes_like: str = field(default="", compare=False)
    retrieval_only: bool = added(False)

    @property
    def headline(self) -> str:
        """The accuracy that the scale's tables are about: the paper's 50-way accuracy where the paper's classifier of
        1,000 classes judges, else top-1 against the label."""
        return PAPER_HEADLINE if "paper" in (self.name, self.sizes_like) or self.name == "rehearsal" else HEADLINE

    @property
    def single_process(self) -> Numerics:
        """The numerics of stages that always run in one process: all except trainings."""
        return replace(self.numerics, world_size=1)

    @property
    def fp32(self) -> Numerics:
        """The numerics of networks that are small at every scale."""
        return replace(self.single_process, dtype="float32")

    def size(self, label: str) -> Size:
        """Returns the size with this label. Raises BenchError if there is none."""
        for size in self.sizes:
            if size.label == label:
                return size
        raise BenchError(f"no encoder size {label!r} at scale {self.name}; there are: "
                         + ", ".join(size.label for size in self.sizes))

    def items(self, eeg: str = "real", part: str = "test") -> Items:
        """Returns the items of the scale's tables."""
        return Items(Trials(self.world, self.subjects, self.band), part, eeg)

    def windows(self, channels: int | None = None) -> Corpus:
        """Returns the pre-training corpus, reduced to so many electrodes. Raises NotAvailable if a data set has none
        with windows of its shape, or if the corpus does not state the names of its channels."""
        world, corpus = self.world, self.corpus
        if not isinstance(world, Prepared):
            return Corpus(corpus or world, self.band, channels)
        if corpus is None or (corpus.n_chans, corpus.n_times) != (world.n_chans, world.n_times):
            raise NotAvailable(f"scale {self.name} has no corpus for pre-training with windows like the EEG of "
                               f"{world.name}, [{world.n_chans}, {world.n_times}]")
        if channels and corpus.path and not montages.corpus_names_channels(Path(corpus.path), corpus.sha256):
            raise NotAvailable(f"corpus {corpus.name} cannot be reduced to {channels} electrodes: its manifest states "
                               "no names of channels; prepare it again")
        return Corpus(corpus, self.band, channels)

    def score(self, pictures: Stage, items: Items) -> Score:
        """Returns the Score of a system's images, with the judge, reference and CLIP that all systems share, and the
        training images of the items' trials."""
        judge, clip, numerics = self.weights("judge"), self.weights("clip"), self.single_process
        reference = Reference(self.world, judge, self.reference_pictures, numerics)
        return Score(pictures, items, reference, clip, self.nway, self.fixed,
                     tuple(map(self.weights, self.networks)), numerics,
                     TrainFeatures(items.trials, judge, clip, numerics))

    def weights(self, part: str) -> Weights:
        """Returns a frozen part by name; its path is "" if it was not looked up. Raises BenchError if it is unknown, or
        (exit 3) if a shipped file is missing or changed."""
        if self.retrieval_only:
            raise NotAvailable(f"scale {self.name} has no frozen part {part!r}: it retrieves images by published CLIP "
                               "features and generates none")
        if part == "judge" and self.judge:
            return self.judge
        for known in self.parts:
            if known.name.rsplit("/", 1)[-1] == part:
                return known
        if not self.prior:
            known_names = ", ".join(known.name for known in self.parts) or "none (use bench.setup.places.load_scale)"
            raise BenchError(f"scale {self.name}: unknown frozen part {part!r}; there are: {known_names}")
        return shipped(PRIOR / self.prior, part)


@functools.cache
def shipped(folder: Path, part: str) -> Weights:
    """Returns a part in a folder of frozen parts. Raises BenchError (exit 3) unless its file has the hash of
    provenance.json."""
    provenance, path = folder / "provenance.json", folder / f"{part}.safetensors"
    cure = "restore it, or train the parts with: bench prior"
    try:
        expected = json.loads(provenance.read_text("utf-8"))["parts"][part]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{provenance}: no readable entry for the frozen part {part!r} ({error!r}); {cure}",
                         ENVIRONMENT) from error
    if not path.is_file():
        raise BenchError(f"no weights at {path}; {cure}", ENVIRONMENT)
    if (digest := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
        raise BenchError(f"{path} has SHA-256 {digest[:12]}, not {expected[:12]}{note_content(path)}; "
                         f"{cure}", ENVIRONMENT)
    return Weights(f"{folder.name}/{part}", expected, str(path))


# Width, depth and heads vary as in the paper's column; tables show the real parameter counts beside the labels.
TINY = Scale(
    name="tiny", world=World(), subjects=(4,), band=(5.0, 95.0),
    sizes=(Size("297M", 96, 6, 4), Size("458M", 96, 9, 4), Size("162M", 72, 6, 4), Size("74M", 64, 4, 4),
           Size("18.3M", 48, 2, 4), Size("released", 96, 6, 4)),
    decoder=Decoder(64, 1, 4, 1.0), prior="tiny",
    pretrain=Schedule(steps=2200, batch=64, lr=3e-3, warmup=100), pretrain_seeds="each",
    finetune=FinetuneSchedule(steps=650, batch=24, lr_encoder=2e-3, lr_attention=1e-3, lr_projection=2e-3, warmup=50),
    sampling=Sampling(steps=10, guidance=2.0, samples=2, batch=64),
    reference_pictures=10_000, nway=10, fixed=tuple(range(12)),
    things=Things(TinyThings(), (5.0, 95.0), (1,), (1, 2, 3)))
# Tiny, reduced until the whole path takes seconds; for tests. Its numbers mean nothing.
MICRO = replace(
    TINY, name="micro", world=World(seed=1, pictures=240, recordings=6, seconds=20.0),
    pretrain=replace(TINY.pretrain, steps=10, batch=16, warmup=2),
    finetune=replace(TINY.finetune, steps=6, batch=8, warmup=2),
    sampling=Sampling(steps=2, guidance=2.0, samples=2, batch=64),
    things=Things(TinyThings(seed=1, train_concepts=30, val_concepts=10, test_concepts=14, exemplars=3, means=3),
                  (5.0, 95.0), (1,), (1, 2)),
    reference_pictures=300)
# The 40 classes of ImageNet-EEG, by their ImageNet-1k numbers, in the order of its labels.
SHOWN = (339, 701, 606, 393, 550, 504, 671, 763, 388, 985, 472, 326, 235, 770, 607, 487, 574, 527, 462, 963,
         657, 378, 736, 636, 511, 559, 697, 658, 546, 759, 579, 672, 954, 997, 531, 386, 404, 547, 755, 285)
# Ten more for the paper's 50; the paper names none of them. These are the first ten of ImageNet-1k: tench, goldfish,
# great white shark, tiger shark, hammerhead, electric ray, stingray, cock, hen, ostrich.
MORE = tuple(range(10))
IMAGENET_EEG = Prepared("imagenet_eeg", "", n_chans=128, n_times=512, sfreq=1000 * 512 / 440)
THINGS_EEG2 = Prepared("things_eeg2", "", n_chans=63, n_times=248, sfreq=250.0)
# Table 2 at its real size. Schedules are the paper's, or the released code's where the paper states none: 500 epochs of
# 120,000 windows (600 of 100,000, because one person in six is held out), 300 of 1,600 images. Published are the first
# size's width and depth, the depth of 18.3M, and all of the released size; the rest is inferred, also the first size's
# MLP ratio of 4.
PAPER = Scale(
    name="paper", world=IMAGENET_EEG, corpus=Shards("moabb_v046", "", n_chans=128, n_times=512), subjects=(4,),
    band=(5.0, 95.0),
    sizes=(Size("297M", 1024, 24, 16, 4.0, True), Size("458M", 1024, 36, 16, 4.0, True),
           Size("162M", 768, 23, 12, 4.0, True), Size("74M", 640, 15, 10, 4.0, True),
           Size("18.3M", 864, 2, 12, 4.0, True),
           Size("released", 1024, 24, 16, 1.0)),
    decoder=Decoder(512, 8, 16, 4.0), prior="",
    pretrain=Schedule(steps=600_000, batch=100, lr=2.5e-4, warmup=48_000, clip_norm=0.8), pretrain_seeds="one",
    finetune=FinetuneSchedule(steps=19_200, batch=25, lr_encoder=5.3e-5, lr_attention=5.3e-5, lr_projection=5.3e-5,
                              warmup=0, weight_decay=0.01, clip_norm=0.5, condition_dropout=0.0, decay="constant"),
    sampling=Sampling(steps=25, guidance=1.0, samples=5, batch=32),
    reference_pictures=10_000, nway=50, fixed=SHOWN + MORE, views=16,
    things=Things(THINGS_EEG2, (0.1, 100.0), (8,), tuple(range(1, 11))),
    networks=("inception", "inception_v3", "alexnet", "lpips"),
    numerics=Numerics(device_class="cuda", dtype="bfloat16"))
# Scale paper with a tenth of its pre-training (50 passes over 120,000 windows), so that every seed can have its own:
# the pre-trainings of three seeds then cost less than a third of one seed's at scale paper (docs/paper-scale.md).
PAPER_SHORT = replace(PAPER, name="paper-short", sizes_like="paper", pretrain_seeds="each",
                      pretrain=replace(PAPER.pretrain, steps=60_000, warmup=4_800))
# Scale paper's code on small generated files in the real formats (bench.setup.rehearsal.data). Numbers mean nothing.
REHEARSAL = replace(
    PAPER, name="rehearsal", world=replace(IMAGENET_EEG, name="rehearsal of imagenet_eeg"), people=(1, 4, 6),
    things=Things(replace(THINGS_EEG2, name="rehearsal of things_eeg2"), (0.1, 100.0), (1,), (1, 2)),
    corpus=Shards("fake", "", n_chans=128, n_times=512),
    sizes=tuple(Size(size.label, width, depth, 4, size.mlp_ratio) for size, (width, depth) in zip(
        PAPER.sizes, ((32, 3), (32, 4), (24, 3), (16, 2), (16, 1), (32, 3)), strict=True)),
    decoder=Decoder(16, 1, 4, 4.0), prior="rehearsal",
    pretrain=replace(PAPER.pretrain, steps=6, batch=8, warmup=2), finetune=replace(PAPER.finetune, steps=6, batch=4),
    sampling=Sampling(steps=4, guidance=1.0, samples=1, batch=8),
    reference_pictures=100, views=3, networks=(), numerics=Numerics())
# Real EEG without a GPU: retrieval on THINGS-EEG2, as first published, with published CLIP features (docs/laptop.md).
LAPTOP_EEG = Prepared("things_eeg2", "", n_chans=17, n_times=80, sfreq=100.0)
LAPTOP = replace(
    PAPER, name="laptop", world=LAPTOP_EEG, corpus=None, subjects=(8,), people=tuple(range(1, 11)), band=(0.1, 100.0),
    things=Things(LAPTOP_EEG, (0.1, 100.0), (8,), tuple(range(1, 11))), networks=(), numerics=Numerics(),
    retrieval_only=True)
SCALES = {scale.name: scale for scale in (TINY, MICRO, REHEARSAL, PAPER, PAPER_SHORT, LAPTOP)}


def scale(name: str) -> Scale:
    """Returns the scale with this name. Raises BenchError if there is none."""
    if name not in SCALES:
        raise BenchError(f"no scale {name!r}; there are: {', '.join(SCALES)}")
    return SCALES[name]


def sized(sizes: dict[str, Sizes], scale: Scale, system: str) -> Sizes:
    """Returns a system's sizes and schedules for a scale, by the scale's name. Raises NotAvailable if it has none."""
    name = scale.sizes_like or scale.name
    if name not in sizes:
        raise NotAvailable(f"system {system} has no sizes for scale {name}; it has sizes for: {', '.join(sizes)}")
    return sizes[name]
