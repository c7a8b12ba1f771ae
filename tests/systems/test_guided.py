"""ATM with guided diffusion: parameter counts, layers and losses against their definitions, training, drawing."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from paper import PAPER
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy, normalize

from bench import On, systems, trivial
from bench.cli import main
from bench.cost import flops
from bench.cost.systems import guided as cost
from bench.errors import BenchError
from bench.execute.build import build
from bench.experiment import ablation, graph
from bench.experiment.scale import MICRO, TINY
from bench.runtime import Runtime
from bench.store.store import Store
from bench.systems import guided
from bench.systems.guided import ENCODERS, GuidedPictures, Spec
from bench.tables import literature
from bench.train import guided as train
from bench.train.items import load
from models.diffusion_prior import DiffusionPrior, draw, noise_schedule, prior_loss
from models.encoders import atm, nice
from models.guided import KINDS, LowLevel, contrastive, encoder_loss

ITEMS = MICRO.items()


@pytest.fixture(scope="module", autouse=True)
def alone_on_its_core():
    """Small networks gain nothing by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(spec, items=ITEMS, scale=MICRO, seed=0) -> GuidedPictures:
    return systems.plan(spec, items, scale, seed).pictures


def built(stage, store):
    for one in graph.stages([stage], store.has):
        build(one, store)
    return store.path(stage)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_networks_have_the_parameters_of_the_released_ones():
    with torch.device("meta"):
        made = {name: KINDS[name](63, 250, 1024, (8,), True, filters, width)
                for name, filters, width in guided.PAPER.networks}
        prior = DiffusionPrior(1024, 1024, guided.PAPER.prior, guided.PAPER.prior_time)
        low_level = LowLevel((63, 250), 4, guided.PAPER.hidden, guided.PAPER.widths)
    parts = made["atm"].trunk.attention, made["atm"].trunk.convolution, made["atm"].project
    assert [count(part) for part in parts] == [446_000, 103_680, 2_527_232]
    assert count(made["atm"]) == 446_000 + 103_680 + 2_527_232 + 1
    assert count(made["nice"]) == 103_680 + 2_527_232 + 1
    assert count(made["enigma"]) == 1_405_242 + 1
    assert count(prior) == 9_675_648
    assert count(low_level) == 143_333_268


@pytest.mark.parametrize("shape", [(63, 250), (32, 128), (128, 512), (17, 100), (2, 16)], ids=str)
def test_every_encoder_takes_windows_of_any_size(shape):
    with torch.device("meta"):
        for name, faithful in [*((name, True) for name in ENCODERS), ("atm", False)]:
            encoder = KINDS[name](*shape, 6, (1, 4), faithful, 3, 4)
            assert encoder(torch.randn(3, *shape), torch.zeros(3, dtype=torch.int64)).shape == (3, 6)


def test_the_mean_over_time_may_come_before_the_convolution_over_time():
    net = nice.TemporalSpatial(4, 250, 5, filters=3).eval()
    assert (net.temporal.kernel_size, net.temporal.stride, net.pool, net.tokens) == ((1, 25), (1, 5), 51, 36)
    eeg = torch.randn(2, 4, 250)
    filtered = nn.functional.conv2d(eeg[:, None], net.temporal.weight, net.temporal.bias)
    as_released = net.temporal_norm(avg_pool2d(filtered, (1, 51), (1, 5)))
    expected = net.project(net.spatial_norm(net.spatial(as_released)))[:, :, 0].transpose(1, 2)
    assert torch.allclose(net(eeg), expected, atol=1e-5)
    assert expected.shape == (2, 36, 5)


def test_released_attention_gives_on_the_subject_and_drops_the_last_channel():
    own = atm.ChannelAttention(5, 20).eval()
    eeg, seen = torch.randn(2, 5, 20), []
    own.layers[0].register_forward_hook(lambda layer, tokens, out: seen.append(out))
    given = own(eeg, torch.tensor([4, 4]))
    assert torch.equal(given, own.norm(seen[0][:, :-1]))
    assert torch.equal(own.subject_token(torch.tensor([3, 10, 11, -1])),
                       torch.cat([own.subject[3:4], own.unknown, own.unknown, own.unknown]))
    alike = own(eeg[:, :1].expand(-1, 5, -1))
    assert torch.allclose(alike[:, 1], alike[:, 4], atol=1e-6)  # no position


def test_repaired_attention_gives_on_all_channels_with_their_positions():
    own = atm.ChannelAttention(5, 20, subjects=(2, 10), faithful=False).eval()
    eeg, seen = torch.randn(2, 5, 20), []
    own.layers[0].register_forward_hook(lambda layer, tokens, out: seen.append(out))
    given = own(eeg, torch.tensor([10, 10]))
    assert torch.equal(given, own.norm(seen[0][:, 1:]))
    assert torch.equal(own.subject_token(torch.tensor([10, 2, 3])),
                       torch.stack([own.subject[1], own.subject[0], own.subject.mean(0)]))
    alike = own(eeg[:, :1].expand(-1, 5, -1))
    assert not torch.allclose(alike[:, 1], alike[:, 4], atol=1e-2)
    assert own.position[3, :2].tolist() == pytest.approx([math.sin(3), math.cos(3)])


def test_attention_is_that_of_torch_where_its_heads_are_as_wide():
    own, theirs = atm.Attention(12, 3).eval(), nn.MultiheadAttention(12, 3, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([own.query.weight, own.key.weight, own.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([own.query.bias, own.key.bias, own.value.bias]))
        theirs.out_proj.load_state_dict(own.out.state_dict())
    tokens = torch.randn(2, 7, 12)
    assert torch.allclose(own(tokens), theirs(tokens, tokens, tokens)[0], atol=1e-6)


def test_a_subject_that_was_not_trained_on_has_the_mean_of_the_others_maps():
    encoder = KINDS["enigma"](3, 20, 4, (1, 4), True, 2, 2).eval()
    eeg = torch.randn(1, 3, 20)
    encoder.project = nn.Identity()
    encoder.trunk = nn.Identity()
    found = [encoder(eeg, torch.tensor([subject])) for subject in (1, 4, 5)]
    assert torch.allclose(found[2], (found[0] + found[1]) / 2, atol=1e-6)
    assert torch.allclose(found[1], encoder.align[1](eeg).flatten(1), atol=1e-6)


@pytest.mark.parametrize("faithful", [True, False])
def test_losses_are_the_sums_that_they_are_said_to_be(faithful):
    encoder = KINDS["nice"](2, 20, 8, (), faithful, 2, 2)
    features, image, text = 3 * torch.randn(5, 8), *normalize(torch.randn(2, 5, 8), dim=2)
    scale = math.log(1 / 0.07)

    def pairs(targets):
        logits = scale * features @ targets.T if faithful else normalize(features) @ targets.T / 0.07
        return (cross_entropy(logits, torch.arange(5)) + cross_entropy(logits.T, torch.arange(5))) / 2

    mse = (features - image).square().mean()
    assert contrastive(encoder, features, image).item() == pytest.approx(pairs(image).item(), rel=1e-5)
    expected = {
        "generation": 9 * mse + pairs(image),
        "retrieval": 0.99 * pairs(image) + 0.01 * pairs(text),
        "written": 0.9 * mse + 0.1 * pairs(image),
        "direct": (features - image * 8**0.5).square().mean() + pairs(image) + pairs(text),
    }
    assert tuple(expected) == guided.LOSSES
    for kind, value in expected.items():
        assert encoder_loss(kind, encoder, features, image, text).item() == pytest.approx(value.item(), rel=1e-5)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(scope="module")
def prior():
    """A prior that has learned to tell two embeddings by their conditions."""
    torch.manual_seed(0)
    prior, schedule = DiffusionPrior(4, 2, (64, 32), 32), noise_schedule(True)
    condition, embedding = torch.eye(2).repeat(64, 1), torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5]])
    embedding = embedding.repeat(64, 1)
    optimizer = torch.optim.Adam(prior.parameters(), 2e-3)
    for step in range(300):
        optimizer.zero_grad()
        prior_loss(prior, schedule, embedding, None if step % 10 == 0 else condition).backward()
        optimizer.step()
    return prior.eval()


def test_the_prior_draws_the_embeddings_of_its_conditions(prior):
    drawn = normalize(draw(prior, torch.eye(2).repeat(8, 1), generators(*range(16)), 50, 1.0, True), dim=1)
    wanted = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5]])
    assert (drawn @ wanted.T).argmax(1).tolist() == [0, 1] * 8
    assert (drawn * wanted.repeat(8, 1)).sum(1).mean() > 0.9


def test_a_draw_depends_on_its_own_generator_and_condition_alone(prior):
    first = draw(prior, torch.eye(2), generators(5, 6), 10, 5.0, True)
    other = draw(prior, torch.tensor([[3.0, 1.0], [1.0, 0.0]]), generators(9, 5), 10, 5.0, True)
    assert torch.allclose(first[0], other[1], atol=1e-5)
    assert not torch.allclose(first[0], first[1], atol=1e-2)


def test_guidance_mixes_noise_with_and_without_the_condition_and_estimates_are_cut(prior):
    given = draw(prior, torch.eye(2), generators(1, 2), 1, 5.0, False)
    noise = torch.cat([torch.randn(1, 4, generator=one) for one in generators(1, 2)])
    schedule = noise_schedule(False)
    schedule.set_timesteps(1)
    [time] = schedule.timesteps
    with torch.no_grad():
        alone = prior(noise, time.expand(2))
        mixed = alone + 5 * (prior(noise, time.expand(2), torch.eye(2)) - alone)
    kept = schedule.alphas_cumprod[time]
    assert torch.allclose(given, (noise - (1 - kept).sqrt() * mixed) / kept.sqrt(), rtol=1e-3, atol=1e-3)
    assert given.abs().max() > 1
    cut = draw(prior, torch.eye(2), generators(1, 2), 1, 5.0, True)
    assert torch.allclose(cut, given.clamp(-1, 1), atol=1e-3)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoders_learn_and_come_out_the_same_when_trained_again(encoder, micro, tmp_path):
    stage = pictures(Spec("row", encoder)).encoder
    stage = replace(stage, schedule=replace(stage.schedule, epochs=2, lr=1e-2), checkpoints=2)
    begun = replace(stage, schedule=replace(stage.schedule, epochs=1), checkpoints=1)
    for folder, one in (("whole", stage), ("again", stage), ("begun", begun)):
        (tmp_path / folder).mkdir()
        train.train_encoder(one, micro.path, tmp_path / folder, Runtime())
    whole, half = (json.loads((tmp_path / folder / "summary.json").read_text()) for folder in ("whole", "begun"))
    assert whole["losses"]["encoder"] < half["losses"]["encoder"]
    tensors = load_file(tmp_path / "whole" / "encoder.safetensors")
    assert whole["trained_parameters"]["encoder"] == whole["encoder_parameters"] > 0
    assert int(tensors["out"]) == 64
    for name in ("encoder.1", "encoder"):
        assert (tmp_path / "whole" / f"{name}.safetensors").read_bytes() == \
            (tmp_path / "again" / f"{name}.safetensors").read_bytes()
    assert (tmp_path / "whole" / "encoder.1.safetensors").read_bytes() == \
        (tmp_path / "begun" / "encoder.safetensors").read_bytes()


def test_training_a_prior_and_a_low_level_path_lowers_their_losses(micro, tmp_path):
    stage = pictures(Spec("row", low_level=True))
    built(stage.encoder, micro)
    for kind, one, more in (("prior", stage.prior, {"steps": 200}), ("low_level", stage.low_level, {"epochs": 6})):
        function = {"prior": train.train_prior, "low_level": train.train_low_level}[kind]
        found = []
        for number, changed in enumerate((one, one, replace(one, schedule=replace(one.schedule, **more)))):
            folder = tmp_path / f"{kind}{number}"
            folder.mkdir()
            function(changed, micro.path, folder, Runtime())
            found.append(json.loads((folder / "summary.json").read_text()))
        first, again = ((tmp_path / f"{kind}{number}" / f"{kind}.safetensors").read_bytes() for number in (0, 1))
        assert first == again
        [before], [after] = found[0]["losses"].values(), found[2]["losses"].values()
        assert after < before
        [parameters] = found[0]["trained_parameters"].values()
        assert parameters > 100


@pytest.fixture(scope="module")
def drawn(micro):
    """The folder of ATM's pictures, at micro."""
    return built(pictures(Spec("row")), micro)


def test_pictures_are_those_of_every_item_and_the_same_when_drawn_again(micro, drawn, tmp_path):
    stage, items = pictures(Spec("row")), load(ITEMS, micro.path(ITEMS.trials))
    made = np.load(drawn / "pictures.npy")
    assert (made.shape, made.dtype) == ((40, 2, 32, 32, 3), np.uint8)
    assert np.array_equal(np.load(drawn / "item.npy"), items.item)
    assert len({one.tobytes() for one in made.reshape(80, -1)}) == 80
    train.generate_images(stage, micro.path, tmp_path, Runtime())
    for name in ("pictures.npy", "embedding.npy"):
        assert (tmp_path / name).read_bytes() == (drawn / name).read_bytes()
    assert np.load(drawn / "embedding.npy").shape == (40, 64)


def test_a_picture_does_not_depend_on_the_order_or_the_number_of_the_others(micro, drawn, tmp_path):
    folder = micro.path(ITEMS.trials)
    trials = pd.read_csv(folder / "trials.csv")
    kept = np.sort(trials.loc[trials["part"] == "test", "item"])[[3, 20, 31]]
    few, out = tmp_path / "few", tmp_path / "out"
    few.mkdir()
    out.mkdir()
    for name in ("eeg.npy", "classes.csv", "pictures.npy"):
        (few / name).symlink_to(folder / name)
    trials.loc[(trials["part"] == "test") & ~trials["item"].isin(kept), "part"] = "left out"
    trials.to_csv(few / "trials.csv", index=False)
    folders = {ITEMS.trials: few}
    train.generate_images(pictures(Spec("row")), lambda one: folders.get(one, micro.path(one)), out, Runtime())
    own = np.isin(np.load(drawn / "item.npy"), kept)
    for name in ("pictures", "embedding"):
        assert np.array_equal(np.load(out / f"{name}.npy"), np.load(drawn / f"{name}.npy")[own])


def test_every_path_changes_the_pictures_and_trains_nothing_that_it_does_not_need(micro, drawn):
    found = [np.load(drawn / "pictures.npy")]
    for options, kinds in (({"prior": False}, set()), ({"clip_sample": False}, set()), ({"normalised": True}, set()),
                           ({"caption": True}, set()), ({"low_level": True}, {"GuidedLowLevel"})):
        stage = pictures(Spec("row", **options))
        todo = {type(one).__name__ for one in graph.stages([stage], micro.has)}
        assert todo == kinds | {"GuidedPictures"}
        found.append(np.load(built(stage, micro) / "pictures.npy"))
    assert len({one.tobytes() for one in found}) == 6
    plain, direct = (np.load(micro.path(pictures(Spec("row", **options))) / "embedding.npy")
                     for options in ({}, {"prior": False}))
    assert np.array_equal(plain, direct)  # retrieval is the encoder's


def test_the_adapter_gets_the_priors_samples_as_they_are_unless_they_are_normalised(micro, drawn):
    items, runtime = load(ITEMS, micro.path(ITEMS.trials)), Runtime()
    features = torch.from_numpy(np.load(drawn / "embedding.npy"))
    released, scaled, direct = (train._sample_embeddings(pictures(Spec("row", **options)), items, features, micro.path,
                                                         runtime)
                                for options in ({}, {"normalised": True}, {"prior": False}))
    assert (released.norm(dim=1) - 1).abs().min() > 0.1
    assert torch.equal(scaled, normalize(released, dim=1))
    assert torch.equal(direct, normalize(features, dim=1).repeat_interleave(2, 0))


def test_captions_are_written_down_for_every_picture_and_are_those_of_the_drawn_embedding(micro):
    folder = built(pictures(Spec("row", caption=True)), micro)
    said = pd.read_csv(folder / "captions.csv")
    assert np.array_equal(said["item"], np.repeat(np.load(folder / "item.npy"), 2))
    assert said["sample"].tolist() == [0, 1] * 40
    assert said["caption"].str.fullmatch(r"an? \w+ \w+ on \w+").all()
    assert said["caption"].nunique() > 1


def test_shuffled_eeg_is_drawn_by_the_same_model(micro, drawn):
    stage = pictures(Spec("row"), replace(ITEMS, eeg="shuffled"))
    assert [type(one).__name__ for one in graph.stages([stage], micro.has)] == ["GuidedPictures"]
    embedding, own = (np.load(folder / "embedding.npy") for folder in (built(stage, micro), drawn))
    assert not np.allclose(embedding, own)
    assert np.allclose(np.sort(embedding, 0), np.sort(own, 0), atol=1e-6)


def test_a_checkpoint_is_that_of_the_encoder_and_everything_behind_it_follows(micro, tmp_path):
    last, first = (pictures(Spec("row", checkpoint=(which, 2))) for which in (2, 1))
    assert last.checkpoint is last.prior.checkpoint is None
    assert (first.checkpoint, first.prior.checkpoint, first.encoder.checkpoints) == (1, 1, 2)
    assert first.encoder == first.prior.encoder == last.encoder
    many = replace(first.encoder, checkpoints=1000)
    with pytest.raises(BenchError, match="1000 checkpoints requested, but the encoder is trained for 20 steps"):
        train.train_encoder(many, micro.path, tmp_path, Runtime())


@pytest.mark.parametrize("part", ["test", "val"])
@pytest.mark.parametrize("prior", [True, False])
def test_a_row_on_a_checkpoint_is_the_system_of_that_checkpoint(part, prior):
    spec = Spec("row", prior=prior)
    items = replace(MICRO.items(), part=part)
    for which in (1, 2):
        row = systems.plan(On(spec, "on", part=part, checkpoint=(which, 2)), MICRO.items(), MICRO, 0)
        assert row == systems.plan(replace(spec, checkpoint=(which, 2)), items, MICRO, 0)
        assert row.items == items
    none = On(trivial.Spec("none"), "on", checkpoint=(1, 2))
    with pytest.raises(BenchError, match="'on': checkpoint is set, but only the systems dreamdiffusion and"):
        systems.plan(none, MICRO.items(), MICRO, 0)


@pytest.mark.parametrize("at", [MICRO, TINY], ids=lambda at: at.name)
def test_choosing_a_checkpoint_trains_one_encoder_and_shows_it_on_validation_and_on_test(at):
    chosen = ablation.load("guided_selection")
    rows = {v.name: systems.plan(v, at.items(), at, 0) for v in chosen.variants}
    assert [(v.part, v.checkpoint) for v in chosen.variants] == [
        (part, (which, 5)) for part in ("test", "val") for which in range(1, 6)]
    assert len({row.pictures.encoder for row in rows.values()}) == 1
    assert len({row.pictures.prior for row in rows.values()}) == 5
    assert {row.items.part for row in rows.values()} == {"test", "val"}
    assert {row.items.trials.split for row in rows.values()} == {"concept"}
    assert rows["5/5"].pictures.checkpoint is None


def test_where_whole_subjects_are_tested_all_trials_have_one_token(micro):
    loaded = load(ITEMS, micro.path(ITEMS.trials))
    loaded = replace(loaded, subject=np.arange(len(loaded.item)) % 3 + 1)
    trials = replace(ITEMS.trials, subjects=(1, 2, 3))
    for encoder, quirks, split, expected in (("atm", "faithful", "subject", {3}),
                                             ("atm", "faithful", "item", {1, 2, 3}),
                                             ("atm", "fixed", "subject", {1, 2, 3}),
                                             ("enigma", "faithful", "subject", {1, 2, 3})):
        stage = pictures(Spec("row", encoder, quirks)).encoder
        stage = replace(stage, items=replace(stage.items, trials=replace(trials, split=split)))
        assert set(train._select_subjects(stage, loaded).tolist()) == expected


@pytest.mark.parametrize(("options", "said"), [
    ({"encoder": "lstm"}, "encoder must be one of atm, nice, eegnet, enigma, mlp, not 'lstm'"),
    ({"quirks": "none"}, "quirks must be one of faithful, fixed, not 'none'"),
    ({"loss": "mse"}, "loss must be one of generation, retrieval, written, direct, not 'mse'"),
    ({"prior": 1}, "prior must be True or False, not 1"),
    ({"prior": False, "clip_sample": False}, "clip_sample=False is a setting of the prior, but prior=False"),
    ({"prior": False, "normalised": True}, "normalised=True is a setting of the prior, but prior=False"),
    ({"checkpoint": (3, 2)}, r"checkpoint must be \(which, of how many\)"),
])
def test_settings_that_cannot_be_are_refused_in_one_line(options, said):
    with pytest.raises(BenchError, match=said) as caught:
        Spec("x", **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_eeg_that_the_kernels_cannot_take_is_refused_before_anything_runs():
    with pytest.raises(BenchError, match="kernels need 16 samples of EEG, but the oracle 'clip' has no samples"):
        pictures(Spec("x"), replace(ITEMS, eeg="clip"))
    short = replace(ITEMS, trials=replace(ITEMS.trials, world=replace(MICRO.world, n_times=12)))
    with pytest.raises(BenchError, match="kernels need 16 samples of EEG, but these items have 12"):
        pictures(Spec("x"), short)


def test_losses_that_are_no_numbers_and_latents_of_another_size_are_named(micro, tmp_path):
    stage = pictures(Spec("row", low_level=True))
    wild = replace(stage.encoder, schedule=replace(stage.encoder.schedule, lr=1e30))
    with pytest.raises(BenchError, match="guidedencoder: training diverged: encoder is not finite at step"):
        train.train_encoder(wild, micro.path, tmp_path, Runtime())
    with pytest.raises(BenchError, match=r"low-level path outputs \[8, 4, 4\], but the VAE's latents are \[8, 8, 8\]"):
        train.train_low_level(replace(stage.low_level, widths=(4, 4)), micro.path, tmp_path, Runtime())


def test_at_paper_scale_there_are_real_sizes_and_a_price():
    row = pictures(Spec("row", low_level=True, caption=True), PAPER.items(), PAPER)
    assert (row.sampling.steps, row.sampling.guidance, row.strength, row.vae) == (4, 1.0, 0.5, None)
    assert row.encoder.targets.clip.name == "clip_h"
    assert row.encoder.numerics.dtype == "float32"
    for stage in (row.encoder, row.prior, row.low_level, row.captions, row):
        found = flops.system_cost(stage)
        assert found.flops > 1e12
        assert cost.seconds(stage) > 0
    assert flops.system_cost(row.prior).memory.fixed == 16 * 9_675_648
    assert 4 < flops.system_cost(row.prior).flops / (9_675_648 * 9750 * 1024) < 6  # 6, less what reaches no weight


@pytest.mark.parametrize("name", ["guided_parts", "guided_encoders"])
def test_its_ablations_are_about_concepts_that_were_never_trained_on(name):
    published = pd.concat([pd.read_csv(path, dtype={"row": str}) for path in literature.PUBLISHED.glob("*.csv")])
    chosen = ablation.load(name)
    for scale in (MICRO, TINY):
        for variant in chosen.variants:
            score = systems.plan(variant, scale.items(), scale, 0)
            assert score.items.trials.split == "concept"
            assert graph.leaky_trainings(score) == []
    known = {*published["row"], *zip(published["row"], published["dataset"], strict=True)}
    for rows in chosen.literature.values():
        assert set(rows) <= known


LEFT_OUT = '''from bench import On
from bench.systems import guided

variants = [On(guided.Spec("x"), split, protocol="things", split=split) for split in ("concept", "subject",
                                                                                       "subject_seen")]
'''


def test_the_audit_passes_one_subject_left_out_and_flags_the_one_that_was_trained_on(tmp_path, capsys):
    (tmp_path / "left_out.py").write_text(LEFT_OUT)
    store = Store(tmp_path / "store")
    for variant in ablation.load(str(tmp_path / "left_out.py")).variants:
        build(systems.plan(variant, MICRO.items(), MICRO, 0).items.trials, store)
    named = ["--scale", "micro", "--store", str(store.root)]
    assert main(["audit", "--ablation", str(tmp_path / "left_out.py"), *named]) == 1
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said.pop("subject_seen").startswith("yes: ")
    assert said == {"concept": "no", "subject": "no"}
    for name in ("guided_parts", "guided_encoders", "guided_selection"):
        assert main(["audit", "--ablation", name, *named]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(ablation.load(name).variants)
        assert all(line.endswith(": no") for line in lines)
