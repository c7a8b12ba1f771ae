"""The frozen parts: loaded strictly and by hash, held closed, opened only by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform
from torch import nn

from bench.cli import main
from bench.data import pictures
from bench.errors import BenchError
from bench.experiment.scale import PRIOR, TINY, shipped
from models import frozen

TIMM = {  # architectures of timm without weights -> side of their images; None: their own
    "test_byobnet": 64, "test_efficientnet": 64, "efficientnet_lite0": 64, "mnasnet_small": 64, "hardcorenas_b": 64,
    "mobilenetv3_small_050": 64, "ghostnet_050": 64, "mobilevit_xxs": 64, "test_nfnet": 64, "test_convnext": 64,
    "test_mambaout": 64, "test_resnet": 64, "test_vit": 64, "test_coatnet": 64, "deit_tiny_patch16_224": 64,
    "deit_tiny_distilled_patch16_224": 64, "levit_128s": None, "coat_tiny": 64, "convit_tiny": 64,
    "xcit_nano_12_p16_224": 64, "cs3darknet_focus_s": 64, "cspnext_tiny": 64, "densenet121": 64,
    "dla46x_c": 64, "edgenext_xx_small": 64, "efficientformerv2_s0": 64, "efficientvim_m1": 64, "efficientvit_b0": 64,
    "efficientvit_m0": 64, "eva02_tiny_patch14_224": 56, "fastvit_t8": 64, "gmlp_ti16_224": 64, "hgnetv2_b0": 64,
    "iformer_t": 64, "inception_next_atto": 64, "lcnetv2_small": 64, "pit_ti_224": 64, "pvt_v2_b0": 64,
    "resnet18": 64, "regnetx_002": 64, "repvgg_a0": 64}
LARGER = {
    "cait_xxs24_224": 64, "csatv2": 128, "crossvit_tiny_240": None, "hiera_tiny_224": 64, "xception41": 96,
    "sam2_hiera_tiny": 64, "davit_tiny": 64, "focalnet_tiny_srf": 64, "swin_tiny_patch4_window7_224": None,
    "mvitv2_tiny": 64, "nest_tiny": 64, "nextvit_small": 64, "inception_v3": 96, "hrnet_w18_small": 64,
    "poolformerv2_s12": 64, "mixer_s32_224": 64, "vgg11": 64, "convmixer_768_32": 56, "gcvit_xxtiny": 64,
    "lowformer_b0": 64, "tnt_s_patch16_224": None, "twins_svt_small": None, "sequencer2d_s": None,
    "visformer_tiny": None, "maxvit_rmlp_pico_rw_256": 64, "vit_tiny_r_s16_p8_224": None,
    "tiny_vit_5m_224": None, "volo_d1_224": None, "naflexvit_base_patch16_gap": 64, "tresnet_m": 64,
    "rexnet_100": 64, "selecsls42b": 64, "res2net50d": 64}
LOADERS = {"judge": frozen.load_judge, "vae": frozen.load_vae, "clip": frozen.load_clip, "unet": frozen.load_unet}


@pytest.mark.parametrize("part", LOADERS)
def test_a_shipped_part_is_loaded_by_its_hash_and_held_closed(part):
    weights = TINY.weights(part)
    loaded = LOADERS[part](weights.path, weights.sha256)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("part", LOADERS)
def test_another_file_than_the_pinned_one_or_none_is_refused(part, tmp_path):
    weights = TINY.weights(part)
    with pytest.raises(frozen.BadWeights, match="not 000000000000"):
        LOADERS[part](weights.path, "0" * 64)
    with pytest.raises(frozen.MissingWeights, match="bench prior"):
        LOADERS[part](tmp_path / "none.safetensors")
    other = TINY.weights("judge" if part != "judge" else "vae")
    with pytest.raises(frozen.BadWeights, match="does not hold the expected part"):
        LOADERS[part](other.path)


def test_a_damaged_part_is_found_before_any_work(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for file in (PRIOR / "tiny").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert shipped(folder, "vae").sha256 == TINY.weights("vae").sha256
    (folder / "clip.safetensors").write_bytes(b"x")
    with pytest.raises(BenchError, match=r"clip\.safetensors has SHA-256") as caught:
        shipped(folder, "clip")
    assert caught.value.exit_code == 3


def test_the_shipped_parts_together_are_at_most_15_mb_and_say_where_they_come_from():
    folder = PRIOR / "tiny"
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) <= 15e6
    provenance = json.loads((folder / "provenance.json").read_text())
    assert all({"sha256", "recipe", "parameters"} <= set(part) for part in provenance["parts"].values())
    assert all(gate["measured"] >= gate["needed"] for gate in provenance["gates"])
    assert provenance["versions"]["torch"]


def test_a_is_q_k_v_out_of_every_cross_attention_and_nothing_else():
    unet = frozen.load_unet(TINY.weights("unet").path)
    names = {name for name, _ in frozen.open_for_tuning(unet)}
    blocks = {name.split(".attn2.")[0] for name, _ in unet.named_parameters() if ".attn2." in name}
    assert names == {f"{block}.attn2.{layer}" for block in blocks for layer in (
        "to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")}
    assert names == {name for name, p in unet.named_parameters() if p.requires_grad}
    wider = {name for name, _ in frozen.open_for_tuning(unet, norm2=True)}
    assert wider - names == {f"{block}.norm2.{layer}" for block in blocks for layer in ("weight", "bias")}


def test_guidance_is_one_call_of_twice_the_batch_in_every_step():
    unet = frozen.load_unet(TINY.weights("unet").path)
    sizes = []
    unet.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    context = torch.randn(3, frozen.CONTEXT, frozen.WIDTH)
    for guidance in (2.0, 1.0):
        frozen.sample(unet, context, context[:1], torch.randn(3, 8, 8, 8), 4, guidance)
    assert sizes == [6] * 4 + [3] * 4


def test_latents_have_unit_variance_and_decode_to_the_picture():
    scenes = pictures.draw_scenes(64, len(pictures.CLASSES), pictures.stream("held-out", 0))
    images = torch.from_numpy(pictures.render(scenes)).permute(0, 3, 1, 2).float() / 127.5 - 1
    vae = frozen.load_vae(TINY.weights("vae").path)
    with torch.no_grad():
        latents = vae.encode(images)
        error = (vae.decode(latents) - images).square().mean().item()
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(8), atol=0.2)
    assert error < 0.02


def test_an_unknown_word_or_a_caption_too_long_is_refused():
    clip = frozen.load_clip(TINY.weights("clip").path)
    with pytest.raises(ValueError, match="outside the text tower's vocabulary"):
        clip.tokenize(["a zebra"])
    with pytest.raises(ValueError, match="words"):
        clip.tokenize(["a " * 9])


@pytest.mark.long
def test_the_shipped_parts_pass_their_gates(capsys):
    assert main(["prior", "--check"]) == 0
    assert capsys.readouterr().out.count("passed") == 6


@pytest.mark.long
def test_the_recipe_ends_in_parts_that_can_be_loaded_or_says_which_gate_they_miss(tmp_path):
    from bench.execute import build
    from bench.prior import recipe, ship
    from bench.runtime import Runtime
    from bench.store.store import Store

    vae = recipe.Vae(pictures=200, steps=2, decoder_steps=2)
    clip = recipe.Clip(pictures=200, steps=2)
    parts = {"judge": recipe.Judge(pictures=200, steps=2), "vae": vae, "clip": clip,
             "unet": replace(recipe.Unet(vae, clip), pictures=200, steps=2)}
    store = Store(tmp_path / "store")
    for stage in parts.values():
        build.build(stage, store)
    with pytest.raises(BenchError, match="not shipped, gates not passed"):
        ship.ship(parts, store.path, tmp_path / "shipped", Runtime())
    assert not list(Path(tmp_path / "shipped").iterdir())


def untrained(name: str, side: int | None) -> nn.Module:
    """A network of timm for images of this side, whose logits depend on the image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = timm.get_pretrained_cfg(name)
        resized = {"img_size": side} if side and config.fixed_input_size else {}
        net = timm.create_model(name, pretrained=False, num_classes=7, **resized)
        if side:
            net.pretrained_cfg["input_size"] = (3, side, side)
        for parameter in net.parameters():
            if not parameter.any() and parameter.ndim > 1:  # some heads begin with zeros
                parameter.data.normal_()
    return net


def check_look(name: str, side: int | None) -> None:
    judge = frozen.freeze(frozen.TimmJudge(untrained(name, side)))
    images = torch.rand(2, 3, judge.size, judge.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = judge.logits(images)
        logits, features, maps = judge.look(images)
        same = judge.features(images)
    assert expected.any()
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert torch.allclose(features, same, rtol=1e-4, atol=1e-5 * same.abs().max().item())
    assert features.ndim == 2
    assert len(maps) >= 3
    levels = [level["reduction"] for level in judge.net.feature_info]
    assert len(maps) == (4 if len(set(levels)) == 1 else len(levels))
    assert all(layer.ndim == 4 and layer.shape[-1] <= judge.size for layer in maps)
    assert logits.shape == (2, 7)


def test_a_judge_gives_timms_own_logits_features_and_maps_whatever_its_family(one_thread):
    assert len(TIMM) >= 40
    for name, side in TIMM.items():
        check_look(name, side)


@pytest.mark.long
@pytest.mark.parametrize("name", LARGER)
def test_a_judge_of_a_larger_family_gives_timms_own_logits_too(name, one_thread):
    check_look(name, LARGER[name])


@pytest.mark.parametrize(("mode", "share"), [("center", 0.875), ("squash", 0.9), ("border", 0.95), ("center", 1.0)])
def test_an_image_is_cropped_as_by_timms_own_transform(mode, share):
    net = untrained("test_resnet", 64)
    net.pretrained_cfg |= {"crop_mode": mode, "crop_pct": share}
    judge = frozen.TimmJudge(net).eval()
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    theirs = create_transform(**timm.data.resolve_model_data_config(net), is_training=False)
    ours = torch.tensor(judge.crop(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert torch.allclose(judge._normalise(ours)[0], theirs(Image.fromarray(image)), atol=1e-5)
    assert str(judge.crop) == f"timm {mode} crop {share:g}, bilinear to 64x64"
