"""Parts in the libraries' own formats: loaded completely or refused, and equal to what the libraries make of them."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.scale import TINY
from bench.experiment.stages import Items, Numerics, Reference, Score, Trials, Weights, World
from bench.scoring import compare
from bench.scoring import measure as measuring
from bench.setup import weights as pinned_weights
from bench.setup.rehearsal.weights import SIDE, WIDTH, load_part, write_rehearsal
from bench.train import score as scoring
from models import adapter, captioner, configurations, extractors, frozen, pins

LOADERS = {"judge": frozen.load_judge, "vae": frozen.load_vae, "clip": frozen.load_clip, "unet": frozen.load_unet}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No network, and one thread: two on a busy machine wait for each other."""
    def refuse(*_):
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return write_rehearsal(tmp_path_factory.mktemp("rehearsal"), seed=0)


@pytest.fixture
def copied(parts, tmp_path):
    """A function: a part's own copy, with the schedule beside the U-Net."""
    def copy(name):
        folder = Path(parts[name].path)
        if name == "unet":
            shutil.copytree(folder.parent / "scheduler", tmp_path / "scheduler")
        return Path(shutil.copytree(folder, tmp_path / name))

    return copy


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def main_file(folder):
    [file] = folder.glob("*.safetensors")
    return file


def edited(folder, change):
    """The part with other tensors."""
    tensors = load_file(main_file(folder))
    change(tensors)
    save_file(tensors, main_file(folder))
    return folder


@pytest.mark.parametrize("name", LOADERS)
def test_a_folder_is_loaded_frozen_and_complete(parts, name):
    weights = parts[name]
    part = LOADERS[name](weights.path, weights.sha256)
    net = getattr(part, "net", part)
    stored = load_file(main_file(Path(weights.path)))
    assert set(net.state_dict()) == set(stored)
    assert all(torch.equal(tensor, stored[key]) for key, tensor in net.state_dict().items())
    assert not part.training
    assert not any(p.requires_grad for p in part.parameters())


@pytest.mark.parametrize("name", LOADERS)
def test_a_tensor_that_is_missing_unknown_or_of_another_shape_is_named(copied, name):
    folder = copied(name)
    names = sorted(load_file(main_file(folder)))
    edited(folder, lambda tensors: [tensors.pop(key) for key in names[:4]])
    with pytest.raises(frozen.BadWeights, match=f"lacks {', '.join(names[:3])}, .*bench fetch"):
        LOADERS[name](folder)
    edited(folder, lambda tensors: tensors.update({key: torch.zeros(7) for key in [*names[:4], "other"]}))
    with pytest.raises(frozen.BadWeights, match="has unknown other"):
        LOADERS[name](folder)
    edited(folder, lambda tensors: tensors.pop("other"))
    with pytest.raises(frozen.BadWeights, match=r"is \[7\], expected \["):
        LOADERS[name](folder)


@pytest.mark.parametrize("name", LOADERS)
def test_another_or_a_truncated_or_no_file_is_refused(copied, name):
    folder = copied(name)
    with pytest.raises(frozen.BadWeights, match="has SHA-256 .{12}, not 000000000000"):
        LOADERS[name](folder, "0" * 64)
    assert LOADERS[name](folder, "repository@revision/file")  # nothing is published to compare with
    file = main_file(folder)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(frozen.BadWeights, match="does not hold the expected part"):
        LOADERS[name](folder)
    file.unlink()
    with pytest.raises(frozen.MissingWeights, match=f"no .*{file.name}; .*bench fetch"):
        LOADERS[name](folder)
    for config in folder.glob("*.json"):
        config.unlink()
    with pytest.raises(frozen.MissingWeights, match=r"no .*config\.json"):
        LOADERS[name](folder)


@pytest.mark.parametrize("name", LOADERS)
def test_a_part_that_is_not_trained_may_be_held_in_bfloat16(parts, name, images):
    part, full = (LOADERS[name](parts[name].path, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    assert {p.dtype for p in part.parameters()} == {torch.bfloat16}
    tokens = torch.randint(0, 49408, (3, 77), generator=torch.Generator().manual_seed(0))
    latents, context = torch.ones(1, 4, 2, 2), torch.ones(1, 77, WIDTH)
    of = {"judge": lambda p: p.features(images), "vae": lambda p: p.decode(p.encode(images[:1, :, :16, :16])),
          "clip": lambda p: p.embed_image(images) + p.embed_text(tokens),
          "unet": lambda p: frozen.sample(p, context, context[:1], latents, 1, 1.0,
                                          schedule=frozen.noise_schedule(parts["unet"].path))}[name]
    with torch.inference_mode():
        low, high = of(part).float(), of(full)
    assert high.dtype == torch.float32
    assert 0 < (low - high).abs().max() < 0.1 * high.abs().max()


def test_loading_draws_nothing_from_the_callers_generator(parts):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name, load in LOADERS.items():
        load(parts[name].path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_rehearsals_bytes_follow_from_its_seed_and_a_changed_file_is_named(parts, tmp_path):
    again = write_rehearsal(tmp_path / "again", seed=0)
    assert again == parts
    other = write_rehearsal(tmp_path / "other", seed=1)
    assert all(other[name].sha256 != parts[name].sha256 for name in parts)
    (tmp_path / "again" / "stable-diffusion" / "scheduler" / "scheduler_config.json").write_text("{}")
    with pytest.raises(BenchError, match=r"scheduler_config\.json has SHA-256 .*the next run writes it again"):
        load_part(tmp_path / "again", "unet")
    assert load_part(tmp_path / "again", "clip") == parts["clip"]
    with pytest.raises(BenchError, match="no complete part 'clip'") as error:
        load_part(tmp_path / "nothing", "clip")
    assert error.value.exit_code == ENVIRONMENT


def test_latents_are_stable_diffusions_times_its_factor(parts, images):
    from diffusers import AutoencoderKL

    vae, images = frozen.load_vae(parts["vae"].path), images[:1]
    theirs = AutoencoderKL.from_pretrained(parts["vae"].path, local_files_only=True).eval()
    with torch.inference_mode():
        mean, logvar = vae.moments(images)
        posterior = theirs.encode(images).latent_dist
        assert theirs.config.scaling_factor == 0.18215
        assert torch.allclose(mean, posterior.mean * 0.18215, atol=1e-6)
        assert torch.allclose(torch.exp(0.5 * logvar), posterior.std * 0.18215, rtol=1e-5)
        pictures = theirs.decode(mean / 0.18215).sample.clamp(-1, 1)
        assert torch.allclose(vae.decode(mean), pictures, atol=1e-5)
    assert mean.shape == (1, 4, 8, 8)


def test_a_vae_with_the_old_names_of_attention_is_the_same_one(copied, images):
    """As Stable Diffusion 1.5's file has them."""
    folder, images = copied("vae"), images[:1, :, :32, :32]
    with torch.inference_mode():
        expected = frozen.load_vae(folder).encode(images)
    old = {new: name for name, new in frozen.OLD_ATTENTION.items()}

    def rename(tensors):
        for key in [key for key in tensors if ".mid_block.attentions." in key]:
            before, layer, kind = key.replace("to_out.0", "to_out+0").rsplit(".", 2)
            if (layer := layer.replace("+", ".")) in old:
                tensors[f"{before}.{old[layer]}.{kind}"] = tensors.pop(key)

    edited(folder, rename)
    assert "encoder.mid_block.attentions.0.query.weight" in load_file(main_file(folder))
    with torch.inference_mode():
        assert torch.equal(frozen.load_vae(folder).encode(images), expected)


def test_text_tokens_are_those_of_stable_diffusions_text_encoder(parts):
    """The same weights in transformers' format, and its padding with the end's token."""
    from transformers import CLIPTextConfig, CLIPTextModel

    clip = frozen.load_clip(parts["clip"].path)
    with torch.random.fork_rng(devices=[]):
        theirs = CLIPTextModel(CLIPTextConfig(
            vocab_size=49408, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=49406,
            eos_token_id=49407, pad_token_id=49407)).eval()
    ours, state = clip.net.state_dict(), {}
    state["embeddings.token_embedding.weight"] = ours["token_embedding.weight"]
    state["embeddings.position_embedding.weight"] = ours["positional_embedding"]
    for name in ("weight", "bias"):
        state[f"final_layer_norm.{name}"] = ours[f"ln_final.{name}"]
        for layer in range(2):
            here, there = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
            for part, values in zip("qkv", ours[f"{here}.attn.in_proj_{name}"].chunk(3), strict=True):
                state[f"{there}.self_attn.{part}_proj.{name}"] = values
            for new, old in {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
                             "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}.items():
                state[f"{there}.{new}.{name}"] = ours[f"{here}.{old}.{name}"]
    prefix = "text_model." if any(key.startswith("text_model.") for key in theirs.state_dict()) else ""
    theirs.load_state_dict({prefix + key: value for key, value in state.items()}, strict=not prefix)
    tokens = clip.tokenize(["a golden retriever", "a parachute", ""])
    with torch.inference_mode():
        assert torch.allclose(clip.text_tokens(tokens), theirs(tokens).last_hidden_state, atol=1e-5)
    assert tokens.shape == (3, 77)
    assert tokens[2].tolist() == [49406] + [49407] * 76
    assert clip.text_tokens(tokens).shape == (3, 77, WIDTH)


def test_the_padding_changes_no_embedding_of_open_clips_own(parts, images):
    import open_clip

    folder = parts["clip"].path
    clip = frozen.load_clip(folder)
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    captions = ["a golden retriever", "", "two words"]
    with torch.inference_mode():
        assert torch.allclose(clip.embed_text(clip.tokenize(captions)),
                              theirs.encode_text(tokenizer(captions), normalize=True), atol=1e-6)
        mean, std = (torch.tensor(values)[:, None, None] for values in extractors.OPENAI)
        assert torch.allclose(clip.embed_image(images), theirs.encode_image(((images + 1) / 2 - mean) / std,
                                                                             normalize=True), atol=1e-6)
        assert clip.embed_image(torch.zeros(1, 3, 100, 100)).norm().item() == pytest.approx(1)
    with pytest.raises(ValueError, match="too long; at most 75 tokens fit"):
        clip.tokenize(["a", "dog " * 76])
    assert clip.tokenize(["dog " * 75])[0, -1] == 49407


def test_openais_weights_without_quick_gelu_are_refused_and_a_tokenizer_is_never_asked_of_the_hub(copied):
    folder = copied("clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "somebody/tokenizer"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(frozen.MissingWeights, match=r"no .*tokenizer_config\.json"):
        frozen.load_clip(folder)
    config["model_cfg"]["quick_gelu"] = False
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(frozen.BadWeights, match="no quick_gelu"):
        frozen.load_clip(folder, pins.PARTS["clip"].files[0].sha256)


def test_the_judge_is_timms_with_the_normalisation_of_its_config(parts, images):
    import timm
    from timm.data import create_transform, resolve_data_config

    folder = parts["judge"].path
    judge = frozen.load_judge(folder)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    about = resolve_data_config(model=theirs)
    normalise = create_transform(**about).transforms[-1]
    with torch.inference_mode():
        expected = theirs(normalise((images + 1) / 2))
        logits, features, maps = judge.look(images)
        assert torch.allclose(judge.logits(images), expected, atol=1e-5)
        assert torch.allclose(logits, expected, atol=1e-5)
        assert torch.allclose(judge.features(images), features, atol=1e-5)
    assert (judge.size, judge.crop.interpolation, logits.shape, len(maps)) == (SIDE, "bicubic", (3, 1000), 4)
    with pytest.raises(ValueError, match="images are 32x32; the judge expects 64x64"):
        judge.logits(images[..., :32, :32])


def test_the_pinned_judges_own_config_asks_for_224_pixels_bicubic_and_1000_classes():
    import timm

    about = timm.get_pretrained_cfg("vit_large_patch16_224.augreg_in21k_ft_in1k")
    assert (about.input_size, about.interpolation, about.num_classes) == ((3, 224, 224), "bicubic", 1000)
    assert (about.mean, about.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert pins.PARTS["judge"].repository == f"timm/{about.architecture}.{about.tag}"


def test_the_schedule_lies_beside_the_unet_and_predicts_noise(copied):
    folder = copied("unet")
    schedule = frozen.noise_schedule(folder)
    assert schedule.config.prediction_type == "epsilon"
    assert not schedule.config.rescale_betas_zero_snr
    assert schedule.alphas_cumprod[-1].item() == pytest.approx(0.0047, abs=1e-4)  # Stable Diffusion's
    assert frozen.noise_schedule().config.prediction_type == "v_prediction"
    assert frozen.noise_schedule(TINY.weights("unet").path).config.prediction_type == "v_prediction"
    shutil.rmtree(folder.parent / "scheduler")
    with pytest.raises(frozen.MissingWeights, match=r"no .*scheduler_config\.json, the schedule of the U-Net"):
        frozen.noise_schedule(folder)


def test_plms_is_diffusers_own_and_calls_the_unet_once_more_than_steps(parts):
    from diffusers import PNDMScheduler

    folder = parts["unet"].path
    unet, schedule, calls = frozen.load_unet(folder), frozen.noise_schedule(folder), []
    unet.register_forward_pre_hook(lambda module, arguments: calls.append(len(arguments[0])))
    generator = torch.Generator().manual_seed(0)
    context, noise = torch.randn(2, 77, WIDTH, generator=generator), torch.randn(2, 4, 4, 4, generator=generator)
    found = frozen.sample(unet, context, context[:1], noise, 6, 1.0, "plms", schedule)
    assert calls == [2] * 7
    theirs = PNDMScheduler.from_pretrained(Path(folder).parent / "scheduler", local_files_only=True)
    theirs.set_timesteps(6)
    latents = noise
    with torch.inference_mode():
        for time in theirs.timesteps:
            latents = theirs.step(unet(latents, time, context).sample, time, latents).prev_sample
    assert torch.allclose(found, latents, atol=1e-4)
    calls.clear()
    frozen.sample(unet, context, context[:1], noise, 3, 2.0, "plms", schedule)
    assert calls == [4] * 4
    released = frozen.make_solver("plms", schedule)
    released.set_timesteps(250)
    assert len(released.timesteps) == 251
    with pytest.raises(ValueError, match=r"unknown sampler 'ddim'; there are: dpmsolver\+\+, plms"):
        frozen.sample(unet, context, context[:1], noise, 3, 1.0, "ddim", schedule)
    with pytest.raises(ValueError, match="zero terminal"):
        frozen.sample(unet, context, context[:1], noise, 3, 1.0, "plms")


def test_dpm_solver_takes_the_schedule_that_it_is_given(parts):
    from diffusers import DPMSolverMultistepScheduler, PNDMScheduler

    folder = parts["unet"].path
    unet, noise = frozen.load_unet(folder), torch.ones(1, 4, 4, 4)
    context = torch.ones(1, 77, WIDTH)
    found = frozen.sample(unet, context, context, noise, 5, 1.0, schedule=frozen.noise_schedule(folder))
    beside = PNDMScheduler.from_pretrained(Path(folder).parent / "scheduler", local_files_only=True)
    theirs = DPMSolverMultistepScheduler.from_config(beside.config)
    theirs.set_timesteps(5)
    latents = noise
    with torch.inference_mode():
        for time in theirs.timesteps:
            latents = theirs.step(unet(latents, time, context).sample, time, latents).prev_sample
    assert torch.allclose(found, latents, atol=1e-5)
    assert not torch.allclose(found, frozen.sample(unet, context, context, noise, 5, 1.0), atol=1e-2)


def test_of_stable_diffusion_a_opens_what_the_released_code_trains_and_norm2_its_norms():
    with torch.device("meta"):
        unet = configurations.stable_diffusion_unet()
    opened = frozen.open_for_tuning(unet)
    assert sum(p.numel() for _, p in opened) == 43_962_560
    assert len({name.split(".attn2.")[0] for name, _ in opened}) == 16
    assert sum(p.numel() for _, p in frozen.open_for_tuning(unet, norm2=True)) == 43_962_560 + 24_960
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert frozen.latent_shape(unet) == (4, 64, 64)
    assert unet.config.cross_attention_dim == 768


def test_the_published_sizes_are_those_of_the_real_configurations():
    """Four bytes for each parameter, and a header of at most a quarter of a megabyte."""
    with torch.device("meta"):
        nets = {"unet": configurations.stable_diffusion_unet(), "vae": configurations.stable_diffusion_vae(),
                "clip": configurations.clip()}
    for name, net in nets.items():
        left = pins.PARTS[name].files[0].bytes - 4 * sum(tensor.numel() for tensor in net.state_dict().values())
        assert 0 < left < 250_000


def test_the_configurations_of_guided_diffusion_have_the_published_sizes():
    """The adapter's file holds two bytes for each parameter, CLIP's four; of the others the counts are known."""
    with torch.device("meta"):
        unet, clip, git = configurations.sdxl_unet(), configurations.clip_h(), configurations.git()
        tensors = adapter.fresh(unet, 1024)
        projector = captioner.PixelProjector()
        text = [sum(p.numel() for p in one.parameters()) for one in configurations.sdxl_text()]
    numbers = [int(name.split(".")[1]) for name in tensors if name.startswith("ip_adapter.")]
    assert sorted(set(numbers)) == list(range(1, 140, 2))
    assert 0 < pins.PARTS["adapter"].files[0].bytes - 2 * sum(t.numel() for t in tensors.values()) < 250_000
    assert 0 < pins.PARTS["clip_h"].files[0].bytes - 4 * sum(t.numel() for t in clip.state_dict().values()) < 250_000
    assert sum(p.numel() for p in unet.parameters()) == 2_567_463_684
    assert text == [123_060_480, 694_659_840]
    assert round(4 * sum(p.numel() for p in git.parameters()) / 1e9, 2) == 1.58
    assert sum(p.numel() for p in projector.parameters()) == 1_052_676
    assert frozen.latent_shape(unet) == (4, 64, 64)


@pytest.fixture
def guided(parts, tmp_path):
    """Copies of the pipeline's folder and of GIT's, and the adapter's file."""
    folders = {name: Path(shutil.copytree(parts[name].path, tmp_path / name)) for name in ("turbo", "captioner")}
    return folders | {"adapter": Path(parts["adapter"].path)}


def conditions(pipe):
    """Embeddings [3, D'], prompts with what is pooled of them, and noise."""
    generator = torch.Generator().manual_seed(0)
    context, pooled = adapter.prompts(pipe, ["", "a dog", "a red bus"])
    return (torch.randn(3, WIDTH, generator=generator), context, context[:1],
            torch.randn(3, 4, 8, 8, generator=generator)), {"pooled": pooled, "null_pooled": pooled[:1]}


@pytest.mark.filterwarnings("ignore:.torch_dtype. is deprecated:FutureWarning")
@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_sdxl_with_an_adapter_draws_what_diffusers_draws_from_the_same_folders(parts, guidance):
    """One picture at a time, as the released code does; the noise of each step is the picture's own."""
    from diffusers import StableDiffusionXLPipeline

    pipe, vae = adapter.turbo(parts["turbo"].path, parts["adapter"].path, False, parts["turbo"].sha256,
                              parts["adapter"].sha256)
    (embeddings, context, null, noise), pooled = conditions(pipe)
    drawn = adapter.draw(pipe, embeddings, context, null, noise, 4, guidance, **pooled)
    theirs = StableDiffusionXLPipeline.from_pretrained(parts["turbo"].path, variant="fp16", torch_dtype=torch.float32,
                                                       local_files_only=True, add_watermarker=False)
    theirs.load_ip_adapter(parts["adapter"].path, subfolder="", weight_name=adapter.RELEASED, image_encoder_folder=None)
    theirs.set_progress_bar_config(disable=True)
    for row, prompt in enumerate(["", "a dog", "a red bus"]):
        seen = embeddings[row:row + 1, None]
        given = [torch.cat([torch.zeros_like(seen), seen]) if guidance else seen]
        negative = {"negative_prompt_embeds": null, "negative_pooled_prompt_embeds": pooled["null_pooled"]} \
            if guidance else {}
        expected = theirs(prompt, ip_adapter_image_embeds=given, latents=noise[row:row + 1], num_inference_steps=4,
                          guidance_scale=guidance, generator=adapter.noise_generators(noise)[row], output_type="latent",
                          **negative).images
        assert torch.allclose(drawn[row:row + 1], expected, atol=1e-3)
    with torch.inference_mode():
        pictures = theirs.vae.decode(drawn / 0.13025).sample.clamp(-1, 1)
        assert torch.allclose(vae.decode(drawn), pictures, atol=1e-4)
    assert not vae.training
    assert not any(p.requires_grad for part in (pipe.unet, vae, pipe.text_encoder, pipe.text_encoder_2)
                   for p in part.parameters())


def test_sdxl_begins_from_latents_and_is_held_in_bfloat16_but_for_its_vae(parts):
    pipe, vae = adapter.turbo(parts["turbo"].path, parts["adapter"].path, True, dtype=torch.bfloat16)
    assert {pipe.unet.dtype, pipe.text_encoder.dtype, pipe.text_encoder_2.dtype} == {torch.bfloat16}
    assert vae.net.dtype == torch.float32
    (embeddings, context, null, noise), pooled = conditions(pipe)
    start = torch.ones(3, 4, 8, 8)
    drawn = adapter.draw(pipe, embeddings, context, null, noise, 4, 0.0, start, 0.5, **pooled)
    assert drawn.dtype == torch.float32
    assert torch.isfinite(drawn).all()
    again = adapter.draw(pipe, embeddings, context, null, noise, 4, 0.0, -start, 0.5, **pooled)
    assert not torch.allclose(drawn, again, atol=0.05)


def test_a_pipeline_that_is_not_complete_or_another_is_refused(parts, guided):
    folder, file = guided["turbo"], guided["adapter"]
    with pytest.raises(frozen.BadWeights, match="has SHA-256 .{12}, not 000000000000"):
        adapter.turbo(folder, file, sha256="0" * 64)
    text = folder / "text_encoder" / "model.fp16.safetensors"
    tensors = load_file(text)
    kept = {name: tensor for name, tensor in tensors.items() if "layers.1.mlp" not in name}
    save_file(kept, text, {"format": "pt"})
    with pytest.raises(frozen.BadWeights, match="the file lacks .*layers.1.mlp.fc1.bias"):
        adapter.turbo(folder, file)
    save_file(tensors, text, {"format": "pt"})
    assert adapter.turbo(folder, file)
    for name in ("tokenizer_2/vocab.json", "scheduler/scheduler_config.json", "model_index.json"):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(frozen.MissingWeights, match=f"no .*{name}; .*bench fetch"):
            adapter.turbo(folder, file)
        (folder / name).write_bytes(kept)
    with pytest.raises(frozen.MissingWeights, match=r"no .*ip-adapter_sdxl_vit-h\.safetensors"):
        adapter.turbo(folder, folder / "unet")


def test_git_says_of_what_its_tower_sees_what_transformers_lets_it_say_of_the_picture(parts, images):
    git = captioner.load_git(parts["captioner"].path, parts["captioner"].sha256)
    with torch.no_grad():
        for part in git.net.git.visual_projection.parameters():
            part.mul_(30).add_(torch.randn(part.shape, generator=torch.Generator().manual_seed(0)))
    pixels = ((images + 1) / 2 - git.mean) / git.std
    with torch.inference_mode():
        expected = git.net.generate(pixel_values=pixels, max_length=12, do_sample=False)
    hidden = git.hidden(images)
    said = git.captions(hidden, 12)
    assert said == [text.strip() for text in git.tokenizer.batch_decode(expected, skip_special_tokens=True)]
    assert hidden.shape == (3, git.tokens, git.width) == (3, 17, WIDTH)
    assert git.captions(torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3)), 12) != said
    assert git.captions(hidden[:1], 12) == said[:1]
    seen = captioner.PixelProjector(git.width, git.tokens)(torch.randn(2, WIDTH))
    assert seen.shape == (2, git.tokens, git.width)
    assert not torch.allclose(seen[:, 0], seen[:, 1])


def test_a_folder_of_git_that_is_not_complete_is_refused(guided):
    folder = guided["captioner"]
    tensors = load_file(main_file(folder))
    assert [name for name in tensors if name.endswith("position_ids")]  # as in the published file
    save_file({name: t for name, t in tensors.items() if name != "output.bias"}, main_file(folder), {"format": "pt"})
    with pytest.raises(frozen.BadWeights, match=r"the file lacks output\.bias"):
        captioner.load_git(folder)
    save_file(tensors | {"other": torch.ones(1)}, main_file(folder), {"format": "pt"})
    with pytest.raises(frozen.BadWeights, match="the file has unknown other"):
        captioner.load_git(folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(frozen.MissingWeights, match=r"no .*vocab\.txt"):
        captioner.load_git(folder)


def test_a_pinned_part_is_given_as_the_folder_that_its_loader_wants(tmp_path, monkeypatch):
    """A pipeline as its whole folder, though its weights lie deeper; an adapter as the folder of its file."""
    for name, folder in {"turbo": "sdxl-turbo", "adapter": "IP-Adapter/sdxl_models", "clip_h":
                         "CLIP-ViT-H-14-laion2B-s32B-b79K", "captioner": "git-large-coco",
                         "vae": "stable-diffusion-v1-5/vae", "unet": "stable-diffusion-v1-5/unet"}.items():
        files = tuple(replace(file, bytes=None, sha256="") for file in pins.PARTS[name].files)
        monkeypatch.setitem(pins.PARTS, name, replace(pins.PARTS[name], files=files))
        for file in files:
            place = pinned_weights.home(name, tmp_path) / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"")
        assert Path(pinned_weights.check([name], tmp_path)[name].path) == tmp_path / folder


def test_the_rehearsals_folders_have_every_file_that_is_pinned(parts):
    roots = {"turbo": Path(parts["turbo"].path), "adapter": Path(parts["adapter"].path).parent,
             "clip_h": Path(parts["clip_h"].path), "captioner": Path(parts["captioner"].path)}
    for name, root in roots.items():
        assert [file.path for file in pins.PARTS[name].files if not (root / file.path).is_file()] == []


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """Random weights in the literature's own formats, as the Weights of a Score: inception, alexnet, lpips."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception

    paths = {}
    with torch.random.fork_rng(devices=[]), monkeypatch.context() as patched:
        torch.manual_seed(0)
        patched.setattr(torch, "load", lambda *_, **__: None)
        patched.setattr(Inception, "load_state_dict", lambda self, state: None)
        (tmp_path / "empty").write_bytes(b"")
        nets = {"fid": Inception("x", ["64"], feature_extractor_weights_path=str(tmp_path / "empty")),
                "alex": torchvision.models.alexnet()}
    for name, net in nets.items():
        paths[name] = tmp_path / f"{name}.pth"
        torch.save(net.state_dict(), paths[name])
        monkeypatch.setitem(extractors.FILES, name, replace(extractors.FILES[name], sha256=""))
    return tuple(Weights(name, "", str(paths[pins.NETWORKS[name]])) for name in ("inception", "alexnet", "lpips"))


def test_a_score_measures_with_the_networks_that_it_names_each_from_its_own_file(parts, networks, monkeypatch):
    against = Reference(World(), parts["judge"], 10, Numerics())
    trials = Trials(World(), (1,), (5.0, 95.0))
    stage = Score(trials, Items(trials), against, parts["clip"], 50, (), networks, Numerics())
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    looking = scoring._load_networks(stage, "cpu")
    monkeypatch.setattr(measuring, "BATCH", 3)
    rng, n = np.random.default_rng(0), 3
    real, made = (rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8) for _ in range(2))
    every = np.arange(n)
    pairs = measuring.Pairs(every, every * 0, every, every, 1, lambda row: real[row], lambda row, sample: made[row])
    found = measuring.measure(pairs, looking, measuring.Classes(50)).summary.set_index("metric")
    of = found["extractor"].to_dict()
    assert {of[name] for name in ("fid", "fid_64", "kid", "is")} == {"torch-fidelity/inception-v3-compat"}
    assert {of[name] for name in ("two_way_alexnet2", "two_way_alexnet5")} == {"torchvision/alexnet"}
    assert {of[name] for name in ("top1_label", "nway_judge", "judge_distance")} == {"rehearsal/judge"}
    assert {of[name] for name in ("two_way_clip", "clip_similarity")} == {"rehearsal/clip"}
    assert of["lpips"] == "lpips/alex"
    assert found.loc["nway_judge", "key"] == "50 of 1000"
    assert found.loc["two_way_alexnet2", "key"].endswith("among 3 pictures, Pillow bicubic to 256x256")
    comparable = set(found.index[found["comparable"] == 1])
    assert comparable == {"two_way_alexnet2", "two_way_alexnet5", "lpips", *measuring.PIXELS}
    with torch.inference_mode():
        expected = frozen.load_judge(parts["judge"].path).logits(torch.tensor(made).permute(0, 3, 1, 2) / 127.5 - 1)
    assert found.loc["top1_label", "value"] == (expected.argmax(1).numpy() == every).mean()


def test_lpips_from_a_file_is_what_its_package_makes_of_the_same_backbone(networks, monkeypatch):
    import lpips

    weights = networks[2]
    distance, digest = extractors.perceptual("alex", path=weights.path)
    net = torchvision.models.alexnet()
    net.load_state_dict(torch.load(weights.path, weights_only=True))
    monkeypatch.setattr(lpips.pretrained_networks.tv, "alexnet", lambda **_: net)
    theirs = lpips.LPIPS(net="alex", verbose=False)
    a, b = torch.rand(2, 2, 3, SIDE, SIDE) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(distance(a, b), theirs(a, b).flatten())
    assert len(digest) == 64


def test_a_network_that_is_not_there_or_unknown_stops_a_score(parts, tmp_path):
    against = Reference(World(), parts["judge"], 10, Numerics())
    trials = Trials(World(), (1,), (5.0, 95.0))
    stage = Score(trials, Items(trials), against, parts["clip"], 50, (),
                  (Weights("alexnet", "7be5be79", str(tmp_path / "alexnet.pth")),), Numerics())
    with pytest.raises(BenchError, match=r"no alexnet\.pth in .*: download") as error:
        scoring._load_networks(stage, "cpu")
    assert error.value.exit_code == ENVIRONMENT
    with pytest.raises(BenchError, match="unknown network 'resnet' for metrics; available: inception, inception_v3, "):
        scoring._load_networks(replace(stage, networks=(Weights("resnet", "", ""),)), "cpu")


def test_openais_clip_is_the_literatures_by_its_hash_alone(parts, monkeypatch):
    weights = parts["clip"]
    assert not extractors.clip(weights.path, weights.sha256, "mine").comparable
    files = (replace(pins.PARTS["clip"].files[0], sha256=weights.sha256), *pins.PARTS["clip"].files[1:])
    monkeypatch.setitem(pins.PARTS, "clip", replace(pins.PARTS["clip"], files=files))
    pinned = extractors.clip(weights.path, weights.sha256, "mine")
    assert (pinned.comparable, pinned.name, pinned.size) == (True, "open_clip/ViT-L-14", SIDE)


def test_a_folder_of_timms_judges_pictures_of_bench_score(parts, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("real", "made"):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8))
    found = compare.compare(tmp_path / "made.npy", tmp_path / "real.npy", wanted=["nway_judge"],
                              judge=parts["judge"].path).summary.set_index("metric")
    assert found.loc["nway_judge", "key"] == "50 of 1000, timm center crop 0.95, bicubic to 64x64"
    assert found.loc["nway_judge", "extractor_sha256"] == parts["judge"].sha256
