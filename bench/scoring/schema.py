"""Columns of results CSVs, and how a number is written in them."""

from __future__ import annotations

import gzip
import io
from typing import Any

import numpy as np
import pandas as pd

SCHEMA = 2  # of <ablation>.csv; schema 1 had neither this column nor PROVENANCE, leaky, versions and failed
PROVENANCE = ("extractor", "extractor_sha256", "comparable")
METRICS = ("metric", "key", "value", "n", *PROVENANCE)  # what a scoring stage writes
GROUP = ("variant", "seed", "items")
KEY = (*GROUP, "metric", "key")
ABOUT = ("scale", "world", "config", "spec", "judge", "numerics", "pretrain_seeds", "params", "paper_params", "leaky",
         "versions", "failed", "stage")
COLUMNS = ("schema", "ablation", *KEY, "value", "n", *PROVENANCE, *ABOUT)
FAILED = "failed"  # the metric of a row that has no numbers, and the column that says why
ITEM_KEY = (*GROUP, "item", "sample")
ITEM_HEAD = (*ITEM_KEY, "subject", "picture", "label", "judged_real", "judged")  # the others follow by name


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """The frame as CSV: `%.10g`, `\\n`, in the order given. ValueError for NaN."""
    return to_csv(as_text(frame))


def gzipped(data: bytes) -> bytes:
    """gzip without name and time, so that equal data are equal files."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as file:
        file.write(data)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            raise ValueError("a number is NaN")
        return f"{value:.10g}"
    return "" if value is None else str(value)


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Every cell as the text that stands in the file; text stays as it is."""
    return pd.DataFrame({name: frame[name].astype(object).map(_cell) for name in frame}, dtype=object)


def to_csv(text: pd.DataFrame) -> bytes:
    return text.to_csv(index=False, lineterminator="\n").encode()
