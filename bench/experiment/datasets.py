"""Prepared data sets and corpora as values, from the manifests in a data folder."""

from __future__ import annotations

from pathlib import Path

from bench.data import prepared
from bench.data.catalogue import CORPORA_BY_NAME, TRAIN_ONLY
from bench.data.prepared import MANIFEST
from bench.data.shards import CORPORA, read_manifest
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.stages import Prepared, Shards
from bench.files import sha256


def find_pairs(name: str, root: Path) -> Prepared:
    """Returns the data set with this name in the data folder. Raises BenchError (exit 3) if it is not prepared."""
    folder = root / name
    if not (folder / MANIFEST).is_file():
        raise BenchError(f"no prepared data set at {folder}; prepare it: bench data prepare {name} --from DIR "
                         f"--data {root}", ENVIRONMENT)
    manifest, digest = prepared.read_manifest(folder)
    return Prepared(manifest["name"], digest, manifest["n_chans"], manifest["n_times"], manifest["sfreq"],
                    str(folder.resolve()))


def find_corpus(name: str, root: Path) -> Shards:
    """Returns the corpus with this name in the data folder. Raises BenchError (exit 3) if it is not prepared."""
    path = root / CORPORA / name
    if not (path / MANIFEST).is_file():
        files = "" if name in (*CORPORA_BY_NAME, TRAIN_ONLY) else ", or of your own recordings FOLDER --name " + name
        raise BenchError(f"no corpus {name} in {root / CORPORA}; prepare it: bench data prepare {name} --data "
                         f"{root}{files}", ENVIRONMENT)
    manifest = read_manifest(path)
    return Shards(manifest["name"], sha256(path / MANIFEST), manifest["n_chans"], manifest["window"]["n_times"],
                  str(path.resolve()))
