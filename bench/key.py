"""The key of a stage: SHA-256 of the canonical JSON of all its fields, the upstream stages included."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, ClassVar


class Stage:
    """Marks a frozen dataclass that is built into a folder; `version` is bumped when its code changes meaning."""

    version: ClassVar[int] = 1


def kind(value: Any) -> str:
    """The name of a stage's kind, and of the function that builds it: `pretrain` for a Pretrain."""
    return type(value).__name__.lower()


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


def document(stage: Stage) -> str:
    """Canonical JSON of a stage: sorted keys, no white space."""
    return json.dumps(canonical(stage), sort_keys=True, separators=(",", ":"))


def key(stage: Stage) -> str:
    """64 hex digits: what the stage's folder is called in the store."""
    return hashlib.sha256(document(stage).encode()).hexdigest()


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
