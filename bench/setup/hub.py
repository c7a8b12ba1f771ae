"""Published files of data sets: where they are, and their download from the Hugging Face hub at one revision."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.data.writing import choose_subjects
from bench.errors import ENVIRONMENT, RESUMABLE, BenchError, one_line
from bench.files import replace_file, sha256, writing
from bench.setup.fetch import PART, Interrupted, download
from models.pins import HUB, File

RECEIPT = "fetch.json"  # beside the files: repository, revision, and size and SHA-256 of each complete file
TIMEOUT = 30  # s, for an answer of the hub
ATTEMPTS = 5  # in a row without a new byte, before a download fails
PAUSE = 1.0  # s before a repeated attempt, doubled each time


@dataclass(frozen=True)
class Source:
    """Where the files of a data set are published.

    licence      of the files
    by_hand      what is not on the hub: its path below the download's folder, and how to get it
    repository   a data set on the hub; "": its EEG is not there
    revision     the pinned commit; "": the current commit, which later downloads into the same folder keep
    folder       the folder of the repository that is downloaded; local paths begin below it
    pattern      a regular expression of the local paths to download; its group `subject` is a subject's number
    each         files of each subject; 0: the files are not divided by subject
    """

    licence: str
    by_hand: tuple[tuple[str, str], ...]
    repository: str = ""
    revision: str = ""
    folder: str = ""
    pattern: str = ""
    each: int = 0

    @property
    def page(self) -> str:
        """The repository's address."""
        return f"{HUB}/datasets/{self.repository}"


SOURCES = {
    "things_eeg2": Source(
        "CC-BY-4.0 as published by Gifford et al.; the repository of this preprocessing states Apache-2.0",
        (("image_metadata.npy", "download https://osf.io/download/qkgtf/"),
         ("images/training_images", "unpack training_images.zip of https://osf.io/download/3v527/"),
         ("images/test_images", "unpack test_images.zip of https://osf.io/download/znu7b/")),
        "LidongYang/EEG_Image_decode", "39f7326ffe91072844a18f2eb1337270a4333b99", "Preprocessed_data_250Hz/",
        r"sub-(?P<subject>[0-9]+)/preprocessed_eeg_(training|test)\.npy", 2),
    "alljoined": Source(
        "CC-BY-NC-ND-4.0",
        (("images", "unpack http://images.cocodataset.org/zips/train2017.zip and val2017.zip of the same address, all "
          "images directly in this folder"),),
        "Alljoined/05_125", "", "data/", r"[A-Za-z0-9_-]+\.parquet"),
    "imagenet_eeg": Source(
        "EEG: none stated; ImageNet: non-commercial research",
        (*((name, "follow the links of https://github.com/perceivelab/eeg_visual_classification (Google Drive)")
           for name in ("eeg_5_95_std.pth", "block_splits_by_image_all.pth", "block_splits_by_image_single.pth")),
         ("images", "put ImageNet's training images there, <wnid>/<wnid>_<n>.JPEG: https://image-net.org"))),
}


@dataclass(frozen=True)
class Download:
    """What `fetch` downloads into a folder. files: local path -> file, all of one revision (a commit)."""

    source: Source
    folder: Path
    revision: str
    files: Mapping[str, File]

    @property
    def missing(self) -> int:
        """Bytes that are not yet in the folder."""
        absent = {self.folder / name: file for name, file in self.files.items() if not (self.folder / name).is_file()}
        parts = (path.with_name(path.name + PART) for path in absent)
        return sum(file.bytes or 0 for file in absent.values()) - sum(p.stat().st_size for p in parts if p.is_file())


def find_source(name: str) -> Source:
    """Returns the source of a data set. Raises BenchError for another name."""
    if name not in SOURCES:
        raise BenchError(f"no data set {name!r} to fetch; there are {', '.join(SOURCES)}; weights: bench fetch --what "
                         "A,B; MOABB's recordings: bench data prepare downloads them")
    return SOURCES[name]


def plan(name: str, folder: Path, subjects: str | None = None, revision: str | None = None) -> Download:
    """Gets the list of files, with sizes and hashes, from the hub; writes nothing.

    revision: replaces the pinned one. Raises BenchError: exit 2 for an unknown subject, or a folder that holds files
    of another revision; exit 3 if the hub cannot be asked or does not have the files.
    """
    source = find_source(name)
    receipt = _read_receipt(folder)
    before = receipt.get("revision", "") if receipt else ""
    commit, files = _list_files(source, revision or source.revision or before or "main")
    if receipt and (receipt.get("repository"), before) != (source.repository, commit):
        raise BenchError(f"{folder} holds files of {receipt.get('repository')} at revision {before}, and not of "
                         f"{source.repository} at {commit}, so they cannot be completed; name another folder with --to"
                         + (f", or go on with --revision {before}"
                            if receipt.get("repository") == source.repository else ""))
    if source.each:
        pattern = re.compile(source.pattern)
        people: dict[int, list[str]] = {}
        for path in files:
            people.setdefault(int(pattern.fullmatch(path)["subject"]), []).append(path)  # type: ignore[index]
        chosen = [path for subject in choose_subjects(subjects, people, Path(name)) for path in sorted(people[subject])]
        files = {path: files[path] for path in chosen}
    elif subjects is not None:
        raise BenchError(f"the files of {name} hold all subjects: leave out --subjects here, and give it to bench data "
                         "prepare")
    kept = receipt.get("files", {}) if receipt else {}
    return Download(source, folder, commit, {
        path: file if file.sha256 or path not in kept else replace(file, sha256=kept[path]["sha256"])
        for path, file in files.items()})


def fetch(wanted: Download, progress: Callable[[str, int, int | None], None]) -> None:
    """Downloads the missing files, and checks all files against the published sizes and hashes.

    progress(path, done bytes, all bytes). Raises BenchError: exit 3 for a wrong file, no access or no server; 75 for a
    full disk or a cut download, which the next call resumes.
    """
    folder, source = wanted.folder, wanted.source
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < wanted.missing:
        raise BenchError(f"{wanted.missing / 1e9:.2f} GB are missing, and the disk of {folder} has {free / 1e9:.2f} GB "
                         "left; free some space, or name another folder with --to", RESUMABLE)
    receipt = _read_receipt(folder) or {"repository": source.repository, "revision": wanted.revision, "files": {}}
    for name, file in wanted.files.items():
        path = folder / name
        _write_receipt(folder, receipt)
        _persist(source, wanted.revision, file, path, lambda done, total, name=name: progress(  # type: ignore[misc]
            name, done, total))
        receipt["files"][name] = {"bytes": path.stat().st_size, "sha256": file.sha256 or sha256(path)}
    _write_receipt(folder, receipt)


def _persist(source: Source, revision: str, file: File, path: Path,
             progress: Callable[[int, int | None], None]) -> None:
    """Downloads a file; an interrupted download is retried, up to ATTEMPTS times in a row without a new byte. Each
    attempt gets a new address from the hub."""
    part, failed, size = path.with_name(path.name + PART), 0, 0
    while True:
        try:
            url, authorization = (str(path), "") if path.is_file() else _locate(source, revision, file)
            return download(url, path, file, progress, authorization)
        except Interrupted:
            before, size = size, part.stat().st_size if part.is_file() else 0
            failed = 1 if size > before and file.sha256 else failed + 1
            if failed >= ATTEMPTS:
                raise
            time.sleep(PAUSE * 2 ** (failed - 1))


def _hub() -> str:
    """Returns the hub's address, or that of a mirror: HF_ENDPOINT, as in the hub's own library."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def _list_files(source: Source, revision: str) -> tuple[str, dict[str, File]]:
    """Returns the commit of a revision, and its files that match the source's pattern by their local paths."""
    from huggingface_hub import HfApi

    with _asking(source, revision):
        info = HfApi(endpoint=_hub()).dataset_info(source.repository, revision=revision, files_metadata=True,
                                                   timeout=TIMEOUT)
        files = {}
        for entry in info.siblings or ():
            local = entry.rfilename.removeprefix(source.folder)
            if entry.rfilename.startswith(source.folder) and re.fullmatch(source.pattern, local):
                size, digest = (entry.lfs.size, entry.lfs.sha256) if entry.lfs else (entry.size, "")
                files[local] = File(entry.rfilename, size, digest)
        commit = info.sha or revision
    if not files:
        raise BenchError(f"{source.page} has no file {source.folder}{source.pattern} at revision {commit[:12]}: its "
                         "layout has changed; look there, and name a revision that has them with --revision",
                         ENVIRONMENT)
    if source.each:
        people = [re.fullmatch(source.pattern, path)["subject"] for path in files]  # type: ignore[index]
        if part := sorted({person for person in people if people.count(person) != source.each}):
            raise BenchError(f"{source.page} does not have all {source.each} files of subject {', '.join(part)} at "
                             f"revision {commit[:12]}; name another with --revision", ENVIRONMENT)
    return commit, files


def _locate(source: Source, revision: str, file: File) -> tuple[str, str]:
    """Returns the current address of a file's content, and the authorization header if that address is the hub's."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(source.repository, file.path, repo_type="dataset", revision=revision, endpoint=_hub())
    with _asking(source, revision):
        answer = get_hf_file_metadata(url, timeout=TIMEOUT, endpoint=_hub())
    if answer.commit_hash is None:
        raise BenchError(f"{url} is not answered by a hub (a proxy's or a login page?); open it in a browser",
                         ENVIRONMENT)
    same = urlsplit(answer.location).netloc == urlsplit(url).netloc
    return answer.location, build_hf_headers().get("authorization", "") if same else ""


@contextmanager
def _asking(source: Source, revision: str) -> Iterator[None]:
    """Turns the errors of the hub's library into BenchError (exit 3)."""
    from huggingface_hub import errors

    def refuse(text: str, kind: type[BenchError] = BenchError) -> BenchError:
        return kind(f"{source.page} {text}", ENVIRONMENT)

    login = "set HF_TOKEN to a token of your account (https://huggingface.co/settings/tokens), or run: hf auth login"
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise refuse("is not asked while HF_HUB_OFFLINE is set; unset it") from error
    except errors.RevisionNotFoundError as error:
        raise refuse(f"has no revision {revision}; its publisher may have rewritten the history: look there, and name "
                     "another with --revision") from error
    except errors.GatedRepoError as error:
        raise refuse(f"asks for an account and its terms: accept them there, and {login}") from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise refuse(f"refuses access ({code}): {login}; without success, the repository is private or was removed"
                         ) from error
        passing = code == 429 or code >= 500
        raise refuse(f"answers {code} {error.response.reason_phrase}: "
                     + ("run again later" if passing else "its files were removed or renamed; look there"),
                     Interrupted if passing else BenchError) from error
    except errors.HTTPError as error:
        raise refuse(f"cannot be reached through {_hub()} ({one_line(error)}); "
                     "check the network and run again, or download the files by hand (docs/data.md)",
                     Interrupted) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise refuse(f"was asked through {_hub()}, whose answer is not that of a hub (a proxy's or a login page?); "
                     "open it in a browser") from error


def _read_receipt(folder: Path) -> dict[str, Any] | None:
    """Returns the receipt of a download's folder; None if there is none. Raises BenchError for another file."""
    file = folder / RECEIPT
    if not file.exists():
        return None
    try:
        receipt: dict[str, Any] = json.loads(file.read_bytes())
        if not all(isinstance(receipt[name], kind) for name, kind in
                   (("repository", str), ("revision", str), ("files", dict))) or \
                not all(isinstance(entry["sha256"], str) for entry in receipt["files"].values()):
            raise ValueError("other entries")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{file} is not the receipt of a download; remove it and run again: the files beside it are "
                         "checked and kept") from error
    return receipt


def _write_receipt(folder: Path, receipt: Mapping[str, Any]) -> None:
    with writing(folder / RECEIPT):
        replace_file(folder / RECEIPT, (json.dumps(receipt, indent=1, sort_keys=True) + "\n").encode())
