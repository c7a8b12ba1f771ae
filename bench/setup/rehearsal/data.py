"""What the scale rehearsal runs on: two data sets, a corpus and weights, small and made up, in their real formats."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.data.prepared import MANIFEST
from bench.experiment.scale import Scale
from bench.experiment.stages import Prepared
from bench.setup.rehearsal.weights import FOLDERS, PROVENANCE, SIDE, rehearsal, write_rehearsal

SEED = 0
PER_CLASS = 12  # pictures
BANDS = ((5, 95), (14, 70), (55, 95))  # Hz, in which it was published
VAL_CONCEPTS = 2
PAIRS, SOURCE, WEIGHTS = "imagenet_eeg", "source", "weights-2"
THINGS, THINGS_SOURCE = "things_eeg2", "source of things_eeg2"


def make(at: Scale, folder: Path) -> None:
    """Makes what is not there yet, through the code that prepares the real ones. Downloads nothing."""
    from bench.data import catalogue, corpora, imagenet_eeg, shards, things
    from bench.setup.rehearsal import files

    source, shown = folder / SOURCE, folder / THINGS_SOURCE
    if not source.is_dir():
        _whole(source, lambda out: files.write_imagenet_eeg(
            out, at.people, per_class=PER_CLASS, seed=SEED, serialisation="zip", bands=BANDS))
    if not (folder / PAIRS / MANIFEST).is_file():
        imagenet_eeg.prepare(source, folder / PAIRS, pictures=source / "images", size=SIDE)
    if not shown.is_dir():
        assert at.things is not None
        people = at.things.people
        _whole(shown, lambda out: files.write_things(out, "nice", people, seed=SEED))
    if not (folder / THINGS / MANIFEST).is_file():
        things.prepare(shown, folder / THINGS, shown / "images", val_concepts=VAL_CONCEPTS, size=SIDE)
    if not (folder / shards.CORPORA / "fake" / MANIFEST).is_file():
        corpora.prepare("fake", folder, catalogue.FAKE)
    if not (folder / WEIGHTS).is_dir():
        _whole(folder / WEIGHTS, lambda out: write_rehearsal(out, SEED))


def there(folder: Path) -> bool:
    """Whether all of it is made."""
    from bench.data.shards import CORPORA

    return all(path.is_file() for path in (folder / PAIRS / MANIFEST, folder / THINGS / MANIFEST,
                                           folder / CORPORA / "fake" / MANIFEST, folder / WEIGHTS / PROVENANCE))


def placed(at: Scale, folder: Path) -> Scale:
    """The scale with what `make` made."""
    from bench.experiment import datasets

    def found(name: str, world: object) -> Prepared:
        assert isinstance(world, Prepared)
        return replace(datasets.find_pairs(name, folder), name=world.name)

    assert at.things is not None
    return replace(at, world=found(PAIRS, at.world), things=replace(at.things, world=found(THINGS, at.things.world)),
                   corpus=datasets.find_corpus("fake", folder),
                   parts=tuple(rehearsal(folder / WEIGHTS, name) for name in FOLDERS))


def _whole(folder: Path, write: Callable[[Path], object]) -> None:
    """A folder that is complete or absent."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        write(work / "whole")
        os.rename(work / "whole", folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process was faster
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
