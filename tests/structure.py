"""What `make lint` asks of the layout beside import-linter's layers: a line for each thing that is not as it should be.

Circles of imports (lazy ones included), files that are too long, too many files in bench/, argparse outside the command
line, and names that begin with an underscore used in another file.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bench", "models")
LINES = 400  # of a file, at most
LONGER = {"bench/metrics.py"}
FILES = 10  # directly in bench/
ARGPARSE = ("bench/commands/", "bench/cli.py", "bench/arguments.py", "bench/execute/worker.py")


def violations(root: Path = ROOT) -> Iterator[str]:
    """One line for each violation below `root`."""
    sources = {path.relative_to(root).as_posix(): path.read_text() for package in PACKAGES
               for path in sorted((root / package).rglob("*.py"))}
    trees = {name: ast.parse(text) for name, text in sources.items()}
    modules = {_module(name): name for name in sources}
    imports = {name: _imports(tree, modules) for name, tree in trees.items()}
    for circle in circles({name: {modules[module] for module in found} - {name} for name, found in imports.items()}):
        yield f"circle of imports: {', '.join(circle)}"
    for name, text in sources.items():
        if (lines := text.count("\n")) > LINES and name not in LONGER:
            yield f"{name}: {lines} lines, at most {LINES} are allowed"
    here = [name for name in sources if name.startswith("bench/") and name.count("/") == 1]
    if len(here) > FILES:
        yield f"bench/ has {len(here)} files, at most {FILES} are allowed: {', '.join(here)}"
    for name, tree in trees.items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else \
                [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if "argparse" in names and not name.startswith(ARGPARSE):
                yield f"{name}, line {node.lineno}: argparse outside the command line"
        yield from (f"{name}, line {line}: {used}, a private name of another file" for line, used in _private(tree))


def circles(above: dict[str, set[str]]) -> list[list[str]]:
    """The groups of files that import each other, directly or not (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in above[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name):]
            del stack[stack.index(name):]
            if len(group) > 1:
                found.append(sorted(group))

    for name in above:
        if name not in index:
            visit(name)
    return found


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(tree: ast.Module, modules: Iterable[str]) -> set[str]:
    """The modules of the suite that a file imports anywhere, but for those that only annotations need."""
    found = set()
    typing = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If)
              and ast.unparse(node.test) == "TYPE_CHECKING" for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & set(modules) | ({node.module} if inner - set(modules) else set())
    return found & set(modules)


def _private(tree: ast.Module) -> Iterator[tuple[int, str]]:
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            imported |= {alias.asname or alias.name for alias in node.names}
            yield from ((node.lineno, alias.name) for alias in node.names if _is_private(alias.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and isinstance(node.value, ast.Name) \
                and node.value.id in imported:
            yield node.lineno, ast.unparse(node)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


if __name__ == "__main__":
    wrong = list(violations())
    print("\n".join(wrong) or "layout: as it should be")
    sys.exit(bool(wrong))
