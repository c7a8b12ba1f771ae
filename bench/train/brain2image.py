"""Brain2Image: trains the LSTM encoder and the GAN or VAE on its features, and generates images."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.errors import BenchError
from bench.experiment.stages import Items
from bench.images import as_images
from bench.runtime import Runtime
from bench.systems.brain2image import Brain2ImageEncoder, Brain2ImageGan, Brain2ImagePictures, Brain2ImageVae
from bench.train import Inputs
from bench.train.generate import in_batches, initial_noise, resize_images, write_images
from bench.train.items import Loaded, load_items
from bench.train.losses import Losses, binary_loss, descend, draw_batches, load_network, seeded, write_summary
from bench.train.targets import PIXELS
from models.brain2image import Discriminator, Encoder, Generator, ImageEncoder
from models.parameters import count_parameters

BATCH = 100  # trials whose features are computed at once


def train_encoder(stage: Brain2ImageEncoder, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes encoder.safetensors and summary.json."""
    items = load_items(stage.items, inputs)
    schedule, losses = stage.schedule, Losses(stage, stage.schedule.steps, runtime)
    eeg, label = (torch.from_numpy(array).to(runtime.device) for array in (items.eeg, items.label))
    with seeded(stage.seed):
        encoder = Encoder(*eeg.shape[1:], items.shown, stage.hidden, stage.feature).to(runtime.device)
        encoder.fit(eeg)
        optimizer = torch.optim.Adam(encoder.parameters(), schedule.lr, fused=True)
        for rows in draw_batches(len(eeg), schedule.batch, schedule.steps):
            loss = F.cross_entropy(encoder.logits(eeg[rows]), label[rows])
            descend(loss, optimizer)
            losses.add(classifier=loss)
    with torch.inference_mode():
        encoder.measure(in_batches(encoder, eeg, BATCH, runtime))
    save_file(encoder.state_dict(), out / "encoder.safetensors")
    write_summary(out, {"encoder": encoder}, losses.last(), encoder_parameters=count_parameters(encoder))


def train_gan(stage: Brain2ImageGan, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes generator.safetensors and summary.json.

    Trains first without EEG (features are zero), then conditionally; that there are two phases is not verified. Wrong
    pairs are a real image and the feature of a trial of another class (known from secondary sources), with the weight
    of the generated images (Reed et al. 2016, Algorithm 1). Choices of this suite: smoothed labels; a running mean of
    the generator's weights, whose batch normalisation is measured again on the training features.
    """
    schedule, device = stage.schedule, runtime.device
    items = load_items(stage.encoder.items, inputs)
    features = _encode(stage.encoder, items, inputs, runtime)
    real, image = _load_images(items, stage.side, device)
    draw_wrong = _wrong_pairs(items.label, stage.encoder.items)
    losses = Losses(stage, schedule.alone + schedule.steps, runtime)
    with seeded(stage.seed):
        generator = Generator(stage.noise, features.shape[1], stage.width, stage.side).to(device)
        average = Generator(stage.noise, features.shape[1], stage.width, stage.side).to(device)
        average.load_state_dict(generator.state_dict())
        discriminator = Discriminator(features.shape[1], stage.width, stage.side).to(device)
        generator_optimizer, discriminator_optimizer = (
            torch.optim.Adam(network.parameters(), schedule.lr, (schedule.beta1, 0.999), fused=True)
            for network in (generator, discriminator))
        for step, rows in enumerate(draw_batches(len(features), schedule.batch, schedule.alone + schedule.steps)):
            conditional = step >= schedule.alone
            noise = torch.randn(len(rows), stage.noise).to(device)
            feature = features[rows] if conditional else torch.zeros_like(features[rows])
            fake = generator(noise, feature)

            # Discriminator: real pairs against generated and, in the second phase, wrong pairs
            hidden = discriminator.trunk(real[image[rows]])
            real_loss = binary_loss(discriminator.judge(hidden, feature), schedule.real)
            fake_loss = binary_loss(discriminator(fake.detach(), feature), 0.0)
            if conditional:
                wrong_loss = binary_loss(discriminator.judge(hidden, features[draw_wrong(rows)]), 0.0)
                fake_loss = (fake_loss + wrong_loss) / 2
            descend(real_loss + fake_loss, discriminator_optimizer)

            # Generator, and the running mean of its weights
            discriminator.requires_grad_(False)
            generator_loss = binary_loss(discriminator(fake, feature), 1.0)
            descend(generator_loss, generator_optimizer)
            discriminator.requires_grad_(True)
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(generator.parameters()), 1 - schedule.average)
            losses.add(generator=generator_loss, discriminator=real_loss + fake_loss)
        _measure_norms(average, features, stage.noise, schedule.batch)
    save_file(average.state_dict(), out / "generator.safetensors")
    write_summary(out, {"generator": generator, "discriminator": discriminator}, losses.last())


def train_vae(stage: Brain2ImageVae, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes generator.safetensors (the decoder) and summary.json.
    The loss is a choice of this suite: the evidence lower bound with Gaussian pixels of unit deviation (Kingma and
    Welling 2014). That the decoder sees the feature is known from secondary sources; the image encoder does not."""
    schedule, device = stage.schedule, runtime.device
    items = load_items(stage.encoder.items, inputs)
    features = _encode(stage.encoder, items, inputs, runtime)
    real, image = _load_images(items, stage.side, device)
    losses = Losses(stage, schedule.steps, runtime)
    with seeded(stage.seed):
        decoder = Generator(stage.noise, features.shape[1], stage.width, stage.side).to(device)
        encoder = ImageEncoder(stage.noise, stage.width, stage.side).to(device)
        optimizer = torch.optim.Adam([*decoder.parameters(), *encoder.parameters()], schedule.lr, fused=True)
        for rows in draw_batches(len(features), schedule.batch, schedule.steps):
            images = real[image[rows]]
            mean, log_variance = encoder(images)
            noise = mean + (log_variance / 2).exp() * torch.randn(mean.shape).to(device)
            error = (decoder(noise, features[rows]) - images).square().flatten(1).sum(1).mean()
            divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
            descend(error / 2 + divergence, optimizer)
            losses.add(squared_error=error / real[0].numel(), divergence=divergence)
        _measure_norms(decoder, features, stage.noise, schedule.batch)
    save_file(decoder.state_dict(), out / "generator.safetensors")
    write_summary(out, {"decoder": decoder, "picture encoder": encoder}, losses.last())


def generate_images(stage: Brain2ImagePictures, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy and item.npy (`write_images`), the images resized to the size of the items'."""
    items = load_items(stage.items, inputs)
    features = _encode(stage.decoder.encoder, items, inputs, runtime)
    decoder = stage.decoder
    generator = load_network(Generator(decoder.noise, features.shape[1], decoder.width, decoder.side),
                             inputs(decoder) / "generator.safetensors", runtime.device)
    noise = initial_noise(items.item, stage.samples, stage.seed, (decoder.noise,))

    def sample(rows: Tensor) -> Tensor:
        images = generator(noise[rows].to(runtime.device), features[rows // stage.samples])
        return (resize_images(images, items.pictures.shape[1:3]).clamp(-1, 1) + 1) * 127.5

    write_images(out, items, stage.samples, stage.batch, sample, runtime)


def _encode(stage: Brain2ImageEncoder, items: Loaded, inputs: Inputs, runtime: Runtime) -> Tensor:
    """Returns the trained encoder's features [N, feature] of the items' EEG."""
    file = inputs(stage) / "encoder.safetensors"
    classes = len(load_file(file)["head.weight"])
    encoder = load_network(Encoder(*items.eeg.shape[1:], classes, stage.hidden, stage.feature), file, runtime.device)
    with torch.inference_mode():
        features = in_batches(lambda eeg: encoder(eeg.to(runtime.device)), torch.from_numpy(items.eeg), BATCH,
                              runtime)
    return features.clone()


def _load_images(items: Loaded, side: int, device: str) -> tuple[Tensor, Tensor]:
    """Returns the trials' distinct images [P, 3, side, side] in [-1, 1], and the row [N] of each trial's image."""
    _, first, image = np.unique(items.picture, return_index=True, return_inverse=True)
    height, width = items.pictures.shape[1:3]
    parts = np.array_split(first, math.ceil(len(first) * height * width / PIXELS))
    images = torch.cat([resize_images(as_images(items.pictures[part], device), (side, side)).clamp(-1, 1)
                        for part in parts])
    return images, torch.from_numpy(image).to(device)


def _wrong_pairs(label: np.ndarray, items: Items) -> Callable[[Tensor], Tensor]:
    """Returns a function that draws for rows of trials [B] as many trials of other classes."""
    order = np.argsort(label, kind="stable")
    end = np.searchsorted(label[order], label, side="right")  # of a trial's class in that order
    others = len(label) - np.bincount(label)[label]
    if not others.all():
        raise BenchError(f"all {items.part} trials have one class; Brain2Image's GAN needs trials of two or more: "
                         "add classes")
    ring, after, count = (torch.from_numpy(array) for array in (order, end, others))

    def draw(rows: Tensor) -> Tensor:
        rows = rows.cpu()
        return ring[(after[rows] + (torch.rand(len(rows), dtype=torch.float64) * count[rows]).long()) % len(ring)]

    return draw


@torch.no_grad()
def _measure_norms(generator: Generator, features: Tensor, noise: int, batch: int) -> None:
    """Measures the statistics of batch normalisation over the training features [N, feature], each with new noise."""
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    generator.train()
    for part in features.split(batch)[:max(1, len(features) // batch)]:
        generator(torch.randn(len(part), noise).to(part.device), part)
