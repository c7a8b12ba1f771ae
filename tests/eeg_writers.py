"""Small EEG recordings in the formats that users have, written by MNE, pybv and edfio."""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np

from bench.data.recordings import as_raw

SFREQ = 256.0


def make_raw(channels: int = 32, seconds: float = 20.0, sfreq: float = SFREQ, seed: int = 0) -> mne.io.RawArray:
    """A recording of noise of 20 µV, channels E0, E1, ..."""
    data = 20 * np.random.default_rng(seed).standard_normal((channels, int(seconds * sfreq)))
    return as_raw(np.clip(data, -120, 120), sfreq, [f"E{i}" for i in range(channels)])


def write(raw: mne.io.BaseRaw, file: Path) -> Path:
    """Writes a recording in the format of the file's ending, and returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.name.endswith((".fif", ".fif.gz")):
        raw.save(file, verbose="error", overwrite=True)
    elif file.suffix == ".set":
        write_set(raw, file)
    elif file.suffix == ".gdf":
        write_gdf(raw, file)
    else:
        made = file.with_suffix(file.suffix.lower())
        mne.export.export_raw(made, raw, overwrite=True, verbose="error",
                              **({"physical_range": (-200.0, 200.0)} if made.suffix in (".edf", ".bdf") else {}))
        made.rename(file)
    return file


def write_set(raw: mne.io.BaseRaw, file: Path, boundary: float | None = None) -> None:
    """Writes an EEGLAB set, its samples inside. boundary: latency in samples, from 1 on, of an event of this type."""
    from scipy.io import savemat

    events = [] if boundary is None else np.array(
        [(boundary, "boundary", np.nan)], dtype=[("latency", "O"), ("type", "O"), ("duration", "O")])
    names = np.array([(name,) for name in raw.ch_names], dtype=[("labels", "O")])
    savemat(file, {"EEG": {"data": (raw.get_data() * 1e6).astype(np.float64), "srate": raw.info["sfreq"],
                           "nbchan": len(raw.ch_names), "pnts": raw.n_times, "trials": 1, "xmin": 0.0,
                           "xmax": raw.times[-1], "chanlocs": names, "event": events, "epoch": [], "ref": "common",
                           "setname": file.stem}}, appendmat=False)


def write_gdf(raw: mne.io.BaseRaw, file: Path) -> None:
    """Writes a GDF 1.25 of float32 µV, a second a record, without events."""
    n, rate = len(raw.ch_names), int(raw.info["sfreq"])
    records = raw.n_times // rate

    def text(value: str, size: int) -> bytes:
        return value.encode().ljust(size)

    def numbers(value: float, kind: str, count: int = n) -> bytes:
        return np.full(count, value, kind).tobytes()

    head = [text("GDF 1.25", 8), text("X", 80), text("", 80), text("2020010112000000", 16),
            numbers(256 * (n + 1), "<i8", 1), bytes(24), bytes(20), numbers(records, "<i8", 1), numbers(1, "<u4", 2),
            numbers(n, "<u4", 1), *(text(name, 16) for name in raw.ch_names), bytes(80 * n), text("uV", 8) * n,
            numbers(-200, "<f8"), numbers(200, "<f8"), numbers(-200, "<i8"), numbers(200, "<i8"), bytes(80 * n),
            numbers(rate, "<i4"), numbers(16, "<i4"), bytes(32 * n)]
    data = (raw.get_data(stop=records * rate) * 1e6).reshape(n, records, rate).swapaxes(0, 1)
    file.write_bytes(b"".join(head) + data.astype("<f4").tobytes() + bytes(8))


def write_bids(root: Path, subject: str, session: str | None = None, run: str | None = None, seconds: float = 4.0,
               seed: int = 0) -> None:
    """Writes a BIDS recording (BrainVision) in which E5 is an EOG and E7 is bad."""
    import mne_bids

    raw = make_raw(seconds=seconds, seed=seed)
    raw.set_channel_types({"E5": "eog"})
    raw.info["bads"] = ["E7"]
    mne_bids.write_raw_bids(raw, mne_bids.BIDSPath(subject=subject, session=session, run=run, task="rest", root=root,
                                                   datatype="eeg"),
                            format="BrainVision", allow_preload=True, overwrite=True, verbose="error")
