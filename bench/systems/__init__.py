"""The systems: each module has a `Spec`, a `plan(spec, items, scale, seed) -> Score`, and registers its stages' kinds.

A system outside the suite is such a module in an installed package, named by an entry point of the group GROUP.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.key import GROUP
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Scored
from bench.experiment.variant import On


def names() -> list[str]:
    """Returns the systems of the suite, the files in bench/systems/, and those of installed packages."""
    inside = {path.stem for path in Path(__file__).parent.glob("[!_]*.py")}
    return sorted(inside | {entry.name for entry in entry_points(group=GROUP)})


def load(name: str) -> ModuleType:
    """Imports the module of a system. Raises BenchError if it is unknown, or (exit 3) if its package is broken."""
    if (Path(__file__).parent / f"{name}.py").is_file():
        return importlib.import_module(f"bench.systems.{name}")
    for entry in entry_points(group=GROUP, name=name):
        try:
            module: ModuleType = entry.load()
            module.plan  # noqa: B018
        except Exception as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise BenchError(f"system {name!r} cannot be loaded from the installed package {entry.value!r} ({cause}); "
                             "repair or remove the package", ENVIRONMENT) from error
        return module
    raise BenchError(f"no system {name!r}; there are: {', '.join(names())}")


def load_all() -> None:
    """Imports every system, so that all kinds of stages and all frozen parts are registered."""
    for name in names():
        load(name)


def plan(system: Any, items: Items, scale: Scale, seed: int) -> Scored:
    """Plans a row: returns the Score of the system's images for the items, or the Retrieval of its embeddings.

    system: a Spec, such as a Variant.
    """
    if isinstance(system, On):
        return system.score(plan(system.of, system.items(items, scale), system.scale(scale), seed))
    scored: Scored = load(system.system).plan(system, items, scale, seed)
    return scored
