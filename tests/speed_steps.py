"""How much CPU time the steps of scale tiny take, beside another checkout: python tests/speed_steps.py [DIR [KINDS]]

A benchmark, not a test. DIR: a checkout of another commit, measured in turns with this one; without it this one alone.
KINDS: such as pretrain,finetune (default: all). Every turn is a process of its own with one thread, which builds one
stage of scale tiny with few steps. Prints medians of user CPU time per step, which other work on the machine changes
less than elapsed time, the ratio of each pair of turns, and whether the stages' files are equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench.experiment.key import Stage
from bench.store.store import Store

ROOT = Path(__file__).resolve().parents[1]
TURNS = 4  # of each checkout; the first does not count
KINDS = ("pretrain", "finetune", "generate", "score", "eegnet")
STEPS = {"pretrain": 141, "finetune": 41, "generate": 1, "score": 1, "eegnet": 3}  # eegnet: epochs
SETTINGS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def plan(kind: str, store: Path) -> tuple[Stage, Store]:
    """Returns the stage to measure, and a store that contains the stages which it reads."""
    from bench import FULL, systems
    from bench.execute.build import build
    from bench.experiment import graph
    from bench.experiment.scale import TINY
    from bench.experiment.stages import Items, Readout, Trivial

    scale = replace(TINY, world=replace(TINY.world, recordings=12, seconds=60.0), reference_pictures=300)
    scored = systems.plan(FULL, scale.items(), scale, 0)
    generated, tuned, start = scored.pictures, scored.pictures.model, scored.pictures.model.start
    train = Items(generated.items.trials, "train")
    tuned = replace(tuned, start=start.encoder)  # as long, without a pre-training
    stage = {
        "pretrain": replace(start, schedule=replace(start.schedule, steps=STEPS[kind])),
        "finetune": replace(tuned, schedule=replace(tuned.schedule, steps=STEPS[kind])),
        "generate": replace(generated, model=replace(tuned, schedule=replace(tuned.schedule, steps=1))),
        "score": replace(scored, pictures=Trivial("random", generated.items, generated.vae, 2, 0, scale.fp32)),
        "eegnet": Readout(train, generated.items, "eegnet", None, 0, scale.fp32)}[kind]
    place = Store(store)
    for above in graph.stages([stage], place.has):
        if above != stage:
            build(above, place)
    return stage, place


def measure(kind: str, store: Path) -> None:
    """Builds the stage; prints user CPU seconds per step between the first and the last report, and a hash of its
    files. A batch of generation has as many calls of the U-Net as steps; a score reports once for all images."""
    import torch

    from bench.experiment.kinds import builder_of
    from bench.runtime import Runtime, use_exact_math
    from bench.train import readout

    torch.set_num_threads(1)
    use_exact_math()
    stage, place = plan(kind, store)
    if kind == "eegnet":
        readout.EPOCHS = STEPS[kind]
    reports: list[tuple[int, float]] = []

    def progress(step: int, total: int, **_: float) -> None:
        if total > 1 or kind == "score":  # a readout reports its end, too
            reports.append((step, resource.getrusage(resource.RUSAGE_SELF).ru_utime))

    function = builder_of(stage)
    with tempfile.TemporaryDirectory() as folder:
        began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        function(stage, place.path, Path(folder), Runtime(progress=progress))
        files = hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(Path(folder).iterdir()))).hexdigest()
    if kind == "score" or len(reports) < 2:
        reports.insert(0, (reports[-1][0] - 1, began))
    (first, then), (last, now) = reports[0], reports[-1]
    print(json.dumps([(now - then) / (last - first), files]))


def turn(folder: Path, kind: str, store: Path) -> tuple[float, str]:
    """One measurement of a checkout, in a process of its own."""
    path = f"{folder}{os.pathsep}{ROOT / 'tests'}"
    code = "import sys, pathlib, speed_steps; speed_steps.measure(sys.argv[1], pathlib.Path(sys.argv[2]))"
    done = subprocess.run([sys.executable, "-c", code, kind, str(store)], cwd=folder, capture_output=True, text=True,
                          env=os.environ | SETTINGS | {"PYTHONPATH": path}, check=False)
    if done.returncode:
        raise SystemExit(f"{folder}: measuring {kind} failed\n{done.stderr}")
    seconds, files = json.loads(done.stdout.splitlines()[-1])
    return seconds, files


def main(other: str = "", kinds: str = ",".join(KINDS)) -> None:
    """Measures each kind in both checkouts, in turns; every second turn begins with the other checkout."""
    folders = [ROOT, Path(other).resolve()] if other else [ROOT]
    with tempfile.TemporaryDirectory() as folder:
        stores = [Path(folder) / str(number) for number in range(len(folders))]
        for kind in kinds.split(","):
            seconds: list[list[float]] = [[] for _ in folders]
            files = [""] * len(folders)
            for number in range(TURNS):
                order = list(range(len(folders)))
                for side in order if number % 2 else order[::-1]:
                    value, files[side] = turn(folders[side], kind, stores[side])
                    if number:
                        seconds[side].append(value)
            text = f"{kind:<10}{1000 * statistics.median(seconds[0]):>10.2f} ms per step"
            if other:
                ratios = [after / before for before, after in zip(*seconds, strict=True)]
                text += (f"{1000 * statistics.median(seconds[1]):>10.2f} in {folders[1].name}; ratio "
                         f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), files "
                         f"{'equal' if files[0] == files[1] else 'differ'}")
            print(text, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
