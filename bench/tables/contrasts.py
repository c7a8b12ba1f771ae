"""The contrasts of a table: their families, Holm's verdicts, and whose p a contrast has that other tables show too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.experiment import ablation as ablations
from bench.experiment.describe import describe_contrast
from bench.experiment.key import digest
from bench.experiment.variant import pretraining_settings
from bench.statistics import LEAST_ITEMS, verdicts
from bench.tables import results
from bench.tables.columns import ALPHA, NOT_RUN, counted, test_text
from bench.tables.model import Contrast
from bench.tables.scores import RowKey, Scores, choose_headline, row_key

PRIMARY, SECONDARY = "primary", "secondary"


def contrasts(scores: Scores, folder: Path, name: str, ablation: Any, paper: Mapping[str, float]) -> list[Contrast]:
    """Returns the ablation's contrasts with the verdicts of those that can have one.

    Holm's correction is over a family: the ablation's primary contrasts, and its others. One contrast has one p
    wherever it is printed: if several ablations with a CSV in the folder list it, its p is that of the first of them
    (`_rank`), provided that this CSV has the same values. Raises BenchError if such a CSV cannot be read.
    """
    shared = dict(_shared(scores, folder, name, ablation))
    rest = [pair for pair in ablation.contrasts if pair not in shared]
    primary = [pair for pair in rest if pair in getattr(ablation, "primary", ())]
    others = [pair for pair in rest if pair not in primary]
    made = shared | _judged(scores, ablation, primary, PRIMARY)
    made |= _judged(scores, ablation, others, SECONDARY if primary else "")
    return [replace(made[pair], paper=paper[pair[0]] - paper[pair[1]] if set(pair) <= set(paper) else None)
            for pair in ablation.contrasts]


def _rank(name: str, ablation: Any) -> tuple[bool, int, str]:
    """Returns what orders the ablations that list a contrast: first those with primary contrasts, then the largest."""
    return not getattr(ablation, "primary", ()), -len(ablation.contrasts), name


def _shared(scores: Scores, folder: Path, name: str, ablation: Any) -> Iterator[tuple[tuple[str, str], Contrast]]:
    """Yields the contrasts that another ablation judges, as it does, each once."""
    digests = {v.name: digest(v) for v in ablation.variants}
    open_pairs = {frozenset((digests[a], digests[b])): (a, b) for a, b in ablation.contrasts}
    recorded = (folder / f"{name}.sha256").exists()
    homes = [(other, ablations.load(other)) for other in ablations.names()
             if other != name and (folder / f"{other}.sha256").exists()]
    for other, home in sorted(homes, key=lambda each: _rank(*each)):
        if recorded and _rank(other, home) > _rank(name, ablation):
            return
        theirs = {v.name: digest(v) for v in home.variants}
        if not any(frozenset((theirs[a], theirs[b])) in open_pairs for a, b in home.contrasts):
            continue
        there = Scores(results.read(folder, other), scores.headline)
        if choose_headline(there.rows, home) != scores.headline:
            continue
        specs, their_specs = ({v.name: v for v in each.variants} for each in (ablation, home))
        for contrast in contrasts(there, folder, other, home, {}):
            pair = open_pairs.get(frozenset(theirs[each] for each in contrast.pair))
            if pair is None or contrast.verdict is None:
                continue
            turned = theirs[contrast.pair[0]] != digests[pair[0]]
            first, second = contrast.pair[::-1] if turned else contrast.pair
            if all(scores.same(row_key(specs[ours]), there, row_key(their_specs[their]))
                   for ours, their in zip(pair, (first, second), strict=True)):
                del open_pairs[frozenset(theirs[each] for each in contrast.pair)]
                yield pair, _renamed(contrast, pair, [specs[each] for each in pair], contrast.home or other, turned)


def _renamed(contrast: Contrast, pair: tuple[str, str], specs: Sequence[Any], home: str, turned: bool) -> Contrast:
    """Returns a contrast of another ablation under this one's names; turned: second - first."""
    verdict, mean, outcome = contrast.verdict, contrast.mean, contrast.outcome
    if turned and verdict is not None and mean is not None:
        interval = verdict.interval
        turned_interval = replace(interval, mean=-interval.mean, low=-interval.high, high=-interval.low)
        word = {"better": "worse", "worse": "better"}.get(verdict.word, verdict.word)
        outcome, mean = outcome.replace(verdict.word, word, 1), -mean
        verdict = replace(verdict, interval=turned_interval, word=word)
    return replace(contrast, pair=pair, label=describe_contrast(*specs), mean=mean, verdict=verdict, outcome=outcome,
                   home=home)


def _judged(scores: Scores, ablation: Any, chosen: Sequence[tuple[str, str]],
            family: str) -> dict[tuple[str, str], Contrast]:
    """Returns the contrasts of one family."""
    specs = {v.name: v for v in ablation.variants}
    keys = {v.name: row_key(v) for v in ablation.variants}
    pools = scores.pools(key for name, key in keys.items() if not getattr(specs[name], "eeg_free", False))
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    reasons: dict[str, str] = {}
    unpaired, pooled = set(), {}
    for a, b in chosen:
        name = f"{a} - {b}"
        pair = scores.paired(keys[a], keys[b])
        if pair is None and (pair := scores.unpaired(keys[a], keys[b])) is not None:
            unpaired.add(name)
        reason = _reason(scores, specs[a], specs[b], pair)
        if pair is None or reason:
            reasons[name] = reason
            continue
        pairs[name] = pair
        first, second = (pools.get(keys[each]) for each in (a, b))
        if first and second and first[0] is second[0] and name not in unpaired:
            pooled[name] = (first[0], first[1], second[1])
    judged = verdicts(pairs, ALPHA, unpaired, pooled)
    made = {}
    for a, b in chosen:
        name = f"{a} - {b}"
        verdict, word = judged.get(name), reasons.get(name, "")
        if verdict:
            word = verdict.word + (", given these models" if verdict.interval.seeds == 1 else "")
            word += ", not paired: other test images" if name in unpaired else ""
        made[a, b] = Contrast((a, b), describe_contrast(specs[a], specs[b]), _mean(scores, keys[a], keys[b], verdict),
                              verdict, word, scores.mcnemar(keys[a], keys[b]) if verdict and name not in unpaired else
                              {}, None, family if verdict else "", count=len(pairs) if verdict else 0)
    return made


def _mean(scores: Scores, a: RowKey, b: RowKey, verdict: Any) -> float | None:
    if verdict:
        return float(verdict.interval.mean)
    first, second = scores.interval(a), scores.interval(b)
    return first.mean - second.mean if first and second else None


def _reason(scores: Scores, first: Any, second: Any, pair: tuple[np.ndarray, np.ndarray] | None) -> str:
    """Returns why two rows have no verdict, "" if they can have one."""
    if pair is None:
        missing = [key for key in (row_key(first), row_key(second)) if scores.top1(key) is None]
        if not missing:
            return "no verdict: other seeds"
        return "failed" if any(map(scores.failed, missing)) else NOT_RUN
    if "one" in scores.values("pretrain_seeds") and pretraining_settings(first) != pretraining_settings(second):
        return "no verdict: one pre-training"
    if min(values.shape[1] for values in pair) < LEAST_ITEMS:
        return f"no verdict: fewer than {LEAST_ITEMS} test images"
    return ""


def families_text(made: Sequence[Contrast]) -> str:
    """Returns over which contrasts p is adjusted: "4 primary contrasts and 11 secondary contrasts of table2"."""
    families = {(c.family, c.home): c.count for c in made if c.verdict}
    several = len(families) > 1
    return " and over ".join(
        counted(count, f"{family} contrast".strip())
        + (f" of {home}" if home else " of this table" if several and not family else "")
        for (family, home), count in families.items())


def tests_text(made: Sequence[Contrast]) -> str:
    """Returns how the contrasts were tested: "moderated", "plain", or "plain in 9 contrasts, moderated in 9"."""
    tests = Counter(test_text(c) for c in made if c.verdict)
    return next(iter(tests)) if len(tests) == 1 else ", ".join(
        f"{test} in {counted(count, 'contrast')}" for test, count in tests.items())
