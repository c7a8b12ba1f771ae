"""Writes made-up THINGS-EEG2 files in the published layout, and measures scale laptop on them at their real size.

    python tests/laptop.py --steps 6              the table of docs/laptop.md: steps on arrays of the real size
    python tests/laptop.py FOLDER [--epochs N]    writes files of the real size, prepares them, trains each encoder

The EEG is noise with a weak, linear response to the image's features; the features are random, alike within a concept.
Times are CPU-seconds of one thread, which other work on the machine changes less than seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bench.setup.rehearsal.files import dump

TRIALS, IMAGES, CONCEPTS = 62_160, 16_740, 1854  # training trials (4 for an image), and all images and concepts
WIDTH, LATENT = 1024, 32  # dimensions of the features, and of what the EEG responds to
LAYOUTS = {17: ("gifford", np.arange(-20, 80) / 100, 100), 63: ("nice", np.arange(-50, 250) / 250, 250)}


def write_features(folder: Path, concepts: int, exemplars: int, tested: int, width: int = WIDTH, seed: int = 0,
                   names: dict[str, list[str]] | None = None) -> dict[str, np.ndarray]:
    """Writes made_features_train.pt and made_features_test.pt, and returns the images' features by part. names: of the
    images, stored with them."""
    import torch

    rng, images = np.random.default_rng([seed, 1]), {}
    for part, count, each in (("train", concepts, exemplars), ("test", tested, 1)):
        centres = rng.standard_normal((count, width))
        images[part] = np.repeat(centres, each, 0) + 0.7 * rng.standard_normal((count * each, width))
        content = {"text_features": torch.tensor(centres + 0.7 * rng.standard_normal(centres.shape)).half(),
                   "img_features": torch.tensor(images[part]).half()}
        torch.save(content | ({"img_names": names[part]} if names else {}), folder / f"made_features_{part}.pt")
    return images


def write_published(folder: Path, channels: int = 17, concepts: int = 1654, exemplars: int = 10, tested: int = 200,
                    repetitions: tuple[int, int] = (4, 80), subject: int = 8, width: int = WIDTH, signal: float = 0.3,
                    seed: int = 0) -> Path:
    """Writes one subject's EEG, the images with image_metadata.npy, and the features; returns the training features."""
    folder.mkdir(parents=True, exist_ok=True)
    variant, times, samples = LAYOUTS[channels]
    features, rng = write_features(folder, concepts, exemplars, tested, width, seed), np.random.default_rng(seed)
    response = rng.standard_normal((width, LATENT)) @ rng.standard_normal((LATENT, channels * samples))
    response *= signal / np.sqrt(width * LATENT)
    metadata: dict[str, list[str]] = {}
    for part, prefix, count, each, shown in (("train", "training", concepts, exemplars, repetitions[0]),
                                             ("test", "test", tested, 1, repetitions[1])):
        titles = [f"{number + 1:05d}_{part}_thing_{number:04d}" for number in range(count)]
        metadata[f"{part}_img_concepts"] = np.repeat(titles, each).tolist()
        metadata[f"{part}_img_files"] = [f"{title[6:]}_{copy:02d}s.jpg" for title in titles for copy in range(each)]
        for title, file in zip(metadata[f"{part}_img_concepts"], metadata[f"{part}_img_files"], strict=True):
            path = folder / "images" / f"{prefix}_images" / title / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
        eeg = np.empty((count * each, shown, channels, samples))
        for row, feature in enumerate(features[part]):
            eeg[row] = rng.standard_normal(eeg.shape[1:], np.float32) + (feature @ response).reshape(channels, samples)
        path = folder / f"sub-{subject:02d}" / f"preprocessed_eeg_{prefix}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        dump(path, {"preprocessed_eeg_data": eeg, "ch_names": [f"E{number + 1}" for number in range(channels)],
                    "times": times}, variant)
        del eeg
    np.save(folder / "image_metadata.npy", metadata)  # type: ignore[arg-type]
    return folder / "made_features_train.pt"


def measure(task: str, folder: Path, epochs: int) -> dict[str, float]:
    """Does one task in this process; returns its seconds, CPU-seconds, peak memory in GB, and results."""
    from dataclasses import replace

    import pandas as pd
    import torch

    from bench.data import things
    from bench.execute.build import build
    from bench.experiment import ablation
    from bench.experiment.graph import stages
    from bench.experiment.scale import LAPTOP
    from bench.setup.places import resolve_paths
    from bench.store.store import Store
    from bench.systems import guided, plan

    torch.set_num_threads(1)  # as `bench run` does
    begin, results = time.perf_counter(), {}
    if task == "prepare":
        source = folder / "published"
        things.prepare(source, folder / "data" / "things_eeg2", source / "images", size=64,
                       features=source / "made_features_train.pt")
    else:
        if epochs:
            schedule = replace(guided.LAPTOP.encoder_schedule, epochs=epochs)
            guided.SIZES["laptop"] = replace(guided.LAPTOP, encoder_schedule=schedule)
        scale, store = resolve_paths(LAPTOP, folder, data=folder / "data"), Store(folder / "store")
        for name in (task, f"{task} / EEG shuffled") if task != "trials" else ("ATM",):
            row = next(v for v in ablation.load("laptop").variants if v.name == name)
            planned = plan(row, scale.items(), scale, 0)
            for stage in stages([planned], store.has):
                if task == "trials" and stage.kind not in ("trials", "features"):
                    continue
                build(stage, store)
            if task == "trials":
                break
            table = pd.read_csv(store.path(planned) / "metrics.csv").set_index("metric")["value"]
            results[name] = float(table["retrieval_top1"])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"wall": time.perf_counter() - begin, "cpu": usage.ru_utime + usage.ru_stime, "gb": usage.ru_maxrss / 1e6,
            **results}


def measure_steps(name: str, channels: int, steps: int) -> str:
    """Returns a line of the table: takes some steps of an encoder's training in this process, on random trials of the
    real number and shape, after one that is not counted."""
    import torch
    from torch.nn.functional import normalize

    from bench.systems.guided import LAPTOP
    from bench.train.losses import count_steps, descend, draw_batches
    from models.guided import KINDS, encoder_loss
    from models.parameters import count_parameters

    torch.set_num_threads(1)  # as `bench run` does
    schedule, loss = LAPTOP.encoder_schedule, "direct" if name == "enigma" else "retrieval"
    eeg = torch.randn(TRIALS, channels, {17: 80, 63: 248}[channels])
    image, text = (normalize(torch.randn(rows, WIDTH), dim=1) for rows in (IMAGES, CONCEPTS))
    picture, label = torch.arange(TRIALS) % IMAGES, torch.arange(TRIALS) % CONCEPTS
    network = LAPTOP.network(name, "faithful")
    encoder = KINDS[name](*eeg.shape[1:], WIDTH, [8], True, network.filters, network.width).train()
    optimizer, begin = torch.optim.AdamW(encoder.parameters(), schedule.lr), 0.0
    for step, rows in enumerate(draw_batches(TRIALS, schedule.batch, steps + 1)):
        if step == 1:
            begin = time.process_time()
        output = encoder(eeg[rows], torch.full((len(rows),), 8))
        descend(encoder_loss(loss, encoder, output, image[picture[rows]], text[label[rows]]), optimizer)
    each = (time.process_time() - begin) / steps
    epoch = each * count_steps(TRIALS, schedule.batch, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return (f"| {name} | {count_parameters(encoder):,} | {each:.2f} | {epoch:.0f} | "
            f"{epoch * schedule.epochs / 60:.1f} | {peak:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=0, help="of each encoder (default: 0, train it)")
    parser.add_argument("--channels", type=int, default=17, choices=list(LAYOUTS))
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--signal", type=float, default=0.3)
    parser.add_argument("--only", default="")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps and options.task:
        print(measure_steps(options.task, options.channels, options.steps))
        return
    if options.steps:
        print("| encoder | parameters | CPU-s a step | CPU-s an epoch | CPU-min a training | peak memory, GB |\n"
              "| :-- | --: | --: | --: | --: | --: |")
        for task in map(str.lower, options.only.split(",") if options.only else ENCODERS):
            subprocess.run([sys.executable, __file__, "--task", task, "--steps", str(options.steps), "--channels",
                            str(options.channels)], check=True)
        return
    if options.folder is None:
        parser.error("expected a FOLDER, or --steps")
    if options.task:
        print(json.dumps(measure(options.task, options.folder, options.epochs)))
        return
    if not (options.folder / "published").exists():
        write_published(options.folder / "published", options.channels, signal=options.signal)
    for task in options.only.split(",") if options.only else ("prepare", "trials", *ENCODERS):
        command = [sys.executable, __file__, str(options.folder), "--task", task, "--epochs", str(options.epochs)]
        print(task, subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


ENCODERS = ("ATM", "NICE", "EEGNet", "ENIGMA")

if __name__ == "__main__":
    main()
