"""Data that `bench data prepare` has brought into one form, as values: a stage's key holds the hash of the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench.errors import ENVIRONMENT, BenchError
from bench.files import sha256

Array = np.ndarray
MANIFEST = "manifest.json"
PARTS = ("train", "val", "test")
COLUMNS = ("item", "subject", "picture", "label", "block", "position")  # of trials.csv, before the columns of parts
CLASS_COLUMNS = ("label", "name", "judge", "shown")
ROWS = 256  # of EEG that are copied at a time


class Dataset(Protocol):
    """What is known of a prepared data set before its folder is opened (bench.experiment.stages.Prepared)."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def sha256(self) -> str:
        """Of its manifest."""

    @property
    def path(self) -> str:
        """Its folder; "" where it is not prepared yet."""


def leaky(world: Dataset, split: str) -> str:
    """What is known of a split's leaks from how the data were recorded: "no: ..." or "yes: ...", and why."""
    _, manifest = opened(world)
    return str(manifest["leaky"][split])


def opened(world: Dataset) -> tuple[Path, dict[str, Any]]:
    """Folder and manifest of a data set that is the one that the value names, with files of the stated sizes.

    Raises BenchError (exit 3) for one that is absent, another, or lacks a file.
    """
    if not world.path:
        raise BenchError(f"data set {world.name} is not prepared; bench data prepare {world.name} --from DIR",
                         ENVIRONMENT)
    folder = Path(world.path)
    manifest, sha256 = pairs_manifest(folder)
    if sha256 != world.sha256:
        raise BenchError(f"{folder / MANIFEST} has SHA-256 {sha256[:12]}, not {world.sha256[:12]}: the data set was "
                         "prepared anew; give the command again, so that the stages of this one are built", ENVIRONMENT)
    for name, entry in manifest["files"].items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            raise BenchError(f"{file}: {'missing' if size is None else f'{size:,} bytes'}, {entry['bytes']:,} bytes "
                             f"are expected; remove {folder} and prepare it again", ENVIRONMENT)
    return folder, manifest


def verify(folder: Path) -> list[str]:
    """What is wrong with a prepared data set, a line for each file, after reading all of it; empty: nothing."""
    manifest, _ = pairs_manifest(folder)
    damage = []
    for name, entry in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            damage.append(f"{file}: missing")
        elif digest(file)["sha256"] != entry["sha256"]:
            damage.append(f"{file}: {file.stat().st_size:,} bytes ({entry['bytes']:,} are expected), another SHA-256 "
                          "than the manifest says")
    strange = {file.name for file in folder.iterdir()} - {*manifest["files"], MANIFEST}
    return [*damage, *(f"{folder / name}: not in the manifest" for name in sorted(strange))]


def eeg_file(band: Sequence[float]) -> str:
    """The name of the file of a band's EEG."""
    return f"eeg_{band[0]:g}-{band[1]:g}.npy"


def digest(file: Path) -> dict[str, Any]:
    """SHA-256 and size of a file, as a manifest states them."""
    return {"sha256": sha256(file), "bytes": file.stat().st_size}


def pairs_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """A data set's manifest and its SHA-256."""
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest: dict[str, Any] = json.loads(text)
        known = (manifest["kind"], manifest["schema"]) == ("pairs", 1)
    except OSError as error:
        raise BenchError(f"no prepared data set at {folder} ({error.strerror}); prepare it (bench data prepare), or "
                         "give its folder with --data DIR", ENVIRONMENT) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{folder / MANIFEST}: not a data set's manifest ({error!r}); remove {folder} and prepare it "
                         "again", ENVIRONMENT) from error
    if not known:
        raise BenchError(f"{folder / MANIFEST}: kind {manifest['kind']!r}, schema {manifest['schema']!r}; 'pairs' and "
                         "1 are expected", ENVIRONMENT)
    return manifest, hashlib.sha256(text).hexdigest()
