"""`bench fetch`: downloads pre-trained weights, resumably, and lets in only what agrees with the pins."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from bench.errors import ENVIRONMENT, RESUMABLE, BenchError
from bench.setup import weights
from models.pins import File

PART = ".part"  # ending of a file that is not complete
CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # s without a byte


def download(url: str, path: Path, file: File, progress: Callable[[int, int | None], None]) -> None:
    """Puts a file in its place, complete and checked, or not at all; one that is there already is only checked.

    What a cut left in PATH.part is gone on with where a hash is published, by which the whole is checked. Errors as
    `main`.
    """
    if path.is_file():
        if said := weights.wrong_size(file, path) or weights.wrong_hash(file, path):
            raise BenchError(f"{said}: remove it, and run again", ENVIRONMENT)
        return
    part = path.with_name(path.name + PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not file.sha256:
            part.unlink(missing_ok=True)
        _receive(url, part, file, progress)
        _admit(url, part, path, file)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise BenchError(f"no room left for {path}; free some, and run again: it goes on from there",
                             RESUMABLE) from error
        raise BenchError(f"{path}: a folder that can be written is needed ({error.strerror or error})",
                         ENVIRONMENT) from error


def _receive(url: str, part: Path, file: File, progress: Callable[[int, int | None], None]) -> None:
    """Fills the partial file up to its end."""
    have = part.stat().st_size if part.is_file() else 0
    if file.bytes is not None and have >= file.bytes:
        return
    answer = _open(url, have)
    if answer is None:
        return
    with answer:
        if answer.status != 206:  # a server that knows no ranges begins anew
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        if file.bytes is not None and total not in (None, file.bytes):
            raise BenchError(f"{url} offers {total} bytes, not the published {file.bytes}", ENVIRONMENT)
        if total is not None and shutil.disk_usage(part.parent).free < total - have:
            raise OSError(errno.ENOSPC, "no room", str(part))
        with part.open("ab" if have else "wb") as out:
            progress(have, total)
            try:
                while block := answer.read(CHUNK):
                    out.write(block)
                    have += len(block)
                    progress(have, total)
            except (HTTPException, TimeoutError, ConnectionError, SSLError) as error:
                raise _cut(url, have, total) from error
        if total is not None and have < total:
            raise _cut(url, have, total)


def _open(url: str, begin: int) -> HTTPResponse | None:
    """The answer, from byte `begin` on if the server can; None where it says that there is nothing after it."""
    headers = {"User-Agent": "eeg2image-bench", "Accept-Encoding": "identity"}
    try:
        answer = urlopen(Request(url, headers=headers | ({"Range": f"bytes={begin}-"} if begin else {})),
                         timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and begin:
            return None
        raise BenchError(f"{url} answers {error.code} {error.reason}; download it by hand (docs/paper-scale.md)",
                         ENVIRONMENT) from error
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise BenchError(f"{url} cannot be reached ({reason}); run again, or download it by hand (docs/paper-scale.md)",
                         ENVIRONMENT) from error
    begins = answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-")
    if answer.status == 206 and not begins:
        raise BenchError(f"{url} answers with another range than was asked for; download it by hand", ENVIRONMENT)
    return answer


def _admit(url: str, part: Path, path: Path, file: File) -> None:
    """Moves a complete file to its place; one with another size or hash is removed."""
    with part.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    wrong = weights.wrong_size(file, part) or ("" if found.startswith(file.sha256) else
                                               f"SHA-256 {found[:8]}..., not the published {file.sha256[:8]}...")
    if wrong:
        part.unlink()
        raise BenchError(f"{url} is not the pinned file: {wrong}; nothing was kept", ENVIRONMENT)
    part.replace(path)


def _cut(url: str, have: int, total: int | None) -> BenchError:
    return BenchError(f"{url} was cut after {have:,} of {f'{total:,}' if total else 'an unknown number of'} bytes; run "
                      "again: it goes on from there", RESUMABLE)
