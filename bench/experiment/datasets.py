"""Prepared data sets and corpora as values, from the manifests in a folder of data."""

from __future__ import annotations

from pathlib import Path

from bench.data.prepared import MANIFEST, pairs_manifest
from bench.data.shards import CORPORA, read_manifest
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.stages import Prepared, Shards
from bench.files import sha256 as hashed


def find_pairs(name: str, root: Path) -> Prepared:
    """The data set of that name in the folder of data, by its manifest. Raises BenchError (exit 3) where it is not."""
    folder = root / name
    if not (folder / MANIFEST).is_file():
        raise BenchError(f"no prepared data set at {folder}; prepare it: bench data prepare {name} --from DIR "
                         f"--data {root}", ENVIRONMENT)
    manifest, sha256 = pairs_manifest(folder)
    return Prepared(manifest["name"], sha256, manifest["n_chans"], manifest["n_times"], manifest["sfreq"],
                    str(folder.resolve()))


def find_corpus(name: str, root: Path) -> Shards:
    """A corpus in the folder of data, by its manifest. Raises BenchError (exit 3) where it is not prepared."""
    path = root / CORPORA / name
    if not (path / MANIFEST).is_file():
        raise BenchError(f"no corpus {name} in {root / CORPORA}; prepare it: bench data prepare {name} --data {root}",
                         ENVIRONMENT)
    manifest = read_manifest(path)
    return Shards(manifest["name"], hashed(path / MANIFEST), manifest["n_chans"], manifest["window"]["n_times"],
                  str(path.resolve()))
