"""Images of an imported checkpoint equal those of the same weights drawn by diffusers alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import released_writer as writer
import torch

from bench import cli, systems
from bench.errors import BenchError, NotAvailable
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.store.store import Store
from bench.systems.released import Spec
from bench.train.generate import initial_noise, resize_images
from bench.train.items import load

STEPS = 3
ITEMS = replace(MICRO.items(), part="val")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A checkpoint for the tiny world's EEG, imported; the networks that it was written from."""
    root = tmp_path_factory.mktemp("imported")
    unet, vae, scheduler = writer.write_configs(root / "like")
    condition = writer.make_condition(ITEMS.trials.n_chans, ITEMS.trials.world.n_times)
    writer.write(root / "c.pth", writer.state_dict(unet, vae, condition))
    assert cli.main(["import", "dreamdiffusion", str(root / "c.pth"), "--like", str(root / "like"), "--heads", "4",
                     "--to", str(root / "to")]) == 0
    return str(root / "to"), unet, vae, scheduler, condition


@torch.no_grad()
def test_images_equal_those_of_the_same_weights_drawn_by_diffusers(imported, tmp_path):
    folder, unet, vae, scheduler, condition = imported
    stage = systems.plan(Spec(checkpoint=folder, steps=STEPS), ITEMS, MICRO, 5).pictures
    assert (stage.sampling.sampler, stage.sampling.guidance) == ("plms", 1.0)
    store = Store(tmp_path)
    for needed in graph.stages([stage], store.has):
        build(needed, store)
    drawn = np.load(store.path(stage) / "pictures.npy")
    items = load(ITEMS, store.path(ITEMS.trials))
    assert np.load(store.path(stage) / "item.npy").tolist() == items.item.tolist()

    index, sample = 3, 1
    context, embedding = condition(torch.from_numpy(items.eeg))
    assert np.load(store.path(stage) / "embedding.npy") == pytest.approx(embedding.numpy(), abs=1e-5)
    shift = condition.time(context[index:index + 1])
    unet.time_embedding.register_forward_hook(lambda module, inputs, output: output + shift)
    latents = initial_noise(items.item, 2, 5, (4, 4, 4))[2 * index + sample][None]
    scheduler.set_timesteps(STEPS)
    assert len(scheduler.timesteps) == STEPS + 1
    for time in scheduler.timesteps:
        noise = unet(latents, time, context[index:index + 1]).sample
        latents = scheduler.step(noise, time, latents).prev_sample
    image = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
    size = items.pictures.shape[1:3]
    expected = ((resize_images(image, size).clamp(-1, 1) + 1) * 127.5)[0].permute(1, 2, 0).numpy()
    assert np.abs(drawn[index, sample] - expected).max() < 0.51  # rounded to whole numbers
    assert len({picture.tobytes() for picture in drawn[:, 0]}) > 1  # the EEG and the noise matter


def test_a_missing_checkpoint_other_eeg_and_a_changed_manifest_are_named(imported, tmp_path):
    with pytest.raises(NotAvailable, match="no imported checkpoint in .*run: bench import dreamdiffusion FILE --to"):
        systems.plan(Spec(checkpoint=str(tmp_path / "none")), ITEMS, MICRO, 0)
    fewer = replace(ITEMS, trials=replace(ITEMS.trials, channels=4))
    with pytest.raises(NotAvailable, match=r"takes EEG \[\d+, \d+\] \(channels, samples\), and these .* \[4, "):
        systems.plan(Spec(checkpoint=imported[0]), fewer, MICRO, 0)
    with pytest.raises(BenchError, match="the control 'label' has no EEG"):
        systems.plan(Spec(checkpoint=imported[0]), replace(ITEMS, eeg="label"), MICRO, 0)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BenchError, match="is not the manifest of an imported checkpoint"):
        systems.plan(Spec(checkpoint=str(tmp_path)), ITEMS, MICRO, 0)
    with pytest.raises(BenchError, match="steps must be an integer of at least 1"):
        Spec(steps=0)
