"""Published numbers: results/published/*.csv."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.experiment.ablation import Published
from bench.modules import shipped_results
from bench.tables.formats import Column, Printed, text

PUBLISHED = shipped_results() / "published"


def published_rows(names: Mapping[str, Sequence[Published]], folder: Path) -> pd.DataFrame | None:
    """Returns published numbers of the systems: columns here, row, metric, value, unit, dataset, paper, place, ..."""
    if not names:
        return None
    every = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in sorted(folder.glob("*.csv"))])
    both = pd.Series(zip(every["row"], every["dataset"], strict=True), every.index)
    rows = [every[every["row"].isin(wanted) | both.isin(wanted)].assign(here=here) for here, wanted in names.items()]
    return pd.concat(rows).fillna("").reset_index(drop=True)


def paper_column(stem: str | None, folder: Path) -> tuple[dict[str, float], str]:
    """Returns the paper's accuracies in per cent by row, and the note about them."""
    if stem is None:
        return {}, "The paper has no such rows."
    path = folder / f"{stem}.csv"
    if not path.is_file():
        return {}, f"The paper's column is left out: {path} does not exist."
    rows = pd.read_csv(path, dtype={"row": str}, keep_default_na=False, na_values={"value": [""]})
    rows = rows[rows["metric"] == "accuracy"]
    return dict(zip(rows["row"], rows["value"], strict=True)), f"The paper's column: {rows['paper'].iloc[0]}."


def published_retrieval(images: int, folder: Path = PUBLISHED) -> str:
    """Returns a table of published top-1 and top-5 accuracies of retrieval among so many images; "" if there are none.

    Values are in per cent; those of a file without the unit "%" are shares.
    """
    found = pd.read_csv(folder / "neighbours.csv", dtype=str, keep_default_na=False)
    found = found[(found["n_way"] == str(images)) & found["metric"].isin(["retrieval_top1", "retrieval_top5"])]
    if not len(found):
        return ""
    found = found.assign(value=[float(value) * (1 if unit == "%" else 100) for value, unit in zip(
        found["value"], found["unit"], strict=True)])
    table = found.pivot_table(index=["paper", "row", "dataset", "space"], columns="metric", values="value", sort=False,
                              aggfunc="first").reindex(columns=["retrieval_top1", "retrieval_top5"])
    papers, rows, data, spaces = (tuple(map(str, names)) for names in zip(*table.index, strict=True))
    numbers = (tuple("-" if value != value else f"{value:.2f}" for value in table[name]) for name in table)
    sources = tuple((re.findall(r"[(]([^()]*)[)]", paper) or [paper])[-1] for paper in papers)
    return text(Printed(f"Published retrieval among {images} images, in per cent", "", ((
        Column("row", rows, True, True), *map(Column, ("top-1", "top-5"), numbers), Column("data", data, True, True),
        Column("space", spaces, True, True), Column("source", sources, True, True)),),
        ("Their trials, subjects and choice of the epoch may differ; places and contradictions: "
         "results/published/neighbours.csv.",)))
