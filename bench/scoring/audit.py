"""The leak audit: what a decoder could exploit instead of the stimulus, read from a data set's table of trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from bench.data.prepared import PARTS
from bench.data.tiny_things import LEFT_OUT, TinyThings
from bench.errors import BenchError
from bench.experiment.graph import leaky_trainings
from bench.experiment.stages import Scored, Trials
from bench.files import open_array
from bench.scoring.audit_overlaps import find_inside, find_overlapping_eeg, find_overlapping_samples
from bench.scoring.audit_predictions import predict_classes
from bench.scoring.audit_report import CLEAR, FACT, LEAK, UNKNOWN, Finding, Report, json_bytes
from bench.scoring.audit_signals import find_equal_eeg, find_equal_images, find_telling_channel
from bench.scoring.audit_table import Array, check_table, find_left_out, find_shared, list_facts, read_table

__all__ = ["CLEAR", "FACT", "LEAK", "UNKNOWN", "Array", "Finding", "Report", "audit", "claimed", "json_bytes", "read",
           "trained_on"]


def audit(trials: pd.DataFrame, eeg: Array | None = None, pictures: Array | None = None,
          corpus: Array | None = None, known: str = "no", left_out: Sequence[str] = ()) -> Report:
    """Checks what the split of a data set leaks from training into testing.

    trials     one row for each trial: `audit_table.COLUMNS`, and optionally `session`, `exemplar` (the object or photo
               that several images show), `start` and `stop` (samples of the recording; stop follows the window).
               part: train, val or test. position: place in time in the recording of a subject (and session). A block,
               position, start or stop of -1 is unknown
    eeg        [N, C, T], one row for each trial; pictures [P, H, W, 3], indexed by `picture`; corpus [M, C, T'], the
               windows of pre-training. A check whose data are missing is reported as "not checked"
    known      what the data set's manifest says: "no: ..." or "yes: ..."; "no": there is no manifest
    left_out   columns whose test values the split claims to keep out of training, such as "subject" (leave one subject
               out) or "label" (zero-shot)

    Raises BenchError for an invalid table.
    """
    trials = check_table(trials, eeg, pictures, corpus)
    predictions = predict_classes(trials)
    strongest = max((f for f in predictions if f.severity == LEAK), key=lambda f: f.count, default=None)
    findings = [find_shared(trials, trials["picture"], "picture in two parts", "picture", "pictures in two parts"),
                find_equal_images(trials, pictures),
                find_shared(trials, trials["exemplar"], "exemplar in two parts", "exemplar", "exemplars in two parts")
                if "exemplar" in trials else Finding("exemplar in two parts", UNKNOWN, example="no column exemplar"),
                find_equal_eeg(trials, eeg)]
    overlaps = find_overlapping_samples(trials), find_overlapping_eeg(trials, eeg)
    findings += [overlaps[0], replace(overlaps[1], reason="") if overlaps[0].reason else overlaps[1],
                 find_inside(trials, eeg, corpus), *find_telling_channel(trials, eeg)]
    parts = {part: int((trials["part"] == part).sum()) for part in PARTS if (trials["part"] == part).any()}
    if known.startswith("yes: "):
        findings.append(Finding("known of the data set", LEAK, parts["test"], reason=known.removeprefix("yes: ")))
    else:
        reason = known.removeprefix("no: ") if known.startswith("no: ") else ""
        findings.append(Finding("known of the data set", CLEAR if reason else UNKNOWN,
                                example=reason or "no manifest of a prepared data set was given"))
    findings += find_left_out(trials, left_out)
    findings += [f if f is strongest else replace(f, reason="") for f in predictions]
    return Report((*findings, *list_facts(trials)), parts)


def claimed(trials: Trials) -> tuple[str, ...]:
    """Returns `left_out` of a stage's split; a prepared data set has it in its manifest instead."""
    return LEFT_OUT[trials.split] if isinstance(trials.world, TinyThings) else ()


def read(folder: Path, corpus: Path | Array | None = None, known: str = "no", left_out: Sequence[str] = ()) -> Report:
    """Audits a folder with trials.csv and optionally eeg.npy and pictures.npy. corpus: an array, or an .npy file.
    Raises BenchError for files that cannot be read."""
    table, eeg, pictures = (read_table(folder / "trials.csv"), _array(folder / "eeg.npy", 3),
                            _array(folder / "pictures.npy", 4))
    corpus = _array(corpus, 3) if isinstance(corpus, Path) else corpus
    try:
        return audit(table, eeg, pictures, corpus, known, left_out)
    except BenchError as error:
        raise BenchError(f"{folder / 'trials.csv'}: {error}", error.exit_code) from error


def trained_on(score: Scored) -> str:
    """Describes the trainings behind a row that use trials of the tested part; "" if there are none."""
    names = sorted({type(stage).__name__ for stage in leaky_trainings(score)})
    return f"trained on the {score.items.part} trials ({', '.join(names)})" if names else ""


def _array(path: Path, dimensions: int) -> Array | None:
    if not path.is_file():
        return None
    array = open_array(path)
    if array.ndim != dimensions:
        raise BenchError(f"{path} is {list(array.shape)}; expected {dimensions} dimensions")
    return array
