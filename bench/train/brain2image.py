"""Brain2Image: trains the LSTM and the decoder on its features, and draws pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.errors import BenchError
from bench.experiment.stages import Items, Stage
from bench.files import mapped
from bench.images import as_images
from bench.runtime import Runtime
from bench.systems.brain2image import Brain2ImageEncoder, Brain2ImageGan, Brain2ImagePictures, Brain2ImageVae
from bench.train.generate import batches, in_batches, initial_noise
from bench.train.items import Loaded, load
from bench.train.losses import Losses, descend, summary
from bench.train.targets import PIXELS
from models.brain2image import Discriminator, Encoder, Generator, PictureEncoder
from models.parameters import count_parameters

AT_ONCE = 100  # trials whose features are computed together


def train_encoder(stage: Brain2ImageEncoder, inputs: Callable[[Stage], Path], out: Path,
                       runtime: Runtime) -> None:
    """Writes encoder.safetensors and summary.json."""
    items = load(stage.items, inputs(stage.items.trials))
    schedule, losses = stage.schedule, Losses(stage, stage.schedule.steps, runtime)
    eeg, label = (torch.from_numpy(array).to(runtime.device) for array in (items.eeg, items.label))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        encoder = Encoder(*eeg.shape[1:], items.shown, stage.hidden, stage.feature).to(runtime.device)
        encoder.fit(eeg)
        optimizer = torch.optim.Adam(encoder.parameters(), schedule.lr, fused=True)
        for rows in _rows(len(eeg), schedule.batch, schedule.steps):
            loss = F.cross_entropy(encoder.logits(eeg[rows]), label[rows])
            descend(loss, optimizer)
            losses.add(classifier=loss)
    with torch.inference_mode():
        encoder.measure(in_batches(encoder, eeg, AT_ONCE))
    save_file(encoder.state_dict(), out / "encoder.safetensors")
    summary(out, {"encoder": encoder}, losses.last(), encoder_parameters=count_parameters(encoder))


def train_gan(stage: Brain2ImageGan, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes generator.safetensors and summary.json.

    First a GAN of the training pictures alone, zeros in the place of the feature, then the conditional one (two phases:
    not verified). The discriminator's wrong pairs are a real picture and the feature of a trial of another class
    (second hand), and count_parameters as much as the made pictures do (Reed et al. 2016, Algorithm 1). Ours: smoothed labels; a
    mean of the generator over the last steps, whose batch normalisation is measured anew on the training features.
    """
    schedule, device = stage.schedule, runtime.device
    items = load(stage.encoder.items, inputs(stage.encoder.items.trials))
    features = _features(stage.encoder, items, inputs, runtime)
    real, picture = _real(items, stage.side, device)
    another = _another_class(items.label, stage.encoder.items)
    losses = Losses(stage, schedule.alone + schedule.steps, runtime)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        generator = Generator(stage.noise, features.shape[1], stage.width, stage.side).to(device)
        kept = Generator(stage.noise, features.shape[1], stage.width, stage.side).to(device)
        kept.load_state_dict(generator.state_dict())
        discriminator = Discriminator(features.shape[1], stage.width, stage.side).to(device)
        of_generator, of_discriminator = (
            torch.optim.Adam(net.parameters(), schedule.lr, (schedule.beta1, 0.999), fused=True)
            for net in (generator, discriminator))
        for step, rows in enumerate(_rows(len(features), schedule.batch, schedule.alone + schedule.steps)):
            noise = torch.randn(len(rows), stage.noise).to(device)
            conditional = step >= schedule.alone
            feature = features[rows] if conditional else torch.zeros_like(features[rows])
            made = generator(noise, feature)
            seen = discriminator.trunk(real[picture[rows]])
            told = _says(discriminator.judge(seen, feature), schedule.real)
            faked = _says(discriminator(made.detach(), feature), 0.0)
            if conditional:
                faked = (faked + _says(discriminator.judge(seen, features[another(rows)]), 0.0)) / 2
            descend(told + faked, of_discriminator)
            discriminator.requires_grad_(False)
            fooled = _says(discriminator(made, feature), 1.0)
            descend(fooled, of_generator)
            discriminator.requires_grad_(True)
            with torch.no_grad():
                torch._foreach_lerp_(list(kept.parameters()), list(generator.parameters()), 1 - schedule.average)
            losses.add(generator=fooled, discriminator=told + faked)
        _normalise(kept, features, stage.noise, schedule.batch)
    save_file(kept.state_dict(), out / "generator.safetensors")
    summary(out, {"generator": generator, "discriminator": discriminator}, losses.last())


def train_vae(stage: Brain2ImageVae, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes generator.safetensors (the decoder) and summary.json.

    The evidence lower bound with Gaussian pixels of unit deviation. That the decoder sees the feature is known at
    second hand; the loss was chosen (Kingma and Welling 2014). The pictures' encoder, which does not see the feature,
    is thrown away.
    """
    schedule, device = stage.schedule, runtime.device
    items = load(stage.encoder.items, inputs(stage.encoder.items.trials))
    features = _features(stage.encoder, items, inputs, runtime)
    real, picture = _real(items, stage.side, device)
    losses = Losses(stage, schedule.steps, runtime)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        decoder = Generator(stage.noise, features.shape[1], stage.width, stage.side).to(device)
        encoder = PictureEncoder(stage.noise, stage.width, stage.side).to(device)
        optimizer = torch.optim.Adam([*decoder.parameters(), *encoder.parameters()], schedule.lr, fused=True)
        for rows in _rows(len(features), schedule.batch, schedule.steps):
            pictures = real[picture[rows]]
            mean, log_variance = encoder(pictures)
            noise = mean + (log_variance / 2).exp() * torch.randn(mean.shape).to(device)
            error = (decoder(noise, features[rows]) - pictures).square().flatten(1).sum(1).mean()
            divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
            descend(error / 2 + divergence, optimizer)
            losses.add(squared_error=error / real[0].numel(), divergence=divergence)
        _normalise(decoder, features, stage.noise, schedule.batch)
    save_file(decoder.state_dict(), out / "generator.safetensors")
    summary(out, {"decoder": decoder, "picture encoder": encoder}, losses.last())


def generate_images(stage: Brain2ImagePictures, inputs: Callable[[Stage], Path], out: Path,
                        runtime: Runtime) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, and item.npy [N]. Made pictures are
    brought to the size of the items' own by bicubic interpolation."""
    items = load(stage.items, inputs(stage.items.trials))
    features = _features(stage.decoder.encoder, items, inputs, runtime)
    generator = Generator(stage.decoder.noise, features.shape[1], stage.decoder.width, stage.decoder.side)
    generator.load_state_dict(load_file(inputs(stage.decoder) / "generator.safetensors"))
    generator.to(runtime.device).eval()
    noise = initial_noise(items.item, stage.samples, stage.seed, (stage.decoder.noise,))
    shape = (len(items.item), stage.samples, *items.pictures.shape[1:])
    pictures = mapped(out / "pictures.npy", np.uint8, shape)
    flat, done = pictures.reshape(-1, *shape[2:]), 0
    for rows, padded in batches(torch.arange(len(noise)), stage.batch):
        with torch.inference_mode():
            drawn = generator(noise[padded].to(runtime.device), features[padded // stage.samples])
            drawn = (_resized(drawn, shape[2:4]) + 1) * 127.5
        flat[done:done + len(rows)] = drawn.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()[:len(rows)]
        done += len(rows)
        runtime.progress(done, len(noise))
    pictures.flush()
    np.save(out / "item.npy", items.item)


def _features(stage: Brain2ImageEncoder, items: Loaded, inputs: Callable[[Stage], Path], runtime: Runtime) -> Tensor:
    """What the trained encoder makes of the items' EEG, [N, feature]."""
    weights = load_file(inputs(stage) / "encoder.safetensors")
    encoder = Encoder(*items.eeg.shape[1:], len(weights["head.weight"]), stage.hidden, stage.feature)
    encoder.load_state_dict(weights)
    encoder.to(runtime.device).eval()
    with torch.inference_mode():
        features = in_batches(lambda eeg: encoder(eeg.to(runtime.device)), torch.from_numpy(items.eeg), AT_ONCE)
    return features.clone()


def _real(items: Loaded, side: int, device: str) -> tuple[Tensor, Tensor]:
    """The distinct pictures of the trials [P, 3, side, side] in -1 to 1, and of each trial [N] its row there."""
    _, first, picture = np.unique(items.picture, return_index=True, return_inverse=True)
    height, width = items.pictures.shape[1:3]
    parts = np.array_split(first, math.ceil(len(first) * height * width / PIXELS))
    real = torch.cat([_resized(as_images(items.pictures[part], device), (side, side)) for part in parts])
    return real, torch.from_numpy(picture).to(device)


def _resized(pictures: Tensor, shape: tuple[int, int]) -> Tensor:
    """Pictures in -1 to 1 brought to another size."""
    if pictures.shape[2:] == shape:
        return pictures
    return F.interpolate(pictures, shape, mode="bicubic", antialias=True).clamp(-1, 1)


def _another_class(label: np.ndarray, items: Items) -> Callable[[Tensor], Tensor]:
    """A function that draws, for rows of the trials [B], as many of other classes than theirs."""
    order = np.argsort(label, kind="stable")
    place = np.searchsorted(label[order], label)  # where a trial's class begins in that order, and where it ends
    end = np.searchsorted(label[order], label, side="right")
    others = len(label) - (end - place)
    if not others.all():
        raise BenchError(f"the {items.part} trials show one class alone: Brain2Image's GAN needs the EEG of another "
                         "one; add classes")
    ring, begin, count_parameters = (torch.from_numpy(array) for array in (order, end, others))

    def draw(rows: Tensor) -> Tensor:
        rows = rows.cpu()
        return ring[(begin[rows] + (torch.rand(len(rows), dtype=torch.float64) * count_parameters[rows]).long()) % len(ring)]

    return draw


def _says(logits: Tensor, truth: float) -> Tensor:
    """Binary cross-entropy of logits [B] with one truth for all."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))


@torch.no_grad()
def _normalise(generator: Generator, features: Tensor, noise: int, batch: int) -> None:
    """Measures the statistics of batch normalisation over the training features [N, feature], each with fresh noise."""
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    generator.train()
    for part in features.split(batch)[:max(1, len(features) // batch)]:
        generator(torch.randn(len(part), noise).to(part.device), part)


def _rows(number: int, batch: int, steps: int) -> Iterator[Tensor]:
    """Rows of as many batches, epoch for epoch in a new order; trials that fill no batch are left out of an epoch."""
    batch, given = min(batch, number), 0
    while given < steps:
        for rows in torch.randperm(number)[:number // batch * batch].split(batch)[:steps - given]:
            yield rows
            given += 1
