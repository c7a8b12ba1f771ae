"""All notes of a table: what its numbers rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.experiment.key import digest
from bench.experiment.scale import HEADLINE, PAPER_HEADLINE, SECOND
from bench.experiment.variant import innermost
from bench.experiment.worlds import split_name
from bench.metrics import DEFINITIONS
from bench.setup.rows import choose_baselines
from bench.statistics import Agreement
from bench.tables.agreement import agreement_lines
from bench.tables.columns import (
    ALPHA,
    NOTHING,
    PAPER,
    accuracy_name,
    counted,
    listed,
    metric_header,
    null_text,
    p_text,
    percent,
    permuted_text,
    settings_of,
)
from bench.tables.contrasts import families_text, tests_text
from bench.tables.model import Contrast, Row
from bench.tables.scores import FULL_ROW, MASKED, NULL, PERMUTATIONS, Scores, row_key

NULL_NAME, CEILING_NAME = "Full, shuffled EEG (null)", "class name as text (ceiling)"
MUST_AGREE = ("scale", "world", "config", "judge", "numerics", "pretrain_seeds", "versions", "key")


def caption_lines(scores: Scores, rows: Sequence[Row], contrasts: Sequence[Contrast], ablation: Any, name: str,
                  paper: Mapping[str, float], source: str, order: tuple[Sequence[Agreement], str],
                  has_gain: bool) -> Iterable[str]:
    """Yields the notes of the complete form. source: the note about the paper's column; order: of `agreement.agree`."""
    for line in scores.failures.itertuples():
        yield f"Failed: {failure_text(line)}."
    if not len(scores.scored):
        yield f"Nothing is scored yet; run: bench run --ablation {name}"
        return

    def values(column: str) -> str:
        return "; ".join(scores.values(column))

    ran = [row for row in rows if row.top1]
    seeds = sorted({seed for row in ran for seed in row.seeds})
    judge = f"Judge {values('judge')}. " if values("judge") else ""
    yield (f"Scale {values('scale')}, world {values('world')}. Seeds {listed(seeds)}. {items_text(scores, rows)}. "
           f"{judge}Numerics {values('numerics')}.")
    yield from provenance_lines(scores)
    if values("scale") == "rehearsal":
        yield REHEARSAL
    extra = choose_baselines(ablation.variants)
    has_encoder = any(hasattr(innermost(v), "mask_ratio") for v in ablation.variants)
    comparable = (extra.null or has_encoder) and scores.headline in SECOND
    if values("scale") != "paper" and comparable:
        yield ((f"Except for the column \"{PAPER}\", all numbers were measured at scale {values('scale')}; the two "
                "cannot be compared." if paper else
                f"Measured at scale {values('scale')}: no number can be compared with the paper's.")
               + " The encoder's label is the paper's; the number of its parameters is the real one." * has_encoder)
    if scores.headline.startswith("retrieval_"):
        yield _retrieval_line(scores)
    elif scores.headline == PAPER_HEADLINE:
        yield paper_reading(scores)
    elif scores.headline != HEADLINE:
        yield f"Headline metric: {DEFINITIONS[scores.headline].title} ({scores.key(scores.headline)})."
    if scores.values("key", "top1_label"):
        yield ("Accuracies compare the judge's class with the label: top-1 among the "
               f"{scores.key('top1_label')} that it knows; n-way is exact, {scores.key('nway_label')} classes. "
               * (scores.headline != PAPER_HEADLINE) + "FID and "
               f"IS use the judge's features (FID: {scores.key('fid')}; IS: {scores.key('is')}). Judge distance: "
               f"{scores.key('judge_distance')}; it is not LPIPS.")
        if extra.things:
            yield ("Protocol things: the label of a concept is the judge's class for it (at scale tiny its shape); "
                   f"top-1 against the label is among all {scores.key('top1_label')}, of which "
                   f"{scores.key('top1_shown_label').removesuffix(' classes')}. Without EEG, chance is 1 in the number "
                   "of shown classes.")
    if scores.values("key", "fid"):
        yield SET_INTERVALS if any("fid" in row.intervals for row in rows) else NO_SET_INTERVALS
    if scores.values("key", "coverage"):
        yield ("Precision, recall, density and coverage compare the generated images with the real test images by the "
               f"judge's features ({scores.key('coverage')}; precision and recall with {scores.key('precision')}).")
    if scores.values("key", "train_ratio_clip"):
        yield ("Distance to training images / real: the median distance of a generated image to the nearest training "
               "image in CLIP space, over that of the real test images; 1 without memorisation. Copies are no farther "
               f"from a training image than any test image ({scores.key('copies_clip')}).")
    yield from _stand_ins(scores, ablation)
    yield ("[ ] after a row's value is a 95 % interval. With one seed it covers the choice of test items only, not "
           "training: intervals and verdicts are conditional on these trained models." if len(seeds) == 1 else
           "[ ] after a row's value is a 95 % interval over test images crossed with seeds. A row with one seed: over "
           "test items only, not training.")
    yield from _null_lines(scores, rows, has_gain)
    if any(row.balanced for row in rows):
        yield balanced_note(scores)
    if any(contrast.verdict for contrast in contrasts):
        yield (f"Verdicts are about the first row of each pair, at {ALPHA:g}: p is adjusted by Holm over "
               f"{families_text(contrasts)}; the intervals are simultaneous over the same. Not resolved does not mean "
               "equal. In the table of rows the verdict is about the row. Detects: the smallest true difference that "
               "these seeds and images resolve with 80 % power, if the variances are as estimated.")
        yield (f"Test: {tests_text(contrasts)}. Plain: Student's t with the spread of this difference over seeds. "
               "Moderated: the spread of either row, with the spread of all trained rows of the table as its prior; a "
               "row that varies more than the others keeps its own.")
    yield from agreement_lines(*order, len(seeds))
    yield from selection_lines(scores, ablation)
    pretrained = extra.null or any(settings_of(v)[0] not in (NOTHING, "none") for v in ablation.variants)
    if pretrained and "one" in scores.values("pretrain_seeds"):
        yield ONE_PRETRAINING
    elif pretrained:
        yield f"pretrain_seeds = {values('pretrain_seeds')}: every seed has its own pre-training."
    if getattr(ablation, "costs", False):
        yield "Trained parameters: of all networks that a row trains." + (
            " Seconds: wall time of a worker on one core or GPU for all trainings of a row, and for generating its "
            "images, means over seeds; a training that rows share counts in each. They change from run to run."
            if any(row.seconds for row in rows) else "")
    if getattr(ablation, "literature", {}):
        yield ("The numbers from the literature were measured on other data with other classifiers and networks; they "
               "cannot be compared with those of this table.")
    yield from _classifier_lines(scores)
    if masked := _masked(scores, ablation):
        yield ("Masked MSE of pre-training on held-out recordings, and that of the window's mean, of linear "
               f"interpolation and of a Wiener predictor: {masked}.")
    yield from incomparable_lines(scores)
    if missing := [row.name for row in rows if row.top1 is None and not row.failed]:
        yield f"Not run: {listed(missing)}."
    yield from changed_lines(scores, ablation)
    known = {v.name for v in ablation.variants} | {NULL[0]}
    others = scores.scored[~scores.scored["variant"].isin(known) & (scores.scored["items"] != "captions")]
    if gone := sorted(set(others.loc[others["items"] == "real", "variant"])):
        yield f"Recorded, but not a row of this ablation any more: {listed(gone)}."
    nulls = {f"{v.name} / EEG shuffled" for v in ablation.variants}
    if controls := sorted(set(others.loc[others["items"] != "real", "variant"]) - nulls):
        yield f"Also recorded (bench table {name} --with-controls): {listed(controls)}."
    if paper or comparable:
        yield source


NO_GAIN = ("The gain over the null is not shown: it needs the shuffled EEG of each row (bench run --nulls each). "
           "Full's null cannot stand for that of other rows, which may prefer other classes.")
SET_INTERVALS = ("The intervals of FID and IS are of their values for so many images, by the jackknife. The reference "
                 "images count as fixed, and the bias of few images is not in the interval. With few images for the "
                 "number of features, the interval of FID is too wide.")
NO_SET_INTERVALS = ("FID and IS have no interval: these results hold no values of single images for them. Run again to "
                    "have intervals.")
REHEARSAL = "A rehearsal: data and frozen parts are random. No number here has a meaning."
ONE_PRETRAINING = ("pretrain_seeds = one: all seeds share one pre-training. This table gives no verdict about "
                   "pre-training, mask ratio or size.")


def balanced_note(scores: Scores) -> str:
    """Returns what balanced accuracy is, and what verdicts and gain are about."""
    return ("Balanced accuracy: each class has the same weight; classes differ in their number of test images. "
            f"Verdicts and gain are about {accuracy_name(scores)}.")


def paper_reading(scores: Scores) -> str:
    """Returns both readings of the paper's accuracy: the released code's, which is the headline, and the text's."""
    n, _, total = scores.key(PAPER_HEADLINE).partition(",")[0].partition(" of ")
    fixed = scores.key(SECOND[PAPER_HEADLINE]).partition(" ")[0]
    return (f"{n}-way: the paper's accuracy as its released code computes it. Target: the judge's class of the real "
            "image, which must rank first in the generated image among itself and "
            f"{int(n) - 1} of the {total} classes, drawn at random; here its exact probability."
            + (f" Top-1 of {fixed} fixed classes: the paper's text, the same target among {fixed} selected classes."
               if fixed else ""))


def items_text(scores: Scores, rows: Sequence[Row]) -> str:
    """Returns "400 test images x 2 samples", without samples where nothing is generated."""
    counts = sorted({row.top1.items for row in rows if row.top1})
    samples = scores.items.groupby(["variant", "items", "seed"])["sample"].max() + 1
    drawn = f" x {listed(sorted(set(samples)))} samples" if scores.values("judge") else ""
    return f"{listed(counts)} test images{drawn}"


def failure_text(line: Any) -> str:
    """Returns "5, seed 1: killed" for a row of `Scores.failures`."""
    return f"{line.variant}{'' if line.items == 'real' else f', {line.items}'}, seed {line.seed}: {line.failed}"


def disclaimer(scale: str) -> str:
    """Returns what results at a small scale do not show; "" for other scales."""
    small = scale in ("tiny", "micro")
    return f" Results at scale `{scale}` check the software; they say nothing about brains." if small else ""


def differing_columns(scores: Scores) -> list[str]:
    """Returns the columns in which rows differ although they must agree to be comparable. Rows that name their world
    are comparable within it."""
    named = scores.scored["variant"].map(lambda name: split_name(name)[1])
    return [column for column in MUST_AGREE if scores.scored[column].nunique() > 1
            and not (column == "world" and named.any() and scores.scored.groupby(named)[column].nunique().max() == 1)]


def incomparable_lines(scores: Scores) -> Iterable[str]:
    """Yields a line for each of these columns."""
    for column in differing_columns(scores):
        groups = scores.scored.groupby(column)["variant"].unique()
        yield f"Not comparable: rows differ in {column}: " + "; ".join(
            f"{value or 'not recorded'} ({', '.join(sorted(names))})" for value, names in groups.items()) + "."


def changed_lines(scores: Scores, ablation: Any) -> Iterable[str]:
    """Yields a line with the rows whose recorded settings are not those of the ablation."""
    if changed := [v.name for v in ablation.variants if scores.specs(row_key(v)) - {digest(v)}]:
        yield f"Recorded with other settings than the ablation has now; run again: {listed(changed)}."


def _retrieval_line(scores: Scores) -> str:
    images = scores.key("retrieval_top1").partition(" of ")[2].replace("pictures", "images")
    return ("Zero-shot retrieval: top-1 is the share of test items whose EEG embedding is nearer (cosine) to the CLIP "
            "embedding of its own image than to that of any other test image; top-5: among the five nearest; k-way, "
            "exact: the probability that it is nearer than k - 1 random others. Chance: "
            f"top-1 1 in {images}, top-5 5 in {images}, k-way 1 in k. No metric here uses a generated image.")


def _stand_ins(scores: Scores, ablation: Any) -> Iterable[str]:
    """Yields which of the ablation's columns replace those of the literature, and which are missing."""
    asked, recorded = getattr(ablation, "metrics", ()), set(scores.rows["metric"])
    ours = [metric for metric in asked if "stands in" in DEFINITIONS[metric].source]

    def headers(metrics: Iterable[str]) -> str:
        return "; ".join(metric_header(scores, metric).removesuffix(", %") for metric in metrics)

    if used := [metric for metric in ours if metric in recorded]:
        yield ("Two-way identification (chance: 50 %) and correlation distance (lower is better) with networks that "
               f"the literature does not use; they cannot be compared with published numbers: {headers(used)}.")
    if missing := [metric for metric in asked if metric not in recorded and metric not in ours]:
        yield f"Metrics of the literature whose networks this scale does not have: {headers(missing)}."


def provenance_lines(scores: Scores) -> Iterable[str]:
    """Yields the leak audit's verdict, the versions, and the networks that the literature does not use."""
    audited = {str(value): sorted(lines["variant"].unique()) for value, lines in scores.scored.groupby("leaky")}
    verdict = "; ".join(f"{value or 'not audited'}" + (f" ({listed(names)})" if len(audited) > 1 else "")
                        for value, names in audited.items())
    yield f"Leak: {verdict}. Versions: {'; '.join(scores.values('versions')) or 'not recorded'}."
    ours = scores.rows[(scores.rows["comparable"] == 0) & (scores.rows["extractor"] != "")]
    for extractor, lines in ours.groupby("extractor"):
        hashes = sorted({digits[:12] for digits in lines["extractor_sha256"]})
        yield (f"Measured with {extractor} ({listed(hashes)}), which the literature does not use, so these cannot be "
               f"compared with published numbers: {listed(sorted(set(lines['metric'])))}.")


def _null_lines(scores: Scores, rows: Sequence[Row], has_gain: bool) -> Iterable[str]:
    names, permuted = {row.name for row in rows}, permuted_text(scores.headline)
    measured = next((row.top1 for row in rows if row.name == NULL_NAME), None)
    null = scores.null(FULL_ROW)
    if has_gain:
        yield ("Gain over null: paired with the row's own shuffled EEG."
               + " Null to ceiling: the gain as a share of the ceiling's gain." * (CEILING_NAME in names))
    elif measured:
        yield NO_GAIN
    if measured or null:
        yield (f"Nulls of Full, {accuracy_name(scores)}: "
               + " and ".join([f"shuffled EEG {percent(measured)} %"] * bool(measured) if measured else [])
               + (" and " if measured and null else "")
               + (f"{permuted} {null_text(null)} % ({PERMUTATIONS:,} permutations; Full: p {p_text(null.p, '= ')})"
                  if null else "") + ".")
    if tested := [row for row in rows if row.exceeds is not None]:
        yield (f"{counted(len(tested), 'row')} cannot know the stimulus. Whether they exceed {permuted} (mean [95 %]), "
               f"one-sided, Holm over these rows: {listed(above_null(rows)) or 'none'} at {ALPHA:g}.")


def above_null(rows: Sequence[Row]) -> list[str]:
    """Returns the rows that cannot know the stimulus and exceed their null nevertheless."""
    return [row.name for row in rows if row.exceeds is not None and row.exceeds <= ALPHA]


def selection_lines(scores: Scores, ablation: Any) -> Iterable[str]:
    """Yields what selecting a checkpoint, or the best sample of an item, adds to top-1, if the rows are checkpoints."""
    tops: dict[str, dict[int, pd.DataFrame]] = {"test": {}, "val": {}}
    for v in ablation.variants:
        top = scores.top1(row_key(v)) if getattr(v, "checkpoint", None) else None
        if top is not None:
            tops[v.part][v.checkpoint[0]] = top
    test, val = (pd.DataFrame({which: top.mean(axis=1) for which, top in sorted(tops[part].items())})
                 for part in ("test", "val"))
    if test.empty or set(test) != set(val) or not test.index.equals(val.index):
        return
    last = max(tops["test"])
    selected = pd.Series({seed: test.loc[seed, val.loc[seed].idxmax()] for seed in test.index})
    headline = next(v for v in ablation.variants if v.part == "test" and v.checkpoint[0] == last)
    any_sample = scores.of[row_key(headline)].groupby(["seed", "item"])[scores.headline].max().mean()
    best, final = test.max(axis=1).mean(), test[last].mean()
    yield (f"Selection, {accuracy_name(scores)} in %, mean over {counted(len(test), 'seed')}: the last of "
           f"{counted(len(test.columns), 'checkpoint')} {100 * final:.1f} (the headline); the best on validation "
           f"{100 * selected.mean():.1f}. Only to show the inflation: the best on test {100 * best:.1f} "
           f"({100 * (best - final):+.1f}); an item counted as right if any of its samples is "
           f"{100 * any_sample:.1f} ({100 * (any_sample - final):+.1f}).")


def _classifier_lines(scores: Scores) -> Iterable[str]:
    accuracy = scores.rows[scores.rows["metric"] == "readout_accuracy"]
    for items, title in (("readout", "Class decoded from the test EEG, without images"),
                         ("probe", "Class decoded by a linear probe of encoders, pre-trained unless named untrained")):
        groups = accuracy[accuracy["items"] == items].groupby(["key", "n", "variant"], sort=False)["value"]
        lines: dict[str, list[str]] = {}
        for key, n, variant, mean, low, high, seeds in groups.agg(["mean", "min", "max", "count"]).reset_index(
                ).itertuples(index=False, name=None):
            spread = f" ({counted(seeds, 'seed')}: {100 * low:.1f} to {100 * high:.1f})" if low < high else ""
            lines.setdefault(f"({key}, n = {n})", []).append(f"{variant}: {100 * mean:.1f} %{spread}")
        if lines:
            yield f"{title}: " + "; ".join(f"{listed(each)} {key}" for key, each in lines.items()) + "."


def _masked(scores: Scores, ablation: Any) -> str:
    """Returns "Full, 12: 0.61 (mean 1.00, interpolation 1.40, Wiener 0.70); ...": means over seeds, equal rows once."""
    names: dict[tuple[float | None, ...], list[str]] = {}
    for variant in ablation.variants:
        means = scores.means(row_key(variant))
        if MASKED[0] in means:
            names.setdefault(tuple(means.get(metric) for metric in MASKED), []).append(variant.name)
    return "; ".join(f"{listed(rows)}: {model:.3f} (" + ", ".join(
        f"{name} {error:.3f}" for name, error in zip(
            ("mean", "interpolation", "Wiener", "joint Wiener"), errors, strict=True)
        if error is not None) + ")" for (model, *errors), rows in names.items())
