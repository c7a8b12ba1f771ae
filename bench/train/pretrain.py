"""Masked signal modelling (Sec. 3.1) on the corpus, and what simple predictors make of the same masks."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.runtime import Runtime
from bench.stages import Pretrain, Schedule, Stage
from bench.train.encoder import build
from models.mae import MaskedAutoencoder
from models.masking import Masking, random_masking

EVALUATION_MASKS = 16  # the same for every predictor, each over its share of the held-out windows
REPORTS = 10  # held-out losses along the way
QUICK = 256  # held-out windows of such a report


def pretrain(stage: Pretrain, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes encoder.safetensors and pretrain.json: masked MSE on held-out recordings, along the way and at the end.

    The seed decides initial weights, order of windows and masks; the held-out masks are the same for every seed.
    """
    schedule = stage.schedule
    train, held_out = _windows(inputs(stage.corpus))
    channels, times = train.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        encoder = build(stage.encoder, channels, times, runtime)
        with torch.no_grad():
            _, tokens, width = encoder.eval().tokenize(held_out[:1]).shape
        decoder = stage.decoder
        model = MaskedAutoencoder(encoder, channels, times, width, tokens, decoder.width, decoder.depth, decoder.heads,
                                  decoder.mlp_ratio).to(runtime.device)
    test = _evaluation_masks(len(held_out), tokens, stage.mask_ratio)
    train, held_out = train.to(runtime.device), held_out.to(runtime.device)
    torch.manual_seed(stage.seed)  # for an encoder's dropout; nothing of ours draws from it
    generator = torch.Generator().manual_seed(stage.seed)
    optimizer, rate = _optimizer(model, schedule)
    curve, order = [], torch.empty(0, dtype=torch.int64)
    for step in range(schedule.steps):
        if len(order) < schedule.batch:
            order = torch.cat([order, torch.randperm(len(train), generator=generator)])
        batch, order = order[: schedule.batch], order[schedule.batch :]
        masking = random_masking(len(batch), tokens, stage.mask_ratio, generator).to(runtime.device)
        loss = model.train()(train[batch.to(runtime.device)], masking)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        if step % 20 == 0:
            runtime.progress(step, schedule.steps, loss=float(loss.detach()))
        if (step + 1) % max(1, schedule.steps // REPORTS) == 0:
            curve.append({"step": step + 1, "held_out": _loss(model, held_out, test, QUICK)})
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in encoder.state_dict().items()}, out / "encoder.safetensors"
    )
    summary = {
        "mask_ratio": stage.mask_ratio,
        "held_out_windows": len(held_out),
        "masked_mse": _loss(model, held_out, test, len(held_out)),
        **baselines(train.cpu(), held_out.cpu(), test),
        "curve": curve,
        "encoder_parameters": sum(p.numel() for p in encoder.parameters()),
    }
    (out / "pretrain.json").write_text(json.dumps(summary, indent=1) + "\n")


def _windows(corpus: Path) -> tuple[Tensor, Tensor]:
    """Windows for training and held-out ones, [N, C, T]; laid out time step by time step, as patches are."""
    windows = np.load(corpus / "windows.npy", mmap_mode="r")
    with open(corpus / "index.csv", newline="") as file:
        part = np.array([row["part"] for row in csv.DictReader(file)])

    def laid_out(name: str) -> Tensor:
        rows = np.flatnonzero(part == name)
        return torch.from_numpy(np.ascontiguousarray(windows[rows].swapaxes(1, 2))).transpose(1, 2)

    return laid_out("train"), laid_out("held_out")


def _optimizer(model: nn.Module, schedule: Schedule) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW without weight decay on biases, norms and the mask token; linear warm-up, then half a cosine to zero."""
    parameters = list(model.parameters())
    matrices = {id(p) for p in parameters if p.ndim == 2}
    groups = [
        {"params": [p for p in parameters if id(p) in matrices], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if id(p) not in matrices], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, schedule.lr, betas=(0.9, 0.95), fused=True)

    def factor(step: int) -> float:
        if step < schedule.warmup:
            return (step + 1) / schedule.warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _evaluation_masks(windows: int, tokens: int, ratio: float) -> Masking:
    """Fixed masks, window i under mask i % EVALUATION_MASKS."""
    masks = random_masking(EVALUATION_MASKS, tokens, ratio, torch.Generator().manual_seed(0))
    rows = torch.arange(windows) % EVALUATION_MASKS
    return Masking(masks.keep[rows], masks.remove[rows])


@torch.inference_mode()
def _loss(model: MaskedAutoencoder, windows: Tensor, masks: Masking, n: int) -> float:
    """Masked MSE over n of the windows, evenly spread."""
    model.eval()
    chosen = torch.linspace(0, len(windows) - 1, min(n, len(windows))).long()
    total = 0.0
    for rows in chosen.split(256):
        masking = Masking(masks.keep[rows], masks.remove[rows]).to(windows.device)
        total += float(model(windows[rows.to(windows.device)], masking)) * len(rows)
    return total / len(chosen)


def baselines(train: Tensor, held_out: Tensor, masks: Masking) -> dict[str, float]:
    """Masked MSE on the held-out windows [N, C, T] of three predictors that see what the encoder sees.

    mean            each channel's mean over the window, which normalisation has made zero
    interpolation   a straight line in time between the visible samples of the same channel, flat beyond the outer ones
    wiener          the best linear predictor from the visible samples of the same channel, by the covariance over time
                    of the training windows' channels. Since whole time steps are masked, that is also the best one
                    from all channels wherever covariance is separable into time and channels.
    """
    channels, times = train.shape[1:]
    patch = times // (masks.keep.shape[1] + masks.remove.shape[1])
    series = train.transpose(1, 2).reshape(len(train), times, channels)[::4].transpose(0, 1).reshape(times, -1).double()
    covariance = series @ series.T / series.shape[1]
    squares: dict[str, float] = {"mean_mse": 0.0, "interpolation_mse": 0.0, "wiener_mse": 0.0}
    for pattern in range(min(EVALUATION_MASKS, len(held_out))):
        windows = held_out[pattern::EVALUATION_MASKS].double()
        seen, hidden = (
            (index[pattern][:, None] * patch + torch.arange(patch)).flatten() for index in (masks.keep, masks.remove)
        )
        inner = covariance[seen][:, seen] + 1e-6 * covariance.diagonal().mean() * torch.eye(len(seen)).double()
        truth = windows[..., hidden]
        predictions = {
            "mean_mse": torch.zeros(()).double(),
            "interpolation_mse": windows[..., seen] @ _interpolation(seen, hidden),
            "wiener_mse": windows[..., seen] @ torch.linalg.solve(inner, covariance[seen][:, hidden]),
        }
        for name, prediction in predictions.items():
            squares[name] += float(((truth - prediction) ** 2).sum()) / len(hidden)
    return {name: total / (len(held_out) * channels) for name, total in squares.items()}


def _interpolation(seen: Tensor, hidden: Tensor) -> Tensor:
    """The matrix [seen, hidden] of linear interpolation, float64; constant outside the seen samples."""
    after = torch.searchsorted(seen, hidden)
    right, left = after.clamp(max=len(seen) - 1), (after - 1).clamp(min=0)
    share = (hidden - seen[left]) / (seen[right] - seen[left]).clamp(min=1)
    share = share.double().clamp(0, 1)
    matrix = torch.zeros(len(seen), len(hidden), dtype=torch.float64)
    column = torch.arange(len(hidden))
    matrix[left, column] += 1 - share
    matrix[right, column] += share
    return matrix
