"""ThoughtViz: trains the EEG classifier, the image classifier and the GAN, and generates images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.errors import BenchError
from bench.runtime import Runtime
from bench.systems.thoughtviz import ThoughtVizClassifier, ThoughtVizEeg, ThoughtVizGan, ThoughtVizPictures
from bench.train import Inputs
from bench.train.generate import in_batches, resize_images, write_images
from bench.train.items import Loaded, load_items
from bench.train.losses import Losses, binary_loss, descend, load_network, seeded, write_summary
from models.parameters import count_parameters
from models.thoughtviz import NOISE, Discriminator, EegClassifier, Generator, ImageClassifier

BATCH = 100  # images or trials at once, outside of training


def train_eeg_classifier(stage: ThoughtVizEeg, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes eeg.safetensors and summary.json."""
    items, schedule = load_items(stage.items, inputs), stage.schedule
    eeg = torch.from_numpy(items.eeg)
    with seeded(stage.seed):
        classifier = _make_eeg_classifier(stage, items, items.shown).to(runtime.device)
        optimizer = torch.optim.SGD(classifier.parameters(), schedule.lr, schedule.momentum, nesterov=True)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + schedule.decay * step))
        losses = _train_classifier(classifier, eeg, items.label, optimizer, rate, stage, runtime)
    save_file(classifier.state_dict(), out / "eeg.safetensors")
    write_summary(out, {"encoder": classifier}, losses, encoder_parameters=count_parameters(classifier))


def train_image_classifier(stage: ThoughtVizClassifier, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes classifier.safetensors and summary.json."""
    items = load_items(stage.items, inputs)
    with seeded(stage.seed):
        classifier = ImageClassifier(items.shown, stage.widths, stage.schedule.noise).to(runtime.device)
        optimizer = torch.optim.Adam(classifier.parameters(), stage.schedule.lr)
        rate = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
        losses = _train_classifier(classifier, _load_images(items, stage.side, stage.mirror), items.label, optimizer,
                                   rate, stage, runtime)
    save_file(classifier.state_dict(), out / "classifier.safetensors")
    write_summary(out, {"classifier": classifier}, losses)


def _train_classifier(classifier: nn.Module, examples: Tensor, label: np.ndarray, optimizer: torch.optim.Optimizer,
                      rate: torch.optim.lr_scheduler.LRScheduler, stage: ThoughtVizEeg | ThoughtVizClassifier,
                      runtime: Runtime) -> dict[str, float]:
    """Trains on examples [k * N, ...], which are k versions of N examples with labels [N]; returns the losses."""
    target = torch.from_numpy(label).repeat(len(examples) // len(label)).to(runtime.device)
    examples, losses = examples.to(runtime.device), Losses(stage, stage.schedule.steps, runtime)
    classifier.train()
    for rows in islice(_draw_batches(len(examples), stage.schedule.batch, stage.seed), stage.schedule.steps):
        loss = F.cross_entropy(classifier(examples[rows]), target[rows])
        descend(loss, optimizer)
        rate.step()
        losses.add(classifier=loss)
    return losses.last()


def train_gan(stage: ThoughtVizGan, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes generator.safetensors and summary.json.

    The generator's loss is the sum, with equal weights, of the discriminator's verdict and the frozen image
    classifier's cross-entropy with the label of the EEG. (The released code also adds the classifier's loss to the
    discriminator's, where it has no gradient.) In every step labels are drawn, and for each label the features of any
    trial that has it. Not reproduced: the released code sets Keras' learning phase to 0 in the whole training, so that
    dropout does nothing and batches are normalised by running statistics.
    """
    schedule, device = stage.schedule, runtime.device
    items = load_items(stage.items, inputs)
    known = load_items(stage.classifier.items, inputs)
    features = _encode(stage.eeg, items, known.shown, inputs, runtime)
    real = _load_images(known, stage.classifier.side, stage.classifier.mirror).to(device)
    classifier = load_network(ImageClassifier(known.shown, stage.classifier.widths),
                              inputs(stage.classifier) / "classifier.safetensors", device).requires_grad_(False)
    losses = Losses(stage, schedule.steps, runtime)
    with seeded(stage.seed):
        generator = Generator(stage.generator).to(device).train()
        discriminator = Discriminator(stage.classifier.side, stage.discriminator, schedule.dropout).to(device).train()
        betas = (schedule.beta1, 0.999)
        generator_optimizer = torch.optim.Adam(generator.parameters(), schedule.lr_generator, betas)
        discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), schedule.lr_discriminator, betas)
        for rows in islice(_draw_batches(len(real), schedule.batch, stage.seed), schedule.steps):
            label, trial = _draw_trials(items.label, schedule.batch)
            noise = torch.rand(schedule.batch, NOISE).mul_(2).sub_(1)
            fake = generator(noise.to(device), features[trial])

            # Discriminator
            real_logits, fake_logits = discriminator(real[rows]), discriminator(fake.detach())
            discriminator_loss = binary_loss(real_logits, 1.0) + binary_loss(fake_logits, 0.0)
            descend(discriminator_loss, discriminator_optimizer)

            # Generator
            discriminator.requires_grad_(False)
            generator_loss = binary_loss(discriminator(fake), 1.0)
            class_loss = F.cross_entropy(classifier(fake), label.to(device))
            penalty = schedule.std_penalty * generator.mixture.std.square().sum()
            descend(generator_loss + class_loss + penalty, generator_optimizer)
            discriminator.requires_grad_(True)
            losses.add(generator=generator_loss, recognised=class_loss, discriminator=discriminator_loss)
    save_file(generator.state_dict(), out / "generator.safetensors")
    write_summary(out, {"generator": generator, "discriminator": discriminator}, losses.last())


def generate_images(stage: ThoughtVizPictures, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy and item.npy (`write_images`), the images resized to the size of the items'."""
    gan = stage.model
    items = load_items(stage.items, inputs)
    known = load_items(gan.classifier.items, inputs)
    features = _encode(gan.eeg, items, known.shown, inputs, runtime)
    generator = load_network(Generator(gan.generator), inputs(gan) / "generator.safetensors", runtime.device)
    noise = torch.from_numpy(np.stack([np.random.default_rng([stage.seed, int(item), sample])
                                       .uniform(-1, 1, NOISE).astype(np.float32)
                                       for item in items.item for sample in range(stage.samples)]))

    def sample(rows: Tensor) -> Tensor:
        images = generator(noise[rows].to(runtime.device), features[rows // stage.samples])
        return resize_images(images, items.pictures.shape[1:3]).clamp(0, 1).mul(255)

    write_images(out, items, stage.samples, stage.batch, sample, runtime)


def _make_eeg_classifier(stage: ThoughtVizEeg, items: Loaded, classes: int) -> EegClassifier:
    try:
        return EegClassifier(*items.eeg.shape[1:], classes, stage.filters, stage.schedule.running)
    except ValueError as error:
        raise BenchError(f"thoughtviz: {error}") from error


@torch.no_grad()
def _encode(stage: ThoughtVizEeg, items: Loaded, classes: int, inputs: Inputs, runtime: Runtime) -> Tensor:
    """Returns the trained EEG classifier's features [N, 100] of the items."""
    classifier = load_network(_make_eeg_classifier(stage, items, classes), inputs(stage) / "eeg.safetensors",
                              runtime.device)
    return in_batches(lambda eeg: classifier.features(eeg.to(runtime.device)), torch.from_numpy(items.eeg), BATCH,
                      runtime)


def _load_images(items: Loaded, side: int, mirror: bool) -> Tensor:
    """The items' images [N, 3, side, side] in [0, 1]; with `mirror`, followed by their mirror images [2 N, ...]."""
    parts = [torch.from_numpy(items.pictures[rows.numpy()]).permute(0, 3, 1, 2).float().div(255)
             for rows in torch.arange(len(items.item)).split(BATCH)]
    images = torch.cat([resize_images(part, (side, side)).clamp(0, 1) for part in parts])
    return torch.cat([images, images.flip(3)]) if mirror else images


def _draw_batches(n: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Yields batches of rows without end; each epoch contains each row once, and a batch may cross epochs."""
    generator, order = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        yield order[:batch]
        order = order[batch:]


def _draw_trials(label: np.ndarray, batch: int) -> tuple[Tensor, Tensor]:
    """Draws labels [batch], all equally likely, and for each label a trial [batch] that has it."""
    order = torch.from_numpy(np.argsort(label, kind="stable"))
    labels, counts = (torch.from_numpy(values) for values in np.unique(label, return_counts=True))
    which = torch.randint(len(labels), (batch,))
    within = (torch.rand(batch, dtype=torch.float64) * counts[which]).long()
    return labels[which], order[(counts.cumsum(0) - counts)[which] + within]
