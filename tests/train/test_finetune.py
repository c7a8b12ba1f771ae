"""Fine-tuning and generation: what is trained, what is left alone, and what the result depends on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from bench import FULL, systems
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.runtime import Runtime
from bench.train import finetune as training
from bench.train.finetune import prepare, restore
from bench.train.generate import generate, in_batches, initial_noise
from bench.train.items import load_items
from bench.train.trials import write_classes


def stage(**changes):
    return systems.plan(replace(FULL, **changes), MICRO.items(), MICRO, 0).pictures.model


def tensors(model):
    return {f"{part}.{name}": tensor.clone() for part, module in model.parts().items()
            for name, tensor in module.state_dict().items()}


def attention(name):
    return ".attn2." in name


ROWS = [
    (dict(tune="E+A"), {"encoder", "tau", "head", "attn2"}),
    (dict(tune="E"), {"encoder", "tau", "head"}),
    (dict(tune="A"), {"tau", "head", "attn2"}),
    (dict(tune="A", align=None), {"tau", "attn2"}),
    (dict(tune="A-tau", align=None), {"attn2"}),
    (dict(tune="tau"), {"tau", "head"}),
    (dict(tune="E+A+norm2"), {"encoder", "tau", "head", "attn2", "norm2"}),
    (dict(sd_loss=False), {"encoder", "tau", "head"}),
    (dict(align="label"), {"encoder", "tau", "head", "attn2"}),
    (dict(tau="linear", tune="tau"), {"tau", "head"}),
    (dict(tau="released", tune="A-tau", aligned="latent"), {"head", "attn2"}),
]


@pytest.mark.parametrize(("row", "opened"), ROWS)
def test_a_row_trains_what_it_names_and_every_other_tensor_stays_bit_equal(micro, row, opened):
    def trained(name):
        part = name.split(".")[0]
        if part == "unet":
            return ("attn2" in opened and ".attn2." in name) or (
                "norm2" in opened and ".norm2." in name and "transformer_blocks" in name)
        return part in opened

    it = stage(**row)
    before = tensors(prepare(it, load_items(it.items, micro.path, it.targets), micro.path, Runtime()))
    build(it, micro)
    after = tensors(restore(it, load_items(it.items, micro.path, it.targets), micro.path, Runtime()))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if trained(name)}
    assert set(load_file(micro.path(it) / "model.safetensors")) == {name for name in before if trained(name)}




def test_clip_vae_and_judge_are_bit_equal_after_a_whole_row(micro, monkeypatch, tmp_path):
    from models import frozen

    used = {name: [] for name in ("clip", "vae", "judge")}
    for name, modules in used.items():
        load = getattr(frozen, f"load_{name}")

        def loading(*arguments, load=load, modules=modules):
            modules.append(load(*arguments))
            return modules[-1]

        monkeypatch.setattr(frozen, f"load_{name}", loading)
    score = systems.plan(FULL, MICRO.items(), MICRO, 7)
    for it in graph.stages([score], micro.is_intact):
        build(it, micro)
    monkeypatch.undo()
    for name, modules in used.items():
        assert modules
        weights = MICRO.weights(name)
        pinned = getattr(frozen, f"load_{name}")(weights.path, weights.sha256).state_dict()
        for module in modules:
            assert not any(p.requires_grad for p in module.parameters())
            assert all(torch.equal(tensor, pinned[key]) for key, tensor in module.state_dict().items())


def test_fine_tuning_twice_gives_the_same_bytes_and_another_seed_does_not(micro, tmp_path):
    it = stage()
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        folder.mkdir()
        training.finetune(replace(it, seed=seed), micro.path, folder, Runtime())
    a, b, c = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert a == b
    assert a != c


def test_the_order_of_trials_on_disk_changes_nothing(micro, tmp_path):
    it = systems.plan(FULL, MICRO.items(), MICRO, 0).pictures
    trials, shuffled = micro.path(it.items.trials), tmp_path / "trials"
    shuffled.mkdir()
    order = np.random.default_rng(0).permutation(len(pd.read_csv(trials / "trials.csv")))
    pd.read_csv(trials / "trials.csv").iloc[order].to_csv(shuffled / "trials.csv", index=False)
    write_classes(shuffled)
    np.save(shuffled / "eeg.npy", np.load(trials / "eeg.npy")[order])
    np.save(shuffled / "pictures.npy", np.load(trials / "pictures.npy"))
    outs = []
    for name, folder in (("a", trials), ("b", shuffled)):
        out = tmp_path / name
        (out / "model").mkdir(parents=True)

        def inputs(upstream, folder=folder, out=out):
            return {it.items.trials: folder, it.model: out / "model"}.get(upstream) or micro.path(upstream)

        training.finetune(it.model, inputs, out / "model", Runtime())
        generate(it, inputs, out, Runtime())
        outs.append(out)
    for file in ("model/model.safetensors", "pictures.npy", "item.npy"):
        assert (outs[0] / file).read_bytes() == (outs[1] / file).read_bytes()


def test_noise_belongs_to_the_item_and_sample_alone():
    few, many = (initial_noise(np.array(items), 2, 0, (4,)) for items in ([7, 3], [1, 3, 5, 7]))
    assert torch.equal(few[:2], many[6:])
    assert torch.equal(few[2:], many[2:4])
    assert not torch.equal(few[0], few[1])
    assert not torch.equal(few, initial_noise(np.array([7, 3]), 2, 1, (4,)))


def test_every_batch_has_one_size():
    sizes = []

    def double(rows):
        sizes.append(len(rows))
        return rows * 2

    rows = torch.arange(10.0)
    assert torch.equal(in_batches(double, rows, 4), rows * 2)
    assert sizes == [4, 4, 4]


def test_all_rows_of_a_seed_see_the_same_batches_noise_time_steps_and_dropped_conditions(micro, monkeypatch, tmp_path):
    seen = {}
    for name, row in (("Full", {}), ("13", dict(align=None)), ("12", dict(tune="E"))):
        drawn = []
        for kind in ("randn", "randint", "rand"):
            real = getattr(torch, kind)

            def record(*size, real=real, drawn=drawn, **options):
                result = real(*size, **options)
                if "generator" in options:
                    drawn.append(result.sum().item())
                return result

            monkeypatch.setattr(torch, kind, record)
        (tmp_path / name).mkdir()
        training.finetune(stage(**row), micro.path, tmp_path / name, Runtime())
        monkeypatch.undo()
        seen[name] = drawn
    assert seen["Full"] == seen["13"] == seen["12"]
    assert len(seen["Full"]) == 5 * MICRO.finetune.steps


def test_running_statistics_of_a_users_encoder_are_kept_with_its_weights(micro, tmp_path):
    own = tmp_path / "own.py"
    own.write_text("""
from torch import nn

class Encoder(nn.Module):
    def __init__(self, channels, times, width, depth, heads):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(channels, width, 8, stride=8), nn.BatchNorm1d(width), nn.Dropout(0.5))

    def forward(self, eeg):
        return self.layers(eeg).transpose(1, 2)
""")
    it = stage(encoder=str(own), mask_ratio=None)
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        torch.rand(int(folder.name == "b") + 1)
        training.finetune(it, micro.path, folder, Runtime())
    first, second = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert first == second
    items = load_items(it.items, micro.path, it.targets)
    model = restore(it, items, lambda upstream: folders[0] if upstream == it else micro.path(upstream), Runtime())
    assert model.encoder.layers[1].num_batches_tracked == MICRO.finetune.steps


def test_a_folder_that_holds_other_tensors_than_the_row_trains_is_refused(micro):
    it = stage()
    build(it, micro)
    with pytest.raises(ValueError, match="does not hold the tensors that E trains"):
        restore(replace(it, tune="E"), load_items(it.items, micro.path, it.targets), lambda upstream: micro.path(
            it if upstream == replace(it, tune="E") else upstream), Runtime())
