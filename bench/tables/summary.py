"""The finding in one sentence and the notes of a table's short form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.experiment.scale import HEADLINE, PAPER_HEADLINE
from bench.experiment.variant import innermost, sees_eeg
from bench.metrics import DEFINITIONS
from bench.statistics import Agreement
from bench.tables.agreement import agreement_note
from bench.tables.captions import (
    NULL_NAME,
    ONE_PRETRAINING,
    REHEARSAL,
    above_null,
    balanced_note,
    changed_lines,
    differing_columns,
    disclaimer,
    failure_text,
    incomparable_lines,
    items_text,
    paper_reading,
    selection_lines,
)
from bench.tables.columns import ALPHA, counted, listed
from bench.tables.contrasts import families_text, tests_text
from bench.tables.model import Contrast, Row
from bench.tables.scores import NULL, RETRIEVED, Scores, row_key
from bench.tables.worlds import worlds_note

MOST_NOTES = 5
SHOWN = 4  # names in a note, at most


def finding(scores: Scores, rows: Sequence[Row], contrasts: Sequence[Contrast], ablation: Any,
            over_worlds: Sequence[Contrast] = ()) -> str:
    """Returns the best row, null, ceiling and resolved contrasts in one sentence, with failed rows and a single seed.

    The best row is the best of those that decode real EEG, without a leak and without a selected checkpoint; if there
    is none, the best of all variants.
    """
    specs = {v.name: v for v in ablation.variants}
    ran = [row for row in rows if row.top1 and row.name in specs]
    failed = sorted({row.name for row in rows if row.failed})
    parts = [f"{counted(len(failed), 'row')} failed" if failed else ""]
    if not ran:
        return f"{parts[0] or 'No row has a result yet'}."
    decoding = [row for row in ran if _decodes_eeg(specs[row.name])]
    clean = [row for row in decoding if not scores.leak(row_key(specs[row.name]))]
    best = max(clean or decoding or ran, key=_accuracy)
    name, _, change = best.label.partition("  ")
    own, full = (scores.interval(key) for key in (scores.own_null(row_key(specs[best.name])), NULL))
    named = ("null", own) if own else ("Full's null", full), ("ceiling", scores.interval(scores.ceiling))
    about = [f"{title} {100 * value.mean:.1f} %" for title, value in named if value]
    if not (own or full) and NULL_NAME in {row.name for row in rows}:
        about.insert(0, "null not run")
    parts.insert(0, f"Best row{' without a leak' if 0 < len(clean) < len(decoding) else ''}: {name}"
                 f"{f' ({change})' if change else ''}, {100 * best.top1.mean if best.top1 else 0:.1f} %"
                 f"{f', balanced {100 * best.balanced.mean:.1f} %' if best.balanced else ''}"
                 f"{f' ({listed(about)})' if about else ''}")
    if contrasts:
        primary = [c for c in contrasts if c.family == "primary" and not c.home]
        parts.insert(1, _resolved_text(contrasts)
                     + f" ({sum(map(_is_resolved, primary))} of {len(primary)} primary)" * bool(primary))
    if len({seed for row in ran for seed in row.seeds}) == 1:
        parts.append("one seed was run, so this holds for these trained models only")
    across = f"Over worlds, {_resolved_text(over_worlds)}. " if over_worlds else ""
    return across + "; ".join(filter(None, parts)) + "."


def _is_resolved(contrast: Contrast) -> bool:
    return bool(contrast.verdict and contrast.verdict.word in ("better", "worse"))


def _resolved_text(contrasts: Sequence[Contrast]) -> str:
    """Returns "1 of 4 contrasts is resolved"."""
    resolved = sum(map(_is_resolved, contrasts))
    return f"{resolved} of {counted(len(contrasts), 'contrast')} {'is' if resolved == 1 else 'are'} resolved"


def _accuracy(row: Row) -> float:
    """Returns by which accuracy rows are compared: balanced, where classes differ in their number of test images."""
    best = row.balanced or row.top1
    return best.mean if best else 0.0


def _decodes_eeg(spec: Any) -> bool:
    """Tells whether a row decodes its own EEG, on the test part, from its last checkpoint."""
    checkpoint = getattr(spec, "checkpoint", None)
    return (sees_eeg(spec) and not getattr(spec, "eeg_free", False) and getattr(spec, "eeg", "real") == "real"
            and getattr(spec, "part", "test") == "test" and (checkpoint is None or checkpoint[0] == checkpoint[1]))


def short_notes(scores: Scores, rows: Sequence[Row], contrasts: Sequence[Contrast], ablation: Any, paper: bool,
                source: str, command: str, order: Sequence[Agreement] = (), has_gain: bool = False,
                over_worlds: Sequence[Contrast] = ()) -> tuple[str, ...]:
    """Returns at most MOST_NOTES notes: warnings first, then what a reader needs, then how to see the rest.

    source: from which CSVs the rows come, "" for the ablation's own; command: prints this table;
    order: the agreement with the paper's order.
    """
    more = f"More: {command} --details"
    warnings = [*_warnings(scores, rows, ablation), *([source] if source else [])]
    if not len(scores.scored):
        return tuple(_packed(warnings, [f"Nothing is scored yet; run: bench run --ablation {ablation.name}"]))
    return tuple(_packed(warnings, [*selection_lines(scores, ablation), _scale_note(scores, rows, paper),
                                    _reading_note(scores, rows, contrasts, has_gain)
                                    + _fid_note(scores, rows, ablation),
                                    *filter(None, [worlds_note(over_worlds), agreement_note(order)]), more]))


def _packed(warnings: list[str], others: list[str]) -> list[str]:
    """Joins the last warnings into one note where there are too many notes."""
    room = max(MOST_NOTES - len(others), 1)
    return [*warnings[:room - 1], *([" ".join(warnings[room - 1:])] if warnings[room - 1:] else []), *others]


def _warnings(scores: Scores, rows: Sequence[Row], ablation: Any) -> Iterator[str]:
    """Yields failures, leaks, and whatever makes rows incomparable or numbers meaningless."""
    failures = [failure_text(line) for line in scores.failures.itertuples()]
    if failures:
        names = few(dict.fromkeys(scores.failures["variant"]))
        yield (f"Failed: {'; '.join(failures)}." if len(failures) <= 2 else
               f"Failed: {len(failures)} runs of {names}; the first: {failures[0]}.")
    leaks: dict[str, list[str]] = {}
    for variant in ablation.variants:
        if reason := scores.leak(row_key(variant)):
            leaks.setdefault(reason, []).append(variant.name)
    if leaks:
        yield "Leak in " + "; ".join(f"{few(names)}: {reason}" for reason, names in leaks.items()) + "."
    if above := above_null(rows):
        yield f"Above chance although the row cannot know the stimulus: {few(above)}."
    if "rehearsal" in scores.values("scale"):
        yield REHEARSAL
    if differing := differing_columns(scores):
        yield (f"Not comparable: rows differ in {listed(differing)}." if len(differing) > 1 else
               next(iter(incomparable_lines(scores))))
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for row in rows:
        if row.top1:
            by_seeds.setdefault(row.seeds, []).append(row.name)
    if len(by_seeds) > 1:
        groups = [f"{listed(seeds)} ({few(names)})" for seeds, names in by_seeds.items()]
        yield f"Rows differ in seeds: {'; '.join(groups)}."
    yield from changed_lines(scores, ablation)
    if "one" in scores.values("pretrain_seeds") and any(row.settings[0] not in ("-", "none") for row in rows):
        yield ONE_PRETRAINING


def _scale_note(scores: Scores, rows: Sequence[Row], paper: bool) -> str:
    scale = "; ".join(scores.values("scale"))
    worlds = [world for world in scores.values("world") if not world.startswith("tiny")]
    seeds = sorted({seed for row in rows for seed in row.seeds})
    note = (f"Scale {scale}{f', data {listed(worlds)}' if worlds else ''}; "
            f"seed{'s' * (len(seeds) != 1)} {listed(seeds)}; {items_text(scores, rows)}."
            f"{disclaimer(scale)}")
    if paper and scale != "paper":
        note += " The paper's numbers, on ImageNet-EEG, cannot be compared with them."
    if missing := [row.name for row in rows if row.top1 is None and not row.failed]:
        note += f" Not run: {few(missing)}."
    return note


def _reading_note(scores: Scores, rows: Sequence[Row], contrasts: Sequence[Contrast], has_gain: bool) -> str:
    shown = scores.key("top1_shown_label").partition(" ")[0]
    key = scores.key(scores.headline)
    images = key.partition(" of ")[2].replace("pictures", "images")
    note = {
        HEADLINE: f"top-1: share of generated images that the judge, a classifier of {key.partition(',')[0]}"
                  f"{f' ({shown} shown)' if shown else ''}, assigns to the true class.",
        PAPER_HEADLINE: paper_reading(scores) if scores.headline == PAPER_HEADLINE else "",
        RETRIEVED: "top-1: share of test items whose EEG embedding is nearest to that of their own image, among "
                   f"{images}.",
    }.get(scores.headline, f"{DEFINITIONS[scores.headline].title} ({key}).")
    if any(row.balanced for row in rows):
        note += f" {balanced_note(scores)}"
    if has_gain:
        note += " Gain: difference to the row's own shuffled EEG (null)."
    one = len({seed for row in rows for seed in row.seeds}) == 1
    note += f" CI: over test images{', not over trainings' if one else ' and seeds'}."
    if any(c.verdict for c in contrasts):
        note += (f" Verdicts: {ALPHA:g}, Holm over {families_text(contrasts)}; test: {tests_text(contrasts)}; not "
                 "resolved does not mean equal. Detects: the true difference that is resolved with 80 % power.")
    return note


def _fid_note(scores: Scores, rows: Sequence[Row], ablation: Any) -> str:
    """Returns what FID is, with the FID of random training images if they are a row; "" without an FID."""
    fids = {row.name: row.means["fid"] for row in rows if "fid" in row.means}
    if not fids:
        return ""
    random = {v.name for v in ablation.variants if getattr(innermost(v), "source", "") == "random"}
    reached = [f"{fids[name]:.2f}" for name in fids if name in random]
    extractors = scores.values("extractor", "fid")
    return (f" FID: with the features of {listed(extractors) or 'its own network'}; lower is better; it says nothing "
            "about the EEG" + (f": random training images reach {listed(reached)}." if reached else "."))


def few(names: Any) -> str:
    """Returns at most SHOWN names, and how many more there are."""
    names = list(names)
    return listed(names) if len(names) <= SHOWN + 1 else f"{listed(names[:SHOWN])} and {len(names) - SHOWN} more"
