"""Counts on torch's meta device: FLOPs, bytes that autograd saves, parameters. Torch is imported inside functions."""

from __future__ import annotations

import contextlib
import functools
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.cost.rates import GIGA, HEADROOM
from bench.runtime import Gpu
from models.parameters import count_parameters

if TYPE_CHECKING:
    from torch import Tensor, dtype, nn

AUTOCAST = 1.5  # saved bytes relative to pure bfloat16: sums and inputs of norms stay in float32; assumption


@dataclass(frozen=True)
class Memory:
    """Bytes on a GPU at the peak: `fixed`, and `sample` for each sample of a micro-batch. batch: samples of a step."""

    fixed: int
    sample: int
    batch: int

    def micro(self, gpu: Gpu) -> int:
        """The largest of equal parts of the batch that fits the GPU; 0 if a single sample does not fit."""
        most = int((HEADROOM * gpu.gigabytes * GIGA - self.fixed) // max(self.sample, 1))
        return 0 if most < 1 else math.ceil(self.batch / math.ceil(self.batch / most))

    def peak(self, gpu: Gpu) -> int:
        """Bytes at that micro-batch, or at one sample if it does not fit."""
        return self.peak_of(max(1, self.micro(gpu)))

    def peak_of(self, samples: int) -> int:
        """Bytes at a micro-batch of so many samples."""
        return self.fixed + self.sample * samples


@dataclass(frozen=True)
class Cost:
    """The cost of one stage of a system: FLOPs, memory on the GPU, bytes on disk."""

    flops: int
    memory: Memory | None
    disk: int


def meta(*shape: int, dtype: dtype | str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor on the meta device; dtype: torch's, or its name."""
    import torch

    return torch.empty(*shape, device="meta", dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype,
                       requires_grad=requires_grad)


def on_meta(make: Callable[..., Any], *arguments: Any) -> Any:
    """The result of make(*arguments), built on the meta device."""
    import torch

    with torch.device("meta"):
        return make(*arguments)


@functools.cache
def part(name: str) -> Any:
    """A network of models.configurations on the meta device, frozen, in evaluation mode."""
    from models import configurations

    return on_meta(getattr(configurations, name)).eval().requires_grad_(False)


@functools.cache
def part_parameters(name: str) -> int:
    """The number of parameters of `part`."""
    return count_parameters(part(name))


def count_flops(forward: Callable[[], Tensor], backward: bool, simple: bool = True) -> tuple[int, int]:
    """FLOPs of `forward`, and of `forward` with the backward pass from its sum (0 without `backward`).

    Counts as `models.counter.make_counter`. simple: with `simple_layers`, which is faster; not for a checkpointed
    network, whose second forward pass runs outside of that context.
    """
    import torch

    from models.counter import make_counter

    layers = simple_layers() if simple else contextlib.nullcontext()
    with torch.set_grad_enabled(backward), plain_attention(), layers, make_counter() as counted:
        result = forward()
        once = int(counted.get_total_flops())
        if backward:
            result.sum().backward()
    return once, int(counted.get_total_flops()) if backward else 0


def forward_flops(forward: Callable[[], Tensor]) -> int:
    """FLOPs of a forward pass, as `count_flops`."""
    return count_flops(forward, False)[0]


def step_flops(forward: Callable[[], Tensor]) -> int:
    """FLOPs of a forward and a backward pass, as `count_flops`."""
    return count_flops(forward, True)[1]


def plain_attention() -> Any:
    """A context in which attention is computed as two matrix products, on every machine."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def simple_layers() -> Any:
    """A context in which norms only scale and shift, and a linear layer adds its bias after the product.

    Shapes, gradients that are needed, matrix products and convolutions stay as they are, so the FLOPs stay. On the meta
    device torch computes the shapes of a norm and of `addmm` in many small Python functions, which takes most of the
    time of a count.
    """
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    def scale(x: Any, weight: Any = None, bias: Any = None) -> Any:
        x = x * (1.0 if weight is None else weight)
        return x if bias is None else x + bias

    def layer_norm(x: Any, shape: Any, weight: Any = None, bias: Any = None, *_: Any, **__: Any) -> Any:
        return scale(x, weight, bias)

    def group_norm(x: Any, groups: int, weight: Any = None, bias: Any = None, *_: Any, **__: Any) -> Any:
        return scale(x, *(each if each is None else each.view(-1, *[1] * (x.ndim - 2)) for each in (weight, bias)))

    def linear(x: Any, weight: Any, bias: Any = None) -> Any:
        product = functional.linear(x, weight)
        return product if bias is None else product + bias

    simple = {functional.layer_norm: layer_norm, torch.layer_norm: layer_norm, functional.group_norm: group_norm,
              torch.group_norm: group_norm, functional.linear: linear}

    class Simple(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return simple.get(function, function)(*args, **(kwargs or {}))

    return Simple()


def fused_attention() -> Any:
    """A context in which attention on the meta device saves what a fused kernel saves: no [L, L] weights."""
    import torch
    from torch.overrides import TorchFunctionMode

    def attend(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]

    class Fused(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            attention = function is torch.nn.functional.scaled_dot_product_attention
            return (attend if attention else function)(*args, **(kwargs or {}))

    return Fused()


def saved_bytes(module: nn.Module, run: Callable[[dtype], Tensor]) -> int:
    """Bytes that autograd saves in one forward pass `run(bfloat16)`, without the parameters, times AUTOCAST."""
    import torch

    tensors: dict[int, Tensor] = {}
    torch.nn.Module.to(module, torch.bfloat16)  # diffusers' own `to` would warn
    parameters = {p.untyped_storage()._cdata for p in module.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in parameters:
            tensors[tensor.untyped_storage()._cdata] = tensor
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), fused_attention():
            result = run(torch.bfloat16)
        total = sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
        del result
    finally:
        torch.nn.Module.to(module, torch.float32)
    return int(AUTOCAST * total)


def bytes_per_sample(net: nn.Module, run: Callable[[int, dtype], Tensor]) -> int:
    """Bytes that autograd saves in float32 for one more sample of run(samples, dtype).

    Compares three samples with two, as tensors derived from weights are saved once.
    """
    net.train()
    three, two = (saved_bytes(net, functools.partial(run, samples)) for samples in (3, 2))
    return round(2 * (three - two) / AUTOCAST)


def training_cost(flops: int, trained: nn.Module, kept: nn.Module, sample: int, batch: int, held: int = 0) -> Cost:
    """The cost of a training in float32.

    Memory: `held` bytes, 16 for each trained parameter (value, gradient, two moments), `sample` for each sample. Disk:
    the parameters of `kept`.
    """
    return Cost(flops, Memory(held + 16 * count_parameters(trained), sample, batch), 4 * count_parameters(kept))


@functools.cache
def forward_bytes(direction: str) -> int:
    """Counts the bytes of tensors at the peak of a forward pass of one image in float32, without parameters.

    direction: through the VAE at 512 pixels ("encode", "decode"), or through a network that measures: "judge" and
    "clip" at 224, "inception" at 299.
    """
    if direction in {"encode", "decode"}:
        run = getattr(part("stable_diffusion_vae"), direction)
        image = meta(1, 3, 512, 512) if direction == "encode" else meta(1, 4, 64, 64)
    else:
        run, side = part(direction), 299 if direction == "inception" else 224
        image = meta(1, 3, side, side)
    return live_bytes(lambda: run(image))


def live_bytes(run: Callable[[], Any]) -> int:
    """Counts the bytes of the tensors that `run` makes on the meta device, at the moment when they are most.

    Without autograd, and with fused attention. A tensor lives as on a real device: until Python drops it.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    def storages(values: Any) -> dict[int, Any]:
        tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))
        return {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in tensors)}

    class Living(TorchDispatchMode):
        bytes = peak = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            before = storages((args, kwargs))
            for key, storage in storages(result).items():
                if key not in before:  # no view, and not in place
                    self.add(storage.nbytes())
                    weakref.finalize(storage, self.add, -storage.nbytes())
            return result

        def add(self, number: int) -> None:
            self.bytes += number
            self.peak = max(self.peak, self.bytes)

    with torch.no_grad(), fused_attention(), Living() as living:
        run()
    return living.peak
