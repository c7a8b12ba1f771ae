"""The columns of a table's blocks, and how numbers are written in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.experiment.scale import HEADLINE, PAPER_HEADLINE
from bench.experiment.variant import innermost
from bench.metrics import DEFINITIONS
from bench.statistics import MOST_SEEDS, SIZES, Interval, Null
from bench.tables.formats import Column, Document, Printed
from bench.tables.model import Contrast, Row, Table
from bench.tables.scores import RETRIEVED, Scores

BALANCED = "balanced accuracy, %"  # beside top-1 where classes differ in their number of test items
PAPER = "paper, 50-way, ImageNet-EEG, %"
NOT_RUN, NOTHING, OWN_FAMILY = "not run", "-", "this table"
HEADERS = {  # of the columns that an ablation asks for; {} is the number of images
    "retrieval_top1": "top-1 of {} images", "retrieval_top5": "top-5 of {}", "retrieval_2way": "2-way",
    "retrieval_4way": "4-way", "retrieval_10way": "10-way", "pixcorr": "PixCorr", "ssim": "SSIM",
    "two_way_alexnet2": "two-way, AlexNet(2)", "two_way_alexnet5": "two-way, AlexNet(5)",
    "two_way_inception": "two-way, Inception", "two_way_clip": "two-way, CLIP",
    "two_way_clip_tiny": "two-way, tiny CLIP", "two_way_judge_layer2": "two-way, judge's layer 2",
    "two_way_judge_layer4": "two-way, judge's layer 4", "two_way_judge_features": "two-way, judge's features",
    "correlation_swav": "SwAV distance", "correlation_efficientnet": "EffNet distance",
    "correlation_judge": "judge's correlation distance",
}
NEIGHBOURS = (  # columns of the complete form: header, metric, digits, factor
    ("precision, %", "precision", 1, 100), ("recall, %", "recall", 1, 100), ("density", "density", 2, 1),
    ("coverage, %", "coverage", 1, 100), ("distance to training images / real", "train_ratio_clip", 2, 1),
    ("copies of training images, %", "copies_clip", 1, 100))
ACCURACIES = {  # headers of the judge's accuracies; {} are the words of the key before and after " of "
    HEADLINE: "top-1 of {}", "nway_label": "{}-way of {}", PAPER_HEADLINE: "{}-way of {}",
    "top1_fixed_judge": "top-1 of {}"}
GAIN = "gain over null, points [95% CI]"  # only if every row that decodes EEG has its own null
ALPHA = 0.05
MOST_COLUMNS = 8  # of a block in the short form


def metric_header(scores: Scores, metric: str) -> str:
    """Returns the header of a metric, with its unit."""
    if metric in ACCURACIES:
        return f"{ACCURACIES[metric].format(*scores.key(metric).partition(',')[0].split(' of '), '')}, %"
    of = scores.key(metric).partition(" of ")[2].removesuffix(" pictures")
    header, unit = HEADERS.get(metric, DEFINITIONS[metric].title).format(of), DEFINITIONS[metric].unit
    return f"{header}, {unit.replace('share', '%')}" if unit else header


def settings_of(spec: Any) -> tuple[str, str, str, str]:
    """Returns pre-training, CLIP, tuned and encoder of a Variant, also inside an On; dashes for another system."""
    spec = innermost(spec)
    if not hasattr(spec, "mask_ratio"):
        return (NOTHING,) * 4
    pretraining = "none" if spec.mask_ratio is None else f"mask {spec.mask_ratio:g}"
    align = {"clip": "yes", "label": "labels instead", None: "no"}.get(spec.align, str(spec.align))
    size = spec.size if spec.encoder == "msm_vit" else f"{Path(spec.encoder).stem}, {spec.size}"
    return pretraining, align if spec.sd_loss else f"{align}, alone", spec.tune, size


def permuted_text(headline: str) -> str:
    """Returns what is permuted for a row that cannot know the stimulus, with the metric if it is not the headline."""
    return {RETRIEVED: "permuted images", PAPER_HEADLINE: "top-1 against permuted classes of the real images"}.get(
        headline, "permuted labels")


def accuracy_name(scores: Scores) -> str:
    """Returns the name of the headline metric in a sentence: "top-1", "50-way"."""
    return f"{scores.key(PAPER_HEADLINE).partition(' ')[0]}-way" if scores.headline == PAPER_HEADLINE else "top-1"


def baseline_of(contrasts: Sequence[tuple[str, str]]) -> str:
    """Returns the row that at least half of the contrasts include; "" without one, or if these are only two of four."""
    counts = Counter(name for pair in contrasts for name in pair).most_common(1)
    name, count = counts[0] if counts else ("", 0)
    return name if 2 * count > len(contrasts) or (count > 2 and 2 * count == len(contrasts)) else ""


def document(t: Table) -> Document:
    """Returns the table in its short and complete forms."""
    over_worlds = [_worlds_columns(t)] if t.over_worlds else []
    complete = [_row_columns(t), *over_worlds] + ([_contrast_columns(t)] if t.differences else [])
    short = [_short_rows(t), *over_worlds] + ([_short_contrasts(t)] if t.differences else [])
    if t.literature is not None:
        complete.append(_literature_columns(t.literature))
    return Document(Printed(t.title, t.finding, tuple(short), t.notes),
                    Printed(t.title, t.finding, tuple(complete), t.caption), csv_frame(t))


def _columns(of: Sequence[Any], *plan: tuple[str, Callable[[Any], str]], left: Sequence[str] = (),
             wrap: Sequence[str] = ()) -> tuple[Column, ...]:
    """Returns the planned columns (header, cell) that have any content; left, wrap: headers of words."""
    columns = (Column(header, tuple(map(cell, of)), header in left, header in wrap) for header, cell in plan)
    return tuple(column for column in columns if set(column.cells) - {NOTHING})


def _short_rows(t: Table) -> tuple[Column, ...]:
    """Returns label, headline, gain, another accuracy, FID, verdict, and the paper's number."""
    accuracies = [(header, metric) for metric, header in t.columns
                  if metric != t.headline and DEFINITIONS[metric].unit == "share"]
    if t.labels[1]:
        accuracies = [(t.labels[1], t.second)]
    columns = _columns(
        t.entries, ("row", lambda r: r.label),
        (f"{t.labels[0]} [95% CI]", lambda r: _rounded(r.top1) if r.top1 else "failed" if r.failed else NOT_RUN),
        (f"{BALANCED} [95% CI]", lambda r: _rounded(r.balanced) if r.balanced else NOTHING),
        *([(GAIN, lambda r: _rounded(r.gain, False) if r.gain else NOTHING)] if t.has_gain else []),
        *((header, _mean(metric, 1, 100)) for header, metric in accuracies[:2]),
        ("FID", _mean("fid", 2)),
        *([(f"verdict against {t.baseline}", lambda r: r.verdict or NOTHING)] if t.baseline else []),
        *([("paper's 50-way, %", lambda r: number_text(r.paper, 1))] if t.has_paper else []),
        ("published top-1, %", _published_text(t)),
        left=("row",), wrap=("row",))
    return columns[:MOST_COLUMNS]


def _published_text(t: Table) -> Callable[[Row], str]:
    """Returns the cell with a row's published top-1 of retrieval among as many images, from the lowest to the highest
    value."""
    values: dict[str, list[float]] = {}
    if t.headline == RETRIEVED and t.literature is not None:
        rows = t.literature[(t.literature["metric"] == RETRIEVED) & (t.literature["unit"] == "%")]
        for name, value, images in zip(rows["here"], rows["value"], rows["n_way"], strict=True):
            if f" of {images} images" in t.labels[0]:
                values.setdefault(name, []).append(float(value))

    def cell(row: Row) -> str:
        printed = sorted(values.get(row.name, []))
        return " to ".join(f"{value:.1f}" for value in dict.fromkeys((*printed[:1], *printed[-1:]))) or NOTHING

    return cell


def _short_contrasts(t: Table) -> tuple[Column, ...]:
    def verdict(c: Contrast) -> str:
        return c.outcome.replace(", given these models", "").replace(": other test images", "")

    homes = {c.home for c in t.differences if c.verdict}
    home = next(iter(homes)) if len(homes) == 1 else ""
    rest = NOTHING if homes <= {""} else OWN_FAMILY
    words = ("contrast: first - second", "verdict on first", f"family in {home}" if home else "family")
    return _columns(t.differences, (words[0], lambda c: c.label),
                    ("difference, points [95% CI, simultaneous]", _points),
                    ("p (Holm)", lambda c: p_text(c.verdict.p) if c.verdict else NOTHING),
                    (words[2], lambda c: c.family or c.home or rest), (words[1], verdict),
                    ("detects, points", _detectable),
                    *([("paper's, points", lambda c: number_text(c.paper, 1, sign="+"))] if t.has_paper else []),
                    left=words, wrap=words)


def _row_columns(t: Table) -> tuple[Column, ...]:
    """Returns every column of the rows that has any content."""
    top1, second = t.labels
    costs = [("trained parameters", lambda r: number_text(r.means.get("trained_parameters"), 0, form=",")),
             ("training, s", lambda r: number_text(r.seconds[0] if r.seconds else None, 0)),
             ("sampling, s", lambda r: number_text(r.seconds[1] if r.seconds else None, 1))]
    gains = [(GAIN, lambda r: percent(r.gain, False) if r.gain else NOTHING),
             ("null to ceiling, %", lambda r: number_text(r.share_of_ceiling, 0, 100))]
    words = ("row", "pre-training", "CLIP", "tuned", "encoder's label", f"verdict against {t.baseline}")
    return _columns(
        t.entries, ("row", lambda r: r.label), ("pre-training", lambda r: r.settings[0]),
        ("CLIP", lambda r: r.settings[1]), ("tuned", lambda r: r.settings[2]),
        ("encoder's label", lambda r: r.settings[3]), ("parameters", lambda r: number_text(r.params, 0, form=",")),
        *(costs if t.costs else []), ("seeds", lambda r: str(len(r.seeds))),
        (f"{top1} [95% CI]", lambda r: percent(r.top1) if r.top1 else "failed" if r.failed else NOT_RUN),
        (f"{BALANCED} [95% CI]", lambda r: percent(r.balanced) if r.balanced else NOTHING),
        *(gains if t.has_gain else []),
        (f"{permuted_text(t.headline)}, % [95%]", lambda r: null_text(r.null) if r.null else NOTHING),
        ("exceeds them (Holm)", lambda r: NOTHING if r.exceeds is None else
            f"{'yes' if r.exceeds <= ALPHA else 'no'}, p {p_text(r.exceeds, '= ')}"),
        *([(second, _mean(t.second, 1, 100))] if second else []),
        *([("top-1 against the label, %", _mean(HEADLINE, 1, 100))] if t.headline == PAPER_HEADLINE else []),
        *((header, _mean(metric, *((1, 100) if DEFINITIONS[metric].unit == "share" else (3,))))
          for metric, header in t.columns if metric != t.headline),
        *((f"{header} [95% CI]" if any(metric in row.intervals for row in t.entries) else header, _interval(metric, 2))
          for header, metric in (("FID", "fid"), ("IS", "is"))),
        *([("SSIM [95% CI]", _interval("ssim", 3))] if "ssim" not in dict(t.columns) else []),
        ("PSNR, dB [95% CI]", _interval("psnr", 1)), ("LPIPS [95% CI]", _interval("lpips", 3)),
        ("judge distance", _mean("judge_distance", 3)),
        *((header, _mean(metric, digits, factor)) for header, metric, digits, factor in NEIGHBOURS
          if metric not in dict(t.columns)),
        *([(f"verdict against {t.baseline}", lambda r: r.verdict or NOTHING)] if t.baseline else []),
        *([(PAPER, lambda r: number_text(r.paper, 1))] if t.has_paper else []), left=words, wrap=("row",))


def _contrast_columns(t: Table) -> tuple[Column, ...]:
    """Returns every column of the contrasts that has any content."""
    words = ("contrast: first - second", "verdict on first", "family", "test")
    return _columns(
        t.differences, (words[0], lambda c: c.label),
        (f"{t.labels[0].removesuffix(', %')}, points [95% CI, simultaneous]", _points),
        ("p (Holm)", lambda c: p_text(c.verdict.p) if c.verdict else NOTHING), (words[2], _family),
        (words[1], lambda c: c.outcome), (words[3], lambda c: test_text(c) or NOTHING),
        ("detects, points", _detectable),
        *((f"seeds for {100 * size:g} points", partial(_seeds_for, size)) for size in SIZES),
        ("seeds", lambda c: str(c.verdict.interval.seeds if c.verdict else 0)),
        *([(PAPER.replace("%", "points"), lambda c: number_text(c.paper, 1, sign="+"))] if t.has_paper else []),
        left=words, wrap=words)


def _worlds_columns(t: Table) -> tuple[Column, ...]:
    """Returns the columns of the contrasts with the world as the sample."""
    words = ("over worlds: first - second", "verdict on first")
    return _columns(
        t.over_worlds, (words[0], lambda c: c.label), ("difference, points [95% CI, simultaneous]", _points),
        ("p (Holm)", lambda c: p_text(c.verdict.p) if c.verdict else NOTHING), (words[1], lambda c: c.outcome),
        ("detects, points", _detectable),
        *((f"worlds for {100 * size:g} points", partial(_seeds_for, size)) for size in SIZES),
        ("worlds", lambda c: str(c.verdict.interval.seeds) if c.verdict else NOTHING), left=words, wrap=words)


def _literature_columns(rows: pd.DataFrame) -> tuple[Column, ...]:
    words = ("system", "in the literature", "metric", "on", "read in", "printed by", "contradicts")
    return _columns(
        list(rows.itertuples()), ("system", lambda r: r.here), ("in the literature", lambda r: r.row),
        ("metric", lambda r: r.metric), ("value", lambda r: f"{r.value} {r.unit}".strip()), ("on", lambda r: r.dataset),
        ("read in", lambda r: r.read_in or "paper"), ("printed by", lambda r: f"{r.paper}, {r.place}"),
        ("contradicts", lambda r: r.contradicts or NOTHING), left=words, wrap=words)


def csv_frame(t: Table) -> pd.DataFrame:
    """Returns rows, contrasts, McNemar's p, contrasts over worlds and the agreement with the paper's order in full
    precision, told apart by `kind`; accuracies in per cent."""
    top1 = "top1" if t.headline == HEADLINE else t.headline

    def scaled(prefix: str, value: Interval | Null | None) -> dict[str, float]:
        return {} if value is None else {prefix: 100 * value.mean, f"{prefix}_low": 100 * value.low,
                                         f"{prefix}_high": 100 * value.high}

    lines: list[dict[str, Any]] = []
    for row in t.entries:
        lines.append({"kind": "row", "name": row.name, "label": row.label,
                      "failed": int(row.failed and row.top1 is None),
                      "seeds": len(row.seeds), "params": row.params, "paper_50way_imagenet_eeg": row.paper,
                      "verdict": row.verdict or None}
                     | dict(zip(("pretraining", "clip", "tuned", "encoder"), row.settings, strict=True))
                     | scaled(top1, row.top1) | scaled("balanced", row.balanced)
                     | scaled("gain", row.gain) | scaled("null", row.null)
                     | {"null_to_ceiling": row.share_of_ceiling and 100 * row.share_of_ceiling, "p": row.exceeds}
                     | {f"mean_{metric}": value for metric, value in row.means.items()}
                     | {f"mean_{metric}_{end}": getattr(interval, end) for metric, interval in row.intervals.items()
                        for end in ("low", "high")})
    for c in t.differences:
        family = _family(c)
        judged = {} if c.verdict is None else scaled(top1, c.verdict.interval) | {
            "seeds": c.verdict.interval.seeds, "p": c.verdict.p, "family": None if family == NOTHING else family,
            "test": test_text(c),
            "detectable": 100 * c.verdict.detectable if np.isfinite(c.verdict.detectable) else None} | {
            f"seeds_for_{100 * size:g}": count for size, count in c.verdict.seeds_for.items()}
        names = {"name": c.name, "label": c.label, "first": c.pair[0], "second": c.pair[1]}
        lines.append({"kind": "contrast", **names, "verdict": c.outcome, "paper_50way_imagenet_eeg": c.paper,
                      top1: None if c.mean is None else 100 * c.mean} | judged)
        lines += [{"kind": "McNemar, given these models", **names, "seed": seed, "p": p}
                  for seed, p in c.mcnemar.items()]
    lines += [{"kind": "over worlds", "name": c.name, "label": c.label, "first": c.pair[0], "second": c.pair[1],
               "verdict": c.outcome, top1: None if c.mean is None else 100 * c.mean}
              | ({} if c.verdict is None else scaled(top1, c.verdict.interval) | {
                  "worlds": c.verdict.interval.seeds, "p": c.verdict.p, "detectable": 100 * c.verdict.detectable})
              for c in t.over_worlds]
    lines += [{"kind": "order", "name": each.name, "rows": each.rows, "tau": each.tau, "tau_low": each.low,
               "tau_high": each.high, "tau_expected": each.expected, "tau_expected_low": each.null_low,
               "tau_expected_high": each.null_high, "p": each.p} for each in t.agreements]
    head = ["kind", "name", "label", "first", "second", "seed", "seeds", "failed", top1, f"{top1}_low", f"{top1}_high",
            "balanced", "balanced_low", "balanced_high", "gain", "gain_low", "gain_high", "null_to_ceiling", "null",
            "null_low", "null_high", "p", "family", "test", "verdict", "detectable",
            *(f"seeds_for_{100 * size:g}" for size in SIZES),
            "paper_50way_imagenet_eeg", "pretraining", "clip", "tuned", "encoder", "params"]
    head += sorted({name for line in lines for name in line} - set(head))
    return pd.DataFrame([{name: line.get(name) for name in head} for line in lines], columns=head, dtype=object)


def _mean(metric: str, digits: int, factor: float = 1) -> Callable[[Row], str]:
    return lambda row: number_text(row.means.get(metric), digits, factor)


def _interval(metric: str, digits: int) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        known = row.intervals.get(metric)
        ends = f" [{known.low:.{digits}f}, {known.high:.{digits}f}]" if known else ""
        return number_text(row.means.get(metric), digits) + ends

    return cell


def _points(c: Contrast) -> str:
    if c.verdict:
        return percent(c.verdict.interval, within=False)
    return number_text(c.mean, 1, 100, "+")


def test_text(c: Contrast) -> str:
    """Returns how a contrast was tested: "moderated" or "plain"; "" without a verdict."""
    return "" if c.verdict is None else "moderated" if c.verdict.moderated else "plain"


def _family(c: Contrast) -> str:
    """Returns "primary", "table2, primary", or "-" for a table whose contrasts are one family of its own."""
    return ", ".join(filter(None, [c.home, c.family])) or NOTHING


def _detectable(c: Contrast) -> str:
    """Returns the smallest difference that is detected with 80 % power, "> 100" if even 100 points are not."""
    if c.verdict is None or np.isnan(c.verdict.detectable):
        return NOTHING
    return number_text(c.verdict.detectable, 1, 100) if np.isfinite(c.verdict.detectable) else "> 100"


def _seeds_for(size: float, c: Contrast) -> str:
    if c.verdict is None or size not in c.verdict.seeds_for:
        return NOTHING
    count = c.verdict.seeds_for[size]
    return f"more than {MOST_SEEDS:,}" if count is None else str(count)


def listed(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values)


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def percent(interval: Interval, within: bool = True, digits: int = 1) -> str:
    """Returns "45.1 [40.2, 50.0]" in per cent; an accuracy's interval ends at 0 and 100, a difference's at -100 and
    100. digits: of the interval."""
    low, high = max(interval.low, 0.0 if within else -1.0), min(interval.high, 1.0)
    sign = "" if within else "+"
    return f"{100 * interval.mean:{sign}.1f} [{100 * low:{sign}.{digits}f}, {100 * high:{sign}.{digits}f}]"


def _rounded(interval: Interval, within: bool = True) -> str:
    """Returns "45.1 [40, 50]"."""
    return percent(interval, within, 0)


def null_text(null: Null) -> str:
    return f"{100 * null.mean:.1f} [{100 * null.low:.1f}, {100 * null.high:.1f}]"


def p_text(p: float, equals: str = "") -> str:
    return "< 0.001" if p < 0.0005 else f"{equals}{p:.3f}"


def number_text(value: float | None, digits: int, factor: float = 1, sign: str = "", form: str = "") -> str:
    return NOTHING if value is None else f"{factor * value:{sign}{form}.{digits}f}"
