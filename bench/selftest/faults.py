"""Causes faults on purpose: exhausted memory, and stopped or killed processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bench.errors import RESUMABLE, BenchError, one_line
from bench.execute import worker
from bench.experiment.stages import Pretrain
from bench.selftest.probe import relative_error
from bench.store import journal
from bench.store.store import Store

SHARE = 0.85  # of the peak: too little for the whole batch, enough for half of it
PATIENCE = 180.0  # s for a process to begin its training
POLL = 0.02  # s


@contextmanager
def short_of_memory(device: str, peak: int, batch: int, is_limited: Callable[[torch.nn.Module], bool]
                    ) -> Iterator[None]:
    """Limits the memory, so that a stage that needed `peak` bytes for this batch must split it.

    On a GPU the allocator gets SHARE of the peak. On a CPU, whose memory is not limited, a network for which
    is_limited(network) raises the GPU's error for more than half of the batch.
    """
    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, SHARE * peak / total))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return

    def refuse(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if is_limited(module) and len(arguments[0]) > batch // 2:
            raise torch.OutOfMemoryError("raised by the self-test")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def stop_and_kill(stage: Pretrain, store: Store, device: str) -> int:
    """Starts a training in a process, stops it (SIGTERM), starts it again and kills it (SIGKILL) once it has resumed.

    Returns the step from which the second process went on. Raises BenchError if one of them does anything else.
    """
    worker.write_request(store, stage)
    with _process(stage, store, device) as process:
        _wait(process, store, stage, lambda line: line.get("event") == "progress")
        process.send_signal(signal.SIGTERM)
        if (code := process.wait(PATIENCE)) != RESUMABLE:
            raise BenchError(f"a training told to stop ended with exit code {code}; expected {RESUMABLE}")
    if not list(store.checkpoints(stage).glob("checkpoint.*.pt")):
        raise BenchError("a training told to stop left no checkpoint")
    with _process(stage, store, device) as process:
        line = _wait(process, store, stage, lambda line: line.get("what") == "resumed from a checkpoint")
        process.kill()
        if (code := process.wait(PATIENCE)) != -signal.SIGKILL:
            raise BenchError(f"the training ended with exit code {code} before it was killed; it has too few steps")
    return int(line["step"])


@contextmanager
def _process(stage: Pretrain, store: Store, device: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(worker.command(stage, store, device), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait(process: subprocess.Popen[bytes], store: Store, stage: Pretrain,
          wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Waits until the process writes a wanted line into the stage's journal, and returns this line."""
    ends, file = time.monotonic() + PATIENCE, journal.path(store.root, stage.key)
    while time.monotonic() < ends:
        lines = journal.read(file)[0] if file.exists() else []
        for line in lines:
            if line.get("pid") == process.pid and wanted(line):
                return line
        if process.poll() is not None:
            assert process.stderr is not None
            text = one_line(Exception(process.stderr.read().decode(errors="replace")))
            raise BenchError(f"the training's process ended with exit code {process.returncode}: {text[-300:]}")
        time.sleep(POLL)
    raise BenchError(f"the training's process did not get that far within {PATIENCE:g} s")


def compare_encoders(one: Path, other: Path) -> float:
    """Returns the norm of the difference of two pre-trained encoders over the norm of the second."""
    first, second = (load_file(folder / "encoder.safetensors") for folder in (one, other))
    return relative_error([first[name] for name in sorted(first)], [second[name] for name in sorted(second)])
