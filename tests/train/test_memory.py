"""Tests memory errors outside trainings: a batch is repeated in parts with equal results, and the log says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench import FULL, systems
from bench.errors import ENVIRONMENT, BenchError
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.kinds import builder_of
from bench.experiment.scale import MICRO
from bench.experiment.stages import Reference, Score, Targets, TrainFeatures
from bench.runtime import MicroBatches, Runtime, is_out_of_memory, naming_memory_errors
from bench.systems import captions, guided, trivial
from bench.train.generate import in_batches

ITEMS = MICRO.items()
NOTE = "out of memory: batch repeated in smaller micro-batches"


class Limit(TorchDispatchMode):
    """Raises a memory error in each convolution of more than `most` images."""

    def __init__(self, most: int):
        super().__init__()
        self.most, self.largest = most, 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        if function in (torch.ops.aten.convolution.default, torch.ops.aten.conv2d.default):  # conv2d: in inference mode
            if len(arguments[0]) > self.most:
                raise torch.OutOfMemoryError("injected")
            self.largest = max(self.largest, len(arguments[0]))
        return function(*arguments, **(named or {}))


def planned(kind, spec=None):
    stages = graph.stages([systems.plan(spec or captions.Spec("oracle"), ITEMS, MICRO, 0)])
    return next(stage for stage in stages if isinstance(stage, kind))


STAGES = {  # by what divides its batches; the most images that fit
    "targets": (lambda: planned(Targets, FULL), 30),
    "reference": (lambda: planned(Reference), 30),
    "train features": (lambda: planned(TrainFeatures), 20),
    "sampling": (lambda: planned(Score).pictures, 40),
    "reconstruction": (lambda: planned(Score, trivial.Spec("row", "vae")).pictures, 30),
    "scoring": (lambda: planned(Score, trivial.Spec("row", "random")), 20),
    "guided sampling": (lambda: planned(Score, guided.Spec("row")).pictures, 40),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] if name.startswith("guided") else [])
                                  for name in STAGES])
def test_a_stage_in_parts_gives_the_same_numbers_and_notes_them(name, micro, tmp_path, one_thread):
    make, most = STAGES[name]
    stage, notes = make(), []
    for above in graph.stages([stage], micro.has):
        if above != stage:
            build(above, micro)
    folders = [tmp_path / "whole", tmp_path / "parts"]
    for folder in folders:
        folder.mkdir()
    builder_of(stage)(stage, micro.path, folders[0], Runtime(note=lambda *what, **_: notes.append(what)))
    assert notes == []
    with Limit(most) as limit:
        builder_of(stage)(stage, micro.path, folders[1],
                          Runtime(note=lambda event, parts: notes.append((event, parts))))
    assert 0 < limit.largest <= most
    assert {event for event, _ in notes} == {NOTE}
    assert all(parts > 1 for _, parts in notes)
    assert sorted(path.name for path in folders[0].iterdir()) == sorted(path.name for path in folders[1].iterdir())
    for path in folders[0].iterdir():
        other = folders[1] / path.name
        if path.name == "pictures.npy":
            one, two = (np.load(file).astype(int) for file in (path, other))
            assert abs(one - two).max() <= 1
        elif path.suffix == ".npy":
            np.testing.assert_allclose(np.load(path), np.load(other), rtol=2e-3 if "std" in path.name else 1e-4,
                                       atol=1e-4)
        else:
            pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(other), rtol=1e-4, atol=1e-5)


def test_batches_of_one_function_remember_how_many_parts_fit():
    layer, seen, notes = torch.nn.Linear(3, 2), [], []

    def function(rows):
        seen.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("injected")
        return layer(rows)

    rows = torch.randn(25, 3)
    with torch.inference_mode():
        found = in_batches(function, rows, 10, Runtime(note=lambda event, parts: notes.append((event, parts))))
        assert torch.allclose(found, layer(rows), atol=1e-6)
    assert seen == [10, 5, 2, 3, 2, 3, *[2, 3, 2, 3] * 2]
    assert notes == [(NOTE, 2), (NOTE, 4)]


def test_a_single_item_that_does_not_fit_is_one_line():
    def function(rows):
        raise torch.OutOfMemoryError("injected")

    with pytest.raises(BenchError, match="a single item of the batch does not fit into the memory of cpu; use a dev"
                       ) as caught:
        in_batches(function, torch.zeros(5, 1), 4, Runtime())
    assert caught.value.exit_code == ENVIRONMENT
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("error", "is_memory"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
    (MemoryError("Unable to allocate 12.0 GiB for an array"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
    (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                  "to allocate 8 bytes. Error code 12 (Cannot allocate memory)"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), False),
    (RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"), False),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
    (ValueError("CUDA out of memory"), False),
])
def test_errors_of_memory_are_known_by_their_class_or_their_words(error, is_memory):
    assert is_out_of_memory(error) is is_memory

    def function(rows):
        if rows.stop - rows.start > 1:
            raise error
        return rows.start

    with pytest.raises(torch.OutOfMemoryError if is_memory else type(error)), naming_memory_errors():
        raise error
    batches = MicroBatches("cpu", lambda *_, **__: None)
    if is_memory:
        assert batches.run(function, 3) == [0, 1, 2]
    else:
        with pytest.raises(type(error)):
            batches.run(function, 3)


def test_torch_and_numpy_report_what_is_recognised():
    for allocate in (lambda: torch.empty(1 << 50), lambda: np.empty(1 << 50)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert is_out_of_memory(caught.value)


def test_a_stage_whose_memory_errors_cannot_be_divided_is_named(micro, monkeypatch):
    def full(*_):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr("bench.train.targets.targets", full)
    stage = replace(planned(Targets, FULL), views=2)
    with pytest.raises(BenchError, match="targets does not fit into the memory of cpu; use a device with more memory"):
        build(stage, micro)
