"""What is shared: results whose hashes are recorded, submissions, and reports; and the index of a repository.

A file is shared if a hash file beside it names it: <ablation>.sha256 of results, or SHA256SUMS of a submission. All
else stays here: images, and <ablation>.runs.csv, which names hosts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data.listing import list_files
from bench.errors import BenchError
from bench.files import check_content, hash_bytes
from bench.tables import results

INDEX = "bench-index.json"  # at the root of a repository
FORMAT = 1
SUMS = "SHA256SUMS"
REPORTS = "reports"  # the folder of a repository's HTML reports
ENDINGS = (".csv", ".csv.gz", ".json", ".html", ".sha256")  # of shared files, beside SUMS
PART = re.compile(r"""[^.\s<>:"/\\|?*\x00-\x1f][^<>:"/\\|?*\x00-\x1f]*""")  # of a path, as Windows allows it
DIGEST = re.compile(r"[0-9a-f]{64}")
Contents = dict[str, bytes]  # path in the repository, with "/" -> content


@dataclass(frozen=True)
class Collected:
    """What `collect` found. files: the contents to share; tables: facts of each results CSV, by its path, for the card;
    left_out: how many files stay, by their ending."""

    files: Contents = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Index:
    """The index of a repository. files: SHA-256 of each shared file, by its path; tables: as in Collected."""

    files: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def extended(self, collected: Collected) -> Index:
        """Returns the index with further files, which replace those of the same path."""
        files = {**self.files, **{name: hash_bytes(data) for name, data in collected.files.items()}}
        return Index(dict(sorted(files.items())), dict(sorted({**self.tables, **collected.tables}.items())))

    def to_json(self) -> bytes:
        return (json.dumps({"format": FORMAT, "files": self.files, "tables": self.tables}, indent=1) + "\n").encode()


def collect(folder: Path, reports: Path | None = None, prefix: str = "") -> Collected:
    """Reads the results and submissions below a folder, and the reports in another; checks every recorded hash.

    prefix: the folder in the repository; "": its root. Raises BenchError for an absent folder, for one without results,
    for a file that differs from its recorded hash or is missing, and for one that is no result.
    """
    if not folder.is_dir():
        raise BenchError(f"no folder {folder}; name the folder of the results, such as results/tiny")
    collected, listed = Collected(), list_files(folder).files
    shared: set[Path] = set()
    for path in listed:
        if path.name == SUMS:
            named = {path.parent / name: data for name, data in _read_submission(path).items()}
        elif path.name.endswith(".sha256"):
            named = _read_results(path, collected, folder, prefix)
        else:
            continue
        for file, data in named.items():
            collected.files[check_path(find_place(file, folder, prefix))] = data
        shared |= set(named)
    if not shared:
        raise BenchError(f"{folder} has no results: no <ablation>.sha256 as `bench run` writes it, and no {SUMS}")
    collected.left_out.update(_ending(path) for path in listed if path not in shared)
    if reports is not None:
        pages = sorted(reports.glob("*.html"))
        if not pages:
            raise BenchError(f"{reports} has no reports; make them with: bench report NAME --out {reports}")
        for page in pages:
            collected.files[check_path(f"{REPORTS}/{page.name}")] = page.read_bytes()
    return collected


def find_place(file: Path, folder: Path, prefix: str) -> str:
    """Returns a file's path in the repository."""
    below = file.relative_to(folder).as_posix()
    return f"{prefix.strip('/')}/{below}" if prefix.strip("/") else below


def _ending(path: Path) -> str:
    return ".runs.csv" if path.name.endswith(".runs.csv") else path.suffix or path.name


def _read_results(hashes: Path, collected: Collected, folder: Path, prefix: str) -> dict[Path, bytes]:
    """Reads an ablation's files, and adds the facts of its table."""
    name = hashes.name.removesuffix(".sha256")
    rows = results.read(hashes.parent, name).rows  # completes an interrupted change, and checks the hashes
    named = {hashes: hashes.read_bytes()}
    for listed, expected in read_sums(hashes).items():
        named[hashes.parent / listed] = _read_checked(hashes.parent / listed, expected, hashes)
    facts = {"ablation": name, "scale": " ".join(sorted(rows["scale"].unique())), "rows": rows["variant"].nunique(),
             "seeds": rows["seed"].nunique(), "judge": " ".join(sorted(rows["judge"].unique())[:3])}
    collected.tables[find_place(hashes.with_name(f"{name}.csv"), folder, prefix)] = facts
    return named


def _read_submission(sums: Path) -> Contents:
    """Reads the files that SHA256SUMS names, and itself."""
    return {SUMS: sums.read_bytes()} | {name: _read_checked(sums.parent / name, expected, sums)
                                       for name, expected in read_sums(sums).items()}


def _read_checked(path: Path, expected: str, sums: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BenchError(f"{sums} names {path.name}, which is missing; restore it, or write the folder again"
                         ) from error
    if hash_bytes(data) != expected:
        raise BenchError(f"{path} differs from its hash in {sums.name}; restore it, or write the folder again")
    return data


def read_sums(path: Path) -> dict[str, str]:
    """Reads lines of `sha256sum`: path -> hash.

    Raises BenchError for any other line, for an unsafe path, and for a path that is listed twice.
    """
    check_content(path, "lines of sha256sum")
    sums = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        value, _, name = line.partition("  ")
        if not DIGEST.fullmatch(value):
            raise BenchError(f"{path}, line {number}: expected a SHA-256, two spaces and a file's name")
        if check_path(name) in sums:
            raise BenchError(f"{path}, line {number}: lists {name} twice")
        sums[name] = value
    return sums


def check_path(path: str) -> str:
    """Returns a path in a repository. Raises BenchError if it would leave its folder, if Windows cannot have it, and if
    it is not that of a result."""
    parts = path.split("/")
    if not all(PART.fullmatch(part) and part == part.rstrip(" .") for part in parts):
        raise BenchError(f"{path[:200]!r} is no path of a shared file; expected names without '..', ':' and '\\', "
                         "separated by /")
    if parts[-1] != SUMS and (not path.endswith(ENDINGS) or path.endswith(".runs.csv")):
        raise BenchError(f"{path[:200]!r} is no result; shared are {', '.join(ENDINGS)} and {SUMS}")
    return path


def parse_index(data: bytes, repository: str) -> Index:
    """Reads an index. Raises BenchError for anything else, and for an unsafe path."""
    try:
        document = json.loads(data)
        form = document["format"]
        files, tables = dict(document["files"]), {name: dict(facts) for name, facts in document["tables"].items()}
        is_valid = all(isinstance(each, str) and DIGEST.fullmatch(each) for each in files.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{INDEX} of {repository} is damaged ({error!r}); its owner can replace it: bench push "
                         "--force") from error
    if form != FORMAT or not is_valid:
        raise BenchError(f"{INDEX} of {repository} has format {form!r}, or a hash that is none; expected format "
                         f"{FORMAT}; use the version of bench that wrote it")
    return Index({check_path(name): value for name, value in files.items()},
                 {name: facts for name, facts in tables.items() if name in files})


def choose(index: Index, prefixes: Sequence[str]) -> list[str]:
    """Returns the paths that begin with one of the prefixes, and all files of the same ablations and submissions, which
    are complete or absent. (): all paths."""
    if not prefixes:
        return list(index.files)
    chosen = {name for name in index.files if name.startswith(tuple(prefixes))}
    stems = {find_stem(name) for name in chosen}
    submissions = tuple(f"{name.removesuffix(SUMS)}" for name in index.files if name.endswith(f"/{SUMS}")
                        and any(other.startswith(name.removesuffix(SUMS)) for other in chosen))
    return [name for name in index.files if name in chosen or find_stem(name) in stems
            or (submissions and name.startswith(submissions))]


def find_stem(path: str) -> str:
    """Returns the path of a results file without its ending: that of its ablation."""
    return next((path.removesuffix(ending) for ending in (".items.csv.gz", ".csv", ".sha256") if path.endswith(ending)),
                path)


def check_downloaded(folder: Path, names: Collection[str]) -> None:
    """Checks results and submissions that were downloaded into a folder against their own hash files. Raises BenchError
    for a difference, for a missing file, and for a results file of another schema."""
    covered: set[Path] = set()
    for path in (folder / name for name in names):
        if path.name == SUMS:
            covered |= {path.parent / name for name in _read_submission(path)}
        elif path.name.endswith(".sha256"):
            results.read(path.parent, path.name.removesuffix(".sha256"))
            covered |= {path, *(path.parent / name for name in read_sums(path))}
    for name in names:
        if folder / name not in covered and not name.startswith(f"{REPORTS}/"):
            raise BenchError(f"no .sha256 and no {SUMS} beside it names {name}; its owner must push again")
