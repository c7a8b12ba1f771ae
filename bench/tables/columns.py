"""The columns of a table's blocks, and how numbers are written in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.experiment.ablation import HEADLINE
from bench.experiment.variant import innermost
from bench.metrics import DEFINITIONS
from bench.statistics import Interval, Null
from bench.tables.formats import Column, Printed
from bench.tables.model import Contrast, Row, Table
from bench.tables.scores import RETRIEVED, Scores

PAPER = "paper, 50-way, ImageNet-EEG, %"
NOT_RUN, NOTHING = "not run", "-"
HEADERS = {  # of columns that an ablation asks for, and what stands where its key says among how many
    "retrieval_top1": "top-1 of {}", "retrieval_top5": "top-5 of {}", "retrieval_2way": "2-way",
    "retrieval_4way": "4-way", "retrieval_10way": "10-way", "pixcorr": "PixCorr", "ssim": "SSIM",
    "two_way_alexnet2": "two-way, AlexNet(2)", "two_way_alexnet5": "two-way, AlexNet(5)",
    "two_way_inception": "two-way, Inception", "two_way_clip": "two-way, CLIP",
    "two_way_clip_tiny": "two-way, tiny CLIP", "two_way_judge_layer2": "two-way, judge's layer 2",
    "two_way_judge_layer4": "two-way, judge's layer 4", "two_way_judge_features": "two-way, judge's features",
    "correlation_swav": "SwAV distance", "correlation_efficientnet": "EffNet distance",
    "correlation_judge": "judge's correlation distance",
}
ALPHA = 0.05


def metric_header(scores: Scores, metric: str) -> str:
    """A metric's, with its unit."""
    of = scores.key(metric).partition(" of ")[2].removesuffix(" pictures")
    header, unit = HEADERS.get(metric, DEFINITIONS[metric].title).format(of), DEFINITIONS[metric].unit
    return f"{header}, {unit.replace('share', '%')}" if unit else header


def _literature_columns(rows: pd.DataFrame) -> tuple[Column, ...]:
    def value(one: Any) -> str:
        return f"{one.value} {one.unit}".strip()

    return (Column("system", tuple(rows["here"]), left=True),
            Column("in the literature", tuple(rows["row"]), left=True),
            Column("metric", tuple(rows["metric"]), left=True),
            Column("value", tuple(value(one) for one in rows.itertuples())),
            Column("on", tuple(rows["dataset"]), 1, left=True),
            Column("read in", tuple(one or "paper" for one in rows["read_in"]), 2, left=True),
            Column("printed by", tuple(f"{one.paper}, {one.place}" for one in rows.itertuples()), 3, left=True),
            Column("contradicts", tuple(one or NOTHING for one in rows["contradicts"]), 4, left=True))


def settings_of(spec: Any) -> tuple[str, str, str, str]:
    """Of a Variant, also of one that is measured on other items; of another system nothing."""
    spec = innermost(spec)
    if not hasattr(spec, "mask_ratio"):
        return (NOTHING,) * 4
    pretraining = "none" if spec.mask_ratio is None else f"mask {spec.mask_ratio:g}"
    align = {"clip": "yes", "label": "labels instead", None: "no"}.get(spec.align, str(spec.align))
    size = spec.size if spec.encoder == "msm_vit" else f"{Path(spec.encoder).stem}, {spec.size}"
    return pretraining, align if spec.sd_loss else f"{align}, alone", spec.tune, size


def permuted_text(headline: str) -> str:
    """What is permuted for a row that must not know the stimulus."""
    return "permuted pictures" if headline == RETRIEVED else "permuted labels"


def print_table(t: Table) -> Printed:
    """The table as it is printed in any format."""
    blocks = [_row_columns(t)] + ([_contrast_columns(t)] if t.differences else [])
    if t.literature is not None:
        blocks.append(_literature_columns(t.literature))
    return Printed(t.title, tuple(blocks), t.caption, _tidy_frame(t))


def _row_columns(t: Table) -> tuple[Column, ...]:
    top1, nway = t.labels
    own = {metric for metric, _ in t.columns}

    def ran(row: Row) -> str:
        return percent(row.top1) if row.top1 else "failed" if row.failed else NOT_RUN

    def mean(metric: str, digits: int, factor: float = 1) -> Callable[[Row], str]:
        return lambda row: number_text(row.means.get(metric), digits, factor)

    plan: list[tuple[str, Callable[[Row], str], int, bool]] = [
        ("variant", lambda r: r.name, 0, True),
        ("pre-training", lambda r: r.settings[0], 3, True),
        ("CLIP", lambda r: r.settings[1], 8, True),
        ("tuned", lambda r: r.settings[2], 9, True),
        ("encoder's label", lambda r: r.settings[3], 11, True),
        ("parameters", lambda r: NOTHING if r.params is None else f"{r.params:,}", 7, False),
        *([("trained parameters", lambda r: number_text(r.means.get("trained_parameters"), 0, form=","), 8, False),
           ("training, s", lambda r: number_text(r.seconds[0] if r.seconds else None, 0), 9, False),
           ("sampling, s", lambda r: number_text(r.seconds[1] if r.seconds else None, 1), 9, False)] if t.costs else []),
        ("seeds", lambda r: str(len(r.seeds)), 4, False),
        (f"{top1} [95%]", ran, 0, False),
        ("gain over shuffled, points [95%]", lambda r: percent(r.gain, False) if r.gain else NOTHING, 5, False),
        ("null to ceiling, %", lambda r: number_text(r.way, 0, 100), 6, False),
        (f"{permuted_text(t.headline)}, % [95%]", lambda r: null_text(r.null) if r.null else NOTHING, 2, False),
        ("exceeds them (Holm)", lambda r: NOTHING if r.exceeds is None else
            f"{'yes' if r.exceeds <= ALPHA else 'no'}, p {p_text(r.exceeds, '= ')}", 0, False),
        *([(nway, mean("nway_label", 1, 100), 1, False)] if nway else []),
        *((header, mean(metric, *((1, 100) if DEFINITIONS[metric].unit == "share" else (3,))), 6, False)
          for metric, header in t.columns if metric != t.headline),
        ("FID", mean("fid", 2), 10, False),
        ("IS", mean("is", 2), 12, False),
        *([("SSIM", mean("ssim", 3), 14, False)] if "ssim" not in own else []),
        ("PSNR, dB", mean("psnr", 1), 15, False),
        ("judge distance", mean("judge_distance", 3), 13, False),
    ]
    if t.has_paper:
        plan.append((PAPER, lambda r: number_text(r.paper, 1), 0, False))
    columns = [Column(header, tuple(cell(row) for row in t.entries), drop, left) for header, cell, drop, left in plan]
    return tuple(column for column in columns if set(column.cells) - {NOTHING})


def _contrast_columns(t: Table) -> tuple[Column, ...]:
    def points(c: Contrast) -> str:
        if c.verdict:
            return percent(c.verdict.interval, within=False)
        return number_text(c.mean, 1, 100, "+") if c.mean is not None else c.said

    plan: list[tuple[str, Callable[[Contrast], str], int, bool]] = [
        ("difference", lambda c: c.name, 0, True),
        (f"{t.labels[0].removesuffix(', %')}, points [95%, simultaneous]", points, 0, False),
        ("p (Holm)", lambda c: p_text(c.verdict.p) if c.verdict else NOTHING, 3, False),
        ("verdict", lambda c: c.said, 0, True),
        ("would resolve it", lambda c: (c.verdict.needs if c.verdict else "") or NOTHING, 4, True),
        ("seeds", lambda c: str(c.verdict.interval.seeds if c.verdict else 0), 2, False),
    ]
    if t.has_paper:
        plan.append((PAPER.replace("%", "points"), lambda c: number_text(c.paper, 1, sign="+"), 1, False))
    columns = [Column(header, tuple(cell(c) for c in t.differences), drop, left) for header, cell, drop, left in plan]
    return tuple(column for column in columns if set(column.cells) - {NOTHING})


def _tidy_frame(t: Table) -> pd.DataFrame:
    """Rows and contrasts in full precision; `kind` tells them apart, accuracies are in per cent or points."""
    top1 = "top1" if t.headline == HEADLINE else t.headline

    def scaled(prefix: str, it: Interval | Null | None) -> dict[str, float]:
        return {} if it is None else {f"{prefix}": 100 * it.mean, f"{prefix}_low": 100 * it.low,
                                      f"{prefix}_high": 100 * it.high}

    lines: list[dict[str, Any]] = []
    for row in t.entries:
        lines.append({"kind": "row", "name": row.name, "failed": int(row.failed and row.top1 is None),
                      "seeds": len(row.seeds), "params": row.params, "paper_50way_imagenet_eeg": row.paper}
                     | dict(zip(("pretraining", "clip", "tuned", "encoder"), row.settings, strict=True))
                     | scaled(top1, row.top1) | scaled("gain", row.gain) | scaled("null", row.null)
                     | {"null_to_ceiling": None if row.way is None else 100 * row.way, "p": row.exceeds}
                     | {f"mean_{metric}": value for metric, value in row.means.items()})
    for c in t.differences:
        given = {} if c.verdict is None else scaled(top1, c.verdict.interval) | {
            "seeds": c.verdict.interval.seeds, "p": c.verdict.p, "needs": c.verdict.needs}
        lines.append({"kind": "contrast", "name": c.name, "verdict": c.said, "paper_50way_imagenet_eeg": c.paper,
                      top1: None if c.mean is None else 100 * c.mean} | given)
        lines += [{"kind": "McNemar, given these models", "name": c.name, "seed": seed, "p": p}
                  for seed, p in c.mcnemar.items()]
    head = ["kind", "name", "seed", "seeds", "failed", top1, f"{top1}_low", f"{top1}_high", "gain", "gain_low",
            "gain_high", "null_to_ceiling", "null", "null_low", "null_high", "p", "verdict", "needs",
            "paper_50way_imagenet_eeg", "pretraining", "clip", "tuned", "encoder", "params"]
    head += sorted({name for line in lines for name in line} - set(head))
    return pd.DataFrame([{name: line.get(name) for name in head} for line in lines], columns=head, dtype=object)


def listed(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values)


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def percent(interval: Interval | None, within: bool = True) -> str:
    """"45.1 [40.2, 50.0]" in per cent; an accuracy's interval ends at 0 and 100, a difference's at -100 and 100."""
    if interval is None:
        return NOT_RUN
    low, high = max(interval.low, 0.0 if within else -1.0), min(interval.high, 1.0)
    sign = "" if within else "+"
    return f"{100 * interval.mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def null_text(null: Null) -> str:
    return f"{100 * null.mean:.1f} [{100 * null.low:.1f}, {100 * null.high:.1f}]"


def p_text(p: float, equals: str = "") -> str:
    return "< 0.001" if p < 0.0005 else f"{equals}{p:.3f}"


def number_text(value: float | None, digits: int, factor: float = 1, sign: str = "", form: str = "") -> str:
    return NOTHING if value is None else f"{factor * value:{sign}{form}.{digits}f}"
