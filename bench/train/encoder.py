"""Builds the encoder that a value names: one of the suite's, or a user's own file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from torch import nn

from bench import encoders
from bench.errors import BenchError
from bench.runtime import Runtime
from bench.stages import Encoder


def build(value: Encoder, channels: int, times: int, runtime: Runtime) -> nn.Module:
    """A freshly initialised encoder, [B, C, T] -> [B, L, width]; the caller has seeded torch.

    Raises BenchError when a user's source is not the one that the value's hash names.
    """
    if not value.code:
        module = importlib.import_module(f"models.encoders.{value.name}")
        return module.Encoder(channels, times, value.width, value.depth, value.heads,
                              mlp_ratio=value.mlp_ratio, patch=value.patch)
    path = runtime.encoders / value.code / f"{value.name}.py" if runtime.encoders else Path(value.path)
    if encoders.code(path) != value.code:
        raise BenchError(f"{path} is not the source that this stage was planned with; run again")
    return _load(path).Encoder(channels, times, value.width, value.depth, value.heads)


def _load(path: Path):
    """The module at a path. Modules beside it are found first, and forgotten afterwards: another copy may come next."""
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(f"encoder_{path.parent.name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(path.parent):
                del sys.modules[name]
    return module
