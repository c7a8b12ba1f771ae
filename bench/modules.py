"""Imports a user's file by its path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def from_file(path: Path, name: str) -> ModuleType:
    """The module at a path, whatever its import raises. Modules beside it are found first, and forgotten afterwards:
    another file may have others of the same names beside it."""
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
        for other in set(sys.modules) - before:
            file = getattr(sys.modules[other], "__file__", None)
            if file and Path(file).is_relative_to(path.parent):
                del sys.modules[other]
    return module
