"""Gates of the instrument: what each world with a known answer should show, and what its recorded results show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.experiment import ablation as ablations
from bench.experiment.key import digest
from bench.experiment.worlds import split_name
from bench.modules import ROOT, shipped_results
from bench.statistics import crossed_interval
from bench.tables import results
from bench.tables.columns import counted
from bench.tables.formats import Column, Document, Printed

RESULTS = shipped_results() / "reference" / "instrument" / "tiny"
LEAST = 3  # worlds without which a gate has no interval
POINTS = 100.0
SOLVED = 0.4  # masked error, where the mean's is 1


@dataclass(frozen=True)
class Gate:
    """A statement about the instrument that must hold, whatever the order of real methods.

    ablation     its results are read
    claim        what the worlds should show
    first        row and metric whose value is compared, without the world in the row's name
    second       row and metric with which it is compared; a number: with this
    expected     "above": the interval of the difference lies above 0; "below"; "apart": it does not contain 0;
                 "not above": it does not lie above 0
    """

    ablation: str
    claim: str
    first: tuple[str, str]
    second: tuple[str, str] | float
    expected: str


@dataclass(frozen=True)
class Shown:
    """What a gate's results show: interval of the mean difference over worlds (None: not run), and whether it holds."""

    gate: Gate
    mean: float
    low: float
    high: float
    worlds: int
    seeds: int
    reason: str = ""

    @property
    def word(self) -> str:
        """pass, FAIL, or not run."""
        if self.reason:
            return "not run"
        holds = {"above": self.low > 0, "below": self.high < 0, "apart": self.low > 0 or self.high < 0,
                 "not above": self.low <= 0}[self.gate.expected]
        return "pass" if holds else "FAIL"


CLASS, TEN, TRAINED = "class_top1", "retrieval_10way", "train_class_top1"
GATES = (
    Gate("known_pretraining", "an oracle start is better than none", ("oracle", CLASS), ("none", CLASS), "above"),
    Gate("known_pretraining", "masked error is below linear prediction's", ("masked", "masked_mse"),
         ("masked", "joint_wiener_mse"), "below"),
    Gate("known_pretraining", "pre-training on noise is not better than none", ("noise", CLASS), ("none", CLASS),
         "not above"),
    Gate("known_mask_ratio", "mask 0.25 is better than none", ("mask 0.25", CLASS), ("none", CLASS), "above"),
    Gate("known_mask_ratio", "mask 0.75 is better than none", ("mask 0.75", CLASS), ("none", CLASS), "above"),
    Gate("known_mask_ratio", "mask 0.75 and 0.25 differ", ("mask 0.75", CLASS), ("mask 0.25", CLASS), "apart"),
    Gate("known_mask_ratio", "linear prediction solves ratio 0.25", ("mask 0.25", "joint_wiener_mse"), SOLVED, "below"),
    Gate("known_mask_ratio", "linear prediction does not solve 0.75", ("mask 0.75", "joint_wiener_mse"), SOLVED,
         "above"),
    *(Gate("known_size", f"more pairs are better, encoder {size}", (f"{size} with 1600 pairs", CLASS),
           (f"{size} with 100 pairs", CLASS), "above") for size in ("18.3M", "297M")),
    Gate("known_size", "encoder 297M fits 400 pairs", ("297M with 400 pairs", TRAINED), 0.95, "above"),
    Gate("known_clip", "image embeddings are better than labels", ("image embeddings", TEN), ("labels", TEN), "above"),
    Gate("known_clip", "class embeddings are not better than labels", ("class embeddings", TEN), ("labels", TEN),
         "not above"),
)


def judge(gates: Sequence[Gate] = GATES, folder: Path = RESULTS) -> list[Shown]:
    """Judges the gates by the results in a folder. Raises BenchError if results cannot be read or were changed."""
    tables = {name: _read(folder, name) for name in dict.fromkeys(gate.ablation for gate in gates)}
    return [_judge(gate, tables[gate.ablation]) for gate in gates]


def _read(folder: Path, name: str) -> pd.DataFrame | str:
    """Returns the rows of an ablation with columns row and world, or the reason why there are none."""
    if not (folder / f"{name}.csv").is_file():
        return "no results"
    rows = results.read(folder, name).rows
    current = {variant.name: digest(variant) for variant in ablations.load(name).variants}
    if any(current.get(variant) != spec for variant, spec in zip(rows["variant"], rows["spec"], strict=True)):
        return "other settings"
    parts = [split_name(name) for name in rows["variant"]]
    return rows.assign(row=[row for row, _ in parts], world=[world for _, world in parts])


def _judge(gate: Gate, table: pd.DataFrame | str) -> Shown:
    missing = (float("nan"),) * 3
    if isinstance(table, str):
        return Shown(gate, *missing, 0, 0, table)

    def means(row: str, metric: str) -> pd.Series:
        """Returns the means over seeds of a metric by world."""
        return table[(table["row"] == row) & (table["metric"] == metric)].groupby("world")["value"].mean()

    first = means(*gate.first)
    second = means(*gate.second) if isinstance(gate.second, tuple) else gate.second
    differences = (first - second).dropna()
    if len(differences) < LEAST:
        return Shown(gate, *missing, len(differences), 0, counted(len(differences), "world"))
    interval = crossed_interval(np.asarray(differences, np.float64)[None])
    return Shown(gate, interval.mean, interval.low, interval.high, len(differences), int(table["seed"].nunique()))


def document(shown: Sequence[Shown], folder: Path) -> Document:
    """Returns the gates as a table."""
    def measured(each: Shown) -> str:
        if each.reason:
            return each.reason
        factor, unit = (1.0, "") if each.gate.first[1].endswith("_mse") else (POINTS, " points")
        digits = 3 if factor == 1 else 1
        low, high = (f"{factor * value:+.{digits}f}" for value in (each.low, each.high))
        return f"{factor * each.mean:+.{digits}f}{unit} [{low}, {high}]"

    block = (
        Column("ablation", tuple(each.gate.ablation for each in shown), True),
        Column("should show", tuple(each.gate.claim for each in shown), True, True),
        Column("shows: difference [95% CI]", tuple(map(measured, shown)), True, True),
        Column("worlds", tuple(str(each.worlds) for each in shown)),
        Column("seeds", tuple(str(each.seeds) for each in shown)),
        Column("verdict", tuple(each.word for each in shown), True),
    )
    open_names = dict.fromkeys(each.gate.ablation for each in shown if each.reason)
    place = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    notes = [f"Results: {place}. CI: Student's t over worlds, of the means over seeds; not corrected for the number of "
             "gates."]
    notes += [f"Not run: bench run --ablation {name} --seeds 0,1,2 --results {place.parent}" for name in open_names]
    words = [each.word for each in shown]
    finding = f"{words.count('pass')} of {counted(len(words), 'gate')} hold; {words.count('FAIL')} fail; " \
              f"{words.count('not run')} not run."
    frame = pd.DataFrame([{"ablation": each.gate.ablation, "claim": each.gate.claim, "mean": each.mean, "low": each.low,
                           "high": each.high, "worlds": each.worlds, "seeds": each.seeds, "verdict": each.word}
                          for each in shown])
    printed = Printed("The instrument in worlds with known answers", finding, (block,), tuple(notes))
    return Document(printed, printed, frame)
