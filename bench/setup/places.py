"""Completes a scale: its prepared data set, its corpus and its weights, each with its path and hash."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bench import systems
from bench.data import prepared
from bench.data.pictures import CLASSES, SHOWN
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment import datasets
from bench.experiment import scale as scales
from bench.experiment.key import Stage
from bench.experiment.kinds import frozen_parts
from bench.experiment.scale import REHEARSAL, SCALES, Scale
from bench.experiment.stages import Prepared, Shards, Weights
from bench.files import open_array
from bench.setup import weights
from bench.setup.rehearsal import data as rehearsal
from bench.setup.request import DATA, Request

PARTS = ("vae", "unet", "clip", "judge")
PRIORS = {"tiny": (32, len(CLASSES)), "": (512, 1000)}  # Scale.prior -> side of its images, classes of its judge


def load_scale(name: str) -> Scale:
    """Returns a scale with the identities of its pinned weights. Raises BenchError for an unknown name."""
    scale = scales.scale(name)
    if scale.prior or scale.retrieval_only:
        return scale
    return replace(scale, parts=tuple(weights.part(part) for part in weights.known_names()))


def resolve_scale(request: Request, needed: bool = True) -> Scale:
    """Returns the scale of a request, on its data set and corpus, with its pretrain_seeds and all paths.

    needed: as of `resolve_paths`. Raises BenchError for a data set or a corpus that does not fit the scale.
    """
    scale, corpus, pairs = load_scale(request.scale), request.corpus, request.pairs
    if request.pretrain_seeds:
        scale = replace(scale, pretrain_seeds=request.pretrain_seeds)
    if pairs:
        scale = use_dataset(scale, pairs, request.data)
        if corpus and scale.corpus is None:
            scale = replace(scale, corpus=Shards(corpus, "", scale.world.n_chans, scale.world.n_times))
    if corpus and scale.corpus is None:
        raise BenchError(f"--corpus {corpus}: scale {scale.name} has a corpus of its own; use it with a data set whose "
                         "EEG has the shape of its windows: --pairs NAME")
    if corpus and scale.corpus:
        scale = replace(scale, corpus=replace(scale.corpus, name=corpus, sha256="", path=""))
    parts = tuple(part for part in PARTS if part != "judge" or not request.judge)
    scale = resolve_paths(scale, request.store, request.weights, request.data, needed, parts)
    if request.judge:
        scale = use_judge(scale, request)
    elif request.architecture or request.fit:
        raise BenchError("--arch and --fit describe the judge of --judge; name one, or leave them out")
    if pairs and scale.corpus and (windows := _shape(scale.corpus)) != (eeg := _shape(scale.world)):
        raise BenchError(f"corpus {scale.corpus.name} has windows {windows}, data set {pairs} has EEG {eeg}: expected "
                         "windows of the EEG's shape for pre-training")
    return scale


def resolve_paths(scale: Scale, store: Path, folder: Path | None = None, data: Path | None = None,
                  needed: bool = True, parts: tuple[str, ...] = PARTS) -> Scale:
    """Returns the scale with the paths and hashes of its data set, its corpus and its weights.

    folder: of weights; data: of prepared data; parts: frozen parts that every row needs. The rehearsal's are in the
    store, and are made if they are absent.
    needed: raises BenchError (exit 3) for the first absent one; otherwise it stays without a path, which is enough for
    a plan. What only some rows need stays without a path if it is absent (`require_data`): the data set of protocol
    things, and the weights of ATM with guided diffusion.
    """
    world, root = scale.world, data or DATA
    if not isinstance(world, Prepared):
        return scale
    if scale.name == REHEARSAL.name:
        made = store / "rehearsal"
        if needed:
            rehearsal.make(scale, made)
        return rehearsal.resolve_paths(scale, made) if rehearsal.is_made(made) else scale
    systems.load_all()

    def find_parts() -> tuple[Weights, ...]:
        names = [*parts, *scale.networks, *(name for name in frozen_parts() if weights.locate(name, folder))]
        return tuple(({part.name: part for part in scale.parts} | weights.check(names, folder)).values())

    finders: dict[str, Callable[[], Any]] = {}
    if not scale.prior and not scale.retrieval_only:
        finders["parts"] = find_parts
    finders["world"] = lambda: datasets.find_pairs(world.name, root)
    if corpus := scale.corpus:
        finders["corpus"] = lambda: datasets.find_corpus(corpus.name, root)
    if (things := scale.things) and isinstance(shown := things.world, Prepared):
        finders["things"] = lambda: replace(things, world=datasets.find_pairs(shown.name, root))
    for field, find in finders.items():
        try:
            scale = replace(scale, **{field: find()})
        except BenchError:
            if needed and field != "things":
                raise
    return scale


def require_data(planned: Iterable[Stage], request: Request) -> None:
    """Raises BenchError (exit 3) for an absent data set or absent weights that these stages need."""
    worlds, parts = find_missing(planned)
    for name in worlds:
        datasets.find_pairs(name, request.data)
    if names := [name for name in parts if name in frozen_parts()]:
        weights.check(names, request.weights)


def find_missing(planned: Iterable[Stage]) -> tuple[list[str], list[str]]:
    """Returns the names of the data sets, and of the weights, that these stages need and that have no path."""
    values = [getattr(stage, f.name) for stage in planned for f in fields(stage)]  # type: ignore[arg-type]
    names = {kind: [*dict.fromkeys(value.name for value in values if isinstance(value, kind) and not value.path)]
             for kind in (Prepared, Weights)}
    return names[Prepared], names[Weights]


def use_dataset(scale: Scale, name: str, root: Path) -> Scale:
    """Returns the scale on a prepared data set: all its subjects, its first band if it lacks the scale's.

    The corpus remains only if its windows have the shape of the EEG. Raises BenchError for the rehearsal, which makes
    its own data, for images of another size, for classes that the judge does not know, and (exit 3) for an absent data
    set.
    """
    if scale.prior not in PRIORS:
        usable = ", ".join(other.name for other in SCALES.values() if other.prior in PRIORS)
        raise BenchError(f"--pairs {name}: scale {scale.name} makes its own data; expected scale {usable}")
    if isinstance(scale.world, Prepared) and scale.world.name == name:
        return scale
    if scale.retrieval_only:
        raise BenchError(f"--pairs {name}: scale {scale.name} needs THINGS-EEG2 with CLIP features; choose its "
                         "folder with --data DIR")
    names = sorted(path.parent.name for path in root.glob(f"*/{prepared.MANIFEST}"))
    if name not in names:
        raise BenchError(f"--pairs {name}: no such data set in {root}; there are: {', '.join(names) or 'none'}; choose "
                         "another folder with --data DIR, or write one (docs/adding.md)", ENVIRONMENT)
    world = datasets.find_pairs(name, root)
    folder, manifest = prepared.open_dataset(world)
    side, classes = PRIORS[scale.prior]
    prepared.check_hashes(folder, manifest["files"], ["classes.csv"])
    shape = open_array(folder / "pictures.npy", "images [P, side, side, 3]", "restore it, or prepare it again",
                       ENVIRONMENT).shape
    height, width = shape[1:3] if len(shape) == 4 else (0, 0)
    if (height, width) != (side, side):
        raise BenchError(f"--pairs {name}: its images are {height} x {width}; scale {scale.name} needs {side} x "
                         f"{side}: prepare it with this size")
    shown = prepared.read_classes(folder).query("shown == 1")
    judged = dict(zip(shown["name"], shown["judge"].tolist(), strict=True))
    for label, number in judged.items():
        if not 0 <= number < classes:
            raise BenchError(f"--pairs {name}: class {label!r} has the judge's number {number}; the judge of scale "
                             f"{scale.name} knows 0 to {classes - 1}: leave out classes that it does not know")
    people, bands = tuple(manifest["subjects"]), [tuple(band) for band in manifest["bands"]]
    known = sorted(set(judged.values()))
    others = [number for number in range(classes) if number not in known]
    return replace(scale, world=world, people=people, subjects=people,
                   corpus=scale.corpus if scale.corpus and _shape(scale.corpus) == _shape(world) else None,
                   band=scale.band if scale.band in bands else bands[0],
                   fixed=(*known, *others[:max(1, len(known) // 4)]))


def use_judge(scale: Scale, request: Request) -> Scale:
    """Returns the scale with the request's judge, and prints what the judge is.

    Raises BenchError if its classes are unknown, or are not those of the data set under the same numbers; and as
    `bench.scoring.judges.choose_judge`.
    """
    from bench.scoring import judges  # imports torch

    judge, classes, notes = judges.choose_judge(request.judge, request.architecture, request.fit)
    if not classes:
        raise BenchError(f"--judge {request.judge}: its file does not name its classes, so they cannot be compared "
                         "with the data set's; add label_names to its config.json")
    shown = _shown_classes(scale)
    if shown and (fault := judges.misnamed(shown, classes)):
        raise BenchError(f"--judge {request.judge}: {fault}; a judge must know the data set's classes by these numbers")
    if max(scale.nway, *scale.fixed) > len(classes):
        raise BenchError(f"--judge {request.judge}: it has {len(classes):,} classes; the accuracies of scale "
                         f"{scale.name} need {max(scale.nway, *scale.fixed):,}")
    for note in notes:
        print(f"bench: {note}", file=sys.stderr)
    return replace(scale, judge=judge)


def _shown_classes(scale: Scale) -> dict[str, int]:
    """Returns the judge's number of each class that is shown; {} if the data set is absent (a plan). A class that the
    scale's judge does not know has no number."""
    if not isinstance(scale.world, Prepared):
        return {name: number for number, name in enumerate(CLASSES[:SHOWN])}
    if not scale.world.path:
        return {}
    classes = prepared.read_classes(Path(scale.world.path)).query("shown == 1 and judge >= 0")
    return dict(zip(classes["name"], classes["judge"].tolist(), strict=True))


def _shape(windows: Any) -> list[int]:
    return [windows.n_chans, windows.n_times]
