"""Builds a board from submissions: a table for each protocol, with intervals and ties, as a static HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
from markupsafe import Markup

from bench.errors import SOME_FAILED, BenchError, join_names
from bench.experiment.scale import HEADLINE, SECOND
from bench.files import replace_file, sha256, writing
from bench.metrics import DEFINITIONS
from bench.scoring import schema
from bench.setup.request import STORE
from bench.statistics import Interval, Pool, Verdict, verdicts
from bench.tables import plots
from bench.tables.captions import MUST_AGREE, disclaimer
from bench.tables.columns import ALPHA, NOTHING, counted, listed, metric_header, number_text, p_text, percent
from bench.tables.formats import Column
from bench.tables.model import Contrast, Row, Table
from bench.tables.report import charts, page
from bench.tables.report.answers import score_text
from bench.tables.report.charts import Chart
from bench.tables.report.page import Grid
from bench.tables.results import Results
from bench.tables.scores import RETRIEVED, RowKey, Scores, choose_headline
from bench.tables.submission import folder as files
from bench.tables.submission.folder import Submission
from bench.tables.submission.verify import verify

HEADLINES = SimpleNamespace(headline=(HEADLINE, RETRIEVED, "readout_accuracy"))  # the first that was recorded
BEST, TIE, BEHIND = "best", "not separable from the best", "worse than the best"
BESIDE = ("fid", "ssim", "retrieval_top1", "retrieval_top5")  # further columns, if recorded
NOT_THE_SYSTEM = ("pictures", "embedding", "training", "targets")  # fields of a Score that the protocol is without
SAMPLES, SCORING = "samples", "items and scoring"  # parts of a protocol beside MUST_AGREE
TITLES = {"world": "data", "config": "settings of the scale", "pretrain_seeds": "pre-training seeds",
          "key": "parameters of the metric", SCORING: "items and scoring (digest)"}


@dataclass(frozen=True)
class Protocol:
    """What rows must share to stand in one table: (name, value) of each part, with the headline metric."""

    headline: str
    parts: tuple[tuple[str, str], ...]

    @property
    def values(self) -> dict[str, str]:
        return dict(self.parts)


@dataclass(frozen=True)
class Place:
    """A submission on a board. behind: the verdict on best - this one; None for the best, or if `why` says why."""

    submission: Submission
    score: Interval
    null: Interval | None
    gain: Interval | None
    word: str
    behind: Verdict | None


@dataclass(frozen=True, eq=False)
class Board:
    """The table of one protocol, best submission first."""

    protocol: Protocol
    title: str
    finding: str
    score: str
    places: tuple[Place, ...]
    grid: Grid
    forest: Chart
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def write_board(folders: Sequence[Path], out: Path, store: Path = STORE) -> list[Path]:
    """Verifies all submissions and writes index.html and leaderboard.csv into a folder; returns their paths.

    Raises BenchError (exit 1) if one of them does not verify, so that no board is made without it, and for two of one
    name in a table.
    """
    submissions = []
    for folder in folders:
        checked = verify(folder, store)
        if checked.problems or checked.submission is None:
            more = f" (and {len(checked.problems) - 1} more: bench verify {folder})" * (len(checked.problems) > 1)
            raise BenchError(f"{folder} does not verify: {checked.problems[0]}{more}; no board is written",
                             SOME_FAILED)
        submissions.append(checked.submission)
    boards = make_boards(submissions)
    html = page.template("board.html.j2").render(
        boards=boards, apart=list(_apart(boards)), provenance=list(_provenance(submissions)),
        figures={board.forest.name: Markup(board.forest.svg) for board in boards}).encode()
    contents = {"index.html": html, "leaderboard.csv": schema.csv_bytes(_frame(boards))}
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            replace_file(out / name, data)
    return [out / name for name in contents]


def make_boards(submissions: Sequence[Submission]) -> list[Board]:
    """Groups verified submissions by protocol, and ranks each group. Raises BenchError for two of one name in it."""
    groups: dict[Protocol, list[Submission]] = {}
    for submission in submissions:
        groups.setdefault(protocol_of(submission), []).append(submission)
    boards = []
    for number, protocol in enumerate(sorted(groups, key=lambda each: (each.parts, each.headline)), 1):
        names = [each.name for each in groups[protocol]]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise BenchError(f"two submissions of one protocol are called {twice!r}; export one of them with another "
                             "--name")
        boards.append(_board(number, protocol, groups[protocol]))
    return boards


def protocol_of(submission: Submission) -> Protocol:
    """Returns what other submissions must share to stand in one table: the columns of MUST_AGREE, items and scoring."""
    mine = submission.rows[(submission.rows["variant"] == submission.variant)
                           & (submission.rows["items"] == submission.tested)]
    headline = choose_headline(mine, HEADLINES)
    scored = mine[mine["metric"] == headline]
    if scored.empty:
        raise BenchError(f"{submission.folder}: has none of the metrics that a board ranks by: "
                         f"{', '.join(HEADLINES.headline)}", SOME_FAILED)
    items = submission.items[submission.items["variant"] == submission.variant]
    shown = items[["item", "subject", "picture", *(["label"] if "label" in items else [])]].drop_duplicates()
    scoring = {files.canonical_json(_scoring(key.document)) for key in submission.keys
               if key.variant == submission.variant and key.items == submission.tested}
    if submission.kind == files.CHALLENGE:
        scoring = {files.canonical_json(submission.protocol)}
    identity = [sorted(scoring), schema.csv_bytes(shown.sort_values("item")).decode()]
    parts = {column: "; ".join(sorted(set(map(str, scored[column])))) for column in MUST_AGREE}
    parts[SAMPLES] = str(items["sample"].nunique())
    parts[SCORING] = files.hash_text(files.canonical_json(identity))[:12]
    return Protocol(headline, tuple(parts.items()))


def _scoring(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a signed stage that states items and scoring; the system is left out."""
    kept = {name: value for name, value in document.items() if name not in NOT_THE_SYSTEM}
    targets = document.get("targets", {})
    return kept | {"targets": {name: targets[name] for name in ("clip", "trials") if name in targets},
                   "items": {**document["items"], "eeg": ""}}


def _board(number: int, protocol: Protocol, group: Sequence[Submission]) -> Board:
    scores = Scores(_merge(group), protocol.headline)
    keys = {each.name: (each.name, each.tested) for each in group}
    intervals = {name: scores.interval(key) for name, key in keys.items()}
    ranked = sorted(group, key=lambda each: (-_mean(intervals[each.name]), each.name))
    best = ranked[0].name
    judged, reasons = _compare(scores, keys, best)
    places = tuple(_place(each, scores, keys, intervals, best, judged, reasons) for each in ranked)
    header = metric_header(scores, protocol.headline)
    title = (f"Board {number}: {header.removesuffix(', %')}, scale {protocol.values['scale']} "
             f"({protocol.values['world'] or 'own images'})")
    return Board(protocol, title, _finding(places, header), score_text(scores), places,
                 _grid(number, places, scores, keys, header), _forest(number, places, header, best),
                 tuple(_notes(places, scores)), tuple(_facts(protocol, places, scores)))


def _merge(group: Sequence[Submission]) -> Results:
    """Returns the results of several submissions as those of one table, under their names."""
    def renamed(each: Submission, frame: pd.DataFrame) -> pd.DataFrame:
        is_own = (frame["variant"] == each.variant) & (frame["items"] == each.tested)
        return frame.assign(variant=is_own.map({True: each.name, False: f"{each.name} / EEG shuffled"}))

    return Results(*(pd.concat([renamed(each, frame) for each, frame in frames], ignore_index=True) for frames in (
        [(each, each.rows) for each in group], [(each, each.items) for each in group])))


def _mean(interval: Interval | None) -> float:
    assert interval is not None  # a verified submission has items
    return interval.mean


def _compare(scores: Scores, keys: Mapping[str, RowKey], best: str) -> tuple[dict[str, Verdict], dict[str, str]]:
    """Compares the best row with each other row, adjusted by Holm; also returns why a row has no verdict."""
    pools = scores.pools(keys.values())
    pairs, reasons, pooled = {}, {}, dict[str, tuple[Pool, int, int]]()
    for name, key in keys.items():
        if name == best:
            continue
        if (pair := scores.paired(keys[best], key)) is None:
            reasons[name] = "not compared: no seed in common with the best"
            continue
        pairs[name] = pair
        first, second = pools.get(keys[best]), pools.get(key)
        if first and second and first[0] is second[0]:
            pooled[name] = first[0], first[1], second[1]
    return verdicts(pairs, ALPHA, (), pooled), reasons


def _place(submission: Submission, scores: Scores, keys: Mapping[str, RowKey], intervals: Mapping[str, Interval | None],
           best: str, judged: Mapping[str, Verdict], reasons: Mapping[str, str]) -> Place:
    name, score = submission.name, intervals[submission.name]
    assert score is not None
    verdict = judged.get(name)
    words = {"better": BEHIND, "not resolved": TIE, "worse": TIE}
    word = words.get(verdict.word, verdict.word) if verdict else BEST if name == best else reasons[name]
    null = scores.own_null(keys[name])
    return Place(submission, score, scores.interval(null) if null else None, scores.gain(keys[name]), word, verdict)


def _finding(places: Sequence[Place], header: str) -> str:
    best, ties = places[0], [place.submission.name for place in places if place.word == TIE]
    text = f"{best.submission.name} has the highest score, {percent(best.score)} ({header} [95 % interval])."
    if len(places) == 1:
        return f"{text} It is the only submission of this protocol."
    if ties:
        return f"{text} {counted(len(ties), 'submission')} cannot be separated from it: {listed(ties)}."
    return f"{text} " + ("Every other submission is worse (resolved)." if all(
        place.word == BEHIND for place in places[1:]) else "No other submission is shown to be equal or better.")


def _grid(number: int, places: Sequence[Place], scores: Scores, keys: Mapping[str, RowKey], header: str) -> Grid:
    second = SECOND.get(scores.headline, "")
    beside = [metric for metric in (second, *BESIDE) if metric in scores.keys and metric != scores.headline]

    def column(title: str, cells: Iterable[str], left: bool = False) -> Column:
        return Column(title, tuple(cells), left)

    def means(metric: str) -> Iterator[str]:
        factor, digits = (100, 1) if DEFINITIONS[metric].unit == "share" else (1, 2)
        for place in places:
            yield number_text(scores.means(keys[place.submission.name]).get(metric), digits, factor)

    def interval(value: Interval | None, within: bool) -> str:
        return percent(value, within) if value else NOTHING

    columns = [
        column("submission", (place.submission.name for place in places), True),
        column(f"{header} [95 % CI]", (interval(place.score, True) for place in places)),
        column("verdict", (place.word for place in places), True),
        column("behind the best, points [95 % CI, simultaneous]",
               (interval(place.behind.interval, False) if place.behind else NOTHING for place in places)),
        column("p (Holm)", (p_text(place.behind.p) if place.behind else NOTHING for place in places)),
        column("null: shuffled EEG [95 % CI]", (interval(place.null, True) for place in places)),
        column("gain over null, points [95 % CI]", (interval(place.gain, False) for place in places)),
        *(column(metric_header(scores, metric), means(metric)) for metric in beside),
        column("seeds", (listed(scores.seeds(keys[place.submission.name])) for place in places)),
        column("parameters of the encoder",
               (number_text(scores.params(keys[place.submission.name]), 0, form=",") for place in places)),
        column("leak", (scores.leak(keys[place.submission.name]) or "no" for place in places), True)]
    kept = [each for each in columns if set(each.cells) - {NOTHING}]
    return page.make_grid(f"board-{number}", "Submissions", kept, {"seeds"})


def _forest(number: int, places: Sequence[Place], header: str, best: str) -> Chart:
    """Returns the chart of a board: scores, and differences from the best."""
    nothing = (NOTHING,) * 4
    entries = tuple(Row(place.submission.name, place.submission.name, nothing, None, (), place.score, {}, place.gain,
                        None, None, None, False, None) for place in places)
    contrasts = tuple(Contrast((best, place.submission.name), f"{best} - {place.submission.name}",
                               place.behind.interval.mean, place.behind, place.word, {}, None)
                      for place in places if place.behind)
    table = Table(header, entries, contrasts, (), (header, ""), False)
    about = "The score of each submission with its 95 % interval."
    if contrasts:
        about += (" Below: the best minus another; right of 0 the best is better. A hollow grey mark is not resolved: "
                  "a tie.")
    return charts.chart(f"forest-{number}", "Scores" + ", and differences from the best" * bool(contrasts), about,
                        partial(plots.draw_forest, table))


def _notes(places: Sequence[Place], scores: Scores) -> Iterator[str]:
    if any(place.behind for place in places):
        yield (f"Verdicts compare each submission with the best on the same items and seeds, at {ALPHA:g}: p is "
               f"adjusted by Holm over {counted(sum(place.behind is not None for place in places), 'comparison')}, "
               "intervals are simultaneous. Not separable does not mean equal. The best is chosen by these same items, "
               "which favours it.")
    seeds = {len(scores.seeds((place.submission.name, place.submission.tested))) for place in places}
    if 1 in seeds:
        yield "With one seed an interval covers the choice of test items only, not training."
    if without := [place.submission.name for place in places if not place.null]:
        yield f"Without the score on shuffled EEG (bench run --nulls each): {listed(without)}."
    if leaky := [place.submission.name for place in places
                 if scores.leak((place.submission.name, place.submission.tested))]:
        yield f"The leak audit calls these submissions leaky, so their scores may not come from decoding: " \
              f"{listed(leaky)}."
    if text := disclaimer(scores.rows["scale"].iloc[0]).strip():
        yield text.replace("`", "")


def _facts(protocol: Protocol, places: Sequence[Place], scores: Scores) -> Iterator[tuple[str, str]]:
    yield "items", f"{places[0].score.items} images"
    for name, value in protocol.parts:
        yield TITLES.get(name, name), value or "none"


def _apart(boards: Sequence[Board]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields each part of the protocols that differs between boards, with its value in each."""
    names = ["metric", *(name for name, _ in boards[0].protocol.parts)] if len(boards) > 1 else []
    for name in names:
        values = tuple(board.protocol.headline if name == "metric" else board.protocol.values[name] for board in boards)
        if len(set(values)) > 1:
            yield TITLES.get(name, name), values


def _provenance(submissions: Sequence[Submission]) -> Iterator[tuple[str, ...]]:
    """Yields name, variant, kind, the hash of SHA256SUMS, and the keys of each submission."""
    for each in submissions:
        stages = sorted(set(each.rows["stage"]) - {""})
        yield (each.name, each.variant, each.kind, sha256(each.folder / files.SUMS)[:16],
               join_names(stages, len(stages)) or NOTHING)


def _frame(boards: Sequence[Board]) -> pd.DataFrame:
    """Returns the boards in full precision: shares of 1, a line for each submission."""
    lines = []
    for number, board in enumerate(boards, 1):
        for place in board.places:
            behind = place.behind
            lines.append({"board": number, "scale": board.protocol.values["scale"],
                          "world": board.protocol.values["world"], "metric": board.protocol.headline,
                          "submission": place.submission.name, "score": place.score.mean, "low": place.score.low,
                          "high": place.score.high, "verdict": place.word,
                          "behind": behind.interval.mean if behind else "",
                          "behind_low": behind.interval.low if behind else "",
                          "behind_high": behind.interval.high if behind else "", "p": behind.p if behind else "",
                          "gain": place.gain.mean if place.gain else "", "seeds": place.score.seeds,
                          "items": place.score.items})
    return pd.DataFrame(lines)
