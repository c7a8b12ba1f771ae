"""Which encoder a variant means: one of models/encoders/, or a user's own file, known by the hash of its source."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import shutil
from pathlib import Path

from bench.errors import BenchError
from bench.scale import Scale
from bench.stages import Encoder
from bench.variant import Variant

OWN = "msm_vit"  # DreamDiffusion's own; its meaning is versioned with the stages, every other's is its source


def _folder() -> Path:
    spec = importlib.util.find_spec("models.encoders")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def names() -> list[str]:
    """The encoders of the suite: the files in models/encoders/."""
    return sorted(path.stem for path in _folder().glob("[!_]*.py"))


def encoder(variant: Variant, scale: Scale) -> Encoder:
    """The encoder of a variant at a scale. Raises BenchError for an unknown name or a file that holds no Encoder."""
    size = scale.size(variant.size)
    if variant.encoder == OWN:
        return Encoder(OWN, size.width, size.depth, size.heads, size.mlp_ratio)
    if variant.encoder.endswith(".py"):
        path = Path(variant.encoder).resolve()
    elif variant.encoder in names():
        path = _folder() / f"{variant.encoder}.py"
    else:
        raise BenchError(f"variant {variant.name!r}: no encoder {variant.encoder!r}; there are: {', '.join(names())}, "
                         "or give the path of a .py file")
    own = _class(path, variant)
    methods = {node.name for node in own.body if isinstance(node, ast.FunctionDef)}
    plain = all(ast.unparse(base) in ("nn.Module", "torch.nn.Module", "Module") for base in own.bases)
    if variant.mask_ratio is not None and plain and not {"tokenize", "encode"} <= methods:
        raise BenchError(f"variant {variant.name!r}: mask_ratio={variant.mask_ratio} asks for pre-training, but "
                         f"Encoder in {path} cannot take part; set mask_ratio=None, or give it tokenize(eeg) and "
                         "encode(tokens, keep)")
    try:
        return Encoder(path.stem, size.width, size.depth, size.heads, size.mlp_ratio, code=code(path), path=str(path))
    except SyntaxError as error:
        raise BenchError(f"variant {variant.name!r}: {error.filename}, line {error.lineno}, which {path} imports, is "
                         f"no Python: {error.msg}") from error


def _class(path: Path, variant: Variant) -> ast.ClassDef:
    try:
        tree = ast.parse(path.read_text(), str(path))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise BenchError(f"variant {variant.name!r}: encoder {path} cannot be read as Python: {error}") from error
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Encoder":
            return node
    raise BenchError(f"variant {variant.name!r}: {path} holds no class Encoder; write one with "
                     "__init__(channels, times, width, depth, heads) and forward(eeg)")


def sources(path: Path) -> list[Path]:
    """The file and every module beside it that it imports, directly or not, the file first."""
    found = [path]
    for file in found:
        for node in ast.walk(ast.parse(file.read_text(), str(file))):
            if isinstance(node, ast.Import):
                modules = [(path.parent, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = file.parents[node.level - 1] if node.level else path.parent
                stem = f"{node.module}." if node.module else ""
                modules = [(base, node.module or "")] + [(base, stem + alias.name) for alias in node.names]
            else:
                continue
            for base, module in modules:
                steps = [step for step in module.split(".") if step]
                if steps[:1] in (["bench"], ["models"], ["ablations"]):
                    continue  # the suite itself, whose stages have versions
                for depth in range(1, len(steps) + 1):
                    inner = base.joinpath(*steps[:depth])
                    found += [beside for beside in (inner.with_suffix(".py"), inner / "__init__.py")
                              if beside.is_file() and beside not in found]
    return found


def code(path: Path) -> str:
    """SHA-256 over the names and bytes of a file and of the local modules that it imports."""
    digest = hashlib.sha256()
    for file in [path, *sorted(sources(path)[1:])]:
        name, text = file.relative_to(path.parent).as_posix().encode(), file.read_bytes()
        digest.update(b"%d %s %d " % (len(name), name, len(text)) + text)
    return digest.hexdigest()


def keep(encoder: Encoder, folder: Path) -> None:
    """Copies a user's encoder with its local modules to folder/<code>, whence workers load it."""
    if not encoder.code or (folder / encoder.code).exists():
        return
    path, part = Path(encoder.path), folder / f"{encoder.code}.part"
    for file in sources(path):
        target = part / file.relative_to(path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if code(part / path.name) != encoder.code:
        shutil.rmtree(part)
        raise BenchError(f"{path} was changed while the run was being planned; run again")
    part.rename(folder / encoder.code)
