"""Tables from a results CSV: rows beside the paper's numbers, contrasts, and a caption that says what they rest on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench import results
from bench.errors import BenchError
from bench.key import digest
from bench.statistics import Interval, crossed_interval, paired_contrast

PUBLISHED = Path(__file__).parent.parent / "results" / "published"
NULL = ("Full", "shuffled")
NULL_NAME, CEILING_NAME = "Full, shuffled EEG (null)", "class name as text (ceiling)"
CEILING_PUBLISHED = "label as input"  # Sec. 4.4
PAPER = "paper, 50-way, ImageNet-EEG, %"
NOT_RUN, NOTHING = "not run", "-"
MASKED = ("masked_mse", "mean_mse", "interpolation_mse", "wiener_mse")
MEANS = ("nway_label", "fid", "is", "ssim", "psnr", "judge_distance")


@dataclass(frozen=True)
class Row:
    """A variant or a reference. `settings`: pre-training, CLIP, tuned, encoder. Accuracies are shares of 1.

    Without `top1` it was not run. `paper` is in per cent, None where the paper has no such row.
    """

    name: str
    settings: tuple[str, str, str, str]
    params: int | None
    seeds: tuple[int, ...]
    top1: Interval | None
    means: Mapping[str, float]
    paper: float | None


@dataclass(frozen=True)
class Contrast:
    """Two rows' paired difference in top-1 accuracy, a share of 1; the paper's difference in points."""

    name: str
    top1: Interval | None
    paper: float | None


@dataclass(frozen=True)
class Table:
    """A table with all that must be said about it. `labels`: headers of top-1 and n-way accuracy."""

    title: str
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...]
    caption: tuple[str, ...]
    labels: tuple[str, str]
    has_paper: bool

    def render(self, format: str = "text") -> str:
        """"text" for a terminal, "md" for Markdown, "csv" for other programs. Raises BenchError for another."""
        if format not in FORMATS:
            raise BenchError(f"no format {format!r}; there are: {', '.join(FORMATS)}")
        return FORMATS[format](self)


def table(folder: Path, name: str, ablation: Any, published: Path = PUBLISHED) -> Table:
    """The table of an ablation from the results in a folder; rows without results say "not run".

    Accuracies are against the label. Intervals are of top-1 accuracy, 95 %, over test pictures crossed with seeds,
    after samples (and subjects) were averaged within a picture. Errors as `results.read`.
    """
    recorded = results.read(folder, name)
    paper, source = _paper(ablation.published, published)
    scores = _Scores(recorded)

    def row(title: str, whose: Whose, settings: tuple[str, str, str, str], known: str) -> Row:
        return Row(title, settings, scores.params(whose), scores.seeds(whose), scores.interval(whose),
                   scores.means(whose), paper.get(known))

    rows = [row(v.name, (v.name, "real"), _settings(v), v.name) for v in ablation.variants]
    nothing = (NOTHING,) * 4
    rows += [row(NULL_NAME, NULL, nothing, ""), row(CEILING_NAME, scores.ceiling, nothing, CEILING_PUBLISHED)]

    contrasts = [Contrast(f"{a} - {b}", scores.contrast((a, "real"), (b, "real")),
                          paper[a] - paper[b] if a in paper and b in paper else None) for a, b in ablation.contrasts]
    if any(v.name == NULL[0] for v in ablation.variants):
        contrasts.append(Contrast("Full - its shuffled-EEG null", scores.contrast((NULL[0], "real"), NULL), None))
    labels = (f"top-1 of {scores.key('top1_label').removesuffix(' classes')}, %",
              f"{scores.key('nway_label').replace(' of ', '-way of ')}, %")
    return Table(ablation.title, tuple(rows), tuple(contrasts), tuple(_caption(scores, rows, ablation, name, source)),
                 labels, bool(paper))


Whose = Any  # (variant, items), or None for what was not run


class _Scores:
    """What is recorded, by (variant, items)."""

    def __init__(self, recorded: results.Results):
        self.rows, self.items = recorded.rows, recorded.items
        self.scored = self.rows[self.rows["metric"] == "top1_label"]
        self.at = dict(iter(self.rows.groupby(["variant", "items"])))
        self.pictures: dict[Any, pd.DataFrame] = {}
        if len(self.items):
            for whose, frame in self.items.groupby(["variant", "items"]):
                self.pictures[whose] = frame.groupby(["seed", "picture"])["top1_label"].mean().unstack("picture")
        ceilings = self.scored.loc[self.scored["items"] == "captions", "variant"]
        self.ceiling = (ceilings.iloc[0], "captions") if len(ceilings) else None

    def top1(self, whose: Whose) -> pd.DataFrame | None:
        """Top-1 accuracy of each picture under each seed, [seeds, pictures]."""
        if whose not in self.pictures:
            return None
        values = self.pictures[whose]
        if values.isna().to_numpy().any():
            raise BenchError(f"{whose[0]} ({whose[1]}): its seeds were scored on different pictures; run them again")
        return values

    def seeds(self, whose: Whose) -> tuple[int, ...]:
        values = self.top1(whose)
        return () if values is None else tuple(int(seed) for seed in values.index)

    def interval(self, whose: Whose) -> Interval | None:
        values = self.top1(whose)
        return None if values is None else crossed_interval(values.to_numpy())

    def contrast(self, a: tuple[str, str], b: tuple[str, str]) -> Interval | None:
        """Over the seeds and pictures that both have; None where there are none."""
        one, other = self.top1(a), self.top1(b)
        if one is None or other is None:
            return None
        seeds = one.index.intersection(other.index)
        if not len(seeds):
            return None
        if not one.columns.equals(other.columns):
            raise BenchError(f"{a[0]} and {b[0]} were scored on different test pictures; run both again")
        return paired_contrast(one.loc[seeds].to_numpy(), other.loc[seeds].to_numpy())

    def means(self, whose: Whose) -> dict[str, float]:
        if whose not in self.at:
            return {}
        values = self.at[whose].groupby("metric")["value"].mean()
        return {name: float(values[name]) for name in MEANS if name in values.index}

    def params(self, whose: Whose) -> int | None:
        known = list(self.at[whose]["params"].dropna()) if whose in self.at else []
        return int(known[0]) if known else None

    def specs(self, variant: str) -> set[str]:
        """Digests of the settings that a variant was recorded with."""
        rows = self.at.get((variant, "real"))
        return set() if rows is None else set(rows["spec"])

    def values(self, column: str, metric: str = "top1_label") -> list[str]:
        """What a column says about the rows of a metric: one value, or several where rows differ."""
        return sorted({str(value) for value in self.rows.loc[self.rows["metric"] == metric, column]} - {""})

    def key(self, metric: str) -> str:
        return "; ".join(self.values("key", metric))


def _settings(variant: Any) -> tuple[str, str, str, str]:
    pretraining = "none" if variant.mask_ratio is None else f"mask {variant.mask_ratio:g}"
    align = {"clip": "yes", "label": "labels instead", None: "no"}.get(variant.align, str(variant.align))
    size = variant.size if variant.encoder == "msm_vit" else f"{Path(variant.encoder).stem}, {variant.size}"
    return pretraining, align if variant.sd_loss else f"{align}, alone", variant.tune, size


def _paper(stem: str | None, folder: Path) -> tuple[dict[str, float], str]:
    """The paper's accuracies in per cent by row, and what the caption says about them."""
    if stem is None:
        return {}, "The paper has no such rows."
    path = folder / f"{stem}.csv"
    if not path.is_file():
        return {}, f"The paper's column is left out: {path} is not there."
    rows = pd.read_csv(path, dtype={"row": str})
    rows = rows[rows["metric"] == "accuracy"]
    return dict(zip(rows["row"], rows["value"], strict=True)), f"The paper's column: {rows['paper'].iloc[0]}."


def _caption(scores: _Scores, rows: Sequence[Row], ablation: Any, name: str, source: str) -> Iterable[str]:
    if not len(scores.scored):
        yield f"Nothing is scored yet: bench run --ablation {name}"
        return
    def said(column: str) -> str:
        return "; ".join(scores.values(column))

    ran = [row for row in rows if row.top1]
    counts = sorted({row.top1.items for row in ran if row.top1})
    samples = scores.items.groupby(["variant", "items", "seed"])["sample"].max() + 1
    seeds = sorted({seed for row in ran for seed in row.seeds})
    yield (f"Scale {said('scale')}, world {said('world')}. Seeds {_listed(seeds)}. {_listed(counts)} test pictures x "
           f"{_listed(sorted(set(samples)))} samples. Judge {said('judge')}. Numerics {said('numerics')}.")
    if said("scale") != "paper":
        yield (f"Every number but those of the column \"{PAPER}\" was measured at scale {said('scale')}; the two do "
               "not compare. The encoder's label is the paper's, the count of its parameters is real.")
    yield (f"Accuracies are the judge's verdict against the label: top-1 of the {scores.key('top1_label')} it knows; "
           f"n-way is exact, {scores.key('nway_label')} classes. FID and IS with the judge's features (FID: "
           f"{scores.key('fid')}; IS: {scores.key('is')}). Judge distance: {scores.key('judge_distance')}; not LPIPS.")
    if len(seeds) == 1:
        yield "[ ] is a 95 % interval. With one seed it covers the choice of test items only, not training."
    else:
        yield ("[ ] is a 95 % interval over test pictures crossed with seeds. A row with one seed: over test items "
               "only, not training.")
    if "one" in scores.values("pretrain_seeds"):
        yield ("pretrain_seeds = one: all seeds share one pre-training. This table gives no verdict about "
               "pre-training, mask ratio or size.")
    else:
        yield f"pretrain_seeds = {said('pretrain_seeds')}: every seed has a pre-training of its own."
    readout = scores.rows[scores.rows["metric"] == "readout_accuracy"]
    for _, line in readout.drop_duplicates(["key", "n"]).iterrows():
        yield (f"A linear read-out of the class from the test EEG: {100 * line['value']:.1f} % ({line['key']}, "
               f"n = {line['n']}).")
    if masked := _masked(scores, ablation):
        yield ("Pre-training's masked MSE on held-out recordings, beside that of the window's mean, of linear "
               f"interpolation and of a Wiener predictor: {masked}.")
    for column in ("scale", "world", "config", "judge", "numerics", "pretrain_seeds", "key"):
        if len(scores.values(column)) > 1:
            groups = scores.scored.groupby(column)["variant"].unique()
            yield f"Not comparable: rows differ in {column}: " + "; ".join(
                f"{value} ({', '.join(sorted(names))})" for value, names in groups.items())
    missing = [row.name for row in rows if row.top1 is None]
    if missing:
        yield f"Not run: {', '.join(missing)}."
    if changed := [v.name for v in ablation.variants if scores.specs(v.name) - {digest(v)}]:
        yield f"Recorded with other settings than the ablation names now, run again: {', '.join(changed)}."
    known = {v.name for v in ablation.variants} | {NULL[0]}
    if others := sorted(set(scores.scored.loc[scores.scored["items"] == "real", "variant"]) - known):
        yield f"Recorded, but no row of this ablation now: {', '.join(others)}."
    yield source


def _masked(scores: _Scores, ablation: Any) -> str:
    """"Full, 12: 0.61 (mean 1.00, interpolation 1.40, Wiener 0.70); ...": means over seeds; equal ones are one."""
    names: dict[tuple[float, ...], list[str]] = {}
    for variant in ablation.variants:
        whose = (variant.name, "real")
        values = scores.at[whose].groupby("metric")["value"].mean() if whose in scores.at else pd.Series(dtype=float)
        if set(MASKED) <= set(values.index):
            names.setdefault(tuple(values[list(MASKED)]), []).append(variant.name)
    return "; ".join(f"{', '.join(those)}: {model:.3f} (mean {mean:.3f}, interpolation {line:.3f}, Wiener {wiener:.3f})"
                     for (model, mean, line, wiener), those in names.items())


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values)


def _percent(interval: Interval | None, within: bool = True) -> str:
    """"45.1 [40.2, 50.0]" in per cent; an accuracy's interval ends at 0 and 100."""
    if interval is None:
        return NOT_RUN
    low, high = (max(interval.low, 0), min(interval.high, 1)) if within else (interval.low, interval.high)
    sign = "" if within else "+"
    return f"{100 * interval.mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def _number(value: float | None, digits: int, factor: float = 1, sign: str = "") -> str:
    return NOTHING if value is None else f"{factor * value:{sign}.{digits}f}"


# Header, cell, and when to go first if the terminal is too narrow (0: never).
Column = tuple[str, Callable[[Row], str], int]


def _columns(t: Table) -> list[Column]:
    columns: list[Column] = [
        ("variant", lambda r: r.name, 0),
        ("pre-training", lambda r: r.settings[0], 2),
        ("CLIP", lambda r: r.settings[1], 5),
        ("tuned", lambda r: r.settings[2], 6),
        ("encoder's label", lambda r: r.settings[3], 8),
        ("parameters", lambda r: NOTHING if r.params is None else f"{r.params:,}", 4),
        ("seeds", lambda r: str(len(r.seeds)), 3),
        (f"{t.labels[0]} [95%]", lambda r: _percent(r.top1), 0),
        (t.labels[1], lambda r: _number(r.means.get("nway_label"), 1, 100), 1),
        ("FID", lambda r: _number(r.means.get("fid"), 2), 7),
        ("IS", lambda r: _number(r.means.get("is"), 2), 9),
        ("SSIM", lambda r: _number(r.means.get("ssim"), 3), 11),
        ("PSNR, dB", lambda r: _number(r.means.get("psnr"), 1), 12),
        ("judge distance", lambda r: _number(r.means.get("judge_distance"), 3), 10),
    ]
    return [*columns, (PAPER, lambda r: _number(r.paper, 1), 0)] if t.has_paper else columns


def _contrast_cells(t: Table) -> tuple[list[str], list[list[str]]]:
    header = ["difference", f"{t.labels[0].removesuffix(', %')}, points [95%]", "seeds"]
    cells = [[c.name, _percent(c.top1, within=False), str(c.top1.seeds if c.top1 else 0)] for c in t.contrasts]
    if t.has_paper:
        header += [PAPER.replace("%", "points")]
        cells = [[*line, _number(c.paper, 1, sign="+")] for line, c in zip(cells, t.contrasts, strict=True)]
    return header, cells


def markdown(t: Table) -> str:
    """The table, its contrasts and its caption as Markdown."""
    def pipes(header: Sequence[str], cells: Iterable[Sequence[str]], left: int) -> list[str]:
        rule = [":--" if i < left else "--:" for i in range(len(header))]
        return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (header, rule, *cells)]

    headers, cells, _ = zip(*_columns(t), strict=True)
    lines = [f"**{t.title}**", "", *pipes(headers, ([cell(row) for cell in cells] for row in t.rows), 5)]
    if t.contrasts:
        lines += ["", *pipes(*_contrast_cells(t), 1)]
    return "\n".join([*lines, "", *(f"- {line}" for line in t.caption)])


def text(t: Table, width: int | None = None) -> str:
    """The table for a terminal of so many columns (default: this one's); what does not fit is named below it."""
    width = width or shutil.get_terminal_size((120, 24)).columns
    columns, dropped = _columns(t), list[str]()

    def block(columns: Sequence[Column]) -> list[str]:
        return _aligned([h for h, _, _ in columns], [[c(r) for _, c, _ in columns] for r in t.rows])

    while max(map(len, block(columns))) > width and (last := max(order for _, _, order in columns)):
        index = max(i for i, column in enumerate(columns) if column[2] == last)
        dropped.insert(0, columns.pop(index)[0])
    lines = [t.title, "", *block(columns)]
    if t.contrasts:
        lines += ["", *_aligned(*_contrast_cells(t))]
    caption = [*([f"Not shown at this width: {', '.join(dropped)}."] if dropped else []), *t.caption]
    return "\n".join([*lines, "", *(wrapped for line in caption for wrapped in _wrapped(line, width))])


def _aligned(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Columns under wrapped headers; the first to the left, the others to the right."""
    bodies = [max((len(line[i]) for line in cells), default=0) for i in range(len(header))]
    words = [_wrapped(name, max(body, *(len(word) for word in name.split()))) for name, body in
             zip(header, bodies, strict=True)]
    widths = [max(body, *map(len, lines)) for body, lines in zip(bodies, words, strict=True)]
    height = max(map(len, words))
    head = [[*[""] * (height - len(lines)), *lines] for lines in words]
    every = [*zip(*head, strict=True), ["-" * width for width in widths], *cells]
    formats = [f"{{:{'>' if i else '<'}{width}}}" for i, width in enumerate(widths)]
    return ["  ".join(map(str.format, formats, line)).rstrip() for line in every]


def _wrapped(line: str, width: int) -> list[str]:
    lines, current = [], ""
    for word in line.split():
        if current and len(current) + 1 + len(word) > width:
            lines.append(current)
            current = word
        else:
            current = f"{current} {word}".strip()
    return [*lines, current]


def csv(t: Table) -> str:
    """Rows and contrasts in full precision; `kind` tells them apart, accuracies are in per cent or points."""
    def numbers(kind: str, name: str, top1: Interval | None, paper: float | None) -> dict[str, Any]:
        values = [100 * value for value in (top1.mean, top1.low, top1.high)] if top1 else ["", "", ""]
        return {"kind": kind, "name": name, **dict(zip(("top1", "low", "high"), values, strict=True)),
                "seeds": top1.seeds if top1 else 0, "paper_50way_imagenet_eeg": "" if paper is None else paper}

    lines = []
    for row in t.rows:
        lines.append(numbers("row", row.name, row.top1, row.paper)
                     | dict(zip(("pretraining", "clip", "tuned", "encoder"), row.settings, strict=True))
                     | {"params": row.params, "nway": 100 * row.means["nway_label"] if row.means else ""}
                     | {name: row.means.get(name, "") for name in MEANS[1:]})
    lines += [numbers("contrast", c.name, c.top1, c.paper) for c in t.contrasts]
    frame = pd.DataFrame([{name: line.get(name, "") for name in lines[0]} for line in lines], dtype=object)
    return results.csv_bytes(frame).decode().rstrip("\n")


FORMATS: dict[str, Callable[[Table], str]] = {"text": text, "md": markdown, "csv": csv}
