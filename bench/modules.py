"""A user's own files: imported by their paths, and found in a stage."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.key import Stage


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


def own(stage: Stage) -> Iterator[Any]:
    """The values in a stage that stand for a user's own file: they have the hash of its source as `code`, and its
    `path`."""
    for one in fields(stage):  # type: ignore[arg-type]
        value = getattr(stage, one.name)
        if getattr(value, "code", "") and hasattr(value, "path"):
            yield value
