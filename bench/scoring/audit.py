"""The leak audit: what a decoder could exploit instead of the stimulus, read from a data set's table of trials."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.prepared import PARTS
from bench.data.tiny_things import LEFT_OUT, TinyThings
from bench.errors import BenchError
from bench.experiment.graph import leaky_trainings
from bench.experiment.stages import Scored, Trials
from bench.files import open_array

COLUMNS = ("item", "subject", "picture", "label", "part", "block", "position")
LEAK, FACT, CLEAR, UNKNOWN = "leak", "fact", "clear", "not checked"
PERMUTATIONS, ALPHA = 1000, 0.001  # block, time, session or subject predicts the class if no permutation does as well
GAIN = 0.02  # and if it gains at least this share of the way from chance to certainty
NEIGHBOURS = 5  # training trials, nearest in time, that vote
SNIPPET, SAME = 24, 0.999  # samples of a channel that are compared with the corpus, and the correlation of a match
CHUNK = 200  # windows of the corpus that are compared at once
Array = np.ndarray


@dataclass(frozen=True)
class Finding:
    """One check of the audit. severity: "leak", "fact" (worth knowing, not a leak by itself), "clear" or "not checked".
    count: of what `name` says. reason: the text of a leak in the verdict."""

    name: str
    severity: str
    count: int = 0
    example: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """All findings of an audit, in a fixed order."""

    findings: tuple[Finding, ...]

    @property
    def leaky(self) -> bool:
        """Whether any finding is a leak."""
        return any(finding.severity == LEAK for finding in self.findings)

    @property
    def verdict(self) -> str:
        """"no", or "yes: <reasons>"; equal data give equal text."""
        return "yes: " + "; ".join(f.reason for f in self.findings if f.reason) if self.leaky else "no"

    def render(self) -> str:
        """Returns the findings as a plain-text table, followed by the verdict."""
        rows = [("finding", "is", "count", "")]
        rows += [(f.name, f.severity, "" if f.severity == UNKNOWN else str(f.count), f.example) for f in self.findings]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:{widths[0]}s}  {b:{widths[1]}s}  {c:>{widths[2]}s}  {d}".rstrip() for a, b, c, d in rows]
        return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:], "", f"leaky: {self.verdict}"])


def audit(trials: pd.DataFrame, eeg: Array | None = None, pictures: Array | None = None,
          corpus: Array | None = None, known: str = "no", left_out: Sequence[str] = ()) -> Report:
    """Checks what the split of a data set leaks from training into testing.

    trials     one row for each trial: COLUMNS and optionally `session` and `exemplar` (the object or photo that
               several images show). part: train, val or test. position: place in time in the recording of a subject
               (and session). A block or position of -1 is unknown
    eeg        [N, C, T], one row for each trial; pictures [P, H, W, 3], indexed by `picture`; corpus [M, C, T'], the
               windows of pre-training. A check whose data are missing is reported as "not checked"
    known      what the data set's manifest says: "no" or "yes: ..."
    left_out   columns whose test values the split claims to keep out of training, such as "subject" (leave one subject
               out) or "label" (zero-shot)

    Raises BenchError for an invalid table.
    """
    trials = _checked(trials, eeg, pictures)
    predictions = _predictions(trials)
    strongest = max((f for f in predictions if f.severity == LEAK), key=lambda f: f.count, default=None)
    findings = [_shared(trials, trials["picture"], "picture in two parts", "picture", "pictures in two parts"),
                _equal_images(trials, pictures),
                _shared(trials, trials["exemplar"], "exemplar in two parts", "exemplar", "exemplars in two parts")
                if "exemplar" in trials else Finding("exemplar in two parts", UNKNOWN, example="no column exemplar"),
                _equal_eeg(trials, eeg), _inside(trials, eeg, corpus)]
    if known.startswith("yes: "):
        tested = int((trials["part"] == "test").sum())
        findings.append(Finding("known of the data set", LEAK, tested, reason=known.removeprefix("yes: ")))
    findings += _left_out(trials, left_out)
    findings += [f if f is strongest else replace(f, reason="") for f in predictions]
    return Report((*findings, *_facts(trials)))


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


def read_table(path: Path) -> pd.DataFrame:
    """Reads a table of trials. Raises BenchError if it is absent or is not a CSV."""
    if not path.is_file():
        raise BenchError(f"no {path}; expected a table of trials with the columns {', '.join(COLUMNS)}")
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise BenchError(f"{path} is not a readable CSV table ({' '.join(str(error).split())})") from error


def _array(path: Path, dimensions: int) -> Array | None:
    if not path.is_file():
        return None
    array = open_array(path)
    if array.ndim != dimensions:
        raise BenchError(f"{path} is {list(array.shape)}; expected {dimensions} dimensions")
    return array


def _checked(trials: pd.DataFrame, eeg: Array | None, pictures: Array | None) -> pd.DataFrame:
    """Returns the known columns of a valid table, with rows and labels numbered from 0."""
    if missing := [name for name in COLUMNS if name not in trials]:
        raise BenchError(f"the trials have no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    trials = trials[[*COLUMNS, *(name for name in ("session", "exemplar") if name in trials)]].reset_index(drop=True)
    for name in trials:
        if empty := int(trials[name].isna().sum()):
            raise BenchError(f"the trials' column {name} is empty in {empty} of {len(trials)} rows")
    if unknown := sorted({str(part) for part in trials["part"]} - set(PARTS)):
        raise BenchError(f"the trials have an unknown part {', '.join(unknown)}; expected {', '.join(PARTS)}")
    for part in ("train", "test"):
        if not (trials["part"] == part).any():
            raise BenchError(f"the trials have an empty part {part}; the audit needs train and test trials")
    if (repeated := trials["item"].duplicated()).any():
        raise BenchError(f"item {trials['item'][repeated].iloc[0]} is repeated; each trial needs an id of its own")
    if not pd.api.types.is_numeric_dtype(trials["position"]):
        raise BenchError("the trials' column position holds text; expected numbers")
    if eeg is not None and len(eeg) != len(trials):
        raise BenchError(f"eeg has {len(eeg)} rows for {len(trials)} trials; expected one row for each trial")
    if pictures is not None:
        rows = trials["picture"]
        if not pd.api.types.is_integer_dtype(rows) or rows.min() < 0 or rows.max() >= len(pictures):
            raise BenchError(f"the trials' column picture must hold rows of pictures, 0 to {len(pictures) - 1}")
    return trials.assign(label=pd.factorize(trials["label"], sort=True)[0])


def _equal_images(trials: pd.DataFrame, pictures: Array | None) -> Finding:
    name = "identical picture under two ids"
    if pictures is None:
        return Finding(name, UNKNOWN, example="no images were given")
    ids = np.unique(trials["picture"])
    content = pd.Series(_digests(pictures, ids), ids)
    copies = trials[trials["picture"].map(content.duplicated(keep=False))]
    return _shared(copies, copies["picture"].map(content), name, "picture",
                   "identical pictures under different ids in two parts")


def _equal_eeg(trials: pd.DataFrame, eeg: Array | None) -> Finding:
    name = "identical EEG in two parts"
    if eeg is None:
        return Finding(name, UNKNOWN, example="no EEG was given")
    content = pd.Series(_digests(eeg, np.arange(len(trials))), trials.index)
    copies = trials[content.duplicated(keep=False)]
    return _shared(copies, content[copies.index], name, "", "identical EEG windows in two parts")


def _digests(rows: Array, indices: Array) -> list[bytes]:
    return [hashlib.blake2b(np.ascontiguousarray(rows[row]).data, digest_size=16).digest() for row in indices]


def _shared(trials: pd.DataFrame, value: pd.Series, name: str, noun: str, reason: str) -> Finding:
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


def _inside(trials: pd.DataFrame, eeg: Array | None, corpus: Array | None) -> Finding:
    """Finds test trials whose first channel starts or ends with a stretch of a corpus window's first channel. A trial
    inside a corpus of adjacent windows has at least one end inside a window, at any offset. The differences between
    successive samples are correlated, so scale and offset, which normalisation changes, do not matter."""
    name = "test trial inside the corpus"
    if eeg is None or corpus is None:
        return Finding(name, UNKNOWN, example=f"no {'EEG' if eeg is None else 'corpus'} was given")
    if min(eeg.shape[-1], corpus.shape[-1]) < SNIPPET:
        return Finding(name, UNKNOWN, example=f"windows are shorter than {SNIPPET} samples")
    test = np.flatnonzero(trials["part"] == "test")
    channel = np.asarray(eeg[test, 0], np.float32)
    ends = np.diff(np.concatenate([channel[:, :SNIPPET], channel[:, -SNIPPET:]]), axis=1)
    size = np.linalg.norm(ends, axis=1, keepdims=True)
    ends = (ends / np.where(size > 0, size, np.inf)).T
    matches = np.zeros(ends.shape[1], bool)
    for begin in range(0, len(corpus), CHUNK):
        steps = np.diff(np.asarray(corpus[begin : begin + CHUNK, 0], np.float32), axis=1)
        stretches = np.lib.stride_tricks.sliding_window_view(steps, SNIPPET - 1, axis=1).reshape(-1, SNIPPET - 1)
        norm = np.linalg.norm(stretches, axis=1, keepdims=True)
        matches |= ((stretches / np.where(norm > 0, norm, np.inf)) @ ends).max(0) > SAME
    inside = test[matches.reshape(2, -1).any(0)]
    if not len(inside):
        return Finding(name, CLEAR)
    return Finding(name, LEAK, len(inside), f"item {trials['item'][inside[0]]}",
                   f"{len(inside)} test trial{'s' * (len(inside) > 1)} inside the pre-training corpus")


def _left_out(trials: pd.DataFrame, columns: Sequence[str]) -> list[Finding]:
    """Counts test trials whose value of a column trains although the split claims to keep it out."""
    findings = []
    train, test = (trials[trials["part"] == part] for part in ("train", "test"))
    for column in dict.fromkeys(columns):
        if column not in trials:
            raise BenchError(f"the trials have no column {column} to leave out; expected one of "
                             f"{', '.join(map(str, trials))}")
        name, shared = f"left-out {column} is trained on", test[test[column].isin(train[column])]
        findings.append(Finding(name, LEAK, len(shared), f"item {shared['item'].iloc[0]}",
                                f"{len(shared)} test trial{'s' * (len(shared) > 1)} of a {column} that is said to be "
                                "left out and is trained on") if len(shared) else Finding(name, CLEAR))
    return findings


def _unknown(trials: pd.DataFrame) -> set[str]:
    """Returns which of block and position the data set does not record."""
    return {name for name in ("block", "position") if (trials[name] == -1).all()}


def _recording(trials: pd.DataFrame) -> Array:
    """Returns the recording [N] of each trial; positions and blocks are comparable only within one."""
    return trials.groupby(["subject", "session"] if "session" in trials else ["subject"]).ngroup().to_numpy()


def _blocks(trials: pd.DataFrame) -> Array:
    """Returns the block [N] of each trial, numbered over all recordings."""
    return trials.assign(recording=_recording(trials)).groupby(["recording", "block"]).ngroup().to_numpy()


def _predictions(trials: pd.DataFrame) -> list[Finding]:
    """Measures how well block, time, session and subject alone predict the class of the test trials.

    The prediction is the most frequent class among the training trials of the same block (session, subject), or among
    the NEIGHBOURS nearest in time. Tied classes share the hit. Without such training trials it is the most frequent
    class of all. p: labels of the test trials are permuted, as if their order had been drawn at random. Blocks of a
    single class that are held out as a whole are permuted as a whole, since the split drew blocks.
    """
    train, test = ((trials["part"] == part).to_numpy() for part in ("train", "test"))
    label = trials["label"].to_numpy()
    prior = np.bincount(label[train], minlength=label.max() + 1)
    prior = (prior == prior.max()) / (prior == prior.max()).sum()
    block, subject = _blocks(trials), pd.factorize(trials["subject"])[0]
    groups = {"block": block} | ({"session": _recording(trials)} if "session" in trials else {}) | {"subject": subject}
    votes = {"block": _vote_in_group(block, label, train, test), "time": _vote_in_time(trials, label, train, test)}
    votes |= {name: _vote_in_group(group, label, train, test) for name, group in groups.items() if name not in votes}

    held_out = (pd.Series(label).groupby(block).transform("nunique") == 1) & ~pd.Series(train).groupby(
        block).transform("any")
    unit = np.where(held_out, -1 - block, np.arange(len(label)))[test]
    _, first, unit = np.unique(unit, return_index=True, return_inverse=True)
    labels = label[test][first]
    orders = math.lgamma(len(labels) + 1) - sum(math.lgamma(n + 1) for n in np.bincount(labels))
    rng = np.random.default_rng(0)
    reached = dict.fromkeys(votes, 0)
    shares = {name: vote.share(label[test], prior) for name, vote in votes.items()}
    for _ in range(PERMUTATIONS):
        permuted = rng.permutation(labels)[unit]
        for name, vote in votes.items():
            reached[name] += vote.share(permuted, prior) >= shares[name] - 1e-12

    chance, n, findings = float(prior[label[test]].mean()), int(test.sum()), []
    for name, share in shares.items():
        title, p = f"the {name} tells the class", (1 + reached[name]) / (1 + PERMUTATIONS)
        numbers = f"{_percent(share)} against {_percent(chance)}"
        severity, count, example, reason = CLEAR, 0, f"{numbers}, p = {p:.3f}, {n} test trials", ""
        if {"time": "position"}.get(name, name) in _unknown(trials):
            severity, example = UNKNOWN, f"the data set does not record the {name} of a trial"
        elif name in groups and len(np.unique(groups[name])) == 1:
            example = f"there is one {name} only"
        elif not votes[name].has_votes.any():
            example = f"no test trial shares its {name} with training trials"
        elif orders < math.log(1 / ALPHA):
            severity, example = UNKNOWN, f"{example}: too few to tell"
        else:
            count = round(share * n)
            if p <= ALPHA and share - chance >= GAIN * (1 - chance):
                severity, reason = LEAK, f"{title} ({numbers})"
        findings.append(Finding(title, severity, count, example, reason))
    return findings


@dataclass(frozen=True, eq=False)
class _Votes:
    """The winning classes of the training trials that vote for each of n test trials. codes: row * classes + label of
    each winner, sorted. weight: one over the number of winners of its row."""

    row: Array  # [n]; test trials may share a row
    codes: Array
    weight: Array
    has_votes: Array  # [n]
    classes: int

    def share(self, label: Array, prior: Array) -> float:
        """Returns the share of test trials [n] with these labels that the winners predict."""
        code = self.row * self.classes + label
        place = np.minimum(np.searchsorted(self.codes, code), len(self.codes) - 1)
        hit = np.where(self.codes[place] == code, self.weight[place], 0.0)
        return float(np.where(self.has_votes, hit, prior[label]).mean())


def _count_votes(row: Array, voters: Array, votes: Array, classes: int) -> _Votes:
    """voters [v]: the row that each vote is for; votes [v]: its label; row [n]: of each test trial."""
    codes, count = np.unique(voters * classes + votes, return_counts=True)
    codes = codes[pd.Series(count).groupby(pd.Series(codes // classes)).transform("max") == count]
    weight = 1 / pd.Series(codes // classes).groupby(codes // classes).transform("size").to_numpy(float)
    return _Votes(row, codes, weight, np.isin(row, voters), classes)


def _vote_in_group(group: Array, label: Array, train: Array, test: Array) -> _Votes:
    return _count_votes(group[test], group[train], label[train], label.max() + 1)


def _vote_in_time(trials: pd.DataFrame, label: Array, train: Array, test: Array) -> _Votes:
    """The nearest in the same recording vote; without training trials in it, those at the same time in all others."""
    recording, position = _recording(trials), trials["position"].to_numpy(float)
    row, voters, votes = np.arange(test.sum()), [], []
    tested = np.flatnonzero(test)
    for number in np.unique(recording[test]):
        rows = np.flatnonzero(recording[tested] == number)
        known = np.flatnonzero(train & (recording == number))
        known = known if len(known) else np.flatnonzero(train)
        known = known[np.argsort(position[known], kind="stable")]
        place = np.searchsorted(position[known], position[tested[rows]])
        near = place[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS)
        inside = (near >= 0) & (near < len(known))
        near = known[near.clip(0, len(known) - 1)]
        distance = np.where(inside, np.abs(position[near] - position[tested[rows], None]), np.inf)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
        counted = np.take_along_axis(inside, nearest, 1)
        voters.append(np.repeat(rows, counted.sum(1)))
        votes.append(label[np.take_along_axis(near, nearest, 1)][counted])
    return _count_votes(row, np.concatenate(voters), np.concatenate(votes), label.max() + 1)


def _facts(trials: pd.DataFrame) -> list[Finding]:
    """Counts what train and test share that is not a leak by itself; `_predictions` measures if it tells the class."""
    train, test = ((trials["part"] == part).to_numpy() for part in ("train", "test"))
    block, recording, label = _blocks(trials), _recording(trials), trials["label"].to_numpy()
    place = pd.Series(zip(recording, trials["position"], strict=True))
    before, after = (pd.Series(zip(recording, trials["position"] + step, strict=True)) for step in (-1, 1))
    trained = set(place[train])
    near = np.array([a in trained or b in trained for a, b in zip(before, after, strict=True)])
    kinds = pd.Series(label[train]).groupby(block[train]).agg(["nunique", "first"])
    pure = kinds[kinds["nunique"] == 1]["first"]
    facts = {  # name: where it is true [N], what its example counts, the column that it needs
        "class alone in its block": (pd.Series(block).map(pure).to_numpy() == label,
                                     "test trials whose block holds no other class's training trials", "block"),
        "block in train and test": (np.isin(block, block[train]), "test trials", "block"),
        "neighbour in time is trained on": (near, "test trials", "position"),
        "session in train and test": (np.isin(recording, recording[train]), "test trials", "session"),
        "subject in train and test": (trials["subject"].isin(trials["subject"][train]).to_numpy(),
                                      "test trials; usual, but says nothing about new people", "subject"),
    }
    findings = []
    for name, (is_shared, text, column) in facts.items():
        rows = np.flatnonzero(is_shared & test)
        if column not in trials or column in _unknown(trials):
            reason = f"no column {column}" if column not in trials else f"the data set does not record the {column}"
            findings.append(Finding(name, UNKNOWN, example=reason))
        elif len(rows):
            findings.append(Finding(name, FACT, len(rows), f"{text}; item {trials['item'][rows[0]]}"))
        else:
            findings.append(Finding(name, CLEAR))
    return findings


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
