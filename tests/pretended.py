"""A pretended GPU: tensors on "cuda" without values, for tests on machines without one.

Operations with such tensors run on torch's FakeTensorMode, which computes shapes, dtypes and devices only, and raises
where a tensor of the CPU meets one of the GPU. All other operations run for real. What is read back from the GPU is
random numbers of the right shape. torch's backward pass asks the driver for the GPU, so it is replaced: every
parameter that the loss depends on gets a gradient without values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bench.experiment import graph
from bench.experiment.key import Stage
from bench.experiment.kinds import builder_of
from bench.runtime import Runtime
from bench.store.store import Store

aten = torch.ops.aten


class PretendedGpu(TorchDispatchMode):
    """Sends operations on "cuda" to FakeTensorMode. copies: counts "to" and "from" the GPU; reads: of single values;
    dtypes: of the tensors there, with the operation that made the first of each."""

    _mode_key = torch._C._TorchDispatchModeKey.FAKE  # otherwise torch asks the driver for the GPU first

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode()
        self.copies: Counter[str] = Counter()
        self.dtypes: dict[torch.dtype, str] = {}
        self.reads = 0
        self._generator = torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        on_gpu = any(isinstance(leaf, FakeTensor) for leaf in leaves)
        wants_gpu = any(isinstance(leaf, torch.device) and leaf.type == "cuda" for leaf in leaves)
        if not on_gpu and not wants_gpu:
            if function in (aten._pin_memory.default, aten.pin_memory.default):  # memory that only a driver can pin
                return args[0]
            return function(*args, **{name: value for name, value in kwargs.items() if name != "pin_memory"})
        if function.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(
                function.name(), "CompositeImplicitAutograd"):
            with self:  # in inference mode, operations made of others arrive whole
                return function.decompose(*args, **kwargs)
        if function is aten._local_scalar_dense.default:
            self.reads += 1
            known = getattr(args[0], "known", None)
            return {torch.bool: True, torch.int64: 0}.get(args[0].dtype, 0.5) if known is None else known.item()
        if function is aten.add_.Tensor and hasattr(args[0], "known") and not isinstance(args[1], Tensor):
            args[0].known = args[0].known + args[1]  # a counter, such as a batch norm's
        if function is aten.nonzero.default:  # the number of results is read back
            self.reads += 1
            with self:
                return torch.zeros(1, args[0].ndim, dtype=torch.int64, device="cuda")
        if function is aten.copy_.default and not isinstance(args[0], FakeTensor):
            self.copies["from"] += 1
            return args[0].copy_(self._values(args[1]))
        if function is aten._to_copy.default:
            if on_gpu and torch.device(kwargs.get("device") or "cuda").type == "cpu":
                self.copies["from"] += 1
                return self._values(args[0], kwargs.get("dtype"))
            if not on_gpu:
                self.copies["to"] += 1
        known = args[0] if function is aten._to_copy.default and not on_gpu else getattr(args[0], "known", None) \
            if function in (aten.detach.default, aten.alias.default, aten.clone.default) else None
        args, kwargs = tree_map(self._pretend, (args, kwargs))
        with self.fake:
            result = function(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, FakeTensor) and leaf.device.type == "cuda":
                self.dtypes.setdefault(leaf.dtype, function.name())
        if known is not None and not known.is_floating_point():
            result.known = known  # such as a module's sizes: whole numbers that come back as they were sent
        return result

    def _pretend(self, value: Any) -> Any:
        """A tensor of the CPU as a fake one of the CPU; everything else as it is."""
        is_real = isinstance(value, Tensor) and not isinstance(value, FakeTensor)
        return self.fake.from_tensor(value.detach()) if is_real else value  # keeps no reference to a parameter

    def _values(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Random numbers of the shape of a tensor on the GPU, or the whole numbers that were sent there."""
        dtype = dtype or tensor.dtype
        if (known := getattr(tensor, "known", None)) is not None:
            return known.to(dtype, copy=True)
        if dtype.is_floating_point:
            return torch.randn(tensor.shape, generator=self._generator).to(dtype)
        return torch.randint(0, 2, tensor.shape, generator=self._generator).to(dtype)


def pretend_gradients(loss: Tensor, *_: Any, **__: Any) -> None:
    """Gives a gradient without values to every leaf that a loss depends on, as its backward pass would."""
    waiting, known = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            leaf.grad = torch.empty_like(leaf)
        waiting += [above for above, _ in node.next_functions]
    assert known, "the loss depends on no parameter"


def run_at_once(pool: Executor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    """Runs a task in this thread: a dispatch mode holds for one thread only."""
    future: Future[Any] = Future()
    future.set_result(function(*args, **kwargs))
    return future


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Pretends a GPU, also to the functions of torch.cuda that the stages call."""
    state = torch.zeros(16, dtype=torch.uint8)
    torch._C._ensureCUDADeviceGuardSet()  # a number for "cuda" without asking the driver
    with ExitStack() as stack:
        for name, value in {"max_memory_allocated": 0, "get_device_name": "NVIDIA H200", "get_rng_state": state,
                            "set_rng_state": None, "empty_cache": None, "is_bf16_supported": True}.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, lambda *_, value=value, **__: value))
        stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False))
        stream = SimpleNamespace(record_event=lambda: None, wait_event=lambda _: None)
        for name, function in {"Stream": lambda _: stream, "current_stream": lambda _: stream,
                               "stream": lambda _: nullcontext()}.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        stack.enter_context(mock.patch.object(Tensor, "record_stream", return_value=None))
        stack.enter_context(mock.patch.object(Tensor, "backward", pretend_gradients))
        real = torch.tensor  # it asks the driver for the GPU before it is dispatched
        stack.enter_context(mock.patch.object(torch, "tensor", lambda data, *, device=None, **options: (
            real(data, **options) if device is None else real(data, **options).to(device))))
        pick = Tensor.__getitem__  # a list of numbers as an index becomes a tensor on the GPU, which asks the driver
        stack.enter_context(mock.patch.object(
            Tensor, "__getitem__", lambda self, index: pick(self, real(index).to(self.device)
                                                            if isinstance(index, list) else index)))
        stack.enter_context(mock.patch.object(torch.nn.RNNBase, "flatten_parameters", return_value=None))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        # transformers keeps weak references to parameters; torch would refuse to move these to a GPU that is pretended
        stack.enter_context(mock.patch.object(torch.utils, "weakref", SimpleNamespace(getweakrefs=lambda _: [])))
        stack.enter_context(mock.patch.object(ThreadPoolExecutor, "submit", run_at_once))
        yield stack.enter_context(PretendedGpu())


def build_on_pretended_gpu(score: Stage, store: Store) -> dict[str, PretendedGpu]:
    """Runs the function of each stage below a score on a pretended GPU; returns the pretended GPU of each kind."""
    gpus: dict[str, PretendedGpu] = {}
    for stage in graph.stages([score], store.has):
        def fill(out: Path, stage: Stage = stage) -> None:
            with pretended_gpu() as gpu:
                builder_of(stage)(stage, store.path, out, Runtime("cuda"))
            gpus[stage.kind] = gpu

        store.build(stage, fill)
    return gpus
