"""The networks that score images, and errors for their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from bench.errors import ENVIRONMENT, BenchError
from models.extractors import Extractor
from models.frozen import BadWeights, MissingWeights


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks of a Score. judge: the classifier; sets: the network of FID, KID and IS; others: the rest. lpips: a
    function of two batches in [-1, 1], and the SHA-256 of its backbone."""

    judge: Extractor | None = None
    sets: Extractor | None = None
    others: Sequence[Extractor] = ()
    lpips: tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], str] | None = None

    def all(self) -> list[Extractor]:
        """Returns each network once."""
        return list(dict.fromkeys(e for e in (self.judge, self.sets, *self.others) if e is not None))


@contextmanager
def weights_present() -> Iterator[None]:
    """Turns missing or wrong weights into BenchError (exit 3)."""
    try:
        yield
    except (MissingWeights, BadWeights) as error:
        raise BenchError(str(error), ENVIRONMENT) from error
