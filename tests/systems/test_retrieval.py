"""Retrieval: its definition, a run at scale micro, its table and its leak; and what stands beside rows on things."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from paper import PAPER

from bench import FULL, On, captions, retrieval, systems
from bench.cli import main
from bench.errors import BenchError, NotAvailable
from bench.experiment import ablation, graph
from bench.experiment.ablation import by_subject
from bench.experiment.scale import MICRO, TINY
from bench.experiment.stages import Generate, Retrieval
from bench.runtime import Runtime
from bench.scoring import schema
from bench.scoring.retrieval import score_retrieval
from bench.setup import rows as rows_
from bench.store.store import Store
from bench.systems import guided
from bench.tables import captions as table_captions
from bench.tables import results
from bench.tables.build import table as build_table
from bench.train import score as train

CHOSEN = ablation.load("guided_retrieval")
OWN, SHUFFLED, LOSO, LEAKED = "MLP in-subject", "MLP in-subject / EEG shuffled", "MLP LOSO", "ATM LOSO leaked"


def planned(name) -> Retrieval:
    variant, = CHOSEN.select([name])
    return systems.plan(variant, MICRO.items(), MICRO, 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What one command leaves: a folder with a store and results."""
    folder = tmp_path_factory.mktemp("retrieval")
    assert main(["run", "--ablation", "guided_retrieval", "--scale", "micro", "--store", str(folder / "store"),
                 "--results", str(folder / "results"), "--workers", "1", "--variants",
                 ",".join([OWN, SHUFFLED, LOSO, LEAKED])]) == 0
    return folder


def table(run):
    return build_table(run / "results" / "micro", "guided_retrieval", CHOSEN)


def test_k_way_retrieval_is_the_mean_over_all_sets_of_other_pictures():
    rng = np.random.default_rng(0)
    shown = rng.standard_normal((5, 3))
    picture = np.array([7, 7, 2, 3, 9, 4, 2])  # 7 and 2 were seen by two people
    _, own = np.unique(picture, return_inverse=True)
    eeg = shown[own] + rng.standard_normal((7, 3))
    found = score_retrieval(picture, shown[own], eeg, (2, 4, 10))
    likeness = (eeg / np.linalg.norm(eeg, axis=1)[:, None]) @ (shown / np.linalg.norm(shown, axis=1)[:, None]).T
    ahead = (likeness > likeness[np.arange(7), own][:, None]).sum(1)
    assert set(ahead) > {0}
    assert found["retrieval_top1"][1].tolist() == (ahead == 0).tolist()
    assert found["retrieval_2way"][1] == pytest.approx(1 - ahead / 4)
    assert found["retrieval_4way"][1] == pytest.approx([(4 - n) * (3 - n) * (2 - n) / 24 for n in ahead])
    assert found["retrieved"][1].tolist() == np.array([2, 3, 4, 7, 9])[likeness.argmax(1)].tolist()
    assert found["retrieval_top1"][0] == "top 1 of 5 pictures"
    assert found["retrieval_2way"][0] == "2 of 5 pictures"
    assert "retrieval_10way" not in found, "there are five pictures"


def test_every_row_is_tested_on_the_same_pictures_seen_by_the_same_person(run):
    items = results.read(run / "results" / "micro", "guided_retrieval").items
    assert items.groupby("variant")["item"].unique().map(tuple).nunique() == 1
    assert set(items["subject"]) == {3}
    assert not items.duplicated(["variant", "item"]).any()
    assert items["picture"].nunique() == MICRO.things.world.test_concepts == len(items) / 4


def test_a_row_holds_what_its_embeddings_and_clips_give(run):
    stage, store = planned(OWN), Store(run / "store")
    assert not [one for one in graph.stages([stage]) if type(one).__name__ == "GuidedPictures"]
    trials = pd.read_csv(store.path(stage.items.trials) / "trials.csv")
    test = trials[trials["part"] == "test"].sort_values("item")
    shown = np.load(store.path(stage.targets) / "embeddings.npy")[test["picture"]]
    eeg = np.load(store.path(stage.embedding) / "embedding.npy")
    likeness = shown @ (eeg / np.linalg.norm(eeg, axis=1)[:, None]).T  # of unit norm: cosines
    rank = (likeness > np.diag(likeness)).sum(0)
    recorded = results.read(run / "results" / "micro", "guided_retrieval")
    rows = recorded.rows[recorded.rows["variant"] == OWN].set_index("metric")
    assert rows.loc["retrieval_top1", "value"] == pytest.approx((rank == 0).mean())
    assert rows.loc["retrieval_top5", "value"] == pytest.approx((rank < 5).mean())
    assert rows.loc["retrieval_2way", "value"] == pytest.approx(1 - rank.mean() / 13)
    assert rows.loc["retrieval_top1", ["extractor", "comparable"]].tolist() == ["tiny/clip", 0]
    items = recorded.items[recorded.items["variant"] == OWN].sort_values("item")
    assert items["retrieved"].tolist() == test["picture"].to_numpy()[likeness.argmax(0)].tolist()


def test_shuffled_eeg_has_the_same_embeddings_of_other_pictures(run):
    store = Store(run / "store")
    eeg, shuffled = (np.load(store.path(planned(name).embedding) / "embedding.npy") for name in (OWN, SHUFFLED))
    assert planned(OWN).embedding.encoder == planned(SHUFFLED).embedding.encoder
    assert not np.isclose(eeg, shuffled).all(1).any()
    assert np.allclose(np.sort(eeg, 0), np.sort(shuffled, 0), atol=1e-5)


def test_its_table_is_about_retrieval_and_nothing_is_left_of_pictures(run):
    made = table(run)
    headers = [column.header for column in made.document.complete.blocks[0]]
    assert "top-1 of 14 images, % [95% CI]" in headers
    assert {"top-5 of 14, %", "2-way, %", "4-way, %", "10-way, %", "permuted images, % [95%]"} <= set(headers)
    assert [column.header for column in made.document.short.blocks[0]] == [
        "row", "top-1 of 14 images, % [95% CI]", "top-5 of 14, %", "2-way, %"]
    assert not {"FID", "IS", "SSIM", "PSNR, dB", "judge distance", "sampling, s", "null to ceiling, %"} & set(headers)
    assert {table_captions.NULL_NAME, table_captions.CEILING_NAME}.isdisjoint(row.name for row in made.entries)
    rows = {row.name: row for row in made.entries}
    assert rows[SHUFFLED].null.mean == pytest.approx(1 / 14)
    assert rows[OWN].null is None
    assert rows[OWN].gain.mean == pytest.approx(rows[OWN].top1.mean - rows[SHUFFLED].top1.mean)
    assert rows[OWN].seconds[0] > 0
    assert rows[OWN].seconds[1] is None
    said = " ".join(made.caption)
    for needed in ("Scale micro, world tiny things, seed 1.", "14 test images. Numerics", "top-1 1 in 14 images",
                   "they exceed permuted images", "tiny/clip"):
        assert needed in said, needed
    for absent in ("judge", "FID", "column \"paper", "decoded from the test EEG"):
        assert absent not in said, absent
    frame = pd.read_csv(io.StringIO(made.render("csv")))
    assert "top1" not in frame
    assert frame.loc[frame["name"] == OWN, "retrieval_top1"].item() == pytest.approx(100 * rows[OWN].top1.mean)


def test_the_literature_is_told_apart_by_whose_trials_train_and_its_contradiction_stands_there(run):
    lines = table(run).literature

    def printed(here, metric):
        return lines.loc[(lines["here"] == here) & (lines["metric"] == metric), "value"].tolist()

    assert printed("ATM in-subject", "retrieval_top1") == ["26.13", "28.64"]
    assert printed("ATM LOSO", "retrieval_top1") == ["8.24"]
    assert printed("NICE LOSO", "retrieval_top5") == ["23.76"]
    assert lines["contradicts"].str.contains("28.64").any()
    assert lines["contradicts"].str.contains("26.13").any()


def test_the_published_leak_alone_is_flagged_in_the_table_and_by_the_audit(run, capsys):
    rows = results.read(run / "results" / "micro", "guided_retrieval").rows
    leaky = rows[rows["metric"] == "retrieval_top1"].set_index("variant")["leaky"]
    assert leaky.pop(LEAKED) == "yes: 14 test trials of a subject that is said to be left out and is trained on"
    assert set(leaky) == {"no"}
    capsys.readouterr()
    assert main(["audit", "--ablation", "guided_retrieval", "--scale", "micro", "--store", str(run / "store")]) == 1
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name for name, verdict in said.items() if verdict != "no"} == {LEAKED, f"{LEAKED} / EEG shuffled"}


def test_a_figure_of_rows_without_pictures_is_refused(run, tmp_path, capsys):
    assert main(["figure", "3", "--ablation", "guided_retrieval", "--scale", "micro", "--store", str(run / "store"),
                 "--out", str(tmp_path / "f.png")]) == 2
    assert "figure 3: no row of the ablation guided_retrieval generates images" in capsys.readouterr().err
    assert not list((run / "results" / "micro").glob("*.png"))


def test_embeddings_that_fit_neither_items_nor_targets_are_refused(run, tmp_path):
    store, stage = Store(run / "store"), planned(OWN)
    eeg, item = (np.load(store.path(stage.embedding) / f"{name}.npy") for name in ("embedding", "item"))

    def inputs(one):
        return tmp_path if one == stage.embedding else store.path(one)

    for wrong, order, said in ((eeg[:, :5], item, "has 5 dimensions, the images' embeddings have 64"),
                               (eeg[:3], item, r"is \[3, 64\] float32; expected \[items, D'\]"),
                               (eeg * np.nan, item, "expected .* finite numbers"),
                               (eeg, item[::-1], "does not contain the 14 items in their order")):
        np.save(tmp_path / "embedding.npy", wrong)
        np.save(tmp_path / "item.npy", order)
        with pytest.raises(BenchError, match=said):
            train.retrieval(stage, inputs, tmp_path, Runtime())
    (tmp_path / "embedding.npy").unlink()
    np.save(tmp_path / "item.npy", item)
    with pytest.raises(BenchError, match="no embeddings for retrieval"):
        train.retrieval(stage, inputs, tmp_path, Runtime())


def test_dreamdiffusion_is_retrieved_by_what_lies_beside_its_pictures_and_others_are_refused():
    stage = planned("Full in-subject")
    assert isinstance(stage.embedding, Generate)
    assert stage.targets == stage.embedding.model.targets
    for spec, said in ((replace(FULL, name="x", align=None), "align=None leaves no embedding"),
                       (captions.Spec("x"), "system captions has no embedding in CLIP space")):
        with pytest.raises(BenchError, match=said):
            systems.plan(retrieval.Spec(spec, "x"), MICRO.items(), MICRO, 0)
    with pytest.raises(BenchError, match="checkpoint is set, but only the systems dreamdiffusion and guided keep"):
        systems.plan(On(retrieval.Spec(guided.Spec("x"), "x"), "x", checkpoint=(1, 2)), MICRO.items(), MICRO, 0)


def test_what_stands_beside_rows_on_things_is_on_the_same_items_and_no_classifier_of_the_class():
    for name, null in (("guided_parts", True), ("guided_encoders", False)):
        table = rows_.rows(ablation.load(name).variants, MICRO, [0])
        own = table[0].stage.items
        beside = {row.items: row for row in table if row.beside}
        assert set(beside) == ({"captions", "shuffled"} if null else {"captions"})
        assert beside["captions"].stage.items == own
        if null:
            assert beside["shuffled"].variant == "Full"
            assert beside["shuffled"].stage.items == replace(own, eeg="shuffled")
    assert not [row for row in rows_.rows(CHOSEN.variants, MICRO, [0]) if row.beside]
    mixed = [FULL, On(guided.Spec("x"), "x", protocol="things")]
    assert rows_.choose_baselines(mixed) == rows_.choose_baselines([FULL]) == rows_.Baselines(
        On(FULL, "Full", eeg="shuffled"), captions.Spec(), True)


def test_each_subject_is_left_out_in_turn_beside_its_own_shuffled_eeg():
    rows = {v.name: v for v in by_subject(CHOSEN, [1, 3]).variants}
    assert rows["ATM LOSO / subject 1"].subjects == (1,)
    assert rows["ATM LOSO / subject 3"].subjects == (3,)
    assert rows["ATM in-subject / subject 1"].subjects == (1,)
    assert rows["ATM LOSO / subject 1 / EEG shuffled"].subjects == (1,)


@pytest.mark.parametrize(("scale", "left_out", "expected"), [
    (TINY, None, (1, 2, 3)), (TINY, 1, (2, 3, 1)), (PAPER, None, (1, 2, 4, 5, 6, 7, 8, 9, 10, 3)),
    (PAPER, 8, (1, 2, 3, 4, 5, 6, 7, 9, 10, 8))], ids=["tiny", "tiny, 1", "paper", "paper, 8"])
def test_all_others_train_where_one_subject_is_left_out_also_nine_at_the_papers_scale(scale, left_out, expected):
    chosen = CHOSEN if left_out is None else by_subject(CHOSEN, [left_out])
    rows = {v.name.split(" / subject")[0]: systems.plan(v, scale.items(), scale, 0) for v in chosen.variants
            if v.name.startswith(("ATM in-subject", "ATM LOSO")) and v.eeg == "real"}
    loso, leaked, within = (rows[f"ATM {name}"].items for name in ("LOSO", "LOSO leaked", "in-subject"))
    assert loso.trials.subjects == leaked.trials.subjects == expected
    assert within.trials.subjects == expected[-1:]  # tested on the same person
    assert (loso.trials.split, leaked.trials.split) == ("subject", "subject_seen")


def test_at_the_papers_scale_rows_on_things_have_swav_too_and_no_corpus_of_another_shape():
    score = systems.plan(On(captions.Spec("x"), "x", protocol="things"), PAPER.items(), PAPER, 0)
    assert [weights.name for weights in score.networks] == [*PAPER.networks, "swav"]
    assert [weights.name for weights in systems.plan(captions.Spec("x"), PAPER.items(), PAPER, 0).networks] == [
        *PAPER.networks]
    with pytest.raises(NotAvailable, match=r"no corpus for pre-training with windows like .*, \[63, 248\]"):
        systems.plan(On(FULL, "x", protocol="things"), PAPER.items(), PAPER, 0)


def put(folder, name, values, items="real", metric="retrieval_4way"):
    """Records a made-up row with those values of a metric, [N], and a second one, which is no metric of items."""
    about = dict.fromkeys(schema.ABOUT, "") | {"scale": "tiny", "stage": name}
    whose = {"variant": name, "seed": 0, "items": items}
    values = np.asarray(values, float)
    each = pd.DataFrame({**whose, "item": np.arange(len(values)), "sample": 0, "picture": np.arange(len(values)),
                         "label": 0, metric: values})
    rows = pd.DataFrame([{**whose, **about, "metric": one, "key": "4 of 9 pictures", "value": values.mean(), "n": 9,
                          "extractor": "", "extractor_sha256": "", "comparable": 1} for one in (metric, "pixcorr")])
    results.record(folder, "mine", rows, each)


def test_a_headline_that_is_no_right_or_wrong_has_intervals_and_verdicts_and_neither_mcnemar_nor_permutations(tmp_path):
    specs = [captions.Spec("a"), captions.Spec("b", classes="none", eeg_free=True)]
    rng = np.random.default_rng(0)
    for spec, mean in zip(specs, (0.8, 0.3), strict=True):
        put(tmp_path, spec.name, np.clip(mean + 0.1 * rng.standard_normal(20), 0, 1))
    chosen = SimpleNamespace(name="mine", title="t", published=None, variants=specs, contrasts=[("a", "b")],
                             headline=("top1_label", "retrieval_4way"), metrics=("pixcorr", "correlation_swav"))
    made = build_table(tmp_path, "mine", chosen)
    assert made.headline == "retrieval_4way", "the first that is recorded"
    assert made.labels == ("4-way, %", "")
    assert made.entries[0].top1.mean == pytest.approx(0.8, abs=0.1)
    assert made.entries[1].null is None
    contrast, = made.differences
    assert contrast.verdict.word == "better"
    assert contrast.mcnemar == {}
    assert "PixCorr" in [column.header for column in made.document.complete.blocks[0]]
    assert "Metrics of the literature whose networks this scale does not have: SwAV distance." in made.caption


@pytest.mark.parametrize(("line", "said"), [
    ("headline = 'fid'", "the headline 'fid' must be a per-image metric that is a share: top1_label, "),
    ("headline = 'top1_real'", "the headline 'top1_real' must be"),
    ("headline = ()", "the headline 'nothing' must be"),
    ("metrics = ['pixcor']", "no metric 'pixcor' for a column; there are: .*pixcorr"),
])
def test_a_headline_or_a_column_that_cannot_be_is_refused_in_one_line(tmp_path, line, said):
    path = tmp_path / "mine.py"
    path.write_text(f"from bench import FULL\nvariants = [FULL]\n{line}\n")
    with pytest.raises(BenchError, match=said):
        ablation.load(str(path))
