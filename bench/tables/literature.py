"""Published numbers: results/published/*.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.experiment.ablation import Published
from bench.modules import shipped_results

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
