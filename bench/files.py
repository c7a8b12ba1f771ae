"""Files: hashes, atomic replacement, preallocated arrays, and errors of full and read-only disks."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import ENVIRONMENT, RESUMABLE, USAGE, BenchError


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flushes a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and flushes it to disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Replaces a text file atomically; several processes may write it at once, each through a file of its own."""
    part = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.part")
    write_synced(part, text.encode())
    os.replace(part, path)


def pending_path(path: Path) -> Path:
    """Returns the path under which new content is written before it replaces a file."""
    return path.with_name(f".{path.name}.new")


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file atomically: a reader gets the old content or the new one, never a part."""
    write_synced(new := pending_path(path), data)
    new.replace(path)
    sync(path.parent)


def create_npy(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """Creates a memory-mapped .npy file of zeros and allocates its space on disk. Raises OSError when the disk is full;
    without the allocation, writing would end the process later (SIGBUS)."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def open_array(path: Path, expected: str = "an array", cure: str = "", exit_code: int = USAGE) -> np.ndarray:
    """Opens an .npy file as a memory map, or the only array of an .npz file; never unpickles. expected: what the file
    should be; cure: what to do if it is not. Raises BenchError for any file that cannot be read as one array."""
    try:
        opened = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(opened, np.ndarray):
            return opened
        with opened:
            names = opened.files
            if len(names) == 1 and isinstance(array := opened[names[0]], np.ndarray):
                return array
    except Exception as error:  # numpy, zipfile and zlib raise exceptions of any class for a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BenchError(f"{path} cannot be read as {expected}: {reason}" + (f"; {cure}" if cure else ""),
                         exit_code) from error
    some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise BenchError(f"{path} contains {len(names)} arrays ({some}); expected one: {expected}", exit_code)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full disk into BenchError (exit 75, resumable), and a path without write access into exit 3."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(f"the disk is full: {path} is unchanged; free space and run again", RESUMABLE) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise BenchError(f"cannot write to {path}: {error.strerror}; choose another folder, or give write access",
                             ENVIRONMENT) from error
        raise


def disk_full(root: Path) -> BenchError:
    """Returns the error for a full disk."""
    return BenchError(f"no space left on the disk of {root}; complete stages are kept: free space and run the command "
                      "again", RESUMABLE)
