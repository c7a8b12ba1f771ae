"""Answers the questions that a reader of an ablation asks first, from its table, items and recorded costs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bench.experiment.ablation import Ablation, has_controls
from bench.experiment.scale import HEADLINE, PAPER_HEADLINE
from bench.experiment.worlds import split_name
from bench.metrics import DEFINITIONS
from bench.tables.captions import CEILING_NAME, NULL_NAME, disclaimer, items_text
from bench.tables.columns import ALPHA, accuracy_name, counted, listed, null_text, percent
from bench.tables.model import Contrast, Row, Table
from bench.tables.scores import PERMUTATIONS, RETRIEVED, RowKey, Scores, row_key

RESOLVED = ("better", "worse")


@dataclass(frozen=True)
class Answer:
    """A question, its answer in a sentence, details as a list, and how to read the answer."""

    question: str
    answer: str
    details: tuple[str, ...] = ()
    note: str = ""


def decoding_rows(ablation: Ablation) -> set[str]:
    """Returns the names of the rows that decode real EEG, also without their world: those with components."""
    names = {variant.name for variant in ablation.variants
             if has_controls(variant) and not getattr(variant, "eeg_free", False)}
    return names | {split_name(name)[0] for name in names}


def tested(table: Table, decoding: Collection[str]) -> tuple[list[Contrast], str]:
    """Returns the contrasts with a verdict between rows that decode real EEG, and over what they hold: over worlds,
    where these are tested, else within the table."""
    over_worlds = [contrast for contrast in table.over_worlds if contrast.verdict]
    every = over_worlds or [contrast for contrast in table.differences if contrast.verdict]
    return [contrast for contrast in every if set(contrast.pair) <= set(decoding)], "over worlds" * bool(over_worlds)


def is_resolved(contrast: Contrast) -> bool:
    return bool(contrast.verdict and contrast.verdict.word in RESOLVED)


def changed(contrast: Contrast) -> str:
    """Returns in what the rows of a contrast differ, from its label: "no CLIP" of "3 - 1 (no CLIP), both ..."."""
    sides = re.findall(r"\(([^()]*)\)", contrast.label.partition(", both ")[0])
    return " against ".join(sides) or contrast.label


def difference_text(contrast: Contrast) -> str:
    """Returns "Full - 13 (no CLIP): +52.3 [+35.1, +69.5] points"."""
    assert contrast.verdict
    return f"{contrast.label}: {percent(contrast.verdict.interval, within=False)} points"


def largest(table: Table, decoding: Collection[str]) -> Answer:
    """Answers which component mattered most: the change with the largest mean size over its resolved contrasts."""
    question, (judged, over) = "Which component mattered most?", tested(table, decoding)
    resolved = sorted(filter(is_resolved, judged), key=_size, reverse=True)
    if not judged:
        return Answer(question, "This table tests no difference between two rows that decode the EEG, so it names no "
                      "component.")
    if not resolved:
        return Answer(question, f"None can be named: none of {counted(len(judged), 'tested difference')} is resolved.")
    groups: dict[str, list[float]] = {}
    for contrast in resolved:
        groups.setdefault(changed(contrast), []).append(100 * _size(contrast))
    most = max(groups, key=lambda change: sum(groups[change]) / len(groups[change]))
    sizes, of_most = groups[most], [contrast for contrast in resolved if changed(contrast) == most]
    by = f"{sizes[0]:.1f}" if len(sizes) == 1 else f"{min(sizes):.1f} to {max(sizes):.1f}"
    many = f"({counted(len(sizes), 'resolved difference')}{', ' + over if over else ''})"
    text = (f"The largest difference is {most}: {by} points {many}." if " - " in most else
            f"The change “{most}” mattered most: it {_direction(of_most)} the score by {by} points {many}.")
    others = len([contrast for contrast in table.differences if contrast.verdict]) > len(judged) and not over
    return Answer(
        question, text,
        tuple(f"{difference_text(contrast)}, {contrast.outcome}" for contrast in resolved),
        f"Resolved: {len(resolved)} of {counted(len(judged), 'tested difference')}, the largest first. “A - B” is the "
        "score of row A minus that of row B. In round brackets after a row: what it changes. In square brackets: the "
        "interval." + " Differences to rows that cannot use the EEG are in the table below." * others)


def _direction(contrasts: Sequence[Contrast]) -> str:
    """Returns what the change does to the score: "lowers" or "raises" if only the second row has it."""
    of_second = all(re.fullmatch(r"[^()]* - [^()]* \([^()]*\)", contrast.label.partition(", both ")[0])
                    for contrast in contrasts)
    words = {contrast.verdict.word for contrast in contrasts if contrast.verdict}
    return {"better": "lowers", "worse": "raises"}[words.pop()] if of_second and len(words) == 1 else "changes"


def _size(contrast: Contrast) -> float:
    assert contrast.verdict
    return abs(contrast.verdict.interval.mean)


def unresolved(table: Table, decoding: Collection[str]) -> Answer:
    """Answers which differences the table cannot tell from zero."""
    question, (judged, over) = "Which differences are not resolved?", tested(table, decoding)
    left = [contrast for contrast in judged if not is_resolved(contrast)]
    untested = [contrast for contrast in table.differences if not contrast.verdict and contrast.mean is not None
                and set(contrast.pair) <= set(decoding)]
    note = (f"Not resolved: the test at {ALPHA:g}, corrected for the number of differences, cannot tell it from zero. "
            "It does not mean equal. “Detects” is the true difference that these seeds and images would find in 8 of "
            "10 repetitions; smaller ones are easily missed.")
    details = [f"{difference_text(contrast)}{_detects(contrast)}" for contrast in left]
    details += [f"{contrast.label}: {100 * contrast.mean:+.1f} points, {contrast.outcome}" for contrast in untested
                if contrast.mean is not None]
    if not judged:
        return Answer(question, "No difference was tested, so none is resolved.", tuple(details))
    if not left:
        return Answer(question, f"None: all {counted(len(judged), 'tested difference')} are resolved.", tuple(details))
    return Answer(question, f"{len(left)} of {counted(len(judged), 'tested difference')}"
                  f"{' ' + over if over else ''}.", tuple(details), note)


def _detects(contrast: Contrast) -> str:
    assert contrast.verdict
    size = contrast.verdict.detectable
    return f"; detects {100 * size:.1f} points" if 0 < size < 1 else ""


def chance(table: Table, scores: Scores, main: RowKey) -> Answer:
    """Answers which score needs no information about the stimulus: by guessing, by shuffled EEG, and by permuted
    labels; and beside them the ceiling."""
    rows = {row.name: row for row in table.entries}
    details = []
    guess = _guess(scores, main)
    if NULL_NAME in rows and (null := rows[NULL_NAME].top1):
        details.append(f"Shuffled EEG (null): {percent(null)} %. The complete system gets the EEG of another trial.")
    if permuted := scores.null(main):
        details.append(f"Permuted labels: {null_text(permuted)} %. The answers of row {main[0]} are compared with "
                       f"labels in random order, {PERMUTATIONS:,} times.")
    if CEILING_NAME in rows and (ceiling := rows[CEILING_NAME].top1):
        details.append(f"Ceiling: {percent(ceiling)} %. The generator is given the name of the true class as text, "
                       "without any EEG.")
    return Answer("What is chance?", guess or (details[0] if details else "These results do not hold it."),
                  tuple(details), "Brackets are 95 % intervals.")


def _guess(scores: Scores, main: RowKey) -> str:
    """Returns what guessing reaches, from the items of a row; "" for a metric without classes."""
    items = scores.of.get(main)
    if items is None:
        return ""
    first = items.drop_duplicates("item")
    if scores.headline == RETRIEVED:
        count = first["picture"].nunique()
        return f"{100 / count:.2g} %: one in the {count} test images."
    chance_text = DEFINITIONS[scores.headline].null
    if scores.headline != HEADLINE:
        return f"{chance_text}, by guessing." if chance_text.startswith("1/") else ""
    if "label" not in first or first["label"].isna().any():
        return ""
    shares = first["label"].value_counts(normalize=True)
    return (f"{100 * shares.max():.1f} %: always naming "
            f"{'one' if shares.nunique() == 1 else 'the most frequent'} of the {len(shares)} classes shown, without "
            "looking at any EEG.")


def uses_eeg(table: Table, scores: Scores, main: str, keys: Mapping[str, RowKey], decoding: Collection[str]) -> Answer:
    """Answers whether the score of the main row comes from the EEG: its gain over its own shuffled EEG, and leaks.

    keys: of the variants.
    """
    question = "Was the EEG used at all?"
    known = {row.name: row for row in table.entries}
    leaks = {name: scores.leak(key) for name, key in keys.items() if name in decoding}
    leaky = [f"Leak in {name}: {reason}. Its score may not come from what was seen." for name, reason in leaks.items()
             if reason]
    gains = [row for row in table.entries if row.gain]
    details = [*leaky, *(_gain_text(row) for row in gains if row.name != main)]
    row = known.get(main)
    if row is None or row.top1 is None:
        return Answer(question, f"The row {main} has no result yet.", tuple(details))
    if row.gain is None:
        permuted = scores.null(keys[main])
        exceeds = (f" Its {100 * row.top1.mean:.1f} % exceed what permuted labels reach ({null_text(permuted)} %), so "
                   "it uses something in the recordings." if permuted and permuted.p <= ALPHA else "")
        return Answer(question, f"Row {main} was not also run with shuffled EEG (bench run --nulls each).{exceeds}",
                      tuple(details))
    sees = ("Yes" if row.gain.low > 0 else "No gain was found" if row.gain.high > 0 else "No")
    text = (f"{sees}: row {main} reaches {100 * row.top1.mean:.1f} % with the EEG of the trial and "
            f"{100 * (row.top1.mean - row.gain.mean):.1f} % with the EEG of another trial; gain "
            f"{percent(row.gain, within=False)} points.")
    if leaks.get(main):
        text += f" But the audit found a leak: {leaks[main]}."
    untested = [each.name for each in table.entries if each.top1 and each.gain is None and each.name in decoding]
    if decoded := _decoded_text(scores):
        details.append(decoded)
    if untested:
        details.append(f"Not tested with their own shuffled EEG (bench run --nulls each): {listed(untested)}. The null "
                       f"of {main} cannot stand for theirs.")
    return Answer(question, text, tuple(details),
                  "If a system ignores the EEG, the EEG of another trial serves it as well, and the gain is 0.")


def _decoded_text(scores: Scores) -> str:
    """Returns how often plain classifiers of the EEG name the class, without images; "" if none was run."""
    rows = scores.rows[(scores.rows["metric"] == "readout_accuracy") & (scores.rows["items"] == "readout")]
    means = rows.groupby("variant", sort=False)["value"].mean()
    shown = listed([f"{name} {100 * mean:.1f} %" for name, mean in means.items()])
    return (f"Without any image, a classifier of the EEG names the class: {shown}. Images that score no more "
            "than this show the class, and nothing else is proven.") if shown else ""


def _gain_text(row: Row) -> str:
    assert row.gain
    return f"{row.label}: gain {percent(row.gain, within=False)} points"


def score_text(scores: Scores) -> str:
    """Returns in a sentence what the headline metric is, for a reader who knows neither the suite nor the paper."""
    if scores.headline == RETRIEVED:
        return ("The score is the share of test trials for which the EEG is matched with the image that was seen, "
                "among all test images.")
    if scores.headline == PAPER_HEADLINE:
        return (f"The score ({accuracy_name(scores)}) is the probability that an image classifier (the judge) prefers, "
                "in the generated image, the class that it sees in the image that was shown, among random other "
                "classes.")
    if scores.headline == HEADLINE:
        return ("The score (top-1) is the share of generated images that an image classifier (the judge) takes for the "
                "class of the image that was seen.")
    return f"The score is {DEFINITIONS[scores.headline].title} ({scores.key(scores.headline)})."


def setting_text(table: Table, scores: Scores) -> str:
    """Returns scale, data and size of the comparison, with what a small scale does not show."""
    worlds = "; ".join(scores.values("world"))
    seeds = sorted({seed for row in table.entries for seed in row.seeds})
    return (f"Scale {listed(scores.values('scale'))}; data: {worlds}; {counted(len(seeds), 'repeated training')} "
            f"(seed{'s' * (len(seeds) != 1)} {listed(seeds)}); {items_text(scores, table.entries)}."
            f"{disclaimer('; '.join(scores.values('scale'))).replace('`', '')}")


def all_answers(table: Table, scores: Scores, main: str, ablation: Ablation, cost: Answer) -> tuple[Answer, ...]:
    """Returns the answers to the five questions. main: the row that stands for the method."""
    decoding = decoding_rows(ablation)
    keys = {variant.name: row_key(variant) for variant in ablation.variants}
    return (largest(table, decoding), unresolved(table, decoding), chance(table, scores, keys[main]),
            uses_eeg(table, scores, main, keys, decoding), cost)


def class_table(scores: Scores, main: RowKey, names: Mapping[int, str]) -> Sequence[tuple[str, int, float, str]]:
    """Returns for each class its name, images, accuracy of the main row in per cent, and the most frequent wrong answer
    with its share; empty for items without classes. The worst class is first."""
    items = scores.of.get(main)
    if items is None or "label" not in items or "judged" not in items or items[["label", "judged"]].isna().any(
            axis=None):
        return ()
    lines = []
    for label in sorted(items["label"].unique()):
        rows = items[items["label"] == label]
        wrong = rows.loc[rows["judged"] != label, "judged"].value_counts().sort_index().sort_values(
            ascending=False, kind="stable")
        most = f"{_name(names, wrong.index[0])}, {100 * wrong.iloc[0] / len(rows):.1f} %" if len(wrong) else "-"
        lines.append((_name(names, label), rows["item"].nunique(), 100 * float((rows["judged"] == label).mean()), most))
    return sorted(lines, key=lambda line: line[2])


def _name(names: Mapping[int, str], number: float) -> str:
    return names.get(int(number), f"class {int(number)}")
