"""Pushes results to a data set of the Hugging Face hub, and pulls them from there. Only this file knows the hub.

The token is huggingface_hub's own (HF_TOKEN, or the one that `hf auth login` stores); nothing here reads it but
`_hide_token`, which takes it out of error messages. HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import ENVIRONMENT, BenchError, join_names, one_line
from bench.files import hash_bytes, replace_file, writing
from bench.modules import DISTRIBUTION
from bench.tables import results
from bench.tables.sharing import card, contents
from bench.tables.sharing.contents import INDEX, REPORTS, Collected, Contents, Index, find_stem

KIND = "dataset"
CURES = {  # by HTTP status
    401: "log in: hf auth login, or set HF_TOKEN to a token that may write",
    403: "set HF_TOKEN to a token that may write there, or log in with one: hf auth login",
    404: "check the name, and --revision",
    409: "somebody else has pushed meanwhile: repeat the command",
    412: "somebody else has pushed meanwhile: repeat the command",
}


@dataclass(frozen=True)
class Pushed:
    """The result of a push. new: paths that were added or replaced; unchanged: how many other files were there already;
    page: the address of the data set."""

    new: tuple[str, ...]
    unchanged: int
    page: str
    keeps_card: bool = False


@dataclass(frozen=True)
class Pulled:
    """The result of a pull. new: files that were written; unchanged: how many other files were here already; commit:
    that of the data set."""

    new: tuple[Path, ...]
    unchanged: int
    commit: str


def push(repository: str, collected: Collected, message: str, force: bool = False, public: bool = False,
         dry: bool = False) -> Pushed:
    """Adds files to a data set in one commit, with its index and card; creates it, private unless `public`.

    A card that somebody else wrote is kept. dry: changes nothing. Raises BenchError: exit 2 if the data set has other
    content under one of the paths, or a damaged index, unless `force`; exit 3 if the hub cannot be asked, or does not
    allow it.
    """
    api, page = _open(repository)
    with _asking(repository, api), tempfile.TemporaryDirectory() as scratch:
        from huggingface_hub import CommitOperationAdd

        commit = _find_commit(api, repository)
        present = _list_paths(api, repository, commit) if commit else set()
        index, mine = Index(), True
        if INDEX in present:
            data = _download(api, repository, commit, INDEX, scratch).read_bytes()
            try:
                index = contents.parse_index(data, repository)
            except BenchError:
                if not force:  # else a damaged index is replaced by that of these files
                    raise
        if card.CARD in present:
            mine = card.MARK in _download(api, repository, commit, card.CARD, scratch).read_text("utf-8", "replace")
        new = {name: data for name, data in collected.files.items() if name not in present
               or index.files.get(name) != hash_bytes(data)}
        if (others := sorted(present.intersection(new))) and not force:
            raise BenchError(f"{repository} has other content in {join_names(others)}; nothing was pushed; push to "
                             "another folder with --at, or replace it with --force")
        unchanged = len(collected.files) - len(new)
        if dry or not new:
            return Pushed(tuple(new), unchanged, page, not mine)
        if commit is None:
            api.create_repo(repository, repo_type=KIND, private=not public, exist_ok=True)
        index = index.extended(collected)
        added = new | {INDEX: index.to_json()} | ({card.CARD: card.render(repository, index)} if mine else {})
        api.create_commit(repository, [CommitOperationAdd(name, data) for name, data in added.items()], repo_type=KIND,
                          commit_message=message, parent_commit=commit)
    return Pushed(tuple(new), unchanged, page, not mine)


def pull(repository: str, to: Path, reports: Path, prefixes: Sequence[str] = (), revision: str | None = None,
         force: bool = False) -> Pulled:
    """Downloads shared files, checks them all, and then writes results and submissions below `to`, and pages of reports
    into `reports`.

    prefixes: beginnings of the paths to pull; (): all. Nothing is written before every file has the hash of the index
    and of its own .sha256 or SHA256SUMS. Raises BenchError: exit 2 for a damaged or unsafe file, and for other content
    here, unless `force`; exit 3 if the hub cannot be asked.
    """
    api, _ = _open(repository)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with _asking(repository, api):
            commit = _find_commit(api, repository, revision)
            if commit is None:
                raise BenchError(f"no data set {repository} on {_hide_token(api.endpoint)} that this account may see; "
                                 "check the name, or log in: hf auth login, or HF_TOKEN", ENVIRONMENT)
            if INDEX not in _list_paths(api, repository, commit):
                raise BenchError(f"{repository} has no {INDEX}: it was not written by bench push")
            index = contents.parse_index(_download(api, repository, commit, INDEX, scratch).read_bytes(), repository)
            names = contents.choose(index, prefixes)
            if not names:
                raise BenchError(f"{repository} has nothing under {', '.join(prefixes) or 'its root'}; there are: "
                                 f"{join_names(sorted({name.partition('/')[0] for name in index.files}))}")
            for name in names:
                data = _download(api, repository, commit, name, scratch).read_bytes()
                if hash_bytes(data) != index.files[name]:
                    raise BenchError(f"{name} of {repository} differs from its hash in {INDEX}; nothing was written; "
                                     "its owner must push again")
        try:
            contents.check_downloaded(folder, names)
        except BenchError as error:
            raise BenchError(f"{repository}: {str(error).replace(f'{folder}/', '')}; nothing was written") from error
        found = {name: (folder / name).read_bytes() for name in names}
    places = {name: find_place(name, to, reports) for name in names}
    new = {name: data for name, data in found.items() if not _has(places[name], data)}
    if (others := sorted(str(places[name]) for name in new if places[name].exists())) and not force:
        raise BenchError(f"{join_names(others)} here differ from those of {repository}; nothing was written; pull into "
                         "another folder with --to, or replace them with --force")
    stems = set(map(find_stem, new))  # the files of an ablation are replaced as a whole
    _write({name: data for name, data in found.items() if find_stem(name) in stems}, places)
    return Pulled(tuple(places[name] for name in new), len(found) - len(new), str(commit))


def find_place(name: str, to: Path, reports: Path) -> Path:
    """Returns where a file of the repository is written."""
    if name.startswith(f"{REPORTS}/"):
        return reports.joinpath(*name.split("/")[1:])
    return to.joinpath(*name.split("/"))


def _has(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _write(files: Contents, places: Mapping[str, Path]) -> None:
    """Writes the files. Those of an ablation change together, under its lock."""
    ablations = {find_stem(name) for name in files if name.endswith(".sha256")}
    for stem in sorted(ablations):
        whole = {places[name].name: files[name] for ending in (".csv", ".items.csv.gz")
                 if (name := f"{stem}{ending}") in files}
        results.restore(places[f"{stem}.sha256"].parent, places[f"{stem}.sha256"].stem, whole)
    for name, data in files.items():
        if find_stem(name) not in ablations:
            with writing(places[name]):
                places[name].parent.mkdir(parents=True, exist_ok=True)
                replace_file(places[name], data)


def check_name(repository: str) -> None:
    """Raises BenchError for a name that is not OWNER/NAME."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository, re.ASCII):
        raise BenchError(f"{repository!r} is no data set of the hub; expected OWNER/NAME")


def _open(repository: str) -> tuple[Any, str]:
    """Returns huggingface_hub's client, and the page of a data set."""
    check_name(repository)
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise BenchError(f'sharing needs huggingface_hub: pip install "{DISTRIBUTION}[hub]"', ENVIRONMENT) from error
    disable_progress_bars()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    return api, _hide_token(f"{api.endpoint}/datasets/{repository}")


def _find_commit(api: Any, repository: str, revision: str | None = None) -> str | None:
    """Returns the newest commit of a data set, or that of a revision; None if there is no such data set."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return str(api.repo_info(repository, repo_type=KIND, revision=revision).sha)
    except RepositoryNotFoundError:
        return None


def _list_paths(api: Any, repository: str, commit: str) -> set[str]:
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repository, recursive=True, revision=commit, repo_type=KIND)
    return {entry.path for entry in tree if isinstance(entry, RepoFile)}


def _download(api: Any, repository: str, commit: str | None, name: str, folder: str) -> Path:
    return Path(api.hf_hub_download(repository, name, repo_type=KIND, revision=commit, local_dir=folder))


@contextmanager
def _asking(repository: str, api: Any) -> Iterator[None]:
    """Turns the errors of the hub and of the network into a BenchError (exit 3) of one line without the token."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:  # of httpx, whose name differs between versions, and of huggingface_hub
        status = getattr(getattr(error, "response", None), "status_code", None)
        cure = CURES.get(status or 0, "repeat the command when the hub can be reached")
        text = f"{repository} on {api.endpoint}: {one_line(error)[:300]}; {cure}"
        raise BenchError(_hide_token(text), ENVIRONMENT) from None


def _hide_token(text: str) -> str:
    """Returns a text without the token, which somebody may have put into HF_ENDPOINT, or a server into its answer."""
    from huggingface_hub import get_token

    token = get_token()
    return text.replace(token, "(token)") if token else text
