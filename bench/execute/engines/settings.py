"""What an engine is asked for, for all stages and for single kinds, from TOML files and KEY=VALUE."""

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

Known = Mapping[str, type]  # of each setting: str, int, float, list (of texts) or dict (of texts)
SAID = {str: 'text, such as "a"', int: "a whole number from 0 on", float: "a number from 0 on",
        list: 'a list of texts, such as ["a"]', dict: 'a table of texts, such as {a = "b"}'}


def read(given: Sequence[str], known: Known) -> Callable[[Stage], dict[str, Any]]:
    """What is asked for a stage, from "FILE.toml", "KEY=VALUE" and "KIND.KEY=VALUE"; the last word counts, and that
    about a kind of stage, such as a file's table [score], before that about all.

    Raises BenchError for what is no setting, no kind, or of another type.
    """
    general: dict[str, Any] = {}
    special: dict[str, dict[str, Any]] = {}
    for one in given:
        where, document = (one, _assigned(one, known)) if "=" in one else (one, _file(Path(one)))
        for name, value in document.items():
            if name in known:
                general[name] = _merged(general.get(name), _checked(name, value, known, where))
                continue
            if not isinstance(value, dict) or name not in kinds():
                raise _unknown(name, known, where)
            own = special.setdefault(name, {})
            for inner, said in value.items():
                own[inner] = _merged(own.get(inner), _checked(inner, said, known, where))

    def of(stage: Stage) -> dict[str, Any]:
        own = special.get(stage.kind, {})
        return general | {name: _merged(general.get(name), value) for name, value in own.items()}

    return of


def kinds() -> list[str]:
    """Every kind of stage that the suite and the installed systems have."""
    systems.load_all()
    importlib.import_module("bench.prior.recipe")
    return sorted(registered())


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({error.strerror}); a TOML file or KEY=VALUE is expected") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is no TOML: {error}") from error


def _assigned(text: str, known: Known) -> dict[str, Any]:
    """"time=2:00:00" -> {"time": "2:00:00"}, "score.gpus=0" -> {"score": {"gpus": 0}}, "options.mem=0" alike."""
    name, _, value = (part.strip() for part in text.partition("="))
    *tables, last = name.split(".")
    wanted, said = str if known.get(tables[-1] if tables else "") is dict else known.get(last, str), value
    try:
        given: Any = [said] if wanted is list else wanted(said) if wanted in (int, float) else said
    except ValueError:
        given = said  # refused below, with what is expected
    for table in [last, *reversed(tables)]:
        given = {table: given}
    return given


def _checked(name: str, value: Any, known: Known, where: str) -> Any:
    if name not in known:
        raise _unknown(name, known, where)
    wanted = known[name]
    parts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and isinstance(value, (int, wanted)) and 0 <= value < float("inf") if wanted in (int, float) else
            isinstance(value, wanted) and all(isinstance(one, str) for one in parts)):
        raise BenchError(f"{where}: {name} is {value!r}; {SAID[wanted]} is expected")
    return value


def _unknown(name: str, known: Known, where: str) -> BenchError:
    return BenchError(f"{where}: no setting {name!r}; there are: {', '.join(sorted(known))}; and for one kind of "
                      f"stage, as the table [score] in a file or score.{min(known)}=...: {', '.join(kinds())}")


def _merged(before: Any, value: Any) -> Any:
    return before | value if isinstance(before, dict) else value
