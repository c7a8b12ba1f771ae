"""Loads an ablation: a file of ablations/, or a user's own file by its path."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path

from bench.errors import BenchError
from bench.variant import FULL, On, Spec, Variant

FOLDER = Path(__file__).parent.parent / "ablations"


@dataclass(frozen=True)
class Ablation:
    """name: what its results are called. contrasts: pairs of names that differ in one factor. published: the stem of a
    table in results/published/ whose rows carry the variants' names, or None."""

    name: str
    title: str
    variants: tuple[Spec, ...]
    contrasts: tuple[tuple[str, str], ...]
    published: str | None

    def chosen(self, names: list[str]) -> list[Spec]:
        """The variants of these names, in the ablation's order. Raises BenchError naming those that exist."""
        known = [variant.name for variant in self.variants]
        for name in names:
            if name not in known:
                raise BenchError(f"no variant {name!r} in {self.name}; there are: {', '.join(known)}")
        return [variant for variant in self.variants if variant.name in names]


def names() -> list[str]:
    """The ablations of the suite: the files in ablations/."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def load(name: str) -> Ablation:
    """The ablation of that name or path. Raises BenchError for one that is unknown or not well formed."""
    path = Path(name) if name.endswith(".py") else FOLDER / f"{name}.py"
    if not path.is_file():
        if name.endswith(".py"):
            raise BenchError(f"no file {name}")
        raise BenchError(f"no ablation {name!r}; there are: {', '.join(names())}, or give a path to a .py file")
    if path.resolve().parent != FOLDER and path.stem in names():
        raise BenchError(f"{path}: the suite has an ablation {path.stem!r} of its own, whose results lie under that "
                         "name; give the file another")
    spec = importlib.util.spec_from_file_location(f"ablation_{path.stem}", path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except BenchError:
        raise
    except (Exception, SystemExit) as error:
        line = next((f.lineno for f in reversed(traceback.extract_tb(error.__traceback__))
                     if f.filename == str(path.resolve())), getattr(error, "lineno", None))
        where = f"{path}, line {line}" if line else str(path)
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise BenchError(f"{where}: does not import: {what}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return _checked(module, path)


def with_controls(ablation: Ablation) -> Ablation:
    """The ablation with rows beside every variant: its EEG shuffled, replaced by a surrogate, and set to zero."""
    controls = [On(v, f"{v.name} / EEG {eeg}", eeg=eeg, eeg_free=True) for v in ablation.variants
                if isinstance(v, Variant) for eeg in ("shuffled", "surrogate", "zero")]
    return replace(ablation, variants=(*ablation.variants, *controls))


def _is_spec(value: object) -> bool:
    return is_dataclass(value) and all(isinstance(getattr(value, name, None), str) for name in ("name", "system"))


def _checked(module: object, path: Path) -> Ablation:
    variants = getattr(module, "variants", None)
    if not isinstance(variants, (list, tuple)) or not variants or not all(map(_is_spec, variants)):
        raise BenchError(f"{path}: `variants` must be a list of Variant, On or other Spec that is not empty, such as: "
                         "variants = [FULL, replace(FULL, name='mine', mask_ratio=0.6)]")
    known = [variant.name for variant in variants]
    for name in known:
        if known.count(name) > 1:
            raise BenchError(f"{path}: two variants are called {name!r}; give each its own name")
    if commas := [name for name in known if "," in name]:
        raise BenchError(f"{path}: the name {commas[0]!r} has a comma, which --variants takes for the end of a name; "
                         "leave it out")
    for variant in variants:
        if variant.name == FULL.name and variant != FULL:
            raise BenchError(f"{path}: a variant called {FULL.name!r} must be the suite's Full, whose null stands in "
                             "every table; give it another name")
    contrasts = tuple(getattr(module, "contrasts", ()))
    for pair in contrasts:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(name in known for name in pair):
            raise BenchError(f"{path}: the contrast {pair!r} must be a pair of names among: {', '.join(known)}")
    contrasts = tuple((a, b) for a, b in contrasts)
    title = " ".join((module.__doc__ or path.stem).strip().split("\n\n")[0].split())
    return Ablation(path.stem, title, tuple(variants), contrasts, getattr(module, "published", None))
