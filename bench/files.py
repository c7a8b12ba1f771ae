"""What every folder that is written once and checked later needs of a file."""

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

from bench.errors import ENVIRONMENT, RESUMABLE, BenchError


def sha256(path: Path) -> str:
    """64 hex digits of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put(path: Path, text: str) -> None:
    """Writes a file that others read meanwhile: they find what was there, or the whole of it."""
    part = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.part")
    part.write_text(text)
    sync(part)
    os.replace(part, path)


def mapped(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file of zeros, to be written through memory. Its room on the disk is taken now: a full disk is an
    OSError here, and would be the end of the process (SIGBUS) later."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole: whoever reads it sees the old one or the new one."""
    write_synced(new := pending(path), data)
    new.replace(path)
    sync(path.parent)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns a full disk into BenchError (exit 75: resumable) and a place that cannot be written into exit 3."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(f"the disk is full: {place} is as it was; make room and run again", RESUMABLE) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise BenchError(f"cannot write to {place}: {error.strerror}; name another folder, or give write access",
                             ENVIRONMENT) from error
        raise


def pending(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def disk_full(root: Path) -> BenchError:
    """What a full disk says."""
    return BenchError(f"no room left on the disk of {root}; what is complete is kept: make room and give the same "
                      "command again", RESUMABLE)
