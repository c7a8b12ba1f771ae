"""Counts how often fine-tuning copies between CPU and GPU, and waits: at most once for each line of its log."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace

import pytest
import torch
from pretended import pretended_gpu

from bench import FULL, systems
from bench.experiment.scale import MICRO
from bench.experiment.stages import Targets
from bench.runtime import Runtime
from bench.train import finetune as tuning
from bench.train.items import load_items
from bench.train.loop import prefetch


def stage(steps, views):
    model = systems.plan(FULL, MICRO.items(), MICRO, 0).pictures.model
    return replace(model, schedule=replace(model.schedule, steps=steps), targets=replace(model.targets, views=views))


def count_on_pretended_gpu(steps, micro, monkeypatch):
    """Counts of a training on a pretended GPU: copies fetched ahead and others, reads of a number, and log lines."""
    it, lines, count = stage(steps, 1), [], Counter()
    items = load_items(it.items, micro.path, it.targets)
    model = tuning.prepare(it, items, micro.path, Runtime())
    with pretended_gpu() as gpu, monkeypatch.context() as patch:
        def prefetch_counted(items, fetch, device):
            def fetch_counted(item):
                before = gpu.copies.total()
                tensors = fetch(item)
                count["ahead"] += gpu.copies.total() - before
                return tensors

            return prefetch(items, fetch_counted, device)

        patch.setattr(tuning, "prefetch", prefetch_counted)
        for module in model.parts().values():
            module.to("cuda")
        model.null_context = model.null_context.to("cuda")
        runtime = Runtime(device="cuda", progress=lambda *line, **scalars: lines.append(line))
        tuning._train(it, model, items, micro.path(it.targets), runtime, lambda number: None)
    return {"ahead": count["ahead"], "step": gpu.copies.total() - count["ahead"], "read": gpu.reads}, len(lines)


def test_a_step_copies_nothing_between_cpu_and_gpu_that_was_not_fetched_ahead(micro, monkeypatch):
    monkeypatch.setattr(tuning, "LOGGED", 2)
    (short, few), (long, many) = (count_on_pretended_gpu(steps, micro, monkeypatch) for steps in (2, 4))
    assert (few, many) == (1, 2)
    assert long["step"] == short["step"]
    assert long["ahead"] - short["ahead"] == 2 * 5  # items, two kinds of noise, times, dropped conditions
    assert long["read"] - short["read"] == 3  # the losses of one line, which tolist() copies together on a real GPU


@pytest.mark.gpu
@pytest.mark.parametrize("views", [1, 0])
def test_the_gpu_is_waited_for_once_for_each_line_of_the_log(micro, tmp_path, views):
    def path(above):
        return micro.path(stage(1, 1).targets if isinstance(above, Targets) else above)

    waits = []
    for steps in (20, 60):
        (tmp_path / str(steps)).mkdir()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                tuning.finetune(stage(steps, views), path, tmp_path / str(steps), Runtime(device="cuda"))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchronizing" in str(warning.message) for warning in caught))
    assert waits[0] > 0  # such as the log's
    assert waits[1] - waits[0] <= (60 - 20) // tuning.LOGGED
