"""Where a scale's data and weights lie: fills in what the value of a scale leaves open."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from bench import systems
from bench.data import prepared
from bench.data.pictures import CLASSES
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment import datasets
from bench.experiment import scale as scales
from bench.experiment.key import Stage
from bench.experiment.kinds import frozen_parts
from bench.experiment.scale import REHEARSAL, SCALES, Scale
from bench.experiment.stages import Prepared, Shards, Weights
from bench.setup import weights
from bench.setup.rehearsal import data as rehearsal
from bench.setup.request import DATA, Request

PARTS = ("vae", "unet", "clip", "judge")
PRIORS = {"tiny": (32, len(CLASSES)), "": (512, 1000)}  # by Scale.prior: side of its pictures, classes of its judge


def scale(name: str) -> Scale:
    """The scale of that name, with the identities of its pinned weights. Raises BenchError naming those that exist."""
    at = scales.scale(name)
    return at if at.prior else replace(at, parts=tuple(weights.part(one) for one in weights.known_names()))


def placed(at: Scale, store: Path, folder: Path | None = None, data: Path | None = None, needed: bool = True) -> Scale:
    """The scale with the paths and hashes of its data set, its corpus and its weights.

    folder: of weights; data: of `bench data prepare`. The rehearsal's lie in the store, and are made where they are not.
    needed: raises BenchError (exit 3) for the first of them that is absent; else that one stays open, to plan with.
    What only some rows need, the data set of the protocol things and the weights of ATM with guided diffusion, stays
    open in any case (`complete`).
    """
    world = at.world
    if not isinstance(world, Prepared):
        return at
    if at.name == REHEARSAL.name:
        return _rehearsal(at, store, needed)
    systems.load_all()
    root = data or DATA

    def parts() -> Scale:
        if at.prior:
            return at
        some = [*PARTS, *at.networks, *(name for name in frozen_parts() if weights.locate(name, folder))]
        known = {part.name: part for part in at.parts} | weights.check(some, folder)
        return replace(at, parts=tuple(known.values()))

    def pairs() -> Scale:
        return replace(at, world=datasets.find_pairs(world.name, root))

    def corpus() -> Scale:
        return replace(at, corpus=datasets.find_corpus(at.corpus.name, root)) if at.corpus else at

    def things() -> Scale:
        own = at.things
        if own is None or not isinstance(own.world, Prepared):
            return at
        return replace(at, things=replace(own, world=datasets.find_pairs(own.world.name, root)))

    for find in (parts, pairs, corpus, things):
        try:
            at = find()
        except BenchError:
            if needed and find is not things:
                raise
    return at


def complete(planned: Iterable[Stage], request: Request) -> None:
    """Raises BenchError (exit 3) for a data set or weights that these stages need and that `placed` left open."""
    worlds, parts = lacking(planned)
    for name in worlds:
        datasets.find_pairs(name, request.data)
    if special := [name for name in parts if name in frozen_parts()]:
        weights.check(special, request.weights)


def lacking(planned: Iterable[Stage]) -> tuple[list[str], list[str]]:
    """Names of the data sets and of the weights that these stages need and whose place is open."""
    held = [getattr(stage, f.name) for stage in planned for f in fields(stage)]  # type: ignore[arg-type]
    names = {kind: [*dict.fromkeys(one.name for one in held if isinstance(one, kind) and not one.path)]
             for kind in (Prepared, Weights)}
    return names[Prepared], names[Weights]


def placed_scale(request: Request, needed: bool = True) -> Scale:
    """The scale of a request, on the data set of its `pairs` where that names one, with the places of data and
    weights. needed: as of `placed`."""
    at, corpus, pairs = scale(request.scale), request.corpus, request.pairs
    if pairs:
        at = paired(at, pairs, request.data)
        if corpus and at.corpus is None:
            at = replace(at, corpus=Shards(corpus, "", at.world.n_chans, at.world.n_times))
    if corpus and at.corpus is None:
        raise BenchError(f"--corpus {corpus}: scale {at.name} has a corpus of its own")
    if corpus and at.corpus:
        at = replace(at, corpus=replace(at.corpus, name=corpus, sha256="", path=""))
    at = placed(at, request.store, request.weights, request.data, needed)
    if pairs and at.corpus and (shape := (at.corpus.n_chans, at.corpus.n_times)) != (at.world.n_chans,
                                                                                   at.world.n_times):
        raise BenchError(f"corpus {at.corpus.name} has windows [{shape[0]}, {shape[1]}], data set {pairs} has EEG "
                         f"[{at.world.n_chans}, {at.world.n_times}]: pre-training needs windows of the same shape")
    return at


def paired(at: Scale, name: str, root: Path) -> Scale:
    """The scale on a prepared data set in the place of its own: all its subjects, its first band where it has not the
    scale's, a corpus only where its windows have the shape of the EEG.

    Raises BenchError for the rehearsal, which makes its own, for pictures of another side than the scale's, for classes
    that its judge does not know, and (exit 3) for a data set that is not there.
    """
    if at.prior not in PRIORS:
        raise BenchError(f"--pairs {name}: scale {at.name} makes its own data; there are: "
                         + ", ".join(one.name for one in SCALES.values() if one.prior in PRIORS))
    if isinstance(at.world, Prepared) and at.world.name == name:
        return at
    there = sorted(path.parent.name for path in root.glob(f"*/{prepared.MANIFEST}"))
    if name not in there:
        raise BenchError(f"--pairs {name}: no such data set in {root}; there are: {', '.join(there) or 'none'} (--data "
                         "DIR: elsewhere; docs/adding.md: how one is written)", ENVIRONMENT)
    world = datasets.find_pairs(name, root)
    folder, manifest = prepared.opened(world)
    side, classes = PRIORS[at.prior]
    height, width = np.load(folder / "pictures.npy", mmap_mode="r", allow_pickle=False).shape[1:3]
    if (height, width) != (side, side):
        raise BenchError(f"--pairs {name}: its pictures are {height} x {width} and those that scale {at.name} makes "
                         f"{side} x {side}: prepare it with such ones")
    with (folder / "classes.csv").open(newline="") as file:
        judged = {row["name"]: int(row["judge"]) for row in csv.DictReader(file) if row["shown"] == "1"}
    for one, number in judged.items():
        if not 0 <= number < classes:
            raise BenchError(f"--pairs {name}: class {one!r} has the judge's number {number}; the judge of scale "
                             f"{at.name} knows 0 to {classes - 1}, and tables are about its verdicts: leave out what "
                             "it does not know")
    people, bands = tuple(manifest["subjects"]), [tuple(band) for band in manifest["bands"]]
    known = sorted(set(judged.values()))
    others = [number for number in range(classes) if number not in known]
    same = at.corpus and (at.corpus.n_chans, at.corpus.n_times) == (world.n_chans, world.n_times)
    return replace(at, world=world, people=people, subjects=people, corpus=at.corpus if same else None,
                   band=at.band if at.band in bands else bands[0],
                   fixed=(*known, *others[:max(1, len(known) // 4)]))


def _rehearsal(at: Scale, store: Path, needed: bool) -> Scale:
    folder = store / "rehearsal"
    if needed:
        rehearsal.make(at, folder)
    return rehearsal.placed(at, folder) if rehearsal.there(folder) else at
