"""The systems: each module has a `Spec`, a `plan(spec, items, scale, seed) -> Score`, and registers its stages' kinds.

A system outside the suite is a module of the same form that an installed package names as an entry point of GROUP.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.errors import BenchError
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Scored
from bench.experiment.variant import On

GROUP = "eeg2image_bench.systems"  # of entry points: the system's name = its module


def names() -> list[str]:
    """The systems of the suite, the files in bench/systems/, and those of installed packages."""
    own = {path.stem for path in Path(__file__).parent.glob("[!_]*.py")}
    return sorted(own | {entry.name for entry in entry_points(group=GROUP)})


def load(name: str) -> ModuleType:
    """The module of a system. Raises BenchError naming those that exist."""
    if (Path(__file__).parent / f"{name}.py").is_file():
        return importlib.import_module(f"bench.systems.{name}")
    for entry in entry_points(group=GROUP, name=name):
        module: ModuleType = entry.load()
        return module
    raise BenchError(f"no system {name!r}; there are: {', '.join(names())}")


def load_all() -> None:
    """Loads every system, so that all kinds of stages and all frozen parts are registered."""
    for name in names():
        load(name)


def plan(system: Any, items: Items, scale: Scale, seed: int) -> Scored:
    """The Score of a system's images for those items, or the Retrieval of its embeddings; `system` is a spec such as a
    Variant."""
    if isinstance(system, On):
        return system.score(plan(system.of, system.items(items, scale), system.scale(scale), seed))
    scored: Scored = load(system.system).plan(system, items, scale, seed)
    return scored
