"""Where pre-trained weights lie: the pins of models.pins, looked up in a folder of the user's and in libraries' caches.

Nothing here downloads (`bench fetch` does), and nothing imports torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import systems
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.kinds import frozen_parts
from bench.experiment.stages import Weights
from bench.modules import import_object
from models import pins
from models.pins import File, Part

NAME = "eeg2image-bench"


def part(name: str) -> Weights:
    """A part's identity, without a look at the disk: path is "". Raises BenchError (exit 2) for an unknown name."""
    return Weights(name, published(name).identity, "")


def check(names: Sequence[str], folder: Path | None = None) -> dict[str, Weights]:
    """Every part with its path. Raises one BenchError (exit 3) that names all absent and wrong files, and what to do.

    All are looked up, and their sizes compared, before the first is hashed; a file is hashed once as long as it does
    not change (`digest`).
    """
    pinned = {name: published(name) for name in names}
    places = {name: locate(name, folder) for name in pinned}
    absent = [name for name, files in places.items() if not files]
    if absent:
        looked = ", ".join(str(place) for place in searched(absent, folder))
        where = f" --weights {folder}" if folder else ""
        raise BenchError(f"weights are not there: {'; '.join(_lacking(name, folder) for name in absent)}; looked in "
                         f"{looked}; get them with: bench fetch --what {','.join(absent)}{where}", ENVIRONMENT)
    every = [(file, files[file.path]) for name, files in places.items() for file in pinned[name].files]
    wrong = [said for file, path in every if (said := wrong_size(file, path))] or \
        [said for file, path in every if (said := wrong_hash(file, path))]
    if wrong:
        raise BenchError(f"{'; '.join(wrong)}: remove what is wrong, and get it again with: bench fetch", ENVIRONMENT)
    return {name: Weights(name, pinned[name].identity, str(_whole(pinned[name], files)))
            for name, files in places.items()}


def locate(name: str, folder: Path | None = None) -> dict[str, Path]:
    """Each file of a part and where it lies, all of them in one place; {} where no place has them all."""
    for place in _places(name, folder):
        files = {file.path: place / file.path for file in published(name).files}
        if all(path.is_file() for path in files.values()):
            return files
    return {}


def searched(names: Sequence[str], folder: Path | None = None) -> list[Path]:
    """The folders that `locate` looks into for these parts."""
    hub = {bool(published(name).repository) for name in names}
    return [*([folder] if folder else []), *([hub_cache()] if True in hub else []),
            *([checkpoints()] if False in hub else [])]


def home(name: str, folder: Path | None = None) -> Path:
    """Where `bench fetch` puts a part's files, by their paths in the repository."""
    pin = published(name)
    if folder is not None:
        return folder / pin.repository.rsplit("/", 1)[-1] if pin.repository else folder
    return snapshot(pin) if pin.repository else checkpoints()


def snapshot(pin: Part) -> Path:
    """Where HuggingFace's cache keeps the pinned revision of a part's repository."""
    return hub_cache() / f"models--{pin.repository.replace('/', '--')}" / "snapshots" / pin.revision


def checkpoints() -> Path:
    """torch's folder of checkpoints, by the environment variables that torch heeds."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))).expanduser() / "hub" / "checkpoints"


def hub_cache() -> Path:
    """HuggingFace's cache of repositories, by the environment variables that its library heeds."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    own = Path(os.environ.get("HF_HOME", cache / "huggingface")).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE", own / "hub"))).expanduser()


def digest(path: Path) -> str:
    """SHA-256 of a file, remembered in the user's cache for as long as its size and time of change stay the same."""
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    notes = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / NAME / "sha256.json"
    known = _notes(notes)
    if key not in known:
        with path.open("rb") as file:
            known = _notes(notes) | {key: hashlib.file_digest(file, "sha256").hexdigest()}
        try:
            notes.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=notes.parent, delete=False) as new:
                json.dump(known, new, indent=0)
            os.replace(new.name, notes)
        except OSError:  # a cache that cannot be written costs time alone
            pass
    return known[key]


def wrong_size(file: File, path: Path) -> str:
    """One sentence, or "" where the file has the published size, or none is published."""
    size = path.stat().st_size
    return "" if file.bytes in (None, size) else f"{path} has {size} bytes, not the published {file.bytes}"


def wrong_hash(file: File, path: Path) -> str:
    """One sentence, or "" where the file has the published SHA-256, or none is published."""
    if not file.sha256 or (hashed := digest(path)).startswith(file.sha256):
        return ""
    return f"{path} has SHA-256 {hashed[:8]}..., not the published {file.sha256[:8]}..."


def table() -> list[str]:
    """The rows of docs/paper-scale.md: part, repository and revision, file, size, licence, SHA-256."""
    rows = ["| part | repository | revision | file | size | licence | SHA-256 |", "|---|---|---|---|---:|---|---|"]
    for name in pins.names():
        pin = pins.part(name)
        for file in pin.files:
            rows.append(f"| {name} | {pin.repository or pin.url} | {pin.revision or 'none'} | {file.path} | "
                        f"{f'{file.bytes:,}' if file.bytes else 'unpublished'} | {pin.licence} | "
                        f"{file.sha256 or 'unpublished'} |")
    return rows


def known_names() -> list[str]:
    """All parts and measuring networks: those of models.pins, and those that systems bring with a pin of their own."""
    systems.load_all()
    return [*pins.names(), *(name for name, part in frozen_parts().items() if part.pin)]


def published(name: str) -> Part:
    """Where a part's files are published. Raises BenchError naming those that exist."""
    if name in pins.names():
        return pins.part(name)
    if name not in known_names():
        raise BenchError(f"no weights {name!r}; there are: {', '.join(known_names())}")
    part: Part = import_object(frozen_parts()[name].pin)
    return part


def _places(name: str, folder: Path | None) -> list[Path]:
    """Folders that the paths of a part's files are taken from, in the order in which they are looked into."""
    pin, own = published(name), []
    if folder is not None and pin.repository:
        own = [folder / pin.repository.rsplit("/", 1)[-1], folder / pin.repository,
               folder if pin.folder else folder / name]
    elif folder is not None:
        own = [folder, folder / name]
    return [*own, snapshot(pin) if pin.repository else checkpoints()]


def _lacking(name: str, folder: Path | None) -> str:
    """Which file of a part is missing: of the place that has most of them."""
    pin = published(name)
    place = max(_places(name, folder), key=lambda place: sum((place / file.path).is_file() for file in pin.files))
    missing = [file.path for file in pin.files if not (place / file.path).is_file()]
    if len(missing) < len(pin.files):
        return f"{name} lacks {', '.join(missing)} in {place}"
    return f"{name} ({pin.files[0].path} of {pin.repository or pin.url})"


def _whole(pin: Part, files: dict[str, Path]) -> Path:
    """What a loader wants: the part's folder of the repository, or the file where there is but one."""
    main = pin.files[0].path
    return files[main].parents[main.count("/")] / pin.folder if pin.repository else files[main]


def _notes(path: Path) -> dict[str, str]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
