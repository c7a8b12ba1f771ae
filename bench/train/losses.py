"""What the trainings of small networks share: a step, their losses, and what is written of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.experiment.key import Stage
from bench.runtime import Runtime
from models.parameters import count_parameters

EVERY = 50  # steps from one look at the losses to the next, since a GPU must be waited for


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float | None = None) -> None:
    """One step down the loss; clip_norm: of the gradient, at most."""
    optimizer.zero_grad()
    loss.backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip_norm)
    optimizer.step()


class Losses:
    """What a training of so many steps lost at each, by name; the progress of the stage is their sum."""

    def __init__(self, stage: Stage, steps: int, runtime: Runtime):
        self._stage, self._steps, self._runtime = stage, steps, runtime
        self._kept: dict[str, list[Tensor]] = {}

    def add(self, **losses: Tensor) -> None:
        """One step's, each a scalar; looked at now and then. Raises BenchError where one is no finite number."""
        for name, loss in losses.items():
            self._kept.setdefault(name, []).append(loss.detach())
        done = len(self._kept[name])
        if done % EVERY and done < self._steps:
            return
        now = {name: loss.item() for name, loss in losses.items()}
        if lost := [name for name, value in now.items() if not math.isfinite(value)]:
            raise BenchError(f"{self._stage.kind} has lost its way: {', '.join(lost)} is no finite number at step "
                             f"{done}; lower the learning rate, or look at the EEG")
        self._runtime.progress(done, self._steps, loss=sum(now.values()))

    def last(self) -> dict[str, float]:
        """Means over the last tenth of the steps."""
        return {name: torch.stack(each[-max(1, len(each) // 10):]).mean().item() for name, each in self._kept.items()}


def summary(out: Path, trained: dict[str, nn.Module], losses: dict[str, float], **more: int) -> None:
    """Writes summary.json: counts of the trained networks' parameters, losses, and what else is given."""
    found = {"trained_parameters": {name: count_parameters(net) for name, net in trained.items()}, "losses": losses, **more}
    (out / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
