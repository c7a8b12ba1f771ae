"""Builds the encoder that a value names: one of the suite's, a model of braindecode, or a user's own file."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench import modules
from bench.data.tiny import electrode_positions
from bench.errors import ENVIRONMENT, BenchError
from bench.experiment import encoders
from bench.experiment.encoders import Braindecode
from bench.experiment.stages import Encoder
from bench.files import sha256
from bench.runtime import Runtime

HEAD = 0.095  # m, the radius of MNE's standard head


def build(value: Encoder, channels: int, times: int, runtime: Runtime) -> nn.Module:
    """A freshly initialised encoder, [B, C, T] -> [B, L, width]; the caller has seeded torch.

    Raises BenchError when a user's source is not the one that the value's hash names, and for a model of braindecode
    that cannot take the EEG, or weights that are not its own.
    """
    if isinstance(value, Braindecode):
        return _braindecode(value, channels, times)
    if not value.code:
        module = importlib.import_module(f"models.encoders.{value.name}")
        return module.Encoder(channels, times, value.width, value.depth, value.heads,
                              mlp_ratio=value.mlp_ratio, patch=value.patch)
    path = runtime.encoders / value.code / f"{value.name}.py" if runtime.encoders else Path(value.path)
    if encoders.code(path) != value.code:
        raise BenchError(f"{path} is not the source that this stage was planned with; run again")
    own = modules.from_file(path, f"encoder_{value.code}").Encoder
    ratio = {"mlp_ratio": value.mlp_ratio} if "mlp_ratio" in inspect.signature(own).parameters else {}
    return own(channels, times, value.width, value.depth, value.heads, **ratio)


def check(value: Encoder) -> None:
    """Raises what `build` would for a model of braindecode on the EEG that it was planned for; of others nothing."""
    if isinstance(value, Braindecode):
        with torch.random.fork_rng(devices=[]):
            _braindecode(value, value.n_chans, value.n_times)


def _braindecode(value: Braindecode, channels: int, times: int) -> nn.Module:
    from models import braindecode  # imports it: some seconds

    if (channels, times) != (value.n_chans, value.n_times):
        raise BenchError(f"braindecode's {value.name} was planned for EEG [{value.n_chans}, {value.n_times}] and is "
                         f"given [{channels}, {times}], such as an oracle's; take encoder='linear' for that")
    if (there := importlib.metadata.version("braindecode")) != value.version:
        raise BenchError(f"this stage was planned with braindecode {value.version}, and {there} is installed; run "
                         "again", ENVIRONMENT)
    path = None
    if value.weights is not None:
        path = Path(value.weights.path)
        if not path.is_file() or sha256(path) != value.weights.sha256:
            raise BenchError(f"{path} is not the file of weights that this stage was planned with (SHA-256 "
                             f"{value.weights.sha256[:12]}); restore it, or run again", ENVIRONMENT)
    signal = braindecode.Signal(channels, times, value.sfreq, value.channels, _positions(value))
    try:
        return braindecode.Encoder(value.name, signal, value.width, dict(value.settings), path)
    except ValueError as error:
        raise BenchError(str(error)) from error


def _positions(value: Braindecode) -> np.ndarray | None:
    """Where the electrodes are, [n_chans, 3] in m; None where a name has no place in the montage."""
    if value.montage == "tiny":
        return HEAD * electrode_positions(value.n_chans)
    if not value.montage:
        return None
    import mne

    montage = mne.channels.make_standard_montage(value.montage).get_positions()["ch_pos"]
    places = {name.lower(): place for name, place in montage.items()}
    if not {name.lower() for name in value.channels} <= places.keys():
        return None
    return np.stack([places[name.lower()] for name in value.channels])
