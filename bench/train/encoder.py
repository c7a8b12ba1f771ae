"""Builds encoders: one of the suite's, a model of braindecode, or a user's file."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from pathlib import Path
from typing import Any

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
    """Returns a newly initialised encoder, [B, C, T] -> [B, L, width]; the caller has seeded torch.
    Raises BenchError if a user's source has changed since planning, or a model of braindecode does not accept the EEG
    or its weights."""
    if isinstance(value, Braindecode):
        return _braindecode(value, channels, times)
    if not value.code:
        module = importlib.import_module(f"models.encoders.{value.name}")
        return module.Encoder(channels, times, value.width, value.depth, value.heads,
                              mlp_ratio=value.mlp_ratio, patch=value.patch)
    user_encoder = modules.import_file(find_source(value, runtime), f"encoder_{value.code}").Encoder
    ratio = {"mlp_ratio": value.mlp_ratio} if "mlp_ratio" in inspect.signature(user_encoder).parameters else {}
    return user_encoder(channels, times, value.width, value.depth, value.heads, **ratio)


def find_source(value: Any, runtime: Runtime) -> Path:
    """A user's file: the store's copy from planning, or without a store the original. Raises BenchError if changed."""
    path = runtime.encoders / value.code / f"{value.name}.py" if runtime.encoders else Path(value.path)
    if encoders.source_hash(path) != value.code:
        raise BenchError(f"{path} has changed since this stage was planned; run again")
    return path


def check(value: Encoder) -> None:
    """Builds a model of braindecode for the planned EEG and raises what `build` raises; checks no other encoder."""
    if isinstance(value, Braindecode):
        with torch.random.fork_rng(devices=[]):
            _braindecode(value, value.n_chans, value.n_times)


def _braindecode(value: Braindecode, channels: int, times: int) -> nn.Module:
    from models import braindecode  # takes seconds to import

    if (channels, times) != (value.n_chans, value.n_times):
        raise BenchError(f"braindecode's {value.name} was planned for EEG [{value.n_chans}, {value.n_times}], not "
                         f"[{channels}, {times}] (an oracle's?); use encoder='linear' for that")
    if (installed := importlib.metadata.version("braindecode")) != value.version:
        raise BenchError(f"this stage was planned with braindecode {value.version}, but {installed} is installed; run "
                         "again", ENVIRONMENT)
    path = None
    if value.weights is not None:
        path = Path(value.weights.path)
        if not path.is_file() or sha256(path) != value.weights.sha256:
            raise BenchError(f"{path} is missing or has changed since this stage was planned (SHA-256 "
                             f"{value.weights.sha256[:12]}); restore it, or run again", ENVIRONMENT)
    signal = braindecode.Signal(channels, times, value.sfreq, value.channels, _positions(value))
    try:
        return braindecode.Encoder(value.name, signal, value.width, dict(value.settings), path)
    except ValueError as error:
        raise BenchError(str(error)) from error


def _positions(value: Braindecode) -> np.ndarray | None:
    """The electrodes' positions [n_chans, 3] in m; None if the montage lacks one of the channels."""
    if value.montage == "tiny":
        return HEAD * electrode_positions(value.n_chans)
    if not value.montage:
        return None
    import mne

    montage = mne.channels.make_standard_montage(value.montage).get_positions()["ch_pos"]
    positions = {name.lower(): place for name, place in montage.items()}
    names = [name.lower() for name in value.channels]
    return np.stack([positions[name] for name in names]) if set(names) <= positions.keys() else None
