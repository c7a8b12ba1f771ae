"""Finds the rows of a table in the CSVs of other ablations, by the digest of their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bench.experiment.key import digest
from bench.tables import results
from bench.tables.results import Results
from bench.tables.scores import NULL


def read(folder: Path, name: str, ablation: Any) -> tuple[Results, str]:
    """Reads the results of an ablation and returns them with a note about their source.

    They are in its own CSV (the note is ""). Without one, each row comes from the CSV in the folder that holds the most
    of the rows, reference rows from the first of these CSVs. Errors as `results.read`.
    """
    wanted = {variant.name: (digest(variant), getattr(variant, "eeg", "real")) for variant in ablation.variants}
    held = {} if (folder / f"{name}.sha256").exists() or (folder / f"{name}.csv").exists() else _held(folder, wanted)
    if not held:
        return results.read(folder, name), ""
    parts, taken, sources = list[Results](), set[str](), list[str]()
    for other in sorted(held, key=lambda each: (-len(held[each]), each)):
        if names := [variant for variant in wanted if variant in held[other] - taken]:
            parts.append(_select(results.read(folder, other), {each: wanted[each] for each in names}, not parts))
            taken |= set(names)
            sources.append(f"{other}.csv ({', '.join(names)})")
    merged = Results(pd.concat([part.rows for part in parts], ignore_index=True),
                     pd.concat([part.items for part in parts], ignore_index=True))
    return merged, f"No {name}.csv: rows with the same settings are from {', '.join(sources)}."


def _held(folder: Path, wanted: dict[str, tuple[str, str]]) -> dict[str, set[str]]:
    """Returns, for each CSV in the folder that holds any, the names of the rows it holds."""
    held = {}
    for path in sorted(folder.glob("*.sha256")):
        try:
            lines = pd.read_csv(path.with_suffix(".csv"), usecols=["spec", "items"], dtype=str,
                                keep_default_na=False)
        except (OSError, ValueError):  # `results.read` reports a damaged file, if it is needed
            continue
        known = set(zip(lines["spec"], lines["items"], strict=True))
        if names := {name for name, row in wanted.items() if row in known}:
            held[path.stem] = names
    return held


def _select(recorded: Results, wanted: dict[str, tuple[str, str]], references: bool) -> Results:
    """Returns the wanted rows under the names in `wanted`; references: also null, ceiling, classifiers and probes."""
    rows, items = recorded.rows, recorded.items
    parts, item_parts, renamed = list[pd.DataFrame](), [items.iloc[:0]], dict[str, str]()

    def take(variant: str, kind: str, name: str, spec: str) -> None:
        numbers = rows[(rows["variant"] == variant) & (rows["items"] == kind) & (rows["spec"] == spec)]
        parts.append(numbers.assign(variant=name))
        if len(items):
            each = items[(items["variant"] == variant) & (items["items"] == kind) & items["seed"].isin(numbers["seed"])]
            item_parts.append(each.assign(variant=name))

    for name, (spec, kind) in wanted.items():
        variant = rows.loc[(rows["spec"] == spec) & (rows["items"] == kind), "variant"].iloc[0]
        renamed[variant] = name
        take(variant, kind, name, spec)
        null = (rows["variant"] == f"{variant} / EEG shuffled") & (rows["items"] == "shuffled")
        for its_spec in rows.loc[null, "spec"].unique()[:1]:
            take(f"{variant} / EEG shuffled", "shuffled", f"{name} / EEG shuffled", its_spec)
    if references:
        worlds = set(pd.concat(parts)["world"])
        beside = rows[(rows["spec"] == "") & rows["world"].isin(worlds)]
        for variant, kind in beside[["variant", "items"]].drop_duplicates().itertuples(index=False, name=None):
            if (variant, kind) == NULL or kind in ("captions", "readout") or (kind == "probe" and variant in renamed):
                take(variant, kind, renamed.get(variant, variant) if kind == "probe" else variant, "")
    return Results(pd.concat(parts), pd.concat(item_parts))
