"""The IP-Adapter and the captioner of scale tiny: files, pipelines, recipes and gates."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch.nn.functional import mse_loss, normalize

from bench.cli import main
from bench.commands import prior
from bench.data import pictures
from bench.errors import BenchError
from bench.experiment.key import canonical
from bench.experiment.scale import PRIOR, TINY
from bench.prior import recipe, ship, train
from bench.runtime import Runtime
from models import adapter, captioner, frozen

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 3
LOADERS = {"adapter": adapter.load, "captioner": captioner.load_captioner}


@pytest.fixture(scope="module")
def parts():
    """The shipped parts but for the U-Net, which an adapter changes."""
    load = {"judge": frozen.load_judge, "vae": frozen.load_vae, "clip": frozen.load_clip}
    return {name: load[name](TINY.weights(name).path) for name in load}


@pytest.fixture(scope="module")
def seen():
    """Scenes of the held-out stream, and images [64, 3, 32, 32] in [-1, 1]."""
    scenes = pictures.draw_scenes(64, len(pictures.CLASSES), pictures.stream("held-out", 1))
    return scenes, torch.from_numpy(pictures.render(scenes)).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.fixture(scope="module")
def given(parts):
    """Embeddings, prompts, the empty prompt, noise, start: of four pictures."""
    generator = torch.Generator().manual_seed(0)
    clip = parts["clip"]
    with torch.no_grad():
        said = ["a star green on gray", "a moon", "a fish red on white", ""]
        context, null = (clip.text_tokens(clip.tokenize(words)) for words in (said, [""]))
    embeddings = normalize(torch.randn(4, frozen.EMBEDDING, generator=generator), dim=1)
    noise, start = torch.randn(2, 4, 8, 8, 8, generator=generator)
    return {"embeddings": embeddings, "context": context, "null": null, "noise": noise}, start


def made(parts, tensors="shipped", img2img=False):
    """A pipeline around the shipped parts, by default with the shipped adapter."""
    weights = TINY.weights("adapter")
    return adapter.pipeline(parts["vae"], frozen.load_unet(TINY.weights("unet").path), frozen.noise_schedule(),
                            weights.path if tensors == "shipped" else tensors, img2img,
                            weights.sha256 if tensors == "shipped" else None)


def test_the_shipped_adapter_has_the_layout_of_the_released_ones():
    tensors = adapter.load(TINY.weights("adapter").path, TINY.weights("adapter").sha256)
    unet = frozen.load_unet(TINY.weights("unet").path)
    width, sizes = unet.config.cross_attention_dim, [32, 64, 64, 64, 32, 32, 64]  # down, up, mid
    expected = {"image_proj.proj.weight": (4 * width, frozen.EMBEDDING), "image_proj.proj.bias": (4 * width,),
                "image_proj.norm.weight": (width,), "image_proj.norm.bias": (width,)}
    for index, size in enumerate(sizes):
        expected |= {f"ip_adapter.{2 * index + 1}.to_{kind}_ip.weight": (size, width) for kind in "kv"}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected


@pytest.mark.parametrize("part", LOADERS)
def test_another_file_than_the_pinned_one_or_none_is_refused(part, tmp_path):
    weights = TINY.weights(part)
    assert LOADERS[part](weights.path, weights.sha256)
    with pytest.raises(frozen.BadWeights, match="not 000000000000.*bench prior"):
        LOADERS[part](weights.path, "0" * 64)
    with pytest.raises(frozen.MissingWeights, match="bench prior"):
        LOADERS[part](tmp_path / "none.safetensors")
    (tmp_path / "short.safetensors").write_bytes(Path(weights.path).read_bytes()[:500])
    with pytest.raises(frozen.BadWeights, match=r"short\.safetensors (is not|does not hold) the expected"):
        LOADERS[part](tmp_path / "short.safetensors")


def test_an_adapter_of_another_unet_is_refused(parts):
    tensors = adapter.load(TINY.weights("adapter").path)
    for changed, said in (({"ip_adapter.15.to_k_ip.weight": torch.ones(1), **tensors}, "has unknown ip_adapter.15"),
                          ({k: t for k, t in tensors.items() if ".13." not in k}, "lacks ip_adapter.13.to_k_ip"),
                          (tensors | {"ip_adapter.1.to_k_ip.weight": torch.ones(8, 64)}, r"\[8, 64\], expected \[32")):
        with pytest.raises(frozen.BadWeights, match=f"does not fit this U-Net: .*{said}"):
            made(parts, changed)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_without_the_adapters_share_a_pipeline_draws_what_the_suites_own_sampler_draws(parts, given, guidance):
    what, _ = given
    pipe = made(parts)
    drawn = adapter.draw(pipe, **what, steps=STEPS, guidance=guidance)
    pipe.set_ip_adapter_scale(0.0)
    unet = frozen.load_unet(TINY.weights("unet").path)
    expected = frozen.sample(unet, what["context"], what["null"], what["noise"], STEPS, guidance)
    assert torch.equal(adapter.draw(pipe, **what, steps=STEPS, guidance=guidance), expected)
    assert (drawn - expected).abs().mean() > 0.1


def test_a_batch_is_what_diffusers_own_pipeline_makes_of_each_alone(parts, given):
    """Of a batch diffusers' own would take all embeddings for every picture."""
    what, _ = given
    drawn = adapter.draw(made(parts), **what, steps=STEPS, guidance=2.0)
    absent = dict.fromkeys(("text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor"))
    unet = frozen.load_unet(TINY.weights("unet").path)
    theirs = StableDiffusionPipeline(vae=parts["vae"].net, unet=unet, requires_safety_checker=False, **absent)
    theirs.register_modules(scheduler=made(parts).scheduler)
    file = Path(TINY.weights("adapter").path)
    theirs.load_ip_adapter(file.parent, subfolder="", weight_name=file.name, image_encoder_folder=None)
    theirs.set_progress_bar_config(disable=True)

    def asked(rows):
        embeddings, context = what["embeddings"][rows, None], what["context"][rows]
        return theirs(prompt_embeds=context, negative_prompt_embeds=what["null"].expand_as(context),
                      ip_adapter_image_embeds=[torch.cat([torch.zeros_like(embeddings), embeddings])],
                      latents=what["noise"][rows], num_inference_steps=STEPS, guidance_scale=2.0,
                      output_type="latent").images

    for row in range(4):
        assert torch.allclose(drawn[row:row + 1], asked([row]), atol=1e-4)


def test_a_picture_depends_on_its_own_embedding_prompt_and_noise_alone(parts, given):
    what, _ = given
    pipe = made(parts)
    drawn = adapter.draw(pipe, **what, steps=STEPS, guidance=2.0)
    turned = {name: value if name == "null" else value.flip(0) for name, value in what.items()}
    assert torch.equal(adapter.draw(pipe, **turned, steps=STEPS, guidance=2.0), drawn.flip(0))
    for name in ("embeddings", "context", "noise"):
        other = what | {name: torch.cat([what[name][:1], what[name][1:2].expand_as(what[name][1:])])}
        again = adapter.draw(pipe, **other, steps=STEPS, guidance=2.0)
        assert torch.equal(again[:2], drawn[:2])
        assert not torch.allclose(again[2], drawn[2], atol=0.01), name


def test_image_to_image_begins_from_the_latents_with_the_schedules_noise(parts, given):
    what, start = given
    pipe = made(parts, img2img=True)
    found = adapter.draw(pipe, **what, steps=10, guidance=1.0, start=start, strength=0.5)
    solver = frozen.make_solver("dpmsolver++", frozen.noise_schedule())
    solver.set_timesteps(10)
    solver.set_begin_index(5)
    latents = solver.add_noise(start, what["noise"], solver.timesteps[5:6].repeat(4))
    with torch.inference_mode():
        for time in solver.timesteps[5:]:
            predicted = pipe.unet(latents, time, what["context"],
                                  added_cond_kwargs={"image_embeds": [what["embeddings"][:, None]]}).sample
            latents = solver.step(predicted, time, latents).prev_sample
    assert torch.equal(found, latents)
    nearer = adapter.draw(pipe, **what, steps=10, guidance=1.0, start=start, strength=0.1)
    assert (nearer - start).abs().mean() < (found - start).abs().mean()
    with pytest.raises(ValueError, match="made with img2img"):
        adapter.draw(pipe, **what, steps=10, guidance=1.0)
    with pytest.raises(ValueError, match="made with img2img"):
        adapter.draw(made(parts), **what, steps=10, guidance=1.0, start=start)


def test_samples_from_embeddings_of_pictures_are_recognised_and_look_alike(parts, seen):
    """The gate in small; n = 64."""
    scenes, images = seen
    clip, vae, null = parts["clip"], parts["vae"], parts["clip"].text_tokens(parts["clip"].tokenize([""])).detach()
    noise = torch.randn(64, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        embeddings = clip.embed_image(images)
        latents = adapter.draw(made(parts), embeddings, null.expand(64, -1, -1), null, noise, 10, 2.0)
        drawn = vae.decode(latents)
        assert (parts["judge"].logits(drawn).argmax(1).numpy() == scenes.label).mean() >= 0.9
        apart = (drawn - images).abs().mean((1, 2, 3))
        assert (apart < (drawn - images.roll(1, 0)).abs().mean((1, 2, 3))).float().mean() > 0.9


def test_the_captioner_names_shape_colour_and_background_whatever_the_length_of_an_embedding(parts, seen):
    scenes, images = seen
    part = captioner.load_captioner(TINY.weights("captioner").path, TINY.weights("captioner").sha256)
    with torch.inference_mode():
        embeddings = parts["clip"].embed_image(images)
    said = part.captions(embeddings)
    assert np.mean(np.array(said) == np.array(pictures.captions(scenes, False))) >= 0.9
    assert part.captions(8 * embeddings) == said
    assert parts["clip"].tokenize(said).shape == (64, frozen.CONTEXT)


def small(part):
    """A recipe on the shipped parts, cut down."""
    sizes = {"adapter": {"pictures": 64, "steps": 15, "batch": 32, "warmup": 2},
             "captioner": {"pictures": 200, "steps": 200, "batch": 64, "warmup": 2}}
    return replace(recipe.separate_parts(TINY.weights)[part], **sizes[part])


def built(stage, name, out, losses=None):
    """Builds a recipe on shipped parts, which has nothing upstream."""
    out.mkdir()
    report = (lambda *_, loss=None, **__: losses.append(loss)) if losses is not None else (lambda *_, **__: None)
    getattr(train, name)(stage, None, out, Runtime("cpu", report))
    return out / f"{name}.safetensors"


def test_training_an_adapter_lowers_the_loss_of_the_unet_which_stays(parts, seen, tmp_path):
    stage = small("adapter")
    file = built(stage, "adapter", tmp_path / "first")
    again = built(replace(stage, steps=3), "adapter", tmp_path / "again")
    assert again.read_bytes() == built(replace(stage, steps=3), "adapter", tmp_path / "second").read_bytes()
    schedule, images = frozen.noise_schedule(), seen[1]
    noise, times = torch.randn(64, 8, 8, 8, generator=torch.Generator().manual_seed(1)), torch.full((64,), 900)

    @torch.inference_mode()
    def loss(tensors):
        unet = made(parts, tensors).unet
        latents, clip = parts["vae"].encode(images), parts["clip"]
        null = clip.text_tokens(clip.tokenize([""])).expand(64, -1, -1)
        v = unet(schedule.add_noise(latents, noise, times), times, null,
                 added_cond_kwargs={"image_embeds": [clip.embed_image(images)[:, None]]}).sample
        return mse_loss(v, schedule.get_velocity(latents, noise, times)).item()

    unet = frozen.load_unet(TINY.weights("unet").path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        fresh = adapter.fresh(unet, frozen.EMBEDDING)
    assert loss(load_file(file)) < 0.95 * loss(fresh)
    trained = made(parts, load_file(file)).unet.state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in unet.state_dict().items())


def test_training_a_captioner_lowers_the_loss_and_gives_the_same_bytes_twice(tmp_path):
    losses = []
    file = built(small("captioner"), "captioner", tmp_path / "first", losses)
    assert losses[-1] < 0.7 * losses[0]
    assert file.read_bytes() == built(small("captioner"), "captioner", tmp_path / "second").read_bytes()


def test_the_shipped_files_come_from_the_recipes_on_the_shipped_parts():
    provenance = json.loads((PRIOR / "tiny" / "provenance.json").read_text())
    recipes = recipe.separate_parts(TINY.weights)
    for name in LOADERS:
        entry = provenance["parts"][name]
        assert entry["recipe"] == canonical(recipes[name])
        assert entry["recipe"]["clip"]["sha256"] == provenance["parts"]["clip"]["sha256"]
        assert entry["versions"]["diffusers"]
    gates = {gate["name"]: gate for gate in provenance["gates"]}
    for name in ("judge recognises samples from CLIP embeddings", "captioner names shape, colour, background"):
        assert gates[name]["measured"] >= gates[name]["needed"] == 0.9
        assert gates[name]["n"] == 2000
    whole = recipe.recipe()
    assert list(whole) == list(ship.LOADERS)
    assert whole["adapter"].unet == whole["unet"]
    shipped = {part: TINY.weights(part) for part in ("unet", "vae", "clip")}
    assert replace(whole["adapter"], **shipped) == recipes["adapter"]


def test_some_parts_are_shipped_without_a_change_of_the_others_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(ship, "HELD_OUT", 64)
    monkeypatch.setattr(ship, "BATCH", 32)
    monkeypatch.setattr(ship, "STEPS", 2)
    folder = Path(shutil.copytree(PRIOR / "tiny", tmp_path / "tiny"))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    untrained = built(replace(small("adapter"), steps=1), "adapter", tmp_path / "untrained")
    with pytest.raises(BenchError, match="not shipped, gates not passed: judge recognises samples from CLIP"):
        ship.ship({"adapter": small("adapter")}, lambda stage: untrained.parent, folder, Runtime())
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    with pytest.raises(BenchError, match="not shipped: unet, adapter, captioner in .* parts that are replaced"):
        ship.ship({"clip": recipe.Clip()}, lambda stage: PRIOR / "tiny", folder, Runtime())
    [gate] = ship.ship({"captioner": small("captioner")}, lambda stage: PRIOR / "tiny", folder, Runtime())
    assert (gate.name, gate.n) == ("captioner names shape, colour, background", 64)
    assert {name for name, data in before.items() if (folder / name).read_bytes() != data} == {"provenance.json"}
    old, new = (json.loads(data) for data in (before["provenance.json"], (folder / "provenance.json").read_bytes()))
    assert new["parts"]["captioner"]["recipe"] == canonical(small("captioner"))
    assert new["gates"][-1] == {"name": gate.name, "measured": gate.measured, "needed": 0.9, "n": 64}
    del old["parts"]["captioner"], new["parts"]["captioner"], old["gates"][-1], new["gates"][-1]
    assert new == old
    (folder / "provenance.json").write_text("{}")
    with pytest.raises(BenchError, match="provenance.json cannot be read"):
        ship.ship({"captioner": small("captioner")}, lambda stage: PRIOR / "tiny", folder, Runtime())


def test_bench_prior_trains_the_parts_that_are_asked_for_and_leaves_the_others(tmp_path, monkeypatch, capsys):
    """The command on a copy of the shipped parts, with a short recipe."""
    folder, recipes = Path(shutil.copytree(PRIOR / "tiny", tmp_path / "prior" / "tiny")), recipe.separate_parts
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(prior, "PRIOR", folder.parent)
    monkeypatch.setattr(ship, "HELD_OUT", 64)
    monkeypatch.setattr(recipe, "separate_parts", lambda *given: recipes(*given) | {"captioner": replace(
        recipes(*given)["captioner"], pictures=1000, steps=400, warmup=10)})
    command = ["prior", "--parts", "captioner", "--store", str(tmp_path / "store"), "--device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "[1/1] captioner" in said
    assert re.search(r"captioner names shape, colour, background +[0-9.]+%  needed 90%  n = 64  passed", said)
    assert "judge recognises" not in said
    changed = {name for name, data in before.items() if (folder / name).read_bytes() != data}
    assert changed == {"captioner.safetensors", "provenance.json"}
    parts = json.loads((folder / "provenance.json").read_text())["parts"]
    assert parts["captioner"]["recipe"]["clip"]["sha256"] == parts["clip"]["sha256"]
    assert main(command) == 0  # nothing is trained again
    assert "[1/1]" not in capsys.readouterr().out


@pytest.mark.parametrize(("options", "said"), [
    (["--parts", "captioner,unet"], "part 'unet' cannot be trained alone; available: adapter, captioner; "
                                    "without --parts all are trained: judge, vae, clip, unet, adapter, captioner"),
    (["--parts", ""], "part '' cannot be trained alone; available: adapter, captioner"),
    (["--check", "--parts", "adapter"], "--check measures all parts; leave out --parts"),
])
def test_parts_that_cannot_be_trained_alone_are_refused_before_anything_is_built(options, said, tmp_path, capsys):
    assert main(["prior", *options, "--store", str(tmp_path / "store")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
