"""Finds EEG recordings in files, folders and BIDS data sets; bench.data.eeg_readers opens them."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.data.listing import list_files
from bench.errors import ENVIRONMENT, BenchError

ENDINGS = (".edf", ".bdf", ".gdf", ".set", ".vhdr", ".fif", ".fif.gz", ".cnt")
COMPANIONS = {".eeg": ".vhdr", ".vmrk": ".vhdr", ".fdt": ".set"}  # a file of a recording -> ending of its header
DESCRIPTION = "dataset_description.json"  # makes a folder a BIDS data set
ASIDE = ("derivatives", "sourcedata", "code", "stimuli", "phenotype")  # of a BIDS data set, not its recordings
OTHER_FIF = re.compile(r"[-_](epo|ave|cov|fwd|sol|inv|src|bem|ica|proj|trans|eve|annot|lay|hc|head|dense|coreg)"
                       r"\.fif(\.gz)?$", re.I)


@dataclass(frozen=True)
class Recording:
    """A recording's main file.

    name: path from the folder that all arguments share, with "/". person: label of who was recorded. session, run:
    together unique for a person. bids: root of its BIDS data set, or None.
    """

    path: Path
    name: str
    person: str
    session: str
    run: str
    bids: Path | None = None


@dataclass(frozen=True)
class Study:
    """What `find` returns: recordings by name, the names of skipped files by reason, and the folder of all names."""

    base: Path
    recordings: tuple[Recording, ...]
    skipped: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def people(self) -> dict[int, str]:
        """The label of each person, by number from 1 on."""
        return dict(enumerate(sorted({recording.person for recording in self.recordings}), 1))

    def of(self, person: str) -> list[Recording]:
        """Returns the recordings of a person."""
        return [recording for recording in self.recordings if recording.person == person]

    def only(self, labels: Sequence[str]) -> Study:
        """Returns the same with the recordings of these people. Raises BenchError for a label that nobody has."""
        known = sorted(self.people.values())
        if unknown := [label for label in labels if label not in known]:
            raise BenchError(f"--subjects {unknown[0]}: no recording is of this person; there are: {', '.join(known)}")
        return replace(self, recordings=tuple(each for each in self.recordings if each.person in labels))


def find(paths: Sequence[Path], pattern: str = "") -> Study:
    """Finds all recordings in files and folders, whose links are followed.

    A person is a BIDS subject; elsewhere each folder directly in a given folder is a person, and each file that is in
    no such folder. pattern: a regular expression that is searched in each name instead; its group is the person.
    Raises BenchError if a path does not exist, if no recording is found, if one is found twice, and (exit 3) for a BIDS
    data set without the package mne-bids.
    """
    given = [Path(os.path.abspath(path.expanduser())) for path in paths]
    for path in given:
        if not path.exists():
            raise BenchError(f"{path}: no such file or folder; expected recordings ({', '.join(ENDINGS)}), or folders "
                             "with recordings")
    folders = [given[0]] if len(given) == 1 and given[0].is_dir() else [path.parent for path in given]
    base = Path(os.path.commonpath(folders))
    search = _Search(base, _compile(pattern))
    for path in given:
        search.add(path)
    if not search.recordings:
        files = [name for names in search.skipped.values() for name in names]
        there = f"there are {len(files):,} other files, such as {', '.join(sorted(files)[:5])}" if files else \
            "there is no file"
        reasons = "; ".join(f"{reason}: {len(names):,}" for reason, names in sorted(search.skipped.items()))
        raise BenchError(f"no recording in {', '.join(map(str, paths))}: expected files that end in "
                         f"{', '.join(ENDINGS)}; {there}" + (f" ({reasons})" if reasons else ""))
    skipped = {reason: tuple(sorted(names)) for reason, names in sorted(search.skipped.items())}
    return Study(base, tuple(_distinct_runs(search.recordings)), skipped)


class _Search:
    """Collects recordings, and what is skipped by reason, from files and folders."""

    def __init__(self, base: Path, pattern: re.Pattern[str] | None):
        self.base, self.pattern = base, pattern
        self.recordings: list[Recording] = []
        self.skipped: defaultdict[str, list[str]] = defaultdict(list)
        self._names: dict[tuple[int, int], str] = {}  # device and inode -> name
        self._folder: tuple[Path, set[str]] = Path(), set()

    def add(self, given: Path) -> None:
        """Adds a file, or all files of a folder."""
        files = [given]
        if given.is_dir():
            listing = list_files(given)
            files = list(listing.files)
            for reason, names in listing.skipped.items():
                self.skipped[reason] += [self._name(given / name) for name in names]
        roots: dict[Path, tuple[Path | None, str]] = {}  # by folder
        for path in files:
            name, folder = self._name(path), path.parent
            if folder not in roots:
                roots[folder] = _find_bids(folder, given)
            root, aside = roots[folder]
            if reason := f"in {aside}/ of a BIDS data set" if aside else self._reason_to_skip(path, root):
                self.skipped[reason].append(name)
                continue
            self._refuse_twice(path, name)
            session, run = _session_and_run(path) if root else ("", "")
            self.recordings.append(Recording(path, name, self._person(path, name, given, root), session, run or name,
                                             root))

    def _name(self, path: Path) -> str:
        return Path(os.path.relpath(path, self.base)).as_posix()

    def _refuse_twice(self, path: Path, name: str) -> None:
        try:
            status = path.stat()
        except OSError:  # a broken link: reading it will say so
            return
        key = status.st_dev, status.st_ino
        other = self._names.get(key, "")
        self._names[key] = name
        if other:
            raise BenchError(f"{other} and {name} are the same file in {self.base}, given twice or by a link; a "
                             "recording may count only once: leave one out")

    def _reason_to_skip(self, path: Path, bids: Path | None) -> str:
        """Returns why a file is no recording; "" if it is one, by its name."""
        stem, ending = split_ending(path.name)
        if header := COMPANIONS.get(ending):
            return "part of a recording" if f"{stem}{header}".lower() in self._beside(path) else \
                f"{ending} without a {header} of its name"
        if ending not in ENDINGS:
            if bids and (ending in (".tsv", ".json") or path.parent == bids):
                return "description in a BIDS data set"
            return f"ending {ending}" if ending else "no ending"
        if bids and not re.fullmatch(r"sub-[^_]+(_[^_]+-[^_]+)*_eeg", stem):
            return "in a BIDS data set, but not named sub-..._eeg"
        if ending.startswith(".fif"):
            if _first_part(path.name).lower() in self._beside(path):
                return "further part of a FIF recording"
            if OTHER_FIF.search(path.name):
                return "FIF without continuous EEG, by its name"
        return ""

    def _beside(self, path: Path) -> set[str]:
        """Returns the names of all files in a file's folder, in lower case."""
        if self._folder[0] != path.parent:
            self._folder = path.parent, {name.lower() for name in os.listdir(path.parent)}
        return self._folder[1]

    def _person(self, path: Path, name: str, given: Path, bids: Path | None) -> str:
        if self.pattern:
            match = self.pattern.search(name)
            if match is None or not match[1]:
                raise BenchError(f"--subject-pattern {self.pattern.pattern}: nothing in {name!r} fits; expected a "
                                 "pattern whose group tells the person of every recording, such as '(s[0-9]+)_'")
            return match[1]
        if bids:
            above = self._name(bids)
            label = path.name.split("_")[0]
            return label if above.startswith(".") else f"{above}/{label}"
        inner = path.relative_to(given).parts if given.is_dir() else ()
        return self._name(given / inner[0]) if inner else name


def _compile(pattern: str) -> re.Pattern[str] | None:
    try:
        compiled = re.compile(pattern) if pattern else None
    except re.error as error:
        raise BenchError(f"--subject-pattern {pattern}: not a regular expression ({error})") from error
    if compiled and compiled.groups != 1:
        raise BenchError(f"--subject-pattern {pattern}: {compiled.groups} groups; expected one, ( ), that tells the "
                         "person")
    return compiled


def _find_bids(folder: Path, given: Path) -> tuple[Path | None, str]:
    """Returns the nearest BIDS data set that a folder is (in), or None; and the folder of ASIDE, below the given one,
    that it is in, or ""."""
    root = None
    for each in (folder, *folder.parents):
        if each.name in ASIDE and (each.parent / DESCRIPTION).is_file():
            return (None, each.name) if each != given and each.is_relative_to(given) else (root, "")
        if root is None and (each / DESCRIPTION).is_file():
            root = each
    return root, ""


def _first_part(name: str) -> str:
    """Returns the name of the first file of a FIF recording in several files; "" if this is the first, or no part."""
    if match := re.search(r"-\d+(?=\.fif)", name, re.I):
        return name[: match.start()] + name[match.end():]
    if (match := re.search(r"(?<=_split-)\d+(?=_)", name)) and int(match[0]) > 1:
        return name[: match.start()] + "1".zfill(len(match[0])) + name[match.end():]
    return ""


def split_ending(name: str) -> tuple[str, str]:
    """Splits a file's name into its stem and its ending in lower case: "a.FIF.gz" into "a" and ".fif.gz"."""
    ending = Path(name).suffix.lower()
    if ending == ".gz":
        ending = "".join(Path(name).suffixes[-2:]).lower()
    return name[:len(name) - len(ending)], ending


def _session_and_run(path: Path) -> tuple[str, str]:
    """Returns the session of a BIDS file ("" if there is none) and its other entities, such as "task-rest_run-1"."""
    entities = split_ending(path.name)[0].split("_")[1:-1]
    session = next((entity[4:] for entity in entities if entity.startswith("ses-")), "")
    return session, "_".join(entity for entity in entities if not entity.startswith("ses-"))


def _distinct_runs(recordings: list[Recording]) -> Iterator[Recording]:
    """Yields the recordings by name; those of a person with the same session and run have their name as the run."""
    seen = Counter((each.person, each.session, each.run) for each in recordings)
    for each in sorted(recordings, key=lambda recording: recording.name):
        alone = seen[each.person, each.session, each.run] == 1
        yield each if alone else replace(each, run=each.name)


def check_bids(recordings: Sequence[Recording]) -> None:
    """Raises BenchError (exit 3) if a recording is of a BIDS data set and the package mne-bids is missing."""
    if root := next((each.bids for each in recordings if each.bids), None):
        try:
            import mne_bids  # noqa: F401
        except ImportError as error:
            raise BenchError(f"{root} is a BIDS data set, and mne-bids is not installed: pip install "
                             "eeg2image-bench[bids]", ENVIRONMENT) from error
