"""Masked signal modelling (Sec. 3.1) on the corpus, and what simple predictors make of the same masks."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.data.shards import REFERENCE, open_corpus, opened
from bench.experiment.stages import Corpus, Pretrain, Schedule, Shards, Stage
from bench.runtime import Runtime
from bench.train import parallel
from bench.train.encoder import build
from bench.train.loop import AHEAD, Training, precision, prefetched
from models.mae import MaskedAutoencoder
from models.masking import Masking, random_masking
from models.parameters import count_parameters

EVALUATION_MASKS = 16  # the same for every predictor, each over its share of the held-out windows
REPORTS = 10  # held-out losses along the way
QUICK = 256  # held-out windows of such a report
VALUES = 1 << 28  # numbers that the simple predictors learn from, and that everything is evaluated on, at most
LOGGED = 20  # steps from one line of the log to the next


class Windows(Protocol):
    """A corpus: rows("train"), rows("held_out") -> [N] int64, gather(rows, device) -> [B, C, T] float32."""

    n_chans: int
    n_times: int

    def rows(self, part: str) -> np.ndarray: ...

    def gather(self, rows: np.ndarray, device: str) -> Tensor: ...


def pretrain(stage: Pretrain, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes encoder.safetensors and pretrain.json: masked MSE on held-out recordings, along the way and at the end.

    The seed decides initial weights, order of windows and masks; the held-out masks are the same for every seed. Of a
    large corpus held-out windows are a part, evenly spread (`VALUES`).
    """
    schedule, corpus = stage.schedule, _corpus(stage.corpus, inputs(stage.corpus))
    channels, times = corpus.n_chans, corpus.n_times
    limit = VALUES // (channels * times)
    train, held_out = corpus.rows("train"), _evenly(corpus.rows("held_out"), limit)
    autocast = precision(stage.numerics, runtime.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        encoder = build(stage.encoder, channels, times, runtime)
        with torch.no_grad():
            _, tokens, width = encoder.eval().tokenize(corpus.gather(held_out[:1], "cpu")).shape
        decoder = stage.decoder
        model = MaskedAutoencoder(encoder, channels, times, width, tokens, decoder.width, decoder.depth, decoder.heads,
                                  decoder.mlp_ratio).to(runtime.device)
    test = _evaluation_masks(len(held_out), tokens, stage.mask_ratio)
    optimizer, rate = _optimizer(model, schedule)
    training = Training(stage, model.state_dict(), list(model.parameters()), optimizer, rate, runtime)
    generator = torch.Generator().manual_seed(stage.seed)
    curve, order = [], torch.empty(0, dtype=torch.int64)
    if (kept := training.resume()) is not None:
        generator.set_state(kept["generator"])
        curve, order = kept["curve"], kept["order"]

    def fetch(draw: tuple[Tensor, Masking, Tensor, Tensor]) -> tuple[Tensor, Masking, Tensor, Tensor]:
        batch, masking, state, left = draw
        own = training.rows
        return (corpus.gather(train[batch[own].numpy()], runtime.device),
                Masking(masking.keep[own], masking.remove[own]).to(runtime.device), state, left)

    draws = _draws(len(train), schedule, tokens, stage.mask_ratio, generator, order, training.step)
    ahead = AHEAD if torch.device(runtime.device).type == "cuda" else 0
    for windows, masking, state, order in prefetched(draws, fetch, ahead):
        def loss(rows: slice, windows: Tensor = windows, masking: Masking = masking) -> dict[str, Tensor]:
            with autocast():
                return {"loss": model(windows[rows], Masking(masking.keep[rows], masking.remove[rows]))}

        step = training.step
        model.train()
        found = training.update(loss)
        if (step + 1) % max(1, schedule.steps // REPORTS) == 0 and parallel.rank() == 0:
            curve.append({"step": step + 1, "held_out": _loss(model, corpus, held_out, test, QUICK, runtime, autocast)})
        if step % LOGGED == 0:
            training.report(found, step)
            training.save_when_due(lambda state=state, order=order: {
                "generator": state, "order": order.clone(), "curve": curve})
    if parallel.rank() != 0:
        return
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in encoder.state_dict().items()}, out / "encoder.safetensors"
    )
    summary = {
        "mask_ratio": stage.mask_ratio,
        "held_out_windows": len(held_out),
        "masked_mse": _loss(model, corpus, held_out, test, len(held_out), runtime, autocast),
        **(baselines(corpus.gather(_evenly(train, limit), "cpu"), corpus.gather(held_out, "cpu"), test)
           if getattr(encoder, "in_time", True) else
           {"mean_mse": float(model.targets(corpus.gather(held_out, runtime.device), test.to(runtime.device))
                              .square().mean())}),
        "curve": curve,
        "encoder_parameters": count_parameters(encoder),
    }
    (out / "pretrain.json").write_text(json.dumps(summary, indent=1) + "\n")


def _corpus(corpus: Corpus, folder: Path) -> Windows:
    """The windows of a Corpus stage: tiny's, or shards of which only what is gathered is read."""
    if isinstance(corpus.world, Shards) and corpus.world.path:
        return opened(Path(corpus.world.path), corpus.world.sha256)
    return open_corpus(folder) if (folder / REFERENCE).is_file() else _Tiny(folder)


class _Tiny:
    """Tiny's corpus, whole in memory, as `Windows`."""

    def __init__(self, folder: Path):
        parts = _windows(folder)
        self._lengths = [len(part) for part in parts]
        self._windows = torch.cat([part.transpose(1, 2) for part in parts]).transpose(1, 2)
        self.n_chans, self.n_times = self._windows.shape[1:]

    def rows(self, part: str) -> np.ndarray:
        train, held_out = self._lengths
        return np.arange(train) if part == "train" else train + np.arange(held_out)

    def gather(self, rows: np.ndarray, device: str) -> Tensor:
        return self._windows[torch.from_numpy(rows)].to(device)


def _windows(corpus: Path) -> tuple[Tensor, Tensor]:
    """Windows for training and held-out ones, [N, C, T]; laid out time step by time step, as patches are."""
    windows = np.load(corpus / "windows.npy", mmap_mode="r")
    with open(corpus / "index.csv", newline="") as file:
        part = np.array([row["part"] for row in csv.DictReader(file)])

    def laid_out(name: str) -> Tensor:
        rows = np.flatnonzero(part == name)
        return torch.from_numpy(np.ascontiguousarray(windows[rows].swapaxes(1, 2))).transpose(1, 2)

    return laid_out("train"), laid_out("held_out")


def _evenly(rows: np.ndarray, limit: int) -> np.ndarray:
    """All rows, or `limit` of them, evenly spread."""
    return rows if len(rows) <= limit else rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]


def _draws(windows: int, schedule: Schedule, tokens: int, ratio: float, generator: torch.Generator, order: Tensor,
           begin: int) -> Iterator[tuple[Tensor, Masking, Tensor, Tensor]]:
    """For each step from `begin` on: the batch's windows [B], their masks, and what to go on from after them: the
    generator's state, and what is left of the order of windows, which is drawn anew when every window has been seen."""
    for _ in range(begin, schedule.steps):
        while len(order) < schedule.batch:
            order = torch.cat([order, torch.randperm(windows, generator=generator)])
        batch, order = order[: schedule.batch], order[schedule.batch :]
        masking = random_masking(len(batch), tokens, ratio, generator)
        yield batch, masking, generator.get_state(), order


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
def _loss(model: MaskedAutoencoder, corpus: Windows, rows: np.ndarray, masks: Masking, n: int, runtime: Runtime,
          autocast: Callable[[], AbstractContextManager]) -> float:
    """Masked MSE over n of those windows, evenly spread; their masks stand in their order."""
    model.eval()
    chosen = torch.linspace(0, len(rows) - 1, min(n, len(rows))).long()
    total = 0.0
    for part in chosen.split(256):
        masking = Masking(masks.keep[part], masks.remove[part]).to(runtime.device)
        with autocast():
            total += float(model(corpus.gather(rows[part.numpy()], runtime.device), masking)) * len(part)
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
