"""Makes the scale rehearsal's two data sets, corpus and weights, through the code that prepares the real ones."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.data.prepared import MANIFEST
from bench.data.shards import CORPORA
from bench.experiment import datasets
from bench.experiment.scale import Scale
from bench.experiment.stages import Prepared
from bench.setup.rehearsal.weights import FOLDERS, PROVENANCE, SIDE, load_part, write_rehearsal

SEED = 0
PER_CLASS = 12  # images
BANDS = ((5, 95), (14, 70), (55, 95))  # Hz, as published
VAL_CONCEPTS = 2
CORPUS = f"{CORPORA}/fake"
PAIRS, SOURCE, WEIGHTS = "imagenet_eeg", "source", "weights-2"
THINGS, THINGS_SOURCE = "things_eeg2", "source of things_eeg2"


def make(scale: Scale, folder: Path) -> None:
    """Makes what is absent in the folder. Downloads nothing."""
    from bench.data import catalogue, corpora, imagenet_eeg, things
    from bench.setup.rehearsal import files

    assert scale.things is not None
    people, source, things_source = scale.things.people, folder / SOURCE, folder / THINGS_SOURCE
    if not source.is_dir():
        _write_whole(source, lambda out: files.write_imagenet_eeg(
            out, scale.people, per_class=PER_CLASS, seed=SEED, serialisation="zip", bands=BANDS))
    if not (folder / PAIRS / MANIFEST).is_file():
        imagenet_eeg.prepare(source, folder / PAIRS, pictures=source / "images", size=SIDE)
    if not things_source.is_dir():
        _write_whole(things_source, lambda out: files.write_things(out, "nice", people, seed=SEED))
    if not (folder / THINGS / MANIFEST).is_file():
        things.prepare(things_source, folder / THINGS, things_source / "images", val_concepts=VAL_CONCEPTS, size=SIDE)
    if not (folder / CORPUS / MANIFEST).is_file():
        corpora.prepare("fake", folder, catalogue.FAKE)
    if not (folder / WEIGHTS).is_dir():
        _write_whole(folder / WEIGHTS, lambda out: write_rehearsal(out, SEED))


def is_made(folder: Path) -> bool:
    """Whether `make` has made everything."""
    manifests = (folder / name / MANIFEST for name in (PAIRS, THINGS, CORPUS))
    return all(path.is_file() for path in (*manifests, folder / WEIGHTS / PROVENANCE))


def resolve_paths(scale: Scale, folder: Path) -> Scale:
    """Returns the scale with the paths and hashes of what `make` made."""
    def find(name: str, world: object) -> Prepared:
        assert isinstance(world, Prepared)
        return replace(datasets.find_pairs(name, folder), name=world.name)

    assert scale.things is not None
    return replace(scale, world=find(PAIRS, scale.world),
                   things=replace(scale.things, world=find(THINGS, scale.things.world)),
                   corpus=datasets.find_corpus("fake", folder),
                   parts=tuple(load_part(folder / WEIGHTS, name) for name in FOLDERS))


def _write_whole(folder: Path, write: Callable[[Path], object]) -> None:
    """Writes a folder that is either complete or absent."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        write(work / "whole")
        os.rename(work / "whole", folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process has written it
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
