"""Which encoder a variant means: one of models/encoders/, a model of braindecode, or a user's own file, known by the
hash of its source."""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib.util
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.prepared import MANIFEST
from bench.data.tiny import channel_names
from bench.errors import ENVIRONMENT, BenchError, NotHere
from bench.experiment.scale import Scale
from bench.experiment.stages import Encoder, Prepared, Weights, World
from bench.experiment.variant import Variant
from bench.files import sha256

OWN = "msm_vit"  # DreamDiffusion's own; its meaning is versioned with the stages, every other's is its source
BRAINDECODE = "braindecode:"
GIVEN = ("n_chans", "n_outputs", "chs_info", "input_window_seconds")  # arguments of a model that are not settings


@dataclass(frozen=True)
class Braindecode(Encoder):
    """A model of braindecode for definite EEG, its tokens mapped to `width` (models/braindecode.py).

    version: braindecode's. n_chans, n_times, sfreq (Hz): of the EEG. channels: its names, () where the data set states
    none. montage: where their positions come from, "tiny", a montage of MNE, or "" where they are not known. settings:
    keyword arguments of the model. weights: a file of the whole model, None for fresh ones. `depth` and `heads` have no
    meaning here.
    """

    version: str = ""
    n_chans: int = 0
    n_times: int = 0
    sfreq: float = 0.0
    channels: tuple[str, ...] = ()
    montage: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    weights: Weights | None = None


def _folder() -> Path:
    spec = importlib.util.find_spec("models.encoders")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def names() -> list[str]:
    """The encoders of the suite: the files in models/encoders/."""
    return sorted(path.stem for path in _folder().glob("[!_]*.py"))


def encoder(variant: Variant, scale: Scale, world: World | Prepared | None = None) -> Encoder:
    """The encoder of a variant at a scale, for the EEG of `world` (None: the scale's). Raises BenchError for an unknown
    name or a file that holds no Encoder."""
    size = scale.size(variant.size)
    if variant.encoder == OWN:
        return Encoder(OWN, size.width, size.depth, size.heads, size.mlp_ratio)
    if variant.encoder.startswith(BRAINDECODE):
        return _braindecode(variant, size.width, scale.world if world is None else world)
    if variant.encoder.endswith(".py"):
        path = Path(variant.encoder).resolve()
    elif variant.encoder in names():
        path = _folder() / f"{variant.encoder}.py"
    else:
        raise BenchError(f"variant {variant.name!r}: no encoder {variant.encoder!r}; there are: {', '.join(names())}, "
                         f"{BRAINDECODE}NAME, or give the path of a .py file")
    own = _class(path, variant)
    methods = {node.name for node in own.body if isinstance(node, ast.FunctionDef)}
    plain = all(ast.unparse(base) in ("nn.Module", "torch.nn.Module", "Module") for base in own.bases)
    if variant.mask_ratio is not None and plain and not {"tokenize", "encode"} <= methods:
        raise _no_part(variant, f"Encoder in {path}")
    try:
        return Encoder(path.stem, size.width, size.depth, size.heads, size.mlp_ratio, code=code(path), path=str(path))
    except SyntaxError as error:
        raise BenchError(f"variant {variant.name!r}: {error.filename}, line {error.lineno}, which {path} imports, is "
                         f"no Python: {error.msg}") from error


def _no_part(variant: Variant, which: str) -> BenchError:
    return BenchError(f"variant {variant.name!r}: mask_ratio={variant.mask_ratio} asks for pre-training, but {which} "
                      "cannot take part; set mask_ratio=None, or give it tokenize(eeg) and encode(tokens, keep)")


def shown(encoder: str) -> str:
    """How a table calls an encoder: a file by its stem, a model of braindecode by its name and its weights' file."""
    if not encoder.startswith(BRAINDECODE):
        return Path(encoder).stem
    model, _, weights = encoder.removeprefix(BRAINDECODE).partition("@")
    return f"{model} ({Path(weights).name})" if weights else model


def models() -> dict[str, Path]:
    """The models of the braindecode that is installed, and the file of each: the names that its package exports, read
    without importing it. Raises BenchError (exit 3) where it is not installed."""
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
    """The value of braindecode:NAME, braindecode:NAME(setting=value, ...), either with @ and a file of weights."""
    name, settings, file = _named(variant)
    there = models()
    if name not in there:
        raise BenchError(f"variant {variant.name!r}: braindecode has no model {name!r}; {_near(name, there)}")
    known = _arguments(there[name], name)
    for setting in settings:
        if setting in GIVEN or (known is not None and setting not in known and setting not in ("sfreq", "n_times")):
            raise BenchError(f"variant {variant.name!r}: {setting} is no setting of braindecode's {name}; "
                             + _near(setting, [one for one in known or () if one not in GIVEN]))
    if variant.mask_ratio is not None:
        raise _no_part(variant, f"braindecode's {name}")
    channels, montage = _channels(world)
    if name.startswith("Interpolated") and not montage:
        raise NotHere(f"variant {variant.name!r}: braindecode's {name} needs the positions of the electrodes, which "
                      f"{world.name if isinstance(world, Prepared) else 'the world'} does not state")
    weights = Weights(name, _hashed(file, variant), str(file)) if file else None
    return Braindecode(name, width, 0, 0, version=importlib.metadata.version("braindecode"), n_chans=world.n_chans,
                       n_times=world.n_times, sfreq=world.sfreq, channels=channels, montage=montage,
                       settings=tuple(sorted(settings.items())), weights=weights)


def _near(name: str, there: Any) -> str:
    by_case = {one.lower(): one for one in there}
    near = [by_case[one] for one in difflib.get_close_matches(name.lower(), by_case, 4, 0.5)]
    return f"near it are: {', '.join(near)}" if near else f"there are: {', '.join(sorted(there))}"


def _named(variant: Variant) -> tuple[str, dict[str, Any], Path | None]:
    """Name, settings and file of weights that a variant's encoder states."""
    text = variant.encoder.removeprefix(BRAINDECODE)
    wrong = BenchError(f"variant {variant.name!r}: {variant.encoder!r} is not understood; such as {BRAINDECODE}EEGNet, "
                       f"{BRAINDECODE}EEGNet(F1=16, D=2), {BRAINDECODE}EEGNet@weights.safetensors are expected")
    ends = [end for end, letter in enumerate(text) if letter == "@"] + [len(text)]
    for end in ends:  # the first @ that is no part of a setting
        try:
            call = ast.parse(text[:end].strip(), mode="eval").body
        except (SyntaxError, ValueError):
            continue
        name = call.func if isinstance(call, ast.Call) else call
        if not isinstance(name, ast.Name) or (isinstance(call, ast.Call) and call.args):
            raise wrong
        try:
            settings = {word.arg or "**": _frozen(ast.literal_eval(word.value))
                        for word in (call.keywords if isinstance(call, ast.Call) else [])}
        except (ValueError, TypeError):
            raise wrong from None
        file = text[end + 1:].strip()
        if "**" in settings or (end < len(text) and not file):
            raise wrong
        return name.id, settings, Path(file).resolve() if file else None
    raise wrong


def _frozen(value: Any) -> Any:
    """The value with tuples for lists. Raises TypeError for what is no number, text, truth value, None or list."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(one) for one in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError


def _arguments(file: Path, name: str) -> list[str] | None:
    """The arguments of a class's __init__ in a file; None where the file does not write it out."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__" and not method.args.kwarg:
                    return [one.arg for one in (*method.args.args[1:], *method.args.kwonlyargs)]
    return None


def _channels(world: World | Prepared) -> tuple[tuple[str, ...], str]:
    """Names of a world's channels, and where their positions are from; nothing where it does not state them."""
    if isinstance(world, World):
        return channel_names(world.n_chans), "tiny"
    if not world.path:
        return (), ""
    manifest = json.loads((Path(world.path) / MANIFEST).read_text())
    names = tuple(manifest.get("ch_names", ()))
    return names, "standard_1005" if names else ""


@functools.cache
def _sha256(path: Path, size: int, changed: int) -> str:
    return sha256(path)


def _hashed(path: Path, variant: Variant) -> str:
    """SHA-256 of a file, read once while it stays as it is. Raises BenchError (exit 3) where it cannot be."""
    try:
        about = path.stat()
        return _sha256(path, about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise BenchError(f"variant {variant.name!r}: no weights at {path} ({error.strerror})", ENVIRONMENT) from error


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
    path, part = Path(encoder.path), folder / f"{encoder.code}.{secrets.token_hex(8)}.part"
    for file in sources(path):
        target = part / file.relative_to(path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if code(part / path.name) != encoder.code:
        shutil.rmtree(part)
        raise BenchError(f"{path} was changed while the run was being planned; run again")
    try:
        part.rename(folder / encoder.code)
    except OSError:
        shutil.rmtree(part)
        if not (folder / encoder.code).exists():  # else another run was faster
            raise
