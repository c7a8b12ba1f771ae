"""docs/examples/real_eeg.py on a recording of EEGLAB's format that is written here."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from bench.data import prepared
from bench.data.recordings import normalise

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "real_eeg.py"
SFREQ, N, TRIALS = 128.0, 7000, 60


def write_set(path, signal):
    """60 squares at two positions, each followed by a response; `signal` in µV is how their responses differ."""
    rng = np.random.default_rng(0)
    position, latency = np.tile([1, 2, 2, 1], TRIALS // 4), 300 + 110 * np.arange(TRIALS)
    data = 10 * rng.standard_normal((5, N))
    for begin, where in zip(latency - 1, position, strict=True):
        data[where, begin : begin + 64] += signal * np.sin(np.arange(64) / 4)
    events = [{"type": kind, "position": int(where), "latency": float(sample)}
              for sample, where in zip(latency, position, strict=True)
              for kind, sample in (("square", sample), ("rt", sample + 40))]
    savemat(path, {"EEG": {
        "setname": "squares", "filename": path.name, "nbchan": 5, "trials": 1, "pnts": N, "srate": SFREQ, "xmin": 0.0,
        "xmax": N / SFREQ, "data": data.astype(np.float32), "event": events, "epoch": [], "icaweights": [],
        "icawinv": [], "chanlocs": [{"labels": name} for name in ("EOG1", "Fz", "Cz", "Pz", "Oz")]}})
    return data, position, latency - 1


def run(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(path), str(path.parent / "data")])
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.parametrize("signal", [5.0, 0.0])
def test_the_example_reads_positions_and_finds_them_in_the_eeg_if_they_are_there(tmp_path, monkeypatch, capsys, signal):
    data, position, first = write_set(tmp_path / "squares.set", signal)
    names = run(tmp_path / "squares.set", monkeypatch)
    assert (names["position"] == position - 1).all()
    assert names["raw"].ch_names == ["EOG1", "Fz", "Cz", "Pz", "Oz"]
    folder = tmp_path / "data" / "squares"
    eeg = np.load(folder / prepared.eeg_file((0.5, 40.0)))
    filtered = mne.filter.filter_data(data[1:].astype(np.float32).astype(float), SFREQ, 0.5, 40.0, verbose="error")
    for row, begin in enumerate(first):
        assert np.allclose(eeg[row], normalise(filtered[None, :, begin : begin + 64])[0], rtol=2e-3, atol=2e-3)
    assert pd.read_csv(folder / "trials.csv")["part_item"].tolist() == ["train"] * 45 + ["test"] * 15
    assert "4 channels; 45 training trials, 15 test trials" in capsys.readouterr().out
    assert (names["accuracy"] > 0.9 and names["p"] < 0.01) if signal else names["p"] > 0.01
