"""The notes under a table: what its numbers rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.experiment.ablation import HEADLINE
from bench.experiment.key import digest
from bench.experiment.variant import innermost
from bench.metrics import DEFINITIONS
from bench.setup.rows import beside
from bench.statistics import kendall_interval
from bench.tables.columns import (
    ALPHA,
    NOTHING,
    PAPER,
    counted,
    listed,
    metric_header,
    null_text,
    p_text,
    percent,
    permuted_text,
    settings_of,
)
from bench.tables.model import Contrast, Row
from bench.tables.scores import MASKED, NULL, PERMUTATIONS, Scores, whose_row

NULL_NAME, CEILING_NAME = "Full, shuffled EEG (null)", "class name as text (ceiling)"
ROWS_FOR_TAU = 4


def caption_lines(scores: Scores, rows: Sequence[Row], contrasts: Sequence[Contrast], ablation: Any, name: str,
             paper: Mapping[str, float], source: str) -> Iterable[str]:
    yield from _failed(scores)
    if not len(scores.scored):
        yield f"Nothing is scored yet: bench run --ablation {name}"
        return
    def said(column: str) -> str:
        return "; ".join(scores.values(column))

    ran = [row for row in rows if row.top1]
    counts = sorted({row.top1.items for row in ran if row.top1})
    samples = scores.items.groupby(["variant", "items", "seed"])["sample"].max() + 1
    seeds = sorted({seed for row in ran for seed in row.seeds})
    drawn = "" if not said("judge") else f" x {listed(sorted(set(samples)))} samples. Judge {said('judge')}"
    yield (f"Scale {said('scale')}, world {said('world')}. Seeds {listed(seeds)}. {listed(counts)} test pictures"
           f"{drawn}. Numerics {said('numerics')}.")
    yield from provenance_lines(scores)
    if said("scale") == "rehearsal":
        yield "A rehearsal: data are made up and the frozen parts have random weights. No number here means anything."
    stands, own = beside(ablation.variants), any(hasattr(innermost(v), "mask_ratio") for v in ablation.variants)
    if said("scale") != "paper" and (stands.null or own) and scores.headline == HEADLINE:
        yield ((f"Every number but those of the column \"{PAPER}\" was measured at scale {said('scale')}; the two do "
                "not compare." if paper else f"Measured at scale {said('scale')}: no number compares with the paper's.")
               + " The encoder's label is the paper's, the count of its parameters is real." * own)
    if scores.headline.startswith("retrieval_"):
        yield from _said_of_retrieval(scores)
    elif scores.headline != HEADLINE:
        yield f"The headline: {DEFINITIONS[scores.headline].title} ({scores.key(scores.headline)})."
    if scores.values("key", "top1_label"):
        yield (f"Accuracies are the judge's verdict against the label: top-1 of the {scores.key('top1_label')} it "
               f"knows; n-way is exact, {scores.key('nway_label')} classes. FID and IS with the judge's features (FID: "
               f"{scores.key('fid')}; IS: {scores.key('is')}). Judge distance: {scores.key('judge_distance')}; not "
               "LPIPS.")
        if stands.things:
            yield ("Protocol things: the label of a concept is the class that the judge has for it, at scale tiny its "
                   f"shape; top-1 chooses among all {scores.key('top1_label')}, of which "
                   f"{scores.key('top1_shown_label').removesuffix(' classes')}. Without any EEG one in as many as are "
                   "shown is right at best.")
    yield from _stand_ins(scores, ablation)
    if len(seeds) == 1:
        yield ("[ ] is a 95 % interval. With one seed it covers the choice of test items only, not training: intervals "
               "and verdicts are conditional on these trained models.")
    else:
        yield ("[ ] is a 95 % interval over test pictures crossed with seeds. A row with one seed: over test items "
               "only, not training.")
    yield from _said_of_nulls(scores, rows)
    if judged := [contrast for contrast in contrasts if contrast.verdict]:
        yield (f"Verdicts are about the first of each pair, at {ALPHA:g} over {counted(len(judged), 'contrast')} "
               "together: p is Holm's, their [ ] are simultaneous. Not resolved is not equal: beside it, what would "
               "resolve a true difference of the observed size with 80 % power.")
    yield from _order(scores, ablation, paper)
    yield from _selected(scores, ablation)
    pretrained = stands.null or any(settings_of(v)[0] not in (NOTHING, "none") for v in ablation.variants)
    if pretrained and "one" in scores.values("pretrain_seeds"):
        yield ("pretrain_seeds = one: all seeds share one pre-training. This table gives no verdict about "
               "pre-training, mask ratio or size.")
    elif pretrained:
        yield f"pretrain_seeds = {said('pretrain_seeds')}: every seed has a pre-training of its own."
    if getattr(ablation, "costs", False):
        yield "Trained parameters: of all networks that a row trains." + (
            " Seconds: wall time of a worker on one core or GPU for all trainings of a row, and for drawing its "
            "pictures, means over seeds; a training that rows share counts in each. They change from run to run."
            if any(row.seconds for row in rows) else "")
    if getattr(ablation, "literature", {}):
        yield ("What the literature prints was measured on other data by other classifiers and networks: no number of "
               "it compares with one of this table.")
    yield from _classifiers(scores)
    if masked := _masked(scores, ablation):
        yield ("Pre-training's masked MSE on held-out recordings, beside that of the window's mean, of linear "
               f"interpolation and of a Wiener predictor: {masked}.")
    for column in ("scale", "world", "config", "judge", "numerics", "pretrain_seeds", "versions", "key"):
        if scores.scored[column].nunique() > 1:
            groups = scores.scored.groupby(column)["variant"].unique()
            yield f"Not comparable: rows differ in {column}: " + "; ".join(
                f"{value or 'not recorded'} ({', '.join(sorted(names))})" for value, names in groups.items())
    if missing := [row.name for row in rows if row.top1 is None and not row.failed]:
        yield f"Not run: {', '.join(missing)}."
    if changed := [v.name for v in ablation.variants if scores.specs(whose_row(v)) - {digest(v)}]:
        yield f"Recorded with other settings than the ablation names now, run again: {', '.join(changed)}."
    known = {v.name for v in ablation.variants} | {NULL[0]}
    others = scores.scored[~scores.scored["variant"].isin(known) & (scores.scored["items"] != "captions")]
    if gone := sorted(set(others.loc[others["items"] == "real", "variant"])):
        yield f"Recorded, but no row of this ablation now: {', '.join(gone)}."
    if controls := sorted(set(others.loc[others["items"] != "real", "variant"])):
        yield f"Recorded beside these rows (bench table {name} --with-controls): {', '.join(controls)}."
    if paper or ((stands.null or own) and scores.headline == HEADLINE):
        yield source


def _said_of_retrieval(scores: Scores) -> Iterable[str]:
    """What its accuracies are."""
    pictures = scores.key("retrieval_top1").partition(" of ")[2]
    yield ("Retrieval, zero-shot: top-1 is the share of test items whose EEG's embedding is nearer, by cosine, to "
           "CLIP's of its own picture than to that of any other test picture; top-5: it is among the five nearest; "
           "k-way, in exact form: the chance that it is nearer than k - 1 others, drawn at random. Without any EEG: "
           f"top-1 1 in {pictures}, top-5 5 in {pictures}, k-way 1 in k. No metric here looks at a drawn picture.")


def _stand_ins(scores: Scores, ablation: Any) -> Iterable[str]:
    """Which columns that the ablation asks for stand in for the literature's, and which of those are not there."""
    asked, there = getattr(ablation, "metrics", ()), set(scores.rows["metric"])
    ours = [metric for metric in asked if "stands in" in DEFINITIONS[metric].source]

    def names(metrics: Iterable[str]) -> str:
        return "; ".join(metric_header(scores, metric).removesuffix(", %") for metric in metrics)

    if used := [metric for metric in ours if metric in there]:
        yield ("Two-way identification (chance: 50 %) and correlation distance (lower is better) by networks that the "
               f"literature does not use, which compare with none of its numbers: {names(used)}.")
    if missing := [metric for metric in asked if metric not in there and metric not in ours]:
        yield f"The literature's, which this scale lacks the networks for: {names(missing)}."


def _failed(scores: Scores) -> Iterable[str]:
    for line in scores.failures.itertuples():
        what = "" if line.items == "real" else f", {line.items}"
        yield f"Failed: {line.variant}{what}, seed {line.seed}: {line.failed}."


def provenance_lines(scores: Scores) -> Iterable[str]:
    """The leak audit's verdict, the versions, and the networks that the literature does not use."""
    audited = {str(value): sorted(those["variant"].unique()) for value, those in scores.scored.groupby("leaky")}
    verdict = "; ".join(f"{value or 'not audited'}" + (f" ({', '.join(names)})" if len(audited) > 1 else "")
                        for value, names in audited.items())
    yield f"Leaky: {verdict}. Versions: {'; '.join(scores.values('versions')) or 'not recorded'}."
    ours = scores.rows[(scores.rows["comparable"] == 0) & (scores.rows["extractor"] != "")]
    for extractor, those in ours.groupby("extractor"):
        hashes = sorted({digits[:12] for digits in those["extractor_sha256"]})
        yield (f"Measured with {extractor} ({', '.join(hashes)}), which the literature does not use, so not to be "
               f"compared with it: {', '.join(sorted(set(those['metric'])))}.")


def _said_of_nulls(scores: Scores, rows: Sequence[Row]) -> Iterable[str]:
    names, what = {row.name for row in rows}, permuted_text(scores.headline)
    measured = next((row.top1 for row in rows if row.name == NULL_NAME), None)
    permuted = scores.null(("Full", "real"))
    if measured is None and any(row.gain for row in rows):
        yield ("Gain over shuffled: paired with the row's own shuffled EEG."
               + " Null to ceiling: that gain as a share of the ceiling's." * (CEILING_NAME in names))
    elif measured or permuted:
        yield ("Gain over shuffled: paired with the row's own shuffled EEG where that was run, else with Full's. Null "
               "to ceiling: that gain as a share of the ceiling's. Nulls of Full, top-1: "
               + " and ".join([f"shuffled EEG {percent(measured)} %"] * bool(measured)
                              + ([f"{what} {null_text(permuted)} % ({PERMUTATIONS:,} permutations; Full: "
                                  f"p {p_text(permuted.p, '= ')})"] if permuted else [])) + ".")
    if tested := [row for row in rows if row.exceeds is not None]:
        above = [row.name for row in tested if row.exceeds is not None and row.exceeds <= ALPHA]
        yield (f"{counted(len(tested), 'row')} cannot know the stimulus: whether they exceed what {what} give "
               f"(mean [95 %]), one-sided, Holm over them: {', '.join(above) or 'none'} at {ALPHA:g}.")


def _selected(scores: Scores, ablation: Any) -> Iterable[str]:
    """What choosing a checkpoint, or an item's best sample, does to top-1; of ablations whose rows are checkpoints."""
    tops: dict[str, dict[int, pd.DataFrame]] = {"test": {}, "val": {}}
    for v in ablation.variants:
        top = scores.top1(whose_row(v)) if getattr(v, "checkpoint", None) else None
        if top is not None:
            tops[v.part][v.checkpoint[0]] = top
    test, val = (pd.DataFrame({which: top.mean(axis=1) for which, top in sorted(tops[part].items())})
                 for part in ("test", "val"))
    if test.empty or set(test) != set(val) or not test.index.equals(val.index):
        return
    last = max(tops["test"])
    chosen = pd.Series({seed: test.loc[seed, val.loc[seed].idxmax()] for seed in test.index})
    headline = next(v for v in ablation.variants if v.part == "test" and v.checkpoint[0] == last)
    any_sample = scores.of[whose_row(headline)].groupby(["seed", "item"])[scores.headline].max().mean()
    best, named = test.max(axis=1).mean(), test[last].mean()
    yield (f"Choosing, top-1 in %, mean over {counted(len(test), 'seed')}: the last of "
           f"{counted(len(test.columns), 'checkpoint')} {100 * named:.1f}, the headline; the best on validation "
           f"{100 * chosen.mean():.1f}. Only to show the inflation: the best on test {100 * best:.1f} "
           f"({100 * (best - named):+.1f}), an item counted as right if any of its samples is "
           f"{100 * any_sample:.1f} ({100 * (any_sample - named):+.1f}).")


def _order(scores: Scores, ablation: Any, paper: Mapping[str, float]) -> Iterable[str]:
    """Kendall's tau-b with the paper's rows."""
    tops = {v.name: scores.top1(whose_row(v)) for v in ablation.variants if v.name in paper}
    ours = {name: top for name, top in tops.items() if top is not None}
    if len(ours) < ROWS_FOR_TAU:
        return
    seeds = sorted(set.intersection(*(set(top.index) for top in ours.values())))
    if not seeds or len({tuple(top.columns) for top in ours.values()}) > 1:
        yield "Kendall's tau with the paper's order is left out: the rows share no seed, or no test pictures."
        return
    values = np.stack([top.loc[seeds].to_numpy() for top in ours.values()])
    theirs = np.array([paper[name] for name in ours])
    tau, low, high = kendall_interval(values, theirs, np.random.default_rng(0), resamples=1000)
    if np.isnan(tau):
        yield "Kendall's tau with the paper's order is not defined: all rows have one accuracy."
        return
    yield (f"Kendall's tau-b with the paper's order of {len(ours)} rows: {tau:+.2f} [{low:+.2f}, {high:+.2f}] (1,000 "
           "crossed resamples of our seeds and pictures; the paper's numbers as printed).")


def _classifiers(scores: Scores) -> Iterable[str]:
    accuracy = scores.rows[scores.rows["metric"] == "readout_accuracy"]
    for items, title in (("readout", "The class from the test EEG itself, without a picture"),
                         ("probe", "The class from pre-trained encoders, by a linear probe")):
        found = accuracy[accuracy["items"] == items].groupby(["key", "n", "variant"], sort=False)["value"]
        said: dict[str, list[str]] = {}
        for key, n, variant, mean, low, high, seeds in found.agg(["mean", "min", "max", "count"]).reset_index(
                ).itertuples(index=False, name=None):
            spread = f" ({counted(seeds, 'seed')}: {100 * low:.1f} to {100 * high:.1f})" if low < high else ""
            said.setdefault(f"({key}, n = {n})", []).append(f"{variant} {100 * mean:.1f} %{spread}")
        if said:
            yield f"{title}: " + "; ".join(f"{', '.join(each)} {what}" for what, each in said.items()) + "."


def _masked(scores: Scores, ablation: Any) -> str:
    """"Full, 12: 0.61 (mean 1.00, interpolation 1.40, Wiener 0.70); ...": means over seeds; equal ones are one."""
    names: dict[tuple[float | None, ...], list[str]] = {}
    for variant in ablation.variants:
        means = scores.means(whose_row(variant))
        if MASKED[0] in means:
            names.setdefault(tuple(means.get(metric) for metric in MASKED), []).append(variant.name)
    return "; ".join(f"{', '.join(those)}: {model:.3f} (" + ", ".join(
        f"{name} {error:.3f}" for name, error in zip(("mean", "interpolation", "Wiener"), errors, strict=True)
        if error is not None) + ")" for (model, *errors), those in names.items())
