"""Where a scale's data and weights lie: fills in what the value of a scale leaves open."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from bench.errors import BenchError
from bench.scale import REHEARSAL, Scale, scale
from bench.stages import Prepared

DATA = ".bench-data"  # where `bench data prepare` writes
PARTS = ("vae", "unet", "clip", "judge")


def placed(at: Scale, store: Path, weights: Path | None = None, data: Path | None = None, needed: bool = True) -> Scale:
    """The scale with the paths and hashes of its data set, its corpus and its weights.

    data: the folder of `bench data prepare`. The rehearsal's lie in the store, and are made where they are not.
    needed: raises BenchError (exit 3) for the first of them that is absent; else that one stays open, to plan with.
    """
    world = at.world
    if not isinstance(world, Prepared):
        return at
    if at.name == REHEARSAL.name:
        return _rehearsal(at, store, needed)
    from bench.data import prepared, shards
    from bench.weights import check

    root = data or Path(DATA)

    def parts() -> Scale:
        return replace(at, parts=tuple(check([*PARTS, *at.networks], weights).values()))

    def pairs() -> Scale:
        return replace(at, world=prepared.find(world.name, root))

    def corpus() -> Scale:
        return replace(at, corpus=shards.find(at.corpus.name, root)) if at.corpus else at

    for find in (parts, pairs, corpus):
        try:
            at = find()
        except BenchError:
            if needed:
                raise
    return at


def asked(options: argparse.Namespace, needed: bool = True) -> Scale:
    """The scale of options.scale, placed as options.store, .weights and .data say."""
    at, corpus = scale(options.scale), getattr(options, "corpus", None)
    if corpus and at.corpus is None:
        raise BenchError(f"--corpus {corpus}: scale {at.name} has a corpus of its own")
    if corpus and at.corpus:
        at = replace(at, corpus=replace(at.corpus, name=corpus, sha256="", path=""))
    return placed(at, Path(options.store), options.weights and Path(options.weights),
                  options.data and Path(options.data), needed)


def _rehearsal(at: Scale, store: Path, needed: bool) -> Scale:
    from bench import rehearsal

    folder = store / "rehearsal"
    if needed:
        rehearsal.make(at, folder)
    return rehearsal.placed(at, folder) if rehearsal.there(folder) else at
