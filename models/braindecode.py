"""Any model of braindecode as an EEG encoder: what enters its final layer, as tokens."""

from __future__ import annotations

import inspect
import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import mne
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.signal import resample_poly
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MNE's new names of montages
    import braindecode.models as zoo

FIRST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm,
         nn.InstanceNorm1d, nn.InstanceNorm2d)  # layers whose features lie on axis 1; all others' lie on the last
WIDTHS = ("out_channels", "out_features", "num_features", "num_channels", "normalized_shape", "embed_dim")
UNNAMED = ("STEEGFormer",)  # looks the channels' names up in a list that it downloads
BY_NAME = ("BENDR", "Labram", "STEEGFormer")  # have learned something about each channel, found by its name
LONGEST = 2048  # times up to which it is tried whether a longer window would do


@dataclass(frozen=True)
class Signal:
    """What the EEG [B, n_chans, n_times] is: `sfreq` in Hz, names and positions [n_chans, 3] (m, MNE's head frame; x
    to the right, y to the front) of its channels where they are known."""

    n_chans: int
    n_times: int
    sfreq: float
    names: tuple[str, ...] = ()
    positions: np.ndarray | None = None

    def __str__(self) -> str:
        return f"EEG of {self.n_chans} channels and {self.n_times} times at {self.sfreq:.6g} Hz"

    def chs_info(self) -> list[dict[str, Any]] | None:
        """The channels as braindecode wants them, None where nothing is known of them."""
        if not self.names:
            return None
        found: list[dict[str, Any]] = [{"ch_name": name, "kind": "eeg"} for name in self.names]
        if self.positions is not None:
            for channel, place in zip(found, self.positions, strict=True):
                channel["loc"] = np.concatenate([place, np.zeros(9)])
        return found


class Encoder(nn.Module):
    """EEG [B, C, T] to tokens [B, L, width]: a model of braindecode up to its final layer, then one linear map.

    settings: the model's own keyword arguments. Two of them say what EEG the model sees: it is resampled to `sfreq` and
    then filled up with zeros at its end to `n_times`. Without them it sees the EEG as it is.

    What enters the final layer is [B, F], one token, or has several axes. Then features are where the last layer with
    weights before it wrote them: on the only axis that is as long as that layer is wide, else on axis 1 for
    convolutions and the norms beside them and on the last axis for all others. The other axes are tokens, in their
    order. A final layer that is a list has as many inputs, each a token. A model without one gives what it returns.

    The final layer, and whatever else no token depends on, is no parameter of the module. weights: a file of the whole
    model (`load`). Raises ValueError for what cannot be built, in one line.
    """

    def __init__(self, model: str, signal: Signal, width: int, settings: dict[str, Any] | None = None,
                 weights: Path | None = None):
        super().__init__()
        device = torch.get_default_device()
        with (torch.device("cpu"), torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings(),
              mne.use_log_level("ERROR")):
            warnings.simplefilter("ignore")  # the models' remarks on windows and rates; docs/systems.md has them
            settings = dict(settings or {})
            self.sees = seen(signal, settings.pop("sfreq", None), settings.pop("n_times", None))
            self.register_buffer("resample", _resampling(signal, self.sees), persistent=False)
            self.model = built(model, self.sees, width, settings)
            if weights is not None:
                if model in BY_NAME and not (signal.names or "chan_pos_idx" in settings):
                    raise ValueError(f"weights of braindecode's {model} know each channel by its name; the data set "
                                     "states none")
                load(self.model, weights)
            self._inputs: list[Tensor] = []
            self._take_head()
            features, layer = self._probed(model)
            self._axis = 1 if layer is None or features.ndim == 2 else feature_axis(features.shape, layer)
            self.project = nn.Linear(features.shape[self._axis], width)
        self.to(device)

    def forward(self, eeg: Tensor) -> Tensor:
        features = self._features(eeg)
        if features.ndim == 2:
            return self.project(features)[:, None]
        return self.project(features.movedim(self._axis, -1).flatten(1, -2))

    def _features(self, eeg: Tensor) -> Tensor:
        """What enters the final layer."""
        if self.resample is not None:
            eeg = eeg @ self.resample
        eeg = F.pad(eeg, (0, self.sees.n_times - eeg.shape[-1]))
        self._inputs.clear()
        result = run(self.model, eeg, self.sees)
        found = self._inputs or [result]
        features = torch.stack(found, 1) if len(found) > 1 else found[0]
        self._inputs.clear()
        return features

    def _take_head(self) -> None:
        """Puts in the place of the final layer what keeps its input."""
        final = getattr(self.model, "final_layer", None)
        if isinstance(final, nn.ModuleList):
            self.model.final_layer = nn.ModuleList(_Input(self._inputs) for _ in final)
        elif final is not None:
            self.model.final_layer = _Input(self._inputs)

    def _probed(self, name: str) -> tuple[Tensor, nn.Module | None]:
        """What enters the final layer for noise, and the last layer with weights before it, if any; parameters on which
        the former does not depend become constants."""
        ran: list[nn.Module] = []
        layers = [layer for layer in self.model.modules() if wide(layer)]
        handles = [layer.register_forward_hook(lambda layer, *_: ran.append(layer)) for layer in layers]
        noise = torch.randn((2, self.sees.n_chans, self.sees.n_times), generator=torch.Generator().manual_seed(0))
        self.model.eval()
        resample, self.resample = self.resample, None
        features = self._features(noise)
        self.resample = resample
        for handle in handles:
            handle.remove()
        if not isinstance(features, Tensor) or features.ndim < 2 or not features.requires_grad:
            raise ValueError(f"braindecode's {name} gives nothing that could be tokens")
        features.sum().backward()
        for path, parameter in list(self.model.named_parameters()):
            if parameter.grad is None:
                parent, _, leaf = path.rpartition(".")
                module = self.model.get_submodule(parent)
                del module._parameters[leaf]
                module.register_buffer(leaf, parameter.detach(), persistent=False)
        self.model.zero_grad(set_to_none=True)
        self.model.train()
        return features.detach(), ran[-1] if ran else None


class _Input(nn.Module):
    """In a final layer's place: keeps its (first) input and passes it on."""

    def __init__(self, kept: list[Tensor]):
        super().__init__()
        self._kept = kept

    def forward(self, features: Tensor, *_: Any, **__: Any) -> Tensor:
        self._kept.append(features)
        return features


def wide(layer: nn.Module) -> int:
    """How many features a layer with weights of its own writes; 0 for any other module."""
    if isinstance(layer, (nn.LSTM, nn.GRU)):
        return layer.hidden_size * (1 + layer.bidirectional)
    if "weight" not in layer._parameters and not hasattr(layer, "parametrizations") and not isinstance(
            layer, nn.MultiheadAttention):
        return 0
    found = next((getattr(layer, name) for name in WIDTHS if hasattr(layer, name)), 0)
    return found[-1] if isinstance(found, tuple) else found


def feature_axis(shape: torch.Size, layer: nn.Module) -> int:
    """The axis of features in what enters a final layer, of which `layer` is the last with weights; as Encoder says."""
    axes = [axis for axis in range(1, len(shape)) if shape[axis] == wide(layer)]
    return axes[0] if len(axes) == 1 else 1 if isinstance(layer, FIRST) else len(shape) - 1


def seen(signal: Signal, sfreq: float | None = None, n_times: int | None = None) -> Signal:
    """What a model sees of EEG that is resampled to `sfreq` and filled up to `n_times`. Raises ValueError for fewer
    times than there are."""
    for name, value in (("sfreq", sfreq), ("n_times", n_times)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
            raise ValueError(f"{name} is a number above 0, not {value!r}")
    if sfreq is not None:
        ratio = _ratio(signal.sfreq, sfreq)
        there = -(-signal.n_times * ratio.numerator // ratio.denominator)
        signal = replace(signal, n_times=there, sfreq=float(sfreq))
    if n_times is not None:
        if n_times < signal.n_times or n_times != int(n_times):
            raise ValueError(f"n_times={n_times} would cut the EEG, which has {signal.n_times} times at "
                             f"{signal.sfreq:.6g} Hz; give as many or more")
        signal = replace(signal, n_times=int(n_times))
    return signal


def _ratio(sfreq: float, to: float) -> Fraction:
    return (Fraction(to) / Fraction(sfreq).limit_denominator(10_000)).limit_denominator(1000)


def _resampling(signal: Signal, sees: Signal) -> Tensor | None:
    """The linear map [T, T'] of EEG to another rate (scipy.signal.resample_poly: its low-pass, zeros beyond the ends);
    None where the rate stays."""
    if signal.sfreq == sees.sfreq:
        return None
    ratio = _ratio(signal.sfreq, sees.sfreq)
    return torch.from_numpy(resample_poly(np.eye(signal.n_times), ratio.numerator, ratio.denominator, axis=1)).float()


def run(model: nn.Module, eeg: Tensor, signal: Signal) -> Any:
    """What a model makes of EEG; one that asks for the channels' names (LaBraM) is told them."""
    if signal.names and "ch_names" in inspect.signature(model.forward).parameters:
        return model(eeg, ch_names=list(signal.names))
    return model(eeg)


def built(model: str, signal: Signal, n_outputs: int, settings: dict[str, Any]) -> nn.Module:
    """A model of braindecode for such EEG, which it has seen once. Raises ValueError, in one line, where it cannot be,
    with the least number of times where more of them would do."""
    def attempt(n_times: int) -> nn.Module:
        found = _new(model, replace(signal, n_times=n_times), n_outputs, settings)
        found.eval()
        with torch.no_grad():
            run(found, torch.zeros(2, signal.n_chans, n_times), signal)
        return found.train()

    try:
        return attempt(signal.n_times)
    except Exception as error:  # whatever a model raises where its kernels do not fit
        why = " ".join(str(error).split()) or type(error).__name__
        said = f"braindecode's {model} cannot take {signal}"
        cause = error
    if not signal.names and ("chs_info" in why or "ch_names" in why):
        raise ValueError(f"{said}: it needs to know the channels, of which the data set states neither names nor "
                         f"positions ({why})") from cause
    if isinstance(cause, _Refused):
        raise ValueError(f"{said}: {why}") from cause
    patch = settings.get("patch_size") or getattr(
        inspect.signature(getattr(zoo, model)).parameters.get("patch_size"), "default", 0)
    least = _least(attempt, signal.n_times, patch if isinstance(patch, int) else 0)
    if least is None:
        raise ValueError(f"{said}: {why}") from cause
    raise ValueError(f"{said}; it needs {least} times at least ({why}); set n_times={least} to have zeros appended, or "
                     "make its kernels smaller") from cause


class _Refused(ValueError):
    """What no longer window would mend."""


def _new(model: str, signal: Signal, n_outputs: int, settings: dict[str, Any]) -> nn.Module:
    kind = getattr(zoo, model)
    there = inspect.signature(kind).parameters
    chs_info = None if model in UNNAMED else signal.chs_info()
    given = {"n_chans": signal.n_chans, "n_times": signal.n_times, "sfreq": signal.sfreq, "n_outputs": n_outputs,
             "chs_info": chs_info}
    if chs_info is None:
        if "chs_info" in there and there["chs_info"].default is inspect.Parameter.empty:
            raise _Refused("it needs the positions of the electrodes, which the data set does not state")
        del given["chs_info"]
    if model == "REVE":
        _positions_of_reve()
    try:
        return kind(**{name: value for name, value in given.items() if name in there} | settings)
    except TypeError as error:
        raise _Refused(str(error)) from error


def _positions_of_reve() -> None:
    """Raises where REVE would download its positions of electrodes."""
    folder = mne.get_config("REVE_POSITIONS_PATH") or mne.get_config("MNE_DATA") or Path.home() / "mne_data"
    file = Path(folder).expanduser() / "reve_positions.json"
    try:
        json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise _Refused(f"it would download positions of electrodes; put its reve_positions.json at {file}") from error


def _least(attempt: Callable[[int], Any], n_times: int, patch: int) -> int | None:
    """The least number of times above n_times with which `attempt` raises nothing; None if there is none found."""
    def works(times: int) -> bool:
        try:
            attempt(times)
        except Exception:  # other people's networks refuse a length in whatever way they like
            return False
        return True

    tried = [-(-n_times // patch) * patch] if patch else []
    tried += [n_times * 4, n_times * 16]
    above = next((times for times in tried if n_times < times <= LONGEST and works(times)), None)
    if above is None:
        return None
    below = n_times
    while above - below > 1:
        middle = (above + below) // 2
        if works(middle):
            above = middle
        else:
            below = middle
    return above


def head(model: nn.Module) -> list[str]:
    """The exact names of the tensors of a model's final layer, its classification, of which nothing is used."""
    final = getattr(model, "final_layer", None)
    return [] if final is None else [f"final_layer.{name}" for name in final.state_dict()]


def load(model: nn.Module, path: Path) -> None:
    """Loads a file of all of a model's tensors: safetensors, or what torch saved (weights only; a dict of tensors, or
    one under "state_dict").

    Those of `head` may be absent or of another shape and are not read; of all others none may be absent, of another
    shape or too many. Names that braindecode says were once used (`mapping`) count as today's. Raises ValueError that
    names the file and the tensor.
    """
    renamed = model.mapping or {} if hasattr(model, "mapping") else {}
    found = {renamed.get(name, name): tensor for name, tensor in _read(path).items()}
    unused, own = set(head(model)), model.state_dict()
    missing, foreign = sorted(own.keys() - unused - found.keys()), sorted(found.keys() - own.keys())
    if missing or foreign:
        what = f"lacks {_some(missing)}" if missing else f"holds {_some(foreign)}, which the model does not have"
        raise ValueError(f"{path} {what}; only the classification is not read: {', '.join(sorted(unused)) or 'none'}")
    for name in own.keys() - unused:
        if found[name].shape != own[name].shape:
            raise ValueError(f"{path}: tensor {name} is {list(found[name].shape)}, {list(own[name].shape)} is expected "
                             f"of {type(model).__name__} with these settings and this EEG")
    kept = {name: own[name] for name in unused}
    nn.Module.load_state_dict(model, {name: found[name] for name in own.keys() - unused} | kept)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(f"{path} is no file of weights that can be read without running its code "
                         f"({type(error).__name__}); save a state_dict, best as safetensors") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError(f"{path} holds no tensors by name; save a state_dict, best as safetensors")
    return found
