"""`bench fetch`: resumable downloads; only files that match their published size and hash are kept."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from bench.errors import ENVIRONMENT, RESUMABLE, BenchError
from bench.files import HEAD, describe_content, describe_head, note_content, sha256
from bench.setup import weights
from models.pins import File

PART = ".part"  # suffix of an incomplete file
CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # s without a byte
MANUAL = "download it by hand (docs/paper-scale.md, docs/data.md)"


class Interrupted(BenchError):
    """A download that the server or the network cut or did not begin; it is worth another attempt (exit 75 or 3)."""


def download(url: str, path: Path, file: File, progress: Callable[[int, int | None], None],
             authorization: str = "") -> None:
    """Downloads a file and checks it against its pin; an existing file is only checked.

    An interrupted download resumes from PATH.part if a hash is published, which then checks the whole file.
    authorization: a header for this address only; a redirect to another one does not get it. Raises BenchError: exit 3
    for a wrong file, an unreachable address or a folder that is not writable; 75 for a full disk or an interrupted
    download (Interrupted).
    """
    if path.is_file():
        if wrong := weights.wrong_size(file, path) or weights.wrong_hash(file, path):
            raise BenchError(f"{wrong}: remove it, and run again", ENVIRONMENT)
        return
    part = path.with_name(path.name + PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not file.sha256:
            part.unlink(missing_ok=True)
        _receive(url, part, file, progress, authorization)
        _admit(url, part, path, file)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(f"no space left for {path}; free space and run again: the download resumes",
                             RESUMABLE) from error
        raise BenchError(f"{path.parent} is not writable ({error.strerror or error}); choose another folder, or give "
                         "write access", ENVIRONMENT) from error


def _receive(url: str, part: Path, file: File, progress: Callable[[int, int | None], None], authorization: str) -> None:
    """Downloads the rest of the partial file."""
    size = part.stat().st_size if part.is_file() else 0
    if file.bytes is not None and size >= file.bytes:
        return
    answer = _open(url, size, authorization)
    if answer is None:
        return
    with answer:
        if answer.status != 206:  # the server does not support ranges and sends the whole file
            size = 0
        length = answer.headers.get("Content-Length")
        total = size + int(length) if length else None
        if file.bytes is not None and total not in (None, file.bytes):
            kind = describe_head(answer.read(HEAD), Path(file.path).suffix.lower()) if size == 0 else None
            raise BenchError(f"{_bare(url)} offers {total} bytes, not the published {file.bytes}" +
                             (f": it is {kind}" if kind else ""), ENVIRONMENT)
        if total is not None and shutil.disk_usage(part.parent).free < total - size:
            raise OSError(errno.ENOSPC, "no space left", str(part))
        with part.open("ab" if size else "wb") as out:
            progress(size, total)
            try:
                while block := answer.read1(CHUNK):  # what has arrived, so that little is lost on Ctrl-C
                    out.write(block)
                    size += len(block)
                    progress(size, total)
            except (HTTPException, TimeoutError, ConnectionError, SSLError) as error:
                raise _interrupted(url, size, total) from error
        if total is not None and size < total:
            raise _interrupted(url, size, total)


def _open(url: str, begin: int, authorization: str) -> HTTPResponse | None:
    """Opens the file from byte `begin` on, if the server supports ranges; None if nothing follows it."""
    headers = {"User-Agent": "eeg2image-bench", "Accept-Encoding": "identity"}
    if begin:
        headers["Range"] = f"bytes={begin}-"
    request = Request(url, headers=headers)
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    try:
        answer = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and begin:
            return None
        kind = Interrupted if error.code == 429 or error.code >= 500 else BenchError
        raise kind(f"{_bare(url)} answers {error.code} {error.reason}; {MANUAL}", ENVIRONMENT) from error
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise Interrupted(f"{_bare(url)} cannot be reached ({getattr(error, 'reason', error)}); run again, or {MANUAL}",
                          ENVIRONMENT) from error
    if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
        raise BenchError(f"{_bare(url)} answers with another range than requested; {MANUAL}", ENVIRONMENT)
    return answer


def _bare(url: str) -> str:
    """Returns an address without its query, which may hold a signature."""
    return url.partition("?")[0]


def _admit(url: str, part: Path, path: Path, file: File) -> None:
    """Moves a complete file into place, or removes it if it has another size or hash."""
    wrong = weights.wrong_size(file, part)
    if not wrong and file.sha256 and not (actual := sha256(part)).startswith(file.sha256):
        wrong = f"SHA-256 {actual[:8]}..., not the published {file.sha256[:8]}...{note_content(part)}"
    elif not wrong and not file.sha256 and (kind := describe_content(part)):  # only its bytes tell
        wrong = f"it is {kind}"
    if wrong:
        part.unlink()
        raise BenchError(f"{_bare(url)} is not the pinned file: {wrong}; the download was removed", ENVIRONMENT)
    part.replace(path)


def _interrupted(url: str, size: int, total: int | None) -> Interrupted:
    every = f"{total:,}" if total else "an unknown number of"
    return Interrupted(f"{_bare(url)} was interrupted after {size:,} of {every} bytes; run again: the download resumes",
                       RESUMABLE)
