"""ThoughtViz: trains its EEG classifier, its classifier of pictures and its GAN, and draws its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.errors import BenchError
from bench.experiment.stages import Stage
from bench.files import mapped
from bench.runtime import Runtime, use_exact_math
from bench.systems.thoughtviz import ThoughtVizClassifier, ThoughtVizEeg, ThoughtVizGan, ThoughtVizPictures
from bench.train.generate import batches, in_batches
from bench.train.items import Loaded, load
from bench.train.losses import Losses, descend, summary
from models.parameters import count_parameters
from models.thoughtviz import NOISE, Discriminator, EegClassifier, Generator, PictureClassifier

AT_ONCE = 100  # pictures, and trials, outside of training


def train_eeg_classifier(stage: ThoughtVizEeg, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes eeg.safetensors and summary.json."""
    use_exact_math()
    items = load(stage.items, inputs(stage.items.trials))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        net = _eeg_classifier(stage, items, items.shown).to(runtime.device)
        optimizer = torch.optim.SGD(net.parameters(), stage.schedule.lr, stage.schedule.momentum, nesterov=True)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + stage.schedule.decay * step))
        losses = _classify(net, torch.from_numpy(items.eeg), items.label, optimizer, rate, stage, runtime)
    save_file(net.state_dict(), out / "eeg.safetensors")
    summary(out, {"encoder": net}, losses, encoder_parameters=count_parameters(net))


def train_image_classifier(stage: ThoughtVizClassifier, inputs: Callable[[Stage], Path], out: Path,
                         runtime: Runtime) -> None:
    """Writes classifier.safetensors and summary.json."""
    use_exact_math()
    items = load(stage.items, inputs(stage.items.trials))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        net = PictureClassifier(items.shown, stage.widths, stage.schedule.noise).to(runtime.device)
        optimizer = torch.optim.Adam(net.parameters(), stage.schedule.lr)
        rate = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
        losses = _classify(net, _real(items, stage.side, stage.mirror), items.label, optimizer, rate, stage, runtime)
    save_file(net.state_dict(), out / "classifier.safetensors")
    summary(out, {"classifier": net}, losses)


def _classify(net: nn.Module, seen: Tensor, label: np.ndarray, optimizer: torch.optim.Optimizer,
              rate: torch.optim.lr_scheduler.LRScheduler, stage: ThoughtVizEeg | ThoughtVizClassifier,
              runtime: Runtime) -> dict[str, float]:
    """Trains a classifier of what is seen [N * k, ...], k times the N trials of those labels; its losses."""
    target = torch.from_numpy(label).repeat(len(seen) // len(label)).to(runtime.device)
    seen, losses = seen.to(runtime.device), Losses(stage, stage.schedule.steps, runtime)
    net.train()
    for rows in islice(_rows(len(seen), stage.schedule.batch, stage.seed), stage.schedule.steps):
        loss = F.cross_entropy(net(seen[rows]), target[rows])
        descend(loss, optimizer)
        rate.step()
        losses.add(classifier=loss)
    return losses.last()


def train_gan(stage: ThoughtVizGan, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes generator.safetensors and summary.json. The discriminator learns real from made; the generator to be
    taken for real and, by the frozen classifier, for the label of the EEG: both losses count_parameters alike (released code,
    which adds the classifier's to the discriminator's loss, too, where it has no gradient).

    In every step labels are drawn, and of each label any trial's features. Released code, not done here: Keras'
    learning phase is set to 0 in the whole training, in which dropout does nothing and batches are normalised by
    running statistics.
    """
    use_exact_math()
    schedule, device = stage.schedule, runtime.device
    items = load(stage.items, inputs(stage.items.trials))
    known = load(stage.classifier.items, inputs(stage.classifier.items.trials))
    features = _features(stage.eeg, items, known.shown, inputs, runtime)
    real = _real(known, stage.classifier.side, stage.classifier.mirror).to(device)
    classifier = PictureClassifier(known.shown, stage.classifier.widths)
    classifier.load_state_dict(load_file(inputs(stage.classifier) / "classifier.safetensors"))
    classifier.to(device).eval().requires_grad_(False)
    losses = Losses(stage, stage.schedule.steps, runtime)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        generator = Generator(stage.generator).to(device).train()
        discriminator = Discriminator(stage.classifier.side, stage.discriminator, schedule.dropout).to(device).train()
        betas = (schedule.beta1, 0.999)
        of_generator = torch.optim.Adam(generator.parameters(), schedule.lr_generator, betas)
        of_discriminator = torch.optim.Adam(discriminator.parameters(), schedule.lr_discriminator, betas)
        pictures = _rows(len(real), schedule.batch, stage.seed)
        for rows in islice(pictures, schedule.steps):
            label, trial = _drawn(items.label, schedule.batch)
            noise = torch.rand(schedule.batch, NOISE).mul_(2).sub_(1)
            made = generator(noise.to(device), features[trial])
            says_real, says_made = discriminator(real[rows]), discriminator(made.detach())
            told = F.binary_cross_entropy_with_logits(says_real, torch.ones_like(says_real)) \
                + F.binary_cross_entropy_with_logits(says_made, torch.zeros_like(says_made))
            descend(told, of_discriminator)
            discriminator.requires_grad_(False)
            says = discriminator(made)
            fooled = F.binary_cross_entropy_with_logits(says, torch.ones_like(says))
            recognised = F.cross_entropy(classifier(made), label.to(device))
            penalty = schedule.std_penalty * generator.mixture.std.square().sum()
            descend(fooled + recognised + penalty, of_generator)
            discriminator.requires_grad_(True)
            losses.add(generator=fooled, recognised=recognised, discriminator=told)
    save_file(generator.state_dict(), out / "generator.safetensors")
    summary(out, {"generator": generator, "discriminator": discriminator}, losses.last())


def generate_images(stage: ThoughtVizPictures, inputs: Callable[[Stage], Path], out: Path,
                       runtime: Runtime) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, and item.npy [N]."""
    use_exact_math()
    gan = stage.model
    items = load(stage.items, inputs(stage.items.trials))
    known = load(gan.classifier.items, inputs(gan.classifier.items.trials))
    features = _features(gan.eeg, items, known.shown, inputs, runtime)
    generator = Generator(gan.generator)
    generator.load_state_dict(load_file(inputs(gan) / "generator.safetensors"))
    generator.to(runtime.device).eval()
    noise = torch.from_numpy(np.stack([np.random.default_rng([stage.seed, int(item), sample])
                                       .uniform(-1, 1, NOISE).astype(np.float32)
                                       for item in items.item for sample in range(stage.samples)]))
    height, width = items.pictures.shape[1:3]
    pictures = mapped(out / "pictures.npy", np.uint8, (len(items.item), stage.samples, height, width, 3))
    flat, done = pictures.reshape(-1, height, width, 3), 0
    for rows, padded in batches(torch.arange(len(noise)), stage.batch):
        with torch.inference_mode():
            made = generator(noise[padded].to(runtime.device), features[padded // stage.samples])[:len(rows)]
            drawn = _resized(made, height, width).mul(255).round().to(torch.uint8)
        flat[done:done + len(rows)] = drawn.permute(0, 2, 3, 1).cpu().numpy()
        done += len(rows)
        runtime.progress(done, len(noise))
    pictures.flush()
    np.save(out / "item.npy", items.item)


def _eeg_classifier(stage: ThoughtVizEeg, items: Loaded, classes: int) -> EegClassifier:
    try:
        return EegClassifier(*items.eeg.shape[1:], classes, stage.filters, stage.schedule.running)
    except ValueError as error:
        raise BenchError(f"thoughtviz: EEG of {error}") from error


@torch.no_grad()
def _features(stage: ThoughtVizEeg, items: Loaded, classes: int, inputs: Callable[[Stage], Path],
              runtime: Runtime) -> Tensor:
    """The trained EEG classifier's features [N, 100] of the items."""
    net = _eeg_classifier(stage, items, classes)
    net.load_state_dict(load_file(inputs(stage) / "eeg.safetensors"))
    net.to(runtime.device).eval()
    return in_batches(lambda eeg: net.features(eeg.to(runtime.device)), torch.from_numpy(items.eeg), AT_ONCE)


def _real(items: Loaded, side: int, mirror: bool) -> Tensor:
    """The items' pictures [N, 3, side, side] in [0, 1], with `mirror` and then those mirrored [2 N, ...]."""
    parts = [torch.from_numpy(items.pictures[rows.numpy()]).permute(0, 3, 1, 2).float().div(255)
             for rows in torch.arange(len(items.item)).split(AT_ONCE)]
    pictures = torch.cat([_resized(part, side, side) for part in parts])
    return torch.cat([pictures, pictures.flip(3)]) if mirror else pictures


def _resized(pictures: Tensor, height: int, width: int) -> Tensor:
    """Pictures [N, 3, H, W] in [0, 1] at that size."""
    if pictures.shape[2:] == (height, width):
        return pictures
    return F.interpolate(pictures, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def _rows(n: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Batches of rows without end, each row once in every epoch; a batch may reach into the next epoch."""
    generator, order = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        yield order[:batch]
        order = order[batch:]


def _drawn(label: np.ndarray, batch: int) -> tuple[Tensor, Tensor]:
    """Labels [batch] drawn from those that there are, each as likely, and of each any trial [batch] that has it."""
    order = torch.from_numpy(np.argsort(label, kind="stable"))
    there, many = (torch.from_numpy(found) for found in np.unique(label, return_counts=True))
    which = torch.randint(len(there), (batch,))
    within = (torch.rand(batch, dtype=torch.float64) * many[which]).long()
    return there[which], order[(many.cumsum(0) - many)[which] + within]
