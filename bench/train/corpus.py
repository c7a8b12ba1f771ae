"""Builds the unlabelled corpus: windows of all devices, and a report on their recordings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from bench.data.montages import pick_positions
from bench.data.recordings import cut_windows, replicate
from bench.data.shards import INDEX, REFERENCE, describe_command, open_shards, read_manifest
from bench.data.tiny import DEVICES, channel_names, electrode_positions
from bench.data.writing import write_table
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.stages import Corpus, Shards
from bench.runtime import Runtime
from bench.train import Inputs

COLUMNS = ("window", "recording", "device", "part")
HELD_OUT = 6  # of each device, one person in six is held out


def corpus(stage: Corpus, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes windows.npy [N, C, T] float32, index.csv (one row per window) and manifest.json (one report per device).
    `part` is train or held_out, by recording; no person is in both. A prepared corpus is not copied: its stage has
    index.csv, manifest.json, and shards.json, which contains the path; bench.data.shards.open_corpus reads both
    forms. With `channels`, each tiny device keeps so many of its electrodes, spread over the head."""
    if isinstance(stage.world, Shards):
        _write_reference(stage, stage.world, out)
        return
    from bench.data.tiny_moabb import Tiny  # MOABB takes seconds to import

    world = stage.world
    windows, rows, reports = [], [], []
    for turn, device in enumerate(DEVICES):
        dataset, report = Tiny(world, device), None
        names = channel_names(device.n_chans)
        if stage.channels:
            positions = electrode_positions(device.n_chans, device.turn)
            names = tuple(names[row] for row in pick_positions(positions, stage.channels))
        for subject in dataset.subject_list:
            runtime.progress(len(set(rows)), world.recordings)
            part = "held_out" if (subject - 1 + turn) % HELD_OUT == 0 else "train"
            for runs in dataset.get_data(subjects=[subject])[subject].values():
                for raw in runs.values():
                    cut, report = cut_windows(raw.pick(list(names)), stage.band, world.sfreq, world.n_times, report)
                    windows.append(replicate(cut, stage.n_chans))
                    rows += [(dataset.number(subject), device.name, part)] * len(cut)
        reports.append({"device": device.name, **vars(report)})
    np.save(out / "windows.npy", np.concatenate(windows))
    write_table(out / "index.csv", COLUMNS, ((window, *row) for window, row in enumerate(rows)))
    shape = {"sfreq": world.sfreq, "n_times": world.n_times, "n_chans": stage.n_chans, "windows": len(rows)}
    (out / "manifest.json").write_text(json.dumps({**shape, "devices": reports}, indent=1) + "\n")


def _write_reference(stage: Corpus, world: Shards, out: Path) -> None:
    """Writes shards.json and copies of index and manifest. A key contains the manifest's hash, not the path.
    Raises BenchError (exit 3) for a corpus that is missing or has another hash, and for one of another band."""
    if not world.path:
        raise BenchError(f"corpus {world.name} is not prepared; run: bench data prepare {world.name}", ENVIRONMENT)
    folder, band = Path(world.path).resolve(), stage.band
    manifest = read_manifest(folder, world.sha256)
    if tuple(manifest["band"]) != tuple(band):
        raise BenchError(f"corpus {world.name} was prepared at {manifest['band'][0]:g}-{manifest['band'][1]:g} Hz, not "
                         f"{band[0]:g}-{band[1]:g} Hz; prepare another ({describe_command(manifest)} --data DIR "
                         f"--band {band[0]:g},{band[1]:g})")
    open_shards(folder, world.sha256, stage.channels)
    for name in (INDEX, "manifest.json"):
        shutil.copyfile(folder / name, out / name)
    reference = {"path": str(folder), "sha256": world.sha256, "channels": stage.channels}
    (out / REFERENCE).write_text(json.dumps(reference, indent=1) + "\n")
