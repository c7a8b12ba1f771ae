"""Zero-shot retrieval in the place of drawing: which test picture is the EEG's embedding nearest to?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from bench import systems
from bench.errors import BenchError
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Retrieval

WAYS = (2, 4, 10)  # beside all test pictures (Li et al., NeurIPS 2024, Table 8)


@dataclass(frozen=True)
class Spec:
    """A row: the retrieval of a system whose EEG has an embedding in CLIP space, by its settings `of`.

    eeg_free: as of On.
    """

    of: Any
    name: str = field(compare=False)
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "retrieval"


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Retrieval:
    """The system's embeddings of the items, and their ranks. Raises BenchError for a system that has none."""
    system = systems.load(spec.of.system)
    if not hasattr(system, "embedding"):
        raise BenchError(f"variant {spec.name!r}: system {spec.of.system} has no embedding in CLIP space to retrieve "
                         "pictures by")
    embedding, targets = system.embedding(spec.of, items, scale, seed)
    return Retrieval(embedding, items, targets, WAYS, scale.alone)
