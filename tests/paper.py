"""The scale paper with the identities of its pinned weights, to plan with."""

from __future__ import annotations

from bench.setup.places import scale

PAPER = scale("paper")
