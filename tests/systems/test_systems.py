"""The systems that need no generator of their own, no EEG or no training, and the classifiers of the EEG."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from paper import PAPER

from bench import FULL, On, captions, systems, trivial
from bench.data.tiny_things import LEFT_OUT
from bench.errors import BenchError, NotAvailable
from bench.execute.build import build
from bench.experiment import ablation, encoders, graph
from bench.experiment.scale import MICRO, TINY
from bench.experiment.stages import Readout, training
from bench.experiment.variant import scale_rates
from bench.runtime import Runtime
from bench.systems import linear as linear_system
from bench.train.readout import readout
from bench.train.trials import write_classes
from models.classifiers import EEGNet
from models.encoders.linear import Encoder

ITEMS = MICRO.items()


def built(spec, store):
    """The folder of a system's pictures."""
    pictures = systems.plan(spec, ITEMS, MICRO, 0).pictures
    if isinstance(spec, On):
        encoders.keep(encoders.resolve(spec.of, MICRO), store.encoders)
    for stage in graph.stages([pictures], store.has):
        build(stage, store)
    return store.path(pictures)


@pytest.mark.parametrize("spec", [
    captions.Spec("a", classes="none"), captions.Spec("b", classes="time"), trivial.Spec("c", source="random"),
    trivial.Spec("d", source="class_mean"), trivial.Spec("e", source="vae")], ids=lambda spec: spec.name)
def test_a_trivial_system_ends_in_pictures_of_every_item(spec, micro):
    folder = built(spec, micro)
    assert np.load(folder / "pictures.npy").shape == (40, MICRO.sampling.samples, 32, 32, 3)
    assert np.array_equal(np.load(folder / "item.npy"), np.sort(np.load(folder / "item.npy")))


def test_a_random_training_picture_is_one_and_the_class_mean_is_that_of_training_pictures(micro):
    from bench.train.items import load

    train, test = (load(it, micro.path(it.trials)) for it in (training(ITEMS), ITEMS))
    known = {picture.tobytes() for picture in train.pictures}
    drawn = np.load(built(trivial.Spec("c", source="random"), micro) / "pictures.npy")
    assert all(picture.tobytes() in known for picture in drawn.reshape(-1, 32, 32, 3))
    assert len({picture.tobytes() for picture in drawn[:, 0]}) > 20
    means = np.load(built(trivial.Spec("d", source="class_mean"), micro) / "pictures.npy")
    expected = train.pictures[train.label == test.label[0]].astype(float).mean(0)
    assert np.abs(means[0, 1] - expected).max() <= 0.5


@pytest.mark.parametrize("at", [MICRO, TINY, PAPER], ids=lambda at: at.name)
@pytest.mark.parametrize("split", LEFT_OUT)
def test_new_concepts_have_no_mean_picture_and_that_is_said_before_anything_is_built(at, split):
    spec = trivial.Spec("mean", source="class_mean")
    with pytest.raises(NotAvailable, match="'mean': source='class_mean' needs training images of the class, which"):
        systems.plan(On(spec, "on", protocol="things", split=split), at.items(), at, 0)
    for source in ("random", "vae"):
        row = systems.plan(On(replace(spec, source=source), "on", protocol="things", split=split), at.items(), at, 0)
        assert row.pictures.source == source
    assert systems.plan(spec, at.items(), at, 0).pictures.source == "class_mean"


def test_the_mean_of_a_class_that_other_people_saw_in_training_is_there():
    row = systems.plan(On(trivial.Spec("mean", source="class_mean"), "on", split="subject", subjects=(1, 2, 3)),
                    PAPER.items(), PAPER, 0)
    assert row.items.trials.world == PAPER.world


def test_the_vae_gives_the_stimulus_back_nearly(micro):
    from bench.train.items import load

    rebuilt = np.load(built(trivial.Spec("e", source="vae"), micro) / "pictures.npy")
    assert np.abs(rebuilt[:, 0].astype(float) - load(ITEMS, micro.path(ITEMS.trials)).pictures).mean() < 8


def test_a_classifiers_verdict_is_the_caption(micro):
    """With verdicts that are all true, classify-then-generate paints what the ceiling paints."""
    classified = systems.plan(captions.Spec("b", classes="time"), ITEMS, MICRO, 0).pictures
    verdicts = micro.path(built_readout(classified, micro)) / "verdicts.csv"
    table, before = pd.read_csv(verdicts), verdicts.read_bytes()
    wrong = (table["predicted"] != table["label"]).to_numpy()
    ceiling, said = (np.load(built(captions.Spec(classes=classes), micro) / "pictures.npy") for classes in
                     ("true", "time"))
    assert np.array_equal(ceiling[~wrong], said[~wrong])
    assert wrong.any()
    assert not (ceiling[wrong] == said[wrong]).all((1, 2, 3, 4)).any()
    assert verdicts.read_bytes() == before


def built_readout(generate, store):
    for stage in graph.stages([generate], store.has):
        build(stage, store)
    return generate.model.classes


@pytest.mark.parametrize("eeg", ["label", "clip"])
def test_an_oracle_goes_through_the_same_fine_tuning(eeg, micro):
    linear = replace(FULL, mask_ratio=None, encoder="linear")
    folder = built(On(linear, "oracle", eeg=eeg), micro)
    assert np.load(folder / "pictures.npy").shape[0] == 40
    assert np.load(folder / "embedding.npy").shape == (40, 64)


def test_a_probe_and_the_ridge_classifier_write_a_verdict_for_every_item(micro):
    start = systems.plan(FULL, ITEMS, MICRO, 0).pictures.model.start
    for classifier, encoder in (("ridge", None), ("probe", start)):
        stage = Readout(training(ITEMS), ITEMS, classifier, encoder, 0, MICRO.numerics)
        verdicts = pd.read_csv(build(stage, micro) / "verdicts.csv")
        assert len(verdicts) == 40
        value = pd.read_csv(micro.path(stage) / "metrics.csv").set_index("metric").loc["readout_accuracy", "value"]
        assert value == pytest.approx((verdicts["label"] == verdicts["predicted"]).mean())


def test_the_probe_of_an_untrained_encoder_is_that_of_its_seeds_first_weights_and_needs_no_pretraining(micro, tmp_path):
    encoder = systems.plan(FULL, ITEMS, MICRO, 0).pictures.model.start.encoder
    verdicts = []
    for seed, folder in ((0, "a"), (0, "b"), (1, "c")):
        stage = Readout(training(ITEMS), ITEMS, "probe", encoder, seed, MICRO.numerics)
        assert {one.kind for one in graph.stages([stage])} == {"trials", "readout"}
        (tmp_path / folder).mkdir()
        readout(stage, micro.path, tmp_path / folder, Runtime())
        verdicts.append((tmp_path / folder / "verdicts.csv").read_bytes())
    assert verdicts[0] == verdicts[1]
    assert verdicts[0] != verdicts[2]


@pytest.mark.parametrize("at", [MICRO, PAPER], ids=lambda at: at.name)
def test_labels_as_input_are_read_in_both_ways_as_text_and_as_a_token_that_is_learned(at):
    rows = {v.name: systems.plan(v, at.items(), at, 0) for v in ablation.load("supervision").variants}
    text, token = rows["label as input"].pictures, rows["label as class token"].pictures
    assert text.model.classes == "true"
    assert (token.items.eeg, token.model.items.eeg, token.model.start.name) == ("label", "label", "linear")
    assert (token.model.align, token.model.sd_loss, token.model.tune) == (None, True, "E+A")


def test_eegnet_has_the_parameters_of_its_paper_and_keeps_its_filters_small():
    net = EEGNet(32, 128, 250.0, 10)
    temporal, spatial, separable, norms = 8 * 125, 16 * 32, 16 * 16 + 16 * 16, 2 * (8 + 16 + 16)
    assert sum(p.numel() for p in net.parameters()) == temporal + spatial + separable + norms + 16 * 4 * 10 + 10
    assert net(torch.zeros(2, 32, 128)).shape == (2, 10)
    with torch.no_grad():
        net.spatial.weight.mul_(100)
    net.limit()
    assert net.spatial.weight.flatten(1).norm(dim=1).max() <= 1 + 1e-5


def test_eegnet_learns_what_a_ridge_classifier_cannot(tmp_path):
    """Classes that differ by the power of a rhythm of random phase: a linear read-out sees nothing."""
    rng = np.random.default_rng(0)
    label = np.arange(400) % 2
    phase = rng.uniform(0, 2 * np.pi, 400)
    wave = np.sin(2 * np.pi * np.where(label, 8, 24)[:, None] * np.arange(128) / 250 + phase[:, None])
    eeg = (wave[:, None] * np.ones((1, 4, 1)) + 0.5 * rng.standard_normal((400, 4, 128))).astype(np.float32)
    write_classes(tmp_path)
    np.save(tmp_path / "eeg.npy", eeg)
    np.save(tmp_path / "pictures.npy", np.zeros((400, 4, 4, 3), np.uint8))
    pd.DataFrame({"item": range(400), "subject": 1, "picture": range(400), "label": label, "block": 0,
                  "part": ["train"] * 300 + ["test"] * 100, "position": range(400)}).to_csv(
        tmp_path / "trials.csv", index=False)
    reached = {}
    for classifier in ("ridge", "eegnet"):
        stage = Readout(training(ITEMS), ITEMS, classifier, None, 0, MICRO.numerics)
        readout(stage, lambda upstream: tmp_path, tmp_path, Runtime())
        reached[classifier] = pd.read_csv(tmp_path / "metrics.csv")["value"].item()
    assert reached["ridge"] < 0.7
    assert reached["eegnet"] > 0.9


def test_the_linear_encoder_makes_one_token_of_a_trial():
    assert Encoder(4, 10, 6, 0, 0)(torch.zeros(3, 4, 10)).shape == (3, 1, 6)


@pytest.mark.parametrize(("spec", "said"), [
    (lambda: captions.Spec("x", classes="svm"), "classes must be one of true, none, ridge"),
    (lambda: trivial.Spec("x", source="noise"), "source must be one of random, class_mean, vae")])
def test_a_spec_that_does_not_exist_is_refused(spec, said):
    with pytest.raises(BenchError, match=said):
        spec()


def test_the_rates_of_a_row_multiply_every_learning_rate_and_nothing_else():
    plain, twice = (systems.plan(On(FULL, "x", rates=rates), ITEMS, MICRO, 0) for rates in (1.0, 2.0))
    assert plain == systems.plan(FULL, ITEMS, MICRO, 0)
    once, model = plain.pictures.model, twice.pictures.model
    assert model.schedule == replace(once.schedule, lr_encoder=2 * once.schedule.lr_encoder,
                                     lr_attention=2 * once.schedule.lr_attention,
                                     lr_projection=2 * once.schedule.lr_projection)
    assert model.start.schedule == replace(once.start.schedule, lr=2 * once.start.schedule.lr)
    assert scale_rates(twice, 0.5) == plain


def test_rates_are_refused_where_no_learning_rate_is_and_unless_positive():
    with pytest.raises(BenchError, match="'x': rates is set, but system linear trains with no learning rate"):
        systems.plan(On(linear_system.Spec("linear"), "x", rates=2.0), ITEMS, MICRO, 0)
    for rates in (0, -1.0, float("nan"), float("inf"), True, "2"):
        with pytest.raises(BenchError, match="rates must be a positive number"):
            On(FULL, "x", rates=rates)
