"""Rows of a table as values: Variant, a row of DreamDiffusion; On, a row on other items or under other settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from fractions import Fraction
from math import inf
from typing import Any, ClassVar, Protocol

from bench.data import montages
from bench.data.tiny import SUBJECTS
from bench.data.tiny_things import LEFT_OUT, TinyThings
from bench.errors import USAGE, BenchError, NotAvailable
from bench.experiment.key import added
from bench.experiment.stages import CONTROLS, Finetune, Generate, Items, Sampling, Score, Scored, Trials, World

WINDOWS, SPLITS = ("stimulus", "blank"), ("item", "block", "subject", "single", "concept", "subject_seen")
PARTS, PROTOCOLS = ("val", "test"), ("pairs", "things")
ALIGN, ALIGNED = ("clip", "label", None), ("context", "latent")
TAU, ROUNDING = ("text", "released", "linear"), ("masked", "kept")
SCALING, CUT = ("normalised", "released"), ("prepared", "truncated")
DIVISOR = 10.0  # of the windows of pre-training in the released code
INTERPOLATED = "imagenet_eeg"  # the data set whose preparation interpolates the EEG
PRETRAINING = ("mask_ratio", "size", "encoder", "decoder_mlp_ratio", "class_token", "rounding")  # fields of Variant
EPOCHS = 300  # of fine-tuning in the paper (Sec. 4.1)
OPENS = {  # what each choice of `Variant.tune` trains; h trains in addition wherever there is alignment
    "E+A": {"E", "A", "tau"},  # Full
    "E": {"E", "tau"},
    "A": {"A", "tau"},
    "E+A+norm2": {"E", "A", "norm2", "tau"},  # the LayerNorm before each cross-attention counts as A
    "tau": {"tau"},
    "A-tau": {"A"},  # tau counts as E and stays frozen with it
}


class Spec(Protocol):
    """A row of a table: a frozen dataclass of a system's settings (`bench/systems/<system>.py` plans it)."""

    @property
    def name(self) -> str: ...

    @property
    def system(self) -> str: ...


def refuse(spec: Any, message: str, error: type[BenchError] = BenchError, exit_code: int = USAGE) -> BenchError:
    """Returns an error whose message names the row."""
    return error(f"variant {spec.name!r}: {message}", exit_code)


def check_choices(spec: Any, quote: bool = False, **choices: Iterable[Any]) -> None:
    """Raises BenchError for the first of these fields whose value is not among its choices."""
    for name, known in choices.items():
        if (value := getattr(spec, name)) not in tuple(known):
            raise refuse(spec, f"{name} must be one of {', '.join(map(repr if quote else str, known))}, not {value!r}")


def check_flags(spec: Any, *names: str) -> None:
    """Raises BenchError for the first of these fields that is not a bool."""
    for name in names:
        if not isinstance(value := getattr(spec, name), bool):
            raise refuse(spec, f"{name} must be True or False, not {value!r}")


def check_checkpoint(spec: Any) -> None:
    """Raises BenchError for a field `checkpoint` that is neither None nor (which, of how many)."""
    if spec.checkpoint is not None and not 1 <= spec.checkpoint[0] <= spec.checkpoint[1]:
        raise refuse(spec, f"checkpoint must be (which, of how many), such as (2, 5), not {spec.checkpoint!r}")


@dataclass(frozen=True)
class Variant:
    """A row of DreamDiffusion (Table 2). Raises BenchError for a value outside its range.

    mask_ratio      share of tokens masked in pre-training (Sec. 3.1); None: no pre-training
    align           "clip": L_clip (Eq. 3); "label": class labels instead of CLIP (Sec. 4.4); None: no alignment
    aligned         input of h: "context", the output of tau (Eq. 3); "latent", the encoder's tokens (released code)
    sd_loss         L_SD (Eq. 2); False: fine-tuning with the alignment loss only (Fig. 5)
    tune            what fine-tuning trains, by the table OPENS in this file: "E+A", "E", "A", "tau", "A-tau" or
                    "E+A+norm2". E: the encoder; A: q, k, v and out of the U-Net's cross-attention; norm2: the LayerNorm
                    before it. tau trains in all but "A-tau"; h trains wherever there is alignment
    size            the encoder's size by its label in the paper; tables show the real parameter count beside it
    encoder         a file of models/encoders/, the path of a user's .py file with a class Encoder, or braindecode:NAME
    time_condition  the condition also enters the U-Net through the time step (released code, not in the paper)
    tau             "text": begins at the mean text tokens of the shown classes' captions, with a trained base and two
                    LayerNorms (added here); "released": two 1 x 1 convolutions over tokens (L to L // 2 to M) and a
                    linear map, random, no norm (released code); "linear": one of each, random, no norm (the plainest
                    reading of "projector", Sec. 3.2)
    decoder_mlp_ratio  of the decoder's blocks in pre-training (released code: 1); None: the scale's
    class_token     in pre-training a trained token passes through encoder and decoder; no loss uses it, and fine-tuning
                    is without it (released code)
    rounding        the number of tokens that is rounded down: "masked", int(L r), or "kept", int(L (1 - r)) (released
                    code; at L = 128 and r = 0.85: 20 or 19 visible)
    The last three need pre-training.
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
    tau: str = added("text")
    decoder_mlp_ratio: float | None = added(None)
    class_token: bool = added(False)
    rounding: str = added("masked")

    system: ClassVar[str] = "dreamdiffusion"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise refuse(self, f"name must be text that is not empty, not {self.name!r}")
        if not isinstance(self.encoder, str) or not isinstance(self.size, str):
            raise refuse(self, f"encoder and size must be text, not {self.encoder!r} and {self.size!r}")
        check_flags(self, "sd_loss", "time_condition", "class_token")
        if self.mask_ratio is not None and not (
                isinstance(self.mask_ratio, (int, float)) and 0 < self.mask_ratio < 1):
            raise refuse(self, f"mask_ratio must be between 0 and 1, or None for no pre-training, not "
                               f"{self.mask_ratio!r}")
        check_choices(self, True, align=ALIGN, aligned=ALIGNED, tune=OPENS, tau=TAU, rounding=ROUNDING)
        ratio = self.decoder_mlp_ratio
        if ratio is not None and (isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not ratio > 0):
            raise refuse(self, f"decoder_mlp_ratio must be a number above 0, or None for the scale's, not {ratio!r}")
        if self.mask_ratio is None:
            for name in ("decoder_mlp_ratio", "class_token", "rounding"):
                if getattr(self, name) != getattr(Variant, name):
                    raise refuse(self, f"{name}={getattr(self, name)!r} changes pre-training only, but mask_ratio=None "
                                       "leaves it out; set one of them")
        if not self.sd_loss and self.align is None:
            raise refuse(self, "sd_loss=False with align=None leaves no loss to train with; set one of them")
        if not self.sd_loss and self.aligned == "latent":
            raise refuse(self, "sd_loss=False with aligned='latent' leaves no loss that trains tau; set one of them")


FULL = Variant("Full")


def innermost(spec: Any) -> Any:
    """Returns the system's own settings, without the On and retrieval specs around them."""
    while hasattr(spec, "of"):
        spec = spec.of
    return spec


def pretraining_settings(spec: Any) -> tuple[Any, ...]:
    """Returns the settings of a row that change its pre-training; None for each that its system lacks."""
    inside, scaling = innermost(spec), set()
    while hasattr(spec, "of"):
        scaling.add(getattr(spec, "scaling", "normalised"))
        spec = spec.of
    return *(getattr(inside, name, None) for name in PRETRAINING), "released" in scaling


def sees_eeg(spec: Any) -> bool:
    """Returns whether the row's system uses the EEG; a system that does not sets `sees_eeg = False`."""
    return bool(getattr(innermost(spec), "sees_eeg", True))


@dataclass(frozen=True)
class On:
    """A system on other items than the scale's, or under other settings: controls, other recordings, longer training.

    of          the system's settings
    eeg         what replaces the items' EEG (bench.experiment.stages.CONTROLS)
    window      "stimulus", or "blank": an interval that ends half a second before it
    split       the unit of a part: "item" (images), "block" (whole blocks of the recording), "subject", "single"
                (bench.experiment.stages.Trials)
    protocol    "pairs": the scale's own items; "things": new concepts (docs/data.md), with the splits "concept" (also
                if "item" is given), "subject" and "subject_seen"
    band        Hz, of the paired EEG only; None: the scale's. The pre-training corpus always has the scale's band
    channels    number of electrodes, of the paired EEG and of pre-training: a nested set (docs/data.md); None: all
    subjects    subjects whose trials are used; None: the scale's. In a split of protocol things that leaves one
                subject out, the last; one subject alone is left out, and all others of the scale's people train
    epochs      of fine-tuning; None: the scale's schedule, which corresponds to the paper's 300
    views       of each image for the VAE (bench.experiment.stages.Targets); 0: new random crops; None: the scale's
    scaling     "normalised", or "released": the windows of the corpus divided by 10, and trials that are not normalised
    cut         "prepared": ImageNet-EEG's 440 samples are interpolated to 512 (released code); "truncated": they are
                followed by zeros (Sec. 4.1 states no interpolation)
    sampling    changed fields of the scale's Sampling, such as {"sampler": "plms", "steps": 250}
    world       changed fields of the world of the paired recordings, such as {"order": "blocked"}; its seed is also
                that of the corpus and of the images that FID compares with
    part        "test", or "val" to choose a checkpoint on
    checkpoint  (2, 5): the second of five checkpoints, evenly spaced over fine-tuning (for the guided system over its
                encoder's training); None: the final state
    rates       a factor of all learning rates of the system's trainings (ablations/tuning.py)
    eeg_free    no system can know the stimulus from these items; the row is tested against chance
    Raises BenchError for unknown fields and values. Planning raises NotAvailable for what a scale's world lacks.
    """

    of: Any
    name: str = field(compare=False)
    eeg: str = "real"
    window: str = "stimulus"
    split: str = "item"
    protocol: str = "pairs"
    band: tuple[float, float] | None = None
    channels: int | None = added(None)
    subjects: tuple[int, ...] | None = None
    epochs: int | None = None
    views: int | None = None
    scaling: str = added("normalised")
    cut: str = added("prepared")
    sampling: Any = ()
    world: Any = ()
    part: str = "test"
    checkpoint: tuple[int, int] | None = None
    rates: float = added(1.0)
    eeg_free: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        check_choices(self, eeg=CONTROLS)
        kinds = {"world": TinyThings if self.protocol == "things" else World, "sampling": Sampling}
        for what, kind in kinds.items():
            changes, known = dict(getattr(self, what)), [f.name for f in fields(kind) if f.init]
            object.__setattr__(self, what, tuple(sorted(changes.items())))
            if unknown := set(changes) - set(known):
                raise refuse(self, f"{what} has no field {', '.join(sorted(unknown))}; it has: {', '.join(known)}")
        seed = dict(self.world).get("seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise refuse(self, f"world's seed must be an integer from 0 on, not {seed!r}")
        for what, least in (("epochs", 1), ("views", 0), ("channels", 1)):
            value = getattr(self, what)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise refuse(self, f"{what} must be an integer of at least {least}, not {value!r}")
        if isinstance(self.rates, bool) or not isinstance(self.rates, (int, float)) or not 0 < self.rates < inf:
            raise refuse(self, f"rates must be a positive number, not {self.rates!r}")
        check_choices(self, window=WINDOWS, split=SPLITS, part=PARTS, protocol=PROTOCOLS, scaling=SCALING, cut=CUT)
        check_checkpoint(self)

    @property
    def system(self) -> str:
        """The file of bench/systems/ that plans it."""
        return self.of.system

    def items(self, items: Items, scale: Any) -> Items:
        """Applies the row's changes to the items. Raises NotAvailable for what the world lacks."""
        if self.protocol == "things":
            return self._things_items(scale)
        world = items.trials.world
        self._check_recording(world)
        if isinstance(world, World) and self.split not in ("item", "block"):
            raise refuse(self, f"the tiny world has no split {self.split!r}; it has: item, block", NotAvailable)
        world = replace(world, **dict(self.world))
        self._check_channels(world)
        trials = replace(items.trials, world=world, window=self.window, split=self.split,
                         band=self.band or items.trials.band, subjects=self.subjects or items.trials.subjects,
                         normalised=items.trials.normalised and self.scaling == "normalised",
                         cut=items.trials.cut if self.cut == "prepared" else self.cut,
                         channels=self.channels or items.trials.channels)
        return replace(items, trials=trials, eeg=self.eeg, part=self.part)

    def _things_items(self, scale: Any) -> Items:
        """Returns the items of protocol things. Raises NotAvailable for what it lacks."""
        if (things := scale.things) is None:
            raise refuse(self, f"scale {scale.name} has no protocol things", NotAvailable)
        split = "concept" if self.split == "item" else self.split
        if split not in LEFT_OUT:
            raise refuse(self, f"protocol things has no split {split!r}; it has: {', '.join(LEFT_OUT)}", NotAvailable)
        if self.scaling != "normalised":
            raise refuse(self, f"protocol things has no scaling={self.scaling!r}: its means over repetitions are "
                               "normalised", NotAvailable)
        if self.eeg in ("within_class", "other_trial", "label"):
            raise refuse(self, f"eeg={self.eeg!r} needs more than a test concept has: one item and no training "
                               "trials", NotAvailable)
        self._check_recording(things.world)
        subjects = self.subjects or (things.subjects if split == "concept" else things.people)
        if split != "concept" and len(subjects) == 1:
            subjects = (*(person for person in things.people if person not in subjects), *subjects)
        world = replace(things.world, **dict(self.world))
        self._check_channels(world)
        return Items(Trials(world, subjects, self.band or things.band, self.window, split, channels=self.channels),
                     self.part, self.eeg)

    def _check_recording(self, world: Any) -> None:
        """Raises NotAvailable if the data set cannot be changed or cut as the row says."""
        if (self.world or self.window == "blank") and not isinstance(world, World):
            raise refuse(self, f"{world.name} is a recorded data set; `world` and window='blank' need the tiny world",
                         NotAvailable)
        if self.cut == "truncated" and (isinstance(world, World) or not world.name.endswith(INTERPOLATED)):
            name = "the tiny world" if isinstance(world, World) else world.name
            raise refuse(self, f"cut='truncated' needs EEG that was interpolated, that of {INTERPOLATED}; the EEG of "
                               f"{name} was not", NotAvailable)

    def _check_channels(self, world: Any) -> None:
        """Raises NotAvailable if the world cannot be reduced to so many electrodes, or the encoder cannot be planned
        for them."""
        if self.channels is None:
            return
        if isinstance(world, World):
            fault = montages.find_tiny_fault(self.channels, world.n_chans)
        else:
            fault = montages.find_fault(montages.channel_names(world), self.channels, world.n_chans)
        if fault:
            owner = "the tiny world" if isinstance(world, World) else world.name
            raise refuse(self, f"{owner} cannot be reduced to {self.channels} electrodes: {fault}", NotAvailable)
        if str(getattr(innermost(self), "encoder", "")).startswith("braindecode:"):
            raise refuse(self, "models of braindecode are planned for all channels of a data set; use an encoder of "
                               "models/encoders/", NotAvailable)

    def scale(self, scale: Any) -> Any:
        """Applies the row's epochs, views, scaling, sampling and world's seed to the scale. Raises NotAvailable for
        what it lacks."""
        known = SUBJECTS if isinstance(scale.world, World) else scale.things.people if self.protocol == "things" else \
            scale.people
        if absent := sorted(set(self.subjects or ()) - set(known)):
            raise refuse(self, f"no subject {', '.join(map(str, absent))}; there are: {', '.join(map(str, known))}",
                         NotAvailable)
        if self.protocol == "things" and not isinstance(scale.things.world, World):
            world, corpus = scale.things.world, scale.corpus  # FID's reference: the training images of this world
            if corpus and (corpus.n_chans, corpus.n_times) != (world.n_chans, world.n_times):
                corpus = None
            networks = (*scale.networks, "swav") if scale.networks else ()  # Li et al., Table 1
            scale = replace(scale, world=world, corpus=corpus, networks=networks)
        elif self.protocol == "pairs" and "seed" in dict(self.world) and isinstance(scale.world, World):
            scale = replace(scale, world=replace(scale.world, seed=dict(self.world)["seed"]))
        if dict(self.sampling).get("sampler") == "plms" and scale.prior == "tiny":
            raise refuse(self, f"PLMS cannot start where the noise schedule has no signal, as at scale {scale.name}",
                         NotAvailable)
        longer = Fraction(self.epochs or EPOCHS, EPOCHS)
        finetune = replace(scale.finetune, steps=round(scale.finetune.steps * longer))
        views = scale.views if self.views is None else self.views
        divisor = DIVISOR if self.scaling == "released" else scale.divisor
        return replace(scale, finetune=finetune, views=views, divisor=divisor,
                       sampling=replace(scale.sampling, **dict(self.sampling)))

    def score(self, score: Scored) -> Scored:
        """Applies the row's rates and checkpoint to the score of a system. Raises BenchError if the system has none."""
        if self.rates != 1:
            before, score = score, scale_rates(score, self.rates)
            if score == before:
                raise refuse(self, f"rates is set, but system {self.system} trains with no learning rate that can be "
                                   "changed")
        if self.checkpoint is None:
            return score
        which, many = self.checkpoint
        if isinstance(score, Score) and hasattr(score.pictures, "at_checkpoint"):
            return replace(score, pictures=score.pictures.at_checkpoint(which, many))
        if not isinstance(score, Score) or not isinstance(score.pictures, Generate) or not isinstance(
                score.pictures.model, Finetune):
            raise refuse(self, "checkpoint is set, but only the systems dreamdiffusion and guided keep checkpoints")
        return replace(score, pictures=replace(score.pictures, checkpoint=None if which == many else which,
                                               model=replace(score.pictures.model, checkpoints=many)))


def scale_rates(value: Any, factor: float) -> Any:
    """Multiplies all learning rates in the schedules of a planned stage and of the stages that it needs."""
    changes = {}
    for each in fields(value) if is_dataclass(value) else ():
        old = getattr(value, each.name)
        if isinstance(old, float) and (each.name == "lr" or each.name.startswith("lr_")):
            new = old * factor
        else:
            new = scale_rates(old, factor)
        if new != old:
            changes[each.name] = new
    return replace(value, **changes) if changes else value
