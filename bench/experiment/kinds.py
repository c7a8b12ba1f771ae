"""Registry of stage kinds: which function builds a stage, its place in the building order, and its cost.

Each file that defines stages registers their kinds. So a system, also one in an installed package, brings its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.experiment.key import Stage
from bench.modules import import_object

ORDER = ("trials", "corpus", "reference", "targets", "pretrain", "finetune", "generate", "score", "retrieval",
         "readout")  # steps, upstream first: the order of listings; runs build from its end


@dataclass(frozen=True)
class Kind:
    """How the stages of one class are built. Functions are "package.module:function" and imported when they are used.

    builder   function(stage, inputs, out, runtime) that fills the stage's folder
    step      its place in ORDER; "" is last
    trains    whether it is a training
    on_cpu    function(stage) -> whether its builder uses no GPU, whatever its numerics
    forecast  function(stage) -> seconds on one core at scale tiny; "": bench.cost.forecast estimates it
    cost      function(stage) -> bench.cost.counting.Cost of a system's own stage; "": bench.cost knows it
    rate      the kind whose GPU rate it reaches (bench.cost.rates); "": that of small networks
    omits     what its cost does not count
    """

    builder: str = ""
    step: str = ""
    trains: bool = False
    on_cpu: Callable[[Any], bool] | None = None
    forecast: str = ""
    cost: str = ""
    rate: str = ""
    omits: str = ""

    @property
    def place(self) -> int:
        """The index of its step in ORDER."""
        return ORDER.index(self.step) if self.step else len(ORDER)


@dataclass(frozen=True)
class FrozenPart:
    """A frozen part that only the rows of one system need.

    pin   "package.module:NAME" of its models.pins.Part; "": it is in models.pins under the part's name
    size  "package.module:function" that returns its bytes on disk (bench.cost)
    """

    pin: str = ""
    size: str = ""


_KINDS: dict[type[Stage], Kind] = {}
_PARTS: dict[str, FrozenPart] = {}


def register(kinds: Mapping[type[Stage], Kind]) -> None:
    """Registers kinds of stages; the file that defines the stages calls it once."""
    _KINDS.update(kinds)


def register_parts(parts: Mapping[str, FrozenPart]) -> None:
    """Registers a system's own frozen parts by name; the system's file calls it once."""
    _PARTS.update(parts)


def frozen_parts() -> Mapping[str, FrozenPart]:
    """Returns the registered frozen parts; call bench.systems.load_all first to have those of all systems."""
    return _PARTS


def kind_of(stage: Stage) -> Kind:
    """Returns the kind of a stage; an empty one if its class is not registered."""
    return _KINDS.get(type(stage), Kind())


def builder_of(stage: Stage) -> Any:
    """Imports the function that builds a stage. Raises KeyError if its class is not registered."""
    return import_object(_KINDS[type(stage)].builder)


def gpus_of(stage: Stage) -> int:
    """Returns the number of GPUs that a stage is planned for; 0 for a stage that uses none."""
    numerics, on_cpu = getattr(stage, "numerics", None), kind_of(stage).on_cpu
    if on_cpu and on_cpu(stage):
        return 0
    return numerics.world_size if numerics and numerics.device_class != "cpu" else 0


def registered() -> Iterator[str]:
    """Yields the names of all registered kinds."""
    return (stage.__name__.lower() for stage in _KINDS)
