"""Perceptogram: its regressions against scikit-learn's and the closed form, its images at micro, its settings."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from paper import PAPER
from safetensors.numpy import load_file
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from bench import On, systems
from bench.cost.systems import linear as linear_cost
from bench.cost.systems import perceptogram as cost
from bench.errors import BenchError
from bench.execute.build import build
from bench.experiment import ablation, graph
from bench.experiment.scale import MICRO
from bench.experiment.stages import training
from bench.systems import guided, linear
from bench.systems.linear import ALPHAS
from bench.systems.perceptogram import EmbeddedPictures, Spec
from bench.train import linear as train
from bench.train.items import load

ITEMS = MICRO.items()


def pictures(items=ITEMS, scale=MICRO, seed=0, **options) -> EmbeddedPictures:
    return systems.plan(Spec("row", **options), items, scale, seed).pictures


def built(stage, store):
    for one in graph.stages([stage], store.has):
        build(one, store)
    return store.path(stage)


@pytest.fixture(scope="module")
def whole(micro):
    """The folder of the images with all parts, at micro."""
    return built(pictures(), micro)


def training_data(micro):
    """EEG [n, C * T], embeddings [n, D'] and latents [n, C * h * w] of the training trials, and the tested EEG."""
    stage = pictures()
    trained, tested = (load(items, micro.path(ITEMS.trials)) for items in (training(ITEMS), ITEMS))
    targets = micro.path(stage.embedding.target)
    embeddings, latents = (np.load(targets / f"{name}.npy")[trained.picture] for name in ("embeddings", "mean"))
    return (trained.eeg.reshape(len(trained.eeg), -1), embeddings, latents.reshape(len(latents), -1),
            tested.eeg.reshape(len(tested.eeg), -1))


def test_the_embedding_that_the_generator_gets_is_scikit_learns_ridge_to_clips_image_embedding(micro, whole):
    eeg, embeddings, _, tested = training_data(micro)
    scaler = StandardScaler().fit(eeg)
    theirs = RidgeCV(ALPHAS, alpha_per_target=True).fit(scaler.transform(eeg), embeddings)
    found = np.load(built(pictures(restandardise=False), micro) / "embedding.npy")
    assert found == pytest.approx(theirs.predict(scaler.transform(tested)), abs=1e-4)
    assert found.std(0).mean() > 100 * 1e-4


def test_the_regression_is_the_closed_form_of_a_ridge(micro, whole):
    eeg, embeddings, latents, _ = training_data(micro)
    x = StandardScaler().fit_transform(eeg.astype(np.float64))
    y = np.concatenate([embeddings[:, :20], latents[:, :20]], 1).astype(np.float64)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    kept = s > 1e-8 * s[0]
    fit = train.regress(u[:, kept], s[kept], y, (1000.0,))
    coef = x.T @ np.linalg.solve(x @ x.T + 1000 * np.eye(len(x)), y - y.mean(0))
    assert vt[kept].T @ fit["coef"] == pytest.approx(coef, abs=1e-6)
    assert fit["mean"] == pytest.approx(y.mean(0), abs=1e-12)
    assert np.abs(coef).max() > 1e-4


def test_the_two_regressions_have_the_shapes_of_their_targets_and_the_same_eeg(micro, whole):
    stage = pictures()
    assert stage.embedding.factors == stage.latent.factors
    for ridge, name, shape in ((stage.embedding, "embedding", [64]), (stage.latent, "latent", [8, 8, 8])):
        assert load_file(micro.path(ridge) / "ridge.safetensors")["shape"].tolist() == shape
        about = json.loads((micro.path(ridge) / "summary.json").read_text())
        assert about["trained_parameters"] == {name: (32 * 128 + 1) * np.prod(shape)}
        assert about["losses"]["leave_one_out_mse"] < about["losses"]["mean_mse"]


def test_rescaled_embeddings_have_the_deviation_of_the_training_targets(micro, whole):
    plain = np.load(built(pictures(restandardise=False), micro) / "embedding.npy")
    again = np.load(whole / "embedding.npy")
    drawn = [np.load(built(pictures(**options), micro) / "pictures.npy") for options in ({}, {"restandardise": False})]
    assert not np.array_equal(*drawn)
    fit = load_file(micro.path(pictures().embedding) / "ridge.safetensors")
    assert again == pytest.approx((plain - fit["loo_mean"]) / fit["loo_std"] * fit["std"] + fit["mean"], abs=1e-4)
    assert again.std(0).mean() > 1.2 * plain.std(0).mean()


def test_every_part_changes_the_images_and_a_vanishing_latent_is_no_latent(micro, whole):
    drawn = {"whole": np.load(whole / "pictures.npy").astype(float)}
    for name, options in (("no latent", {"latent": False}), ("vanishing", {"gain": 1e-9}), ("strong", {"gain": 2.0})):
        drawn[name] = np.load(built(pictures(**options), micro) / "pictures.npy").astype(float)
    assert drawn["whole"].shape == (40, 2, *drawn["whole"].shape[2:])
    assert np.abs(drawn["vanishing"] - drawn["no latent"]).max() <= 1
    away = {name: np.abs(images - drawn["no latent"]).mean() for name, images in drawn.items()}
    assert away["vanishing"] < away["whole"] < away["strong"]


def test_a_null_and_another_seed_share_the_regressions(micro, whole):
    for stage in (pictures(replace(ITEMS, eeg="shuffled")), pictures(seed=1)):
        assert [one.kind for one in graph.stages([stage], micro.has)] == ["embeddedpictures"]
        assert not np.array_equal(np.load(built(stage, micro) / "pictures.npy"), np.load(whole / "pictures.npy"))
    shuffled = np.load(micro.path(pictures(replace(ITEMS, eeg="shuffled"))) / "embedding.npy")
    assert not np.allclose(shuffled, np.load(whole / "embedding.npy"))


@pytest.mark.parametrize(("options", "line"), [
    ({"gain": 0}, "gain must be a number above 0, not 0; use latent=False"),
    ({"gain": float("inf")}, "gain must be a number above 0, not inf"),
    ({"gain": True}, "gain must be a number above 0, not True"),
    ({"latent": False, "gain": 0.5}, "gain is a setting of the latent, but latent=False"),
    ({"latent": "no"}, "latent must be"),
    ({"restandardise": 1}, "restandardise must be"),
])
def test_a_wrong_setting_is_one_line(options, line):
    with pytest.raises(BenchError, match=line) as caught:
        Spec("row", **options)
    assert "\n" not in str(caught.value)


def test_the_linear_baselines_regressions_keep_their_keys():
    stage = systems.plan(linear.Spec("linear"), ITEMS, MICRO, 0).pictures
    assert '"embedding"' not in stage.latent.document
    assert '"embedding":true' in pictures().embedding.document


def test_the_generator_is_the_one_that_atm_uses():
    ours, atm = pictures(), systems.plan(guided.Spec("ATM"), ITEMS, MICRO, 0).pictures
    for part in ("adapter", "unet", "vae", "clip", "sampling", "numerics"):
        assert getattr(ours, part) == getattr(atm, part), part
    assert ours.embedding.target == atm.encoder.targets


def test_at_paper_scale_the_generator_is_sdxl_turbo_and_every_stage_has_a_price():
    stage = pictures(PAPER.items(), PAPER)
    assert stage.vae is None
    assert stage.unet.name == "turbo"
    assert linear_cost.outputs(stage.embedding) == guided.EMBEDDING
    assert cost.cost(stage).flops > 0
    assert cost.cost(stage.embedding) is None


def test_each_row_of_the_ablation_has_its_null_and_is_compared_with_it():
    chosen = ablation.load("linear_rivals")
    nulls = {v.of.name: v for v in chosen.variants if isinstance(v, On)}
    rows = [v for v in chosen.variants if not isinstance(v, On)]
    assert len(rows) == len(nulls) == 6
    for row in rows:
        assert nulls[row.name].eeg == "shuffled"
        assert (row.name, nulls[row.name].name) in [tuple(pair) for pair in chosen.contrasts]
