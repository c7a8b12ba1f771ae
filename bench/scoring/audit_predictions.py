"""How well block, time, session and subject alone predict the class of a test trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.scoring.audit_report import CLEAR, LEAK, UNKNOWN, Finding, percent
from bench.scoring.audit_table import (
    Array,
    describe_unknown,
    find_known,
    find_unknown,
    number_blocks,
    number_recordings,
)

PERMUTATIONS, ALPHA = 1000, 0.001  # block, time, session or subject predicts the class if no permutation does as well
GAIN = 0.02  # and if it gains at least this share of the way from chance to certainty
NEIGHBOURS = 5  # training trials, nearest in time, that vote


def predict_classes(trials: pd.DataFrame) -> list[Finding]:
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
    block, subject = number_blocks(trials), pd.factorize(trials["subject"])[0]
    sessions = {"session": number_recordings(trials)} if "session" in trials else {}
    groups = {"block": block} | sessions | {"subject": subject}
    in_block = find_known(trials, "block")
    votes = {"block": _vote_in_group(block, label, train & in_block, test),
             "time": _vote_in_time(trials, label, train, test)}
    votes |= {name: _vote_in_group(group, label, train, test) for name, group in groups.items() if name not in votes}

    held_out = in_block & (pd.Series(label).groupby(block).transform("nunique") == 1) & ~pd.Series(train).groupby(
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
        numbers = f"{percent(share)} against {percent(chance)}"
        severity, count, example, reason = CLEAR, 0, f"{numbers}, p = {p:.3f}, {n} test trials", ""
        if {"time": "position"}.get(name, name) in find_unknown(trials):
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
        if severity != UNKNOWN:
            example += describe_unknown(trials, {"time": "position"}.get(name, name))
        findings.append(Finding(title, severity, count, example, reason))
    if "session" not in trials:
        findings.insert(2, Finding("the session tells the class", UNKNOWN, example="no column session"))
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
        if not len(self.codes):
            return float(prior[label].mean())
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
    recording, position = number_recordings(trials), trials["position"].to_numpy(float)
    row, voters, votes = np.arange(test.sum()), [np.empty(0, int)], [np.empty(0, int)]
    tested, placed = np.flatnonzero(test), find_known(trials, "position")
    for number in np.unique(recording[test]):
        rows = np.flatnonzero((recording[tested] == number) & placed[tested])
        known = np.flatnonzero(train & placed & (recording == number))
        known = known if len(known) else np.flatnonzero(train & placed)
        if not len(known):
            continue
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
