"""Reads a corpus of pre-training: un-padded float16 shards of many people, or a tiny world's one array."""

from __future__ import annotations

import hashlib
import json
import resource
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.data.prepared import MANIFEST
from bench.errors import ENVIRONMENT, BenchError
from bench.files import sha256 as hashed

if TYPE_CHECKING:
    from torch import Tensor


Array = np.ndarray
Blocks = list[tuple[Array, Array]]  # positions in a batch [n], and their windows [n, C, T] as they are stored
CORPORA = "corpora"  # in the folder of data
INDEX = "index.csv"
REFERENCE = "shards.json"  # in a stage's folder: where the corpus lies, and the hash of its manifest
AHEAD = 4  # batches that are read before they are asked for


class Windows:
    """N windows in shards, opened when first read. Rows are counted over all shards in their order.

    n_chans: to which fewer channels are replicated. index: a row for each window, from index.csv. len() is N.
    """

    def __init__(self, files: list[Path], counts: Array, n_chans: int, n_times: int, index: pd.DataFrame):
        self.n_chans, self.n_times = n_chans, n_times
        self.index = index
        self._files, self._first = files, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._parts = index["part"].to_numpy()
        self._open: dict[int, Array] = {}

    def __len__(self) -> int:
        return int(self._first[-1])

    def rows(self, part: str) -> Array:
        """The rows [n] of a part, "train" or "held_out", ascending. Raises BenchError for another."""
        found = np.flatnonzero(self._parts == part)
        if not len(found):
            raise BenchError(f"no part {part!r} in the corpus; there are: {', '.join(sorted(set(self._parts)))}")
        return found

    def batch(self, rows: Array) -> Blocks:
        """Windows of some rows [B] in one block for each number of channels; positions say where in the batch each is.

        Raises BenchError for rows that do not exist.
        """
        return self._read(np.asarray(rows, np.int64), pinned=False)

    def gather(self, rows: Array, device: Any = "cpu") -> Tensor:
        """[B, n_chans, n_times] float32 in the order of `rows`; channels are replicated on the device (Sec. 4.1)."""
        return self._assembled(self._read(np.asarray(rows, np.int64), _cuda(device)), device)

    def batches(self, order: Iterable[Array], device: Any = "cpu", workers: int = 2) -> Iterator[Tensor]:
        """`gather` for one batch of rows after another, in their order; threads read the next ones meanwhile."""
        for blocks in self.prefetched(order, workers, _cuda(device)):
            yield self._assembled(blocks, device)

    def prefetched(self, order: Iterable[Array], workers: int = 2, pinned: bool = False) -> Iterator[Blocks]:
        """`batch` for one batch of rows after another, in their order, read by `workers` threads up to AHEAD ahead."""
        waiting: deque[Future[Blocks]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for rows in order:
                    waiting.append(pool.submit(self._read, np.asarray(rows, np.int64), pinned))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _read(self, rows: Array, pinned: bool) -> Blocks:
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise BenchError(f"the corpus has {len(self)} windows; rows {rows.min()} to {rows.max()} are asked for")
        order = np.argsort(rows, kind="stable")  # by shard, and forwards within it
        shard = np.searchsorted(self._first, rows[order], side="right") - 1
        own = rows[order] - self._first[shard]
        cuts = np.flatnonzero(np.diff(shard)) + 1
        by_channels: dict[int, list[tuple[Array, Array, Array]]] = {}
        for positions, numbers, within in zip(*(np.split(a, cuts) for a in (order, shard, own)), strict=True):
            if len(positions):
                source = self._shard(int(numbers[0]))
                by_channels.setdefault(source.shape[1], []).append((positions, source, within))
        blocks = []
        for pieces in by_channels.values():
            n = sum(len(positions) for positions, _, _ in pieces)
            out, begin = _empty((n, *pieces[0][1].shape[1:]), pieces[0][1].dtype, pinned), 0
            for positions, source, within in pieces:
                source.take(within, axis=0, out=out[begin : begin + len(positions)], mode="clip")
                begin += len(positions)
            blocks.append((np.concatenate([positions for positions, _, _ in pieces]), out))
        return blocks

    def _assembled(self, blocks: Blocks, device: Any) -> Tensor:
        import torch

        out = torch.empty((sum(len(positions) for positions, _ in blocks), self.n_chans, self.n_times), device=device)
        for positions, windows in blocks:
            found = torch.from_numpy(windows).to(device, non_blocking=True).float()
            if found.shape[1] != self.n_chans:
                found = found[:, torch.arange(self.n_chans, device=device) % found.shape[1]]
            out[torch.from_numpy(positions).to(device)] = found
        return out

    def _shard(self, number: int) -> Array:
        """[n, C, T], memory-mapped; C is never more than n_chans. Two threads that open one at once do no harm."""
        if number not in self._open:
            path, n = self._files[number], int(self._first[number + 1] - self._first[number])
            try:
                found = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise BenchError(f"{path}: not a shard that numpy can read ({' '.join(str(error).split())}); prepare "
                                 "its corpus again", ENVIRONMENT) from error
            if found.ndim != 3 or len(found) != n or found.shape[1] > self.n_chans or found.shape[2] != self.n_times:
                raise BenchError(f"{path} is {list(found.shape)}: [{n}, at most {self.n_chans}, {self.n_times}] is "
                                 "expected; prepare its corpus again", ENVIRONMENT)
            self._open[number] = np.asarray(found)
        return self._open[number]


def open_corpus(folder: Path) -> Windows:
    """The windows of a Corpus stage's folder: a tiny world's windows.npy, or what its shards.json points to.

    Raises BenchError (exit 3) for a corpus that has moved or is another than it was.
    """
    if (folder / REFERENCE).is_file():
        reference = json.loads((folder / REFERENCE).read_text())
        return opened(Path(reference["path"]), reference["sha256"])
    windows = np.load(folder / "windows.npy", mmap_mode="r", allow_pickle=False)
    _, n_chans, n_times = windows.shape
    return Windows([folder / "windows.npy"], np.array([len(windows)]), n_chans, n_times,
                   pd.read_csv(folder / INDEX, dtype={"part": str}))


def opened(path: Path, sha256: str) -> Windows:
    """The windows of a prepared corpus; its manifest has that hash, and every shard the size that it states.

    Raises BenchError (exit 3) naming the file that is missing or another.
    """
    manifest = read_manifest(path, sha256)
    shards = manifest["shards"]
    for shard in shards:
        file = path / shard["file"]
        size = file.stat().st_size if file.is_file() else None
        if size != shard["bytes"]:
            raise BenchError(f"{file}: {'missing' if size is None else f'{size} bytes'}, {shard['bytes']} bytes are "
                             f"expected; {_again(path, manifest)}", ENVIRONMENT)
    index = _index(path, manifest)
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # a shard is a file that stays open
    if least != most and least < len(shards) + 256:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return Windows([path / shard["file"] for shard in shards], np.array([shard["n"] for shard in shards], np.int64),
                   manifest["n_chans"], manifest["window"]["n_times"], index)


def read_manifest(path: Path, sha256: str = "") -> dict[str, Any]:
    """A corpus's manifest. Raises BenchError (exit 3) where there is none, or one of another hash."""
    try:
        text = (path / MANIFEST).read_bytes()
        manifest: dict[str, Any] = json.loads(text)
        known = manifest["kind"] == "corpus" and manifest["schema"] == 1
    except OSError as error:
        raise BenchError(f"no corpus at {path} ({error.strerror}); prepare it (bench data prepare), or give its folder "
                         "with --data DIR", ENVIRONMENT) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path / MANIFEST}: not a corpus's manifest ({error!r}); remove {path} and prepare it again",
                         ENVIRONMENT) from error
    if not known:
        raise BenchError(f"{path / MANIFEST}: kind {manifest['kind']!r}, schema {manifest['schema']!r}; 'corpus' and 1 "
                         "are expected", ENVIRONMENT)
    found = hashlib.sha256(text).hexdigest()
    if sha256 and found != sha256:
        raise BenchError(f"{path / MANIFEST} has SHA-256 {found[:12]}, not {sha256[:12]}: the corpus was prepared "
                         "anew; give the command again, so that the stages of this one are built", ENVIRONMENT)
    return manifest


def verify(path: Path) -> list[str]:
    """What is wrong with a prepared corpus, a line for each file, after reading all of it; empty: nothing."""
    manifest = read_manifest(path)
    expected = {shard["file"]: shard for shard in manifest["shards"]} | manifest["files"]
    damage = []
    for name, entry in expected.items():
        file = path / name
        if not file.is_file():
            damage.append(f"{file}: missing")
        elif hashed(file) != entry["sha256"]:
            damage.append(f"{file}: {file.stat().st_size} bytes ({entry['bytes']} are expected), another SHA-256 than "
                          "the manifest says")
    strange = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()} - {*expected, MANIFEST}
    return [*damage, *(f"{path / name}: not in the manifest" for name in sorted(strange))]


def first_channels(folder: Path) -> Array:
    """The first channel of every window of the corpus in a Corpus stage's folder, [M, 1, T] float16, in its order."""
    windows = open_corpus(folder)
    first = np.empty((len(windows), 1, windows.n_times), np.float16)
    for begin in range(0, len(windows), 256):
        for rows, block in windows.batch(np.arange(begin, min(begin + 256, len(windows)))):
            first[begin + rows, 0] = block[:, 0]
    return first


def _index(path: Path, manifest: dict[str, Any]) -> pd.DataFrame:
    entry, file = manifest["files"][INDEX], path / INDEX
    if not file.is_file() or hashed(file) != entry["sha256"]:
        raise BenchError(f"{file}: missing, or another than the manifest says; {_again(path, manifest)}", ENVIRONMENT)
    return pd.read_csv(file, dtype=dict.fromkeys(("dataset", "session", "run", "part"), "category"),
                       keep_default_na=False)


def _again(path: Path, manifest: dict[str, Any]) -> str:
    return f"restore it, or remove {path} and prepare it again: bench data prepare {manifest['name']}"


def _cuda(device: Any) -> bool:
    return str(device).startswith("cuda")


def _empty(shape: tuple[int, ...], dtype: Any, pinned: bool) -> Array:
    """An array to read into; pinned: in memory that a GPU copies from while it computes."""
    if not pinned:
        return np.empty(shape, dtype)
    import torch

    kinds = {np.dtype(np.float16): torch.float16, np.dtype(np.float32): torch.float32}
    return torch.empty(shape, dtype=kinds[np.dtype(dtype)], pin_memory=True).numpy()
