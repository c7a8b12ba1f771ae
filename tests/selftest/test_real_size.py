"""One step of each of Full's stages at its real size on the CPU: time, and peak memory beside the estimate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from psutil import Process, virtual_memory

from bench import FULL, systems
from bench.cost.memory import memory
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.scale import PAPER
from bench.experiment.stages import Numerics, Sampling
from bench.selftest import inputs
from bench.store.store import Store

NEEDED = 12e9  # bytes of memory
WITHIN = 0.25  # of the estimate
IMAGES = 6  # all of them fit one batch
COMPARED = {"pretrain", "finetune", "targets"}


def real_score(folder: Path):
    """Full's last stage at real sizes, with one step of each training, on six images of two classes."""
    scale = inputs.make_scale(folder, "cpu", is_real=True, per_class=3, classes=2)
    numerics = Numerics("cpu", "float32", threads=2)
    scale = replace(scale, views=1, numerics=numerics, sampling=Sampling(2, 1.0, samples=1, batch=1),
                    pretrain=replace(PAPER.pretrain, steps=1, batch=1),
                    finetune=replace(PAPER.finetune, steps=1, batch=1))
    return systems.plan(FULL, scale.items(), scale, 0)


@pytest.mark.long
@pytest.mark.skipif(virtual_memory().available < NEEDED, reason="needs 12 GB of memory")
def test_one_step_of_each_of_fulls_stages_at_real_size_and_its_memory_beside_the_estimate(tmp_path, capsys):
    score, store, far = real_score(tmp_path), Store(tmp_path / "store"), []
    libraries = Process().memory_info().rss
    for stage in graph.stages([score]):
        build(stage, store)
        record = store.manifest(stage)
        used, known = record["measured"]["peak_rss_bytes"] - libraries, memory(stage)
        planned = known.peak_of(min(known.batch, IMAGES)) if known else 0
        with capsys.disabled():
            print(f"{stage.kind:14s} {record['wall_s']:7.1f} s  peak {used / 1e9:6.2f} GB  "
                  f"planned {planned / 1e9:6.2f} GB")
        if stage.kind in COMPARED and abs(used - planned) > WITHIN * planned:
            far.append((stage.kind, used, planned))
    assert far == []
