"""The key of a stage: the SHA-256 of the canonical JSON of all its fields, upstream stages included."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import field, fields, is_dataclass
from functools import cache, cached_property
from importlib.metadata import entry_points
from typing import Any, ClassVar

from bench import modules
from bench.errors import BenchError

GROUP = "eeg2image_bench.systems"  # entry points of installed packages: the system's name = its module
MOVED_CLASSES = {  # in requests of older versions: classes that moved without their module (modules.MOVED)
    "bench.data.prepared.Prepared": "bench.experiment.stages",
    "bench.data.prepared.Shards": "bench.experiment.stages",
}


class Stage:
    """Base of frozen dataclasses that are built into a folder; raise `version` when the meaning of the code changes."""

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


def added(default: Any) -> Any:
    """Returns a field that a dataclass got later: at its default it is not part of the canonical form.

    The keys of stages from before, and the recorded settings of rows, thus remain valid.
    """
    return field(default=default, metadata={"added": True})


@cache
def _fields(kind: type) -> tuple[tuple[str, bool], ...]:
    """Returns (name, whether it is compared) for each field of a dataclass; cached for large plans."""
    return tuple((f.name, f.compare) for f in fields(kind))


@cache
def _added(kind: type) -> dict[str, Any]:
    """Returns the defaults of a dataclass's added fields, by name."""
    return {f.name: f.default for f in fields(kind) if f.metadata.get("added")}


def canonical(value: Any) -> Any:
    """Converts a value to plain JSON types so that equal values are equal text: 1 and 1.0 are one number.

    Fields with `compare=False` are left out, and `added` ones at their default. Raises TypeError for a type without a
    canonical form (a path, a function, a set) and ValueError for NaN and infinities.
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
        absent = [name for name, default in _added(type(value)).items() if getattr(value, name) == default]
        return document | {name: canonical(getattr(value, name)) for name, compared in _fields(type(value))
                           if compared and name not in absent}
    raise TypeError(f"{type(value).__name__} has no canonical form: {value!r}")


def digest(value: Any) -> str:
    """Returns 12 hex digits that identify a value which is not a stage, such as a Variant."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def upstream(value: Any) -> Iterator[Stage]:
    """Yields the stages directly inside a value, in the order of its fields."""
    if value is None or isinstance(value, (str, int, float)):
        return
    if isinstance(value, tuple):
        children: Iterable[Any] = value
    else:
        kind: type = type(value)
        children = [getattr(value, name) for name, _ in _fields(kind)] if is_dataclass(kind) else []
    for child in children:
        if isinstance(child, Stage):
            yield child
        else:
            yield from upstream(child)


def dump(stage: Stage) -> str:
    """Writes a stage as JSON for `load` in another process: classes, versions and all fields, also uncompared ones.

    Paths become absolute. Raises TypeError for a value that is not None, a bool, number, text, tuple or dataclass.
    """
    return json.dumps({"key": stage.key, "stage": _to_plain(stage)}, indent=1, allow_nan=False) + "\n"


def load(text: str, name: str) -> Stage:
    """Reads the stage with key `name` that `dump` wrote; only frozen dataclasses of the suite and of installed systems.

    Raises BenchError for invalid JSON, for unknown classes, fields or versions, and for a stage with another key.
    """
    try:
        document = json.loads(text)
        given, stage = document["key"], _from_plain(document["stage"])
        actual = stage.key if isinstance(stage, Stage) else ""
    except Exception as error:  # the classes' own checks raise exceptions of any class for fields of another type
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BenchError(f"request {name[:12]} cannot be read ({reason}); write it again with: bench run") from error
    if not isinstance(stage, Stage) or given != name or actual != name:
        raise BenchError(f"request {name[:12]} contains another stage than its name says; write it again with: "
                         "bench run")
    return stage


def _to_plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return [_to_plain(item) for item in value]
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} cannot be written into a request: {value!r}")
    document: dict[str, Any] = {"class": f"{type(value).__module__}.{type(value).__qualname__}"}
    if isinstance(value, Stage):
        document["version"] = type(value).version
    document["fields"] = plain = {f.name: _to_plain(getattr(value, f.name)) for f in fields(value) if f.init}
    for f in fields(value):
        if not f.compare and f.name == "path" and plain["path"]:
            plain["path"] = os.path.abspath(plain["path"])
    return document


def _from_plain(plain: Any) -> Any:
    if plain is None or isinstance(plain, (bool, int, float, str)):
        return plain
    if isinstance(plain, list):
        return tuple(map(_from_plain, plain))
    kind, given = _find_class(plain["class"]), plain["fields"]
    if issubclass(kind, Stage) and plain["version"] != kind.version:
        raise ValueError(f"it has version {plain['version']} of {kind.__name__}, but this suite has version "
                         f"{kind.version}")
    known = {f.name for f in fields(kind) if f.init}  # type: ignore[arg-type]
    if wrong := set(given) - known | known - set(given) - set(_added(kind)):
        raise ValueError(f"{kind.__name__} has other fields: {', '.join(sorted(wrong))}")
    try:
        return kind(**{name: _from_plain(value) for name, value in given.items()})
    except BenchError as error:
        raise ValueError(str(error)) from error


def _find_class(name: str) -> type:
    """Returns a frozen dataclass of the suite or of an installed system. Raises ValueError for any other name."""
    module, _, short = name.rpartition(".")
    module = MOVED_CLASSES.get(name) or modules.MOVED.get(module, module)
    parts = module.split(".")
    inside = parts[0] == "bench" and len(parts) > 1
    if not all(part.isidentifier() for part in parts) or not (inside or any(
            parts[0] == entry.module.split(".")[0] for entry in entry_points(group=GROUP))):
        raise ValueError(f"{name} is not a class of the suite or of an installed system")
    try:
        kind = getattr(importlib.import_module(module), short, None)
    except ImportError as error:
        raise ValueError(f"{name} cannot be imported") from error
    if not (isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module
            and kind.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise ValueError(f"{name} is not a frozen dataclass")
    return kind
