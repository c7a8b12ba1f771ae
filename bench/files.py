"""Files: hashes, what a foreign file is, locks, atomic replacement, preallocated arrays, full and read-only disks."""

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

from bench.errors import ENVIRONMENT, RESUMABLE, USAGE, BenchError, join_names, one_line

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

HEAD = 4096  # bytes that are read of a file to say what it is
IMAGES = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff",
          ".webp", ".jp2", ".tga", ".avif")  # endings of images, which are opened by their content
KINDS = (  # first bytes, what such a file is, endings of valid files with them
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself (run: git lfs pull)", ()),
    (b"/annex/objects/", "a git-annex pointer, not the file itself (run: datalad get, or git annex get)", ()),
    (b"\0\x05\x16\x07", "a macOS resource file (remove the files that begin with ._)", ()),
    (b"PK\x03\x04", "a zip archive (unpack it)", (".zip", ".npz", ".pth", ".pt", ".ckpt", ".bin", ".tar")),
    (b"\x1f\x8b", "a gzip archive (unpack it)", (".gz", ".tgz")),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive (unpack it)", (".7z",)),
    (b"Rar!\x1a", "a RAR archive (unpack it)", (".rar",)),
    (b"BZh", "a bzip2 archive (unpack it)", (".bz2",)),
    (b"\xfd7zXZ", "an xz archive (unpack it)", (".xz",)),
    (b"%PDF-", "a PDF document", (".pdf",)),
    (b"\x89PNG\r\n", "a PNG image", IMAGES),
    (b"\xff\xd8\xff", "a JPEG image", IMAGES),
    (b"\x93NUMPY", "a numpy array", (".npy", ".npz")),
    (b"\x89HDF\r\n", "an HDF5 file", (".h5", ".hdf5", ".mat", ".set", ".fdt")),
    (b"PAR1", "a parquet file", (".parquet",)),
)
SHORT = 200  # bytes of a file that may be nothing but a server's message, such as "Entry not found"
TEXTS = (".csv", ".tsv", ".txt", ".json", ".vhdr", ".vmrk", ".xml", ".md", ".py")  # endings of text files
HTML = ("<!doctype html", "<html", "<head", "<body", "<script", "<title")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_bytes(data: bytes) -> str:
    """Returns the SHA-256 of a file's content, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def describe_content(path: Path, is_text: bool = False) -> str | None:
    """Describes a file that is not what its name says, by its first bytes: "an HTML page (...)"; None if they do not
    show it. For the message of a reader that failed (`explain`); a valid file of its ending is never described.
    is_text: the file should be text, whatever its ending."""
    try:
        if path.is_dir():
            return "a folder"
        if path.is_symlink() and not path.exists():
            annex = ".git/annex" in os.readlink(path)
            return "a link to a file that is not here" + (" (run: datalad get, or git annex get)" if annex else "")
        if not path.is_file():  # a pipe would block
            return None
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return None
    return describe_head(head, Path(path.name.removesuffix(".part")).suffix.lower(), is_text)


def describe_head(head: bytes, ending: str, is_text: bool = False) -> str | None:
    """`describe_content` of the first bytes, at most HEAD, of a file with this ending, such as ".npy"."""
    if not head:
        return "empty"
    if not any(head):
        return "zeros from its first byte on (an incomplete download or copy)"
    for magic, kind, endings in KINDS:
        if head.startswith(magic):
            return None if ending in endings else kind
    return _describe_text(head, is_text or ending in TEXTS)


def _describe_text(head: bytes, is_text: bool) -> str | None:
    """Describes a page or an error message of a server that was saved in place of a file; None for anything else."""
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16" if wide else "utf-8-sig", errors="replace").strip()
    start = text[:1000].lower()
    if start.startswith(HTML) or (start.startswith(("<!--", "<?xml")) and any(tag in start for tag in HTML)):
        if "google drive" in text.lower() or "drive.google.com" in text.lower():
            return "a confirmation or quota page of Google Drive (open the link in a browser, and confirm the download)"
        return "an HTML page (a login, consent or error page; download the file again)"
    if start.startswith("<?xml") and "<error" in start:
        return f"an error message of a server: {_quote(text)}"
    if is_text:
        return None
    if start.startswith(("{", "[{")) and '"' in start[:20]:
        return f"JSON text (an error message of a server?): {_quote(text)}"
    if len(head) <= SHORT and " " in text and text.isascii() and " ".join(text.split()).isprintable():
        return f"only text: {_quote(text)}"
    return None


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 80 else f"{line[:77]}...")


def note_content(path: Path) -> str:
    """Returns " (it is an HTML page)" for a file that is not what its name says; else ""."""
    kind = describe_content(path)
    return f" (it is {kind})" if kind else ""


def explain(path: Path, error: Exception) -> str:
    """Returns why a file cannot be read, in one line: what it is instead (`describe_content`), else the error's
    message, or its type if it has none. A reader's message: f"{path} cannot be read as an image: {explain(...)}"."""
    if kind := describe_content(path):
        return f"it is {kind}"
    return one_line(error)


def check_content(path: Path, expected: str) -> None:
    """Raises BenchError for a file of text that is something else than `expected`, such as "a CSV of labels": its
    reader would take a Git LFS pointer or an HTML page for a table with odd columns. The reader refuses an empty
    file."""
    if path.is_file() and path.stat().st_size and (kind := describe_content(path, is_text=True)):
        raise BenchError(f"{path} is {kind}; expected {expected}")


def sync(path: Path) -> None:
    """Flushes a file, or the entries of a folder, to disk. Windows cannot open a folder, and flushes a file only if it
    is open for writing."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
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
        raise BenchError(f"{path} cannot be read as {expected}: {explain(path, error)[:200]}"
                         + (f"; {cure}" if cure else ""), exit_code) from error
    raise BenchError(f"{path} contains {len(names)} arrays ({join_names(names)}); expected one: {expected}", exit_code)


@contextmanager
def locking(path: Path, shared: bool = False) -> Iterator[None]:
    """Locks an existing file until the context ends: for one writer, or with `shared` for several readers.

    The lock also ends with its process. It is the flock of the file itself, which needs no second file, so that readers
    can lock a read-only folder, and is the lock of earlier versions. Without flock (Windows), filelock locks
    <file>.lock, and readers wait for each other. Raises BenchError (exit 3) if that file cannot be written.
    """
    if fcntl is not None:
        with path.open("rb" if shared else "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield
        return
    from filelock import FileLock

    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire()
    except OSError as error:
        raise BenchError(f"{lock.lock_file} cannot be written ({error.strerror}), and without it another process may "
                         f"change {path.parent} now; copy the folder to a place that you can write to",
                         ENVIRONMENT) from error
    try:
        yield
    finally:
        lock.release()


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
