"""The networks that score images, and errors for their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from bench import images
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.judge import ChosenJudge
from bench.experiment.stages import Weights
from models import extractors
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


def fit_image(network: Extractor, image: np.ndarray) -> np.ndarray:
    """Returns an image [H, W, 3] uint8 as the network gets it: cropped as its classifier was evaluated, or resized."""
    return network.crop(image) if network.crop else images.resize(image, (network.size, network.size))


def load_judge(weights: Weights, device: str) -> Extractor:
    """Loads the judge of a stage. Raises BenchError (exit 3) if its file is absent, changed, or no judge."""
    if not isinstance(weights, ChosenJudge):
        with weights_present():
            return extractors.judge(weights.path, weights.sha256, weights.name, device)
    from bench.scoring import judges  # reads checkpoints of all kinds

    judge, _ = judges.open_judge(weights.path, device, weights.architecture, weights.fit)
    if judge.sha256 != weights.sha256:
        raise BenchError(f"{weights.path} has SHA-256 {judge.sha256[:12]}, not {weights.sha256[:12]}; it was changed "
                         "during the run", ENVIRONMENT)
    return replace(judge, name=weights.name)


@contextmanager
def weights_present() -> Iterator[None]:
    """Turns missing or wrong weights into BenchError (exit 3)."""
    try:
        yield
    except (MissingWeights, BadWeights) as error:
        raise BenchError(str(error), ENVIRONMENT) from error
