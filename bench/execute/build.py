"""Builds one stage: calls the function of its kind, which fills the stage's folder."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.key import Stage
from bench.experiment.kinds import builder_of
from bench.runtime import Runtime, ignore, naming_memory_errors, use_exact_math
from bench.store import journal, provenance
from bench.store.store import Store
from bench.train import parallel


def build(stage: Stage, store: Store, device: str = "cpu", progress: Callable[..., None] = ignore,
          wait: bool = False) -> Path:
    """Returns the folder of the complete stage, whose inputs must be stored. wait, errors: as in Store.build."""
    numerics = getattr(stage, "numerics", None)
    torch.set_num_threads(numerics.threads if numerics else 1)
    use_exact_math()
    log = journal.Journal(store.root, stage)
    measured: dict[str, Any] = {}  # filled while the stage is built, then written to its manifest

    def report(step: int, total: int, **scalars: float) -> None:
        log.progress(step, total, **scalars)
        if "peak_cuda_bytes" in scalars:  # from a training that has several processes
            measured["peak_cuda_bytes"] = max(measured.get("peak_cuda_bytes", 0), int(scalars["peak_cuda_bytes"]))
        progress(step, total, **scalars)

    def make(out: Path) -> None:
        runtime = Runtime(device, report, store.encoders, store.checkpoints(stage), note=log.note,
                          owned=store.claim(stage).check)
        function = builder_of(stage)
        attempt, began = out.name.partition("-")[2], time.monotonic()
        measured["attempts"] = journal.unfinished_attempts(journal.path(store.root, stage.key))
        log.start(attempt, device=device)
        with provenance.measuring(measured, device, alone=getattr(numerics, "world_size", 1) == 1):
            try:
                with naming_memory_errors():
                    parallel.launch(function, stage, store.path, out, runtime)
            except torch.OutOfMemoryError as error:
                raise BenchError(f"{stage.kind} does not fit into the memory of {device}; use a device with more "
                                 "memory, or end other processes that use it", ENVIRONMENT) from error
        measured["attempts"].append({"id": attempt, "host": socket.gethostname(),
                                     "seconds": round(time.monotonic() - began, 3)})

    try:
        path = store.build(stage, make, wait, **provenance.collect(device), measured=measured)
    except BaseException as error:
        log.failed(error)
        raise
    log.done()
    return path
