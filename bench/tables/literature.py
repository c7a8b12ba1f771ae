"""Published numbers: results/published/*.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.experiment.ablation import Published
from bench.modules import shipped_results
from bench.scoring.schema import align

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


def retrieval_lines(images: int, folder: Path = PUBLISHED) -> list[str]:
    """Returns lines of text with published accuracies, top-1 and top-5 in per cent, of retrieval among so many
    images."""
    found = pd.read_csv(folder / "neighbours.csv", dtype=str, keep_default_na=False)
    found = found[(found["n_way"] == str(images)) & found["metric"].isin(["retrieval_top1", "retrieval_top5"])]
    if not len(found):
        return []
    table = found.pivot_table(index=["paper", "place", "row", "dataset"], columns="metric", values="value", sort=False,
                              aggfunc="first").reindex(columns=["retrieval_top1", "retrieval_top5"]).fillna("-")
    return align([("top-1", "top-5", "row", "data", "source"), *(
        (*numbers, row, data, f"{paper.rpartition('(')[2].rstrip(')')}, {place}")
        for (paper, place, row, data), numbers in zip(table.index, table.to_numpy(), strict=True))])
