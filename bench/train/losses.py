"""Shared parts of the trainings of small networks: seeds, batches, optimiser steps, losses and summary.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.errors import BenchError
from bench.experiment.key import Stage
from bench.runtime import Runtime
from models.parameters import count_parameters

EVERY = 50  # steps between two checks of the losses; a check waits for the GPU


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's generators; the CPU generator's state is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def count_steps(n: int, batch: int, epochs: int) -> int:
    """The number of batches of n rows in some epochs of `draw_batches`."""
    return epochs * (n // min(batch, n))


def draw_batches(n: int, batch: int, steps: int) -> Iterator[Tensor]:
    """Yields the rows of `steps` batches; every epoch is a new permutation, and drops an incomplete last batch."""
    batch = min(batch, n)
    while steps > 0:
        for rows in torch.randperm(n)[:n // batch * batch].split(batch)[:steps]:
            yield rows
            steps -= 1


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float | None = None) -> None:
    """Takes one optimiser step. clip_norm: the gradient's maximum norm."""
    optimizer.zero_grad()
    loss.backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip_norm)
    optimizer.step()


def load_network(network: nn.Module, file: Path, device: str) -> nn.Module:
    """Loads a trained network's weights; in evaluation mode on the device."""
    network.load_state_dict(load_file(file))
    return network.to(device).eval()


def binary_loss(logits: Tensor, truth: float) -> Tensor:
    """Binary cross-entropy of logits [B] with one target for all."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))


class Losses:
    """Records the losses of each of `steps` training steps by name, and reports their sum as progress."""

    def __init__(self, stage: Stage, steps: int, runtime: Runtime):
        self._stage, self._steps, self._runtime = stage, steps, runtime
        self._recorded: dict[str, list[Tensor]] = {}

    def add(self, **losses: Tensor) -> None:
        """Records one step's scalar losses. Every EVERY steps: raises BenchError if one is not finite."""
        for name, loss in losses.items():
            self._recorded.setdefault(name, []).append(loss.detach())
        done = len(self._recorded[name])
        if done % EVERY and done < self._steps:
            return
        values = {name: loss.item() for name, loss in losses.items()}
        check_finite(self._stage, values, done)
        self._runtime.progress(done, self._steps, loss=sum(values.values()))

    def last(self) -> dict[str, float]:
        """Returns the means over the last tenth of the steps."""
        return {name: torch.stack(values[-max(1, len(values) // 10):]).mean().item()
                for name, values in self._recorded.items()}


def check_finite(stage: Stage, losses: dict[str, float], step: int) -> None:
    """Raises BenchError if one of the losses is not finite."""
    if diverged := [name for name, value in losses.items() if not math.isfinite(value)]:
        raise BenchError(f"{stage.kind}: training diverged: {', '.join(diverged)} is not finite at step {step}; lower "
                         "the learning rate, or check the EEG")


def write_summary(out: Path, trained: dict[str, nn.Module], losses: dict[str, float], **more: int) -> None:
    """Writes summary.json: the trained networks' numbers of parameters, the losses, and `more`."""
    summary = {"trained_parameters": {name: count_parameters(network) for name, network in trained.items()},
               "losses": losses, **more}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
