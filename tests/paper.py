"""The scales `paper` and `rehearsal` with the identities of the pinned weights, to plan with."""

from __future__ import annotations

from dataclasses import replace

from bench.experiment import scale as scales
from bench.setup.places import load_scale

PAPER = load_scale("paper")
REHEARSAL = replace(scales.REHEARSAL, prior="", parts=PAPER.parts)
