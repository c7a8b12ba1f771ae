"""Importing DreamDiffusion's released checkpoint: every tensor has its place, and damaged files are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import released_writer as writer
import torch
from diffusers import PNDMScheduler
from torch import Tensor

from bench import cli
from bench.data.unpickle import load_checkpoint
from models import configurations, frozen
from models.encoders.msm_vit import positions
from models.released import Condition
from models.released_checkpoint import split_checkpoint

KEPT = "cond_stage_model.mae.cls_token"
UNET = f"{writer.PREFIX}input_blocks.1.0.in_layers.2.weight"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, dict[str, Tensor], Condition]:
    """The folder of the configurations, and a small state_dict with its condition stage."""
    folder = tmp_path_factory.mktemp("like")
    unet, vae, scheduler = writer.write_configs(folder)
    condition = writer.make_condition(8, 64)
    tensors = writer.state_dict(unet, vae, condition)
    tensors["alphas_cumprod"] = scheduler.alphas_cumprod.clone()
    return folder, tensors, condition


def run(file: Path, small, *options: str) -> int:
    return cli.main(["import", "dreamdiffusion", str(file), "--like", str(small[0]), "--heads", "4", "--to",
                     str(file.parent / "imported"), *options])


def test_a_checkpoint_is_imported_without_its_code_and_everything_unused_is_named(small, tmp_path, capsys):
    _, tensors, condition = small
    writer.write(tmp_path / "c.pth", tensors)
    assert run(tmp_path / "c.pth", small) == 0
    printed = capsys.readouterr().out
    for text in ("objects of config_of_the_release.Config", "CLIP's image tower", KEPT, "noise schedule",
                 "8 channels x 64 samples"):
        assert text in printed
    folder = tmp_path / "imported"
    parts = json.loads((folder / "manifest.json").read_text())["parts"]
    read = frozen.load_part(Condition, folder / "condition.safetensors", parts["condition"]["sha256"], torch.float32)
    eeg = torch.randn(2, 8, 64)
    for ours, theirs in zip(read(eeg), condition(eeg), strict=True):
        assert torch.equal(ours, theirs)
    unet = frozen.load_unet(folder / "unet", parts["unet"]["sha256"])
    names = writer.unet_names(unet)
    assert all(torch.equal(tensor, tensors[names[name]]) for name, tensor in unet.state_dict().items())
    assert frozen.load_vae(folder / "vae", parts["vae"]["sha256"]).net.config.latent_channels == 4
    assert run(tmp_path / "c.pth", small) == 2  # the folder exists
    assert "exists; remove it" in capsys.readouterr().err


def test_the_moving_average_is_used_on_request_only(small, tmp_path, capsys):
    tensors = dict(small[1])
    for name in [name for name in tensors if name.startswith(writer.PREFIX)]:
        tensors["model_ema." + "".join(name.split(".")[1:])] = tensors[name] + 1
    tensors["model_ema.num_updates"] = torch.tensor(3)
    writer.write(tmp_path / "c.pth", tensors)
    shifts = []
    for option in ((), ("--ema",)):
        assert run(tmp_path / "c.pth", small, *option, "--to", str(tmp_path / f"to{len(option)}")) == 0
        unet = frozen.load_unet(tmp_path / f"to{len(option)}" / "unet")
        shifts.append(float((unet.conv_in.bias - small[1][f"{writer.PREFIX}input_blocks.0.0.bias"]).mean()))
    assert shifts == pytest.approx([0, 1], abs=1e-6)
    assert "moving average, not in use" in capsys.readouterr().out


def _without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: _without(t, UNET), "U-Net: 1 of 208 tensors is absent: down_blocks.0.resnets.0.conv1.weight"),
    (lambda t: _without(t, "first_stage_model.quant_conv.bias"), "tensors is absent: quant_conv.bias"),
    (lambda t: _without(t, "cond_stage_model.dim_mapper.bias"), "project.bias is missing"),
    (lambda t: _without(t, f"{writer.PREFIX}time_embed_condtion.0.bias"), "mix.0.bias is missing"),
    (lambda t: t | {f"{writer.PREFIX}input_blocks.1.0.extra.weight": torch.zeros(2)},
     f"tensors is unknown: {writer.PREFIX}input_blocks.1.0.extra.weight"),
    (lambda t: t | {"first_stage_model.loss.logvar": torch.zeros(1)}, "is unknown: first_stage_model.loss.logvar"),
    (lambda t: t | {"cond_stage_model.extra": torch.zeros(1)}, "no tensor 'extra' in DreamDiffusion's"),
    (lambda t: t | {"other.weight": torch.zeros(1)}, "tensors is unknown: other.weight"),
    (lambda t: t | {UNET: torch.zeros(2, 2)}, f"is of another shape: {UNET} [2, 2] instead of"),
    (lambda t: t | {"cond_stage_model.mae.pos_embed": torch.zeros(1, 17, 32)}, "sine-cosine positions"),
    (lambda t: t | {"alphas_cumprod": torch.ones(1000)}, "not that of the expected noise schedule"),
])
def test_a_tensor_that_is_absent_unknown_or_different_is_refused_by_name(small, tmp_path, capsys, change, message):
    writer.write(tmp_path / "c.pth", change(dict(small[1])))
    assert run(tmp_path / "c.pth", small) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.pth"]


class _Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable, *arguments: object):
        self.reduced = function, arguments

    def __reduce__(self) -> tuple:
        return self.reduced


def test_a_truncated_file_another_file_and_a_pickle_that_calls_are_refused(small, tmp_path, capsys):
    file, proof = tmp_path / "c.pth", tmp_path / "proof"
    writer.write(file, small[1])
    whole = file.read_bytes()
    file.write_bytes(whole[:len(whole) // 2])
    assert run(file, small) == 2
    assert "truncated, or another format" in capsys.readouterr().err
    torch.save({"weights": torch.zeros(1)}, file)
    assert run(file, small) == 2
    assert "has no model_state_dict" in capsys.readouterr().err
    for function, arguments, name in ((os.mkdir, (str(proof),), f"{os.mkdir.__module__}.mkdir"),
                                      (writer.make_condition, (8, 64), "released_writer.make_condition")):
        torch.save({"model_state_dict": small[1], "config": _Calls(function, *arguments)}, file)
        assert run(file, small) == 2
        error = capsys.readouterr().err
        assert f"requires {name}, which could run code" in error
        assert error.count("\n") == 1
    assert not proof.exists()
    assert run(tmp_path / "absent.pth", small) == 2
    assert "absent.pth does not exist" in capsys.readouterr().err


def test_the_content_beside_a_skipped_object_is_read(small, tmp_path):
    writer.write(tmp_path / "c.pth", small[1])
    content, skipped = load_checkpoint(tmp_path / "c.pth")
    assert skipped == ["config_of_the_release.Config"]
    assert set(content) == {"model_state_dict", "config", "state"}
    assert not vars(content["config"])


def test_every_tensor_of_the_real_sizes_has_its_place():
    with torch.device("meta"):
        unet, vae = configurations.stable_diffusion_unet(), configurations.stable_diffusion_vae()
        condition = Condition(128, 512, 1024, 24, 16, 1.0, 4, 77, 768, 768, 1280)
    tensors = writer.state_dict(unet, vae, condition)
    tensors["cond_stage_model.mae.pos_embed"] = torch.nn.functional.pad(positions(128, 1024), (0, 0, 1, 0))[None]
    schedule = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    parts = split_checkpoint(tensors, unet, vae, schedule, 16)
    assert (len(parts.unet), len(parts.vae)) == (686, 248)
    assert parts.condition.arguments == condition.arguments
    assert sum(p.numel() for p in parts.condition.encoder.parameters()) == 151_770_112 - 2 * 1024  # two tokens unused
    placed = len(parts.unet) + len(parts.vae) + len(parts.condition.state_dict()) + sum(map(len, parts.unused.values()))
    assert placed + 1 == len(tensors)  # and the positions
