"""The key of a stage: SHA-256 of the canonical JSON of all its fields, the upstream stages included."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

from bench import modules
from bench.errors import BenchError

MOVED_CLASSES = {  # of requests of older versions, where not the whole module moved (modules.MOVED)
    "bench.data.prepared.Prepared": "bench.experiment.stages",
    "bench.data.prepared.Shards": "bench.experiment.stages",
}


class Stage:
    """Marks a frozen dataclass that is built into a folder; `version` is bumped when its code changes meaning."""

    version: ClassVar[int] = 1

    @property
    def kind(self) -> str:
        """The name of the stage's class in lower case: `pretrain` for a Pretrain."""
        return type(self).__name__.lower()

    @property
    def document(self) -> str:
        """Canonical JSON of the stage: sorted keys, no white space."""
        return json.dumps(canonical(self), sort_keys=True, separators=(",", ":"))

    @cached_property
    def key(self) -> str:
        """64 hex digits: the SHA-256 of the document, and the name of the stage's folder in the store."""
        return hashlib.sha256(self.document.encode()).hexdigest()


@cache
def _fields(of: type) -> tuple[tuple[str, bool], ...]:
    """(name, whether it is compared) of each field of a dataclass; asked millions of times for a large plan."""
    return tuple((f.name, f.compare) for f in fields(of))


def canonical(value: Any) -> Any:
    """The value as plain JSON types in which equal values look equal: 1 and 1.0 are one number.

    Fields with `compare=False` are left out. Raises TypeError for a type that has no canonical form (a path, a
    function, a set) and ValueError for NaN and infinities.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no canonical form")
        return int(value) if value == int(value) else value
    if isinstance(value, tuple):
        return [canonical(v) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        document = {"kind": type(value).__name__}
        if isinstance(value, Stage):
            document["version"] = canonical(type(value).version)
        return document | {name: canonical(getattr(value, name)) for name, compared in _fields(type(value)) if compared}
    raise TypeError(f"{type(value).__name__} has no canonical form: {value!r}")


def digest(value: Any) -> str:
    """12 hex digits of a value that is no stage, such as a Variant: equal values have equal ones."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def upstream(value: Any) -> Iterator[Stage]:
    """The stages directly inside a value, in the order of its fields."""
    if value is None or isinstance(value, (str, int, float)):
        return
    if isinstance(value, tuple):
        children: Iterable[Any] = value
    else:
        of: type = type(value)
        children = [getattr(value, name) for name, _ in _fields(of)] if is_dataclass(of) else []
    for child in children:
        if isinstance(child, Stage):
            yield child
        else:
            yield from upstream(child)


def dump(stage: Stage) -> str:
    """JSON that `load` makes the stage from again, in another process: its classes, their versions, and all fields,
    those that are not compared included. Fields that say where something lies are written out from the root.

    Raises TypeError for a value that is neither None, a truth value, a number, text, a tuple nor a dataclass.
    """
    return json.dumps({"key": stage.key, "stage": _plain(stage)}, indent=1, allow_nan=False) + "\n"


def load(text: str, name: str) -> Stage:
    """The stage of key `name` that `dump` wrote. Makes frozen dataclasses of the suite's own modules and nothing else.

    Raises BenchError for text that is no such JSON, for other classes, fields or versions than this suite has, and for
    a stage of another key.
    """
    try:
        document = json.loads(text)
        given, stage = document["key"], _value(document["stage"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BenchError(f"request {name[:12]} cannot be read ({type(error).__name__}: {error}); ask for the stage "
                         "again with bench run") from error
    if not isinstance(stage, Stage) or given != name or stage.key != name:
        raise BenchError(f"request {name[:12]} holds another stage than its name says; ask for the stage again with "
                         "bench run")
    return stage


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} cannot be written into a request: {value!r}")
    said: dict[str, Any] = {"class": f"{type(value).__module__}.{type(value).__qualname__}"}
    if isinstance(value, Stage):
        said["version"] = type(value).version
    said["fields"] = own = {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.init}
    for f in fields(value):
        if not f.compare and f.name == "path" and own["path"]:
            own["path"] = os.path.abspath(own["path"])
    return said


def _value(plain: Any) -> Any:
    if plain is None or isinstance(plain, (bool, int, float, str)):
        return plain
    if isinstance(plain, list):
        return tuple(map(_value, plain))
    made, said = _class(plain["class"]), plain["fields"]
    if issubclass(made, Stage) and plain["version"] != made.version:
        raise ValueError(f"it asks for version {plain['version']} of {made.__name__}, and this suite has "
                         f"{made.version}")
    known = {f.name for f in fields(made) if f.init}  # type: ignore[arg-type]
    if set(said) != known:
        raise ValueError(f"{made.__name__} has other fields: {', '.join(sorted(known.symmetric_difference(said)))}")
    try:
        return made(**{name: _value(one) for name, one in said.items()})
    except BenchError as error:
        raise ValueError(str(error)) from error


def _class(name: str) -> type:
    """The frozen dataclass of that name, which a module of the suite defines. Raises ValueError for any other."""
    module, _, short = name.rpartition(".")
    module = MOVED_CLASSES.get(name) or modules.MOVED.get(module, module)
    rooms = module.split(".")
    if rooms[0] != "bench" or len(rooms) < 2 or not all(room.isidentifier() for room in rooms):
        raise ValueError(f"{name} is no class of the suite")
    try:
        made = getattr(importlib.import_module(module), short, None)
    except ImportError as error:
        raise ValueError(f"{name} is no class of this suite") from error
    if not (isinstance(made, type) and is_dataclass(made) and made.__module__ == module
            and made.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise ValueError(f"{name} is no frozen dataclass of the suite")
    return made
