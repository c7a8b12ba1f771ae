"""Builds the unlabelled corpus: windows of all devices, and what became of their recordings."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.recordings import cut, replicated
from bench.data.shards import INDEX, REFERENCE, opened, read_manifest
from bench.data.tiny import DEVICES
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.stages import Corpus, Shards, Stage
from bench.runtime import Runtime

COLUMNS = ("window", "recording", "device", "part")
HELD_OUT = 6  # one person in six is held out, of every device


def corpus(stage: Corpus, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes windows.npy [N, C, T] float32, index.csv (a row for each window), manifest.json (for each device).

    `part` is train or held_out and goes by recording, so that no person is in both. A prepared corpus is not copied:
    of it index.csv and manifest.json, and shards.json, which says where it lies; bench.data.shards.open_corpus reads
    either.
    """
    if isinstance(stage.world, Shards):
        _refer(stage.world, stage.band, out)
        return
    from bench.data.tiny_moabb import Tiny  # MOABB takes seconds to import

    world = stage.world
    windows, rows, reports = [], [], []
    for turn, device in enumerate(DEVICES):
        dataset, report = Tiny(world, device), None
        for subject in dataset.subject_list:
            runtime.progress(len(set(rows)), world.recordings)
            for runs in dataset.get_data(subjects=[subject])[subject].values():
                for raw in runs.values():
                    found, report = cut(raw, stage.band, world.sfreq, world.n_times, report)
                    windows.append(replicated(found, world.n_chans))
                    part = "held_out" if (subject - 1 + turn) % HELD_OUT == 0 else "train"
                    rows += [(dataset.number(subject), device.name, part)] * len(found)
        reports.append({"device": device.name, **vars(report)})
    np.save(out / "windows.npy", np.concatenate(windows))
    with open(out / "index.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows((i, *row) for i, row in enumerate(rows))
    shape = {"sfreq": world.sfreq, "n_times": world.n_times, "n_chans": world.n_chans, "windows": len(rows)}
    (out / "manifest.json").write_text(json.dumps({**shape, "devices": reports}, indent=1) + "\n")


def _refer(world: Shards, band: tuple[float, float], out: Path) -> None:
    """Writes shards.json and copies of index and manifest; the path is in no key, the hash of the manifest is.

    Raises BenchError (exit 3) for a corpus that is not there or another, and for one of another band.
    """
    if not world.path:
        raise BenchError(f"corpus {world.name} is not prepared; bench data prepare {world.name}", ENVIRONMENT)
    folder = Path(world.path).resolve()
    manifest = read_manifest(folder, world.sha256)
    if tuple(manifest["band"]) != tuple(band):
        raise BenchError(f"corpus {world.name} was prepared at {manifest['band'][0]:g}-{manifest['band'][1]:g} Hz, not "
                         f"{band[0]:g}-{band[1]:g} Hz: prepare another (bench data prepare {world.name} --data DIR "
                         f"--band {band[0]:g},{band[1]:g})")
    opened(folder, world.sha256)
    for name in (INDEX, "manifest.json"):
        shutil.copyfile(folder / name, out / name)
    (out / REFERENCE).write_text(json.dumps({"path": str(folder), "sha256": world.sha256}, indent=1) + "\n")
