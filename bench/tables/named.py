"""The tables that `bench table NAME` prints: an ablation, table1, or any CSV of results."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.experiment import ablation as ablations
from bench.experiment.scale import scale
from bench.scoring import schema
from bench.setup.request import Request
from bench.tables import results
from bench.tables.build import table
from bench.tables.columns import NOTHING, counted
from bench.tables.formats import Column, Document, Printed
from bench.tables.model import Table
from bench.tables.table1 import table1


def named(name: str, folder: Path, controls: bool = False, subjects: Sequence[int] = (),
          command: str = "") -> Table | Document:
    """Returns a table from the results in a folder: an ablation by name or file, "table1", or a CSV by its path.

    command: prints this table (default: bench table NAME). Raises BenchError for what does not exist.
    """
    command = command or f"bench table {name}"
    if name.endswith(".csv"):
        return external(Path(name), command)
    if name == "table1":
        return table1(folder, command=command)
    ablation = ablations.load(name, subjects, controls)
    return table(folder, ablation.name, ablation, command=command)


def requested(request: Request) -> Table | Document:
    """Returns the table that a request asks for. Errors as `named`."""
    subjects = ablations.resolve_subjects(request.subjects, scale(request.scale))
    return named(request.ablation, request.source_folder, request.with_controls, subjects, table_command(request))


def table_command(request: Request) -> str:
    """Returns the command that prints the table of a request: "bench table mask_ratio --scale micro"."""
    subjects = request.subjects if request.subjects == "all" else ",".join(map(str, request.subjects))
    results_folder = "" if request.results == Request().results else str(request.results)
    options = {"scale": "" if request.scale == Request().scale else request.scale, "results": results_folder,
               "pairs": request.pairs, "judge": request.judge, "subjects": subjects}
    words = ["bench", "table", request.ablation]
    words += [word for name, value in options.items() if value for word in (f"--{name}", value)]
    words += ["--reference"] * request.reference + ["--with-controls"] * request.with_controls
    return shlex.join(words)


def external(path: Path, command: str) -> Document:
    """Returns the metrics of one CSV of the results' schema, such as one of `bench score`. Errors as
    `results.read_csv`."""
    every = results.read_csv(path)
    rows = every[every["metric"] != schema.FAILED]

    def column(header: str, cells: Iterable[str], left: bool = True) -> Column:
        return Column(header, tuple(cells), left, header in ("of", "variant"))

    values = [f"{value:.6g}" for value in rows["value"]]
    shared = [column(name, rows[name].astype(str)) for name in schema.GROUP if rows[name].nunique() > 1]
    shared += [column("metric", rows["metric"]), column("of", rows["key"])]
    marked = [value if flag else f"{value} *" for value, flag in zip(values, rows["comparable"], strict=True)]
    complete = [*shared, column("value", values, left=False), column("N", rows["n"].astype(str), left=False),
                column("extractor", [name or NOTHING for name in rows["extractor"]]),
                column("compares with the literature", ["yes" if flag else "no" for flag in rows["comparable"]])]

    def distinct(name: str) -> str:
        return "; ".join(sorted({str(value) for value in rows[name]} - {""})) or "not recorded"

    about = (f"Scale {distinct('scale')}. Judge {distinct('judge')}. Numerics {distinct('numerics')}. "
             f"Leak: {distinct('leaky')}.") if len(rows) else "The file contains no results."
    failed = [f"Failed: {line.variant}, seed {line.seed}: {line.failed}." for line in
              every[every["metric"] == schema.FAILED].itertuples()]
    title = f"Scores in {path.name}"
    few = failed if len(failed) < 3 else [f"{counted(len(failed), 'row')} failed; the first: {failed[0]}"]
    notes = [*few, about]
    if not rows["comparable"].all():
        notes.append("*: measured with a network that the literature does not use.")
    return Document(Printed(title, "", ((*shared, column("value", marked, left=False)),),
                            (*notes, f"More: {command} --details")),
                    Printed(title, "", (tuple(complete),),
                            (*failed, about, *([f"Versions: {distinct('versions')}."] if len(rows) else []))),
                    every.astype(object).where(every.notna(), None))
