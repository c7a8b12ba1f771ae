"""Worlds with known answers: their plans, a run at scale micro, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from paper import PAPER

from bench import On, systems
from bench.errors import BenchError, NotAvailable
from bench.execute.build import build
from bench.experiment import ablation, graph
from bench.experiment.key import digest, dump, load
from bench.experiment.scale import MICRO, TINY
from bench.setup.rows import choose_baselines
from bench.store.store import Store
from bench.systems import known

NONE = known.Spec("none")


def planned(spec, scale=MICRO, seed=0, world=0):
    return systems.plan(On(spec, spec.name, world={"seed": world}), scale.items(), scale, seed)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a probe of each start and target."""
    store = Store(tmp_path_factory.mktemp("known"))
    for spec in (NONE, known.Spec("oracle", start="oracle"), known.Spec("masked", start="masked"),
                 known.Spec("label", target="label")):
        for stage in graph.stages([planned(spec)], store.has):
            build(stage, store)
    return store


def metrics(store, stage):
    return pd.read_csv(store.path(stage) / "metrics.csv").set_index("metric")["value"]


def test_rows_of_one_world_share_trials_and_targets_and_differ_in_the_start():
    plans = [planned(replace(NONE, start=start), TINY, seed=3) for start in known.STARTS]
    assert len({plan.items for plan in plans}) == len({plan.targets for plan in plans}) == 1
    none, masked, oracle = (plan.embedding.model.start for plan in plans)
    assert masked.encoder == oracle.encoder == none
    assert masked.corpus == oracle.corpus
    assert {plan.embedding.model.seed for plan in plans} == {3}


def test_the_corpus_has_its_own_ratio_and_the_pairs_have_the_worlds():
    plan = planned(replace(NONE, start="masked", snr=3.0, windows=600, phases="shared"), TINY)
    corpus, world = plan.embedding.model.start.corpus, plan.items.trials.world
    assert replace(corpus.world, snr=world.snr) == world
    assert (corpus.world.snr, corpus.windows, corpus.phases) == (3.0, 600, "shared")
    assert dict(known.WORLDS["pretraining"]).items() <= vars(world).items()
    assert planned(NONE, TINY, world=7).items.trials.world.seed == 7


def test_a_changed_dial_changes_the_rows_identity(monkeypatch):
    before = digest(known.Spec("x"))
    monkeypatch.setitem(known.WORLDS, "pretraining", (*known.WORLDS["pretraining"], ("gap", 1.0)))
    assert digest(known.Spec("x")) != before


@pytest.mark.parametrize("start", known.STARTS)
def test_a_request_of_every_stage_can_be_written_and_read(start):
    for stage in graph.stages([planned(replace(NONE, start=start))]):
        assert load(dump(stage), stage.key) == stage


def test_the_corpus_has_codes_of_its_stimuli_and_holds_whole_people_out(store):
    corpus = planned(known.Spec("x", start="oracle")).embedding.model.start.corpus
    folder = store.path(corpus)
    index = pd.read_csv(folder / "index.csv")
    assert len(index) == len(np.load(folder / "windows.npy")) == len(np.load(folder / "codes.npy"))
    assert (index.groupby("recording")["part"].nunique() == 1).all()
    assert set(index["part"]) == {"train", "held_out"}


def test_the_class_is_that_of_the_nearest_mean_embedding_of_training_images(store):
    stage = planned(NONE)
    trials = pd.read_csv(store.path(stage.items.trials) / "trials.csv")
    shown = np.load(store.path(stage.targets) / "embeddings.npy")
    train, test = (trials[trials["part"] == part].sort_values("item") for part in ("train", "test"))
    means = np.stack([shown[train["picture"][train["label"] == label]].mean(0) for label in range(10)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    embedding = np.load(store.path(stage.embedding) / "embedding.npy")
    right = (embedding @ means.T).argmax(1) == test["label"].to_numpy()
    items = pd.read_csv(store.path(stage) / "items.csv.gz")
    assert items["class_top1"].tolist() == right.tolist()
    assert metrics(store, stage)["class_top1"] == pytest.approx(right.mean())
    assert {"retrieval_top1", "retrieval_10way", "train_class_top1"} <= set(metrics(store, stage).index)


def test_a_probe_of_labels_embeds_an_item_as_a_mixture_of_the_classes(store):
    stage = planned(known.Spec("label", target="label"))
    classes = np.load(store.path(stage.embedding.model) / "classes.npy")
    weights = np.linalg.lstsq(classes.T, np.load(store.path(stage.embedding) / "embedding.npy").T, rcond=None)[0]
    assert weights.min() > -1e-4
    assert weights.sum(0) == pytest.approx(1, abs=1e-3)


def test_masked_pretraining_is_compared_with_both_linear_predictions(store):
    start = planned(known.Spec("masked", start="masked")).embedding.model.start
    summary = json.loads((store.path(start) / "pretrain.json").read_text())
    assert {"masked_mse", "wiener_mse", "joint_wiener_mse"} <= set(summary)


def test_a_start_changes_the_probe(store):
    embeddings = [np.load(store.path(planned(spec).embedding) / "embedding.npy") for spec in (
        NONE, known.Spec("oracle", start="oracle"), known.Spec("masked", start="masked"))]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not np.allclose(embeddings[a], embeddings[b], atol=1e-3)


def test_more_pairs_than_training_trials_are_refused(store):
    stage = planned(NONE).embedding.model
    with pytest.raises(BenchError, match="1000 pairs requested, but the world has 160 training trials"):
        build(replace(stage, pairs=1000), store)


def test_rows_have_no_baselines_of_images():
    chosen = ablation.load("known_pretraining")
    assert choose_baselines(chosen.variants).null is None
    assert not choose_baselines(chosen.variants).classifiers


@pytest.mark.parametrize(("changes", "message"), [
    ({"world": "other"}, "world must be one of 'pretraining'"), ({"start": "mae"}, "start must be one of 'none'"),
    ({"phases": "random"}, "phases must be one of 'kept'"), ({"target": "text"}, "target must be one of 'image'"),
    ({"mask": 1.0}, "mask must be between 0 and 1, not 1.0"), ({"pairs": 0}, "pairs must be an integer of at least 1"),
    ({"windows": 1.5}, "windows must be an integer of at least 1, not 1.5"),
    ({"steps": 0}, "steps must be above 0 and snr at least 0, not 0 and 4.0"),
])
def test_values_outside_their_range_are_refused(changes, message):
    with pytest.raises(BenchError, match=f"variant 'x': {message}"):
        known.Spec("x", **changes)


def test_a_recorded_data_set_has_no_known_answer():
    with pytest.raises(NotAvailable, match="no sizes for scale paper"):
        systems.plan(NONE, PAPER.items(), PAPER, 0)
    with pytest.raises(NotAvailable, match="is a recorded data set; worlds with known answers are simulated"):
        systems.plan(NONE, PAPER.items(), MICRO, 0)
