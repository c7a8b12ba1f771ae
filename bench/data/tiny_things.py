"""The protocol `things` (docs/data.md): its splits, and a tiny world with concepts, repetitions and several people."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from bench.data.pictures import BACKGROUNDS, COLOURS, SHOWN, Scenes, captions, draw_scenes
from bench.data.prepared import PARTS, Array
from bench.data.tiny import SUBJECTS, Recording, TinyWorld, generator, present
from bench.errors import BenchError

CONCEPTS = SHOWN * len(COLOURS) * len(BACKGROUNDS)
LEFT_OUT = {  # columns of trials.csv whose test values a split claims to keep out of training
    "concept": ("label",), "subject": ("label", "subject"), "subject_seen": ("label", "subject"),
}
FEWEST = 30  # training concepts; with fewer, training rarely has every colour


def assign_part(split: str, part: str, is_last: bool) -> str:
    """Returns the part that a trial of a published part has in a split of the protocol, "" for no part.

    is_last: whether its subject is the last of the chosen ones, whom the splits by subject leave out.
    "concept": all subjects train, validate and test.
    "subject": the last subject validates and tests, the others train.
    "subject_seen": as "subject", but the last subject's training trials train, too: the leak of a model that is trained
    for one left-out subject after the other without a restart (the released code of ATM until April 2024, its issue 7).
    Raises BenchError for another split.
    """
    if split not in LEFT_OUT:
        raise BenchError(f"the protocol things has no split {split!r}; available: {', '.join(LEFT_OUT)}")
    if part == "train":
        return "" if split == "subject" and is_last else part
    return part if split == "concept" or is_last else ""


@dataclass(frozen=True)
class TinyThings(TinyWorld):
    """A tiny world that is recorded as THINGS-EEG2 was (Gifford et al., NeuroImage 2022).

    A concept is a shape, a colour and a background ("star green on gray"). Training, validation and test have different
    concepts; every shape, colour and background occurs in training. All images and repetitions come in one random
    order. Sources, tuning and noise are those of a TinyWorld of the same seed, with other people. Raises BenchError for
    numbers that do not fit, and for a changed field of TinyWorld that has no meaning here.
    """

    pictures: int = field(init=False)  # of all parts
    train_concepts: int = 160  # THINGS-EEG2: 1,654
    val_concepts: int = 60
    test_concepts: int = 80  # THINGS-EEG2: 200
    exemplars: int = 6  # images of a training concept (THINGS-EEG2: 10); a validation or test concept has one
    repetitions: int = 2  # of each training image, each an item (THINGS-EEG2: 4)
    means: int = 10  # repetitions of each validation or test image; their mean is the item (THINGS-EEG2: 80)

    def __post_init__(self) -> None:
        def refuse(message: str) -> None:
            raise BenchError(f"protocol things: {message}")

        for name in ("train_concepts", "val_concepts", "test_concepts", "exemplars", "repetitions", "means", "blocks"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                refuse(f"{name}={value!r}: expected a whole number from 1 on")
        if self.train_concepts < FEWEST:
            refuse(f"train_concepts={self.train_concepts}: expected at least {FEWEST}, so that every shape, colour and "
                   "background can occur")
        if (total := self.train_concepts + self.val_concepts + self.test_concepts) > CONCEPTS:
            refuse(f"{total} concepts in all; expected at most {CONCEPTS}: {SHOWN} shapes, {len(COLOURS)} colours, "
                   f"{len(BACKGROUNDS)} backgrounds")
        for name in ("order", "block_drift", "artefacts"):
            if getattr(self, name) != getattr(TinyWorld, name):
                refuse(f"{name}={getattr(self, name)!r} has no effect without classes in blocks; expected the default, "
                       f"{getattr(TinyWorld, name)!r}")
        object.__setattr__(self, "pictures", sum(n for _, n, _ in self.parts()))

    def parts(self) -> tuple[tuple[str, int, int], ...]:
        """Returns for each part, in the order of the images: its name, number of images, showings of each image."""
        return (("train", self.train_concepts * self.exemplars, self.repetitions),
                ("val", self.val_concepts, self.means), ("test", self.test_concepts, self.means))


@dataclass(frozen=True, eq=False)
class ConceptImages:
    """The P images of the protocol: those of training, then of validation, then of test."""

    scenes: Scenes
    label: Array  # [P] int64, number of the concept
    part: Array  # [P] int64, index into PARTS
    repeats: Array  # [P] int64, how often each subject sees it
    names: tuple[str, ...]  # of the concepts


def draw_images(world: TinyThings) -> ConceptImages:
    """Draws the images that every subject of the world sees.

    The numbers of concepts of each shape in a part differ by at most one. Exemplars of a concept differ in position,
    size, rotation, gradient and shades.
    """
    rng = generator(world, 8)
    concepts = _draw_concepts(world, rng)
    images = np.array([world.exemplars] * world.train_concepts + [1] * (world.val_concepts + world.test_concepts))
    label = np.repeat(np.arange(len(concepts)), images)
    shape, colour, background = concepts[label].T
    scenes = replace(draw_scenes(world.pictures, SHOWN, rng), label=shape, colour=colour, background=background)
    _, n, repeats = zip(*world.parts(), strict=True)
    first = np.cumsum(images) - images
    names = tuple(caption.removeprefix("a ") for caption in captions(scenes[first], False))
    return ConceptImages(scenes, label, np.repeat(np.arange(len(PARTS)), n), np.repeat(repeats, n), names)


def _draw_concepts(world: TinyThings, rng: np.random.Generator) -> Array:
    """Draws [K, 3] int64: shape, colour and background of each concept: training, then validation, then test."""
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
    """Simulates one subject who sees every image with its part's repetitions, all in one random order.

    The EEG responds as in the tiny world. `onsets`, `pictures`, `blocks` are in order of time, with one entry for each
    repetition of an image. Raises BenchError for an unknown subject.
    """
    if subject not in SUBJECTS:
        raise BenchError(f"protocol things: no subject {subject}; available: {', '.join(map(str, SUBJECTS))}")
    images = draw_images(world)
    rng = generator(world, 9, subject)
    order = rng.permutation(np.repeat(np.arange(world.pictures), images.repeats))
    return present(world, images.scenes, (images.names[label] for label in images.label[order]), order, rng)
