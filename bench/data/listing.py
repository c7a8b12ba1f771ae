"""Lists the files of a folder and its subfolders: links are followed, and what is left out is counted by reason."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import BenchError

HIDDEN, HIDDEN_FOLDER, CIRCLE, NO_ENDING = "hidden", "hidden folder", "link to a folder above it", "no ending"
SHOWN = 3  # names for each reason


@dataclass(frozen=True)
class Listing:
    """files: sorted paths; skipped: reason -> names below the folder, sorted. A folder's name ends with a slash."""

    files: tuple[Path, ...] = ()
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def list_files(folder: Path, endings: Sequence[str] = (), hidden: bool = False) -> Listing:
    """Lists the files below `folder` whose names have one of `endings` (in lower case, with the dot); (): any.

    Links to files and to folders are followed, also where two links lead to one folder. A link to a folder that
    contains the link would never end, so it is left out. Hidden files and folders (names with a dot first), unless
    `hidden`, and other endings are left out. All that is left out is in `skipped`. Raises BenchError for a folder that
    cannot be listed.
    """
    files: list[Path] = []
    skipped: dict[str, list[str]] = {}
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        inner = Path(place)
        reasons = {name: reason for name in folders if (reason := _reject_folder(folder, inner / name, hidden))}
        folders[:] = [name for name in folders if name not in reasons]
        rejected = [(f"{name}/", reason) for name, reason in reasons.items()]
        for name in names:
            if reason := _reject_file(name, endings, hidden):
                rejected.append((name, reason))
            else:
                files.append(inner / name)
        for name, reason in rejected:
            below = inner.relative_to(folder).as_posix()
            skipped.setdefault(reason, []).append(name if below == "." else f"{below}/{name}")
    return Listing(tuple(sorted(files)), {reason: tuple(sorted(skipped[reason])) for reason in sorted(skipped)})


def describe_counts(counts: Mapping[str, int]) -> str:
    """Returns each reason with its count, the largest first: "gap: 12, flat: 3"; "nothing" for none."""
    return ", ".join(f"{reason}: {n:,}" for reason, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
                     ) or "nothing"


def describe_names(names: Sequence[str], most: int = 10) -> str:
    """Returns the first names: "a, b and 3 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def describe_skipped(skipped: Mapping[str, Sequence[str]]) -> str:
    """Returns how many were left out for each reason, with the first names; "" for none."""
    return ", ".join(f"{len(names)} {reason} ({_first(names)})" for reason, names in skipped.items())


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)


def _refuse(error: OSError) -> None:
    raise BenchError(f"{error.filename} cannot be listed: {error.strerror}; give read access, or remove it") from error


def _reject_file(name: str, endings: Sequence[str], hidden: bool) -> str:
    """Returns the reason why a file is left out; "" if it is read."""
    if name.startswith(".") and not hidden:
        return HIDDEN
    ending = Path(name).suffix.lower()
    return "" if not endings or ending in endings else f"ending {ending}" if ending else NO_ENDING


def _reject_folder(top: Path, folder: Path, hidden: bool) -> str:
    """Returns why a folder is left out, "" if it is not."""
    if folder.name.startswith(".") and not hidden:
        return HIDDEN_FOLDER
    if not folder.is_symlink():
        return ""
    above = [folder.parent, *(parent for parent in folder.parent.parents if parent.is_relative_to(top))]
    passed = [path.resolve() for path in above]
    on_the_way = {*passed, *(parent for path in passed for parent in path.parents)}
    return CIRCLE if folder.resolve() in on_the_way else ""
