"""A system in one file of a user's: its functions `pictures` and, where it has one, `fit` (docs/adding.md)."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from bench.errors import BenchError
from bench.experiment import encoders
from bench.experiment.key import Stage, canonical
from bench.experiment.kinds import Kind, register
from bench.experiment.scale import Scale
from bench.experiment.stages import Items, Numerics, Score, Targets, Weights, training

Settings = tuple[tuple[str, Any], ...]
GIVEN = {"fit": 2, "pictures": 3}  # arguments before the settings: fit(train, run), pictures(train, test, run)


@dataclass(frozen=True)
class Spec:
    """One row: a file, and settings of its functions, such as {"neighbours": 5}: numbers, text, None, or lists of them.

    sees_eeg: False for a system that does not look at the EEG of what it is tested on. eeg_free: as of On. Raises
    BenchError for a setting that has no canonical form.
    """

    name: str = field(compare=False)
    file: str
    settings: Any = ()
    sees_eeg: bool = field(default=True, compare=False)
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "own"

    def __post_init__(self) -> None:
        if not isinstance(self.file, (str, Path)):
            raise BenchError(f"variant {self.name!r}: file is the path of a .py file, not {self.file!r}")
        try:
            settings = tuple(sorted((key, _frozen(value)) for key, value in dict(self.settings).items()))
            canonical(settings)
        except (TypeError, ValueError) as error:
            raise BenchError(f"variant {self.name!r}: settings are names with numbers, text, None, or lists of them, "
                             f"not {self.settings!r} ({error})") from error
        object.__setattr__(self, "file", str(self.file))
        object.__setattr__(self, "settings", settings)


def _frozen(value: Any) -> Any:
    """The value with tuples for lists."""
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Source:
    """A user's file by its name and the hash of its source and of the modules beside it that it imports; `path` says
    where it lies."""

    name: str
    code: str
    path: str = field(compare=False)


@dataclass(frozen=True)
class OwnFit(Stage):
    """What a file's function `fit` learns from the training trials: fitted.safetensors, the arrays that it returns.

    targets: for the oracle "clip" alone, which takes its embeddings in the place of EEG. parts: VAE, CLIP and U-Net.
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
    """What a file's function `pictures` makes of the items' EEG, in Generate's format.

    fit: None where the file has no function `fit`. targets, parts: as of OwnFit.
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
    """`fit` on the training trials, `pictures` for the items: nothing is run here, the file is read and not imported.

    A setting goes to the functions that have a parameter of its name, so that one of `pictures` alone fits nothing
    anew. Raises BenchError for a file that is not there, is no Python or has no function `pictures`, and for settings
    that its functions lack or need.
    """
    path = Path(spec.file).resolve()
    functions = _functions(path, spec)
    takes = {name: _settings(function, GIVEN[name], spec, path) for name, function in functions.items()}
    if unknown := set(dict(spec.settings)) - {name for own in takes.values() for name, _ in own}:
        raise BenchError(f"variant {spec.name!r}: no function of {path} takes the setting {sorted(unknown)[0]!r}; "
                         f"there are: {', '.join(_known(functions)) or 'none'}")
    try:
        source = Source(path.stem, encoders.code(path), str(path))
    except SyntaxError as error:
        raise BenchError(f"variant {spec.name!r}: {error.filename}, line {error.lineno}, which {path} imports, is no "
                         f"Python: {error.msg}") from error
    parts = vae, clip, _ = tuple(scale.weights(part) for part in ("vae", "clip", "unet"))
    targets = Targets(items.trials, clip, vae, max(1, scale.views), scale.alone) if items.eeg == "clip" else None
    train = training(items)
    fit = OwnFit(source, takes["fit"], train, targets, parts, seed, scale.alone) if "fit" in takes else None
    pictures = Own(source, takes["pictures"], fit, train, items, targets, parts, scale.sampling.samples, seed,
                   scale.alone)
    return scale.score(pictures, items)


def _functions(path: Path, spec: Spec) -> Mapping[str, ast.FunctionDef]:
    """`pictures`, and `fit` where it is there, as they are written in the file."""
    try:
        tree = ast.parse(path.read_text(), str(path))
    except (OSError, SyntaxError, ValueError) as error:  # ValueError: no UTF-8, or a null byte
        raise BenchError(f"variant {spec.name!r}: {path} cannot be read as Python: {error}") from error
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in GIVEN}
    if "pictures" not in found:
        raise BenchError(f"variant {spec.name!r}: {path} has no function pictures(train, test, run); write one that "
                         "returns uint8 [N, samples, H, W, 3]")
    return found


def _parameters(function: ast.FunctionDef) -> dict[str, bool]:
    """Names of a function's parameters in their order, and whether a value must be given."""
    place = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    free = len(place) - len(function.args.defaults)
    found = {name: number < free for number, name in enumerate(place)}
    return found | {one.arg: default is None for one, default in zip(
        function.args.kwonlyargs, function.args.kw_defaults, strict=True)}


def _settings(function: ast.FunctionDef, given: int, spec: Spec, path: Path) -> Settings:
    """The settings that a function takes: all for one with **settings."""
    parameters = list(_parameters(function).items())
    if len(function.args.posonlyargs) + len(function.args.args) < given:
        raise BenchError(f"variant {spec.name!r}: {path}, line {function.lineno}: {function.name} is expected to take "
                         f"({'train, test, run' if given == 3 else 'train, run'}) and then its settings")
    own, settings = dict(parameters[given:]), dict(spec.settings)
    if missing := [name for name, needed in own.items() if needed and name not in settings]:
        raise BenchError(f"variant {spec.name!r}: {path}, line {function.lineno}: {function.name} needs the setting "
                         f"{missing[0]!r}; give it: settings={{{missing[0]!r}: ...}}, or a default")
    return tuple((name, value) for name, value in spec.settings if name in own or function.args.kwarg)


def _known(functions: Mapping[str, ast.FunctionDef]) -> list[str]:
    """The settings that the functions have parameters for."""
    return list(dict.fromkeys(name for function in functions.values()
                              for name in list(_parameters(function))[GIVEN[function.name]:]))


_kind = partial(Kind, forecast="bench.cost.systems.own:seconds", cost="bench.cost.systems.own:cost")
register({
    OwnFit: _kind("bench.train.own:fit", "finetune", trains=True),
    Own: _kind("bench.train.own:generate_images", "generate"),
})
