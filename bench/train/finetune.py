"""Fine-tuning: L_SD (Eq. 2) and alignment (Eq. 3), with E, A or both trained (Table 2, rows 12 to 14)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.errors import BenchError
from bench.experiment.stages import Encoder, Finetune, FinetuneSchedule, Pretrain
from bench.experiment.variant import OPENS
from bench.files import sync
from bench.runtime import Runtime
from bench.train import Inputs, parallel
from bench.train.encoder import build
from bench.train.items import Loaded, load_items
from bench.train.latents import Latents
from bench.train.loop import Training, cast_frozen, frozen_dtype, precision, prefetch, to_device, write_document
from bench.train.losses import seeded
from models import frozen
from models.condition import Head, LatentHead, TimeCondition, build_tau
from models.parameters import count_parameters

LAST = "model.safetensors"
LOGGED = 10  # steps between two progress reports


@dataclass
class Model:
    """The networks of DreamDiffusion.

    encoder         EEG [B, C, T] -> tokens [B, L, width]
    tau             tokens -> context [B, M, D]
    head            context (Head) or tokens (LatentHead) -> CLIP space [B, D'] or class logits; None: no alignment
    time            adds the context to the U-Net's time embedding; None: not used
    unet            the U-Net; null_context [1, M, D]: its context without a condition
    open            names of the parameters that fine-tuning trains
    """

    encoder: nn.Module
    tau: nn.Module
    head: Head | LatentHead | None
    time: TimeCondition | None
    unet: nn.Module
    null_context: Tensor
    open: list[str]

    def parts(self) -> dict[str, nn.Module]:
        """The modules by the prefix of their tensors' names."""
        parts = {"encoder": self.encoder, "tau": self.tau, "head": self.head, "time": self.time, "unet": self.unet}
        return {name: part for name, part in parts.items() if part is not None}

    def named_parameters(self) -> dict[str, nn.Parameter]:
        return {f"{part}.{name}": p for part, module in self.parts().items() for name, p in module.named_parameters()}

    def trained(self) -> dict[str, Tensor]:
        """The tensors that fine-tuning changes: trained parameters, and buffers (running statistics) beside them."""
        opened = {name.split(".")[0] for name in self.open} - {"unet"}
        return {name: tensor for part, module in self.parts().items()
                for name, tensor in ((f"{part}.{name}", tensor) for name, tensor in module.state_dict().items())
                if name in self.open or (part in opened and name not in self.named_parameters())}

    @torch.inference_mode()
    def context(self, eeg: Tensor) -> Tensor:
        """EEG [B, C, T] -> context [B, M, D], in evaluation mode."""
        return self.tau.eval()(self.encoder.eval()(eeg))

    @torch.inference_mode()
    def embedding(self, eeg: Tensor) -> Tensor:
        """EEG [B, C, T] -> the head's output, in evaluation mode; for models with alignment."""
        tokens = self.encoder.eval()(eeg)
        return self.aligned(tokens, self.tau.eval()(tokens))

    def aligned(self, tokens: Tensor, context: Tensor) -> Tensor:
        """The head's output for tokens [B, L, width] and their context [B, M, D], float32."""
        return self.head(tokens if isinstance(self.head, LatentHead) else context).float()


def prepare(stage: Finetune, items: Loaded, inputs: Inputs, runtime: Runtime) -> Model:
    """Returns the model before the first step, for EEG of the items' shape; only trained parameters have gradients."""
    # Networks
    shape = items.eeg.shape[1:]
    with seeded(stage.seed):
        value = stage.start.encoder if isinstance(stage.start, Pretrain) else stage.start
        assert isinstance(value, Encoder)
        encoder = build(value, *shape, runtime)
        if isinstance(stage.start, Pretrain):
            encoder.load_state_dict(load_file(inputs(stage.start) / "encoder.safetensors"))
        with torch.inference_mode():
            length, width = encoder.eval()(torch.zeros(1, *shape)).shape[1:]
        torch.manual_seed(stage.seed)
        clip = frozen.load_clip(stage.clip.path, stage.clip.sha256)
        with torch.no_grad():
            text = clip.text_tokens(clip.tokenize([f"a {name}" for name in items.names[:items.shown]])).mean(0)
            null = clip.text_tokens(clip.tokenize([""]))
        tau = build_tau(stage.tau, length, width, text, clip.net.ln_final)
        unet = frozen.load_unet(stage.unet.path, stage.unet.sha256)
        dim, space = clip.net.text_projection.shape
        head = None
        if stage.align is not None and stage.aligned == "latent":
            head = LatentHead(length, width, space if stage.align == "clip" else items.shown)
        elif stage.align is not None:
            head = Head(dim, space, clip.net.text_projection) if stage.align == "clip" else Head(dim, items.shown)
        time = TimeCondition(*text.shape, unet.time_embedding.linear_2.out_features) if stage.time_condition else None
    if time is not None:
        time.attach(unet)
    model = Model(encoder, tau, head, time, unet, null, [])

    # Trained parameters
    opens = OPENS[stage.tune]
    encoder.requires_grad_("E" in opens)
    tau.requires_grad_("tau" in opens)
    attention = [f"unet.{name}" for name, _ in frozen.open_for_tuning(unet, norm2="norm2" in opens)] \
        if "A" in opens and stage.sd_loss else []
    expected = {name for name in model.named_parameters()
                if (name.startswith("encoder.") and "E" in opens) or name.startswith(("head.", "time."))
                or (name.startswith("tau.") and "tau" in opens)} | set(attention)
    model.open = sorted(name for name, p in model.named_parameters().items() if p.requires_grad)
    assert set(model.open) == expected, set(model.open) ^ expected

    # Dtype and device
    cast_frozen(unet, frozen_dtype(stage.numerics, runtime.device))
    for module in model.parts().values():
        module.to(runtime.device)
    model.null_context = null.to(runtime.device)
    return model


def checkpoint_file(number: int | None) -> str:
    """The file name of checkpoint `number`, from 1; None: the last."""
    return LAST if number is None else f"model.{number}.safetensors"


def finetune(stage: Finetune, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes model.safetensors (the trained tensors only), earlier checkpoints as model.1.safetensors and so on, and
    finetune.json (losses, numbers of parameters)."""
    items = load_items(stage.items, inputs, stage.targets)
    model = prepare(stage, items, inputs, runtime)
    work = runtime.work or out  # where checkpoints of the model survive a killed process

    def save(path: Path) -> dict[str, Tensor]:
        trained = {name: tensor.detach().cpu().contiguous() for name, tensor in model.trained().items()}
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        save_file(trained, part)
        sync(part)
        runtime.owned()
        os.replace(part, path)
        sync(path.parent)
        return trained

    def save_checkpoint(number: int) -> None:
        if work != out:
            write_document(work, stage)
        save(work / checkpoint_file(number))

    losses = _train(stage, model, items, inputs(stage.targets), runtime, save_checkpoint)
    if parallel.rank() != 0:
        return
    for number in range(1, stage.checkpoints):
        if work != out:
            shutil.copyfile(work / checkpoint_file(number), out / checkpoint_file(number))
    trained = save(out / LAST)
    counts = {part: sum(trained[name].numel() for name in model.open if name.startswith(part))
              for part in ("encoder", "tau", "head", "unet", *(["time"] if stage.time_condition else []))}
    summary = {"encoder_parameters": count_parameters(model.encoder), "trained_parameters": counts, "losses": losses,
               "steps": stage.schedule.steps}
    (out / "finetune.json").write_text(json.dumps(summary, indent=1) + "\n")


def restore(stage: Finetune, items: Loaded, inputs: Inputs, runtime: Runtime, checkpoint: int | None = None) -> Model:
    """Returns the model after fine-tuning: trained tensors from the stage's folder, all others as in `prepare`."""
    model = prepare(stage, items, inputs, runtime)
    path = inputs(stage) / checkpoint_file(checkpoint)
    stored, trained = load_file(path), model.trained()
    if set(stored) != set(trained):
        raise ValueError(f"{path} does not hold the tensors that {stage.tune} trains: "
                         f"{sorted(set(stored) ^ set(trained))[:5]} ...")
    with torch.no_grad():
        for name, tensor in trained.items():
            tensor.copy_(stored[name])
    for module in model.parts().values():
        module.requires_grad_(False).eval()
    return model


class _Draw(NamedTuple):
    """The random numbers of this process's rows of a batch, and the state before the next batch."""

    index: Tensor
    posterior: Tensor
    noise: Tensor
    time: Tensor
    dropped: Tensor
    view: Tensor | None
    state: Tensor


def _draws(stage: Finetune, count: int, shape: tuple[int, ...], times: int, latents: Latents, rows: slice,
           generator: torch.Generator, begin: int) -> Iterator[_Draw]:
    """Yields the random numbers of each step from `begin` on: drawn for the whole batch, then those of `rows`."""
    batch, dropout = stage.schedule.batch, stage.schedule.condition_dropout
    for _ in range(begin, stage.schedule.steps):
        index = torch.randint(count, (batch,), generator=generator)
        posterior = torch.randn((batch, *shape), generator=generator)[rows]
        noise = torch.randn((batch, *shape), generator=generator)[rows]
        time = torch.randint(times, (batch,), generator=generator)[rows]
        dropped = (torch.rand(batch, generator=generator) < dropout)[rows]
        view = latents.draw(batch, generator)
        yield _Draw(index[rows], posterior, noise, time, dropped, None if view is None else view[rows],
                    generator.get_state())


def _optimizer(named: dict[str, nn.Parameter], schedule: FinetuneSchedule
               ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW with a learning rate for each part; linear warm-up, then half-cosine decay to zero or a constant rate."""
    rates = {"encoder": schedule.lr_encoder, "tau": schedule.lr_projection, "head": schedule.lr_projection,
             "time": schedule.lr_projection, "unet": schedule.lr_attention}
    groups = [{"params": [p for name, p in named.items() if name.startswith(part)], "lr": lr}
              for part, lr in rates.items()]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=schedule.weight_decay, fused=True)
    if schedule.decay not in ("cosine", "constant"):
        raise BenchError(f"unknown learning-rate decay {schedule.decay!r}; expected cosine or constant")

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, schedule.warmup))
        return warm if schedule.decay == "constant" else warm * 0.5 * float(1 + np.cos(np.pi * step / schedule.steps))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _train(stage: Finetune, model: Model, items: Loaded, targets: Path, runtime: Runtime,
           save_checkpoint: Callable[[int], None]) -> dict[str, float]:
    """Trains the model in place; calls save_checkpoint(number) for all checkpoints but the last; returns the losses.
    Batches, noise, time steps and dropped conditions depend on the seed only and are the same for all variants. The
    losses are means over the last tenth of the steps."""
    schedule, device = stage.schedule, runtime.device
    autocast = precision(stage.numerics, device)

    # Data
    eeg = torch.from_numpy(items.eeg).to(device)
    embeddings = torch.from_numpy(np.load(targets / "embeddings.npy")[items.picture]).to(device)
    labels = torch.from_numpy(items.label).to(device)
    shape = frozen.latent_shape(model.unet)
    latents = Latents(stage, items, targets, shape, runtime)

    # Noise schedule
    scheduler = frozen.noise_schedule(stage.unet.path)
    predicts = scheduler.config.prediction_type
    if predicts not in ("v_prediction", "epsilon"):
        raise BenchError(f"U-Net {stage.unet.name} predicts {predicts!r}; expected v_prediction or epsilon")

    # Optimiser; a frozen encoder's tokens are computed once
    named = {name: p for name, p in model.named_parameters().items() if p.requires_grad}
    optimizer, rate = _optimizer(named, schedule)
    if frozen_encoder := not any(name.startswith("encoder.") for name in named):
        with torch.no_grad(), autocast():
            stored_tokens = torch.cat([model.encoder(part) for part in eeg.split(200)])
    else:
        model.encoder.train()
    model.tau.train()
    training = Training(stage, model.trained(), list(named.values()), optimizer, rate, runtime)

    # State that is not in the model or the optimiser; from a checkpoint, if there is one
    generator = torch.Generator().manual_seed(stage.seed)
    history: dict[str, list[Tensor]] = {"sd": [], "align": []}
    if (extra := training.resume()) is not None:
        generator.set_state(extra["generator"])
        history = {name: _unpack(values, device) for name, values in extra["history"].items()}
    checkpoints = {schedule.steps * number // stage.checkpoints: number for number in range(1, stage.checkpoints)}

    def fetch(drawn: _Draw) -> dict[str, Tensor]:
        """Loads a batch onto the device."""
        tensors = {"item": drawn.index, "posterior": drawn.posterior, "noise": drawn.noise, "time": drawn.time,
                   "dropped": drawn.dropped}
        return {**{name: to_device(tensor, device) for name, tensor in tensors.items()},
                **(latents.fetch(drawn.index, drawn.view) if stage.sd_loss else {})}

    draws = _draws(stage, len(eeg), shape, scheduler.config.num_train_timesteps, latents, training.rows, generator,
                   training.step)
    for drawn, fetched in prefetch(draws, fetch, device):
        def loss(part: slice, drawn: _Draw = drawn, fetched: dict[str, Tensor] = fetched) -> dict[str, Tensor]:
            now = {name: tensor[part] for name, tensor in fetched.items()}
            item, noise, time = now["item"], now["noise"], now["time"]
            with autocast():
                tokens = stored_tokens[item] if frozen_encoder else model.encoder(eeg[item])
                context = model.tau(tokens)
                losses = {"loss": context.new_zeros(())}
                if stage.sd_loss:  # Eq. 2
                    mean, std = latents.moments(now, None if drawn.view is None else drawn.view[part])
                    clean = mean + std * now["posterior"]
                    condition = torch.where(now["dropped"][:, None, None], model.null_context, context)
                    noisy = scheduler.add_noise(clean, noise, time)
                    predicted = model.unet(noisy, time, condition).sample
                    target = noise if predicts == "epsilon" else scheduler.get_velocity(clean, noise, time)
                    losses["sd"] = F.mse_loss(predicted.float(), target)
                    losses["loss"] = losses["loss"] + losses["sd"]
                if stage.align == "clip":  # Eq. 3
                    losses["align"] = 1 - F.cosine_similarity(model.aligned(tokens, context), embeddings[item],
                                                              dim=-1).mean()
                elif stage.align == "label":
                    losses["align"] = F.cross_entropy(model.aligned(tokens, context), labels[item])
                if stage.align:
                    losses["loss"] = losses["loss"] + schedule.clip_weight * losses["align"]
            return losses

        losses = training.update(loss)

        # History, checkpoints of the model, progress, checkpoint of the training
        step = training.step
        for name in history.keys() & losses.keys():
            history[name].append(losses[name])
        if step in checkpoints and parallel.rank() == 0:
            save_checkpoint(checkpoints[step])
        if step % LOGGED == 0 or step == schedule.steps:
            training.report(losses, step)
            training.save_when_due(lambda state=drawn.state: {
                "generator": state, "history": {name: _pack(history[name]) for name in history}})
    last = max(1, schedule.steps // 10)
    return {name: torch.stack(values[-last:]).mean().item() for name, values in history.items() if values}


def _pack(values: list[Tensor]) -> Tensor:
    """Scalars as one tensor [N] for a checkpoint; thousands of single ones take seconds to write."""
    return torch.stack(values) if values else torch.empty(0)


def _unpack(values: Tensor | list[Tensor], device: str) -> list[Tensor]:
    """The scalars of a checkpoint, on the device. Checkpoints of earlier versions hold a list of them."""
    return list((values if isinstance(values, Tensor) else _pack(values)).to(device))
