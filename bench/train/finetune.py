"""Fine-tuning: L_SD (Eq. 2) and alignment (Eq. 3), with E, A or both opened (Table 2, rows 12 to 14)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.errors import BenchError
from bench.experiment.stages import Encoder, Finetune, FinetuneSchedule, Items, Pretrain, Stage
from bench.experiment.variant import OPENS
from bench.files import sync
from bench.images import as_images
from bench.runtime import Runtime
from bench.train import parallel
from bench.train.encoder import build
from bench.train.items import Loaded, load
from bench.train.loop import Training, describe, frozen_dtype, hold, precision
from bench.train.targets import cropped, room
from models import frozen
from models.condition import Head, LatentHead, Tau, TimeCondition
from models.parameters import count_parameters


@dataclass
class Model:
    """encoder [B, C, T] -> [B, L, width], tau -> [B, M, D], head -> CLIP space or class logits (None: no alignment).

    head: a LatentHead sees the encoder's tokens, a Head what tau makes of them. time: where the condition enters the
    U-Net through the time step, too, else None. unet and null_context [1, M, D] complete the generator; `open` names
    the tensors that fine-tuning trains.
    """

    encoder: nn.Module
    tau: Tau
    head: Head | LatentHead | None
    time: TimeCondition | None
    unet: nn.Module
    null_context: Tensor
    open: list[str]

    def parts(self) -> dict[str, nn.Module]:
        """The modules under the names that saved tensors begin with."""
        parts = {"encoder": self.encoder, "tau": self.tau, "head": self.head, "time": self.time, "unet": self.unet}
        return {name: part for name, part in parts.items() if part is not None}

    def named_parameters(self) -> dict[str, nn.Parameter]:
        return {f"{part}.{name}": p for part, module in self.parts().items() for name, p in module.named_parameters()}

    def trained(self) -> dict[str, Tensor]:
        """What fine-tuning changes: the opened parameters, and the buffers (running statistics) beside them."""
        opened = {name.split(".")[0] for name in self.open} - {"unet"}
        return {name: tensor for part, module in self.parts().items()
                for name, tensor in ((f"{part}.{name}", tensor) for name, tensor in module.state_dict().items())
                if name in self.open or (part in opened and name not in self.named_parameters())}

    @torch.inference_mode()
    def context(self, eeg: Tensor) -> Tensor:
        """[B, C, T] -> [B, M, D], in evaluation mode."""
        return self.tau.eval()(self.encoder.eval()(eeg))

    @torch.inference_mode()
    def embedding(self, eeg: Tensor) -> Tensor:
        """[B, C, T] -> what h makes of it, in evaluation mode: CLIP space [B, D'] or class logits. ValueError without
        alignment."""
        if self.head is None:
            raise ValueError("a model without alignment has no h")
        tokens = self.encoder.eval()(eeg)
        return self.aligned(tokens, self.tau.eval()(tokens))

    def aligned(self, tokens: Tensor, context: Tensor) -> Tensor:
        """What h makes of the encoder's tokens [B, L, width], or of the context [B, M, D] that tau makes of them."""
        return self.head(tokens if isinstance(self.head, LatentHead) else context).float()


def prepare(stage: Finetune, items: Loaded, inputs: Callable[[Stage], Path], runtime: Runtime) -> Model:
    """The model as it is before the first step, for EEG such as those items'.

    Parameters that fine-tuning trains require gradients, all others do not; the set is asserted by name.
    """
    shape = items.eeg.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        value = stage.start.encoder if isinstance(stage.start, Pretrain) else stage.start
        assert isinstance(value, Encoder)
        encoder = build(value, *shape, runtime)
        if isinstance(stage.start, Pretrain):
            encoder.load_state_dict(load_file(inputs(stage.start) / "encoder.safetensors"))
        with torch.inference_mode():
            length, width = encoder.eval()(torch.zeros(1, *shape)).shape[1:]
        torch.manual_seed(stage.seed)
        clip = frozen.load_clip(stage.clip.path, stage.clip.sha256)
        classes = [f"a {name}" for name in items.names[:items.shown]]
        with torch.no_grad():
            text = clip.text_tokens(clip.tokenize(classes)).mean(0)
            null = clip.text_tokens(clip.tokenize([""]))
        tau = Tau(length, width, text, clip.ln_final)
        unet = frozen.load_unet(stage.unet.path, stage.unet.sha256)
        head = _head(stage, length, width, clip, items.shown)
        time = TimeCondition(*text.shape, unet.time_embedding.linear_2.out_features) if stage.time_condition else None
    if time is not None:
        time.attach(unet)
    model = Model(encoder, tau, head, time, unet, null, [])
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
    hold(unet, frozen_dtype(stage.numerics, runtime.device))
    for module in model.parts().values():
        module.to(runtime.device)
    model.null_context = null.to(runtime.device)
    return model


def _head(stage: Finetune, tokens: int, width: int, clip: frozen.Clip, classes: int) -> Head | LatentHead | None:
    if stage.align is None:
        return None
    dim, space = clip.text_projection.shape
    if stage.aligned == "latent":
        return LatentHead(tokens, width, space if stage.align == "clip" else classes)
    return Head(dim, space, clip.text_projection) if stage.align == "clip" else Head(dim, classes)


LAST = "model.safetensors"
LOGGED = 10  # steps from one line of the log to the next


def file(checkpoint: int | None) -> str:
    """The file of a checkpoint, from 1 on; None: the last."""
    return LAST if checkpoint is None else f"model.{checkpoint}.safetensors"


def loaded(stage: Finetune, items: Items, inputs: Callable[[Stage], Path]) -> Loaded:
    """Items as the model of that stage is to see them."""
    return load(items, inputs(items.trials), inputs(stage.targets) / "embeddings.npy")


def finetune(stage: Finetune, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes model.safetensors (the trained tensors alone; checkpoints before it as model.1.safetensors, ...) and
    finetune.json (losses, counts of parameters)."""
    items, schedule = loaded(stage, stage.items, inputs), stage.schedule
    model = prepare(stage, items, inputs, runtime)

    def keep(path: Path) -> dict[str, Tensor]:
        trained = {name: tensor.detach().cpu().contiguous() for name, tensor in model.trained().items()}
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        save_file(trained, part)
        sync(part)
        runtime.owned()
        os.replace(part, path)
        sync(path.parent)
        return trained

    kept = runtime.work or out  # where checkpoints of the model outlive the process

    def keep_checkpoint(number: int) -> None:
        if kept != out:
            describe(kept, stage)
        keep(kept / file(number))

    losses = _train(stage, model, items, inputs(stage.targets), runtime, keep_checkpoint)
    if parallel.rank() != 0:
        return
    for number in range(1, stage.checkpoints):
        if kept != out:
            shutil.copyfile(kept / file(number), out / file(number))
    trained = keep(out / LAST)
    parts = ("encoder", "tau", "head", "unet", *(["time"] if stage.time_condition else []))
    summary = {
        "encoder_parameters": count_parameters(model.encoder),
        "trained_parameters": {part: sum(trained[name].numel() for name in model.open if name.startswith(part))
                               for part in parts},
        "losses": losses,  # means over the last tenth of the steps
        "steps": schedule.steps,
    }
    (out / "finetune.json").write_text(json.dumps(summary, indent=1) + "\n")


def restore(stage: Finetune, items: Loaded, inputs: Callable[[Stage], Path], runtime: Runtime,
            checkpoint: int | None = None) -> Model:
    """The model after fine-tuning: what was trained from the stage's folder, the rest from where it began."""
    model = prepare(stage, items, inputs, runtime)
    path = inputs(stage) / file(checkpoint)
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


class _Pictures:
    """The latents of each item's picture: of one of the views that Targets kept, or of a crop that is encoded anew."""

    def __init__(self, stage: Finetune, items: Loaded, targets: Path, shape: tuple[int, ...], runtime: Runtime):
        self._views, self._items, self._device = stage.targets.views, items, runtime.device
        self._vae, self._moments = None, []
        if self._views == 0:
            self._vae = frozen.load_vae(stage.targets.vae.path, stage.targets.vae.sha256,
                                        frozen_dtype(stage.numerics, runtime.device)).to(runtime.device)
            self._autocast = precision(stage.numerics, runtime.device)
            self._room = room(items.pictures)
            with torch.no_grad(), self._autocast():
                found = self._vae.moments(as_images(items.pictures[:1], runtime.device))[0].shape[1:]
        else:
            self._moments = [np.load(targets / f"{name}.npy", mmap_mode="r") for name in ("mean", "std")]
            found = self._moments[0].shape[-3:]
        if tuple(found) != shape:
            raise BenchError(f"the pictures' latents are {list(found)}, and those of U-Net {stage.unet.name} "
                             f"{list(shape)}: prepare the data set with pictures of another size")
        if self._views == 1:
            self._moments = [torch.from_numpy(array[items.picture]).to(runtime.device) for array in self._moments]

    def draw(self, batch: int, generator: torch.Generator) -> Tensor | None:
        """Which view of each picture of a batch is seen, [B]; of crops encoded anew whether it is one, and its corner,
        [B, 3]. Half of them are the whole picture (released code). None where there is but one view."""
        if self._views == 1:
            return None
        crop = torch.rand(batch, generator=generator) >= 0.5
        if self._views > 1:
            return torch.where(crop, torch.randint(1, self._views, (batch,), generator=generator), 0)
        corner = torch.randint(0, self._room + 1, (batch, 2), generator=generator)
        return torch.cat([crop[:, None], corner], 1)

    @torch.no_grad()
    def moments(self, index: Tensor, view: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of items [B], each [B, C, h, w] float32."""
        if view is None:
            rows = index.to(self._device)
            mean, std = (array[rows] for array in self._moments)
            return mean, std
        if self._vae is None:
            rows = self._items.picture[index.numpy()], view.numpy()
            mean, std = (torch.from_numpy(array[rows]).to(self._device).float() for array in self._moments)
            return mean, std
        images = as_images(self._items.pictures[index.numpy()], self._device)
        crops = cropped(images, view[:, 1:].numpy())
        with self._autocast():
            mean, logvar = self._vae.moments(torch.where(view[:, 0].bool().to(self._device)[:, None, None, None],
                                                         crops, images))
        return mean.float(), torch.exp(0.5 * logvar.float())


def _optimizer(named: dict[str, nn.Parameter], schedule: FinetuneSchedule
               ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW with a learning rate for each part; linear warm-up, and half a cosine to zero, or a constant rate."""
    rates = {"encoder": schedule.lr_encoder, "tau": schedule.lr_projection, "head": schedule.lr_projection,
             "time": schedule.lr_projection, "unet": schedule.lr_attention}
    groups = [{"params": [p for name, p in named.items() if name.startswith(part)], "lr": lr}
              for part, lr in rates.items()]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=schedule.weight_decay, fused=True)
    if schedule.decay not in ("cosine", "constant"):
        raise BenchError(f"no decay {schedule.decay!r} of a learning rate; there are: cosine, constant")

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, schedule.warmup))
        if schedule.decay == "constant":
            return warm
        return warm * 0.5 * float(1 + np.cos(np.pi * step / schedule.steps))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _train(stage: Finetune, model: Model, items: Loaded, targets: Path, runtime: Runtime,
           keep: Callable[[int], object]) -> dict[str, float]:
    """Trains in place, and calls `keep` with the number of every checkpoint but the last. Batches, noise, time steps
    and dropped conditions depend on the seed alone: all variants see the same ones."""
    schedule, device = stage.schedule, runtime.device
    autocast = precision(stage.numerics, device)
    eeg = torch.from_numpy(items.eeg).to(device)
    embeddings = torch.from_numpy(np.load(targets / "embeddings.npy")[items.picture]).to(device)
    labels = torch.from_numpy(items.label).to(device)
    shape = frozen.latent_shape(model.unet)
    pictures = _Pictures(stage, items, targets, shape, runtime)
    scheduler = frozen.noise_schedule(stage.unet.path)
    predicts = scheduler.config.prediction_type
    if predicts not in ("v_prediction", "epsilon"):
        raise BenchError(f"U-Net {stage.unet.name} predicts {predicts!r}; trained are: v_prediction, epsilon")
    named = {name: p for name, p in model.named_parameters().items() if p.requires_grad}
    optimizer, rate = _optimizer(named, schedule)
    frozen_encoder = not any(name.startswith("encoder.") for name in named)
    if frozen_encoder:
        with torch.no_grad(), autocast():
            tokens = torch.cat([model.encoder(part) for part in eeg.split(200)])
    else:
        model.encoder.train()
    model.tau.train()
    training = Training(stage, model.trained(), list(named.values()), optimizer, rate, runtime)
    generator = torch.Generator().manual_seed(stage.seed)
    history: dict[str, list[Tensor]] = {"sd": [], "align": []}
    if (kept := training.resume()) is not None:
        generator.set_state(kept["generator"])
        history = {name: [value.to(device) for value in values] for name, values in kept["history"].items()}
    numbers = {schedule.steps * number // stage.checkpoints: number for number in range(1, stage.checkpoints)}
    own = training.rows
    while training.step < schedule.steps:
        index = torch.randint(len(eeg), (schedule.batch,), generator=generator)
        posterior = torch.randn((schedule.batch, *shape), generator=generator)[own].to(device)
        noise = torch.randn((schedule.batch, *shape), generator=generator)[own].to(device)
        time = torch.randint(scheduler.config.num_train_timesteps, (schedule.batch,), generator=generator)
        time = time[own].to(device)
        dropped = (torch.rand(schedule.batch, generator=generator) < schedule.condition_dropout)[own].to(device)
        view = pictures.draw(schedule.batch, generator)
        index = index[own]
        here, view = index.to(device), None if view is None else view[own]

        def loss(rows: slice, index=index, here=here, posterior=posterior, noise=noise, time=time, dropped=dropped,
                 view=view) -> dict[str, Tensor]:
            with autocast():
                seen = tokens[here[rows]] if frozen_encoder else model.encoder(eeg[here[rows]])
                context = model.tau(seen)
                found = {"loss": context.new_zeros(())}
                if stage.sd_loss:
                    mean, std = pictures.moments(index[rows], None if view is None else view[rows])
                    latents = mean + std * posterior[rows]
                    condition = torch.where(dropped[rows, None, None], model.null_context, context)
                    noisy = scheduler.add_noise(latents, noise[rows], time[rows])
                    predicted = model.unet(noisy, time[rows], condition).sample
                    aim = noise[rows] if predicts == "epsilon" else scheduler.get_velocity(latents, noise[rows],
                                                                                           time[rows])
                    found["sd"] = F.mse_loss(predicted.float(), aim)
                    found["loss"] = found["loss"] + found["sd"]
                if stage.align == "clip":
                    found["align"] = 1 - F.cosine_similarity(model.aligned(seen, context), embeddings[here[rows]],
                                                             dim=-1).mean()
                elif stage.align == "label":
                    found["align"] = F.cross_entropy(model.aligned(seen, context), labels[here[rows]])
                if stage.align:
                    found["loss"] = found["loss"] + schedule.clip_weight * found["align"]
            return found

        found = training.update(loss)
        step = training.step
        for name in history.keys() & found.keys():
            history[name].append(found[name])
        if step in numbers and parallel.rank() == 0:
            keep(numbers[step])
        if step % LOGGED == 0 or step == schedule.steps:
            training.report(found, step)
            training.save_when_due(lambda: {"generator": generator.get_state(), "history": history})
    last = max(1, schedule.steps // 10)
    return {name: torch.stack(values[-last:]).mean().item() for name, values in history.items() if values}
