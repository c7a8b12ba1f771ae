"""The linear baseline: one decomposition of the training EEG, ridge regressions on it, and image-to-image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits
from torch import Tensor

from bench.errors import BenchError
from bench.experiment.stages import Targets
from bench.runtime import Runtime
from bench.systems.linear import Factors, ImageToImage, Ridge
from bench.train import Inputs
from bench.train.generate import decode, in_batches, initial_noise, resize_images, write_images
from bench.train.items import load_items
from bench.train.loop import frozen_dtype, precision
from bench.train.targets import PIXELS
from models import frozen

BLOCK = 2048  # columns held in float64 at once
CONSTANT = 1e-5  # an output whose deviation is a smaller share of the largest value is predicted by its mean


def decompose(stage: Factors, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes factors.safetensors: mean and std [C * T] of the training EEG X, and U [n, r], s [r] and V [C * T, r] with
    U diag(s) V' = (X - mean) / std."""
    eeg = load_items(stage.items, inputs, stage.embeddings).eeg
    x = eeg.reshape(len(eeg), -1)
    if not np.isfinite(x).all():
        raise BenchError("linear: the training EEG contains values that are not finite; prepare the data set again")
    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    std[std == 0] = 1
    x = (x - mean.astype(np.float32)) / std.astype(np.float32)
    with threadpool_limits(stage.numerics.threads):
        u, s, v = factorise(x)
    save_file({name: np.ascontiguousarray(value, np.float32) for name, value in
               (("mean", mean), ("std", std), ("U", u), ("s", s), ("V", v))}, out / "factors.safetensors")


def factorise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns U [n, r], s [r], V [p, r] of centred x [n, p], in float64, without directions of zero variance.
    Computed from the eigenvectors of the smaller of the two Gram matrices of x."""
    wide = x.shape[0] <= x.shape[1]
    rows = x if wide else x.T

    def block(start: int) -> np.ndarray:
        return rows[:, start:start + BLOCK].astype(np.float64)

    gram = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], BLOCK):
        part = block(start)
        gram += part @ part.T
    values, vectors = scipy.linalg.eigh(gram, overwrite_a=True, check_finite=False)
    order = np.flatnonzero(values > 1e-10 * values[-1])[::-1]
    s, vectors = np.sqrt(values[order]), vectors[:, order]
    other = np.concatenate([(block(start).T @ (vectors / s)).astype(np.float32)
                            for start in range(0, rows.shape[1], BLOCK)])
    return (vectors, s, other) if wide else (other, s, vectors)


def fit_ridge(stage: Ridge, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes ridge.safetensors and summary.json.

    ridge.safetensors, for targets of `shape`, flattened to outputs: coef [r, outputs] of the EEG's coordinates along V;
    mean and std of the training targets, loo_mean and loo_std of their leave-one-out predictions, each [outputs].
    summary.json: the share of outputs with each penalty, the leave-one-out R^2 of the outputs (0: as good as the mean
    of the other trials), and the deviation of the predictions relative to that of the targets.
    """
    factors = load_file(inputs(stage.factors) / "factors.safetensors")
    u, s = factors["U"].astype(np.float64), factors["s"].astype(np.float64)
    read_targets, shape = _open_targets(stage, inputs, runtime)
    total = int(np.prod(shape))
    blocks: list[dict[str, np.ndarray]] = []
    with threadpool_limits(stage.factors.numerics.threads):
        for start in range(0, total, BLOCK):
            stop = min(start + BLOCK, total)
            fit = regress(u, s, read_targets(start, stop), stage.alphas)
            blocks.append({name: value.astype(np.float32) for name, value in fit.items()})
            runtime.progress(stop, total)
    fit = {name: np.concatenate([block[name] for block in blocks], -1) for name in blocks[0]}
    error, chosen = fit.pop("error"), fit.pop("alpha")
    varying = chosen > 0
    if not all(np.isfinite(value).all() for value in (error, *fit.values())) or not varying.any():
        raise BenchError("ridge: the targets are all the same, or not finite; check the images and the class names")
    save_file({**fit, "shape": np.array(shape, np.int64)}, out / "ridge.safetensors")

    # Summary over the outputs that vary
    error = error[varying].astype(np.float64)
    baseline = (fit["std"][varying] * len(u) / (len(u) - 1)).astype(np.float64)**2  # MSE of the other trials' mean
    r2, spread = 1 - error / baseline, fit["loo_std"][varying] / fit["std"][varying]
    name = "embedding" if stage.embedding else "latent" if isinstance(stage.target, Targets) else "condition"
    summary = {
        "trained_parameters": {name: (len(factors["V"]) + 1) * total},
        "trials": len(u), "features": len(factors["V"]), "outputs": total, "constant_outputs": int((~varying).sum()),
        "losses": {"leave_one_out_mse": float(error.mean()), "mean_mse": float(baseline.mean())},
        "alphas": {f"{alpha:g}": float((chosen[varying] == np.float32(alpha)).mean()) for alpha in stage.alphas},
        "leave_one_out_r2": _describe(r2), "predicted_deviation": _describe(spread),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def _describe(values: np.ndarray) -> dict[str, float]:
    return {"mean": float(values.mean()), **{f"{q}%": float(np.percentile(values, q)) for q in (5, 50, 95)}}


def _open_targets(stage: Ridge, inputs: Inputs, runtime: Runtime
                  ) -> tuple[Callable[[int, int], np.ndarray], tuple[int, ...]]:
    """Returns a function (start, stop) -> training targets of these outputs, float64 [n, stop - start], and the
    targets' shape."""
    items = load_items(stage.factors.items, inputs, stage.factors.embeddings)
    if isinstance(stage.target, Targets):
        targets = np.load(inputs(stage.target) / ("embeddings.npy" if stage.embedding else "mean.npy"), mmap_mode="r")
        whole = targets if stage.embedding or targets.ndim == 4 else targets[:, 0]
        flat, rows = np.stack([whole[picture].ravel() for picture in items.picture]), np.arange(len(items.item))
    else:
        clip = frozen.load_clip(stage.target.path, stage.target.sha256).to(runtime.device)
        with torch.inference_mode():
            whole = clip.text_tokens(clip.tokenize([f"a {name}" for name in items.names]).to(runtime.device))
        whole = whole.float().cpu().numpy()
        flat, rows = whole.reshape(len(whole), -1), items.label
    return lambda start, stop: flat[:, start:stop].astype(np.float64)[rows], whole.shape[1:]


def regress(u: np.ndarray, s: np.ndarray, y: np.ndarray, alphas: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Fits ridge regressions with intercept from x = u diag(s) v' [n, p] to y [n, t], each output with its own penalty.
    Returns coef [r, t] (prediction: mean + (x v) coef) and, each [t]: mean, std, loo_mean, loo_std, error (mean
    squared error of leave-one-out) and alpha; alpha is 0 for outputs that do not vary. Leave-one-out is exact (Rifkin
    and Lippert 2007): e_i / (1 - h_ii), where h maps y to its fit, the intercept's 1 / n included."""
    n = len(y)
    mean, std = y.mean(0), y.std(0)
    varying = std > CONSTANT * np.abs(y).max()
    centred = y - mean
    along, squares = u.T @ centred, u**2
    alpha, error, left_out = np.zeros(y.shape[1]), np.full(y.shape[1], np.inf), np.zeros_like(y)
    for candidate in alphas:
        shrunk = s**2 / (s**2 + candidate)
        residual = (centred - u @ (shrunk[:, None] * along)) / (1 - 1 / n - squares @ shrunk)[:, None]
        mse = (residual**2).mean(0)
        better = (mse < error) & varying
        alpha[better], error[better], left_out[:, better] = candidate, mse[better], residual[:, better]
    predicted = y - left_out
    return {"coef": np.where(varying, s[:, None] / (s[:, None]**2 + alpha) * along, 0), "mean": mean,
            "std": np.where(varying, std, 0), "loo_mean": predicted.mean(0), "loo_std": predicted.std(0),
            "error": np.where(varying, error, 0), "alpha": alpha}


class Predictor:
    """A fitted regression: EEG [B, C, T] -> [B, *shape] float32.
    restandardise: scales predictions from the mean and deviation of the leave-one-out predictions to those of the
    training targets; constant outputs stay at their mean. (Perceptogram uses those of the test predictions, which
    makes an image depend on the other test items.)"""

    def __init__(self, factors: Path, ridge: Path, restandardise: bool, device: str):
        eeg, fit = (load_file(path) for path in (factors / "factors.safetensors", ridge / "ridge.safetensors"))
        self.shape = fit.pop("shape").tolist()
        if restandardise:
            gain = np.divide(fit["std"], fit["loo_std"], out=np.zeros_like(fit["std"]), where=fit["loo_std"] > 0)
            fit["coef"] = fit["coef"] * gain
            fit["mean"] = fit["mean"] + (fit["mean"] - fit["loo_mean"]) * gain
        self._eeg_mean, self._eeg_std, self._v, self._coef, self._mean = (
            torch.from_numpy(value).to(device)
            for value in (eeg["mean"], eeg["std"], eeg["V"], fit["coef"], fit["mean"]))

    def __call__(self, eeg: Tensor) -> Tensor:
        x = (eeg.flatten(1).to(self._v.device) - self._eeg_mean) / self._eeg_std
        return (x @ self._v @ self._coef + self._mean).unflatten(1, self.shape)


def generate_images(stage: ImageToImage, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy and item.npy (`write_images`).
    The predicted latent is decoded and encoded again, at the U-Net's size: the posterior's mean (the released code
    draws from the posterior)."""
    sampling, device = stage.sampling, runtime.device
    autocast, dtype = precision(stage.numerics, device), frozen_dtype(stage.numerics, device)
    items = load_items(stage.items, inputs, stage.factors.embeddings)
    eeg = torch.from_numpy(items.eeg)
    clip = frozen.load_clip(stage.clip.path, stage.clip.sha256).to(device)
    unet = frozen.load_unet(stage.unet.path, stage.unet.sha256, dtype).to(device)
    vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype).to(device)
    shape, schedule = frozen.latent_shape(unet), frozen.noise_schedule(stage.unet.path)

    def predict(ridge: Ridge) -> Tensor:
        predictor = Predictor(inputs(ridge.factors), inputs(ridge), stage.restandardise, device)
        return in_batches(predictor, eeg, sampling.batch, runtime)

    def encode_again(latents: Tensor) -> Tensor:
        images = decode(vae, latents)
        side = images.shape[-1] // latents.shape[-1] * shape[-1]
        parts = resize_images(images, (side, side)).split(max(1, PIXELS // side**2))
        return torch.cat([vae.encode(part) for part in parts])

    # The condition and the initial latents of each item
    with torch.inference_mode():
        null = clip.text_tokens(clip.tokenize([""]).to(device))
        context = predict(stage.condition) if stage.condition else null.expand(len(eeg), -1, -1)
        latents = predict(stage.latent) if stage.latent else None
        with autocast():
            start = None if latents is None else in_batches(encode_again, latents, sampling.batch, runtime)
    noise = initial_noise(items.item, stage.samples, stage.seed, shape)

    def sample(rows: Tensor) -> Tensor:
        item = rows // stage.samples
        latents = frozen.sample(unet, context[item], null, noise[rows].to(device), sampling.steps, stage.guidance,
                                sampling.sampler, schedule, None if start is None else start[item],
                                sampling.steps - stage.steps)
        return (resize_images(decode(vae, latents), items.pictures.shape[1:3]).clamp(-1, 1) + 1) * 127.5

    write_images(out, items, stage.samples, sampling.batch, sample, runtime, autocast)
