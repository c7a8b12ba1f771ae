"""Time and peak memory of scoring two folders of 256-pixel pictures: python tests/speed_score.py [N ...]

Every size runs in a process of its own, whose peak resident memory the kernel reports. The pictures of a size are the
first ones of the largest, so that no size has harder ones.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = (1000, 4000)
SIDE = 256


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


if __name__ == "__main__":
    if len(sys.argv) == 3 and not sys.argv[1].isdecimal():
        measure(*sys.argv[1:])
    else:
        speed(tuple(map(int, sys.argv[1:])) or SIZES)
