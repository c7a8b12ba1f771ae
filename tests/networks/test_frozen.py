"""The frozen parts: loaded strictly and by hash, held closed, opened only by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.cli import main
from bench.data import pictures
from bench.errors import BenchError
from bench.experiment.scale import PRIOR, TINY, shipped
from models import frozen

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
