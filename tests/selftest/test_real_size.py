"""One step of each stage at its real size: on the CPU with its peak memory beside the estimate, on a pretended GPU."""

from __future__ import annotations

import importlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pretended import build_on_pretended_gpu
from psutil import Process, virtual_memory

from bench import FULL, systems
from bench.cost.memory import memory
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.scale import PAPER
from bench.experiment.stages import Numerics, Sampling
from bench.selftest import inputs
from bench.store.store import Store
from bench.systems import guided

NEEDED = 12e9  # bytes of memory
WITHIN = 0.25  # of the estimate
IMAGES = 6  # all of them fit one batch
FILLED = {"reference", "trainfeatures", "score"}  # stages that fill their batches
COMPARED = {"pretrain", "finetune", "targets", "generate", *FILLED}


def real_scale(folder: Path, numerics: Numerics):
    """Scale paper with one step of each training, on six images of two classes."""
    scale = inputs.make_scale(folder, "cpu", is_real=True, per_class=3, classes=2)
    return replace(scale, views=1, numerics=numerics, sampling=Sampling(2, 1.0, samples=1, batch=1),
                   pretrain=replace(PAPER.pretrain, steps=1, batch=1),
                   finetune=replace(PAPER.finetune, steps=1, batch=1))


def build_alone(stage, path) -> int:
    """Builds a stage; returns the bytes of memory of a process that has imported the libraries."""
    for name in ("torch", "torchvision", "diffusers", "transformers", "open_clip", "timm", "torchmetrics", "lpips"):
        importlib.import_module(name)
    libraries = Process().memory_info().rss
    build(stage, Store(path))
    return libraries


@pytest.mark.long
@pytest.mark.skipif(virtual_memory().available < NEEDED, reason="needs 12 GB of memory")
def test_one_step_of_each_of_fulls_stages_at_real_size_and_its_memory_beside_the_estimate(tmp_path, capsys):
    scale, store, far = real_scale(tmp_path, Numerics("cpu", "float32", threads=2)), Store(tmp_path / "store"), []
    score = systems.plan(FULL, scale.items(), scale, 0)
    for stage in graph.stages([score]):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:  # memory of the last stage is gone
            libraries = fresh.submit(build_alone, stage, store.root).result()
        record = store.manifest(stage)
        used, known = record["measured"]["peak_rss_bytes"] - libraries, memory(stage)
        at_once = known.batch if known and stage.kind in FILLED else IMAGES
        planned = known.peak_of(min(known.batch, at_once)) if known else 0
        with capsys.disabled():
            print(f"{stage.kind:14s} {record['wall_s']:7.1f} s  peak {used / 1e9:6.2f} GB  "
                  f"planned {planned / 1e9:6.2f} GB")
        if stage.kind in COMPARED and abs(used - planned) > WITHIN * planned:
            far.append((stage.kind, used, planned))
    assert far == []


@pytest.mark.long
@pytest.mark.skipif(virtual_memory().available < NEEDED, reason="needs 12 GB of memory")
def test_every_stage_of_full_and_guided_runs_at_real_size_on_a_pretended_gpu(tmp_path):
    scale, store = real_scale(tmp_path, Numerics("cuda", "bfloat16")), Store(tmp_path / "store")
    scale = inputs.add_guided(scale, tmp_path, "cpu", is_real=True)
    for spec in (FULL, guided.Spec("guided", low_level=True, caption=True)):
        score = systems.plan(spec, scale.items(), scale, 0)
        if spec != FULL:
            score = replace(score, pictures=inputs.shorten(score.pictures, 1))
        build_on_pretended_gpu(score, store)
        assert all(store.is_intact(stage) for stage in graph.stages([score]))
