"""Nested sets of electrodes: which channels of a recording a smaller cap has, by name or by position."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.prepared import Array, Dataset, read_manifest

# Smallest first. Each set holds the one before it, so that a larger cap only adds electrodes (docs/data.md).
_8 = ("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2")
_16 = (*_8, "F7", "F8", "F3", "F4", "T7", "T8", "P3", "P4")
_24 = (*_16, "Fz", "Cz", "Pz", "TP9", "TP10", "Oz", "CP5", "CP6")
_32 = (*_24, "FC5", "FC1", "FC2", "FC6", "CP1", "CP2", "PO9", "PO10")
_64 = (*_32, "AF7", "AF3", "AF4", "AF8", "F5", "F1", "F2", "F6", "FT9", "FT7", "FC3", "FC4", "FT8", "FT10", "C5", "C1",
       "C2", "C6", "TP7", "CP3", "CPz", "CP4", "TP8", "P5", "P1", "P2", "P6", "PO7", "PO3", "POz", "PO4", "PO8")
_128 = (*_64, "F9", "F10", "P9", "P10", "AFz", "Iz", "I1", "I2", "AFp1", "AFp2", "AFF1h", "AFF2h", "AFF3h", "AFF4h",
        "AFF5h", "AFF6h", "FFT7h", "FFT8h", "FFC1h", "FFC2h", "FFC3h", "FFC4h", "FFC5h", "FFC6h", "FTT7h", "FTT8h",
        "FCC1h", "FCC2h", "FCC3h", "FCC4h", "FCC5h", "FCC6h", "TTP7h", "TTP8h", "CCP1h", "CCP2h", "CCP3h", "CCP4h",
        "CCP5h", "CCP6h", "TPP7h", "TPP8h", "TPP9h", "TPP10h", "CPP1h", "CPP2h", "CPP3h", "CPP4h", "CPP5h", "CPP6h",
        "PPO1h", "PPO2h", "PPO3h", "PPO4h", "PPO5h", "PPO6h", "PPO9h", "PPO10h", "POO1", "POO2", "POO9h", "POO10h",
        "OI1h", "OI2h")
CAPS: dict[int, tuple[str, ...]] = {len(cap): cap for cap in (_128, _64, _32, _24, _16, _8)}
TINY = (16, 8, 4)  # sizes in the tiny world, whose electrodes have positions and no standard names
OLD_NAMES = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}  # of the 10-20 system of 1958
STATED: dict[str, tuple[str, ...]] = {  # by data set: channels 1 to N in the data's order, for files without names
    # One of its authors: github.com/perceivelab/eeg_visual_classification, issue 4, comment of 11 December 2023. The
    # comment lists all 128 channels; only these could be read here.
    "imagenet_eeg": (
        "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "FC5", "FC1", "FC2", "FC6", "T7", "C3", "Cz", "C4", "T8", "TP9",
        "CP5", "CP1", "CP2", "CP6", "TP10", "P7", "P3", "Pz", "P4", "P8", "PO9", "O1", "Oz", "O2", "PO10", "AF7", "AF3",
        "AF4", "AF8", "F5", "F1", "F2"),
}


def pick_names(names: Sequence[str], channels: int) -> Array:
    """Returns the channels [K] of a recording that the cap of `channels` electrodes has, ascending; K may be smaller.

    names: of the recording's channels, "" if unknown. Upper and lower case and the old names T3 to T6 are equal.
    """
    first = {_normalise(name): row for row, name in reversed(list(enumerate(names)))}
    return np.array(sorted(first[name] for name in map(_normalise, CAPS[channels]) if name in first), np.int64)


def pick_positions(positions: Array, channels: int) -> Array:
    """Returns `channels` electrodes [channels] that are spread over the head, ascending; all if there are not more.

    positions: [C, 3]. The highest electrode is the first one. Each next one is as far as possible from those before it
    (the first of equals), so that the sets are nested.
    """
    chosen = [int(positions[:, 2].argmax())]
    distance = np.full(len(positions), np.inf)
    while len(chosen) < min(channels, len(positions)):
        distance = np.minimum(distance, np.linalg.norm(positions - positions[chosen[-1]], axis=1).round(9))
        chosen.append(int(distance.argmax()))
    return np.sort(chosen)


def find_fault(names: Sequence[str] | None, channels: int, n_chans: int) -> str:
    """Describes why a data set of `n_chans` channels cannot be reduced to a cap of `channels`; "" if it can.

    names: of its channels; () if it has none; None if they are not known yet.
    """
    fault = _find_wrong_size(channels, n_chans, tuple(CAPS))
    if fault or names is None:
        return fault
    if not any(names):
        return ("the names of its channels are not known: prepare it with ch_names, as electrodes are chosen by name "
                "and never by number")
    present = {_normalise(name) for name in names}
    if lacking := [name for name in CAPS[channels] if _normalise(name) not in present]:
        unnamed = n_chans - sum(map(bool, names))
        note = f" among the named ones; {unnamed} of its {n_chans} channels have no known name" if unnamed else ""
        return f"it has no electrode {', '.join(lacking[:8])}{', ...' if len(lacking) > 8 else ''}{note}"
    return ""


def find_tiny_fault(channels: int, n_chans: int) -> str:
    """Describes why a tiny world of `n_chans` channels cannot be reduced to `channels`; "" if it can."""
    return _find_wrong_size(channels, n_chans, TINY)


def _find_wrong_size(channels: int, n_chans: int, sizes: Sequence[int]) -> str:
    if channels >= n_chans:
        return f"it has {n_chans} channels; channels={channels} needs more than {channels}"
    if channels not in sizes:
        return f"there is no set of {channels} electrodes; there are sets of {', '.join(map(str, sizes))}"
    return ""


def channel_names(world: Dataset) -> tuple[str, ...] | None:
    """Returns the names of a prepared data set's channels: of its manifest, or those that its authors stated elsewhere,
    "" for a channel without a name; (): no name is known. None if the data set is not prepared and nothing is stated.
    """
    if not world.path:
        return STATED.get(world.name)
    return _read_names(Path(world.path), world.sha256)


@functools.cache
def _read_names(folder: Path, sha256: str) -> tuple[str, ...]:
    manifest, _ = read_manifest(folder, "pairs", sha256)
    return stated_names(manifest, manifest["n_chans"])


def stated_names(manifest: Mapping[str, Any], n_chans: int) -> tuple[str, ...]:
    """Returns the names of `n_chans` channels by a data set's manifest, as `channel_names`."""
    names, stated = tuple(manifest.get("ch_names", ())), STATED.get(manifest["name"], ())
    return names if names or not stated else stated + ("",) * (n_chans - len(stated))


@functools.cache
def corpus_names_channels(folder: Path, sha256: str) -> bool:
    """Returns whether the manifest of a prepared corpus names the channels of every shard."""
    return names_channels(read_manifest(folder, "corpus", sha256)[0])


def names_channels(manifest: Mapping[str, Any]) -> bool:
    """Returns whether the manifest of a corpus names the channels of every shard."""
    return all(any(shard.get("ch_names", ())) for shard in manifest["shards"])


def _normalise(name: str) -> str:
    lower = name.lower()
    return OLD_NAMES.get(lower, lower)
