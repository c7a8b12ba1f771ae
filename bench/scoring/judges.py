"""A user's judge (`bench score --judge`): finds and loads it, or says in one line what is wrong in the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open

from bench.errors import ENVIRONMENT, BenchError, one_line
from bench.experiment.judge import ChosenJudge
from bench.files import describe_content, explain, sha256
from bench.runtime import is_out_of_memory
from bench.scoring.class_names import describe_classes, is_same_class, name_classes
from models import extractors, frozen, pins
from models.extractors import Extractor
from models.frozen import TIMM_PICKLED, TIMM_WEIGHTS, TORCH, WRAPPERS, BadWeights, Checkpoint, MissingWeights

CONFIG = "config.json"
HUB = "hf-hub:"
FITS = ("crop", "stretch")  # timm's own crop; the whole image, resized
SAVE_FOLDER = ("save the classifier as a folder: timm.models.save_for_hf(model, 'folder', safe_serialization=True) "
               f"writes {CONFIG} and {TIMM_WEIGHTS}")
SAVE_FILE = "save it with models.frozen.save(judge, path), or a classifier of timm as a folder of timm's"
NAME_IT = "name timm's architecture: --arch resnet50"
PREPROCESSING = ("input_size", "mean", "std")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Source:
    """The files of a judge.

    weights: the file that is hashed; contents: the expected tensors, in words; architecture: of a checkpoint, by its
    name in timm; is_saved: written by `models.frozen.save`; prefix: of the tensors' names
    """

    path: Path
    weights: Path
    contents: str
    architecture: str = ""
    is_saved: bool = False
    prefix: str = ""
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def open_judge(judge: str, device: str, architecture: str = "", fit: str = "") -> tuple[Extractor, tuple[str, ...]]:
    """Loads a judge; returns it with notes on what was chosen, its classes, and how images are prepared.

    judge         a name in pins.PACKAGED, a model of timm in the hub's cache (a name, or hf-hub:ORG/NAME), a folder of
                  timm's, a checkpoint of a timm model (safetensors or torch.save), or a file of `models.frozen.save`
    architecture  timm's name, for a checkpoint that has none
    fit           "crop": timm's own preparation in evaluation; "stretch": the whole image is resized; "": crop, or
                  stretch for a file of `models.frozen.save`, which has no config of timm

    A prefix of all tensor names, as DataParallel writes it, is removed. Nothing else is repaired, and no pickled code
    runs. Raises BenchError: exit 2 for a name or a path without a judge, exit 3 for a file that is not a judge, with
    the reason.
    """
    return _open(judge, device, architecture, fit)[1:]


def _open(judge: str, device: str, architecture: str, fit: str) -> tuple[_Source, Extractor, tuple[str, ...]]:
    """Returns the files of a judge, and the judge with notes as `open_judge`."""
    if fit not in ("", *FITS):
        raise BenchError(f"--fit {fit}: expected {' or '.join(FITS)}")
    if architecture and not timm.is_model(architecture):
        raise BenchError(f"--arch {architecture}: timm {timm.__version__} has no such model; timm.list_models() lists "
                         "them")
    path, pinned = _find(judge)
    source = _inspect(path, architecture, pinned)
    try:
        part = frozen.load_judge(path, pinned.sha256 if pinned else None, prefix=source.prefix,
                                 architecture=source.architecture).to(device)
    except (BadWeights, MissingWeights) as error:
        cure = f"was it trained as another architecture than {source.architecture} (--arch)?" if source.architecture \
            else SAVE_FILE if source.is_saved else SAVE_FOLDER
        raise _fault(f"{error.fault}: the tensors are not those of {source.contents}", cure) from error
    if fit == "crop" and part.crop is None:
        raise BenchError(f"--fit crop: {path} has no data config of timm; leave --fit out")
    crop = part.crop if fit != "stretch" else None
    name = path.stem if Path(judge).exists() else judge.removeprefix(HUB)
    classes = () if source.is_saved else name_classes(part.arguments["classes"], source.labels)
    extractor = extractors.judge_extractor(part, sha256(source.weights), name, crop, classes)
    _check_layers(path, extractor, source.contents, device)
    if source.is_saved:
        return source, extractor, source.notes
    prepared = crop or f"resizing them as a whole to {part.size}x{part.size}"
    return source, extractor, (*source.notes, f"judge {name}: {source.contents}, images by {prepared}",
                               f"judge {name}: {describe_classes(part.arguments['classes'], source.labels)}")


def choose_judge(judge: str, architecture: str = "", fit: str = ""
                 ) -> tuple[ChosenJudge, tuple[str, ...], tuple[str, ...]]:
    """Returns the judge as a field of stages, the names of its classes by number (() if they are unknown), and notes.

    Parameters, notes and errors as `open_judge`. The name states the preparation of images: "resnet50 (crop)".
    """
    source, extractor, notes = _open(judge, "cpu", architecture, fit)
    fit = "crop" if extractor.crop else "stretch"
    chosen = ChosenJudge(f"{extractor.name} ({fit})", extractor.sha256, str(source.path), source.architecture, fit)
    return chosen, extractor.classes, notes


def misnamed(shown: Mapping[str, int], classes: Sequence[str]) -> str:
    """Returns the first class of a data set that the judge does not have under its number, in words; "" if all agree.

    shown: the judge's number of each class of the data set; classes: the judge's, by number.
    """
    for name, number in shown.items():
        if not 0 <= number < len(classes):
            return f"class {name!r} is number {number} of the data set's judge; this judge has {len(classes):,} classes"
        if not is_same_class(name, classes[number]):
            return f"class {name!r} is number {number} of the data set's judge; number {number} here is " \
                   f"{classes[number]!r}"
    return ""


def _inspect(path: Path, architecture: str, pinned: pins.Packaged | None) -> _Source:
    """Checks a judge's headers and config before its network is built."""
    if path.is_dir():
        weights, checkpoint = _open_folder(path)
        contents = _check_folder(path, {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()})
        if architecture:
            raise BenchError(f"--arch {architecture}: {path / CONFIG} names the architecture {contents}; leave --arch "
                             "out")
        return _Source(path, weights, contents, labels=_folder_labels(path) or checkpoint.labels,
                       notes=checkpoint.notes)
    shapes, metadata = _read_header(path) if path.suffix.lower() not in TORCH else ({}, {})
    if "arguments" in metadata and not architecture:
        prefix = next((wrapper for wrapper in WRAPPERS if all(name.startswith(wrapper) for name in shapes)), "")
        contents = _check_file(path, {name.removeprefix(prefix): shape for name, shape in shapes.items()}, metadata)
        notes = (f"read from {path}: all names of tensors without their prefix {prefix!r}",) if prefix else ()
        return _Source(path, path, contents, is_saved=True, prefix=prefix, notes=notes)
    checkpoint = _read_checkpoint(path)
    if pinned:
        if architecture:
            raise BenchError(f"--arch {architecture}: this judge is {pinned.architecture}; leave --arch out")
        architecture = pinned.architecture
    architecture = _choose_architecture(path, checkpoint, architecture)
    return _Source(path, path, architecture, architecture, labels=checkpoint.labels, notes=checkpoint.notes)


def _find(judge: str) -> tuple[Path, pins.Packaged | None]:
    """Finds the file or folder of a judge, and its pin if it comes from an installed package (else None)."""
    path = Path(judge)
    if judge.startswith(HUB):
        return _find_cached(judge.removeprefix(HUB)), None
    if path.exists():
        if path.is_dir() and not any((path / name).is_file() for name in (TIMM_WEIGHTS, TIMM_PICKLED)):
            _refuse_folder(path)
            raise BenchError(_describe_unknown(judge))
        return path, None
    if pinned := pins.PACKAGED.get(judge):
        if not pinned.path:
            raise BenchError(f"judge {judge}: the package {pinned.distribution} is not installed; get it with: pip "
                             "install 'eeg2image-bench[judge]'", ENVIRONMENT)
        return Path(pinned.path), pinned
    if timm.is_model(judge):
        hub = getattr(timm.get_pretrained_cfg(judge), "hf_hub_id", None)
        if not hub:
            raise BenchError(f"judge {judge}: timm has no weights of it on the hub; give a file: --judge FILE --arch "
                             f"{judge}", ENVIRONMENT)
        return _find_cached(hub), None
    raise BenchError(_describe_unknown(judge))


def _describe_unknown(judge: str) -> str:
    return (f"no judge {judge!r}; expected tiny, none, {', '.join(pins.PACKAGED)}, a model of timm (a name or {HUB}ORG/"
            f"NAME), a checkpoint of one, the file of a judge, or a folder of timm's ({CONFIG}, {TIMM_WEIGHTS})")


def _find_cached(model: str) -> Path:
    """Returns the folder of a timm model in the hub's cache; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = model.partition("@")
    try:
        files = [try_to_load_from_cache(repository, name, revision=revision or None)
                 for name in (TIMM_WEIGHTS, TIMM_PICKLED)]
        config = try_to_load_from_cache(repository, CONFIG, revision=revision or None)
    except ValueError as error:  # not ORG/NAME
        raise BenchError(f"judge {HUB}{model}: {one_line(error)}; expected {HUB}ORG/NAME or {HUB}ORG/NAME@REVISION"
                         ) from error
    if not isinstance(config, str) or not any(isinstance(file, str) for file in files):
        at = f" --revision {revision}" if revision else ""
        raise BenchError(f"judge {model}: {CONFIG} and {TIMM_WEIGHTS} are not in the hub's cache; get them with: hf "
                         f"download {repository}{at} {CONFIG} {TIMM_WEIGHTS}", ENVIRONMENT)
    return Path(config).parent


def _open_folder(folder: Path) -> tuple[Path, Checkpoint]:
    """Returns the weights of a timm folder, safetensors if there are both."""
    weights = next(folder / name for name in (TIMM_WEIGHTS, TIMM_PICKLED) if (folder / name).is_file())
    return weights, _read_checkpoint(weights)


def _read_checkpoint(path: Path) -> Checkpoint:
    try:
        return frozen.read_checkpoint(path)
    except BadWeights as error:
        kind = describe_content(path)
        raise _fault(f"{path} is {kind}" if kind else error.fault, SAVE_FOLDER) from error


def _choose_architecture(path: Path, checkpoint: Checkpoint, given: str) -> str:
    """Returns the architecture of a checkpoint: the given one or its own, which must not differ."""
    written = checkpoint.architecture
    if given and written and given.partition(".")[0] != written.partition(".")[0]:
        raise BenchError(f"--arch {given}: {path} says that it is {written}; leave --arch out")
    architecture = given or written
    if not architecture:
        names = list(checkpoint.tensors)
        raise _fault(f"{path} is a checkpoint of {len(names)} tensors ({', '.join(names[:3])}, ...); it does not say "
                     "its architecture", NAME_IT)
    if not timm.is_model(architecture):
        raise _fault(f"{path} says that it is {architecture!r}, which timm {timm.__version__} does not have", NAME_IT)
    return architecture


def _folder_labels(folder: Path) -> tuple[str, ...]:
    """Returns the names of the classes in a timm folder's config, by number; () if it has none."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    names = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names") or ()
    if isinstance(names, dict) and sorted(names) == sorted(map(str, range(len(names)))):
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, (list, tuple)):
        raise _fault(f"{folder / CONFIG} has label_names that are not one name for each class", "correct them, or "
                     "leave them out")
    return tuple(map(str, names))


def _fault(problem: str, cure: str) -> BenchError:
    return BenchError(f"{problem}; {cure}", ENVIRONMENT)


def _refuse_folder(folder: Path) -> None:
    """Raises BenchError for a folder without weights in safetensors."""
    others = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in (*TORCH, ".safetensors"))
    if others or (folder / CONFIG).is_file():
        raise _fault(f"{folder} has {others[0] if others else CONFIG}, but no {TIMM_WEIGHTS}", SAVE_FOLDER)


def _read_header(file: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Returns the shapes of a safetensors file's tensors, and its metadata."""
    try:
        with safe_open(file, "pt") as content:
            shapes = {name: tuple(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
            metadata = content.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise _fault(f"{file} does not hold the expected part: it is not a safetensors file, or is cut off "
                     f"({explain(file, error)[:120]})", SAVE_FILE) from error
    if not shapes:
        raise _fault(f"{file} contains no tensors", SAVE_FILE)
    return shapes, metadata


def _check_file(file: Path, shapes: Shapes, metadata: Mapping[str, str]) -> str:
    """Checks a file of `models.frozen.save`; returns what it should be."""
    try:
        classes = json.loads(metadata["arguments"])["classes"]
    except (KeyError, TypeError, ValueError) as error:
        raise _fault(f"{file} does not say its architecture and its number of classes (no 'arguments' with 'classes' "
                     "in its metadata), as a judge's file does", SAVE_FILE) from error
    _check_classes(file, "its metadata", "net.fc", classes, shapes)
    return f"a judge of {classes} classes"


def _check_folder(folder: Path, shapes: Shapes) -> str:
    """Checks a folder's config.json against its tensors; returns the architecture."""
    file = folder / CONFIG
    if not file.is_file():
        raise _fault(f"{folder} has no {CONFIG}, which names the architecture and the number of classes", SAVE_FOLDER)
    try:
        config: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _fault(f"{file} cannot be read as JSON ({explain(file, error)})", SAVE_FOLDER) from error
    if not isinstance(config, dict) or not isinstance(architecture := config.get("architecture"), str):
        kind = config.get("model_type") if isinstance(config, dict) else None
        library = f", as transformers' config of a {kind}" if kind else ""
        raise _fault(f"{file} has no 'architecture'{library}; expected timm's format", SAVE_FOLDER)
    if not timm.is_model(architecture):
        raise _fault(f"{file} names the architecture {architecture!r}, which timm {timm.__version__} does not have",
                     "use the version of timm that saved it, or correct the name")
    preprocessing = config.get("pretrained_cfg", config)  # older files have one level
    preprocessing = preprocessing if isinstance(preprocessing, dict) else {}
    if missing := [name for name in PREPROCESSING if not preprocessing.get(name)]:
        raise _fault(f"{file} has no {', '.join(missing)} in 'pretrained_cfg', so how images are prepared is unknown",
                     SAVE_FOLDER)
    classes = config.get("num_classes", preprocessing.get("num_classes"))
    if not isinstance(classes, int) or classes < 1:
        raise _fault(f"{file} says num_classes {classes}: it has no classifier" if classes == 0 else
                     f"{file} has no number of classes (num_classes)", "a judge needs a classifier of images")
    heads = preprocessing.get("classifier") or timm.models.get_pretrained_cfg_value(architecture, "classifier")
    for head in heads if isinstance(heads, (list, tuple)) else [heads]:
        if head:
            _check_classes(file, "it", head, classes, shapes)
    return architecture


def _check_classes(file: Path, source: str, head: str, classes: object, shapes: Shapes) -> None:
    shape = shapes.get(f"{head}.weight")
    if shape and shape[0] != classes:
        raise _fault(f"{file}: {source} says {classes} classes, but the last layer in the file ({head}.weight) has "
                     f"{shape[0]}", "correct the number of classes, or use the weights that belong to it")


def _check_layers(path: Path, judge: Extractor, architecture: str, device: str) -> None:
    """Raises BenchError unless the network gives logits, features and the feature maps of the judge's metrics."""
    blank = torch.zeros(1, 3, judge.size, judge.size, dtype=torch.uint8, device=device)
    try:
        with torch.inference_mode():
            judge.look(blank)
    except Exception as error:  # timm and torch raise exceptions of any class for what a network lacks
        if is_out_of_memory(error):
            raise
        raise _fault(f"{path}: {architecture} does not give what a judge needs: logits, features and three feature "
                     f"maps by timm's forward_intermediates ({one_line(error)[:120]})",
                     "choose another architecture of timm") from error
