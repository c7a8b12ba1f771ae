"""One function for each stage: (stage, inputs, out, runtime) fills the folder `out`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.experiment.key import Stage

Inputs = Callable[[Stage], Path]  # returns the folder of an upstream stage
