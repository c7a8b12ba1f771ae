"""Resolves a variant's encoder: a file of models/encoders/, a model of braindecode, or a user's file."""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.prepared import MANIFEST
from bench.data.tiny import channel_names
from bench.errors import ENVIRONMENT, BenchError, NotAvailable
from bench.experiment.scale import Scale
from bench.experiment.stages import Encoder, Prepared, Weights, World
from bench.experiment.variant import Variant, refuse
from bench.files import explain, sha256
from bench.modules import SUITE, is_beside

FOLDER = Path(__file__).resolve().parents[2] / "models" / "encoders"
DREAMDIFFUSION = "msm_vit"  # its meaning is versioned with the stages; other encoders are identified by their source
BRAINDECODE = "braindecode:"
SUPPLIED = ("n_chans", "n_outputs", "chs_info", "input_window_seconds")  # model arguments that the suite supplies


@dataclass(frozen=True)
class Braindecode(Encoder):
    """A model of braindecode for EEG of one shape; its tokens are mapped to `width` (models/braindecode.py).

    version: braindecode's. n_chans, n_times, sfreq (Hz): the EEG's. channels: their names, () if unknown. montage: the
    source of their positions, "tiny", a montage of MNE, or "" if unknown. settings: keyword arguments of the model.
    weights: a file for the whole model; None: newly initialised. `depth` and `heads` are not used.
    """

    version: str = ""
    n_chans: int = 0
    n_times: int = 0
    sfreq: float = 0.0
    channels: tuple[str, ...] = ()
    montage: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    weights: Weights | None = None


def names() -> list[str]:
    """Returns the names of the suite's encoders: the files in models/encoders/."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def resolve(variant: Variant, scale: Scale, world: World | Prepared | None = None) -> Encoder:
    """Returns the encoder of a variant for the EEG of `world` (default: the scale's).

    Raises BenchError for an unknown name, or a file without a class Encoder.
    """
    size = scale.size(variant.size)
    if variant.encoder == DREAMDIFFUSION:
        return Encoder(DREAMDIFFUSION, size.width, size.depth, size.heads, size.mlp_ratio)
    if variant.encoder.startswith(BRAINDECODE):
        return _braindecode(variant, size.width, scale.world if world is None else world)
    if variant.encoder.endswith(".py"):
        path = Path(variant.encoder).resolve()
    elif variant.encoder in names():
        path = FOLDER / f"{variant.encoder}.py"
    else:
        raise refuse(variant, f"no encoder {variant.encoder!r}; there are: {', '.join(names())}, {BRAINDECODE}NAME, or "
                              "the path of a .py file")
    definition = _find_encoder_class(path, variant)
    methods = {node.name for node in definition.body if isinstance(node, ast.FunctionDef)}
    only_module = all(ast.unparse(base) in ("nn.Module", "torch.nn.Module", "Module") for base in definition.bases)
    if variant.mask_ratio is not None and only_module and not {"tokenize", "encode"} <= methods:
        raise _not_maskable(variant, f"Encoder in {path}")
    return Encoder(path.stem, size.width, size.depth, size.heads, size.mlp_ratio, code=checked_hash(variant, path),
                   path=str(path))


def checked_hash(spec: Any, path: Path) -> str:
    """Returns `source_hash`. Raises BenchError, naming the row, if a module that the file imports is not Python."""
    try:
        return source_hash(path)
    except SyntaxError as error:
        raise refuse(spec, f"{error.filename}, line {error.lineno}, imported by {path}, is not valid Python: "
                           f"{error.msg}") from error


def _not_maskable(variant: Variant, model: str) -> BenchError:
    return refuse(variant, f"mask_ratio={variant.mask_ratio} needs pre-training, which {model} does not support; set "
                           "mask_ratio=None, or give it tokenize(eeg) and encode(tokens, keep)")


def braindecode_models() -> dict[str, Path]:
    """Returns the models of the installed braindecode and their files, without importing it.

    Raises BenchError (exit 3) if braindecode is not installed.
    """
    spec = importlib.util.find_spec("braindecode")
    if spec is None or not spec.submodule_search_locations:
        raise BenchError("braindecode is not installed; install the project with it: pip install -e '.[braindecode]'",
                         ENVIRONMENT)
    folder = Path(spec.submodule_search_locations[0]) / "models"
    body = ast.parse((folder / "__init__.py").read_text()).body
    public = next(ast.literal_eval(node.value) for node in body if isinstance(node, ast.Assign)
                  and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__")
    return {alias.name: folder / f"{node.module}.py" for node in body if isinstance(node, ast.ImportFrom)
            and node.module not in ("base", "interpolated", "util") for alias in node.names if alias.name in public}


def _braindecode(variant: Variant, width: int, world: World | Prepared) -> Braindecode:
    """Parses braindecode:NAME or braindecode:NAME(setting=value, ...), each optionally with @ and a weights file."""
    name, settings, file = _parse(variant)
    models = braindecode_models()
    if name not in models:
        raise refuse(variant, f"braindecode has no model {name!r}; {_suggest(name, models)}")
    known = _arguments(models[name], name)
    for setting in settings:
        if setting in SUPPLIED or (known is not None and setting not in known and setting not in ("sfreq", "n_times")):
            others = [argument for argument in known or () if argument not in SUPPLIED]
            raise refuse(variant, f"braindecode's {name} has no setting {setting!r}; {_suggest(setting, others)}")
    if variant.mask_ratio is not None:
        raise _not_maskable(variant, f"braindecode's {name}")
    channels, montage = _channels(world)
    if name.startswith("Interpolated") and not montage:
        owner = world.name if isinstance(world, Prepared) else "the world"
        raise refuse(variant, f"braindecode's {name} needs electrode positions, which {owner} does not have",
                     NotAvailable)
    weights = Weights(name, _hash_weights(file, variant), str(file)) if file else None
    return Braindecode(name, width, 0, 0, version=importlib.metadata.version("braindecode"), n_chans=world.n_chans,
                       n_times=world.n_times, sfreq=world.sfreq, channels=channels, montage=montage,
                       settings=tuple(sorted(settings.items())), weights=weights)


def _suggest(name: str, known: Iterable[str]) -> str:
    by_case = {candidate.lower(): candidate for candidate in known}
    near = [by_case[match] for match in difflib.get_close_matches(name.lower(), by_case, 4, 0.5)]
    return f"similar: {', '.join(near)}" if near else f"there are: {', '.join(sorted(known))}"


def _parse(variant: Variant) -> tuple[str, dict[str, Any], Path | None]:
    """Returns the model's name, settings and weights file from a variant's encoder."""
    text = variant.encoder.removeprefix(BRAINDECODE)
    wrong = refuse(variant, f"{variant.encoder!r} cannot be parsed; expected, for example, {BRAINDECODE}EEGNet, "
                            f"{BRAINDECODE}EEGNet(F1=16, D=2), or {BRAINDECODE}EEGNet@weights.safetensors")
    ends = [end for end, letter in enumerate(text) if letter == "@"] + [len(text)]
    for end in ends:  # until the first @ that is not part of a setting
        try:
            call = ast.parse(text[:end].strip(), mode="eval").body
        except (SyntaxError, ValueError):
            continue
        name = call.func if isinstance(call, ast.Call) else call
        if not isinstance(name, ast.Name) or (isinstance(call, ast.Call) and call.args):
            raise wrong
        try:
            settings = {word.arg or "**": _freeze(ast.literal_eval(word.value))
                        for word in (call.keywords if isinstance(call, ast.Call) else [])}
        except (ValueError, TypeError):
            raise wrong from None
        file = text[end + 1:].strip()
        if "**" in settings or (end < len(text) and not file):
            raise wrong
        return name.id, settings, Path(file).resolve() if file else None
    raise wrong


def _freeze(value: Any) -> Any:
    """Converts lists to tuples. Raises TypeError for a value that is not a number, text, bool, None or list."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_freeze, value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError


def _arguments(file: Path, name: str) -> list[str] | None:
    """Returns the arguments of a class's __init__; None if the file does not define them."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__" and not method.args.kwarg:
                    return [argument.arg for argument in (*method.args.args[1:], *method.args.kwonlyargs)]
    return None


def _channels(world: World | Prepared) -> tuple[tuple[str, ...], str]:
    """Returns the names of a world's channels and their montage; empty if unknown."""
    if isinstance(world, World):
        return channel_names(world.n_chans), "tiny"
    if not world.path:
        return (), ""
    channels = tuple(json.loads((Path(world.path) / MANIFEST).read_text()).get("ch_names", ()))
    return channels, "standard_1005" if channels else ""


@functools.cache
def _cached_sha256(path: Path, size: int, changed: int) -> str:
    return sha256(path)


def _hash_weights(path: Path, variant: Variant) -> str:
    """Returns a file's SHA-256, cached while it does not change. Raises BenchError (exit 3) if it is unreadable."""
    try:
        state = path.stat()
        return _cached_sha256(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise refuse(variant, f"no weights at {path} ({error.strerror})", exit_code=ENVIRONMENT) from error


def _find_encoder_class(path: Path, variant: Variant) -> ast.ClassDef:
    try:
        tree = ast.parse(path.read_text(), str(path))
    except (OSError, SyntaxError, ValueError) as error:  # ValueError: not UTF-8, or a null byte
        raise refuse(variant, f"encoder {path} cannot be read as Python: {explain(path, error)}") from error
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Encoder":
            return node
    raise refuse(variant, f"{path} has no class Encoder; write one with __init__(channels, times, width, depth, heads) "
                          "and forward(eeg)")


def sources(path: Path) -> list[Path]:
    """Returns the file and all modules beside it that it imports, directly or indirectly; the file first."""
    files = [path]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(), str(file))):
            if isinstance(node, ast.Import):
                modules = [(path.parent, alias.name) for alias in node.names
                           if not _is_of_suite(path.parent, alias.name)]
            elif isinstance(node, ast.ImportFrom):
                base = file.parents[node.level - 1] if node.level else path.parent
                if not node.level and _is_of_suite(base, node.module or "", [alias.name for alias in node.names]):
                    continue
                stem = f"{node.module}." if node.module else ""
                modules = [(base, node.module or "")] + [(base, stem + alias.name) for alias in node.names]
            else:
                continue
            for base, module in modules:
                steps = [step for step in module.split(".") if step]
                for depth in range(1, len(steps) + 1):
                    inner = base.joinpath(*steps[:depth])
                    files += [beside for beside in (inner.with_suffix(".py"), inner / "__init__.py")
                              if beside.is_file() and beside not in files]
    return files


def _is_of_suite(folder: Path, name: str, parts: Sequence[str] = ()) -> bool:
    """Whether an import means the suite itself, whose stages have versions."""
    return name.partition(".")[0] in SUITE and not is_beside(folder, name, parts)


def source_hash(path: Path) -> str:
    """Returns the SHA-256 over the names and bytes of a file and of the local modules that it imports."""
    digest = hashlib.sha256()
    for file in [path, *sorted(sources(path)[1:])]:
        name, text = file.relative_to(path.parent).as_posix().encode(), file.read_bytes()
        digest.update(b"%d %s %d " % (len(name), name, len(text)) + text)
    return digest.hexdigest()


def keep(encoder: Encoder, folder: Path) -> None:
    """Copies a user's file and its local modules to folder/<code>, from where workers load it."""
    if not encoder.code or (folder / encoder.code).exists():
        return
    path, part = Path(encoder.path), folder / f"{encoder.code}.{secrets.token_hex(8)}.part"
    for file in sources(path):
        target = part / file.relative_to(path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if source_hash(part / path.name) != encoder.code:
        shutil.rmtree(part)
        raise BenchError(f"{path} was changed while the run was being planned; run again")
    try:
        part.rename(folder / encoder.code)
    except OSError:
        shutil.rmtree(part)
        if not (folder / encoder.code).exists():  # otherwise another run was faster
            raise
