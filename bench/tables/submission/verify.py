"""Checks a submission: its files, its protocol, and that its numbers follow from the values of its items."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError, join_names, one_line
from bench.files import sha256
from bench.metrics import DEFINITIONS
from bench.scoring import schema
from bench.scoring.neighbours import MANIFOLD
from bench.scoring.sets import FRECHET, SETS
from bench.setup.request import STORE
from bench.tables import results
from bench.tables.scores import MASKED
from bench.tables.sharing.contents import read_sums
from bench.tables.submission import folder as files
from bench.tables.submission.folder import Submission
from bench.tables.submission.signed import check_keys, check_protocol, check_spec, compare_items

TOLERANCE = 1e-6  # relative; files have ten digits
ROUNDING = 1e-3  # by which FID may be below 0 for equal sets of images
FOLLOWS: dict[str, Callable[[pd.DataFrame], Any]] = {  # values of an item that its other columns determine
    "top1_label": lambda items: items["judged"] == items["label"],
    "top1_judge": lambda items: items["judged"] == items["judged_real"],
}
WHOLE = {*SETS, *FRECHET, "fid_64", *MANIFOLD, *MASKED, "train_ratio_clip", "train_ratio_judge", "trained_parameters",
         "readout_accuracy", "train_class_top1"}  # metrics that need no values of items
OF_REAL = "top1_real"  # of the real images: the mean of judged_real == label


@dataclass(frozen=True, eq=False)
class Checked:
    """The result of a check. problems: a line for each fault; notes: what could not be checked; submission: None if
    its files could not be read."""

    folder: Path
    submission: Submission | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """Returns the result in lines."""
        if self.problems:
            return "\n".join(f"{self.folder}: {problem}" for problem in self.problems)
        assert self.submission
        return "\n".join([f"{self.folder}: {describe(self.submission)}: verified",
                          *(f"  not checked: {note}" for note in self.notes)])


def describe(submission: Submission) -> str:
    """Returns the name, and the number of seeds and items."""
    real = submission.items[submission.items["variant"] == submission.variant]
    seeds = ", ".join(map(str, sorted(set(real["seed"]))))
    return f"{submission.name}, seeds {seeds}, {real['item'].nunique()} items"


def verify(folder: Path, store: Path = STORE) -> Checked:
    """Checks a submission. store: may hold the trials of a prepared data set. Raises BenchError if there is no such
    folder."""
    if not folder.is_dir():
        raise BenchError(f"no folder {folder}; expected a submission of `bench export`")
    problems, notes = list(_check_files(folder)), list[str]()
    submission = _read(folder, problems)
    if submission is not None:
        checks = [_check_about, _check_rows, _check_values]
        checks += [check_keys, check_spec, check_protocol] if submission.kind == files.RECORDED else [_check_challenge]
        for check in checks:
            problems += check(submission)
        for line, is_problem in compare_items(submission, store):
            (problems if is_problem else notes).append(line)
        if left := _not_recomputed(submission):
            notes.append(f"{', '.join(left)}: they are of the whole set of images, not means over items")
    return Checked(folder, submission, tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes)))


def _check_files(folder: Path) -> Iterator[str]:
    """Compares the files with SHA256SUMS."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if files.SUMS not in present:
        yield f"{files.SUMS}: is missing; it holds the hashes of the other files"
        return
    try:
        sums = read_sums(folder / files.SUMS)
    except BenchError as error:
        yield str(error).replace(f"{folder}/", "")
        return
    for name in sorted(set(sums) - present):
        yield f"{name}: is missing; {files.SUMS} lists it"
    for name in sorted(present - set(sums) - {files.SUMS}):
        yield f"{name}: is not listed in {files.SUMS}"
    for name in sorted(set(sums) & present):
        if (actual := sha256(folder / name)) != sums[name]:
            yield f"{name}: was changed: its SHA-256 is {actual[:12]}..., {files.SUMS} says {sums[name][:12]}..."


def _read(folder: Path, problems: list[str]) -> Submission | None:
    """Reads the files; None, with further problems, if one is missing or cannot be read."""
    try:
        about = files.read_json(folder / files.ABOUT, ("format", "kind", "name", "variant"))
        if about["format"] != files.FORMAT or about["kind"] not in files.FILES:
            raise BenchError(f"{files.ABOUT}: format {about['format']!r}, kind {about['kind']!r}; expected format "
                             f"{files.FORMAT}, kind {' or '.join(files.FILES)}")
        is_recorded = about["kind"] == files.RECORDED
        absent = [name for name in files.FILES[about["kind"]] if not (folder / name).is_file()]
        problems += [line for name in absent
                     if not any(known.startswith(f"{name}:") for known in problems)
                     for line in [f"{name}: is missing"]]
        if absent:
            return None
        rows = _results(folder / files.RESULTS)
        return Submission(folder, about["kind"], str(about["name"]), str(about["variant"]), rows,
                          _items(folder / files.ITEMS),
                          files.read_keys(folder / files.KEYS) if is_recorded else (),
                          {} if is_recorded else files.read_json(folder / files.PROTOCOL, ("items", "judge")))
    except BenchError as error:
        problems.append(str(error).replace(f"{folder}/", ""))
    except FileNotFoundError as error:
        name = Path(str(error.filename)).name
        problems += [] if any(known.startswith(f"{name}:") for known in problems) else [f"{name}: is missing"]
    return None


def _results(path: Path) -> pd.DataFrame:
    rows = results.read_csv(path)
    if len(twice := rows[rows.duplicated(list(schema.KEY))]):
        line = twice.iloc[0]
        raise BenchError(f"{path.name}: {line['variant']}, seed {line['seed']}: has {line['metric']} twice")
    if (rows["metric"] == schema.FAILED).any() or rows.empty:
        raise BenchError(f"{path.name}: has {'a failed row' if len(rows) else 'no row'}; a submission has numbers only")
    return rows


def _items(path: Path) -> pd.DataFrame:
    try:
        items = results.parse_items(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, *results.NO_CSV, ValueError) as error:
        raise BenchError(f"{path.name}: is not a compressed CSV of items: {one_line(error)}") from error
    if missing := [name for name in (*schema.ITEM_KEY, "subject", "picture") if name not in items]:
        raise BenchError(f"{path.name}: has no column {missing[0]}")
    numbers = [name for name in items if name not in results.ITEM_TEXT]
    if wrong := [name for name in numbers if not pd.api.types.is_numeric_dtype(items[name])]:
        raise BenchError(f"{path.name}: column {wrong[0]} has text; expected numbers")
    for name in ("seed", "item", "sample", "subject", "picture"):
        if not pd.api.types.is_integer_dtype(items[name]):
            raise BenchError(f"{path.name}: column {name} has other values than whole numbers")
    return items


def _check_about(submission: Submission) -> Iterator[str]:
    """Checks that submission.json names what results.csv has."""
    about = files.read_json(submission.folder / files.ABOUT, ())
    mine = submission.rows[submission.rows["variant"] == submission.variant]
    if not submission.name.strip() or not submission.name.isprintable():
        yield f"{files.ABOUT}: the name is {submission.name!r}; expected one line of text"
    if mine.empty:
        yield f"{files.RESULTS}: has no row of {submission.variant}, the variant of {files.ABOUT}"
        return
    for name, found in (("scale", sorted(set(mine["scale"]))), ("seeds", sorted(set(map(int, mine["seed"]))))):
        if about.get(name) not in (found, found[0] if len(found) == 1 else found):
            yield f"{files.ABOUT}: {name} is {about.get(name)!r}, {files.RESULTS} has {join_names(map(str, found))}"


def _check_rows(submission: Submission) -> Iterator[str]:
    """Checks that both tables have the same rows, with complete items, and N as in results.csv."""
    groups = list(submission.groups())
    known = {group for _, group, _, _ in groups}
    groups_of_items = submission.items[list(schema.GROUP)].drop_duplicates().itertuples(index=False, name=None)
    for group in sorted(set(groups_of_items) - known):
        yield f"{files.ITEMS}: has items of {group[0]}, seed {group[1]}, {group[2]}, which {files.RESULTS} lacks"
    sets = {}
    for name, group, rows, items in groups:
        if items.empty:
            yield f"{files.ITEMS}: {name}: has no items"
            continue
        if len(twice := items[items.duplicated(["item", "sample"])]):
            yield (f"{files.ITEMS}: {name}: item {twice['item'].iloc[0]}, sample {twice['sample'].iloc[0]}, is there "
                   f"twice ({len(twice)} rows too many)")
        samples = items["sample"].nunique()
        counts = items.groupby("item")["sample"].nunique()
        if len(few := counts[counts < samples]):
            yield (f"{files.ITEMS}: {name}: {join_names(map(str, few.index))} have fewer than {samples} samples; "
                   "expected equal numbers")
        measured = rows[[metric in items for metric in rows["metric"]]]
        if len(other := measured[measured["n"] != len(counts)]):
            line = other.iloc[0]
            yield (f"{files.ITEMS}: {name}: has {len(counts)} items, but {files.RESULTS} states n = {line['n']} for "
                   f"{line['metric']}")
        sets[group] = set(items["item"])
    for (variant, seed, kind), mine in sets.items():
        if len(mine) != len(largest := max(sets.values(), key=len)) and mine < largest:
            yield (f"{files.ITEMS}: {variant}, seed {seed}, {kind}: lacks {len(largest - mine)} items that other rows "
                   f"have: {join_names(map(str, sorted(largest - mine)))}")


def _check_challenge(submission: Submission) -> Iterator[str]:
    """Checks that a challenge's submission has the items and the samples of its protocol."""
    for what, column in (("items", "item"), ("samples", "sample")):
        count, stated = submission.items[column].nunique(), submission.protocol.get(what)
        if count != stated:
            yield f"{files.ITEMS}: has {count} {what}, {files.PROTOCOL} says {stated}"


def _check_values(submission: Submission) -> Iterator[str]:
    """Checks that each number is the mean over its items, and that values of an item agree with each other."""
    for name, _, rows, items in submission.groups():
        if items.empty:
            continue
        for metric, rule in FOLLOWS.items():
            if metric in items and {"judged", "judged_real", "label"} <= set(items) and not items["label"].isna().any():
                wrong = items[items[metric] != np.asarray(rule(items), np.float64)]
                if len(wrong):
                    yield (f"{files.ITEMS}: {name}: item {wrong['item'].iloc[0]}: {metric} is "
                           f"{wrong[metric].iloc[0]:g}, but its judged class says otherwise ({len(wrong)} rows)")
        for metric, stated in zip(rows["metric"], rows["value"], strict=True):
            value = _recomputed(metric, items)
            if metric not in DEFINITIONS:
                yield f"{files.RESULTS}: {name}: has a metric {metric!r}, which bench does not have"
                continue
            if value is None and metric not in WHOLE:
                yield f"{files.ITEMS}: {name}: lacks values of {metric}, which {files.RESULTS} has"
            if value is not None and not np.isclose(value, stated, rtol=TOLERANCE, atol=TOLERANCE * 1e-2):
                yield f"{files.RESULTS}: {name}: {metric} is {stated:.10g}, but the items give {value:.10g}"
            low, high = DEFINITIONS[metric].range
            slack = ROUNDING if metric in WHOLE else TOLERANCE
            if not low - slack <= stated <= high + slack:
                yield f"{files.RESULTS}: {name}: {metric} is {stated:.10g}; expected {low:g} to {high:g}"


def _recomputed(metric: str, items: pd.DataFrame) -> float | None:
    """Returns a metric from the values of its items; None if it is not a mean over them."""
    if metric == OF_REAL and {"judged_real", "label"} <= set(items):
        return float((items["judged_real"] == items["label"]).mean())
    return float(items[metric].mean()) if metric in items and items[metric].notna().all() else None


def _not_recomputed(submission: Submission) -> list[str]:
    """Returns the metrics that no values of items give."""
    return sorted({metric for _, _, rows, items in submission.groups() for metric in rows["metric"]
                   if _recomputed(metric, items) is None})
