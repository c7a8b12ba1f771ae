"""Reads the settings of an engine, for all stages and for single kinds, from TOML files and KEY=VALUE."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import systems
from bench.errors import BenchError
from bench.experiment.key import Stage
from bench.experiment.kinds import registered

Known = Mapping[str, type]  # type of each setting: str, int, float, list (of text) or dict (of text)
EXPECTED = {str: 'text, such as "a"', int: "a whole number from 0 on", float: "a number from 0 on",
            list: 'a list of texts, such as ["a"]', dict: 'a table of texts, such as {a = "b"}'}


def read(texts: Sequence[str], known: Known) -> Callable[[Stage], dict[str, Any]]:
    """The settings of each stage, from "FILE.toml", "KEY=VALUE" and "KIND.KEY=VALUE". A setting for one kind of stage,
    such as in a file's table [score], overrides a general one; otherwise the last one wins.

    Raises BenchError for an unknown setting or kind, or a value of the wrong type.
    """
    general: dict[str, Any] = {}
    special: dict[str, dict[str, Any]] = {}
    for text in texts:
        for name, value in (_read_flag(text, known) if "=" in text else _read_file(Path(text))).items():
            if name in known:
                general[name] = _merge(general.get(name), _checked(name, value, known, text))
                continue
            if not isinstance(value, dict) or name not in kinds():
                raise _unknown(name, known, text)
            of_kind = special.setdefault(name, {})
            for inner, setting in value.items():
                of_kind[inner] = _merge(of_kind.get(inner), _checked(inner, setting, known, text))

    return lambda stage: general | {name: _merge(general.get(name), value)
                                    for name, value in special.get(stage.kind, {}).items()}


def kinds() -> list[str]:
    """Every kind of stage of the suite and of the installed systems."""
    systems.load_all()
    importlib.import_module("bench.prior.recipe")
    return sorted(registered())


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({error.strerror}); expected a TOML file or KEY=VALUE") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is not valid TOML: {error}") from error


def _read_flag(text: str, known: Known) -> dict[str, Any]:
    """"time=2:00:00" -> {"time": "2:00:00"}, "score.gpus=0" -> {"score": {"gpus": 0}}, also "options.mem=0"."""
    name, _, value = (part.strip() for part in text.partition("="))
    *tables, last = name.split(".")
    kind = str if known.get(tables[-1] if tables else "") is dict else known.get(last, str)
    try:
        setting: Any = [value] if kind is list else kind(value) if kind in (int, float) else value
    except ValueError:
        setting = value  # _checked raises
    for table in [last, *reversed(tables)]:
        setting = {table: setting}
    return setting


def _checked(name: str, value: Any, known: Known, source: str) -> Any:
    """The value. Raises BenchError for an unknown setting or a value of the wrong type."""
    if name not in known:
        raise _unknown(name, known, source)
    kind = known[name]
    if kind in (int, float):
        is_valid = isinstance(value, (int, kind)) and not isinstance(value, bool) and 0 <= value < float("inf")
    else:
        parts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        is_valid = isinstance(value, kind) and all(isinstance(part, str) for part in parts)
    if not is_valid:
        raise BenchError(f"{source}: {name} is {value!r}; expected {EXPECTED[kind]}")
    return value


def _unknown(name: str, known: Known, source: str) -> BenchError:
    return BenchError(f"{source}: no setting {name!r}; the settings are: {', '.join(sorted(known))}; for one kind of "
                      f"stage, as the table [score] in a file or score.{min(known)}=...: {', '.join(kinds())}")


def _merge(before: Any, value: Any) -> Any:
    return before | value if isinstance(before, dict) else value
