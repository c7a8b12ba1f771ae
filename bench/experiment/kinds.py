"""The kinds of stages: which function builds each, and its place in the order of building.

Every file that defines stages registers their kinds, so that a new system, also one outside the suite, brings its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.experiment.key import Stage
from bench.modules import import_object

ORDER = ("trials", "corpus", "reference", "targets", "pretrain", "finetune", "generate", "score", "retrieval",
         "readout")  # steps, upstream first: the order of lists, and from its end the priority of building


@dataclass(frozen=True)
class Kind:
    """How the stages of one class are built. Functions are named "package.module:function" and imported when needed.

    builder   fills the stage's folder: function(stage, inputs, out, runtime)
    step      its place in ORDER; "" comes last
    trains    whether it is a training behind what a row generates
    forecast  function(stage) -> seconds on one core at scale tiny; "": bench.cost.forecast knows, or takes a guess
    cost      function(stage) -> Cost of a system's own stage (bench.cost); "": bench.cost knows
    rate      the kind whose rate on a GPU it reaches (bench.cost.rates); "": that of small networks
    omits     what its cost does not count
    """

    builder: str = ""
    step: str = ""
    trains: bool = False
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

    pin   "package.module:NAME" of its models.pins.Part; "": models.pins has it under the part's name
    size  function() -> bytes that it takes on the disk (bench.cost)
    """

    pin: str = ""
    size: str = ""


_KINDS: dict[type[Stage], Kind] = {}
_PARTS: dict[str, FrozenPart] = {}


def register(kinds: Mapping[type[Stage], Kind]) -> None:
    """Makes kinds of stages known; the file that defines the stages calls it once."""
    _KINDS.update(kinds)


def register_parts(parts: Mapping[str, FrozenPart]) -> None:
    """Makes a system's own frozen parts known, by their names; the system's file calls it once."""
    _PARTS.update(parts)


def frozen_parts() -> Mapping[str, FrozenPart]:
    """The frozen parts of all systems that are loaded (bench.systems.load_all)."""
    return _PARTS


def kind_of(stage: Stage) -> Kind:
    """The kind of a stage; an empty one for a class that is not registered."""
    return _KINDS.get(type(stage), Kind())


def builder_of(stage: Stage) -> Any:
    """The function that fills a stage's folder. Raises KeyError for a stage whose class is not registered."""
    return import_object(_KINDS[type(stage)].builder)


def registered() -> Iterator[str]:
    """The names of all kinds that are registered so far."""
    return (stage.__name__.lower() for stage in _KINDS)
