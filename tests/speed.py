"""How fast the metrics are beside the usual ways, measured side by side and in turns: python tests/speed.py

A benchmark, not a test: it prints what it measured on this machine, with one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torchmetrics.functional.classification import multiclass_accuracy

from bench import metrics

ROUNDS = 5
PICTURES, CLASSES, NWAY, TRIALS = 500, 1000, 50, 50
SLOW = 20  # pictures that the slow sides of n-way accuracy take in a round; their time is scaled to PICTURES
DIMENSIONS = 1024


def released(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Accuracy [N] by the loop of the released code: softmax, then 50 random draws for each picture, each scored by
    torchmetrics. Its `accuracy` has since become `multiclass_accuracy`."""
    values = []
    for row, own in zip(torch.from_numpy(logits).softmax(1), target, strict=True):
        others = [i for i in np.arange(len(row)) if i != own]
        hits = []
        for _ in range(TRIALS):
            picked = np.random.choice(others, NWAY - 1, replace=False)  # noqa: NPY002
            scores = torch.cat([row[own:own + 1], row[picked]])
            hits.append(multiclass_accuracy(scores[None], torch.tensor([0]), NWAY, average="micro",
                                            validate_args=False).item())
        values.append(np.mean(hits))
    return np.array(values)


def stripped(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The same draws with nothing else around them: numpy's choice and a comparison."""
    rng, values = np.random.default_rng(0), []
    for row, own in zip(logits, target, strict=True):
        others = np.delete(row, own)
        values.append(np.mean([(rng.choice(others, NWAY - 1, replace=False) < row[own]).all() for _ in range(TRIALS)]))
    return np.array(values)


def by_eigenvalues(x: np.ndarray, y: np.ndarray) -> float:
    """FID by the eigenvalues of the product of the covariances, as torchmetrics and torch-fidelity compute it."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    return float(np.square(x.mean(0) - y.mean(0)).sum() + a.trace() + b.trace() - 2 * root)


def measure(sides: dict[str, tuple[Callable[[], object], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each side times its scale; the sides take turns, after a round that does not count. In a turn a
    side runs as often as fits into a tenth of a second, and at least once."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, (run, scale) in sides.items():
            start, runs = time.perf_counter(), 0
            while not runs or time.perf_counter() - start < 0.1:
                run()
                runs += 1
            if turn:
                seconds[name].append((time.perf_counter() - start) / runs * scale)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(title: str, seconds: dict[str, float], note: str) -> None:
    """Prints a table in which the first side is the suite's own."""
    own = next(iter(seconds.values()))
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:<58}{value * 1000:>12.2f} ms{value / own:>10.1f} x")
    print(f"  {note}")


def main() -> None:
    """Both comparisons, about a minute."""
    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((PICTURES, CLASSES)), rng.integers(0, CLASSES, PICTURES)
    logits[np.arange(PICTURES), target] += 2
    exact = metrics.nway_accuracy(logits, target, NWAY)
    few, scale = slice(SLOW), PICTURES / SLOW
    seconds = measure({
        "exact, from ranks": (lambda: metrics.nway_accuracy(logits, target, NWAY), 1),
        f"{TRIALS} trials, the released code's loop *": (lambda: released(logits[few], target[few]), scale),
        f"{TRIALS} trials, draws and comparison alone *": (lambda: stripped(logits[few], target[few]), scale)})
    error = np.abs(stripped(logits, target) - exact)
    show(f"{NWAY}-way top-1 of {PICTURES} pictures, {CLASSES} classes", seconds,
         f"* timed on {SLOW} pictures and scaled to {PICTURES}. Trials differ from the exact value by "
         f"{error.mean():.3f} on average, {error.max():.3f} at most.")

    x, y = rng.standard_normal((2, PICTURES, DIMENSIONS))
    y = y * np.linspace(0.5, 1.5, DIMENSIONS) + 0.1
    seconds = measure({
        "singular values of AB'": (lambda: metrics.frechet_distance(x, y), 1),
        "eigenvalues of the product of covariances": (lambda: by_eigenvalues(x, y), 1)})
    ours, theirs = metrics.frechet_distance(x, y), by_eigenvalues(x, y)
    show(f"FID of {PICTURES} and {PICTURES} pictures at {DIMENSIONS} dimensions", seconds,
         f"{ours:.9f} and {theirs:.9f}, relative difference {abs(ours - theirs) / theirs:.1e}.")


if __name__ == "__main__":
    with threadpool_limits(1):
        torch.set_num_threads(1)
        main()
