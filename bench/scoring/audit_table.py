"""What a table of trials shows without EEG: its checks, what its parts share, facts about its split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.prepared import PARTS
from bench.errors import BenchError, count_of, one_line
from bench.files import check_content
from bench.scoring.audit_report import CLEAR, FACT, LEAK, UNKNOWN, Finding

COLUMNS = ("item", "subject", "picture", "label", "part", "block", "position")
OPTIONAL = ("session", "exemplar", "start", "stop")
NUMBERS = ("position", "start", "stop")
Array = np.ndarray


def read_table(path: Path) -> pd.DataFrame:
    """Reads a table of trials; a cell is missing only if it is empty, so a class may be named NA, null or None. Raises
    BenchError if it is absent or is not a CSV."""
    if not path.is_file():
        raise BenchError(f"no {path}; expected a table of trials with the columns {', '.join(COLUMNS)}")
    check_content(path, "a CSV table of trials")
    try:
        return pd.read_csv(path, keep_default_na=False, low_memory=False)  # a column has one type from top to bottom
    except (ValueError, OSError) as error:
        raise BenchError(f"{path} is not a readable CSV table ({one_line(error)})") from error


def check_table(trials: pd.DataFrame, eeg: Array | None, pictures: Array | None, corpus: Array | None) -> pd.DataFrame:
    """Returns the known columns of a valid table, with rows and labels numbered from 0. Raises BenchError for a table
    that is not valid, or arrays [N, C, T], [P, H, W, 3] and [M, C', T'] that do not fit it."""
    if missing := [name for name in COLUMNS if name not in trials]:
        raise BenchError(f"the trials have no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    if len(half := [name for name in ("start", "stop") if name in trials]) == 1:
        raise BenchError(f"the trials have a column {half[0]} alone; expected start and stop, in samples of the "
                         "recording")
    trials = trials[[*COLUMNS, *(name for name in OPTIONAL if name in trials)]].reset_index(drop=True)
    if twice := trials.columns[trials.columns.duplicated()].tolist():
        raise BenchError(f"the trials have the column {twice[0]} twice; expected it once")
    for name in trials:
        empty = int((trials[name].isna() | (trials[name].astype(str).str.strip() == "")).sum())
        if empty:
            raise BenchError(f"the trials' column {name} is empty in {empty} of {len(trials)} rows")
    if unknown := sorted({str(part) for part in trials["part"]} - set(PARTS)):
        raise BenchError(f"the trials have an unknown part {', '.join(unknown)}; expected {', '.join(PARTS)}")
    for part in ("train", "test"):
        if not (trials["part"] == part).any():
            raise BenchError(f"the trials have an empty part {part}; the audit needs train and test trials")
    if (repeated := trials["item"].duplicated()).any():
        raise BenchError(f"item {trials['item'][repeated].iloc[0]} is repeated; each trial needs an id of its own")
    for name in NUMBERS:
        if name in trials and not pd.api.types.is_numeric_dtype(trials[name]):
            raise BenchError(f"the trials' column {name} holds text; expected numbers")
    if "start" in trials:
        known = (trials["start"] != -1) | (trials["stop"] != -1)
        wrong = trials[known & ~((trials["start"] >= 0) & (trials["start"] < trials["stop"]))]
        if len(wrong):
            row = wrong.iloc[0]
            raise BenchError(f"item {row['item']} has start {row['start']} and stop {row['stop']}; expected samples of "
                             "the recording with 0 <= start < stop (stop is the first sample after the window), or -1 "
                             "for both if unknown")
    for name, noun, array in (("eeg", "trials", eeg), ("corpus", "windows", corpus)):
        if array is not None and (array.ndim != 3 or array.dtype.kind not in "fiu" or not array.size):
            raise BenchError(f"{name} is {array.dtype} {list(array.shape)}; expected numbers [{noun}, channels, time "
                             "steps]")
    if eeg is not None and len(eeg) != len(trials):
        raise BenchError(f"eeg has {len(eeg)} rows for {len(trials)} trials; expected one row for each trial")
    if pictures is not None:
        rows = trials["picture"]
        if not pd.api.types.is_integer_dtype(rows) or rows.min() < 0 or rows.max() >= len(pictures):
            raise BenchError(f"the trials' column picture must hold rows of pictures, 0 to {len(pictures) - 1}")
    unsigned = [name for name in ("block", *NUMBERS) if name in trials and trials[name].dtype.kind == "u"]
    return trials.astype(dict.fromkeys(unsigned, "int64")).assign(label=pd.factorize(trials["label"], sort=True)[0])


def find_shared(trials: pd.DataFrame, value: pd.Series, name: str, noun: str, reason: str) -> Finding:
    """Counts the values [N] that occur in more than one part. noun: the column that names them, or ""."""
    parts = trials["part"].groupby(value, sort=False).transform("nunique")
    rows = trials[parts > 1]
    if not len(rows):
        return Finding(name, CLEAR)
    count = value[rows.index].nunique()
    first = rows[value[rows.index] == value[rows.index[0]]].drop_duplicates("part")
    example = ", ".join(f"{part} item {item}" for part, item in zip(first["part"], first["item"], strict=True))
    if noun:
        example = f"{noun} {' and '.join(map(str, first[noun].unique()))}: {example}"
    if count == 1:
        reason = reason.replace("pictures", "picture").replace("exemplars", "exemplar").replace("windows", "window")
    return Finding(name, LEAK, count, example, f"{count} {reason}")


def find_left_out(trials: pd.DataFrame, columns: Sequence[str]) -> list[Finding]:
    """Counts test trials whose value of a column trains although the split claims to keep it out."""
    if not columns:
        return [Finding("left-out column is trained on", UNKNOWN, example="no column was named as left out")]
    findings = []
    train, test = (trials[trials["part"] == part] for part in ("train", "test"))
    for column in dict.fromkeys(columns):
        if column not in trials:
            raise BenchError(f"the trials have no column {column} to leave out; expected one of "
                             f"{', '.join(map(str, trials))}")
        name, shared = f"left-out {column} is trained on", test[test[column].isin(train[column])]
        findings.append(Finding(name, LEAK, len(shared), f"item {shared['item'].iloc[0]}",
                                f"{count_of(len(shared), 'test trial')} of a {column} that is said to be "
                                "left out and is trained on") if len(shared) else Finding(name, CLEAR))
    return findings


def find_unknown(trials: pd.DataFrame) -> set[str]:
    """Returns which of block and position the data set does not record."""
    return {name for name in ("block", "position") if (trials[name] == -1).all()}


def find_known(trials: pd.DataFrame, column: str) -> Array:
    """Returns for which trials [N] the block or position is recorded; all True if none is (`find_unknown`)."""
    known = (trials[column] != -1).to_numpy()
    return known if known.any() else ~known


def describe_unknown(trials: pd.DataFrame, column: str) -> str:
    """Returns "; not checked: n trials without <column>", or "" if all have it or none has."""
    count = int((~find_known(trials, column)).sum()) if column in ("block", "position") else 0
    return f"; not checked: {count_of(count, 'trial')} without {column}" if count else ""


def number_recordings(trials: pd.DataFrame) -> Array:
    """Returns the recording [N] of each trial; positions and blocks are comparable only within one."""
    return trials.groupby(["subject", "session"] if "session" in trials else ["subject"]).ngroup().to_numpy()


def number_blocks(trials: pd.DataFrame) -> Array:
    """Returns the block [N] of each trial, numbered over all recordings."""
    return trials.assign(recording=number_recordings(trials)).groupby(["recording", "block"]).ngroup().to_numpy()


def list_facts(trials: pd.DataFrame) -> list[Finding]:
    """Counts what train and test share that is not a leak by itself; `predict_classes` measures if it tells classes."""
    train, test = ((trials["part"] == part).to_numpy() for part in ("train", "test"))
    block, recording, label = number_blocks(trials), number_recordings(trials), trials["label"].to_numpy()
    in_block, placed = find_known(trials, "block"), find_known(trials, "position")
    place = pd.Series(zip(recording, trials["position"], strict=True))
    before, after = (pd.Series(zip(recording, trials["position"] + step, strict=True)) for step in (-1, 1))
    trained = set(place[train & placed])
    near = placed & np.array([a in trained or b in trained for a, b in zip(before, after, strict=True)])
    kinds = pd.Series(label[train & in_block]).groupby(block[train & in_block]).agg(["nunique", "first"])
    pure = kinds[kinds["nunique"] == 1]["first"]
    facts = {  # name: where it is true [N], what its example counts, the column that it needs
        "class alone in its block": (pd.Series(block).map(pure).to_numpy() == label,
                                     "test trials whose block holds no other class's training trials", "block"),
        "block in train and test": (np.isin(block, block[train & in_block]), "test trials", "block"),
        "neighbour in time is trained on": (near, "test trials", "position"),
        "session in train and test": (np.isin(recording, recording[train]), "test trials", "session"),
        "subject in train and test": (trials["subject"].isin(trials["subject"][train]).to_numpy(),
                                      "test trials; usual, but says nothing about new people", "subject"),
    }
    findings = []
    for name, (is_shared, text, column) in facts.items():
        rows = np.flatnonzero(is_shared & test)
        if column not in trials or column in find_unknown(trials):
            reason = f"no column {column}" if column not in trials else f"the data set does not record the {column}"
            findings.append(Finding(name, UNKNOWN, example=reason))
        elif len(rows):
            note = describe_unknown(trials, column)
            findings.append(Finding(name, FACT, len(rows), f"{text}; item {trials['item'][rows[0]]}{note}"))
        else:
            findings.append(Finding(name, CLEAR, example=describe_unknown(trials, column).removeprefix("; ")))
    return findings
