"""Imports beyond module names: a user's file, an object by "module:name", a moved module by its old name."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, ClassVar

from bench.errors import ENVIRONMENT, BenchError

DISTRIBUTION = "eeg2image-bench"
SUITE = ("bench", "models", "ablations")  # its packages, side by side in ROOT
ROOT = Path(__file__).resolve().parents[1]
CHECKOUT, SHIPPED = ROOT / "results", ROOT / "bench" / "shipped"
MOVED = {  # old names, in queued requests and users' files -> current names
    "bench.audit": "bench.scoring.audit",
    "bench.encoders": "bench.experiment.encoders",
    "bench.engines": "bench.execute.engines",
    "bench.engines.ray": "bench.execute.engines.ray",
    "bench.engines.slurm": "bench.execute.engines.slurm",
    "bench.gallery": "bench.scoring.gallery",
    "bench.key": "bench.experiment.key",
    "bench.prior_parts": "bench.prior.recipe",
    "bench.results": "bench.tables.results",
    "bench.stages": "bench.experiment.stages",
    "bench.variant": "bench.experiment.variant",
    "bench.worker": "bench.execute.worker",
}


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules of MOVED under their old names, as the same module objects, and runs them with -m."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> Any:
        """Returns the spec of an old name, and None for every other name."""
        return importlib.machinery.ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Returns the module of the current name."""
        module = importlib.import_module(MOVED[spec.name])
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restores the spec, which the import system has replaced; the module itself is already executed."""
        module.__spec__ = self._spec

    def get_code(self, fullname: str) -> CodeType | None:
        """Returns the code of the current module, for `python -m` with the old name."""
        spec = importlib.util.find_spec(MOVED[fullname])
        assert spec is not None
        assert isinstance(spec.loader, importlib.abc.InspectLoader)
        return spec.loader.get_code(MOVED[fullname])


def import_object(name: str) -> Any:
    """Imports the object that "package.module:name" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def import_file(path: Path, name: str) -> ModuleType:
    """Imports a .py file as module `name`. Raises whatever the file raises.

    For the import statements of the file, and of the modules beside it, a module in the file's folder comes before any
    other of its name (`UserImports`); for all other code nothing changes. `importlib.import_module` finds modules of
    the folder that have no other of their name, while the file is executed.
    """
    imports, folder, before = UserImports(path.parent, name), str(path.parent), set(sys.modules)
    spec = importlib.util.spec_from_file_location(name, path, loader=imports.loader(name, path))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses and pickle look it up there
    sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]
        for other in set(sys.modules) - before - {name}:  # another file may have modules of these names in its folder
            file = getattr(sys.modules[other], "__file__", None)
            if file and not imports.owns(other) and Path(file).is_relative_to(folder) and (
                    Path(file).relative_to(folder).parts[0].partition(".")[0] == other.partition(".")[0]):
                del sys.modules[other]
    for pickler in ("cloudpickle", "joblib.externals.cloudpickle"):  # other processes have no module of these names
        if pickler in sys.modules:
            sys.modules[pickler].register_pickle_by_value(module)
            sys.modules[pickler].register_pickle_by_value(sys.modules[imports.package])
    return module


class UserImports:
    """The import statement of a user's file and of the modules beside it.

    A module of the folder is found first and is imported under a name of its own, `<package>.<name>`, so that it never
    replaces another one: a folder may have its own models/, bench/ or datasets.py. It stays in sys.modules, for imports
    within functions and for pickle. Of a name of the suite (SUITE), what the folder lacks comes from the suite. Modules
    that are built into Python come first, as in every script. In a checkout of the suite its names mean the suite.
    """

    active: ClassVar[dict[str, UserImports]] = {}  # by package

    def __init__(self, folder: Path, name: str):
        self.folder, self.package = folder, re.sub(r"\W", "_", name) + "_files"
        self._builtins = {**vars(builtins), "__import__": self._import}
        for other in [other for other in sys.modules if self.owns(other)]:  # of an earlier import; the files may differ
            del sys.modules[other]
        self.active[self.package] = self
        if UserImports not in sys.meta_path:
            sys.meta_path.insert(0, UserImports)
        package = sys.modules[self.package] = ModuleType(self.package, "The modules beside a user's file.")
        package.__path__ = [str(folder)]

    def owns(self, name: str) -> bool:
        """Whether a name of sys.modules is that of a module beside the file."""
        return name.partition(".")[0] == self.package

    def loader(self, name: str, path: Path) -> importlib.abc.Loader:
        """Returns the loader of a .py file, whose import statements are those of this object."""
        return _Loader(name, str(path), self._builtins)

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """Returns the spec of a module beside a user's file, by its name in sys.modules; None for every other one."""
        imports = cls.active.get(name.partition(".")[0])
        if imports is None or path is None:
            return None
        last = name.rpartition(".")[2]
        for folder in map(Path, path):
            if file := find_module(folder, last):
                inner = [str(file.parent)] if file.name == "__init__.py" else None
                return importlib.util.spec_from_file_location(name, file, loader=imports.loader(name, file),
                                                              submodule_search_locations=inner)
            if (folder / last).is_dir():
                spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
                spec.submodule_search_locations = [str(folder / last)]
                return spec
        return None

    def _import(self, name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] | None = (),
                level: int = 0) -> Any:
        """`__import__` of a user's file: returns the first package of a.b for `import a.b`, and a.b with the names for
        `from a.b import x`."""
        parts, top = fromlist or (), name.partition(".")[0]
        if level or not is_beside(self.folder, name, parts):
            return builtins.__import__(name, globals, locals, parts, level)
        module = self._load(name, parts)
        if not parts:
            first = sys.modules[f"{self.package}.{top}"]
            if top in SUITE:  # what it lacks comes from the suite
                vars(first).setdefault("__getattr__", partial(getattr, importlib.import_module(top)))
            return first
        absent = [part for part in parts if part != "*" and not _has(module, part)]
        has_other = find_module(ROOT, name) if top in SUITE else not find_module(self.folder, top)
        if not absent or not has_other:
            return module
        other, merged = builtins.__import__(name, None, None, absent, 0), ModuleType(name)
        for part in parts:
            source = other if part in absent else module
            if not _has(source, part):
                raise ImportError(f"cannot import name {part!r} from {name!r}: neither {self.folder} nor "
                                  f"{getattr(other, '__file__', name)} has it")
            setattr(merged, part, getattr(source, part, sys.modules.get(f"{source.__name__}.{part}")))
        return merged

    def _load(self, name: str, parts: Sequence[str]) -> ModuleType:
        """Imports a module beside the file, and those of its submodules that are among the parts."""
        try:
            module = importlib.import_module(f"{self.package}.{name}")
            builtins.__import__(module.__name__, None, None, parts)
            return module
        except ModuleNotFoundError as error:
            if error.name is None or not self.owns(error.name):
                raise
            missing = error.name.removeprefix(f"{self.package}.")
            raise ModuleNotFoundError(f"No module named {missing!r} in {self.folder}", name=missing) from None


class _Loader(importlib.machinery.SourceFileLoader):
    """Executes a file with other builtins. A user's file is compiled anew: Python's cache of bytecode misses an edit
    within the same second that keeps the size, such as lr=1 to lr=2."""

    def __init__(self, name: str, path: str, names: dict[str, Any]):
        super().__init__(name, path)
        self._names = names

    def get_code(self, fullname: str) -> CodeType | None:
        """Returns the compiled file; from the cache for the suite's own ablations."""
        path = self.get_filename(fullname)
        if Path(path).parent == ROOT / "ablations":
            return super().get_code(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        """Executes the module; its functions keep the builtins."""
        module.__dict__["__builtins__"] = self._names
        super().exec_module(module)


def _has(module: ModuleType, part: str) -> bool:
    """Returns whether a module has an attribute, or a submodule of that name whose import has begun."""
    return hasattr(module, part) or f"{module.__name__}.{part}" in sys.modules


def find_module(folder: Path, name: str) -> Path | None:
    """Returns the file of a module or of a package with __init__.py below a folder, by its dotted name."""
    inner = folder.joinpath(*name.split("."))
    return next((file for file in (inner / "__init__.py", inner.with_name(f"{inner.name}.py")) if file.is_file()), None)


def is_beside(folder: Path, name: str, parts: Sequence[str] = ()) -> bool:
    """Returns whether `import name`, or `from name import parts` in a user's file means a module in the file's folder.

    Of a name that the suite has too, the folder's module must define one of the parts: `from bench import On` does not
    run a script bench.py.
    """
    top = name.partition(".")[0]
    if top in sys.builtin_module_names or importlib.machinery.FrozenImporter.find_spec(top):
        return False
    if any(find_module(folder, f"{name}.{part}") for part in parts if part != "*"):
        return not (top in SUITE and is_checkout(folder))
    if top not in SUITE:
        return bool(find_module(folder, name) or find_module(folder, top))
    if is_checkout(folder) or (file := find_module(folder, name)) is None:
        return False
    if not parts or "*" in parts or find_module(ROOT, name) is None:
        return True
    return not {"*", *parts}.isdisjoint(_definitions(file))


def _definitions(file: Path) -> set[str]:
    """Returns the names that a module binds, at any depth; "*" for those that cannot be known without running it."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (OSError, SyntaxError, ValueError):  # the import will say why
        return {"*"}
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add("*" if node.name == "__getattr__" else node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
    return names


def is_checkout(folder: Path) -> bool:
    """Returns whether a folder is a checkout of the suite, or the one it is installed in."""
    return (folder / "bench" / "experiment" / "stages.py").is_file()


def find_foreign() -> list[str]:
    """Returns one line if models is not imported from this project, and one for ablations: where it is imported from,
    which package it belongs to, and what to do. Imports neither; cheap if both are this project's."""
    lines = []
    for name in SUITE[1:]:
        try:
            spec = getattr(sys.modules.get(name), "__spec__", None) or importlib.util.find_spec(name)
        except (ImportError, ValueError) as error:
            lines.append(f"{name} cannot be imported ({error}): python -m pip install -e . repairs the installation")
            continue
        origin = Path(spec.origin or next(iter(spec.submodule_search_locations or ()), "?")) if spec else None
        place = origin.parent if origin and origin.name == "__init__.py" else origin
        if place != ROOT / name and (place is None or place.resolve() != (ROOT / name).resolve()):
            lines.append(f"{name} is imported from {place or 'nowhere'}, not from {ROOT / name}, where this project's "
                         f"is: {_advise(name, place)}")
    return lines


def _advise(name: str, place: Path | None) -> str:
    owners = find_owners(name)
    if place is None:
        return "python -m pip install -e . repairs the installation"
    if owners and (place.parent.name in ("site-packages", "dist-packages")):
        return (f"the installed package {', '.join(owners)} has the same name; python -m pip uninstall "
                f"{' '.join(owners)}, or install this project into an environment of its own")
    return (f"{place.parent} comes first on sys.path; use the command bench instead of python -m bench, and take this "
            "folder out of PYTHONPATH")


def find_owners(name: str) -> list[str]:
    """Returns the other installed distributions with a top-level package of this name; reads every distribution."""
    import importlib.metadata

    return sorted({owner for owner in importlib.metadata.packages_distributions().get(name, ())
                   if owner.lower().replace("_", "-") != DISTRIBUTION})


def is_complete() -> bool:
    """Returns whether bench/__init__.py is this project's: another package's has other names."""
    return getattr(sys.modules.get("bench"), "MovedModules", None) is MovedModules


def describe_replacement(file: str, cause: str) -> str:
    """Describes that a file of bench is not this project's, which packages also have a bench, and what to do."""
    text, owners = f"{ROOT / file} is not this project's ({cause})", find_owners("bench")
    if not owners:
        return f"{text}: install {DISTRIBUTION} again"
    return (f"{text}: the installed package {', '.join(owners)} has the same name; python -m pip uninstall "
            f"{' '.join(owners)}, then install {DISTRIBUTION} again, or use an environment for this project alone")


def check_packages() -> None:
    """Raises BenchError (exit 3) if models or ablations is not this project's."""
    if lines := find_foreign():
        raise BenchError("; ".join(lines), ENVIRONMENT)


def find_user_files(stage: Any) -> Iterator[Any]:
    """Yields the fields of a stage that stand for a user's file: they have its `path`, and its hash as `code`."""
    for field in fields(stage):
        value = getattr(stage, field.name)
        if getattr(value, "code", "") and hasattr(value, "path"):
            yield value


def shipped_results() -> Path:
    """Returns the folder with published/ and reference/: results/ of a checkout, or its part in an installed wheel."""
    return CHECKOUT if (CHECKOUT / "published").is_dir() else SHIPPED
