"""A variant of DreamDiffusion: one row of a table; and a row on other items or under other settings of the scale."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, ClassVar, Protocol

from bench.data.tiny import SUBJECTS
from bench.data.tiny_things import LEFT_OUT, TinyThings
from bench.errors import BenchError, NotHere
from bench.experiment.stages import CONTROLS, Finetune, Generate, Items, Sampling, Score, Scored, Trials, World

WINDOWS, SPLITS = ("stimulus", "blank"), ("item", "block", "subject", "single", "concept", "subject_seen")
ALIGN, ALIGNED = ("clip", "label", None), ("context", "latent")
EPOCHS = 300  # of fine-tuning in the paper (Sec. 4.1)
OPENS = {  # what each choice of `tune` trains
    "E+A": {"E", "A", "tau"},
    "E": {"E", "tau"},
    "A": {"A", "tau"},
    "E+A+norm2": {"E", "A", "norm2", "tau"},
    "tau": {"tau"},
    "A-tau": {"A"},
}


class Spec(Protocol):
    """A row of a table: a frozen dataclass that is a system's settings (`bench/systems/<system>.py` plans it)."""

    @property
    def name(self) -> str: ...

    @property
    def system(self) -> str: ...


@dataclass(frozen=True)
class Variant:
    """One row (Table 2). Raises BenchError for a value outside its range.

    mask_ratio  share of masked tokens in pre-training (Sec. 3.1); None: no pre-training
    align       "clip": L_clip (Eq. 3); "label": class labels in CLIP's place (Sec. 4.4); None: neither
    aligned     what h sees: "context", tau's output (Eq. 3); "latent", the encoder's tokens (the released code)
    sd_loss     L_SD (Eq. 2); False: fine-tuning by alignment alone (Fig. 5)
    tune        what fine-tuning opens. E: the encoder; A: q, k, v, out of the U-Net's cross-attention; tau, and h
                where there is alignment, train in every row but "A-tau". "tau": nothing else trains; "E+A+norm2": the
                LayerNorm before each cross-attention counts as A; "A-tau": tau counts as E, and rests with it
    time_condition  the condition enters the U-Net through the time step, too (the released code; not in the paper)
    size        the encoder's label in the paper; the real count stands beside it
    encoder     a file of models/encoders/, or the path of one's own .py file with a class Encoder
    """

    name: str = field(compare=False)
    mask_ratio: float | None = 0.75
    align: str | None = "clip"
    sd_loss: bool = True
    tune: str = "E+A"
    size: str = "297M"
    encoder: str = "msm_vit"
    aligned: str = "context"
    time_condition: bool = False

    system: ClassVar[str] = "dreamdiffusion"

    def __post_init__(self) -> None:
        def refuse(what: str) -> None:
            raise BenchError(f"variant {self.name!r}: {what}")

        if not isinstance(self.name, str) or not self.name:
            refuse(f"a name is text that is not empty, not {self.name!r}")
        if not isinstance(self.encoder, str) or not isinstance(self.size, str):
            refuse(f"encoder and size are text, not {self.encoder!r} and {self.size!r}")
        if not isinstance(self.sd_loss, bool):
            refuse(f"sd_loss is True or False, not {self.sd_loss!r}")
        if self.mask_ratio is not None and not (
                isinstance(self.mask_ratio, (int, float)) and 0 < self.mask_ratio < 1):
            refuse(f"mask_ratio lies between 0 and 1, or is None for no pre-training, not {self.mask_ratio!r}")
        if self.align not in ALIGN:
            refuse(f"align is one of {', '.join(map(repr, ALIGN))}, not {self.align!r}")
        if self.aligned not in ALIGNED:
            refuse(f"aligned is one of {', '.join(map(repr, ALIGNED))}, not {self.aligned!r}")
        if not isinstance(self.time_condition, bool):
            refuse(f"time_condition is True or False, not {self.time_condition!r}")
        if self.tune not in OPENS:
            refuse(f"tune is one of {', '.join(map(repr, OPENS))}, not {self.tune!r}")
        if not self.sd_loss and self.align is None:
            refuse("with sd_loss=False and align=None there is nothing to train on; set one of them")
        if not self.sd_loss and self.aligned == "latent":
            refuse("with sd_loss=False and aligned='latent' nothing trains tau; set one of them")


FULL = Variant("Full")


def innermost(spec: Any) -> Any:
    """The system's settings of a row, also of one that is measured on other items."""
    while hasattr(spec, "of"):
        spec = spec.of
    return spec


def sees_eeg(spec: Any) -> bool:
    """Whether a row's system looks at the EEG: one that does not says `sees_eeg = False`."""
    return bool(getattr(innermost(spec), "sees_eeg", True))


@dataclass(frozen=True)
class On:
    """A system on other items than the scale's, or under other settings: a control, another recording, longer training.

    of          the system's settings
    eeg         what the items have in place of their EEG (bench.experiment.stages.CONTROLS)
    window      "stimulus", or "blank": an interval that ends half a second before it
    split       what a part is made of: "item" (pictures), "block" (whole blocks of the recording), "subject", "single"
                (bench.experiment.stages.Trials)
    band        Hz, of the paired EEG alone; None: the scale's. Pre-training's corpus keeps the scale's
    protocol    "pairs": the scale's own items; "things": new concepts (docs/data.md), whose splits are "concept"
                (also for "item"), "subject" and "subject_seen"
    subjects    whose trials; None: the scale's
    epochs      of fine-tuning; None: the scale's schedule, which stands for the paper's 300
    views       of each picture to the VAE (bench.experiment.stages.Targets); 0: crops are drawn anew; None: the scale's
    sampling    fields of the scale's Sampling and their values, such as {"sampler": "plms", "steps": 250}
    world       fields of the paired recordings' world and their values, such as {"order": "blocked"}
    part        "test"; or "val", whose pictures decide which checkpoint is taken
    checkpoint  (2, 5): the second of five checkpoints, evenly over fine-tuning, of the guided system over its encoder's
                training; None: the last state
    eeg_free    says that no system can know more of the stimulus than chance does: the row is tested against that
    Raises BenchError for what does not exist.
    """

    of: Any
    name: str = field(compare=False)
    eeg: str = "real"
    window: str = "stimulus"
    split: str = "item"
    protocol: str = "pairs"
    band: tuple[float, float] | None = None
    subjects: tuple[int, ...] | None = None
    epochs: int | None = None
    views: int | None = None
    sampling: Any = ()
    world: Any = ()
    part: str = "test"
    checkpoint: tuple[int, int] | None = None
    eeg_free: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        changes, drawn = dict(self.world), dict(self.sampling)
        object.__setattr__(self, "world", tuple(sorted(changes.items())))
        object.__setattr__(self, "sampling", tuple(sorted(drawn.items())))
        if self.eeg not in CONTROLS:
            raise BenchError(f"variant {self.name!r}: eeg is one of {', '.join(CONTROLS)}, not {self.eeg!r}")
        world = TinyThings if self.protocol == "things" else World
        for what, given, kind in (("the world", changes, world), ("sampling", drawn, Sampling)):
            there = [f.name for f in fields(kind) if f.init]
            if unknown := set(given) - set(there):
                raise BenchError(f"variant {self.name!r}: {what} has no {', '.join(sorted(unknown))}; it has: "
                                 f"{', '.join(there)}")
        if self.epochs is not None and (not isinstance(self.epochs, int) or self.epochs < 1):
            raise BenchError(f"variant {self.name!r}: epochs is a whole number from 1 on, not {self.epochs!r}")
        if self.views is not None and (not isinstance(self.views, int) or self.views < 0):
            raise BenchError(f"variant {self.name!r}: views is a whole number from 0 on, not {self.views!r}")
        for name, value, known in (("window", self.window, WINDOWS), ("split", self.split, SPLITS),
                                   ("part", self.part, ("val", "test")),
                                   ("protocol", self.protocol, ("pairs", "things"))):
            if value not in known:
                raise BenchError(f"variant {self.name!r}: {name} is one of {', '.join(known)}, not {value!r}")
        if self.checkpoint is not None and not 1 <= self.checkpoint[0] <= self.checkpoint[1]:
            raise BenchError(f"variant {self.name!r}: checkpoint is (which, of how many), such as (2, 5), not "
                             f"{self.checkpoint!r}")

    @property
    def system(self) -> str:
        """The file of bench/systems/ that plans it."""
        return self.of.system

    def items(self, items: Items, scale: Any) -> Items:
        """Those items, changed so. Raises NotHere for what the world lacks."""
        if self.protocol == "things":
            return self._things(scale)
        world = items.trials.world
        if (self.world or self.window == "blank") and not isinstance(world, World):
            raise NotHere(f"variant {self.name!r}: {world.name} holds what was recorded and published; another world, "
                          "or another interval, can be had of the tiny one alone")
        if isinstance(world, World) and self.split not in ("item", "block"):
            raise NotHere(f"variant {self.name!r}: the tiny world has no split {self.split!r}; it has: item, block")
        trials = replace(items.trials, world=replace(world, **dict(self.world)), window=self.window, split=self.split,
                         band=self.band or items.trials.band, subjects=self.subjects or items.trials.subjects)
        return replace(items, trials=trials, eeg=self.eeg, part=self.part)

    def _things(self, scale: Any) -> Items:
        """The items of the protocol things."""
        if (own := scale.things) is None:
            raise NotHere(f"variant {self.name!r}: scale {scale.name} has no protocol things")
        split = "concept" if self.split == "item" else self.split
        if split not in LEFT_OUT:
            raise NotHere(f"variant {self.name!r}: the protocol things has no split {split!r}; it has: "
                          f"{', '.join(LEFT_OUT)}")
        if self.eeg in ("within_class", "other_trial", "label"):
            raise NotHere(f"variant {self.name!r}: a test concept has one item and no training, and eeg={self.eeg!r} "
                          "needs more")
        if (self.world or self.window == "blank") and not isinstance(own.world, World):
            raise NotHere(f"variant {self.name!r}: {own.world.name} holds what was recorded and published; another "
                          "world, or another interval, can be had of the tiny one alone")
        subjects = self.subjects or (own.subjects if split == "concept" else own.people)
        return Items(Trials(replace(own.world, **dict(self.world)), subjects, self.band or own.band, self.window,
                            split), self.part, self.eeg)

    def scale(self, scale: Any) -> Any:
        """That scale, with these epochs and this sampling. Raises NotHere for what the scale lacks."""
        there = SUBJECTS if isinstance(scale.world, World) else scale.things.people if self.protocol == "things" else \
            scale.people
        if absent := sorted(set(self.subjects or ()) - set(there)):
            raise NotHere(f"variant {self.name!r}: no subject {', '.join(map(str, absent))}; there are: "
                          f"{', '.join(map(str, there))}")
        if self.protocol == "things" and not isinstance(scale.things.world, World):
            world, corpus = scale.things.world, scale.corpus  # the world's training pictures are FID's reference
            if corpus and (corpus.n_chans, corpus.n_times) != (world.n_chans, world.n_times):
                corpus = None
            networks = (*scale.networks, "swav") if scale.networks else ()  # Li et al., Table 1
            scale = replace(scale, world=world, corpus=corpus, networks=networks)
        if dict(self.sampling).get("sampler") == "plms" and scale.prior == "tiny":
            raise NotHere(f"variant {self.name!r}: PLMS cannot begin where no signal is left, as in the noise schedule "
                          f"of scale {scale.name}")
        longer = Fraction(self.epochs or EPOCHS, EPOCHS)
        finetune = replace(scale.finetune, steps=round(scale.finetune.steps * longer))
        views = scale.views if self.views is None else self.views
        return replace(scale, finetune=finetune, views=views, sampling=replace(scale.sampling, **dict(self.sampling)))

    def score(self, score: Scored) -> Scored:
        """That score, of the pictures of the chosen checkpoint. Raises BenchError for a system that keeps none."""
        if self.checkpoint is None:
            return score
        which, many = self.checkpoint
        if isinstance(score, Score) and hasattr(score.pictures, "at_checkpoint"):
            return replace(score, pictures=score.pictures.at_checkpoint(which, many))
        if not isinstance(score, Score) or not isinstance(score.pictures, Generate) or not isinstance(
                score.pictures.model, Finetune):
            raise BenchError(f"variant {self.name!r}: a checkpoint is asked of a system that keeps none; "
                             "dreamdiffusion and guided do")
        return replace(score, pictures=replace(score.pictures, checkpoint=None if which == many else which,
                                               model=replace(score.pictures.model, checkpoints=many)))
