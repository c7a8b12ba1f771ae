"""The linear baseline: its regressions against scikit-learn's and brute force, image-to-image, pictures at micro."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from paper import PAPER, REHEARSAL
from safetensors.numpy import load_file
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from bench import On, systems
from bench.cost.systems import linear
from bench.errors import BenchError
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.experiment.stages import Targets
from bench.runtime import Runtime
from bench.systems.linear import ALPHAS, Factors, ImageToImage, Spec
from bench.train import linear as train
from bench.train.items import load
from models import configurations, frozen

ITEMS = MICRO.items()
MANY = (1e-2, 1.0, 1e2, 1e4)


def pictures(spec, items=ITEMS, scale=MICRO, seed=0) -> ImageToImage:
    return systems.plan(spec, items, scale, seed).pictures


def built(stage, store):
    for one in graph.stages([stage], store.has):
        build(one, store)
    return store.path(stage)


def data(n, p, outputs=5):
    """EEG [n, p] with columns of unlike scale, and targets of which the last is constant."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, p)) * rng.uniform(0.5, 3, p) + 1
    y = x @ rng.standard_normal((p, outputs)) / p + rng.standard_normal((n, outputs)) * np.linspace(0.05, 3, outputs)
    y[:, -1] = 0.7
    return StandardScaler().fit_transform(x), y


@pytest.mark.parametrize(("n", "p"), [(40, 90), (90, 40)])
def test_each_output_has_the_penalty_and_the_predictions_that_scikit_learn_finds(n, p):
    x, y = data(n, p)
    u, s, v = train.factorise(x.astype(np.float32))
    found = train.regress(u, s, y, MANY)
    theirs = RidgeCV(MANY, alpha_per_target=True).fit(x, y[:, :-1])
    assert found["alpha"][:-1].tolist() == theirs.alpha_.tolist()
    assert len(set(theirs.alpha_)) > 1
    fresh = np.random.default_rng(0).standard_normal((7, p))
    ours = found["mean"] + fresh @ v @ found["coef"]
    assert ours[:, :-1] == pytest.approx(theirs.predict(fresh), abs=1e-4)
    assert ours[:, -1] == pytest.approx(0.7, abs=1e-12)


def test_leaving_one_out_is_what_fitting_without_each_trial_predicts_for_it():
    x, y = data(30, 50)
    found = train.regress(*train.factorise(x)[:2], y, (10.0,))
    left_out = np.stack([SklearnRidge(10.0).fit(np.delete(x, i, 0), np.delete(y, i, 0)).predict(x[i:i + 1])[0]
                         for i in range(30)])
    assert found["loo_mean"] == pytest.approx(left_out.mean(0), abs=1e-6)
    assert found["loo_std"][:-1] == pytest.approx(left_out.std(0)[:-1], abs=1e-6)
    assert found["error"][:-1] == pytest.approx(np.square(y - left_out).mean(0)[:-1], abs=1e-6)


@pytest.mark.parametrize("shape", [(20, 33), (33, 20)])
def test_the_decomposition_is_one_and_leaves_out_directions_without_variance(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    x[:, 3] = x[:, 4]
    x -= x.mean(0)
    u, s, v = train.factorise(x)
    assert len(s) == 19
    assert u * s @ v.T == pytest.approx(x, abs=1e-5)
    for side in (u, v):
        assert side.T @ side == pytest.approx(np.eye(19), abs=1e-5)


@pytest.fixture(scope="module")
def both(micro):
    """The folder of both regressions' pictures, at micro."""
    return built(pictures(Spec("both")), micro)


def test_regressions_predict_better_than_the_mean_and_say_what_they_learned(micro, both):
    stage = pictures(Spec("both"))
    for name, ridge, numbers in (("latent", stage.latent, 8 * 8 * 8), ("condition", stage.condition, 8 * 64)):
        about = json.loads((micro.path(ridge) / "summary.json").read_text())
        assert about["trained_parameters"] == {name: (32 * 128 + 1) * numbers}
        assert about["losses"]["leave_one_out_mse"] < 0.999 * about["losses"]["mean_mse"]
        assert sum(about["alphas"].values()) == pytest.approx(1)
        assert 0 < about["leave_one_out_r2"]["mean"] < 1
        assert 0 < about["predicted_deviation"]["mean"] < 1  # shrunken
    assert about["constant_outputs"] == 2 * 64  # the caption's first two tokens, before the class's name


def test_fitting_again_gives_the_same_bytes(micro, both, tmp_path):
    stage = pictures(Spec("both"))
    train.decompose(stage.factors, micro.path, tmp_path, Runtime())
    train.fit_ridge(stage.condition, micro.path, tmp_path, Runtime())
    for one, name in ((stage.factors, "factors"), (stage.condition, "ridge")):
        file = f"{name}.safetensors"
        assert (tmp_path / file).read_bytes() == (micro.path(one) / file).read_bytes()


def test_a_picture_does_not_depend_on_the_order_or_the_number_of_the_others(micro, both, tmp_path):
    folder, stage = micro.path(ITEMS.trials), pictures(Spec("both"))
    trials = pd.read_csv(folder / "trials.csv")
    rows = np.flatnonzero(trials["part"] == "test")[30:5:-1]
    trials.iloc[rows].to_csv(tmp_path / "trials.csv", index=False)
    np.save(tmp_path / "eeg.npy", np.load(folder / "eeg.npy")[rows])
    for name in ("classes.csv", "pictures.npy"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "few").mkdir()
    folders = {ITEMS.trials: tmp_path}
    train.generate_images(stage, lambda one: folders.get(one, micro.path(one)), tmp_path / "few", Runtime())
    kept = np.isin(np.load(both / "item.npy"), trials["item"].iloc[rows])
    assert kept.sum() == 25
    assert np.array_equal(np.load(tmp_path / "few/pictures.npy"), np.load(both / "pictures.npy")[kept])


@pytest.mark.parametrize("options", [{}, {"condition": False}, {"latent": False}, {"restandardise": True}], ids=str)
def test_pictures_are_those_of_every_item_and_the_same_when_drawn_again(options, micro, tmp_path):
    stage = pictures(Spec("row", **options))
    folder = built(stage, micro)
    drawn = np.load(folder / "pictures.npy")
    assert (drawn.shape, drawn.dtype) == ((40, 2, 32, 32, 3), np.uint8)
    assert np.array_equal(np.load(folder / "item.npy"), load(ITEMS, micro.path(ITEMS.trials)).item)
    train.generate_images(stage, micro.path, tmp_path, Runtime())
    assert (tmp_path / "pictures.npy").read_bytes() == (folder / "pictures.npy").read_bytes()


def test_settings_and_the_eeg_change_pictures_and_share_what_does_not_depend_on_them(micro, both):
    drawn = [np.load(both / "pictures.npy")]
    for options, eeg in (({"condition": False}, "real"), ({"latent": False}, "real"), ({"restandardise": True}, "real"),
                         ({}, "shuffled")):
        stage = pictures(Spec("row", **options), replace(ITEMS, eeg=eeg))
        assert {one.kind for one in graph.stages([stage], micro.has)} <= {"imagetoimage"}
        drawn.append(np.load(built(stage, micro) / "pictures.npy"))
    assert len({one.tobytes() for one in drawn}) == 5
    seeded = pictures(Spec("both"), seed=1)
    assert [one.kind for one in graph.stages([seeded], micro.has)] == ["imagetoimage"]


def test_restandardised_predictions_have_the_mean_and_deviation_of_the_training_targets(micro, both):
    stage = pictures(Spec("both"))
    own = load_file(micro.path(stage.condition) / "ridge.safetensors")
    eeg = torch.from_numpy(load(ITEMS, micro.path(ITEMS.trials)).eeg)
    plain, again = (train.Predictor(micro.path(stage.factors), micro.path(stage.condition), restandardise, "cpu")(eeg)
                    .flatten(1).numpy() for restandardise in (False, True))
    varying = own["std"] > 0
    expected = (plain - own["loo_mean"]) / np.where(varying, own["loo_std"], 1) * own["std"] + own["mean"]
    assert again == pytest.approx(expected, abs=1e-3)
    assert again[:, ~varying] == pytest.approx(np.broadcast_to(own["mean"][~varying], (40, 128)), abs=1e-6)
    assert again.std(0).mean() > 1.2 * plain.std(0).mean()


def test_an_oracle_of_the_class_is_told_the_caption_and_one_of_clip_goes_the_same_way(micro):
    stage = pictures(Spec("both", latent=False), replace(ITEMS, eeg="label"))
    built(stage, micro)
    assert json.loads((micro.path(stage.condition) / "summary.json").read_text())["leave_one_out_r2"]["mean"] > 0.95
    oracle = load(stage.items, micro.path(ITEMS.trials))
    predicted = train.Predictor(micro.path(stage.factors), micro.path(stage.condition), False, "cpu")(
        torch.from_numpy(oracle.eeg))
    clip = frozen.load_clip(stage.clip.path)
    with torch.inference_mode():
        words = clip.text_tokens(clip.tokenize([f"a {name}" for name in oracle.names]))
    nearest = torch.cdist(predicted.flatten(1), words.flatten(1)).argmin(1)
    assert np.array_equal(nearest.numpy(), oracle.label)
    seen = pictures(Spec("both"), replace(ITEMS, eeg="clip"))
    assert seen.factors.embeddings == seen.latent.target
    assert np.load(built(seen, micro) / "pictures.npy").shape[0] == 40


@pytest.fixture(scope="module")
def painter():
    """The untouched generator and what it needs to paint four pictures."""
    unet = frozen.load_unet(MICRO.weights("unet").path)
    clip = frozen.load_clip(MICRO.weights("clip").path)
    with torch.inference_mode():
        words = clip.text_tokens(clip.tokenize(["a star", "a ring", "a heart", "a cross", ""]))
    rng = torch.Generator().manual_seed(0)
    noise, start = (torch.randn(4, *frozen.latent_shape(unet), generator=rng) for _ in range(2))
    return unet, words[:-1], words[-1:], noise, start


def painted(painter, strength, start=True):
    scale = replace(MICRO, sampling=replace(MICRO.sampling, steps=10))
    stage = pictures(Spec("row", strength=strength), scale=scale)
    with torch.inference_mode():
        return frozen.sample(*painter[:4], 10, stage.guidance, start=painter[4] if start else None,
                             first=10 - stage.steps)


def test_the_more_strength_the_less_is_left_of_where_image_to_image_begins(painter):
    unet, context, null, noise, start = painter
    plain = frozen.sample(unet, context, null, noise, 10, MICRO.sampling.guidance)
    away = [float((painted(painter, strength) - start).square().mean()) for strength in (0.1, 0.5, 0.8)]
    assert away[0] < away[1] < away[2]
    assert away[0] < 0.3
    assert torch.equal(painted(painter, 1.0, start=False), plain)
    # all steps: nothing but noise is left of it in a schedule that ends without signal
    assert (painted(painter, 1.0) - plain).abs().max() < 0.1
    assert (painted(painter, 0.8) - plain).square().mean() > 0.01


def test_strength_is_a_share_of_the_steps_as_in_the_released_code():
    scale = replace(PAPER, sampling=replace(PAPER.sampling, steps=50, guidance=5.0))
    stage = pictures(Spec("row"), PAPER.items(), scale)
    assert (stage.steps, stage.guidance) == (40, 5.0)
    assert (pictures(Spec("row", latent=False), PAPER.items(), scale).steps) == 50
    assert pictures(Spec("row", condition=False), PAPER.items(), scale).guidance == 1.0


def test_the_real_sizes_and_what_they_cost():
    stage = pictures(Spec("row"), PAPER.items(), PAPER)
    assert [linear.outputs(ridge) for ridge in (stage.latent, stage.condition)] == [
        4 * (configurations.PIXELS // 8)**2, configurations.TOKENS * configurations.WIDTH]
    costs = {one.kind: linear.cost(one) for one in (stage, stage.latent, stage.factors)}
    assert costs["factors"].flops > 4 * 1600**2 * 65536
    assert costs["ridge"].flops == 2 * 1600 * 1600 * 16384 * (len(ALPHAS) + 1)
    assert costs["ridge"].disk == 4 * 1600 * 16384
    more = linear.cost(replace(stage, sampling=replace(stage.sampling, guidance=2.0)))
    assert more.flops > 1.8 * costs["imagetoimage"].flops > 0
    assert linear.cost(stage.latent.target) is None
    assert linear.seconds(stage) > linear.seconds(stage.factors)


@pytest.mark.parametrize("scale", [MICRO, REHEARSAL, PAPER], ids=lambda scale: scale.name)
def test_controls_are_tested_with_their_own_eeg_and_trained_with_the_real_one(scale):
    real, shuffled, wrong = (pictures(Spec("row"), scale.items(eeg), scale) for eeg in
                             ("real", "shuffled", "pairs_shuffled"))
    assert real.factors == shuffled.factors != wrong.factors
    assert real.factors.items.part == "train"
    assert shuffled.items.eeg == "shuffled"
    assert real.factors.numerics.dtype == "float32"


def test_the_latents_are_of_whole_pictures_even_where_fine_tuning_crops_anew(micro, tmp_path):
    stage = pictures(On(Spec("row"), "crops", views=0))
    assert isinstance(stage.latent.target, Targets)
    assert stage.latent.target.views == 1
    means = np.random.default_rng(0).standard_normal((240, 3, 8, 8, 8)).astype(np.float16)
    folders = {stage.latent.target: tmp_path}
    np.save(tmp_path / "mean.npy", means)
    known, shape = train._open_targets(stage.latent, lambda one: folders.get(one, micro.path(one)), Runtime())
    rows = load(stage.factors.items, micro.path(ITEMS.trials)).picture
    assert shape == (8, 8, 8)
    assert np.array_equal(known(10, 20), means[rows, 0].reshape(len(rows), -1)[:, 10:20])


@pytest.mark.parametrize(("make", "said"), [
    (lambda: Spec("x", latent=False, condition=False), "leave nothing to predict from the EEG; set one"),
    (lambda: Spec("x", strength=0), "strength must be above 0 and at most 1, not 0"),
    (lambda: Spec("x", strength=1.5), "strength must be above 0 and at most 1, not 1.5"),
    (lambda: Spec("x", latent=1), "latent must be True or False, not 1"),
    (lambda: pictures(Spec("x", strength=0.4)), "strength 0.4 of 2 steps is less than one step; use at least 1/2"),
    (lambda: pictures(On(Spec("x"), "x", sampling={"sampler": "plms"}), PAPER.items(), PAPER),
     "image-to-image supports only the sampler dpmsolver"),
])
def test_settings_that_cannot_be_are_refused_in_one_line(make, said):
    with pytest.raises(BenchError, match=said) as caught:
        make()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_eeg_that_is_no_number_and_pictures_that_are_all_the_same_are_refused(micro, tmp_path):
    folder = micro.path(ITEMS.trials)
    for name in ("trials.csv", "classes.csv", "pictures.npy"):
        (tmp_path / name).symlink_to(folder / name)
    eeg = np.load(folder / "eeg.npy")
    eeg[:, 3, 5] = np.nan
    np.save(tmp_path / "eeg.npy", eeg)
    stage = pictures(Spec("row"))
    assert isinstance(stage.factors, Factors)
    with pytest.raises(BenchError, match="training EEG contains values that are not finite"):
        train.decompose(stage.factors, lambda one: tmp_path, tmp_path, Runtime())
    np.save(tmp_path / "mean.npy", np.ones((240, 8, 8, 8), np.float32))
    folders = {stage.latent.target: tmp_path}
    built(stage.factors, micro)
    with pytest.raises(BenchError, match="the targets are all the same"):
        train.fit_ridge(stage.latent, lambda one: folders.get(one, micro.path(one)), tmp_path, Runtime())
