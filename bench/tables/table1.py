"""Table 1 of DreamDiffusion, with Full's row."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.errors import BenchError
from bench.tables import results
from bench.tables.captions import disclaimer, provenance_lines
from bench.tables.columns import listed, number_text
from bench.tables.formats import Column, Document, Printed
from bench.tables.literature import PUBLISHED
from bench.tables.scores import Measured, Scores

METRICS = (("FID", "fid", 2), ("IS", "is", 2), ("PSNR, dB", "psnr", 1), ("SSIM", "ssim", 3), ("LPIPS", "lpips", 3),
           ("judge distance, no LPIPS", "judge_distance", 3), ("SSIM, the released code's", "ssim_released", 3))
FULL = ("Full", "real")


def table1(folder: Path, published: Path = PUBLISHED, command: str = "bench table table1") -> Document:
    """Returns Table 1 of DreamDiffusion with Full's numbers, from table2 or else the first CSV in the folder with Full.

    A metric that replaces one of the paper has its own header. Errors as `results.read`.
    """
    recorded = sorted({path.stem for path in folder.glob("*.sha256")}, key=lambda name: (name != "table2", name))
    for name in recorded:
        scores = Scores(results.read(folder, name))
        if scores.means(FULL):
            break
    else:
        raise BenchError(f"no results of Full in {folder}; make them with: bench run --ablation table2 --variants Full")
    path = published / "dreamdiffusion_table1.csv"
    if not path.is_file():
        raise BenchError(f"{path} does not exist; it holds the numbers that the paper prints: restore it")
    paper = pd.read_csv(path, dtype={"row": str}, keep_default_na=False, na_values={"value": [""], "note": [""]})
    scale = "; ".join(scores.values("scale"))
    names = [*dict.fromkeys(paper["row"])]
    printed = {(row, metric): value for row, metric, value in
               paper[["row", "metric", "value"]].itertuples(index=False, name=None)}
    measured = scores.measured(FULL)
    row = Column("row", (*(f"{name}, as printed" for name in names), f"Full, scale {scale}"), True, True)
    short, complete, shown = [row], [row], []
    for header, metric, digits in METRICS:
        if metric in measured or any((name, metric) in printed for name in names):
            cells = [number_text(printed.get((name, metric)), digits) for name in names]
            value = measured.get(metric)
            complete.append(Column(header, (*cells, _measured(value, digits) if value else f"not measured at {scale}")))
            short.append(Column(header, (*cells, f"{value.mean:.{digits}f}{' *' * bool(value.by)}" if value else "-")))
            shown.append(metric)
    records = [{"row": name, "metric": metric, "value": value, "scale": "as printed", "seeds": ""}
               for (name, metric), value in printed.items()]
    records += [{"row": "Full", "metric": metric, "value": value.mean, "scale": scale, "seeds": value.seeds}
                for metric, value in measured.items()]
    seeds, world = listed(scores.seeds(FULL)), "; ".join(scores.values("world"))
    networks = listed(sorted({value.by for metric, value in measured.items() if metric in shown} - {""}))
    keys = ", ".join(f"{metric}: {measured[metric].key}" for metric in shown
                     if metric in measured and measured[metric].key)
    apart = ("The paper's rows were measured on other images with other networks: they cannot be compared with Full's "
             "row.")
    about = f"The paper's rows: {paper['paper'].iloc[0]}, Table 1."
    notes = dict.fromkeys(f"{name}: {note}." for name, note in
                          paper[["row", "note"]].dropna().itertuples(index=False, name=None))
    caption = [
        f"Full's row: {name}, scale {scale}, world {world}, seeds {seeds}; {keys}. {apart}",
        "by judge, or another name: with the features of that network, which the literature does not use. [ ] is a "
        "95 % interval over test images crossed with seeds; SD: over seeds. One seed says nothing about training.",
        *provenance_lines(scores), *notes, about]
    brief = [f"Full's row: {name}.csv, scale {scale}, seeds {seeds}.{disclaimer(scale)}", f"{about} {apart}",
             *([f"*: with the features of {networks}, which the literature does not use."] if networks else []),
             f"More (intervals, keys, audit): {command} --details"]
    title = "Table 1 of DreamDiffusion, and Full here"
    return Document(Printed(title, "", (tuple(short[:8]),), tuple(brief)),
                    Printed(title, "", (tuple(complete),), tuple(caption)), pd.DataFrame(records))


def _measured(value: Measured, digits: int) -> str:
    text = f"{value.mean:.{digits}f}"
    if value.interval:
        text += f" [{value.interval.low:.{digits}f}, {value.interval.high:.{digits}f}]"
    elif value.sd is not None:
        text += f" (SD {value.sd:.{digits}f})"
    return f"{text}, by {value.by.rpartition('/')[2]}" if value.by else text
