"""Twenty pairs of variants that were really trained, on a world in which the EEG holds no response: what the verdicts
say. As a script it prints them: python tests/train/test_no_signal.py
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench import FULL, On, systems
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.statistics import verdicts
from bench.store.store import Store

PAIRS, SEEDS = 20, 3
SCALE = replace(MICRO, pretrain_seeds="each")


def pairs():
    """Two variants that differ in a knob, twenty times; each world has no response to the stimuli and its own noise."""
    base = replace(FULL, mask_ratio=None)
    knobs = [dict(align=None), dict(align="label"), dict(tune="A"), dict(tune="E"), dict(size="18.3M")]
    for number in range(PAIRS):
        world = {"snr": 0.0, "seed": 100 + number}
        yield [On(variant, str(number), world=world) for variant in (base, replace(base, **knobs[number % len(knobs)]))]


def top1(variant, store):
    """Top-1 accuracy of every test picture under every seed, [seeds, pictures]."""
    rows = []
    for seed in range(SEEDS):
        score = systems.plan(variant, SCALE.items(), SCALE, seed)
        for stage in graph.stages([score], store.has):
            build(stage, store)
        items = pd.read_csv(store.path(score) / "items.csv.gz")
        rows.append(items.groupby("picture")["top1_label"].mean().to_numpy())
    return rows


def measured(folder):
    """How many pairs were judged "better", "worse" and "not resolved", each as a family of its own."""
    store = Store(Path(folder))
    return Counter(verdicts({"pair": tuple(top1(v, store) for v in pair)})["pair"].word for pair in pairs())


@pytest.mark.long
def test_trained_pairs_without_signal_are_seldom_told_apart(tmp_path):
    found = measured(tmp_path)
    assert sum(found.values()) == PAIRS
    assert found["better"] + found["worse"] <= 4  # of 20 at 5 %: more has a probability of 0.3 %


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(f"{PAIRS} pairs, {SEEDS} seeds, scale micro, no signal: {dict(measured(folder))}")
