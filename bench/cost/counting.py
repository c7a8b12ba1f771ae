"""Counting on the meta device: FLOPs, bytes that autograd keeps, parameters."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.cost.rates import GIGA, HEADROOM
from bench.runtime import Gpu
from models.parameters import count_parameters

if TYPE_CHECKING:
    from torch import Tensor, nn


AUTOCAST = 1.5  # sums and inputs of norms stay in float32: saved bytes over those with everything in bfloat16; assumed
ALIVE = 4  # tensors of the largest one's size, in float32, at the peak of a forward pass; assumed


def counted(forward: Callable[[], Tensor], backward: bool) -> tuple[int, int]:
    """FLOPs of `forward`, and of that with the backward pass from its sum (0 without): matrix products and
    convolutions, 2 for each multiply-add; attention as two matrix products forward and four backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.set_grad_enabled(backward), sdpa(), FlopCounterMode(display=False) as counter:
        result = forward()
        once = int(counter.get_total_flops())
        if backward:
            result.sum().backward()
    return once, int(counter.get_total_flops()) if backward else 0


def sdpa() -> Any:
    """A context in which attention is its two matrix products, whatever kernels a machine has."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def meta(*shape: int, **options: Any) -> Tensor:
    """A tensor that has a shape and nothing else."""
    import torch

    return torch.empty(*shape, device="meta", **options)


@functools.cache
def part(name: str) -> Any:
    """A module of models.configurations on the meta device, frozen, in evaluation mode."""
    import torch

    from models import configurations

    with torch.device("meta"):
        part: nn.Module = getattr(configurations, name)()
    return part.eval().requires_grad_(False)


@dataclass(frozen=True)
class Cost:
    """What a system says of one of its own stages: FLOPs of building it, memory on the GPU, bytes that it leaves."""

    flops: int
    memory: Memory | None
    disk: int


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak: `fixed`, and `sample` for each of a micro-batch; `batch` is the whole one."""

    fixed: int
    sample: int
    batch: int

    def micro(self, gpu: Gpu) -> int:
        """The largest of equal parts of the batch that fits; 0 where not one sample does."""
        most = int((HEADROOM * gpu.gigabytes * GIGA - self.fixed) // max(self.sample, 1))
        return 0 if most < 1 else math.ceil(self.batch / math.ceil(self.batch / most))

    def peak(self, gpu: Gpu) -> int:
        """Bytes at that micro-batch, or at one sample where it does not fit."""
        return self.fixed + self.sample * max(1, self.micro(gpu))


def part_parameters(name: str) -> int:
    return count_parameters(part(name))


def saved(module: nn.Module, run: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps of one forward pass in bfloat16, beside the parameters, times AUTOCAST."""
    import torch

    kept: dict[int, Tensor] = {}
    torch.nn.Module.to(module, torch.bfloat16)  # diffusers' own would warn
    own = {p.untyped_storage()._cdata for p in module.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), fused():
            result = run()
        total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        del result
    finally:
        torch.nn.Module.to(module, torch.float32)
    return int(AUTOCAST * total)


def another(net: nn.Module, run: Callable[[int], Tensor]) -> int:
    """Bytes that autograd keeps in float32 of one more sample; `run` takes so many, in bfloat16. The first ones have
    weights among what is kept."""
    net.train()
    return round(2 * (saved(net, lambda: run(3)) - saved(net, lambda: run(2))) / AUTOCAST)


def training(flops: int, trained: nn.Module, kept: nn.Module, sample: int, batch: int, held: int = 0) -> Cost:
    """Of a training in float32: in memory `held` bytes, 16 for each parameter (value, gradient and the optimiser's two)
    and `sample` for each sample of a batch; on the disk the parameters of `kept`."""
    return Cost(flops, Memory(held + 16 * count_parameters(trained), sample, batch), 4 * count_parameters(kept))


def fused() -> Any:
    """A context in which attention on the meta device keeps and makes what a fused kernel does: no [L, L] weights."""
    import torch
    from torch.overrides import TorchFunctionMode

    def fused(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]

    class Fused(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.nn.functional.scaled_dot_product_attention:
                return fused(*args, **(kwargs or {}))
            return function(*args, **(kwargs or {}))

    return Fused()


@functools.cache
def largest_tensor(what: str) -> int:
    """Bytes in float32 of the largest tensor of one picture's way through the VAE ("encode", "decode") or the judge."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Largest(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if not {id(leaf) for leaf in tree_leaves(args)} & {id(leaf) for leaf in tree_leaves(result)}:
                self.found = max([self.found, *(4 * leaf.numel() for leaf in tree_leaves(result)
                                                if isinstance(leaf, torch.Tensor) and leaf.ndim == 4)])
            return result

    runs: dict[str, Callable[[], object]] = {
        "encode": lambda: part("stable_diffusion_vae").encode(meta(1, 3, 512, 512)),
        "decode": lambda: part("stable_diffusion_vae").decode(meta(1, 4, 64, 64)),
        "judge": lambda: part("judge")(meta(1, 3, 224, 224))}
    with torch.no_grad(), fused(), Largest() as largest:
        runs[what]()
    return largest.found
