"""The linear baseline: one decomposition of the training EEG, ridge regressions on it, image-to-image."""

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
from torch.nn.functional import interpolate

from bench.errors import BenchError
from bench.experiment.stages import Items, Stage, Targets
from bench.files import mapped
from bench.runtime import Runtime
from bench.systems.linear import Factors, ImageToImage, Ridge
from bench.train.generate import batches, in_batches, initial_noise
from bench.train.items import Loaded, load
from bench.train.loop import frozen_dtype, precision
from bench.train.targets import PIXELS
from models import frozen

BLOCK = 2048  # columns that are in float64 at once
CONSTANT = 1e-5  # an output that varies by less, as a share of the largest, is its mean


def decompose(stage: Factors, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes factors.safetensors: mean and std [C * T] of the training EEG X, and U [n, r], s [r] and V [C * T, r] with
    U diag(s) V' = (X - mean) / std."""
    eeg = _loaded(stage.items, stage, inputs).eeg
    x = eeg.reshape(len(eeg), -1)
    if not np.isfinite(x).all():
        raise BenchError("linear: the training EEG has values that are no finite numbers; prepare the data set again")
    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    std[std == 0] = 1
    x = (x - mean.astype(np.float32)) / std.astype(np.float32)
    with threadpool_limits(stage.numerics.threads):
        u, s, v = decomposed(x)
    save_file({name: np.ascontiguousarray(value, np.float32) for name, value in
               (("mean", mean), ("std", std), ("U", u), ("s", s), ("V", v))}, out / "factors.safetensors")


def _loaded(items: Items, factors: Factors, inputs: Callable[[Stage], Path]) -> Loaded:
    """Items as the regressions on those factors are to see them."""
    embeddings = inputs(factors.embeddings) / "embeddings.npy" if factors.embeddings else None
    return load(items, inputs(items.trials), embeddings)


def decomposed(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U [n, r], s [r], V [p, r] of x [n, p] with its columns' means removed, by the eigenvectors of the smaller of its
    two Gram matrices, in float64; directions without variance are left out."""
    wide = x.shape[0] <= x.shape[1]
    rows = x if wide else x.T

    def block(start: int) -> np.ndarray:
        return rows[:, start:start + BLOCK].astype(np.float64)

    gram = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], BLOCK):
        part = block(start)
        gram += part @ part.T
    values, own = scipy.linalg.eigh(gram, overwrite_a=True, check_finite=False)
    order = np.flatnonzero(values > 1e-10 * values[-1])[::-1]
    s, own = np.sqrt(values[order]), own[:, order]
    other = np.concatenate([(block(start).T @ (own / s)).astype(np.float32)
                            for start in range(0, rows.shape[1], BLOCK)])
    return (own, s, other) if wide else (other, s, own)


def fit_ridge(stage: Ridge, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes ridge.safetensors, and summary.json: the share of outputs with each penalty, and over the outputs R^2 of
    leaving one out (0: as good as the mean of the other trials) and the predictions' deviation as a share of the
    targets'.

    For outputs [*shape]: coef [r, outputs], of the coordinates of EEG along V; mean and std of the training targets,
    loo_mean and loo_std of the leave-one-out predictions of them, each [outputs]; shape.
    """
    about = load_file(inputs(stage.factors) / "factors.safetensors")
    u, s = about["U"].astype(np.float64), about["s"].astype(np.float64)
    known, shape = _known(stage, inputs, runtime)
    total = int(np.prod(shape))
    arrays: dict[str, list[np.ndarray]] = {}
    with threadpool_limits(stage.factors.numerics.threads):
        for start in range(0, total, BLOCK):
            found = fitted(u, s, known(start, min(start + BLOCK, total)), stage.alphas)
            for name, value in found.items():
                arrays.setdefault(name, []).append(value.astype(np.float32))
            runtime.progress(min(start + BLOCK, total), total)
    joined = {name: np.concatenate(parts, -1) for name, parts in arrays.items()}
    error, chosen = joined.pop("error"), joined.pop("alpha")
    varying = chosen > 0
    if not all(np.isfinite(value).all() for value in (error, *joined.values())) or not varying.any():
        raise BenchError("ridge has lost its way: its targets are all the same or no finite numbers; look at the "
                         "pictures and the class names")
    save_file({**joined, "shape": np.array(shape, np.int64)}, out / "ridge.safetensors")
    error = error[varying].astype(np.float64)
    others = (joined["std"][varying] * len(u) / (len(u) - 1)).astype(np.float64)**2  # errors of the other trials' mean
    r2, spread = 1 - error / others, joined["loo_std"][varying] / joined["std"][varying]
    name = "latent" if isinstance(stage.target, Targets) else "condition"
    summary = {
        "trained_parameters": {name: (len(about["V"]) + 1) * total},
        "trials": len(u), "features": len(about["V"]), "outputs": total, "constant_outputs": int((~varying).sum()),
        "losses": {"leave_one_out_mse": float(error.mean()), "mean_mse": float(others.mean())},
        "alphas": {f"{alpha:g}": float((chosen[varying] == np.float32(alpha)).mean()) for alpha in stage.alphas},
        "leave_one_out_r2": {"mean": float(r2.mean()), **_quantiles(r2)},
        "predicted_deviation": {"mean": float(spread.mean()), **_quantiles(spread)},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {f"{q}%": float(np.percentile(values, q)) for q in (5, 50, 95)}


def _known(stage: Ridge, inputs: Callable[[Stage], Path], runtime: Runtime
           ) -> tuple[Callable[[int, int], np.ndarray], tuple[int, ...]]:
    """What gives the training targets of outputs from one number to another, float64 [n, to - from], and their
    shape."""
    items = _loaded(stage.factors.items, stage.factors, inputs)
    if isinstance(stage.target, Targets):
        means = np.load(inputs(stage.target) / "mean.npy", mmap_mode="r")
        whole = means if means.ndim == 4 else means[:, 0]
        flat, rows = np.stack([whole[picture].ravel() for picture in items.picture]), np.arange(len(items.item))
    else:
        clip = frozen.load_clip(stage.target.path, stage.target.sha256).to(runtime.device)
        with torch.inference_mode():
            whole = clip.text_tokens(clip.tokenize([f"a {one}" for one in items.names]).to(runtime.device))
        whole = whole.float().cpu().numpy()
        flat, rows = whole.reshape(len(whole), -1), items.label
    return lambda start, stop: flat[:, start:stop].astype(np.float64)[rows], whole.shape[1:]


def fitted(u: np.ndarray, s: np.ndarray, y: np.ndarray, alphas: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Ridge regressions with an intercept from x = u diag(s) v' [n, p] to y [n, t], each with its own penalty.

    coef [r, t], so that the prediction is mean + (x v) coef; mean, std, loo_mean, loo_std and error (mean squared, of
    leaving one out), alpha, each [t]. Leaving one out is exact (Rifkin and Lippert 2007): e_i / (1 - h_ii), with h the
    matrix that takes y to its fit, the intercept's 1 / n included. Outputs that do not vary have alpha 0.
    """
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

    restandardise: with the mean and deviation of the training targets in place of those that leave-one-out predictions
    of them have; an output of which nothing is predicted stays at its mean. (Perceptogram takes those of the test
    predictions, so that a picture depends on the other ones.)
    """

    def __init__(self, factors: Path, ridge: Path, restandardise: bool, device: str):
        about, own = (load_file(path) for path in (factors / "factors.safetensors", ridge / "ridge.safetensors"))
        self.shape = own.pop("shape").tolist()
        if restandardise:
            gain = np.divide(own["std"], own["loo_std"], out=np.zeros_like(own["std"]), where=own["loo_std"] > 0)
            own["coef"] = own["coef"] * gain
            own["mean"] = own["mean"] + (own["mean"] - own["loo_mean"]) * gain
        self._eeg_mean, self._eeg_std, self._v, self._coef, self._mean = (
            torch.from_numpy(value).to(device)
            for value in (about["mean"], about["std"], about["V"], own["coef"], own["mean"]))

    def __call__(self, eeg: Tensor) -> Tensor:
        x = (eeg.flatten(1).to(self._v.device) - self._eeg_mean) / self._eeg_std
        return (x @ self._v @ self._coef + self._mean).unflatten(1, self.shape)


def generate_images(stage: ImageToImage, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes pictures.npy [N, samples, H, W, 3] uint8, in the order of the items, and item.npy [N].

    The predicted latent is decoded and encoded again (the posterior's mean; the released code draws from it).
    """
    sampling, device = stage.sampling, runtime.device
    autocast, dtype = precision(stage.numerics, device), frozen_dtype(stage.numerics, device)
    items = _loaded(stage.items, stage.factors, inputs)
    eeg = torch.from_numpy(items.eeg)
    clip = frozen.load_clip(stage.clip.path, stage.clip.sha256).to(device)
    unet = frozen.load_unet(stage.unet.path, stage.unet.sha256, dtype).to(device)
    vae = frozen.load_vae(stage.vae.path, stage.vae.sha256, dtype).to(device)
    shape, schedule = frozen.latent_shape(unet), frozen.noise_schedule(stage.unet.path)

    def predicted(ridge: Ridge) -> Tensor:
        predictor = Predictor(inputs(ridge.factors), inputs(ridge), stage.restandardise, device)
        return in_batches(predictor, eeg, sampling.batch)

    def seen(latents: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1]."""
        few = max(1, PIXELS // (64 * latents.shape[2] * latents.shape[3]))
        return torch.cat([vae.decode(part).float().clamp(-1, 1) for part in latents.split(few)])

    def again(latents: Tensor) -> Tensor:
        """Latents of the U-Net's size of the pictures that those latents are."""
        pictures = seen(latents)
        side = pictures.shape[-1] // latents.shape[-1] * shape[-1]
        return torch.cat([vae.encode(part) for part in resized(pictures, (side, side)).split(
            max(1, PIXELS // side**2))])

    with torch.inference_mode():
        null = clip.text_tokens(clip.tokenize([""]).to(device))
        context = predicted(stage.condition) if stage.condition else null.expand(len(eeg), -1, -1)
        latents = predicted(stage.latent) if stage.latent else None
        with autocast():
            start = None if latents is None else in_batches(again, latents, sampling.batch)
    noise = initial_noise(items.item, stage.samples, stage.seed, shape)
    drawn = mapped(out / "pictures.npy", np.uint8, (len(eeg), stage.samples, *items.pictures.shape[1:]))
    done = 0
    for rows, padded in batches(torch.arange(len(noise)), sampling.batch):
        item = padded // stage.samples
        with torch.inference_mode(), autocast():
            latents = frozen.sample(unet, context[item], null, noise[padded].to(device), sampling.steps, stage.guidance,
                                    sampling.sampler, schedule, None if start is None else start[item],
                                    sampling.steps - stage.steps)
            images = (resized(seen(latents), items.pictures.shape[1:3]).clamp(-1, 1) + 1) * 127.5
        images = images.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        drawn.reshape(-1, *drawn.shape[2:])[done:done + len(rows)] = images[:len(rows)]
        done += len(rows)
        runtime.progress(done, len(noise))
    drawn.flush()
    np.save(out / "item.npy", items.item)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [B, 3, H, W] of another size, bicubic."""
    if images.shape[-2:] == tuple(size):
        return images
    return interpolate(images, tuple(size), mode="bicubic", antialias=True)
