"""What a decoder could use beside the stimulus: leaks between the parts of a data set, found in its table of trials."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.tiny import PARTS
from bench.data.tiny_things import LEFT_OUT, TinyThings
from bench.errors import BenchError
from bench.experiment.graph import peeked
from bench.experiment.stages import Scored, Trials

COLUMNS = ("item", "subject", "picture", "label", "part", "block", "position")
LEAK, FACT, CLEAR, UNKNOWN = "leak", "fact", "clear", "not checked"
PERMUTATIONS, ALPHA = 1000, 0.001  # block, time, session or subject tells the class where no permutation comes as far
GAIN = 0.02  # and the way from chance to certainty is gone this far at least
NEIGHBOURS = 5  # training trials that vote, nearest in time
SNIPPET, SAME = 24, 0.999  # samples of a channel, and their correlation with a stretch of the corpus that is the same
CHUNK = 200  # windows of the corpus at a time
Array = np.ndarray


@dataclass(frozen=True)
class Finding:
    """severity: "leak", "fact" (worth knowing, no leak by itself), "clear", or "not checked". count: of what the name
    says. reason: what the verdict says of a leak."""

    name: str
    severity: str
    count: int
    example: str
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
        """"no", or "yes: <why>": the same text for the same data."""
        return "yes: " + "; ".join(f.reason for f in self.findings if f.reason) if self.leaky else "no"

    def render(self) -> str:
        """The findings as a table of plain text, the verdict below."""
        rows = [("finding", "is", "count", "")]
        rows += [(f.name, f.severity, "" if f.severity == UNKNOWN else str(f.count), f.example) for f in self.findings]
        wide = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:{wide[0]}s}  {b:{wide[1]}s}  {c:>{wide[2]}s}  {d}".rstrip() for a, b, c, d in rows]
        return "\n".join([lines[0], "  ".join("-" * w for w in wide), *lines[1:], "", f"leaky: {self.verdict}"])


def audit(trials: pd.DataFrame, eeg: Array | None = None, pictures: Array | None = None,
          corpus: Array | None = None, known: str = "no", left_out: Sequence[str] = ()) -> Report:
    """What the split of a data set leaks from training into testing, and what is worth knowing about it.

    trials: a row for each trial with COLUMNS and, where there are any, `session` and `exemplar` (the object or photo
    that several pictures show). `part` is train, val or test; `position` is the trial's place in time in the recording
    of its subject (and session). eeg [N, C, T], a row for each of trials'; pictures [P, H, W, 3], which `picture`
    points into; corpus [M, C, T'], the windows of pre-training. What is not given is not checked, and said so; so
    is a block or a position of -1, which stands for unknown. known: what is known of the data set beside that, "no" or
    "yes: ...". left_out: columns of which the split is said to keep the test trials' values out of training, such as
    "subject" (leave one subject out) or "label" (zero-shot).

    Raises BenchError for a table that is not like that.
    """
    trials = _checked(trials, eeg, pictures)
    told = _told(trials)
    found = [_pictures(trials), _bytes(trials, pictures), _exemplars(trials), _eeg(trials, eeg),
             _inside(trials, eeg, corpus), *_known(known, trials), *_left_out(trials, left_out), *told, *_facts(trials)]
    strongest = max((f for f in told if f.severity == LEAK), key=lambda f: f.count, default=None)
    return Report(tuple(f if f not in told or f is strongest else Finding(f.name, f.severity, f.count, f.example)
                        for f in found))


def claimed(trials: Trials) -> tuple[str, ...]:
    """What a split is said to keep out of training, as `audit` has it; of a prepared data set its manifest knows."""
    return LEFT_OUT[trials.split] if isinstance(trials.world, TinyThings) else ()


def read(folder: Path, corpus: Path | Array | None = None, known: str = "no",
         left_out: Sequence[str] = ()) -> Report:
    """Audits a folder with trials.csv and, where they are there, eeg.npy and pictures.npy; corpus: also as a file .npy.

    Raises BenchError for files that cannot be read.
    """
    return audit(read_table(folder / "trials.csv"), _array(folder / "eeg.npy", 3), _array(folder / "pictures.npy", 4),
                 _array(corpus, 3) if isinstance(corpus, Path) else corpus, known, left_out)


def trained_on(score: Scored) -> str:
    """What trainings behind a row were given of the part that it is tested on; empty: nothing, as it should be."""
    found = sorted({type(stage).__name__ for stage in peeked(score)})
    return f"trained on the {score.items.part} trials ({', '.join(found)})" if found else ""


def read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise BenchError(f"no {path}: a table of trials with the columns {', '.join(COLUMNS)} is expected there")
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise BenchError(f"{path}: not a table that can be read ({' '.join(str(error).split())})") from error


def _array(path: Path, dimensions: int) -> Array | None:
    if not path.is_file():
        return None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BenchError(f"{path}: not an array that numpy can read ({' '.join(str(error).split())})") from error
    if array.ndim != dimensions:
        raise BenchError(f"{path} is {list(array.shape)}: {dimensions} dimensions are expected")
    return array


def _checked(trials: pd.DataFrame, eeg: Array | None, pictures: Array | None) -> pd.DataFrame:
    """The table with rows numbered from 0, `session` and `exemplar` only where they are, labels from 0 on."""
    if missing := [name for name in COLUMNS if name not in trials]:
        raise BenchError(f"the trials have no column {', '.join(missing)}; expected are {', '.join(COLUMNS)}")
    trials = trials[[*COLUMNS, *(name for name in ("session", "exemplar") if name in trials)]].reset_index(drop=True)
    for name in trials:
        if empty := int(trials[name].isna().sum()):
            raise BenchError(f"the trials' column {name} is empty in {empty} of {len(trials)} rows")
    if unknown := sorted({str(part) for part in trials["part"]} - set(PARTS)):
        raise BenchError(f"the trials have an unknown part {', '.join(unknown)}; expected are {', '.join(PARTS)}")
    for part in ("train", "test"):
        if not (trials["part"] == part).any():
            raise BenchError(f"the trials have an empty part {part}: there is nothing to audit")
    if trials["item"].duplicated().any():
        raise BenchError(f"item {trials['item'][trials['item'].duplicated()].iloc[0]} stands twice among the trials; "
                         "every trial has an id of its own")
    if not pd.api.types.is_numeric_dtype(trials["position"]):
        raise BenchError("the trials' column position holds text; a place in time is a number")
    if eeg is not None and len(eeg) != len(trials):
        raise BenchError(f"eeg has {len(eeg)} rows for {len(trials)} trials; one for each is expected")
    if pictures is not None:
        rows = trials["picture"]
        if not pd.api.types.is_integer_dtype(rows) or rows.min() < 0 or rows.max() >= len(pictures):
            raise BenchError(f"the trials' column picture must hold rows of pictures, 0 to {len(pictures) - 1}")
    return trials.assign(label=pd.factorize(trials["label"], sort=True)[0])


def _pictures(trials: pd.DataFrame) -> Finding:
    return _shared(trials, trials["picture"], "picture in two parts", "picture", "pictures in two parts")


def _bytes(trials: pd.DataFrame, pictures: Array | None) -> Finding:
    name = "identical picture under two ids"
    if pictures is None:
        return Finding(name, UNKNOWN, 0, "no pictures are given")
    ids = np.unique(trials["picture"])
    content = pd.Series(_digests(pictures, ids), ids)
    copies = trials[trials["picture"].map(content.duplicated(keep=False))]
    return _shared(copies, copies["picture"].map(content), name, "picture",
                   "identical pictures under different ids in two parts")


def _exemplars(trials: pd.DataFrame) -> Finding:
    if "exemplar" not in trials:
        return Finding("exemplar in two parts", UNKNOWN, 0, "no column exemplar")
    return _shared(trials, trials["exemplar"], "exemplar in two parts", "exemplar", "exemplars in two parts")


def _eeg(trials: pd.DataFrame, eeg: Array | None) -> Finding:
    name = "identical EEG in two parts"
    if eeg is None:
        return Finding(name, UNKNOWN, 0, "no EEG is given")
    content = pd.Series(_digests(eeg, np.arange(len(trials))), trials.index)
    copies = trials[content.duplicated(keep=False)]
    return _shared(copies, content[copies.index], name, "", "identical EEG windows in two parts")


def _digests(rows: Array, which: Array) -> list[bytes]:
    return [hashlib.blake2b(np.ascontiguousarray(rows[row]).data, digest_size=16).digest() for row in which]


def _shared(trials: pd.DataFrame, value: pd.Series, name: str, noun: str, reason: str) -> Finding:
    """How many values [N] stand in more than one part; `noun`: the column that names them, if any does."""
    parts = trials["part"].groupby(value, sort=False).transform("nunique")
    rows = trials[parts > 1]
    if not len(rows):
        return Finding(name, CLEAR, 0, "")
    count = value[rows.index].nunique()
    one = rows[value[rows.index] == value[rows.index[0]]].drop_duplicates("part")
    example = ", ".join(f"{part} item {item}" for part, item in zip(one["part"], one["item"], strict=True))
    if noun:
        example = f"{noun} {' and '.join(map(str, one[noun].unique()))}: {example}"
    if count == 1:
        reason = reason.replace("pictures", "picture").replace("exemplars", "exemplar").replace("windows", "window")
    return Finding(name, LEAK, count, example, f"{count} {reason}")


def _inside(trials: pd.DataFrame, eeg: Array | None, corpus: Array | None) -> Finding:
    """Test trials whose first channel begins or ends like a stretch of the first channel of a window of the corpus.

    A trial that lies in a corpus of windows side by side has at least one of its ends inside a window, at whatever
    offset. Steps between samples are correlated: scale and offset, which normalising changes, do not count.
    """
    name = "test trial inside the corpus"
    if eeg is None or corpus is None:
        return Finding(name, UNKNOWN, 0, f"no {'EEG' if eeg is None else 'corpus'} is given")
    if min(eeg.shape[-1], corpus.shape[-1]) < SNIPPET:
        return Finding(name, UNKNOWN, 0, f"windows shorter than {SNIPPET} samples")
    test = np.flatnonzero(trials["part"] == "test")
    first = np.asarray(eeg[test, 0], np.float32)
    ends = np.diff(np.concatenate([first[:, :SNIPPET], first[:, -SNIPPET:]]), axis=1)
    size = np.linalg.norm(ends, axis=1, keepdims=True)
    ends = (ends / np.where(size > 0, size, np.inf)).T
    found = np.zeros(ends.shape[1], bool)
    for begin in range(0, len(corpus), CHUNK):
        steps = np.diff(np.asarray(corpus[begin : begin + CHUNK, 0], np.float32), axis=1)
        stretches = np.lib.stride_tricks.sliding_window_view(steps, SNIPPET - 1, axis=1).reshape(-1, SNIPPET - 1)
        norm = np.linalg.norm(stretches, axis=1, keepdims=True)
        found |= ((stretches / np.where(norm > 0, norm, np.inf)) @ ends).max(0) > SAME
    there = test[found.reshape(2, -1).any(0)]
    if not len(there):
        return Finding(name, CLEAR, 0, "")
    return Finding(name, LEAK, len(there), f"item {trials['item'][there[0]]}",
                   f"{len(there)} test trial{'s' * (len(there) > 1)} inside the pre-training corpus")


def _known(known: str, trials: pd.DataFrame) -> list[Finding]:
    """What the data set's own description says of this split."""
    if not known.startswith("yes: "):
        return []
    return [Finding("known of the data set", LEAK, int((trials["part"] == "test").sum()), "", known[len("yes: "):])]


def _left_out(trials: pd.DataFrame, columns: Sequence[str]) -> list[Finding]:
    """Test trials whose value of a column is trained on although the split is said to keep it out."""
    found = []
    train, test = (trials[trials["part"] == part] for part in ("train", "test"))
    for column in dict.fromkeys(columns):
        if column not in trials:
            raise BenchError(f"the trials have no column {column}, which the split is said to leave out; there are "
                             f"{', '.join(map(str, trials))}")
        name, shared = f"left-out {column} is trained on", test[test[column].isin(train[column])]
        found.append(Finding(name, LEAK, len(shared), f"item {shared['item'].iloc[0]}",
                             f"{len(shared)} test trial{'s' * (len(shared) > 1)} of a {column} that is said to be left "
                             "out and is trained on") if len(shared) else Finding(name, CLEAR, 0, ""))
    return found


def _unknown(trials: pd.DataFrame) -> set[str]:
    """Of block and position, what the data set does not say."""
    return {name for name in ("block", "position") if (trials[name] == -1).all()}


def _recording(trials: pd.DataFrame) -> Array:
    """Which recording [N] a trial stands in: `position` and `block` have a meaning only there."""
    return trials.groupby(["subject", "session"] if "session" in trials else ["subject"]).ngroup().to_numpy()


def _blocks(trials: pd.DataFrame) -> Array:
    """Which block [N] of which recording."""
    return trials.assign(recording=_recording(trials)).groupby(["recording", "block"]).ngroup().to_numpy()


def _told(trials: pd.DataFrame) -> list[Finding]:
    """How well block, time, session and subject alone tell the class of the test trials.

    Each is asked as a decoder would use it: the most frequent class among the training trials of the same block
    (session, subject), or among the NEIGHBOURS nearest in time; equal votes share the hit; without any such training
    trial, the most frequent class of all. p: labels of test trials permuted, as if the order had been drawn at random.
    Where whole blocks of one class are held out, the block is what was drawn, and is what is permuted.
    """
    train, test = ((trials["part"] == part).to_numpy() for part in ("train", "test"))
    label = trials["label"].to_numpy()
    prior = np.bincount(label[train], minlength=label.max() + 1)
    prior = (prior == prior.max()) / (prior == prior.max()).sum()
    block, subject = _blocks(trials), pd.factorize(trials["subject"])[0]
    groups = {"block": block} | ({"session": _recording(trials)} if "session" in trials else {}) | {"subject": subject}
    votes = {"block": _of_group(block, label, train, test), "time": _of_neighbours(trials, label, train, test)}
    votes |= {name: _of_group(group, label, train, test) for name, group in groups.items() if name not in votes}

    held_out = (pd.Series(label).groupby(block).transform("nunique") == 1) & ~pd.Series(train).groupby(
        block).transform("any")
    unit = np.where(held_out, -1 - block, np.arange(len(label)))[test]
    _, first, unit = np.unique(unit, return_index=True, return_inverse=True)
    labels = label[test][first]
    orders = math.lgamma(len(labels) + 1) - sum(math.lgamma(n + 1) for n in np.bincount(labels))
    rng = np.random.default_rng(0)
    passed = dict.fromkeys(votes, 0)
    shares = {name: vote.share(label[test], prior) for name, vote in votes.items()}
    for _ in range(PERMUTATIONS):
        drawn = rng.permutation(labels)[unit]
        for name, vote in votes.items():
            passed[name] += vote.share(drawn, prior) >= shares[name] - 1e-12

    chance, n, found = float(prior[label[test]].mean()), int(test.sum()), []
    for name, share in shares.items():
        title, p = f"the {name} tells the class", (1 + passed[name]) / (1 + PERMUTATIONS)
        if {"time": "position"}.get(name, name) in _unknown(trials):
            found.append(Finding(title, UNKNOWN, 0, f"the data set does not say the {name} of a trial"))
            continue
        numbers = f"{_percent(share)} against {_percent(chance)}"
        example = f"{numbers}, p = {p:.3f}, {n} test trials"
        if name in groups and len(np.unique(groups[name])) == 1:
            found.append(Finding(title, CLEAR, 0, f"there is one {name} only"))
        elif not votes[name].heard.any():
            found.append(Finding(title, CLEAR, 0, f"no test trial shares its {name} with training trials"))
        elif orders < math.log(1 / ALPHA):
            found.append(Finding(title, UNKNOWN, 0, f"{example}: too few to tell"))
        elif p <= ALPHA and share - chance >= GAIN * (1 - chance):
            found.append(Finding(title, LEAK, round(share * n), example, f"{title} ({numbers})"))
        else:
            found.append(Finding(title, CLEAR, round(share * n), example))
    return found


@dataclass(frozen=True, eq=False)
class _Votes:
    """What the training trials near each of n test trials vote for: `codes` = row * classes + label of each winner,
    sorted, and the `weight` of each, one over the number of winners of its row. heard [n]: whether anybody voted."""

    row: Array  # [n], rows may be shared
    codes: Array
    weight: Array
    heard: Array
    classes: int

    def share(self, label: Array, prior: Array) -> float:
        """The share of test trials [n] with these labels that the winners hit."""
        code = self.row * self.classes + label
        at = np.minimum(np.searchsorted(self.codes, code), len(self.codes) - 1)
        hit = np.where(self.codes[at] == code, self.weight[at], 0.0)
        return float(np.where(self.heard, hit, prior[label]).mean())


def _votes(row: Array, voters: Array, votes: Array, classes: int) -> _Votes:
    """`voters` [v]: for which row; `votes` [v]: for which label; `row` [n] of each test trial."""
    codes, count = np.unique(voters * classes + votes, return_counts=True)
    whose = pd.Series(codes // classes)
    most = pd.Series(count).groupby(whose).transform("max") == count
    codes = codes[most]
    weight = 1 / pd.Series(codes // classes).groupby(codes // classes).transform("size").to_numpy(float)
    return _Votes(row, codes, weight, np.isin(row, voters), classes)


def _of_group(group: Array, label: Array, train: Array, test: Array) -> _Votes:
    return _votes(group[test], group[train], label[train], label.max() + 1)


def _of_neighbours(trials: pd.DataFrame, label: Array, train: Array, test: Array) -> _Votes:
    """The nearest in the same recording; where that has no training trials, at the same time in all others."""
    recording, position = _recording(trials), trials["position"].to_numpy(float)
    row, voters, votes = np.arange(test.sum()), [], []
    asked = np.flatnonzero(test)
    for one in np.unique(recording[test]):
        own = np.flatnonzero(recording[asked] == one)
        known = np.flatnonzero(train & (recording == one))
        known = known if len(known) else np.flatnonzero(train)
        known = known[np.argsort(position[known], kind="stable")]
        at = np.searchsorted(position[known], position[asked[own]])
        near = at[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS)
        inside = (near >= 0) & (near < len(known))
        near = known[near.clip(0, len(known) - 1)]
        away = np.where(inside, np.abs(position[near] - position[asked[own], None]), np.inf)
        nearest = np.argsort(away, axis=1, kind="stable")[:, :NEIGHBOURS]
        counted = np.take_along_axis(inside, nearest, 1)
        voters.append(np.repeat(own, counted.sum(1)))
        votes.append(label[np.take_along_axis(near, nearest, 1)][counted])
    return _votes(row, np.concatenate(voters), np.concatenate(votes), label.max() + 1)


def _facts(trials: pd.DataFrame) -> list[Finding]:
    """What train and test share that is no leak by itself; whether it tells the class is measured by `_told`."""
    train, test = ((trials["part"] == part).to_numpy() for part in ("train", "test"))
    block, recording, label = _blocks(trials), _recording(trials), trials["label"].to_numpy()
    place = pd.Series(zip(recording, trials["position"], strict=True))
    before, after = (pd.Series(zip(recording, trials["position"] + step, strict=True)) for step in (-1, 1))
    trained = set(place[train])
    near = np.array([a in trained or b in trained for a, b in zip(before, after, strict=True)])
    kinds = pd.Series(label[train]).groupby(block[train]).agg(["nunique", "first"])
    pure = kinds[kinds["nunique"] == 1]["first"]
    alike = pd.Series(block).map(pure).to_numpy() == label
    shares = {
        "class alone in its block": (alike, "test trials whose block holds no other class's training trials"),
        "block in train and test": (np.isin(block, block[train]), "test trials"),
        "neighbour in time is trained on": (near, "test trials"),
        "session in train and test": (np.isin(recording, recording[train]), "test trials"),
        "subject in train and test": (trials["subject"].isin(trials["subject"][train]).to_numpy(),
                                      "test trials; usual, but says nothing about new people"),
    }
    found = []
    for name, (shared, said) in shares.items():
        if name.startswith("session") and "session" not in trials:
            found.append(Finding(name, UNKNOWN, 0, "no column session"))
            continue
        if any(word in name for word, what in (("block", "block"), ("time", "position")) if what in _unknown(trials)):
            found.append(Finding(name, UNKNOWN, 0, "the data set does not say"))
            continue
        rows = np.flatnonzero(shared & test)
        example = f"{said}; item {trials['item'][rows[0]]}" if len(rows) else ""
        found.append(Finding(name, FACT if len(rows) else CLEAR, len(rows), example))
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
