"""How much faster two workers are, and what scheduling costs: python tests/speed_workers.py [SCALE [ABLATION [TURNS]]]

A benchmark, not a test: runs of table2 at scale tiny, with one worker, two, two, one (TURNS: 1,2,2,1), each in a store
of its own, on two cores that do nothing else. Prints seconds of each, what they took above the sum of their stages, and
whether the results are byte-identical.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.store.store import Store

CODE = "import sys; from bench.cli import main; sys.exit(main(sys.argv[1:]))"


def run(folder: Path, workers: int, scale: str, ablation: str) -> tuple[float, float, float, dict[str, bytes]]:
    """Seconds of the command, seconds that it says building took, seconds of all its stages, and its result files."""
    command = [sys.executable, "-c", CODE, "run", "--ablation", ablation, "--scale", scale, "--workers", str(workers),
               "--store", "store", "--results", "results"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    wall = time.monotonic() - began
    building = float(re.search(r"^built .* in (\d+) s", done.stdout, re.MULTILINE)[1])
    store = Store(folder / "store", create=False)
    stages = sum(store.manifest_of(key)["wall_s"] for key in store.keys())  # noqa: SIM118
    files = {path.name: path.read_bytes() for ending in ("csv", "items.csv.gz")
             for path in (folder / "results" / scale).glob(f"{ablation}.{ending}")}
    return wall, building, stages, files


def main(scale: str = "tiny", ablation: str = "table2", turns: str = "1,2,2,1") -> None:
    """The runs, one after the other."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    found = []
    print(f"{ablation} at {scale}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    for workers in map(int, turns.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            wall, building, stages, files = run(Path(folder), workers, scale, ablation)
        seconds[workers].append(wall)
        found.append(files)
        above = f", {100 * (wall - stages) / wall:.1f} % above the sum of the stages" if workers == 1 else ""
        print(f"{workers} workers: {wall:.0f} s, of these building {building:.0f}; stages {stages:.0f} s{above}",
              flush=True)
    one, two = (statistics.mean(seconds[workers]) for workers in (1, 2))
    print(f"two workers are {one / two:.2f} times as fast; results "
          f"{'byte-identical' if found[0] and all(files == found[0] for files in found) else 'DIFFER'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
