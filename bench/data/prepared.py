"""Data that `bench data prepare` has brought into one form, as values: a stage's key holds the hash of the manifest."""

from __future__ import annotations

from dataclasses import dataclass, field

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Prepared:
    """A data set of EEG and pictures, as a folder (docs/data.md).

    sha256: of its manifest, which holds those of its files; "" where it is not there yet, so that it can be planned
    with and not run.
    """

    name: str
    sha256: str
    n_chans: int
    n_times: int
    sfreq: float  # Hz, of n_times
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Shards:
    """Unlabelled EEG windows, as a folder of un-padded float16 shards (docs/data.md); sha256 as of Prepared."""

    name: str
    sha256: str
    n_chans: int  # to which fewer are replicated
    n_times: int
    path: str = field(default="", compare=False)
