"""The protocol `things` (docs/data.md): its splits, and a tiny world of concepts, repetitions and several people."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from bench.data.pictures import BACKGROUNDS, COLOURS, SHOWN, Scenes, captions, draw_scenes
from bench.data.tiny import (
    PARTS,
    SUBJECTS,
    Recording,
    TinyWorld,
    channel_names,
    draw_anatomy,
    draw_codes,
    electrode_positions,
    generator,
    record,
)
from bench.errors import BenchError

Array = np.ndarray

CONCEPTS = SHOWN * len(COLOURS) * len(BACKGROUNDS)
LEFT_OUT = {  # what each split of the protocol says that it keeps out of training, as columns of the table of trials
    "concept": ("label",),
    "subject": ("label", "subject"),
    "subject_seen": ("label", "subject"),
}
FEWEST = 30  # training concepts; with fewer it is rare that every colour occurs among them


def part_in(split: str, part: str, last: bool) -> str:
    """The part that a trial of that part has in a split of the protocol, "" where it has none.

    last: whether its subject is the last of those who take part, whom the splits by subject leave out. "concept":
    everybody trains, validates and tests. "subject": the last one's trials validate and test, the others' train.
    "subject_seen": so, but the last one's training trials train, too; a model that was trained on one left-out subject
    after the other, without a fresh start, has seen as much (the released code of ATM until April 2024, its issue 7).
    Raises BenchError for a split that is none.
    """
    if split not in LEFT_OUT:
        raise BenchError(f"the protocol things has no split {split!r}; it has: {', '.join(LEFT_OUT)}")
    if part == "train":
        return "" if split == "subject" and last else part
    return part if split == "concept" or last else ""


@dataclass(frozen=True)
class TinyThings(TinyWorld):
    """A tiny world whose recordings are made as THINGS-EEG2's (Gifford et al., NeuroImage 2022).

    A concept is a shape, a colour and a background ("star green on gray"). Training, validation and test have concepts
    of their own; every shape, colour and background occurs in training. All pictures and repetitions come in one random
    order. Sources, tuning and noise are those of a TinyWorld of the same seed; the people are others. Raises BenchError
    for numbers that do not fit, and for a knob of TinyWorld that has no meaning here.
    """

    pictures: int = field(init=False)  # of all parts
    train_concepts: int = 160  # THINGS-EEG2: 1,654
    val_concepts: int = 60
    test_concepts: int = 80  # THINGS-EEG2: 200
    exemplars: int = 6  # pictures of a training concept (THINGS-EEG2: 10); of a validation or test concept there is one
    repetitions: int = 2  # of each training picture, each an item (THINGS-EEG2: 4)
    means: int = 10  # repetitions of each validation or test picture, whose mean is the item (THINGS-EEG2: 80)

    def __post_init__(self) -> None:
        def refuse(what: str) -> None:
            raise BenchError(f"protocol things: {what}")

        numbers = {name: getattr(self, name) for name in ("train_concepts", "val_concepts", "test_concepts",
                                                          "exemplars", "repetitions", "means", "blocks")}
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                refuse(f"{name} is a whole number from 1 on, not {value!r}")
        if self.train_concepts < FEWEST:
            refuse(f"train_concepts={self.train_concepts}: at least {FEWEST} are needed, so that every shape, colour "
                   "and background can occur among them")
        if (total := self.train_concepts + self.val_concepts + self.test_concepts) > CONCEPTS:
            refuse(f"{total} concepts in all; there are {CONCEPTS}: {SHOWN} shapes, {len(COLOURS)} colours, "
                   f"{len(BACKGROUNDS)} backgrounds")
        for name in ("order", "block_drift", "artefacts"):
            if getattr(self, name) != getattr(TinyWorld, name):
                refuse(f"{name} is that of a recording of classes and stays {getattr(TinyWorld, name)!r} here, not "
                       f"{getattr(self, name)!r}")
        object.__setattr__(self, "pictures", sum(n for _, n, _ in self.stretches()))

    def stretches(self) -> tuple[tuple[str, int, int], ...]:
        """Of each part in the order of the pictures: its name, how many pictures, how often each is shown."""
        return (("train", self.train_concepts * self.exemplars, self.repetitions),
                ("val", self.val_concepts, self.means), ("test", self.test_concepts, self.means))


@dataclass(frozen=True, eq=False)
class Shown:
    """The P pictures of the protocol, those of training first, then of validation, then of test."""

    scenes: Scenes
    label: Array  # [P] int64, the number of the concept
    part: Array  # [P] int64, index into PARTS
    repeats: Array  # [P] int64, how often a subject sees it
    names: tuple[str, ...]  # of the concepts


def shown(world: TinyThings) -> Shown:
    """What every subject of that world sees.

    Concepts are drawn so that each part has equally many of every shape, to within one. Exemplars of a concept differ
    in position, size, rotation, gradient and shades.
    """
    rng = generator(world, 8)
    concepts = _concepts(world, rng)
    pictures = np.array([world.exemplars] * world.train_concepts + [1] * (world.val_concepts + world.test_concepts))
    label = np.repeat(np.arange(len(concepts)), pictures)
    shape, colour, background = concepts[label].T
    scenes = replace(draw_scenes(world.pictures, SHOWN, rng), label=shape, colour=colour, background=background)
    _, n, repeats = zip(*world.stretches(), strict=True)
    first = np.cumsum(pictures) - pictures
    names = tuple(caption.removeprefix("a ") for caption in captions(scenes[first], False))
    return Shown(scenes, label, np.repeat(np.arange(len(PARTS)), n), np.repeat(repeats, n), names)


def _concepts(world: TinyThings, rng: np.random.Generator) -> Array:
    """[K, 3] int64: shape, colour and background of each concept, training first, then validation, then test."""
    pairs = np.stack(np.divmod(np.arange(CONCEPTS // SHOWN), len(BACKGROUNDS)), 1)
    while True:
        rows = np.stack([rng.permutation(pairs) for _ in range(SHOWN)], 1)  # [pairs, SHOWN, 2]
        shape = np.broadcast_to(np.arange(SHOWN)[:, None], (len(pairs), SHOWN, 1))
        drawn = np.concatenate([shape, rows], 2).reshape(CONCEPTS, 3)
        drawn = drawn[: world.train_concepts + world.val_concepts + world.test_concepts]
        sizes = [len(np.unique(column)) for column in drawn[: world.train_concepts].T]
        if sizes == [SHOWN, len(COLOURS), len(BACKGROUNDS)]:
            return drawn


def things_recording(world: TinyThings, subject: int) -> Recording:
    """One subject sees every picture as often as its part says, all in one random order of their own.

    The EEG answers as in the tiny world; `onsets`, `pictures`, `blocks` are in time's order, and a picture stands in
    `pictures` once for each repetition. Raises BenchError for a subject that is none.
    """
    if subject not in SUBJECTS:
        raise BenchError(f"protocol things: no subject {subject}; there are: {', '.join(map(str, SUBJECTS))}")
    what = shown(world)
    rng = generator(world, 9, subject)
    order = rng.permutation(np.repeat(np.arange(world.pictures), what.repeats))
    length = world.n_times / world.sfreq + rng.uniform(*world.gap, len(order))
    onsets = np.round((2 + np.cumsum(length) - length[0]) * world.sfreq).astype(np.int64)
    n = int(onsets[-1] + 3 * world.sfreq)
    codes = draw_codes(world, draw_anatomy(world), what.scenes)[order]
    data = record(world, electrode_positions(world.n_chans), world.sfreq, onsets, codes, n, rng)
    marks = tuple((float(onset / world.sfreq), world.n_times / world.sfreq, what.names[label])
                  for onset, label in zip(onsets, what.label[order], strict=True))
    return Recording(data, world.sfreq, channel_names(world.n_chans), marks, onsets, order,
                     np.arange(len(order)) * world.blocks // len(order))
