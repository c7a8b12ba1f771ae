"""Finds pre-trained weights: the pins of models/pins.py, in the user's folder and in the libraries' caches.

Nothing here downloads (`bench fetch` does), and nothing imports torch.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import systems
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.kinds import frozen_parts
from bench.experiment.stages import Weights
from bench.files import note_content, sha256
from bench.modules import import_object
from models import pins
from models.pins import File, Part


def part(name: str) -> Weights:
    """Returns a part's identity without a path, without reading the disk. Raises BenchError for an unknown name."""
    return Weights(name, published(name).identity, "")


def check(names: Sequence[str], folder: Path | None = None) -> dict[str, Weights]:
    """Returns every part with its path. Raises one BenchError (exit 3) that names all absent and wrong files. All parts
    are located, and their sizes compared, before the first file is hashed (`cached_sha256`)."""
    pinned = {name: published(name) for name in names}
    located = {name: locate(name, folder) for name in pinned}
    absent = [name for name, files in located.items() if not files]
    if absent:
        defaults = (hub_cache() if published(name).repository else checkpoints() for name in absent)
        folders = ", ".join(map(str, dict.fromkeys([*([folder] if folder else []), *defaults])))
        option = f" --weights {folder}" if folder else ""
        raise BenchError(f"missing weights: {', '.join(_describe_absent(name, folder) for name in absent)}; searched "
                         f"{folders}; get them with: bench fetch --what {','.join(absent)}{option}", ENVIRONMENT)
    files = [(file, paths[file.path]) for name, paths in located.items() for file in pinned[name].files]
    wrong = [*filter(None, (wrong_size(*pair) for pair in files))] or \
        [*filter(None, (wrong_hash(*pair) for pair in files))]
    if wrong:
        raise BenchError(f"{'; '.join(wrong)}: remove these files, and get them again with: bench fetch", ENVIRONMENT)
    return {name: Weights(name, pinned[name].identity, str(_loadable(pinned[name], paths)))
            for name, paths in located.items()}


def locate(name: str, folder: Path | None = None) -> dict[str, Path]:
    """Returns a part's files and their paths, all from one folder; {} if no folder has all of them."""
    for candidate in _candidates(name, folder):
        files = {file.path: candidate / file.path for file in published(name).files}
        if all(path.is_file() for path in files.values()):
            return files
    return {}


def home(name: str, folder: Path | None = None) -> Path:
    """Returns the folder into which `bench fetch` downloads a part: the user's, or that of a library's cache."""
    pin = published(name)
    if folder is not None:
        return folder / pin.repository.rsplit("/", 1)[-1] if pin.repository else folder
    if not pin.repository:
        return checkpoints()
    return hub_cache() / f"models--{pin.repository.replace('/', '--')}" / "snapshots" / pin.revision


def checkpoints() -> Path:
    """Returns torch's folder of checkpoints, by torch's environment variables."""
    return Path(os.environ.get("TORCH_HOME", _user_cache() / "torch")).expanduser() / "hub" / "checkpoints"


def hub_cache() -> Path:
    """Returns HuggingFace's cache of repositories, by its library's environment variables."""
    default = Path(os.environ.get("HF_HOME", _user_cache() / "huggingface")).expanduser() / "hub"
    return Path(os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE", default))).expanduser()


def cached_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file; a cache keeps it while size and modification time stay the same."""
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    cache = _user_cache() / "eeg2image-bench" / "sha256.json"
    known = _read_cache(cache)
    if key not in known:
        digest = sha256(path)
        known = _read_cache(cache) | {key: digest}
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False) as new:
                json.dump(known, new, indent=0)
            os.replace(new.name, cache)
        except OSError:  # without the cache, the next call hashes again
            pass
    return known[key]


def wrong_size(file: File, path: Path) -> str:
    """Describes a size other than the published one; "" if it is right or none is published."""
    size = path.stat().st_size
    if file.bytes in (None, size):
        return ""
    return f"{path} has {size} bytes, not the published {file.bytes}{note_content(path)}"


def wrong_hash(file: File, path: Path) -> str:
    """Describes a SHA-256 other than the published one; "" if it is right or none is published."""
    if not file.sha256 or (actual := cached_sha256(path)).startswith(file.sha256):
        return ""
    return f"{path} has SHA-256 {actual[:8]}..., not the published {file.sha256[:8]}...{note_content(path)}"


def known_names() -> list[str]:
    """Returns the names of all parts and scoring networks: those of models/pins.py, and those pinned by systems."""
    systems.load_all()
    return [*pins.names(), *(name for name, part in frozen_parts().items() if part.pin)]


def published(name: str) -> Part:
    """Returns the pin of a part. Raises BenchError for an unknown name."""
    if name in pins.names():
        return pins.part(name)
    if name not in known_names():
        raise BenchError(f"no weights {name!r}; there are: {', '.join(known_names())}")
    part: Part = import_object(frozen_parts()[name].pin)
    return part


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()


def _candidates(name: str, folder: Path | None) -> list[Path]:
    """Returns the folders that may hold a part's files, in the order of the search."""
    pin, cache = published(name), home(name)
    if folder is None:
        return [cache]
    if not pin.repository:
        return [folder, folder / name, cache]
    return [home(name, folder), folder / pin.repository, folder if pin.folder else folder / name, cache]


def _describe_absent(name: str, folder: Path | None) -> str:
    """Describes the missing files of a part, in the folder that has most of them."""
    pin = published(name)
    best = max(_candidates(name, folder), key=lambda path: sum((path / file.path).is_file() for file in pin.files))
    missing = [file.path for file in pin.files if not (best / file.path).is_file()]
    if len(missing) < len(pin.files):
        return f"{name} (without {', '.join(missing)} in {best})"
    return f"{name} ({pin.files[0].path} of {pin.repository or pin.url})"


def _loadable(pin: Part, files: dict[str, Path]) -> Path:
    """Returns what a loader takes: the part's folder of the repository, or its only file."""
    main = pin.files[0].path
    return files[main].parents[main.count("/")] / pin.folder if pin.repository else files[main]


def _read_cache(path: Path) -> dict[str, str]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
