"""Brain2Image: its LSTM at its real size, what GAN and VAE learn from a feature, pictures at micro, controls, price."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from paper import PAPER
from safetensors.torch import load_file

from bench import On, systems
from bench.cost import flops
from bench.errors import BenchError, NotAvailable
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.kinds import builder_of
from bench.experiment.scale import MICRO
from bench.experiment.stages import training
from bench.runtime import Runtime
from bench.systems.brain2image import (
    SIZES,
    Brain2ImageEncoder,
    Brain2ImageGan,
    Brain2ImagePictures,
    Brain2ImageVae,
    EncoderSchedule,
    GanSchedule,
    Spec,
    VaeSchedule,
)
from bench.train import brain2image as train
from bench.train.items import load
from models.brain2image import Discriminator, Encoder, Generator, ImageEncoder

ITEMS = MICRO.items()
GAN, VAE = Spec("gan"), Spec("vae", decoder="vae")
BOTH = pytest.mark.parametrize("spec", [GAN, VAE], ids=lambda spec: spec.name)


def pictures(spec, items=ITEMS, scale=MICRO, seed=0) -> Brain2ImagePictures:
    return systems.plan(spec, items, scale, seed).pictures


def built(stage, store):
    for one in graph.stages([stage], store.has):
        build(one, store)
    return store.path(stage)


def count(net):
    return sum(p.numel() for p in net.parameters())


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_at_their_real_size_the_networks_have_the_parameters_of_the_released_classifier_and_of_dcgan():
    size = SIZES["paper"]
    with torch.device("meta"):
        encoder = Encoder(128, 440, 40, size.hidden, size.feature)
        generator = Generator(size.noise, size.feature, size.width, size.side)
        discriminator = Discriminator(size.feature, size.width, size.side)
        vae = ImageEncoder(size.noise, size.width, size.side)
        assert encoder.logits(torch.empty(2, 128, 440)).shape == (2, 40)
        assert generator(torch.empty(2, 100), torch.empty(2, 128)).shape == (2, 3, 64, 64)
        assert discriminator(torch.empty(2, 3, 64, 64), torch.empty(2, 128)).shape == (2,)
        assert [moment.shape for moment in vae(torch.empty(2, 3, 64, 64))] == [(2, 100), (2, 100)]
    assert count(encoder) == 153_768
    assert [count(module) for module in encoder.children()] == [132_096, 16_512, 5_160]
    trunk = 3 * 64 * 16 + 64 + sum(16 * n * 2 * n + 2 * n for n in (64, 128, 256))
    assert count(generator) == 16 * (228 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 3 + 2 * 960
    assert count(discriminator) == trunk + (128 * 128 + 128) + (640 * 512 + 512) + (512 * 16 + 1)
    assert count(vae) == trunk + 512 * 16 * 200 + 200


def test_the_lstm_begins_with_memories_of_up_to_a_trials_length():
    encoder = Encoder(4, 100, 3, hidden=1000, feature=8)
    enter, forget, cell, out = encoder.lstm.bias_ih_l0.detach().chunk(4)
    assert torch.equal(enter, -forget)
    assert not torch.cat([cell, out, encoder.lstm.bias_hh_l0.detach()]).any()
    memory = forget.exp()  # steps
    assert 1 <= memory.min() < 2
    assert 98 < memory.max() <= 99
    assert memory.mean() == pytest.approx(50, abs=4)


def test_the_feature_is_the_same_for_eeg_in_other_units_and_unlike_channels():
    torch.manual_seed(0)
    encoder, other = Encoder(3, 20, 2, 8, 8), Encoder(3, 20, 2, 8, 8)
    eeg = torch.randn(30, 3, 20)
    scaled = eeg * torch.tensor([1e-6, 1.0, 50.0])[:, None] + torch.tensor([1e-5, 0.0, 7.0])[:, None]
    encoder.fit(eeg)
    other.load_state_dict(encoder.state_dict())
    other.fit(scaled)
    assert torch.allclose(encoder(eeg), other(scaled), atol=1e-4)
    assert not torch.allclose(encoder(eeg), encoder(scaled), atol=1e-2)


def test_an_unknown_side_of_pictures_is_refused():
    for side in (4, 48):
        with pytest.raises(ValueError, match="expected 8, 16, 32, 64"):
            Generator(side=side)


@BOTH
def test_a_decoder_ends_in_pictures_of_every_item_and_twice_in_the_same_bytes(spec, micro, tmp_path):
    stage = pictures(spec)
    folder = built(stage, micro)
    assert np.load(folder / "pictures.npy").shape == (40, MICRO.sampling.samples, 32, 32, 3)
    assert np.array_equal(np.load(folder / "item.npy"), np.sort(np.load(folder / "item.npy")))
    for one in (stage.decoder.encoder, stage.decoder, stage):
        again = tmp_path / type(one).__name__
        again.mkdir()
        builder_of(one)(one, micro.path, again, Runtime())
        for file in again.iterdir():
            assert file.read_bytes() == (micro.path(one) / file.name).read_bytes(), file.name


@BOTH
def test_a_picture_depends_on_its_item_and_sample_alone(spec, micro, tmp_path):
    stage = pictures(spec)
    drawn = np.load(built(stage, micro) / "pictures.npy")
    train.generate_images(replace(stage, samples=1), micro.path, tmp_path, Runtime())
    assert np.array_equal(np.load(tmp_path / "pictures.npy"), drawn[:, :1])
    assert (drawn[:, 0] != drawn[:, 1]).any((1, 2, 3)).all()


def test_test_pictures_and_labels_are_not_looked_at(micro, tmp_path):
    stage = pictures(GAN)
    folder, trials = built(stage, micro), tmp_path / "trials"
    shutil.copytree(micro.path(ITEMS.trials), trials)
    table = pd.read_csv(trials / "trials.csv")
    test = table["part"] == "test"
    stimuli = np.load(trials / "pictures.npy")
    stimuli[table.loc[test, "picture"]] = 0
    np.save(trials / "pictures.npy", stimuli)
    table.loc[test, "label"] = 0
    table.to_csv(trials / "trials.csv", index=False)
    made = {stage.decoder.encoder: tmp_path / "encoder", stage.decoder: tmp_path / "gan", stage: tmp_path / "out"}
    for one, out in made.items():
        out.mkdir()
        builder_of(one)(one, lambda above: made.get(above, trials), out, Runtime())
    assert (made[stage] / "pictures.npy").read_bytes() == (folder / "pictures.npy").read_bytes()


@BOTH
def test_a_summary_counts_what_was_trained(spec, micro):
    stage = pictures(spec)
    built(stage, micro)
    encoder, decoder = summary(micro.path(stage.decoder.encoder)), summary(micro.path(stage.decoder))
    assert encoder["trained_parameters"] == {"encoder": encoder["encoder_parameters"]}
    assert encoder["encoder_parameters"] == count(Encoder(32, 128, 10, 8, 8))
    generator, trained = count(Generator(4, 8, 4, 16)), decoder["trained_parameters"]
    if spec is GAN:
        assert trained == {"generator": generator, "discriminator": count(Discriminator(8, 4, 16))}
        assert set(decoder["losses"]) == {"generator", "discriminator"}
    else:
        assert trained == {"decoder": generator, "picture encoder": count(ImageEncoder(4, 4, 16))}
        assert set(decoder["losses"]) == {"squared_error", "divergence"}


def toy(folder, classes=2, trials=64):
    """Trials of dark pictures (class 0) and bright ones (class 1), whose EEG is a ramp up or down in noise."""
    rng, label = np.random.default_rng(0), np.arange(trials) % classes
    folder.mkdir()
    np.save(folder / "pictures.npy", np.repeat(60 + 130 * label, 8 * 8 * 3).reshape(trials, 8, 8, 3).astype(np.uint8))
    ramp = np.linspace(0, 1, 12) * np.where(label, 1, -1)[:, None]
    np.save(folder / "eeg.npy", (ramp[:, None] + 0.3 * rng.standard_normal((trials, 3, 12))).astype(np.float32))
    part = np.where(np.arange(trials) < trials * 3 // 4, "train", "test")
    pd.DataFrame({"item": range(trials), "subject": 4, "picture": range(trials), "label": label, "part": part}).to_csv(
        folder / "trials.csv", index=False)
    pd.DataFrame({"label": range(classes), "name": range(classes), "judge": range(classes), "shown": 1}).to_csv(
        folder / "classes.csv", index=False)
    return folder


@BOTH
def test_training_lowers_the_loss_and_the_class_in_the_eeg_decides_what_is_drawn(spec, tmp_path):
    encoder = Brain2ImageEncoder(training(ITEMS), 8, 8, EncoderSchedule(60, 16, 2e-2), 0, MICRO.fp32)
    decoder = (Brain2ImageGan(encoder, 4, 8, 8, GanSchedule(20, 120, 16, 2e-3, average=0.9), 0, MICRO.fp32)
               if spec is GAN else Brain2ImageVae(encoder, 4, 8, 8, VaeSchedule(100, 16, 5e-3), 0, MICRO.fp32))
    stage, folder = Brain2ImagePictures(decoder, ITEMS, 4, 32, 0, MICRO.fp32), toy(tmp_path / "toy")
    made = {encoder: tmp_path / "encoder", decoder: tmp_path / "decoder", stage: tmp_path / "pictures"}
    for one, out in made.items():
        out.mkdir()
        builder_of(one)(one, lambda above: made.get(above, folder), out, Runtime())
    assert summary(made[encoder])["losses"]["classifier"] < 0.1 < np.log(2)
    if spec is VAE:
        assert summary(made[decoder])["losses"]["squared_error"] < 0.05  # the mean picture's: 0.26
    brightness = np.load(made[stage] / "pictures.npy").mean((2, 3, 4))
    label = np.load(made[stage] / "item.npy") % 2
    assert brightness[label == 1].min() > 140
    assert brightness[label == 0].max() < 110


def test_the_features_that_a_decoder_trains_on_have_the_size_of_noise(micro):
    stage = pictures(GAN).decoder.encoder
    built(stage, micro)
    features = train._encode(stage, load(stage.items, micro.path(stage.items.trials)), micro.path, Runtime())
    assert features.square().mean().sqrt() == pytest.approx(1, abs=1e-3)
    assert (features >= 0).all()
    assert load_file(micro.path(stage) / "encoder.safetensors")["size"] != 1


def test_a_wrong_pair_has_the_eeg_of_any_trial_of_another_class():
    label = np.array([2, 0, 1, 1, 0, 2, 2, 0])
    draw = train._wrong_pairs(label, ITEMS)
    torch.manual_seed(0)
    for row in range(len(label)):
        drawn = draw(torch.full((300,), row)).numpy()
        assert set(drawn) == set(np.flatnonzero(label != label[row]))


def test_a_gan_without_a_second_class_is_refused():
    with pytest.raises(BenchError, match="all train trials have one class"):
        train._wrong_pairs(np.zeros(5, np.int64), training(ITEMS))


def test_a_training_that_loses_its_way_says_so(tmp_path):
    folder = toy(tmp_path / "toy")
    np.save(folder / "eeg.npy", np.full((64, 3, 12), np.nan, np.float32))
    stage = Brain2ImageEncoder(training(ITEMS), 8, 8, EncoderSchedule(4, 16, 1e-3), 0, MICRO.fp32)
    with pytest.raises(BenchError, match="brain2imageencoder: training diverged: classifier is not finite"):
        train.train_encoder(stage, lambda above: folder, tmp_path, Runtime())


@BOTH
def test_a_control_of_what_is_tested_shares_the_training(spec):
    real, control = pictures(spec), pictures(On(spec, "null", eeg="shuffled"))
    assert control != real
    assert control.decoder == real.decoder
    assert pictures(On(spec, "pairs", eeg="pairs_shuffled")).decoder != real.decoder
    assert graph.leaky_trainings(systems.plan(spec, ITEMS, MICRO, 0)) == []


def test_the_oracle_of_labels_is_encoded_as_eeg_is(micro):
    folder = built(pictures(On(GAN, "oracle", eeg="label")), micro)
    assert np.load(folder / "pictures.npy").shape[0] == 40


def test_what_there_is_not_is_refused_in_one_line():
    with pytest.raises(BenchError, match=r"'x': decoder must be one of gan, vae, not 'diffusion'"):
        Spec("x", decoder="diffusion")
    with pytest.raises(BenchError, match=r"'x': the control 'clip' .* use eeg='label'"):
        pictures(Spec("x"), replace(ITEMS, eeg="clip"))
    with pytest.raises(NotAvailable, match="no sizes for scale other"):
        pictures(GAN, scale=replace(MICRO, name="other"))


def test_a_price_is_counted_for_every_stage_at_the_papers_size():
    stage = pictures(GAN, PAPER.items(), PAPER)
    encoder, gan, vae, drawn = (flops.system_cost(one) for one in (
        stage.decoder.encoder, stage.decoder, pictures(VAE, PAPER.items(), PAPER).decoder, stage))
    feature = 2 * (512 * 4 * 128 * (128 + 128) + 128 * 128 + 128 * 40)  # FLOPs of one trial forward
    training_steps, seen = encoder.flops - 1600 * feature, 200 * 1600
    assert 2 * seen * feature < training_steps < 3 * seen * feature
    assert encoder.disk == 4 * 153_768
    picture = 2 * 16 * (228 * 512 + 16 * 512 * 256 + 64 * 256 * 128 + 256 * 128 * 64 + 1024 * 64 * 3)
    assert drawn.flops == 1024 * picture + 200 * feature  # of 200 items x 5 samples, the last batch padded
    assert gan.flops > vae.flops > 20_000 * 64 * 3 * picture
    assert gan.memory.batch == 64
    assert 2e6 < gan.memory.sample < 2e7
    assert flops.system_cost(ITEMS.trials) is None
