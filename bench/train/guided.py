"""ATM with guided diffusion: trains an encoder, a prior and a low-level path, and draws through the adapter."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate, l1_loss, mse_loss, normalize

from bench.errors import BenchError
from bench.experiment.stages import Stage
from bench.files import mapped
from bench.images import as_images
from bench.runtime import Runtime, use_exact_math
from bench.systems.guided import (
    GuidedCaptions,
    GuidedEmbedding,
    GuidedEncoder,
    GuidedLowLevel,
    GuidedPictures,
    GuidedPrior,
)
from bench.train.generate import batches, in_batches, initial_noise
from bench.train.items import Loaded, load
from bench.train.loop import frozen_dtype, precision
from bench.train.losses import Losses, descend, summary
from bench.train.targets import PIXELS
from models import adapter, frozen
from models.captioner import PixelProjector, load_captioner, load_git
from models.diffusion_prior import DiffusionPrior, draw, noise_schedule, prior_loss
from models.guided import KINDS, Encoder, LowLevel, encoder_loss
from models.parameters import count_parameters

AT_ONCE, FEW = 100, 16  # trials outside of training; captions of GIT


def train_encoder(stage: GuidedEncoder, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes encoder.safetensors, with several checkpoints the earlier ones as encoder.1.safetensors and so on, and
    summary.json."""
    use_exact_math()
    schedule, device = stage.schedule, runtime.device
    items = load(stage.items, inputs(stage.items.trials))
    image, text = _targets(stage, items, inputs, runtime)
    eeg, subject = torch.from_numpy(items.eeg).to(device), _subject(stage, items).to(device)
    steps = schedule.epochs * (len(eeg) // min(schedule.batch, len(eeg)))
    if steps < stage.checkpoints:
        raise BenchError(f"guided: {stage.checkpoints} checkpoints are asked of an encoder that is trained for {steps} "
                         "steps; ask for fewer")
    losses, kept = Losses(stage, steps, runtime), {steps * which // stage.checkpoints: which
                                                    for which in range(1, stage.checkpoints)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        encoder = _encoder(stage, items, image.shape[1], np.unique(items.subject).tolist()).to(device).train()
        optimizer = torch.optim.AdamW(encoder.parameters(), schedule.lr, weight_decay=schedule.weight_decay)
        for step, rows in enumerate(_steps(len(eeg), schedule.batch, steps), 1):
            features = encoder(eeg[rows], subject[rows])
            loss = encoder_loss(stage.loss, encoder, features, image[rows], text[rows])
            descend(loss, optimizer, schedule.clip_norm)
            losses.add(encoder=loss)
            if step in kept:
                save_file(encoder.state_dict(), out / f"encoder.{kept[step]}.safetensors")
    save_file(encoder.state_dict(), out / "encoder.safetensors")
    summary(out, {"encoder": encoder}, losses.last(), encoder_parameters=count_parameters(encoder))


def _targets(stage: GuidedEncoder, items: Loaded, inputs: Callable[[Stage], Path],
             runtime: Runtime) -> tuple[Tensor, Tensor]:
    """CLIP's embeddings of the pictures of the trials, and of their classes as "a {name}", each [N, D'] of unit norm.
    (Released code: "This picture is {name}".)"""
    embeddings = np.load(inputs(stage.targets) / "embeddings.npy", mmap_mode="r")
    clip = frozen.load_clip(stage.targets.clip.path, stage.targets.clip.sha256).to(runtime.device)
    with torch.inference_mode():
        named = in_batches(clip.embed_text, clip.tokenize([f"a {name}" for name in items.names]).to(runtime.device),
                           AT_ONCE).float()
    return torch.from_numpy(embeddings[items.picture]).to(runtime.device), named.clone()[torch.from_numpy(items.label)]


def _subject(stage: GuidedEncoder, items: Loaded) -> Tensor:
    """Whose token or map a trial gets [N]. Where whole subjects are tested, ATM's released code gives the training
    trials, too, the token of the tested one: there is one token for all."""
    trials, network = stage.items.trials, stage.network
    if (network.encoder, network.quirks) == ("atm", "faithful") and trials.split.startswith("subject"):
        return torch.full((len(items.subject),), trials.subjects[-1])
    return torch.from_numpy(items.subject)


def _encoder(stage: GuidedEncoder, items: Loaded, out: int, subjects: list[int]) -> Encoder:
    network = stage.network
    try:
        return KINDS[network.encoder](*items.eeg.shape[1:], out, subjects, network.quirks == "faithful",
                                      network.filters, network.width)
    except ValueError as error:
        raise BenchError(f"guided: EEG {list(items.eeg.shape[1:])}: {error}") from error


def _features(stage: GuidedEncoder, checkpoint: int | None, items: Loaded, inputs: Callable[[Stage], Path],
              runtime: Runtime) -> Tensor:
    """What a trained encoder makes of the items' EEG, [N, D']."""
    weights = load_file(inputs(stage) / (f"encoder.{checkpoint}.safetensors" if checkpoint else "encoder.safetensors"))
    known = next((tensor for name, tensor in weights.items() if name.endswith("known")), torch.empty(0))
    encoder = _encoder(stage, items, int(weights["out"]), known.tolist())
    encoder.load_state_dict(weights)
    encoder.to(runtime.device).eval()
    eeg, subject = torch.from_numpy(items.eeg), _subject(stage, items)
    with torch.inference_mode():
        return in_batches(lambda rows: encoder(eeg[rows].to(runtime.device), subject[rows].to(runtime.device)),
                          torch.arange(len(eeg)), AT_ONCE).clone()


def embed_items(stage: GuidedEmbedding, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes embedding.npy [N, D'] and item.npy [N], in the order of the items."""
    use_exact_math()
    items = load(stage.items, inputs(stage.items.trials))
    np.save(out / "embedding.npy", _features(stage.encoder, stage.checkpoint, items, inputs, runtime).cpu().numpy())
    np.save(out / "item.npy", items.item)


def train_prior(stage: GuidedPrior, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes prior.safetensors and summary.json. The condition is what the trained encoder, without dropout, makes of
    the trials that it was trained on."""
    use_exact_math()
    schedule, device = stage.schedule, runtime.device
    items = load(stage.encoder.items, inputs(stage.encoder.items.trials))
    condition = _features(stage.encoder, stage.checkpoint, items, inputs, runtime)
    embeddings = np.load(inputs(stage.encoder.targets) / "embeddings.npy", mmap_mode="r")
    embedding = torch.from_numpy(embeddings[items.picture]).to(device)
    losses, noising = Losses(stage, schedule.steps, runtime), noise_schedule(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        prior = DiffusionPrior(embedding.shape[1], condition.shape[1], stage.widths, stage.time).to(device).train()
        optimizer = torch.optim.Adam(prior.parameters(), schedule.lr)
        rate = get_cosine_schedule_with_warmup(optimizer, schedule.warmup, schedule.steps)
        for rows in _steps(len(embedding), schedule.batch, schedule.steps):
            without = torch.rand(()) < schedule.condition_dropout
            loss = prior_loss(prior, noising, embedding[rows], None if without else condition[rows])
            descend(loss, optimizer, schedule.clip_norm)
            rate.step()
            losses.add(prior=loss)
    save_file(prior.state_dict(), out / "prior.safetensors")
    summary(out, {"prior": prior}, losses.last())


def train_low_level(stage: GuidedLowLevel, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes low_level.safetensors and summary.json. Latents are those that the U-Net sees: standardised, or divided by
    the VAE's factor, where the released code has them as the VAE gives them."""
    use_exact_math()
    schedule, device = stage.schedule, runtime.device
    items = load(stage.items, inputs(stage.items.trials))
    latents = np.load(inputs(stage.targets) / "mean.npy", mmap_mode="r")
    eeg = torch.from_numpy(items.eeg).to(device)
    losses = Losses(stage, schedule.epochs * (len(eeg) // min(schedule.batch, len(eeg))), runtime)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        net = _low_level(stage, items, latents.shape[1:]).to(device).train()
        optimizer = torch.optim.AdamW(net.parameters(), schedule.lr, weight_decay=schedule.weight_decay)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.epochs, schedule.lr_end)
        for _ in range(schedule.epochs):
            for rows in _epoch(len(eeg), schedule.batch):
                target = torch.from_numpy(latents[items.picture[rows.numpy()]]).to(device)
                descend(loss := l1_loss(net(eeg[rows]), target), optimizer)
                losses.add(**{"low-level": loss})
            rate.step()
    save_file(net.state_dict(), out / "low_level.safetensors")
    summary(out, {"low-level": net}, losses.last())


def _low_level(stage: GuidedLowLevel, items: Loaded, shape: Sequence[int]) -> LowLevel:
    """The network for latents [C, h, w]. Raises BenchError where it makes others."""
    net = LowLevel(items.eeg.shape[1:], shape[0], stage.hidden, stage.widths)
    if net.shape.tolist() != list(shape):
        raise BenchError(f"guided: the VAE's latents are {list(shape)}, and the low-level path makes "
                         f"{net.shape.tolist()}: prepare the data set with pictures of another size")
    return net


def train_captions(stage: GuidedCaptions, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes projector.safetensors and summary.json."""
    use_exact_math()
    schedule, device = stage.schedule, runtime.device
    items = load(stage.items, inputs(stage.items.trials))
    picture, first = np.unique(items.picture, return_index=True)
    embedding = torch.from_numpy(np.load(inputs(stage.targets) / "embeddings.npy", mmap_mode="r")[picture]).to(device)
    git = load_git(stage.git.path, stage.git.sha256, frozen_dtype(stage.numerics, device)).to(device)
    if embedding.shape[1] != git.width:
        raise BenchError(f"guided: CLIP's embeddings have {embedding.shape[1]} dimensions, GIT's vision tower "
                         f"{git.width}: take the ones that belong together")
    losses = Losses(stage, schedule.epochs * (len(first) // min(schedule.batch, len(first))), runtime)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        projector = PixelProjector(git.width, git.tokens).to(device).train()
        optimizer = torch.optim.AdamW(projector.parameters(), schedule.lr, weight_decay=schedule.weight_decay)
        for _ in range(schedule.epochs):
            for rows in _epoch(len(first), schedule.batch):
                seen = git.hidden(as_images(items.pictures[first[rows.numpy()]], device))
                descend(loss := mse_loss(projector(embedding[rows]), seen), optimizer)
                losses.add(captions=loss)
    save_file(projector.state_dict(), out / "projector.safetensors")
    summary(out, {"captions": projector}, losses.last())


def generate_images(stage: GuidedPictures, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, item.npy [N], embedding.npy [N, D'],
    what the encoder makes of their EEG (where it aims at the CLIP that scores), and where there are captions
    captions.csv.

    Embeddings are brought to unit norm before they are drawn: the adapter was trained on such. (The released one was
    trained on others, and is given what the prior draws.)
    """
    use_exact_math()
    sampling, device = stage.sampling, runtime.device
    autocast, dtype = precision(stage.numerics, device), frozen_dtype(stage.numerics, device)
    items = load(stage.items, inputs(stage.items.trials))
    features = _features(stage.encoder, stage.checkpoint, items, inputs, runtime)
    pipe, vae = _pipeline(stage, dtype, device)
    with torch.inference_mode(), autocast():
        embeddings = normalize(_drawn(stage, items, features, inputs, runtime), dim=1)
        told = _prompts(stage, pipe, _captions(stage, items, embeddings, inputs, out, runtime), runtime)
        start = _start(stage, items, inputs, runtime) if stage.low_level else None
    noise = initial_noise(items.item, stage.samples, stage.seed, frozen.latent_shape(pipe.unet))
    pictures = mapped(out / "pictures.npy", np.uint8, (len(items.item), stage.samples, *items.pictures.shape[1:]))
    flat, done = pictures.reshape(-1, *pictures.shape[2:]), 0
    for rows, padded in batches(torch.arange(len(noise)), sampling.batch):
        with torch.inference_mode(), autocast():
            latents = adapter.draw(
                pipe, embeddings[padded], noise=noise[padded].to(device), steps=sampling.steps,
                guidance=sampling.guidance, start=None if start is None else start[padded // stage.samples],
                strength=stage.strength, **told(padded))
            few = max(1, PIXELS // (64 * latents.shape[2] * latents.shape[3]))
            images = torch.cat([vae.decode(part).float().clamp(-1, 1) for part in latents.split(few)])
            images = (_resized(images, flat.shape[1:3]) + 1) * 127.5
        flat[done:done + len(rows)] = images.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()[:len(rows)]
        done += len(rows)
        runtime.progress(done, len(noise))
    pictures.flush()
    np.save(out / "item.npy", items.item)
    if stage.vae:  # else another CLIP than the scale's, in which nothing is scored
        np.save(out / "embedding.npy", features.cpu().numpy())


def _drawn(stage: GuidedPictures, items: Loaded, features: Tensor, inputs: Callable[[Stage], Path],
           runtime: Runtime) -> Tensor:
    """The embedding [N * samples, D'] of each picture, by the prior; without one, the encoder's own."""
    if stage.prior is None:
        return features.repeat_interleave(stage.samples, 0)
    weights = load_file(inputs(stage.prior) / "prior.safetensors")
    prior = DiffusionPrior(len(weights["output.bias"]), features.shape[1], stage.prior.widths, stage.prior.time)
    prior.load_state_dict(weights)
    prior.to(runtime.device).eval()
    how = stage.prior_sampling

    def draws(row: int) -> torch.Generator:
        item, sample = items.item[row // stage.samples], row % stage.samples
        seed = np.random.SeedSequence([stage.seed, int(item), sample, 1]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed) >> 1)

    def some(rows: Tensor) -> Tensor:
        return draw(prior, features[rows // stage.samples], [draws(int(row)) for row in rows], how.steps, how.guidance,
                    how.clip_sample)

    return in_batches(some, torch.arange(len(features) * stage.samples), AT_ONCE)


def _pipeline(stage: GuidedPictures, dtype: torch.dtype, device: str) -> tuple[adapter.Pipe, frozen.Vae]:
    """What draws, and what decodes."""
    begins, unet = stage.low_level is not None, stage.unet
    if stage.vae is None:
        pipe, vae = adapter.turbo(unet.path, stage.adapter.path, begins, unet.sha256, stage.adapter.sha256, dtype)
    else:
        vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype)
        pipe = adapter.pipeline(vae, frozen.load_unet(unet.path, unet.sha256, dtype), frozen.noise_schedule(unet.path),
                                stage.adapter.path, begins, stage.adapter.sha256)
    return pipe.to(device), vae.to(device)


def _captions(stage: GuidedPictures, items: Loaded, embeddings: Tensor, inputs: Callable[[Stage], Path], out: Path,
              runtime: Runtime) -> list[str]:
    """The prompt of each picture. Writes captions.csv where they are captions."""
    if stage.captions is None:
        return [""] * len(embeddings)
    if isinstance(stage.captions, GuidedCaptions):
        git = load_git(stage.captions.git.path, stage.captions.git.sha256).to(runtime.device)
        projector = PixelProjector(git.width, git.tokens)
        projector.load_state_dict(load_file(inputs(stage.captions) / "projector.safetensors"))
        projector.to(runtime.device).eval()
        said = [caption for _, padded in batches(embeddings, FEW) for caption in git.captions(projector(padded))]
    else:
        captioner = load_captioner(stage.captions.path, stage.captions.sha256).to(runtime.device)
        said = captioner.captions(embeddings)
    said = said[:len(embeddings)]
    with (out / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("item", "sample", "caption"))
        rows.writerows((items.item[row // stage.samples], row % stage.samples, caption)
                       for row, caption in enumerate(said))
    return said


def _prompts(stage: GuidedPictures, pipe: adapter.Pipe, captions: list[str],
             runtime: Runtime) -> Callable[[Tensor], dict[str, Tensor]]:
    """What `adapter.draw` is told of rows of the captions; each different one is read once."""
    different = ["", *sorted(set(captions) - {""})]
    numbers = {caption: number for number, caption in enumerate(different)}
    which = torch.tensor([numbers[caption] for caption in captions])
    if stage.vae is None:
        read = [adapter.prompts(pipe, [caption]) for caption in different]
    else:
        clip = frozen.load_clip(stage.clip.path, stage.clip.sha256).to(runtime.device)
        read = [(clip.text_tokens(clip.tokenize([caption]).to(runtime.device)),) for caption in different]
    context, *pooled = (torch.cat(parts) for parts in zip(*read, strict=True))

    def told(rows: Tensor) -> dict[str, Tensor]:
        found = {"context": context[which[rows]], "null": context[:1]}
        return found | {"pooled": pooled[0][which[rows]], "null_pooled": pooled[0][:1]} if pooled else found

    return told


def _start(stage: GuidedPictures, items: Loaded, inputs: Callable[[Stage], Path], runtime: Runtime) -> Tensor:
    """The latents [N, C, h, w] that the low-level path makes of the items' EEG."""
    weights = load_file(inputs(stage.low_level) / "low_level.safetensors")
    net = _low_level(stage.low_level, items, weights["shape"].tolist())
    net.load_state_dict(weights)
    net.to(runtime.device).eval()
    with torch.inference_mode():
        return in_batches(lambda eeg: net(eeg.to(runtime.device)), torch.from_numpy(items.eeg), AT_ONCE)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [B, 3, H, W] in -1 to 1 at another size."""
    if images.shape[-2:] == tuple(size):
        return images
    return interpolate(images, tuple(size), mode="bicubic", antialias=True).clamp(-1, 1)


def _epoch(n: int, batch: int) -> tuple[Tensor, ...]:
    """Rows of all batches of an epoch in a new order; those that fill no batch are left out."""
    batch = min(batch, n)
    return torch.randperm(n)[:n // batch * batch].split(batch)


def _steps(n: int, batch: int, steps: int) -> Iterator[Tensor]:
    """Rows of so many batches, epoch after epoch."""
    while steps > 0:
        for rows in _epoch(n, batch)[:steps]:
            yield rows
            steps -= 1
