"""Training at size: precision, batches in parts, what the device waits for, views of pictures, the released code's
variants of fine-tuning, and defects of its that must not come back."""

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
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bench import FULL, systems
from bench.data.shards import open_corpus
from bench.errors import BenchError
from bench.experiment.scale import MICRO
from bench.experiment.stages import FinetuneSchedule, Numerics, Prepared, Sampling
from bench.runtime import Runtime, ignore
from bench.setup import rows as rows_
from bench.setup.rehearsal.weights import write_rehearsal
from bench.train import finetune as tuning
from bench.train import loop
from bench.train import pretrain as pretraining
from bench.train import readout as classifiers
from bench.train.generate import generate
from bench.train.items import load_items
from bench.train.latents import Latents
from bench.train.targets import crop, draw_corners, targets
from models import frozen
from models.condition import LatentHead, Tau, TimeCondition
from models.encoders.msm_vit import Encoder
from models.mae import MaskedAutoencoder
from models.masking import random_masking


def stage(schedule=None, **changes):
    it = systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model
    return replace(it, schedule=replace(it.schedule, **(schedule or {})), **changes)


def tuned(it, micro, out, **runtime):
    """The folder of a fine-tuning, whose Targets are built beside it where they are not the store's."""
    def inputs(above):
        folder = micro.path(above)
        return folder if folder.exists() else out / "targets"

    if not micro.has(it.targets):
        (out / "targets").mkdir(parents=True)
        targets(it.targets, micro.path, out / "targets", Runtime())
    (out / "model").mkdir(parents=True)
    tuning.finetune(it, inputs, out / "model", Runtime(**runtime))
    return out / "model", inputs


def training(note=ignore, batch=10, size=4):
    """A training of one layer with a plain optimiser: what it changes at a rate of 1 is the gradient."""
    it = stage().start
    it = replace(it, schedule=replace(it.schedule, batch=batch, clip_norm=1e9))
    torch.manual_seed(0)
    layer = nn.Linear(size, 3)
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    return layer, loop.Training(it, layer.state_dict(), list(layer.parameters()), optimizer, rate, Runtime(note=note))


def test_float32_is_float32_and_bfloat16_computes_in_bfloat16():
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with loop.precision(Numerics(dtype=name), "cpu")():
            assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    with pytest.raises(BenchError, match="unknown dtype 'float16'; expected float32 or bfloat16"):
        loop.precision(Numerics(dtype="float16"), "cpu")


def test_what_trains_stays_float32_when_a_part_is_held_in_bfloat16():
    part = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    part[0].requires_grad_(False)
    part[1].requires_grad_(False)
    loop.cast_frozen(part, torch.bfloat16)
    assert [p.dtype for p in part.parameters()] == [torch.bfloat16, *[torch.float32] * 5]
    assert loop.frozen_dtype(Numerics(dtype="bfloat16"), "cuda:1") == torch.bfloat16
    assert loop.frozen_dtype(Numerics(dtype="bfloat16"), "cpu") == torch.float32
    assert loop.frozen_dtype(Numerics(), "cuda") == torch.float32


def test_both_trainings_in_bfloat16_keep_float32_weights_and_nearly_the_losses(micro, tmp_path):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        it = stage(numerics=Numerics(dtype=dtype))
        folder, _ = tuned(it, micro, tmp_path / dtype)
        assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}
        (tmp_path / dtype / "pretrain").mkdir()
        pretraining.pretrain(replace(it.start, numerics=it.numerics), micro.path, tmp_path / dtype / "pretrain",
                             Runtime())
        assert {tensor.dtype for tensor in load_file(tmp_path / dtype / "pretrain/encoder.safetensors").values()
                } == {torch.float32}
        losses[dtype] = (*json.loads((folder / "finetune.json").read_text())["losses"].values(),
                         json.loads((tmp_path / dtype / "pretrain/pretrain.json").read_text())["masked_mse"])
    assert losses["float32"] != losses["bfloat16"]
    assert losses["float32"] == pytest.approx(losses["bfloat16"], rel=0.05)


@pytest.mark.parametrize("fits", [9, 5, 4, 1])
def test_a_batch_that_does_not_fit_is_taken_in_parts_with_the_same_gradient(fits):
    data, seen, notes = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), [], []
    dropout = nn.Dropout(0.0)

    def loss_of(layer, most):
        def loss(rows):
            part = data[rows]
            seen.append(len(part))
            torch.rand(3)  # what a module may draw before memory ends
            if len(part) > most:
                raise torch.OutOfMemoryError("injected")
            error = layer(dropout(part)).square().mean()
            return {"loss": error, "also": error.detach() * 2}
        return loss

    whole, first = training()
    found = first.update(loss_of(whole, 10))
    split, second = training(lambda what, **values: notes.append((what, values)))
    again = second.update(loss_of(split, fits))
    for one, other in zip(whole.parameters(), split.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
        assert not torch.equal(one, dict(nn.Linear(4, 3).named_parameters())["weight"])
    assert {name: value.item() for name, value in again.items()} == pytest.approx(
        {name: value.item() for name, value in found.items()}, rel=1e-6)
    assert second.parts == {9: 2, 5: 2, 4: 4, 1: 10}[fits]
    seen.clear()
    second.update(loss_of(split, fits))
    assert max(seen) <= fits  # it remembers
    assert sum(seen) == 10
    assert notes[-1] == ("out of memory: step retried with smaller micro-batches", {"step": 0, "parts": second.parts})


def test_a_single_item_that_does_not_fit_ends_the_training():
    it = training()[1]

    def loss(rows):
        raise torch.OutOfMemoryError("injected")

    with pytest.raises(BenchError, match="a single item of the batch does not fit into the memory of cpu"):
        it.update(loss)


def test_fine_tuning_in_parts_is_fine_tuning(micro, tmp_path, monkeypatch):
    real, losses = Tau.forward, []
    for most in (8, 3):
        seen = []

        def narrow(self, tokens, most=most, seen=seen):
            seen.append(len(tokens))
            if len(tokens) > most:
                raise torch.OutOfMemoryError("injected")
            return real(self, tokens)

        monkeypatch.setattr(Tau, "forward", narrow)
        folder, _ = tuned(stage(schedule=dict(steps=2)), micro, tmp_path / str(most))
        losses.append(json.loads((folder / "finetune.json").read_text())["losses"])
    assert seen == [8, 4, *[2] * 8]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_batches_are_fetched_in_order_and_ahead():
    fetched = []

    def fetch(item):
        fetched.append(item)
        return item * 2

    for fetching in (loop.prefetch, loop.run_ahead):
        fetched.clear()
        drawn = fetching(iter(range(10)), fetch)
        assert next(drawn) == (0, 0)
        assert list(drawn) == [(item, 2 * item) for item in range(1, 10)]
        assert fetched == list(range(10))


def test_a_thread_draws_and_fetches_at_most_that_many_batches_ahead():
    asked = []
    drawn = loop.run_ahead(range(10), asked.append)
    next(drawn)
    next(drawn)
    assert len(asked) <= 2 + loop.AHEAD
    assert len(list(drawn)) == 8


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("injected"), KeyError("injected")])
@pytest.mark.parametrize("in_draw", [False, True])
def test_an_error_in_the_thread_is_raised_where_its_batch_is_needed(error, in_draw):
    def draw():
        yield 0
        if in_draw:
            raise error
        yield 1

    def fetch(item):
        if item == 1:
            raise error
        return item

    drawn = loop.run_ahead(draw(), fetch)
    assert next(drawn) == (0, 0)
    with pytest.raises(type(error), match="injected"):
        next(drawn)


def test_the_device_is_waited_for_once_for_each_word_of_progress(micro, tmp_path):
    class Waits(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            self.count += function is torch.ops.aten._local_scalar_dense.default
            return function(*arguments, **(named or {}))

    counts = []
    for steps in (10, 30):
        said = []
        with Waits() as waits:
            tuned(stage(schedule=dict(steps=steps)), micro, tmp_path / str(steps), work=tmp_path / f"work{steps}",
                  progress=lambda step, total, said=said, **scalars: said.append(step))
        assert len(said) == steps // 10
        counts.append(waits.count)
    assert counts[0] > 0  # such as the means at the end
    assert counts[1] - counts[0] <= 2


def test_pretraining_of_the_papers_size_costs_no_more_than_its_visible_tokens():
    size, decoder = PAPER.sizes[0], PAPER.decoder
    masking = random_masking(1, 128, 0.75, torch.Generator().manual_seed(0)).to("meta")
    with torch.device("meta"):
        encoder = Encoder(128, 512, size.width, size.depth, size.heads, size.mlp_ratio)
        net = MaskedAutoencoder(encoder, 128, 512, size.width, 128, decoder.width, decoder.depth, decoder.heads,
                                decoder.mlp_ratio)
        eeg = torch.empty(1, 128, 512)
    with FlopCounterMode(display=False) as counter:
        net(eeg, masking).backward()
    assert counter.get_total_flops() <= 81.0e9


def test_a_wide_encoder_embeds_what_is_visible_only_and_sees_the_same():
    torch.manual_seed(0)
    net = MaskedAutoencoder(Encoder(4, 64, 32, 1, 4), 4, 64, 32, 16)  # 16 numbers in a patch
    eeg, masking, embedded = torch.randn(3, 4, 64), random_masking(3, 16, 0.75, torch.Generator().manual_seed(0)), []
    net.encoder.embed.register_forward_hook(lambda module, inputs, output: embedded.append(inputs[0].shape[1]))
    visible = net._visible(eeg, masking.keep)
    assert embedded == [4]
    every = net.encoder.tokenize(eeg)
    assert torch.allclose(visible, torch.stack([one[keep] for one, keep in zip(every, masking.keep, strict=True)]),
                          atol=1e-6)


def test_only_what_is_opened_ever_has_a_gradient_and_clip_least_of_all(micro, tmp_path, monkeypatch):
    models, clips, seen = [], [], []
    prepare, load, clip_norm = tuning.prepare, frozen.load_clip, nn.utils.clip_grad_norm_

    def look(parameters, norm):
        model, = models
        seen.append({name for name, p in model.named_parameters().items() if p.grad is not None})
        assert all(p.grad is None for clip in clips for p in clip.parameters())
        return clip_norm(parameters, norm)

    monkeypatch.setattr(tuning, "prepare", lambda *given: models.append(prepare(*given)) or models[-1])
    monkeypatch.setattr(frozen, "load_clip", lambda *given: clips.append(load(*given)) or clips[-1])
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", look)
    tuned(stage(), micro, tmp_path)
    assert clips
    assert len(seen) == MICRO.finetune.steps
    assert all(names == set(models[0].open) for names in seen)


def test_neither_validation_nor_test_items_reach_the_training(micro, tmp_path):
    it = stage()
    whole, _ = tuned(it, micro, tmp_path / "whole")
    poisoned = tmp_path / "trials"
    shutil.copytree(micro.path(it.items.trials), poisoned)
    shutil.copytree(micro.path(it.targets), tmp_path / "targets")
    trials = pd.read_csv(poisoned / "trials.csv")
    other = trials[trials["part"] != "train"]
    for file, rows in ((poisoned / "eeg.npy", other.index), *((tmp_path / f"targets/{name}.npy", other["picture"])
                                                             for name in ("embeddings", "mean", "std"))):
        array = np.load(file)
        array[rows] = np.nan
        np.save(file, array)
    folders = {it.items.trials: poisoned, it.targets: tmp_path / "targets"}
    (tmp_path / "again").mkdir()
    tuning.finetune(it, lambda above: folders.get(above) or micro.path(above), tmp_path / "again", Runtime())
    for file in ("model.safetensors", "finetune.json"):
        assert (whole / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_the_released_heads_see_the_latent_and_the_time_step_sees_the_condition(micro, tmp_path):
    it = stage(aligned="latent", time_condition=True)
    items = load_items(it.items, micro.path, it.targets)
    start = tuning.prepare(it, items, micro.path, Runtime())
    assert isinstance(start.head, LatentHead)
    eeg = torch.from_numpy(items.eeg[:3])
    before = start.embedding(eeg)
    nn.init.zeros_(start.tau.project.weight)
    assert torch.equal(start.embedding(eeg), before)  # not through tau
    began = {name: tensor.clone() for name, tensor in
             tuning.prepare(it, items, micro.path, Runtime()).trained().items()}
    folder, inputs = tuned(it, micro, tmp_path)
    after = load_file(folder / "model.safetensors")
    assert after.keys() == began.keys()
    assert {name.split(".")[0] for name in after} == {"encoder", "tau", "head", "time", "unet"}
    unchanged = {name for name in after if torch.equal(after[name], began[name])}
    assert not unchanged
    score = systems.plan(FULL, MICRO.items(), MICRO, 0)
    drawn = replace(score.pictures, model=it)
    pictures = []
    for name in ("a", "zeroed"):
        (tmp_path / name).mkdir()
        generate(drawn, lambda above: folder if above == it else inputs(above), tmp_path / name, Runtime())
        pictures.append(np.load(tmp_path / name / "pictures.npy"))
        from safetensors.torch import save_file

        save_file({key: torch.zeros_like(tensor) if key.startswith("time.") else tensor
                   for key, tensor in after.items()}, folder / "model.safetensors")
    assert not np.array_equal(*pictures)
    assert np.load(tmp_path / "a/embedding.npy").shape == (len(pictures[0]), 64)


def test_the_time_condition_is_added_to_the_embedded_time_step():
    torch.manual_seed(0)
    unet = frozen.make_unet().eval()
    time, context = TimeCondition(8, 64, unet.time_embedding.linear_2.out_features), torch.randn(2, 8, 64)
    latents, plain, added = torch.randn(2, 8, 8, 8), [], []
    unet.time_embedding.register_forward_hook(lambda module, inputs, output: plain.append(output))
    with torch.no_grad():
        without = unet(latents, 5, context).sample
        time.attach(unet)
        unet.time_embedding.register_forward_hook(lambda module, inputs, output: added.append(output))
        one, other = unet(latents, 5, context).sample, unet(latents, 5, encoder_hidden_states=context).sample
    assert torch.equal(added[0] - plain[1], (plain[1] + time(context)) - plain[1])
    assert torch.equal(one, other)
    assert not torch.allclose(one, without)
    assert not any(p is q for p in unet.parameters() for q in time.parameters())
    full = TimeCondition(77, 768, 1280)
    assert sum(p.numel() for p in full.parameters()) == 987_323  # of the released code


def test_a_constant_rate_stays_and_no_warm_up_begins_at_the_whole_rate():
    def rates(**changes):
        schedule = replace(FinetuneSchedule(10, 2, 1e-3, 2e-3, 3e-3, 4), **changes)
        optimizer, rate = tuning._optimizer({"encoder.w": nn.Parameter(torch.ones(1))}, schedule)
        found = []
        for _ in range(schedule.steps):
            found.append(rate.get_last_lr()[0])
            optimizer.step()
            rate.step()
        return found

    assert rates(decay="constant", warmup=0) == [1e-3] * 10
    assert rates(decay="constant") == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, *[1e-3] * 7])
    assert rates(warmup=0)[0] == 1e-3
    assert rates(warmup=0)[-1] < 1e-4
    with pytest.raises(BenchError, match="unknown learning-rate decay 'linear'; expected cosine or constant"):
        rates(decay="linear")


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_on_what_the_u_net_predicts(micro, tmp_path, monkeypatch, predicts):
    schedule = frozen.noise_schedule().from_config({**frozen.noise_schedule().config, "prediction_type": predicts})
    monkeypatch.setattr(frozen, "noise_schedule", lambda path: schedule)
    it, aims = stage(schedule=dict(steps=1)), []
    if predicts == "sample":
        with pytest.raises(BenchError, match="predicts 'sample'; expected v_prediction or epsilon"):
            tuned(it, micro, tmp_path)
        return
    real = tuning.F.mse_loss
    monkeypatch.setattr(tuning.F, "mse_loss", lambda predicted, aim: aims.append(aim) or real(predicted, aim))
    tuned(it, micro, tmp_path)
    generator = torch.Generator().manual_seed(it.seed)
    torch.randint(1, (8,), generator=generator)
    torch.randn((8, 8, 8, 8), generator=generator)
    noise = torch.randn((8, 8, 8, 8), generator=generator)
    assert torch.equal(aims[0], noise) == (predicts == "epsilon")


def test_views_are_the_whole_picture_and_crops_that_belong_to_the_picture_alone(micro, tmp_path):
    it = stage().targets
    for views in (0, 1, 3):
        (tmp_path / str(views)).mkdir()
        targets(replace(it, views=views), micro.path, tmp_path / str(views), Runtime())
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["embeddings.npy"]
    one, three = (np.load(tmp_path / views / "mean.npy") for views in "13")
    assert (one.dtype, three.dtype) == (np.float32, np.float16)
    assert three.shape == (len(one), 3, *one.shape[1:])
    assert np.array_equal(one.astype(np.float16), three[:, 0])
    assert not (three[:, 0] == three[:, 1]).all((1, 2, 3)).any()
    pictures = np.load(micro.path(it.trials) / "pictures.npy")
    image = torch.from_numpy(pictures[5]).permute(2, 0, 1)[None].float() / 127.5 - 1
    vae = frozen.load_vae(it.vae.path)
    at = draw_corners(5, 2, 6)  # 32 pixels, of which a crop has 26
    assert at.shape == (2, 2)
    with torch.no_grad():
        again = vae.moments(crop(image, at[:1]))[0]
    assert np.allclose(again, three[5, 1], atol=5e-3)
    left, top = crop(torch.arange(32.0).expand(1, 1, 32, 32), np.array([[0, 6]]))[0, 0, 0, [0, -1]]
    assert (left.item(), top.item()) == (6, 31)


def test_fine_tuning_sees_kept_views_or_fresh_crops_and_half_of_the_time_the_whole(micro, tmp_path):
    made = {}
    for views in (1, 3, 0):
        it = stage()
        it = replace(it, targets=replace(it.targets, views=views))
        folders = [tuned(it, micro, tmp_path / f"{views}{name}")[0] for name in "ab"]
        first, second = ((folder / "model.safetensors").read_bytes() for folder in folders)
        assert first == second
        made[views] = first
    assert len(set(made.values())) == 3
    items = load_items(it.items, micro.path, stage().targets)
    for views in (3, 0):
        folder = tmp_path / f"{views}a/targets"
        pictures = Latents(replace(it, targets=replace(it.targets, views=views)), items, folder, (8, 8, 8), Runtime())
        view = pictures.draw(4000, torch.Generator().manual_seed(0))
        crop = view > 0 if views else view[:, 0] > 0
        assert crop.float().mean() == pytest.approx(0.5, abs=0.03)
        assert set((view if views else view[:, 1:].flatten()).unique().tolist()) == set(range(3 if views else 7))


def test_pictures_whose_latents_are_of_another_size_than_the_u_nets_are_refused(micro, tmp_path):
    it = stage()
    shutil.copytree(micro.path(it.targets), tmp_path / "targets")
    for name in ("mean", "std"):
        np.save(tmp_path / f"targets/{name}.npy", np.load(tmp_path / f"targets/{name}.npy")[..., :4])
    with pytest.raises(BenchError, match=r"latents are \[8, 8, 4\], but those of U-Net tiny/unet are \[8, 8, 8\]"):
        tuning.finetune(it, lambda above: tmp_path / "targets" if above == it.targets else micro.path(above), tmp_path,
                        Runtime())


def test_a_classifier_takes_its_sampling_rate_from_a_prepared_data_set_too(micro, tmp_path, monkeypatch):
    it = next(row.stage for row in rows_.rows([FULL], MICRO, [0]) if row.variant == "eegnet classifier")
    world = it.train.trials.world
    prepared = replace(it.train.trials, world=Prepared("p", "", world.n_chans, world.n_times, world.sfreq))
    other = replace(it, train=replace(it.train, trials=prepared), test=replace(it.test, trials=prepared))
    monkeypatch.setattr(classifiers, "EPOCHS", 2)
    for name, one in (("a", it), ("b", other)):
        (tmp_path / name).mkdir()
        classifiers.readout(one, lambda above: micro.path(it.train.trials), tmp_path / name, Runtime())
    assert (tmp_path / "a/verdicts.csv").read_bytes() == (tmp_path / "b/verdicts.csv").read_bytes()


def test_a_corpus_of_any_size_costs_the_simple_predictors_a_bounded_part():
    rows = np.arange(100, 1100)
    assert pretraining._spread(rows, 1000) is rows
    assert pretraining._spread(rows, 4).tolist() == [100, 433, 766, 1099]


def test_pretraining_reads_shards_as_it_reads_the_tiny_worlds_array(micro, tmp_path, monkeypatch):
    for name in ("tiny", "shards"):
        (tmp_path / name).mkdir()
        pretraining.pretrain(stage().start, micro.path, tmp_path / name, Runtime())
        monkeypatch.setattr(pretraining, "_open_corpus", lambda corpus, folder: open_corpus(folder))
    for file in ("encoder.safetensors", "pretrain.json"):
        assert (tmp_path / "tiny" / file).read_bytes() == (tmp_path / "shards" / file).read_bytes()


def test_the_papers_settings_run_through_parts_in_the_real_formats(micro, tmp_path):
    parts = write_rehearsal(tmp_path / "weights", 0)
    it = stage(schedule=dict(decay="constant", warmup=0, condition_dropout=0.0, steps=2), aligned="latent",
               time_condition=True)
    it = replace(it, clip=parts["clip"], unet=parts["unet"],
                 targets=replace(it.targets, clip=parts["clip"], vae=parts["vae"], views=3))
    trials = tmp_path / "trials"
    shutil.copytree(micro.path(it.items.trials), trials)
    np.save(trials / "pictures.npy", np.load(trials / "pictures.npy").repeat(2, 1).repeat(2, 2))
    folders = {it.items.trials: trials, it.targets: tmp_path / "targets", it: tmp_path / "model"}
    made = replace(systems.plan(FULL, MICRO.items(), MICRO, 0).pictures, model=it, vae=parts["vae"],
                   sampling=Sampling(2, 1.0, 1, 32, "plms"))

    def inputs(above):
        return folders.get(above) or micro.path(above)

    for function, one, name in ((targets, it.targets, "targets"), (tuning.finetune, it, "model"),
                                (generate, made, "made")):
        (tmp_path / name).mkdir()
        function(one, inputs, tmp_path / name, Runtime())
    assert np.load(tmp_path / "targets/mean.npy").shape[1:] == (3, 4, 8, 8)
    losses = json.loads((tmp_path / "model/finetune.json").read_text())
    assert losses["trained_parameters"]["time"] > 0
    assert losses["losses"]["sd"] == pytest.approx(1, abs=0.8)  # on unit noise, by random weights
    pictures = np.load(tmp_path / "made/pictures.npy")
    assert pictures.shape[1:] == (1, 64, 64, 3)
    assert pictures.std() > 1
