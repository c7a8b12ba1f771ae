"""Masked signal modelling (Sec. 3.1): masking, encoder, decoder, pre-training."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from bench import FULL, systems
from bench.experiment.scale import MICRO, TINY
from bench.runtime import Runtime
from bench.train.pretrain import baselines, pretrain
from models.encoders.msm_vit import Encoder
from models.mae import MaskedAutoencoder
from models.masking import Masking, count_visible, random_masking

CHANNELS, TIMES, TOKENS = 8, 64, 16


def model(seed=0):
    torch.manual_seed(seed)
    return MaskedAutoencoder(Encoder(CHANNELS, TIMES, 24, 2, 4), CHANNELS, TIMES, 24, TOKENS)


def mask(masking):
    """The mask [B, L]: 0 is keep, 1 is remove."""
    return torch.ones(len(masking.keep), TOKENS).scatter_(1, masking.keep, 0.0)


@pytest.mark.parametrize(("ratio", "visible"), [(0.25, 12), (0.5, 8), (0.75, 4), (0.85, 3)])
def test_that_share_of_tokens_is_masked_in_every_sample_and_differently(ratio, visible):
    masking = random_masking(50, TOKENS, ratio, torch.Generator().manual_seed(0))
    assert masking.keep.shape == (50, visible)
    assert (mask(masking).sum(1) == TOKENS - visible).all()
    assert len({tuple(row.tolist()) for row in masking.keep}) > 25


def test_a_ratio_that_leaves_nothing_to_see_or_to_predict_is_refused():
    for ratio in (0.01, 1.0):
        with pytest.raises(ValueError, match="mask ratio"):
            random_masking(2, TOKENS, ratio, torch.Generator())


def test_the_encoder_never_sees_what_is_masked_and_the_loss_only_that():
    masking = random_masking(3, TOKENS, 0.75, torch.Generator().manual_seed(0))
    eeg, net = torch.randn(3, CHANNELS, TIMES), model()
    hidden = mask(masking).repeat_interleave(TIMES // TOKENS, 1)[:, None].bool()
    assert torch.equal(net.predict(eeg, masking), net.predict(torch.where(hidden, 100.0, eeg), masking))
    truth = net.targets(eeg, masking)
    assert torch.allclose(net(eeg, masking), ((net.predict(eeg, masking) - truth) ** 2).mean())
    assert truth.shape == (3, 12, CHANNELS * TIMES // TOKENS)


def test_the_released_rounding_keeps_one_token_less_where_the_share_is_not_whole():
    for ratio, masked, kept in ((0.1, 116, 115), (0.75, 32, 32), (0.85, 20, 19)):
        assert (count_visible(128, ratio), count_visible(128, ratio, "kept")) == (masked, kept)
        masks = random_masking(2, 128, ratio, torch.Generator(), "kept")
        assert masks.keep.shape[1] == kept
    with pytest.raises(ValueError, match="rounding must be 'masked' or 'kept', not 'up'"):
        count_visible(128, 0.1, "up")


def test_a_class_token_changes_predictions_leaves_all_other_weights_and_is_not_part_of_the_encoder(micro, tmp_path):
    torch.manual_seed(0)
    net = MaskedAutoencoder(Encoder(CHANNELS, TIMES, 24, 2, 4), CHANNELS, TIMES, 24, TOKENS, has_class_token=True)
    plain, eeg, masks = model(), torch.randn(2, CHANNELS, TIMES), random_masking(2, TOKENS, 0.5, torch.Generator())
    before, after = plain.state_dict(), net.state_dict()
    assert after.keys() - before.keys() == {"class_token"}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert net.predict(eeg, masks).shape == plain.predict(eeg, masks).shape
    assert not torch.equal(net.predict(eeg, masks), plain.predict(eeg, masks))
    net(eeg, masks).backward()
    assert net.class_token.grad.abs().sum() > 0  # the other tokens attend to it
    stage = systems.plan(replace(FULL, class_token=True), MICRO.items(), MICRO, 0).pictures.model.start
    pretrain(stage, micro.path, tmp_path, Runtime())
    assert load_file(tmp_path / "encoder.safetensors").keys() == Encoder(32, 128, 96, 6, 4).state_dict().keys()


def test_windows_divided_by_ten_have_a_hundredth_of_the_squares(micro, tmp_path):
    stage = systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model.start
    summaries = []
    for divisor in (1.0, 10.0):
        out = tmp_path / f"{divisor:g}"
        out.mkdir()
        pretrain(replace(stage, divisor=divisor), micro.path, out, Runtime())
        summaries.append(json.loads((out / "pretrain.json").read_text()))
    for name in ("mean_mse", "interpolation_mse"):
        assert summaries[1][name] == pytest.approx(summaries[0][name] / 100, rel=1e-4)


def test_a_token_is_four_adjacent_time_steps_of_all_channels():
    encoder, eeg = Encoder(CHANNELS, TIMES, 24, 2, 4), torch.zeros(1, CHANNELS, TIMES)
    eeg[0, :, 8:12] = 1
    changed = (encoder.tokenize(eeg) - encoder.tokenize(torch.zeros_like(eeg))).abs().sum(-1)[0]
    assert changed.nonzero().flatten().tolist() == [2]


def test_encoding_all_tokens_is_the_forward_pass():
    encoder, eeg = Encoder(CHANNELS, TIMES, 24, 2, 4).eval(), torch.randn(2, CHANNELS, TIMES)
    assert torch.equal(encoder(eeg), encoder.encode(encoder.tokenize(eeg)))
    assert encoder(eeg).shape == (2, TOKENS, 24)


def test_the_simple_predictors_are_what_they_are_called():
    time = torch.arange(TIMES) / TIMES
    lines = torch.randn(64, CHANNELS, 1) * (time - time.mean())
    masks = random_masking(16, TOKENS, 0.5, torch.Generator().manual_seed(1))
    inner = Masking(masks.keep[torch.arange(64) % 16], masks.remove[torch.arange(64) % 16])
    found = baselines(lines, lines, inner)
    assert found["wiener_mse"] < 1e-3 < found["interpolation_mse"] < found["mean_mse"]
    white = torch.randn(256, CHANNELS, TIMES, generator=torch.Generator().manual_seed(0))
    inner = Masking(masks.keep[torch.arange(256) % 16], masks.remove[torch.arange(256) % 16])
    found = baselines(white, white, inner)
    assert found["mean_mse"] == pytest.approx(1, abs=0.05)
    assert found["wiener_mse"] == pytest.approx(1, abs=0.05)
    assert found["interpolation_mse"] > 1.2


def test_pretraining_learns_says_what_it_reached_and_is_the_same_when_repeated(micro, tmp_path):
    stage = systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model.start
    stage = replace(stage, schedule=replace(stage.schedule, steps=60))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pretrain(stage, micro.path, tmp_path / name, Runtime())
    assert (tmp_path / "a/encoder.safetensors").read_bytes() == (tmp_path / "b/encoder.safetensors").read_bytes()
    summary = json.loads((tmp_path / "a/pretrain.json").read_text())
    assert summary["masked_mse"] < summary["curve"][0]["held_out"]
    assert {"mean_mse", "interpolation_mse", "wiener_mse", "held_out_windows"} <= set(summary)
    assert summary["encoder_parameters"] == sum(
        tensor.numel() for tensor in load_file(tmp_path / "a/encoder.safetensors").values())


def test_the_sizes_of_table_2_are_in_the_papers_order():
    counts = {size.label: sum(p.numel() for p in Encoder(32, 128, size.width, size.depth, size.heads).parameters())
              for size in TINY.sizes if size.label != "released"}
    assert sorted(counts, key=counts.get) == ["18.3M", "74M", "162M", "297M", "458M"]


def test_windows_of_held_out_recordings_are_never_trained_on(micro):
    from bench.train.pretrain import _TinyCorpus

    folder = micro.path(systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model.start.corpus)
    index, windows = pd.read_csv(folder / "index.csv"), np.load(folder / "windows.npy")
    corpus = _TinyCorpus(folder)
    train, held_out = (corpus.gather(corpus.rows(part), "cpu") for part in ("train", "held_out"))
    assert 0 < len(held_out) < len(train)
    whose = {window.tobytes(): recording for window, recording in zip(windows, index["recording"], strict=True)}
    trained, held = ({whose[np.ascontiguousarray(window).tobytes()] for window in part.numpy()}
                     for part in (train, held_out))
    assert not trained & held
