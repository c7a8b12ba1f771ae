"""A stage that writes which GPUs its process sees. Workers import it from this file."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from bench.execute.devices import VISIBLE
from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register
from bench.experiment.stages import Numerics


@dataclass(frozen=True)
class Visible(Stage):
    """numerics: of a GPU, or of several; seconds: how long it waits."""

    number: int
    numerics: Numerics
    seconds: float = 0.0


def write(stage, inputs, out, runtime):
    """Writes visible.txt: what the process sees, and what it computes on."""
    import torch

    (out / "visible.txt").write_text(f"{os.environ.get(VISIBLE)} {runtime.device} {torch.cuda.is_initialized()}")
    end = time.monotonic() + stage.seconds
    while time.monotonic() < end:
        time.sleep(0.05)


register({Visible: Kind(f"{__name__}:write", "finetune")})
