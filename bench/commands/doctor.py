"""`bench doctor`: whether a scale can run on this machine, and what to do where it cannot."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rich.console import Console

from bench import FULL, errors, runtime, systems
from bench.commands.options import add_scale, add_store
from bench.errors import BenchError, NotHere
from bench.execute import engines
from bench.experiment import ablation, graph
from bench.experiment.ablation import Ablation
from bench.experiment.kinds import frozen_parts
from bench.experiment.scale import REHEARSAL, Scale
from bench.experiment.stages import Prepared
from bench.setup import places, weights
from bench.setup.places import DATA, PARTS

ROOM = 2e9  # bytes that a run of a scale without a price may leave in the store


@dataclass(frozen=True)
class Line:
    """One thing that was looked at: `said` is what was found, or what to do where it is not `ok`."""

    what: str
    ok: bool
    said: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """--scale, --ablation, --weights, --data, --store, --on."""
    add_scale(parser)
    parser.add_argument("--ablation", metavar="NAME|FILE.py", help="look for what only its rows need, too")
    parser.add_argument("--weights", metavar="DIR", help="pre-trained weights, before the libraries' caches")
    parser.add_argument("--data", default=str(DATA), metavar="DIR", help=f"prepared data (default: {DATA})")
    add_store(parser)
    parser.add_argument("--on", choices=engines.ENGINES, help="whether this engine is here, too")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints a line for everything that was looked at; returns 0, or 3 where the scale cannot run."""
    at, sound = places.scale(options.scale), True
    folder = Path(options.weights) if options.weights else None
    lines = examine(at, folder, Path(options.data), Path(options.store))
    if options.ablation:
        chosen = ablation.asked(options.ablation)
        if not at.prior and at.name != REHEARSAL.name:  # those make or ship what they need
            lines = chain(lines, _rows(chosen, at, folder, Path(options.data)))
    if options.on:
        lines = chain(lines, [_tried(options.on, lambda: engines.found(options.on))])
    for line in lines:
        sound &= line.ok
        console.print(f"{'ok' if line.ok else 'NO':4s}{line.what:14s}{line.said}", highlight=False, markup=False)
    console.print(f"scale {at.name} can{'' if sound else 'not'} run here", highlight=False, markup=False)
    return errors.OK if sound else errors.ENVIRONMENT


def examine(at: Scale, folder: Path | None, data: Path, store: Path) -> Iterator[Line]:
    """Python, packages, GPU, weights, data, room: a Line for each, as it is found. Builds, loads and writes nothing."""
    yield _python()
    yield _packages()
    yield from _gpu(at)
    if at.name == REHEARSAL.name:
        yield Line("weights", True, "made where they are used: random, in the real formats")
        yield Line("data", True, "made where they are used, in the real formats")
        yield _room(at, store)
        return
    for part in (*PARTS, *at.networks):
        yield _tried(part, lambda part=part: _weights(at, part, folder))  # type: ignore[misc]
    if isinstance(world := at.world, Prepared):
        from bench.experiment import datasets

        yield _tried("data", lambda: datasets.find_pairs(world.name, data).path)
        if (corpus := at.corpus) is not None:
            yield _tried("corpus", lambda: datasets.find_corpus(corpus.name, data).path)
    else:
        yield Line("data", True, "drawn by the suite itself")
    yield _room(at, store)


def _rows(chosen: Ablation, at: Scale, folder: Path | None, data: Path) -> Iterator[Line]:
    """Data sets and weights that an ablation's rows need and Full does not."""
    from bench.experiment import datasets

    planned = []
    for variant in chosen.variants:
        with suppress(NotHere):  # `bench run` says so and leaves it out
            planned.append(systems.plan(variant, at.items(), at, 0))
    worlds, parts = places.lacking(graph.stages(planned))
    for name in worlds:
        if name != getattr(at.world, "name", ""):
            yield _tried(name, lambda name=name: datasets.find_pairs(name, data).path)  # type: ignore[misc]
    for part in parts:
        if part in frozen_parts():
            yield _tried(part, lambda part=part: _weights(at, part, folder))  # type: ignore[misc]


def _tried(what: str, look: Callable[[], str]) -> Line:
    """A BenchError says what is missing and what to do."""
    try:
        return Line(what, True, look())
    except BenchError as error:
        return Line(what, False, str(error))


def _python() -> Line:
    needed = importlib.metadata.metadata(weights.NAME)["Requires-Python"].removeprefix(">=")
    ok = sys.version_info[:2] >= _number(needed)
    return Line("Python", ok, platform.python_version() if ok else
                f"{platform.python_version()}: make an environment with Python {needed} or newer")


def _packages() -> Line:
    """Those that the project depends on, with the versions that it asks for at least."""
    said, missing = [], []
    for requirement in importlib.metadata.requires(weights.NAME) or []:
        found = re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)
        if not found:  # an extra's
            continue
        name, least = found.groups()
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{name} is missing")
            continue
        said.append(f"{name} {version}")
        if _number(version) < _number(least):
            missing.append(f"{name} is {version}, not {least} or newer")
    if missing:
        return Line("packages", False, f"{', '.join(missing)}: python -m pip install -e .")
    return Line("packages", True, ", ".join(said))


def _gpu(at: Scale) -> Iterator[Line]:
    if at.numerics.device_class != "cuda":
        yield Line("GPU", True, f"none needed at scale {at.name}; {os.cpu_count()} cores")
        return
    if runtime.device("auto") != "cuda":
        yield Line("GPU", False, f"the driver shows none, and scale {at.name} needs one; tiny runs on a CPU")
        return
    import torch

    if not torch.cuda.is_available():
        yield Line("GPU", False, f"the driver shows one, torch {torch.__version__} finds none: install a build of "
                                 "torch for this driver's CUDA")
        return
    free, total = torch.cuda.mem_get_info(0)
    name = torch.cuda.get_device_name(0)
    yield Line("GPU", True, f"{torch.cuda.device_count()} x {name}, {total / 1e9:.0f} GB, {free / 1e9:.0f} GB free; "
                            f"torch {torch.__version__}, CUDA {torch.version.cuda}")
    yield _tried("fits", lambda: _fits(at, name, total))


def _fits(at: Scale, name: str, total: int) -> str:
    """The largest micro-batches of Full's stages. Raises BenchError where not one sample fits."""
    from bench import runtime
    from bench.cost import memory

    gpu, said = runtime.Gpu(name, 0, total / 1e9, 0, "this machine"), []
    for stage in graph.stages([systems.plan(FULL, at.items(), at, 0)]):
        needed = memory.memory(stage)
        if needed is None:
            continue
        if not needed.micro(gpu):
            raise BenchError(f"{stage.kind} needs {(needed.fixed + needed.sample) / 1e9:.0f} GB for a single sample, "
                             f"{name} has {total / 1e9:.0f}: use a larger GPU")
        said.append(f"{stage.kind} {needed.micro(gpu)} of {needed.batch}")
    return f"micro-batches, estimated: {', '.join(said)}"


def _weights(at: Scale, part: str, folder: Path | None) -> str:
    return at.weights(part).path if at.prior else weights.check([part], folder)[part].path


def _room(at: Scale, store: Path) -> Line:
    """Free room where the store is, or will be, beside what Full's stages leave there."""
    needed, place = ROOM, store.absolute()
    while not place.exists():
        place = place.parent
    if isinstance(at.world, Prepared) and at.name != REHEARSAL.name:
        from bench.cost import memory

        try:
            needed = sum(memory.disk(stage) for stage in graph.stages([systems.plan(FULL, at.items(), at, 0)]))
        except BenchError as error:
            return Line("disk", False, f"{error}; until then nobody knows how much room is needed")
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        return Line("disk", False, f"{place} cannot be written: name another folder with --store DIR")
    ok = free >= needed
    return Line("disk", ok, f"{free / 1e9:.0f} GB free in {place}; Full alone leaves about {needed / 1e9:.0f} GB"
                            + ("" if ok else ": free some, or name another folder with --store DIR"))


def _number(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.15.0+cu130 -> (2, 15, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
