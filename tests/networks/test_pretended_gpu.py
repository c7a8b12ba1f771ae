"""Every stage of every system on a pretended GPU (tests/pretended.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import released_writer
import torch
from pretended import build_on_pretended_gpu, pretended_gpu

from bench import FULL, cli, systems
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.experiment.stages import Sampling
from bench.selftest import inputs
from bench.store.store import Store
from bench.systems import brain2image, captions, guided, known, linear, own, released, retrieval, thoughtviz, trivial

NOT_ON_MPS = (torch.float64, torch.complex64, torch.complex128, torch.float16, torch.bfloat16)
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "my_system.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The small scale of the self-test in bfloat16 on a GPU with two steps of each training, and a store."""
    folder = tmp_path_factory.mktemp("pretended")
    scale = inputs.make_scale(folder, "cuda", is_real=False)
    scale = replace(scale, pretrain=replace(scale.pretrain, steps=2), finetune=replace(scale.finetune, steps=2),
                    sampling=Sampling(steps=2, guidance=1.0, samples=1, batch=8))
    return inputs.add_guided(scale, folder, "cuda", is_real=False), Store(folder / "store")


def test_a_tensor_of_the_cpu_does_not_meet_one_of_the_gpu():
    with pytest.raises(Exception, match="at least two devices"), pretended_gpu():
        torch.ones(2, device="cuda") + torch.ones(2)


def test_a_copy_to_the_gpu_and_back_is_counted_and_has_its_shape_and_dtype():
    with pretended_gpu() as gpu:
        back = (torch.ones(2, 3).to("cuda") * 2).to(torch.bfloat16).cpu()
        assert torch.arange(3).to("cuda").cpu().tolist() == [0, 1, 2]
    assert (back.shape, back.dtype, type(back)) == ((2, 3), torch.bfloat16, torch.Tensor)
    assert (gpu.copies["to"], gpu.copies["from"]) == (2, 2)
    assert set(gpu.dtypes) == {torch.float32, torch.bfloat16, torch.int64}


def test_a_backward_pass_gives_a_gradient_to_each_parameter_that_the_loss_depends_on():
    with pretended_gpu():
        used, unused = (torch.nn.Linear(2, 2).to("cuda") for _ in range(2))
        used(torch.ones(1, 2, device="cuda")).sum().backward()
    assert used.weight.grad.shape == (2, 2)
    assert unused.weight.grad is None


@pytest.mark.parametrize("spec", [
    FULL,
    guided.Spec("guided", low_level=True, caption=True),
    retrieval.Spec(guided.Spec("encoder"), "retrieval"),
    linear.Spec("linear"),
    thoughtviz.Spec("ThoughtViz"),
    captions.Spec("caption by ridge classifier", classes="ridge"),
    pytest.param(captions.Spec("caption by EEGNet", classes="eegnet"), marks=pytest.mark.long),
    captions.Spec("true class as text"),
    trivial.Spec("stimulus through the VAE", source="vae"),
    trivial.Spec("random training picture", source="random"),
    trivial.Spec("mean picture of the class", source="class_mean"),
    pytest.param(brain2image.Spec("GAN", decoder="gan"), marks=pytest.mark.long),  # its LSTM is slow without values
    pytest.param(brain2image.Spec("VAE", decoder="vae"), marks=pytest.mark.long),
], ids=lambda spec: spec.name)
def test_every_stage_of_a_system_runs_on_a_pretended_gpu(made, spec):
    scale, store = made
    score = systems.plan(spec, scale.items(), scale, 0)
    if hasattr(score, "pictures") and spec.system == "guided":
        score = replace(score, pictures=inputs.shorten(score.pictures, 1))
    gpus = build_on_pretended_gpu(score, store)
    assert score.kind in gpus
    assert all(store.is_intact(stage) for stage in graph.stages([score]))
    if spec == FULL:
        assert {"targets", "pretrain", "finetune", "generate", "score"} <= set(gpus)
        assert gpus["generate"].copies["from"] > 0


@pytest.mark.parametrize("spec", [
    *(pytest.param(spec, marks=pytest.mark.long) for spec in (
        FULL, guided.Spec("guided", low_level=True, caption=True), linear.Spec("linear"),
        retrieval.Spec(guided.Spec("encoder"), "retrieval"), thoughtviz.Spec("ThoughtViz"),
        captions.Spec("caption by EEGNet", classes="eegnet"), trivial.Spec("stimulus through the VAE", source="vae"),
        brain2image.Spec("GAN", decoder="gan"), brain2image.Spec("VAE", decoder="vae"))),
    known.Spec("known", start="masked", pairs=48),
], ids=lambda spec: spec.name)
def test_every_stage_of_the_tiny_worlds_runs_on_a_pretended_gpu_in_float32(tmp_path, spec):
    """The device mps has neither float64 nor, here, float16 and bfloat16."""
    scale, store = replace(MICRO, numerics=replace(MICRO.numerics, device_class="cuda")), Store(tmp_path)
    score = systems.plan(spec, scale.items(), scale, 0)
    gpus = build_on_pretended_gpu(score, store)
    assert any(gpu.copies["to"] > 0 for gpu in gpus.values())
    for kind, gpu in gpus.items():
        assert not {str(dtype): first for dtype, first in gpu.dtypes.items() if dtype in NOT_ON_MPS}, kind
    assert all(store.is_intact(stage) for stage in graph.stages([score]))


def test_every_stage_of_the_released_checkpoint_runs_on_a_pretended_gpu(made, tmp_path):
    scale, store = made
    items = scale.items()
    unet, vae, _ = released_writer.write_configs(tmp_path / "like")
    condition = released_writer.make_condition(items.trials.n_chans, items.trials.world.n_times, embedding=32)
    released_writer.write(tmp_path / "c.pth", released_writer.state_dict(unet, vae, condition))
    assert cli.main(["import", "dreamdiffusion", str(tmp_path / "c.pth"), "--like", str(tmp_path / "like"), "--heads",
                     "4", "--to", str(tmp_path / "to")]) == 0
    score = systems.plan(released.Spec(checkpoint=str(tmp_path / "to"), steps=2), items, scale, 0)
    assert {"releasedpictures", "score"} <= set(build_on_pretended_gpu(score, store))


def test_every_stage_of_a_users_system_runs_on_a_pretended_gpu(made):
    scale, store = made
    score = systems.plan(own.Spec("own", str(EXAMPLE)), scale.items(), scale, 0)
    assert {"ownfit", "own", "score"} <= set(build_on_pretended_gpu(score, store))
