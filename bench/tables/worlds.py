"""Contrasts over worlds: the difference of two rows that several worlds have, with the world as the sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.experiment.describe import describe_contrast
from bench.experiment.worlds import split_name
from bench.statistics import verdicts_over_worlds
from bench.tables.columns import ALPHA, counted
from bench.tables.model import Contrast
from bench.tables.scores import Scores, row_key

LEAST = 3  # worlds, for a verdict


def contrasts_over_worlds(scores: Scores, ablation: Any) -> list[Contrast]:
    """Returns the contrasts that an ablation has in several worlds, each once; [] if it has none.

    A world's difference is the mean over its test images and seeds. In a verdict, "seeds" are worlds.
    """
    specs = {variant.name: variant for variant in ablation.variants}
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for first, second in ablation.contrasts:
        (row, world), (other, its_world) = split_name(first), split_name(second)
        if world and world == its_world:
            pairs.setdefault((row, other), []).append((first, second))
    measured = {pair: _differences(scores, [(specs[a], specs[b]) for a, b in each]) for pair, each in pairs.items()}
    judged = verdicts_over_worlds({" - ".join(pair): values for pair, values in measured.items()
                                   if len(values) >= LEAST}, ALPHA)
    made = []
    for pair, values in measured.items():
        verdict, (first, second) = judged.get(" - ".join(pair)), pairs[pair][0]
        made.append(Contrast(
            pair, describe_contrast(specs[first].of, specs[second].of), float(values.mean()) if len(values) else None,
            verdict, verdict.word if verdict else f"no verdict: {counted(len(values), 'world')}", {}, None,
            count=len(judged)))
    return made


def _differences(scores: Scores, pairs: list[tuple[Any, Any]]) -> np.ndarray:
    """Returns the difference of each pair of rows that has results, one for each world."""
    found = [scores.paired(row_key(first), row_key(second)) for first, second in pairs]
    return np.array([np.mean(pair[0] - pair[1]) for pair in found if pair is not None])


def worlds_note(contrasts: Sequence[Contrast]) -> str:
    """Returns how contrasts over worlds were tested; "" without one."""
    judged = [contrast for contrast in contrasts if contrast.verdict]
    return (f"Over worlds: the sample is the world; Student's t over the worlds' differences, each a mean over images "
            f"and seeds; Holm over {counted(len(judged), 'contrast')}. A contrast within a world is about that world "
            "alone.") if judged else ""
