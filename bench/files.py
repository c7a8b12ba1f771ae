"""What every folder that is written once and checked later needs of a file."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np


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
