"""Time and peak memory of scoring two folders of 256-pixel pictures: python tests/speed_score.py [N ...]

python tests/speed_score.py pixels [DIR]: CPU time of the pixel metrics of an item; DIR: a checkout of another commit,
whose metrics are measured in turns with these, in one process with one thread. Prints medians and their ratio.

Every size runs in a process of its own, whose peak resident memory the kernel reports. The pictures of a size are the
first ones of the largest, so that no size has harder ones.
"""

from __future__ import annotations

import importlib.util
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

SIZES = (1000, 4000)
SIDE = 256
PIXELS = ("ssim", "ssim_released", "psnr", "pixcorr")
ITEMS = ((32, 2), (64, 2), (512, 5))  # side in pixels, samples: the scales tiny and paper
TURNS = 6  # of each checkout; the first does not count


def write(folder: Path, n: int, seed: int) -> None:
    """n smooth random pictures as PNG files."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{i:05d}.png", compress_level=1)


def measure(generated: str, reference: str) -> None:
    """Scores the folders by the shipped judge; prints seconds, CPU seconds and the peak of resident memory in MiB."""
    from bench.scoring.compare import compare

    start, busy = time.perf_counter(), time.process_time()
    compare(Path(generated), Path(reference))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.perf_counter() - start} {time.process_time() - busy} {peak}")


def speed(sizes: tuple[int, ...]) -> None:
    """Prints a line for each number of pictures."""
    with tempfile.TemporaryDirectory() as place:
        whole = [Path(place) / name for name in ("generated", "reference")]
        for seed, folder in enumerate(whole):
            write(folder, max(sizes), seed)
        print("pictures  seconds  CPU seconds  CPU ms each  peak MiB", flush=True)
        for size in sizes:
            folders = [folder.with_name(f"{folder.name}{size}") for folder in whole]
            for folder, source in zip(folders, whole, strict=True):
                folder.mkdir()
                for path in sorted(source.iterdir())[:size]:
                    (folder / path.name).symlink_to(path)
            said = subprocess.run([sys.executable, __file__, *map(str, folders)], check=True, capture_output=True,
                                  text=True).stdout.split()
            seconds, busy, peak = map(float, said[-3:])
            print(f"{size:8d} {seconds:8.1f} {busy:12.1f} {1000 * busy / size:12.1f} {peak:9.0f}", flush=True)


def load_metrics(folder: Path) -> ModuleType:
    """The metrics of a checkout, under a name of their own."""
    spec = importlib.util.spec_from_file_location(f"metrics_{folder.name}", folder / "bench" / "metrics.py")
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def time_pixels(other: str = "") -> None:
    """Prints CPU milliseconds of an item: one real picture with several samples."""
    from threadpoolctl import threadpool_limits

    root = Path(__file__).resolve().parents[1]
    modules = [load_metrics(folder) for folder in (root, *([Path(other).resolve()] if other else []))]
    with threadpool_limits(1):
        for side, samples in ITEMS:
            rng = np.random.default_rng(0)
            real = np.repeat(rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8), samples, 0)
            made = (0.6 * real + 0.4 * rng.integers(0, 256, real.shape)).astype(np.uint8)
            for name in PIXELS:
                times: list[list[float]] = [[] for _ in modules]
                values = []
                for turn in range(TURNS):
                    for number, module in enumerate(modules):
                        shown = real[:1] if number == 0 else real  # an older commit takes as many as samples
                        start = time.process_time()
                        for _ in range(repeats := max(1, 256 // side) ** 2):
                            value = getattr(module, name)(shown, made)
                        if turn:
                            times[number].append(1000 * (time.process_time() - start) / repeats)
                        else:
                            values.append(value)
                medians = [statistics.median(series) for series in times]
                text = f"{side:4d} pixels, {samples} samples  {name:14s} {medians[0]:8.2f} ms"
                if other:
                    text += (f", before {medians[1]:8.2f} ms, {medians[1] / medians[0]:5.1f} times as fast; largest "
                             f"difference {np.abs(values[0] - values[1]).max():.0e}")
                print(text, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["pixels"]:
        time_pixels(*sys.argv[2:])
    elif len(sys.argv) == 3 and not sys.argv[1].isdecimal():
        measure(*sys.argv[1:])
    else:
        speed(tuple(map(int, sys.argv[1:])) or SIZES)
