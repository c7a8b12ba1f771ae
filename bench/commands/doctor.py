"""`bench doctor`: checks whether a scale can run on this machine, and says what to do if it cannot.

`bench doctor --instrument` shows instead whether the suite finds what is there in worlds with known answers.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from rich.console import Console

from bench import FULL, errors, modules, runtime, systems
from bench.commands.options import add_ablation, add_places, add_scale, request_of
from bench.errors import BenchError, NotAvailable
from bench.execute import engines
from bench.experiment import ablation, datasets, graph
from bench.experiment.kinds import frozen_parts
from bench.experiment.scale import REHEARSAL, Scale
from bench.experiment.stages import Prepared
from bench.modules import DISTRIBUTION, SUITE
from bench.setup import places, weights
from bench.setup.request import Request

MIN_FREE = 2e9  # bytes of disk that a scale without a price needs


@dataclass(frozen=True)
class Line:
    """One check. message: what was found, or what to do if it is not `ok`."""

    what: str
    ok: bool
    message: str


def add_options(parser: argparse.ArgumentParser) -> None:
    checks = parser.add_argument_group("checks")
    add_scale(checks)
    add_ablation(checks, "--ablation", help="also check what only the rows of this ablation need")
    checks.add_argument("--on", choices=engines.ENGINES, help="also check this cluster engine")
    checks.add_argument("--instrument", nargs="?", const="", metavar="DIR",
                        help="instead: judge the results of the worlds with known answers (docs/instrument.md)")
    add_places(parser)


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints a line for each check. Returns 0, or 3 if the scale cannot run.

    With --instrument, prints a table of gates. Returns 0 if all hold, else 1; a gate that was not run does not hold."""
    if options.instrument is not None:
        return _judge_instrument(Path(options.instrument) if options.instrument else None)
    request = request_of(options)
    scale, can_run = places.load_scale(request.scale), True
    lines = examine(scale, request)
    if request.ablation:
        chosen = ablation.load(request.ablation).variants
        if not scale.prior and scale.name != REHEARSAL.name:  # other scales ship or make what they need
            planned = []
            for variant in chosen:
                with suppress(NotAvailable):  # `bench run` leaves this row out
                    planned.append(systems.plan(variant, scale.items(), scale, 0))
            lines = chain(lines, _needs_of_rows(planned, scale, request))
    if options.on:
        lines = chain(lines, [_check(options.on, lambda: engines.describe_engine(options.on))])
    for line in lines:
        can_run &= line.ok
        console.print(f"{'ok' if line.ok else 'NO':4s}{line.what:14s}{line.message}", highlight=False, markup=False)
    console.print(f"scale {scale.name} {'can' if can_run else 'cannot'} run here", highlight=False, markup=False)
    return errors.OK if can_run else errors.ENVIRONMENT


def _judge_instrument(folder: Path | None) -> int:
    """Prints what the worlds with known answers show. folder: of the results; None: the committed ones."""
    from bench.tables import instrument  # takes a second to import

    folder = folder or instrument.RESULTS
    shown = instrument.judge(folder=folder)
    print(instrument.document(shown, folder).render())
    return errors.OK if all(each.word == "pass" for each in shown) else errors.SOME_FAILED


def examine(scale: Scale, request: Request) -> Iterator[Line]:
    """Checks Python, packages, GPU, weights, data and disk, one Line each. Builds, loads and writes nothing."""
    yield _check_python()
    yield _check_packages()
    yield _check_imports()
    yield from _check_gpu(scale)
    if scale.name == REHEARSAL.name:
        yield Line("weights", True, "made during the run: random, in the published formats")
        yield Line("data", True, "made during the run, in the published formats")
    else:
        for part in (*places.PARTS, *scale.networks):
            yield _check(part, partial(_locate_weights, scale, part, request))
        if isinstance(world := scale.world, Prepared):
            yield _check("data", lambda: datasets.find_pairs(world.name, request.data).path)
            if (corpus := scale.corpus) is not None:
                yield _check("corpus", lambda: datasets.find_corpus(corpus.name, request.data).path)
        else:
            yield Line("data", True, "synthetic, part of the package")
    yield _check_disk(scale, request.store)


def _needs_of_rows(planned: list[systems.Scored], scale: Scale, request: Request) -> Iterator[Line]:
    """Checks the data sets and weights that the planned rows need and Full does not."""
    worlds, parts = places.find_missing(graph.stages(planned))
    for name in worlds:
        if name != getattr(scale.world, "name", ""):
            yield _check(name, lambda name=name: datasets.find_pairs(name, request.data).path)  # type: ignore[misc]
    for part in parts:
        if part in frozen_parts():
            yield _check(part, partial(_locate_weights, scale, part, request))


def _check(what: str, look: Callable[[], str]) -> Line:
    """The result of `look`; its BenchError says what is missing and what to do."""
    try:
        return Line(what, True, look())
    except BenchError as error:
        return Line(what, False, str(error))


def _check_python() -> Line:
    needed = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"].removeprefix(">=")
    ok = sys.version_info[:2] >= _parse_version(needed)
    advice = "" if ok else f": make an environment with Python {needed} or newer"
    return Line("Python", ok, platform.python_version() + advice)


def _check_packages() -> Line:
    """Checks the versions of the project's dependencies, extras excluded."""
    versions, problems = [], []
    for requirement in importlib.metadata.requires(DISTRIBUTION) or []:
        if not (match := re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)):  # belongs to an extra
            continue
        name, least = match.groups()
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{name} is missing")
            continue
        versions.append(f"{name} {version}")
        if _parse_version(version) < _parse_version(least):
            problems.append(f"{name} is {version}, not {least} or newer")
    if problems:
        return Line("packages", False, f"{', '.join(problems)}: python -m pip install -e .")
    return Line("packages", True, ", ".join(versions))


def _check_imports() -> Line:
    """Checks that bench, models and ablations are this project's, and that no other package has replaced a file."""
    names = ", ".join(SUITE)
    if lines := modules.find_foreign():
        return Line("imports", False, "; ".join(lines))
    taken = [(owner, name) for name in SUITE for owner in modules.find_owners(name)]
    whose = ", ".join(f"{owner} (also has {', '.join(name for other, name in taken if other == owner)})"
                      for owner in dict(taken))
    changed = [file for file in importlib.metadata.files(DISTRIBUTION) or [] if file.parts[0] in SUITE and file.hash
               and file.hash.mode == "sha256" and not _is_installed(file, file.hash.value)]
    if changed:
        return Line("imports", False, f"{len(changed)} files differ from those that were installed, the first is "
                    f"{changed[0]}; perhaps replaced by {whose or 'another package'}: python -m pip uninstall it, then "
                    "install this project again")
    if whose:
        return Line("imports", True, f"{names} are this project's; {whose} could replace them, in another folder or "
                    "when it is installed again: better uninstall it, or use an environment for this project alone")
    return Line("imports", True, f"{names} are this project's, in {modules.ROOT}")


def _is_installed(file: importlib.metadata.PackagePath, digest: str) -> bool:
    try:
        actual = hashlib.sha256(Path(str(file.locate())).read_bytes()).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(actual).decode().rstrip("=") == digest.rstrip("=")


def _check_gpu(scale: Scale) -> Iterator[Line]:
    if scale.numerics.device_class != "cuda":
        yield Line("GPU", True, f"none needed at scale {scale.name}; {os.cpu_count()} cores")
        return
    if runtime.device("auto") != "cuda":
        yield Line("GPU", False, f"the driver shows none, and scale {scale.name} needs one; scale tiny runs on a CPU")
        return
    import torch

    if not torch.cuda.is_available():
        yield Line("GPU", False, f"the driver shows one, but torch {torch.__version__} finds none: install a build of "
                                 "torch for this driver's CUDA version")
        return
    free, total = torch.cuda.mem_get_info(0)
    name = torch.cuda.get_device_name(0)
    yield Line("GPU", True, f"{torch.cuda.device_count()} x {name}, {total / 1e9:.0f} GB, {free / 1e9:.0f} GB free; "
                            f"torch {torch.__version__}, CUDA {torch.version.cuda}")
    yield _check("fits", lambda: _micro_batches(scale, name, total))


def _micro_batches(scale: Scale, name: str, total: int) -> str:
    """The largest micro-batches of Full's stages. Raises BenchError if a single sample does not fit."""
    from bench.cost import memory

    gpu, fits = runtime.Gpu(name, 0, total / 1e9, 0, "this machine"), []
    for stage in graph.stages([systems.plan(FULL, scale.items(), scale, 0)]):
        if (needed := memory.memory(stage)) is None:
            continue
        if not needed.micro(gpu):
            raise BenchError(f"{stage.kind} needs {(needed.fixed + needed.sample) / 1e9:.0f} GB for a single sample, "
                             f"{name} has {total / 1e9:.0f}: use a larger GPU")
        fits.append(f"{stage.kind} {needed.micro(gpu)} of {needed.batch}")
    return f"micro-batches, estimated: {', '.join(fits)}"


def _locate_weights(scale: Scale, part: str, request: Request) -> str:
    return scale.weights(part).path if scale.prior else weights.check([part], request.weights)[part].path


def _check_disk(scale: Scale, store: Path) -> Line:
    """Compares the free space at the store with what Full's stages need."""
    needed, folder = MIN_FREE, store.absolute()
    while not folder.exists():
        folder = folder.parent
    if isinstance(scale.world, Prepared) and scale.name != REHEARSAL.name:
        from bench.cost import memory

        try:
            needed = sum(memory.disk(stage) for stage in graph.stages([systems.plan(FULL, scale.items(), scale, 0)]))
        except BenchError as error:
            return Line("disk", False, f"{error}; the space needed is unknown until then")
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Line("disk", False, f"{folder} is not writable: name another folder with --store DIR")
    advice = "" if free >= needed else ": free some, or name another folder with --store DIR"
    return Line("disk", free >= needed, f"{free / 1e9:.0f} GB free in {folder}; Full alone needs about "
                                        f"{needed / 1e9:.0f} GB{advice}")


def _parse_version(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.15.0+cu130 -> (2, 15, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
