"""Columns of results CSVs, and the text of their cells."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

SCHEMA = 2  # of <ablation>.csv; schema 1 lacks this column and PROVENANCE, leaky, versions and failed
PROVENANCE = ("extractor", "extractor_sha256", "comparable")
METRICS = ("metric", "key", "value", "n", *PROVENANCE)  # of a scoring stage's metrics.csv
GROUP = ("variant", "seed", "items")
KEY = (*GROUP, "metric", "key")
ABOUT = ("scale", "world", "config", "spec", "judge", "numerics", "pretrain_seeds", "params", "paper_params", "leaky",
         "versions", "failed", "stage")
COLUMNS = ("schema", "ablation", *KEY, "value", "n", *PROVENANCE, *ABOUT)
FAILED = "failed"  # the metric of a row without numbers, and the column with the reason
ITEM_KEY = (*GROUP, "item", "sample")
ITEM_HEAD = (*ITEM_KEY, "subject", "picture", "label", "judged_real", "judged")  # the others follow by name


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """Returns the frame as CSV: `%.10g`, `\\n`, columns and rows in their order. Raises ValueError for NaN."""
    return to_csv(as_text(frame))


def gzipped(data: bytes) -> bytes:
    """Compresses data without a file name or time, so that equal data give equal files."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as file:
        file.write(data)
    return buffer.getvalue()


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Converts every cell to its text in the file; text stays as it is."""
    return pd.DataFrame({name: frame[name].astype(object).map(_cell) for name in frame}, dtype=object)


def to_csv(text: pd.DataFrame) -> bytes:
    """Returns a frame of text as CSV."""
    return text.to_csv(index=False, lineterminator="\n").encode()


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns lines of text with the columns of the rows below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell(value: Any) -> str:
    if type(value) is float and isfinite(value):  # most cells
        return f"{value:.10g}"
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            raise ValueError("a number is NaN")
        return f"{value:.10g}"
    return "" if value is None else str(value)
