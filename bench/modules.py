"""Modules by another way than their name: a user's file by its path, and the suite's own by the names they once had."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

MOVED = {  # names that queued requests and users' files may still hold -> the module that has the content now
    "bench.audit": "bench.scoring.audit",
    "bench.encoders": "bench.experiment.encoders",
    "bench.engines": "bench.execute.engines",
    "bench.engines.ray": "bench.execute.engines.ray",
    "bench.engines.slurm": "bench.execute.engines.slurm",
    "bench.gallery": "bench.scoring.gallery",
    "bench.key": "bench.experiment.key",
    "bench.prior_parts": "bench.prior.recipe",
    "bench.results": "bench.tables.results",
    "bench.stages": "bench.experiment.stages",
    "bench.variant": "bench.experiment.variant",
    "bench.worker": "bench.execute.worker",
}


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the modules of MOVED under their old names, as the same module objects, and runs them with -m."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> Any:
        """The spec of an old name; None for every other."""
        return importlib.machinery.ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module of the new name."""
        module = importlib.import_module(MOVED[spec.name])
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do, but for the spec, which the import system has replaced."""
        module.__spec__ = self._spec

    def get_code(self, fullname: str) -> CodeType | None:
        """The code of the new module, for `python -m` with the old name."""
        spec = importlib.util.find_spec(MOVED[fullname])
        assert spec is not None
        assert isinstance(spec.loader, importlib.abc.InspectLoader)
        return spec.loader.get_code(MOVED[fullname])

    def get_source(self, fullname: str) -> str | None:
        """Not needed to run a module."""
        return None


def import_object(name: str) -> Any:
    """What "package.module:name" stands for."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def from_file(path: Path, name: str) -> ModuleType:
    """The module at a path, whatever its import raises. Modules beside it are found first, and forgotten afterwards:
    another file may have others of the same names beside it."""
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses and pickle look for it there
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
        for other in set(sys.modules) - before - {name}:
            file = getattr(sys.modules[other], "__file__", None)
            if file and Path(file).is_relative_to(path.parent):
                del sys.modules[other]
    return module


def users_files(stage: Any) -> Iterator[Any]:
    """The values in a stage that stand for a user's own file: they have the hash of its source as `code`, and its
    `path`."""
    for field in fields(stage):
        value = getattr(stage, field.name)
        if getattr(value, "code", "") and hasattr(value, "path"):
            yield value
