"""Writes reports: a self-contained HTML page for each ablation, and an index of several."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bench.errors import BenchError
from bench.experiment import ablation as ablations
from bench.experiment.ablation import Ablation
from bench.experiment.scale import scale
from bench.experiment.variant import innermost
from bench.files import replace_file, writing
from bench.scoring import schema
from bench.setup.request import STORE, Request
from bench.tables import plots, results, slices
from bench.tables.build import table as build_table
from bench.tables.captions import CEILING_NAME, NULL_NAME
from bench.tables.columns import listed
from bench.tables.figure import main_variant
from bench.tables.formats import Column
from bench.tables.model import Table
from bench.tables.named import table_command
from bench.tables.report import answers, charts, pictures, stored
from bench.tables.report.answers import Answer
from bench.tables.report.charts import Chart
from bench.tables.report.pictures import Gallery
from bench.tables.scores import RowKey, Scores, row_key

LARGEST = 15_000_000  # bytes of a report
DETAILS = ("pre-training", "CLIP", "tuned", "encoder's label", "parameters", "seeds", "IS", "PSNR", "SSIM", "LPIPS",
           "judge distance", "test", "seeds for", "worlds for", "trained parameters",
           "null to ceiling")  # columns that are hidden at first


@dataclass(frozen=True)
class Cell:
    """A cell of a sortable table. order: the number to sort by, "" for text and for an empty cell."""

    text: str
    order: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Grid:
    """A sortable table. shown: for each column whether it is shown at first; left: whether it holds words."""

    name: str
    title: str
    headers: tuple[str, ...]
    shown: tuple[bool, ...]
    left: tuple[bool, ...]
    lines: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, eq=False)
class Report:
    """The contents of a report.

    sheet      the recorded contact sheet (data URI, width, height), where no image is in the store
    missing    what is left out, and why
    facts      (name, value) of the provenance
    runs       (variant, seed, items, stage, settings, leak) of each recorded row
    commands   make the results, and this report
    """

    name: str
    title: str
    finding: str
    score: str
    setting: str
    answers: tuple[Answer, ...]
    grids: tuple[Grid, ...]
    charts: tuple[Chart, ...]
    training: Chart
    cost: Chart
    classes: Grid | None
    galleries: tuple[Gallery, ...]
    sheet: tuple[str, int, int] | None
    missing: tuple[str, ...]
    leaks: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    runs: tuple[tuple[str, ...], ...]
    commands: tuple[str, str]
    has_components: bool


def gather(request: Request, seeds: Sequence[int] = ()) -> Report:
    """Gathers the contents of a request's report. seeds: of its images and training curves; (): the lowest recorded.

    Raises BenchError if there are no results, and for seeds that are not recorded.
    """
    subjects = ablations.resolve_subjects(request.subjects, scale(request.scale))
    ablation, folder = ablations.load(request.ablation, subjects, request.with_controls), request.results_folder
    table = build_table(folder, ablation.name, ablation, command=table_command(request))
    recorded, _ = slices.read(folder, ablation.name, ablation)
    known = sorted(set(recorded.rows["seed"].astype(int)))
    if absent := sorted(set(seeds) - set(known)):
        raise BenchError(f"--seeds {listed(seeds)}: seed {absent[0]} is not recorded in {folder}; there are: "
                         f"{listed(known)}")
    given, seeds = tuple(seeds), list(seeds) or known[:1]
    scores, main = Scores(recorded, table.headline), main_variant(ablation)
    keys = {variant.name: row_key(variant) for variant in ablation.variants}
    has_store = request.store.is_dir()
    kept = stored.open_stored(request, recorded, seeds) if has_store else None
    runs, names = results.runs(folder, ablation.name), stored.class_names(request, kept)
    shown, notes = pictures.galleries(kept.page, main, names) if kept and kept.shown else ([], [])
    sheet = folder / f"{ablation.name}.png"
    costs, unit = stored.row_costs(kept, runs, {row.name: row.means for row in table.entries})
    accuracies = {row.name: row.top1 for row in table.entries if row.top1 and row.name in keys}
    curves = stored.training_curves(kept, seeds) if kept else {}
    return Report(
        ablation.name, table.title, table.finding, answers.score_text(scores), answers.setting_text(table, scores),
        answers.all_answers(table, scores, main, ablation, stored.cost(kept, runs, recorded, request)),
        tuple(_grids(table)), tuple(_charts(table, ablation)),
        charts.chart("training", "Training curves", "Loss in the logs of the trainings, and of pre-training on "
                     f"held-out recordings. A training that rows share is one line. Seeds: {listed(seeds)}.",
                     partial(charts.draw_training, curves)),
        charts.chart("cost", "Cost against accuracy", "Further up is more accurate; further right is more expensive.",
                     partial(charts.draw_costs, costs, accuracies, unit, table.labels[0])),
        _class_grid(scores, keys[main], names), tuple(shown),
        pictures.read_sheet(sheet) if not shown and sheet.is_file() else None,
        (*_missing(request, has_store, kept, bool(shown), sheet), *notes), tuple(_leaks(scores, keys)), table.caption,
        (*_facts(scores), *stored.describe_code(kept, runs)), tuple(_recorded_rows(recorded)),
        (run_command(request, known), report_command(request, given)),
        any(hasattr(innermost(variant), "mask_ratio") for variant in ablation.variants))


def report_command(request: Request, seeds: Sequence[int] = ()) -> str:
    """Returns the command that writes the report of a request again: "bench report table2 --reference --out DIR"."""
    words = shlex.split(table_command(request))
    words[1] = "report"
    words += ["--seeds", ",".join(map(str, seeds))] if seeds else []
    words += ["--store", str(request.store)] if request.store != STORE else []
    return shlex.join([*words, "--out", "DIR"])


def run_command(request: Request, seeds: Sequence[int]) -> str:
    """Returns the command that makes the results of a request: "bench run --ablation table2 --seeds 0,1,2"."""
    words = shlex.split(table_command(replace(request, results=Request().results, reference=False)))[3:]
    words += ["--store", str(request.store)] if request.store != STORE else []
    return shlex.join(["bench", "run", "--ablation", request.ablation, *words, "--seeds", ",".join(map(str, seeds))])


def _missing(request: Request, has_store: bool, kept: stored.Stored | None, has_images: bool, sheet: Path
             ) -> Iterable[str]:
    """Yields what the report leaves out because the store or its stages are absent."""
    if not has_store or kept is None:
        yield (f"There is no store {request.store}. Left out: images of single items and their history, worst cases, "
               "training curves, and times of the stages."
               + (" The contact sheet is the recorded one." if sheet.is_file() else
                  " No contact sheet is recorded either."))
    elif kept.missing:
        yield (f"Not in the store {request.store}, so without images: {listed(kept.missing)}. They are built by the "
               "first command under “Commands”.")
    if has_store and not has_images and sheet.is_file():
        yield "The contact sheet is the recorded one; its images cannot be opened one by one."


def _charts(table: Table, ablation: Ablation) -> Iterable[Chart]:
    yield charts.chart(
        "forest", "All rows and differences",
        "Above: the score of each row with its 95 % interval; the shaded bands are the null (shuffled EEG) and the "
        "ceiling (class name as text). Below: differences of two rows with their intervals; right of 0 the first row "
        "is better. A filled blue mark is resolved, a hollow grey one is not.", partial(plots.draw_forest, table))
    if table.has_paper:
        yield charts.chart(
            "order", "Order of the rows here and in the paper",
            "Each row's score here over the paper's number. The two were measured on other data, so only the order of "
            "the rows is compared. Kendall's tau is 1 for the same order, 0 for no relation, -1 for the reverse.",
            partial(plots.draw_order, table))
    if ablation.curves:
        yield charts.chart("curves", "Score over the factors of this ablation", "With 95 % intervals.",
                           partial(plots.draw_curves, table, ablation.curves))


def _grids(table: Table) -> Iterable[Grid]:
    """Yields the blocks of the complete form as sortable tables."""
    titles = [("rows", "Rows")]
    titles += [("worlds", "Differences over worlds")] if table.over_worlds else []
    titles += [("contrasts", "Differences between two rows")] if table.differences else []
    titles += [("literature", "Published numbers of the same systems")] if table.literature is not None else []
    for (name, title), block in zip(titles, table.document.complete.blocks, strict=True):
        yield make_grid(name, title, block, {header for _, header in table.columns})


def make_grid(name: str, title: str, block: Sequence[Column], asked: set[str]) -> Grid:
    """Returns a block of columns. asked: headers that the ablation asks for; they are shown at first."""
    details = "|".join(rf"{re.escape(each)}\b" for each in DETAILS)
    shown = tuple(place == 0 or column.header in asked or not re.match(details, column.header)
                  for place, column in enumerate(block))
    lines = tuple(tuple(_cell(text, place == 0) for place, text in enumerate(line))
                  for line in zip(*(column.cells for column in block), strict=True))
    return Grid(name, title, tuple(column.header for column in block), shown, tuple(column.left for column in block),
                lines)


def _cell(text: str, is_name: bool = False) -> Cell:
    """Returns a cell with its first number, and the kind of a row or of a verdict."""
    number = re.match(r"(?:[<>] ?)?([+-]?[\d,]*\.?\d+)", text)
    order = number[1].replace(",", "") if number and not is_name else ""
    words = {NULL_NAME: "null", CEILING_NAME: "ceiling", "better": "better", "worse": "worse", "not resolved": "open",
             "failed": "failed", "not run": "open", "best": "better", "not separable": "open"}
    kind = next((kind for word, kind in words.items() if text.startswith(word)), "")
    return Cell(text.replace("  ", ": ", 1) if is_name else text, order, kind)


def _class_grid(scores: Scores, main: RowKey, names: Mapping[int, str]) -> Grid | None:
    """Returns the accuracy of the main row by class; None where items have no classes."""
    lines = answers.class_table(scores, main, names)
    if not lines:
        return None
    headers = ("class shown", "images", "right, %", "most frequent wrong answer")
    return Grid("classes", f"Classes of row {main[0]}", headers, (True,) * 4, (True, False, False, True), tuple(
                    (Cell(name), Cell(str(count), str(count)), Cell(f"{share:.1f}", f"{share:.6f}"), Cell(wrong))
                    for name, count, share, wrong in lines))


def _leaks(scores: Scores, keys: Mapping[str, RowKey]) -> Iterable[tuple[str, str]]:
    """Yields (verdict of the leak audit, its rows in the order of the table)."""
    for verdict, lines in scores.scored.groupby("leaky"):
        known = set(zip(lines["variant"], lines["items"], strict=True))
        if names := [name for name, key in keys.items() if key in known]:
            yield str(verdict) or "not audited", listed(names)


def _facts(scores: Scores) -> Iterable[tuple[str, str]]:
    for name, column in (("scale", "scale"), ("data", "world"), ("digest of the scale's settings", "config"),
                         ("judge", "judge"), ("numerics", "numerics"), ("pre-training seeds", "pretrain_seeds"),
                         ("versions", "versions")):
        yield name, "; ".join(scores.values(column)) or "not recorded"


def _recorded_rows(recorded: results.Results) -> Iterable[tuple[str, ...]]:
    for line in recorded.rows.drop_duplicates(list(schema.GROUP)).itertuples():
        outcome = f"failed: {line.failed!s}" if line.failed else str(line.leaky or "not audited")
        yield (*(str(getattr(line, name)) for name in (*schema.GROUP, "stage")), str(line.spec or "-"), outcome)


def render(report: Report) -> bytes:
    """Returns the HTML of a report; equal reports give equal bytes. Raises BenchError if it exceeds LARGEST."""
    data = template("report.html.j2").render(
        report=report, figures={chart.name: Markup(chart.svg) for chart in (
            *report.charts, report.training, report.cost)}).encode()
    if len(data) > LARGEST:
        raise BenchError(f"the report of {report.name} has {len(data)} bytes, more than {LARGEST}; give fewer seeds "
                         "with --seeds")
    return data


def write(out: Path, requests: Sequence[Request], seeds: Sequence[int] = ()) -> list[Path]:
    """Writes <ablation>.html for each request into a folder, and index.html if there are several; returns their paths.

    Raises BenchError for two requests of one ablation, and as `gather`.
    """
    reports = [gather(request, seeds) for request in requests]
    names = [report.name for report in reports]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BenchError(f"{twice} is named twice; name each ablation once")
    files = {f"{report.name}.html": render(report) for report in reports}
    if len(reports) > 1:
        files["index.html"] = template("index.html.j2").render(
            reports=[replace(report, galleries=(), sheet=None) for report in reports],
            sizes={report.name: len(files[f"{report.name}.html"]) for report in reports}).encode()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            replace_file(out / name, data)
    return [out / name for name in files]


def template(name: str) -> Any:
    """Returns a template of a page."""
    import jinja2  # not at the top: other tables need none

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.tables.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(name)
