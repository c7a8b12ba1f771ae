"""Zero-shot retrieval instead of generation: which test image is nearest to the EEG's embedding?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from bench import systems
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Retrieval
from bench.experiment.variant import refuse

WAYS = (2, 4, 10)  # besides all test images (Li et al., NeurIPS 2024, Table 8)


@dataclass(frozen=True)
class Spec:
    """A row: retrieval by the CLIP-space embedding of a system, given by its settings `of`. eeg_free: as in On."""

    of: Any
    name: str = field(compare=False)
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "retrieval"


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Retrieval:
    """Plans the embeddings of the items and their ranks. Raises BenchError if the system has no embedding."""
    system = systems.load(spec.of.system)
    if not hasattr(system, "embedding"):
        raise refuse(spec, f"system {spec.of.system} has no embedding in CLIP space to retrieve images by")
    embedding, targets = system.embedding(spec.of, items, scale, seed)
    return Retrieval(embedding, items, targets, WAYS, scale.single_process)
