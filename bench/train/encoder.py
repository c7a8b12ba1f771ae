"""Builds the encoder that a value names: one of the suite's, or a user's own file."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from torch import nn

from bench import encoders, modules
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
    own = modules.from_file(path, f"encoder_{value.code}").Encoder
    ratio = {"mlp_ratio": value.mlp_ratio} if "mlp_ratio" in inspect.signature(own).parameters else {}
    return own(channels, times, value.width, value.depth, value.heads, **ratio)
