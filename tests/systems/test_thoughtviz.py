"""ThoughtViz: its networks at their real sizes, its trainings and pictures at scale micro, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from paper import PAPER
from torch import nn

from bench import On, runtime, systems
from bench.cost.systems import thoughtviz as cost
from bench.errors import BenchError, NotAvailable
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.key import upstream
from bench.experiment.kinds import builder_of
from bench.experiment.scale import MICRO
from bench.experiment.stages import Trials, Weights, training
from bench.runtime import Runtime
from bench.systems import thoughtviz
from bench.systems.thoughtviz import Spec
from bench.train import thoughtviz as trained
from bench.train.items import load
from bench.train.losses import Losses
from models.thoughtviz import (
    LEAST,
    NOISE,
    Discriminator,
    EegClassifier,
    Generator,
    ImageClassifier,
    MixtureOfGaussians,
)

ITEMS = MICRO.items()


def parameters(net, norms=True):
    left_out = {p for m in net.modules() if not norms and isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))
                for p in m.parameters()}
    return sum(p.numel() for p in net.parameters() if p not in left_out)


def pictures(items=ITEMS):
    """The stage of a row's pictures."""
    return systems.plan(Spec(), items, MICRO, 0).pictures


def built(stage, store):
    for one in graph.stages([stage], store.has):
        build(one, store)
    return store.path(stage)


def losses(stage, store, out):
    """Of a stage that is built outside of the store."""
    out.mkdir()
    builder_of(stage)(stage, store.path, out, Runtime())
    return json.loads((out / "summary.json").read_text())["losses"]


def test_the_networks_have_their_real_sizes():
    with torch.device("meta"):
        generator, discriminator, eeg = Generator(), Discriminator(64), EegClassifier(14, 32, 10)
        noise, features = torch.empty(2, 100), eeg.features(torch.empty(2, 14, 32))
        assert features.shape == (2, 100)
        assert generator(noise, features).shape == (2, 3, 64, 64)
        assert discriminator(torch.empty(2, 3, 64, 64)).shape == (2,)
    convolutions = (4 + 1) * 32 + (32 * 14 + 1) * 25 + (25 * 4 + 1) * 50 + (50 * 2 + 1) * 100
    assert parameters(eeg, norms=False) == convolutions + 101 * 100 + 101 * 10
    assert parameters(eeg) == 38_047
    assert parameters(generator, norms=False) == 5_143_743
    assert f"{parameters(generator, norms=False) / 1e6:.2f}" == "5.14"
    assert discriminator.layers[-1].in_features == 512 * 3 * 3


@pytest.mark.parametrize("times", [30, 63, 64, 128, 500])
def test_the_kernels_of_the_eeg_classifier_fit_windows_of_any_length_from_the_least_on(times):
    assert EegClassifier(3, times, 4)(torch.zeros(2, 3, times)).shape == (2, 4)


def test_the_first_convolution_as_a_matrix_product_is_the_convolution():
    torch.manual_seed(0)
    net, eeg = EegClassifier(3, 64, 4).eval(), torch.randn(2, 3, 64)
    expected = net.dense(net.convolutions(net.first(net.input(eeg[:, None]))).flatten(1))
    assert torch.allclose(net.features(eeg), expected, atol=1e-6)


def test_features_multiply_the_noise_that_a_mixture_of_gaussians_moves():
    torch.manual_seed(0)
    mixture, generator = MixtureOfGaussians(1000), Generator((8, 4)).eval()
    assert torch.equal(mixture(torch.zeros(1, 1000))[0], mixture.mean)
    assert mixture.std.abs().max() <= 0.2 < mixture.mean.abs().max() <= 1
    noise = torch.rand(2, NOISE) * 2 - 1
    none, some = (generator(noise, torch.full((2, 100), value)) for value in (0.0, 5.0))
    assert torch.equal(none[0], none[1])
    assert not torch.equal(some[0], some[1])
    assert 0 <= some.min() <= some.max() < 1


def test_labels_are_drawn_alike_and_of_each_any_trial_that_has_it():
    label = np.array([7] * 90 + [2] * 10)
    torch.manual_seed(0)
    drawn, trial = trained._draw_trials(label, 2000)
    assert np.array_equal(label[trial], drawn)
    assert (drawn == 2).float().mean() == pytest.approx(0.5, abs=0.05)
    assert len(set(trial.tolist())) == 100


def test_training_lowers_the_losses(micro, tmp_path):
    gan = pictures().model
    for above in (gan.eeg, gan.classifier):
        built(above, micro)
    for stage, loss, steps in ((gan.eeg, "classifier", 120), (gan.classifier, "classifier", 100),
                               (gan, "recognised", 150)):
        early, late = (losses(replace(stage, schedule=replace(stage.schedule, steps=n)), micro,
                              tmp_path / f"{stage.kind}{n}")[loss] for n in (4, steps))
        assert late < early - 0.15


def test_two_builds_give_the_same_bytes_and_say_what_they_trained(micro, tmp_path):
    folder, stage = built(pictures(), micro), pictures()
    made = np.load(folder / "pictures.npy")
    assert made.shape == (40, MICRO.sampling.samples, 32, 32, 3)
    assert np.array_equal(np.load(folder / "item.npy"), load(ITEMS, micro.path(ITEMS.trials)).item)
    for one in (stage.model.eeg, stage.model.classifier, stage.model, stage):
        again = tmp_path / one.kind
        again.mkdir()
        builder_of(one)(one, micro.path, again, Runtime())
        for file in again.iterdir():
            assert file.read_bytes() == (micro.path(one) / file.name).read_bytes()
    size = thoughtviz.SIZES["micro"]
    said = json.loads((micro.path(stage.model) / "summary.json").read_text())
    assert said["trained_parameters"] == {"generator": parameters(Generator(size.generator)),
                                          "discriminator": parameters(Discriminator(size.side, size.discriminator))}
    assert json.loads((micro.path(stage.model.eeg) / "summary.json").read_text())["encoder_parameters"] == parameters(
        EegClassifier(MICRO.world.n_chans, MICRO.world.n_times, 10, size.eeg))


def test_pictures_do_not_depend_on_each_other_nor_on_what_the_tested_items_show(micro, tmp_path):
    stage = pictures()
    whole = np.load(built(stage, micro) / "pictures.npy")
    other, out = tmp_path / "trials", tmp_path / "out"
    shutil.copytree(micro.path(ITEMS.trials), other)
    out.mkdir()
    table = pd.read_csv(other / "trials.csv")
    tested = table["part"] == "test"
    table.loc[tested, "label"] = (table.loc[tested, "label"] + 1) % 10
    table.loc[table.index[tested][::3], "part"] = "left out"
    table.to_csv(other / "trials.csv", index=False)
    shown = np.load(other / "pictures.npy")
    shown[table.loc[tested, "picture"]] = 0
    np.save(other / "pictures.npy", shown)
    trained.generate_images(
        stage, lambda one: other if isinstance(one, Trials) else micro.path(one), out, Runtime())
    kept = np.isin(load(ITEMS, micro.path(ITEMS.trials)).item, np.load(out / "item.npy"))
    assert 0 < kept.sum() < len(kept)
    assert np.array_equal(np.load(out / "pictures.npy"), whole[kept])


def test_a_control_of_the_tested_eeg_shares_the_gan_and_one_of_the_training_pairs_does_not():
    real, shuffled, pairs = (pictures(items=replace(ITEMS, eeg=eeg)) for eeg in ("real", "shuffled", "pairs_shuffled"))
    assert real.model == shuffled.model
    assert real != shuffled
    assert pairs.model.eeg.items.eeg == pairs.model.items.eeg == "shuffled"


def test_only_the_leaky_row_trains_on_the_tested_items_and_the_audit_finds_its_gan(micro):
    clean, leaky = (systems.plan(Spec(leak=leak), ITEMS, MICRO, 0) for leak in (False, True))
    assert graph.leaky_trainings(clean) == []
    assert graph.leaky_trainings(leaky) == [leaky.pictures.model]
    assert leaky.pictures.model.classifier.items == leaky.pictures.model.eeg.items == training(ITEMS)
    made = [np.load(built(score.pictures, micro) / "pictures.npy") for score in (clean, leaky)]
    assert not np.array_equal(*made)


def test_nothing_that_is_trained_knows_the_judge_or_any_other_frozen_part():
    def values(stage):
        yield from vars(stage).values()
        for above in upstream(stage):
            yield from values(above)

    assert not any(isinstance(value, Weights) for value in values(pictures()))


def test_the_pictures_of_a_scale_are_made_as_large_as_its_items_show_them():
    small = torch.zeros(1, 3, 4, 4)
    small[:, :, :, 2:] = 1
    large = trained.resize_images(small, (6, 8))
    assert large.shape == (1, 3, 6, 8)
    assert large[..., 0].max() < 0.1 < 0.9 < large[..., -1].min()
    assert trained.resize_images(small, (4, 4)) is small


def test_the_price_of_a_trial_and_of_a_picture_is_that_of_their_products():
    stage = systems.plan(Spec(), PAPER.items(), PAPER, 0).pictures
    times, steps = 512 - 64 + 1, (9, 6, 2, 1)
    trial = 128 * times * 64 * 32 + times * 128 * 32 * 25 + steps[1] * 25 * 4 * 50 + steps[3] * 50 * 2 * 100 + 100 * 100
    assert times // 48 == steps[0]
    maps = ((4, 512, 256), (8, 256, 128), (16, 128, 64), (32, 64, 3))
    picture = 100 * 100 + 100 * 8192 + 25 * sum(side * side * wide * narrow for side, wide, narrow in maps)
    priced = cost.cost(stage)
    assert priced.flops == 2 * (200 * trial + 1024 * picture)  # 1,000 pictures in batches of 32
    assert priced.disk == 1000 * 512 * 512 * 3
    gan = cost.cost(stage.model)
    assert gan.flops > 3 * 2 * picture * 320_000 * 100
    assert gan.disk == 4 * parameters(Generator())
    assert gan.memory.micro(runtime.GPUS["4090"]) == 100
    assert cost.cost(stage.model.eeg).memory.micro(runtime.GPUS["4090"]) == 128


def test_the_auxiliary_classifier_sees_noise_in_training_alone():
    torch.manual_seed(0)
    net, images = ImageClassifier(3, (4, 8), noise=0.5), torch.rand(8, 3, 16, 16)
    assert not torch.equal(net(images), net(images))
    net.eval()
    assert torch.equal(net(images), net(images))


@pytest.mark.parametrize(("refused", "said"), [
    (lambda: Spec(leak="yes"), "leak must be True or False, not 'yes'"),
    (lambda: pictures(items=replace(ITEMS, eeg="label")), "need 30 samples of EEG, but the oracle 'label' has no"),
    (lambda: systems.plan(On(Spec(), "x", world={"n_times": 29}), ITEMS, MICRO, 0), "but these items have 29")])
def test_what_the_kernels_cannot_take_is_refused_when_it_is_planned(refused, said):
    assert thoughtviz.LEAST == LEAST
    with pytest.raises(BenchError, match=said):
        refused()


def test_eeg_that_turns_out_too_short_is_refused_by_its_shape(micro, tmp_path):
    stage = pictures().model.eeg
    stage = replace(stage, items=replace(stage.items, eeg="label"))
    short = r"thoughtviz: EEG \[1, 10\] is too short for the kernels; expected at least 30"
    with pytest.raises(BenchError, match=short):
        trained.train_eeg_classifier(stage, micro.path, tmp_path, Runtime())


def test_a_training_that_diverges_says_so(micro, tmp_path):
    stage = pictures().model.eeg
    with pytest.raises(BenchError, match="thoughtvizeeg: training diverged: .* lower the learning rate"):
        losses(replace(stage, schedule=replace(stage.schedule, lr=1e30)), micro, tmp_path / "out")


def test_a_scale_without_sizes_is_named():
    with pytest.raises(NotAvailable, match="thoughtviz has no sizes for scale huge; it has sizes for: tiny"):
        systems.plan(Spec(), ITEMS, replace(MICRO, name="huge"), 0)


def test_losses_are_the_means_over_the_last_tenth_of_the_steps():
    stage = pictures().model.eeg
    followed = Losses(stage, 20, Runtime())
    for step in range(20):
        followed.add(one=torch.tensor(float(step)))
    assert followed.last() == {"one": 18.5}
    with pytest.raises(BenchError, match="not finite at step 21"):
        followed.add(one=torch.tensor(math.nan))
