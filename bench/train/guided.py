"""ATM with guided diffusion: trains encoder, prior, low-level path and captions, and generates with an IP-Adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss, normalize

from bench.data.writing import write_table
from bench.errors import BenchError
from bench.experiment.stages import Features
from bench.images import as_images
from bench.runtime import MicroBatches, Runtime
from bench.systems import guided as stages
from bench.systems.perceptogram import EmbeddedPictures
from bench.train import Inputs
from bench.train.generate import batches, decode, in_batches, initial_noise, resize_images, write_images
from bench.train.items import Loaded, load_items
from bench.train.loop import frozen_dtype, precision
from bench.train.losses import Losses, count_steps, descend, draw_batches, load_network, seeded, write_summary
from models import adapter, frozen
from models.captioner import PixelProjector, load_captioner, load_git
from models.diffusion_prior import DiffusionPrior, draw, noise_schedule, prior_loss
from models.guided import KINDS, Encoder, LowLevel, encoder_loss
from models.parameters import count_parameters

BATCH, CAPTIONS = 100, 16  # trials, and GIT captions, at once outside of training


def train_encoder(stage: stages.GuidedEncoder, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes encoder.safetensors, earlier checkpoints as encoder.1.safetensors and so on, and summary.json."""
    schedule, device = stage.schedule, runtime.device
    items = load_items(stage.items, inputs)

    # Targets: CLIP embeddings of images [P, D'] and class names [K, D']
    image = torch.from_numpy(np.load(inputs(stage.targets) / "embeddings.npy")).to(device)
    text = _embed_classes(stage, items, inputs, runtime)
    picture, label = torch.from_numpy(items.picture).to(device), torch.from_numpy(items.label).to(device)

    # Training
    eeg, subject = torch.from_numpy(items.eeg).to(device), _select_subjects(stage, items).to(device)
    steps = count_steps(len(eeg), schedule.batch, schedule.epochs)
    if steps < stage.checkpoints:
        raise BenchError(f"guided: {stage.checkpoints} checkpoints requested, but the encoder is trained for {steps} "
                         "steps only; request fewer")
    losses = Losses(stage, steps, runtime)
    checkpoints = {steps * number // stage.checkpoints: number for number in range(1, stage.checkpoints)}
    with seeded(stage.seed):
        encoder = _make_encoder(stage, items, image.shape[1], np.unique(items.subject).tolist()).to(device).train()
        optimizer = torch.optim.AdamW(encoder.parameters(), schedule.lr, weight_decay=schedule.weight_decay)
        for step, rows in enumerate(draw_batches(len(eeg), schedule.batch, steps), 1):
            loss = encoder_loss(stage.loss, encoder, encoder(eeg[rows], subject[rows]), image[picture[rows]],
                                text[label[rows]])
            descend(loss, optimizer, schedule.clip_norm)
            losses.add(encoder=loss)
            if step in checkpoints:
                save_file(encoder.state_dict(), out / f"encoder.{checkpoints[step]}.safetensors")
    save_file(encoder.state_dict(), out / "encoder.safetensors")
    write_summary(out, {"encoder": encoder}, losses.last(), encoder_parameters=count_parameters(encoder))


def _embed_classes(stage: stages.GuidedEncoder, items: Loaded, inputs: Inputs, runtime: Runtime) -> Tensor:
    """Returns CLIP's embeddings [K, D'] of the class names: published ones, or of "a {name}" (released code: "This
    picture is {name}")."""
    targets = stage.targets
    if isinstance(targets, Features):
        return torch.from_numpy(np.load(inputs(targets) / "classes.npy")).to(runtime.device)
    clip = frozen.load_clip(targets.clip.path, targets.clip.sha256).to(runtime.device)
    with torch.inference_mode():
        tokens = clip.tokenize([f"a {name}" for name in items.names]).to(runtime.device)
        classes = in_batches(clip.embed_text, tokens, BATCH, runtime).float()
    return classes.clone()


def _select_subjects(stage: stages.GuidedEncoder, items: Loaded) -> Tensor:
    """Returns the subject [N] whose token or map each trial uses; in splits by subject ATM's released code uses the
    tested subject's for all trials."""
    trials, network = stage.items.trials, stage.network
    if (network.encoder, network.quirks) == ("atm", "faithful") and trials.split.startswith("subject"):
        return torch.full((len(items.subject),), trials.subjects[-1])
    return torch.from_numpy(items.subject)


def _make_encoder(stage: stages.GuidedEncoder, items: Loaded, out: int, subjects: list[int]) -> Encoder:
    network = stage.network
    try:
        return KINDS[network.encoder](*items.eeg.shape[1:], out, subjects, network.quirks == "faithful",
                                      network.filters, network.width)
    except ValueError as error:
        raise BenchError(f"guided: EEG {list(items.eeg.shape[1:])}: {error}") from error


def _encode(stage: stages.GuidedEncoder, checkpoint: int | None, items: Loaded, inputs: Inputs,
            runtime: Runtime) -> Tensor:
    """Returns the trained encoder's embeddings [N, D'] of the items' EEG."""
    file = inputs(stage) / (f"encoder.{checkpoint}.safetensors" if checkpoint else "encoder.safetensors")
    weights = load_file(file)
    known = next((tensor for name, tensor in weights.items() if name.endswith("known")), torch.empty(0))
    encoder = load_network(_make_encoder(stage, items, int(weights["out"]), known.tolist()), file, runtime.device)
    eeg, subject = torch.from_numpy(items.eeg), _select_subjects(stage, items)
    with torch.inference_mode():
        return in_batches(lambda rows: encoder(eeg[rows].to(runtime.device), subject[rows].to(runtime.device)),
                          torch.arange(len(eeg)), BATCH, runtime).clone()


def embed_items(stage: stages.GuidedEmbedding, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes embedding.npy [N, D'] and item.npy [N], in the order of the items."""
    items = load_items(stage.items, inputs)
    np.save(out / "embedding.npy", _encode(stage.encoder, stage.checkpoint, items, inputs, runtime).cpu().numpy())
    np.save(out / "item.npy", items.item)


def train_prior(stage: stages.GuidedPrior, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes prior.safetensors and summary.json. The condition is the encoder's embedding, without dropout, of its
    training trials."""
    schedule, device = stage.schedule, runtime.device
    items = load_items(stage.encoder.items, inputs)
    condition = _encode(stage.encoder, stage.checkpoint, items, inputs, runtime)
    embeddings = np.load(inputs(stage.encoder.targets) / "embeddings.npy", mmap_mode="r")
    embedding = torch.from_numpy(embeddings[items.picture]).to(device)
    losses, noising = Losses(stage, schedule.steps, runtime), noise_schedule(True)
    with seeded(stage.seed):
        prior = DiffusionPrior(embedding.shape[1], condition.shape[1], stage.widths, stage.time).to(device).train()
        optimizer = torch.optim.Adam(prior.parameters(), schedule.lr)
        rate = get_cosine_schedule_with_warmup(optimizer, schedule.warmup, schedule.steps)
        for rows in draw_batches(len(embedding), schedule.batch, schedule.steps):
            dropped = torch.rand(()) < schedule.condition_dropout
            loss = prior_loss(prior, noising, embedding[rows], None if dropped else condition[rows])
            descend(loss, optimizer, schedule.clip_norm)
            rate.step()
            losses.add(prior=loss)
    save_file(prior.state_dict(), out / "prior.safetensors")
    write_summary(out, {"prior": prior}, losses.last())


def train_low_level(stage: stages.GuidedLowLevel, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes low_level.safetensors and summary.json. The targets are latents at the U-Net's scale (released code:
    unscaled)."""
    schedule, device = stage.schedule, runtime.device
    items = load_items(stage.items, inputs)
    latents = np.load(inputs(stage.targets) / "mean.npy", mmap_mode="r")
    eeg = torch.from_numpy(items.eeg).to(device)
    steps = count_steps(len(eeg), schedule.batch, schedule.epochs)
    losses = Losses(stage, steps, runtime)
    with seeded(stage.seed):
        network = _make_low_level(stage, items, latents.shape[1:]).to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), schedule.lr, weight_decay=schedule.weight_decay)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.epochs, schedule.lr_end)
        for step, rows in enumerate(draw_batches(len(eeg), schedule.batch, steps), 1):
            target = torch.from_numpy(latents[items.picture[rows.numpy()]]).to(device)
            descend(loss := l1_loss(network(eeg[rows]), target), optimizer)
            losses.add(**{"low-level": loss})
            if step % (steps // schedule.epochs) == 0:
                rate.step()
    save_file(network.state_dict(), out / "low_level.safetensors")
    write_summary(out, {"low-level": network}, losses.last())


def _make_low_level(stage: stages.GuidedLowLevel, items: Loaded, shape: Sequence[int]) -> LowLevel:
    """The network for latents [C, h, w]. Raises BenchError if its output has another shape."""
    network = LowLevel(items.eeg.shape[1:], shape[0], stage.hidden, stage.widths)
    if network.shape.tolist() != list(shape):
        raise BenchError(f"guided: the low-level path outputs {network.shape.tolist()}, but the VAE's latents are "
                         f"{list(shape)}; prepare the data set with images of another size")
    return network


def train_captions(stage: stages.GuidedCaptions, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes projector.safetensors and summary.json."""
    schedule, device = stage.schedule, runtime.device
    items = load_items(stage.items, inputs)
    picture, first = np.unique(items.picture, return_index=True)
    embedding = torch.from_numpy(np.load(inputs(stage.targets) / "embeddings.npy", mmap_mode="r")[picture]).to(device)
    git = load_git(stage.git.path, stage.git.sha256, frozen_dtype(stage.numerics, device)).to(device)
    if embedding.shape[1] != git.width:
        raise BenchError(f"guided: CLIP's embeddings have {embedding.shape[1]} dimensions, GIT's vision tower has "
                         f"{git.width}; use the pair of networks that belong together")
    steps = count_steps(len(first), schedule.batch, schedule.epochs)
    losses = Losses(stage, steps, runtime)
    with seeded(stage.seed):
        projector = PixelProjector(git.width, git.tokens).to(device).train()
        optimizer = torch.optim.AdamW(projector.parameters(), schedule.lr, weight_decay=schedule.weight_decay)
        for rows in draw_batches(len(first), schedule.batch, steps):
            hidden = git.hidden(as_images(items.pictures[first[rows.numpy()]], device))
            descend(loss := mse_loss(projector(embedding[rows]), hidden), optimizer)
            losses.add(captions=loss)
    save_file(projector.state_dict(), out / "projector.safetensors")
    write_summary(out, {"captions": projector}, losses.last())


def generate_images(stage: stages.GuidedPictures, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy and item.npy (`write_images`), embedding.npy [N, D'] of the encoder, if its target is the
    CLIP that scores, and captions.csv, if captions are used.

    The prior is trained on unit vectors; as in the released code, the adapter gets the prior's samples as they are,
    unless they are to be normalised. The released adapter was trained on CLIP's unscaled embeddings, that of the small
    scales on unit vectors.
    """
    sampling, device = stage.sampling, runtime.device
    autocast = precision(stage.numerics, device)
    items = load_items(stage.items, inputs)
    features = _encode(stage.encoder, stage.checkpoint, items, inputs, runtime)
    pipe, vae = open_generator(stage, stage.low_level is not None, device)

    # Conditions: embeddings and prompts of each image, initial latents [N, C, h, w] of the low-level path
    with torch.inference_mode(), autocast():
        embeddings = _sample_embeddings(stage, items, features, inputs, runtime)
        captions = _write_captions(stage, items, embeddings, inputs, out, runtime)
        prompts = encode_prompts(stage, pipe, captions, runtime)
        start = None
        if stage.low_level:
            file = inputs(stage.low_level) / "low_level.safetensors"
            network = _make_low_level(stage.low_level, items, load_file(file)["shape"].tolist())
            network = load_network(network, file, device)
            start = in_batches(lambda eeg: network(eeg.to(device)), torch.from_numpy(items.eeg), BATCH, runtime)
    noise = initial_noise(items.item, stage.samples, stage.seed, frozen.latent_shape(pipe.unet))

    def sample(rows: Tensor) -> Tensor:
        latents = adapter.draw(
            pipe, embeddings[rows], noise=noise[rows].to(device), steps=sampling.steps, guidance=sampling.guidance,
            start=None if start is None else start[rows // stage.samples], strength=stage.strength, **prompts(rows))
        return (resize_images(decode(vae, latents), items.pictures.shape[1:3]).clamp(-1, 1) + 1) * 127.5

    write_images(out, items, stage.samples, sampling.batch, sample, runtime, autocast)
    if stage.vae:  # otherwise the encoder's target is a CLIP in which nothing is scored
        np.save(out / "embedding.npy", features.cpu().numpy())


def open_generator(stage: stages.GuidedPictures | EmbeddedPictures, img2img: bool, device: str
                   ) -> tuple[adapter.Pipe, frozen.Vae]:
    """Loads the pipeline with the adapter in its U-Net, and the VAE that decodes its latents."""
    unet, dtype = stage.unet, frozen_dtype(stage.numerics, device)
    if stage.vae is None:
        pipe, vae = adapter.turbo(unet.path, stage.adapter.path, img2img, unet.sha256, stage.adapter.sha256, dtype)
    else:
        vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype)
        pipe = adapter.pipeline(vae, frozen.load_unet(unet.path, unet.sha256, dtype), frozen.noise_schedule(unet.path),
                                stage.adapter.path, img2img, stage.adapter.sha256)
    return pipe.to(device), vae.to(device)


def _sample_embeddings(stage: stages.GuidedPictures, items: Loaded, features: Tensor, inputs: Inputs,
                       runtime: Runtime) -> Tensor:
    """Samples each image's embedding [N * samples, D'] from the prior; without a prior it is the encoder's, scaled to
    unit length."""
    if stage.prior is None:
        return normalize(features, dim=1).repeat_interleave(stage.samples, 0)
    file = inputs(stage.prior) / "prior.safetensors"
    prior = load_network(
        DiffusionPrior(len(load_file(file)["output.bias"]), features.shape[1], stage.prior.widths, stage.prior.time),
        file, runtime.device)
    sampling = stage.prior_sampling

    def generator(row: int) -> torch.Generator:
        item, sample = items.item[row // stage.samples], row % stage.samples
        seed = np.random.SeedSequence([stage.seed, int(item), sample, 1]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed) >> 1)

    def sample(rows: Tensor) -> Tensor:
        drawn = draw(prior, features[rows // stage.samples], [generator(int(row)) for row in rows], sampling.steps,
                     sampling.guidance, sampling.clip_sample)
        return normalize(drawn, dim=1) if sampling.normalised else drawn

    return in_batches(sample, torch.arange(len(features) * stage.samples), BATCH, runtime)


def _write_captions(stage: stages.GuidedPictures, items: Loaded, embeddings: Tensor, inputs: Inputs,
                    out: Path, runtime: Runtime) -> list[str]:
    """Returns the prompt of each image, "" without captions, and writes captions.csv with captions."""
    if stage.captions is None:
        return [""] * len(embeddings)
    if isinstance(stage.captions, stages.GuidedCaptions):
        git = load_git(stage.captions.git.path, stage.captions.git.sha256).to(runtime.device)
        projector = load_network(PixelProjector(git.width, git.tokens),
                                 inputs(stage.captions) / "projector.safetensors", runtime.device)
        parts, captions = MicroBatches(runtime.device, runtime.note), []
        for _, padded in batches(embeddings, CAPTIONS):
            for few in parts.run(lambda part, padded=padded: git.captions(projector(padded[part])), CAPTIONS):
                captions += few
    else:
        captioner = load_captioner(stage.captions.path, stage.captions.sha256).to(runtime.device)
        captions = captioner.captions(embeddings)
    captions = captions[:len(embeddings)]
    write_table(out / "captions.csv", ("item", "sample", "caption"), (
        (items.item[row // stage.samples], row % stage.samples, caption) for row, caption in enumerate(captions)))
    return captions


def encode_prompts(stage: stages.GuidedPictures | EmbeddedPictures, pipe: adapter.Pipe, captions: list[str],
                   runtime: Runtime) -> Callable[[Tensor], dict[str, Tensor]]:
    """Encodes each distinct caption once; returns a function from rows of captions to arguments of `adapter.draw`."""
    distinct = ["", *sorted(set(captions) - {""})]
    numbers = {caption: number for number, caption in enumerate(distinct)}
    which = torch.tensor([numbers[caption] for caption in captions])
    if stage.vae is None:
        encoded = [adapter.prompts(pipe, [caption]) for caption in distinct]
    else:
        clip = frozen.load_clip(stage.clip.path, stage.clip.sha256).to(runtime.device)
        encoded = [(clip.text_tokens(clip.tokenize([caption]).to(runtime.device)),) for caption in distinct]
    context, *pooled = (torch.cat(parts) for parts in zip(*encoded, strict=True))

    def prompts(rows: Tensor) -> dict[str, Tensor]:
        arguments = {"context": context[which[rows]], "null": context[:1]}
        return arguments | {"pooled": pooled[0][which[rows]], "null_pooled": pooled[0][:1]} if pooled else arguments

    return prompts
