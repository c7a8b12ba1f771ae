"""Builds one stage: finds the function that its kind names and lets it fill the stage's folder."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path

import torch

from bench.errors import ENVIRONMENT, BenchError
from bench.journal import Journal
from bench.key import Stage, kind
from bench.prior_parts import Part
from bench.runtime import Runtime, silent
from bench.store import Store
from bench.train import parallel
from bench.train.loop import exact

PACKAGES = ("torch", "diffusers", "open_clip_torch", "timm", "torchmetrics", "mne", "moabb", "numpy", "scikit-learn")


def build(stage: Stage, store: Store, device: str = "cpu", progress: Callable[..., None] = silent) -> Path:
    """The stage's folder, complete; what it is built from must be there."""
    numerics = getattr(stage, "numerics", None)
    torch.set_num_threads(numerics.threads if numerics else 1)
    exact()
    function = getattr(importlib.import_module(f"bench.train.{_module(stage)}"), kind(stage))
    journal = Journal(store.root, stage)

    def heard(step: int, total: int, **scalars: float) -> None:
        journal.progress(step, total, **scalars)
        progress(step, total, **scalars)

    runtime = Runtime(device, heard, store.encoders, store.checkpoints(stage), journal.note)

    def make(out: Path) -> None:
        journal.start(out.name.partition("-")[2], device=device)
        try:
            parallel.launch(function, stage, store.path, out, runtime)
        except torch.OutOfMemoryError as error:
            raise BenchError(f"{kind(stage)} does not fit into the GPU's memory; take a larger GPU, or a scale with "
                             "smaller batches", ENVIRONMENT) from error

    try:
        path = store.build(stage, make,
                           packages={name: importlib.metadata.version(name) for name in PACKAGES},
                           python=platform.python_version(), device=device)
    except BaseException as error:
        journal.failed(error)
        raise
    journal.done()
    return path


def _module(stage: Stage) -> str:
    """The file of bench/train/ that builds it: a system's own stages have one together, every other kind its own."""
    room, _, name = type(stage).__module__.rpartition(".")
    if room == "bench.systems":
        return name
    return "prior" if isinstance(stage, Part) else kind(stage)
