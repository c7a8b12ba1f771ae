"""Imports beyond module names: a user's file, an object by "module:name", a moved module by its old name."""

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

MOVED = {  # old names, in queued requests and users' files -> current names
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


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules of MOVED under their old names, as the same module objects, and runs them with -m."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> Any:
        """Returns the spec of an old name, and None for every other name."""
        return importlib.machinery.ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Returns the module of the current name."""
        module = importlib.import_module(MOVED[spec.name])
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restores the spec, which the import system has replaced; the module itself is already executed."""
        module.__spec__ = self._spec

    def get_code(self, fullname: str) -> CodeType | None:
        """Returns the code of the current module, for `python -m` with the old name."""
        spec = importlib.util.find_spec(MOVED[fullname])
        assert spec is not None
        assert isinstance(spec.loader, importlib.abc.InspectLoader)
        return spec.loader.get_code(MOVED[fullname])


def import_object(name: str) -> Any:
    """Imports the object that "package.module:name" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def import_file(path: Path, name: str) -> ModuleType:
    """Imports a .py file as module `name`. Raises whatever the file raises. During the import, modules in the file's
    folder come first. They are removed from sys.modules afterwards, because another file may have modules of the same
    names in its folder."""
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses and pickle look it up there
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


def find_user_files(stage: Any) -> Iterator[Any]:
    """Yields the fields of a stage that stand for a user's file: they have its `path`, and its hash as `code`."""
    for field in fields(stage):
        value = getattr(stage, field.name)
        if getattr(value, "code", "") and hasattr(value, "path"):
            yield value
