"""Table 1 of DreamDiffusion beside Full."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.errors import BenchError
from bench.tables import results
from bench.tables.captions import provenance_lines
from bench.tables.columns import listed, number_text
from bench.tables.formats import Column, Printed
from bench.tables.literature import PUBLISHED
from bench.tables.scores import Measured, Scores


def table1(folder: Path, published: Path = PUBLISHED) -> Printed:
    """Table 1 of DreamDiffusion beside Full's numbers, from table2 or else the first ablation in the folder that holds
    Full. A stand-in for a metric stands under a header of its own. Errors as `results.read`."""
    others = sorted(path.stem for path in folder.glob("*.sha256") if path.stem != "table2")
    for name in ("table2", *others):
        if f"{name}.sha256" in {path.name for path in folder.glob("*.sha256")}:
            scores = Scores(results.read(folder, name))
            if scores.means(("Full", "real")):
                break
    else:
        raise BenchError(f"no results of Full in {folder}; make them with: bench run --ablation table2 --variants Full")
    path = published / "dreamdiffusion_table1.csv"
    if not path.is_file():
        raise BenchError(f"{path} is not there: it holds the numbers that the paper prints; restore it")
    paper = pd.read_csv(path, dtype={"row": str})
    scale = "; ".join(scores.values("scale"))
    ours = f"Full, scale {scale}"
    names = [*dict.fromkeys(paper["row"])]
    printed = {(row, metric): value for row, metric, value in
               paper[["row", "metric", "value"]].itertuples(index=False, name=None)}
    measured = scores.measured(("Full", "real"))
    columns = [Column("row", (*(f"{name}, as printed" for name in names), ours), left=True)]
    shown = []
    for header, metric, digits, drop in (
            ("FID", "fid", 2, 0), ("IS", "is", 2, 0), ("PSNR, dB", "psnr", 1, 3), ("SSIM", "ssim", 3, 0),
            ("SSIM, the released code's", "ssim_released", 3, 1), ("LPIPS", "lpips", 3, 0),
            ("judge distance, no LPIPS", "judge_distance", 3, 2)):
        if metric in measured or any((name, metric) in printed for name in names):
            published_cells = [number_text(printed.get((name, metric)), digits) for name in names]
            own = _measured(measured[metric], digits) if metric in measured else f"not measured at {scale}"
            columns.append(Column(header, (*published_cells, own), drop))
            shown.append(metric)
    records = [{"row": name, "metric": metric, "value": value, "scale": "as printed", "seeds": ""}
               for (name, metric), value in printed.items()]
    records += [{"row": "Full", "metric": metric, "value": one.mean, "scale": scale, "seeds": one.seeds}
                for metric, one in measured.items()]
    keys = ", ".join(f"{metric}: {one.key}" for metric, one in measured.items()
                     if one.key and metric in shown)
    caption = [
        f"Full's row: {name}, scale {scale}, world {'; '.join(scores.values('world'))}, seeds "
        f"{listed(scores.seeds(('Full', 'real')))}; {keys}. The paper's rows were measured on other pictures "
        "with other networks: no number of one compares with one of the other.",
        "by judge, or another name: with that network's features, which the literature does not use. [ ] is a 95 % "
        "interval over test pictures crossed with seeds; SD: over seeds. One seed says nothing about training.",
        *provenance_lines(scores), *dict.fromkeys(f"{row}: {note}." for row, note in
                                             paper[["row", "note"]].dropna().itertuples(index=False, name=None)),
        f"The paper's rows: {paper['paper'].iloc[0]}, Table 1."]
    return Printed("Table 1 of DreamDiffusion, and Full here", (tuple(columns),), tuple(caption), pd.DataFrame(records))


def _measured(one: Measured, digits: int) -> str:
    value = f"{one.mean:.{digits}f}"
    if one.interval:
        value += f" [{one.interval.low:.{digits}f}, {one.interval.high:.{digits}f}]"
    elif one.sd is not None:
        value += f" (SD {one.sd:.{digits}f})"
    return f"{value}, by {one.by.rpartition('/')[2]}" if one.by else value
