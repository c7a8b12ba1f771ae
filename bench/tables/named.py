"""What `bench table NAME` prints: an ablation, table1, or any CSV of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.experiment import ablation as ablations
from bench.scoring import schema
from bench.tables import results
from bench.tables.build import table
from bench.tables.columns import NOTHING
from bench.tables.formats import Column, Printed
from bench.tables.table1 import table1


def named(name: str, folder: Path, controls: bool = False, subjects: Sequence[int] = ()) -> Printed:
    """What `bench table NAME` prints from the results in a folder: an ablation by its name or file
    (`ablation.asked`), "table1", or one CSV by its path. Raises BenchError for what does not exist."""
    if name.endswith(".csv"):
        return external(Path(name))
    if name == "table1":
        return table1(folder)
    chosen = ablations.asked(name, subjects, controls)
    return table(folder, chosen.name, chosen).printed()


def external(path: Path) -> Printed:
    """The metrics in one CSV of the results' schema that lies anywhere, such as one of `bench score`. Errors as
    `results.read_csv`."""
    every = results.read_csv(path)
    rows = every[every["metric"] != schema.FAILED]
    columns = [Column(name, tuple(rows[name].astype(str)), left=True) for name in schema.GROUP
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
              every[every["metric"] == schema.FAILED].itertuples()]
    return Printed(f"Scores in {path.name}", (tuple(columns),),
                   (*caption, *(f"Failed: {line}." for line in failed)),
                   every.astype(object).where(every.notna(), None))
