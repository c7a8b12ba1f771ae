"""A system in one file of a user: a function `pictures` and, optionally, a function `fit` (docs/adding.md)."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from bench.experiment import encoders
from bench.experiment.key import Stage, canonical
from bench.experiment.kinds import Kind, register
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Numerics, Score, Targets, Weights, training
from bench.experiment.variant import refuse
from bench.files import explain

Settings = tuple[tuple[str, Any], ...]
GIVEN = {"fit": ("train", "run"), "pictures": ("train", "test", "run")}  # the arguments before the settings


@dataclass(frozen=True)
class Spec:
    """A row: a file, and settings of its functions, such as {"neighbours": 5}: numbers, text, None, or lists of them.

    sees_eeg: False for a system that does not use the EEG of the test items. eeg_free: as in On. Raises BenchError for
    a setting without a canonical form.
    """

    name: str = field(compare=False)
    file: str
    settings: Any = ()
    sees_eeg: bool = field(default=True, compare=False)
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "own"

    def __post_init__(self) -> None:
        if not isinstance(self.file, (str, Path)):
            raise refuse(self, f"file must be the path of a .py file, not {self.file!r}")
        try:
            settings = tuple(sorted((key, _frozen(value)) for key, value in dict(self.settings).items()))
            canonical(settings)
        except (TypeError, ValueError) as error:
            raise refuse(self, "settings must be names with numbers, text, None, or lists of them, not "
                               f"{self.settings!r} ({error})") from error
        object.__setattr__(self, "file", str(self.file))
        object.__setattr__(self, "settings", settings)


def _frozen(value: Any) -> Any:
    """Converts lists to tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Source:
    """A user's file, identified by its name and by the hash over it and the modules beside it that it imports."""

    name: str
    code: str
    path: str = field(compare=False)


@dataclass(frozen=True)
class OwnFit(Stage):
    """The arrays that a file's function `fit` returns for the training trials: fitted.safetensors.

    targets: the input of the oracle "clip" instead of EEG, otherwise None. parts: VAE, CLIP and U-Net.
    """

    source: Source
    settings: Settings
    train: Items
    targets: Targets | None
    parts: tuple[Weights, ...]
    seed: int
    numerics: Numerics


@dataclass(frozen=True)
class Own(Stage):
    """The images that a file's function `pictures` returns for the items' EEG, in Generate's format.

    fit: None if the file has no function `fit`. targets, parts: as in OwnFit.
    """

    source: Source
    settings: Settings
    fit: OwnFit | None
    train: Items
    items: Items
    targets: Targets | None
    parts: tuple[Weights, ...]
    samples: int
    seed: int
    numerics: Numerics


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Plans `fit` on the training trials and `pictures` for the items; the file is parsed, not imported.

    A setting belongs to the functions that have a parameter with its name; a setting of `pictures` alone leaves the
    fit unchanged. Raises BenchError for an unreadable file, a file without `pictures`, and unknown or missing settings.
    """
    path = Path(spec.file).resolve()
    functions = _functions(path, spec)
    takes = {name: _settings(function, spec, path) for name, function in functions.items()}
    if unknown := set(dict(spec.settings)) - {name for settings in takes.values() for name, _ in settings}:
        known = dict.fromkeys(name for function in functions.values()
                              for name in list(_parameters(function))[len(GIVEN[function.name]):])
        raise refuse(spec, f"no function of {path} takes the setting {sorted(unknown)[0]!r}; there are: "
                           f"{', '.join(known) or 'none'}")
    source = Source(path.stem, encoders.checked_hash(spec, path), str(path))
    numerics, train = scale.single_process, training(items)
    parts = vae, clip, _ = tuple(map(scale.weights, ("vae", "clip", "unet")))
    targets = Targets(items.trials, clip, vae, max(1, scale.views), numerics) if items.eeg == "clip" else None
    fit = OwnFit(source, takes["fit"], train, targets, parts, seed, numerics) if "fit" in takes else None
    images = Own(source, takes["pictures"], fit, train, items, targets, parts, scale.sampling.samples, seed, numerics)
    return scale.score(images, items)


def _functions(path: Path, spec: Spec) -> Mapping[str, ast.FunctionDef]:
    """Parses `pictures` and, if it exists, `fit`."""
    try:
        tree = ast.parse(path.read_text(), str(path))
    except (OSError, SyntaxError, ValueError) as error:  # ValueError: not UTF-8, or a null byte
        raise refuse(spec, f"{path} cannot be read as Python: {explain(path, error)}") from error
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in GIVEN}
    if "pictures" not in functions:
        raise refuse(spec, f"{path} has no function pictures(train, test, run); write one that returns uint8 "
                           "[N, samples, H, W, 3]")
    return functions


def _parameters(function: ast.FunctionDef) -> dict[str, bool]:
    """Returns the names of a function's parameters in order, and whether each is required."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    required = len(names) - len(function.args.defaults)
    return {name: index < required for index, name in enumerate(names)} | {
        argument.arg: default is None for argument, default in zip(
            function.args.kwonlyargs, function.args.kw_defaults, strict=True)}


def _settings(function: ast.FunctionDef, spec: Spec, path: Path) -> Settings:
    """Returns the settings that a function takes; all of them if it has **settings."""
    given, where = GIVEN[function.name], f"{path}, line {function.lineno}"
    if len(function.args.posonlyargs) + len(function.args.args) < len(given):
        raise refuse(spec, f"{where}: {function.name} must take ({', '.join(given)}) before its settings")
    takes, settings = dict(list(_parameters(function).items())[len(given):]), dict(spec.settings)
    if missing := [name for name, needed in takes.items() if needed and name not in settings]:
        raise refuse(spec, f"{where}: {function.name} needs the setting {missing[0]!r}; give it: "
                           f"settings={{{missing[0]!r}: ...}}, or a default")
    return tuple((name, value) for name, value in spec.settings if name in takes or function.args.kwarg)


_kind = partial(Kind, forecast="bench.cost.systems.own:seconds", cost="bench.cost.systems.own:cost")
register({
    OwnFit: _kind("bench.train.own:fit", "finetune", trains=True),
    Own: _kind("bench.train.own:generate_images", "generate"),
})
