"""Fine-tuning: L_SD (Eq. 2) and alignment (Eq. 3), with E, A or both opened (Table 2, rows 12 to 14)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.items import Loaded, load
from bench.runtime import Runtime
from bench.stages import Encoder, Finetune, Items, Pretrain, Stage
from bench.train.encoder import build
from bench.variant import OPENS
from models import frozen
from models.condition import Head, Tau


@dataclass
class Model:
    """encoder [B, C, T] -> [B, L, width], tau -> [B, M, D], head -> CLIP space or class logits (None: no alignment).

    unet and null_context [1, M, D] complete the generator; `open` names the tensors that fine-tuning trains.
    """

    encoder: nn.Module
    tau: Tau
    head: Head | None
    unet: nn.Module
    null_context: Tensor
    open: list[str]

    def parts(self) -> dict[str, nn.Module]:
        """The modules under the names that saved tensors begin with."""
        parts = {"encoder": self.encoder, "tau": self.tau, "head": self.head, "unet": self.unet}
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
    def embedding(self, context: Tensor) -> Tensor:
        """[B, M, D] -> what h makes of it: CLIP space [B, D'] or class logits. ValueError without alignment."""
        if self.head is None:
            raise ValueError("a model without alignment has no h")
        return self.head.eval()(context)


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
        head = {"clip": lambda: Head(text.shape[1], clip.text_projection.shape[1], clip.text_projection),
                "label": lambda: Head(text.shape[1], items.shown), None: lambda: None}[stage.align]()
    unet = frozen.load_unet(stage.unet.path, stage.unet.sha256)
    model = Model(encoder, tau, head, unet, null, [])
    opens = OPENS[stage.tune]
    encoder.requires_grad_("E" in opens)
    tau.requires_grad_("tau" in opens)
    attention = [f"unet.{name}" for name, _ in frozen.open_for_tuning(unet, norm2="norm2" in opens)] \
        if "A" in opens and stage.sd_loss else []
    expected = {name for name in model.named_parameters()
                if (name.startswith("encoder.") and "E" in opens) or name.startswith("head.")
                or (name.startswith("tau.") and "tau" in opens)} | set(attention)
    model.open = sorted(name for name, p in model.named_parameters().items() if p.requires_grad)
    assert set(model.open) == expected, set(model.open) ^ expected
    for module in model.parts().values():
        module.to(runtime.device)
    model.null_context = null.to(runtime.device)
    return model


LAST = "model.safetensors"


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

    def keep(name: str) -> dict[str, Tensor]:
        trained = {name: tensor.detach().cpu().contiguous() for name, tensor in model.trained().items()}
        save_file(trained, out / name)
        return trained

    losses = _train(stage, model, items, inputs(stage.targets), runtime, keep)
    trained = keep(LAST)
    summary = {
        "encoder_parameters": sum(p.numel() for p in model.encoder.parameters()),
        "trained_parameters": {part: sum(trained[name].numel() for name in model.open if name.startswith(part))
                               for part in ("encoder", "tau", "head", "unet")},
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


def _train(stage: Finetune, model: Model, items: Loaded, targets: Path, runtime: Runtime,
           keep: Callable[[str], object]) -> dict[str, float]:
    """Trains in place, and calls `keep` with a file's name at every checkpoint but the last. Batches, noise, time steps
    and dropped conditions depend on the seed alone: all variants see the same ones."""
    schedule, device = stage.schedule, runtime.device
    eeg = torch.from_numpy(items.eeg).to(device)
    embeddings, mean, std = (
        torch.from_numpy(np.load(targets / f"{name}.npy")[items.picture]).to(device) for name in
        ("embeddings", "mean", "std"))
    labels = torch.from_numpy(items.label).to(device)
    scheduler = frozen.noise_schedule()
    named = {name: p for name, p in model.named_parameters().items() if p.requires_grad}
    rates = {"encoder": schedule.lr_encoder, "tau": schedule.lr_projection, "head": schedule.lr_projection,
             "unet": schedule.lr_attention}
    groups = [{"params": [p for name, p in named.items() if name.startswith(part)], "lr": lr}
              for part, lr in rates.items()]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=schedule.weight_decay, fused=True)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / schedule.warmup)
                                              * 0.5 * (1 + np.cos(np.pi * step / schedule.steps)))
    frozen_encoder = not any(name.startswith("encoder.") for name in named)
    if frozen_encoder:
        with torch.no_grad():
            tokens = torch.cat([model.encoder(part) for part in eeg.split(200)])
    else:
        model.encoder.train()
    model.tau.train()
    torch.manual_seed(stage.seed)  # for an encoder's dropout; nothing of ours draws from it
    generator = torch.Generator().manual_seed(stage.seed)
    history: dict[str, list[Tensor]] = {"sd": [], "align": []}
    kept = {schedule.steps * number // stage.checkpoints: number for number in range(1, stage.checkpoints)}
    for step in range(schedule.steps):
        index = torch.randint(len(eeg), (schedule.batch,), generator=generator)
        posterior = torch.randn((schedule.batch, *mean.shape[1:]), generator=generator).to(device)
        noise = torch.randn((schedule.batch, *mean.shape[1:]), generator=generator).to(device)
        time = torch.randint(scheduler.config.num_train_timesteps, (schedule.batch,), generator=generator).to(device)
        dropped = (torch.rand(schedule.batch, generator=generator) < schedule.condition_dropout).to(device)
        index = index.to(device)
        context = model.tau(tokens[index] if frozen_encoder else model.encoder(eeg[index]))
        loss = context.new_zeros(())
        if stage.sd_loss:
            latents = mean[index] + std[index] * posterior
            condition = torch.where(dropped[:, None, None], model.null_context, context)
            predicted = model.unet(scheduler.add_noise(latents, noise, time), time, condition).sample
            sd = F.mse_loss(predicted, scheduler.get_velocity(latents, noise, time))
            history["sd"].append(sd.detach())
            loss = loss + sd
        if stage.align == "clip":
            align = 1 - F.cosine_similarity(model.head(context), embeddings[index], dim=-1).mean()
        elif stage.align == "label":
            align = F.cross_entropy(model.head(context), labels[index])
        if stage.align:
            history["align"].append(align.detach())
            loss = loss + schedule.clip_weight * align
        loss.backward()
        nn.utils.clip_grad_norm_(list(named.values()), schedule.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
        if step + 1 in kept:
            keep(file(kept[step + 1]))
        if step % 10 == 9 or step + 1 == schedule.steps:
            runtime.progress(step + 1, schedule.steps, loss=loss.item())
    last = max(1, schedule.steps // 10)
    return {name: torch.stack(values[-last:]).mean().item() for name, values in history.items() if values}
