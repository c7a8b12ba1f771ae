"""Tables from a results CSV: rows beside the paper's numbers, verdicts, and a caption that says what they rest on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import ablation as ablations
from bench import results
from bench.ablation import HEADLINE, Published
from bench.errors import BenchError
from bench.formats import Column, Printed
from bench.key import digest
from bench.metrics import DEFINITIONS
from bench.plan import beside
from bench.statistics import (
    Interval,
    Null,
    Verdict,
    crossed_interval,
    holm,
    kendall_interval,
    mcnemar,
    paired_contrast,
    permutation_null,
    verdicts,
)
from bench.variant import innermost

PUBLISHED = Path(__file__).parent.parent / "results" / "published"
NULL = ("Full", "shuffled")
NULL_NAME, CEILING_NAME = "Full, shuffled EEG (null)", "class name as text (ceiling)"
CEILING_PUBLISHED = "label as input"  # Sec. 4.4
PAPER = "paper, 50-way, ImageNet-EEG, %"
NOT_RUN, NOTHING = "not run", "-"
RETRIEVED = "retrieval_top1"
NULLS = {"top1_label": ("judged", "label"), RETRIEVED: ("retrieved", "picture")}  # what was found, what was right
HEADERS = {  # of columns that an ablation asks for, and what stands where its key says among how many
    "retrieval_top1": "top-1 of {}", "retrieval_top5": "top-5 of {}", "retrieval_2way": "2-way",
    "retrieval_4way": "4-way", "retrieval_10way": "10-way", "pixcorr": "PixCorr", "ssim": "SSIM",
    "two_way_alexnet2": "two-way, AlexNet(2)", "two_way_alexnet5": "two-way, AlexNet(5)",
    "two_way_inception": "two-way, Inception", "two_way_clip": "two-way, CLIP",
    "two_way_clip_tiny": "two-way, tiny CLIP", "two_way_judge_layer2": "two-way, judge's layer 2",
    "two_way_judge_layer4": "two-way, judge's layer 4", "two_way_judge_features": "two-way, judge's features",
    "correlation_swav": "SwAV distance", "correlation_efficientnet": "EffNet distance",
    "correlation_judge": "judge's correlation distance",
}
MASKED = ("masked_mse", "mean_mse", "interpolation_mse", "wiener_mse")
ALPHA = 0.05
PERMUTATIONS = 1000
ROWS_FOR_TAU = 4


@dataclass(frozen=True)
class Row:
    """A variant or a reference. `settings`: pre-training, CLIP, tuned, encoder. Accuracies are shares of 1.

    top1: the headline metric, top-1 accuracy unless the ablation names another; without it the row was not run, or
    `failed`. means: of each metric, over seeds. gain: top1 less that of the shuffled EEG, paired. way: the gain as a
    share of the ceiling's. null: permuted labels, for a row that must not know the stimulus; exceeds: Holm's p that it
    does. `paper` is in per cent, None where the paper has no such row. seconds: of training and of drawing, None where
    nothing is drawn.
    """

    name: str
    settings: tuple[str, str, str, str]
    params: int | None
    seeds: tuple[int, ...]
    top1: Interval | None
    means: Mapping[str, float]
    gain: Interval | None
    way: float | None
    null: Null | None
    exceeds: float | None
    failed: bool
    paper: float | None
    seconds: tuple[float, float | None] | None = None


@dataclass(frozen=True)
class Contrast:
    """Two rows' difference in the headline, a share of 1. Without `verdict`, `said` says why; mcnemar: exact p of
    sample 0 by seed, given these models; the paper's difference is in points."""

    name: str
    mean: float | None
    verdict: Verdict | None
    said: str
    mcnemar: Mapping[int, float]
    paper: float | None


@dataclass(frozen=True)
class Table:
    """A table with all that must be said about it. `labels`: headers of the headline, and of n-way accuracy where that
    belongs to it. columns: what the ablation asks for beside them, metrics and headers."""

    title: str
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...]
    caption: tuple[str, ...]
    labels: tuple[str, str]
    has_paper: bool
    costs: bool = False
    literature: pd.DataFrame | None = None
    headline: str = HEADLINE
    columns: tuple[tuple[str, str], ...] = ()

    def printed(self) -> Printed:
        """As it is printed in any format."""
        blocks = [_row_columns(self)] + ([_contrast_columns(self)] if self.contrasts else [])
        if self.literature is not None:
            blocks.append(_literature_columns(self.literature))
        return Printed(self.title, tuple(blocks), self.caption, _frame(self))

    def render(self, format: str = "text") -> str:
        """"text" for a terminal, "md", "latex", "html", or "csv" for programs. Raises BenchError for another."""
        return self.printed().render(format)


def named(name: str, folder: Path, controls: bool = False, subjects: Sequence[int] = ()) -> Printed:
    """What `bench table NAME` prints from the results in a folder: an ablation by its name or file
    (`ablation.asked`), "table1", or one CSV by its path. Raises BenchError for what does not exist."""
    if name.endswith(".csv"):
        return external(Path(name))
    if name == "table1":
        return table1(folder)
    chosen = ablations.asked(name, subjects, controls)
    return table(folder, chosen.name, chosen).printed()


def table(folder: Path, name: str, ablation: Any, published: Path = PUBLISHED) -> Table:
    """The table of an ablation from the results in a folder; rows without results say "not run".

    Accuracies are against the label, or the headline that the ablation names. Intervals of rows are 95 %, over test
    pictures crossed with seeds, after samples (and subjects) were averaged within a picture; those of contrasts are
    simultaneous. Errors as `results.read`.
    """
    paper, source = _paper(ablation.published, published)
    recorded = results.read(folder, name)
    scores = _Scores(recorded, _headline(recorded, getattr(ablation, "headline", (HEADLINE,))))
    costs, others = getattr(ablation, "costs", False), beside(ablation.variants)
    seconds = _seconds(folder, name) if costs else {}

    def row(title: str, whose: Whose, settings: tuple[str, str, str, str], known: str, free: bool = False) -> Row:
        gain = None if whose == NULL else scores.gain(whose)
        floor = NULL if NULL in scores.pictures else scores.shuffled(whose)
        way = scores.contrast(scores.ceiling, floor) if gain else None
        null = scores.null(whose) if free else None
        return Row(title, settings, scores.params(whose), scores.seeds(whose), scores.interval(whose),
                   scores.means(whose), gain, gain.mean / way.mean if gain and way and way.mean else None, null,
                   null.p if null else None, scores.failed(whose), paper.get(known),
                   seconds.get(whose) if whose else None)

    nothing = (NOTHING,) * 4
    rows = [row(v.name, _whose(v), _settings(v), v.name, getattr(v, "eeg_free", False)) for v in ablation.variants]
    rows += [row(NULL_NAME, NULL, nothing, "")] if others.null else []
    rows += [row(CEILING_NAME, scores.ceiling, nothing, CEILING_PUBLISHED)] if others.ceiling else []
    rows = _adjusted(rows)
    labels = (f"top-1 of {scores.key('top1_label').removesuffix(' classes')}, %",
              f"{scores.key('nway_label').replace(' of ', '-way of ')}, %")
    if scores.headline != HEADLINE:
        labels = (_header(scores, scores.headline), "")
    columns = tuple((metric, _header(scores, metric)) for metric in getattr(ablation, "metrics", ()))
    contrasts = _contrasts(scores, ablation, paper)
    caption = tuple(_caption(scores, rows, contrasts, ablation, name, paper, source))
    return Table(ablation.title, tuple(rows), tuple(contrasts), caption, labels, bool(paper), costs,
                 _literature(getattr(ablation, "literature", {}), published), scores.headline, columns)


def _headline(recorded: results.Results, asked: Sequence[str]) -> str:
    """The first of those that any row has."""
    there = set(recorded.rows["metric"])
    return next((metric for metric in asked if metric in there), asked[0])


def _header(scores: _Scores, metric: str) -> str:
    """A metric's, with its unit."""
    of = scores.key(metric).partition(" of ")[2].removesuffix(" pictures")
    header, unit = HEADERS.get(metric, DEFINITIONS[metric].title).format(of), DEFINITIONS[metric].unit
    return f"{header}, {unit.replace('share', '%')}" if unit else header


def _seconds(folder: Path, name: str) -> dict[Whose, tuple[float, float | None]]:
    """Of each row the seconds of its trainings and of drawing its pictures, means over seeds, as last noted."""
    runs = results.runs(folder, name)
    runs = runs[runs["training_s"] != ""].replace({"sampling_s": {"": np.nan}})
    last = runs.groupby(["variant", "items", "seed"])[["training_s", "sampling_s"]].last().astype(float)
    means = last.groupby(level=["variant", "items"]).mean().reset_index()
    return {(variant, items): (training, None if np.isnan(sampling) else sampling)
            for variant, items, training, sampling in means.itertuples(index=False, name=None)}


def _literature(names: Mapping[str, Sequence[Published]], folder: Path) -> pd.DataFrame | None:
    """The published numbers of the systems: columns here, row, metric, value, unit, dataset, read_in, paper, place."""
    if not names:
        return None
    every = pd.concat([pd.read_csv(path, dtype=str) for path in sorted(folder.glob("*.csv"))])
    both = pd.Series(zip(every["row"], every["dataset"], strict=True), every.index)
    found = [every[every["row"].isin(those) | both.isin(those)].assign(here=here) for here, those in names.items()]
    return pd.concat(found).fillna("").reset_index(drop=True)


def _literature_columns(rows: pd.DataFrame) -> tuple[Column, ...]:
    def value(one: Any) -> str:
        return f"{one.value} {one.unit}".strip()

    return (Column("system", tuple(rows["here"]), left=True),
            Column("in the literature", tuple(rows["row"]), left=True),
            Column("metric", tuple(rows["metric"]), left=True),
            Column("value", tuple(value(one) for one in rows.itertuples())),
            Column("on", tuple(rows["dataset"]), 1, left=True),
            Column("read in", tuple(one or "paper" for one in rows["read_in"]), 2, left=True),
            Column("printed by", tuple(f"{one.paper}, {one.place}" for one in rows.itertuples()), 3, left=True),
            Column("contradicts", tuple(one or NOTHING for one in rows["contradicts"]), 4, left=True))


def table1(folder: Path, published: Path = PUBLISHED) -> Printed:
    """Table 1 of DreamDiffusion beside Full's numbers, from table2 or else the first ablation in the folder that holds
    Full. A stand-in for a metric stands under a header of its own. Errors as `results.read`."""
    others = sorted(path.stem for path in folder.glob("*.sha256") if path.stem != "table2")
    for name in ("table2", *others):
        if f"{name}.sha256" in {path.name for path in folder.glob("*.sha256")}:
            scores = _Scores(results.read(folder, name))
            if scores.means(("Full", "real")):
                break
    else:
        raise BenchError(f"no results of Full in {folder}; make them with: bench run --ablation table2 --variants Full")
    path = published / "dreamdiffusion_table1.csv"
    if not path.is_file():
        raise BenchError(f"{path} is not there: it holds the numbers that the paper prints; restore it")
    paper = pd.read_csv(path, dtype={"row": str})
    scale = "; ".join(scores.values("scale"))
    ours = f"Full, scale {scale}"
    names = [*dict.fromkeys(paper["row"])]
    printed = {(row, metric): value for row, metric, value in
               paper[["row", "metric", "value"]].itertuples(index=False, name=None)}
    measured = scores.measured(("Full", "real"))
    columns = [Column("row", (*(f"{name}, as printed" for name in names), ours), left=True)]
    shown = []
    for header, metric, digits, drop in (
            ("FID", "fid", 2, 0), ("IS", "is", 2, 0), ("PSNR, dB", "psnr", 1, 3), ("SSIM", "ssim", 3, 0),
            ("SSIM, the released code's", "ssim_released", 3, 1), ("LPIPS", "lpips", 3, 0),
            ("judge distance, no LPIPS", "judge_distance", 3, 2)):
        if metric in measured or any((name, metric) in printed for name in names):
            published_cells = [_number(printed.get((name, metric)), digits) for name in names]
            own = _measured(measured[metric], digits) if metric in measured else f"not measured at {scale}"
            columns.append(Column(header, (*published_cells, own), drop))
            shown.append(metric)
    records = [{"row": name, "metric": metric, "value": value, "scale": "as printed", "seeds": ""}
               for (name, metric), value in printed.items()]
    records += [{"row": "Full", "metric": metric, "value": one.mean, "scale": scale, "seeds": one.seeds}
                for metric, one in measured.items()]
    keys = ", ".join(f"{metric}: {one.key}" for metric, one in measured.items()
                     if one.key and metric in shown)
    caption = [
        f"Full's row: {name}, scale {scale}, world {'; '.join(scores.values('world'))}, seeds "
        f"{_listed(scores.seeds(('Full', 'real')))}; {keys}. The paper's rows were measured on other pictures "
        "with other networks: no number of one compares with one of the other.",
        "by judge, or another name: with that network's features, which the literature does not use. [ ] is a 95 % "
        "interval over test pictures crossed with seeds; SD: over seeds. One seed says nothing about training.",
        *_provenance(scores), *dict.fromkeys(f"{row}: {note}." for row, note in
                                             paper[["row", "note"]].dropna().itertuples(index=False, name=None)),
        f"The paper's rows: {paper['paper'].iloc[0]}, Table 1."]
    return Printed("Table 1 of DreamDiffusion, and Full here", (tuple(columns),), tuple(caption), pd.DataFrame(records))


def external(path: Path) -> Printed:
    """The metrics in one CSV of the results' schema that lies anywhere, such as one of `bench score`. Errors as
    `results.read_csv`."""
    every = results.read_csv(path)
    rows = every[every["metric"] != results.FAILED]
    columns = [Column(name, tuple(rows[name].astype(str)), left=True) for name in results.GROUP
               if rows[name].nunique() > 1]
    columns += [Column("metric", tuple(rows["metric"]), left=True), Column("of", tuple(rows["key"]), 2, left=True),
                Column("value", tuple(f"{value:.6g}" for value in rows["value"])),
                Column("N", tuple(rows["n"].astype(str)), 1),
                Column("extractor", tuple(name or NOTHING for name in rows["extractor"]), 3, left=True),
                Column("compares with the literature",
                       tuple("yes" if flag else "no" for flag in rows["comparable"]), 4, left=True)]

    def said(column: str) -> str:
        return "; ".join(sorted({str(value) for value in rows[column]} - {""})) or "not said"

    caption = [f"Scale {said('scale')}. Judge {said('judge')}. Numerics {said('numerics')}. Leak audit: "
               f"{said('leaky')}. Versions: {said('versions')}."]
    if not len(rows):
        caption = ["No number stands there."]
    failed = [f"{line.variant}, seed {line.seed}: {line.failed}" for line in
              every[every["metric"] == results.FAILED].itertuples()]
    return Printed(f"Scores in {path.name}", (tuple(columns),),
                   (*caption, *(f"Failed: {line}." for line in failed)),
                   every.astype(object).where(every.notna(), None))


@dataclass(frozen=True)
class Difference:
    """A table in a document that is not the one its CSV gives: the first line that differs. line: counted from 1."""

    path: Path
    line: int
    name: str
    found: str
    expected: str

    def __str__(self) -> str:
        return (f"{self.path}, line {self.line}: the table {self.name} is not the one its CSV gives: found "
                f"{self.found!r}, expected {self.expected!r}; bench table --check {self.path} --write puts it right")


def check(path: Path, results_root: Path, write: bool = False) -> list[Difference]:
    """What differs between the tables in a Markdown file and those that their CSVs give; `write` replaces them there.

    A table stands between a line `<!-- bench table NAME [--reference] [--scale SCALE] [--with-controls] -->` and a line
    `<!-- end -->`; what lies in a fence (```) is not looked at. Raises BenchError for a file without a table, for a
    mark that is not understood and for a table that cannot be made.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise BenchError(f"no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read as text: {' '.join(str(error).split())}") from error
    kept, differences, last = list[str](), list[Difference](), 0
    for first, end, words in _marked(path, lines):
        name, folder, controls = _mark(path, first, words, results_root)
        try:
            expected = ["", *named(name, folder, controls).render("md").split("\n"), ""]
        except BenchError as error:
            raise BenchError(f"{path}, line {first + 1}: {error}", error.exit_code) from error
        found = lines[first + 1:end]
        if found != expected:
            at = next((i for i, line in enumerate(expected) if found[i:i + 1] != [line]), len(expected))
            differences.append(Difference(path, first + 2 + at, name, (found[at:] or ["<!-- end -->"])[0],
                                          (expected[at:] or ["<!-- end -->"])[0]))
        kept += [*lines[last:first + 1], *expected]
        last = end
    if write and differences:
        with results.writing(path):
            results.replace_file(path, "\n".join([*kept, *lines[last:]]).encode())
    return differences


def _marked(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(row of the mark, row of its end, what the mark says) of each table, rows counted from 0."""
    fenced, start, words, some = False, None, "", False
    for row, line in enumerate(lines):
        if line.startswith("```"):
            fenced = not fenced
        mark = None if fenced else re.fullmatch(r"<!--\s*bench table\b(.*?)-->\s*", line)
        if mark and (start is not None or not mark[1].strip()):
            raise BenchError(f"{path}, line {row + 1}: a mark must name a table, and end with <!-- end --> before the "
                             "next begins")
        if mark:
            start, words, some = row, mark[1], True
        elif start is not None and not fenced and re.fullmatch(r"<!--\s*end\s*-->\s*", line):
            yield start, row, words
            start = None
    if start is not None:
        raise BenchError(f"{path}, line {start + 1}: <!-- end --> is missing below this table")
    if not some:
        raise BenchError(f"{path}: no table is marked there, such as: <!-- bench table table2 --reference --> and, "
                         "below the table, <!-- end -->")


def _mark(path: Path, row: int, words: str, root: Path) -> tuple[str, Path, bool]:
    """The table's name, the folder of its results, and whether the controls stand there."""
    name, reference, scale, controls = "", False, "tiny", False
    try:
        parts = iter(shlex.split(words))
    except ValueError as error:
        raise BenchError(f"{path}, line {row + 1}: {words.strip()!r} is not understood: {error}") from error
    for part in parts:
        if part == "--reference":
            reference = True
        elif part == "--scale":
            scale = next(parts, part)
        elif part == "--with-controls":
            controls = True
        elif part.startswith("-") or name:
            raise BenchError(f"{path}, line {row + 1}: {part!r} is not understood; a mark holds a table's name, "
                             "--reference, --scale SCALE and --with-controls")
        else:
            name = part
    return name, root / ("reference" if reference else "") / scale, controls


Whose = Any  # (variant, items), or None for what was not run


def _whose(spec: Any) -> Whose:
    return spec.name, getattr(spec, "eeg", "real")


@dataclass(frozen=True)
class _Measured:
    """A metric's mean over seeds: its interval if it is one of pictures, else `sd` over seeds."""

    mean: float
    interval: Interval | None
    sd: float | None
    seeds: int
    key: str
    by: str  # the extractor, "" where the literature uses it or none is needed


class _Scores:
    """What is recorded, by (variant, items)."""

    def __init__(self, recorded: results.Results, headline: str = HEADLINE):
        self.headline = headline
        self.failures = recorded.rows[recorded.rows["metric"] == results.FAILED]
        self.rows, self.items = recorded.rows[recorded.rows["metric"] != results.FAILED], recorded.items
        self.scored = self.rows[self.rows["metric"] == headline]
        self.at = dict(iter(self.rows.groupby(["variant", "items"])))
        self.of: dict[Any, pd.DataFrame] = {}
        self.pictures: dict[Any, pd.DataFrame] = {}
        self.labels: dict[Any, np.ndarray] = {}
        self.first: dict[Any, pd.DataFrame] = {}
        self.found: dict[Any, dict[str, float]] = {}
        if len(self.items):
            self.of = dict(iter(self.items.groupby(["variant", "items"])))
            for whose, frame in self.of.items():
                if headline not in frame or frame[headline].isna().all():
                    continue
                self.pictures[whose] = self._by_picture(frame, headline)
                seen = np.unique(frame["picture"].to_numpy(), return_index=True)[1]
                self.labels[whose] = frame["label"].fillna(-1).to_numpy()[seen] if "label" in frame else seen * 0
        ceilings = self.scored.loc[self.scored["items"] == "captions", "variant"]
        self.ceiling = (ceilings.iloc[0], "captions") if len(ceilings) else None
        self.keys = {metric: each["key"].value_counts(sort=True).index[0]
                     for metric, each in self.rows.groupby("metric")}

    @staticmethod
    def _by_picture(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
        return frame.groupby(["seed", "picture"])[metric].mean().unstack("picture")

    def top1(self, whose: Whose) -> pd.DataFrame | None:
        """The headline, top-1 accuracy or another, of each picture under each seed, [seeds, pictures]."""
        if whose not in self.pictures:
            return None
        values = self.pictures[whose]
        if values.isna().to_numpy().any():
            raise self._again(whose, "its seeds were scored on different pictures")
        return values

    def _again(self, whose: Whose, why: str) -> BenchError:
        """What is recorded of a row does not fit together."""
        name = self.rows["ablation"].iloc[0]
        return BenchError(f"{name}: row {whose[0]} ({whose[1]}): {why}; run all its seeds together, with the options "
                          f"that its results were made with: bench run --ablation {name} --variants {whose[0]!r}")

    def seeds(self, whose: Whose) -> tuple[int, ...]:
        values = self.top1(whose)
        return () if values is None else tuple(int(seed) for seed in values.index)

    def interval(self, whose: Whose) -> Interval | None:
        values = self.top1(whose)
        return None if values is None else crossed_interval(values.to_numpy())

    def paired(self, a: Whose, b: Whose) -> tuple[np.ndarray, np.ndarray] | None:
        """Both [S, N], over the seeds that both have; None where there are none, or the test pictures are others."""
        one, other = self.top1(a), self.top1(b)
        if one is None or other is None or not one.columns.equals(other.columns):
            return None
        seeds = one.index.intersection(other.index)
        if not len(seeds) or not np.array_equal(self.labels[a], self.labels[b]):
            return None
        return one.loc[seeds].to_numpy(), other.loc[seeds].to_numpy()

    def apart(self, a: Whose, b: Whose) -> tuple[np.ndarray, np.ndarray] | None:
        """Both [S, N] over the seeds that both have, each on its own test pictures; None where a row or seed lacks."""
        one, other = self.top1(a), self.top1(b)
        if one is None or other is None or not len(seeds := one.index.intersection(other.index)):
            return None
        return one.loc[seeds].to_numpy(), other.loc[seeds].to_numpy()

    def contrast(self, a: Whose, b: Whose) -> Interval | None:
        """95 % interval of the paired difference."""
        pair = self.paired(a, b)
        return None if pair is None else paired_contrast(*pair)

    def gain(self, whose: Whose) -> Interval | None:
        """Over the row's own shuffled EEG where that was run, else over Full's."""
        return self.contrast(whose, self.shuffled(whose))

    def shuffled(self, whose: Whose) -> Whose:
        """The row's own shuffled EEG where that was run (`ablation.with_controls` names it), else Full's."""
        own = (f"{whose[0]} / EEG shuffled", "shuffled") if whose else NULL
        return own if own in self.pictures else NULL

    def mcnemar(self, a: Whose, b: Whose) -> dict[int, float]:
        """By seed, on sample 0 of each item; nothing for a headline that is no right or wrong."""
        for whose in (a, b):
            if whose not in self.first:
                frame = self.of[whose]
                self.first[whose] = frame[frame["sample"] == 0].pivot(index="seed", columns="item",
                                                                      values=self.headline)
        seeds = self.first[a].index.intersection(self.first[b].index)
        one, other = (self.first[whose].loc[seeds] for whose in (a, b))
        if not one.columns.equals(other.columns) or not (one.isin((0, 1)) & other.isin((0, 1))).all(axis=None):
            return {}
        return {int(seed): mcnemar(one.loc[seed].to_numpy(), other.loc[seed].to_numpy()) for seed in seeds}

    def null(self, whose: Whose) -> Null | None:
        """Accuracy under permuted labels, in retrieval under permuted pictures, the same permutation for all seeds and
        samples; always the same draws. None for another headline."""
        found, right = NULLS.get(self.headline, ("", ""))
        if self.top1(whose) is None or found not in self.of[whose]:
            return None
        frame = self.of[whose].sort_values(["item", "seed", "sample"])
        item = frame["item"].to_numpy()
        first = np.unique(item, return_index=True)[1]
        if len(frame) % len(first) or (np.diff(np.append(first, len(frame))) != len(frame) // len(first)).any():
            raise self._again(whose, "its items do not have as many samples each")
        judged = frame[found].to_numpy().reshape(len(first), -1)
        return permutation_null(judged, frame[right].to_numpy()[first], np.random.default_rng(0), PERMUTATIONS)

    def means(self, whose: Whose) -> dict[str, float]:
        """Of each metric over seeds; of one that was taken in several ways, the most usual."""
        if whose not in self.found:
            found = self.found[whose] = {}
            if whose in self.at:
                values = self.at[whose].groupby(["metric", "key"])["value"].mean().reset_index()
                for metric, key, value in values.itertuples(index=False, name=None):
                    if metric not in found or key == self.keys[metric]:
                        found[metric] = float(value)
        return self.found[whose]

    def measured(self, whose: Whose) -> dict[str, _Measured]:
        """Each metric with its uncertainty."""
        found = {}
        for metric, mean in self.means(whose).items():
            rows = self.at[whose][self.at[whose]["metric"] == metric]
            rows = rows[rows["key"] == self.keys[metric]] if self.keys[metric] in set(rows["key"]) else rows
            interval = None
            if whose in self.of and metric in self.of[whose] and np.isfinite(self.of[whose][metric]).all():
                interval = crossed_interval(self._by_picture(self.of[whose], metric).to_numpy())
            sd = float(rows["value"].std(ddof=1)) if len(rows) > 1 else None
            by = "" if rows["comparable"].all() else rows["extractor"].iloc[0]
            found[metric] = _Measured(mean, interval, sd, len(rows), rows["key"].iloc[0], by)
        return found

    def failed(self, whose: Whose) -> bool:
        if whose is None:
            return bool((self.failures["items"] == "captions").any())
        return bool(((self.failures["variant"] == whose[0]) & (self.failures["items"] == whose[1])).any())

    def params(self, whose: Whose) -> int | None:
        known = list(self.at[whose]["params"].dropna()) if whose in self.at else []
        return int(known[0]) if known else None

    def specs(self, whose: Whose) -> set[str]:
        """Digests of the settings that a row was recorded with."""
        rows = self.at.get(whose)
        return set() if rows is None else set(rows["spec"]) - {""}

    def values(self, column: str, metric: str = "") -> list[str]:
        """What a column says about the rows of a metric, of the headline's: one value, or several where rows differ."""
        rows = self.rows[self.rows["metric"] == (metric or self.headline)]
        return sorted({str(value) for value in rows[column]} - {""})

    def key(self, metric: str) -> str:
        return "; ".join(self.values("key", metric))


def _settings(spec: Any) -> tuple[str, str, str, str]:
    """Of a Variant, also of one that is measured on other items; of another system nothing."""
    spec = innermost(spec)
    if not hasattr(spec, "mask_ratio"):
        return (NOTHING,) * 4
    pretraining = "none" if spec.mask_ratio is None else f"mask {spec.mask_ratio:g}"
    align = {"clip": "yes", "label": "labels instead", None: "no"}.get(spec.align, str(spec.align))
    size = spec.size if spec.encoder == "msm_vit" else f"{Path(spec.encoder).stem}, {spec.size}"
    return pretraining, align if spec.sd_loss else f"{align}, alone", spec.tune, size


def _about_pretraining(a: Any, b: Any) -> bool:
    """Whether two rows differ in pre-training, mask ratio or size."""
    a, b = innermost(a), innermost(b)
    return any(getattr(a, name, None) != getattr(b, name, None) for name in ("mask_ratio", "size", "encoder"))


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """Holm's p over the rows that must not exceed their null."""
    tested = [row for row in rows if row.exceeds is not None]
    adjusted = dict(zip((row.name for row in tested), holm([row.exceeds or 0.0 for row in tested]), strict=True))
    return [Row(**vars(row) | {"exceeds": adjusted.get(row.name)}) for row in rows]


def _contrasts(scores: _Scores, ablation: Any, paper: Mapping[str, float]) -> list[Contrast]:
    """One for each that the ablation lists, with Holm's verdicts over those that can have one."""
    specs = {v.name: v for v in ablation.variants}
    one_pretraining = "one" in scores.values("pretrain_seeds")
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    said: dict[str, str] = {}
    apart = set()
    for a, b in ablation.contrasts:
        name, whose = f"{a} - {b}", (_whose(specs[a]), _whose(specs[b]))
        pair = scores.paired(*whose)
        if pair is None and (pair := scores.apart(*whose)) is not None:
            apart.add(name)
        if pair is None:
            ran = [scores.top1(one) is not None for one in whose]
            lost = any(scores.failed(one) for one, there in zip(whose, ran, strict=True) if not there)
            said[name] = "failed" if lost else NOT_RUN if not all(ran) else "no verdict: other seeds"
        elif one_pretraining and _about_pretraining(specs[a], specs[b]):
            said[name] = "no verdict: one pre-training"
        else:
            pairs[name] = pair
    found = verdicts(pairs, ALPHA, apart) if pairs else {}
    contrasts = []
    for a, b in ablation.contrasts:
        name, whose = f"{a} - {b}", (_whose(specs[a]), _whose(specs[b]))
        one, other = scores.interval(whose[0]), scores.interval(whose[1])
        verdict = found.get(name)
        mean = verdict.interval.mean if verdict else one.mean - other.mean if one and other else None
        word = said.get(name, "")
        if verdict:
            word = verdict.word + (", given these models" if verdict.interval.seeds == 1 else "")
            word += ", not paired: other test pictures" if name in apart else ""
        contrasts.append(Contrast(name, mean, verdict, word,
                                  scores.mcnemar(*whose) if verdict and name not in apart else {},
                                  paper[a] - paper[b] if a in paper and b in paper else None))
    return contrasts


def _paper(stem: str | None, folder: Path) -> tuple[dict[str, float], str]:
    """The paper's accuracies in per cent by row, and what the caption says about them."""
    if stem is None:
        return {}, "The paper has no such rows."
    path = folder / f"{stem}.csv"
    if not path.is_file():
        return {}, f"The paper's column is left out: {path} is not there."
    rows = pd.read_csv(path, dtype={"row": str})
    rows = rows[rows["metric"] == "accuracy"]
    return dict(zip(rows["row"], rows["value"], strict=True)), f"The paper's column: {rows['paper'].iloc[0]}."


def _caption(scores: _Scores, rows: Sequence[Row], contrasts: Sequence[Contrast], ablation: Any, name: str,
             paper: Mapping[str, float], source: str) -> Iterable[str]:
    yield from _failed(scores)
    if not len(scores.scored):
        yield f"Nothing is scored yet: bench run --ablation {name}"
        return
    def said(column: str) -> str:
        return "; ".join(scores.values(column))

    ran = [row for row in rows if row.top1]
    counts = sorted({row.top1.items for row in ran if row.top1})
    samples = scores.items.groupby(["variant", "items", "seed"])["sample"].max() + 1
    seeds = sorted({seed for row in ran for seed in row.seeds})
    drawn = "" if not said("judge") else f" x {_listed(sorted(set(samples)))} samples. Judge {said('judge')}"
    yield (f"Scale {said('scale')}, world {said('world')}. Seeds {_listed(seeds)}. {_listed(counts)} test pictures"
           f"{drawn}. Numerics {said('numerics')}.")
    yield from _provenance(scores)
    if said("scale") == "rehearsal":
        yield "A rehearsal: data are made up and the frozen parts have random weights. No number here means anything."
    stands, own = beside(ablation.variants), any(hasattr(innermost(v), "mask_ratio") for v in ablation.variants)
    if said("scale") != "paper" and (stands.null or own) and scores.headline == HEADLINE:
        yield ((f"Every number but those of the column \"{PAPER}\" was measured at scale {said('scale')}; the two do "
                "not compare." if paper else f"Measured at scale {said('scale')}: no number compares with the paper's.")
               + " The encoder's label is the paper's, the count of its parameters is real." * own)
    if scores.headline.startswith("retrieval_"):
        yield from _said_of_retrieval(scores)
    elif scores.headline != HEADLINE:
        yield f"The headline: {DEFINITIONS[scores.headline].title} ({scores.key(scores.headline)})."
    if scores.values("key", "top1_label"):
        yield (f"Accuracies are the judge's verdict against the label: top-1 of the {scores.key('top1_label')} it "
               f"knows; n-way is exact, {scores.key('nway_label')} classes. FID and IS with the judge's features (FID: "
               f"{scores.key('fid')}; IS: {scores.key('is')}). Judge distance: {scores.key('judge_distance')}; not "
               "LPIPS.")
        if stands.things:
            yield ("Protocol things: the label of a concept is the class that the judge has for it, at scale tiny its "
                   f"shape; top-1 chooses among all {scores.key('top1_label')}, of which "
                   f"{scores.key('top1_shown_label').removesuffix(' classes')}. Without any EEG one in as many as are "
                   "shown is right at best.")
    yield from _stand_ins(scores, ablation)
    if len(seeds) == 1:
        yield ("[ ] is a 95 % interval. With one seed it covers the choice of test items only, not training: intervals "
               "and verdicts are conditional on these trained models.")
    else:
        yield ("[ ] is a 95 % interval over test pictures crossed with seeds. A row with one seed: over test items "
               "only, not training.")
    yield from _said_of_nulls(scores, rows)
    if judged := [contrast for contrast in contrasts if contrast.verdict]:
        yield (f"Verdicts are about the first of each pair, at {ALPHA:g} over {_count(len(judged), 'contrast')} "
               "together: p is Holm's, their [ ] are simultaneous. Not resolved is not equal: beside it, what would "
               "resolve a true difference of the observed size with 80 % power.")
    yield from _order(scores, ablation, paper)
    yield from _selected(scores, ablation)
    pretrained = stands.null or any(_settings(v)[0] not in (NOTHING, "none") for v in ablation.variants)
    if pretrained and "one" in scores.values("pretrain_seeds"):
        yield ("pretrain_seeds = one: all seeds share one pre-training. This table gives no verdict about "
               "pre-training, mask ratio or size.")
    elif pretrained:
        yield f"pretrain_seeds = {said('pretrain_seeds')}: every seed has a pre-training of its own."
    if getattr(ablation, "costs", False):
        yield "Trained parameters: of all networks that a row trains." + (
            " Seconds: wall time of a worker on one core or GPU for all trainings of a row, and for drawing its "
            "pictures, means over seeds; a training that rows share counts in each. They change from run to run."
            if any(row.seconds for row in rows) else "")
    if getattr(ablation, "literature", {}):
        yield ("What the literature prints was measured on other data by other classifiers and networks: no number of "
               "it compares with one of this table.")
    yield from _classifiers(scores)
    if masked := _masked(scores, ablation):
        yield ("Pre-training's masked MSE on held-out recordings, beside that of the window's mean, of linear "
               f"interpolation and of a Wiener predictor: {masked}.")
    for column in ("scale", "world", "config", "judge", "numerics", "pretrain_seeds", "versions", "key"):
        if scores.scored[column].nunique() > 1:
            groups = scores.scored.groupby(column)["variant"].unique()
            yield f"Not comparable: rows differ in {column}: " + "; ".join(
                f"{value or 'not recorded'} ({', '.join(sorted(names))})" for value, names in groups.items())
    if missing := [row.name for row in rows if row.top1 is None and not row.failed]:
        yield f"Not run: {', '.join(missing)}."
    if changed := [v.name for v in ablation.variants if scores.specs(_whose(v)) - {digest(v)}]:
        yield f"Recorded with other settings than the ablation names now, run again: {', '.join(changed)}."
    known = {v.name for v in ablation.variants} | {NULL[0]}
    others = scores.scored[~scores.scored["variant"].isin(known) & (scores.scored["items"] != "captions")]
    if gone := sorted(set(others.loc[others["items"] == "real", "variant"])):
        yield f"Recorded, but no row of this ablation now: {', '.join(gone)}."
    if controls := sorted(set(others.loc[others["items"] != "real", "variant"])):
        yield f"Recorded beside these rows (bench table {name} --with-controls): {', '.join(controls)}."
    if paper or ((stands.null or own) and scores.headline == HEADLINE):
        yield source


def _said_of_retrieval(scores: _Scores) -> Iterable[str]:
    """What its accuracies are."""
    pictures = scores.key("retrieval_top1").partition(" of ")[2]
    yield ("Retrieval, zero-shot: top-1 is the share of test items whose EEG's embedding is nearer, by cosine, to "
           "CLIP's of its own picture than to that of any other test picture; top-5: it is among the five nearest; "
           "k-way, in exact form: the chance that it is nearer than k - 1 others, drawn at random. Without any EEG: "
           f"top-1 1 in {pictures}, top-5 5 in {pictures}, k-way 1 in k. No metric here looks at a drawn picture.")


def _stand_ins(scores: _Scores, ablation: Any) -> Iterable[str]:
    """Which columns that the ablation asks for stand in for the literature's, and which of those are not there."""
    asked, there = getattr(ablation, "metrics", ()), set(scores.rows["metric"])
    ours = [metric for metric in asked if "stands in" in DEFINITIONS[metric].source]

    def names(metrics: Iterable[str]) -> str:
        return "; ".join(_header(scores, metric).removesuffix(", %") for metric in metrics)

    if used := [metric for metric in ours if metric in there]:
        yield ("Two-way identification (chance: 50 %) and correlation distance (lower is better) by networks that the "
               f"literature does not use, which compare with none of its numbers: {names(used)}.")
    if missing := [metric for metric in asked if metric not in there and metric not in ours]:
        yield f"The literature's, which this scale lacks the networks for: {names(missing)}."


def _permuted(headline: str) -> str:
    """What is permuted for a row that must not know the stimulus."""
    return "permuted pictures" if headline == RETRIEVED else "permuted labels"


def _failed(scores: _Scores) -> Iterable[str]:
    for line in scores.failures.itertuples():
        what = "" if line.items == "real" else f", {line.items}"
        yield f"Failed: {line.variant}{what}, seed {line.seed}: {line.failed}."


def _provenance(scores: _Scores) -> Iterable[str]:
    """The leak audit's verdict, the versions, and the networks that the literature does not use."""
    audited = {str(value): sorted(those["variant"].unique()) for value, those in scores.scored.groupby("leaky")}
    verdict = "; ".join(f"{value or 'not audited'}" + (f" ({', '.join(names)})" if len(audited) > 1 else "")
                        for value, names in audited.items())
    yield f"Leaky: {verdict}. Versions: {'; '.join(scores.values('versions')) or 'not recorded'}."
    ours = scores.rows[(scores.rows["comparable"] == 0) & (scores.rows["extractor"] != "")]
    for extractor, those in ours.groupby("extractor"):
        hashes = sorted({digits[:12] for digits in those["extractor_sha256"]})
        yield (f"Measured with {extractor} ({', '.join(hashes)}), which the literature does not use, so not to be "
               f"compared with it: {', '.join(sorted(set(those['metric'])))}.")


def _said_of_nulls(scores: _Scores, rows: Sequence[Row]) -> Iterable[str]:
    names, what = {row.name for row in rows}, _permuted(scores.headline)
    measured = next((row.top1 for row in rows if row.name == NULL_NAME), None)
    permuted = scores.null(("Full", "real"))
    if measured is None and any(row.gain for row in rows):
        yield ("Gain over shuffled: paired with the row's own shuffled EEG."
               + " Null to ceiling: that gain as a share of the ceiling's." * (CEILING_NAME in names))
    elif measured or permuted:
        yield ("Gain over shuffled: paired with the row's own shuffled EEG where that was run, else with Full's. Null "
               "to ceiling: that gain as a share of the ceiling's. Nulls of Full, top-1: "
               + " and ".join([f"shuffled EEG {_percent(measured)} %"] * bool(measured)
                              + ([f"{what} {_null(permuted)} % ({PERMUTATIONS:,} permutations; Full: "
                                  f"p {_p(permuted.p, '= ')})"] if permuted else [])) + ".")
    if tested := [row for row in rows if row.exceeds is not None]:
        above = [row.name for row in tested if row.exceeds is not None and row.exceeds <= ALPHA]
        yield (f"{_count(len(tested), 'row')} cannot know the stimulus: whether they exceed what {what} give "
               f"(mean [95 %]), one-sided, Holm over them: {', '.join(above) or 'none'} at {ALPHA:g}.")


def _selected(scores: _Scores, ablation: Any) -> Iterable[str]:
    """What choosing a checkpoint, or an item's best sample, does to top-1; of ablations whose rows are checkpoints."""
    tops: dict[str, dict[int, pd.DataFrame]] = {"test": {}, "val": {}}
    for v in ablation.variants:
        top = scores.top1(_whose(v)) if getattr(v, "checkpoint", None) else None
        if top is not None:
            tops[v.part][v.checkpoint[0]] = top
    test, val = (pd.DataFrame({which: top.mean(axis=1) for which, top in sorted(tops[part].items())})
                 for part in ("test", "val"))
    if test.empty or set(test) != set(val) or not test.index.equals(val.index):
        return
    last = max(tops["test"])
    chosen = pd.Series({seed: test.loc[seed, val.loc[seed].idxmax()] for seed in test.index})
    headline = next(v for v in ablation.variants if v.part == "test" and v.checkpoint[0] == last)
    any_sample = scores.of[_whose(headline)].groupby(["seed", "item"])[scores.headline].max().mean()
    best, named = test.max(axis=1).mean(), test[last].mean()
    yield (f"Choosing, top-1 in %, mean over {_count(len(test), 'seed')}: the last of "
           f"{_count(len(test.columns), 'checkpoint')} {100 * named:.1f}, the headline; the best on validation "
           f"{100 * chosen.mean():.1f}. Only to show the inflation: the best on test {100 * best:.1f} "
           f"({100 * (best - named):+.1f}), an item counted as right if any of its samples is "
           f"{100 * any_sample:.1f} ({100 * (any_sample - named):+.1f}).")


def _order(scores: _Scores, ablation: Any, paper: Mapping[str, float]) -> Iterable[str]:
    """Kendall's tau-b with the paper's rows."""
    tops = {v.name: scores.top1(_whose(v)) for v in ablation.variants if v.name in paper}
    ours = {name: top for name, top in tops.items() if top is not None}
    if len(ours) < ROWS_FOR_TAU:
        return
    seeds = sorted(set.intersection(*(set(top.index) for top in ours.values())))
    if not seeds or len({tuple(top.columns) for top in ours.values()}) > 1:
        yield "Kendall's tau with the paper's order is left out: the rows share no seed, or no test pictures."
        return
    values = np.stack([top.loc[seeds].to_numpy() for top in ours.values()])
    theirs = np.array([paper[name] for name in ours])
    tau, low, high = kendall_interval(values, theirs, np.random.default_rng(0), resamples=1000)
    if np.isnan(tau):
        yield "Kendall's tau with the paper's order is not defined: all rows have one accuracy."
        return
    yield (f"Kendall's tau-b with the paper's order of {len(ours)} rows: {tau:+.2f} [{low:+.2f}, {high:+.2f}] (1,000 "
           "crossed resamples of our seeds and pictures; the paper's numbers as printed).")


def _classifiers(scores: _Scores) -> Iterable[str]:
    accuracy = scores.rows[scores.rows["metric"] == "readout_accuracy"]
    for items, title in (("readout", "The class from the test EEG itself, without a picture"),
                         ("probe", "The class from pre-trained encoders, by a linear probe")):
        found = accuracy[accuracy["items"] == items].groupby(["key", "n", "variant"], sort=False)["value"]
        said: dict[str, list[str]] = {}
        for key, n, variant, mean, low, high, seeds in found.agg(["mean", "min", "max", "count"]).reset_index(
                ).itertuples(index=False, name=None):
            spread = f" ({_count(seeds, 'seed')}: {100 * low:.1f} to {100 * high:.1f})" if low < high else ""
            said.setdefault(f"({key}, n = {n})", []).append(f"{variant} {100 * mean:.1f} %{spread}")
        if said:
            yield f"{title}: " + "; ".join(f"{', '.join(each)} {what}" for what, each in said.items()) + "."


def _masked(scores: _Scores, ablation: Any) -> str:
    """"Full, 12: 0.61 (mean 1.00, interpolation 1.40, Wiener 0.70); ...": means over seeds; equal ones are one."""
    names: dict[tuple[float | None, ...], list[str]] = {}
    for variant in ablation.variants:
        means = scores.means(_whose(variant))
        if MASKED[0] in means:
            names.setdefault(tuple(means.get(metric) for metric in MASKED), []).append(variant.name)
    return "; ".join(f"{', '.join(those)}: {model:.3f} (" + ", ".join(
        f"{name} {error:.3f}" for name, error in zip(("mean", "interpolation", "Wiener"), errors, strict=True)
        if error is not None) + ")" for (model, *errors), those in names.items())


def _row_columns(t: Table) -> tuple[Column, ...]:
    top1, nway = t.labels
    own = {metric for metric, _ in t.columns}

    def ran(row: Row) -> str:
        return _percent(row.top1) if row.top1 else "failed" if row.failed else NOT_RUN

    def mean(metric: str, digits: int, factor: float = 1) -> Callable[[Row], str]:
        return lambda row: _number(row.means.get(metric), digits, factor)

    plan: list[tuple[str, Callable[[Row], str], int, bool]] = [
        ("variant", lambda r: r.name, 0, True),
        ("pre-training", lambda r: r.settings[0], 3, True),
        ("CLIP", lambda r: r.settings[1], 8, True),
        ("tuned", lambda r: r.settings[2], 9, True),
        ("encoder's label", lambda r: r.settings[3], 11, True),
        ("parameters", lambda r: NOTHING if r.params is None else f"{r.params:,}", 7, False),
        *([("trained parameters", lambda r: _number(r.means.get("trained_parameters"), 0, form=","), 8, False),
           ("training, s", lambda r: _number(r.seconds[0] if r.seconds else None, 0), 9, False),
           ("sampling, s", lambda r: _number(r.seconds[1] if r.seconds else None, 1), 9, False)] if t.costs else []),
        ("seeds", lambda r: str(len(r.seeds)), 4, False),
        (f"{top1} [95%]", ran, 0, False),
        ("gain over shuffled, points [95%]", lambda r: _percent(r.gain, False) if r.gain else NOTHING, 5, False),
        ("null to ceiling, %", lambda r: _number(r.way, 0, 100), 6, False),
        (f"{_permuted(t.headline)}, % [95%]", lambda r: _null(r.null) if r.null else NOTHING, 2, False),
        ("exceeds them (Holm)", lambda r: NOTHING if r.exceeds is None else
            f"{'yes' if r.exceeds <= ALPHA else 'no'}, p {_p(r.exceeds, '= ')}", 0, False),
        *([(nway, mean("nway_label", 1, 100), 1, False)] if nway else []),
        *((header, mean(metric, *((1, 100) if DEFINITIONS[metric].unit == "share" else (3,))), 6, False)
          for metric, header in t.columns if metric != t.headline),
        ("FID", mean("fid", 2), 10, False),
        ("IS", mean("is", 2), 12, False),
        *([("SSIM", mean("ssim", 3), 14, False)] if "ssim" not in own else []),
        ("PSNR, dB", mean("psnr", 1), 15, False),
        ("judge distance", mean("judge_distance", 3), 13, False),
    ]
    if t.has_paper:
        plan.append((PAPER, lambda r: _number(r.paper, 1), 0, False))
    columns = [Column(header, tuple(cell(row) for row in t.rows), drop, left) for header, cell, drop, left in plan]
    return tuple(column for column in columns if set(column.cells) - {NOTHING})


def _contrast_columns(t: Table) -> tuple[Column, ...]:
    def points(c: Contrast) -> str:
        if c.verdict:
            return _percent(c.verdict.interval, within=False)
        return _number(c.mean, 1, 100, "+") if c.mean is not None else c.said

    plan: list[tuple[str, Callable[[Contrast], str], int, bool]] = [
        ("difference", lambda c: c.name, 0, True),
        (f"{t.labels[0].removesuffix(', %')}, points [95%, simultaneous]", points, 0, False),
        ("p (Holm)", lambda c: _p(c.verdict.p) if c.verdict else NOTHING, 3, False),
        ("verdict", lambda c: c.said, 0, True),
        ("would resolve it", lambda c: (c.verdict.needs if c.verdict else "") or NOTHING, 4, True),
        ("seeds", lambda c: str(c.verdict.interval.seeds if c.verdict else 0), 2, False),
    ]
    if t.has_paper:
        plan.append((PAPER.replace("%", "points"), lambda c: _number(c.paper, 1, sign="+"), 1, False))
    columns = [Column(header, tuple(cell(c) for c in t.contrasts), drop, left) for header, cell, drop, left in plan]
    return tuple(column for column in columns if set(column.cells) - {NOTHING})


def _frame(t: Table) -> pd.DataFrame:
    """Rows and contrasts in full precision; `kind` tells them apart, accuracies are in per cent or points."""
    top1 = "top1" if t.headline == HEADLINE else t.headline

    def scaled(prefix: str, it: Interval | Null | None) -> dict[str, float]:
        return {} if it is None else {f"{prefix}": 100 * it.mean, f"{prefix}_low": 100 * it.low,
                                      f"{prefix}_high": 100 * it.high}

    lines: list[dict[str, Any]] = []
    for row in t.rows:
        lines.append({"kind": "row", "name": row.name, "failed": int(row.failed and row.top1 is None),
                      "seeds": len(row.seeds), "params": row.params, "paper_50way_imagenet_eeg": row.paper}
                     | dict(zip(("pretraining", "clip", "tuned", "encoder"), row.settings, strict=True))
                     | scaled(top1, row.top1) | scaled("gain", row.gain) | scaled("null", row.null)
                     | {"null_to_ceiling": None if row.way is None else 100 * row.way, "p": row.exceeds}
                     | {f"mean_{metric}": value for metric, value in row.means.items()})
    for c in t.contrasts:
        given = {} if c.verdict is None else scaled(top1, c.verdict.interval) | {
            "seeds": c.verdict.interval.seeds, "p": c.verdict.p, "needs": c.verdict.needs}
        lines.append({"kind": "contrast", "name": c.name, "verdict": c.said, "paper_50way_imagenet_eeg": c.paper,
                      top1: None if c.mean is None else 100 * c.mean} | given)
        lines += [{"kind": "McNemar, given these models", "name": c.name, "seed": seed, "p": p}
                  for seed, p in c.mcnemar.items()]
    head = ["kind", "name", "seed", "seeds", "failed", top1, f"{top1}_low", f"{top1}_high", "gain", "gain_low",
            "gain_high", "null_to_ceiling", "null", "null_low", "null_high", "p", "verdict", "needs",
            "paper_50way_imagenet_eeg", "pretraining", "clip", "tuned", "encoder", "params"]
    head += sorted({name for line in lines for name in line} - set(head))
    return pd.DataFrame([{name: line.get(name) for name in head} for line in lines], columns=head, dtype=object)


def _measured(one: _Measured, digits: int) -> str:
    value = f"{one.mean:.{digits}f}"
    if one.interval:
        value += f" [{one.interval.low:.{digits}f}, {one.interval.high:.{digits}f}]"
    elif one.sd is not None:
        value += f" (SD {one.sd:.{digits}f})"
    return f"{value}, by {one.by.rpartition('/')[2]}" if one.by else value


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _percent(interval: Interval | None, within: bool = True) -> str:
    """"45.1 [40.2, 50.0]" in per cent; an accuracy's interval ends at 0 and 100, a difference's at -100 and 100."""
    if interval is None:
        return NOT_RUN
    low, high = max(interval.low, 0.0 if within else -1.0), min(interval.high, 1.0)
    sign = "" if within else "+"
    return f"{100 * interval.mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def _null(null: Null) -> str:
    return f"{100 * null.mean:.1f} [{100 * null.low:.1f}, {100 * null.high:.1f}]"


def _p(p: float, equals: str = "") -> str:
    return "< 0.001" if p < 0.0005 else f"{equals}{p:.3f}"


def _number(value: float | None, digits: int, factor: float = 1, sign: str = "", form: str = "") -> str:
    return NOTHING if value is None else f"{factor * value:{sign}{form}.{digits}f}"
