"""Pre-training by masked signal modelling (Sec. 3.1), with simple predictors under the same masks for comparison."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.data.shards import REFERENCE, Windows, open_corpus, open_shards
from bench.experiment.stages import Corpus, Pretrain, Schedule, Shards
from bench.runtime import Runtime
from bench.train import Inputs, parallel
from bench.train.encoder import build
from bench.train.loop import Training, compile_blocks, precision, prefetch, to_device
from bench.train.losses import seeded
from models.mae import MaskedAutoencoder
from models.masking import Masking, random_masking
from models.parameters import count_parameters

EVALUATION_MASKS = 16  # the same for all predictors
REPORTS = 10  # evaluations of the held-out loss during training
QUICK = 256  # held-out windows of such an evaluation
VALUES = 1 << 28  # maximum size of the data for the simple predictors, and of the held-out data
LOGGED = 20  # steps between two progress reports


def pretrain(stage: Pretrain, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes encoder.safetensors and pretrain.json: masked MSE on held-out recordings, during training and at the end.
    The seed determines initial weights, order of windows and masks; the held-out masks are the same for every seed. Of
    a large corpus, evenly spread held-out windows are used (`VALUES`)."""
    schedule, device, autocast = stage.schedule, runtime.device, precision(stage.numerics, runtime.device)

    # Data
    corpus: _Corpus = _open_corpus(stage.corpus, inputs(stage.corpus))
    if stage.divisor != 1:
        corpus = _DividedCorpus(corpus, stage.divisor)
    channels, times = corpus.n_chans, corpus.n_times
    limit = VALUES // (channels * times)
    train, held_out = corpus.rows("train"), _spread(corpus.rows("held_out"), limit)

    # Model
    with seeded(stage.seed):
        encoder = build(stage.encoder, channels, times, runtime)
        with torch.no_grad():
            _, tokens, width = encoder.eval().tokenize(corpus.gather(held_out[:1], "cpu")).shape
        decoder = stage.decoder
        model = MaskedAutoencoder(encoder, channels, times, width, tokens, decoder.width, decoder.depth, decoder.heads,
                                  decoder.mlp_ratio, stage.class_token).to(device)

    if schedule.compiled and torch.device(device).type == "cuda":
        compile_blocks(model)

    # Fixed masks for evaluation; held-out window i has mask i % EVALUATION_MASKS
    masks = random_masking(EVALUATION_MASKS, tokens, stage.mask_ratio, torch.Generator().manual_seed(0), stage.rounding)
    turn = torch.arange(len(held_out)) % EVALUATION_MASKS
    held_out_masks = Masking(masks.keep[turn], masks.remove[turn])

    # Optimiser
    optimizer, rate = _optimizer(model, schedule)
    training = Training(stage, model.state_dict(), list(model.parameters()), optimizer, rate, runtime)

    # State that is not in the model or the optimiser; from a checkpoint, if there is one
    generator = torch.Generator().manual_seed(stage.seed)
    curve, order = [], torch.empty(0, dtype=torch.int64)
    if (extra := training.resume()) is not None:
        generator.set_state(extra["generator"])
        curve, order = extra["curve"], extra["order"]

    def fetch(draw: tuple[Tensor, Masking, Tensor, Tensor]) -> dict[str, Tensor]:
        """Loads this process's windows of a batch, with their masks, onto the device."""
        batch, masking, *_ = draw
        rows = training.rows
        return {"windows": corpus.gather(train[batch[rows].numpy()], device),
                "keep": to_device(masking.keep[rows], device), "remove": to_device(masking.remove[rows], device)}

    draw_masks = partial(random_masking, length=tokens, ratio=stage.mask_ratio, generator=generator,
                         rounding=stage.rounding)
    draws = _draws(len(train), schedule, draw_masks, generator, order, training.step)
    for (_, _, state, order), fetched in prefetch(draws, fetch, device):
        def loss(rows: slice, fetched: dict[str, Tensor] = fetched) -> dict[str, Tensor]:
            windows, keep, remove = (fetched[name][rows] for name in ("windows", "keep", "remove"))
            with autocast():
                return {"loss": model(windows, Masking(keep, remove))}

        step = training.step
        model.train()
        losses = training.update(loss)

        # Held-out loss, progress, checkpoint
        if (step + 1) % max(1, schedule.steps // REPORTS) == 0 and parallel.rank() == 0:
            curve.append({"step": step + 1,
                          "held_out": _evaluate(model, corpus, held_out, held_out_masks, QUICK, runtime, autocast)})
        if step % LOGGED == 0:
            training.report(losses, step)
            training.save_when_due(lambda state=state, order=order: {
                "generator": state, "order": order.clone(), "curve": curve})
    if parallel.rank() != 0:
        return

    # Results
    save_file({name: tensor.cpu().contiguous() for name, tensor in encoder.state_dict().items()},
              out / "encoder.safetensors")
    masked_mse = _evaluate(model, corpus, held_out, held_out_masks, len(held_out), runtime, autocast)
    if getattr(encoder, "in_time", True):
        simple = baselines(corpus.gather(_spread(train, limit), "cpu"), corpus.gather(held_out, "cpu"), held_out_masks)
    else:
        targets = model.targets(corpus.gather(held_out, device), held_out_masks.to(device))
        simple = {"mean_mse": float(targets.square().mean())}
    summary = {"mask_ratio": stage.mask_ratio, "held_out_windows": len(held_out), "masked_mse": masked_mse, **simple,
               "curve": curve, "encoder_parameters": count_parameters(encoder)}
    (out / "pretrain.json").write_text(json.dumps(summary, indent=1) + "\n")


def _open_corpus(corpus: Corpus, folder: Path) -> Windows | _TinyCorpus:
    """Opens the windows of a Corpus stage: an array of scale tiny, or shards, which `gather` reads."""
    if isinstance(corpus.world, Shards) and corpus.world.path:
        return open_shards(Path(corpus.world.path), corpus.world.sha256, corpus.channels)
    return open_corpus(folder) if (folder / REFERENCE).is_file() else _TinyCorpus(folder)


class _TinyCorpus:
    """The corpus of scale tiny, as shards.Windows; in memory, each time step contiguous, as in patches."""

    def __init__(self, folder: Path):
        with open(folder / "index.csv", newline="") as file:
            part = np.array([row["part"] for row in csv.DictReader(file)])
        train, held_out = (np.flatnonzero(part == name) for name in ("train", "held_out"))
        windows = np.load(folder / "windows.npy", mmap_mode="r")[np.concatenate([train, held_out])]
        self._windows = torch.from_numpy(np.ascontiguousarray(windows.swapaxes(1, 2))).transpose(1, 2)
        self._rows = {"train": np.arange(len(train)), "held_out": len(train) + np.arange(len(held_out))}
        self.n_chans, self.n_times = self._windows.shape[1:]

    def rows(self, part: str) -> np.ndarray:
        return self._rows[part]

    def gather(self, rows: np.ndarray, device: str) -> Tensor:
        return self._windows[torch.from_numpy(rows)].to(device)


class _DividedCorpus:
    """The windows of another corpus, each divided by a number."""

    def __init__(self, corpus: Windows | _TinyCorpus, divisor: float):
        self._corpus, self._divisor = corpus, divisor
        self.n_chans, self.n_times = corpus.n_chans, corpus.n_times

    def rows(self, part: str) -> np.ndarray:
        return self._corpus.rows(part)

    def gather(self, rows: np.ndarray, device: str) -> Tensor:
        return self._corpus.gather(rows, device) / self._divisor


_Corpus = Windows | _TinyCorpus | _DividedCorpus


def _spread(rows: np.ndarray, limit: int) -> np.ndarray:
    """Returns all rows, or `limit` evenly spread ones."""
    return rows if len(rows) <= limit else rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]


def _draws(windows: int, schedule: Schedule, draw_masks: Callable[[int], Masking], generator: torch.Generator,
           order: Tensor, begin: int) -> Iterator[tuple[Tensor, Masking, Tensor, Tensor]]:
    """Yields for each step from `begin` the batch's windows [B] and their masks, and the state to resume from after it:
    the generator's, and the rest of the order of windows, which is extended by a new permutation when it is too
    short."""
    for _ in range(begin, schedule.steps):
        while len(order) < schedule.batch:
            order = torch.cat([order, torch.randperm(windows, generator=generator)])
        batch, order = order[: schedule.batch], order[schedule.batch :]
        masking = draw_masks(len(batch))
        yield batch, masking, generator.get_state(), order


def _optimizer(model: nn.Module, schedule: Schedule) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW without weight decay on biases, norms and the mask token; linear warm-up, half-cosine decay to zero."""
    parameters = list(model.parameters())
    matrices = {id(p) for p in parameters if p.ndim == 2}
    groups = [{"params": [p for p in parameters if id(p) in matrices], "weight_decay": schedule.weight_decay},
              {"params": [p for p in parameters if id(p) not in matrices], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, schedule.lr, betas=(0.9, 0.95), fused=True)

    def factor(step: int) -> float:
        if step < schedule.warmup:
            return (step + 1) / schedule.warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@torch.inference_mode()
def _evaluate(model: MaskedAutoencoder, corpus: _Corpus, rows: np.ndarray, masks: Masking, n: int, runtime: Runtime,
              autocast: Callable[[], AbstractContextManager]) -> float:
    """Masked MSE over n evenly spread windows of `rows`; `masks` are in the order of `rows`."""
    model.eval()
    chosen = torch.linspace(0, len(rows) - 1, min(n, len(rows))).long()
    total = 0.0
    for part in chosen.split(256):
        masking = Masking(masks.keep[part], masks.remove[part]).to(runtime.device)
        with autocast():
            total += float(model(corpus.gather(rows[part.numpy()], runtime.device), masking)) * len(part)
    return total / len(chosen)


def baselines(train: Tensor, held_out: Tensor, masks: Masking) -> dict[str, float]:
    """Masked MSE on held-out windows [N, C, T] of three predictors that see the encoder's visible samples.

    mean            each channel's mean over the window, which is zero after normalisation
    interpolation   linear in time between the visible samples of the same channel, constant beyond them
    wiener          the best linear predictor from the visible samples of the same channel, by the covariance over time
                    of the training windows. Since whole time steps are masked, it is also the best one from all
                    channels wherever the covariance is separable into time and channels.
    """
    channels, times = train.shape[1:]
    patch = times // (masks.keep.shape[1] + masks.remove.shape[1])
    series = train.transpose(1, 2).reshape(len(train), times, channels)[::4].transpose(0, 1).reshape(times, -1).double()
    covariance = series @ series.T / series.shape[1]
    squares: dict[str, float] = {"mean_mse": 0.0, "interpolation_mse": 0.0, "wiener_mse": 0.0}
    for pattern in range(min(EVALUATION_MASKS, len(held_out))):
        windows = held_out[pattern::EVALUATION_MASKS].double()
        seen, hidden = ((index[pattern][:, None] * patch + torch.arange(patch)).flatten()
                        for index in (masks.keep, masks.remove))
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
    """The matrix [seen, hidden] of linear interpolation, float64; constant outside of the seen samples."""
    after = torch.searchsorted(seen, hidden)
    right, left = after.clamp(max=len(seen) - 1), (after - 1).clamp(min=0)
    share = (hidden - seen[left]) / (seen[right] - seen[left]).clamp(min=1)
    share = share.double().clamp(0, 1)
    matrix = torch.zeros(len(seen), len(hidden), dtype=torch.float64)
    column = torch.arange(len(hidden))
    matrix[left, column] += 1 - share
    matrix[right, column] += share
    return matrix
