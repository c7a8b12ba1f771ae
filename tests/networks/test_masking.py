"""What is masked, time, channels or both, and how the condition enters: the encoders and the ablations of both
questions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from paper import PAPER, REHEARSAL

from bench import FULL, systems
from bench.experiment import ablation, encoders, graph
from bench.experiment.scale import MICRO, TINY
from bench.experiment.stages import Pretrain
from bench.runtime import Runtime
from bench.train.pretrain import pretrain
from models.encoders import msm_channel, msm_grid, msm_vit
from models.encoders.msm_grid import grid
from models.mae import MaskedAutoencoder
from models.masking import random_masking

KINDS = {"time": msm_vit.Encoder, "channel": msm_channel.Encoder, "grid": msm_grid.Encoder}
SHAPES = {"tiny": (32, 128), "paper": (128, 512)}  # channels, times
SCALES = [MICRO, TINY, REHEARSAL, PAPER]


@pytest.mark.parametrize("kind", KINDS)
def test_patches_hold_every_number_of_the_eeg_once(kind):
    eeg = torch.arange(2 * 32 * 128).reshape(2, 32, 128)
    patches = KINDS[kind](32, 128, 16, 1, 4).patchify(eeg)
    assert patches.shape == (2, 32, 128)
    for one, own in zip(eeg, patches, strict=True):
        assert torch.equal(own.flatten().sort().values, one.flatten().sort().values)


def test_a_token_of_the_grid_is_adjacent_channels_over_adjacent_times():
    encoder = msm_grid.Encoder(32, 128, 16, 1, 4)
    channel, time = torch.meshgrid(torch.arange(32), torch.arange(128), indexing="ij")
    for number, own in enumerate(encoder.patchify(1000 * channel[None] + time[None])[0]):
        group, stretch = divmod(number, 8)
        assert sorted(set((own // 1000).tolist())) == list(range(8 * group, 8 * group + 8))
        assert sorted(set((own % 1000).tolist())) == list(range(16 * stretch, 16 * stretch + 16))
        assert (own[:8] % 1000 == 16 * stretch).all()  # time step by time step


@pytest.mark.parametrize(("shape", "patch", "expected"), [
    (SHAPES["tiny"], 4, (4, 8)), (SHAPES["paper"], 4, (8, 16)), ((63, 256), 4, (7, 0)), ((17, 100), 4, (0, 0)),
    ((62, 248), 4, (2, 31)), ((128, 512), 8, (8, 8))])
def test_the_grid_is_as_near_to_a_square_as_the_shape_allows_or_refused(shape, patch, expected):
    channels, times = shape
    tokens = times // patch
    if all(expected):
        assert grid(channels, times, tokens) == expected
        assert expected[0] * expected[1] == tokens
    else:
        with pytest.raises(ValueError, match=f"{channels} channels x {times} time steps cannot be cut into a grid of"):
            msm_grid.Encoder(channels, times, 16, 1, 4, patch=patch)
    with pytest.raises(ValueError, match="cannot be divided into patches of 3"):
        msm_grid.Encoder(32, 128, 16, 1, 4, patch=3)


@pytest.mark.parametrize("scale", [TINY, PAPER], ids=lambda scale: scale.name)
def test_the_three_kinds_of_token_are_as_many_as_large_and_need_as_many_parameters(scale):
    size, counts, shapes = scale.size("297M"), set(), set()
    channels, times = SHAPES[scale.name]
    for encoder in KINDS.values():
        with torch.device("meta"):
            net = encoder(channels, times, size.width, size.depth, size.heads, size.mlp_ratio)
            patches = net.patchify(torch.empty(1, channels, times))
            whole = MaskedAutoencoder(net, channels, times, size.width, patches.shape[1], scale.decoder.width,
                                      scale.decoder.depth, scale.decoder.heads, scale.decoder.mlp_ratio)
        shapes.add((*patches.shape[1:], net.embed.in_features, whole.head.out_features))
        counts.add((sum(p.numel() for p in net.parameters()), sum(p.numel() for p in whole.parameters())))
    assert shapes == {(times // 4, 4 * channels, 4 * channels, 4 * channels)}
    assert len(counts) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_masked_is_not_seen_and_is_what_the_loss_is_about(kind):
    torch.manual_seed(0)
    net = KINDS[kind](32, 128, 16, 1, 4)
    model = MaskedAutoencoder(net, 32, 128, 16, 32).eval()
    masking = random_masking(2, 32, 0.75, torch.Generator().manual_seed(1))
    eeg = torch.randn(2, 32, 128)
    where = net.patchify(torch.arange(32 * 128).reshape(1, 32, 128))[0]
    changed = eeg.clone()
    for one, hidden in zip(changed, masking.remove, strict=True):
        one.view(-1)[where[hidden].flatten()] += 100
    with torch.inference_mode():
        assert torch.equal(model.predict(eeg, masking), model.predict(changed, masking))
        assert (model.targets(changed, masking) - model.targets(eeg, masking)).allclose(torch.tensor(100.0), atol=1e-4)


@pytest.mark.parametrize("name", ["per channel", "grid"])
def test_pre_training_on_other_tokens_learns(name, micro, tmp_path):
    variant = ablation.load("masking").select([name])[0]
    start = systems.plan(variant, MICRO.items(), MICRO, 0).pictures.model.start
    encoders.keep(start.encoder, tmp_path / "encoders")
    stage = replace(start, schedule=replace(start.schedule, steps=60))
    pretrain(stage, micro.path, tmp_path, Runtime(encoders=tmp_path / "encoders"))
    about = json.loads((tmp_path / "pretrain.json").read_text())
    assert about["masked_mse"] < about["curve"][0]["held_out"]


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.name)
@pytest.mark.parametrize(("name", "rows", "pretrained"), [("masking", 6, 3), ("conditioning", 4, 1)])
def test_the_ablations_plan_at_every_scale_and_share_what_they_can(name, rows, pretrained, scale):
    loaded = ablation.load(name)
    assert len(loaded.variants) == rows
    scores = [systems.plan(variant, scale.items(), scale, 0) for variant in loaded.variants]
    counted = [stage.kind for stage in graph.stages(scores)]
    assert (counted.count("pretrain"), counted.count("finetune")) == (pretrained, rows)
    starts = [score.pictures.model.start for score in scores]
    assert {start.mask_ratio for start in starts if isinstance(start, Pretrain)} == {FULL.mask_ratio}


def test_masking_has_the_rows_of_reconstruction_and_the_contrasts_differ_in_one_factor():
    loaded = ablation.load("masking")
    assert set(ablation.load("reconstruction").variants) < set(loaded.variants)
    for one in (loaded, ablation.load("conditioning")):
        rows = {variant.name: variant for variant in one.variants}
        for a, b in one.contrasts:
            assert sum(getattr(rows[a], field) != getattr(rows[b], field) for field in
                       ("encoder", "mask_ratio", "align", "time_condition")) == 1, (a, b)
