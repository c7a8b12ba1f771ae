"""How fast a corpus is read for training: python tests/speed_input.py

A benchmark, not a test: 4,000 windows of 64 channels x 512 steps in 20 shards, batches of 100 rows in random order, by
two threads. "read": blocks of float16, as they go to a GPU, which replicates channels and makes float32 of them;
"on the CPU": the same, with that done by one thread here.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from bench.data import catalogue, corpora, shard_writer, shards

WINDOWS, CHANNELS, PEOPLE, BATCH, ROUNDS, WORKERS = 4000, 64, 20, 100, 7, 2


def corpus(root: Path) -> shards.Windows:
    """A corpus of random windows."""
    rng, receipts = np.random.default_rng(0), []
    work = corpora.open_work_folder(root / "corpora" / "speed", catalogue.Cutting())
    n = WINDOWS // PEOPLE
    for subject in range(1, PEOPLE + 1):
        writer = shard_writer.ShardWriter(work, "speed", subject)
        windows = rng.standard_normal((n, CHANNELS, 512), np.float32).astype(np.float16)
        writer.add(windows, [("0", "0", float(i)) for i in range(n)], 250.0, [5.0, 95.0])
        receipts.append(writer.close(Counter(), Counter()))
    settings = {"band": [5.0, 95.0], "window": {"n_times": 512}}
    return shards.open_shards(shard_writer.finish_corpus("speed", root, work, receipts, settings, []))


def rate(batches: Callable[[list[np.ndarray]], Iterable[object]]) -> list[float]:
    """Windows a second of each round over the whole corpus, after one that does not count."""
    found = []
    for turn in range(ROUNDS + 1):
        order = np.array_split(np.random.default_rng(turn).permutation(WINDOWS), WINDOWS // BATCH)
        begin = time.perf_counter()
        for _ in batches(order):
            pass
        found.append(WINDOWS / (time.perf_counter() - begin))
    return found[1:]


def main() -> None:
    """About half a minute."""
    with tempfile.TemporaryDirectory() as folder:
        windows = corpus(Path(folder))
        for name, batches in {
            f"read, {WORKERS} threads": lambda order: windows.prefetch(order, WORKERS),
            "read, 1 thread, not ahead": lambda order: (windows.batch(rows) for rows in order),
            f"on the CPU, {WORKERS} threads": lambda order: windows.batches(order, workers=WORKERS),
        }.items():
            found = rate(batches)
            print(f"{name:<28}{statistics.median(found):>9,.0f} windows/s   ({min(found):,.0f} to {max(found):,.0f})")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
