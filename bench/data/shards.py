"""Reads a pre-training corpus: unpadded float16 shards of many people, or the single array of a tiny world."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.data import prepared
from bench.data.montages import names_channels, pick_names
from bench.data.prepared import Array
from bench.errors import ENVIRONMENT, BenchError
from bench.files import open_array
from bench.files import sha256 as file_hash
from bench.runtime import allow_open_files

if TYPE_CHECKING:
    from torch import Tensor

Blocks = list[tuple[Array, Array]]  # positions in a batch [n], and their windows [n, C, T] as stored
CORPORA = "corpora"  # in the folder of data
INDEX = "index.csv"
REFERENCE = "shards.json"  # in a stage's folder: the corpus's path and the hash of its manifest
AHEAD = 4  # batches read in advance


class Windows:
    """N windows in shards, which are opened when first read. Rows count over all shards in their order.

    n_chans: number of channels to which fewer ones are replicated. index: index.csv, one row for each window. len(): N.
    hashes: SHA-256 of each shard, compared when it is first read; (): none is compared. channels: number of electrodes
    that are read, replaces n_chans; None: all. picks: for each shard, which of its channels these are. readable [N]:
    whether a window has one of them.
    """

    def __init__(self, files: list[Path], counts: Array, n_chans: int, n_times: int, index: pd.DataFrame,
                 hashes: Sequence[str] = (), channels: int | None = None, picks: Sequence[Array] = ()):
        self.n_chans, self.n_times = channels or n_chans, n_times
        self.index = index
        self._files, self._first = files, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._parts = index["part"].to_numpy()
        self._hashes, self._picks, self._most = hashes, picks, n_chans
        self.readable = np.repeat([len(each) > 0 for each in picks], counts) if picks else np.ones(len(self), bool)
        self._open: dict[int, Array] = {}
        self._opening: defaultdict[int, Lock] = defaultdict(Lock)  # a shard is read whole by one thread only

    def __len__(self) -> int:
        return int(self._first[-1])

    def rows(self, part: str) -> Array:
        """Returns the readable rows [n] of a part, "train" or "held_out", ascending. Raises BenchError for another
        part, and (exit 3) for one without readable rows."""
        rows = np.flatnonzero((self._parts == part) & self.readable)
        if part in self._parts and not len(rows):
            raise BenchError(f"part {part!r} of the corpus has no recording with one of the {self.n_chans} chosen "
                             "electrodes; use another corpus, or keep all channels", ENVIRONMENT)
        if not len(rows):
            raise BenchError(f"no part {part!r} in the corpus; available: {', '.join(sorted(set(self._parts)))}")
        return rows

    def gather(self, rows: Array, device: Any = "cpu") -> Tensor:
        """Reads [B, n_chans, n_times] float32 in the order of `rows`, replicating channels on the device (Sec. 4.1)."""
        return self._assemble(self.batch(rows, str(device).startswith("cuda")), device)

    def batches(self, order: Iterable[Array], device: Any = "cpu", workers: int = 2) -> Iterator[Tensor]:
        """Yields `gather` for each array of rows, in order; threads read the next ones in advance."""
        for blocks in self.prefetch(order, workers, str(device).startswith("cuda")):
            yield self._assemble(blocks, device)

    def prefetch(self, order: Iterable[Array], workers: int = 2, pinned: bool = False) -> Iterator[Blocks]:
        """Yields `batch` for each array of rows, in order, read by `workers` threads up to AHEAD in advance."""
        waiting: deque[Future[Blocks]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for rows in order:
                    waiting.append(pool.submit(self.batch, rows, pinned))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def batch(self, rows: Array, pinned: bool = False) -> Blocks:
        """Reads the windows of rows [B] as one block for each number of channels, with their positions in the batch.

        pinned: into memory from which a GPU copies while it computes. Raises BenchError for rows that do not exist.
        """
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise BenchError(f"the corpus has {len(self)} windows; expected rows 0 to {len(self) - 1}, not "
                             f"{rows.min()} to {rows.max()}")
        order = np.argsort(rows, kind="stable")  # by shard, and forwards within it
        shard = np.searchsorted(self._first, rows[order], side="right") - 1
        in_shard = rows[order] - self._first[shard]
        cuts = np.flatnonzero(np.diff(shard)) + 1
        by_channels: dict[int, list[tuple[Array, Array, Array]]] = {}
        for positions, numbers, within in zip(*(np.split(a, cuts) for a in (order, shard, in_shard)), strict=True):
            if len(positions):
                source = self._shard(int(numbers[0]))
                if self._picks:
                    source = _reduce(source, within, self._picks[int(numbers[0])])
                    within = np.arange(len(within))
                by_channels.setdefault(source.shape[1], []).append((positions, source, within))
        blocks = []
        for pieces in by_channels.values():
            n = sum(len(positions) for positions, _, _ in pieces)
            shape, dtype, begin = (n, *pieces[0][1].shape[1:]), pieces[0][1].dtype, 0
            if pinned:
                import torch

                out = torch.empty(shape, dtype=getattr(torch, dtype.name), pin_memory=True).numpy()
            else:
                out = np.empty(shape, dtype)
            for positions, source, within in pieces:
                source.take(within, axis=0, out=out[begin : begin + len(positions)], mode="clip")
                begin += len(positions)
            blocks.append((np.concatenate([positions for positions, _, _ in pieces]), out))
        return blocks

    def _assemble(self, blocks: Blocks, device: Any) -> Tensor:
        import torch

        out = torch.empty((sum(len(positions) for positions, _ in blocks), self.n_chans, self.n_times), device=device)
        for positions, stored in blocks:
            windows = torch.from_numpy(stored).to(device, non_blocking=True).float()
            if windows.shape[1] != self.n_chans:
                windows = windows[:, torch.arange(self.n_chans, device=device) % windows.shape[1]]
            out[torch.from_numpy(positions).to(device)] = windows
        return out

    def _shard(self, number: int) -> Array:
        """Returns a shard [n, C, T], memory-mapped, with C at most n_chans, and its hash compared at the first call."""
        if number not in self._open:
            with self._opening[number]:
                if number not in self._open:
                    self._open[number] = self._open_shard(number)
        return self._open[number]

    def _open_shard(self, number: int) -> Array:
        path, n = self._files[number], int(self._first[number + 1] - self._first[number])
        shard = open_array(path, "a shard of windows", "restore it, or prepare its corpus again", ENVIRONMENT)
        if (shard.ndim != 3 or len(shard) != n or not 0 < shard.shape[1] <= self._most
                or shard.shape[2] != self.n_times or shard.dtype.kind != "f"):
            raise BenchError(f"{path} is {list(shard.shape)} {shard.dtype}; expected [{n}, at most {self._most}, "
                             f"{self.n_times}] of floats: restore it, or prepare its corpus again", ENVIRONMENT)
        if self._hashes and file_hash(path) != self._hashes[number]:
            raise BenchError(f"{path} has another SHA-256 than the manifest says; restore it, or prepare its corpus "
                             "again", ENVIRONMENT)
        return np.asarray(shard)


def _reduce(source: Array, rows: Array, picks: Array) -> Array:
    """Returns windows [n, K, T] of these rows with these channels alone, normalised again, as from a smaller cap."""
    from bench.data.recordings import normalise  # MNE takes a second to import

    return normalise(source.take(rows, axis=0, mode="clip")[:, picks].astype(np.float32)).astype(source.dtype)


def open_corpus(folder: Path) -> Windows:
    """Opens the windows of a Corpus stage's folder: windows.npy, or the corpus to which shards.json refers.

    Raises BenchError (exit 3) if that corpus was moved or prepared again.
    """
    if (folder / REFERENCE).is_file():
        try:
            reference = json.loads((folder / REFERENCE).read_text())
            path, sha256, channels = Path(reference["path"]), str(reference["sha256"]), reference.get("channels")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{folder / REFERENCE} cannot be read ({error!r}); remove the damaged stage: bench store "
                             "verify --delete-damaged", ENVIRONMENT) from error
        return open_shards(path, sha256, channels)
    windows = open_array(folder / "windows.npy", "windows [N, C, T]", "remove the damaged stage: bench store verify "
                         "--delete-damaged", ENVIRONMENT)
    if windows.ndim != 3:
        raise BenchError(f"{folder / 'windows.npy'} is {list(windows.shape)}; expected [N, C, T]: remove the damaged "
                         "stage: bench store verify --delete-damaged", ENVIRONMENT)
    _, n_chans, n_times = windows.shape
    return Windows([folder / "windows.npy"], np.array([len(windows)]), n_chans, n_times,
                   pd.read_csv(folder / INDEX, dtype={"part": str}))


def open_shards(path: Path, sha256: str | None = None, channels: int | None = None) -> Windows:
    """Opens a prepared corpus, after a check of the manifest's hash, the index and the size of every shard. The hash of
    a shard is compared when it is first read.

    channels: the electrodes of each recording that are read, by name (bench.data.montages); None: all. Raises
    BenchError (exit 3) with the file that is missing or different, and for a corpus without names of channels.
    """
    manifest = read_manifest(path, sha256)
    shards = manifest["shards"]
    if channels and not names_channels(manifest):
        raise BenchError(f"{path / prepared.MANIFEST} states no names of channels, by which {channels} electrodes "
                         f"could be chosen; prepare the corpus again: {describe_command(manifest)}", ENVIRONMENT)
    prepared.check_sizes(path, {shard["file"]: shard for shard in shards})
    file = path / INDEX
    if not file.is_file() or file_hash(file) != manifest["files"].get(INDEX, {}).get("sha256"):
        raise BenchError(f"{file}: missing, or another than the manifest says; restore it, or remove {path} and "
                         f"prepare it again: {describe_command(manifest)}", ENVIRONMENT)
    index = pd.read_csv(file, dtype=dict.fromkeys(("dataset", "session", "run", "part"), "category"),
                        keep_default_na=False)
    allow_open_files(len(shards) + 256)  # every shard is a file that stays open
    return Windows([path / shard["file"] for shard in shards], np.array([shard["n"] for shard in shards], np.int64),
                   manifest["n_chans"], manifest["window"]["n_times"], index, [shard["sha256"] for shard in shards],
                   channels, [pick_names(shard["ch_names"], channels) for shard in shards] if channels else ())


def read_manifest(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Reads a corpus's manifest. Raises BenchError (exit 3) if there is none, or one of another hash."""
    return prepared.read_manifest(path, "corpus", sha256)[0]


def describe_command(manifest: Mapping[str, Any]) -> str:
    """Returns the command that prepares a corpus, by its manifest."""
    files = "people" in manifest  # of the user's own recordings
    return f"bench data prepare {'FOLDER --name ' if files else ''}{manifest['name']}"


def verify(path: Path) -> list[str]:
    """Reads a whole prepared corpus and returns one line for each damaged or unknown file."""
    manifest = read_manifest(path)
    return prepared.verify_files(path, {shard["file"]: shard for shard in manifest["shards"]} | manifest["files"])


def read_first_channels(folder: Path) -> Array:
    """Reads the first channel of every readable window of a Corpus stage's folder, [M, 1, T] float16, in order."""
    windows = open_corpus(folder)
    readable = np.flatnonzero(windows.readable)
    first = np.empty((len(readable), 1, windows.n_times), np.float16)
    for begin in range(0, len(readable), 256):
        for rows, block in windows.batch(readable[begin : begin + 256]):
            first[begin + rows, 0] = block[:, 0]
    return first
